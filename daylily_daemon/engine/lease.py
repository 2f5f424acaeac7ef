"""The lease of a workset: one claim is a *term*, named by its fence.

Every write goes through the version of the item it was decided on, so a write of an old owner is refused
by the store however late it arrives. What the lease adds is that two daemons do not *work* on one workset
at the same time:

- The holder trusts its term until (time before the request that was last confirmed) + TTL - margin, on
  its own monotonic clock. When that runs out, everything under the term is cancelled; jobs run on.
- Every write of the owner counts as a beat. When nothing is written for ``beat_s``, ``keep`` writes one.
- A contender may claim only after it has seen the same beat for a whole TTL on *its* monotonic clock
  (``Watch``), and on condition that the item is still exactly what it watched.

Stored wall-clock times are for people. The start of a job is not protected by any of this but by its start
token: see the runners.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final

from anyio import CancelScope, CapacityLimiter, Event, Lock, current_time, move_on_after, sleep

from daylily_daemon.domain.decision import Decision, Effect, released
from daylily_daemon.domain.errors import Fenced, Transient
from daylily_daemon.domain.lifecycle import Event as LifeEvent
from daylily_daemon.domain.lifecycle import Policy, decide, resume
from daylily_daemon.domain.model import Command, Fence, JobName, Record, State, Workset, WorksetId
from daylily_daemon.domain.routing import Routing
from daylily_daemon.engine.boundary import aside
from daylily_daemon.ports import Change, Clock, Conflict, Ids, Worksets

WRITES_AT_ONCE: Final = 16
"""Of one daemon. The SDK's pool has more connections, so that a write with a turn need not wait for one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseConfig:
    ttl_s: float = 60.0
    margin_s: float = 10.0
    beat_s: float = 15.0
    progress_s: float = 1.0
    """Least time between two writes that carry nothing but progress."""
    hurry_s: float = 0.05
    """Least time between two writes whatever happens: it bounds what a workset can make its owner write."""
    repeat_s: float = 1.0
    """Pause before a write without an answer is repeated."""

    @property
    def trust_s(self) -> float:
        return self.ttl_s - self.margin_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What it takes to write a decision down."""

    worksets: Worksets
    clock: Clock
    ids: Ids
    owner: str
    on_records: Callable[[tuple[Record, ...]], None]
    """Called with the records of each write once it is stored: the outbox."""
    turns: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(WRITES_AT_ONCE))
    """Who waits for a turn has sent nothing yet: a thousand runs to adopt must not time out in a queue."""
    write_s: float = 5.0
    """How long a write that was sent is heard out, cancelled or not: a claim nobody knows of would stand
    until somebody takes it over."""

    def change(self, before: Workset | None, decision: Decision, routing: Routing) -> Change:
        addressed = tuple(
            replace(record, owed=routing.owed(record), teller=self.owner)
            for record in decision.records
        )
        return Change(
            before=before,
            after=decision.workset,
            nonce=self.ids.fresh(),
            records=addressed,
            answers=decision.answers,
        )

    async def write(self, change: Change) -> Workset:
        """Commit once. Raises what ``Worksets.commit`` raises, and Transient after ``write_s``."""
        async with self.turns:
            with CancelScope(shield=True, deadline=current_time() + self.write_s):
                stored = await self.worksets.commit(change)
                with aside("taking records over"):
                    self.on_records(change.records)
                return stored
        raise Transient(f"{change.after.id}: the store did not answer within {self.write_s:g} s")


class Term:
    """One claim of one workset, from claim to release.

    ``trusted`` is the cancel scope everything under the term runs in; its deadline is the trust window.
    """

    def __init__(self, desk: Desk, config: LeaseConfig, workset: Workset, asked: float) -> None:
        self.workset = workset
        self.trusted = CancelScope(deadline=asked + config.trust_s)
        self.on_command: Callable[[Command], None] = _drop
        self._desk = desk
        self._config = config
        self._fence: Fence = workset.fence
        self._turn = Lock()
        self._written = asked
        self._poke = Event()
        self._hurry = False
        self._remarks: dict[str, Any] = {}
        self._remarked_of: JobName | None = None
        self._eager = False

    async def apply(self, event: LifeEvent, policy: Policy, routing: Routing) -> list[Effect]:
        """Decide, save, and return what to do. Raises Fenced.

        When the item moved on under our own fence (a command was put into the inbox, or an answer
        got lost), the decision is made again on what is there, and the effects that follow from
        it are returned too: an effect that already runs is not run twice by the shepherd.
        """
        effects: list[Effect] = []
        async with self._turn:
            while True:
                decision = decide(self.workset, event, policy, self._desk.clock.now())
                effects.extend(decision.effects)
                if decision.workset == self.workset:
                    return effects
                change = self._change(decision, routing)
                if await self._commit(change):
                    return effects
                effects = list(resume(self.workset))

    async def keep(self) -> None:
        """Beat for ever. Raises Fenced; a beat without an answer is simply due again."""
        while True:
            await self._until_due()
            with move_on_after(self._config.beat_s):
                async with self._turn:
                    await self._beat()

    def note(self, job: JobName, *, eager: bool = True, **fields: Any) -> None:
        """Let the next beat carry these fields of the workset, if ``job`` is still its job then.

        ``eager`` beats come sooner, but never faster than ``progress_s`` allows.
        """
        if self._remarked_of != job:
            self._remarks = {}
        self._remarked_of = job
        self._remarks.update(fields)
        if eager:
            self._eager = True
            self._poke.set()

    def poke(self) -> None:
        """Look at the item now: somebody put a command into its inbox."""
        self._hurry = True
        self._poke.set()

    async def release(self) -> None:
        """Give the lock back, once; what gets no answer ends by itself. Raises Fenced, Transient."""
        async with self._turn:
            ws = self.workset
            if ws.lock_owner is None:
                return
            try:
                self.workset = await self._desk.write(self._release_of(ws))
            except Conflict as conflict:
                self._accept(conflict.current)
                self.workset = await self._desk.write(self._release_of(self.workset))

    def _release_of(self, ws: Workset) -> Change:
        return self._change(Decision(released(replace(ws, **self._current_remarks()))), Routing())

    def _current_remarks(self) -> dict[str, Any]:
        """Return what was noted of the job that is the workset's now."""
        return self._remarks if self._remarked_of == self.workset.job else {}

    def _change(self, decision: Decision, routing: Routing) -> Change:
        expires = self._desk.clock.now() + timedelta(seconds=self._config.ttl_s)
        ws = decision.workset
        held = ws.lock_owner is not None
        beaten = replace(ws, beat=self.workset.beat + 1, lock_expires_at=expires if held else None)
        return self._desk.change(self.workset, decision.becoming(beaten), routing)

    async def _commit(self, change: Change) -> bool:
        """Write until answered; False if the item was not what ``change`` was decided on."""
        asked = current_time()
        while True:
            try:
                self.workset = await self._desk.write(change)
            except Conflict as conflict:
                self._accept(conflict.current)
                return False
            except Transient:
                await sleep(self._config.repeat_s)
            else:
                self._written = asked
                self.trusted.deadline = asked + self._config.trust_s
                return True

    async def _beat(self) -> None:
        self._hurry = False
        remarks = dict(self._current_remarks())
        after = replace(self.workset, **remarks)
        if await self._commit(self._change(Decision(after), Routing())):
            self._remarks = {k: v for k, v in self._remarks.items() if remarks.get(k, _NEW) != v}
            self._eager = self._eager and bool(self._remarks)

    def _accept(self, current: Workset | None) -> None:
        if current is None or current.fence != self._fence:
            raise Fenced("the workset was claimed by another daemon, or its item was removed")
        if current.lock_owner != self._desk.owner or current.state is not State.IN_PROGRESS:
            raise Fenced("the workset's item was changed by hand")
        self.workset = current
        self._hurry = True
        self._poke.set()
        for command in current.inbox:
            self.on_command(command)

    async def _until_due(self) -> None:
        while (left_s := self._due() - current_time()) > 0:
            with move_on_after(left_s):
                await self._poke.wait()
            self._poke = Event()

    def _due(self) -> float:
        if self._hurry:
            return self._written + self._config.hurry_s
        pause_s = self._config.progress_s if self._eager else self._config.beat_s
        return self._written + min(pause_s, self._config.beat_s)


_NEW: Final = object()


def _drop(command: Command) -> None:
    """Before a shepherd listens there is nobody to hand a command to; it stays in the inbox."""


class Watch:
    """How long the beats of other owners have stood still, on this host's monotonic clock."""

    def __init__(self, ttl_s: float) -> None:
        self._ttl_s = ttl_s
        self._seen: dict[WorksetId, tuple[tuple[Fence, int], float]] = {}

    def look(self, ws: Workset) -> None:
        """Note the beat of a workset that was just read."""
        mark = (ws.fence, ws.beat)
        known = self._seen.get(ws.id)
        if known is None or known[0] != mark:
            self._seen[ws.id] = (mark, current_time())

    def dead(self, ws: Workset) -> bool:
        """Return whether exactly this beat has been standing still for a whole TTL."""
        known = self._seen.get(ws.id)
        mark = (ws.fence, ws.beat)
        return bool(known and known[0] == mark and current_time() - known[1] >= self._ttl_s)

    def keep_only(self, ids: set[WorksetId]) -> None:
        """Forget the worksets that are no longer of interest."""
        self._seen = {id: seen for id, seen in self._seen.items() if id in ids}


async def claim(
    desk: Desk, config: LeaseConfig, ws: Workset, event: LifeEvent, dials: tuple[Policy, Routing]
) -> tuple[Term, tuple[Effect, ...]] | None:
    """Take ``ws`` if it is still what we saw; None if not. Raises Transient: perhaps taken.

    A claim whose answer never came is found again by the next sweep: the item then names us.
    """
    asked = current_time()
    policy, routing = dials
    decision = decide(ws, event, policy, desk.clock.now())
    if decision.workset == ws:
        return None
    change = desk.change(ws, decision, routing)
    try:
        stored = await desk.write(change)
    except Conflict:
        return None
    return Term(desk, config, stored, asked), decision.effects
