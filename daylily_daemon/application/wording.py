"""What is said of a workset in one line."""

from __future__ import annotations

from daylily_daemon.domain.model import State
from daylily_daemon.domain.workset import Workset


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


def reason_text(ws: Workset) -> str:
    """Return what it does, or why it does not, on one line."""
    if ws.trouble:
        return f"DOES NOT GO ON: {ws.trouble}"
    if ws.state is State.COMPLETE and ws.warnings:
        more = f" (and {len(ws.warnings) - 1} more)" if len(ws.warnings) > 1 else ""
        return f"NOTE: {ws.warnings[0]}{more}"
    return progress_text(ws)


def progress_text(ws: Workset) -> str:
    """Return how far it is, what it waits for, or why it failed, on one line."""
    if ws.run and ws.step:
        percent = "" if ws.run.progress.fraction is None else f"{ws.run.progress.fraction:.0%}"
        said = f"stopping: {ws.run.stopping}" if ws.run.stopping else ws.run.progress.message
        return " ".join(part for part in (ws.step.name, percent, said) if part)
    if ws.state is State.READY:
        return ws.waiting_for
    return ws.failure.details.split("\n", 1)[0] if ws.failure else ""
