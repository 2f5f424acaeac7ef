"""What comes in: events become commands, commands become state, and what no event told of is found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Final

import structlog
from anyio import sleep
from anyio.abc import TaskGroup

from daylily_daemon.domain.daemon import Missed
from daylily_daemon.domain.model import Command
from daylily_daemon.domain.workset import Workset
from daylily_daemon.engine.boundary import for_ever
from daylily_daemon.engine.counting import EventFate
from daylily_daemon.engine.doorbell import Doorbell, Relay
from daylily_daemon.engine.flood import Flood
from daylily_daemon.engine.health import Health
from daylily_daemon.engine.live_settings import LiveSettings
from daylily_daemon.engine.writer import Writer
from daylily_daemon.ports import Clock, Drops, EventSource, Mailbox, Trail

log = structlog.get_logger()

RECONCILE_PAUSE_S: Final = 60.0
"""Until a listing that failed is tried again."""
EVENTS_REMEMBERED: Final = 1000
EVENT_LATE_S: Final = 60.0
SWEEPS: Final = 4
"""An event may be as late as this many sweeps, at most ``EVENT_LATE_S``, before it is missed."""


@dataclass(slots=True)
class MissedEvents:
    """Drops that were found by a listing, until their events, or those of others, come after all."""

    clock: Clock
    _found: dict[str, datetime] = field(default_factory=dict)
    _told: dict[str, None] = field(default_factory=dict)
    """Ids that events told of, oldest first."""

    def found(self, commands: Sequence[Command]) -> None:
        now = self.clock.now()
        fresh = [command.id for command in commands if command.id not in self._told]
        self._found = dict.fromkeys(fresh, now) | self._found

    def told_by_event(self, commands: Sequence[Command]) -> None:
        """An event came: it is late, or those of new drops come again."""
        for command in commands:
            self._told[command.id] = None
            if self._found.pop(command.id, None) is None:
                self._found.clear()
        while len(self._told) > EVENTS_REMEMBERED:
            del self._told[next(iter(self._told))]

    def told(self, late: timedelta) -> Missed:
        """Return those that no event told of within ``late``."""
        before = self.clock.now() - late
        found = [at for at in self._found.values() if at <= before]
        return Missed(count=len(found), since=min(found, default=None))


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
    flood: Flood = field(default_factory=Flood)
    missed: MissedEvents = field(init=False)

    def __post_init__(self) -> None:
        self.missed = MissedEvents(self.writer.clock)

    def start(self, tg: TaskGroup, on_stored: Callable[[Workset], None]) -> None:
        """Take in until cancelled; ``on_stored`` is called with what a command has made of a workset."""
        relay = Relay(
            intake=self.events,
            commands=self.commands,
            drops=self.drops,
            flood=self.flood,
            sent=partial(self.health.answered, "drops", "as_it_is"),
            told=self.missed.told_by_event,
            counting=self.writer.counting,
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

    def told_missed(self) -> Missed:
        """Return the drops that no event told of."""
        late_s = min(EVENT_LATE_S, SWEEPS * self.live.current.sweep_s)
        return self.missed.told(timedelta(seconds=late_s))

    async def _find_missed(self) -> None:
        missed = await self.drops.unannounced()
        if missed:
            log.warning("events_missed", worksets=[c.workset_id for c in missed])
            self.missed.found(missed)
            await self.commands.send(missed)
            self.writer.counting.event(EventSource.LISTING, EventFate.PASSED_ON, len(missed))
        await sleep(self.live.current.reconcile_s)
