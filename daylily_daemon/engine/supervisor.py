"""The supervision tree, and the order in which it dies.

intake (relay, doorbell, listing)        first: nothing new comes in
sweep (adoption, checks, admission)
tender: a shepherd per workset, each in its term    let go of their leases; jobs run on
outbox                                   last: pays what the others still owed
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field

import structlog
from anyio import Event, create_task_group, current_time, move_on_after

from daylily_daemon.domain.daemon import Missed, Port
from daylily_daemon.domain.workset import Workset
from daylily_daemon.engine.admitter import Admitter, never_held
from daylily_daemon.engine.backlog import Backlog, BeatObserver
from daylily_daemon.engine.health import Health
from daylily_daemon.engine.inspector import Inspector
from daylily_daemon.engine.intake import Intake
from daylily_daemon.engine.lease import LeaseConfig
from daylily_daemon.engine.live_settings import LiveSettings
from daylily_daemon.engine.outbox import Outbox
from daylily_daemon.engine.shepherd import Shepherd
from daylily_daemon.engine.sweep import Sweep
from daylily_daemon.engine.tender import Place, Tender
from daylily_daemon.engine.wakeup import Wakeup
from daylily_daemon.engine.writer import Writer
from daylily_daemon.ports import Inputs, Turns

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What ``status`` shows of a running daemon."""

    active: dict[str, str]
    """Progress by workset id."""
    customers: dict[str, str]
    """Whose they are, by workset id."""
    waiting: int
    """As many as are known here."""
    waits_more: bool
    """Whether others wait besides."""
    owed: int
    passes: int
    held: str
    """Why nothing new is started; empty if nothing is in the way."""
    ports: Mapping[str, Port]
    """What this daemon could last do, by port."""
    missed: Missed


@dataclass(slots=True, kw_only=True)
class Supervisor:
    writer: Writer
    turns: Turns
    live: LiveSettings
    lease: LeaseConfig
    place: Place
    shepherd: Shepherd
    inputs: Inputs
    intake: Intake
    outbox: Outbox
    health: Health
    on_pass: Callable[[Snapshot], None] | None = None
    """Called after each pass: feeds the watchdog and the status file. None where nobody looks."""
    look_for_room: Callable[[], Awaitable[str]] = never_held
    """As in Admitter."""
    release_s: float
    """As in Tender."""
    drain_s: float
    """How long the outbox may pay what is left at the end."""
    drained: Callable[[], Awaitable[str]] = never_held
    """As in Admitter."""
    index_lag_s: float = 30.0
    """As in Backlog."""

    _wakeup: Wakeup = field(default_factory=Wakeup)
    _backlog: Backlog = field(init=False)
    _tender: Tender = field(init=False)
    _sweep: Sweep = field(init=False)

    def __post_init__(self) -> None:
        observer = BeatObserver(self.lease.ttl_s)
        self._backlog = Backlog(
            owner=self.writer.owner, observer=observer, index_lag_s=self.index_lag_s
        )
        self._tender = Tender(
            writer=self.writer,
            lease=self.lease,
            place=self.place,
            shepherd=self.shepherd,
            backlog=self._backlog,
            wakeup=self._wakeup,
            release_s=self.release_s,
        )
        self._sweep = self._swept()

    def _swept(self) -> Sweep:
        clock, backlog, tender = self.writer.clock, self._backlog, self._tender
        return Sweep(
            turns=self.turns,
            clock=clock,
            live=self.live,
            backlog=backlog,
            inspector=Inspector(
                writer=self.writer, inputs=self.inputs, backlog=backlog, wakeup=self._wakeup
            ),
            admitter=Admitter(
                live=self.live,
                clock=clock,
                backlog=backlog,
                tender=tender,
                look_for_room=self.look_for_room,
                drained=self.drained,
            ),
            tender=tender,
            wakeup=self._wakeup,
        )

    async def run(self, stop: Event) -> None:
        """Run until ``stop`` is set, then let go of everything, jobs running on.

        Ends within ``answer_s`` of the intake plus ``release_s`` plus ``drain_s`` after that.
        """
        async with create_task_group() as paying:
            paying.start_soon(self.outbox.run)
            async with create_task_group() as tending:
                tending.start_soon(self.shepherd.looks.run)
                async with create_task_group() as taking:
                    self.intake.start(taking, self._stored)
                    taking.start_soon(self._sweep.run, tending, self._passed)
                    await stop.wait()
                    taking.cancel_scope.cancel()
                log.info("letting_go", worksets=len(self._tender.held))
                tending.cancel_scope.cancel()
            with move_on_after(self.drain_s):
                await self.outbox.drained()
            paying.cancel_scope.cancel()

    def nudge(self) -> None:
        """Pass now."""
        self._wakeup.call()

    def runs_without(self, pipelines: Collection[str]) -> Mapping[str, str]:
        """Return the pipelines of what runs here that are not among ``pipelines``, by workset id."""
        held = self._tender.held.items()
        return {
            id: one.pipeline for id, one in held if one.pipeline and one.pipeline not in pipelines
        }

    def _stored(self, ws: Workset) -> None:
        """A command was stored: let the holder of the workset look, or put it into the backlog."""
        if not self._tender.poke(ws.id):
            self._backlog.stored(ws, current_time())
            self._wakeup.call()

    def _passed(self) -> None:
        self.writer.counting.passed(self._sweep.pass_s)
        if self.on_pass is not None:
            self.on_pass(self.snapshot())

    def snapshot(self) -> Snapshot:
        held = self._tender.held
        return Snapshot(
            active={id: one.doing for id, one in held.items()},
            customers={id: one.customer for id, one in held.items()},
            waiting=len(self._backlog.waiting),
            waits_more=self._backlog.more,
            owed=self.outbox.waiting,
            passes=self._sweep.passes,
            held=self._sweep.admitter.held,
            ports=self.health.ports,
            missed=self.intake.told_missed(),
        )
