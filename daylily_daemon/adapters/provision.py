"""What ``init`` makes: tables, queues, topic and bucket notification. Running it twice changes nothing.

Each part looks at what is there and yields the *steps* that are missing, as a sentence and a call. A dry run
prints the sentences. What exists is completed, never replaced: a table of the old system keeps its items, and
the bucket's other notifications stay.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import structlog
from anyio import sleep
from botocore.exceptions import ClientError

from daylily_daemon.adapters.aws import Aws, error_code, is_missing, translated
from daylily_daemon.adapters.codec import (
    Item,
    Unusable,
    plain_item,
    typed,
    workset_from_item,
)
from daylily_daemon.adapters.envelopes import IGNORE, READY
from daylily_daemon.adapters.notification import comparable, rule_of
from daylily_daemon.adapters.patience import (
    NOT_SEEN,
    Patience,
    is_in_use,
    name_is_kept,
    policy_not_seen,
)
from daylily_daemon.adapters.queuepolicy import (
    PolicyVerdict,
    Sender,
    allowing,
    judged,
    left_alone,
    read_policy,
)
from daylily_daemon.adapters.tables import Tables
from daylily_daemon.domain.errors import Impeded, Permanent, Transient

log = structlog.get_logger()

_RETENTION_S: Final = 14 * 24 * 3600
"""The longest SQS keeps a message."""
_INDEX_WAIT_S: Final = 2.0
_UNSEEN_LOOKS: Final = 30
"""How often in a row a table that was just made may be looked for in vain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    bucket: str
    prefix: str
    tables: Tables
    intake_queue: str
    commands_queue: str
    """Ends with ``.fifo``."""
    topic: str
    """Empty: none is made."""
    visibility_s: int
    max_receive: int
    create_bucket: bool = False
    """For the demo; a real bucket exists and belongs to somebody."""


@dataclass(frozen=True, slots=True)
class Step:
    what: str
    do: Callable[[], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class _Index:
    name: str
    hash: str
    range: str


class Provisioner:
    def __init__(self, aws: Aws, wanted: Wanted, patience: Patience | None = None) -> None:
        self._aws = aws
        self._wanted = wanted
        self._patience = patience or Patience(tell=_logged)

    async def missing(self) -> AsyncIterator[Step]:
        """Yield what has to be done, in order; each is to be done before the next is asked for."""
        for part in (self.bucket, self.tables, self.queues, self.topic, self.notification):
            async for step in part():
                yield step

    # --- tables ---------------------------------------------------------------------------------

    async def tables(self) -> AsyncIterator[Step]:
        tables = self._wanted.tables
        by_state = _Index(tables.state_index, "state", "priority_key")
        by_customer = _Index(tables.customer_index, "customer_id", "state")
        async for step in self._table(tables.worksets, "", [by_state, by_customer]):
            yield step
        outbox = _Index(tables.outbox_index, "outbox", "at")
        async for step in self._table(tables.events, "seq", [outbox]):
            yield step
        async for step in self._backfill():
            yield step

    async def _table(self, name: str, range_key: str, indexes: list[_Index]) -> AsyncIterator[Step]:
        db = await self._aws.client("dynamodb")
        there = await _describe_table(db, name)
        if there is None or _is_going(there):
            create = partial(_create_table, db, name, range_key, indexes)
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
                    f"Table {name} has an index {index.name} with other keys (the old system's). It is "
                    f"not touched: set tables.state_index to another name, such as "
                    f"{index.name}-v2, and run init again."
                )

    async def _backfill(self) -> AsyncIterator[Step]:
        """Items of the old system lack the key of the index that admission reads."""
        db = await self._aws.client("dynamodb")
        table = self._wanted.tables.worksets
        if await _describe_table(db, table) is None:
            return
        query: Item = {
            "TableName": table,
            "FilterExpression": "attribute_not_exists(priority_key)",
        }
        while True:
            async with translated(f"table {table}"):
                page = await db.scan(**query)
            for item in page["Items"]:
                yield _complete_item(db, table, plain_item(item))
            if "LastEvaluatedKey" not in page:
                return
            query["ExclusiveStartKey"] = page["LastEvaluatedKey"]

    # --- queues ---------------------------------------------------------------------------------

    async def queues(self) -> AsyncIterator[Step]:
        wanted = self._wanted
        for name in (wanted.intake_queue, wanted.commands_queue):
            async for step in self._queue(dead_letter_name(name), {}):
                yield step
            async for step in self._queue(name, {"VisibilityTimeout": str(wanted.visibility_s)}):
                yield step
            async for step in self._redrive(name):
                yield step
        async for step in self._policy():
            yield step

    async def _queue(self, name: str, extra: dict[str, str]) -> AsyncIterator[Step]:
        sqs = await self._aws.client("sqs")
        if await find_queue(sqs, name) is not None:
            return
        attributes = {"MessageRetentionPeriod": str(_RETENTION_S), **extra}
        if name.endswith(".fifo"):
            attributes["FifoQueue"] = "true"

        async def create() -> None:
            async with translated(f"queue {name}"):
                await sqs.create_queue(QueueName=name, Attributes=attributes)
            if await find_queue(sqs, name) is None:
                raise _unseen(f"queue {name}")

        why = f"AWS frees the name of the deleted queue {name} after 60 s"
        patiently = partial(self._patience.until_taken, create, name_is_kept, why)
        yield Step(f"create queue {name}", patiently)

    async def _redrive(self, name: str) -> AsyncIterator[Step]:
        sqs = await self._aws.client("sqs")
        dead = dead_letter_name(name)
        url, dead_url = await find_queue(sqs, name), await find_queue(sqs, dead)
        if url is None or dead_url is None:
            yield Step(
                f"let {name} give up to {dead} after {self._wanted.max_receive} tries", _nothing
            )
            return
        arn = await _queue_arn(sqs, dead_url)
        policy = {"deadLetterTargetArn": arn, "maxReceiveCount": str(self._wanted.max_receive)}
        async with translated(f"queue {name}"):
            have = await sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["RedrivePolicy"])
        now = _object(have.get("Attributes", {}).get("RedrivePolicy", ""))
        if {key: str(value) for key, value in now.items()} == policy:
            return

        async def set_policy() -> None:
            async with translated(f"queue {name}"):
                await sqs.set_queue_attributes(
                    QueueUrl=url, Attributes={"RedrivePolicy": json.dumps(policy)}
                )

        yield Step(
            f"let {name} give up to {dead} after {self._wanted.max_receive} tries", set_policy
        )

    async def _policy(self) -> AsyncIterator[Step]:
        """Let S3, for this bucket only, send to the intake queue."""
        sqs = await self._aws.client("sqs")
        wanted = self._wanted
        what = f"allow events of s3://{wanted.bucket} into {wanted.intake_queue}"
        url = await find_queue(sqs, wanted.intake_queue)
        if url is None:
            yield Step(what, _nothing)
            return
        sender = Sender(wanted.bucket, await _queue_arn(sqs, url))
        async with translated(f"queue {wanted.intake_queue}"):
            have = await sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["Policy"])
        policy = read_policy(have.get("Attributes", {}).get("Policy", ""), wanted.intake_queue)
        found = judged(policy, sender)
        if found.verdict is not PolicyVerdict.NOTHING:
            if found.verdict is not PolicyVerdict.SENDS:
                yield Step(left_alone(found, sender, wanted.intake_queue), _nothing)
            return
        body = json.dumps(allowing(policy, sender))

        async def set_policy() -> None:
            async with translated(f"queue {wanted.intake_queue}"):
                await sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": body})

        yield Step(what, set_policy)

    # --- topic, bucket --------------------------------------------------------------------------

    async def topic(self) -> AsyncIterator[Step]:
        name = self._wanted.topic
        if not name:
            return
        sns = await self._aws.client("sns")
        if await find_topic(sns, name) is not None:
            return

        async def create() -> None:
            async with translated(f"topic {name}"):
                await sns.create_topic(Name=name)

        yield Step(f"create topic {name}", create)

    async def bucket(self) -> AsyncIterator[Step]:
        s3, name = await self._aws.client("s3"), self._wanted.bucket
        if await _has_bucket(s3, name):
            return
        if not self._wanted.create_bucket:
            raise Permanent(
                f"The bucket {name} does not exist. Create it, correct its name in the settings, or run "
                "init with --create-bucket."
            )
        region = s3.meta.region_name
        where = {"CreateBucketConfiguration": {"LocationConstraint": region}}

        async def create() -> None:
            async with _unless_there(lambda: _has_bucket(s3, name)), translated(f"bucket {name}"):
                await s3.create_bucket(Bucket=name, **(where if region != "us-east-1" else {}))

        yield Step(f"create bucket {name}", create)

    async def notification(self) -> AsyncIterator[Step]:
        s3, sqs = await self._aws.client("s3"), await self._aws.client("sqs")
        wanted = self._wanted
        what = f"send events of s3://{wanted.bucket}/{wanted.prefix} to {wanted.intake_queue}"
        url = await find_queue(sqs, wanted.intake_queue)
        if url is None:
            yield Step(what, _nothing)
            return
        arn = await _queue_arn(sqs, url)
        ours = [rule_of(wanted.prefix, arn, name) for name in (READY, IGNORE)]
        async with translated(f"bucket {wanted.bucket}"):
            have = await s3.get_bucket_notification_configuration(Bucket=wanted.bucket)
        have.pop("ResponseMetadata", None)
        names = {rule["Id"] for rule in ours}
        rules = have.get("QueueConfigurations", [])
        others = [rule for rule in rules if rule.get("Id") not in names]
        if sorted(map(comparable, rules)) == sorted(map(comparable, [*others, *ours])):
            return
        body = {**have, "QueueConfigurations": [*others, *ours]}

        async def put() -> None:
            async with translated(f"bucket {wanted.bucket}"):
                await s3.put_bucket_notification_configuration(
                    Bucket=wanted.bucket, NotificationConfiguration=body
                )

        why = f"AWS does not know yet that s3://{wanted.bucket} may send to {wanted.intake_queue}"
        yield Step(what, partial(self._patience.until_taken, put, policy_not_seen, why))


def _logged(sentence: str) -> None:
    log.warning("waiting", why=sentence)


def _object(text: str) -> Item:
    """Return the JSON object that ``text`` is, an empty one if it is none."""
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def dead_letter_name(queue: str) -> str:
    """``x.fifo`` gives up to ``x-dlq.fifo``: the dead letters of a FIFO queue need a FIFO queue."""
    stem, dot, fifo = queue.partition(".fifo")
    return f"{stem}-dlq{dot}{fifo}"


async def find_queue(sqs: Any, name: str) -> str | None:
    """Return the URL of the queue, None if there is none."""
    async with translated(f"queue {name}"):
        try:
            answer = await sqs.get_queue_url(QueueName=name)
        except ClientError as exc:
            if "NonExistentQueue" in error_code(exc) or error_code(exc) == "QueueDoesNotExist":
                return None
            raise
    return str(answer["QueueUrl"])


async def find_topic(sns: Any, name: str) -> str | None:
    """Return the ARN of the topic, None if there is none."""
    token: dict[str, str] = {}
    while True:
        async with translated("the topics"):
            page = await sns.list_topics(**token)
        for topic in page.get("Topics", []):
            if topic["TopicArn"].rsplit(":", 1)[-1] == name:
                return str(topic["TopicArn"])
        if not page.get("NextToken"):
            return None
        token = {"NextToken": page["NextToken"]}


async def _queue_arn(sqs: Any, url: str) -> str:
    async with translated(f"queue {url}"):
        answer = await sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
    return str(answer["Attributes"]["QueueArn"])


@asynccontextmanager
async def _unless_there(look: Callable[[], Awaitable[Any]]) -> AsyncIterator[None]:
    """Let a refusal pass if what was to be made is there.

    The SDK repeats a request whose answer got lost, and the second one is refused.
    """
    try:
        yield
    except (Impeded, Permanent):
        if not await look():
            raise


async def _has_bucket(s3: Any, name: str) -> bool:
    """Raises Transient, and Permanent for a bucket that we may not use."""
    async with translated(f"bucket {name}"):
        try:
            await s3.head_bucket(Bucket=name)
        except ClientError as exc:
            if is_missing(exc):
                return False
            raise
    return True


def _unseen(what: str) -> Transient:
    error = Transient(f"The {what} was made and cannot be seen yet; run init again in a minute.")
    error.code = NOT_SEEN
    return error


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
        "Projection": {"ProjectionType": "ALL"},
    }


def _attributes(names: set[str]) -> list[Item]:
    return [{"AttributeName": name, "AttributeType": "S"} for name in sorted(names)]


async def _create_table(db: Any, name: str, range_key: str, indexes: list[_Index]) -> None:
    names = {"workset_id", range_key, *(i.hash for i in indexes), *(i.range for i in indexes)}
    async with _unless_there(lambda: _stays(db, name)), translated(f"table {name}"):
        await db.create_table(
            TableName=name,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=_attributes(names - {""}),
            KeySchema=_schema("workset_id", range_key),
            GlobalSecondaryIndexes=[_definition(index) for index in indexes],
        )
    await _until_active(db, name)


async def _add_index(db: Any, table: str, index: _Index) -> None:
    async with (
        _unless_there(lambda: _has_index(db, table, index)),
        translated(f"table {table}"),
    ):
        await db.update_table(
            TableName=table,
            AttributeDefinitions=_attributes({index.hash, index.range}),
            GlobalSecondaryIndexUpdates=[{"Create": _definition(index)}],
        )
    await _until_active(db, table)


async def _until_active(db: Any, name: str) -> None:
    """Wait as long as it takes, which is minutes for an index on a big table. Raises Transient."""
    unseen = 0
    while True:
        table = await _describe_table(db, name) or {}
        unseen = 0 if table else unseen + 1
        if unseen > _UNSEEN_LOOKS or _is_going(table):
            raise _unseen(f"table {name}")
        indexes = table.get("GlobalSecondaryIndexes", [])
        states = [table.get("TableStatus"), *(i.get("IndexStatus", "ACTIVE") for i in indexes)]
        if all(state == "ACTIVE" for state in states):
            return
        await sleep(_INDEX_WAIT_S)


def _complete_item(db: Any, table: str, item: Item) -> Step:
    id = str(item["workset_id"])

    async def complete() -> None:
        async with translated(f"item {id}"):
            await db.update_item(
                TableName=table,
                Key={"workset_id": typed(id)},
                UpdateExpression="SET priority_key = :key",
                ConditionExpression="attribute_exists(workset_id)",
                ExpressionAttributeValues={":key": typed(workset_from_item(item).priority_key)},
            )

    try:
        workset_from_item(item)
    except Unusable as exc:
        return Step(f"leave item {id} alone: {exc}", _nothing)
    return Step(f"complete item {id} of the old system", complete)


async def _nothing() -> None:
    """A step of a dry run that depends on one not done yet."""
