"""Why a job failed, as far as it decides whether to try again, and in words for whoever has to fix it.

The end of the log is first told apart: what a workflow manager says, and what its tools wrote. Operators'
patterns come first and see all of it; then those for tools, then those for the manager.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from daylily_daemon.domain import nextflow_log, snakemake_log
from daylily_daemon.domain.failure_table import KNOWN, MANAGERS, TOOLS, FailurePattern
from daylily_daemon.domain.model import Category, Ended, Outcome
from daylily_daemon.domain.patterns import compiled, search
from daylily_daemon.domain.sizes import readable
from daylily_daemon.domain.totality import total
from daylily_daemon.domain.workflow_log import WorkflowLog

__all__ = ["KNOWN", "Diagnosis", "FailurePattern", "classify", "read_log"]

LINE_CHARS: Final = 240
"""Longest line of a log that is quoted."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    code: str
    category: Category
    retry: bool
    message: str
    """Sentences for people: what ended how, which rule and sample, and the telling line of the log."""
    ours: bool = False
    """Our own rights or credentials are missing: nobody's input is at fault, and it uses up no try."""


_JUDGED: Final = {
    Ended.OUT_OF_MEMORY: (
        "WS-RES-001", Category.RESOURCE, True, "was ended by the system: out of memory",
    ),
    Ended.TIMED_OUT: ("WS-TIME-001", Category.PERMANENT, False, "reached its time limit"),
    Ended.LOST: (
        "WS-JOB-001", Category.TRANSIENT, True,
        "died together with its shim and left no exit code",
    ),
    Ended.HOST_LOST: ("WS-JOB-002", Category.TRANSIENT, True, "ended when its machine restarted"),
    Ended.STOPPED: ("WS-JOB-003", Category.PERMANENT, False, "was stopped from outside"),
    Ended.EXITED: None,
    Ended.SIGNALLED: None,
}  # fmt: skip
BY_ITS_END: Final[Mapping[Ended, tuple[str, Category, bool, str] | None]] = total(
    "failures.BY_ITS_END", _JUDGED, tuple(Ended)
)
"""What the way a job ended says alone; None where its log says why."""


def classify(outcome: Outcome, extra: tuple[FailurePattern, ...] = ()) -> Diagnosis:
    """Return why ``outcome`` is no success. A failure no pattern knows is tried again."""
    if known := BY_ITS_END[outcome.ended]:
        code, category, retry, how = known
        return Diagnosis(code, category, retry, f"It {how}{_memory(outcome)}.")
    log = read_log(outcome.tail)
    how = "; ".join(filter(None, (_how(outcome), log.told())))
    where = f" {log.where()}" if log.where() else ""
    for entry, text in _searched(log, outcome.tail, extra):
        if found := search(entry.pattern, text, ignore_case=True):
            meaning = entry.meaning or "the log shows a known error"
            line = _line_around(text, found.start)
            message = f"It {how}; {meaning}: {line.rstrip('.') + '.' + where if where else line}"
            return Diagnosis(entry.code, entry.category, entry.retry, message, ours=entry.ours)
    return Diagnosis("WS-UNK-000", Category.TRANSIENT, True, f"It {how}. {_last_words(log)}{where}")


def read_log(text: str) -> WorkflowLog:
    """Tell apart what a workflow manager says and what its tools wrote."""
    if any(mark in text for mark in snakemake_log.MARKS):
        return snakemake_log.SnakemakeLog().read(text)
    if any(mark in text for mark in nextflow_log.MARKS):
        return nextflow_log.NextflowLog().read(text)
    return WorkflowLog(output=text)


def _searched(
    log: WorkflowLog, text: str, extra: tuple[FailurePattern, ...]
) -> Iterable[tuple[FailurePattern, str]]:
    yield from ((entry, text) for entry in extra)
    lines = log.output.splitlines()
    telling = "\n".join(line for line in lines if not _RETRIED.search(line))
    yield from ((entry, telling) for entry in TOOLS)
    yield from ((entry, log.own) for entry in MANAGERS)
    yield from ((entry, log.output) for entry in TOOLS)


_RETRIED: Final = compiled(r"\b(retry|retrying|retried|trying again)\b", ignore_case=True)
"""A line that says that its cause was tried again: what ended the job came later, if anything did."""


def _memory(outcome: Outcome) -> str:
    """Return how much memory it had where that is why it ended, and whose word it is."""
    usage = outcome.usage
    if outcome.ended is not Ended.OUT_OF_MEMORY or usage is None:
        return ""
    kills = usage.memory_kills or 0
    killed = "1 process was" if kills == 1 else f"{kills} processes were"
    peak = "" if usage.peak_bytes is None else f"; its peak was {readable(usage.peak_bytes)}"
    return f" ({killed} killed by the kernel{peak})"


def _how(outcome: Outcome) -> str:
    if outcome.ended is Ended.SIGNALLED:
        return f"was ended by signal {outcome.code}"
    if outcome.code == 0 and outcome.success_file_found is False:
        return "ended with exit code 0, but without its success file"
    return f"ended with exit code {outcome.code}"


def _last_words(log: WorkflowLog) -> str:
    if log.reason:
        return f"Its log says: {log.reason[:LINE_CHARS].rstrip('.')}."
    if log.failed:
        last = _last_line(log.output)
        return f"Last line of its output: {last.rstrip('.')}." if last else "Its output is silent."
    return f"Last line of its log: {_last_line(log.output) or _last_line(log.own) or '(empty)'}"


def _last_line(text: str) -> str:
    return text.strip().rsplit("\n", 1)[-1].strip()[:LINE_CHARS]


def _line_around(text: str, position: int) -> str:
    """Return the line at ``position``; of a long one the part from a little before it."""
    start = text.rfind("\n", 0, position) + 1
    end = text.find("\n", position)
    line = text[max(start, position - LINE_CHARS // 2) : end if end >= 0 else len(text)]
    return line.strip()[:LINE_CHARS]
