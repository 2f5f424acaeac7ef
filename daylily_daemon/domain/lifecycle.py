"""The life of a workset: ``decide(workset, event, policy, now) -> Decision``.

Three laws hold here. What a crash left undone follows from the saved workset alone: ``resume`` derives
it. Every effect ends in an event. An event that speaks of another job than the current one is old news
and changes nothing.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
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
    InputNotChecked,
    Inspected,
    JobExited,
    JobRefused,
    JobStopped,
    LetGo,
    Noted,
)
from daylily_daemon.domain.failures import Diagnosis, FailurePattern, classify
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
    Unwanted,
)
from daylily_daemon.domain.remarks import Remarks
from daylily_daemon.domain.run import Run, StepEnd, StepRun
from daylily_daemon.domain.workset import Failure, Lock, Workset

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
        return any(
            fnmatchcase(ws.request.customer_id, pattern) for pattern in self.urgent_customers
        )

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
        case InputNotChecked(why=why):
            return Decision(replace(ws, waiting_for=why) if ws.state is State.READY else ws)
        case Noted(job=job, remarks=remarks):
            return Decision(_seen(ws, job, remarks))
        case LetGo(job=job, remarks=remarks):
            return Decision(released(_seen(ws, job, remarks)) if ws.lock else ws)
        case _:
            assert_never(event)


def resume(ws: Workset) -> tuple[Effect, ...]:
    """Return what has to be done for a claimed workset, from what is saved alone."""
    if ws.run is None or ws.job is None:
        return ()
    return (StopJob(ws.job),) if ws.run.stopping else (RunJob(ws.job),)


def _seen(ws: Workset, job: JobName | None, remarks: Remarks) -> Workset:
    run = remarks.on(ws.run) if ws.run and job == ws.job else ws.run
    return replace(ws, beat=ws.beat + 1, run=run)


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
                waiting_for="",
                updated_at=now,
            )
            return Decision(checked).with_warnings(*warnings)
        case Missing(problems=problems):
            since = ws.request.submitted_at or ws.created_at
            if now - since >= timedelta(seconds=policy.input_wait_s):
                return refuse(Decision(ws), problems, now)
            return Decision(replace(ws, waiting_for=_waiting(problems)))
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
    customer = ws.request.customer_id
    who = f"customer {customer}" if customer else "a drop without a customer"
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
    expires = now + timedelta(seconds=claim.ttl_s)
    lock = Lock(owner=claim.owner, acquired_at=now, expires_at=expires)
    locked = Decision(replace(ws, lock=lock, fence=Fence(ws.fence + 1), beat=ws.beat + 1))
    if ws.state is State.IN_PROGRESS and claim.sees_job:
        return _adopt(ws, locked, claim, now)
    if ws.state is State.IN_PROGRESS:
        return _lost_with_its_host(ws, locked, now)
    if not due(ws, now):
        return Decision(ws)
    if ws.state is State.RETRYING:
        text = "the pause before the next try is over"
        ready = locked.transition(State.READY, now, text, QUIET)
        locked = ready.becoming(replace(ready.workset, lock=lock))
    return _begin(locked, claim, now)


def _begin(decision: Decision, claim: Claimed, now: datetime) -> Decision:
    ws = decision.workset
    known = _unfinished(ws)
    run = _next_run(ws, known, claim, now)
    started = replace(ws, attempt=run.attempt, run=run, retry_after=None)
    first = run.current.name if run.current else ""
    text = f"attempt {run.attempt} {'resumes' if known else 'starts'} with step {first}"
    note = Note(details={"run": run.id, "attempt": run.attempt, "step": first})
    turned = decision.becoming(started).transition(State.IN_PROGRESS, now, text, note)
    return _enter(turned, now)


def _unfinished(ws: Workset) -> Run | None:
    """Return the run that the next attempt goes on with: one that failed, and has something left to do."""
    if ws.run is None or ws.run.failed is None:
        return None
    done = {step.name for step in ws.run.steps if step.is_done}
    return ws.run if ws.plan and not done.issuperset(ws.plan.steps) else None


def _next_run(ws: Workset, known: Run | None, claim: Claimed, now: datetime) -> Run:
    """Return the run of the next attempt: ``known`` from its first step that is not done, or a new one."""
    attempt = ws.attempt + 1
    id = known.id if known else f"r{attempt}"
    jobs_dir = f"{claim.jobs_dir}/{ws.id}/{id}"
    run = Run(
        id=id,
        attempt=attempt,
        key=claim.key,
        folder=f"{claim.data_dir}/{ws.id}/{id}",
        steps=tuple(_steps_left(ws, known, claim, f"{jobs_dir}/{attempt}")),
        started_at=now,
    )
    if known is None:
        return run
    return replace(
        run,
        reports=known.reports,
        results_uri=known.results_uri,
        results_files=known.results_files,
        results_bytes=known.results_bytes,
    )


def _steps_left(ws: Workset, known: Run | None, claim: Claimed, place: str) -> Iterator[StepRun]:
    """Yield the steps as planned now: those that are done already as they are, the others to be run."""
    plan = ws.plan
    done = {step.name: step for step in known.steps if step.is_done} if known else {}
    for name in plan.steps if plan else ():
        if name in done:
            yield done[name]
            continue
        done = {}  # whatever comes after a step that runs is run again
        yield StepRun(
            name=name,
            fatal=plan is None or name not in plan.optional,
            runner=claim.runner,
            scope=claim.scope,
            place=f"{place}-{name}",
        )


def _enter(decision: Decision, now: datetime) -> Decision:
    """Begin with the current step of the run."""
    ws = decision.workset
    entered = replace(ws, run=ws.run and ws.run.entered(now))
    return replace(decision, workset=entered, effects=resume(entered))


def _adopt(ws: Workset, locked: Decision, claim: Claimed, now: datetime) -> Decision:
    """Take over a workset in progress: whatever runs, runs on."""
    note = STEP
    if ws.owner is None:
        text = f"{claim.owner} goes on with it"
    elif ws.owner == claim.owner:
        text = f"{claim.owner} is back and goes on with it"
    else:
        text = f"{claim.owner} takes over; {ws.owner} stopped answering"
        note = Note(type=RecordType.LOCK_TIMEOUT)
    known = replace(locked.workset, run=_seen_here(ws, claim))
    adopted = locked.becoming(known).record(now, text, note)
    return replace(adopted, effects=resume(known))


def _seen_here(ws: Workset, claim: Claimed) -> Run | None:
    """Return the run with the places of its jobs as this daemon knows them."""
    run, step = ws.run, ws.step
    if run is None or step is None or claim.beside:
        return run
    here = f"{claim.jobs_dir}/{ws.id}/{run.id}"
    jobs_dir = here if step.scope == claim.scope else step.place.rpartition("/")[0]
    return run.seen_from(claim.scope, jobs_dir)


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
    where = ws.scope or "the machine it ran on"
    why = f"{command.by} vouches that {where} no longer exists"
    gone = commands.give_up_the_run(locked.becoming(answered), command, why, now)
    told = gone.answer(command.id, CommandEffect.APPLIED, why, now)
    return _answer_inbox(ws, told, now)


def _job_ended(
    ws: Workset, event: JobExited | JobRefused | JobStopped, policy: Policy, now: datetime
) -> Decision:
    run, step, decision = ws.run, ws.step, Decision(ws)
    if run is None or step is None:
        return decision
    outcome = event.outcome if isinstance(event, JobExited) else None
    if run.stopping:
        stopped = decision.becoming(replace(ws, run=run.left(StepEnd.STOPPED, outcome)))
        return stopped.transition(State.CANCELED, now, run.stopping)
    match event:
        case JobExited(outcome=outcome) if outcome.succeeded and _lacks_results(ws, outcome):
            return _failed(decision, _NO_RESULTS, policy, now, outcome)
        case JobExited(outcome=outcome) if outcome.succeeded:
            return _step_done(decision, run.left(StepEnd.DONE, outcome), outcome, now)
        case JobExited(outcome=outcome, fatal=False):
            failure = classify(outcome, policy.patterns)
            text = f"step {step.name} failed and the run goes on. {failure.message}"
            left = run.left(StepEnd.TOLERATED, outcome)
            note = replace(STEP, details={"step": step.name, "code": failure.code})
            return _step_done(decision.record(now, text, note), left, outcome, now)
        case JobExited(outcome=outcome):
            return _failed(decision, classify(outcome, policy.patterns), policy, now, outcome)
        case JobRefused(reason=reason):
            failure = Diagnosis("WS-CFG-002", Category.CONFIGURATION, False, reason)
            return _failed(decision, failure, policy, now)
        case JobStopped():
            failure = Diagnosis("WS-JOB-003", Category.PERMANENT, False, "It was stopped.")
            return _failed(decision, failure, policy, now)
        case _:
            assert_never(event)


def _answer_inbox(before: Workset, decision: Decision, now: datetime) -> Decision:
    """With the end of a run, answer what is in the inbox: nobody holds the workset afterwards."""
    if before.state is not State.IN_PROGRESS or decision.workset.state is State.IN_PROGRESS:
        return decision
    return commands.obeyed(decision, decision.workset.inbox, now)


def _step_done(decision: Decision, run: Run, outcome: Outcome, now: datetime) -> Decision:
    """Go on with ``run``, which has left its step with ``outcome``."""
    ended = decision.workset.step
    found = report.bounded(outcome.report)
    run = replace(run, reports=report.merged(run.reports, found))
    if results := report.results_of(found):
        run = replace(
            run,
            results_uri=results.uri,
            results_files=results.files,
            results_bytes=results.size_bytes,
        )
    left = decision.becoming(replace(decision.workset, run=run))
    left = left.with_warnings(*outcome.warnings, *report.warnings_of(found))
    if run.current is None:
        return _complete(left, now)
    name = ended.name if ended else ""
    text = f"step {name} done after {outcome.duration_s:.1f} s; step {run.current.name} starts"
    note = replace(STEP, details={"step": name, "next": run.current.name})
    return _enter(left.record(now, text, note), now)


def _complete(decision: Decision, now: datetime) -> Decision:
    ws = decision.workset
    details: dict[str, Any] = {"results": ws.results_uri, "attempt": ws.attempt}
    if ws.warnings:
        details["warnings"] = list(ws.warnings)
    text = " ".join([f"complete; results are in {ws.results_uri}", *_warned(ws)])
    note = Note(type=RecordType.COMPLETION, details=details)
    return decision.becoming(replace(ws, failure=None)).transition(State.COMPLETE, now, text, note)


def _warned(ws: Workset) -> tuple[str, ...]:
    """Return what a message about the end says besides: the first warning, and how many more there are."""
    if not ws.warnings:
        return ()
    more = f" ({len(ws.warnings) - 1} more)" if len(ws.warnings) > 1 else ""
    return (f"But: {ws.warnings[0]}{more}",)


_NO_RESULTS: Final = Diagnosis(
    "WS-OUT-001",
    Category.PERMANENT,
    False,
    "The run produced no results, and its pipeline says that it has to (`results: required`). See in the "
    "logs of the steps before what they did; `retry --from-start` runs them again.",
)


def _lacks_results(ws: Workset, outcome: Outcome) -> bool:
    """Tell whether a step reports an export of nothing where there has to be something."""
    results = report.results_of(outcome.report)
    return results is not None and results.files == 0 and bool(ws.plan and ws.plan.results_required)


def _failed(
    decision: Decision,
    failure: Diagnosis,
    policy: Policy,
    now: datetime,
    outcome: Outcome | None = None,
) -> Decision:
    """End the attempt. Missing rights and credentials of ours use up no try, but in the steps that cost."""
    ws = decision.workset
    name = ws.step.name if ws.step else ""
    limit = policy.max_retries if ws.max_retries is None else ws.max_retries
    text = f"step {name} of attempt {ws.attempt} failed ({failure.code}). {failure.message}"
    note = _note_of(failure, name)
    known = decision.becoming(_with_failure(ws, failure, name, outcome))
    wrong = known.transition(State.ERROR, now, text[:500], replace(note, notify=False))
    if failure.ours and ws.plan and name in ws.plan.own:
        pause_s = policy.waiting_s(ws)
        again = f"{text[:500]} That is no fault of the workset: it goes on in {pause_s:.0f} s."
        return _retrying(wrong.transition(State.RETRYING, now, again, note), pause_s, now)
    if failure.retry and ws.retry_count < limit:
        pause_s = policy.delay_s(ws)
        again = f"{text[:500]} Try {ws.retry_count + 1} of {limit} follows in {pause_s:.0f} s."
        waiting = _retrying(wrong.transition(State.RETRYING, now, again, note), pause_s, now)
        return waiting.becoming(replace(waiting.workset, retry_count=ws.retry_count + 1))
    why = f"all {limit} tries are used up" if failure.retry else "trying again would not help"
    advice = "Fix the cause, then retry it or upload it again."
    end = f"{text[:500]} {why.capitalize()}. {advice}"
    return wrong.transition(State.FAILED, now, end, note)


def _note_of(failure: Diagnosis, step: str) -> Note:
    details = {"code": failure.code, "category": str(failure.category), "step": step}
    return Note(type=RecordType.ERROR, error_details=failure.message[:2000], details=details)


def _with_failure(ws: Workset, failure: Diagnosis, step: str, outcome: Outcome | None) -> Workset:
    details = f"step {step}: {failure.message}"[:DETAILS_LIMIT]
    known = Failure(code=failure.code, category=failure.category, details=details)
    return replace(ws, failure=known, run=ws.run and ws.run.left(StepEnd.FAILED, outcome))


def _retrying(decision: Decision, pause_s: float, now: datetime) -> Decision:
    after = now + timedelta(seconds=pause_s)
    return decision.becoming(replace(decision.workset, retry_after=after))
