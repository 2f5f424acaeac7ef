"""The columns of a sample sheet that name input, by name and kind: one table for check, staging and reports.

A platform may bring columns of its own (``ILMN_R1_FQ``, ``UG_CRAM``, ``ONT_FASTQ_PREFIX``), so the table
tells a column by the form of its name. What a column names decides what is fetched for it: one object, or
everything below a folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from daylily_daemon.domain.lookalikes import fold, meant, plain


class Kind(StrEnum):
    """What an input is, in the words of messages."""

    READ_1 = "FASTQ file of read 1"
    READ_2 = "FASTQ file of read 2"
    READS = "FASTQ file"
    """Of reads that have no mates: long reads, and columns that are only numbered."""
    FILE = "file"
    """One object of another format, such as BAM, CRAM or POD5."""
    FOLDER = "folder"
    """Everything below it is input."""
    PREFIX = "prefix"
    """As a folder; the name that manifests of nanopore runs use for it."""

    @property
    def is_folder(self) -> bool:
        """Tell whether many objects may belong to it; its path ends with a slash then."""
        return self in {Kind.FOLDER, Kind.PREFIX}

    @property
    def is_mate(self) -> bool:
        """Tell whether its reads have mates in another file."""
        return self in {Kind.READ_1, Kind.READ_2}


@dataclass(frozen=True, slots=True)
class Column:
    """One column that names input."""

    name: str
    kind: Kind
    """Of a cell without a slash at its end."""
    format: str
    """``FQ``, ``FASTQ``, ``BAM``, …: the part of the name that says so."""
    first: str = ""
    """For the second of two reads: the column of the first, which must be filled in too."""

    @property
    def is_fastq(self) -> bool:
        """Tell whether what it names is FASTQ, in one file or in a folder."""
        return self.format in {"FQ", "FASTQ"}


INPUT_ENDS: Final = (
    *(".fastq", ".fq", ".fastq.gz", ".fq.gz", ".fastq.bz2", ".fq.bz2", ".fastq.ora", ".fq.ora"),
    *(".bam", ".ubam", ".cram", ".pod5", ".fast5"),
)
"""How the names of files end that are input of a run, in lower case."""
FORMATS: Final = ("FQ", "FASTQ", "UBAM", "BAM", "CRAM", "POD5", "FAST5")
LONG_READS: Final = frozenset({"ONT", "PACBIO", "PB"})
"""Platforms, as names of columns begin: their reads have no mates, whatever the columns are called."""

_FORM: Final = re.compile(
    r"(?P<source>[A-Z0-9_]*?)(?:(?<![A-Z0-9])R(?P<read>[12])_)?"
    rf"(?P<format>{'|'.join(FORMATS)})(?:_(?P<many>PREFIX|FOLDER|DIR))?[0-9]*"
)
_KINDS: Final = {"1": Kind.READ_1, "2": Kind.READ_2}


def input_column(name: str) -> Column | None:
    """Return what a column of this name brings; None if it names no input."""
    form = _FORM.fullmatch(name)
    if form is None:
        return None
    source, read, kind = form["source"], form["read"], form["format"]
    if (source and not source.endswith("_")) or not (source or read or form["many"]):
        return None
    if form["many"]:
        return Column(name, Kind.PREFIX if form["many"] == "PREFIX" else Kind.FOLDER, kind)
    first = name[: form.start("read")] + "1" + name[form.end("read") :] if read == "2" else ""
    return Column(name, _kind(source, read, kind), kind, first)


def _kind(source: str, read: str | None, form: str) -> Kind:
    if form not in {"FQ", "FASTQ"}:
        return Kind.FILE
    if read and source.partition("_")[0] not in LONG_READS:
        return _KINDS[read]
    return Kind.READS


def named(column: Column, cell: str) -> tuple[Kind, str]:
    """Return what the cell of a column names, and its path: that of a folder ends with a slash.

    A column of folders takes a path without one, and one file by its name; POD5 comes in folders unless a
    file is named.
    """
    kind = column.kind
    if kind.is_folder and cell.lower().endswith(INPUT_ENDS):
        kind = Kind.READS if column.is_fastq else Kind.FILE
    elif column.format == "POD5" and not cell.lower().endswith(".pod5"):
        kind = Kind.PREFIX if kind is Kind.PREFIX else Kind.FOLDER
    elif cell.endswith("/") and not kind.is_folder:
        kind = Kind.FOLDER
    return kind, cell.rstrip("/") + "/" if kind.is_folder else cell


COLUMNS: Final = (
    *("RUN_ID", "SAMPLE_ID", "EXPERIMENTID", "SAMPLE_TYPE", "LIB_PREP", "SEQ_VENDOR"),
    *("SEQ_PLATFORM", "LANE", "SEQBC_ID", "PATH_TO_CONCORDANCE_DATA_DIR", "R1_FQ", "R2_FQ"),
    *("STAGE_DIRECTIVE", "STAGE_TARGET", "SUBSAMPLE_PCT", "IS_POS_CTRL", "IS_NEG_CTRL"),
    *("N_X", "N_Y", "EXTERNAL_SAMPLE_ID"),
)
"""The columns of the short-read platforms, in their order."""
KEY_COLUMNS: Final = ("RUN_ID", "SAMPLE_ID", "EXPERIMENTID", "LANE")
"""Columns that, as far as they exist, tell one row from another; their ids become parts of file names."""
OTHER_COLUMNS: Final = (
    *("ILMN_R1_FQ", "ILMN_R2_FQ", "CG_R1_FQ", "CG_R2_FQ", "UG_R1_FQ", "UG_R2_FQ"),
    *("PACBIO_R1_FQ", "PACBIO_R2_FQ", "ONT_R1_FQ", "ONT_R2_FQ", "ONT_FASTQ_PREFIX", "ONT_POD5"),
    *("ULTIMA_CRAM", "ONT_CRAM", "ONT_BAM", "PB_BAM", "ROCHE_BAM", "ONT_FLOWCELL_ID", "SAMPLEUSE"),
    *("SAMPLEID", "SAMPLESOURCE", "SAMPLECLASS", "BIOLOGICAL_SEX", "TUM_NRM_SAMPLEID_MATCH"),
    *("CONCORDANCE_CONTROL_PATH", "TRUTH_DATA_DIR", "MOUNT_ID", "MOUNT_SOURCE_S3_URI"),
    *("MOUNT_FSX_PATH", "DATA_LOCALITY", "BWA_KMER", "DEEP_MODEL", "ILMN_TRIM_READ_LENGTH"),
    *("LONGREADTRIM_READ_LENGTH", "LONGREADTRIM_MODE", "ULTIMA_SUBSAMPLE_PCT", "COVERAGE"),
    *("ONT_SUBSAMPLE_PCT", "ROCHE_DOWNSAMPLE_RATIO", "EXTERNAL_SPECIMEN_ID", "SPECIMEN_ID"),
)
"""Columns of other platforms, and of hybrid sheets."""
KNOWN: Final = frozenset({*COLUMNS, *OTHER_COLUMNS})
"""Names that another one may be a slip of. Others are welcome too, and go to the pipeline as they are."""
_BY_FOLD: Final = {fold(name): name for name in (*OTHER_COLUMNS, *COLUMNS)}
_READS: Final = {fold(name): name for name in ("R1_FQ", "R2_FQ")}

WISHES: Final = "COVERAGE, …SUBSAMPLE_PCT, …DOWNSAMPLE_RATIO"
_WISH: Final = re.compile(r"COVERAGE|(?:[A-Z0-9_]+_)?(?:SUBSAMPLE_PCT|DOWNSAMPLE_RATIO)")


def is_wish(name: str) -> bool:
    """Tell whether a column holds a number that changes what a pipeline does with the reads."""
    return _WISH.fullmatch(name) is not None


def meant_column(name: str, columns: Iterable[str]) -> str:
    """Return the known column that the name of another one seems to be meant for; empty for none.

    ``columns`` are the names of the same header. A platform may have input columns of its own, so those are
    only taken for a known one that is written with other signs, or for a slip in ``R1_FQ`` and ``R2_FQ``.
    """
    if name in KNOWN:
        return ""
    if input_column(name) or is_wish(name):
        slip = meant(name, _READS, columns) if name.startswith("R") else ""
        return _BY_FOLD.get(fold(name), "") or slip
    repaired = plain(name)
    free = repaired if input_column(repaired) or is_wish(repaired) else ""
    return meant(name, _BY_FOLD, columns) or free
