"""The tables with their indexes, and what a list asks of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from daylily_daemon.adapters.codec import Item, plain_item, typed
from daylily_daemon.domain.listing import ListedRow, Position, Query, Span
from daylily_daemon.domain.model import WorksetId


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """No index has more than keys, and no key changes with a heartbeat: a beat writes the item alone."""

    worksets: str
    events: str
    control: str
    """The daemons and what is asked of them."""
    older_index: str
    """By state and ``priority_key``, with whole items: what versions before this one read."""
    state_index: str = "state-index"
    """By state and ``priority_key``."""
    customer_index: str = "customer-index"
    """By customer and ``state_key``."""
    queue_index: str = "queue-index"
    """By ``queue`` and ``turn``."""
    outbox_index: str = "outbox-index"


def selected(query: Query, span: Span, at: Position, tables: Tables) -> Item:
    """Return the arguments of the call that reads ``span`` from ``at`` on."""
    low, high = span.bounds or ("", _LAST)
    values = {":low": low, ":high": high}
    request: Item = {"TableName": tables.worksets}
    if query.customer:
        prefix = f"{span.state}#"
        values = {":hash": query.customer, ":low": prefix + low, ":high": prefix + high}
        names = {"#hash": "customer_id", "#range": "state_key"}
        request["IndexName"] = tables.customer_index
    else:
        values = {":hash": str(span.state), ":low": low or " ", ":high": high}
        names = {"#hash": "state", "#range": "priority_key"}
        request["IndexName"] = tables.state_index
    if query.prefix:
        values[":prefix"] = query.prefix
        request["FilterExpression"] = "begins_with(workset_id, :prefix)"
    if at.id:
        request["ExclusiveStartKey"] = _start(query, span, at)
    return request | {
        "KeyConditionExpression": "#hash = :hash AND #range BETWEEN :low AND :high",
        "ExpressionAttributeNames": names,
        "ExpressionAttributeValues": {name: typed(value) for name, value in values.items()},
    }


_LAST: Final = "~"
"""Behind every ``priority_key``."""


def _start(query: Query, span: Span, at: Position) -> Item:
    state = str(span.state)
    keys = {"workset_id": at.id, "state": state, "priority_key": at.key}
    if query.customer:
        keys = {
            "workset_id": at.id,
            "customer_id": query.customer,
            "state_key": f"{state}#{at.key}",
        }
    return {name: typed(value) for name, value in keys.items()}


def row_of(item: Item) -> ListedRow:
    """Return the row that an index has, plain; either of its keys tells the priority key."""
    key = str(item.get("priority_key") or str(item.get("state_key", "")).partition("#")[2])
    return ListedRow(WorksetId(item["workset_id"]), key)


def position_of(span: int, last: Mapping[str, Any] | None) -> Position | None:
    """Return the position after the item with the keys ``last``; an empty key is the end, as none is."""
    if not last:
        return None
    row = row_of(plain_item(dict(last)))
    return Position(span, row.key, row.id)
