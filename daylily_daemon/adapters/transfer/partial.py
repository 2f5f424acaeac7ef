"""A file while it is received: its pieces come in any order, and are known again by whoever goes on with it.

Beside the hidden ``.part`` lies ``.pieces``, with the CRC-32 of each piece, written after the piece itself.
So a process that was killed leaves no mark of what it had not written, and what a machine tore that went down
is noticed: the digest of the whole is computed in order and from what lies on the disk, and each piece of an
earlier process is compared with its mark on the way. A gap never counts as content, whatever the size of the
file says.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Final

from daylily_daemon.adapters.transfer.checksums import Digest

PIECE_BYTES: Final = 256 * 1024
"""What a cut connection had brought beyond the last whole one comes again."""
_FED_BYTES: Final = 4 * PIECE_BYTES
_FED_AT_ONCE: Final = 4
"""Times so many bytes that the digest may catch up with while a connection waits."""
_MARK: Final = struct.Struct("<II")
"""Length and CRC-32 of a piece; no length is no piece."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Bytes from ``start`` up to, not including, ``end``."""

    start: int
    end: int


class Torn(Exception):
    """A piece is not what was written there; it counts as missing from now on."""


class Partial:
    """The pieces of one version of an object. All methods block and raise OSError.

    ``put`` may be called by many threads at once, each for pieces of its own.
    """

    def __init__(self, path: Path, size_bytes: int, digest: Digest) -> None:
        self.path = path
        self._size_bytes = size_bytes
        self._digest = digest
        self._digested = 0
        self._digesting = Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = _opened(path)
        self._marks = _opened(_marks_of(path))
        self._known = _known(self._marks, size_bytes)
        self._found = bytes(self._known)

    def missing(self, part_bytes: int) -> list[Stretch]:
        """Return what is to be fetched, in order, cut into parts at multiples of ``part_bytes``."""
        stretches: list[Stretch] = []
        for start in range(0, self._size_bytes, PIECE_BYTES):
            if self._holds(start):
                continue
            end = min(start + PIECE_BYTES, self._size_bytes)
            goes_on = stretches and stretches[-1].end == start and start % part_bytes
            stretches.append(Stretch(stretches.pop().start if goes_on else start, end))
        return stretches

    def put(self, start: int, block: bytes | bytearray) -> None:
        """Write whole pieces, or the last of the file. Raises Torn if an earlier one turns out to be."""
        _write(self._file, start, block)
        view = memoryview(block)
        pieces = (view[at : at + PIECE_BYTES] for at in range(0, len(block), PIECE_BYTES))
        self._mark(start, b"".join(_MARK.pack(len(piece), zlib.crc32(piece)) for piece in pieces))
        if self._digesting.acquire(blocking=False):
            try:
                self._feed(_FED_AT_ONCE)
            finally:
                self._digesting.release()

    def finish(self) -> bytes:
        """Bring everything to the disk; return the digest of what lies there. Raises Torn."""
        with self._digesting:
            self._feed(self._size_bytes // PIECE_BYTES + 1)
        if self._digested != self._size_bytes:
            raise Torn
        os.fsync(self._file)
        return self._digest.digest()

    def close(self) -> None:
        os.close(self._file)
        os.close(self._marks)

    def _feed(self, blocks: int) -> None:
        """Feed the digest with the next blocks, up to the first gap."""
        for _ in range(blocks):
            start = end = self._digested
            while end < min(start + _FED_BYTES, self._size_bytes) and self._holds(end):
                end = min(end + PIECE_BYTES, self._size_bytes)
            if end == start:
                return
            data = _read(self._file, start, end - start)
            if len(data) != end - start or not self._is_as_found(start, data):
                self._forget_torn()
                raise Torn
            self._digest.update(data)
            self._digested = end

    def _is_as_found(self, start: int, data: bytes) -> bool:
        """Compare the pieces that an earlier process wrote with their marks."""
        view = memoryview(data)
        return all(
            zlib.crc32(view[at - start : at - start + PIECE_BYTES]) == self._mark_at(at)[1]
            for at in range(start, start + len(data), PIECE_BYTES)
            if _MARK.unpack_from(self._found, self._place_of(at))[0]
        )

    def _forget_torn(self) -> None:
        """Where one piece is torn, others are: look at all that were not read yet."""
        for start in range(self._digested, self._size_bytes, PIECE_BYTES):
            length, _ = self._mark_at(start)
            piece = _read(self._file, start, length)
            if len(piece) != length or not self._is_as_found(start, piece):
                self._mark(start, bytes(_MARK.size))

    def _holds(self, start: int) -> bool:
        length, _ = self._mark_at(start)
        return length == min(PIECE_BYTES, self._size_bytes - start)

    def _mark(self, start: int, marks: bytes) -> None:
        at = self._place_of(start)
        _write(self._marks, at, marks)
        self._known[at : at + len(marks)] = marks

    def _mark_at(self, start: int) -> tuple[int, int]:
        length, crc = _MARK.unpack_from(self._known, self._place_of(start))
        return int(length), int(crc)

    @staticmethod
    def _place_of(start: int) -> int:
        return start // PIECE_BYTES * _MARK.size


def held_bytes(path: Path, size_bytes: int) -> int:
    """Return how much of the file is there. Raises OSError."""
    try:
        marks = os.open(_marks_of(path), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        known = _known(marks, size_bytes)
    finally:
        os.close(marks)
    return min(size_bytes, sum(int(length) for length, _ in _MARK.iter_unpack(known)))


def removed(path: Path) -> None:
    """Remove a partial file and its marks, marks first: without them nothing of it counts."""
    _marks_of(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def moved(path: Path, dest: Path) -> None:
    """Give the whole file its name."""
    path.replace(dest)
    _marks_of(path).unlink(missing_ok=True)


def _marks_of(path: Path) -> Path:
    return path.with_suffix(".pieces")


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)


def _known(marks: int, size_bytes: int) -> bytearray:
    wanted = -(-size_bytes // PIECE_BYTES) * _MARK.size
    return bytearray(_read(marks, 0, wanted).ljust(wanted, b"\0"))


def _read(file: int, start: int, length: int) -> bytes:
    return b"".join(_pieces(file, start, length))


def _pieces(file: int, start: int, length: int) -> Iterator[bytes]:
    while length and (data := os.pread(file, length, start)):
        yield data
        start, length = start + len(data), length - len(data)


def _write(file: int, start: int, data: bytes | bytearray) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, start)
        start, view = start + written, view[written:]
