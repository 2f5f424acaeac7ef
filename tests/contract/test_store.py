"""What every store must do, whoever wrote the other end of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from anyio import create_task_group

from daylily_daemon.domain.errors import AlreadyDone, Permanent
from daylily_daemon.domain.listing import Position, Query
from daylily_daemon.domain.model import (
    Answer,
    Cancel,
    Category,
    Command,
    CommandEffect,
    Fence,
    Plan,
    Priority,
    Progress,
    Record,
    RecordType,
    State,
    Submit,
    Transition,
    WorksetId,
)
from daylily_daemon.domain.turn import Queue, Turn, turn_of
from daylily_daemon.domain.workset import Failure, Workset
from daylily_daemon.ports import Announced, Change, Conflict, Count
from tests import made
from tests.contract.stores import STORES, Store, opened, url_of
from tests.made import a_lock

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


@pytest_asyncio.fixture(params=STORES)
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    async with opened(request.param, url_of(request.param, request)) as found:
        yield found


def a_workset(id: str = "HG002", **changes: Any) -> Workset:
    return made.a_workset(id, now=NOW, **{"customer_id": "lab", **changes})


def a_record(ws: Workset, seq: int, owed: tuple[str, ...] = ()) -> Record:
    return Record(
        workset_id=ws.id,
        seq=seq,
        at=NOW + timedelta(seconds=seq),
        type=RecordType.STATE_CHANGE,
        state=ws.state,
        message=f"line {seq}",
        details={"n": seq, "ratio": 0.5, "nothing": None, "list": [1, "two"]},
        owed=frozenset(owed),
        teller="daemon-a",
    )


def first(ws: Workset, *records: Record, nonce: str = "n1", once: str | None = None) -> Change:
    return Change(before=None, after=ws, nonce=nonce, records=records, once=once)


def then(before: Workset, nonce: str, *records: Record, **changes: object) -> Change:
    after = replace(before, **changes)  # type: ignore[arg-type]
    return Change(before=before, after=after, nonce=nonce, records=records)


async def test_what_was_written_is_read_back_whole(store: Store) -> None:
    command = Command(id="c1", workset_id=WorksetId("HG002"), by="cli:lab", ask=Cancel(reason="ä"))
    full = a_workset(
        priority=Priority.URGENT,
        metadata={"note": "µ", "depth": 30, "ratio": 0.25, "deep": {"list": [True, None]}},
        plan=Plan(
            pipeline="demo",
            steps=("stage", "run"),
            run_args=("-p", 'aligners=["sent","bwa2a"]', ""),
            export_uri="s3://control/p/results/",
            samples=3,
        ),
        lock=a_lock("daemon-a"),
        fence=Fence(4),
        beat=9,
        attempt=2,
        run=made.a_run(
            "run",
            attempt=2,
            progress=Progress(fraction=0.25, message="µ"),
            reports={"reads": 12, "gc": 0.41},
        ),
        inbox=(command,),
        seen_commands=("c0",),
        history=(Transition(state=State.READY, at=NOW, reason="submitted"),),
        last_seq=7,
    )
    stored = await store.worksets.commit(first(full))
    assert stored == replace(full, version=1)
    assert await store.worksets.load(full.id) == stored


async def test_an_unknown_workset_is_none(store: Store) -> None:
    assert await store.worksets.load(WorksetId("nobody")) is None


async def test_registering_twice_overwrites_nothing(store: Store) -> None:
    await store.worksets.commit(first(a_workset()))
    with pytest.raises(Conflict) as refused:
        await store.worksets.commit(first(a_workset(prefix="elsewhere/"), nonce="n2"))
    assert refused.value.current is not None
    assert refused.value.current.request.prefix == "p/HG002/"


async def test_a_stale_version_is_refused_and_shows_what_is_there(store: Store) -> None:
    one = await store.worksets.commit(first(a_workset()))
    two = await store.worksets.commit(then(one, "n2", waiting_for="two"))
    with pytest.raises(Conflict) as refused:
        await store.worksets.commit(then(one, "n3", waiting_for="three"))
    assert refused.value.current == two


async def test_a_stale_fence_writes_nothing_whatever_its_version(store: Store) -> None:
    one = await store.worksets.commit(first(a_workset()))
    await store.worksets.commit(then(one, "n2", fence=Fence(1), lock=a_lock("b")))
    forged = replace(one, version=2)
    with pytest.raises(Conflict):
        await store.worksets.commit(then(forged, "n3", waiting_for="old owner"))


async def test_our_own_write_is_recognised_when_it_is_repeated(store: Store) -> None:
    one = await store.worksets.commit(first(a_workset(), a_record(a_workset(), 1)))
    again = await store.worksets.commit(first(a_workset(), a_record(a_workset(), 1)))
    assert again == one
    change = then(one, "n2", a_record(one, 2), waiting_for="two")
    two = await store.worksets.commit(change)
    assert await store.worksets.commit(change) == two
    beat = then(two, "n3", beat=1)
    assert await store.worksets.commit(beat) == await store.worksets.commit(beat)
    assert [r.seq for r in await store.trail.read(one.id)] == [1, 2]


async def test_a_value_that_is_gone_is_gone_from_the_item(store: Store) -> None:
    one = await store.worksets.commit(first(a_workset(owner="a", waiting_for="x")))
    two = await store.worksets.commit(then(one, "n2", lock=None, waiting_for=""))
    assert await store.worksets.load(one.id) == two


async def test_of_eight_claims_at_once_one_wins(store: Store) -> None:
    one = await store.worksets.commit(first(a_workset()))
    won: list[str] = []

    async def claim(owner: str) -> None:
        try:
            await store.worksets.commit(then(one, owner, lock=a_lock(owner), fence=Fence(1)))
        except Conflict:
            return
        won.append(owner)

    async with create_task_group() as tg:
        for n in range(8):
            tg.start_soon(claim, f"daemon-{n}")
    stored = await store.worksets.load(one.id)
    assert stored is not None
    assert won == [stored.owner]


async def test_a_submission_is_applied_once_for_ever(store: Store) -> None:
    ws = a_workset()
    one = await store.worksets.commit(first(ws, a_record(ws, 1), once="drop-1"))
    late = replace(then(one, "n9", a_record(one, 2)), once="drop-1")
    with pytest.raises(AlreadyDone):
        await store.worksets.commit(late)
    assert await store.worksets.load(ws.id) == one
    assert [r.seq for r in await store.trail.read(ws.id)] == [1]


async def test_state_and_record_are_written_together_or_not_at_all(store: Store) -> None:
    one = await store.worksets.commit(first(a_workset(), a_record(a_workset(), 1)))
    await store.worksets.commit(then(one, "n2", a_record(one, 2), waiting_for="two"))
    with pytest.raises(Conflict):
        await store.worksets.commit(then(one, "n3", a_record(one, 3), waiting_for="x"))
    assert [r.message for r in await store.trail.read(one.id)] == ["line 1", "line 2"]


async def test_the_index_sorts_urgent_first_and_first_in_first_out(store: Store) -> None:
    later = NOW + timedelta(minutes=1)
    for id, priority, at in (
        ("low", Priority.LOW, NOW),
        ("second", Priority.NORMAL, later),
        ("first", Priority.NORMAL, NOW),
        ("urgent", Priority.URGENT, later),
    ):
        await store.worksets.commit(
            first(a_workset(id, priority=priority, created_at=at), nonce=id)
        )
    await store.worksets.commit(first(a_workset("done", state=State.COMPLETE), nonce="done"))
    page = await store.catalogue.page(Query(states=(State.READY,)), limit=9)
    assert [ws.id for ws in page.worksets] == ["urgent", "first", "second", "low"]
    turns = await store.turns.line_up(Queue.WAITING, limit=9)
    assert [turn.id for turn in turns] == ["urgent", "first", "second", "low"]
    assert await store.turns.line_up(Queue.WAITING, limit=2) == turns[:2]
    assert await store.turns.line_up(Queue.WAITING, after=turns[1].key, limit=9) == turns[2:]
    assert await store.turns.line_up(Queue.RUNNING, limit=9) == []


async def test_a_workset_stands_where_its_state_its_priority_and_its_plan_put_it(
    store: Store,
) -> None:
    plan = Plan(pipeline="demo", steps=("run",), cluster_name="hpc|1")
    unchecked = await store.worksets.commit(first(a_workset(customer_id="lab|é")))
    waiting = await store.worksets.commit(then(unchecked, "n2", plan=plan))
    assert await standing(store, Queue.WAITING) == [turn_of(waiting)]
    raised = await store.worksets.commit(then(waiting, "n3", priority=Priority.URGENT))
    assert await standing(store, Queue.WAITING) == [turn_of(raised)]
    begun = await store.worksets.commit(then(raised, "n4", state=State.IN_PROGRESS))
    assert await standing(store, Queue.WAITING) == []
    (running,) = await standing(store, Queue.RUNNING)
    assert running == turn_of(begun)
    assert running.customer == "lab|é"
    await store.worksets.commit(then(begun, "n5", state=State.COMPLETE))
    assert await standing(store, Queue.RUNNING) == []


async def standing(store: Store, queue: Queue) -> Sequence[Turn]:
    return await store.turns.line_up(queue, limit=9)


async def test_what_stands_in_line_is_loaded_in_one_go_as_far_as_it_is_there(store: Store) -> None:
    stored = [await store.worksets.commit(first(a_workset(f"w{n}"))) for n in range(3)]
    ids = [*(ws.id for ws in stored), WorksetId("none")]
    loaded = await store.turns.load_all(ids)
    assert sorted(loaded, key=lambda ws: ws.id) == stored
    assert list(await store.turns.unfiled(State.READY)) == []


async def test_what_was_answered_last_is_found_for_many_in_one_question(store: Store) -> None:
    ws = a_workset("here", sentinel="s1", submitted_at=NOW)
    await store.worksets.commit(first(ws))
    await store.worksets.commit(first(a_workset("old"), nonce="n2"))
    asked = [ws.id, *(WorksetId(f"absent-{n}") for n in range(120)), WorksetId("old"), ws.id]
    assert await store.worksets.announced(asked) == {
        "here": Announced(sentinel="s1", submitted_at=NOW),
        "old": Announced(sentinel="", submitted_at=None),
    }
    assert await store.worksets.announced([]) == {}


async def test_every_page_of_what_is_owed_can_be_had(store: Store) -> None:
    ws = a_workset()
    await store.worksets.commit(first(ws, *(a_record(ws, n, ("sns",)) for n in range(1, 8))))
    found: list[int] = []
    page = await store.trail.owed(limit=3)
    while page.records:
        found += [r.seq for r in page.records]
        assert len(page.records) <= 3
        if page.more is None:
            break
        page = await store.trail.owed(after=page.more, limit=3)
    assert sorted(found) == [1, 2, 3, 4, 5, 6, 7]


def an_answer(id: str, effect: CommandEffect = CommandEffect.APPLIED, text: str = "so") -> Answer:
    return Answer(command_id=id, effect=effect, text=text, at=NOW)


async def test_an_answer_is_kept_with_the_change_it_came_of(store: Store) -> None:
    ws = a_workset()
    change = replace(first(ws, once="c1"), answers=(an_answer("c1"),))
    one = await store.worksets.commit(change)
    assert await store.trail.answer_to(ws.id, "c1") == an_answer("c1")
    assert await store.trail.answer_to(ws.id, "c2") is None
    assert await store.worksets.commit(change) == one
    with pytest.raises(AlreadyDone):
        await store.worksets.commit(replace(then(one, "n2", priority=Priority.LOW), once="c1"))
    assert await store.trail.read(ws.id) == []


async def test_a_queued_command_gets_its_last_answer_from_its_owner(store: Store) -> None:
    one = await store.worksets.commit(first(a_workset()))
    queued = (an_answer("c1", CommandEffect.QUEUED),)
    two = await store.worksets.commit(replace(then(one, "n2", beat=1), once="c1", answers=queued))
    done = (an_answer("c1", CommandEffect.NONE, "it is complete"),)
    three = await store.worksets.commit(replace(then(two, "n3", beat=2), answers=done))
    assert await store.trail.answer_to(one.id, "c1") == done[0]
    with pytest.raises(AlreadyDone):
        await store.worksets.commit(replace(then(three, "n4", beat=3), once="c1", answers=queued))
    assert await store.trail.answer_to(one.id, "c1") == done[0]


async def test_a_command_for_nobody_is_answered_once(store: Store) -> None:
    id = WorksetId("nobody")
    await store.trail.answer(id, an_answer("c1", CommandEffect.NONE))
    await store.trail.answer(id, an_answer("c1", CommandEffect.APPLIED))
    assert await store.trail.answer_to(id, "c1") == an_answer("c1", CommandEffect.NONE)


async def test_what_is_owed_is_found_until_it_is_settled(store: Store) -> None:
    ws = a_workset()
    records = (a_record(ws, 1, ("sns", "slack")), a_record(ws, 2), a_record(ws, 3, ("sns",)))
    await store.worksets.commit(first(ws, *records))
    owed = (await store.trail.owed()).records
    assert [(r.seq, set(r.owed)) for r in owed] == [(1, {"sns", "slack"}), (3, {"sns"})]
    left = await store.trail.settle(owed[0], frozenset({"sns"}))
    assert left.owed == {"slack"}
    gone = await store.trail.settle(left, frozenset(), frozenset({"slack"}))
    assert (set(gone.owed), set(gone.given_up)) == (set(), {"slack"})
    assert [r.seq for r in (await store.trail.owed()).records] == [3]


async def test_what_two_settled_one_channel_each_is_not_found_any_more(store: Store) -> None:
    ws = a_workset()
    await store.worksets.commit(first(ws, a_record(ws, 1, ("sns", "slack"))))
    (owed,) = (await store.trail.owed()).records
    await store.trail.settle(owed, frozenset({"sns"}))
    assert (await store.trail.settle(owed, frozenset({"slack"}))).owed == frozenset()
    assert (await store.trail.owed()).records == []


async def test_only_one_takes_over_what_a_dead_daemon_owed(store: Store) -> None:
    ws = a_workset()
    await store.worksets.commit(first(ws, a_record(ws, 1, ("sns",))))
    (owed,) = (await store.trail.owed()).records
    taken = await store.trail.take_over(owed, "daemon-b")
    assert taken is not None
    assert taken.teller == "daemon-b"
    assert await store.trail.take_over(owed, "daemon-c") is None
    await store.trail.settle(taken, frozenset({"sns"}))
    assert await store.trail.take_over(taken, "daemon-c") is None


async def test_our_own_take_over_is_recognised_when_it_is_repeated(store: Store) -> None:
    ws = a_workset()
    await store.worksets.commit(first(ws, a_record(ws, 1, ("sns",))))
    (owed,) = (await store.trail.owed()).records
    taken = await store.trail.take_over(owed, "daemon-b")
    assert await store.trail.take_over(owed, "daemon-b") == taken
    assert await store.trail.take_over(owed, "daemon-c") is None


async def test_a_record_whose_number_is_taken_is_refused_for_good(store: Store) -> None:
    one = await store.worksets.commit(first(a_workset(), a_record(a_workset(), 1)))
    with pytest.raises(Permanent, match="record of this number exists"):
        await store.worksets.commit(then(one, "n2", a_record(one, 1)))
    assert await store.worksets.load(one.id) == one


async def test_records_are_read_in_order_from_any_point(store: Store) -> None:
    ws = a_workset()
    await store.worksets.commit(first(ws, *(a_record(ws, n) for n in range(1, 13))))
    assert [r.seq for r in await store.trail.read(ws.id, after=9)] == [10, 11, 12]
    assert [r.seq for r in await store.trail.read(ws.id, limit=2)] == [1, 2]


async def test_a_command_with_everything_survives_the_inbox(store: Store) -> None:
    ask = Submit(bucket="b", prefix="p/", customer_id="c", priority=Priority.LOW)
    command = Command(id="c" * 64, workset_id=WorksetId("HG002"), by="s3", ask=ask)
    one = await store.worksets.commit(first(a_workset()))
    two = await store.worksets.commit(then(one, "n2", inbox=(command,)))
    assert (await store.worksets.load(one.id)) == two


# --- lists --------------------------------------------------------------------------------------------


async def all_pages(store: Store, query: Query, limit: int) -> list[list[str]]:
    """Return the ids on each page, to the last."""
    after: Position | None = None
    pages: list[list[str]] = []
    while True:
        page = await store.catalogue.page(query, after=after, limit=limit)
        pages.append([ws.id for ws in page.worksets])
        after = page.after
        if after is None:
            return pages


async def put(store: Store, id: str, minutes: int = 0, **named: Any) -> None:
    created_at = NOW + timedelta(minutes=minutes)
    await store.worksets.commit(first(a_workset(id, **{"created_at": created_at, **named})))


STATES = (State.COMPLETE, State.READY)


async def test_pages_follow_the_states_and_the_order_of_the_index(store: Store) -> None:
    await put(store, "late", 9)
    await put(store, "early", 1)
    await put(store, "urgent", 5, priority=Priority.URGENT)
    await put(store, "done", 7, state=State.COMPLETE)
    await put(store, "other", state=State.ERROR)
    query = Query(states=STATES)
    assert await all_pages(store, query, 3) == [["done", "urgent", "early"], ["late"]]
    assert await all_pages(store, query, 4) == [["done", "urgent", "early", "late"]]
    assert await all_pages(store, query, 1) == [["done"], ["urgent"], ["early"], ["late"]]
    assert await all_pages(store, Query(states=(State.FAILED,)), 4) == [[]]


@pytest.mark.parametrize(
    ("asked", "ids"),
    [
        ({"priority": Priority.LOW}, ["low"]),
        ({"created_from": NOW + timedelta(minutes=5)}, ["five", "seven"]),
        ({"created_before": NOW + timedelta(minutes=5)}, ["done", "three", "low"]),
        (
            {
                "created_from": NOW + timedelta(minutes=2),
                "created_before": NOW + timedelta(hours=1),
            },
            ["three", "five", "seven", "low"],
        ),
        ({"priority": Priority.NORMAL, "created_from": NOW + timedelta(minutes=6)}, ["seven"]),
        ({"prefix": "t"}, ["three"]),
        ({"prefix": "f", "priority": Priority.LOW}, []),
        ({"customer": "lab-7"}, ["three", "seven"]),
        ({"customer": "lab-7", "created_from": NOW + timedelta(minutes=4)}, ["seven"]),
        ({"customer": "lab-7", "prefix": "th"}, ["three"]),
        ({"customer": "lab-7", "prefix": "th", "created_from": NOW}, ["three"]),
        ({"customer": "lab-7", "priority": Priority.LOW}, []),
        ({"customer": "nobody"}, []),
        ({"code": "WS-RES-001"}, ["seven"]),
        ({"code": "WS-RES-001", "customer": "lab-7"}, ["seven"]),
        ({"pipeline": "omics"}, ["five"]),
        ({"host": "head1"}, ["five"]),
        ({"host": "head"}, []),
        ({"entered_before": NOW + timedelta(minutes=5)}, ["done", "three", "low"]),
        ({"entered_from": NOW + timedelta(minutes=5), "pipeline": "omics"}, ["five"]),
    ],
)
async def test_what_a_list_asks_for_is_found_page_by_page(
    store: Store, asked: dict[str, Any], ids: list[str]
) -> None:
    await put(store, "three", 3, customer_id="lab-7")
    omics = Plan(pipeline="omics", steps=("run",))
    await put(store, "five", 5, plan=omics, owner="head1/i-1/f1", updated_at=at(5))
    failure = Failure(code="WS-RES-001", category=Category.RESOURCE, details="no room")
    await put(store, "seven", 7, customer_id="lab-7", failure=failure, updated_at=at(7))
    await put(store, "low", 4, priority=Priority.LOW)
    await put(store, "done", 0, state=State.COMPLETE, customer_id="lab-1")
    query = Query(states=STATES, **asked)
    found = await all_pages(store, query, 1)
    assert sorted(id for page in found for id in page) == sorted(ids)
    assert await all_pages(store, query, 9) == [ids]


def at(minutes: int) -> datetime:
    return NOW + timedelta(minutes=minutes)


def found_in(pages: list[list[str]]) -> list[str]:
    return [id for page in pages for id in page]


async def test_the_worksets_of_one_customer_are_found_behind_any_number_of_others(
    store: Store,
) -> None:
    for n in range(130):
        owner = "lab-7" if n in (101, 129) else "lab-1"
        await put(store, f"w{n:03}", n, customer_id=owner)
    query = Query(states=(State.READY,), customer="lab-7")
    assert await all_pages(store, query, 100) == [["w101", "w129"]]
    assert sorted(found_in(await all_pages(store, query, 1))) == ["w101", "w129"]


async def test_a_count_is_bounded(store: Store) -> None:
    for n in range(3):
        await put(store, f"w{n}", n)
    assert await store.catalogue.count(State.READY) == Count(3, more=False)
    assert await store.catalogue.count(State.READY, most=3) == Count(3, more=False)
    assert await store.catalogue.count(State.READY, most=2) == Count(2, more=True)
    assert await store.catalogue.count(State.ERROR) == Count(0, more=False)
