"""A backend in memory, for what the application answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import anyio

from daylily_daemon.application.backend import Backend
from daylily_daemon.domain.activity import Activity
from daylily_daemon.domain.daemon import Life, QueueLevel, Sighting, Status
from daylily_daemon.domain.model import Command, WorksetId
from daylily_daemon.domain.workset import Workset
from daylily_daemon.ports import Change, Unanswered
from tests.fakes.registry import MemoryRegistry
from tests.fakes.store import (
    Counter,
    LoopClock,
    MemoryCatalogue,
    MemoryTrail,
    MemoryTurns,
    MemoryWorksets,
    Table,
)
from tests.made import NOW
from tests.sim.vclock import BACKEND
from tests.unit.engine_settings import some_limits

T = TypeVar("T")
WELL = Sighting(
    now=NOW,
    status=Status(pid=1, owner="lab/m/1", seen_at=NOW, sweep_s=15, max_worksets=4),
    life=Life.RUNNING,
    age_s=1.0,
)


NOTHING = Unanswered(0, 0)


@dataclass(slots=True)
class MemoryQueues:
    sent: list[Command] = field(default_factory=list)
    waiting: Unanswered = NOTHING
    gone: Exception | None = None

    async def send(self, command: Command) -> None:
        self.sent.append(command)

    async def unanswered(self) -> Unanswered:
        if self.gone:
            raise self.gone
        return self.waiting

    async def depths(self) -> Mapping[str, QueueLevel]:
        return {"commands": QueueLevel(waiting=len(self.sent))}


def a_backend(table: Table, queues: MemoryQueues | None = None, **changes: Any) -> Backend:
    made = Backend(
        worksets=MemoryWorksets(table),
        turns=MemoryTurns(table),
        catalogue=MemoryCatalogue(table),
        trail=MemoryTrail(table),
        queues=queues or MemoryQueues(),
        registry=MemoryRegistry(),
        clock=LoopClock(NOW),
        ids=Counter("c"),
        sighting=lambda now: Sighting(now=now),
        activities=nothing_seen,
        limits=some_limits(),
        bucket="lab",
        prefix="worksets/",
    )
    return replace(made, **changes)


def played(work: Callable[[], Awaitable[T]]) -> T:
    """Do ``work`` where time passes only when everybody waits."""
    return anyio.run(work, backend_options=BACKEND)


async def stored(table: Table, *worksets: Workset) -> None:
    store = MemoryWorksets(table)
    for ws in worksets:
        now = table.worksets.get(ws.id)
        mine = replace(ws, version=now.version if now else 0)
        nonce = f"{ws.id} {mine.version} {ws.state}"
        await store.commit(Change(before=now, after=mine, nonce=nonce))


async def nothing_seen(_: Sequence[Workset]) -> Mapping[WorksetId, Activity]:
    return {}
