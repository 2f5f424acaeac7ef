"""What each command makes of a workset. One that does not fit leaves a record and an answer, nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final, assert_never

from daylily_daemon.domain.decision import NEXT, Decision, StopJob, refuse
from daylily_daemon.domain.model import (
    SEEN_LIMIT,
    Cancel,
    Command,
    CommandEffect,
    Fence,
    Ignore,
    Priority,
    Record,
    RecordType,
    Retry,
    SetPriority,
    State,
    Submit,
    Transition,
    Workset,
)

_RESTARTABLE: Final = frozenset({State.ERROR, State.FAILED, State.CANCELED, State.IGNORED})


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
        bucket=submit.bucket,
        prefix=submit.prefix,
        customer_id=submit.customer_id,
        priority=submit.priority or Priority.NORMAL,
        created_at=now,
        updated_at=now,
        submitted_at=now,
        sentinel=submit.sentinel,
        sentinel_order=submit.order,
        last_seq=last_seq,
        fence=Fence(last_seq),
        attempt=sum(r.state is State.IN_PROGRESS and r.previous is State.READY for r in left),
        seen_commands=(command.id,),
        history=(Transition(state=State.READY, at=now, reason="submitted"),),
    )
    fields = {"type": RecordType.STATE_CHANGE, "notify": True, "previous": None, "by": command.by}
    text = f"submitted by {command.by}" + ("; its item had been removed" if left else "")
    decision = Decision(ws).note(now, text, **fields)
    if submit.problem:
        decision = refuse(decision, (submit.problem,), now)
    return _answered(decision, command, now)


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
        case Retry():
            return _retry(ready, command.ask, command, now)
        case Ignore(reason=reason):
            return _ignore(ready, reason, command, now)
        case SetPriority(priority=priority):
            text = f"priority {priority} set by {command.by}"
            return ready.set(priority=priority).note(now, text, by=command.by)
        case _:
            assert_never(command.ask)


def _answered(decision: Decision, command: Command, now: datetime) -> Decision:
    """What has no answer of its own was applied; the last record says how."""
    if any(answer.command_id == command.id for answer in decision.answers):
        return decision
    text = decision.records[-1].message if decision.records else ""
    return decision.answer(command.id, CommandEffect.APPLIED, text, now)


def _without_effect(
    decision: Decision, command: Command, why: str, now: datetime, **fields: Any
) -> Decision:
    """Leave the workset as it is, and say so; ``fields`` are those of the record, and ``effect``."""
    effect = fields.pop("effect", CommandEffect.NONE)
    verb = "was refused" if effect is CommandEffect.REFUSED else "had no effect"
    what = type(command.ask).__name__.lower().replace("setp", "p").replace("submit", "submission")
    text = f"{what} by {command.by} {verb}: {why}"
    told = decision.note(now, text, by=command.by, **fields)
    return told.answer(command.id, effect, text, now)


def _submit(decision: Decision, submit: Submit, command: Command, now: datetime) -> Decision:
    ws, by = decision.workset, command.by
    if ws.customer_id and submit.customer_id not in ("", ws.customer_id):
        why = "the workset of this name belongs to another customer; choose another name"
        return _without_effect(decision, command, why, now, effect=CommandEffect.REFUSED)
    if _was_answered(submit, ws):
        known = decision.set(sentinel_order=ws.sentinel_order or submit.order)
        text = "this trigger was answered before"
        return known.answer(command.id, CommandEffect.NONE, text, now)
    decision = _noted(decision, submit)
    moved = decision.set(
        bucket=submit.bucket,
        prefix=submit.prefix,
        customer_id=submit.customer_id or ws.customer_id,
        priority=submit.priority or ws.priority,
    )
    if ws.state is State.READY:
        text = f"submitted again by {by}; will be checked anew"
        again = _fresh(moved, now).note(now, text, by=by)
    elif ws.state is State.RETRYING or ws.state in _RESTARTABLE:
        again = _fresh(moved.turn(State.READY, now, f"submitted again by {by}", by=by), now)
    else:
        told = {"type": RecordType.STATE_CHANGE, "notify": bool(submit.sentinel)}
        return _without_effect(decision, command, _advice(ws), now, **told)
    return refuse(again, (submit.problem,), now) if submit.problem else again


def _was_answered(submit: Submit, ws: Workset) -> bool:
    """Tell whether this very write of the trigger was answered, by whatever door it came."""
    same = bool(submit.sentinel) and submit.sentinel == ws.sentinel
    newer = bool(ws.sentinel_order) and submit.order > ws.sentinel_order
    return same and not newer


def _noted(decision: Decision, submit: Submit) -> Decision:
    """Remember which trigger was answered, so that no door finds it unanswered."""
    if not submit.sentinel:
        return decision
    return decision.set(sentinel=submit.sentinel, sentinel_order=submit.order)


def _advice(ws: Workset) -> str:
    """Return why a workset that runs or has come to its end is not submitted again, and what to do."""
    if ws.state is State.IN_PROGRESS:
        return "it is in progress; cancel it first, or wait for its end"
    return f"it is {ws.state}; to run its files again, drop them into a folder of another name"


def _fresh(decision: Decision, now: datetime) -> Decision:
    """Forget the last run: check the input again and begin at the first step."""
    return _cleared(decision, now).set(
        run_id="",
        run_dir="",
        jobs_dir="",
        failed_step=None,
        metrics={},
        timings={},
        warnings=(),
        results_s3_uri="",
    )


def _cleared(decision: Decision, now: datetime) -> Decision:
    return decision.set(
        plan=None,
        submitted_at=now,
        step=None,
        stopping="",
        retry_count=0,
        retry_after=None,
        error_details="",
        error_category=None,
        error_code="",
        progress_step="",
        progress_message="",
        progress_fraction=None,
        trouble="",
        unclear=False,
    )


def _cancel(decision: Decision, reason: str, command: Command, now: datetime) -> Decision:
    ws, by = decision.workset, command.by
    text = f"canceled by {by}" + (f": {reason}" if reason else "")
    if ws.state is State.READY or ws.state is State.RETRYING:
        return decision.turn(State.CANCELED, now, text, by=by).set(retry_after=None)
    if ws.state is State.IN_PROGRESS and ws.job and not ws.stopping:
        stopping = decision.set(stopping=text, progress_message="stopping: " + text)
        return stopping.note(now, "is being stopped, " + text, by=by).do(StopJob(ws.job))
    if ws.state is State.IN_PROGRESS:
        why = "it is being stopped" if ws.job else "the system that runs it is not this one"
        return _without_effect(decision, command, why, now)
    return _without_effect(decision, command, f"it is {ws.state}", now)


def _retry(decision: Decision, retry: Retry, command: Command, now: datetime) -> Decision:
    ws, by = decision.workset, command.by
    if ws.state is State.IN_PROGRESS and retry.host_gone and ws.unclear:
        why = f"{by} vouches that nothing of its job runs any more"
        return give_up_the_run(decision, why, now, by)
    if ws.state is State.IN_PROGRESS:
        why = f"it is in progress on {ws.runner_scope}"
        return _without_effect(decision, command, why, now)
    if ws.state is not State.RETRYING and ws.state not in _RESTARTABLE:
        return _without_effect(decision, command, f"it is {ws.state}", now)
    again = decision.turn(State.READY, now, f"retry asked for by {by}", by=by)
    return _fresh(again, now) if retry.from_start else _cleared(again, now)


def give_up_the_run(decision: Decision, why: str, now: datetime, by: str) -> Decision:
    """End the attempt of a run whose job nobody can see, and make the workset ready for another.

    The step that was cut off is the one the next attempt begins with. What was being stopped is canceled:
    that was asked for first.
    """
    step, stopping = decision.workset.step, decision.workset.stopping
    if stopping:
        ended = decision.turn(State.CANCELED, now, f"{stopping}; {why}", by=by)
        return ended.set(step=None, stopping="", trouble="", unclear=False, progress_message="")
    text = f"attempt {decision.workset.attempt} is given up, because {why}"
    cut = decision.set(failed_step=step).turn(
        State.ERROR, now, text, type=RecordType.LOCK_TIMEOUT, by=by
    )
    again = cut.turn(State.READY, now, f"retry asked for by {by}", by=by, notify=False)
    return _cleared(again, now)


def host_is_gone(ws: Workset) -> str:
    """Return who vouches that the machine of this run exists no more; empty if nobody does.

    That is the one proof there is that a job is dead which left no record: see failure 19.
    """
    told = (c.by for c in ws.inbox if isinstance(c.ask, Retry) and c.ask.host_gone)
    return next(told, "")


def _ignore(decision: Decision, reason: str, command: Command, now: datetime) -> Decision:
    ws, by = decision.workset, command.by
    if State.IGNORED in NEXT[ws.state]:
        text = f"ignored by {by}" + (f": {reason}" if reason else "")
        return decision.turn(State.IGNORED, now, text, by=by).set(retry_after=None)
    advice = "; cancel it first" if ws.state is State.IN_PROGRESS else ""
    return _without_effect(decision, command, f"it is {ws.state}{advice}", now)
