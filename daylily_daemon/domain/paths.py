"""What a path in a sheet or recipe stands for, and what is wrong with one at first sight.

What cannot be found because it is no path at all is refused at once, and not waited for.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from daylily_daemon.domain.document import shown, unseen
from daylily_daemon.domain.lookalikes import spreadsheet_error, typographic_fault

MAX_PATH: Final = 1024
_S3_URI: Final = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/(.+)", re.DOTALL)
_S3_LIKE: Final = re.compile(r"s3[an]?(?::|//|\s*:)[/\\]*", re.IGNORECASE)
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/|(?:https?|ftp|file|gs|arn):", re.IGNORECASE)
_VARIABLE: Final = re.compile(r"\$\{?[A-Za-z_]\w*\}?|\$\(|^%[A-Za-z_]{3,}%")
_PATTERN: Final = re.compile(r"[*?]|\[[^\[\]/]*-[^\[\]/]*\]|\{[^{}/]*(?:,|\.\.)[^{}/]*\}")
_UNFILLED: Final = re.compile(r"(?<!\$)\{[A-Za-z_]\w*\}")
_DRIVE: Final = re.compile(r"[A-Za-z]:(?![^\\/])")
_SEVERAL: Final = re.compile(r"\.(?:fastq|fq|gz|u?bam|cram|pod5)\s*[,;|\s]\s*(?=\S)", re.IGNORECASE)

NONE: Final = frozenset({"", "na", "n/a", "n.a.", "nan", "none", "null", "nil", ".", "-", "--"})
"""What people write into a cell, in any case, for: there is none."""
_UNSAID: Final = frozenset(
    {"?", "??", "tbd", "tba", "todo", "unknown", "missing", "pending", "true", "false", "<na>"}
)

Fault = tuple[str, str]
"""What is wrong, and what to do, as sentences."""


@dataclass(frozen=True, slots=True)
class S3Place:
    bucket: str
    key: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True, slots=True)
class LocalPlace:
    path: str
    """Absolute, on the host of the daemon."""

    def __str__(self) -> str:
        return self.path


Place = S3Place | LocalPlace


def is_none(cell: str) -> bool:
    """Tell whether a cell says that there is nothing."""
    return len(cell) <= 4 and cell.lower() in NONE


def split_s3(uri: str) -> S3Place | None:
    """Return bucket and key of ``s3://bucket/key``; None if it is no such thing."""
    match = _S3_URI.fullmatch(uri)
    return S3Place(match[1], match[2]) if match and ".." not in match[1] else None


def place_of(path: str, bucket: str, prefix: str) -> Place:
    """Return where an input path points; a relative one starts at the workset's prefix."""
    if path.startswith("/"):
        return LocalPlace(path)
    return split_s3(path) or S3Place(bucket, prefix + path.removeprefix("./"))


def path_fault(path: str) -> Fault | None:
    """Return what is wrong with an input path and what to do; None if it may be looked up."""
    if len(path) > MAX_PATH:
        what = f"The path {shown(path, 300)} is longer than {MAX_PATH} characters."
        return what, "Shorten it."
    return next((fault for check in _CHECKS if (fault := check(path))), None)


def _unseen(path: str) -> Fault | None:
    odd = unseen(path)
    if not odd:
        return None
    return f"The path {_said(path)} holds a character that cannot be seen ({odd}).", "Remove it."


def _unfilled(path: str) -> Fault | None:
    if "<" in path or ">" in path or _UNFILLED.search(path):
        kind = "angle" if "<" in path or ">" in path else "curly"
        what = f"The path {_said(path)} still holds a placeholder in {kind} brackets."
        return what, "Put the real bucket or folder in its place."
    error = spreadsheet_error(path)
    if error:
        return (
            f"The path {_said(path)} holds {error}, the error value of a spreadsheet.",
            "Fix it.",
        )
    if path.lower() in _UNSAID:
        return f"{_said(path)} is no path.", "Name the file, or write `na` if there is none."
    return None


def _quoted(path: str) -> Fault | None:
    if path[:1] in {"'", '"'} or path[-1:] in {"'", '"'}:
        return f"The path {_said(path)} begins or ends with a quote.", "Remove the quotes."
    return typographic_fault(path)


def _of_this_computer(path: str) -> Fault | None:
    if _DRIVE.match(path) or "\\" in path:
        what = f"The path {_said(path)} is one of Windows, which the head node cannot reach."
        return what, "Upload the file and give its S3 address, or use / between folders."
    if path.startswith("~"):
        what = f"The path {_said(path)} begins with ~, which only a shell replaces."
        return what, "Write the whole path, which begins with /."
    return None


def _for_a_shell(path: str) -> Fault | None:
    variable = _VARIABLE.search(path)
    if variable:
        what = (
            f"The path {_said(path)} holds {variable[0]}, and no shell puts a value in its place."
        )
        return what, "Write the value itself."
    if _PATTERN.search(path):
        what = f"The path {_said(path)} is a pattern for several files, and none is matched here."
        return what, "Give every file a cell of its own, or a folder with a slash at its end."
    return None


def _upwards(path: str) -> Fault | None:
    if not path.strip("./"):
        what = f"The path {_said(path)} names no file and no folder of its own."
        return what, "Name the file, or a folder below."
    if ".." in path.split("/"):
        return f"The path {_said(path)} leads upwards by `..`.", "Write the whole path."
    return None


def _scheme(path: str) -> Fault | None:
    if split_s3(path) is not None:
        return None
    what = f"The path {_said(path)} is not of the form s3://bucket/key."
    like = _S3_LIKE.match(path)
    if like:
        rest = path[like.end() :].replace("\\", "/")
        right = split_s3(f"s3://{rest}")
        todo = f"Did you mean {right}?" if right else "Name a bucket, in small letters, and a key."
        return what, todo
    if path.lower().startswith("file:"):
        return what, "Write the absolute path alone, or upload the file and give its S3 address."
    if _SCHEME.match(path):
        return what, "Give an S3 address, an absolute path or one relative to the workset."
    return None


def _several(path: str) -> Fault | None:
    if not _SEVERAL.search(path):
        return None
    what = f"{_said(path)} names several files in one cell."
    return what, "Give each lane a row of its own, with one file per cell."


def _said(path: str) -> str:
    return shown(path, 300)


_CHECKS: Final[tuple[Callable[[str], Fault | None], ...]] = (
    *(_unseen, _unfilled, _quoted, _of_this_computer, _upwards, _scheme, _for_a_shell, _several),
)

# --- what a file's name says of its content ------------------------------------------------------

_PACKED: Final = {
    **{"bz2": "bzip2", "xz": "xz", "lzma": "lzma", "zst": "Zstandard", "lz4": "lz4"},
    **{"ora": "DRAGEN ORA", "zip": "zip", "7z": "7-Zip", "rar": "RAR", "tar": "tar", "tgz": "tar"},
    **{"z": "compress", "spring": "SPRING", "sra": "SRA"},
}
_ALIGNED: Final = frozenset({"bam", "ubam", "cram", "sam", "pod5", "fast5", "blow5", "slow5"})
_BESIDE: Final = frozenset(
    {"md5", "sha256", "sha1", "md5sum", "bai", "crai", "csi", "fai", "tbi", "gzi", "pbi"}
    | {"html", "pdf", "csv", "tsv", "json", "xlsx", "xls", "log", "vcf"}
)
_FASTQ: Final = frozenset({"fastq", "fq"})


def name_fault(path: str, form: str) -> Fault | None:
    """Return why a file of this name is none of the format of its column; None if it may be.

    ``form`` is that of the column, such as ``FQ`` or ``CRAM``. Files that say nothing are let through.
    """
    name = path.rpartition("/")[2].lower()
    parts = name.split(".")[1:]
    end = parts[-1] if parts else ""
    fastq = form in {"FQ", "FASTQ"}
    if end in _BESIDE:
        return f"{_said(path)} is no {_wanted(fastq)}, by its name.", "Name the data file itself."
    if fastq and ("tar" in parts or end in _PACKED):
        how = _PACKED.get(end, "tar")
        what = f"{_said(path)} is packed with {how}; plain or gzip FASTQ was expected."
        return what, "Unpack it, pack it with gzip (.fastq.gz) and upload it again."
    if fastq and _ALIGNED & set(parts[-2:]):
        what = f"{_said(path)} is no FASTQ file, by its name."
        return what, "Name it in a column of its format, such as PB_BAM, ONT_CRAM or ONT_POD5."
    if not fastq and (_FASTQ & set(parts[-2:]) or end in _PACKED):
        what = f"{_said(path)} is no {form} file, by its name."
        return what, "Name it in a column of its format, such as R1_FQ for FASTQ."
    return None


def _wanted(fastq: bool) -> str:
    return "FASTQ file" if fastq else "file of reads"
