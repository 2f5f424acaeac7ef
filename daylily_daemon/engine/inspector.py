"""Looks at the input of one workset and writes down what came of it.

A check that finds trouble of ours, or breaks, comes again: its workset stays ready and says why. One that
breaks again and again for a reason nobody foresaw is parked with that reason, and can be retried.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import structlog
from anyio import current_time, move_on_after
from anyio.abc import TaskGroup

from daylily_daemon.domain.errors import DaemonError, Transient, Unexpected
from daylily_daemon.domain.events import InputNotChecked, Inspected
from daylily_daemon.domain.model import (
    Category,
    Inspection,
    Priority,
    Problem,
    Refused,
    State,
    WorksetId,
)
from daylily_daemon.domain.workset import Workset
from daylily_daemon.engine.backlog import Backlog
from daylily_daemon.engine.boundary import foreign_as_unexpected
from daylily_daemon.engine.remarks import remark
from daylily_daemon.engine.wakeup import Wakeup
from daylily_daemon.engine.writer import Applied, Overtaken, Writer
from daylily_daemon.ports import Inputs

log = structlog.get_logger()

BREAKS: Final = 5
"""Checks of one workset in a row that may meet something unforeseen, before it is parked for that."""
CHECKS_AT_ONCE: Final = 8
"""A flood of drops is taken in faster than its inputs are looked at."""
SLOW_S: Final = 5.0
"""After so long a check takes no place of another: its disk may hang."""
REMARK_S: Final = 60.0
"""Least time between two writes about why one workset cannot be checked."""


@dataclass(slots=True, kw_only=True)
class Inspector:
    writer: Writer
    inputs: Inputs
    limit_s: float = 900.0
    """How long one check may take: a file system may hang, and 10,000 files take minutes."""

    backlog: Backlog
    wakeup: Wakeup
    """Called when a check has ended."""

    _newest: bool = False
    _checking: dict[WorksetId, float] = field(default_factory=dict)
    """Since when each is being checked."""
    _broke: dict[WorksetId, int] = field(default_factory=dict)
    _remarked_at: dict[WorksetId, float] = field(default_factory=dict)

    def check_what_is_due(self, tg: TaskGroup, held: Container[WorksetId]) -> None:
        """Begin to check inputs whose time has come, as many as may be checked at once.

        In turn of the oldest and of the newest drop: nobody waits for ever, and in a flood one that its
        recipe makes urgent is not the last to be found so, whatever was taken in before it and after it.
        """
        due = self.backlog.to_check(held, current_time())
        left = sorted((ws for ws in due if ws.id not in self._checking), key=_since)
        now = current_time()
        quick = sum(now - began < SLOW_S for began in self._checking.values())
        for _ in range(min(len(left), CHECKS_AT_ONCE - quick)):
            self._newest = not self._newest
            ws = left.pop(-1 if self._newest else 0)
            self._checking[ws.id] = now
            tg.start_soon(self._check_one, ws)

    async def _check_one(self, ws: Workset) -> None:
        again_at = current_time() + self.writer.live.current.input_poll_s
        try:
            found = await self.check(ws)
        except DaemonError as exc:
            log.warning("input_check_comes_again", workset=ws.id, error=str(exc))
            self.backlog.rest(ws.id, again_at)
        else:
            self._learn(ws, found, again_at)
        finally:
            self._checking.pop(ws.id, None)
            self.wakeup.call()

    def _learn(self, ws: Workset, found: Applied | Overtaken, again_at: float) -> None:
        if isinstance(found, Overtaken):
            self.backlog.forget(ws.id)
            if found.current is not None:
                self.backlog.stored(found.current, current_time())
            return
        self.backlog.stored(found.workset, current_time())
        if found.workset.state is State.READY and found.workset.plan is None:
            self.backlog.rest(ws.id, again_at)

    async def check(self, ws: Workset) -> Applied | Overtaken:
        """Look, and write down what was found. Raises Transient if the check comes again."""
        try:
            with foreign_as_unexpected("an input check"):
                found = await self._checked(ws)
        except DaemonError as exc:
            if isinstance(exc, Unexpected):
                self._broke[ws.id] = self._broke.get(ws.id, 0) + 1
            await self._say_why(ws, str(exc))
            raise
        if isinstance(found, Applied):
            self._broke.pop(ws.id, None)
            self._remarked_at.pop(ws.id, None)
        return found

    async def _checked(self, ws: Workset) -> Applied | Overtaken:
        too_often = self._broke.get(ws.id, 0) >= BREAKS
        inspection = _given_up(ws) if too_often else await self._inspection(ws)
        log.info("input_checked", workset=ws.id, result=type(inspection).__name__.lower())
        return await self.writer.apply(ws, Inspected(inspection))

    async def _inspection(self, ws: Workset) -> Inspection:
        with move_on_after(self.limit_s):
            return await self.inputs.inspect(ws)
        raise Transient(f"The check of its input gave no answer within {self.limit_s:g} s.")

    async def _say_why(self, ws: Workset, text: str) -> None:
        """Let people see why an input is not checked; best effort, and at most once a minute."""
        said = f"its input could not be checked: {text}"[:300]
        last = self._remarked_at.get(ws.id)
        if ws.waiting_for == said or (last and current_time() - last < REMARK_S):
            return
        self._remarked_at[ws.id] = current_time()
        await remark(self.writer, ws, InputNotChecked(said))


def _since(ws: Workset) -> tuple[bool, datetime]:
    """Urgent ones, as far as that is known, count as new."""
    asked = ws.request
    since = asked.dropped_at or asked.submitted_at or ws.created_at
    return ws.priority is Priority.URGENT, since


def _given_up(ws: Workset) -> Refused:
    what = f"The check of this input broke {BREAKS} times in a row, for a reason nobody foresaw."
    todo = "Report it with the daemon's log (event unexpected); after an upgrade retry the workset."
    return Refused((Problem(ws.id, "", what, todo, Category.CONFIGURATION),))
