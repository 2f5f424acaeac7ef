"""Lines: what differs in nothing but its time stands together, and sorts by that."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daylily_daemon.domain.model import Command, HostLost, Plan, Priority, State, WorksetId
from daylily_daemon.domain.turn import ANYWHERE, Need, Queue, Turn, turn_of
from daylily_daemon.domain.workset import Workset
from tests.made import NOW, a_workset, asked, running

LATER = NOW + timedelta(seconds=90)


def a_plan(cluster: str = "") -> Plan:
    return Plan(pipeline="demo", steps=("run",), cluster_name=cluster)


def turn(ws: Workset) -> Turn:
    found = turn_of(ws)
    assert found is not None
    return found


@pytest.mark.parametrize("state", sorted(set(State) - {State.READY, State.RETRYING}))
def test_what_neither_waits_nor_runs_has_no_turn(state: State) -> None:
    found = turn_of(a_workset("w1", state))
    assert (found is None) == (state is not State.IN_PROGRESS)


@pytest.mark.parametrize(
    ("changes", "need", "since"),
    [
        ({}, Need.UNCHECKED, NOW),
        ({"plan": a_plan()}, Need.READY, NOW),
        ({"plan": a_plan(), "submitted_at": LATER}, Need.READY, LATER),
        ({"state": State.RETRYING, "retry_after": LATER}, Need.RETRYING, LATER),
    ],
)
def test_it_waits_for_what_it_needs_next_since_it_began_to(
    changes: dict[str, Any], need: Need, since: Any
) -> None:
    found = turn(a_workset("w1", **changes))
    assert (found.need, found.since) == (need, since.isoformat())


def test_a_retry_without_a_time_is_due_before_all_others() -> None:
    now, later = (
        turn(a_workset(id, State.RETRYING, retry_after=at)) for id, at in (("a", None), ("b", NOW))
    )
    assert now.line == later.line
    assert now.key < later.key


TEXT = st.text(st.characters(codec="utf-8"), max_size=60)


@given(customer=TEXT, cluster=TEXT, priority=st.sampled_from(Priority), seconds=st.floats(0, 1e8))
def test_the_keys_of_a_line_sort_by_time_and_lie_before_its_end(
    customer: str, cluster: str, priority: Priority, seconds: float
) -> None:
    def at(off_s: float) -> Turn:
        changes: dict[str, Any] = {"customer_id": customer, "priority": priority}
        when = NOW + timedelta(seconds=off_s)
        return turn(a_workset("w1", plan=a_plan(cluster), submitted_at=when, **changes))

    first, second = at(seconds), at(seconds + 0.001)
    assert first.line == second.line
    assert first.key <= second.key < first.beyond
    assert len(first.key.encode()) <= 1024, "as DynamoDB wants it"
    assert first.key.isascii()


@given(customers=st.sets(TEXT, min_size=2, max_size=2))
def test_no_line_ends_within_another(customers: set[str]) -> None:
    one, other = sorted(
        (turn(a_workset("w1", plan=a_plan(), customer_id=name)) for name in customers),
        key=lambda each: each.key,
    )
    if one.line != other.line:
        assert one.beyond < other.key


@given(customer=st.text(st.characters(codec="ascii"), max_size=60))
def test_what_runs_is_found_by_its_scope_and_counted_for_its_customer(customer: str) -> None:
    found = turn(asked(running("w1", scope="host:m1/d|1"), customer_id=customer))
    assert (found.queue, found.scope, found.customer) == (Queue.RUNNING, "host:m1/d|1", customer)


def test_a_run_whose_machine_is_gone_is_anybodys() -> None:
    vouched = Command(id="c1", workset_id=WorksetId("w1"), by="cli", ask=HostLost())
    found = turn(replace(running("w1", scope="host:*"), inbox=(vouched,)))
    assert found.scope == ANYWHERE
    assert turn(running("w1", scope=ANYWHERE)).key != found.key, "no scope can say so of itself"


def test_a_heartbeat_does_not_move_a_run() -> None:
    ws = running("w1")
    assert turn_of(replace(ws, beat=9, version=7, waiting_for="x", retry_count=1)) == turn_of(ws)


@pytest.mark.parametrize("key", ["", "x", "||||||||", "later|1|a|b", "ready"])
def test_a_key_that_somebody_else_wrote_can_be_read(key: str) -> None:
    for queue in Queue:
        found = Turn(queue, key, WorksetId("w1"))
        assert isinstance((found.need, found.customer, found.cluster, found.since)[0], str)
        assert found.beyond > found.line
        assert found.since_at < NOW


@pytest.mark.parametrize(
    "since", ["2026-02-01", "2026-02-01T00:00:00", "2026-02-01T01:00:00+01:00"]
)
def test_a_time_without_a_zone_is_utc(since: str) -> None:
    found = Turn(Queue.WAITING, f"retrying|1|||{since}|w1", WorksetId("w1"))
    assert found.since_at == datetime(2026, 2, 1, tzinfo=UTC)
