"""Starts what waits, as far as there is room: which and why not is the domain's decision."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import structlog
from anyio import current_time
from anyio.abc import TaskGroup

from daylily_daemon.domain.admission import Capacity, admit, capacity_of
from daylily_daemon.domain.model import WorksetId
from daylily_daemon.engine.backlog import Backlog
from daylily_daemon.engine.live_settings import LiveSettings
from daylily_daemon.engine.tender import Tender
from daylily_daemon.ports import Clock

log = structlog.get_logger()


async def never_held() -> str:
    return ""


@dataclass(slots=True, kw_only=True)
class Admitter:
    live: LiveSettings
    clock: Clock
    backlog: Backlog
    tender: Tender
    look_for_room: Callable[[], Awaitable[str]] = never_held
    """Asked before anything new is started: why this host cannot take more now, or nothing. Answers within
    seconds, whatever becomes of the disks."""
    drained: Callable[[], Awaitable[str]] = never_held
    """Asked before anything that waits is started: why somebody wants nothing new started here."""
    held: str = ""
    """Why nothing new is started; empty if nothing is in the way."""

    async def look(self) -> None:
        """Find out whether this host may take more."""
        held = await self.look_for_room()
        if self.backlog.waiting and not held:
            held = await self.drained()
        if held and not self.held:
            log.error("admission_held", reason=held)
        elif self.held and not held:
            log.info("admission_resumed")
        self.held = held

    def admit(self, tending: TaskGroup) -> None:
        """Take what may start now."""
        backlog, tender, limits = self.backlog, self.tender, self.live.current.limits
        clock = self.clock.now()
        free = list(backlog.to_start(tender.held, current_time(), clock))
        if not free or self.held or not backlog.was_read:
            return
        capacity = self.capacity(backlog.runs)
        if capacity.running >= limits.slots:
            return
        for verdict in admit(free, capacity, clock):
            if verdict.admitted:
                tender.take(backlog.waiting[verdict.workset_id], tending)

    def capacity(self, runs: Mapping[WorksetId, str]) -> Capacity:
        """Return what may be taken on now, where ``runs`` are in progress on any host, by customer."""
        mine = {id: held.customer for id, held in self.tender.held.items()}
        active = self.backlog.unheld(self.tender.place.sees) | mine
        return capacity_of(self.live.current.limits, active, runs, self.held)
