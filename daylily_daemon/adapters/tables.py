"""The tables with their indexes, and what a list asks of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from daylily_daemon.adapters.codec import Item, typed
from daylily_daemon.domain.listing import Position, Query, Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    worksets: str
    events: str
    state_index: str
    """By state and ``priority_key``."""
    customer_index: str = "customer-id-state-index"
    """By customer and state."""
    outbox_index: str = "outbox-index"


def selected(query: Query, span: Span, at: Position, tables: Tables) -> Item:
    """Return the arguments of the call that reads ``span`` from ``at`` on."""
    asked = _Selection(query, span)
    request: Item = {
        "TableName": tables.worksets,
        "IndexName": tables.customer_index if query.customer else tables.state_index,
        "KeyConditionExpression": " AND ".join(asked.keys()),
        "ExpressionAttributeNames": {"#s": "state"},
        "ExpressionAttributeValues": {name: typed(value) for name, value in asked.values.items()},
    }
    if asked.filters:
        request["FilterExpression"] = " AND ".join(asked.filters)
    if at.id:
        request["ExclusiveStartKey"] = _start(query, span, at)
    return request


class _Selection:
    """Conditions on the keys of an index and on other attributes, with the values in them."""

    def __init__(self, query: Query, span: Span) -> None:
        self._query = query
        self.values: dict[str, str] = {":s": str(span.state)}
        bounds = " OR ".join(self._between(span))
        self._bounds = f"({bounds})" if len(span.bounds) > 1 else bounds
        self.filters = list(self._filters())

    def _between(self, span: Span) -> Iterator[str]:
        for n, (low, high) in enumerate(span.bounds):
            self.values |= {f":low{n}": low, f":high{n}": high}
            yield f"priority_key BETWEEN :low{n} AND :high{n}"

    def keys(self) -> Iterator[str]:
        if self._query.customer:
            self.values[":customer"] = self._query.customer
            yield "customer_id = :customer"
        yield "#s = :s"
        if self._bounds and not self._query.customer:
            yield self._bounds

    def _filters(self) -> Iterator[str]:
        if self._bounds and self._query.customer:
            yield self._bounds
        if self._query.prefix:
            self.values[":prefix"] = self._query.prefix
            yield "begins_with(workset_id, :prefix)"


def _start(query: Query, span: Span, at: Position) -> Item:
    keys = {"workset_id": at.id, "state": str(span.state)}
    keys |= {"customer_id": query.customer} if query.customer else {"priority_key": at.key}
    return {name: typed(value) for name, value in keys.items()}


def position_of(span: int, last: Mapping[str, Any] | None) -> Position | None:
    """Return the position after the item with the keys ``last``; an empty key is the end, as none is."""
    if not last:
        return None
    key = last.get("priority_key", {}).get("S", "")
    return Position(span, key, last["workset_id"]["S"])
