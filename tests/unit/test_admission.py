"""Who may start, in which order, and why not."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from daylily_daemon.domain.admission import Capacity, admit
from daylily_daemon.domain.model import Plan, Priority, State, Step, Workset, WorksetId

NOW = datetime(2026, 3, 1, tzinfo=UTC)
PLAN = Plan(pipeline="demo", steps=(Step.RUN,))


def a_workset(id: str, **changes: object) -> Workset:
    age_s = changes.pop("age_s", 60.0)
    at = NOW - timedelta(seconds=float(str(age_s)))
    ws = Workset(id=WorksetId(id), bucket="b", prefix="p/", created_at=at, updated_at=at, plan=PLAN)
    return replace(ws, **changes)  # type: ignore[arg-type]


candidates = st.lists(
    st.builds(
        a_workset,
        id=st.uuids().map(lambda u: u.hex),
        age_s=st.floats(0, 10 * 86400),
        priority=st.sampled_from(Priority),
        customer_id=st.sampled_from(["", "lab", "clinic"]),
        state=st.sampled_from([State.READY, State.RETRYING]),
    ),
    max_size=20,
)


@given(candidates, st.integers(0, 6), st.integers(0, 6), st.integers(0, 3))
def test_never_more_than_slots_and_everyone_gets_a_reason(
    found: list[Workset], slots: int, running: int, per_customer: int
) -> None:
    capacity = Capacity(slots=slots, running=running, per_customer=per_customer)
    verdicts = admit(found, capacity, NOW)
    admitted = {v.workset_id for v in verdicts if v.admitted}
    assert len(admitted) <= max(0, slots - running)
    assert sorted(v.workset_id for v in verdicts) == sorted(ws.id for ws in found)
    assert all(v.reason.endswith(".") for v in verdicts)
    for customer in ("lab", "clinic"):
        theirs = [ws for ws in found if ws.id in admitted and ws.customer_id == customer]
        assert not per_customer or len(theirs) <= per_customer


def order_of(*worksets: Workset) -> list[str]:
    return [str(v.workset_id) for v in admit(worksets, Capacity(slots=9, running=0), NOW)]


def test_urgent_first_then_first_in_first_out() -> None:
    low = a_workset("low", priority=Priority.LOW)
    old, new = a_workset("old", age_s=90.0), a_workset("new", age_s=30.0)
    urgent = a_workset("urgent", priority=Priority.URGENT, age_s=1.0)
    assert order_of(new, low, urgent, old) == ["urgent", "old", "new", "low"]


def test_low_priority_that_waited_long_enough_passes_the_rest() -> None:
    low = a_workset("low", priority=Priority.LOW, age_s=13 * 3600.0)
    urgent = a_workset("urgent", priority=Priority.URGENT, age_s=1.0)
    assert order_of(urgent, low) == ["low", "urgent"]


def test_the_reason_names_what_is_waited_for() -> None:
    unchecked = a_workset("w", plan=None, progress_message="waiting for input: sheet")
    later = a_workset("r", state=State.RETRYING, retry_after=NOW + timedelta(minutes=5))
    reasons = {
        v.workset_id: v.reason for v in admit([unchecked, later], Capacity(slots=1, running=0), NOW)
    }
    assert "waiting for input: sheet" in reasons[unchecked.id]
    assert "00:05:00" in reasons[later.id]
    full = admit([a_workset("x")], Capacity(slots=2, running=2), NOW)[0]
    assert not full.admitted
    assert "All 2 slots are taken" in full.reason


def test_a_host_without_room_starts_nothing_and_says_why() -> None:
    capacity = Capacity(slots=4, running=0, held="The disk of /data is full.")
    (verdict,) = admit([a_workset("w1")], capacity, NOW)
    assert (verdict.admitted, verdict.reason) == (False, "The disk of /data is full.")
