"""Reading the log of a job while its shim writes and rotates it."""

from __future__ import annotations

import math
import os
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

import anyio
import structlog
from anyio import to_thread

from daylily_daemon.adapters.runners.jobdir import JobDirectory
from daylily_daemon.domain.errors import Transient
from daylily_daemon.domain.model import Progress
from daylily_daemon.domain.patterns import BadPattern, Regex, compiled
from daylily_daemon.domain.run import NOTHING_YET

FOLLOW_POLL_S: Final = 0.25
WINDOW_BYTES: Final = 64 * 1024
"""The most that is read at once."""
LOOK_BYTES: Final = 8 * 1024 * 1024
"""The most one look for progress reads: more than a job writes between two looks."""
TAIL_BYTES: Final = 1024 * 1024
"""The most that is searched for the last lines."""
LINE_CHARS: Final = 2_000
MESSAGE_CHARS: Final = 200

_ESCAPE: Final = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])"
)
_LINE_END: Final = re.compile(rb"\r\n|[\r\n]")
log = structlog.get_logger(__name__)


def clean(raw: bytes) -> str:
    """Return text fit for a terminal and a database: no escape sequences, no control characters."""
    text = _ESCAPE.sub("", raw.decode(errors="replace")).replace("\r\n", "\n").replace("\r", "\n")
    return "".join(char for char in text if char in "\n\t" or char.isprintable())


class Cursor:
    """A place in a log. Survives rotation, holds no descriptor; raises OSError."""

    __slots__ = ("_directory", "_inode", "_offset")

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._inode = 0
        self._offset = 0

    def read(self) -> bytes:
        """Return what comes next, at most ``WINDOW_BYTES``; empty if there is nothing new yet."""
        rotated, current = self._paths()
        return self._read(rotated, only_same=True) or self._read(current, only_same=False)

    def read_end(self, size_bytes: int) -> bytes:
        """Go to the end; return the last ``size_bytes`` before it, from the rotated piece too."""
        rotated, current = self._paths()
        end, self._inode, self._offset = _read_last(current, size_bytes)
        missing = size_bytes - len(end)
        return _read_last(rotated, missing)[0] + end if missing else end

    def skip_to_last(self, size_bytes: int) -> bool:
        """Leave at most ``size_bytes`` to be read of the current piece; return whether it skipped."""
        try:
            stat = os.stat(self._paths()[1])
        except FileNotFoundError:
            return False
        behind = self._offset if stat.st_ino == self._inode else 0
        if stat.st_size - behind <= size_bytes:
            return False
        self._inode, self._offset = stat.st_ino, stat.st_size - size_bytes
        return True

    def written_at(self) -> datetime | None:
        """Return when the newest piece was last written to, to the second; None if there is none."""
        for path in reversed(self._paths()):
            with suppress(FileNotFoundError):
                return datetime.fromtimestamp(int(os.stat(path).st_mtime), UTC)
        return None

    def _paths(self) -> tuple[str, str]:
        """Return the rotated piece and the current one."""
        return os.path.join(self._directory, "log.1"), os.path.join(self._directory, "log")

    def _read(self, path: str, *, only_same: bool) -> bytes:
        try:
            with open(path, "rb") as file:
                stat = os.fstat(file.fileno())
                if stat.st_ino != self._inode or stat.st_size < self._offset:
                    if only_same:
                        return b""
                    self._inode, self._offset = stat.st_ino, 0
                data = os.pread(file.fileno(), WINDOW_BYTES, self._offset)
        except FileNotFoundError:
            return b""
        self._offset += len(data)
        return data


def _read_last(path: str, size_bytes: int) -> tuple[bytes, int, int]:
    """Return the last bytes of a file, its inode, and the offset behind them."""
    try:
        with open(path, "rb") as file:
            stat = os.fstat(file.fileno())
            start = max(stat.st_size - size_bytes, 0)
            data = os.pread(file.fileno(), size_bytes, start)
            return data, stat.st_ino, start + len(data)
    except FileNotFoundError:
        return b"", 0, 0


def tail(directory: str, lines: int) -> bytes:
    """Return the last ``lines`` of a job's log as they are, empty if there is no log."""
    return last_lines(Cursor(directory).read_end(TAIL_BYTES), lines)


async def follow(directory: str, *, lines: int = 10) -> AsyncIterator[bytes]:
    """Yield the last ``lines`` of a job's log, then what is added, until the job has ended.

    A job that was not started yet is waited for. Raises Transient where the directory cannot be read.
    """
    files = JobDirectory(directory)
    cursor = Cursor(directory)
    piece = last_lines(await _in_thread(cursor.read_end, TAIL_BYTES), lines)
    while True:
        if piece:
            yield piece
        ended = not piece and await to_thread.run_sync(files.has_ended)
        piece = await _in_thread(cursor.read)
        if ended and not piece:
            return
        if not piece:
            await anyio.sleep(FOLLOW_POLL_S)


async def _in_thread(read: Callable[..., bytes], *arguments: int) -> bytes:
    try:
        return await to_thread.run_sync(read, *arguments)
    except OSError as exc:
        raise Transient(f"{exc.filename} cannot be read: {exc.strerror}.") from exc


def last_lines(data: bytes, lines: int) -> bytes:
    """Return the last ``lines`` of a text as they are."""
    return b"".join(data.splitlines(keepends=True)[-lines:]) if lines > 0 else b""


class ProgressReader:
    """What one job's log says about its progress. Reads what was written since, not the history."""

    __slots__ = ("_cursor", "_latest", "_pattern", "_unfinished")

    def __init__(self, directory: str, pattern: str, job: str = "") -> None:
        self._cursor = Cursor(directory)
        self._pattern = _compiled(pattern, job)
        self._unfinished = b""
        self._latest = NOTHING_YET

    def read(self) -> Progress | None:
        """Return the progress in the last matching line so far, and when the log was last written to.

        Reads up to ``LOOK_BYTES`` of what was written since the last call, and the newest if there is more.
        None where there is no log. Raises OSError.
        """
        output_at = self._cursor.written_at()
        if self._pattern is not None:
            self._read_on(self._pattern)
        return None if output_at is None else replace(self._latest, output_at=output_at)

    def _read_on(self, pattern: Regex) -> None:
        skipped = self._cursor.skip_to_last(LOOK_BYTES)
        for _ in range(LOOK_BYTES // WINDOW_BYTES + 2):
            data = self._cursor.read()
            if not data:
                break
            self._search(self._lines(data, skipped), pattern)
            skipped = False

    def _lines(self, data: bytes, skipped: bool) -> list[bytes]:
        """Return complete new lines; one whose beginning was skipped is not complete."""
        *lines, rest = _LINE_END.split(data if skipped else self._unfinished + data)
        if skipped:
            self._unfinished = rest if lines else b""
            return lines[1:]
        self._unfinished = rest[:WINDOW_BYTES]
        return lines

    def _search(self, lines: list[bytes], pattern: Regex) -> None:
        for line in reversed(lines):
            text = clean(line[: LINE_CHARS * 4])[:LINE_CHARS]
            if match := pattern.search(text):
                self._latest = Progress(_fraction(match.groups), text.strip()[:MESSAGE_CHARS])
                return


def _compiled(pattern: str, job: str) -> Regex | None:
    try:
        return compiled(pattern) if pattern else None
    except BadPattern as exc:
        log.warning("progress_pattern_ignored", job=job, pattern=pattern, error=str(exc))
        return None


def _fraction(groups: Mapping[str, str | None]) -> float | None:
    try:
        if percent := groups.get("percent"):
            value = float(percent) / 100
        else:
            value = float(groups["done"] or "") / float(groups["total"] or "")
    except (KeyError, ValueError, ZeroDivisionError):
        return None
    return min(max(value, 0.0), 1.0) if math.isfinite(value) else None
