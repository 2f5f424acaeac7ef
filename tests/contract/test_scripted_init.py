"""What AWS says to ``init`` and no emulator does: waits that it prescribes, and policies of other people."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from daylily_daemon.adapters.aws import Aws
from daylily_daemon.adapters.patience import Patience
from daylily_daemon.adapters.provision import Provisioner, Wanted
from daylily_daemon.domain.errors import Permanent, Transient
from tests.contract.scripted_aws import TABLES, Says, ScriptedAws, ok, raw, refused, scripted

WANTED: Final = Wanted(
    bucket="lab",
    prefix="drops/",
    tables=TABLES,
    intake_queue="intake",
    commands_queue="commands.fifo",
    topic="",
    visibility_s=60,
    max_receive=5,
)
QUEUE: Final = "arn:aws:sqs:us-west-2:123456789012:intake"
GRANT: Final[dict[str, Any]] = {
    "Sid": "daylily-lab",
    "Effect": "Allow",
    "Principal": {"Service": "s3.amazonaws.com"},
    "Action": "sqs:SendMessage",
    "Resource": QUEUE,
    "Condition": {
        "ArnEquals": {"aws:SourceArn": "arn:aws:s3:::lab"},
        "StringEquals": {"aws:SourceAccount": "123456789012"},
        "Bool": {"aws:SecureTransport": "true"},
    },
}
MISSING: Final = refused("AWS.SimpleQueueService.NonExistentQueue")


@dataclass
class Init:
    script: ScriptedAws
    aws: Aws
    told: list[str] = field(default_factory=list)
    paused_s: list[float] = field(default_factory=list)

    @property
    def provisioner(self) -> Provisioner:
        async def pause(seconds: float) -> None:
            self.paused_s.append(seconds)

        return Provisioner(self.aws, WANTED, Patience(tell=self.told.append, pause=pause))

    async def run(self, part: str) -> list[str]:
        done = []
        async for step in getattr(self.provisioner, part)():
            await step.do()
            done.append(step.what)
        return done

    def has_policy(self, text: str) -> None:
        self.script.say("GetQueueUrl", ok(QueueUrl="http://q/intake"))
        self.script.say("GetQueueAttributes", *self.attributes(text))
        self.script.say("SetQueueAttributes", ok())

    def attributes(self, text: str) -> tuple[Says, ...]:
        policy = {"Policy": text} if text else {}
        redrive = {
            "RedrivePolicy": json.dumps({"deadLetterTargetArn": QUEUE, "maxReceiveCount": "5"})
        }
        return (ok(Attributes={"QueueArn": QUEUE, **redrive, **policy}),)

    @property
    def policies(self) -> list[Any]:
        asked = self.script.asked["SetQueueAttributes"]
        return [json.loads(one["Attributes"]["Policy"]) for one in asked]


@pytest.fixture
async def init() -> AsyncIterator[Init]:
    async with scripted() as (script, aws):
        yield Init(script, aws)


# --- policies of other people --------------------------------------------------------------------


@pytest.mark.parametrize("statements", [GRANT, [GRANT]])
async def test_a_stricter_policy_that_suffices_is_left_alone(init: Init, statements: Any) -> None:
    init.has_policy(json.dumps({"Statement": statements}))
    assert await init.run("queues") == []
    assert init.policies == []


async def test_a_policy_of_one_statement_is_completed_and_keeps_it(init: Init) -> None:
    deny = {**GRANT, "Sid": "tls", "Effect": "Deny", "Principal": "*"}
    deny["Condition"] = {"Bool": {"aws:SecureTransport": "false"}}
    init.has_policy(json.dumps({"Id": "theirs", "Statement": deny}))
    assert await init.run("queues") == ["allow events of s3://lab into intake"]
    (policy,) = init.policies
    assert policy["Id"] == "theirs"
    assert policy["Statement"][0] == deny
    assert len(policy["Statement"]) == 2


async def test_a_policy_that_cannot_be_judged_is_left_alone_with_a_sentence(init: Init) -> None:
    unknown = {**GRANT, "Condition": {"StringEquals": {"aws:PrincipalOrgID": "o-1"}}}
    init.has_policy(json.dumps({"Statement": unknown}))
    (said,) = await init.run("queues")
    assert "leave the policy of intake alone: its statement daylily-lab may or may not" in said
    assert init.policies == []


@pytest.mark.parametrize("text", ["{", "[]", '{"Statement": 7}'])
async def test_a_policy_that_is_none_is_a_sentence_and_stays(init: Init, text: str) -> None:
    init.has_policy(text)
    with pytest.raises(Permanent, match="The policy of the queue intake cannot be read"):
        await init.run("queues")
    assert init.policies == []


# --- waits ---------------------------------------------------------------------------------------


async def test_the_name_of_a_queue_that_was_deleted_is_waited_for(init: Init) -> None:
    there = ok(QueueUrl="http://q/x")
    init.script.say("GetQueueUrl", MISSING, there)
    init.script.say("GetQueueAttributes", *init.attributes(json.dumps({"Statement": GRANT})))
    gone = refused("AWS.SimpleQueueService.QueueDeletedRecently")
    init.script.say("CreateQueue", gone, gone, ok(QueueUrl="http://q/x"))
    assert await init.run("queues") == ["create queue intake-dlq"]
    assert len(init.paused_s) == 2
    (told,) = init.told
    assert "frees the name of the deleted queue intake-dlq after 60 s; waiting up to 120 s." in told


async def test_a_queue_that_cannot_be_seen_yet_is_not_taken_for_made(init: Init) -> None:
    init.script.say("GetQueueUrl", MISSING, MISSING, ok(QueueUrl="http://q/x"))
    init.script.say("GetQueueAttributes", *init.attributes(json.dumps({"Statement": GRANT})))
    init.script.say("CreateQueue", ok(QueueUrl="http://q/x"))
    assert await init.run("queues") == ["create queue intake-dlq"]
    assert len(init.paused_s) == 1


EMPTY: Final = raw(200, b"<NotificationConfiguration></NotificationConfiguration>")


async def test_a_policy_that_s3_does_not_see_yet_is_waited_for(init: Init) -> None:
    init.has_policy(json.dumps({"Statement": GRANT}))
    init.script.say("GetBucketNotificationConfiguration", EMPTY)
    words = "Unable to validate the following destination configurations"
    not_yet = refused("InvalidArgument", words=words)
    init.script.say("PutBucketNotificationConfiguration", not_yet, not_yet, ok())
    assert len(await init.run("notification")) == 1
    assert len(init.script.asked["PutBucketNotificationConfiguration"]) == 3
    (told,) = init.told
    assert "AWS does not know yet that s3://lab may send to intake; waiting up to" in told


async def test_another_no_of_the_bucket_is_said_at_once(init: Init) -> None:
    init.has_policy(json.dumps({"Statement": GRANT}))
    init.script.say("GetBucketNotificationConfiguration", EMPTY)
    overlap = refused("InvalidArgument", words="Configurations overlap.")
    init.script.say("PutBucketNotificationConfiguration", overlap)
    with pytest.raises(Permanent, match="Configurations overlap"):
        await init.run("notification")
    assert init.told == []


def table(status: str = "ACTIVE") -> Says:
    def index(name: str, hash: str, range: str) -> dict[str, Any]:
        keys = [
            {"AttributeName": hash, "KeyType": "HASH"},
            {"AttributeName": range, "KeyType": "RANGE"},
        ]
        return {"IndexName": name, "IndexStatus": "ACTIVE", "KeySchema": keys}

    indexes = [
        index("state-priority-index", "state", "priority_key"),
        index("customer-id-state-index", "customer_id", "state"),
        index("outbox-index", "outbox", "at"),
    ]
    return ok(Table={"TableStatus": status, "GlobalSecondaryIndexes": indexes})


async def test_a_table_that_is_being_deleted_is_waited_for_and_made(init: Init) -> None:
    going, gone = table("DELETING"), refused("ResourceNotFoundException")
    init.script.say("DescribeTable", going, going, gone, table())
    init.script.say("CreateTable", refused("ResourceInUseException"), ok(TableDescription={}))
    init.script.say("Scan", ok(Items=[]))
    init.script.say("DescribeTimeToLive", ok(TimeToLiveDescription={"TimeToLiveStatus": "ENABLED"}))
    assert await init.run("tables") == ["create table worksets"]
    assert init.told == ["The table worksets is being deleted or changed; waiting up to 120 s."]


async def test_a_table_that_is_never_seen_ends_with_a_sentence(
    init: Init, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daylily_daemon.adapters.provision._INDEX_WAIT_S", 0.0)
    monkeypatch.setattr("daylily_daemon.adapters.patience.WITHIN_S", 0.0)
    init.script.say("DescribeTable", refused("ResourceNotFoundException"))
    init.script.say("CreateTable", ok(TableDescription={}))
    provisioner = Provisioner(init.aws, WANTED, Patience(tell=init.told.append, within_s=0.0))
    step = await anext(provisioner.tables())
    with pytest.raises(Transient, match="run init again in a minute"):
        await step.do()
