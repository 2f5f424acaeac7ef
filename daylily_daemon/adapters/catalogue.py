"""Worksets as lists and figures show them, by indexes that hold nothing but keys."""

from __future__ import annotations

from functools import partial
from typing import Any

from daylily_daemon.adapters.aws import translated
from daylily_daemon.adapters.codec import Item, plain_item, typed
from daylily_daemon.adapters.paging import PageRows, PageSource, page_of
from daylily_daemon.adapters.reading import worksets_of
from daylily_daemon.adapters.tables import Tables, position_of, row_of, selected
from daylily_daemon.domain.listing import Position, Query, Span
from daylily_daemon.domain.model import State
from daylily_daemon.ports import COUNTED, Count, Page


class DynamoCatalogue:
    def __init__(self, client: Any, tables: Tables) -> None:
        self._client = client
        self._tables = tables

    async def page(self, query: Query, *, after: Position | None = None, limit: int) -> Page:
        load = partial(worksets_of, self._client, self._tables.worksets)
        return await page_of(query, after, limit, PageSource(partial(self._rows, query), load))

    async def _rows(self, query: Query, span: Span, at: Position, most: int) -> PageRows:
        asked = selected(query, span, at, self._tables)
        async with translated(f"table {self._tables.worksets}"):
            answer = await self._client.query(**asked, Limit=most)
        rows = [row_of(plain_item(item)) for item in answer["Items"]]
        more = position_of(at.span, answer.get("LastEvaluatedKey"))
        return PageRows(rows, int(answer.get("ScannedCount", len(rows))), more)

    async def count(self, state: State, *, most: int = COUNTED) -> Count:
        """Return how many worksets are in ``state`` by the index, looking at no more than ``most`` and one.

        So the cost of a look is bounded, however much was ever completed.
        """
        query: Item = {
            "TableName": self._tables.worksets,
            "IndexName": self._tables.state_index,
            "KeyConditionExpression": "#s = :s",
            "ExpressionAttributeNames": {"#s": "state"},
            "ExpressionAttributeValues": {":s": typed(str(state))},
            "Select": "COUNT",
        }
        total = 0
        while total <= most:
            async with translated(f"table {self._tables.worksets}"):
                answer = await self._client.query(**query, Limit=most + 1 - total)
            total += answer["Count"]
            if not (last := answer.get("LastEvaluatedKey")):
                break
            query["ExclusiveStartKey"] = last
        return Count(min(total, most), total > most)
