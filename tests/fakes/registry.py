"""The registry of daemons in memory; it passes the contract tests of the real one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from daylily_daemon.domain.daemon import Drain, Registered, Status


@dataclass(slots=True)
class MemoryRegistry:
    rows: dict[str, Registered] = field(default_factory=dict)
    struck: set[str] = field(default_factory=set)

    def _row(self, owner: str) -> Registered:
        return self.rows.get(owner) or Registered(owner=owner, said_at=None, status=None)

    async def sign(self, owner: str, status: Status, at: datetime) -> Drain | None:
        self.struck.discard(owner)
        self.rows[owner] = replace(self._row(owner), said_at=at, status=status)
        return self.rows[owner].drain

    async def drained(self, owner: str) -> Drain | None:
        return self._row(owner).drain

    async def drain(self, owner: str, drain: Drain | None) -> None:
        self.rows[owner] = replace(self._row(owner), drain=drain)

    async def strike(self, owner: str) -> None:
        self.struck.add(owner)

    async def daemons(self) -> Sequence[Registered]:
        return [self.rows[owner] for owner in sorted(self.rows) if owner not in self.struck]
