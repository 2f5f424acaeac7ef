"""What comes in: events become commands, commands become state, and what no event told of is found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Final

import structlog
from anyio import sleep
from anyio.abc import TaskGroup

from daylily_daemon.domain.daemon import Missed
from daylily_daemon.domain.model import Command
from daylily_daemon.domain.workset import Workset
from daylily_daemon.engine.boundary import for_ever
from daylily_daemon.engine.doorbell import Doorbell, Relay
from daylily_daemon.engine.health import Health
from daylily_daemon.engine.live_settings import LiveSettings
from daylily_daemon.engine.writer import Writer
from daylily_daemon.ports import Clock, Drops, Mailbox, Trail

log = structlog.get_logger()

RECONCILE_PAUSE_S: Final = 60.0
"""Until a listing that failed is tried again."""


@dataclass(slots=True)
class MissedEvents:
    """Drops that were found by a listing, until their events, or any later ones, come after all."""

    clock: Clock
    _found: dict[str, datetime] = field(default_factory=dict)

    def found(self, commands: Sequence[Command]) -> None:
        self._found |= {command.id: self.clock.now() for command in commands}

    def told_by_event(self, commands: Sequence[Command]) -> None:
        """An event came: either it is late, or those that come now are told of again."""
        ids = {command.id for command in commands}
        if ids & set(self._found):
            self._found = {id: at for id, at in self._found.items() if id not in ids}
        elif ids:
            self._found.clear()

    def told(self) -> Missed:
        return Missed(count=len(self._found), since=min(self._found.values(), default=None))


@dataclass(slots=True, kw_only=True)
class Intake:
    events: Mailbox
    commands: Mailbox
    drops: Drops
    trail: Trail
    writer: Writer
    live: LiveSettings
    health: Health
    answer_s: float
    """As in Doorbell."""
    missed: MissedEvents = field(init=False)

    def __post_init__(self) -> None:
        self.missed = MissedEvents(self.writer.clock)

    def start(self, tg: TaskGroup, on_stored: Callable[[Workset], None]) -> None:
        """Take in until cancelled; ``on_stored`` is called with what a command has made of a workset."""
        relay = Relay(
            intake=self.events,
            commands=self.commands,
            drops=self.drops,
            sent=partial(self.health.answered, "drops", "as_it_is"),
            told=self.missed.told_by_event,
        )
        doorbell = Doorbell(
            mailbox=self.commands,
            trail=self.trail,
            written=partial(self.health.answered, "worksets", "commit"),
            writer=self.writer,
            on_workset=on_stored,
            answer_s=self.answer_s,
        )
        tg.start_soon(relay.listen)
        tg.start_soon(doorbell.listen)
        tg.start_soon(for_ever, "the listing of drops", self._find_missed, RECONCILE_PAUSE_S)

    async def _find_missed(self) -> None:
        missed = await self.drops.unannounced()
        if missed:
            log.warning("events_missed", worksets=[c.workset_id for c in missed])
            self.missed.found(missed)
            await self.commands.send(missed)
        await sleep(self.live.current.reconcile_s)
