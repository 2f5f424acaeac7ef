"""Lists page by a cursor and never leave anything out; figures and trails are bounded."""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daylily_daemon.application import cursors, queries
from daylily_daemon.application.backend import Backend
from daylily_daemon.application.errors import Invalid, NotFound
from daylily_daemon.application.overview import overview
from daylily_daemon.application.queries import LISTED, ORDER, Listed, Listing
from daylily_daemon.domain.daemon import QueueLevel
from daylily_daemon.domain.errors import Transient
from daylily_daemon.domain.listing import Position
from daylily_daemon.domain.model import Priority, State, Transition, WorksetId
from daylily_daemon.domain.workset import Workset
from daylily_daemon.ports import READ_ROWS, Count
from tests import made
from tests.fakes.store import LoopClock, MemoryWorksets, Table
from tests.made import NOW, a_workset, running
from tests.records import a_record
from tests.unit.backends import WELL, a_backend, played, stored

DAY_S = 86_400.0


def _aged(id: str, days: float = 0.0, **named: Any) -> Workset:
    return a_workset(id, now=NOW - timedelta(days=days), **named)


def _pages(worksets: list[Workset], listing: Listing, limit: int = 100) -> list[list[str]]:
    """Return the ids on each page, to the last."""
    table = Table()

    async def play() -> list[list[str]]:
        await stored(table, *worksets)
        backend, cursor, pages = a_backend(table), "", list[list[str]]()
        while True:
            page = await queries.list_worksets(backend, listing, cursor=cursor, limit=limit)
            pages.append([ws.id for ws in page.worksets])
            cursor = page.cursor
            if not cursor:
                return pages

    return played(play)


def test_every_state_has_a_place_in_the_list() -> None:
    assert sorted(ORDER) == sorted(State)
    assert ORDER[0] is State.IN_PROGRESS


def test_what_runs_comes_first_and_then_what_needs_somebody() -> None:
    worksets = [
        _aged("done", state=State.COMPLETE),
        _aged("waits"),
        _aged("broken", state=State.ERROR),
        running("runs"),
    ]
    assert _pages(worksets, Listing()) == [["runs", "broken", "waits", "done"]]


def test_states_come_in_the_order_asked_for_and_urgent_and_old_ones_first() -> None:
    worksets = [
        _aged("new"),
        _aged("old", 2),
        _aged("urgent", priority=Priority.URGENT),
        _aged("done", 9, state=State.COMPLETE),
    ]
    listing = Listing(states=(State.COMPLETE, State.READY, State.COMPLETE))
    assert _pages(worksets, listing, limit=2) == [["done", "urgent"], ["old", "new"]]


def test_a_full_last_page_has_no_cursor() -> None:
    assert _pages([_aged("a"), _aged("b")], Listing(), limit=2) == [["a", "b"]]


@pytest.mark.parametrize(
    ("listing", "ids"),
    [
        (Listing(priority=Priority.LOW), ["low"]),
        (Listing(older_than_s=7 * DAY_S), ["old"]),
        (Listing(newer_than_s=2 * DAY_S), ["low", "now"]),
        (Listing(older_than_s=DAY_S, newer_than_s=8 * DAY_S), ["mid", "old"]),
        (Listing(older_than_s=2 * DAY_S, priority=Priority.LOW), []),
        (Listing(customer="lab-7"), ["mid"]),
        (Listing(customer="lab-7", newer_than_s=2 * DAY_S), []),
        (Listing(customer="lab-7", priority=Priority.NORMAL), ["mid"]),
        (Listing(customer="lab"), []),
        (Listing(prefix="o"), ["old"]),
        (Listing(prefix="O"), []),
    ],
)
def test_what_is_asked_for_is_what_is_listed(listing: Listing, ids: list[str]) -> None:
    worksets = [
        _aged("now"),
        _aged("mid", 5, customer_id="lab-7"),
        _aged("old", 7.5, state=State.COMPLETE),
        _aged("low", 1, priority=Priority.LOW),
    ]
    (page,) = _pages(worksets, listing)
    assert sorted(page) == sorted(ids)


@pytest.mark.parametrize(
    ("name", "ids"),
    [
        ("head1", ["held"]),
        ("head1/i-1", ["held"]),
        ("head1/i-1/f1", ["held"]),
        ("i-7", ["ended", "held"]),
        ("host:i-7/", ["ended", "held"]),
        ("head", []),
        ("i-", []),
        ("i-77", []),
    ],
)
def test_a_host_is_a_daemon_that_holds_or_a_machine_that_runs_or_ran(
    name: str, ids: list[str]
) -> None:
    worksets = [
        running("held", owner="head1/i-1/f1", scope="host:i-7/f9"),
        running("other", owner="head2/i-2/f2", scope="host:i-8/f9"),
        a_workset("ended", State.FAILED, run=made.a_run(failed="run", scope="host:i-7/f9")),
        a_workset("new"),
    ]
    (page,) = _pages(worksets, Listing(host=name))
    assert sorted(page) == ids


def test_a_workset_is_older_than_its_age_and_newer_not_both() -> None:
    ws = [_aged("w", 1)]
    assert _pages(ws, Listing(older_than_s=DAY_S)) == [[]]
    assert _pages(ws, Listing(newer_than_s=DAY_S)) == [["w"]]


def test_one_customer_among_many_is_never_cut_off() -> None:
    others = [_aged(f"other-{n:04}", 3, customer_id="lab-1") for n in range(1500)]
    mine = [_aged(f"mine-{n}", n / 10, customer_id="lab-7") for n in range(5)]
    pages = _pages([*others, *mine], Listing(customer="lab-7"), limit=2)
    assert [len(page) for page in pages] == [2, 2, 1]
    assert sorted(id for page in pages for id in page) == [ws.id for ws in mine]


@pytest.mark.reported("D", "a limit counts before a filter and nothing says so (aws-sdk-js#940)")
def test_where_no_index_serves_pages_are_short_and_still_miss_nothing() -> None:
    many = [_aged(f"w{n:04}", 3) for n in range(2 * READ_ROWS + 1)]
    pages = _pages([*many, _aged("x1"), _aged("x2", 9)], Listing(prefix="x"))
    assert pages == [["x2"], [], ["x1"]]


_SOME = st.builds(
    lambda n, state, priority, days, customer, lasted: _aged(
        f"{'xy'[n % 2]}{n}",
        days,
        state=state,
        priority=priority,
        customer_id=customer,
        error="no" if n % 3 else "",
        history=(Transition(state=state, at=NOW - timedelta(days=days * lasted)),),
    ),
    n=st.integers(0, 30),
    state=st.sampled_from(State),
    priority=st.sampled_from(Priority),
    days=st.integers(0, 4),
    customer=st.sampled_from(["", "lab-1", "lab-7"]),
    lasted=st.sampled_from([0.0, 0.25, 1.0]),
)
_LISTINGS = st.builds(
    Listing,
    states=st.lists(st.sampled_from(State)).map(tuple),
    customer=st.sampled_from(["", "", "lab-7"]),
    priority=st.none() | st.sampled_from(Priority),
    older_than_s=st.none() | st.sampled_from([0.0, 1.5 * DAY_S]),
    newer_than_s=st.none() | st.just(3.5 * DAY_S),
    prefix=st.sampled_from(["", "", "x"]),
    code=st.sampled_from(["", "", "WS-UNK-000"]),
    older_s=st.none() | st.sampled_from([0.0, 0.5 * DAY_S]),
    since_s=st.none() | st.just(2.5 * DAY_S),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(_SOME, max_size=30, unique_by=lambda ws: ws.id), _LISTINGS, st.integers(1, 7))
def test_all_pages_together_are_all_that_match_each_once(
    worksets: list[Workset], listing: Listing, limit: int
) -> None:
    pages = _pages(worksets, listing, limit)
    listed = [id for page in pages for id in page]
    assert sorted(listed) == sorted(ws.id for ws in worksets if _wanted(ws, listing))
    assert all(len(page) == limit for page in pages[:-1])
    if not listing.customer:
        by_id = {str(ws.id): ws for ws in worksets}
        order = list(listing.states or ORDER)
        keys = [(order.index(by_id[id].state), by_id[id].priority_key) for id in listed]
        assert keys == sorted(keys)


def _wanted(ws: Workset, listing: Listing) -> bool:
    age_s = (NOW - ws.created_at).total_seconds()
    return (
        ws.state in (listing.states or LISTED)
        and listing.customer in ("", ws.request.customer_id)
        and listing.priority in (None, ws.priority)
        and (listing.older_than_s is None or age_s > listing.older_than_s)
        and (listing.newer_than_s is None or age_s <= listing.newer_than_s)
        and ws.id.startswith(listing.prefix)
        and listing.code in ("", ws.failure.code if ws.failure else "")
        and (listing.older_s is None or _lasted_s(ws) > listing.older_s)
        and (listing.since_s is None or _lasted_s(ws) <= listing.since_s)
    )


def _lasted_s(ws: Workset) -> float:
    return (NOW - ws.history[-1].at).total_seconds()


@pytest.mark.parametrize(
    ("listing", "limit", "words"),
    [
        (Listing(), 0, "1 to 1000"),
        (Listing(), 1001, "1 to 1000"),
        (Listing(older_than_s=5, newer_than_s=5), 9, "Nothing is older"),
        (Listing(older_than_s=-1), 9, "An age is"),
        (Listing(older_s=-1), 9, "An age is"),
        (Listing(older_s=5, since_s=5), 9, "Nothing is in its state for longer"),
        (Listing(code="x" * 201), 9, "too long for a code"),
        (Listing(host="x" * 201), 9, "too long for a host"),
        (Listing(newer_than_s=float("nan")), 9, "An age is"),
        (Listing(newer_than_s=1e300), 9, "An age is"),
        (Listing(prefix="-x"), 9, "No workset id begins with"),
        (Listing(customer="x" * 201), 9, "too long"),
    ],
)
def test_a_list_that_makes_no_sense_is_a_sentence(listing: Listing, limit: int, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        played(lambda: queries.list_worksets(a_backend(Table()), listing, limit=limit))


# --- cursors ------------------------------------------------------------------------------------------


def _first_page(backend: Backend, listing: Listing) -> Listed:
    return played(lambda: queries.list_worksets(backend, listing, limit=1))


def _page_at(backend: Backend, listing: Listing, cursor: str) -> Listed:
    return played(lambda: queries.list_worksets(backend, listing, cursor=cursor))


def _table(*worksets: Workset) -> Table:
    table = Table()
    played(lambda: stored(table, *worksets))
    return table


def test_ages_count_from_the_first_page_on() -> None:
    table = _table(_aged("a", 2), _aged("b", 1.5))
    listing = Listing(older_than_s=DAY_S)
    first = _first_page(a_backend(table), listing)
    played(lambda: stored(table, _aged("c", 0.9)))
    later = a_backend(table, clock=LoopClock(NOW + timedelta(days=1)))
    rest = played(lambda: queries.list_worksets(later, listing, cursor=first.cursor))
    assert [ws.id for ws in (*first.worksets, *rest.worksets)] == ["a", "b"]


def test_a_page_begins_after_the_last_one_though_that_workset_is_gone() -> None:
    table = _table(_aged("a", 2), _aged("b", 1))
    first = _first_page(a_backend(table), Listing())
    played(lambda: stored(table, _aged("a", 2, state=State.COMPLETE)))
    rest = played(lambda: queries.list_worksets(a_backend(table), Listing(), cursor=first.cursor))
    assert [ws.id for ws in rest.worksets] == ["b", "a"]


@pytest.mark.reported("D", "a token of another query is an internal error (hyp3#1721)")
@pytest.mark.parametrize("other", [Listing(), Listing(customer="lab-7"), Listing(prefix="a")])
def test_a_cursor_belongs_to_its_list(other: Listing) -> None:
    backend = a_backend(_table(_aged("a", 2), _aged("b", 1)))
    cursor = _first_page(backend, Listing(states=(State.READY,))).cursor
    with pytest.raises(Invalid, match="belongs to another list"):
        played(lambda: queries.list_worksets(backend, other, cursor=cursor))


def _text(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def _no_cursors() -> list[str]:
    return ["x", "?", "ä", "A" * 5000, _text(None), _text([]), _text([1, 2]), _text({"a": 1})]


@pytest.mark.parametrize("text", [*_no_cursors(), _text("[" * 400)])
def test_what_is_no_cursor_is_a_sentence(text: str) -> None:
    with pytest.raises(Invalid, match=r"is no cursor of a list\. Give the one") as raised:
        played(lambda: queries.list_worksets(a_backend(Table()), Listing(), cursor=text))
    assert len(str(raised.value)) < 300


def test_a_cursor_with_one_sign_changed_is_no_cursor() -> None:
    backend = a_backend(_table(_aged("a", 2), _aged("b", 1)))
    cursor = _first_page(backend, Listing()).cursor
    for n in range(0, len(cursor), 3):
        changed = cursor[:n] + ("A" if cursor[n] != "A" else "B") + cursor[n + 1 :]
        with pytest.raises(Invalid):
            _page_at(backend, Listing(), changed)


def test_a_cursor_made_up_with_care_leads_nowhere_else() -> None:
    low = Listing(states=(State.READY,), priority=Priority.LOW)
    for listing, position in (
        (Listing(), Position(0, "", "w")),
        (Listing(customer="c"), Position(10, "", "w")),
        (low, Position(1, "", "")),
        (low, Position(-1, "", "")),
        (low, Position(0, "0#x", "w")),
        (low, Position(0, "", "w")),
        (low, Position(0, "2#x", "")),
    ):
        text = cursors.written(cursors.CursorPlace(asked_at=NOW, position=position), repr(listing))
        with pytest.raises(Invalid, match="leads out of its list"):
            _page_at(a_backend(Table()), listing, text)


def test_a_cursor_is_short_whatever_the_names() -> None:
    worksets = [_aged(f"{n}" + "w" * 79, n, customer_id="c" * 100) for n in range(2)]
    cursor = _first_page(a_backend(_table(*worksets)), Listing(customer="c" * 100)).cursor
    assert 0 < len(cursor) < cursors.MOST_CHARS / 2


# --- the others ---------------------------------------------------------------------------------------


def test_an_overview_counts_every_state_and_queue() -> None:
    table = _table(*(_aged(f"w{n}") for n in range(3)), running("r"))
    found = played(lambda: overview(a_backend(table)))
    assert set(found.worksets) == set(State)
    assert found.worksets[State.READY] == Count(3, more=False)
    assert found.queues == {"commands": QueueLevel(waiting=0)}
    assert not found.troubles


def test_what_cannot_be_counted_is_said_once_and_the_rest_stands() -> None:
    class Away(MemoryWorksets):
        async def count(self, state: State, *, most: int = 0) -> Count:
            raise Transient("AWS is away.")

    backend = a_backend(Table(), catalogue=Away(Table()))
    found = played(lambda: overview(backend))
    assert [str(trouble) for trouble in found.troubles] == ["AWS is away."]
    assert found.queues
    assert not found.worksets


def test_an_explanation_needs_what_is_there_and_says_why() -> None:
    backend = a_backend(_table(_aged("w")), sighting=lambda _: WELL)
    found = played(lambda: queries.explain(backend, "w"))
    assert found.workset.id == "w"
    assert found.lines == ("Its input has not been checked yet.",)
    with pytest.raises(NotFound):
        played(lambda: queries.explain(backend, "other"))


@pytest.mark.parametrize(("bound", "shown", "more"), [(3, 3, False), (2, 2, True)])
def test_a_trail_is_whole_up_to_its_bound_and_says_so(
    bound: int, shown: int, more: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "RECORDS", bound)
    table = _table(_aged("w"))
    table.records[WorksetId("w")] = [a_record(workset_id="w", seq=n) for n in (1, 2, 3)]
    found = played(lambda: queries.events(a_backend(table), "w"))
    assert [record.seq for record in found.records] == list(range(1, shown + 1))
    assert found.more is more
