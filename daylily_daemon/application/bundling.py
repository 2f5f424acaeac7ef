"""What goes into a support bundle: of everything only what is listed here, and sentences in our own words.

Each function takes a whole and returns what may be shown of it. A field that is not named here is left out,
and so is every field that somebody adds later. Texts pass ``in_own_words``; numbers, times, and values of our
own types pass as they are. Names of worksets appear only if they were asked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from daylily_daemon.application.examining import Examined
from daylily_daemon.domain.daemon import Port, QueueLevel, Status
from daylily_daemon.domain.problems import MEANINGS, HealthProblem, ProblemKind
from daylily_daemon.domain.run import Run, StepRun
from daylily_daemon.domain.vocabulary import in_own_words
from daylily_daemon.domain.workset import Workset

LINE_CHARS: Final = 8000
"""Of a log line that is looked at."""
_PRIORITY: Final = re.compile(r"^<[0-7]>")
_LEVELS: Final = frozenset({"debug", "info", "warning", "error", "critical"})
_NUMBERS: Final = frozenset(
    {
        *("attempt", "fence", "repeated", "tries", "seconds", "rest_s", "count", "left", "waiting"),
        *("owed", "code", "version", "passes"),
    }
)
_TEXTS: Final = frozenset(
    {
        *("event", "state", "previous", "asked", "result", "type", "channel", "step", "runner"),
        *("error", "reason", "at", "port", "why", "missing"),
    }
)
"""Fields of log lines of which the words are kept that are ours."""


@dataclass(slots=True)
class Allowed:
    """What may be said, and by which names worksets may be called."""

    words: frozenset[str]
    worksets: frozenset[str] = frozenset()
    _numbers: dict[str, int] = field(default_factory=dict)

    def text(self, text: object) -> str:
        return in_own_words(str(text), self.words) if text else ""

    def workset(self, id: str) -> str:
        """Return an id that was asked for; another one is called by a number."""
        if id in self.worksets:
            return id
        return f"workset {self._numbers.setdefault(id, len(self._numbers) + 1)}"

    # --- the daemon ---

    def status(self, status: Status) -> dict[str, Any]:
        return {
            "version": self.text(status.version),
            "started_at": _time(status.started_at),
            "seen_at": _time(status.seen_at),
            "stopping_at": _time(status.stopping_at),
            "stopped_at": _time(status.stopped_at),
            "starting": status.starting is not None,
            "trouble": self.text(status.trouble),
            "passes": status.passes,
            "running": len(status.active),
            "waiting": status.waiting,
            "owed": status.owed,
            "max_worksets": status.max_worksets,
            "held": self.text(status.held),
            "is_drained": status.drain is not None,
            "skew_s": status.skew_s,
            "events_missed": status.missed.count if status.missed else 0,
            "ports": {self.text(name): self.port(port) for name, port in status.ports.items()},
            "owed_by_channel": {self.text(n): owed.count for n, owed in status.channels.items()},
            "queues": [_queue(level) for level in status.queues.values()],
            "disks": [{"free": d.free, "needed": d.needed} for d in status.disks.values()],
            "last_reload": self.text(status.last_reload.result) if status.last_reload else "",
            "problems": [self.problem(problem) for problem in status.problems],
        }

    def port(self, port: Port) -> dict[str, Any]:
        return {
            "good_at": _time(port.good_at),
            "failing_since": _time(port.failing_since),
            "failures": port.failures,
            "code": self.text(port.code),
            "error": self.text(port.error),
            "text": self.text(port.text),
        }

    def problem(self, problem: HealthProblem) -> dict[str, Any]:
        known = problem.kind in tuple(ProblemKind)
        return {
            "kind": self.text(problem.kind),
            "meaning": MEANINGS[ProblemKind(problem.kind)] if known else "",
            "about": self.text(problem.about),
            "severity": str(problem.severity),
            "since": _time(problem.since),
            "text": self.text(problem.text),
        }

    def check(self, one: Examined) -> dict[str, Any]:
        findings = [
            {"grade": str(f.grade), "text": self.text(f.text), "remedy": self.text(f.remedy)}
            for f in one.findings
        ]
        return {"name": str(one.name), "grade": str(one.grade), "findings": findings}

    # --- a workset ---

    def item(self, ws: Workset) -> dict[str, Any]:
        failure = ws.failure
        return {
            "workset": self.workset(ws.id),
            "state": str(ws.state),
            "priority": str(ws.priority),
            "pipeline": self.text(ws.plan.pipeline) if ws.plan else "",
            "created_at": _time(ws.created_at),
            "updated_at": _time(ws.updated_at),
            "retry_after": _time(ws.retry_after),
            "waiting_for": self.text(ws.waiting_for),
            "warnings": [self.text(warning) for warning in ws.warnings],
            "error_code": self.text(failure.code) if failure else "",
            "error_category": str(failure.category) if failure else "",
            "error_details": self.text(failure.details) if failure else "",
            "is_held": ws.lock is not None,
            "fence": ws.fence,
            "beat": ws.beat,
            "version": ws.version,
            "attempt": ws.attempt,
            "retry_count": ws.retry_count,
            "max_retries": ws.max_retries,
            "inbox": len(ws.inbox),
            "last_seq": ws.last_seq,
            "history": [
                {"state": str(t.state), "at": _time(t.at), "reason": self.text(t.reason)}
                for t in ws.history
            ],
            "run": self.run(ws.run) if ws.run else None,
        }

    def run(self, run: Run) -> dict[str, Any]:
        return {
            "attempt": run.attempt,
            "started_at": _time(run.started_at),
            "stopping": self.text(run.stopping),
            "stopping_at": _time(run.stopping_at),
            "trouble": self.text(run.trouble),
            "unclear": run.unclear,
            "results_files": run.results_files,
            "results_bytes": run.results_bytes,
            "steps": [self.step(step) for step in run.steps],
        }

    def step(self, step: StepRun) -> dict[str, Any]:
        return {
            "name": self.text(step.name),
            "runner": self.text(step.runner),
            "fatal": step.fatal,
            "started_at": _time(step.started_at),
            "seconds": step.seconds,
            "limit_s": step.limit_s,
            "grace_s": step.grace_s,
            "end": str(step.end or ""),
            "cpu_s": step.usage and step.usage.cpu_s,
            "peak_bytes": step.usage and step.usage.peak_bytes,
            "memory_kills": step.usage and step.usage.memory_kills,
        }

    # --- a log ---

    def log(self, lines: Iterable[str]) -> tuple[dict[str, Any], ...]:
        return tuple(self.line(line[:LINE_CHARS]) for line in lines)

    def line(self, line: str) -> dict[str, Any]:
        """Return what may be shown of a line: of one that is no event of ours the words that are."""
        try:
            event = json.loads(_PRIORITY.sub("", line))
        except (ValueError, RecursionError):
            event = None
        if not isinstance(event, Mapping):
            return {"text": self.text(line)}
        found = {name: self._field(name, value) for name, value in event.items()}
        return {name: value for name, value in found.items() if value is not None}

    def _field(self, name: str, value: object) -> object:
        if name == "timestamp":
            return _stamp(value)
        if name == "level":
            return value if value in _LEVELS else None
        if name == "workset":
            return self.workset(str(value))
        if name in _NUMBERS:
            return value if isinstance(value, int | float) else None
        return self.text(value) if name in _TEXTS and isinstance(value, str) else None


def _queue(level: QueueLevel) -> dict[str, Any]:
    return {
        "is_dead_letters": level.is_dead_letters,
        "waiting": level.waiting,
        "in_flight": level.in_flight,
        "oldest_at": _time(level.oldest_at),
        "stuck_since": _time(level.stuck_since),
    }


def _time(at: datetime | None) -> str | None:
    return at.isoformat(timespec="seconds") if at else None


def _stamp(value: object) -> str | None:
    """Return a time as it was written, if it is nothing else."""
    try:
        return datetime.fromisoformat(str(value)).isoformat()
    except ValueError:
        return None
