"""What every queue must do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest
import pytest_asyncio
from anyio import fail_after, move_on_after

from daylily_daemon.adapters.aws import Aws, AwsOptions
from daylily_daemon.adapters.envelopes import read_command
from daylily_daemon.adapters.provision import Provisioner, dead_letter_name, find_queue
from daylily_daemon.adapters.sqs import REASON, QueueConfig, SqsMailbox
from daylily_daemon.domain.model import Cancel, Command, Retry, WorksetId
from daylily_daemon.ports import Delivery, Mailbox, Unreadable
from tests.contract.stores import url_of, wanted
from tests.fakes.store import MemoryMailbox, Queue

QUEUES = ("memory", "moto", "ministack")


@dataclass(frozen=True)
class Box:
    mailbox: Mailbox
    poison: Callable[[str], Awaitable[None]]
    """Puts a message nobody can read."""
    parked: Callable[[], Awaitable[list[str]]]
    """Returns the reasons of parked messages."""


@pytest_asyncio.fixture(params=QUEUES)
async def box(request: pytest.FixtureRequest) -> AsyncIterator[Box]:
    url = url_of(request.param, request)
    if url is None:
        queue = Queue(visibility_s=1.0)

        async def put_poison(body: str) -> None:
            queue.put(Unreadable(body), "poison")

        async def reasons() -> list[str]:
            return [reason for _, reason in queue.parked]

        yield Box(MemoryMailbox(queue, wait_s=1.0), put_poison, reasons)
        return
    names = wanted()
    async with Aws(AwsOptions(endpoint_url=url)) as aws:
        provisioner = Provisioner(aws, names)
        async for step in provisioner.queues():
            await step.do()
        sqs = await aws.client("sqs")
        live = await find_queue(sqs, names.commands_queue)
        dead = await find_queue(sqs, dead_letter_name(names.commands_queue))
        assert live
        assert dead
        config = QueueConfig(url=live, dead_letter_url=dead, wait_s=1, visibility_s=1)

        async def send_poison(body: str) -> None:
            await sqs.send_message(
                QueueUrl=live, MessageBody=body, MessageGroupId="x", MessageDeduplicationId=body
            )

        async def read_reasons() -> list[str]:
            answer = await sqs.receive_message(
                QueueUrl=dead, MessageAttributeNames=["All"], MaxNumberOfMessages=10
            )
            messages = answer.get("Messages", [])
            return [m["MessageAttributes"][REASON]["StringValue"] for m in messages]

        yield Box(SqsMailbox(sqs, config, read_command), send_poison, read_reasons)


def a_command(id: str, workset: str = "HG002") -> Command:
    return Command(id=id, workset_id=WorksetId(workset), by="test", ask=Cancel(reason=id))


async def received(box: Box, count: int) -> list[Delivery]:
    found: list[Delivery] = []
    with fail_after(15):
        while len(found) < count:
            found.extend(await box.mailbox.receive())
    return found


async def test_commands_arrive_as_they_were_sent(box: Box) -> None:
    command = Command(id="r", workset_id=WorksetId("w"), by="me", ask=Retry(from_start=True))
    await box.mailbox.send([command])
    (delivery,) = await received(box, 1)
    assert delivery.content == (command,)
    assert delivery.tries == 1


async def test_one_workset_keeps_its_order(box: Box) -> None:
    await box.mailbox.send([a_command(f"c{n}") for n in range(12)])
    seen: list[str] = []
    while len(seen) < 12:
        deliveries = await received(box, 1)
        for delivery in deliveries:
            assert not isinstance(delivery.content, Unreadable)
            seen.append(delivery.content[0].id)
        await box.mailbox.settle(deliveries)
    assert seen == [f"c{n}" for n in range(12)]


async def test_a_message_not_settled_comes_again(box: Box) -> None:
    await box.mailbox.send([a_command("again")])
    await received(box, 1)
    (second,) = await received(box, 1)
    assert second.tries == 2
    await box.mailbox.settle([second])


async def test_the_same_command_sent_twice_arrives_once(box: Box) -> None:
    await box.mailbox.send([a_command("twice")])
    await box.mailbox.send([a_command("twice")])
    deliveries = await received(box, 1)
    assert len(deliveries) == 1
    await box.mailbox.settle(deliveries)
    assert await box.mailbox.receive() == []


async def test_a_message_nobody_can_read_is_parked_with_its_reason(box: Box) -> None:
    await box.poison("this is not JSON")
    (delivery,) = await received(box, 1)
    assert isinstance(delivery.content, Unreadable)
    await box.mailbox.park(delivery, "cannot be read\x00: not JSON")
    reasons = await box.parked()
    assert [r.replace("\x00", "") for r in reasons] == ["cannot be read: not JSON"]
    assert await box.mailbox.receive() == []


async def test_a_message_in_hand_is_hidden_for_as_long_as_it_is_kept(box: Box) -> None:
    await box.mailbox.send([a_command("kept")])
    held = await received(box, 1)
    await box.mailbox.keep(held, 120)
    with move_on_after(3):
        while True:
            assert await box.mailbox.receive() == [], "its first visibility is over"
    await box.mailbox.keep(held, 0)
    (again,) = await received(box, 1)
    assert again.content == held[0].content
    await box.mailbox.settle([again])
