"""The supervision tree, and the order in which it dies.

    intake (relay, doorbells, reconcile)   first: nothing new comes in
    sweep (inspection, admission, claims)
    shepherds, one a workset, each in its term   let go of their leases; jobs run on
    outbox                                  last: pays what the others still owed

The *board* is what this daemon knows of ready worksets: filled by the index every ``sweep_s``, and at once by
what its own doorbell stored. It only suggests: the conditional write of a claim decides.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import structlog
from anyio import (
    CancelScope,
    Event,
    create_task_group,
    current_time,
    move_on_after,
    sleep,
)
from anyio.abc import TaskGroup

from daylily_daemon.domain.admission import admit, capacity_of
from daylily_daemon.domain.commands import host_lost_by
from daylily_daemon.domain.decision import Effect
from daylily_daemon.domain.errors import DaemonError, Fenced, LeaseLost, Transient, Unexpected
from daylily_daemon.domain.events import Claimed
from daylily_daemon.domain.lifecycle import due, resume
from daylily_daemon.domain.model import State, WorksetId
from daylily_daemon.domain.workset import Workset
from daylily_daemon.engine.boundary import aside, for_ever, foreign_as_unexpected
from daylily_daemon.engine.dials import Live
from daylily_daemon.engine.doorbell import Doorbell, Relay
from daylily_daemon.engine.health import Health, PortHealth
from daylily_daemon.engine.inspector import Inspector
from daylily_daemon.engine.lease import LeaseConfig, Term, Watch, claim
from daylily_daemon.engine.outbox import Outbox
from daylily_daemon.engine.remarks import say_trouble
from daylily_daemon.engine.shepherd import Shepherd, runner_of
from daylily_daemon.engine.writer import Overtaken, Writer
from daylily_daemon.ports import Drops, Mailbox, Trail

log = structlog.get_logger()

RECONCILE_PAUSE_S: Final = 60.0
"""Until a listing that failed is tried again."""
LOOKED_AT: Final = 10_000
"""Worksets of one state that a sweep reads, first ones first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where this daemon runs jobs."""

    runner: str
    scope: str
    data_dir: str
    jobs_dir: str
    former_scopes: frozenset[str] = frozenset()
    """What versions before this one called this machine."""

    def sees(self, scope: str) -> bool:
        """Return whether jobs of ``scope`` may be in sight; whether one is, its runner says."""
        return scope == self.scope or scope in self.former_scopes or self.is_beside(scope)

    def is_beside(self, scope: str) -> bool:
        """Return whether ``scope`` is another folder of this machine, and so of another daemon."""
        machine, _, folder = self.scope.partition("/")
        return bool(folder) and scope != self.scope and scope.startswith(f"{machine}/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What ``status`` shows of a running daemon."""

    active: dict[str, str]
    """Progress by workset id."""
    customers: dict[str, str]
    """Whose they are, by workset id."""
    waiting: int
    owed: int
    passes: int
    held: str
    """Why nothing new is started; empty if nothing is in the way."""
    ports: Mapping[str, PortHealth]
    """What this daemon could last do, by port."""


@dataclass(slots=True)
class _Held:
    """A workset this daemon works on, from the decision to take it to letting it go."""

    customer: str
    term: Term | None = None
    """None until it is claimed."""


class _Untendable(Transient):
    """A run in progress that is ours by its scope, and whose job cannot be looked at from here."""


async def _never_held() -> str:
    return ""


@dataclass(slots=True, kw_only=True)
class Supervisor:
    writer: Writer
    live: Live
    lease: LeaseConfig
    place: Place
    shepherd: Shepherd
    inspector: Inspector
    drops: Drops
    trail: Trail
    intake: Mailbox
    commands: Mailbox
    outbox: Outbox
    on_pass: Callable[[Snapshot], None] = lambda _: None
    """Called after each finished sweep: feeds the watchdog and the status file."""
    held: Callable[[], Awaitable[str]] = _never_held
    """Asked before anything new is started: why this host cannot take more now, or nothing. Answers within
    seconds, whatever becomes of the disks."""
    health: Health
    doorbells: int = 2
    answer_s: float
    """As in Doorbell."""
    index_lag_s: float = 30.0
    """How long what we stored ourselves counts more than an index that does not show it yet."""
    rest_s: float = 30.0
    """How long a workset whose shepherd broke is left alone; doubles up to ``rest_cap_s``."""
    rest_cap_s: float = 1800.0
    release_s: float
    """How long giving back a lease may take; one not given back is taken back at the next start."""
    drain_s: float

    _board: dict[WorksetId, Workset] = field(default_factory=dict)
    _pinned: dict[WorksetId, float] = field(default_factory=dict)
    _active: dict[WorksetId, _Held] = field(default_factory=dict)
    _inspecting: set[WorksetId] = field(default_factory=set)
    _broke: dict[WorksetId, int] = field(default_factory=dict)
    """How often in a row work on a workset met something unforeseen."""
    _not_before: dict[WorksetId, float] = field(default_factory=dict)
    _in_progress: tuple[Workset, ...] = ()
    _nudge: Event = field(default_factory=Event)
    _next_look: float = 0.0
    _looked: bool = False
    """Whether the index was read since the start: before, nobody knows what runs."""
    _passes: int = 0
    _held: str = ""
    _watch: Watch = field(init=False)

    def __post_init__(self) -> None:
        self._watch = Watch(self.lease.ttl_s)

    async def run(self, stop: Event) -> None:
        """Run until ``stop`` is set, then let go of everything, jobs running on.

        Ends within ``answer_s`` plus ``release_s`` plus ``drain_s`` after that.
        """
        async with create_task_group() as paying:
            paying.start_soon(self.outbox.run)
            async with create_task_group() as tending:
                async with create_task_group() as taking:
                    self._start_intake(taking)
                    taking.start_soon(self._sweep_for_ever, tending)
                    await stop.wait()
                    taking.cancel_scope.cancel()
                log.info("letting_go", worksets=len(self._active))
                tending.cancel_scope.cancel()
            with move_on_after(self.drain_s):
                await self.outbox.drained()
            paying.cancel_scope.cancel()

    def nudge(self) -> None:
        """Sweep now."""
        self._nudge.set()

    def _start_intake(self, tg: TaskGroup) -> None:
        doorbell = Doorbell(
            mailbox=self.commands,
            trail=self.trail,
            written=partial(self.health.answered, "worksets", "commit"),
            writer=self.writer,
            on_workset=self._stored,
            answer_s=self.answer_s,
        )
        relay = Relay(
            intake=self.intake,
            commands=self.commands,
            drops=self.drops,
            sent=partial(self.health.answered, "drops", "as_it_is"),
        )
        tg.start_soon(relay.listen)
        for _ in range(self.doorbells):
            tg.start_soon(doorbell.listen)
        tg.start_soon(self._reconcile)

    def _stored(self, ws: Workset) -> None:
        """A doorbell committed this: put it on the board, or wake the shepherd that holds it."""
        held = self._active.get(ws.id)
        if held is not None:
            if held.term is not None:
                held.term.poke()
            return
        self._pin(ws)
        self.nudge()

    def _pin(self, ws: Workset) -> None:
        """Put onto the board what was just read or written under a condition."""
        known = self._board.get(ws.id)
        if known is not None and known.version > ws.version:
            return
        self._board.pop(ws.id, None)
        self._in_progress = tuple(known for known in self._in_progress if known.id != ws.id)
        if ws.state in (State.READY, State.RETRYING, State.IN_PROGRESS):
            self._board[ws.id] = ws
            self._pinned[ws.id] = current_time()

    async def _reconcile(self) -> None:
        await for_ever("the listing of drops", self._find_missed, RECONCILE_PAUSE_S)

    async def _find_missed(self) -> None:
        missed = await self.drops.unannounced()
        if missed:
            log.warning("events_missed", worksets=[c.workset_id for c in missed])
            await self.commands.send(missed)
        await sleep(self.live.now.reconcile_s)

    # --- sweep --------------------------------------------------------------------------------

    async def _sweep_for_ever(self, tending: TaskGroup) -> None:
        async with create_task_group() as tg:
            while True:
                await self._alone("reading the index", self._look_if_due)
                await self._alone("a sweep", partial(self._pass, tending, tg))
                self._passes += 1
                with aside("telling of a pass"):
                    self.on_pass(self.snapshot())
                await self._rest()

    async def _alone(self, what: str, work: Callable[[], Awaitable[None]]) -> None:
        """Do one part of a sweep; its trouble is logged and makes the next one come sooner."""
        try:
            with foreign_as_unexpected(what):
                await work()
        except DaemonError as exc:
            log.warning("sweep_hampered", at=what, error=str(exc))
            self._next_look = current_time() + 1.0

    async def _look_if_due(self) -> None:
        if current_time() >= self._next_look:
            await self._look()
            self._next_look = current_time() + self.live.now.sweep_s

    async def _pass(self, tending: TaskGroup, tg: TaskGroup) -> None:
        await self._look_for_room()
        self._adopt(tending)
        self._inspect(tg)
        self._admit(tending)

    async def _rest(self) -> None:
        due_at = min([self._next_look, self._next_due(), *self._not_before.values()])
        with move_on_after(max(0.0, due_at - current_time())):
            await self._nudge.wait()
        self._nudge = Event()
        now = current_time()
        self._not_before = {id: at for id, at in self._not_before.items() if at > now}

    def _next_due(self) -> float:
        """When the next pause before a retry ends, on the loop's clock."""
        now = self.writer.clock.now()
        waits = [
            (ws.retry_after - now).total_seconds()
            for ws in self._board.values()
            if ws.state is State.RETRYING and ws.retry_after and ws.retry_after > now
        ]
        return current_time() + min(waits, default=self.live.now.sweep_s)

    async def _look(self) -> None:
        """Read the index: what is ready, what waits for a retry, what is in progress."""
        store = self.writer.worksets
        fresh: dict[WorksetId, Workset] = {}
        for state in (State.READY, State.RETRYING):
            fresh.update({ws.id: ws for ws in await store.in_state(state, limit=LOOKED_AT)})
        self._board = {**fresh, **self._newer(fresh)}
        self._in_progress = tuple(await store.in_state(State.IN_PROGRESS, limit=LOOKED_AT))
        self._looked = True
        self._watch.keep_only({ws.id for ws in (*self._in_progress, *fresh.values())})
        for ws in (*self._in_progress, *fresh.values()):
            if ws.owner not in (None, self.writer.owner):
                self._watch.look(ws)

    def _newer(self, fresh: dict[WorksetId, Workset]) -> dict[WorksetId, Workset]:
        """Return what the board knows better than an index that lags behind."""
        now = current_time()
        self._pinned = {id: at for id, at in self._pinned.items() if now - at < self.index_lag_s}
        return {
            id: ws
            for id, ws in self._board.items()
            if (ws.version > fresh[id].version if id in fresh else id in self._pinned)
        }

    def _free(self, ws: Workset) -> bool:
        """Return whether nobody works on it: a claim of it may succeed."""
        if ws.id in self._active or self._not_before.get(ws.id, 0.0) > current_time():
            return False
        return ws.owner in (None, self.writer.owner) or self._watch.dead(ws)

    def _adopt(self, tending: TaskGroup) -> None:
        for ws in (*self._in_progress, *self._board.values()):
            reachable = self.place.sees(ws.scope) or host_lost_by(ws)
            if ws.state is State.IN_PROGRESS and reachable and self._free(ws):
                self._take(ws, tending)

    def _unheld(self) -> dict[WorksetId, str]:
        """Return runs of this host that nobody works on now, by customer: their jobs take slots all the same.

        So it is after a start until they are adopted, and whenever a claim has to be made again.
        """
        return {
            ws.id: ws.request.customer_id
            for ws in (*self._in_progress, *self._board.values())
            if ws.state is State.IN_PROGRESS
            and ws.owner in (None, self.writer.owner)
            and self.place.sees(ws.scope)
        }

    def _inspect(self, tg: TaskGroup) -> None:
        """Check the input of worksets that have no plan yet, each when it is due."""
        for ws in list(self._board.values()):
            wanted = ws.state is State.READY and ws.plan is None and ws.id not in self._inspecting
            if wanted and self._free(ws):
                self._inspecting.add(ws.id)
                tg.start_soon(self._inspect_one, ws)

    async def _inspect_one(self, ws: Workset) -> None:
        again_at = current_time() + self.live.now.input_poll_s
        try:
            found = await self.inspector.check(ws)
            if isinstance(found, Overtaken):
                self._seen(ws, found.current)
                return
            stored = found.workset
            self._pin(stored)
            if stored.state is State.READY and stored.plan is None:
                self._not_before[ws.id] = again_at
        except DaemonError as exc:
            log.warning("input_check_comes_again", workset=ws.id, error=str(exc))
            self._not_before[ws.id] = again_at
        finally:
            self._inspecting.discard(ws.id)
            self.nudge()

    def _seen(self, ws: Workset, current: Workset | None) -> None:
        self._board.pop(ws.id, None)
        if current is not None:
            self._pin(current)

    def _admit(self, tending: TaskGroup) -> None:
        now, dials = self.writer.clock.now(), self.live.now
        free = [ws for ws in self._board.values() if due(ws, now) and self._free(ws)]
        if not free or self._held or not self._looked:
            return
        active = self._unheld() | {id: held.customer for id, held in self._active.items()}
        capacity = capacity_of(dials.limits, active, self._in_progress)
        if capacity.running >= dials.limits.slots:
            return
        for verdict in admit(free, capacity, now):
            if verdict.admitted:
                self._take(self._board[verdict.workset_id], tending)

    async def _look_for_room(self) -> None:
        held = await self.held()
        if held and not self._held:
            log.error("admission_held", reason=held)
        elif self._held and not held:
            log.info("admission_resumed")
        self._held = held

    # --- tending ------------------------------------------------------------------------------

    def _take(self, ws: Workset, tending: TaskGroup) -> None:
        self._active[ws.id] = _Held(ws.request.customer_id)
        self._board.pop(ws.id, None)
        tending.start_soon(self._tend, ws)

    async def _tend(self, ws: Workset) -> None:
        """Hold one workset. What it raises never stops another: the one blanket is here."""
        try:
            with foreign_as_unexpected(f"the shepherd of {ws.id}"):
                await self._claim_and_drive(ws)
            self._broke.pop(ws.id, None)
        except Unexpected as exc:
            pause_s = min(self.rest_cap_s, self.rest_s * 2 ** self._broke.get(ws.id, 0))
            self._broke[ws.id] = self._broke.get(ws.id, 0) + 1
            log.warning("workset_rests", workset=ws.id, rest_s=pause_s, error=str(exc))
            self._not_before[ws.id] = current_time() + pause_s
            await say_trouble(self.writer, ws.id, str(exc))
        except _Untendable as exc:
            log.warning("workset_not_claimed", workset=ws.id, error=str(exc))
            self._not_before[ws.id] = current_time() + self.rest_s
            await say_trouble(self.writer, ws.id, str(exc))
        except (Fenced, LeaseLost) as exc:
            log.warning("lease_lost", workset=ws.id, error=str(exc))
            self._look_again(ws, self.lease.repeat_s)
        except DaemonError as exc:
            log.warning("workset_let_go", workset=ws.id, error=str(exc))
            self._look_again(ws, self.lease.repeat_s)
        finally:
            self._active.pop(ws.id, None)
            self.nudge()

    async def _claim_and_drive(self, ws: Workset) -> None:
        sees_job = await self._sees(ws)
        event = Claimed(
            owner=self.writer.owner,
            key=self.writer.ids.fresh(),
            runner=self.place.runner,
            scope=self.place.scope,
            data_dir=self.place.data_dir,
            jobs_dir=self.place.jobs_dir,
            ttl_s=self.lease.ttl_s,
            sees_job=sees_job,
            beside=self.place.is_beside(ws.scope),
        )
        taken = await claim(self.writer, self.lease, ws, event)
        if taken is None:
            self._look_again(ws, self.lease.repeat_s)
            return
        term, effects = taken
        self._active[ws.id].term = term
        bound = log.bind(workset=ws.id, fence=term.workset.fence, attempt=term.workset.attempt)
        run, step = term.workset.run, term.workset.step
        bound.info("claimed", run=run and run.id, step=step and step.name)
        if resume(term.workset):
            await self._drive(term, effects)
            bound.info("left", state=term.workset.state)
        self._pin(term.workset)

    async def _drive(self, term: Term, effects: tuple[Effect, ...]) -> None:
        try:
            await self.shepherd.drive(term, effects)
        finally:
            with CancelScope(shield=True, deadline=current_time() + self.release_s):
                await self._release(term)

    async def _sees(self, ws: Workset) -> bool:
        """Return whether the job of a run in progress can be tended here.

        Raises _Untendable where it should be and cannot, unless somebody vouches that it is gone.
        """
        if ws.state is not State.IN_PROGRESS or not ws.step or not self.place.sees(ws.scope):
            return self.place.sees(ws.scope)
        shepherd = self.shepherd
        try:
            await runner_of(shepherd.runners, ws).look(shepherd.stop_job(ws))
        except Transient as exc:
            if host_lost_by(ws):
                return False
            raise _Untendable(str(exc)) from exc
        return True

    def _look_again(self, ws: Workset, pause_s: float) -> None:
        """What we knew of ``ws`` was not so: leave it alone for a moment, and read the index anew then."""
        self._not_before[ws.id] = current_time() + pause_s
        self._next_look = min(self._next_look, current_time() + pause_s)

    async def _release(self, term: Term) -> None:
        try:
            await term.release()
        except DaemonError as exc:
            log.info("not_released", workset=term.workset.id, error=str(exc))

    def snapshot(self) -> Snapshot:
        return Snapshot(
            active={id: _doing(held.term) for id, held in self._active.items()},
            customers={id: held.customer for id, held in self._active.items()},
            waiting=len(self._board),
            owed=self.outbox.waiting,
            passes=self._passes,
            held=self._held,
            ports=self.health.ports,
        )


def _doing(term: Term | None) -> str:
    ws = term.workset if term else None
    if ws is None or ws.run is None or ws.step is None:
        return ""
    return f"{ws.step.name} {ws.run.progress.message}".strip()
