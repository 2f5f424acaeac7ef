"""What the steps of a pipeline leave behind: sample reports, and the figures of a run."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from daylily_daemon.adapters.fastq import Counts, count_reads
from daylily_daemon.adapters.transfer import local_files
from daylily_daemon.domain.columns import input_column
from daylily_daemon.domain.errors import Permanent
from daylily_daemon.domain.sheet import SHEET_FILE, InputFile, Sheet, read_sheet

SUMMARY_FILE: Final = "summary.tsv"
SENT_SHEET: Final = "stage_samples.submitted.tsv"
"""The sheet as the lab sent it, beside the one that names local files."""
_FASTQ: Final = re.compile(r"\.(?:fq|fastq)(?:\.gz)?$", re.IGNORECASE)
_COLUMNS: Final = ("sample", "files", "reads", "bases", "gc_fraction", "mean_quality")

OnStep = Callable[[int, int], None]
"""Told after each step how many of how many are done: one a file, one a sample, and the summary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleReport:
    sample: str
    files: int
    counts: Counts
    coverage: float | None = None
    """What the sheet asks for, as a multiple of the genome."""

    def as_dict(self) -> dict[str, Any]:
        """Return what the report and the summary say."""
        counts = self.counts
        wanted = {} if self.coverage is None else {"coverage_wanted": self.coverage}
        return {
            "sample": self.sample,
            "files": self.files,
            "reads": counts.reads,
            "bases": counts.bases,
            "gc_fraction": round(counts.gc_fraction, 4),
            "mean_quality": round(counts.mean_quality, 2),
        } | wanted


def report_on_samples(sheet_file: Path, dest: Path, on_step: OnStep) -> list[SampleReport]:
    """Read every FASTQ file of the sheet; write ``<sample>.report.json`` and, last, ``summary.tsv``.

    Relative paths start at the folder of the sheet. Raises Permanent at the first file that is damaged.
    """
    sheet = _sheet(sheet_file)
    samples, coverage = _samples(sheet_file, sheet), _coverage(sheet)
    total = sum(len(reads) for reads in samples.values()) + len(samples) + 1
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        on_step(done, total)

    reports = []
    with local_files(f"Writing into {dest}"):
        dest.mkdir(parents=True, exist_ok=True)
        for sample, reads in samples.items():
            report = replace(_report(sample, reads, step), coverage=coverage.get(sample))
            write_json(dest / f"{sample}.report.json", report.as_dict())
            reports.append(report)
            step()
        _write_summary(dest / SUMMARY_FILE, reports)
    step()
    return reports


def figures(results: Path) -> dict[str, int]:
    """Return how many files and bytes there are below ``results``, and what ``summary.tsv`` adds up to."""
    if not results.is_dir():
        raise Permanent(f"There is no folder {results}; give the folder of the results.")
    with local_files(f"Reading {results}"):
        sizes = [
            (Path(folder) / name).stat().st_size
            for folder, _, names in os.walk(results.resolve())
            for name in names
            if (Path(folder) / name).is_file()
        ]
        summary = results / SUMMARY_FILE
        rows = _summary(summary) if summary.is_file() else []
    found = {"results_files": len(sizes), "results_bytes": sum(sizes)}
    if rows:
        found["samples"] = len(rows)
        found |= {key: sum(int(row[key]) for row in rows) for key in ("reads", "bases")}
    return found


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write all of it or nothing."""
    written = path.with_name(f".{path.name}.new")
    written.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(written, path)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reads:
    """One FASTQ file."""

    path: Path
    named: str
    """As the lab wrote it, with the sheet and line where it did."""
    line: int
    """Of the sheet."""
    pair: str
    """Tells which files of a line must hold the same reads; empty for reads without mates."""


def _sheet(sheet_file: Path) -> Sheet:
    with local_files(f"Reading {sheet_file}"):
        sheet = read_sheet(sheet_file.read_bytes(), str(sheet_file))
    if isinstance(sheet, tuple):
        raise Permanent("\n".join(str(problem) for problem in sheet))
    return sheet


def _samples(sheet_file: Path, sheet: Sheet) -> dict[str, list[_Reads]]:
    samples: dict[str, list[_Reads]] = {}
    with local_files(f"Reading the files of {sheet_file}"):
        sent = _as_sent(sheet_file, sheet)
        for row in sheet.rows:
            for file in row.files:
                reads = _reads(sheet_file, row.line, file)
                named = (replace(one, named=_named(one.path, file, sent)) for one in reads)
                samples.setdefault(row.sample_id, []).extend(named)
    return samples


def _as_sent(sheet_file: Path, sheet: Sheet) -> dict[str, InputFile]:
    """Return what the lab wrote for each path of a staged sheet: the same cells of the sheet that it sent."""
    path = sheet_file.with_name(SENT_SHEET)
    sent = read_sheet(path.read_bytes()) if path.is_file() else None
    if not isinstance(sent, Sheet) or len(sent.rows) != len(sheet.rows):
        return {}
    pairs = zip(sheet.rows, sent.rows, strict=True)
    return {
        here.path: there
        for row, original in pairs
        for here, there in zip(row.files, original.files, strict=False)
    }


def _named(path: Path, file: InputFile, sent: Mapping[str, InputFile]) -> str:
    original = sent.get(file.path)
    if original is None:
        return str(path)
    within = str(path).removeprefix(file.path) if file.kind.is_folder else ""
    return f"{original.path}{within} ({SHEET_FILE}, {original.where})"


def _coverage(sheet: Sheet) -> dict[str, float]:
    return {
        row.sample_id: wish.value
        for row in sheet.rows
        for wish in row.wishes
        if wish.name == "COVERAGE"
    }


def _reads(sheet_file: Path, line: int, file: InputFile) -> Iterator[_Reads]:
    column = input_column(file.column)
    if column is None or not column.is_fastq:
        raise Permanent(
            f"{sheet_file}, {file.where}: this pipeline reads FASTQ files only. "
            "Choose another pipeline in daylily_work.yaml."
        )
    path = sheet_file.parent / file.path
    if file.kind.is_folder:
        yield from (
            _Reads(path=one, named=str(one), line=line, pair="") for one in _fastq_files(path)
        )
        return
    pair = column.first or column.name if file.kind.is_mate else ""
    yield _Reads(path=path, named=str(path), line=line, pair=pair)


def _fastq_files(folder: Path) -> list[Path]:
    found = [path for path in folder.rglob("*") if _FASTQ.search(path.name) and path.is_file()]
    if not found:
        raise Permanent(
            f"Missing input files: there is no FASTQ file in {folder}. Correct the sheet."
        )
    return sorted(found)


def _report(sample: str, reads: Sequence[_Reads], step: Callable[[], None]) -> SampleReport:
    counts, orders = Counts(), dict[tuple[int, str], tuple[str, bytes]]()
    for file in reads:
        found, order = count_reads(file.path, file.named)
        counts += found
        first, expected = orders.setdefault((file.line, file.pair), (file.named, order))
        if file.pair and order != expected:
            raise Permanent(
                f"Invalid FASTQ pair (line {file.line} of the sheet): {first} and {file.named} do not "
                "hold the same reads in the same order. Upload the two files of one run, unsorted and "
                "unfiltered."
            )
        step()
    return SampleReport(sample=sample, files=len(reads), counts=counts)


def _write_summary(path: Path, reports: Sequence[SampleReport]) -> None:
    written = path.with_name(f".{path.name}.new")
    with written.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(
            file, _COLUMNS, dialect="excel-tab", lineterminator="\n", extrasaction="ignore"
        )
        table.writeheader()
        table.writerows(report.as_dict() for report in reports)
    os.replace(written, path)


def _summary(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, dialect="excel-tab"))
    ours = all((row.get("reads") or "").isdecimal() for row in rows)
    return rows if ours and all((row.get("bases") or "").isdecimal() for row in rows) else []
