"""Named bugs, each planted by replacing one piece of the program, that the simulation must catch.

A mutant is a context manager: inside it the program is wrong in one way. A mutant that no driver catches is a
defect of the simulation, and fails the build.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel

from daylily_daemon.domain import commands, decision, events, lifecycle
from daylily_daemon.domain.decision import Decision
from daylily_daemon.domain.errors import Transient
from daylily_daemon.domain.model import Ended, JobName, Outcome, Record, State
from daylily_daemon.domain.workset import Workset
from daylily_daemon.engine import (
    backlog,
    doorbell,
    lease,
    outbox,
    shepherd,
    supervisor,
    tender,
    writer,
)
from daylily_daemon.ports import Change, Delivery, Unreadable
from tests.fakes import store as memory
from tests.fakes.runner import MemoryMachine
from tests.sim import field_mutants
from tests.sim.planting import MUTANTS, Mutant, mutant


@mutant("a write is not conditional: neither version nor fence is compared")
def fence_off() -> list[tuple[object, str, Any]]:
    return [(memory, "_mark", lambda ws: None if ws is None else 0)]


@mutant("only the fence is compared: a command put into the inbox is overwritten")
def version_off() -> list[tuple[object, str, Any]]:
    return [(memory, "_mark", lambda ws: None if ws is None else ws.fence)]


@mutant("a write of our own that the SDK repeated is taken for somebody else's")
def own_write_is_a_conflict() -> list[tuple[object, str, Any]]:
    original = memory.MemoryWorksets.commit

    async def commit(self: Any, change: Change) -> Workset:
        self._table.nonces[change.after.id] = ""
        return await original(self, change)

    return [(memory.MemoryWorksets, "commit", commit)]


@mutant("the holder trusts its lease for ever")
def trust_unbounded() -> list[tuple[object, str, Any]]:
    return [(lease.LeaseConfig, "trust_s", property(lambda self: math.inf))]


@mutant("no heartbeat is sent")
def no_heartbeat() -> list[tuple[object, str, Any]]:
    async def keep(self: lease.Term) -> None:
        while not self._told:
            await self._poke.wait()

    return [(lease.Term, "keep", keep)]


@mutant("a contender compares the stored time with its own wall clock")
def wall_clock_in_the_lease() -> list[tuple[object, str, Any]]:
    def is_free(self: backlog.Backlog, ws: Workset, now: float) -> bool:
        if self._not_before.get(ws.id, 0.0) > now:
            return False
        over = ws.lock is not None and ws.lock.expires_at < clocks[self.owner].now()
        return ws.owner in (None, self.owner) or over

    original = supervisor.Supervisor.__post_init__

    def after(self: supervisor.Supervisor) -> None:
        clocks[self.writer.owner] = self.writer.clock
        original(self)

    clocks: dict[str, Any] = {}
    return [
        (backlog.Backlog, "is_free", is_free),
        (supervisor.Supervisor, "__post_init__", after),
    ]


@mutant("a lease is taken over on doubt, without watching its beat")
def takeover_on_doubt() -> list[tuple[object, str, Any]]:
    return [(backlog.BeatObserver, "is_dead", lambda self, ws, now: True)]


@mutant("a dead owner's lease is never taken over")
def no_takeover() -> list[tuple[object, str, Any]]:
    return [(backlog.BeatObserver, "is_dead", lambda self, ws, now: False)]


@mutant("a restarted daemon does not take its own leases back")
def own_lease_not_taken_back() -> list[tuple[object, str, Any]]:
    def is_free(self: backlog.Backlog, ws: Workset, now: float) -> bool:
        return self._not_before.get(ws.id, 0.0) <= now and ws.owner is None

    return [(backlog.Backlog, "is_free", is_free)]


@mutant("messages are deleted before what they say is stored")
def acknowledged_before_commit() -> list[tuple[object, str, Any]]:
    original = doorbell.Doorbell._answer

    async def answer(self: doorbell.Doorbell, deliveries: Any) -> None:
        if deliveries:
            await self.mailbox.settle(deliveries)
        await original(self, deliveries)

    return [(doorbell.Doorbell, "_answer", answer)]


@mutant("a command that got no answer is settled all the same")
def lost_answer_is_success() -> list[tuple[object, str, Any]]:
    original = doorbell.Doorbell._ring_until_answered

    async def ring(self: doorbell.Doorbell, command: Any, until: float) -> None:
        try:
            await original(replace(self, tries=1), command, until)
        except Transient:
            return

    return [(doorbell.Doorbell, "_ring_until_answered", ring)]


@mutant("the commands of one workset are answered at the same time")
def commands_out_of_order() -> list[tuple[object, str, Any]]:
    def alone(delivery: Delivery) -> str:
        return delivery.receipt

    return [(doorbell, "_workset_of", alone)]


@mutant("a command id that was seen before is applied again")
def repeats_applied() -> list[tuple[object, str, Any]]:
    original = commands.apply

    def apply(ws: Workset, command: Any, now: Any) -> Decision:
        return original(replace(ws, seen_commands=()), command, now)

    commit = memory.MemoryWorksets.commit

    async def forgetful(self: Any, change: Change) -> Workset:
        return await commit(self, replace(change, once=None))

    return [
        (commands, "apply", apply),
        (memory.MemoryWorksets, "commit", forgetful),
    ]


@mutant("the owner does not read its inbox")
def inbox_ignored() -> list[tuple[object, str, Any]]:
    def nothing(command: Any) -> events.JobStopped:
        return events.JobStopped(JobName("nobody"))

    return [(shepherd, "Commanded", nothing)]


@mutant("what waits in the inbox when a run ends is left there")
def inbox_left_behind() -> list[tuple[object, str, Any]]:
    return [(lifecycle, "_answer_inbox", lambda before, decision, now: decision)]


@mutant("the start of a job is not fenced: a slow start happens after it was given up")
def start_not_fenced() -> list[tuple[object, str, Any]]:
    return [
        (MemoryMachine, "was_revoked", lambda self, job: False),
        (MemoryMachine, "revoke", lambda self, job: None),
    ]


@mutant("an unknown outcome counts as failed")
def unknown_is_failed() -> list[tuple[object, str, Any]]:
    original = shepherd._Drive._until_answered

    async def until_answered(self: Any, call: Callable[[], Awaitable[Any]], *of: Any) -> Any:
        if isinstance(call, partial) and getattr(call.func, "__name__", "") == "crossing":
            try:
                return await call()
            except Transient:
                if self.term.workset.step and len(call.args) == 1 and _is_wait(call):
                    return Outcome(ended=Ended.EXITED, code=255, tail="unknown")
        return await original(self, call, *of)

    return [(shepherd._Drive, "_until_answered", until_answered)]


def _is_wait(call: Any) -> bool:
    cells = [c.cell_contents for c in call.func.__closure__ or ()]
    return "wait" in cells


@mutant("jobs are stopped when the daemon ends")
def shutdown_stops_jobs() -> list[tuple[object, str, Any]]:
    original = tender.Tender._release

    async def release(self: tender.Tender, term: lease.Term) -> None:
        ws = term.workset
        if ws.state is State.IN_PROGRESS and ws.step:
            try:
                await self.shepherd.runners[ws.step.runner].stop(self.shepherd.stop_job(ws))
            except Transient:
                return
        await original(self, term)

    return [(tender.Tender, "_release", release)]


@mutant("at the end, the outbox stops before what the others still owe is paid")
def shutdown_reversed() -> list[tuple[object, str, Any]]:
    async def run(self: supervisor.Supervisor, stop: anyio.Event) -> None:
        async with anyio.create_task_group() as tending:
            async with anyio.create_task_group() as taking:
                self.intake.start(taking, self._stored)
                taking.start_soon(self._sweep.run, tending, self._passed)
                async with anyio.create_task_group() as paying:
                    paying.start_soon(self.outbox.run)
                    await stop.wait()
                    paying.cancel_scope.cancel()
                taking.cancel_scope.cancel()
            tending.cancel_scope.cancel()

    return [(supervisor.Supervisor, "run", run)]


@mutant("a daemon that ends keeps its leases")
def lease_kept_at_the_end() -> list[tuple[object, str, Any]]:
    async def nothing(self: tender.Tender, term: lease.Term) -> None:
        return

    return [(tender.Tender, "_release", nothing)]


@mutant("releasing a lease changes the state")
def release_changes_state() -> list[tuple[object, str, Any]]:
    original = decision.released

    def released(ws: Workset) -> Workset:
        state = State.READY if ws.state is State.IN_PROGRESS else ws.state
        return replace(original(ws), state=state)

    return [(lifecycle, "released", released)]


@mutant("an adopted workset is not resumed")
def nothing_resumed() -> list[tuple[object, str, Any]]:
    original = lifecycle._adopt

    def adopt(*args: Any) -> Decision:
        return replace(original(*args), effects=())

    return [(lifecycle, "_adopt", adopt)]


@mutant("a workset that waits for its next try is never due")
def retries_forgotten() -> list[tuple[object, str, Any]]:
    def due(ws: Workset, now: Any) -> bool:
        return ws.state is State.READY and ws.plan is not None

    return [(lifecycle, "due", due), (backlog, "due", due)]


@mutant("a retry starts at once under the number of the attempt before")
def attempt_not_counted() -> list[tuple[object, str, Any]]:
    original = lifecycle._begin

    def begin(first: Decision, claim: Any, now: Any) -> Decision:
        before = max(0, first.workset.attempt - 1)
        return original(first.becoming(replace(first.workset, attempt=before)), claim, now)

    return [(lifecycle, "_begin", begin)]


@mutant("notices are not owed in the store, only delivered")
def no_outbox() -> list[tuple[object, str, Any]]:
    original = writer.Writer._change

    def change(self: writer.Writer, *args: Any) -> Change:
        made = original(self, *args)
        records = tuple(replace(r, owed=frozenset()) for r in made.records)
        owed[made.nonce] = made.records
        return replace(made, records=records)

    async def written(self: writer.Writer, made: Change) -> Workset:
        stored = await self.worksets.commit(made)
        self.on_records(owed.get(made.nonce, ()))
        return stored

    owed: dict[str, tuple[Record, ...]] = {}
    return [(writer.Writer, "_change", change), (writer.Writer, "_commit", written)]


@mutant("a notice is settled before it is delivered")
def settled_before_delivered() -> list[tuple[object, str, Any]]:
    original = outbox.Outbox._deliver

    async def deliver(self: outbox.Outbox, channel: str, pending: Any) -> bool:
        with suppress(Transient):
            await self._trail.settle(pending.record, frozenset({channel}))
        return await original(self, channel, pending)

    return [(outbox.Outbox, "_deliver", deliver)]


@mutant("what a dead daemon still owed is never swept up")
def leftovers_forgotten() -> list[tuple[object, str, Any]]:
    async def nothing(self: outbox.Outbox, *args: Any) -> bool:
        return False

    return [
        (outbox.Outbox, "_find_leftovers", nothing),
        (outbox.Outbox, "_take_over", nothing),
    ]


@mutant("a notice does not wait for the earlier ones of its workset")
def notices_overtake() -> list[tuple[object, str, Any]]:
    async def at_once(self: outbox.Outbox, channel: str, pending: Any) -> None:
        await anyio.lowlevel.checkpoint()

    return [(outbox.Outbox, "_wait_for_turn", at_once)]


@mutant("a notice that another daemon took over is told by both")
def told_by_two() -> list[tuple[object, str, Any]]:
    async def unasked(self: outbox.Outbox, channel: str, pending: Any) -> None:
        await anyio.lowlevel.checkpoint()

    return [(outbox.Outbox, "_make_sure", unasked)]


@mutant("a delivery that failed is not tried again")
def notice_tried_once() -> list[tuple[object, str, Any]]:
    async def deliver(self: outbox.Outbox, channel: str, pending: Any) -> bool:
        try:
            await self._notifiers()[channel].deliver(pending.record)
        except Transient:
            return False
        return True

    return [(outbox.Outbox, "_deliver", deliver)]


@mutant("a cancel is remembered in memory only, not saved before the job is stopped")
def stop_not_saved() -> list[tuple[object, str, Any]]:
    original = lease.Term.apply

    async def apply(self: lease.Term, event: Any) -> Any:
        asked = isinstance(event, events.Commanded)
        before = self.workset
        effects = await original(self, event)
        run, was = self.workset.run, before.run
        if asked and run and run.stopping and was and not was.stopping:
            forgetful = replace(self.workset, run=replace(run, stopping=""))
            forgotten = Decision(self._sealed(forgetful))
            change = self._writer._change(self.workset, forgotten, None)
            self.workset = await self._writer._commit(change)
        return effects

    return [(lease.Term, "apply", apply)]


@mutant("an unreadable message blocks its group for ever")
def poison_blocks() -> list[tuple[object, str, Any]]:
    original = doorbell.Doorbell._answer_line

    async def answer(self: doorbell.Doorbell, line: Any, round: Any) -> None:
        if not any(isinstance(delivery.content, Unreadable) for delivery in line):
            await original(self, line, round)

    return [(doorbell.Doorbell, "_answer_line", answer)]


BY_NAME = {m.name: m for m in MUTANTS}
__all__ = ["BY_NAME", "MUTANTS", "Mutant", "field_mutants"]
