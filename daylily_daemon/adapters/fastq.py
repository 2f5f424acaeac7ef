"""Reads FASTQ files in full, and trusts none of their lines.

Four lines a read: ``@`` and the name, the bases, ``+``, one quality character a base. The first line that is
not so ends the reading with its number: a file that is damaged in one place is not worth a night of cluster
time. Plain and gzip files are told apart by their first bytes, not by their names.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Final

from daylily_daemon.domain.errors import Permanent

_GZIP: Final = b"\x1f\x8b"
_BASES: Final = b"ACGTUNRYSWKMBDHVacgtunryswkmbdhv.-"
_QUALITIES: Final = bytes(range(33, 127))
_LONGEST_LINE: Final = 64 * 1024 * 1024
_TODO: Final = "Upload the file again, or take its sample out of the sheet."


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What is known of some reads; counts of several files add up."""

    reads: int = 0
    bases: int = 0
    gc_bases: int = 0
    quality_sum: int = 0
    """Of the Phred scores of all bases."""

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            reads=self.reads + other.reads,
            bases=self.bases + other.bases,
            gc_bases=self.gc_bases + other.gc_bases,
            quality_sum=self.quality_sum + other.quality_sum,
        )

    @property
    def gc_fraction(self) -> float:
        """0.0 to 1.0; 0 where there are no bases."""
        return self.gc_bases / self.bases if self.bases else 0.0

    @property
    def mean_quality(self) -> float:
        """Arithmetic mean of the Phred scores over bases, as FastQC counts it."""
        return self.quality_sum / self.bases if self.bases else 0.0


@dataclass(frozen=True, slots=True)
class FastqRead:
    name: bytes
    """Up to the first space, without ``/1`` or ``/2``."""
    bases: bytes
    quality: bytes


def count_reads(path: Path, named: str = "") -> tuple[Counts, bytes]:
    """Read the whole file; return its counts and a digest of its read names in their order.

    Both files of a pair have the same digest. Raises Permanent naming line and file, the latter as ``named``
    says.
    """
    names = blake2b(digest_size=16)
    reads = bases = gc_bases = quality_sum = 0
    said = named or str(path)
    for read in _reads(path, said):
        names.update(read.name + b"\n")
        reads += 1
        bases += len(read.bases)
        upper = read.bases.upper()
        gc_bases += upper.count(b"G") + upper.count(b"C")
        quality_sum += sum(read.quality) - 33 * len(read.quality)
    if reads == 0:
        raise _invalid(said, 1, "it holds no read")
    counts = Counts(reads=reads, bases=bases, gc_bases=gc_bases, quality_sum=quality_sum)
    return counts, names.digest()


def _reads(path: Path, said: str) -> Iterator[FastqRead]:
    lines = _lines(path, said)
    for number, header in lines:
        if not header.startswith(b"@") or not _name(header):
            what = f"expected '@' and the name of a read, found {_shown(header)}"
            raise _invalid(said, number, what)
        record = [next(lines, None) for _ in range(3)]
        if any(line is None for line in record):
            raise _invalid(said, number, "the file ends within a read (is it truncated?)")
        bases, plus, quality = (line[1] for line in record if line)
        fault = _fault(header, bases, plus, quality)
        if fault:
            offset, what = fault
            raise _invalid(said, number + offset, what)
        yield FastqRead(_name(header), bases, quality)


def _fault(header: bytes, bases: bytes, plus: bytes, quality: bytes) -> tuple[int, str] | None:
    """Return which line below the header is wrong, and why."""
    if odd := bases.translate(None, _BASES):
        return 1, f"{_shown(odd[:1])} is no base"
    if not plus.startswith(b"+"):
        return 2, f"expected '+', found {_shown(plus)}"
    if plus not in {b"+", b"+" + header[1:]}:
        return 2, f"the name after '+' is not that of the read: {_shown(plus)}"
    if len(quality) != len(bases):
        return 3, f"there are {len(quality)} quality characters for {len(bases)} bases"
    if odd := quality.translate(None, _QUALITIES):
        return 3, f"{_shown(odd[:1])} is no quality character"
    return None


def _name(header: bytes) -> bytes:
    name = header[1:].split(None, 1)[0] if header[1:].strip() else b""
    return name[:-2] if name.endswith((b"/1", b"/2")) else name


def _lines(path: Path, said: str) -> Iterator[tuple[int, bytes]]:
    """Yield 1-based numbers and lines without their ends."""
    number = 0
    try:
        with _opened(path) as file:
            while line := file.readline(_LONGEST_LINE):
                number += 1
                if len(line) == _LONGEST_LINE:
                    raise _invalid(said, number, "the line does not end within 64 MiB")
                yield number, line.rstrip(b"\r\n")
    except (EOFError, zlib.error, gzip.BadGzipFile) as exc:
        what = f"its gzip data are damaged or truncated: {str(exc).rstrip('.')}"
        raise _invalid(said, number + 1, what) from exc
    except FileNotFoundError as exc:
        raise Permanent(f"Missing input files: {said} does not exist. {_TODO}") from exc
    except OSError as exc:
        raise Permanent(f"{said} cannot be read: {exc.strerror}. Check its permissions.") from exc


def _opened(path: Path) -> io.BufferedIOBase:
    with path.open("rb") as file:
        compressed = file.read(2) == _GZIP
    return gzip.open(path, "rb") if compressed else path.open("rb")


def _invalid(said: str, line: int, what: str) -> Permanent:
    return Permanent(f"Invalid FASTQ file {said}, line {line}: {what}. {_TODO}")


def _shown(line: bytes) -> str:
    return repr(line[:40].decode("ascii", "backslashreplace"))
