"""Properties of the state machine, over every story hypothesis can think of."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from daylily_daemon.domain.commands import register
from daylily_daemon.domain.decision import NEXT, Decision, RunJob, StopJob
from daylily_daemon.domain.events import (
    Claimed,
    Commanded,
    Event,
    Inspected,
    JobExited,
    JobRefused,
    JobStopped,
)
from daylily_daemon.domain.lifecycle import decide, due, resume
from daylily_daemon.domain.model import (
    HISTORY_LIMIT,
    SEEN_LIMIT,
    Accepted,
    Cancel,
    Command,
    CommandEffect,
    Ended,
    HostLost,
    Ignore,
    JobName,
    Missing,
    Outcome,
    Plan,
    Priority,
    Problem,
    Progress,
    Refused,
    Retry,
    SetPriority,
    State,
    Submit,
    Unwanted,
    WorksetId,
)
from daylily_daemon.domain.remarks import Remarks
from daylily_daemon.domain.run import StepEnd
from daylily_daemon.domain.workset import Workset
from tests.made import a_run, a_workset, at_run
from tests.unit.engine_settings import a_policy

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ID = WorksetId("HG002")
STEPS = ("stage", "run", "export")
PLAN = Plan(pipeline="demo", steps=STEPS, export_uri="s3://b/r/")
PROBLEMS = (Problem("stage_samples.tsv", "line 2", "is wrong.", "Fix it."),)
POLICY = a_policy(max_retries=2)
CLAIM = Claimed(
    owner="a",
    key="k1",
    runner="process",
    scope="host:1",
    data_dir="/d",
    jobs_dir="/j",
    ttl_s=60,
    sees_job=True,
)
SUBMIT = Submit(bucket="b", prefix="p/HG002/")

asks = st.one_of(
    st.just(SUBMIT),
    st.builds(Cancel),
    st.builds(Retry, from_start=st.booleans()),
    st.builds(HostLost, from_start=st.booleans()),
    st.builds(Ignore),
    st.builds(SetPriority, priority=st.sampled_from(Priority)),
)
outcomes = st.builds(
    Outcome,
    ended=st.sampled_from(Ended),
    code=st.sampled_from([0, 0, 0, 1, 137]),
    tail=st.sampled_from(["", "out of memory", "invalid fastq", "connection refused"]),
)


@st.composite
def events(draw: st.DrawFn) -> tuple[str, Any]:
    """An event as data: job names are filled in from the workset the event meets."""
    kind = draw(
        st.sampled_from(["command", "inspected", "claimed", "exited", "refused", "stopped"])
    )
    match kind:
        case "command":
            return kind, (draw(st.integers(0, 60)), draw(asks))
        case "inspected":
            return kind, draw(
                st.sampled_from(
                    [
                        Accepted(PLAN),
                        Missing(PROBLEMS),
                        Refused(PROBLEMS),
                        Unwanted("daylily.ignore"),
                    ]
                )
            )
        case "exited":
            return kind, (draw(st.booleans()), draw(outcomes))
        case _:
            return kind, draw(st.booleans())


def meet(ws: Workset, kind: str, what: Any) -> Event:
    current = ws.job or JobName("HG002.0.run")
    old = JobName("HG002.99.run")
    match kind:
        case "command":
            number, ask = what
            return Commanded(Command(id=f"c{number}", workset_id=ID, by="test", ask=ask))
        case "inspected":
            return Inspected(what)
        case "claimed":
            return CLAIM if what else replace(CLAIM, owner="b")
        case "exited":
            return JobExited(current if what[0] else old, what[1])
        case "refused":
            return JobRefused(current if what else old, "no such pipeline")
        case _:
            return JobStopped(current if what else old)


def started(**changes: Any) -> Workset:
    command = Command(id="first", workset_id=ID, by="s3", ask=SUBMIT)
    return replace(register(command, SUBMIT, NOW).workset, **changes)


def in_progress() -> Workset:
    ready = decide(started(), Inspected(Accepted(PLAN)), POLICY, NOW).workset
    return decide(ready, CLAIM, POLICY, NOW).workset


def path(decision: Decision) -> list[State]:
    return [r.state for r in decision.records]


@given(st.lists(events(), max_size=40))
def test_any_story_keeps_to_the_table_and_its_bounds(story: list[tuple[str, Any]]) -> None:
    ws, now = started(), NOW
    for kind, what in story:
        now += timedelta(seconds=90)
        decision = decide(ws, meet(ws, kind, what), POLICY, now)
        after = decision.workset
        states = [ws.state, *path(decision), after.state]
        for before, following in pairwise(states):
            assert before == following or following in NEXT[before]
        assert after.attempt >= ws.attempt
        assert after.fence >= ws.fence
        assert after.retry_count <= POLICY.max_retries
        assert len(after.history) <= HISTORY_LIMIT
        assert len(after.seen_commands) <= SEEN_LIMIT
        assert [r.seq for r in decision.records] == list(range(ws.last_seq + 1, after.last_seq + 1))
        assert (after.owner is not None) == (after.state is State.IN_PROGRESS)
        ws = after


@given(st.lists(events(), max_size=40))
def test_whatever_happened_something_can_go_on(story: list[tuple[str, Any]]) -> None:
    ws, now = started(), NOW
    for kind, what in story:
        now += timedelta(seconds=90)
        ws = decide(ws, meet(ws, kind, what), POLICY, now).workset
    if ws.state is State.IN_PROGRESS:
        assert resume(ws)
        assert decide(ws, CLAIM, POLICY, now).effects == resume(ws)
    if ws.state is State.READY and ws.plan is None:
        assert decide(ws, Inspected(Accepted(PLAN)), POLICY, now).workset.plan == PLAN
    if ws.state is State.RETRYING:
        assert due(ws, now + timedelta(hours=3))


@given(st.lists(events(), max_size=30), events())
def test_the_same_command_twice_changes_nothing(
    story: list[tuple[str, Any]], last: tuple[str, Any]
) -> None:
    ws = started()
    for kind, what in story:
        ws = decide(ws, meet(ws, kind, what), POLICY, NOW).workset
    event = meet(ws, *last)
    if isinstance(event, Commanded):
        once = decide(ws, event, POLICY, NOW).workset
        again = decide(once, event, POLICY, NOW + timedelta(hours=1))
        assert again.workset == once
        assert again.effects == ()


def test_of_what_is_bounded_the_oldest_is_forgotten() -> None:
    ws, now = started(), NOW
    for number in range(30):
        now += timedelta(seconds=1)
        ask = Retry() if number % 2 else Ignore()
        command = Command(id=f"c{number}", workset_id=ID, by="me", ask=ask)
        ws = decide(ws, Commanded(command), POLICY, now).workset
    newest = range(30 - SEEN_LIMIT, 30)
    assert ws.seen_commands == tuple(f"c{number}" for number in newest)
    assert [t.at for t in ws.history] == [NOW + timedelta(seconds=n + 1) for n in newest]
    assert len(newest) == HISTORY_LIMIT
    vouching = Command(id="v", workset_id=ID, by="me", ask=HostLost())
    lost = replace(in_progress(), inbox=(vouching,), seen_commands=ws.seen_commands)
    seen = decide(lost, replace(CLAIM, sees_job=False), POLICY, now).workset.seen_commands
    assert seen == (*ws.seen_commands[1:], "v")


def test_every_state_has_a_row() -> None:
    assert set(NEXT) == set(State)


def test_a_claim_starts_the_first_step_and_names_its_job_for_ever() -> None:
    ws = in_progress()
    assert (ws.state, ws.attempt, ws.fence) == (State.IN_PROGRESS, 1, 1)
    assert resume(ws) == (RunJob(JobName("HG002.1.stage")),)
    assert ws.run is not None
    assert ws.step is not None
    assert (ws.run.folder, ws.run.key) == ("/d/HG002/r1", "k1")
    assert (ws.step.name, ws.step.place) == ("stage", "/j/HG002/r1/1-stage")


def test_a_claim_of_what_is_not_due_changes_nothing() -> None:
    unchecked = started()
    assert decide(unchecked, CLAIM, POLICY, NOW).workset == unchecked


def test_success_of_every_step_completes_and_gives_the_lock_back() -> None:
    ws = in_progress()
    for _ in STEPS:
        assert ws.job
        done = JobExited(ws.job, Outcome(ended=Ended.EXITED, code=0, duration_s=1.5))
        ws = decide(ws, done, POLICY, NOW).workset
    assert ws.state is State.COMPLETE
    assert ws.owner is None
    assert ws.run is not None
    assert [(step.name, step.seconds) for step in ws.run.steps] == [(name, 1.5) for name in STEPS]


def test_an_exit_of_an_older_job_is_old_news() -> None:
    ws = in_progress()
    stale = JobExited(JobName("HG002.0.stage"), Outcome(ended=Ended.EXITED, code=1))
    assert decide(ws, stale, POLICY, NOW) == Decision(ws)


def test_a_step_that_is_not_fatal_is_recorded_and_passed() -> None:
    ws = in_progress()
    assert ws.job
    failed = JobExited(ws.job, Outcome(ended=Ended.EXITED, code=2), fatal=False)
    decision = decide(ws, failed, POLICY, NOW)
    assert decision.workset.job == "HG002.1.run"
    assert decision.workset.run is not None
    assert decision.workset.run.steps[0].end is StepEnd.TOLERATED
    assert any("failed and the run goes on" in r.message for r in decision.records)


def test_a_cancel_that_came_first_wins_over_the_end() -> None:
    ws = in_progress()
    command = Command(id="c", workset_id=ID, by="me", ask=Cancel())
    stopping = decide(ws, Commanded(command), POLICY, NOW)
    assert stopping.effects == (StopJob(JobName("HG002.1.stage")),)
    assert stopping.workset.job
    end = JobExited(stopping.workset.job, Outcome(ended=Ended.EXITED, code=0))
    assert decide(stopping.workset, end, POLICY, NOW).workset.state is State.CANCELED


def test_a_run_out_of_reach_is_ended_only_if_somebody_vouches_for_the_end_of_its_machine() -> None:
    elsewhere = replace(CLAIM, owner="b", scope="host:2", sees_job=False)
    ws = in_progress()
    assert decide(ws, elsewhere, POLICY, NOW) == Decision(ws)
    vouching = Command(id="c", workset_id=ID, by="me", ask=HostLost())
    asked = replace(ws, inbox=(vouching,))
    decision = decide(asked, elsewhere, POLICY, NOW)
    assert path(decision) == [State.ERROR, State.READY]
    assert "me vouches that host:1 no longer exists" in decision.records[0].message
    assert [r.notify for r in decision.records] == [True, False]
    assert not any("tries" in r.message for r in decision.records), "no try was used up"
    assert (decision.effects, decision.workset.owner) == ((), None)
    assert [(a.command_id, a.effect) for a in decision.answers] == [("c", CommandEffect.APPLIED)]
    assert decision.workset.run is not None
    assert decision.workset.run.failed is not None
    assert decision.workset.run.failed.name == "stage"
    assert decide(asked, CLAIM, POLICY, NOW).workset.state is State.IN_PROGRESS


def test_what_waits_in_the_inbox_when_a_run_ends_is_answered_with_the_end() -> None:
    """Nobody holds the workset afterwards, so nobody would look there again."""
    late = [
        Command(id="c", workset_id=ID, by="me", ask=Cancel()),
        Command(id="p", workset_id=ID, by="me", ask=SetPriority(priority=Priority.LOW)),
        Command(id="r", workset_id=ID, by="me", ask=Retry()),
    ]
    ws = replace(in_progress(), inbox=tuple(late))
    assert ws.job
    bad = JobExited(ws.job, Outcome(ended=Ended.EXITED, code=1, tail="Error: invalid FASTQ"))
    decision = decide(ws, bad, POLICY, NOW)
    assert path(decision) == [State.ERROR, State.FAILED, State.FAILED, State.FAILED, State.READY]
    assert "cancel by me had no effect: it is failed" in decision.records[2].message
    assert (decision.workset.inbox, decision.workset.priority) == ((), Priority.LOW)
    assert decision.workset.seen_commands[-3:] == ("c", "p", "r")


def test_a_stopping_workset_is_stopped_again_after_a_crash() -> None:
    ws = at_run(in_progress(), stopping="canceled by me")
    assert ws.job
    assert decide(ws, CLAIM, POLICY, NOW).effects == (StopJob(ws.job),)


def test_data_errors_are_not_tried_again() -> None:
    ws = in_progress()
    assert ws.job
    bad = JobExited(ws.job, Outcome(ended=Ended.EXITED, code=1, tail="Error: invalid FASTQ"))
    decision = decide(ws, bad, POLICY, NOW)
    assert path(decision) == [State.ERROR, State.FAILED]
    assert decision.workset.failure is not None
    assert decision.workset.failure.code == "WS-DAT-001"
    assert [r.notify for r in decision.records] == [False, True]


def test_pauses_double_and_never_pass_the_cap_by_more_than_a_quarter() -> None:
    policy = a_policy(base_s=60, cap_s=600)
    pauses = [policy.delay_s(replace(started(), retry_count=n, attempt=n)) for n in range(8)]
    for n, pause_s in enumerate(pauses):
        expected_s = min(600, 60 * 2**n)
        assert expected_s <= pause_s <= expected_s * 1.25


def test_an_ignored_workset_in_progress_asks_for_a_cancel_first() -> None:
    command = Command(id="c", workset_id=ID, by="me", ask=Ignore())
    decision = decide(in_progress(), Commanded(command), POLICY, NOW)
    assert decision.workset.state is State.IN_PROGRESS
    assert "cancel it first" in decision.records[0].message


def test_of_a_run_whose_folder_has_moved_only_what_is_left_is_looked_for_there() -> None:
    run = a_run("run", steps=STEPS, scope="host:old", jobs_dir="/old/HG002/r1")
    ws = a_workset("HG002", State.IN_PROGRESS, plan=PLAN, run=run, attempt=1)
    adopted = decide(ws, replace(CLAIM, scope="host:old"), POLICY, NOW).workset.run
    assert adopted is not None
    before, *left = adopted.steps
    assert before == run.steps[0]
    assert [(step.scope, step.place) for step in left] == [
        ("host:old", "/j/HG002/r1/1-run"),
        ("host:old", "/j/HG002/r1/1-export"),
    ]
    elsewhere = decide(ws, CLAIM, POLICY, NOW).workset.run
    assert elsewhere is not None
    assert [(step.scope, step.place) for step in elsewhere.steps] == [
        ("host:old", "/old/HG002/r1/1-stage"),
        ("host:1", "/old/HG002/r1/1-run"),
        ("host:1", "/old/HG002/r1/1-export"),
    ]


def test_a_drop_with_an_unusable_name_is_parked_where_it_can_be_seen() -> None:
    problem = Problem("my folder", "folder name", "is no id.", "Rename it.")
    command = Command(id="c", workset_id=ID, by="s3", ask=replace(SUBMIT, problem=problem))
    decision = register(command, replace(SUBMIT, problem=problem), NOW)
    assert decision.workset.state is State.ERROR
    assert "my folder, folder name" in decision.workset.error_details


# Runs


def failed_at(ws: Workset, code: int = 3) -> Workset:
    assert ws.job
    event = JobExited(ws.job, Outcome(ended=Ended.EXITED, code=code))
    return decide(ws, event, POLICY, NOW).workset


def passed(ws: Workset) -> Workset:
    assert ws.job
    return decide(ws, JobExited(ws.job, Outcome(ended=Ended.EXITED, code=0)), POLICY, NOW).workset


def claimed_again(ws: Workset, plan: Plan, later: timedelta = timedelta(hours=1)) -> Workset:
    """Return the next attempt, by a plan that may be another one than before."""
    return decide(replace(ws, plan=plan), replace(CLAIM, key="k2"), POLICY, NOW + later).workset


def steps_of(ws: Workset) -> list[tuple[str, str, StepEnd | None]]:
    assert ws.run is not None
    return [(step.name, step.place.rpartition("/")[2], step.end) for step in ws.run.steps]


def test_the_next_attempt_goes_on_with_the_step_that_failed_under_a_new_key() -> None:
    ws = claimed_again(failed_at(passed(in_progress())), PLAN)
    assert (ws.job, ws.attempt) == ("HG002.2.run", 2)
    assert ws.run is not None
    assert (ws.run.id, ws.run.key, ws.run.attempt) == ("r1", "k2", 2)
    assert steps_of(ws) == [
        ("stage", "1-stage", StepEnd.DONE),
        ("run", "2-run", None),
        ("export", "2-export", None),
    ]


def test_a_step_that_a_changed_pipeline_has_gained_is_run_and_all_that_follow() -> None:
    plan = replace(PLAN, steps=("stage", "verify", "run", "export"))
    ws = claimed_again(failed_at(passed(passed(in_progress()))), plan)
    assert ws.job == "HG002.2.verify"
    assert [end for *_, end in steps_of(ws)] == [StepEnd.DONE, None, None, None]


def test_a_pipeline_of_which_all_is_done_that_is_left_is_run_anew() -> None:
    ws = claimed_again(
        failed_at(passed(passed(in_progress()))), replace(PLAN, steps=("stage", "run"))
    )
    assert ws.job == "HG002.2.stage"
    assert ws.run is not None
    assert ws.run.id == "r2"


def test_steps_have_any_names_and_two_may_be_runs() -> None:
    plan = Plan(pipeline="two", steps=("align", "verify", "call"), optional=("verify",))
    ws = decide(started(), Inspected(Accepted(plan)), POLICY, NOW).workset
    ws = decide(ws, CLAIM, POLICY, NOW).workset
    jobs = []
    while ws.job:
        jobs.append(ws.job)
        ws = passed(ws)
    assert jobs == ["HG002.1.align", "HG002.1.verify", "HG002.1.call"]
    assert ws.state is State.COMPLETE


def test_missing_rights_of_ours_use_up_a_try_only_in_a_step_that_is_not_our_own() -> None:
    tail = "An error occurred (AccessDenied) when calling the GetObject operation: Access Denied"
    for own, tries in ((("stage",), 0), ((), 1)):
        ready = decide(started(), Inspected(Accepted(replace(PLAN, own=own))), POLICY, NOW).workset
        ws = decide(ready, CLAIM, POLICY, NOW).workset
        assert ws.job
        denied = JobExited(ws.job, Outcome(ended=Ended.EXITED, code=1, tail=tail))
        after = decide(ws, denied, POLICY, NOW).workset
        assert (after.state, after.retry_count) == (State.RETRYING, tries)


some = st.builds(
    Remarks,
    progress=st.none()
    | st.builds(Progress, st.sampled_from([None, 0.5]), st.sampled_from(["", "x"])),
    trouble=st.none() | st.sampled_from(["", "odd"]),
    unclear=st.none() | st.booleans(),
    confirmed=st.none() | st.sampled_from([JobName("a"), JobName("b")]),
)


@given(some, some)
def test_what_is_remarked_is_neither_lost_nor_told_twice(older: Remarks, newer: Remarks) -> None:
    run = a_run("run")
    assert newer.over(older).on(run) == newer.on(older.on(run))
    assert newer.beyond(newer) == Remarks()
    assert newer.beyond(Remarks()) == newer
    assert newer.beyond(older).on(older.on(run)) == newer.over(older).on(run)
