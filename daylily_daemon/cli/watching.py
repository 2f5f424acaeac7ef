"""Commands that go on: redrawn on a terminal, and for programs one line of JSON a change.

A look that fails is told and made again: who watches wants to see the end of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import anyio

from daylily_daemon.cli import drawing, output, printing
from daylily_daemon.cli.layout import Line
from daylily_daemon.domain.errors import Transient

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedView(Generic[T]):
    """What is looked at again and again, and how it is shown."""

    look: Callable[[], Awaitable[T]]
    drawn: Callable[[T], Iterator[Line]]
    rows: Callable[[T], Mapping[str, Any]]
    """What programs get, by the id of each thing."""
    every_s: float

    async def go_on(self, *, lines: bool) -> None:
        """Show it until the command is ended: redrawn, or as ``lines`` of JSON."""
        await (self._print_changes() if lines else self._redraw())

    async def _redraw(self) -> None:
        with drawing.live() as live:
            async for seen in self._looks():
                live.update(drawing.table(self.drawn(seen)))

    async def _print_changes(self) -> None:
        before: Mapping[str, Any] = {}
        async for seen in self._looks():
            now = self.rows(seen)
            for line in changes(before, now):
                output.print_line(line)
            before = now

    async def _looks(self) -> AsyncIterator[T]:
        told = ""
        while True:
            try:
                seen = await self.look()
            except Transient as exc:
                if str(exc) != told:
                    printing.complain(str(exc))
                told = str(exc)
            else:
                told = ""
                yield seen
            await anyio.sleep(self.every_s)


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Any]:
    """Return what is new or another now, and of what is there no more its id and that it is gone."""
    came = [row for id, row in now.items() if before.get(id) != row]
    return [*came, *({"workset_id": id, "gone": True} for id in before if id not in now)]
