"""What DynamoDB says and no emulator does, said to the store."""

from __future__ import annotations

from typing import Any

import pytest

from daylily_daemon.adapters.dynamodb import Count, DynamoWorksets, Tables
from daylily_daemon.domain.model import State
from tests.contract.scripted_aws import ok, scripted

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
        store = DynamoWorksets(await aws.client("dynamodb"), Tables())
        script.say("Query", *(page(n, i == len(pages) - 1) for i, n in enumerate(pages)))
        count = await store.count(State.COMPLETE)
    assert str(count) == told
    left = [1001 - sum(pages[:i]) for i in range(len(pages))]
    assert [asked["Limit"] for asked in script.asked["Query"]] == left
    assert {asked["Select"] for asked in script.asked["Query"]} == {"COUNT"}


async def test_the_cost_of_a_count_does_not_grow_with_what_is_complete() -> None:
    async with scripted() as (script, aws):
        store = DynamoWorksets(await aws.client("dynamodb"), Tables())
        script.say("Query", ok(Count=100, ScannedCount=100, LastEvaluatedKey=PLACE))
        assert await store.count(State.COMPLETE) == Count(1000, more=True)
    assert len(script.asked["Query"]) == 11
