"""What SQS says and no emulator does, said to the mailbox and to the dead letters."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from daylily_daemon.adapters.deadletters import DeadLetters, Pair
from daylily_daemon.adapters.envelopes import read_command
from daylily_daemon.adapters.sqs import QueueConfig, SqsMailbox, sendable
from daylily_daemon.domain.errors import Impeded, Permanent, Transient
from daylily_daemon.domain.model import Cancel, Command, WorksetId
from daylily_daemon.ports import Delivery, Unreadable
from tests.contract.scripted_aws import Says, ScriptedAws, ok, raw, refused, scripted

LIVE = "https://sqs.us-west-2.amazonaws.com/1/commands.fifo"
DEAD = "https://sqs.us-west-2.amazonaws.com/1/commands-dlq.fifo"
PARKED = refused("AWS.SimpleQueueService.NonExistentQueue")


@dataclass(frozen=True)
class Queue:
    script: ScriptedAws
    client: Any

    def box(self, decode: Any = read_command) -> SqsMailbox:
        return SqsMailbox(
            self.client,
            QueueConfig(url=LIVE, dead_letter_url=DEAD, wait_s=20, visibility_s=60),
            decode,
        )


@pytest.fixture
async def queue() -> AsyncIterator[Queue]:
    async with scripted() as (script, aws):
        script.say("DeleteMessageBatch", ok(Successful=[], Failed=[]))
        script.say("SendMessage", ok(MessageId="m", MD5OfMessageBody="x"))
        yield Queue(script, await aws.client("sqs"))


def a_command(n: int) -> Command:
    return Command(id=f"c{n}", workset_id=WorksetId(f"w{n}"), by="test", ask=Cancel())


def some(*ids: int, code: str, sender_fault: bool) -> Says:
    failed = [
        {"Id": str(n), "Code": code, "SenderFault": sender_fault, "Message": "No"} for n in ids
    ]
    return ok(Successful=[], Failed=failed)


async def a_delivery(queue: Queue, body: str = "nonsense", **more: Any) -> Delivery:
    message = {"MessageId": "m1", "ReceiptHandle": "r1", "Body": body, **more}
    queue.script.say("ReceiveMessage", ok(Messages=[message]))
    (delivery,) = await queue.box().receive()
    return delivery


# --- receiving -----------------------------------------------------------------------------------


async def test_a_message_that_breaks_its_reader_is_unreadable_alone(queue: Queue) -> None:
    def decode(body: str) -> tuple[Command, ...] | Unreadable:
        if body == "bomb":
            raise OverflowError("date value out of range")
        return (a_command(1),)

    bodies = ["good", "bomb", "fine"]
    messages = [{"MessageId": body, "ReceiptHandle": f"r-{body}", "Body": body} for body in bodies]
    queue.script.say("ReceiveMessage", ok(Messages=messages))
    good, bomb, fine = await queue.box(decode).receive()
    assert good.content == fine.content == (a_command(1),)
    assert isinstance(bomb.content, Unreadable)
    assert "OverflowError: date value out of range" in bomb.content.reason


@pytest.mark.parametrize(
    "message",
    [
        {"ReceiptHandle": "r"},
        {"ReceiptHandle": "r", "Body": "x", "Attributes": {}},
        {"ReceiptHandle": "r", "Body": "x", "Attributes": None},
        {"ReceiptHandle": "r", "Body": "x", "Attributes": {"ApproximateReceiveCount": "many"}},
        {"ReceiptHandle": "r", "Body": "x", "Attributes": {"ApproximateReceiveCount": "9" * 99}},
    ],
)
async def test_what_a_message_lacks_is_no_trouble_of_the_others(
    queue: Queue, message: dict[str, Any]
) -> None:
    whole = {"MessageId": "m2", "ReceiptHandle": "r2", "Body": "y"}
    without_receipt = {"MessageId": "m3", "Body": "z"}
    queue.script.say("ReceiveMessage", ok(Messages=[message, without_receipt, whole]))
    found = await queue.box().receive()
    assert [delivery.receipt for delivery in found] == ["r", "r2"]
    assert found[0].tries == 1


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (refused("AccessDenied", 403), Impeded),
        (refused("KmsAccessDenied"), Impeded),
        (refused("KmsThrottled"), Transient),
        (refused("AWS.SimpleQueueService.NonExistentQueue"), Impeded),
        (refused("OverLimit", 403), Transient),
        (raw(200, b'{"Messages": [{"MessageId"'), Transient),
        (raw(200, b"<html>Log in to the lab's network</html>"), Transient),
        (raw(403, b"<html>Blocked by the proxy</html>"), Impeded),
        (raw(404, b"<html>Not here</html>"), Impeded),
        (raw(407, b""), Impeded),
        (raw(502, b"<html>Bad gateway</html>"), Transient),
        (raw(200, b'{"Messages": [', cut=True), Transient),
        (raw(400, b'{"__type": 7, "message": [1]}'), Transient),
        (raw(400, b"\xff\xfe"), Transient),
    ],
)
async def test_whatever_stands_between_us_and_a_queue_parks_nothing(
    queue: Queue, answer: Says, kind: type[Transient]
) -> None:
    queue.script.say("ReceiveMessage", answer)
    with pytest.raises(kind):
        await queue.box().receive()


# --- settling ------------------------------------------------------------------------------------


@pytest.mark.reported(
    "A", "failed entries of DeleteMessageBatch are not looked at (sqs-consumer#193)"
)
async def test_what_was_not_deleted_is_deleted_once_more_and_nothing_else(queue: Queue) -> None:
    messages = [{"MessageId": f"m{n}", "ReceiptHandle": f"r{n}", "Body": "x"} for n in range(3)]
    queue.script.say("ReceiveMessage", ok(Messages=messages))
    deliveries = await queue.box().receive()
    queue.script.say(
        "DeleteMessageBatch",
        some(1, code="InternalError", sender_fault=False),
        some(0, code="InternalError", sender_fault=False),
    )
    await queue.box().settle(deliveries)
    asked = [
        [entry["ReceiptHandle"] for entry in request["Entries"]]
        for request in queue.script.asked["DeleteMessageBatch"]
    ]
    assert asked == [["r0", "r1", "r2"], ["r1"]]


async def test_a_receipt_that_is_too_old_is_not_tried_again(queue: Queue) -> None:
    delivery = await a_delivery(queue)
    queue.script.say(
        "DeleteMessageBatch", some(0, code="ReceiptHandleIsInvalid", sender_fault=True)
    )
    await queue.box().settle([delivery])
    assert len(queue.script.asked["DeleteMessageBatch"]) == 1


# --- sending -------------------------------------------------------------------------------------


async def test_the_group_of_a_command_is_its_workset(queue: Queue) -> None:
    queue.script.say("SendMessageBatch", ok(Successful=[], Failed=[]))
    await queue.box().send([a_command(n) for n in range(12)])
    entries = [e for asked in queue.script.asked["SendMessageBatch"] for e in asked["Entries"]]
    assert [entry["MessageGroupId"] for entry in entries] == [f"w{n}" for n in range(12)]
    assert len({entry["MessageDeduplicationId"] for entry in entries}) == 12


@pytest.mark.parametrize(
    ("code", "sender_fault", "kind"),
    [
        ("InternalError", False, Transient),
        ("ServiceUnavailable", False, Transient),
        ("KmsThrottled", True, Transient),
        ("KmsAccessDenied", True, Impeded),
        ("AccessDenied", True, Impeded),
        ("SomethingNew", True, Impeded),
        ("InvalidMessageContents", False, Transient),
        ("InvalidMessageContents", True, Permanent),
    ],
)
@pytest.mark.reported("A", "failed entries of SendMessageBatch are lost (wolverine#3503)")
async def test_a_command_that_was_not_taken_is_never_taken_for_sent(
    queue: Queue, code: str, sender_fault: bool, kind: type[Exception]
) -> None:
    queue.script.say(
        "SendMessageBatch",
        some(3, code=code, sender_fault=sender_fault),
        ok(Successful=[], Failed=[]),
    )
    with pytest.raises(kind, match=f"c3: No .{code}") as raised:
        await queue.box().send([a_command(n) for n in range(12)])
    assert type(raised.value) is kind
    sent = [len(asked["Entries"]) for asked in queue.script.asked["SendMessageBatch"]]
    assert sent == [10, 2]


async def test_what_may_pass_outweighs_what_never_will(queue: Queue) -> None:
    failed = [
        {"Id": "0", "Code": "InvalidMessageContents", "SenderFault": True},
        {"Id": "1", "Code": "InternalError", "SenderFault": False},
    ]
    queue.script.say("SendMessageBatch", ok(Failed=failed))
    with pytest.raises(Transient):
        await queue.box().send([a_command(0), a_command(1)])


async def test_a_batch_that_is_too_long_is_sent_one_by_one(queue: Queue) -> None:
    too_long = refused("AWS.SimpleQueueService.BatchRequestTooLong")
    fine = ok(Successful=[], Failed=[])
    queue.script.say("SendMessageBatch", too_long, fine, refused("InvalidMessageContents"), fine)
    with pytest.raises(Permanent, match="did not take 1 commands: c1"):
        await queue.box().send([a_command(n) for n in range(3)])
    sent = [len(asked["Entries"]) for asked in queue.script.asked["SendMessageBatch"]]
    assert sent == [3, 1, 1, 1]


# --- parking -------------------------------------------------------------------------------------


async def test_a_parked_message_is_in_a_group_of_its_own(queue: Queue) -> None:
    await queue.box().park(await a_delivery(queue), "no")
    await queue.box().park(await a_delivery(queue, MessageId="m2"), "no")
    groups = [asked["MessageGroupId"] for asked in queue.script.asked["SendMessage"]]
    assert groups == ["parked-m1", "parked-m2"]


@pytest.mark.parametrize("answer", [PARKED, refused("AccessDenied", 403), refused("KmsDisabled")])
async def test_where_the_dead_letter_queue_is_missing_or_denied_the_message_stays(
    queue: Queue, answer: Says
) -> None:
    delivery = await a_delivery(queue)
    queue.script.say("SendMessage", answer, ok(MessageId="m"))
    with pytest.raises(Impeded, match=r"queue commands-dlq\.fifo"):
        await queue.box().park(delivery, "no")
    assert queue.script.asked["DeleteMessageBatch"] == []
    await queue.box().park(delivery, "no")
    assert len(queue.script.asked["DeleteMessageBatch"]) == 1


@pytest.mark.parametrize(
    "answer",
    [
        refused("InvalidParameterValue", words="Message must be shorter than 1048576 bytes."),
        refused("InvalidMessageContents"),
    ],
)
async def test_a_message_too_long_to_carry_its_reason_is_parked_without(
    queue: Queue, answer: Says
) -> None:
    delivery = await a_delivery(queue, "x" * 1000)
    queue.script.say("SendMessage", answer, ok(MessageId="m"))
    await queue.box().park(delivery, "no")
    first, second = queue.script.asked["SendMessage"]
    assert "MessageAttributes" in first
    assert "MessageAttributes" not in second
    assert first["MessageBody"] == second["MessageBody"] == "x" * 1000
    assert len(queue.script.asked["DeleteMessageBatch"]) == 1


async def test_a_message_that_no_queue_takes_stays_for_sqs_to_move(queue: Queue) -> None:
    delivery = await a_delivery(queue)
    queue.script.say("SendMessage", refused("InvalidMessageContents"))
    with pytest.raises(Permanent):
        await queue.box().park(delivery, "no")
    assert queue.script.asked["DeleteMessageBatch"] == []


@given(st.text(alphabet=st.characters(), max_size=3000))
@example("ä" * 1000)
@example("\ud800" * 10)
def test_any_reason_is_sendable_and_bounded_in_bytes(reason: str) -> None:
    words = sendable(reason)
    assert 1 <= len(words.encode()) <= 1000
    assert not any(0xD800 <= ord(c) <= 0xDFFF or ord(c) in (0xFFFE, 0xFFFF) for c in words)
    assert all(c in "\t\n\r" or ord(c) >= 0x20 for c in words)


# --- dead letters --------------------------------------------------------------------------------


def letters_of(queue: Queue) -> DeadLetters:
    return DeadLetters(queue.client, [Pair(name="c", url=LIVE, dead_url=DEAD)], wait_s=0)


def dead(n: int, body: str | None = None) -> dict[str, Any]:
    return {"MessageId": f"m{n}", "ReceiptHandle": f"r{n}", "Body": body or f"b{n}"}


async def test_what_a_daemon_gives_up_again_meanwhile_is_not_sent_for_ever(queue: Queue) -> None:
    nothing = ok()
    queue.script.say(
        "ReceiveMessage",
        *(ok(Messages=[dead(1)]), nothing, nothing),
        *(ok(Messages=[dead(2, "b1")]), nothing, nothing),
        nothing,
    )
    queue.script.say("DeleteMessage", ok())
    queue.script.say("ChangeMessageVisibility", ok())
    assert await letters_of(queue).replay_all() == 1
    (put_back,) = queue.script.asked["ChangeMessageVisibility"]
    assert put_back["ReceiptHandle"] == "r2"


async def test_one_letter_that_cannot_be_sent_again_stays_and_stops_no_other(queue: Queue) -> None:
    queue.script.say("ReceiveMessage", ok(Messages=[dead(1), dead(2), dead(3)]), ok())
    queue.script.say(
        "SendMessage", ok(MessageId="x"), refused("InvalidMessageContents"), ok(MessageId="y")
    )
    queue.script.say("DeleteMessage", ok())
    queue.script.say("ChangeMessageVisibility", ok())
    with pytest.raises(Permanent, match="2 messages were sent again; 1 stay"):
        await letters_of(queue).replay_all()
    gone = [asked["ReceiptHandle"] for asked in queue.script.asked["DeleteMessage"]]
    assert gone == ["r1", "r3"]


async def test_a_letter_with_a_senseless_time_is_a_letter(queue: Queue) -> None:
    strange = {**dead(1), "Attributes": {"SentTimestamp": "9" * 30, "ApproximateReceiveCount": ""}}
    queue.script.say("ReceiveMessage", ok(Messages=[strange]), ok())
    (letter,) = await letters_of(queue).look()
    assert (letter.sent_at, letter.tries, letter.body) == (None, 1, json.loads('"b1"'))
