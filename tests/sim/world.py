"""A world that outlives its daemons, and what must never be true of it.

Invariants are checked when they could break: at every write, every start of a job, every settled message and
every delivered notice; ``broken`` adds what must hold once everything has come to rest.
"""

from __future__ import annotations

import random
from collections import Counter as Tally
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import anyio
from anyio.abc import TaskGroup

from daylily_daemon.adapters.memory import (
    MemoryMailbox,
    MemoryTrail,
    MemoryWorksets,
    NoDrops,
    Queue,
)
from daylily_daemon.adapters.memory_notifier import MemoryNotifier
from daylily_daemon.adapters.memory_runner import MemoryMachine, MemoryRunner, Script
from daylily_daemon.domain.decision import NEXT
from daylily_daemon.domain.model import (
    Ended,
    Job,
    JobName,
    Outcome,
    Record,
    RecordType,
    State,
    Workset,
    WorksetId,
)
from daylily_daemon.ports import Change, Delivery, Unreadable
from tests.sim.wire import Log, Wire, Wired
from tests.unit.daemons import Parts, World

RESTING = frozenset(State) - {State.READY, State.IN_PROGRESS, State.RETRYING}


class Jobs(MemoryRunner):
    """The runner of one daemon, which must not act on a workset that is not its own."""

    def __init__(self, sim: Sim, wire: Wire) -> None:
        super().__init__(sim.world.machine)
        self._sim = sim
        self._wire = wire

    def may_send(self, name: str, job: Job) -> None:
        """Called when a request leaves the daemon; it may arrive much later, and then harms nobody."""
        if name in ("ensure", "stop"):
            self._sim.acted(self._wire, name, job)
        if name == "stop":
            self._sim.stopped(job)


class Machine(MemoryMachine):
    """Jobs, watched: a start is checked against what the store says at that moment."""

    def __init__(self, sim: Sim) -> None:
        super().__init__(sim.script)
        self._sim = sim

    def start(self, job: Job) -> None:
        before = len(self.starts)
        super().start(job)
        if len(self.starts) > before:
            self._sim.job_started(job)


class Store(MemoryWorksets):
    """The store, watched, with an index that may lag behind."""

    def __init__(self, sim: Sim, wire: Wire) -> None:
        super().__init__(sim.world.table)
        self._sim = sim
        self._wire = wire
        self._older: dict[State, Sequence[Workset]] = {}

    async def commit(self, change: Change) -> Workset:
        stored = await super().commit(change)
        self._sim.committed(change, stored)
        return stored

    async def in_state(self, state: State, *, limit: int = 1000) -> Sequence[Workset]:
        found = await super().in_state(state, limit=limit)
        older, self._older[state] = self._older.get(state, found), found
        return older if self._sim.rng.random() < self._wire.weather.stale else found


class Mailbox(MemoryMailbox):
    def __init__(self, sim: Sim, queue: Queue) -> None:
        super().__init__(queue, most=10)
        self._sim = sim

    async def settle(self, deliveries: Sequence[Delivery]) -> None:
        self._sim.settled(deliveries)
        await super().settle(deliveries)


class Channel(MemoryNotifier):
    async def deliver(self, record: Record) -> None:
        """Append, and nothing else: what is between the call and its effect is on the wire."""
        self.delivered.append(record)


@dataclass
class Sim:
    """One world, its luck, and everything that ever went wrong in it."""

    rng: random.Random
    world: World = field(default_factory=World)
    log: Log = field(default_factory=Log)
    violations: list[str] = field(default_factory=list)
    failures: float = 0.0
    """How many jobs fail."""
    lengths_s: tuple[float, float] = (5.0, 40.0)
    job_ends: dict[JobName, Outcome] = field(default_factory=dict)
    crashes: int = 0
    skewed: bool = False
    """Whether the wall clocks of the daemons differ by minutes."""
    wires: dict[str, Wire] = field(default_factory=dict)
    spawner: TaskGroup | None = None

    def __post_init__(self) -> None:
        self.world.machine = Machine(self)

    def parts(self, wire: Wire) -> Parts:
        """Return the ports of one daemon, each behind its wire."""
        world = self.world
        plain: dict[str, Any] = {
            "worksets": Store(self, wire),
            "trail": MemoryTrail(world.table),
            "intake": Mailbox(self, world.intake),
            "commands": Mailbox(self, world.commands),
            "runner": Jobs(self, wire),
            "inputs": world.inputs,
        }
        wired: dict[str, Any] = {role: Wired(port, wire, role) for role, port in plain.items()}
        channels: dict[str, Any] = {
            name: Wired(Channel(delivered=told), wire, name) for name, told in world.told.items()
        }
        return Parts(**wired, notifiers=channels, drops=NoDrops())

    def script(self, job: Job) -> Script:
        """Return what a job does; the same job does the same in every replay of a world."""
        luck = random.Random(f"{job.name}/{self.rng.random()}")
        bad = luck.random() < self.failures
        outcome = Outcome(ended=Ended.EXITED, code=1 if bad else 0, tail="sim" if bad else "")
        self.job_ends[job.name] = outcome
        return Script(duration_s=luck.uniform(*self.lengths_s), outcome=outcome, stop_s=2.0)

    def spawn(self, work: Any, *args: Any) -> None:
        if self.spawner is not None:
            self.spawner.start_soon(work, *args)

    # --- invariants that hold at every moment ----------------------------------------------------

    def wrong(self, text: str) -> None:
        self.violations.append(f"{anyio.current_time():.1f} s: {text}")

    def job_started(self, job: Job) -> None:
        id = WorksetId(job.name.split(".", 1)[0])
        ws = self.world.table.worksets[id]
        alive = [n for n in self.world.machine.running() if n.split(".", 1)[0] == id]
        if len(alive) > 1:
            self.wrong(f"{id} has two live jobs: {sorted(alive)}")
        if ws.state is not State.IN_PROGRESS or ws.job != job.name:
            self.wrong(f"{job.name} started while {id} was {ws.state} with job {ws.job}")
        if self.world.machine.starts.count(job.name) > 1:
            self.wrong(f"{job.name} started twice")

    def acted(self, wire: Wire, what: str, job: Job) -> None:
        ws = self.world.table.worksets[WorksetId(job.name.split(".", 1)[0])]
        if ws.lock_owner not in (wire.name, None):
            self.wrong(f"{wire.name} asked to {what} {job.name}, which {ws.lock_owner} holds")

    def stopped(self, job: Job) -> None:
        ws = self.world.table.worksets[WorksetId(job.name.split(".", 1)[0])]
        if job.name in self.world.machine.running() and not ws.stopping:
            self.wrong(f"{job.name} is being stopped, though nobody asked for it")

    def committed(self, change: Change, stored: Workset) -> None:
        current = self.world.table.worksets[stored.id]
        if change.nonce != self.world.table.nonces[stored.id]:
            return
        if current.version != stored.version:
            self.wrong(f"{stored.id} version {stored.version} was answered for {current.version}")
        for record in change.records:
            self._record(record)
            if record.type is RecordType.LOCK_TIMEOUT and change.before:
                self._taken_over(change.before)

    def _taken_over(self, before: Workset) -> None:
        wire = self.wires.get(before.lock_owner or "")
        if wire is not None and not wire.was_in_trouble:
            self.wrong(f"{before.id} was taken from {wire.name}, which was well")

    def _record(self, record: Record) -> None:
        told_failed = record.type is RecordType.ERROR and record.state is not State.ERROR
        if told_failed and (step := record.details.get("step")):
            attempt = record.message.split("attempt ", 1)[1].split(" ", 1)[0]
            name = JobName(f"{record.workset_id}.{attempt}.{step}")
            end = self.job_ends.get(name)
            if end is None or end.succeeded:
                self.wrong(f"{name} was called failed, but was not: {record.message}")

    def settled(self, deliveries: Sequence[Delivery]) -> None:
        table = self.world.table
        for delivery in deliveries:
            if isinstance(delivery.content, Unreadable):
                continue
            for command in delivery.content:
                ws = table.worksets.get(command.workset_id)
                applied = ws is not None and (
                    command.id in ws.seen_commands
                    or any(c.id == command.id for c in ws.inbox)
                    or (ws.id, command.id) in table.submissions
                )
                if not applied:
                    self.wrong(f"{command.id} was deleted before {command.workset_id} had it")

    # --- and once everything has come to rest ----------------------------------------------------

    @property
    def at_rest(self) -> bool:
        table = self.world.table
        return (
            not self.world.commands.messages
            and all(ws.state in RESTING and not ws.inbox for ws in table.worksets.values())
            and not any(r.owed for rows in table.records.values() for r in rows)
        )

    def broken(self, *, exactly_once: bool = False) -> list[str]:
        """Return what must not be true at the end. ``exactly_once``: no crash excuses a repeat."""
        found = list(self.violations)
        for ws in self.world.table.worksets.values():
            found += self._left_over(ws)
        found += self._commands()
        for name, told in self.world.told.items():
            found += self._notices(name, told, exactly_once)
        if running := self.world.machine.running():
            found.append(f"still running: {sorted(running)}")
        return found

    def _left_over(self, ws: Workset) -> list[str]:
        found = []
        if ws.state not in RESTING:
            found.append(f"{ws.id} is left {ws.state}")
        if ws.lock_owner:
            found.append(f"{ws.id} is left locked by {ws.lock_owner}")
        found += [f"{command.id} is left in the inbox of {ws.id}" for command in ws.inbox]
        rows = self.world.table.records[ws.id]
        if [r.seq for r in rows] != list(range(1, len(rows) + 1)):
            found.append(f"{ws.id} has gaps in its audit trail")
        found.extend(
            f"{ws.id} went from {a.state} to {b.state}"
            for a, b in pairwise(rows)
            if b.state != a.state and b.state not in NEXT[a.state]
        )
        return found

    def _commands(self) -> list[str]:
        """Every command left exactly one record, whatever became of it."""
        found = []
        for command in self.world.asked:
            rows = self.world.table.records.get(command.workset_id, [])
            count = sum(r.by == command.by for r in rows)
            late = sum(command.by in r.message for r in rows)
            if not (count or late):
                found.append(f"{command.id} on {command.workset_id} left no trace")
            if count > 1:
                found.append(f"{command.id} on {command.workset_id} was applied {count} times")
        return found

    def _notices(self, name: str, told: list[Record], exactly_once: bool) -> list[str]:
        wanted = {r.id for rows in self.world.table.records.values() for r in rows if r.notify}
        got = Tally(r.id for r in told)
        found = [f"{name} was never told {id}" for id in sorted(wanted - set(got))]
        if exactly_once:
            found += [f"{name} was told {id} {n} times" for id, n in got.items() if n > 1]
        for id in self.world.table.worksets:
            firsts = list(dict.fromkeys(r.seq for r in told if r.workset_id == id))
            if firsts != sorted(firsts):
                found.append(f"{name} heard of {id} out of order: {firsts}")
        return found
