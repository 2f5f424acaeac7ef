"""Reads what a pass can use of an index of turns: the first ones of every line, and what runs.

However much waits, one reading costs a bounded number of calls and rows. A line that is longer than anybody
can use is left after its first rows; a reading that was cut short goes on from there the next time, so every
line is seen. What is known already, and stands at the same turn, is not loaded again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from daylily_daemon.domain.model import WorksetId
from daylily_daemon.domain.turn import Queue, Turn, turn_of
from daylily_daemon.domain.workset import Workset
from daylily_daemon.ports import LOADED, Turns

PAGE: Final = 100
"""Turns of one call where something waits: about as many as a daemon can start."""
CALLS: Final = 20
"""Of one reading of what waits."""
RUNS_PAGE: Final = 1000
MOST_RUNS: Final = 10_000
"""Runs in progress, on all hosts, that one reading sees."""

Usable = Callable[[Turn], int]
"""How many worksets of its line, counted from its beginning, may be of use; 0 leaves the line out."""

Known = Callable[[WorksetId], bool]
"""Whether nobody need look for a workset, though the index may show it."""


@dataclass(frozen=True, slots=True)
class Heads:
    turns: Sequence[Turn]
    complete: bool
    """Whether every line was looked at: what is not among the turns need not be known."""
    more: bool
    """Whether there are others of use behind these, or may be."""


@dataclass(slots=True)
class Lineup:
    turns: Turns
    _at: str = ""
    """Where a reading that was cut short goes on."""
    _astray: set[Turn] = field(default_factory=set)
    """Turns that did not fit their worksets when those of their queue were last loaded; perhaps just late."""

    async def waiting(self, use: Usable, known: Known) -> Heads:
        """Return the first turns of each line; what is ``known`` is not counted and not returned."""
        reader = _HeadReader(use, known, self._at)
        for _ in range(CALLS):
            rows = await self.turns.line_up(Queue.WAITING, after=reader.at, limit=PAGE)
            reader.take(rows)
            if len(rows) < PAGE:
                complete, self._at = not self._at, ""
                return Heads(reader.found, complete, reader.more or not complete)
        self._at = reader.at
        return Heads(reader.found, complete=False, more=True)

    async def running(self) -> Sequence[Turn]:
        """Return the turns of everything in progress, on any host."""
        found: list[Turn] = []
        while len(found) < MOST_RUNS:
            after = found[-1].key if found else ""
            rows = await self.turns.line_up(Queue.RUNNING, after=after, limit=RUNS_PAGE)
            found += rows
            if len(rows) < RUNS_PAGE:
                break
        return found

    async def loaded(
        self, turns: Sequence[Turn], known: Mapping[WorksetId, Workset]
    ) -> list[Workset]:
        """Return the worksets of ``turns``, those of ``known`` that still stand there as they are known."""
        found = [ws for t in turns if (ws := known.get(t.id)) and turn_of(ws) == t]
        seen = {ws.id for ws in found}
        missing = [turn for turn in turns if turn.id not in seen]
        astray: set[Turn] = set()
        for start in range(0, len(missing), LOADED):
            part = {turn.id: turn for turn in missing[start : start + LOADED]}
            for ws in await self.turns.load_all(tuple(part)):
                found.append(ws)
                if turn_of(ws) != part[ws.id]:
                    astray.add(part[ws.id])
                    await self._refile(ws, part[ws.id])
        queues = {turn.queue for turn in turns}
        self._astray = {turn for turn in self._astray if turn.queue not in queues} | astray
        return found

    async def _refile(self, ws: Workset, shown: Turn) -> None:
        """Correct a turn that was wrong twice: versions before this one know of no turns."""
        if shown in self._astray:
            await self.turns.refile(ws)


@dataclass(slots=True)
class _HeadReader:
    use: Usable
    known: Known
    at: str
    found: list[Turn] = field(default_factory=list)
    more: bool = False
    _taken: Counter[str] = field(default_factory=Counter)

    def take(self, rows: Sequence[Turn]) -> None:
        for turn in rows:
            self._take(turn)
        if rows:
            last = rows[-1]
            full = self._taken[last.line] >= self.use(last)
            self.at = last.beyond if full else last.key

    def _take(self, turn: Turn) -> None:
        if self.known(turn.id):
            return
        use = self.use(turn)
        if self._taken[turn.line] < use:
            self._taken[turn.line] += 1
            self.found.append(turn)
        else:
            self.more |= use > 0
