"""Bugs of the kinds a tired engineer writes, which only trouble of the field or a tiny limit shows."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from anyio import CapacityLimiter, get_cancelled_exc_class, sleep

from daylily_daemon.domain import admission, commands, lifecycle
from daylily_daemon.domain.admission import Capacity
from daylily_daemon.domain.decision import Decision
from daylily_daemon.domain.errors import Impeded, InboxFull, Permanent, Transient
from daylily_daemon.domain.model import Command, Inspection, Refused
from daylily_daemon.domain.workset import Workset
from daylily_daemon.engine import (
    admitter,
    doorbell,
    health,
    inspector,
    intake,
    lease,
    outbox,
    shepherd,
    sweep,
    tender,
    writer,
)
from daylily_daemon.ports import Delivery, Mailbox, OwedPage
from tests.fakes import store as memory
from tests.sim.planting import Places, mutant
from tests.sim.ports import PROBLEM

# --- limits --------------------------------------------------------------------------------------


@mutant("one workset of a customer more runs than may")
def one_more_of_a_customer() -> Places:
    original = admission.admit

    def admit(candidates: Any, capacity: Capacity, now: Any) -> Any:
        limit = capacity.limits.per_customer
        limits = replace(capacity.limits, per_customer=limit + 1 if limit else 0)
        return original(candidates, replace(capacity, limits=limits), now)

    return [(admitter, "admit", admit)]


@mutant("what a customer runs already is not counted")
def customers_not_counted() -> Places:
    original = admission.capacity_of

    def capacity_of(*args: Any, **fields: Any) -> Capacity:
        return replace(original(*args, **fields), customers={})

    return [(admitter, "capacity_of", capacity_of)]


@mutant(
    "a workset takes a slot only once it is claimed, not from the decision to take it",
    "change_the_limits",
)
def counted_once_claimed() -> Places:
    original = admitter.Admitter.admit

    def admit(self: admitter.Admitter, tending: Any) -> None:
        active = self.tender.held
        unclaimed = {id: held for id, held in active.items() if held.term is None}
        for id in unclaimed:
            del active[id]
        original(self, tending)
        for id, held in unclaimed.items():
            active.setdefault(id, held)

    return [(admitter.Admitter, "admit", admit)]


@mutant("a reload does not reach the limits", "change_the_limits", "miss_an_input")
def limits_of_the_start() -> Places:
    original = admission.admit
    first: list[Any] = []

    def admit(candidates: Any, capacity: Capacity, now: Any) -> Any:
        first.append(capacity.limits)
        return original(candidates, replace(capacity, limits=first[0]), now)

    return [(admitter, "admit", admit)]


@mutant("a host that is held is never free again", "no_room")
def held_for_ever() -> Places:
    original = admitter.Admitter.look

    async def look(self: admitter.Admitter) -> None:
        before = self.held
        await original(self)
        self.held = before or self.held

    return [(admitter.Admitter, "look", look)]


@mutant("new work starts on a host that is held", "no_room")
def holding_ignored() -> Places:
    async def look(self: admitter.Admitter) -> None:
        self.held = ""

    return [(admitter.Admitter, "look", look)]


@mutant("after a command the owner writes without pause")
def no_pause_between_writes() -> Places:
    original = lease.Term._due

    def due(self: lease.Term) -> float:
        return self._written if self.workset.seen_commands else original(self)

    return [(lease.Term, "_due", due)]


# --- commands ------------------------------------------------------------------------------------


@mutant("a command that finds the inbox full is dropped in silence")
def full_inbox_drops() -> Places:
    original = commands.enqueue

    def enqueue(ws: Workset, *args: Any) -> Decision:
        try:
            return original(ws, *args)
        except InboxFull:
            return Decision(ws)

    return [(commands, "enqueue", enqueue)]


@mutant("an id is forgotten after twenty others", "ask_too_much")
def ids_forgotten() -> Places:
    original = writer.Writer._change

    def change(self: writer.Writer, before: Workset | None, *args: Any) -> Any:
        made = original(self, before, *args)
        return made if before is None else replace(made, once=None)

    return [(writer.Writer, "_change", change)]


@mutant("what became of a command is not remembered", "ask_too_much")
def no_answers() -> Places:
    return [(commands, "_answered", lambda decision, command, now: decision)]


@mutant("a message nobody can read is deleted, not parked")
def unread_and_deleted() -> Places:
    async def park(mailbox: Mailbox, delivery: Delivery, reason: str) -> bool:
        await mailbox.settle([delivery])
        return True

    return [(doorbell, "park", park)]


@mutant(
    "what a batch answered is not deleted when one of its messages gets no answer in time",
    "ask_too_much",
    "replace_the_host",
)
def all_or_nothing_deleted() -> Places:
    line_of, ring_of = doorbell.Doorbell._answer_line, doorbell.Doorbell._ring_until_answered

    async def answer_line(self: doorbell.Doorbell, line: Any, round: Any) -> None:
        try:
            await line_of(self, line, round)
        except get_cancelled_exc_class():
            round.done.clear()
            raise

    async def ring(self: doorbell.Doorbell, command: Command, *_: Any) -> None:
        await ring_of(self, command, math.inf)

    places: Places = [(doorbell.Doorbell, "_answer_line", answer_line)]
    return [*places, (doorbell.Doorbell, "_ring_until_answered", ring)]


@mutant("a message that cannot be parked is deleted", "close_the_dead_letters")
def unparkable_and_deleted() -> Places:
    async def park(mailbox: Mailbox, delivery: Delivery, reason: str) -> bool:
        try:
            await mailbox.park(delivery, reason)
        except Transient:
            await mailbox.settle([delivery])
        return True

    return [(doorbell, "park", park)]


@mutant("trouble with our rights parks the command that met it", "ask_too_much", "deny_the_table")
def impeded_is_parked() -> Places:
    original = doorbell.Doorbell.ring

    async def ring(self: doorbell.Doorbell, command: Command) -> None:
        try:
            await original(self, command)
        except Impeded as exc:
            raise Permanent(str(exc)) from exc

    return [(doorbell.Doorbell, "ring", ring)]


@mutant("the operator's retry keeps the used-up count of tries")
def tries_stay_used_up() -> Places:
    original = commands.cleared

    def cleared(ws: Workset, now: Any) -> Workset:
        return replace(original(ws, now), retry_count=ws.retry_count)

    return [(commands, "cleared", cleared)]


# --- drops ---------------------------------------------------------------------------------------


@mutant("late input is waited for from the first submission ever")
def input_wait_of_long_ago() -> Places:
    original = lifecycle._inspected

    def inspected(ws: Workset, *args: Any) -> Decision:
        long_ago = replace(ws.request, submitted_at=ws.created_at)
        found = original(replace(ws, request=long_ago), *args)
        return found.becoming(replace(found.workset, request=ws.request))

    return [(lifecycle, "_inspected", inspected)]


@mutant("trouble with our rights counts as a bad input", "deny_the_bucket", "miss_an_input")
def impeded_is_refused() -> Places:
    original = inspector.Inspector._inspection

    async def inspection(self: inspector.Inspector, ws: Workset) -> Inspection:
        try:
            return await original(self, ws)
        except Impeded:
            return Refused((PROBLEM,))

    return [(inspector.Inspector, "_inspection", inspection)]


@mutant("nobody looks for drops whose event never came", "lose_an_event")
def no_listing() -> Places:
    async def nothing(self: intake.Intake) -> None:
        await sleep(self.live.current.reconcile_s)

    return [(intake.Intake, "_find_missed", nothing)]


@mutant("the listing finds first drops only", "drop_again_unheard")
def no_second_look() -> Places:
    async def find(self: intake.Intake) -> None:
        missed = await self.drops.unannounced()
        known = await self.writer.worksets.announced([c.workset_id for c in missed])
        await self.commands.send([c for c in missed if c.workset_id not in known])
        await sleep(self.live.current.reconcile_s)

    return [(intake.Intake, "_find_missed", find)]


@mutant("a workset whose item was removed counts its attempts anew", "delete_by_hand", "drop_again")
def attempts_counted_anew() -> Places:
    original = commands.register

    def register(*args: Any) -> Decision:
        found = original(*args)
        return found.becoming(replace(found.workset, attempt=0))

    return [(writer, "register", register)]


# --- jobs ----------------------------------------------------------------------------------------


@mutant("a grace period of 0 is taken for none")
def no_grace_is_unset() -> Places:
    original = shepherd.Shepherd._rendered

    def rendered(self: shepherd.Shepherd, *args: Any) -> Any:
        job = original(self, *args)
        return job if self.live.current.grace_s else replace(job, grace_s=30.0)

    return [(shepherd.Shepherd, "_rendered", rendered)]


@mutant(
    "a job that was seen to start is started again when its token is gone", "lose_a_token", "end"
)
def confirmed_forgotten() -> Places:
    original = shepherd.Shepherd.run_job

    def run_job(self: shepherd.Shepherd, ws: Workset) -> Any:
        job, why = original(self, ws)
        return replace(job, confirmed=False), why

    return [(shepherd.Shepherd, "run_job", run_job)]


@mutant("a running job is given up when its pipeline is gone", "remove_the_pipeline", "end")
def pipeline_needed_to_wait() -> Places:
    original = shepherd.Shepherd.run_job

    def run_job(self: shepherd.Shepherd, ws: Workset) -> Any:
        job, why = original(self, ws)
        if why:
            raise Permanent(why)
        return job, why

    return [(shepherd.Shepherd, "run_job", run_job)]


@mutant("a failed export does not end the run, and what was not exported is deleted")
def export_not_fatal() -> Places:
    original = shepherd.Shepherd.is_fatal

    def is_fatal(self: shepherd.Shepherd, ws: Workset) -> bool:
        return original(self, ws) and ws.step is not None and ws.step.name != "export"

    return [(shepherd.Shepherd, "is_fatal", is_fatal)]


@mutant("the runs of another machine are taken for one's own", "replace_the_host")
def every_scope_is_mine() -> Places:
    return [(tender.Place, "sees", lambda self, scope: True)]


@mutant("the error of the try before is still shown on a complete workset")
def old_error_shown() -> Places:
    original = lifecycle._complete

    def complete(decision: Decision, *args: Any) -> Decision:
        done = original(decision, *args)
        return done.becoming(replace(done.workset, failure=decision.workset.failure))

    return [(lifecycle, "_complete", complete)]


# --- the unforeseen ------------------------------------------------------------------------------


@mutant("what nobody foresaw is let through", "meet_the_unforeseen")
def no_boundary() -> Places:
    modules = (doorbell, health, inspector, outbox, sweep, tender)
    return [(module, "foreign_as_unexpected", nullcontext) for module in modules]


@mutant("a definite no of the index ends the sweep", "refuse_the_index")
def index_ends_the_sweep() -> Places:
    async def alone(self: sweep.Sweep, what: str, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Transient:
            await sleep(1.0)

    return [(sweep.Sweep, "_alone", alone)]


# --- notices -------------------------------------------------------------------------------------


@mutant(
    "a notice that is told on one channel and given up on another is not settled", "refuse_a_notice"
)
def half_given_up_not_settled() -> Places:
    original = outbox.Outbox._settle

    async def settle(self: outbox.Outbox, pending: Any) -> None:
        if not (pending.told and pending.given_up):
            await original(self, pending)

    return [(outbox.Outbox, "_settle", settle)]


@mutant("a notice is given up at the first trouble, whatever its age", "deny_a_channel")
def given_up_at_once() -> Places:
    return [(outbox.Outbox, "_too_old", lambda self, record: True)]


@mutant("a dead channel takes the turns of the healthy ones")
def channels_share_turns() -> Places:
    original = outbox.Outbox._deliver
    turns: list[CapacityLimiter] = []

    async def deliver(self: outbox.Outbox, channel: str, pending: Any) -> bool:
        turns.append(turns[0] if turns else CapacityLimiter(2))
        async with turns[0]:
            return await original(self, channel, pending)

    return [(outbox.Outbox, "_deliver", deliver)]


@mutant("only the first page of what is owed is looked at")
def first_page_only() -> Places:
    original = memory.MemoryTrail.owed

    async def owed(self: Any, *, after: Any = None, limit: int = 100) -> OwedPage:
        return replace(await original(self, after=after, limit=limit), more=None)

    return [(memory.MemoryTrail, "owed", owed)]
