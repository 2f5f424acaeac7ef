"""A list that goes on: redrawn on a terminal, and for programs one line of JSON a change.

A look that fails is told and made again: who watches wants to see the end of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import anyio

from daylily_daemon.application.backend import Backend
from daylily_daemon.application.queries import Listing, list_worksets
from daylily_daemon.cli import drawing, output, printing
from daylily_daemon.composition import shapes
from daylily_daemon.domain.errors import Transient
from daylily_daemon.domain.workset import Workset

Seen = dict[str, Workset]


@dataclass(frozen=True, slots=True)
class WatchedList:
    listing: Listing
    limit: int
    """Worksets of one look: the first page."""
    every_s: float
    wide: bool = False

    async def redraw(self, backend: Backend) -> None:
        """Show the list until the command is ended."""
        with drawing.live() as live:
            async for worksets in self._looks(backend):
                grid = output.list_grid(worksets, backend.clock.now(), wide=self.wide)
                live.update(drawing.table(grid.lines(printing.width())))

    async def lines(self, backend: Backend) -> None:
        """Print what is listed, then each change of it, until the command is ended."""
        seen: Seen = {}
        async for worksets in self._looks(backend):
            now = {str(ws.id): ws for ws in worksets}
            for line in changes(seen, now):
                output.print_line(line)
            seen = now

    async def _looks(self, backend: Backend) -> AsyncIterator[list[Workset]]:
        told = ""
        while True:
            try:
                listed = await list_worksets(backend, self.listing, limit=self.limit)
            except Transient as exc:
                if str(exc) != told:
                    printing.complain(str(exc))
                told = str(exc)
            else:
                told = ""
                yield list(listed.worksets)
            await anyio.sleep(self.every_s)


def changes(before: Seen, now: Seen) -> list[dict[str, Any]]:
    """Return what is new or another now, and of what is listed no more its id and that it is gone."""
    came = [shapes.workset_shape(ws) for id, ws in now.items() if before.get(id) != ws]
    return [*came, *({"workset_id": id, "gone": True} for id in before if id not in now)]
