"""How many worksets are in each state, counted a little at a time.

Each minute the states are counted that this daemon moved a workset into or out of, and every ten minutes one
more in turn. So a daemon that has nothing to do makes a call in ten minutes, and what another one did is seen
within ten times as many minutes as there are states; each daemon counts its own at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog
from anyio import move_on_after, sleep

from daylily_daemon.domain.errors import DaemonError
from daylily_daemon.domain.model import Record, State
from daylily_daemon.engine.boundary import for_ever, foreign_as_unexpected
from daylily_daemon.ports import Catalogue, Count

EVERY_S: Final = 60.0
TURNS: Final = 10
"""Every so many minutes a state is counted in turn."""
LIMIT_S: Final = 10.0
"""Longest wait for one count."""
LOOKS: Final = 2
"""At a state after a move, a minute apart: the index that is counted may lag behind."""
log = structlog.get_logger()


@dataclass(slots=True, kw_only=True)
class Census:
    catalogue: Catalogue
    counts: dict[State, Count] = field(default_factory=dict)
    """Those that were counted so far, with no more than ``COUNTED`` of each."""
    _looks: dict[State, int] = field(default_factory=lambda: dict.fromkeys(State, 1))
    """How often each is to be counted, besides its turn."""
    _line: list[State] = field(default_factory=lambda: list(State))
    _minutes: int = 0

    def moved(self, records: Sequence[Record]) -> None:
        """Have the states counted that a stored write has moved a workset between."""
        for record in records:
            if record.previous is not record.state:
                self._looks[record.state] = LOOKS
                self._looks[record.previous or record.state] = LOOKS

    async def run(self) -> None:
        """Count for ever."""
        await for_ever("counting worksets", self._count_and_rest, EVERY_S)

    async def _count_and_rest(self) -> None:
        await self.count()
        await sleep(EVERY_S)

    async def count(self) -> None:
        """Count what is due; what gets no answer stays as it was, and due."""
        self._minutes += 1
        turn = self._next() if self._minutes % TURNS == 0 else None
        for state in State:
            if self._looks.get(state) or state is turn:
                await self._count(state)

    def _next(self) -> State:
        self._line.append(self._line.pop(0))
        return self._line[-1]

    async def _count(self, state: State) -> None:
        looks = self._looks.pop(state, 1)
        try:
            with move_on_after(LIMIT_S) as scope, foreign_as_unexpected("counting worksets"):
                self.counts[state] = await self.catalogue.count(state)
                looks -= 1
        except DaemonError as exc:
            log.debug("not_counted", state=state, error=str(exc))
        if scope.cancelled_caught:
            log.debug("not_counted", state=state, error="no answer in time")
        self._looks[state] = max(looks, self._looks.get(state, 0))

    def found(self) -> Mapping[State, int]:
        return {state: count.found for state, count in self.counts.items()}
