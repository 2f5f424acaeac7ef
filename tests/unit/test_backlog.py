"""What a daemon believes of worksets that wait: two sources, one of which lags behind."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from daylily_daemon.domain.model import Command, Fence, HostLost, Plan, Priority, State, WorksetId
from daylily_daemon.domain.workset import Workset
from daylily_daemon.engine.backlog import Backlog, BeatObserver, Look
from tests.made import NOW, a_lock, a_workset, running

PLAN = Plan(pipeline="demo", steps=("run",))
TTL_S = 60.0


def a_backlog() -> Backlog:
    return Backlog(owner="me", observer=BeatObserver(TTL_S), index_lag_s=30.0)


def ready(id: str = "w1", version: int = 1, **named: Any) -> Workset:
    return a_workset(id, version=version, **{"plan": PLAN, **named})


def startable(backlog: Backlog, now: float, held: frozenset[WorksetId] = frozenset()) -> list[str]:
    return [ws.id for ws in backlog.to_start(held, now, NOW)]


def sees_all(scope: str) -> bool:
    return True


def test_the_index_fills_it_and_what_is_gone_from_there_is_gone() -> None:
    backlog = a_backlog()
    backlog.read(Look(waiting=[ready("w1"), ready("w2")], in_progress=[]), now=0.0)
    assert startable(backlog, 0.0) == ["w1", "w2"]
    backlog.read(Look(waiting=[ready("w2")], in_progress=[]), now=15.0)
    assert startable(backlog, 15.0) == ["w2"]


def test_what_was_stored_lately_counts_though_the_index_does_not_show_it_yet() -> None:
    backlog = a_backlog()
    backlog.stored(ready(), now=0.0)
    backlog.read(Look(waiting=[], in_progress=[]), now=29.0)
    assert startable(backlog, 29.0) == ["w1"]
    backlog.read(Look(waiting=[], in_progress=[]), now=31.0)
    assert startable(backlog, 31.0) == []


@pytest.mark.parametrize(("known", "shown", "kept"), [(3, 2, 3), (2, 3, 3), (2, 2, 2)])
def test_of_two_versions_the_greater_one_counts(known: int, shown: int, kept: int) -> None:
    backlog = a_backlog()
    backlog.stored(ready(version=known), now=0.0)
    backlog.read(Look(waiting=[ready(version=shown)], in_progress=[]), now=1.0)
    assert backlog.waiting[WorksetId("w1")].version == kept
    backlog.stored(ready(version=1), now=2.0)
    assert backlog.waiting[WorksetId("w1")].version == kept, "late news is no news"


def test_what_is_stored_as_ended_waits_no_more_and_is_no_run_either() -> None:
    backlog = a_backlog()
    backlog.read(Look(waiting=[], in_progress=[running("w1")]), now=0.0)
    backlog.stored(a_workset("w1", State.COMPLETE, version=9), now=1.0)
    assert (backlog.waiting, backlog.in_progress) == ({}, {})


def test_what_rests_is_left_alone_until_its_time_and_then_something_is_due() -> None:
    backlog = a_backlog()
    backlog.read(Look(waiting=[ready()], in_progress=[]), now=0.0)
    backlog.read_at = 100.0
    backlog.rest(WorksetId("w1"), until=40.0)
    assert startable(backlog, 39.9) == []
    assert backlog.next_at(0.0, NOW) == 40.0
    backlog.wake(40.0)
    assert startable(backlog, 40.0) == ["w1"]
    assert backlog.next_at(40.0, NOW) == 100.0


def test_a_doubt_makes_the_next_reading_come_sooner_never_later() -> None:
    backlog = a_backlog()
    backlog.read_at = 10.0
    backlog.doubt(WorksetId("w1"), until=5.0)
    assert backlog.read_at == 5.0
    backlog.doubt(WorksetId("w1"), until=50.0)
    assert backlog.read_at == 5.0


def test_a_pause_before_the_next_try_is_waited_for_by_the_second() -> None:
    backlog = a_backlog()
    backlog.read_at = 1000.0
    after = NOW + timedelta(seconds=90)
    backlog.stored(ready(state=State.RETRYING, retry_after=after), now=0.0)
    assert backlog.next_at(7.0, NOW) == 97.0
    assert startable(backlog, 0.0) == []
    assert [ws.id for ws in backlog.to_start((), 0.0, after)] == ["w1"]


def test_what_somebody_else_holds_is_free_only_after_its_beat_stood_still_for_a_whole_ttl() -> None:
    backlog, theirs = a_backlog(), replace(running("w1"), lock=a_lock("other"), fence=Fence(3))
    backlog.read(Look(waiting=[], in_progress=[theirs]), now=0.0)
    assert not backlog.is_free(theirs, 59.9)
    backlog.read(Look(waiting=[], in_progress=[replace(theirs, beat=1)]), now=59.0)
    assert not backlog.is_free(replace(theirs, beat=1), 118.9)
    assert backlog.is_free(replace(theirs, beat=1), 119.0)
    assert not backlog.is_free(replace(theirs, beat=2), 119.0), "that beat was not watched"


def test_a_workset_that_is_of_no_interest_any_more_is_watched_anew() -> None:
    backlog, theirs = a_backlog(), replace(running("w1"), lock=a_lock("other"))
    backlog.read(Look(waiting=[], in_progress=[theirs]), now=0.0)
    backlog.read(Look(waiting=[], in_progress=[]), now=30.0)
    backlog.read(Look(waiting=[], in_progress=[theirs]), now=60.0)
    assert not backlog.is_free(theirs, 119.0)
    assert backlog.is_free(theirs, 120.0)


def test_runs_are_adopted_where_their_jobs_are_seen_or_somebody_vouches_for_their_end() -> None:
    lost = Command(id="c", workset_id=WorksetId("far"), by="ann", ask=HostLost())
    here, far = running("here", scope="host:1"), running("far", scope="host:2")
    vouched = replace(running("gone", scope="host:2"), inbox=(lost,))
    backlog = a_backlog()
    backlog.read(Look(waiting=[], in_progress=[here, far, vouched]), now=0.0)
    found = backlog.to_adopt(lambda scope: scope == "host:1", {WorksetId("x")}, 0.0)
    assert [ws.id for ws in found] == ["here", "gone"]
    assert list(backlog.to_adopt(sees_all, {ws.id for ws in (here, far, vouched)}, 0.0)) == []


def test_inputs_are_checked_of_ready_worksets_without_a_plan_that_nobody_holds() -> None:
    backlog = a_backlog()
    unchecked = [ready(id, plan=None) for id in ("a", "b", "c")]
    backlog.read(Look(waiting=[*unchecked, ready("d")], in_progress=[]), now=0.0)
    backlog.rest(WorksetId("c"), until=9.0)
    assert [ws.id for ws in backlog.to_check({WorksetId("b")}, 0.0)] == ["a"]


def test_jobs_of_this_host_that_nobody_tends_take_slots_of_their_customers() -> None:
    mine = replace(running("mine"), lock=a_lock("me"))
    free = replace(running("free"), lock=None)
    theirs = replace(running("theirs"), lock=a_lock("other"))
    backlog = a_backlog()
    backlog.read(Look(waiting=[], in_progress=[mine, free, theirs]), now=0.0)
    assert set(backlog.unheld(sees_all)) == {"mine", "free"}
    assert backlog.unheld(lambda scope: False) == {}


def test_before_the_first_reading_nobody_knows_what_runs() -> None:
    backlog = a_backlog()
    backlog.stored(ready(), now=0.0)
    assert not backlog.was_read
    backlog.read(Look(waiting=[], in_progress=[]), now=0.0)
    assert backlog.was_read


def test_what_rests_is_known_through_a_reading_that_does_not_look_for_it() -> None:
    backlog = a_backlog()
    backlog.read(Look(waiting=[ready()]), now=0.0)
    backlog.rest(WorksetId("w1"), until=200.0)
    backlog.read(Look(), now=100.0)
    backlog.wake(200.0)
    assert startable(backlog, 200.0) == ["w1"]
    backlog.read(Look(), now=201.0)
    assert startable(backlog, 201.0) == []


def test_what_was_not_looked_for_is_kept_and_what_was_is_not() -> None:
    backlog = a_backlog()
    backlog.read(Look(waiting=[ready("w1"), ready("w2")]), now=0.0)
    backlog.read(Look(waiting=[ready("w3")], complete=False, more=True), now=1.0)
    assert sorted(startable(backlog, 1.0)) == ["w1", "w2", "w3"]
    assert backlog.more
    backlog.read(Look(waiting=[ready("w3")]), now=2.0)
    assert startable(backlog, 2.0) == ["w3"]
    assert not backlog.more


def test_no_more_is_remembered_than_a_bound_but_for_what_is_urgent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("daylily_daemon.engine.backlog.MOST_KNOWN", 2)
    backlog = a_backlog()
    for id in ("w1", "w2", "w3"):
        backlog.stored(ready(id), now=0.0)
    assert (startable(backlog, 0.0), backlog.more) == (["w1", "w2"], True)
    backlog.stored(ready("baby", priority=Priority.URGENT), now=0.0)
    assert startable(backlog, 0.0) == ["w1", "w2", "baby"]
    backlog.read(Look(waiting=[ready("w4")], complete=False), now=1.0)
    assert startable(backlog, 1.0) == ["w4", "w1"]


def test_a_run_that_ended_here_is_counted_for_its_customer_no_more() -> None:
    backlog = a_backlog()
    backlog.read(Look(runs={WorksetId("w1"): "lab", WorksetId("w2"): "lab"}), now=0.0)
    backlog.stored(running("w2"), now=1.0)
    backlog.stored(a_workset("w1", State.COMPLETE), now=1.0)
    assert backlog.runs == {"w2": "lab"}


def test_what_another_daemon_holds_is_read_again_each_time_for_its_beat() -> None:
    backlog = a_backlog()
    held, own = ready("w1", owner="other"), ready("w2", owner="me")
    backlog.read(Look(waiting=[held, own, ready("w3")]), now=0.0)
    assert sorted(backlog.as_read()) == ["w2", "w3"]


def test_it_is_used_up_when_nothing_known_can_be_checked_or_started_now() -> None:
    backlog = a_backlog()
    assert backlog.is_used_up((), 0.0, NOW)
    backlog.read(Look(waiting=[ready("w1")]), now=0.0)
    assert not backlog.is_used_up((), 0.0, NOW)
    assert backlog.is_used_up({WorksetId("w1")}, 0.0, NOW)
    backlog.read(Look(waiting=[ready("w1", plan=None)]), now=0.0)
    assert not backlog.is_used_up((), 0.0, NOW)
