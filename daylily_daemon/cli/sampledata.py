"""A workset as a lab would drop it, made of random reads: for the demo, trials and tests."""

from __future__ import annotations

import gzip
import io
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from daylily_daemon.domain.sheet import COLUMNS, RECIPE_FILE, SHEET_FILE

FASTQ_FOLDER: Final = "sample_data"
INFO_FILE: Final = "daylily_info.yaml"
READY_FILE: Final = "daylily.ready"
READY_BODY: Final = "20251016T111111"
"""As real ones are: no line end, no time zone."""

_QUALITIES: Final = "".join(chr(33 + score) for score in (37, 37, 37, 36, 35, 33, 30, 25, 12, 2))
_COMPLEMENT: Final = str.maketrans("ACGT", "TGCA")


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleWorkset:
    """What to write. Equal values give equal bytes."""

    samples: int = 3
    reads: int = 2000
    """Pairs of reads a sample."""
    read_length: int = 100
    seed: int = 1
    pipeline: str = "demo"
    uri: str = ""
    """``s3://bucket/prefix/`` where the folder will lie; empty puts relative paths into the sheet."""
    leave_out_a_fastq: bool = False
    """Do not write the last FASTQ file, though the sheet names it."""


def write_sample_workset(folder: Path, wanted: SampleWorkset | None = None) -> list[Path]:
    """Write recipe, sheet, information and FASTQ files; return them in the order to upload.

    ``daylily.ready`` comes last: put it where it triggers only after everything else is there.
    """
    spec = wanted or SampleWorkset()
    fastq = folder / FASTQ_FOLDER
    fastq.mkdir(parents=True, exist_ok=True)
    mates = [(sample, mate) for sample in _samples(spec) for mate in (1, 2)]
    written = [fastq / _fastq_name(sample, mate) for sample, mate in mates]
    if spec.leave_out_a_fastq:
        mates, written = mates[:-1], written[:-1]
    for (sample, mate), path in zip(mates, written, strict=True):
        path.write_bytes(_gzipped(_reads(spec, sample, mate)))
    texts = {
        SHEET_FILE: _sheet(spec),
        RECIPE_FILE: _recipe(spec),
        INFO_FILE: "# Free notes of the lab; only their existence counts.\nlab: sample data\n",
        READY_FILE: READY_BODY,
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8", newline="")
    return [*written, *(folder / name for name in texts)]


def _samples(spec: SampleWorkset) -> list[str]:
    return [f"SAMPLE{number:02d}" for number in range(1, spec.samples + 1)]


def _fastq_name(sample: str, mate: int) -> str:
    return f"RIH0_ANA0-{sample}_DBC0_0.R{mate}.fastq.gz"


def _recipe(spec: SampleWorkset) -> str:
    recipe = {
        "pipeline": spec.pipeline,
        "day-clone": " -d {workdir_name} -t main  ",
        "dy-r": " -p help\n",
        "notes": f"{spec.samples} samples of random reads, seed {spec.seed}.",
    }
    if spec.uri:
        recipe["export_uri"] = f"{spec.uri}results/"
    return yaml.safe_dump(recipe, sort_keys=False)


def _sheet(spec: SampleWorkset) -> str:
    lines = ["\t".join(COLUMNS)]
    lines += ["\t".join(_row(spec, sample)[name] for name in COLUMNS) for sample in _samples(spec)]
    return "\n".join(lines) + "\n"


def _row(spec: SampleWorkset, sample: str) -> dict[str, str]:
    folder = f"{spec.uri}{FASTQ_FOLDER}"
    return {
        "RUN_ID": "R0",
        "SAMPLE_ID": sample,
        "EXPERIMENTID": "x4",
        "SAMPLE_TYPE": "blood",
        "LIB_PREP": "noampwgs",
        "SEQ_VENDOR": "ILMN",
        "SEQ_PLATFORM": "NOVASEQX",
        "LANE": "0",
        "SEQBC_ID": "S1",
        "PATH_TO_CONCORDANCE_DATA_DIR": "",
        "R1_FQ": f"{folder}/{_fastq_name(sample, 1)}",
        "R2_FQ": f"{folder}/{_fastq_name(sample, 2)}",
        "STAGE_DIRECTIVE": "stage_data",
        "STAGE_TARGET": "/fsx/staged_sample_data/",
        "SUBSAMPLE_PCT": "na",
        "IS_POS_CTRL": "false",
        "IS_NEG_CTRL": "false",
        "N_X": "1",
        "N_Y": "1",
        "EXTERNAL_SAMPLE_ID": sample,
    }


def _reads(spec: SampleWorkset, sample: str, mate: int) -> str:
    """Both mates of a sample are cut from one random genome, so that they belong together."""
    rng = random.Random(f"{spec.seed}/{sample}")
    length = spec.read_length
    genome = "".join(rng.choices("ACGT", weights=(30, 20, 20, 30), k=20 * length))
    lines = []
    for number in range(spec.reads):
        start = rng.randrange(len(genome) - 3 * length)
        bases = genome[start : start + length]
        if mate == 2:
            bases = genome[start + 2 * length : start + 3 * length].translate(_COMPLEMENT)[::-1]
        quality = "".join(rng.choices(_QUALITIES, k=length))
        place = f"A00:1:FLOWCELL:1:1101:{1000 + number % 9000}:{number}"
        lines.append(f"@{place} {mate}:N:0:ACGT\n{bases}\n+\n{quality}\n")
    return "".join(lines)


def _gzipped(text: str) -> bytes:
    """Compress without name and time, so that equal reads are equal files."""
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=0, compresslevel=6) as file:
        file.write(text.encode("ascii"))
    return packed.getvalue()
