"""What each command makes of a workset. One that does not fit leaves a record and an answer, nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final, assert_never, get_args

from daylily_daemon.domain.decision import NEXT, QUIET, Decision, Note, StopJob, refuse
from daylily_daemon.domain.errors import InboxFull
from daylily_daemon.domain.model import (
    INBOX_LIMIT,
    SEEN_LIMIT,
    Archive,
    Ask,
    Cancel,
    Command,
    CommandEffect,
    Delete,
    Fence,
    HostLost,
    Ignore,
    Priority,
    Record,
    RecordType,
    Restore,
    Retry,
    SetPriority,
    State,
    Submit,
    Transition,
)
from daylily_daemon.domain.run import StepEnd
from daylily_daemon.domain.totality import total
from daylily_daemon.domain.workset import Request, Workset

_RESTARTABLE: Final = frozenset({State.ERROR, State.FAILED, State.CANCELED, State.IGNORED})
_AGAIN: Final = _RESTARTABLE | {State.RETRYING}
_FITS: Final = {
    Submit: _AGAIN | {State.READY},
    Cancel: frozenset({State.READY, State.RETRYING, State.IN_PROGRESS}),
    Retry: _AGAIN,
    HostLost: _AGAIN | {State.IN_PROGRESS},
    Ignore: frozenset(state for state, after in NEXT.items() if State.IGNORED in after)
    - {State.ARCHIVED},
    SetPriority: _AGAIN | {State.READY, State.IN_PROGRESS},
    Archive: frozenset(state for state, after in NEXT.items() if State.ARCHIVED in after),
    Restore: frozenset({State.ARCHIVED}),
    Delete: frozenset({State.ARCHIVED}),
}
FITS: Final[Mapping[type[Ask], frozenset[State]]] = total("commands.FITS", _FITS, get_args(Ask))
"""The states of what a command is for: elsewhere it has no effect, and a priority none that matters."""


def register(
    command: Command, submit: Submit, now: datetime, left: Sequence[Record] = ()
) -> Decision:
    """Return a workset that was never seen before, or whose item somebody removed.

    ``left`` is the audit trail of such an item. What counts for ever goes on from there: records, attempts
    (a job of the same name would be taken for one that ran already) and fences, of which there never were
    more than records.
    """
    last_seq = left[-1].seq if left else 0
    ws = Workset(
        id=command.workset_id,
        request=Request(
            bucket=submit.bucket,
            prefix=submit.prefix,
            submitted_at=now,
            customer_id=submit.customer_id,
            sentinel=submit.sentinel,
            sentinel_order=submit.order,
            rerun_of=submit.rerun_of,
            dropped_at=submit.dropped_at,
        ),
        priority=submit.priority or Priority.NORMAL,
        created_at=now,
        updated_at=now,
        last_seq=last_seq,
        fence=Fence(last_seq),
        attempt=sum(r.state is State.IN_PROGRESS and r.previous is State.READY for r in left),
        seen_commands=(command.id,),
        history=(Transition(state=State.READY, at=now, reason="submitted"),),
    )
    again = f" with the files of {submit.rerun_of}" if submit.rerun_of else ""
    text = f"submitted by {command.by}{again}" + ("; its item had been removed" if left else "")
    decision = Decision(ws).registered(now, text, command.by)
    if submit.problem:
        decision = refuse(decision, (submit.problem,), now)
    return _answered(decision, command, now)


def ask(ws: Workset, command: Command, now: datetime) -> Decision:
    """Return what ``command`` makes of a workset that perhaps somebody holds: its holder has to see it then.

    What waits in the inbox of one that is not in progress, because somebody set its state by hand, nobody
    else would read any more: it is obeyed first. Raises InboxFull where a holder has not read what is there.
    """
    if _is_for_the_holder(command, ws):
        return enqueue(ws, command, now)
    waiting = () if ws.state is State.IN_PROGRESS else ws.inbox
    return obeyed(Decision(ws), (*waiting, command), now)


def _is_for_the_holder(command: Command, ws: Workset) -> bool:
    """Return whether a holder, or the next one, has to see it. Only a run in progress has one.

    Of a machine that is said to be gone, the next one has to find out whether it is its own.
    """
    vouches = isinstance(command.ask, HostLost)
    held = ws.state is State.IN_PROGRESS and (ws.lock is not None or vouches)
    return held and not isinstance(command.ask, _NEVER_QUEUED)


_NEVER_QUEUED: Final = (Archive, Restore, Delete)
"""They never do anything to a run, so the answer is known at the door. And a holder of the version before
could not read an item in whose inbox they lie."""


def enqueue(ws: Workset, command: Command, now: datetime) -> Decision:
    """Put ``command`` into the inbox, unless it is known. Raises InboxFull.

    Who vouches for the end of a run is let in all the same: nobody reads the inbox of a machine that is gone.
    """
    if command.id in ws.seen_commands or any(c.id == command.id for c in ws.inbox):
        return Decision(ws)
    vouches = isinstance(command.ask, HostLost) and host_lost_by(ws) is None
    if len(ws.inbox) >= INBOX_LIMIT and not vouches:
        raise InboxFull(
            f"{ws.id} has {INBOX_LIMIT} commands waiting; its owner must read them first."
        )
    queued = Decision(replace(ws, inbox=(*ws.inbox, command)))
    text = f"{ws.owner or 'nobody'} holds it"
    return queued.answer(command.id, CommandEffect.QUEUED, text, now)


def obeyed(decision: Decision, commands: Sequence[Command], now: datetime) -> Decision:
    """Return ``decision`` with ``commands`` applied after it, one after another."""
    for command in commands:
        one = apply(decision.workset, command, now)
        decision = Decision(
            one.workset,
            (*decision.records, *one.records),
            (*decision.effects, *one.effects),
            (*decision.answers, *one.answers),
        )
    return decision


def apply(ws: Workset, command: Command, now: datetime) -> Decision:
    """Return what ``command`` makes of ``ws``; one that was applied to it lately changes nothing.

    The store knows every command that was ever applied. ``seen_commands`` is for daemons of the version
    before, which look there alone.
    """
    inbox = tuple(c for c in ws.inbox if c.id != command.id)
    if command.id in ws.seen_commands:
        return Decision(replace(ws, inbox=inbox))
    seen = (*ws.seen_commands, command.id)[-SEEN_LIMIT:]
    ready = Decision(replace(ws, inbox=inbox, seen_commands=seen))
    return _answered(_obey(ready, command, now), command, now)


def _obey(ready: Decision, command: Command, now: datetime) -> Decision:
    match command.ask:
        case Submit():
            return _submit(ready, command.ask, command, now)
        case Cancel(reason=reason):
            return _cancel(ready, reason, command, now)
        case Retry(from_start=from_start):
            return _retry(ready, command, now, from_start=from_start)
        case HostLost():
            return _host_lost(ready, command.ask, command, now)
        case Ignore(reason=reason):
            return _ignore(ready, reason, command, now)
        case SetPriority(priority=priority):
            text = f"priority {priority} set by {command.by}"
            changed = ready.becoming(replace(ready.workset, priority=priority))
            return changed.record(now, text, _asked(command))
        case Archive(reason=reason):
            return _archive(ready, reason, command, now)
        case Restore():
            return _restore(ready, command, now)
        case Delete(reason=reason):
            return _delete(ready, reason, command, now)
        case _:
            assert_never(command.ask)


def _asked(command: Command) -> Note:
    """Return how an event is told that only the audit trail has."""
    return Note(type=RecordType.COMMAND, notify=False, by=command.by)


def _answered(decision: Decision, command: Command, now: datetime) -> Decision:
    """What has no answer of its own was applied; the last record says how."""
    if any(answer.command_id == command.id for answer in decision.answers):
        return decision
    text = decision.records[-1].message if decision.records else ""
    return decision.answer(command.id, CommandEffect.APPLIED, text, now)


def _called(ask: Ask) -> str:
    match ask:
        case Submit():
            return "submission"
        case Cancel():
            return "cancel"
        case Retry() | HostLost():
            return "retry"
        case Ignore():
            return "ignore"
        case SetPriority():
            return "priority"
        case Archive() | Restore() | Delete():
            return type(ask).__name__.lower()
        case _:
            assert_never(ask)


def _without_effect(decision: Decision, command: Command, why: str, now: datetime) -> Decision:
    """Leave the workset as it is, and say so."""
    return _said(decision, command, f"had no effect: {why}", _asked(command), now)


def _said(decision: Decision, command: Command, what: str, note: Note, now: datetime) -> Decision:
    """Answer a command that does nothing with the sentence that the trail gets."""
    text = f"{_called(command.ask)} by {command.by} {what}"
    return decision.record(now, text, note).answer(command.id, CommandEffect.NONE, text, now)


def _refused(decision: Decision, command: Command, why: str, now: datetime) -> Decision:
    text = f"{_called(command.ask)} by {command.by} was refused: {why}"
    told = decision.record(now, text, _asked(command))
    return told.answer(command.id, CommandEffect.REFUSED, text, now)


def _submit(decision: Decision, submit: Submit, command: Command, now: datetime) -> Decision:
    ws, by = decision.workset, command.by
    known = ws.request
    if known.customer_id and submit.customer_id not in ("", known.customer_id):
        why = "the workset of this name belongs to another customer; choose another name"
        return _refused(decision, command, why, now)
    if _was_answered(submit, known):
        request = replace(known, sentinel_order=known.sentinel_order or submit.order)
        text = "this trigger was answered before"
        same = decision.becoming(replace(ws, request=request))
        return same.answer(command.id, CommandEffect.NONE, text, now)
    known = _with_trigger(known, submit)
    request = replace(
        known,
        bucket=submit.bucket,
        prefix=submit.prefix,
        customer_id=submit.customer_id or known.customer_id,
    )
    moved = replace(ws, request=request, priority=submit.priority or ws.priority)
    if ws.state is State.READY:
        text = f"submitted again by {by}; will be checked anew"
        again = decision.becoming(fresh(moved, now)).record(now, text, _asked(command))
    elif ws.state is State.RETRYING or ws.state in _RESTARTABLE:
        text = f"submitted again by {by}"
        turned = decision.becoming(moved).transition(State.READY, now, text, Note(by=by))
        again = turned.becoming(fresh(turned.workset, now))
    else:
        note = Note(notify=bool(submit.sentinel), by=by)
        what = f"had no effect: {_advice(ws)}"
        return _said(decision.becoming(replace(ws, request=known)), command, what, note, now)
    return refuse(again, (submit.problem,), now) if submit.problem else again


def _was_answered(submit: Submit, known: Request) -> bool:
    """Tell whether this very write of the trigger was answered, by whatever door it came."""
    same = bool(submit.sentinel) and submit.sentinel == known.sentinel
    newer = bool(known.sentinel_order) and submit.order > known.sentinel_order
    return same and not newer


def _with_trigger(known: Request, submit: Submit) -> Request:
    """Remember which trigger was answered, so that no door finds it unanswered."""
    if not submit.sentinel:
        return known
    return replace(
        known,
        sentinel=submit.sentinel,
        sentinel_order=submit.order,
        dropped_at=submit.dropped_at,
    )


def _advice(ws: Workset) -> str:
    """Return why a workset that runs or has come to its end is not submitted again, and what to do."""
    if ws.state is State.IN_PROGRESS:
        return "it is in progress; cancel it first, or wait for its end"
    again = f"it is {ws.state}; to run its files again, drop them into a folder of another name"
    copied = f", or let `daylily-daemon rerun {ws.id}` copy them"
    return again if ws.state is State.DELETED else again + copied


def fresh(ws: Workset, now: datetime) -> Workset:
    """Forget the last run: check the input again and begin at the first step."""
    return replace(cleared(ws, now), run=None, warnings=())


def cleared(ws: Workset, now: datetime) -> Workset:
    """Forget why the last attempt ended: check the input again, and go on where it ended."""
    return replace(
        ws,
        request=replace(ws.request, submitted_at=now),
        plan=None,
        waiting_for="",
        failure=None,
        retry_count=0,
        retry_after=None,
    )


def _cancel(decision: Decision, reason: str, command: Command, now: datetime) -> Decision:
    ws, by = decision.workset, command.by
    text = f"canceled by {by}" + (f": {reason}" if reason else "")
    if ws.state is State.READY or ws.state is State.RETRYING:
        waiting = decision.becoming(replace(ws, retry_after=None))
        return waiting.transition(State.CANCELED, now, text, Note(by=by))
    if ws.state is State.IN_PROGRESS and ws.run and ws.job and not ws.run.stopping:
        stopping = replace(ws, run=replace(ws.run, stopping=text, stopping_at=now))
        told = decision.becoming(stopping).record(now, f"is being stopped, {text}", _asked(command))
        return told.with_effect(StopJob(ws.job))
    if ws.state is State.IN_PROGRESS:
        why = "it is being stopped" if ws.job else "the system that runs it is not this one"
        return _without_effect(decision, command, why, now)
    return _without_effect(decision, command, f"it is {ws.state}", now)


def _retry(decision: Decision, command: Command, now: datetime, *, from_start: bool) -> Decision:
    ws, by = decision.workset, command.by
    if ws.state is State.IN_PROGRESS:
        why = f"it is in progress on {ws.scope or 'another system'}"
        return _without_effect(decision, command, why, now)
    if ws.state is not State.RETRYING and ws.state not in _RESTARTABLE:
        return _without_effect(decision, command, f"it is {ws.state}", now)
    again = decision.transition(State.READY, now, f"retry asked for by {by}", Note(by=by))
    return again.becoming(_forgetting(again.workset, now, from_start=from_start))


def _forgetting(ws: Workset, now: datetime, *, from_start: bool) -> Workset:
    return fresh(ws, now) if from_start else cleared(ws, now)


def _host_lost(decision: Decision, lost: HostLost, command: Command, now: datetime) -> Decision:
    ws = decision.workset
    if ws.state is State.IN_PROGRESS and ws.unclear:
        why = f"{command.by} vouches that nothing of its job runs any more"
        return give_up_the_run(decision, command, why, now)
    return _retry(decision, command, now, from_start=lost.from_start)


def give_up_the_run(decision: Decision, command: Command, why: str, now: datetime) -> Decision:
    """End the attempt of a run whose job nobody can see, and make the workset ready for another.

    The step that was cut off is the one the next attempt begins with. What was being stopped is canceled:
    that was asked for first.
    """
    ws, by = decision.workset, command.by
    if ws.run is not None and ws.run.stopping:
        stopped = decision.becoming(replace(ws, run=ws.run.left(StepEnd.STOPPED)))
        text = f"{ws.run.stopping}; {why}"
        return stopped.transition(State.CANCELED, now, text, Note(by=by))
    text = f"attempt {ws.attempt} is given up, because {why}"
    note = Note(type=RecordType.LOCK_TIMEOUT, by=by)
    run = ws.run and ws.run.left(StepEnd.FAILED)
    cut = decision.becoming(replace(ws, run=run)).transition(State.ERROR, now, text, note)
    text = f"retry asked for by {by}"
    again = cut.transition(State.READY, now, text, replace(QUIET, by=by))
    from_start = isinstance(command.ask, HostLost) and command.ask.from_start
    return again.becoming(_forgetting(again.workset, now, from_start=from_start))


def host_lost_by(ws: Workset) -> Command | None:
    """Return the command of who vouches that the machine of this run no longer exists, if somebody does.

    That is the one proof there is that a job is dead which left no record: see failure 19.
    """
    return next((command for command in ws.inbox if isinstance(command.ask, HostLost)), None)


def _ignore(decision: Decision, reason: str, command: Command, now: datetime) -> Decision:
    ws, by = decision.workset, command.by
    if ws.state in FITS[Ignore]:
        text = f"ignored by {by}" + (f": {reason}" if reason else "")
        waiting = decision.becoming(replace(ws, retry_after=None))
        return waiting.transition(State.IGNORED, now, text, Note(by=by))
    advice = "; cancel it first" if ws.state is State.IN_PROGRESS else ""
    return _without_effect(decision, command, f"it is {ws.state}{advice}", now)


def _archive(decision: Decision, reason: str, command: Command, now: datetime) -> Decision:
    ws = decision.workset
    if ws.state not in FITS[Archive]:
        advice = "" if ws.state in (State.ARCHIVED, State.DELETED) else "; cancel it first"
        return _without_effect(decision, command, f"it is {ws.state}{advice}", now)
    text = f"archived by {command.by}" + (f": {reason}" if reason else "")
    return decision.transition(State.ARCHIVED, now, text, Note(by=command.by))


def _restore(decision: Decision, command: Command, now: datetime) -> Decision:
    """Go back to where it was, which channels were told of when it came there."""
    ws = decision.workset
    if ws.state is not State.ARCHIVED:
        return _without_effect(decision, command, f"it is {ws.state}", now)
    text = f"restored by {command.by}"
    return decision.transition(archived_from(ws), now, text, replace(QUIET, by=command.by))


def archived_from(ws: Workset) -> State:
    """Return the state that it was archived in; ``ignored``, which starts nothing, if nobody knows."""
    before = [line.state for line in ws.history if line.state is not State.ARCHIVED]
    return before[-1] if before and before[-1] in NEXT[State.ARCHIVED] else State.IGNORED


def _delete(decision: Decision, reason: str, command: Command, now: datetime) -> Decision:
    ws = decision.workset
    if ws.state is not State.ARCHIVED:
        advice = "; archive it first" if ws.state in FITS[Archive] else ""
        return _without_effect(decision, command, f"it is {ws.state}{advice}", now)
    text = f"deleted by {command.by}" + (f": {reason}" if reason else "")
    return decision.transition(State.DELETED, now, text, Note(by=command.by))
