"""A channel in memory: what it was told, in order, and failures by script."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from anyio.lowlevel import checkpoint

from daylily_daemon.domain.errors import DaemonError
from daylily_daemon.domain.model import Record


@dataclass(frozen=True, slots=True)
class Failure:
    error: DaemonError
    told: bool = False
    """True: the record arrived all the same, and only the answer was lost."""


@dataclass(frozen=True, slots=True)
class MemoryNotifier:
    """At least once, as most receivers: a repeat is one more entry under the same record id.

    Lists may be shared between several of these, and with whoever looks at what was told.
    """

    delivered: list[Record] = field(default_factory=list)
    script: deque[Failure | None] = field(default_factory=deque)
    """One entry is used up by each delivery; None, or nothing left, lets it through."""

    async def deliver(self, record: Record) -> None:
        await checkpoint()
        failure = self.script.popleft() if self.script else None
        if failure is None or failure.told:
            self.delivered.append(record)
        if failure is not None:
            raise failure.error
