"""Whether a daemon does its work now, for whoever sends it traffic or replaces it by that."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from daylily_daemon.domain.daemon import Status
from daylily_daemon.domain.problems import SERVICES, is_failing
from daylily_daemon.domain.times import span

NEEDED: Final = ("DynamoDB", "SQS")
"""What must have answered; without the others jobs run on and commands are taken."""
SWEEPS: Final = 2
PATIENCE_S: Final = 60.0
"""A pass may be ``SWEEPS`` sweeps and so many seconds old, as the watchdog allows too."""


def patience_s(sweep_s: float) -> float:
    """Return how old the last pass may be, in seconds."""
    return SWEEPS * sweep_s + PATIENCE_S


def why_not_ready(status: Status, now: datetime, monotonic_s: float) -> tuple[str, ...]:
    """Return each reason as a sentence; none of a daemon that is ready.

    ``monotonic_s`` is CLOCK_MONOTONIC, by which the age of a pass is told: nobody sets it.
    """
    if status.stopping_at is not None or status.stopped_at is not None:
        return ("It is stopping.",)
    if status.seen_monotonic_s is None:
        return (status.trouble or "It has not finished a pass yet.",)
    return (*_old_pass(status, monotonic_s), *_unanswered(status, now))


def _old_pass(status: Status, monotonic_s: float) -> Iterator[str]:
    age_s = monotonic_s - (status.seen_monotonic_s or 0.0)
    if age_s > patience_s(status.sweep_s):
        yield f"The last pass was finished {span(age_s)} ago."


def _unanswered(status: Status, now: datetime) -> Iterator[str]:
    for service in NEEDED:
        ports = [port for name, port in status.ports.items() if SERVICES.get(name) == service]
        failing = next((port for port in ports if is_failing(port, now)), None)
        if failing is not None:
            yield f"{service} fails: {failing.text}"
        elif not any(port.good_at for port in ports):
            yield f"{service} has not answered yet."
