"""What each command makes of a workset. A command that does not fit leaves a record and nothing else."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Final, assert_never

from daylily_daemon.domain.decision import NEXT, Decision, StopJob, refuse
from daylily_daemon.domain.model import (
    SEEN_LIMIT,
    Cancel,
    Command,
    Ignore,
    Priority,
    RecordType,
    Retry,
    SetPriority,
    State,
    Submit,
    Transition,
    Workset,
)

_RESTARTABLE: Final = frozenset({State.ERROR, State.FAILED, State.CANCELED, State.IGNORED})


def register(command: Command, submit: Submit, now: datetime) -> Decision:
    """Return a workset that was never seen before."""
    ws = Workset(
        id=command.workset_id,
        bucket=submit.bucket,
        prefix=submit.prefix,
        customer_id=submit.customer_id,
        priority=submit.priority or Priority.NORMAL,
        created_at=now,
        updated_at=now,
        submitted_at=now,
        seen_commands=(command.id,),
        history=(Transition(state=State.READY, at=now, reason="submitted"),),
    )
    fields = {"type": RecordType.STATE_CHANGE, "notify": True, "previous": None, "by": command.by}
    decision = Decision(ws).note(now, f"submitted by {command.by}", **fields)
    return refuse(decision, (submit.problem,), now) if submit.problem else decision


def apply(ws: Workset, command: Command, now: datetime) -> Decision:
    inbox = tuple(c for c in ws.inbox if c.id != command.id)
    if command.id in ws.seen_commands:
        return Decision(replace(ws, inbox=inbox))
    seen = (*ws.seen_commands, command.id)[-SEEN_LIMIT:]
    ready = Decision(replace(ws, inbox=inbox, seen_commands=seen))
    match command.ask:
        case Submit():
            return _submit(ready, command.ask, command.by, now)
        case Cancel(reason=reason):
            return _cancel(ready, reason, command.by, now)
        case Retry(from_start=from_start):
            return _retry(ready, from_start, command.by, now)
        case Ignore(reason=reason):
            return _ignore(ready, reason, command.by, now)
        case SetPriority(priority=priority):
            text = f"priority {priority} set by {command.by}"
            return ready.set(priority=priority).note(now, text, by=command.by)
        case _:
            assert_never(command.ask)


def _submit(decision: Decision, submit: Submit, by: str, now: datetime) -> Decision:
    ws = decision.workset
    moved = decision.set(
        bucket=submit.bucket,
        prefix=submit.prefix,
        customer_id=submit.customer_id or ws.customer_id,
        priority=submit.priority or ws.priority,
    )
    if ws.state is State.READY:
        return _fresh(moved, now).note(now, f"submitted again by {by}; will be checked anew", by=by)
    if ws.state is State.RETRYING or ws.state in _RESTARTABLE:
        return _fresh(moved.turn(State.READY, now, f"submitted again by {by}", by=by), now)
    return decision.note(now, f"submission by {by} had no effect: it is {ws.state}", by=by)


def _fresh(decision: Decision, now: datetime) -> Decision:
    """Forget the last run: check the input again and begin at the first step."""
    return _cleared(decision, now).set(run_id="", run_dir="", jobs_dir="", failed_step=None)


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
    )


def _cancel(decision: Decision, reason: str, by: str, now: datetime) -> Decision:
    ws = decision.workset
    text = f"canceled by {by}" + (f": {reason}" if reason else "")
    if ws.state is State.READY or ws.state is State.RETRYING:
        return decision.turn(State.CANCELED, now, text, by=by).set(retry_after=None)
    if ws.state is State.IN_PROGRESS and ws.job and not ws.stopping:
        stopping = decision.set(stopping=text, progress_message="stopping: " + text)
        return stopping.note(now, "is being stopped, " + text, by=by).do(StopJob(ws.job))
    if ws.state is State.IN_PROGRESS:
        why = "it is being stopped" if ws.job else "the system that runs it is not this one"
        return decision.note(now, f"cancel by {by} had no effect: {why}", by=by)
    return decision.note(now, f"cancel by {by} had no effect: it is {ws.state}", by=by)


def _retry(decision: Decision, from_start: bool, by: str, now: datetime) -> Decision:
    ws = decision.workset
    if ws.state is State.IN_PROGRESS:
        text = f"retry by {by} had no effect: it is in progress on {ws.runner_scope}"
        return decision.note(now, text, by=by)
    if ws.state is not State.RETRYING and ws.state not in _RESTARTABLE:
        return decision.note(now, f"retry by {by} had no effect: it is {ws.state}", by=by)
    again = decision.turn(State.READY, now, f"retry asked for by {by}", by=by)
    return _fresh(again, now) if from_start else _cleared(again, now)


def host_is_gone(ws: Workset) -> str:
    """Return who vouches that the machine of this run exists no more; empty if nobody does.

    That is the one proof there is that a job is dead which left no record: see failure 19.
    """
    told = (c.by for c in ws.inbox if isinstance(c.ask, Retry) and c.ask.host_gone)
    return next(told, "")


def _ignore(decision: Decision, reason: str, by: str, now: datetime) -> Decision:
    ws = decision.workset
    if State.IGNORED in NEXT[ws.state]:
        text = f"ignored by {by}" + (f": {reason}" if reason else "")
        return decision.turn(State.IGNORED, now, text, by=by).set(retry_after=None)
    advice = "; cancel it first" if ws.state is State.IN_PROGRESS else ""
    return decision.note(now, f"ignore by {by} had no effect: it is {ws.state}{advice}", by=by)
