"""The tables that ``init`` makes or completes, their indexes, and the keys of items that lack them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from anyio import sleep
from botocore.exceptions import ClientError

from daylily_daemon.adapters.aws import Aws, error_code, translated
from daylily_daemon.adapters.codec import (
    Item,
    Unusable,
    plain_item,
    turn_to_item,
    typed,
    workset_from_item,
)
from daylily_daemon.adapters.patience import Patience, is_in_use
from daylily_daemon.adapters.setupsteps import Step, nothing, unless_there, unseen
from daylily_daemon.adapters.tables import Tables
from daylily_daemon.domain.errors import Newer, Permanent
from daylily_daemon.domain.turn import turn_of
from daylily_daemon.domain.workset import Workset

_INDEX_WAIT_S: Final = 2.0
_UNSEEN_LOOKS: Final = 30
"""How often in a row a table that was just made may be looked for in vain."""
EXPIRES: Final = "expires_at"
"""Attribute with the second since 1970 at which a row of the control table may go."""
_OLDER_CUSTOMER_INDEX: Final = "customer-id-state-index"


@dataclass(frozen=True, slots=True)
class _Index:
    name: str
    hash: str
    range: str
    keys_only: bool = True
    """Else it holds whole items, and is written whenever they are."""


class TableSetup:
    def __init__(self, aws: Aws, tables: Tables, patience: Patience, *, drop_old: bool) -> None:
        self._aws = aws
        self._tables = tables
        self._patience = patience
        self._drop_old_indexes = drop_old

    async def missing(self) -> AsyncIterator[Step]:
        tables = self._tables
        indexes = [
            _Index(tables.queue_index, "queue", "turn"),
            _Index(tables.state_index, "state", "priority_key"),
            _Index(tables.customer_index, "customer_id", "state_key"),
        ]
        async for step in self._table(tables.worksets, "", indexes):
            yield step
        outbox = _Index(tables.outbox_index, "outbox", "at", keys_only=False)
        async for step in self._table(tables.events, "seq", [outbox]):
            yield step
        async for step in self._table(tables.control, "sk", [], hash_key="pk"):
            yield step
        async for step in self._forgetting(tables.control):
            yield step
        async for step in self._backfill():
            yield step
        if self._drop_old_indexes:
            async for step in self._drop_old():
                yield step

    async def _forgetting(self, name: str) -> AsyncIterator[Step]:
        """Rows say when they may go: those of daemons that are gone for a week."""
        db = await self._aws.client("dynamodb")
        if await _describe_table(db, name) is not None:
            async with translated(f"table {name}"):
                there = await db.describe_time_to_live(TableName=name)
            told = there.get("TimeToLiveDescription", {}).get("TimeToLiveStatus", "")
            if told in ("ENABLED", "ENABLING"):
                return

        async def forget() -> None:
            async with translated(f"table {name}"):
                await db.update_time_to_live(
                    TableName=name,
                    TimeToLiveSpecification={"Enabled": True, "AttributeName": EXPIRES},
                )

        yield Step(f"let rows of table {name} expire", forget)

    async def _table(
        self, name: str, range_key: str, indexes: list[_Index], *, hash_key: str = "workset_id"
    ) -> AsyncIterator[Step]:
        db = await self._aws.client("dynamodb")
        there = await _describe_table(db, name)
        if there is None or _is_going(there):
            create = partial(_create_table, db, name, (hash_key, range_key), indexes)
            why = f"The table {name} is being deleted or changed"
            patiently = partial(self._patience.until_taken, create, is_in_use, why)
            yield Step(f"create table {name}", patiently)
            return
        have = {i["IndexName"]: i["KeySchema"] for i in there.get("GlobalSecondaryIndexes", [])}
        for index in indexes:
            if index.name not in have:
                add = partial(_add_index, db, name, index)
                why = f"The table {name} is being made or changed"
                patiently = partial(self._patience.until_taken, add, is_in_use, why)
                yield Step(f"add index {index.name} to table {name}", patiently)
            elif _schema(index.hash, index.range) != have[index.name]:
                raise Permanent(
                    f"Table {name} has an index {index.name} with other keys, which somebody else made. It "
                    "is not touched: set tables.worksets to the name of another table, or remove that index, "
                    "and run init again."
                )

    async def _backfill(self) -> AsyncIterator[Step]:
        """Items of the old system, and of versions before this one, lack keys of our indexes."""
        db = await self._aws.client("dynamodb")
        table = self._tables.worksets
        if await _describe_table(db, table) is None:
            return
        query: Item = {
            "TableName": table,
            "FilterExpression": "attribute_not_exists(state_key)",
        }
        while True:
            async with translated(f"table {table}"):
                page = await db.scan(**query)
            for step in _completing(db, table, [plain_item(item) for item in page["Items"]]):
                yield step
            if "LastEvaluatedKey" not in page:
                return
            query["ExclusiveStartKey"] = page["LastEvaluatedKey"]

    async def _drop_old(self) -> AsyncIterator[Step]:
        """Indexes with whole items, which every beat writes too."""
        db, tables = await self._aws.client("dynamodb"), self._tables
        there = await _describe_table(db, tables.worksets) or {}
        have = {index["IndexName"] for index in there.get("GlobalSecondaryIndexes", [])}
        for name in (tables.older_index, _OLDER_CUSTOMER_INDEX):
            if name in have:
                drop = partial(_drop_index, db, tables.worksets, name)
                why = f"The table {tables.worksets} is being changed"
                patiently = partial(self._patience.until_taken, drop, is_in_use, why)
                yield Step(f"drop index {name} of table {tables.worksets}", patiently)


def _is_going(table: Item) -> bool:
    return table.get("TableStatus") == "DELETING"


async def _stays(db: Any, name: str) -> bool:
    table = await _describe_table(db, name)
    return table is not None and not _is_going(table)


async def _has_index(db: Any, table: str, index: _Index) -> bool:
    there = await _describe_table(db, table) or {}
    return index.name in [i["IndexName"] for i in there.get("GlobalSecondaryIndexes", [])]


async def _describe_table(db: Any, name: str) -> Item | None:
    async with translated(f"table {name}"):
        try:
            answer = await db.describe_table(TableName=name)
        except ClientError as exc:
            if error_code(exc) == "ResourceNotFoundException":
                return None
            raise
    return dict(answer["Table"])


def _schema(hash_key: str, range_key: str) -> list[Item]:
    keys = [{"AttributeName": hash_key, "KeyType": "HASH"}]
    return keys + ([{"AttributeName": range_key, "KeyType": "RANGE"}] if range_key else [])


def _definition(index: _Index) -> Item:
    return {
        "IndexName": index.name,
        "KeySchema": _schema(index.hash, index.range),
        "Projection": {"ProjectionType": "KEYS_ONLY" if index.keys_only else "ALL"},
    }


def _attributes(names: set[str]) -> list[Item]:
    return [{"AttributeName": name, "AttributeType": "S"} for name in sorted(names)]


async def _create_table(db: Any, name: str, keys: tuple[str, str], indexes: list[_Index]) -> None:
    names = {*keys, *(i.hash for i in indexes), *(i.range for i in indexes)}
    extra: Item = {}
    if indexes:  # AWS takes no empty list
        extra["GlobalSecondaryIndexes"] = [_definition(index) for index in indexes]
    async with unless_there(lambda: _stays(db, name)), translated(f"table {name}"):
        await db.create_table(
            TableName=name,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=_attributes(names - {""}),
            KeySchema=_schema(*keys),
            **extra,
        )
    await _until_active(db, name)


async def _add_index(db: Any, table: str, index: _Index) -> None:
    async with (
        unless_there(lambda: _has_index(db, table, index)),
        translated(f"table {table}"),
    ):
        await db.update_table(
            TableName=table,
            AttributeDefinitions=_attributes({index.hash, index.range}),
            GlobalSecondaryIndexUpdates=[{"Create": _definition(index)}],
        )
    await _until_active(db, table)


async def _drop_index(db: Any, table: str, name: str) -> None:
    async with translated(f"table {table}"):
        await db.update_table(
            TableName=table, GlobalSecondaryIndexUpdates=[{"Delete": {"IndexName": name}}]
        )
    await _until_active(db, table)


async def _until_active(db: Any, name: str) -> None:
    """Wait as long as it takes, which is minutes for an index on a big table. Raises Transient."""
    missed = 0
    while True:
        table = await _describe_table(db, name) or {}
        missed = 0 if table else missed + 1
        if missed > _UNSEEN_LOOKS or _is_going(table):
            raise unseen(f"table {name}")
        indexes = table.get("GlobalSecondaryIndexes", [])
        states = [table.get("TableStatus"), *(i.get("IndexStatus", "ACTIVE") for i in indexes)]
        if all(state == "ACTIVE" for state in states):
            return
        await sleep(_INDEX_WAIT_S)


def _completing(db: Any, table: str, items: list[Item]) -> Iterator[Step]:
    """Yield a step for all that can be completed, and one for each that cannot be read."""
    found: list[Workset] = []
    for item in items:
        try:
            found.append(workset_from_item(item))
        except (Unusable, Newer) as exc:
            yield Step(f"leave item {item['workset_id']} alone: {exc}", nothing)

    async def complete() -> None:
        for ws in found:
            await _complete(db, table, ws)

    if found:
        named = found[0].id if len(found) == 1 else f"{len(found)} items, {found[0].id} among them"
        yield Step(f"give keys of our indexes to {named}", complete)


async def _complete(db: Any, table: str, ws: Workset) -> None:
    keys = {"priority_key": ws.priority_key, "state_key": ws.state_key}
    keys |= turn_to_item(turn_of(ws))
    values = {f":{name}": typed(value) for name, value in keys.items()}
    async with translated(f"item {ws.id}"):
        try:
            await db.update_item(
                TableName=table,
                Key={"workset_id": typed(ws.id)},
                UpdateExpression="SET " + ", ".join(f"#{name} = :{name}" for name in keys),
                ConditionExpression="#state = :state",
                ExpressionAttributeNames={f"#{name}": name for name in (*keys, "state")},
                ExpressionAttributeValues=values | {":state": typed(str(ws.state))},
            )
        except ClientError as exc:
            if error_code(exc) != "ConditionalCheckFailedException":
                raise  # else a daemon changes it just now, and gives it its keys
