"""What commands make of a workset: effects, answers, and what they may not do."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daylily_daemon.domain import report
from daylily_daemon.domain.commands import FITS, apply, archived_from, ask, register
from daylily_daemon.domain.events import Inspected
from daylily_daemon.domain.lifecycle import decide
from daylily_daemon.domain.model import (
    Accepted,
    Archive,
    Ask,
    Cancel,
    Command,
    CommandEffect,
    Delete,
    HostLost,
    Ignore,
    Plan,
    Priority,
    Problem,
    RecordType,
    Restore,
    Retry,
    SetPriority,
    State,
    Submit,
    Transition,
    WorksetId,
)
from daylily_daemon.domain.workset import Workset
from tests import made
from tests.unit.engine_settings import a_policy

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ID = WorksetId("HG002")
SUBMIT = Submit(bucket="b", prefix="p/HG002/")
BAD_NAME = Problem("blood panel", "folder name", "is not a workset id.", "Rename it.")


def command(ask: Ask, id: str = "c1", by: str = "cli:me") -> Command:
    return Command(id=id, workset_id=ID, by=by, ask=ask)


def a_workset(state: State = State.READY, **changes: Any) -> Workset:
    return made.a_workset(ID, state, **changes)


def in_progress(**run: Any) -> Workset:
    return made.running(ID, **run)


asks = st.sampled_from(
    [
        *(SUBMIT, Cancel(), Retry(), HostLost(), Ignore(), SetPriority(priority=Priority.LOW)),
        *(Archive(), Restore(), Delete()),
    ]
)


@given(st.sampled_from(State), asks, st.booleans())
def test_every_command_gets_exactly_one_answer_with_a_sentence(
    state: State, ask: Ask, unclear: bool
) -> None:
    ws = in_progress(unclear=unclear) if state is State.IN_PROGRESS else a_workset(state)
    decision = apply(ws, command(ask), NOW)
    (answer,) = decision.answers
    assert answer.command_id == "c1"
    assert answer.text
    changed = decision.workset.state is not state or bool(decision.effects)
    assert not (answer.effect is CommandEffect.NONE and changed)
    assert apply(decision.workset, command(ask), NOW).answers == ()


@given(st.sampled_from(State), asks, st.booleans())
def test_a_command_has_an_effect_only_in_the_states_it_is_for(
    state: State, ask: Ask, unclear: bool
) -> None:
    ws = in_progress(unclear=unclear) if state is State.IN_PROGRESS else a_workset(state)
    (answer,) = apply(ws, command(ask), NOW).answers
    if state not in FITS[type(ask)] and not isinstance(ask, SetPriority):
        assert answer.effect is CommandEffect.NONE
    if state in FITS[type(ask)] and (state is not State.IN_PROGRESS or unclear):
        assert answer.effect is CommandEffect.APPLIED


# --- archive, restore, delete -------------------------------------------------------------------------


def _put_aside(state: State) -> Workset:
    history = (Transition(state=state, at=NOW),)
    return apply(a_workset(state, history=history), command(Archive()), NOW).workset


@pytest.mark.reported("E", "what was archived cannot be brought back (Appsilon/mediforce#1272)")
@given(st.sampled_from(sorted(FITS[Archive])), st.integers(0, 3))
def test_a_restored_workset_is_what_it_was_and_nothing_runs_by_that(
    state: State, more: int
) -> None:
    ws = _put_aside(state)
    before = a_workset(state)
    for n in range(more):
        ws = apply(ws, command(Restore(), f"r{n}"), NOW).workset
        ws = apply(ws, command(Archive(), f"a{n}"), NOW).workset
    assert archived_from(ws) is state
    decision = apply(ws, command(Restore(), "last"), NOW)
    back = decision.workset
    assert (back.state, back.run, back.plan, back.lock) == (state, before.run, before.plan, None)
    assert decision.effects == ()
    assert not any(record.notify for record in decision.records)


def test_an_archived_item_without_a_history_comes_back_as_what_starts_nothing() -> None:
    back = apply(a_workset(State.ARCHIVED), command(Restore()), NOW).workset
    assert back.state is State.IGNORED
    odd = a_workset(State.ARCHIVED, history=(Transition(state=State.READY, at=NOW),))
    assert apply(odd, command(Restore()), NOW).workset.state is State.IGNORED


@given(st.sampled_from(sorted(FITS[Archive])), asks)
def test_nothing_but_a_restore_or_a_delete_moves_an_archived_workset(
    state: State, what: Ask
) -> None:
    after = apply(_put_aside(state), command(what, "more"), NOW).workset.state
    moved = {Restore: state, Delete: State.DELETED}
    assert after is moved.get(type(what), State.ARCHIVED)


@given(asks)
def test_nothing_that_is_asked_of_a_deleted_workset_moves_it(ask: Ask) -> None:
    gone = apply(_put_aside(State.FAILED), command(Delete(), "d"), NOW).workset
    assert gone.state is State.DELETED
    decision = apply(gone, command(ask, "more"), NOW)
    assert (decision.workset.state, decision.effects) == (State.DELETED, ())
    assert decision.workset.last_seq > gone.last_seq, "the trail goes on"


@pytest.mark.parametrize("asked", [Archive(), Restore(), Delete()], ids=str)
@pytest.mark.parametrize("owner", ["a", None])
def test_what_is_never_for_a_run_is_answered_at_the_door(asked: Ask, owner: str | None) -> None:
    """A holder of the version before could not read an item in whose inbox it lies."""
    ws = made.running(ID, owner=owner)
    decision = ask(ws, command(asked), NOW)
    (answer,) = decision.answers
    assert answer.effect is CommandEffect.NONE
    assert "it is in_progress" in answer.text
    assert (decision.workset.inbox, decision.workset.run) == ((), ws.run)
    assert (decision.workset.lock, decision.workset.fence) == (ws.lock, ws.fence)


@pytest.mark.reported("A", "a submission under a known id by another customer takes it over")
@pytest.mark.parametrize("state", State)
def test_a_workset_of_another_customer_is_not_taken_over(state: State) -> None:
    ws = a_workset(state, customer_id="lab")
    theirs = command(replace(SUBMIT, customer_id="clinic", priority=Priority.URGENT))
    decision = apply(ws, theirs, NOW)
    (answer,) = decision.answers
    assert answer.effect is CommandEffect.REFUSED
    kept = decision.workset
    assert (kept.state, kept.request.customer_id, kept.priority) == (state, "lab", Priority.NORMAL)


def test_a_drop_without_a_customer_leaves_the_workset_to_its_own() -> None:
    ws = a_workset(State.FAILED, customer_id="lab")
    decision = apply(ws, command(SUBMIT), NOW)
    assert (decision.workset.state, decision.workset.request.customer_id) == (State.READY, "lab")


@pytest.mark.reported("D", "a bad folder name refused once is accepted at the second trigger")
@pytest.mark.parametrize("state", [State.READY, State.ERROR, State.CANCELED])
def test_what_was_refused_for_its_name_is_refused_again(state: State) -> None:
    bad = replace(SUBMIT, problem=BAD_NAME)
    first = register(command(bad), bad, NOW).workset
    assert first.state is State.ERROR
    again = apply(a_workset(state), command(bad, "c2"), NOW)
    assert again.workset.state is State.ERROR
    assert "is not a workset id" in again.workset.error_details


@pytest.mark.reported("E", "a new trigger of a complete workset tells nobody anything")
@pytest.mark.parametrize("state", [State.COMPLETE, State.ARCHIVED, State.IN_PROGRESS])
def test_who_drops_again_in_vain_is_told_so_and_what_to_do(state: State) -> None:
    dropped = command(replace(SUBMIT, sentinel="s2"), by="s3")
    decision = apply(a_workset(state, sentinel="s1"), dropped, NOW)
    (record,) = decision.records
    assert record.notify
    assert record.type is RecordType.STATE_CHANGE
    assert "another name" in record.message or "cancel it first" in record.message
    assert decision.answers[0].effect is CommandEffect.NONE
    assert decision.workset.request.sentinel == "s2", "the listing must not find it unanswered"


def test_a_trigger_that_one_door_answered_is_old_news_at_the_other() -> None:
    ws = a_workset(State.CANCELED, sentinel="s1", sentinel_order="05")
    for order in ("05", "04", ""):
        again = command(replace(SUBMIT, sentinel="s1", order=order), "c2", by="sweep")
        decision = apply(ws, again, NOW)
        assert decision.workset.state is State.CANCELED
        assert decision.records == ()
        assert decision.answers[0].effect is CommandEffect.NONE


def test_two_triggers_of_one_content_in_one_second_are_two() -> None:
    ws = a_workset(State.ERROR, sentinel="s1", sentinel_order="05")
    fixed = command(replace(SUBMIT, sentinel="s1", order="06"), "c2", by="s3")
    decision = apply(ws, fixed, NOW)
    assert decision.workset.state is State.READY
    assert decision.workset.request.sentinel_order == "06"
    late = apply(decision.workset, command(replace(SUBMIT, sentinel="s1", order="05"), "c3"), NOW)
    assert late.answers[0].effect is CommandEffect.NONE


def test_a_fresh_run_remembers_nothing_of_the_one_before() -> None:
    old = a_workset(
        State.FAILED,
        run=made.a_run(failed="export", reports={"reads": 1}, results_uri="s3://old/"),
        attempt=1,
        warnings=("old",),
        retry_count=3,
        error="old",
        plan=Plan(pipeline="demo", steps=("run",)),
    )
    fresh = apply(old, command(SUBMIT), NOW).workset
    assert (fresh.run, fresh.plan, fresh.failure, fresh.warnings) == (None, None, None, ())
    assert (fresh.results_uri, fresh.retry_count, fresh.attempt) == ("", 0, 1)
    assert fresh.request.submitted_at == NOW


def test_a_retry_by_an_operator_counts_tries_from_the_start_and_resumes() -> None:
    old = a_workset(State.FAILED, run=made.a_run(failed="export"), attempt=1, retry_count=3)
    again = apply(old, command(Retry()), NOW).workset
    assert (again.retry_count, again.run) == (0, old.run)


def test_vouching_ends_a_run_only_where_nobody_can_tell_whether_its_job_lives() -> None:
    seen = apply(in_progress(), command(HostLost()), NOW)
    assert seen.workset.state is State.IN_PROGRESS
    assert seen.answers[0].effect is CommandEffect.NONE
    given_up = apply(in_progress(unclear=True), command(HostLost()), NOW).workset
    assert given_up.state is State.READY
    assert given_up.run is not None
    assert given_up.run.failed is not None
    assert given_up.run.failed.name == "run"
    assert not given_up.unclear


def test_vouching_for_a_run_that_is_being_stopped_ends_it_as_canceled() -> None:
    stopping = in_progress(unclear=True, stopping="canceled by me")
    ended = apply(stopping, command(HostLost()), NOW).workset
    assert (ended.state, ended.step) == (State.CANCELED, None)
    assert ended.run is not None
    assert (ended.run.stopping, ended.run.failed) == ("", None)


@pytest.mark.parametrize(
    ("allowed", "customer", "expected"),
    [
        (("*",), "", Priority.URGENT),
        ((), "lab", Priority.NORMAL),
        (("lab*",), "lab-3", Priority.URGENT),
        (("lab",), "", Priority.NORMAL),
    ],
)
def test_a_recipe_may_ask_to_be_urgent_where_its_customer_may(
    allowed: tuple[str, ...], customer: str, expected: Priority
) -> None:
    plan = Plan(pipeline="demo", steps=("run",))
    policy = a_policy(urgent_customers=allowed)
    ws = a_workset(customer_id=customer)
    checked = decide(ws, Inspected(Accepted(plan, priority="urgent")), policy, NOW).workset
    assert checked.priority is expected
    assert bool(checked.warnings) == (expected is Priority.NORMAL)


def test_warnings_are_bounded_and_told_once_each() -> None:
    many = tuple(f"{n}" * 1000 for n in range(100))
    plan = Plan(pipeline="demo", steps=("run",))
    inspected = Inspected(Accepted(plan, warnings=(*many, *many)))
    warned = decide(a_workset(), inspected, a_policy(), NOW).workset.warnings
    assert len(warned) == 20
    assert max(map(len, warned)) == 300


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=60,
)


@given(st.dictionaries(st.text(), json_values))
def test_any_report_becomes_one_that_can_be_stored(found: dict[str, object]) -> None:
    kept = report.bounded(found)
    repr(kept).encode()
    assert report.bounded(kept) == kept
    assert _size(kept) <= report.KEYS
    assert all(isinstance(text, str) for text in report.warnings_of(found))


def test_a_report_is_kept_to_its_bounds_and_not_one_less() -> None:
    deep = {"1": {"2": {"3": {"4": {"5": 1}}}}}
    assert report.bounded(deep) == {"1": {"2": {"3": {"4": "(left out)"}}}}
    assert report.bounded({"1": [[[[1]]]]}) == {"1": [[["(left out)"]]]}
    many = {f"k{n}": n for n in range(report.KEYS + 1)}
    assert report.bounded(many) == {f"k{n}": n for n in range(report.KEYS)}
    long = report.bounded({"l": list(range(report.KEYS)), "after": 1})
    assert long == {"l": list(range(report.KEYS - 1))}
    full = report.bounded({f"k{n}": [] for n in range(report.KEYS - 1)} | {"last": [1, 2]})
    assert full["last"] == []
    assert report.bounded({"k" * 81: "v" * 501, "": 1}) == {"k" * 80: "v" * 500}
    odd = {"a": 10**30, "b": 10**30 - 1, "c": 1e31, "d": 1e-31, "e": -1e29, "f": 0.0, "g": object()}
    assert report.bounded(odd) == {
        **{"a": "a whole number of 100 bits", "b": 10**30 - 1, "c": "1e+31", "d": "1e-31"},
        **{"e": -1e29, "f": 0.0, "g": "(left out)"},
    }
    assert report.merged({"a": 1, "b": 2}, {"b": 3}) == {"b": 3, "a": 1}
    assert report.warnings_of({"warnings": ["w", "", 1, "x", "y", "z"]}) == ("w", "x", "y")
    assert report.warnings_of({"warnings": "text"}) == ()


def _size(value: object) -> int:
    if isinstance(value, dict):
        return sum(1 + _size(v) for v in value.values())
    return sum(1 + _size(v) for v in value) if isinstance(value, list) else 0


def test_a_run_that_is_given_up_begins_at_the_first_step_if_that_is_asked_for() -> None:
    unclear = in_progress(unclear=True)
    kept = apply(unclear, command(HostLost()), NOW).workset
    anew = apply(unclear, command(HostLost(from_start=True)), NOW).workset
    assert kept.run is not None
    assert kept.run.failed is not None
    assert anew.run is None


@given(st.sampled_from(sorted(set(State) - {State.IN_PROGRESS})), asks)
def test_an_inbox_that_nobody_reads_any_more_is_obeyed_before_the_next_command(
    state: State, what: Ask
) -> None:
    waiting = (command(SetPriority(priority=Priority.LOW), "c1"), command(Retry(), "c2"))
    ws = a_workset(state, inbox=waiting)
    decision = ask(ws, command(what, "c3"), NOW)
    assert [answer.command_id for answer in decision.answers] == ["c1", "c2", "c3"]
    assert all(answer.effect is not CommandEffect.QUEUED for answer in decision.answers)
    assert decision.workset.inbox == ()
    one_by_one = ws
    for each in (*waiting, command(what, "c3")):
        one_by_one = apply(one_by_one, each, NOW).workset
    assert decision.workset == one_by_one


def test_the_inbox_of_a_run_that_nobody_holds_is_left_to_who_takes_it_up() -> None:
    orphaned = replace(in_progress(), lock=None, inbox=(command(Retry(), "c1"),))
    decision = ask(orphaned, command(SetPriority(priority=Priority.LOW), "c2"), NOW)
    assert [c.id for c in decision.workset.inbox] == ["c1"]
    assert [answer.command_id for answer in decision.answers] == ["c2"]
