"""What one reading of an index brings, and what it costs, whatever waits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daylily_daemon.domain.model import Plan, Priority, State, WorksetId
from daylily_daemon.domain.turn import Queue, Turn, turn_of
from daylily_daemon.domain.workset import Workset
from daylily_daemon.engine import lineup
from daylily_daemon.engine.lineup import Heads, Lineup
from tests.fakes.store import MemoryTurns, Table
from tests.made import NOW, a_workset, running
from tests.sim.planting import put
from tests.sim.vclock import BACKEND

T = TypeVar("T")
PLAN = Plan(pipeline="demo", steps=("run",))


def ready(id: str, at_s: float = 0.0, **named: Any) -> Workset:
    since = NOW + timedelta(seconds=at_s)
    return a_workset(id, **{"plan": PLAN, "submitted_at": since, **named})


class Counted(MemoryTurns):
    """Turns of these worksets, with what was asked of them."""

    def __init__(self, *worksets: Workset) -> None:
        self.table = Table({ws.id: ws for ws in worksets})
        super().__init__(self.table)
        self.calls = 0
        self.rows = 0
        self.loaded: list[WorksetId] = []
        self.refiled: list[WorksetId] = []

    async def line_up(self, queue: Queue, *, after: str = "", limit: int) -> Sequence[Turn]:
        found = await super().line_up(queue, after=after, limit=limit)
        self.calls += 1
        self.rows += len(found)
        return found

    async def load_all(self, ids: Sequence[WorksetId]) -> Sequence[Workset]:
        self.loaded += ids
        return await super().load_all(ids)

    async def refile(self, ws: Workset) -> None:
        self.refiled.append(ws.id)


def played(work: Callable[[], Awaitable[T]]) -> T:
    return anyio.run(work, backend_options=BACKEND)


def heads(
    line: Lineup, use: Callable[[Turn], int] = lambda _: 2, known: Collection[Any] = ()
) -> Heads:
    return played(lambda: line.waiting(use, known.__contains__))


def ids(found: Heads) -> list[str]:
    return [turn.id for turn in found.turns]


def test_of_each_line_the_first_ones_are_read_and_the_rest_is_left() -> None:
    turns = Counted(
        *(ready(f"n{n}", n) for n in range(5)),
        *(ready(f"u{n}", n, priority=Priority.URGENT) for n in range(3)),
        *(ready(f"b{n}", n, customer_id="b") for n in range(2)),
    )
    found = heads(Lineup(turns))
    assert ids(found) == ["u0", "u1", "b0", "b1", "n0", "n1"]
    assert (found.complete, found.more) == (True, True)


@pytest.mark.reported("B", "all that is due is loaded, without a limit (db-scheduler#127)")
@pytest.mark.reported("B", "every poll reads the whole backlog (superplane#6989)")
@pytest.mark.reported("B", "one call loops over 100,000 jobs (sidekiq#3332)")
def test_what_waits_in_a_long_line_costs_no_more_than_a_short_one() -> None:
    few, many = (Counted(*(ready(f"w{n:05}", n) for n in range(size))) for size in (150, 3000))
    assert ids(heads(Lineup(few))) == ids(heads(Lineup(many))) == ["w00000", "w00001"]
    assert (few.calls, few.rows) == (many.calls, many.rows) == (2, lineup.PAGE)


def test_nothing_more_waits_where_every_line_was_read_to_its_end() -> None:
    found = heads(Lineup(Counted(ready("a"), ready("b", 1))))
    assert (ids(found), found.complete, found.more) == (["a", "b"], True, False)
    assert heads(Lineup(Counted())) == Heads([], complete=True, more=False)


def test_a_line_that_is_of_no_use_is_left_at_once_and_nobody_waits_behind_it() -> None:
    turns = Counted(*(ready(f"a{n:03}", customer_id="a") for n in range(500)), ready("b"))
    found = heads(Lineup(turns), use=lambda turn: 0 if turn.customer == "a" else 1)
    assert (ids(found), found.more, turns.calls) == (["b"], False, 2)


def test_those_that_are_known_do_not_stand_in_the_way_of_those_behind_them() -> None:
    turns = Counted(*(ready(f"w{n:03}", n) for n in range(400)))
    known = {f"w{n:03}" for n in range(350)}
    assert ids(heads(Lineup(turns), known=known)) == ["w350", "w351"]


@given(st.lists(st.sampled_from("abcd"), max_size=30), st.integers(1, 5), st.integers(1, 3))
def test_reading_after_reading_every_line_is_seen_however_small_one_is(
    customers: list[str], page: int, use: int
) -> None:
    turns = Counted(*(ready(f"w{n}", n, customer_id=c) for n, c in enumerate(customers)))
    line, seen = Lineup(turns), set[str]()
    with put((lineup, "PAGE", page), (lineup, "CALLS", 2)):
        for _ in range(len(customers) + 2):
            before = turns.calls
            found = heads(line, use=lambda _: use)
            seen |= set(ids(found))
            assert turns.calls - before <= 2
    wanted = {f"w{n}" for n, c in enumerate(customers) if customers[:n].count(c) < use}
    assert wanted <= seen


def test_a_reading_that_was_cut_short_says_that_others_wait() -> None:
    turns = Counted(*(ready(f"w{n}", customer_id=f"c{n}") for n in range(4)))
    line = Lineup(turns)
    with put((lineup, "PAGE", 1), (lineup, "CALLS", 3)):
        first = heads(line, use=lambda _: 1)
        assert (ids(first), first.complete, first.more) == (["w0", "w1", "w2"], False, True)
        second = heads(line, use=lambda _: 1)
        assert (ids(second), second.complete, second.more) == (["w3"], False, True)
    assert heads(line, use=lambda _: 1).complete


def test_everything_that_runs_is_read() -> None:
    turns = Counted(*(running(f"w{n:04}") for n in range(7)), ready("waits"))
    with put((lineup, "RUNS_PAGE", 3)):
        found = played(Lineup(turns).running)
    assert [turn.id for turn in found] == [f"w{n:04}" for n in range(7)]
    with put((lineup, "RUNS_PAGE", 3), (lineup, "MOST_RUNS", 6)):
        assert len(played(Lineup(turns).running)) == 6


def test_only_what_is_not_known_at_its_turn_is_loaded() -> None:
    turns = Counted(*(ready(f"w{n}", n) for n in range(4)))
    table = turns.table.worksets
    known = {id: ws for id, ws in table.items() if id != "w3"}
    known[WorksetId("w1")] = replace(table[WorksetId("w1")], priority=Priority.LOW)
    shown = [turn for ws in table.values() if (turn := turn_of(ws))]
    found = played(lambda: Lineup(turns).loaded(shown, known))
    assert turns.loaded == ["w1", "w3"]
    assert sorted(found, key=lambda ws: ws.id) == list(table.values())


def test_many_are_loaded_a_hundred_at_a_time() -> None:
    turns = Counted(*(ready(f"w{n}") for n in range(250)))
    shown = [turn for ws in turns.table.worksets.values() if (turn := turn_of(ws))]
    assert len(played(lambda: Lineup(turns).loaded(shown, {}))) == 250
    assert len(turns.loaded) == 250


@pytest.mark.parametrize(
    ("now", "corrected"),
    [(ready("w1"), []), (ready("w1", priority=Priority.LOW), ["w1"]), (running("w1"), ["w1"])],
)
def test_a_turn_that_is_wrong_a_second_time_is_corrected(
    now: Workset, corrected: list[str]
) -> None:
    """The first time the index may just be late."""
    turns = Counted(now)
    shown = turn_of(ready("w1"))
    assert shown is not None
    line = Lineup(turns)
    played(lambda: line.loaded([shown], {}))
    assert turns.refiled == []
    played(lambda: line.loaded([shown], {}))
    assert turns.refiled == corrected


def test_states_that_end_are_not_looked_for() -> None:
    assert turn_of(a_workset("w1", State.COMPLETE)) is None
