"""A world that outlives its daemons, and what must never be true of it.

Invariants are checked when they could break: at every write, every start of a job, every settled or parked
message and every delivered notice; ``promises`` adds what must hold once everything has come to rest.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import anyio
from anyio.abc import TaskGroup

from daylily_daemon.domain.model import (
    Command,
    CommandEffect,
    Ended,
    Inspection,
    Job,
    JobName,
    Missing,
    Outcome,
    Record,
    RecordType,
    Refused,
    State,
    WorksetId,
)
from daylily_daemon.domain.workset import Workset
from daylily_daemon.engine.supervisor import Supervisor
from daylily_daemon.ports import Change, Delivery, Unreadable
from tests.fakes.runner import Script
from tests.fakes.store import Queue
from tests.sim.knobs import Knobs
from tests.sim.ports import (
    Bucket,
    Channel,
    Input,
    Jobs,
    Machine,
    Mailbox,
    SimInputs,
    SteppedClock,
    Store,
    Trail,
    Turns,
    submission,
)
from tests.sim.wire import Log, Wire, Wired
from tests.unit.daemons import Parts, World

ACCIDENTS = (Ended.LOST, Ended.OUT_OF_MEMORY, Ended.HOST_LOST, Ended.SIGNALLED)
RESTING = frozenset(State) - {State.READY, State.IN_PROGRESS, State.RETRYING}
DEFAULT_GRACE_S = 30.0
WINDOW_S = 600.0
"""Over which the writes of one workset are counted."""
LATE_S = 10.0
"""How long a start may take that was decided on before something changed."""
BLINK_S = 0.5
"""A daemon that is told to end so soon after its start has not read the index yet."""
RELOADED_S = 30.0
"""How long after a reload a start may still follow the limits before it."""


@dataclass
class Sim:
    """One world, its luck, and everything that ever went wrong in it."""

    rng: random.Random
    knobs: Knobs = field(default_factory=Knobs)
    world: World = field(default_factory=World)
    log: Log = field(default_factory=Log)
    violations: list[str] = field(default_factory=list)
    drawn: list[str] = field(default_factory=list)
    """What befell this world, and when."""
    failures: float = 0.0
    """How many jobs fail."""
    lengths_s: tuple[float, float] = (5.0, 40.0)
    crashes: int = 0
    skewed: bool = False
    wires: dict[str, Wire] = field(default_factory=dict)
    clocks: dict[str, SteppedClock] = field(default_factory=dict)
    supervisors: dict[str, Supervisor] = field(default_factory=dict)
    records_at: dict[JobName, float] = field(default_factory=dict)
    disk_full_until: float = 0.0
    no_room_since: float = 0.0
    no_room_until: float = 0.0
    accidents: float = 0.0
    huge: bool = False
    """Whether anybody sends or reports what no item can hold."""
    hostile: tuple[Any, ...] = ()
    """Reports that jobs leave now, in place of none."""
    ends_at_notices: bool = False
    """Whether every write that people must hear of is the moment at which daemons are told to end."""
    spawner: TaskGroup | None = None

    machines: dict[str, str] = field(default_factory=dict)
    """The host of each daemon, where it is not the one all share."""
    homes: dict[JobName, str] = field(default_factory=dict)
    """The scope in which each job was started."""
    gone: set[str] = field(default_factory=set)
    """Scopes whose machine no longer exists."""
    lost_tokens: set[JobName] = field(default_factory=set)
    index_stands_until: float = 0.0
    newer: set[WorksetId] = field(default_factory=set)
    """Items that a newer version wrote."""
    inputs: dict[WorksetId, Input] = field(default_factory=dict)
    bucket: dict[WorksetId, Command] = field(default_factory=dict)
    """The submission that the trigger in each folder stands for now."""
    edited: set[WorksetId] = field(default_factory=set)
    """Worksets whose item somebody changed by hand."""
    stranded: set[str] = field(default_factory=set)
    """Commands in the inbox of a run that somebody ended by hand: read when the next command comes."""
    refusing_until: dict[str, float] = field(default_factory=dict)
    """Channels that answer with a definite no, or did."""
    parked_ids: set[str] = field(default_factory=set)
    foreign: bool = False
    """Whether something unforeseen happened that excuses a parked message or a parked input."""
    graces: set[float] = field(default_factory=lambda: {DEFAULT_GRACE_S})
    pipelines_changed: bool = False

    _index: dict[WorksetId, Workset] = field(default_factory=dict)
    limits_before: list[tuple[float, int, int]] = field(default_factory=list)
    _writes: dict[WorksetId, list[float]] = field(default_factory=lambda: defaultdict(list))
    _versions: dict[WorksetId, int] = field(default_factory=dict)
    _submitted_s: dict[WorksetId, float] = field(default_factory=dict)
    _input_seen: dict[WorksetId, Inspection] = field(default_factory=dict)
    _rerouted: bool = False
    _claimed_by: dict[tuple[WorksetId, int], Wire] = field(default_factory=dict)
    """Which life of which daemon raised each fence."""
    owed_first: dict[str, frozenset[str]] = field(default_factory=dict)
    """Whom each record was to tell when it was written."""
    written_at: dict[str, float] = field(default_factory=dict)

    machine: Machine = field(init=False)

    def __post_init__(self) -> None:
        self.world.machine = self.machine = Machine(self)
        self.world.inputs = SimInputs(self)
        if self.knobs.grace_s is not None:
            self.graces = {self.knobs.grace_s}

    def parts(self, wire: Wire) -> Parts:
        """Return the ports of one daemon, each behind its wire."""
        world, store = self.world, Store(self, wire)
        plain: dict[str, Any] = {
            "worksets": store,
            "turns": Turns(self, wire),
            "trail": Trail(self, wire),
            "intake": Mailbox(self, world.intake, wire),
            "commands": Mailbox(self, world.commands, wire),
            "runner": Jobs(self, wire),
            "inputs": world.inputs,
            "drops": Bucket(self, store),
        }
        wired: dict[str, Any] = {role: Wired(port, wire, role) for role, port in plain.items()}
        channels: dict[str, Any] = {
            name: Wired(Channel(delivered=told), wire, name) for name, told in world.told.items()
        }
        return Parts(**wired, notifiers=channels)

    def chance(self, probability: float) -> bool:
        return bool(probability) and self.rng.random() < probability

    def script(self, job: Job) -> Script:
        """Return what a job does; the same job does the same in every replay of a world."""
        luck = random.Random(f"{job.name}/{self.rng.random()}")
        bad = luck.random() < self.failures
        report = luck.choice(self.hostile) if self.hostile else {}
        outcome = Outcome(
            ended=Ended.EXITED, code=1 if bad else 0, tail="sim" if bad else "", report=report
        )
        if luck.random() < self.accidents:
            outcome = Outcome(ended=luck.choice(ACCIDENTS))
        return Script(duration_s=luck.uniform(*self.lengths_s), outcome=outcome, stop_s=2.0)

    def record_seen_at(self, job: Job, wire: Wire) -> float:
        """Return when the exit record of an ended job can be read."""
        run = self.world.machine.run_of(job)
        if run is None:
            return 0.0
        late = self.chance(wire.weather.late_record)
        return self.records_at.setdefault(
            job.name, run.ends_at + (self.rng.uniform(0, 300) if late else 0.0)
        )

    # --- what befalls it ---------------------------------------------------------------------------

    def machine_of(self, daemon: str) -> str:
        return self.machines.get(daemon, "memory")

    async def held(self) -> str:
        return "the disk is full" if anyio.current_time() < self.no_room_until else ""

    def reboot(self) -> None:
        """Lose the machine under every job and every daemon."""
        self.world.machine.restart()
        for wire in self.wires.values():
            wire.died.set()

    def turn(self, **settings: Any) -> None:
        """Reload every daemon with changed settings."""
        before, until = self.world.engine_settings, anyio.current_time() + RELOADED_S
        self.limits_before.append((until, before.limits.slots, before.limits.per_customer))
        self._rerouted |= settings.get("routing", before.routing) != before.routing
        self.world.engine_settings = replace(before, **settings)
        if "grace_s" in settings:
            self.graces.add(DEFAULT_GRACE_S if settings["grace_s"] is None else settings["grace_s"])
        for supervisor in self.supervisors.values():
            supervisor.live.current = self.world.engine_settings

    def stand_still(self, until: float) -> None:
        """Let the index show this moment until then."""
        self._index = dict(self.world.table.worksets)
        self.index_stands_until = until

    def old_index(self) -> Iterable[Workset]:
        return self._index.values()

    def write_trigger(self, id: str, event: str) -> Command:
        """Put ``daylily.ready``; whether S3 tells of it is another matter."""
        command = submission(id, f"s3-{event}", self._customer(id))
        self.bucket[command.workset_id] = command
        if all(known.id != command.id for known in self.world.asked):
            self.world.asked.append(command)
        return command

    def _customer(self, id: str) -> str:
        labs = self.knobs.customers
        return f"lab{int(id.strip('w') or 0) % labs}" if labs else ""

    def announce(self, id: str, event: str) -> None:
        """Let S3 tell of a drop. The same event may be told more than once."""
        name = f"s3-{event}"
        known = next((c for c in self.world.asked if c.id == name), None)
        command = known or self.write_trigger(id, event)
        self.world.intake.put((command,), f"event {self.world.ids.fresh()}")

    def come_again(self, queue: Queue, delivery: Delivery, within_s: float) -> None:
        self.spawn(self._come_again, queue, delivery, self.rng.uniform(0, within_s))

    async def _come_again(self, queue: Queue, delivery: Delivery, after_s: float) -> None:
        await anyio.sleep(after_s)
        queue.put(delivery.content, f"again {delivery.receipt}")

    def spawn(self, work: Any, *args: Any) -> None:
        if self.spawner is not None:
            self.spawner.start_soon(work, *args)

    # --- invariants that hold at every moment ----------------------------------------------------

    def wrong(self, text: str) -> None:
        self.violations.append(f"{anyio.current_time():.1f} s: {text}")

    def job_started(self, job: Job) -> None:
        id = WorksetId(job.name.split(".", 1)[0])
        ws = self.world.table.worksets.get(id)
        alive = [n for n in self.world.machine.running() if n.split(".", 1)[0] == id]
        if len(alive) > 1:
            self.wrong(f"{id} has two live jobs: {sorted(alive)}")
        if self.world.machine.starts.count(job.name) > 1:
            self.wrong(f"{job.name} started twice")
        if job.grace_s not in self.graces:
            self.wrong(f"{job.name} has {job.grace_s} s to end, not {sorted(self.graces)}")
        if ws is None or id in self.edited:
            return
        if ws.state is not State.IN_PROGRESS or ws.job != job.name:
            self.wrong(f"{job.name} started while {id} was {ws.state} with job {ws.job}")
        if job.step == "cleanup" and not self._exported(ws):
            self.wrong(f"{job.name} deletes what was not exported")

    def _exported(self, ws: Workset) -> bool:
        first = int(ws.run.id[1:]) if ws.run else 1
        names = [JobName(f"{ws.id}.{n}.{'export'}") for n in range(first, ws.attempt + 1)]
        ends = [self.world.machine.outcome_of(name) for name in names]
        return any(end is not None and end.succeeded for end in ends)

    def acted(self, wire: Wire, what: str, job: Job) -> None:
        ws = self.world.table.worksets.get(WorksetId(job.name.split(".", 1)[0]))
        if ws is None or ws.id in self.edited:
            return
        if ws.owner not in (wire.name, None):
            self.wrong(f"{wire.name} asked to {what} {job.name}, which {ws.owner} holds")
        if what == "ensure" and job.name in self.lost_tokens and not job.confirmed:
            self.wrong(f"{wire.name} would start {job.name} again, which was seen to start")

    def stopped(self, job: Job) -> None:
        ws = self.world.table.worksets.get(WorksetId(job.name.split(".", 1)[0]))
        if ws is None or ws.id in self.edited:
            return
        if job.name in self.world.machine.running() and not (ws.run and ws.run.stopping):
            self.wrong(f"{job.name} is being stopped, though nobody asked for it")

    def committed(self, change: Change, stored: Workset, wire: Wire) -> None:
        current = self.world.table.worksets[stored.id]
        if change.nonce != self.world.table.nonces[stored.id]:
            return
        if current.version != stored.version:
            self.wrong(f"{stored.id} version {stored.version} was answered for {current.version}")
        if self._versions.get(stored.id) == stored.version:
            return
        self._versions[stored.id] = stored.version
        self._written(stored)
        self._claimed_by.setdefault((stored.id, stored.fence), wire)
        self._turned(change.before, stored, wire)
        for record in change.records:
            routing = self.world.engine_settings.routing
            self.owed_first[record.id] = record.owed if self._rerouted else routing.owed(record)
            self.written_at[record.id] = anyio.current_time()
            self._record(record)
            if record.type is RecordType.LOCK_TIMEOUT and change.before:
                self._taken_over(change.before)
        if self.ends_at_notices and any(record.notify for record in change.records):
            for each in self.wires.values():
                each.told_to_end.set()

    def _turned(self, before: Workset | None, stored: Workset, wire: Wire) -> None:
        if before is None or before.request.submitted_at != stored.request.submitted_at:
            self._submitted_s[stored.id] = anyio.current_time()
            self._input_seen.pop(stored.id, None)
        if before is None:
            return
        if before.state in RESTING and stored.state is State.READY and stored.retry_count:
            self.wrong(f"{stored.id} begins anew with {stored.retry_count} tries used up")
        goes_on = (
            stored.request.submitted_at == before.request.submitted_at and stored.job != before.job
        )
        done = before.job if goes_on else None
        if done and self.machine.started_at(done) < self._submitted_s[stored.id]:
            self.wrong(f"{stored.id} counts {done}, which is of an earlier run")
        if before.attempt != stored.attempt:
            self._began(stored, wire)

    def _written(self, ws: Workset) -> None:
        """Nothing makes an owner write without pause."""
        now, rows = anyio.current_time(), self._writes[ws.id]
        rows.append(now)
        while rows[0] < now - WINDOW_S:
            rows.pop(0)
        most = 80 + WINDOW_S / self.knobs.lease.beat_s
        if len(rows) > most and len(rows) > most + 4 * self.world.asked_of(ws.id):
            self.wrong(f"{ws.id} was written {len(rows)} times within {WINDOW_S:.0f} s")
            rows.clear()

    def _began(self, ws: Workset, wire: Wire) -> None:
        """No daemon starts more than it may, of all and of one customer."""
        if wire.had_bad_weather or ws.state is not State.IN_PROGRESS:
            return
        if self.no_room_since + LATE_S < anyio.current_time() < self.no_room_until:
            self.wrong(f"{wire.name} starts {ws.id}, though there is no room")
        slots, per_customer = self.allowed()
        scope = f"host:{self.machine_of(wire.name)}"
        mine = (w for w in self.in_progress() if w.owner == wire.name)
        held = [w for w in mine if w.scope == scope]
        if len(held) > slots:
            self.wrong(f"{wire.name} runs {len(held)} worksets in {slots} slots")
        same = [w for w in held if w.request.customer_id == ws.request.customer_id]
        if per_customer and len(same) > per_customer:
            self.wrong(f"{wire.name} runs {len(same)} of customer {ws.request.customer_id!r} alone")

    def in_progress(self) -> list[Workset]:
        return [w for w in self.world.table.worksets.values() if w.state is State.IN_PROGRESS]

    def allowed(self) -> tuple[int, int]:
        now, limits = anyio.current_time(), self.world.engine_settings.limits
        lately = [(s, c) for until, s, c in self.limits_before if now < until]
        pairs = [*lately, (limits.slots, limits.per_customer)]
        unlimited = any(c == 0 for _, c in pairs)
        return max(s for s, _ in pairs), 0 if unlimited else max(c for _, c in pairs)

    def ended_well(self, wire: Wire) -> None:
        """A daemon that ends on a quiet day holds no lease any more and owes nothing."""
        if not wire.told_to_end.is_set():
            self.wrong(f"{wire.name} ended, though nobody told it to")
        if wire.had_bad_weather:
            return
        table = self.world.table
        for ws in table.worksets.values():
            mine = ws.owner == wire.name and ws.scope not in self.gone
            if mine and ws.id not in self.edited and not self._left_by_a_former_life(ws, wire):
                self.wrong(f"{wire.name} ended with {ws.id} locked")
        lately = anyio.current_time() - WINDOW_S
        well = {name for name in self.world.told if self.out_until(name) < lately}
        for record in (r for rows in table.records.values() for r in rows):
            if record.owed & well and record.teller == wire.name:
                self.wrong(f"{wire.name} ended and still owed {record.id}")

    def _left_by_a_former_life(self, ws: Workset, wire: Wire) -> bool:
        """Whether a killed daemon took this lease, and the one that is it now had no chance to see it."""
        found_by = self.index_stands_until + self.knobs.sweep_s + LATE_S
        hidden = wire.born_at < self.index_stands_until and anyio.current_time() < found_by
        blinked = anyio.current_time() < wire.born_at + BLINK_S
        return (hidden or blinked) and self._claimed_by.get((ws.id, ws.fence)) is not wire

    def _taken_over(self, before: Workset) -> None:
        wire = self.wires.get(before.owner or "")
        if before.scope in self.gone:
            return
        if wire is not None and not wire.was_in_trouble and before.id not in self.edited:
            self.wrong(f"{before.id} was taken from {wire.name}, which was well")

    def _record(self, record: Record) -> None:
        if record.message.startswith("input refused"):
            self._refused(record)
        told_failed = record.type is RecordType.ERROR and record.state is not State.ERROR
        if told_failed and (step := record.details.get("step")):
            attempt = record.message.split("attempt ", 1)[1].split(" ", 1)[0]
            name = JobName(f"{record.workset_id}.{attempt}.{step}")
            never_ran = name not in self.world.machine.starts
            end = self.world.machine.outcome_of(name)
            excused = self.pipelines_changed and never_ran
            if (end is None or end.succeeded) and not excused:
                self.wrong(f"{name} was called failed, but was not: {record.message}")

    def saw_input(self, ws: Workset, answer: Inspection) -> Inspection:
        stored = self.world.table.worksets.get(ws.id)
        if stored and ws.request.submitted_at == stored.request.submitted_at:
            self._input_seen[ws.id] = answer
        return answer

    def _refused(self, record: Record) -> None:
        """An input is refused for what was found, and files that are late get their time."""
        seen = self._input_seen.get(record.workset_id)
        waited_s = anyio.current_time() - self._submitted_s[record.workset_id]
        wait_s = self.world.engine_settings.policy.input_wait_s
        if isinstance(seen, Missing) and not (self.foreign and "broke" in record.message):
            if waited_s < wait_s - 1.0 and not self.skewed:
                self.wrong(f"{record.id} refused after {waited_s:.0f} s, not {wait_s:.0f}")
        elif not isinstance(seen, Refused) and not self.foreign:
            self.wrong(f"{record.id} was refused, though its input was {seen}")

    def settled(self, deliveries: Sequence[Delivery]) -> None:
        table = self.world.table
        for delivery in deliveries:
            if isinstance(delivery.content, Unreadable):
                self.wrong(f"a message was deleted unread: {delivery.content.reason}")
                continue
            for command in delivery.content:
                if (command.workset_id, command.id) not in table.answers:
                    self.wrong(f"{command.id} was deleted before {command.workset_id} had it")

    def passed_on(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            for command in () if isinstance(delivery.content, Unreadable) else delivery.content:
                ids = {c.id for c in self.world.asked if c.workset_id == command.workset_id}
                if not ids & self.world.commands.seen.keys():
                    self.wrong(f"{command.id} was deleted before it was passed on")

    def parked(self, delivery: Delivery, reason: str) -> None:
        """Only what can never be read, or met something unforeseen, is parked."""
        if isinstance(delivery.content, Unreadable):
            return
        for command in delivery.content:
            self.parked_ids.add(command.id)
            excused = self.foreign or "too large" in reason or "newer version" in reason
            if not excused and "commands waiting" not in reason:
                self.wrong(f"{command.id} on {command.workset_id} was parked: {reason}")

    def struck_off(
        self, record: Record, told: frozenset[str], given_up: frozenset[str], wire: Wire
    ) -> None:
        """A notice is struck off once it was delivered, refused for good, or is too old."""
        for channel in told:
            if all(r.id != record.id for r in self.world.told[channel]):
                self.wrong(f"{record.id} was struck off, and {channel} was not told")
        age_s = (self.clocks[wire.name].now() - record.at).total_seconds()
        written_s = self.written_at[record.id]
        for channel in given_up:
            refused = written_s < self.refusing_until.get(channel, 0.0)
            if not refused and age_s < self.world.engine_settings.give_up_s - 60.0:
                self.wrong(f"{record.id} was given up on {channel} after {age_s:.0f} s")

    def out_until(self, channel: str) -> float:
        its = (o for o in self.log.outages if o.calls[0].split(".")[0] == channel)
        found = [outage.until + outage.lasts_on_s for outage in its]
        return max(found, default=-WINDOW_S)

    @property
    def at_rest(self) -> bool:
        table = self.world.table
        return (
            not self.world.commands.messages
            and not self.world.intake.messages
            and all(ws.state in RESTING for ws in table.worksets.values())
            and all(c.id in self.stranded for ws in table.worksets.values() for c in ws.inbox)
            and not any(r.owed for rows in table.records.values() for r in rows)
            and all(self.answered(command) for command in self.bucket.values())
        )

    def answered(self, command: Command) -> bool:
        """Return whether something became of a command, for good."""
        found = self.world.table.answers.get((command.workset_id, command.id))
        final = found is not None and found.effect is not CommandEffect.QUEUED
        return final or command.id in self.parked_ids
