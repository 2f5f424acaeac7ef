"""``doctor`` names the right that is missing, and trying all of them leaves nothing behind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pytest

from daylily_daemon.adapters.aws import Aws, AwsOptions
from daylily_daemon.adapters.metricdata import NAMESPACE
from daylily_daemon.adapters.provision import (
    Provisioner,
    Wanted,
    dead_letter_name,
    find_queue,
    find_topic,
)
from daylily_daemon.adapters.rights import Needs, Right, judged_rights, tried
from daylily_daemon.domain.finding import CheckResult, Grade
from daylily_daemon.domain.paths import S3Place
from tests.contract.mail_receivers import SENDER
from tests.contract.stores import wanted
from tests.iam import KEYS, Role

TRIED: Final = (
    *("dynamodb:GetItem", "dynamodb:BatchGetItem", "dynamodb:Query"),
    *("dynamodb:PutItem", "dynamodb:UpdateItem"),
    *("sqs:ReceiveMessage", "sqs:SendMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility"),
    *("s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:ListBucket"),
    *("sns:ListTopics", "sns:Publish", "ses:SendEmail", "cloudwatch:PutMetricData"),
)
FOUND_BY: Final = ("sqs:GetQueueUrl", "s3:GetBucketVersioning", "ses:SendRawEmail")
"""What a look takes beside that."""


@dataclass(frozen=True)
class Guarded:
    root: Aws
    mine: Aws
    role: Role
    names: Wanted
    needs: Needs


@pytest.fixture
async def guarded(
    guarded_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Guarded]:
    keys = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(keys))
    _write(keys, KEYS.format("root", "test", "test"))
    names = wanted()
    async with Aws(AwsOptions(endpoint_url=guarded_url, profile="root")) as root:
        async for step in Provisioner(root, names).missing():
            await step.do()
        iam = await root.client("iam")
        role = Role(iam=iam, name=f"user-{names.bucket}", actions=(*TRIED, *FOUND_BY))
        await iam.create_user(UserName=role.name)
        key = (await iam.create_access_key(UserName=role.name))["AccessKey"]
        mine_keys = KEYS.format("mine", key["AccessKeyId"], key["SecretAccessKey"])
        _write(keys, KEYS.format("root", "test", "test") + mine_keys)
        await (await root.client("sesv2")).create_email_identity(EmailIdentity="lab.example")
        topic = await find_topic(await root.client("sns"), names.topic)
        needs = Needs(
            tables=names.tables,
            queues=(names.intake_queue, names.commands_queue),
            bucket=names.bucket,
            prefix=names.prefix,
            writes_sentinels=True,
            topic_arn=str(topic),
            finds_topic=True,
            mail_from=SENDER,
            sends_figures=True,
        )
        async with Aws(AwsOptions(endpoint_url=guarded_url, profile="mine")) as mine:
            yield Guarded(root, mine, role, names, needs)


def _write(path: Path, text: str) -> None:
    path.write_text(text)


async def test_each_right_that_is_missing_is_named_alone(guarded: Guarded) -> None:
    await guarded.role.without("")
    assert _grades(await judged_rights(guarded.mine, guarded.needs)) == {Grade.OK}
    for action in TRIED:
        await guarded.role.without(action)
        (finding,) = await judged_rights(guarded.mine, guarded.needs)
        assert (finding.grade, finding.text.split()[0]) == (Grade.FAIL, action)
        assert finding.remedy.startswith(f"Add {action} to the policy")


async def test_who_may_do_nothing_is_told_all_of_it(guarded: Guarded) -> None:
    await guarded.role.only("sqs:GetQueueUrl")
    found = await judged_rights(guarded.mine, guarded.needs)
    assert _grades(found) == {Grade.FAIL}
    named = {finding.text.split()[0] for finding in found}
    # S3 denies to read what is not there to everybody who may not list.
    assert named == {*TRIED} - {"s3:GetObject", "s3:DeleteObject"}


def _grades(findings: Any) -> set[Grade]:
    return {finding.grade for finding in findings}


@pytest.fixture(params=["moto", "ministack"])
async def emulated(request: pytest.FixtureRequest) -> AsyncIterator[Guarded]:
    url = request.getfixturevalue(f"{request.param}_url")
    names = wanted()
    async with Aws(AwsOptions(endpoint_url=url)) as aws:
        async for step in Provisioner(aws, names).missing():
            await step.do()
        topic = await find_topic(await aws.client("sns"), names.topic)
        place = S3Place(names.bucket, "elsewhere/")
        needs = Needs(
            tables=names.tables,
            queues=(names.intake_queue, names.commands_queue),
            bucket=names.bucket,
            prefix=names.prefix,
            inputs=(place,),
            exports=(place,),
            writes_sentinels=True,
            topic_arn=str(topic),
            finds_topic=True,
            sends_figures=request.param == "moto",  # ministack takes a figure that is no number
        )
        yield Guarded(aws, aws, Role(iam=None), names, needs)


async def test_trying_all_rights_leaves_nothing_behind(emulated: Guarded) -> None:
    """A queue hears what the topic is told; a message that waits is not received by the look."""
    aws, names = emulated.root, emulated.names
    sqs, sns = await aws.client("sqs"), await aws.client("sns")
    ear = (await sqs.create_queue(QueueName=f"ear-{names.bucket}"))["QueueUrl"]
    arn = (await sqs.get_queue_attributes(QueueUrl=ear, AttributeNames=["QueueArn"]))["Attributes"]
    await sns.subscribe(TopicArn=emulated.needs.topic_arn, Protocol="sqs", Endpoint=arn["QueueArn"])
    intake = await find_queue(sqs, names.intake_queue)
    await sqs.send_message(QueueUrl=intake, MessageBody="waits")
    before = await _all_there_is(aws, names, ear)
    (finding,) = await judged_rights(emulated.mine, emulated.needs)
    assert finding.grade is Grade.OK, finding
    assert await _all_there_is(aws, names, ear) == before
    answer = await sqs.receive_message(
        QueueUrl=intake, AttributeNames=["ApproximateReceiveCount"], MaxNumberOfMessages=10
    )
    counts = [m["Attributes"]["ApproximateReceiveCount"] for m in answer["Messages"]]
    assert set(counts) == {"1"}


async def _all_there_is(aws: Aws, names: Wanted, ear: str) -> dict[str, Any]:
    """Return items, keys, versions, uploads, and how many messages lie in each queue."""
    db, s3, sqs = await aws.client("dynamodb"), await aws.client("s3"), await aws.client("sqs")
    tables = (names.tables.worksets, names.tables.events, names.tables.control)
    queues = (names.intake_queue, names.commands_queue)
    urls = [ear, *[str(await find_queue(sqs, n)) for q in queues for n in (q, dead_letter_name(q))]]
    kinds = ("", "NotVisible", "Delayed")
    waiting = [f"ApproximateNumberOfMessages{kind}" for kind in kinds]
    bucket, figures = {"Bucket": names.bucket}, await aws.client("cloudwatch")
    return {
        "figures": (await figures.list_metrics(Namespace=NAMESPACE))["Metrics"],
        "items": [(await db.scan(TableName=table))["Items"] for table in tables],
        "objects": _only(await s3.list_objects_v2(**bucket), "Contents"),
        "versions": _only(await s3.list_object_versions(**bucket), "Versions", "DeleteMarkers"),
        "uploads": _only(await s3.list_multipart_uploads(**bucket), "Uploads"),
        "messages": [
            _counted(await sqs.get_queue_attributes(QueueUrl=url, AttributeNames=waiting))
            for url in urls
        ],
    }


def _only(answer: Mapping[str, Any], *names: str) -> list[Any]:
    return [answer.get(name, []) for name in names]


def _counted(answer: Mapping[str, Any]) -> dict[str, str]:
    return dict(answer["Attributes"])


async def test_no_delete_is_tried_where_it_would_leave_a_marker(emulated: Guarded) -> None:
    s3, bucket = await emulated.root.client("s3"), emulated.names.bucket
    await s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    (finding,) = await judged_rights(emulated.mine, emulated.needs)
    assert finding.grade is Grade.OK
    assert "s3:DeleteObject was left out: the bucket keeps versions" in finding.text
    versions = await s3.list_object_versions(Bucket=bucket)
    assert _only(versions, "DeleteMarkers", "Versions") == [[], []]


async def test_a_code_that_nobody_has_met_is_neither_yes_nor_no(emulated: Guarded) -> None:
    lost = replace(emulated.names.tables, events="no-such-table")
    found: list[CheckResult] = [
        *await judged_rights(emulated.mine, replace(emulated.needs, tables=lost))
    ]
    (finding,) = found
    assert finding.grade is Grade.UNKNOWN
    assert "no-such-table" in finding.text
    right = Right(action="sqs:SendMessage", on="q", call="send_message", request={"QueueUrl": "x"})
    assert (await tried(emulated.mine, right)).granted is None
