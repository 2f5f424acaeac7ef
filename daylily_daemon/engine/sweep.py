"""Passes over what waits: read the index when it is due, adopt, check inputs, admit, rest until called.

Each pass is the same whatever woke it, so nothing depends on having heard of something: what was missed is
found by the next one. Its parts stand alone; trouble of one makes the next reading come sooner.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog
from anyio import create_task_group, current_time
from anyio.abc import TaskGroup

from daylily_daemon.domain.errors import DaemonError
from daylily_daemon.domain.model import State
from daylily_daemon.domain.workset import Workset
from daylily_daemon.engine.admitter import Admitter
from daylily_daemon.engine.backlog import WAITING, Backlog
from daylily_daemon.engine.boundary import aside, foreign_as_unexpected
from daylily_daemon.engine.dials import Live
from daylily_daemon.engine.inspector import Inspector
from daylily_daemon.engine.tender import Tender
from daylily_daemon.engine.wakeup import Wakeup
from daylily_daemon.ports import Clock, Worksets

log = structlog.get_logger()

LOOKED_AT: Final = 10_000
"""Worksets of one state that a pass reads, first ones first."""
SOONER_S: Final = 1.0
"""Until the index is read again after a part of a pass had trouble."""


@dataclass(slots=True, kw_only=True)
class Sweep:
    worksets: Worksets
    clock: Clock
    live: Live
    backlog: Backlog
    inspector: Inspector
    admitter: Admitter
    tender: Tender
    wakeup: Wakeup
    passes: int = 0

    async def run(self, tending: TaskGroup, on_pass: Callable[[], None]) -> None:
        """Pass for ever. What is taken lives in ``tending``; ``on_pass`` is called after each pass."""
        async with create_task_group() as checks:
            while True:
                await self._alone("reading the index", self._read_if_due)
                await self._alone("a sweep", partial(self._pass, tending, checks))
                self.passes += 1
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
        waiting: list[Workset] = []
        for state in WAITING:
            waiting += await self.worksets.in_state(state, limit=LOOKED_AT)
        running = await self.worksets.in_state(State.IN_PROGRESS, limit=LOOKED_AT)
        self.backlog.read(waiting, running, current_time())
        self.backlog.read_at = current_time() + self.live.current.sweep_s

    async def _pass(self, tending: TaskGroup, checks: TaskGroup) -> None:
        await self.admitter.look()
        self._adopt(tending)
        self.inspector.check_what_is_due(checks, self.tender.held)
        self.admitter.admit(tending)

    def _adopt(self, tending: TaskGroup) -> None:
        sees, held = self.tender.place.sees, self.tender.held
        for ws in self.backlog.to_adopt(sees, held, current_time()):
            self.tender.take(ws, tending)

    async def _rest(self) -> None:
        now = current_time()
        longest = now + self.live.current.sweep_s
        await self.wakeup.wait(min(longest, self.backlog.next_at(now, self.clock.now())))
        self.backlog.wake(current_time())
