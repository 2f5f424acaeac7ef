"""What runs, on any host, with what its processes do where they can be seen from here."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from daylily_daemon.application.backend import Backend
from daylily_daemon.application.queries import Listing, list_worksets
from daylily_daemon.domain.activity import Activity, By
from daylily_daemon.domain.model import State
from daylily_daemon.domain.workset import Workset


@dataclass(frozen=True, slots=True)
class Running:
    workset: Workset
    activity: Activity | None
    """None where its job is on another host, or this user may not see it."""

    def lasted_s(self, now: datetime) -> float:
        """Return how long its present step has run, in seconds."""
        step = self.workset.step
        started_at = step.started_at if step else None
        return (now - started_at).total_seconds() if started_at else 0.0

    def quiet_s(self, now: datetime) -> float:
        """As ``Run.quiet_s``."""
        return self.workset.run.quiet_s(now) if self.workset.run else 0.0

    def left_s(self, now: datetime) -> float | None:
        """Return when it should have ended at the latest, in seconds from now; None where nobody knows."""
        ends_at = self.workset.run.ends_at() if self.workset.run else None
        return (ends_at - now).total_seconds() if ends_at else None


@dataclass(frozen=True, slots=True)
class RunningNow:
    now: datetime
    rows: tuple[Running, ...]
    more: bool
    """Whether more run than were looked at."""


async def running(backend: Backend, by: By, most: int) -> RunningNow:
    """Return what runs, at most ``most`` worksets. Raises Transient."""
    listed = await list_worksets(backend, Listing(states=(State.IN_PROGRESS,)), limit=most)
    seen = await backend.activities(listed.worksets)
    now = backend.clock.now()
    rows = [Running(ws, seen.get(ws.id)) for ws in listed.worksets]
    rows.sort(key=lambda row: _much(row, by, now), reverse=True)
    return RunningNow(now, tuple(rows), bool(listed.cursor))


def _much(row: Running, by: By, now: datetime) -> float:
    match by:
        case By.QUIET:
            return row.quiet_s(now)
        case By.AGE:
            return row.lasted_s(now)
        case By.CPU:
            return row.activity.cpus if row.activity else -1.0
        case By.MEMORY:
            return float(row.activity.memory_bytes) if row.activity else -1.0
