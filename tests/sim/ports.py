"""The ports of one daemon in a simulated world: working ones in memory, watched, and hampered on purpose."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import anyio

from daylily_daemon.domain.errors import DaemonError, Permanent, Transient, Unclear
from daylily_daemon.domain.model import (
    Accepted,
    Command,
    Ended,
    Inspection,
    Job,
    JobName,
    Missing,
    Outcome,
    Problem,
    Record,
    Refused,
    Submit,
    Unwanted,
    WorksetId,
)
from daylily_daemon.domain.turn import Queue as TurnQueue
from daylily_daemon.domain.turn import Turn
from daylily_daemon.domain.workset import Workset
from daylily_daemon.ports import Change, Delivery, OwedPage
from tests.fakes.notifier import MemoryNotifier
from tests.fakes.runner import MemoryMachine, MemoryRunner
from tests.fakes.store import (
    LoopClock,
    MemoryMailbox,
    MemoryTrail,
    MemoryTurns,
    MemoryWorksets,
    Queue,
    turns_of,
)
from tests.sim.vclock import running
from tests.sim.wire import Wire
from tests.unit.daemons import PLAN

if TYPE_CHECKING:
    from tests.sim.world import Sim

ITEM_BYTES = 400_000
"""What DynamoDB takes, in one item."""


class SteppedClock(LoopClock):
    """A wall clock that somebody sets from time to time."""

    off_s = 0.0

    def __init__(self) -> None:
        super().__init__()
        self._loop = running()
        self._asked_at = -1.0
        self._told = self.start

    def now(self) -> datetime:
        """Many ask at the same moment, and get the same answer."""
        if self._loop.now != self._asked_at:
            self._asked_at, self._told = self._loop.now, super().now()
        return self._told + timedelta(seconds=self.off_s) if self.off_s else self._told


class Jobs(MemoryRunner):
    """The runner of one daemon, which must not act on a workset that is not its own."""

    def __init__(self, sim: Sim, wire: Wire) -> None:
        super().__init__(sim.world.machine, machine_id=sim.machine_of(wire.name))
        self._sim = sim
        self._wire = wire

    def may_send(self, name: str, job: Job) -> None:
        """Called when a request leaves the daemon; it may arrive much later, and then harms nobody."""
        if name in ("ensure", "stop"):
            self._sim.acted(self._wire, name, job)
        if name == "stop":
            self._sim.stopped(job)

    async def ensure(self, job: Job) -> None:
        full = anyio.current_time() < self._sim.disk_full_until
        if full or self._sim.rng.random() < self._wire.weather.refused:
            raise Transient(f"{job.name} cannot be started now")
        self._see(job)
        if job.name in self._sim.lost_tokens and job.confirmed:
            raise Unclear(f"{job.name} was seen to start, and its token is gone")
        if self.scope in self._sim.gone:  # a request that arrives late starts nothing there
            raise Transient(f"{self.scope} no longer exists")
        self._sim.homes.setdefault(job.name, self.scope)
        await super().ensure(job)

    async def wait(self, job: Job) -> Outcome:
        self._see(job)
        if job.name in self._sim.lost_tokens:
            raise Unclear(f"{job.name} has no token any more")
        outcome = await super().wait(job)
        if anyio.current_time() < self._sim.record_seen_at(job, self._wire):
            raise Transient(f"{job.name} has ended, but its record is not there yet")
        return outcome

    async def stop(self, job: Job) -> None:
        self._see(job)
        if job.name in self._sim.lost_tokens:
            raise Unclear(f"{job.name} has no token any more")
        await super().stop(job)

    def _see(self, job: Job) -> None:
        home = self._sim.homes.get(job.name, self.scope)
        if home != self.scope:
            self._sim.wrong(f"{self._wire.name} on {self.scope} touched {job.name} of {home}")
            raise Unclear(f"{job.name} is on {home}")


class Machine(MemoryMachine):
    """Jobs, watched: a start is checked against what the store says at that moment."""

    def __init__(self, sim: Sim) -> None:
        super().__init__(sim.script, LoopClock().now)
        self._sim = sim

    def start(self, job: Job) -> None:
        before = len(self.starts)
        super().start(job)
        if len(self.starts) > before:
            self._sim.job_started(job)

    def started_at(self, name: JobName) -> float:
        """Return when the job began; infinity if it never did."""
        return self._runs[name].started_at if name in self._runs else math.inf

    def lose_machine(self, scope: str) -> None:
        """End every job of one host."""
        for name, run in self._runs.items():
            if self._sim.homes.get(name) == scope:
                run.end_early(Ended.HOST_LOST, 0.0)


class Store(MemoryWorksets):
    """The store, watched, with an index that may lag behind."""

    def __init__(self, sim: Sim, wire: Wire) -> None:
        super().__init__(sim.world.table)
        self._sim = sim
        self._wire = wire

    async def load(self, id: WorksetId) -> Workset | None:
        self._read(id)
        return await super().load(id)

    async def commit(self, change: Change) -> Workset:
        self._read(change.after.id)
        if self._sim.huge and _size(change) > ITEM_BYTES:
            raise Permanent(f"{change.after.id}: the item is too large")
        stored = await super().commit(change)
        self._sim.committed(change, stored, self._wire)
        return stored

    def _read(self, id: WorksetId) -> None:
        if id in self._sim.newer:
            raise Permanent(f"The item of {id} was written by a newer version.")


def _size(change: Change) -> int:
    """Return about as many bytes as the item has; no job's report may be nested beyond all bounds."""
    try:
        return len(repr(change.after)) + len(repr(change.records))
    except RecursionError:
        return sys.maxsize


class Turns(MemoryTurns):
    """An index that may lag behind, and items that this version may not be able to read."""

    def __init__(self, sim: Sim, wire: Wire) -> None:
        super().__init__(sim.world.table)
        self._sim = sim
        self._wire = wire
        self._older: dict[tuple[TurnQueue, str], Sequence[Turn]] = {}

    async def line_up(self, queue: TurnQueue, *, after: str = "", limit: int) -> Sequence[Turn]:
        if anyio.current_time() < self._sim.index_stands_until:
            return turns_of(self._sim.old_index(), queue, after)[:limit]
        found = await super().line_up(queue, after=after, limit=limit)
        older, self._older[queue, after] = self._older.get((queue, after), found), found
        return older if self._sim.chance(self._wire.weather.stale) else found

    async def load_all(self, ids: Sequence[WorksetId]) -> Sequence[Workset]:
        return [ws for ws in await super().load_all(ids) if ws.id not in self._sim.newer]


class Trail(MemoryTrail):
    """The trail, watched: what is struck off and not told needs a reason."""

    def __init__(self, sim: Sim, wire: Wire) -> None:
        super().__init__(sim.world.table)
        self._sim = sim
        self._wire = wire

    async def owed(self, *, after: Any = None, limit: int = 100) -> OwedPage:
        return await super().owed(after=after, limit=min(limit, self._sim.knobs.page))

    async def settle(
        self, record: Record, told: frozenset[str], given_up: frozenset[str] = frozenset()
    ) -> Record:
        self._sim.struck_off(record, told, given_up, self._wire)
        return await super().settle(record, told, given_up)


class Mailbox(MemoryMailbox):
    def __init__(self, sim: Sim, queue: Queue, wire: Wire) -> None:
        super().__init__(queue, most=10)
        self._sim = sim
        self._wire = wire

    async def settle(self, deliveries: Sequence[Delivery]) -> None:
        if self._queue is self._sim.world.commands:
            self._sim.settled(deliveries)
        else:
            self._sim.passed_on(deliveries)
        await super().settle(deliveries)
        for delivery in deliveries:
            if self._sim.chance(self._wire.weather.redelivered):
                self._sim.come_again(self._queue, delivery, 400.0)

    async def park(self, delivery: Delivery, reason: str) -> None:
        self._sim.parked(delivery, reason)
        self._queue.parked.append((delivery.content, reason))
        await super().settle([delivery])


class Channel(MemoryNotifier):
    async def deliver(self, record: Record) -> None:
        """Append, and nothing else: what is between the call and its effect is on the wire."""
        self.delivered.append(record)


@dataclass(frozen=True, kw_only=True)
class Input:
    """What a check of one drop answers until ``until``; afterwards the input is good."""

    until: float
    answer: Inspection | DaemonError | Exception
    takes_s: float = 0.05


class SimInputs:
    def __init__(self, sim: Sim) -> None:
        self._sim = sim

    async def inspect(self, workset: Workset) -> Inspection:
        found = self._sim.inputs.get(workset.id)
        now = anyio.current_time()
        if found is None or now >= found.until:
            await anyio.sleep(0.05)
            return self._sim.saw_input(workset, Accepted(PLAN))
        await anyio.sleep(found.takes_s)
        if isinstance(found.answer, Exception):
            raise found.answer
        return self._sim.saw_input(workset, found.answer)


PROBLEM = Problem("stage_samples.tsv", "line 2", "is not there.", "Copy it there.")
MISSING = Missing((PROBLEM,))
REFUSED = Refused((PROBLEM,))
UNWANTED = Unwanted("daylily.ignore")


class Bucket:
    """S3, as far as the daemons see it: the trigger that lies in each folder now."""

    def __init__(self, sim: Sim, store: Store) -> None:
        self._sim = sim
        self._store = store

    async def as_it_is(self, command: Command) -> Command:
        now = self._sim.bucket.get(command.workset_id)
        return now if now is not None and isinstance(command.ask, Submit) else command

    async def unannounced(self) -> Sequence[Command]:
        bucket = dict(self._sim.bucket)
        known: Mapping[WorksetId, Any] = await self._store.announced(tuple(bucket))
        return [
            command
            for id, command in bucket.items()
            if id not in known or known[id].sentinel != command.id
        ]


def submission(id: str, trigger: str, customer: str) -> Command:
    """Return what both doors make of one write of a trigger."""
    ask = Submit(bucket="b", prefix=f"p/{id}/", customer_id=customer, sentinel=trigger)
    return Command(id=trigger, workset_id=WorksetId(id), by=f"s3:{trigger};", ask=ask)
