"""The life of a workset: ``decide(workset, event, policy, now) -> Decision``.

Three laws hold here. What a crash left undone follows from the saved workset alone: ``resume`` derives
it. Every effect ends in an event. An event that speaks of another job than the current one is old news
and changes nothing.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any, Final, assert_never

from daylily_daemon.domain import commands, report
from daylily_daemon.domain.decision import (
    DETAILS_LIMIT,
    QUIET,
    Decision,
    Effect,
    Note,
    RunJob,
    StopJob,
    refuse,
    released,
)
from daylily_daemon.domain.events import (
    Asked,
    Claimed,
    Commanded,
    Event,
    Inspected,
    JobExited,
    JobRefused,
    JobStopped,
    LetGo,
    Noted,
)
from daylily_daemon.domain.failures import Failure, FailurePattern, classify
from daylily_daemon.domain.model import (
    SEEN_LIMIT,
    Accepted,
    Category,
    CommandEffect,
    Fence,
    Inspection,
    JobName,
    Missing,
    Outcome,
    Priority,
    Problem,
    RecordType,
    Refused,
    State,
    Step,
    Unwanted,
    Workset,
)
from daylily_daemon.domain.remarks import Remarks

STEP_NAMES: Final[Mapping[Step, tuple[str, str]]] = {
    Step.STAGE: ("staging", "staging_failed"),
    Step.RUN: ("pipeline_running", "pipeline_failed"),
    Step.EXPORT: ("exporting", "export_failed"),
    Step.METRICS: ("collecting_metrics", "metrics_failed"),
    Step.CLEANUP: ("cleanup_headnode", "cleanup_failed"),
}
"""``progress_step`` while a step runs and after it failed, as readers of the old system know them."""


STEP: Final = Note(type=RecordType.STEP, notify=False)
"""What only the audit trail has of a run that goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    max_retries: int
    base_s: float
    cap_s: float
    input_wait_s: float
    """How long after a submission its files may still arrive."""
    patterns: tuple[FailurePattern, ...]
    urgent_customers: tuple[str, ...]
    """Whose recipes may ask to be urgent, as patterns of customer ids; ``*`` also means drops of nobody."""

    def may_be_urgent(self, ws: Workset) -> bool:
        return any(fnmatchcase(ws.customer_id, pattern) for pattern in self.urgent_customers)

    def delay_s(self, ws: Workset) -> float:
        """Return the pause before the next try: doubling, capped, spread by up to a quarter.

        The spread follows from the workset's name and attempt, so the decision stays a pure function
        while a thousand worksets that failed together do not come back together.
        """
        return self._spread_s(ws, ws.retry_count)

    def waiting_s(self, ws: Workset) -> float:
        """Return the pause where trouble of ours is waited out: as ``delay_s``, by attempts of any kind."""
        return self._spread_s(ws, min(ws.attempt, 30))

    def _spread_s(self, ws: Workset, doublings: int) -> float:
        spread = zlib.crc32(f"{ws.id}.{ws.attempt}".encode()) / 2**32
        return float(min(self.cap_s, self.base_s * 2**doublings)) * (1 + spread / 4)


def decide(ws: Workset, event: Event, policy: Policy, now: datetime) -> Decision:
    """Return what ``event`` makes of ``ws``. Total: an event that does not fit changes nothing.

    Raises InboxFull for a command that finds no room in the inbox of a run.
    """
    match event:
        case Asked(command=command):
            return commands.ask(ws, command, now)
        case Commanded(command=command):
            return _answer_inbox(ws, commands.apply(ws, command, now), now)
        case Inspected(inspection=inspection):
            return _inspected(ws, inspection, policy, now)
        case Claimed():
            return _claimed(ws, event, now)
        case JobExited() | JobRefused() | JobStopped():
            current = ws.state is State.IN_PROGRESS and event.job == ws.job
            if not current:
                return Decision(ws)
            return _answer_inbox(ws, _job_ended(ws, event, policy, now), now)
        case Noted(job=job, remarks=remarks):
            return Decision(_seen(ws, job, remarks))
        case LetGo(job=job, remarks=remarks):
            return Decision(released(_seen(ws, job, remarks)) if ws.lock_owner else ws)
        case _:
            assert_never(event)


def resume(ws: Workset) -> tuple[Effect, ...]:
    """Return what has to be done for a claimed workset, from what is saved alone."""
    if ws.state is not State.IN_PROGRESS or ws.job is None:
        return ()
    return (StopJob(ws.job),) if ws.stopping else (RunJob(ws.job),)


def _seen(ws: Workset, job: JobName | None, remarks: Remarks) -> Workset:
    beaten = replace(ws, beat=ws.beat + 1)
    return remarks.on(beaten) if job == ws.job else beaten


def _inspected(ws: Workset, inspection: Inspection, policy: Policy, now: datetime) -> Decision:
    if ws.state is not State.READY:
        return Decision(ws)
    match inspection:
        case Accepted(plan=plan, max_retries=max_retries, priority=priority, warnings=warnings):
            asked = Priority(priority) if priority else ws.priority
            if asked is Priority.URGENT and not policy.may_be_urgent(ws):
                warnings, asked = (*warnings, _not_urgent(ws)), ws.priority
            checked = replace(
                ws,
                plan=plan,
                max_retries=max_retries,
                priority=asked if ws.priority is Priority.NORMAL else ws.priority,
                cluster_name=plan.cluster_name,
                results_s3_uri=plan.export_uri,
                progress_message="",
                updated_at=now,
            )
            return Decision(checked).with_warnings(*warnings)
        case Missing(problems=problems):
            since = ws.submitted_at or ws.created_at
            if now - since >= timedelta(seconds=policy.input_wait_s):
                return refuse(Decision(ws), problems, now)
            return Decision(replace(ws, progress_message=_waiting(problems)))
        case Refused(problems=problems):
            return refuse(Decision(ws), problems, now)
        case Unwanted(sentinel=sentinel):
            text = (
                f"ignored, because {sentinel} lies in its folder; remove that file before a retry"
            )
            return Decision(ws).transition(State.IGNORED, now, text)
        case _:
            assert_never(inspection)


def _not_urgent(ws: Workset) -> str:
    who = f"customer {ws.customer_id}" if ws.customer_id else "a drop without a customer"
    return (
        f"The recipe asks for priority urgent, which {who} may not have (daemon.urgent_customers)."
    )


def _waiting(problems: tuple[Problem, ...]) -> str:
    more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
    return f"waiting for input: {problems[0].file} {problems[0].what}{more}"[:300]


def due(ws: Workset, now: datetime) -> bool:
    """Return whether ``ws`` waits for nothing but a slot."""
    if ws.state is State.READY:
        return ws.plan is not None
    return ws.state is State.RETRYING and (ws.retry_after is None or ws.retry_after <= now)


def _claimed(ws: Workset, claim: Claimed, now: datetime) -> Decision:
    locked = replace(
        ws,
        lock_owner=claim.owner,
        lock_acquired_at=now,
        lock_expires_at=now + timedelta(seconds=claim.ttl_s),
        fence=Fence(ws.fence + 1),
        beat=ws.beat + 1,
    )
    if ws.state is State.IN_PROGRESS and claim.sees_job:
        return _adopt(ws, Decision(locked), claim, now)
    if ws.state is State.IN_PROGRESS:
        return _lost_with_its_host(ws, Decision(locked), now)
    if not due(ws, now):
        return Decision(ws)
    if ws.state is not State.RETRYING:
        return _begin(Decision(locked), claim, now)
    text = "the pause before the next try is over"
    ready = Decision(locked).transition(State.READY, now, text, QUIET)
    still_locked = replace(
        ready.workset,
        lock_owner=locked.lock_owner,
        lock_acquired_at=locked.lock_acquired_at,
        lock_expires_at=locked.lock_expires_at,
    )
    return _begin(ready.becoming(still_locked), claim, now)


def _begin(decision: Decision, claim: Claimed, now: datetime) -> Decision:
    ws = decision.workset
    steps = ws.plan.steps if ws.plan else ()
    resumes = bool(ws.run_id) and ws.failed_step in steps
    step = ws.failed_step if resumes and ws.failed_step else steps[0]
    attempt = ws.attempt + 1
    run_id = ws.run_id if resumes else f"r{attempt}"
    started = replace(
        ws,
        attempt=attempt,
        run_id=run_id,
        run_started_at=now,
        run_dir=f"{claim.data_dir}/{ws.id}/{run_id}",
        jobs_dir=f"{claim.jobs_dir}/{ws.id}/{run_id}",
        runner=claim.runner,
        runner_scope=claim.scope,
        retry_after=None,
        failed_step=None,
        metrics=ws.metrics if resumes else {},
        timings=ws.timings if resumes else {},
    )
    text = f"attempt {attempt} {'resumes' if resumes else 'starts'} with step {step}"
    turned = decision.becoming(started).transition(State.IN_PROGRESS, now, text)
    return _enter(turned, step, now)


def _enter(decision: Decision, step: Step, now: datetime) -> Decision:
    entered = replace(
        decision.workset,
        step=step,
        step_started_at=now,
        progress_step=STEP_NAMES[step][0],
        progress_message="",
        progress_fraction=None,
        trouble="",
        unclear=False,
    )
    return replace(decision, workset=entered, effects=resume(entered))


def _adopt(ws: Workset, locked: Decision, claim: Claimed, now: datetime) -> Decision:
    """Take over a workset in progress: whatever runs, runs on."""
    note = STEP
    if ws.lock_owner is None:
        text = f"{claim.owner} goes on with it"
    elif ws.lock_owner == claim.owner:
        text = f"{claim.owner} is back and goes on with it"
    else:
        text = f"{claim.owner} takes over; {ws.lock_owner} stopped answering"
        note = Note(type=RecordType.LOCK_TIMEOUT)
    here = f"{claim.jobs_dir}/{ws.id}/{ws.run_id}"
    moved = here if ws.runner_scope == claim.scope else ws.jobs_dir
    scope = ws.runner_scope if claim.beside else claim.scope
    known = replace(locked.workset, runner_scope=scope, jobs_dir=moved)
    adopted = locked.becoming(known).record(now, text, note)
    return replace(adopted, effects=resume(adopted.workset))


def _lost_with_its_host(ws: Workset, locked: Decision, now: datetime) -> Decision:
    """End the attempt of a run nobody can reach, if somebody vouches that its machine is gone."""
    command = commands.host_lost_by(ws)
    if command is None:
        return Decision(ws)
    answered = replace(
        locked.workset,
        inbox=tuple(c for c in ws.inbox if c.id != command.id),
        seen_commands=(*ws.seen_commands, command.id)[-SEEN_LIMIT:],
    )
    why = f"{command.by} vouches that {ws.runner_scope or 'the machine it ran on'} no longer exists"
    gone = commands.give_up_the_run(locked.becoming(answered), command, why, now)
    told = gone.answer(command.id, CommandEffect.APPLIED, why, now)
    return _answer_inbox(ws, told, now)


def _job_ended(
    ws: Workset, event: JobExited | JobRefused | JobStopped, policy: Policy, now: datetime
) -> Decision:
    decision = Decision(ws)
    if ws.stopping:
        return _idle(decision.transition(State.CANCELED, now, ws.stopping))
    match event:
        case JobExited(outcome=outcome) if outcome.succeeded:
            return _step_done(decision, outcome, now)
        case JobExited(outcome=outcome, fatal=False):
            failure = classify(outcome, policy.patterns)
            text = f"step {ws.step} failed and the run goes on. {failure.message}"
            return _step_done(decision.record(now, text, STEP), outcome, now)
        case JobExited(outcome=outcome):
            return _failed(decision, classify(outcome, policy.patterns), policy, now)
        case JobRefused(reason=reason):
            failure = Failure("WS-CFG-002", Category.CONFIGURATION, False, reason)
            return _failed(decision, failure, policy, now)
        case JobStopped():
            failure = Failure("WS-JOB-003", Category.PERMANENT, False, "It was stopped.")
            return _failed(decision, failure, policy, now)
        case _:
            assert_never(event)


def _answer_inbox(before: Workset, decision: Decision, now: datetime) -> Decision:
    """With the end of a run, answer what is in the inbox: nobody holds the workset afterwards."""
    if before.state is not State.IN_PROGRESS or decision.workset.state is State.IN_PROGRESS:
        return decision
    for command in decision.workset.inbox:
        answer = commands.apply(decision.workset, command, now)
        decision = Decision(
            answer.workset,
            (*decision.records, *answer.records),
            answers=(*decision.answers, *answer.answers),
        )
    return decision


def _step_done(decision: Decision, outcome: Outcome, now: datetime) -> Decision:
    ws = decision.workset
    steps = ws.plan.steps if ws.plan else ()
    found = report.bounded(outcome.report)
    known = replace(
        ws,
        metrics=report.merged(ws.metrics, found),
        timings={**ws.timings, f"{ws.step}_s": round(outcome.duration_s, 3)},
        results_s3_uri=_results(ws, found),
    )
    done = decision.becoming(known).with_warnings(*outcome.warnings, *report.warnings_of(found))
    later = steps[steps.index(ws.step) + 1 :] if ws.step in steps else ()
    if not later:
        return _complete(done, now)
    text = f"step {ws.step} done after {outcome.duration_s:.1f} s; step {later[0]} starts"
    return _enter(done.record(now, text, STEP), later[0], now)


def _complete(decision: Decision, now: datetime) -> Decision:
    ws = decision.workset
    details: dict[str, Any] = {"results": ws.results_s3_uri, "attempt": ws.attempt}
    if ws.warnings:
        details["warnings"] = list(ws.warnings)
    text = " ".join([f"complete; results are in {ws.results_s3_uri}", *_warned(ws)])
    note = Note(type=RecordType.COMPLETION, details=details)
    done = _idle(decision.transition(State.COMPLETE, now, text, note))
    clean = replace(
        done.workset,
        error_details="",
        error_category=None,
        error_code="",
        progress_step="finalizing",
        progress_fraction=1.0,
    )
    return done.becoming(clean)


def _warned(ws: Workset) -> tuple[str, ...]:
    """Return what a message about the end says besides: the first warning, and how many more there are."""
    if not ws.warnings:
        return ()
    more = f" ({len(ws.warnings) - 1} more)" if len(ws.warnings) > 1 else ""
    return (f"But: {ws.warnings[0]}{more}",)


def _results(ws: Workset, found: Mapping[str, Any]) -> str:
    """Return where the results are: the export says where it really put them."""
    told = found.get("results_s3_uri") if ws.step is Step.EXPORT else None
    return told if isinstance(told, str) and told.startswith("s3://") else ws.results_s3_uri


def _failed(decision: Decision, failure: Failure, policy: Policy, now: datetime) -> Decision:
    """End the attempt. Missing rights and credentials of ours use up no try, but in the step that costs."""
    ws = decision.workset
    limit = policy.max_retries if ws.max_retries is None else ws.max_retries
    what = f"step {ws.step}" if ws.step else "the run"
    text = f"{what} of attempt {ws.attempt} failed ({failure.code}). {failure.message}"
    note = _note_of(failure, ws.step)
    known = decision.becoming(_with_failure(ws, failure, what))
    wrong = known.transition(State.ERROR, now, text[:500], replace(note, notify=False))
    if failure.ours and ws.step is not Step.RUN:
        pause_s = policy.waiting_s(ws)
        again = f"{text[:500]} That is no fault of the workset: it goes on in {pause_s:.0f} s."
        return _retrying(wrong.transition(State.RETRYING, now, again, note), pause_s, now)
    if failure.retry and ws.retry_count < limit:
        pause_s = policy.delay_s(ws)
        again = f"{text[:500]} Try {ws.retry_count + 1} of {limit} follows in {pause_s:.0f} s."
        waiting = _retrying(wrong.transition(State.RETRYING, now, again, note), pause_s, now)
        return waiting.becoming(replace(waiting.workset, retry_count=ws.retry_count + 1))
    why = f"all {limit} tries are used up" if failure.retry else "trying again would not help"
    advice = "Mend the cause, then retry it or drop it again."
    end = f"{text[:500]} {why.capitalize()}. {advice}"
    return _idle(wrong.transition(State.FAILED, now, end, note))


def _note_of(failure: Failure, step: Step | None) -> Note:
    details = {"code": failure.code, "category": str(failure.category), "step": step}
    return Note(type=RecordType.ERROR, error_details=failure.message[:2000], details=details)


def _with_failure(ws: Workset, failure: Failure, what: str) -> Workset:
    return replace(
        ws,
        error_details=f"{what}: {failure.message}"[:DETAILS_LIMIT],
        error_category=failure.category,
        error_code=failure.code,
        failed_step=ws.step,
        progress_step=STEP_NAMES[ws.step][1] if ws.step else "",
    )


def _retrying(decision: Decision, pause_s: float, now: datetime) -> Decision:
    idle = _idle(decision)
    return idle.becoming(replace(idle.workset, retry_after=now + timedelta(seconds=pause_s)))


def _idle(decision: Decision) -> Decision:
    """Leave the step: nothing is to run now."""
    left = replace(
        decision.workset, step=None, step_started_at=None, stopping="", progress_message=""
    )
    return decision.becoming(left)
