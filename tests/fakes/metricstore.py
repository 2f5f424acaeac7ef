"""A store of figures in memory; it passes the contract tests of the real one."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from anyio.lowlevel import checkpoint

from daylily_daemon.domain.datum import CountDatum, Datum
from daylily_daemon.domain.errors import DaemonError


@dataclass(slots=True)
class MemoryMetricStore:
    stored: list[Datum] = field(default_factory=list)
    calls: int = 0
    script: deque[DaemonError | None] = field(default_factory=deque)
    """One entry is used up by each call; None, or nothing left, lets it through."""

    async def put(self, data: Sequence[Datum]) -> None:
        await checkpoint()
        self.calls += 1
        error = self.script.popleft() if self.script else None
        if error is not None:
            raise error
        self.stored += data

    def counted(self) -> dict[str, int]:
        """Return how often each thing happened that was told of, over all calls."""
        found: dict[str, int] = {}
        for datum in self.stored:
            if isinstance(datum, CountDatum):
                found[datum.name] = found.get(datum.name, 0) + datum.count
        return found
