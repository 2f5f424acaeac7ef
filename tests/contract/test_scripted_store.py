"""What DynamoDB says and no emulator does, said to the store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from daylily_daemon.adapters.codec import typed, typed_item, workset_to_item
from daylily_daemon.adapters.dynamodb import DynamoTrail, DynamoWorksets
from daylily_daemon.domain.errors import (
    AlreadyDone,
    DaemonError,
    Impeded,
    Permanent,
    Transient,
)
from daylily_daemon.domain.model import State, WorksetId
from daylily_daemon.ports import Conflict, Count
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
        store = DynamoWorksets(await aws.client("dynamodb"), TABLES)
        script.say("Query", *(page(n, i == len(pages) - 1) for i, n in enumerate(pages)))
        count = await store.count(State.COMPLETE)
    assert str(count) == told
    left = [1001 - sum(pages[:i]) for i in range(len(pages))]
    assert [asked["Limit"] for asked in script.asked["Query"]] == left
    assert {asked["Select"] for asked in script.asked["Query"]} == {"COUNT"}


async def test_the_cost_of_a_count_does_not_grow_with_what_is_complete() -> None:
    async with scripted() as (script, aws):
        store = DynamoWorksets(await aws.client("dynamodb"), TABLES)
        script.say("Query", ok(Count=100, ScannedCount=100, LastEvaluatedKey=PLACE))
        assert await store.count(State.COMPLETE) == Count(1000, more=True)
    assert len(script.asked["Query"]) == 11


# --- reading -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Store:
    script: ScriptedAws
    worksets: DynamoWorksets
    trail: DynamoTrail


@pytest.fixture
async def store(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Store]:
    monkeypatch.setattr("daylily_daemon.adapters.dynamodb.FIRST_PAUSE_S", 0.0)
    async with scripted() as (script, aws):
        client = await aws.client("dynamodb")
        yield Store(script, DynamoWorksets(client, TABLES), DynamoTrail(client, TABLES))


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


async def test_an_empty_page_is_not_the_last_one(store: Store) -> None:
    more = {"LastEvaluatedKey": PLACE}
    store.script.say(
        "Query", ok(Items=[], **more), ok(Items=[item("a")], **more), ok(Items=[item("b")])
    )
    found = await store.worksets.in_state(State.READY)
    assert [ws.id for ws in found] == ["a", "b"]
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
