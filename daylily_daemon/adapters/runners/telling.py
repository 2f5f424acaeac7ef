"""The parts of a log that tell why its job failed: its end, and what a workflow manager said long before.

A workflow that keeps going after a failure may write for hours; the failed rule is named where it failed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Final

from daylily_daemon.adapters.runners.jobdir import ExitRecord
from daylily_daemon.adapters.runners.logs import Cursor, clean
from daylily_daemon.domain.failures import read_log
from daylily_daemon.domain.workflow_log import FAILURES

END_BYTES: Final = 32 * 1024
SEARCHED_BYTES: Final = 16 * 1024 * 1024
"""How much of the end is searched for failures."""
AROUND_BYTES: Final = 6 * 1024
"""What is kept before a failure, for the rule's wildcards, and after it."""
MOST_FAILURES: Final = 4
LEFT_BEHIND_NAMED: Final = 5
RULE_LOG_BYTES: Final = 4 * 1024
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


def warnings_of(record: ExitRecord) -> Iterator[str]:
    """Yield what is worth a sentence though it does not decide how a job ended."""
    if record.left_behind:
        named = record.left_behind_names[:LEFT_BEHIND_NAMED]
        names = ", ".join(clean(name.encode())[:40] for name in named)
        more = ", ..." if record.left_behind > LEFT_BEHIND_NAMED else ""
        yield (
            f"{record.left_behind} processes that the command left in the background were ended: "
            f"{names}{more}."
        )
    if record.dropped_log_bytes:
        yield f"{record.dropped_log_bytes} bytes of its output could not be written to its log."


def with_rule_logs(text: str, cwd: str) -> str:
    """Return ``text`` and, framed as Snakemake does it, the ends of the log files it names for failed rules.

    Only regular files inside ``cwd``: what a log names is foreign. May hang, as disks do; raises nothing.
    """
    if not any(mark in text for mark in FAILURES):
        return text
    names = [name for job in read_log(text).failed[:MOST_FAILURES] for name in job.logs[:2]]
    shown = {name: _end_inside(cwd, name) for name in names if f"Logfile {name}:" not in text}
    frames = (f"\nLogfile {name}:\n=====\n{end}\n=====" for name, end in shown.items() if end)
    return text + "".join(frames)


def _end_inside(cwd: str, name: str) -> str:
    """Return the end of a file, empty if it is none or lies elsewhere."""
    root, path = os.path.realpath(cwd), os.path.realpath(os.path.join(cwd, name))
    if os.path.commonpath((root, path)) != root:
        return ""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return ""
        return clean(os.pread(fd, RULE_LOG_BYTES, max(status.st_size - RULE_LOG_BYTES, 0))).strip()
    except OSError:
        return ""
    finally:
        os.close(fd)
