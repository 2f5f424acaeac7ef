"""A world that outlives its daemons, and what must never be true of it.

Invariants are checked when they could break: at every write, every start of a job, every settled message and
every delivered notice; ``broken`` adds what must hold once everything has come to rest.
"""

from __future__ import annotations

import random
from collections import Counter as Tally
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import anyio
from anyio.abc import TaskGroup

from daylily_daemon.adapters.memory import (
    LoopClock,
    MemoryMailbox,
    MemoryTrail,
    MemoryWorksets,
    NoDrops,
    Queue,
)
from daylily_daemon.adapters.memory_notifier import MemoryNotifier
from daylily_daemon.adapters.memory_runner import MemoryMachine, MemoryRunner, Script
from daylily_daemon.domain.decision import NEXT
from daylily_daemon.domain.errors import Transient
from daylily_daemon.domain.model import (
    Command,
    Ended,
    Job,
    JobName,
    Outcome,
    Record,
    RecordType,
    State,
    Submit,
    Workset,
    WorksetId,
)
from daylily_daemon.ports import Change, Delivery, Unreadable
from tests.sim.wire import Log, Wire, Wired
from tests.unit.daemons import Parts, World

PROMPT_S = 60.0
"""How long a command may wait for its answer on a quiet day; a beat is a quarter of that."""
ACCIDENTS = (Ended.LOST, Ended.OUT_OF_MEMORY, Ended.HOST_LOST, Ended.SIGNALLED)
RESTING = frozenset(State) - {State.READY, State.IN_PROGRESS, State.RETRYING}


class SteppedClock(LoopClock):
    """A wall clock that somebody sets from time to time."""

    off_s = 0.0

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=self.off_s)


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

    async def ensure(self, job: Job) -> None:
        full = anyio.current_time() < self._sim.disk_full_until
        if full or self._sim.rng.random() < self._wire.weather.refused:
            raise Transient(f"{job.name} cannot be started now")
        await super().ensure(job)

    async def wait(self, job: Job) -> Outcome:
        outcome = await super().wait(job)
        if anyio.current_time() < self._sim.record_seen_at(job, self._wire):
            raise Transient(f"{job.name} has ended, but its record is not there yet")
        return outcome


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
            if self._sim.rng.random() < self._wire.weather.redelivered:
                self._sim.spawn(self._come_again, delivery)

    async def _come_again(self, delivery: Delivery) -> None:
        await anyio.sleep(self._sim.rng.uniform(0, 400))
        self._queue.put(delivery.content, f"again {delivery.receipt}")


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
    crashes: int = 0
    skewed: bool = False
    wires: dict[str, Wire] = field(default_factory=dict)
    clocks: dict[str, SteppedClock] = field(default_factory=dict)
    records_at: dict[JobName, float] = field(default_factory=dict)
    disk_full_until: float = 0.0
    accidents: float = 0.0
    ends_at_notices: bool = False
    """Whether every write that people must hear of is the moment at which daemons are told to end."""
    spawner: TaskGroup | None = None

    def __post_init__(self) -> None:
        self.world.machine = Machine(self)

    def parts(self, wire: Wire) -> Parts:
        """Return the ports of one daemon, each behind its wire."""
        world = self.world
        plain: dict[str, Any] = {
            "worksets": Store(self, wire),
            "trail": MemoryTrail(world.table),
            "intake": Mailbox(self, world.intake, wire),
            "commands": Mailbox(self, world.commands, wire),
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
        if luck.random() < self.accidents:
            outcome = Outcome(ended=luck.choice(ACCIDENTS))
        return Script(duration_s=luck.uniform(*self.lengths_s), outcome=outcome, stop_s=2.0)

    def record_seen_at(self, job: Job, wire: Wire) -> float:
        """Return when the exit record of an ended job can be read."""
        run = self.world.machine.run_of(job)
        if run is None:
            return 0.0
        late = self.rng.random() < wire.weather.late_record
        return self.records_at.setdefault(
            job.name, run.ends_at + (self.rng.uniform(0, 300) if late else 0.0)
        )

    def reboot(self) -> None:
        """Lose the machine under every job and every daemon."""
        self.world.machine.restart()
        for wire in self.wires.values():
            wire.died.set()

    def announce(self, id: str, event: str) -> None:
        """Let S3 tell of a drop. The same event may be told more than once."""
        ask = Submit(bucket="b", prefix=f"p/{id}/")
        name = f"s3-{event}"
        command = Command(id=name, workset_id=WorksetId(id), by=f"s3:{event};", ask=ask)
        if all(known.id != command.id for known in self.world.asked):
            self.world.asked.append(command)
        self.world.intake.put((command,), f"event {self.world.ids.fresh()}")

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

        if self.ends_at_notices and any(record.notify for record in change.records):
            for wire in self.wires.values():
                wire.told_to_end.set()

    def ended_well(self, wire: Wire) -> None:
        """A daemon that ends on a quiet day holds no lease any more and owes nothing."""
        if wire.had_bad_weather:
            return
        table = self.world.table
        for ws in table.worksets.values():
            if ws.lock_owner == wire.name:
                self.wrong(f"{wire.name} ended with {ws.id} locked")
        for record in (r for rows in table.records.values() for r in rows):
            if record.owed and record.teller == wire.name:
                self.wrong(f"{wire.name} ended and still owed {record.id}")

    def _taken_over(self, before: Workset) -> None:
        wire = self.wires.get(before.lock_owner or "")
        if wire is not None and not wire.was_in_trouble:
            self.wrong(f"{before.id} was taken from {wire.name}, which was well")

    def _record(self, record: Record) -> None:
        told_failed = record.type is RecordType.ERROR and record.state is not State.ERROR
        if told_failed and (step := record.details.get("step")):
            attempt = record.message.split("attempt ", 1)[1].split(" ", 1)[0]
            name = JobName(f"{record.workset_id}.{attempt}.{step}")
            end = self.world.machine.outcome_of(name)
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
                    or (ws.id, command.id) in table.answers
                )
                if not applied:
                    self.wrong(f"{command.id} was deleted before {command.workset_id} had it")

    def passed_on(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            for command in () if isinstance(delivery.content, Unreadable) else delivery.content:
                if command.id not in self.world.commands.seen:
                    self.wrong(f"{command.id} was deleted before it was passed on")

    # --- and once everything has come to rest ----------------------------------------------------

    @property
    def at_rest(self) -> bool:
        table = self.world.table
        return (
            not self.world.commands.messages
            and not self.world.intake.messages
            and all(ws.state in RESTING and not ws.inbox for ws in table.worksets.values())
            and not any(r.owed for rows in table.records.values() for r in rows)
        )

    def broken(self, *, exactly_once: bool = False) -> list[str]:
        """Return what must not be true at the end. ``exactly_once``: no crash excuses a repeat."""
        found = list(self.violations)
        for ws in self.world.table.worksets.values():
            found += self._left_over(ws)
        found += self._commands(prompt=exactly_once)
        queues = (self.world.intake, self.world.commands)
        found += [f"{m.content} is left in a queue" for queue in queues for m in queue.messages]
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
        if not self.crashes and not self.log.happened and not self.skewed:
            found += [
                f"{r.id} on a quiet day: {r.message}" for r in rows if "goes on with" in r.message
            ]
        began = sum(r.state is State.IN_PROGRESS and r.previous is State.READY for r in rows)
        if began != ws.attempt:
            found.append(f"{ws.id} began {began} times, but counts {ws.attempt} attempts")
        if [r.seq for r in rows] != list(range(1, len(rows) + 1)):
            found.append(f"{ws.id} has gaps in its audit trail")
        found.extend(
            f"{ws.id} went from {a.state} to {b.state}"
            for a, b in pairwise(rows)
            if b.state != a.state and b.state not in NEXT[a.state]
        )
        return found

    def _commands(self, *, prompt: bool) -> list[str]:
        """Every command left exactly one record, whatever became of it; on a quiet day soon."""
        found = []
        for command in self.world.asked:
            rows = self.world.table.records.get(command.workset_id, [])
            count = sum(r.by == command.by for r in rows)
            late = sum(command.by in r.message for r in rows)
            if not (count or late):
                found.append(f"{command.id} on {command.workset_id} left no trace")
            asked_at = self.world.asked_at.get(command.id)
            first = next((r.at for r in rows if r.by == command.by), None)
            if prompt and asked_at is not None and first is not None:
                waited_s = first.timestamp() - LoopClock().start.timestamp() - asked_at
                if waited_s > PROMPT_S and not self.skewed:
                    found.append(f"{command.id} waited {waited_s:.0f} s for an answer")
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
