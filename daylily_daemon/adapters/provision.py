"""What ``init`` makes: tables, queues, topic and bucket notification. Running it twice changes nothing.

Each part looks at what is there and yields the *steps* that are missing, as a sentence and a call. A dry run
prints the sentences. What exists is completed, never replaced: a table of the old system keeps its items, and
the bucket's other notifications stay.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import structlog
from botocore.exceptions import ClientError

from daylily_daemon.adapters.aws import Aws, error_code, is_missing, translated
from daylily_daemon.adapters.codec import (
    Item,
)
from daylily_daemon.adapters.envelopes import IGNORE, READY
from daylily_daemon.adapters.notification import comparable, rule_of
from daylily_daemon.adapters.patience import (
    Patience,
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
from daylily_daemon.adapters.setupsteps import Step, nothing, unless_there, unseen
from daylily_daemon.adapters.tables import Tables
from daylily_daemon.adapters.tablesetup import TableSetup
from daylily_daemon.domain.errors import Permanent

log = structlog.get_logger()

_RETENTION_S: Final = 14 * 24 * 3600
"""The longest SQS keeps a message."""
_INDEX_WAIT_S: Final = 2.0
_OLDER_CUSTOMER_INDEX: Final = "customer-id-state-index"
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
    drop_old_indexes: bool = False
    """Once no daemon of a version before this one runs any more."""


class Provisioner:
    def __init__(self, aws: Aws, wanted: Wanted, patience: Patience | None = None) -> None:
        self._aws = aws
        self._wanted = wanted
        self._patience = patience or Patience(tell=_logged)
        self._tables = TableSetup(
            aws, wanted.tables, self._patience, drop_old=wanted.drop_old_indexes
        )

    async def missing(self) -> AsyncIterator[Step]:
        """Yield what has to be done, in order; each is to be done before the next is asked for."""
        for part in (self.bucket, self.tables, self.queues, self.topic, self.notification):
            async for step in part():
                yield step

    def tables(self) -> AsyncIterator[Step]:
        return self._tables.missing()

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
                raise unseen(f"queue {name}")

        why = f"AWS frees the name of the deleted queue {name} after 60 s"
        patiently = partial(self._patience.until_taken, create, name_is_kept, why)
        yield Step(f"create queue {name}", patiently)

    async def _redrive(self, name: str) -> AsyncIterator[Step]:
        sqs = await self._aws.client("sqs")
        dead = dead_letter_name(name)
        url, dead_url = await find_queue(sqs, name), await find_queue(sqs, dead)
        if url is None or dead_url is None:
            yield Step(
                f"let {name} give up to {dead} after {self._wanted.max_receive} tries", nothing
            )
            return
        arn = await queue_arn(sqs, dead_url)
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
            yield Step(what, nothing)
            return
        sender = Sender(wanted.bucket, await queue_arn(sqs, url))
        async with translated(f"queue {wanted.intake_queue}"):
            have = await sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["Policy"])
        policy = read_policy(have.get("Attributes", {}).get("Policy", ""), wanted.intake_queue)
        found = judged(policy, sender)
        if found.verdict is not PolicyVerdict.NOTHING:
            if found.verdict is not PolicyVerdict.SENDS:
                words = left_alone(found, sender, wanted.intake_queue)
                yield Step(words, nothing, is_left_alone=True)
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
            async with unless_there(lambda: _has_bucket(s3, name)), translated(f"bucket {name}"):
                await s3.create_bucket(Bucket=name, **(where if region != "us-east-1" else {}))

        yield Step(f"create bucket {name}", create)

    async def notification(self) -> AsyncIterator[Step]:
        s3, sqs = await self._aws.client("s3"), await self._aws.client("sqs")
        wanted = self._wanted
        what = f"send events of s3://{wanted.bucket}/{wanted.prefix} to {wanted.intake_queue}"
        url = await find_queue(sqs, wanted.intake_queue)
        if url is None:
            yield Step(what, nothing)
            return
        arn = await queue_arn(sqs, url)
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


async def queue_arn(sqs: Any, url: str) -> str:
    async with translated(f"queue {url}"):
        answer = await sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
    return str(answer["Attributes"]["QueueArn"])


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
