"""The registry of daemons: a row for each in the control table, which its daemon writes and all may read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import structlog
from pydantic import TypeAdapter, ValidationError

from daylily_daemon.adapters.aws import translated
from daylily_daemon.adapters.codec import Item, plain_item, typed
from daylily_daemon.adapters.tablesetup import EXPIRES
from daylily_daemon.domain.daemon import Drain, Registered, Status

DAEMONS: Final = "daemon"
"""All rows of daemons share it, so that one query brings them."""
KEPT: Final = timedelta(days=7)
"""After its last word a daemon is forgotten."""
LARGEST_CHARS: Final = 300_000
"""Of a status as JSON; an item may have 400 KB."""

_STATUS: Final = TypeAdapter(Status)
_DRAIN: Final = TypeAdapter(Drain)
log = structlog.get_logger()


class DynamoRegistry:
    def __init__(self, client: Any, table: str) -> None:
        self._client = client
        self._table = table

    async def sign(self, owner: str, status: Status, at: datetime) -> Drain | None:
        said = _STATUS.dump_json(status, exclude_defaults=True).decode()
        if len(said) > LARGEST_CHARS:
            said = _STATUS.dump_json(_shortened(status), exclude_defaults=True).decode()
        values = {
            ":said": said,
            ":at": at.isoformat(),
            ":end": int((at + KEPT).timestamp()),
            ":one": 1,
        }
        item = await self._update(
            owner,
            f"SET said = :said, said_at = :at, {EXPIRES} = :end REMOVE struck ADD beat :one",
            values,
        )
        return _drain_of(item)

    async def drained(self, owner: str) -> Drain | None:
        async with translated(f"table {self._table}"):
            answer = await self._client.get_item(
                TableName=self._table, Key=_key(owner), ConsistentRead=True
            )
        return _drain_of(plain_item(answer.get("Item") or {}))

    async def drain(self, owner: str, drain: Drain | None) -> None:
        if drain is None:
            await self._update(owner, "REMOVE drain", {})
        else:
            text = _DRAIN.dump_json(drain).decode()
            await self._update(owner, "SET drain = :drain", {":drain": text})

    async def strike(self, owner: str) -> None:
        await self._update(owner, "SET struck = :yes", {":yes": True})

    async def _update(self, owner: str, expression: str, values: Item) -> Item:
        request: Item = {
            "TableName": self._table,
            "Key": _key(owner),
            "UpdateExpression": expression,
            "ReturnValues": "ALL_NEW",
        }
        if values:
            request["ExpressionAttributeValues"] = {k: typed(v) for k, v in values.items()}
        async with translated(f"table {self._table}"):
            answer = await self._client.update_item(**request)
        return plain_item(answer.get("Attributes") or {})

    async def daemons(self) -> Sequence[Registered]:
        """Return all of them, by name; a row that this version cannot read has no status."""
        found: list[Item] = []
        request: Item = {
            "TableName": self._table,
            "KeyConditionExpression": "pk = :pk",
            "ExpressionAttributeValues": {":pk": typed(DAEMONS)},
        }
        while True:
            async with translated(f"table {self._table}"):
                page = await self._client.query(**request)
            found += [plain_item(item) for item in page.get("Items") or []]
            if not page.get("LastEvaluatedKey"):
                return [_registered(item) for item in found if not item.get("struck")]
            request["ExclusiveStartKey"] = page["LastEvaluatedKey"]


def _key(owner: str) -> Item:
    return {"pk": typed(DAEMONS), "sk": typed(owner)}


def _shortened(status: Status) -> Status:
    """Keep what it holds, by id alone; ``show`` knows how far each is, and whose."""
    return replace(status, active=dict.fromkeys(status.active, ""), customers={})


def _registered(item: Item) -> Registered:
    said, status = str(item.get("said", "")), None
    try:
        status = _STATUS.validate_json(said) if said else None
    except ValidationError as exc:
        log.warning("row_unreadable", daemon=item.get("sk"), error=str(exc)[:300])
    return Registered(
        owner=str(item["sk"]),
        said_at=_time(item.get("said_at")),
        status=status,
        drain=_drain_of(item),
    )


def _time(text: object) -> datetime | None:
    try:
        at = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _drain_of(item: Item) -> Drain | None:
    """Somebody else's words; what cannot be read drains all the same, since that was what was wanted."""
    text = item.get("drain")
    if not text:
        return None
    try:
        return _DRAIN.validate_json(str(text))
    except ValidationError:
        return Drain(by="somebody", since=datetime(1970, 1, 1, tzinfo=UTC), reason="unreadable")
