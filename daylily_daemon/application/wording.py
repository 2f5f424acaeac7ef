"""What is said of a workset in one line."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from daylily_daemon.domain.model import State
from daylily_daemon.domain.problems import OVERDUE_S, QUIET_S
from daylily_daemon.domain.run import Run, StepRun
from daylily_daemon.domain.sizes import readable
from daylily_daemon.domain.workset import Workset

NOT_QUIET_S: Final = 120.0
"""What is known of a log is older by a look and a beat: below this nothing is said."""


def age(seconds: float) -> str:
    """Return an age for a column of a table: ``45 s``, ``41 min``, ``3 h 12``, ``9 days``."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min"
    if whole < 172_800:
        return f"{whole // 3600} h {whole % 3600 // 60:02}"
    return f"{whole // 86_400} days"


def sentence(text: str) -> str:
    return text if text.endswith((".", "?", "!")) else f"{text}."


def reason_text(ws: Workset, now: datetime | None = None) -> str:
    """Return what it does, or why it does not, on one line; ``now`` tells how quiet it is."""
    if ws.trouble:
        return f"DOES NOT GO ON: {ws.trouble}"
    if ws.state is State.COMPLETE and ws.run and ws.run.results_files == 0:
        return "0 files! It is complete and has no results."
    if ws.state is State.COMPLETE and ws.warnings:
        more = f" (and {len(ws.warnings) - 1} more)" if len(ws.warnings) > 1 else ""
        return f"NOTE: {ws.warnings[0]}{more}"
    return progress_text(ws, now)


def progress_text(ws: Workset, now: datetime | None = None) -> str:
    """Return how far it is, what it waits for, or why it failed, on one line; ``now`` as ``reason_text``."""
    if ws.run and ws.step:
        percent = "" if ws.run.progress.fraction is None else f"{ws.run.progress.fraction:.0%}"
        head = " ".join(part for part in (ws.step.name, percent) if part)
        slow = (overdue_text(ws.run, now), quiet_text(ws.run, now)) if now else ()
        said = f"stopping: {ws.run.stopping}" if ws.run.stopping else ws.run.progress.message
        return " ".join(part for part in (", ".join(filter(None, (head, *slow))), said) if part)
    if ws.state is State.READY:
        return ws.waiting_for
    return ws.failure.details.split("\n", 1)[0] if ws.failure else ""


def quiet_text(run: Run, now: datetime) -> str:
    """Return for how long nothing was added to the log; with a sign where somebody should look."""
    quiet_s = run.quiet_s(now)
    if quiet_s < NOT_QUIET_S:
        return ""
    return f"quiet {age(quiet_s)}{' !' if quiet_s > QUIET_S else ''}"


def overdue_text(run: Run, now: datetime) -> str:
    """Return how long it goes on after it should have ended; empty before that."""
    ends_at = run.ends_at()
    over_s = 0.0 if ends_at is None else (now - ends_at).total_seconds()
    return f"{age(over_s)} overdue !" if over_s > OVERDUE_S else ""


def results_text(run: Run | None) -> str:
    """Return how many files the results are; empty where nobody has said so."""
    if run is None or run.results_files is None:
        return ""
    many = "1 file" if run.results_files == 1 else f"{run.results_files} files"
    return f"({many}, {readable(run.results_bytes)})" if run.results_bytes else f"({many})"


def step_text(step: StepRun) -> str:
    """Return what is known of a step: ``run done in 3 h 12, 8.4 h of CPU, peak 61.0 GB``."""
    parts = [f"{step.name} {step.end or ('runs' if step.started_at else 'not yet')}"]
    if step.seconds is not None:
        parts[0] += f" in {age(step.seconds)}"
    usage = step.usage
    if usage and usage.cpu_s is not None:
        parts.append(f"{age(usage.cpu_s)} of CPU")
    if usage and usage.peak_bytes is not None:
        parts.append(f"peak {readable(usage.peak_bytes)}")
    return ", ".join(parts)
