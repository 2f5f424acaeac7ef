"""What DynamoDB says and no emulator does, said to the store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any, Final

import pytest

from daylily_daemon.adapters.catalogue import DynamoCatalogue
from daylily_daemon.adapters.codec import typed, typed_item, workset_to_item
from daylily_daemon.adapters.dynamodb import DynamoTrail, DynamoWorksets
from daylily_daemon.adapters.paging import MOST_CALLS
from daylily_daemon.adapters.turns import DynamoTurns
from daylily_daemon.domain.errors import (
    AlreadyDone,
    DaemonError,
    Impeded,
    Permanent,
    Transient,
)
from daylily_daemon.domain.listing import Query
from daylily_daemon.domain.model import Priority, State, WorksetId
from daylily_daemon.domain.turn import Queue
from daylily_daemon.ports import READ_ROWS, Conflict, Count, Page
from tests.contract.scripted_aws import TABLES, Says, ScriptedAws, ok, raw, refused, scripted
from tests.contract.test_store import a_record, a_workset, first

PLACE = {"workset_id": {"S": "w"}}


@pytest.mark.parametrize(
    ("pages", "told"),
    [
        ((0,), "0"),
        ((7,), "7"),
        ((999, 1), "1000"),
        ((999, 1, 1), "1000+"),
        ((600, 401), "1000+"),
        ((0, 0, 3), "3"),
    ],
)
async def test_counting_a_state_stops_at_a_thousand_and_says_so(
    pages: tuple[int, ...], told: str
) -> None:
    def page(n: int, last: bool) -> Any:
        return ok(Count=n, ScannedCount=n, **({} if last else {"LastEvaluatedKey": PLACE}))

    async with scripted() as (script, aws):
        store = DynamoCatalogue(await aws.client("dynamodb"), TABLES)
        script.say("Query", *(page(n, i == len(pages) - 1) for i, n in enumerate(pages)))
        count = await store.count(State.COMPLETE)
    assert str(count) == told
    left = [1001 - sum(pages[:i]) for i in range(len(pages))]
    assert [asked["Limit"] for asked in script.asked["Query"]] == left
    assert {asked["Select"] for asked in script.asked["Query"]} == {"COUNT"}


async def test_the_cost_of_a_count_does_not_grow_with_what_is_complete() -> None:
    async with scripted() as (script, aws):
        store = DynamoCatalogue(await aws.client("dynamodb"), TABLES)
        script.say("Query", ok(Count=100, ScannedCount=100, LastEvaluatedKey=PLACE))
        assert await store.count(State.COMPLETE) == Count(1000, more=True)
    assert len(script.asked["Query"]) == 11


# --- pages ---------------------------------------------------------------------------------------


def a_key(n: int) -> dict[str, Any]:
    return typed_item({"workset_id": f"w{n}", "state": "ready", "priority_key": f"1#{n:04}#w{n}"})


def some_items(*numbers: int) -> list[dict[str, Any]]:
    return [typed_item(workset_to_item(a_workset(f"w{n}", customer_id="lab-7"))) for n in numbers]


LOADED: Final = ok(Responses={TABLES.worksets: some_items(*range(1001))})
"""Every item that any of these pages shows."""


def read(scanned: int, *found: int, last: dict[str, Any] | None = None) -> Any:
    items = [a_key(n) for n in found]
    more = {} if last is None else {"LastEvaluatedKey": last}
    return ok(Items=items, Count=len(items), ScannedCount=scanned, **more)


READY: Final = Query(states=(State.READY,))
SEARCHED: Final = replace(READY, prefix="w")


async def paged(
    query: Query, limit: int, *answers: Any, loaded: Says = LOADED
) -> tuple[Page, list[dict[str, Any]]]:
    """Return the page that comes of these answers, and what was asked."""
    async with scripted() as (script, aws):
        store = DynamoCatalogue(await aws.client("dynamodb"), TABLES)
        script.say("Query", *answers)
        script.say("BatchGetItem", loaded)
        page = await store.page(query, limit=limit)
    return page, script.asked["Query"]


async def test_a_page_of_one_state_is_one_query_that_looks_one_ahead() -> None:
    page, asked = await paged(READY, 2, read(3, 1, 2, 3, last=a_key(3)))
    assert [ws.id for ws in page.worksets] == ["w1", "w2"]
    assert page.after is not None
    assert page.after.id == "w2"
    assert [call["Limit"] for call in asked] == [3]
    assert "FilterExpression" not in asked[0]


@pytest.mark.reported("D", "a last page that is just full has a key (ministack#1068)")
async def test_a_page_that_ends_with_its_state_has_none_after_it() -> None:
    page, asked = await paged(READY, 1, read(1, 1, last=a_key(1)), read(0))
    assert ([ws.id for ws in page.worksets], page.after) == (["w1"], None)
    assert [call["Limit"] for call in asked] == [2, 1]
    assert asked[1]["ExclusiveStartKey"] == a_key(1)


@pytest.mark.reported("D", "an empty page with a key is taken for the end (dynamodb-paginator#6)")
async def test_rows_that_are_all_left_out_are_read_past() -> None:
    page, asked = await paged(SEARCHED, 5, read(300, last=a_key(300)), read(80, 301))
    assert ([ws.id for ws in page.worksets], page.after) == (["w301"], None)
    assert [call["Limit"] for call in asked] == [1000, 700]


@pytest.mark.reported("D", "an empty key is taken for one more page (PynamoDB#1307)")
async def test_an_empty_key_is_the_end() -> None:
    page, asked = await paged(READY, 5, read(1, 1, last={}))
    assert (len(page.worksets), page.after, len(asked)) == (1, None, 1)
    async with scripted() as (script, aws):
        store = DynamoCatalogue(await aws.client("dynamodb"), TABLES)
        script.say("Query", ok(Count=1, ScannedCount=1, Items=some_items(1), LastEvaluatedKey={}))
        assert await store.count(State.READY) == Count(1, more=False)
    assert len(script.asked["Query"]) == 1


async def test_a_search_reads_a_thousand_rows_and_says_where_it_goes_on() -> None:
    answers = [read(250, n, last=a_key(250 * n)) for n in (1, 2, 3, 4)]
    page, asked = await paged(SEARCHED, 100, *answers)
    assert len(page.worksets) == 4
    assert page.after is not None
    assert page.after.id == "w1000"
    assert [call["Limit"] for call in asked] == [1000, 750, 500, 250]


ALL: Final = Query(states=tuple(State))


async def test_short_states_are_read_side_by_side_and_long_ones_within_the_bound() -> None:
    page, asked = await paged(ALL, 100, read(0))
    assert (page.worksets, page.after, len(asked)) == ((), None, len(State))
    for limit, most in ((100, 8), (300, 3), (600, 1), (1000, 1)):
        page, asked = await paged(ALL, limit, read(0, last=a_key(9)))
        assert [call["Limit"] for call in asked[:most]] == [min(limit + 1, 1000)] * most
        assert all("ExclusiveStartKey" in call for call in asked[most:])
        assert len(asked) <= MOST_CALLS + most


@pytest.mark.parametrize("limit", [100, 300, 1000])
async def test_a_page_over_all_states_reads_no_more_than_its_bound(limit: int) -> None:
    wanted = min(limit + 1, READ_ROWS)
    _, asked = await paged(ALL, limit, read(wanted, *range(wanted), last=a_key(wanted)))
    assert sum(call["Limit"] for call in asked) <= READ_ROWS


async def test_a_read_that_fails_beside_others_fails_as_itself() -> None:
    async with scripted() as (script, aws):
        store = DynamoCatalogue(await aws.client("dynamodb"), TABLES)
        script.say("Query", refused("ResourceNotFoundException", words="no table"))
        with pytest.raises(Impeded, match="no table"):
            await store.page(ALL, limit=9)


async def test_what_one_customer_has_of_one_priority_is_a_part_of_an_index() -> None:
    query = replace(READY, customer="lab-7", priority=Priority.LOW)
    _, (asked,) = await paged(query, 5, read(0))
    assert (asked["Limit"], asked["IndexName"]) == (6, TABLES.customer_index)
    values = asked["ExpressionAttributeValues"]
    assert (values[":low"], values[":high"]) == ({"S": "ready#2#"}, {"S": "ready#2$"})
    assert "FilterExpression" not in asked


async def test_a_page_of_one_customer_goes_on_where_the_one_before_ended() -> None:
    query = replace(READY, customer="lab-7")
    last = typed_item({"workset_id": "w1", "customer_id": "lab-7", "state_key": "ready#1#0001#w1"})
    page, asked = await paged(query, 1, read(1, 1, last=last), read(0))
    assert ([ws.id for ws in page.worksets], page.after) == (["w1"], None)
    assert asked[1]["ExclusiveStartKey"] == last


async def test_a_page_ends_after_a_bounded_number_of_calls_however_little_each_brings() -> None:
    page, asked = await paged(SEARCHED, 100, read(1, last=a_key(7)))
    assert (page.worksets, len(asked)) == ((), MOST_CALLS)
    assert page.after is not None


async def test_an_item_that_cannot_be_read_hides_no_other_and_ends_no_page() -> None:
    broken = {**a_key(1), "created_at": {"S": "yesterday"}}
    loaded = ok(Responses={TABLES.worksets: [broken, *some_items(2)]})
    page, _ = await paged(READY, 2, read(2, 1, 2), loaded=loaded)
    assert ([ws.id for ws in page.worksets], page.after) == (["w2"], None)


# --- reading -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Store:
    script: ScriptedAws
    worksets: DynamoWorksets
    turns: DynamoTurns
    trail: DynamoTrail


@pytest.fixture
async def store(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Store]:
    monkeypatch.setattr("daylily_daemon.adapters.reading.FIRST_PAUSE_S", 0.0)
    async with scripted() as (script, aws):
        client = await aws.client("dynamodb")
        yield Store(
            script,
            DynamoWorksets(client, TABLES),
            DynamoTurns(client, TABLES),
            DynamoTrail(client, TABLES),
        )


TABLE = TABLES.worksets


def item(id: str) -> dict[str, Any]:
    return typed_item(workset_to_item(a_workset(id)))


async def test_what_a_decision_is_made_on_is_read_as_it_is_now(store: Store) -> None:
    store.script.say("GetItem", ok())
    assert await store.worksets.load(WorksetId("HG002")) is None
    (asked,) = store.script.asked["GetItem"]
    assert asked["ConsistentRead"] is True
    store.script.say("Query", ok(Items=[]))
    await store.trail.read(WorksetId("HG002"))
    assert store.script.asked["Query"][0]["ConsistentRead"] is True


def partly(*got: str, left: tuple[str, ...] = ()) -> Says:
    responses = {TABLE: [item(id) for id in got]} if got else {}
    keys = [{"workset_id": typed(id)} for id in left]
    return ok(Responses=responses, UnprocessedKeys={TABLE: {"Keys": keys}} if left else {})


async def test_keys_that_were_left_unprocessed_are_asked_for_again(store: Store) -> None:
    store.script.say(
        "BatchGetItem", partly(left=("a", "b", "c")), partly("a", left=("b", "c")), partly("b")
    )
    ids = [WorksetId(id) for id in ("a", "b", "c")]
    assert set(await store.worksets.announced(ids)) == {"a", "b"}
    asked = [one["RequestItems"][TABLE]["Keys"] for one in store.script.asked["BatchGetItem"]]
    assert [[key["workset_id"]["S"] for key in keys] for keys in asked] == [
        ["a", "b", "c"],
        ["a", "b", "c"],
        ["b", "c"],
    ]


async def test_keys_that_stay_unprocessed_are_unknown_and_not_absent(store: Store) -> None:
    store.script.say("BatchGetItem", partly(left=("a",)))
    with pytest.raises(Transient, match=r"left 1 items of table .* unread"):
        await store.worksets.announced([WorksetId("a")])
    assert len(store.script.asked["BatchGetItem"]) == 10


def a_turn(id: str) -> dict[str, Any]:
    return typed_item({"workset_id": id, "turn": f"ready|1|||2026|{id}"})


async def test_an_empty_page_is_not_the_last_one(store: Store) -> None:
    more = {"LastEvaluatedKey": PLACE}
    pages = ok(Items=[], **more), ok(Items=[a_turn("a")], **more), ok(Items=[a_turn("b")])
    store.script.say("Query", *pages)
    found = await store.turns.line_up(Queue.WAITING, limit=100)
    assert [turn.id for turn in found] == ["a", "b"]
    asked = store.script.asked["Query"]
    assert ["ExclusiveStartKey" in one for one in asked] == [False, True, True]


@pytest.mark.parametrize(
    "answer",
    [
        raw(200, b""),
        raw(200, b"<html>Log in to the lab's network</html>"),
        raw(200, b"[]"),
        raw(200, b"null"),
        raw(200, b'{"Item": {"workset_id": {'),
        raw(200, b'{"Item": {', cut=True),
        raw(200, b"{}", x_amz_crc32="1"),
    ],
)
async def test_an_answer_that_aws_did_not_write_does_not_mean_that_nothing_is_there(
    store: Store, answer: Says
) -> None:
    store.script.say("GetItem", answer)
    with pytest.raises(Transient):
        await store.worksets.load(WorksetId("HG002"))


# --- writing -------------------------------------------------------------------------------------


def canceled(*codes: str | None, **messages: str) -> Says:
    reasons = [{"Code": code or "None", "Message": messages.get(code or "", "")} for code in codes]
    return refused("TransactionCanceledException", CancellationReasons=reasons)


CHECK = "ConditionalCheckFailed"


@pytest.mark.parametrize(
    ("codes", "kind"),
    [
        ((CHECK, None, None), Conflict),
        ((CHECK, "ThrottlingError", None), Conflict),
        ((None, None, CHECK), AlreadyDone),
        ((None, CHECK, None), Permanent),
        (("ThrottlingError", CHECK, CHECK), Transient),
        (("ProvisionedThroughputExceeded", None, CHECK), Transient),
        (("TransactionConflict", None, None), Transient),
        ((None, None, "TransactionConflict"), Transient),
        (("AccessDenied", None, None), Impeded),
        ((None, "AccessDeniedException", CHECK), Impeded),
        (("SomethingNew", None, None), Impeded),
        (("AccessDenied", "ThrottlingError", None), Transient),
        (("ItemCollectionSizeLimitExceeded", None, None), Permanent),
        (("ValidationError", None, None), Permanent),
        (("ValidationError", "TransactionConflict", None), Transient),
        ((), Transient),
    ],
)
async def test_a_canceled_transaction_means_what_its_weightiest_reason_means(
    store: Store, codes: tuple[str | None, ...], kind: type[DaemonError]
) -> None:
    store.script.say("TransactWriteItems", canceled(*codes, ValidationError="Item size exceeded"))
    ws = a_workset()
    with pytest.raises(kind) as raised:
        await store.worksets.commit(first(ws, a_record(ws, 1), once="drop-1"))
    assert type(raised.value) is kind


@pytest.mark.parametrize(
    ("code", "words", "kind"),
    [
        ("ValidationException", "Item size to update has exceeded the maximum", Permanent),
        ("ValidationException", "The table does not have the specified index", Impeded),
        ("AccessDeniedException", "not authorized", Impeded),
        ("ResourceNotFoundException", "Requested resource not found", Impeded),
        ("ResourceInUseException", "Table is being restored", Impeded),
        ("KMSInvalidStateException", "pending deletion", Impeded),
        ("ThrottlingException", "slow", Transient),
        ("ProvisionedThroughputExceededException", "slow", Transient),
        ("LimitExceededException", "slow", Transient),
        ("UnrecognizedClientException", "token", Impeded),
    ],
)
@pytest.mark.parametrize("records", [(), (1,)])
async def test_what_passes_or_is_mended_is_written_by_the_next_try(
    store: Store, code: str, words: str, kind: type[DaemonError], records: tuple[int, ...]
) -> None:
    answers = (refused(code, words=words), ok())
    store.script.say("PutItem", *answers)
    store.script.say("TransactWriteItems", *answers)
    ws = a_workset()
    change = first(ws, *(a_record(ws, seq) for seq in records))
    with pytest.raises(kind) as raised:
        await store.worksets.commit(change)
    assert type(raised.value) is kind
    assert await store.worksets.commit(change) == replace(ws, version=1)
