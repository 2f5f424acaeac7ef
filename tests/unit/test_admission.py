"""Who may start, in which order, and why not."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from daylily_daemon.domain.admission import Capacity, admit, capacity_of, room_for
from daylily_daemon.domain.model import Plan, Priority, State, WorksetId
from daylily_daemon.domain.workset import Workset
from tests import made
from tests.made import asked
from tests.unit.engine_settings import some_limits

NOW = datetime(2026, 3, 1, tzinfo=UTC)
PLAN = Plan(pipeline="demo", steps=("run",))
DAY_S = 86_400.0


def a_workset(id: str, age_s: float = 60.0, **changes: Any) -> Workset:
    return made.a_workset(id, now=NOW - timedelta(seconds=age_s), **{"plan": PLAN, **changes})


def room(slots: int = 9, running: int = 0, held: str = "", **limits: object) -> Capacity:
    return Capacity(
        limits=some_limits(slots=slots, **limits),
        running=running,
        held=held,
    )


candidates = st.lists(
    st.builds(
        a_workset,
        id=st.uuids().map(lambda u: u.hex),
        age_s=st.floats(0, 10 * DAY_S),
        priority=st.sampled_from(Priority),
        customer_id=st.sampled_from(["", "lab", "clinic"]),
        state=st.sampled_from([State.READY, State.RETRYING]),
    ),
    max_size=20,
)
MANY = [a_workset(f"w{n}", customer_id=c) for n, c in enumerate(["lab", "clinic", ""] * 4)]


@given(candidates, st.integers(0, 9), st.integers(0, 6), st.integers(0, 3))
@example(MANY, 9, 0, 1)
@example(MANY, 9, 0, 2)
@example(MANY, 9, 3, 3)
def test_never_more_than_the_limits_and_everyone_gets_a_reason(
    found: list[Workset], slots: int, running: int, per_customer: int
) -> None:
    limits = some_limits(slots=slots, per_customer=per_customer)
    verdicts = admit(found, Capacity(limits=limits, running=running, customers={"lab": 1}), NOW)
    admitted = {v.workset_id for v in verdicts if v.admitted}
    assert len(admitted) <= max(0, slots - running)
    assert sorted(v.workset_id for v in verdicts) == sorted(ws.id for ws in found)
    assert all(v.reason.endswith(".") for v in verdicts)
    for customer, before in (("lab", 1), ("clinic", 0), ("", 0)):
        theirs = [ws for ws in found if ws.request.customer_id == customer]
        taken = sum(ws.id in admitted for ws in theirs)
        assert not per_customer or taken + before <= max(per_customer, before)
        idle = slots - running > len(admitted)
        if per_customer and idle:
            assert taken + before == max(before, min(per_customer, len(theirs) + before))


def order_of(*worksets: Workset, **limits: object) -> list[str]:
    return [str(v.workset_id) for v in admit(worksets, room(**limits), NOW)]  # type: ignore[arg-type]


def test_urgent_first_then_first_in_first_out() -> None:
    low = a_workset("low", priority=Priority.LOW)
    old, new = a_workset("old", age_s=90.0), a_workset("new", age_s=30.0)
    urgent = a_workset("urgent", priority=Priority.URGENT, age_s=1.0)
    assert order_of(new, low, urgent, old) == ["urgent", "old", "new", "low"]


@pytest.mark.reported("D", "ageing that turns the priorities off")
def test_low_that_waited_long_counts_as_normal_and_nothing_ever_counts_as_urgent() -> None:
    low = a_workset("low", priority=Priority.LOW, age_s=40 * DAY_S)
    normal = a_workset("normal", age_s=30 * DAY_S)
    newer = a_workset("newer", age_s=1.0)
    urgent = a_workset("urgent", priority=Priority.URGENT, age_s=0.0)
    assert order_of(newer, urgent, normal, low) == ["urgent", "low", "normal", "newer"]
    day_old = asked(low, submitted_at=NOW - timedelta(hours=19))
    assert order_of(newer, urgent, day_old) == ["urgent", "newer", "low"]


def test_low_is_not_starved_by_normal_work_that_keeps_coming() -> None:
    low = a_workset("low", priority=Priority.LOW, age_s=2 * DAY_S)
    assert order_of(low, *(a_workset(f"n{n}", age_s=n) for n in range(20)))[0] == "low"


def test_the_reason_names_what_is_waited_for() -> None:
    unchecked = a_workset("w", plan=None, waiting_for="waiting for input: sheet")
    later = a_workset("r", state=State.RETRYING, retry_after=NOW + timedelta(minutes=5))
    reasons = {v.workset_id: v.reason for v in admit([unchecked, later], room(1), NOW)}
    assert "waiting for input: sheet" in reasons[unchecked.id]
    assert "00:05:00" in reasons[later.id]
    first, second, third = admit(
        [a_workset("x", age_s=9.0), a_workset("y", age_s=8.0), a_workset("z", age_s=7.0)],
        room(slots=2, running=2),
        NOW,
    )
    assert not first.admitted
    assert first.reason == "2 of 2 slots are taken, and no worksets are before it."
    assert second.reason.endswith("1 workset is before it.")
    assert third.reason.endswith("2 worksets are before it.")
    (closed,) = admit([a_workset("x")], room(slots=0), NOW)
    assert "daemon.max_worksets is 0" in closed.reason


def test_a_host_without_room_starts_nothing_and_says_why() -> None:
    capacity = room(4, held="The disk of /data is full.")
    (verdict,) = admit([a_workset("w1")], capacity, NOW)
    assert (verdict.admitted, verdict.reason) == (False, "The disk of /data is full.")


def test_worksets_without_a_customer_count_as_those_of_one() -> None:
    verdicts = admit([a_workset("a"), a_workset("b")], room(per_customer=1), NOW)
    assert [v.admitted for v in verdicts] == [True, False]
    assert "Work without a customer" in verdicts[1].reason


@pytest.mark.parametrize("here", ["", "other"])
def test_what_asks_for_another_cluster_is_not_run_here_and_holds_nobody_up(here: str) -> None:
    theirs = a_workset("theirs", plan=replace(PLAN, cluster_name="hpc-1"), age_s=99.0)
    first, second = admit([theirs, a_workset("ours")], room(1, cluster=here), NOW)
    assert not first.admitted
    assert "hpc-1" in first.reason
    assert second.admitted
    (verdict,) = admit([theirs], room(1, cluster="hpc-1"), NOW)
    assert verdict.admitted


def test_what_runs_is_counted_once_whoever_runs_it() -> None:
    mine, others = a_workset("mine", customer_id="lab"), a_workset("other", customer_id="lab")
    limits = some_limits(slots=2, per_customer=2)
    capacity = capacity_of(
        limits, {mine.id: "lab", WorksetId("new"): "clinic"}, {mine.id: "lab", others.id: "lab"}
    )
    assert capacity.running == 2
    assert capacity.customers == {"lab": 2, "clinic": 1}


def _lines(work: Callable[[], object]) -> int:
    """Return how many lines of Python ran: what a function costs, whatever else the machine does."""
    count = 0

    def trace(*_: object) -> object:
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)  # type: ignore[arg-type]
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def test_admission_costs_no_more_a_workset_however_many_wait() -> None:
    def cost(n: int) -> int:
        waiting = [a_workset(f"w{k}", age_s=float(k)) for k in range(n)]
        return _lines(lambda: admit(waiting, room(slots=1, running=1), NOW))

    assert cost(800) < 1.5 * 8 * cost(100)


@pytest.mark.parametrize(
    ("slots", "per_customer", "running", "taken", "held", "room"),
    [
        (4, 0, 1, 1, "", 3),
        (4, 0, 6, 1, "", 0),
        (4, 2, 1, 1, "", 1),
        (4, 2, 0, 3, "", 0),
        (4, 9, 3, 0, "", 1),
        (4, 0, 0, 0, "no room on the disk", 0),
        (4, 2, 0, 0, "no room on the disk", 0),
    ],
)
def test_the_room_for_a_customer_is_what_slots_and_its_limit_leave(
    slots: int, per_customer: int, running: int, taken: int, held: str, room: int
) -> None:
    limits = some_limits(slots=slots, per_customer=per_customer)
    capacity = Capacity(limits=limits, running=running, customers={"lab": taken}, held=held)
    assert room_for(capacity, "lab") == room
