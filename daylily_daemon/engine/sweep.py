"""Passes over what waits: read the index when it is due, adopt, check inputs, admit, rest until called.

Each pass is the same whatever woke it, so nothing depends on having heard of something: what was missed is
found by the next one. Its parts stand alone; trouble of one makes the next reading come sooner. A reading
brings a bounded number of worksets, whatever waits; when a pass has used up what it knows of, and there is
more, it reads again at once.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Final

import structlog
from anyio import create_task_group, current_time, sleep
from anyio.abc import TaskGroup

from daylily_daemon.domain.admission import Capacity, is_elsewhere, room_for
from daylily_daemon.domain.errors import DaemonError
from daylily_daemon.domain.model import State, WorksetId
from daylily_daemon.domain.turn import ANYWHERE, Need, Turn, as_part
from daylily_daemon.domain.workset import Workset
from daylily_daemon.engine.admitter import Admitter
from daylily_daemon.engine.backlog import Backlog, Look
from daylily_daemon.engine.boundary import aside, for_ever, foreign_as_unexpected
from daylily_daemon.engine.inspector import Inspector
from daylily_daemon.engine.lineup import Lineup
from daylily_daemon.engine.live_settings import LiveSettings
from daylily_daemon.engine.tender import Tender
from daylily_daemon.engine.wakeup import Wakeup
from daylily_daemon.ports import Clock, Turns

log = structlog.get_logger()

SOONER_S: Final = 1.0
"""Until the index is read again after a part of a pass had trouble, or used up what was known."""
AHEAD: Final = 10
"""Worksets of a line known beyond those that could start now: the next ones start without a reading."""
FILED_AGAIN_S: Final = 60.0
"""Until items of older versions are looked for again after that had trouble."""
CHECKS: Final = 20
"""Worksets of a line whose input is to be checked."""
REST_SHARE: Final = 3.0
"""How much longer than a pass took the next one waits, so that passes never take all of a core."""
MOST_SPACED_S: Final = 1.0


@dataclass(slots=True, kw_only=True)
class Sweep:
    turns: Turns
    clock: Clock
    live: LiveSettings
    backlog: Backlog
    inspector: Inspector
    admitter: Admitter
    tender: Tender
    wakeup: Wakeup
    passes: int = 0
    pass_s: float = 0.0
    """How long the last pass took, reading the index included."""

    _lineup: Lineup = field(init=False)
    _read_since: float = -math.inf
    _spaced_s: float = 0.0

    def __post_init__(self) -> None:
        self._lineup = Lineup(self.turns)

    async def run(self, tending: TaskGroup, on_pass: Callable[[], None]) -> None:
        """Pass for ever. What is taken lives in ``tending``; ``on_pass`` is called after each pass."""
        async with create_task_group() as checks:
            what = "filing what older versions wrote"
            checks.start_soon(for_ever, what, self._file_older, FILED_AGAIN_S)
            while True:
                began = current_time()
                await self._alone("reading the index", self._read_if_due)
                await self._alone("a sweep", partial(self._pass, tending, checks))
                self.passes, self.pass_s = self.passes + 1, current_time() - began
                with aside("telling of a pass"):
                    on_pass()
                await self._rest()

    async def _alone(self, what: str, work: Callable[[], Awaitable[None]]) -> None:
        """Do one part of a pass; its trouble is logged and makes the next reading come sooner."""
        try:
            with foreign_as_unexpected(what):
                await work()
        except DaemonError as exc:
            log.warning("sweep_hampered", at=what, error=str(exc))
            self.backlog.read_at = current_time() + SOONER_S

    async def _read_if_due(self) -> None:
        if current_time() < self.backlog.read_at:
            return
        look = await self._look()
        self._read_since = current_time()
        self.backlog.read(look, self._read_since)
        due_s = (look.due_at - self.clock.now()).total_seconds() if look.due_at else math.inf
        pause_s = min(self.live.current.sweep_s, max(due_s, SOONER_S))
        self.backlog.read_at = self._read_since + pause_s

    async def _look(self) -> Look:
        runs = [turn for turn in await self._lineup.running() if turn.id not in self.tender.held]
        mine = [turn for turn in runs if self._may_see(turn.scope)]
        in_progress = await self._lineup.loaded(mine, {})
        customers = {turn.id: turn.customer for turn in runs}
        use = _Usability(self.admitter.capacity(customers), self.clock.now())
        reading = await self._lineup.waiting(use, self._is_busy)
        waiting = await self._lineup.loaded(reading.turns, self.backlog.as_read())
        return Look(
            waiting=_with_room_first(waiting, use.capacity),
            complete=reading.complete,
            more=reading.more,
            due_at=use.due_at,
            in_progress=in_progress,
            runs=customers,
        )

    def _is_busy(self, id: WorksetId) -> bool:
        """Return whether nobody need look for it, though the index may show it."""
        return id in self.tender.held or self.backlog.is_resting(id)

    def _may_see(self, scope: str) -> bool:
        return scope == ANYWHERE or self.tender.place.sees(scope)

    async def _file_older(self) -> None:
        """Bring what a version before this one wrote into the index, and know of it at once, runs first.

        Beside the passes, because those versions have no index in which it can be found without reading all.
        """
        for state in (State.IN_PROGRESS, State.READY, State.RETRYING):
            for ws in await self.turns.unfiled(state):
                await self.turns.refile(ws)
                if ws.id not in self.tender.held:
                    self.backlog.stored(ws, current_time())
                    self.wakeup.call()
        await sleep(self.live.current.reconcile_s)

    async def _pass(self, tending: TaskGroup, checks: TaskGroup) -> None:
        await self.admitter.look()
        began = current_time()
        self._adopt(tending)
        self.inspector.check_what_is_due(checks, self.tender.held)
        self.admitter.admit(tending)
        if self.backlog.more and self.backlog.is_used_up(
            self.tender.held, current_time(), self.clock.now()
        ):
            soon = max(current_time(), self._read_since + SOONER_S)
            self.backlog.read_at = min(self.backlog.read_at, soon)
        self._spaced_s = min(REST_SHARE * (current_time() - began), MOST_SPACED_S)

    def _adopt(self, tending: TaskGroup) -> None:
        sees, held = self.tender.place.sees, self.tender.held
        for ws in self.backlog.to_adopt(sees, held, current_time()):
            self.tender.take(ws, tending)

    async def _rest(self) -> None:
        if self._spaced_s:
            await sleep(self._spaced_s)
        now = current_time()
        longest = now + self.live.current.sweep_s
        await self.wakeup.wait(min(longest, self.backlog.next_at(now, self.clock.now())))
        self.backlog.wake(current_time())


def _with_room_first(waiting: Sequence[Workset], capacity: Capacity) -> Sequence[Workset]:
    """Where not all can be remembered, those that could start must be among them."""
    return sorted(waiting, key=lambda ws: not room_for(capacity, ws.request.customer_id))


@dataclass(slots=True)
class _Usability:
    """How many worksets of a line are of use now, and when those are that are not due yet."""

    capacity: Capacity
    now: datetime
    due_at: datetime | None = None

    def __call__(self, turn: Turn) -> int:
        match turn.need:
            case Need.UNCHECKED:
                return CHECKS
            case Need.RETRYING if turn.since_at > self.now:
                self.due_at = min(self.due_at or turn.since_at, turn.since_at)
                return 0
            case Need.READY | Need.RETRYING:
                elsewhere = is_elsewhere(turn.cluster, as_part(self.capacity.limits.cluster))
                return 0 if elsewhere else AHEAD + room_for(self.capacity, turn.customer)
            case _:
                return 0
