"""Why a workset is where it is. What is said follows from what is known, and never more. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, assert_never

from daylily_daemon.application.health import DaemonView, LocalDaemon
from daylily_daemon.application.wording import age, progress_text, quiet_text, results_text
from daylily_daemon.domain.admission import Capacity, Limits, admit, capacity_of
from daylily_daemon.domain.commands import archived_from
from daylily_daemon.domain.lifecycle import due
from daylily_daemon.domain.model import Record, State, WorksetId
from daylily_daemon.domain.run import Run
from daylily_daemon.domain.times import span, when
from daylily_daemon.domain.workset import Workset

FORGIVEN: Final = timedelta(seconds=30)
"""Clocks of hosts differ: a claim of another host is over only when it ended longer ago than this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What an answer is based on."""

    now: datetime
    daemon: LocalDaemon
    limits: Limits
    """As this command is configured; what the daemon says of itself counts more."""
    waiting: Sequence[Workset] = ()
    """The first ones of every line."""
    more: bool = False
    """Whether others wait behind them."""
    runs: Mapping[WorksetId, str] = field(default_factory=dict)
    """In progress on any host, by customer."""
    holder: DaemonView | None = None
    """The daemon that holds it, on any host, as the registry tells of it."""
    job: str | None = None
    """What runs of its job now, as a sentence; None where that cannot be seen from here."""
    events: Sequence[Record] = ()
    """What happened to it last."""


def why(ws: Workset, view: View) -> Iterator[str]:
    """Yield sentences, the most important one first."""
    yield from _where_it_is(ws, view)
    yield from (f"Note: {warning}" for warning in ws.warnings)
    if view.events:
        yield "What happened last:"
        yield from (f"  {when(record.at)}  {record.message}" for record in view.events)


def _where_it_is(ws: Workset, view: View) -> Iterator[str]:
    match ws.state:
        case State.READY | State.RETRYING:
            yield from _why_waiting(ws, view)
        case State.IN_PROGRESS:
            yield from _why_in_progress(ws, view)
        case State.ERROR | State.FAILED:
            yield from _why_failed(ws)
        case State.COMPLETE:
            yield _complete(ws)
            yield f"A complete workset never runs again. Its files do: `daylily-daemon rerun {ws.id}`"
        case State.IGNORED | State.CANCELED:
            yield f"It was {_last(ws)}. `daylily-daemon retry {ws.id}` makes it ready again."
        case State.ARCHIVED:
            yield (
                f"It was {_last(ws)}. `daylily-daemon restore {ws.id}` brings it back; it is "
                f"{archived_from(ws)} then."
            )
        case State.DELETED:
            yield f"It was {_last(ws)}. Nothing brings it back; its trail and its files in S3 are kept."
        case _:
            assert_never(ws.state)


def _complete(ws: Workset) -> str:
    if ws.run and ws.run.results_files == 0:
        return (
            f"It is complete, and has no results: 0 files were exported to {ws.results_uri}. See what its "
            f"steps did: `daylily-daemon logs {ws.id}`. A pipeline that says `results: required` makes "
            "that a failure."
        )
    count = f" {results_text(ws.run)}" if ws.run and ws.run.results_files else ""
    return f"It is complete. Results: {ws.results_uri or 'none were exported'}{count}"


def _last(ws: Workset) -> str:
    reason = ws.history[-1].reason if ws.history else ""
    return reason or str(ws.state)


def _why_failed(ws: Workset) -> Iterator[str]:
    if ws.failure is None:
        yield f"It is {ws.state}, and nothing was written down about why."
    else:
        yield ws.failure.details
        yield f"Code {ws.failure.code}, category {ws.failure.category}."
    yield (f"When the cause is fixed: `daylily-daemon retry {ws.id}`, or put daylily.ready again.")


# --- in progress --------------------------------------------------------------------------------------


def _why_in_progress(ws: Workset, view: View) -> Iterator[str]:
    if ws.trouble:
        yield f"It does not go on: {ws.trouble}"
    if ws.unclear:
        yield (
            "Whether its job still runs cannot be told from here, so nothing new is started. If you know "
            f"that nothing of it runs any more: `daylily-daemon retry {ws.id} --host-gone`"
        )
    doing = progress_text(ws, view.now) or "no progress told yet"
    owner, attempt = ws.owner, f"attempt {ws.attempt}"
    if owner is None:
        yield f"It is in progress, {attempt}. It was at: {doing}."
        yield _who_picks_it_up(ws)
    elif view.daemon.holds(ws.id, owner):
        yield from _held_here(ws, view, f"{attempt}, held by {owner}", doing)
    elif _expired(ws, view.now):
        yield (
            f"It is in progress, {attempt}, but {owner}, which held it, has not renewed its claim since "
            f"{_expiry(ws)} UTC. It was at: {doing}."
        )
        yield _who_picks_it_up(ws)
    else:
        yield (
            f"It is in progress on {ws.scope or 'another host'}, {attempt}, held by {owner} until "
            f"{_expiry(ws)} UTC: {doing}."
        )
        yield how_its_holder_is(owner, view)
    if ws.run is not None:
        yield from _how_its_job_is(ws, ws.run, view)


def _how_its_job_is(ws: Workset, run: Run, view: View) -> Iterator[str]:
    """Yield since when its step runs and until when it may, and what is to be done if it seems to hang."""
    step, now = ws.step, view.now
    if step is None or step.started_at is None:
        return
    number = [known.name for known in run.steps].index(step.name) + 1
    limit = "" if step.limit_s is None else f", of at most {age(step.limit_s)}"
    lasted = age((now - step.started_at).total_seconds())
    yield f"Step {step.name} ({number} of {len(run.steps)}) runs for {lasted}{limit}."
    if run.stopping_at is not None:
        yield _how_it_stops(run, run.stopping_at, now)
    elif quiet := quiet_text(run, now):
        yield f"Its log: {quiet.removesuffix(' !')}, last written to {when(run.progress.output_at)} UTC."
        if quiet.endswith("!"):
            yield (
                f"It may hang. Look: `daylily-daemon logs -f {ws.id}`. Stop it: `daylily-daemon cancel "
                f"{ws.id} --wait`; then `daylily-daemon retry {ws.id}` goes on with step {step.name}."
            )
    if view.job is not None:
        yield view.job


def _how_it_stops(run: Run, since: datetime, now: datetime) -> str:
    ends_at = run.ends_at()
    if ends_at is None:
        return f"It is being stopped since {when(since)} UTC."
    if now < ends_at:
        return f"It is being stopped since {when(since)} UTC; the rest of it is killed at {when(ends_at)}."
    return (
        f"It is being stopped since {when(since)} UTC, and what was left of it has been killed since "
        f"{when(ends_at)}: what still runs waits for the kernel, most often for a disk that does not answer."
    )


def how_its_holder_is(owner: str, view: View) -> str:
    """Return what is known of the daemon that holds a run, as a sentence."""
    holder = view.holder
    if holder is None:
        return f"Whether {owner} is well, `daylily-daemon status` tells on its host."
    heard = "" if holder.age_s is None else f", and was heard of {span(holder.age_s)} ago"
    wrong = next((f". It says: {problem.text}" for problem in holder.problems), "")
    return f"{holder.name} is {holder.state}{heard}{wrong or '.'}"


def _held_here(ws: Workset, view: View, what: str, doing: str) -> Iterator[str]:
    if view.daemon.verdict.healthy and not _expired(ws, view.now):
        yield f"{'It is in progress' if ws.trouble or ws.unclear else 'It runs'}, {what}: {doing}."
        return
    yield f"It is in progress, {what}, and this daemon is not well. It was at: {doing}."
    yield from view.daemon.verdict.lines
    yield "A job runs on without its daemon."


def _expired(ws: Workset, now: datetime) -> bool:
    return ws.lock is None or now - ws.lock.expires_at > FORGIVEN


def _expiry(ws: Workset) -> str:
    return when(ws.lock.expires_at) if ws.lock else ""


def _who_picks_it_up(ws: Workset) -> str:
    return (
        f"No daemon holds it now. One on {ws.scope or 'its host'} picks it up by itself: is one "
        f"running there? If that machine no longer exists: `daylily-daemon retry {ws.id} --host-gone`, "
        f"or, for all that ran there, `daylily-daemon daemon gone {_machine(ws)}`"
    )


def _machine(ws: Workset) -> str:
    return ws.scope.removeprefix("host:").partition("/")[0] or ws.owner or "NAME"


# --- waiting ------------------------------------------------------------------------------------------


def _why_waiting(ws: Workset, view: View) -> Iterator[str]:
    if ws.trouble:
        yield f"It does not go on: {ws.trouble}"
    yield _verdict_on(ws, view)
    if not view.daemon.alive:
        yield "No daemon runs on this host; does one run elsewhere?"
    if not view.daemon.verdict.healthy:
        yield from view.daemon.verdict.lines
    if ws.failure:
        yield f"The last try failed: {ws.failure.details}"


def _verdict_on(ws: Workset, view: View) -> str:
    """Say what the daemon of this host, if there is one, decides about ``ws`` and why."""
    capacity = capacity_here(view)
    if not due(ws, view.now):
        return admit([ws], capacity, view.now)[0].reason
    if not view.daemon.alive:
        return "It is ready to start, and waits for a daemon."
    others = [w for w in view.waiting if w.id != ws.id and due(w, view.now)]
    verdicts = admit([*others, ws], capacity, view.now)
    place = [verdict.workset_id for verdict in verdicts].index(ws.id)
    if view.more:
        return f"At least {place} worksets go before it. {verdicts[place].reason}"
    return f"It waits at place {place + 1} of {len(verdicts)}. {verdicts[place].reason}"


def capacity_here(view: View) -> Capacity:
    """Return what the daemon of this host says it counts with; without one, what it would."""
    status, limits = view.daemon.status, view.limits
    if status is None:
        return capacity_of(limits, {}, view.runs)
    said = replace(
        limits,
        slots=status.max_worksets or 0,
        per_customer=status.max_per_customer,
        age_s=limits.age_s if status.age_s is None else status.age_s,
        cluster=limits.cluster if status.cluster is None else status.cluster,
    )
    active = {WorksetId(id): status.customers.get(id, "") for id in status.active}
    return capacity_of(said, active, view.runs, status.held)
