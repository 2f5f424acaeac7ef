"""The store: worksets, and the audit trail that is also the outbox.

One way to write: ``commit`` sends the attributes that differ, on condition that version, fence and state are
still what the change was decided on. With records it is one transaction. A refusal brings the old item along:
our own nonce in it means that the write was applied and only its answer got lost on the way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

import structlog
from botocore.exceptions import ClientError

from daylily_daemon.adapters.answers import Meaning, advice_on, error_code, meaning_of, shown
from daylily_daemon.adapters.aws import translated
from daylily_daemon.adapters.codec import (
    ATTRIBUTES,
    ITEM_FORMAT,
    ONCE,
    Item,
    Unusable,
    answer_from_item,
    answer_to_item,
    plain_item,
    record_from_item,
    record_to_item,
    sequence,
    typed,
    typed_item,
    workset_from_item,
    workset_to_item,
)
from daylily_daemon.adapters.reading import items_of, pages
from daylily_daemon.adapters.tables import Tables
from daylily_daemon.domain.errors import (
    AlreadyDone,
    DaemonError,
    Impeded,
    Permanent,
    Transient,
)
from daylily_daemon.domain.model import Answer, Record, WorksetId
from daylily_daemon.domain.workset import Workset
from daylily_daemon.ports import Announced, Change, Conflict, OwedPage

log = structlog.get_logger()

_ANNOUNCED: Final = "workset_id, sentinel, submitted_at"


class DynamoWorksets:
    def __init__(self, client: Any, tables: Tables) -> None:
        self._client = client
        self._tables = tables

    async def load(self, id: WorksetId) -> Workset | None:
        async with translated():
            answer = await self._client.get_item(
                TableName=self._tables.worksets, Key=_key(id), ConsistentRead=True
            )
        item = answer.get("Item")
        return workset_from_item(plain_item(item)) if item else None

    async def commit(self, change: Change) -> Workset:
        version = (change.before.version if change.before else 0) + 1
        after = replace(change.after, version=version)
        try:
            await self._send(change, self._write(change, after))
        except _WriteRefused as refused:
            if not _is_older(refused.item, change.before):
                self._raise_unless_ours(change, refused)
                return after
            await self._commit_whole(change, after)
        return after

    async def _commit_whole(self, change: Change, after: Workset) -> None:
        """Write all of an item that is of an older format, so that it is no mixture afterwards."""
        try:
            await self._send(change, self._write(change, after, whole=True))
        except _WriteRefused as refused:
            self._raise_unless_ours(change, refused)

    async def _send(self, change: Change, write: Item) -> None:
        if change.records or change.once or change.answers:
            await self._transact(change, write)
        else:
            await self._put_alone(write)

    async def announced(self, ids: Sequence[WorksetId]) -> Mapping[WorksetId, Announced]:
        items = items_of(self._client, self._tables.worksets, ids, ProjectionExpression=_ANNOUNCED)
        return {WorksetId(item["workset_id"]): _announced(item) async for item in items}

    def _write(self, change: Change, after: Workset, *, whole: bool = False) -> Item:
        new = {**workset_to_item(after), "nonce": change.nonce}
        refusal = {"ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
        if change.before is None:
            return {
                "TableName": self._tables.worksets,
                "Item": typed_item(new),
                "ConditionExpression": "attribute_not_exists(workset_id)",
                **refusal,
            }
        update = _Update(change.before, new, whole=whole)
        return {
            "TableName": self._tables.worksets,
            "Key": _key(after.id),
            "UpdateExpression": update.expression,
            "ConditionExpression": update.condition,
            "ExpressionAttributeNames": update.names,
            "ExpressionAttributeValues": update.values,
            **refusal,
        }

    async def _put_alone(self, write: Item) -> None:
        call = self._client.put_item if "Item" in write else self._client.update_item
        async with translated():
            try:
                await call(**write)
            except ClientError as exc:
                if error_code(exc) != "ConditionalCheckFailedException":
                    raise
                old: Item | None = exc.response.get("Item")  # type: ignore[assignment]
                raise _WriteRefused(old) from exc

    async def _transact(self, change: Change, write: Item) -> None:
        parts: list[Item] = [{"Put" if "Item" in write else "Update": write}]
        parts += [self._put_event(record_to_item(record)) for record in change.records]
        for answer in change.answers:
            if answer.command_id != change.once:
                item = typed_item(answer_to_item(change.after.id, answer))
                parts.append({"Put": {"TableName": self._tables.events, "Item": item}})
        if change.once:
            parts.append(self._put_event(_marker(change, change.once)))
        async with translated():
            try:
                await self._client.transact_write_items(TransactItems=parts)
            except ClientError as exc:
                if error_code(exc) != "TransactionCanceledException":
                    raise
                reasons = exc.response.get("CancellationReasons") or []
                raise _reason(reasons, once=bool(change.once)) from exc

    def _put_event(self, item: Item) -> Item:
        return {
            "Put": {
                "TableName": self._tables.events,
                "Item": typed_item(item),
                "ConditionExpression": "attribute_not_exists(workset_id)",
            }
        }

    def _raise_unless_ours(self, change: Change, refused: _WriteRefused) -> None:
        old = plain_item(refused.item) if refused.item else None
        if old is not None and old.get("nonce") == change.nonce:
            return
        if refused.once:
            raise AlreadyDone(f"Command {change.once} was answered before.") from refused
        raise Conflict(workset_from_item(old) if old else None) from refused


class DynamoTrail:
    def __init__(self, client: Any, tables: Tables) -> None:
        self._client = client
        self._tables = tables

    async def read(self, id: WorksetId, *, after: int = 0, limit: int = 1000) -> Sequence[Record]:
        query = {
            "TableName": self._tables.events,
            "KeyConditionExpression": "workset_id = :id AND seq BETWEEN :from AND :to",
            "ExpressionAttributeValues": {
                ":id": typed(id),
                ":from": typed(sequence(after + 1)),
                ":to": typed(":"),
            },
            "ConsistentRead": True,
        }
        return _readable([item async for item in pages(self._client, query, limit)])

    async def owed(self, *, after: Any = None, limit: int = 100) -> OwedPage:
        query: Item = {
            "TableName": self._tables.events,
            "IndexName": self._tables.outbox_index,
            "KeyConditionExpression": "outbox = :shard",
            "ExpressionAttributeValues": {":shard": typed("0")},
            "Limit": limit,
        }
        if after is not None:
            query["ExclusiveStartKey"] = after
        async with translated(f"table {self._tables.events}"):
            answer = await self._client.query(**query)
        return OwedPage(
            records=_readable(answer["Items"]), more=answer.get("LastEvaluatedKey") or None
        )

    async def answer(self, id: WorksetId, answer: Answer) -> None:
        async with translated(f"table {self._tables.events}"):
            try:
                await self._client.put_item(
                    TableName=self._tables.events,
                    Item=typed_item(answer_to_item(id, answer)),
                    ConditionExpression="attribute_not_exists(workset_id)",
                )
            except ClientError as exc:
                if error_code(exc) != "ConditionalCheckFailedException":
                    raise

    async def answer_to(self, id: WorksetId, command_id: str) -> Answer | None:
        key = {**_key(id), "seq": typed(f"{ONCE}{command_id}")}
        async with translated(f"table {self._tables.events}"):
            answer = await self._client.get_item(
                TableName=self._tables.events, Key=key, ConsistentRead=True
            )
        item = answer.get("Item")
        return answer_from_item(plain_item(item)) if item else None

    async def settle(
        self, record: Record, told: frozenset[str], given_up: frozenset[str] = frozenset()
    ) -> Record:
        left = record.owed - told - given_up
        values: Item = {":done": typed(told | given_up)}
        expression = "DELETE owed :done"
        if given_up:
            expression += " ADD given_up :given"
            values[":given"] = typed(given_up)
        if not left:
            expression += " REMOVE outbox"
        now = await self._update(record, expression, "attribute_exists(workset_id)", values)
        if now is None:
            raise Permanent(f"Audit record {record.id} was removed by hand.")
        if left and not now.owed:  # others told the rest meanwhile
            await self._update(record, "REMOVE outbox", "attribute_not_exists(owed)", {})
        return now

    async def take_over(self, record: Record, teller: str) -> Record | None:
        # A repeat of a request that was applied, and whose answer got lost, finds ourselves.
        condition = "attribute_exists(outbox) AND teller IN (:seen, :me)"
        values = {":seen": typed(record.teller), ":me": typed(teller)}
        return await self._update(record, "SET teller = :me", condition, values)

    async def _update(
        self, record: Record, expression: str, condition: str, values: Item
    ) -> Record | None:
        async with translated():
            try:
                answer = await self._client.update_item(
                    TableName=self._tables.events,
                    Key={**_key(record.workset_id), "seq": typed(sequence(record.seq))},
                    UpdateExpression=expression,
                    ConditionExpression=condition,
                    **({"ExpressionAttributeValues": values} if values else {}),
                    ReturnValues="ALL_NEW",
                )
            except ClientError as exc:
                if error_code(exc) == "ConditionalCheckFailedException":
                    return None
                raise
        return record_from_item(plain_item(answer["Attributes"]))


def _readable(items: Sequence[Item]) -> list[Record]:
    """Return the records that can be read; one that cannot must not hide what others owe."""
    found: list[Record] = []
    for item in items:
        try:
            found.append(record_from_item(plain_item(item)))
        except Unusable as exc:
            log.warning("record_unreadable", error=str(exc))
    return found


def _marker(change: Change, once: str) -> Item:
    """Return the row that keeps a command from being applied again."""
    said = next((a for a in change.answers if a.command_id == once), None)
    bare = {"workset_id": change.after.id, "seq": f"{ONCE}{once}"}
    return answer_to_item(change.after.id, said) if said else bare


def _announced(item: Item) -> Announced:
    told = item.get("submitted_at")
    try:
        submitted_at = datetime.fromisoformat(told) if told else None
    except (TypeError, ValueError):
        submitted_at = None
    return Announced(sentinel=str(item.get("sentinel", "")), submitted_at=submitted_at)


class _WriteRefused(Permanent):
    """A condition failed; ``item`` is what was there, ``once`` whether only the marker was in the way."""

    def __init__(self, item: Item | None, *, once: bool = False) -> None:
        super().__init__("a condition was not met")
        self.item = item
        self.once = once


def _reason(reasons: Sequence[Mapping[str, Any]], *, once: bool) -> Exception:
    """Return what the cancellation means; ``once``: the last part is the marker of a submission."""
    codes = [str(reason.get("Code") or "None") for reason in reasons]
    if codes and codes[0] == "ConditionalCheckFailed":
        return _WriteRefused(reasons[0].get("Item"))
    others = [reason for reason in reasons if reason.get("Code") not in _NO_TROUBLE]
    if others:
        # First: what was not looked at for its sake may be our own write, which makes the rest refuse.
        return _of_trouble(others)
    if once and codes and codes[-1] == "ConditionalCheckFailed":
        return _WriteRefused(None, once=True)
    if "ConditionalCheckFailed" in codes:
        return Permanent("An audit record of this number exists already; was it written by hand?")
    return Transient("DynamoDB canceled the transaction and gave no reason.")


_NO_TROUBLE: Final = frozenset({None, "None", "ConditionalCheckFailed"})


def _of_trouble(reasons: Sequence[Mapping[str, Any]]) -> DaemonError:
    """Return what may pass before what is ours, and a no only if all are."""
    said = [(str(r.get("Code")), str(r.get("Message") or "")) for r in reasons]
    meanings = [meaning_of("TransactWriteItems", code, 400, words) for code, words in said]
    told = "; ".join(dict.fromkeys(shown(f"{words} ({code})".strip()) for code, words in said))
    error: DaemonError
    if Meaning.AGAIN in meanings:
        error = Transient(f"DynamoDB canceled the transaction: {told}. It will be tried again.")
    elif Meaning.OURS in meanings:
        error = Impeded(f"DynamoDB canceled the transaction: {told}. {advice_on(said[0][0])}")
    else:
        error = Permanent(f"DynamoDB refuses the write: {told}.")
    error.code = said[0][0]
    return error


_NOTHING: Final = object()


def _is_older(found: Item | None, before: Workset | None) -> bool:
    """Return whether the item is what was decided on, and only its format was in the way."""
    if found is None or before is None:
        return False
    item = plain_item(found)
    same = ("version", before.version), ("lock_fence", before.fence), ("state", before.state)
    older = int(item.get("format", 0)) < ITEM_FORMAT
    return older and all(item.get(name, 0) == value for name, value in same)


class _Update:
    """The update expression from one item to another, under the condition that nobody was faster.

    ``whole`` writes all that is ours, whatever has changed. Else the item must be of today's format: what we
    would have stored for ``before`` is not what an older version did. What others keep in the item stays.
    """

    def __init__(self, before: Workset, new: Item, *, whole: bool) -> None:
        old = {} if whole else workset_to_item(before)
        changed = {k: v for k, v in new.items() if old.get(k, _NOTHING) != v and k != "workset_id"}
        gone = sorted((ATTRIBUTES if whole else old.keys()) - new.keys())
        self.names = {"#state": "state"}
        self.values: Item = {":state": typed(str(before.state))}
        self.expression = "SET " + ", ".join(self._assign(k, v) for k, v in changed.items())
        if gone:
            self.expression += " REMOVE " + ", ".join(self._name(name) for name in gone)
        self.condition = " AND ".join(
            [
                "attribute_exists(workset_id)",
                "#state = :state",
                self._same("version", before.version),
                self._same("lock_fence", before.fence),
                *([] if whole else [self._same("format", ITEM_FORMAT)]),
            ]
        )

    def _name(self, attribute: str) -> str:
        self.names[f"#{attribute}"] = attribute
        return f"#{attribute}"

    def _assign(self, attribute: str, value: Any) -> str:
        self.values[f":{attribute}_new"] = typed(value)
        return f"{self._name(attribute)} = :{attribute}_new"

    def _same(self, attribute: str, value: int) -> str:
        name = self._name(attribute)
        self.values[f":{attribute}"] = typed(value)
        same = f"{name} = :{attribute}"
        return same if value else f"(attribute_not_exists({name}) OR {same})"


def _key(id: str) -> Item:
    return {"workset_id": {"S": id}}
