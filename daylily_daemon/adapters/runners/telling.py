"""The parts of a log that tell why its job failed: its end, and what a workflow manager said long before.

A workflow that keeps going after a failure may write for hours; the failed rule is named where it failed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from daylily_daemon.adapters.runners.logs import Cursor
from daylily_daemon.domain.workflow_log import FAILURES

END_BYTES: Final = 32 * 1024
SEARCHED_BYTES: Final = 16 * 1024 * 1024
"""How much of the end is searched for failures."""
AROUND_BYTES: Final = 6 * 1024
"""What is kept before a failure, for the rule's wildcards, and after it."""
MOST_FAILURES: Final = 4
_MARKS: Final = tuple(text.encode() for text in FAILURES)


def telling(directory: str) -> bytes:
    """Return 80 KiB at most: the surroundings of the first failures, and the end. Raises OSError."""
    text = Cursor(directory).read_end(SEARCHED_BYTES)
    end = max(len(text) - END_BYTES, 0)
    kept, reached = b"", 0
    for at in _failures(text, end):
        begin, until = max(at - AROUND_BYTES, reached), min(at + AROUND_BYTES, end)
        kept += _parted(kept, begin > reached) + text[begin:until]
        reached = until
    return kept + _parted(kept, end > reached) + text[end:]


def _failures(text: bytes, end: int) -> Iterator[int]:
    """Yield where the first failures begin that lie before ``end`` and not close together."""
    at = -AROUND_BYTES
    for _ in range(MOST_FAILURES):
        since = max(at + AROUND_BYTES, 0)
        found = (text.find(mark, since, end + len(mark) - 1) for mark in _MARKS)
        at = min((place for place in found if place >= 0), default=-1)
        if at < 0:
            return
        yield at


def _parted(kept: bytes, gap: bool) -> bytes:
    return b"\n" if kept and gap else b""
