"""Which rights our credentials have, each tried by a call that cannot do anything.

A condition that no item fulfils, a receipt that is none, a message that is too long: AWS refuses such a call
for what is wrong with it if we have the right, and for the right if we lack it. Where AWS does it all the
same (read a key that is none) nothing comes of it. Which codes say what was tried on an emulator that
enforces IAM; a code that is on neither list says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import nan
from typing import Any, Final

import anyio
from botocore.exceptions import ClientError

from daylily_daemon.adapters.answers import error_code, plain_code
from daylily_daemon.adapters.aws import Aws, translated
from daylily_daemon.adapters.codec import Item, typed
from daylily_daemon.adapters.metricdata import NAMESPACE
from daylily_daemon.adapters.provision import dead_letter_name, find_queue
from daylily_daemon.adapters.tables import Tables
from daylily_daemon.domain.errors import CREDENTIALS, DaemonError, leaf
from daylily_daemon.domain.finding import CheckResult, Grade, ok
from daylily_daemon.domain.paths import S3Place

NOBODY: Final = "doctor: nobody"
"""No workset, daemon or object can be called so."""
_DENIED: Final = frozenset({"AccessDenied", "AuthorizationError", "UnauthorizedOperation", "403"})
_AT_ONCE: Final = 8
_OVERLONG: Final = "x" * 262_145
"""One byte more than SNS takes."""
_WRONG_MD5: Final = "AAAAAAAAAAAAAAAAAAAAAA=="


@dataclass(frozen=True, slots=True, kw_only=True)
class Right:
    """A right, and the call that tells whether we have it."""

    action: str
    """As policies name it: ``sqs:SendMessage``."""
    on: str
    """Name of the table, the queue, the topic or the bucket."""
    call: str
    request: Mapping[str, Any] = field(repr=False)
    means_yes: frozenset[str] = frozenset()
    """Plain codes of a refusal that comes only after the right was granted."""

    @property
    def client(self) -> str:
        service = self.action.partition(":")[0]
        return "sesv2" if service == "ses" else service


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What the daemon uses."""

    tables: Tables
    queues: Sequence[str]
    """Those it receives from; their dead-letter queues go with them."""
    bucket: str
    prefix: str
    inputs: Sequence[S3Place] = ()
    exports: Sequence[S3Place] = ()
    writes_sentinels: bool = False
    topic_arn: str = ""
    """Empty: none is told."""
    finds_topic: bool = False
    mail_from: str = ""
    """Sender of mail by SES; empty: none is sent."""
    sends_figures: bool = False
    """To CloudWatch."""


@dataclass(frozen=True, slots=True)
class Tried:
    right: Right
    granted: bool | None
    """None: it could not be told."""
    words: str = ""
    """AWS's code, or why it could not be told."""


async def judged_rights(aws: Aws, needs: Needs) -> Sequence[CheckResult]:
    """Try every right that the daemon uses with these settings. Raises what the clients raise."""
    untried = [] if not needs.writes_sentinels else await _kept_versions(aws, needs.bucket)
    rights = [*_of_tables(needs.tables), *_of_buckets(needs, keeps_versions=bool(untried))]
    rights += [*await _of_queues(aws, needs.queues), *_of_channels(needs)]
    tried = await _all_tried(aws, rights)
    wrong = [*_denied(tried), *_untold(tried)]
    note = f"; {untried[0]}" if untried else ""
    return wrong or [
        ok(f"All {len(rights)} are there, each tried by a call that does nothing{note}.")
    ]


async def _all_tried(aws: Aws, rights: Sequence[Right]) -> Sequence[Tried]:
    found: dict[int, Tried] = {}
    limiter = anyio.CapacityLimiter(_AT_ONCE)

    async def one(number: int, right: Right) -> None:
        async with limiter:
            found[number] = await tried(aws, right)

    try:
        async with anyio.create_task_group() as tg:
            for number, right in enumerate(rights):
                tg.start_soon(one, number, right)
    except ExceptionGroup as group:
        raise leaf(group) from group
    return [found[number] for number in sorted(found)]


async def tried(aws: Aws, right: Right) -> Tried:
    """Raises what is wrong with our credentials, which every other right would meet too."""
    try:
        client = await aws.client(right.client)
        async with translated(right.on):
            try:
                await getattr(client, right.call)(**right.request)
            except ClientError as exc:
                code = plain_code(error_code(exc))
                if code in _DENIED:
                    return Tried(right, granted=False, words=error_code(exc))
                if code in right.means_yes:
                    return Tried(right, granted=True)
                raise
    except DaemonError as exc:
        if exc.code == CREDENTIALS:
            raise
        return Tried(right, granted=None, words=str(exc))
    return Tried(right, granted=True)


def _denied(tried: Sequence[Tried]) -> Iterator[CheckResult]:
    """Yield a finding an action. Without ListBucket, S3 denies to read what is not there: no proof."""
    denied = [one for one in tried if one.granted is False]
    unlisted = {one.right.on for one in denied if one.right.action == "s3:ListBucket"}
    places: dict[str, list[str]] = {}
    for one in denied:
        if one.right.action != "s3:GetObject" or one.right.on not in unlisted:
            places.setdefault(f"{one.right.action}\n{one.words}", []).append(one.right.on)
    for both, names in places.items():
        action, _, code = both.partition("\n")
        yield CheckResult(
            grade=Grade.FAIL,
            text=f"{action} on {', '.join(dict.fromkeys(names))}: {code}.",
            remedy=f"Add {action} to the policy of the role (docs/operations.md, IAM)",
        )


def _untold(tried: Sequence[Tried]) -> Iterator[CheckResult]:
    unknown = [one for one in tried if one.granted is None]
    if unknown:
        first = unknown[0]
        what = ", ".join(dict.fromkeys(one.right.action for one in unknown))
        text = f"It cannot be told whether we have {what}: on {first.right.on}, {first.words}"
        yield CheckResult(grade=Grade.UNKNOWN, text=text)


# --- the calls ------------------------------------------------------------------------------------


def _of_tables(tables: Tables) -> Iterator[Right]:
    yield from _of_table(tables.worksets, "workset_id")
    yield from _of_table(tables.events, "workset_id", "seq")
    yield from _of_table(tables.control, "pk", "sk")
    keys = [{"workset_id": typed(NOBODY)}]
    request = {"RequestItems": {tables.worksets: {"Keys": keys}}}
    yield Right(
        action="dynamodb:BatchGetItem", on=tables.worksets, call="batch_get_item", request=request
    )
    for table, index, name in (
        (tables.worksets, tables.queue_index, "queue"),
        (tables.events, tables.outbox_index, "outbox"),
    ):
        asked = _query(table, name) | {"IndexName": index}
        yield Right(action="dynamodb:Query", on=f"{table}/{index}", call="query", request=asked)


def _of_table(table: str, *names: str) -> Iterator[Right]:
    key = {name: typed(NOBODY) for name in names}
    absent = frozenset({"ConditionalCheckFailed"})
    condition = {
        "TableName": table,
        "ConditionExpression": "attribute_exists(#key)",
        "ExpressionAttributeNames": {"#key": names[0]},
    }
    change = {
        "Key": key,
        "UpdateExpression": "SET doctor = :doctor",
        "ExpressionAttributeValues": {":doctor": typed(NOBODY)},
    }
    for action, call, request in (
        ("GetItem", "get_item", {"TableName": table, "Key": key}),
        ("Query", "query", _query(table, names[0])),
        ("PutItem", "put_item", condition | {"Item": key}),
        ("UpdateItem", "update_item", condition | change),
    ):
        yield Right(
            action=f"dynamodb:{action}", on=table, call=call, request=request, means_yes=absent
        )


def _query(table: str, name: str) -> Item:
    return {
        "TableName": table,
        "Limit": 1,
        "KeyConditionExpression": "#key = :key",
        "ExpressionAttributeNames": {"#key": name},
        "ExpressionAttributeValues": {":key": typed(NOBODY)},
    }


async def _of_queues(aws: Aws, names: Sequence[str]) -> Sequence[Right]:
    """A queue that is not there, or may not be found, is told of by the check of the queues."""
    sqs, found = await aws.client("sqs"), list[Right]()
    for name in (n for queue in names for n in (queue, dead_letter_name(queue))):
        try:
            url = await find_queue(sqs, name)
        except DaemonError as exc:
            if exc.code == CREDENTIALS:
                raise
            url = None
        if url is not None:
            found += _of_queue(name, url)
    return found


def _of_queue(name: str, url: str) -> Iterator[Right]:
    """SQS looks at a message and at numbers before it takes or gives anything."""
    receipt = {"QueueUrl": url, "ReceiptHandle": NOBODY}
    nothing = {"QueueUrl": url, "MessageBody": "", "DelaySeconds": 1000}
    numbers = frozenset({"InvalidParameterValue", "ReadCountOutOfRange"})
    receipts = frozenset({"ReceiptHandleIsInvalid", "InvalidParameterValue"})
    bodies = frozenset({"MissingParameter", "InvalidParameterValue", "InvalidMessageContents"})
    for action, call, request, codes in (
        ("ReceiveMessage", "receive_message", {"QueueUrl": url, "MaxNumberOfMessages": 0}, numbers),
        ("DeleteMessage", "delete_message", receipt, receipts),
        (
            "ChangeMessageVisibility",
            "change_message_visibility",
            receipt | {"VisibilityTimeout": 0},
            receipts,
        ),
        ("SendMessage", "send_message", nothing, bodies),
    ):
        yield Right(action=f"sqs:{action}", on=name, call=call, request=request, means_yes=codes)


def _of_buckets(needs: Needs, *, keeps_versions: bool) -> Iterator[Right]:
    own = S3Place(needs.bucket, needs.prefix)
    for place in dict.fromkeys((own, *needs.exports)):
        yield _write(place)
    for place in dict.fromkeys((own, *needs.inputs, *needs.exports)):
        yield _read(place)
    for bucket in dict.fromkeys(p.bucket for p in (own, *needs.inputs, *needs.exports)):
        listing = {"Bucket": bucket, "Prefix": NOBODY, "MaxKeys": 1}
        yield Right(action="s3:ListBucket", on=bucket, call="list_objects_v2", request=listing)
    if needs.writes_sentinels and not keeps_versions:
        yield _delete(own)


def _write(place: S3Place) -> Right:
    """An object that is to be replaced and is not there, with a digest that is not its own."""
    request = {
        "Bucket": place.bucket,
        "Key": f"{place.key}{NOBODY}",
        "Body": b"",
        "IfMatch": '"0"',
        "ContentMD5": _WRONG_MD5,
    }
    refusals = frozenset({"NoSuchKey", "PreconditionFailed", "BadDigest", "InvalidDigest", "412"})
    return Right(
        action="s3:PutObject",
        on=place.bucket,
        call="put_object",
        request=request,
        means_yes=refusals,
    )


def _read(place: S3Place) -> Right:
    request = {"Bucket": place.bucket, "Key": f"{place.key}{NOBODY}"}
    absent = frozenset({"NoSuchKey"})
    return Right(
        action="s3:GetObject", on=place.bucket, call="get_object", request=request, means_yes=absent
    )


def _delete(place: S3Place) -> Right:
    """What is not there is not deleted, in a bucket that keeps no versions."""
    request = {"Bucket": place.bucket, "Key": f"{place.key}{NOBODY}/daylily.error"}
    return Right(action="s3:DeleteObject", on=place.bucket, call="delete_object", request=request)


async def _kept_versions(aws: Aws, bucket: str) -> list[str]:
    """Return why a delete cannot be tried: it would leave a marker where versions are kept."""
    s3 = await aws.client("s3")
    try:
        async with translated(bucket):
            answer = await s3.get_bucket_versioning(Bucket=bucket)
    except DaemonError as exc:
        if exc.code == CREDENTIALS:
            raise
        return ["s3:DeleteObject was left out, for want of s3:GetBucketVersioning"]
    return (
        ["s3:DeleteObject was left out: the bucket keeps versions"] if answer.get("Status") else []
    )


def _of_channels(needs: Needs) -> Iterator[Right]:
    """A message that is too long, with a subject that is, in a structure that it does not have."""
    refusals = frozenset({"InvalidParameter", "InvalidParameterValue"})
    if needs.finds_topic:
        yield Right(action="sns:ListTopics", on="the topics", call="list_topics", request={})
    if needs.topic_arn:
        name = needs.topic_arn.rpartition(":")[2]
        request = {
            "TopicArn": needs.topic_arn,
            "Message": _OVERLONG,
            "Subject": "x" * 101,
            "MessageStructure": "json",
        }
        yield Right(
            action="sns:Publish", on=name, call="publish", request=request, means_yes=refusals
        )
    if needs.mail_from:
        yield _mail(needs.mail_from)
    if needs.sends_figures:
        yield _figures()


def _mail(sender: str) -> Right:
    """A mail to nobody that is no mail."""
    request = {
        "FromEmailAddress": sender,
        "Destination": {"ToAddresses": []},
        "Content": {"Raw": {"Data": b"x"}},
    }
    refusals = frozenset({"BadRequest", "MessageRejected", "InvalidParameterValue"})
    return Right(
        action="ses:SendEmail", on=sender, call="send_email", request=request, means_yes=refusals
    )


def _figures() -> Right:
    """A figure that is no number, of a time long ago."""
    long_ago = datetime(1970, 1, 1, tzinfo=UTC)
    datum = {"MetricName": NOBODY, "Value": nan, "Timestamp": long_ago}
    refusals = frozenset(
        {"InvalidParameterValue", "InvalidParameterCombination", "MissingRequiredParameter"}
    )
    return Right(
        action="cloudwatch:PutMetricData",
        on=NAMESPACE,
        call="put_metric_data",
        request={"Namespace": NAMESPACE, "MetricData": [datum]},
        means_yes=refusals,
    )
