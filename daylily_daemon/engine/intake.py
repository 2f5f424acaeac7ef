"""What comes in: events become commands, commands become state, and what no event told of is found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import structlog
from anyio import sleep
from anyio.abc import TaskGroup

from daylily_daemon.domain.workset import Workset
from daylily_daemon.engine.boundary import for_ever
from daylily_daemon.engine.dials import Live
from daylily_daemon.engine.doorbell import Doorbell, Relay
from daylily_daemon.engine.flood import Flood
from daylily_daemon.engine.health import Health
from daylily_daemon.engine.writer import Writer
from daylily_daemon.ports import Drops, Mailbox, Trail

log = structlog.get_logger()

RECONCILE_PAUSE_S: Final = 60.0
"""Until a listing that failed is tried again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    events: Mailbox
    commands: Mailbox
    drops: Drops
    trail: Trail
    writer: Writer
    live: Live
    health: Health
    answer_s: float
    """As in Doorbell."""
    flood: Flood = field(default_factory=Flood)

    def start(self, tg: TaskGroup, on_stored: Callable[[Workset], None]) -> None:
        """Take in until cancelled; ``on_stored`` is called with what a command has made of a workset."""
        relay = Relay(
            intake=self.events,
            commands=self.commands,
            drops=self.drops,
            flood=self.flood,
            sent=partial(self.health.answered, "drops", "as_it_is"),
        )
        doorbell = Doorbell(
            mailbox=self.commands,
            trail=self.trail,
            written=partial(self.health.answered, "worksets", "commit"),
            writer=self.writer,
            on_workset=on_stored,
            answer_s=self.answer_s,
            flood=self.flood,
        )
        tg.start_soon(relay.listen)
        tg.start_soon(doorbell.listen)
        tg.start_soon(for_ever, "the listing of drops", self._find_missed, RECONCILE_PAUSE_S)

    async def _find_missed(self) -> None:
        missed = await self.drops.unannounced()
        if missed:
            log.warning("events_missed", worksets=[c.workset_id for c in missed])
            await self.commands.send(missed)
        await sleep(self.live.current.reconcile_s)
