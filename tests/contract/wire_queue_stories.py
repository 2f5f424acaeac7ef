"""Stories of SQS and SNS that can be cut short at any of their calls."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from anyio import fail_after

from daylily_daemon.adapters.deadletters import DeadLetters, Pair
from daylily_daemon.adapters.notifiers.sns import Sns
from daylily_daemon.domain.model import Cancel, Command, WorksetId
from daylily_daemon.ports import DeadLetter, Delivery, Unreadable
from tests.contract.wire_world import Play, Side, World, story
from tests.records import FAILED


@dataclass(frozen=True)
class Queues:
    live: str
    dead: str


async def _queues(world: World, suffix: str = ".fifo") -> Queues:
    attributes = {"FifoQueue": "true"} if suffix else {}
    urls = [
        (await world.past.sqs.create_queue(QueueName=name, Attributes=attributes))["QueueUrl"]
        for name in (world.name("live") + suffix, world.name("dead") + suffix)
    ]
    return Queues(*urls)


def _commands(world: World, number: int = 2) -> list[Command]:
    workset = WorksetId(world.name("ws"))
    return [
        Command(id=f"{workset}-c{n}", workset_id=workset, by="test", ask=Cancel())
        for n in range(number)
    ]


def _ids(deliveries: list[Delivery]) -> list[str]:
    contents = [delivery.content for delivery in deliveries]
    return [c.id for content in contents if not isinstance(content, Unreadable) for c in content]


async def _messages(world: World, url: str) -> int:
    """Return how many are in the queue, those in flight too."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    answer = await world.past.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)
    return sum(int(answer["Attributes"][name]) for name in names)


async def sending_commands(world: World) -> Play:
    queues, commands = await _queues(world), _commands(world)
    mailbox = world.through.mailbox(queues.live, queues.dead)

    async def judge(_: Any) -> None:
        assert await _messages(world, queues.live) == len(commands)
        got = await world.past.mailbox(queues.live, queues.dead).receive()
        assert _ids(list(got)) == [command.id for command in commands]

    return Play(act=lambda: mailbox.send(commands), judge=judge)


async def receiving_commands(world: World) -> Play:
    """A message whose delivery was lost is hidden for its visibility time, then comes again."""
    queues, commands = await _queues(world), _commands(world, 1)
    past = world.past.mailbox(queues.live, queues.dead)
    await past.send(commands)
    mailbox = world.through.mailbox(queues.live, queues.dead, wait_s=1)

    async def some() -> list[Delivery]:
        with fail_after(20):
            while not (got := list(await mailbox.receive())):
                pass
        return got

    async def judge(answer: list[Delivery]) -> None:
        assert _ids(answer) == [command.id for command in commands]
        await past.settle(answer)
        assert await _messages(world, queues.live) == 0

    return Play(act=some, judge=judge)


async def keeping_messages(world: World) -> Play:
    queues, commands = await _queues(world), _commands(world, 1)
    past = world.past.mailbox(queues.live, queues.dead)
    await past.send(commands)
    got = list(await past.receive())

    async def judge(_: Any) -> None:
        assert await _messages(world, queues.live) == 1

    mailbox = world.through.mailbox(queues.live, queues.dead)
    return Play(act=lambda: mailbox.keep(got, 120), judge=judge)


async def settling_messages(world: World) -> Play:
    queues, commands = await _queues(world), _commands(world)
    past = world.past.mailbox(queues.live, queues.dead)
    await past.send(commands)
    got = await past.receive()

    async def judge(_: Any) -> None:
        assert await _messages(world, queues.live) == 0

    mailbox = world.through.mailbox(queues.live, queues.dead)
    return Play(act=lambda: mailbox.settle(got), judge=judge)


async def _holds(world: World, url: str) -> bool:
    """Tell whether it holds one message; a standard queue or topic may repeat it."""
    number = await _messages(world, url)
    return number == 1 if url.endswith(".fifo") else number >= 1


async def _parking(world: World, suffix: str) -> Play:
    queues = await _queues(world, suffix)
    grouped = {"MessageGroupId": "x", "MessageDeduplicationId": "x"} if suffix else {}
    await world.past.sqs.send_message(QueueUrl=queues.live, MessageBody="not JSON", **grouped)
    (poison,) = await world.past.mailbox(queues.live, queues.dead).receive()

    async def judge(_: Any) -> None:
        assert await _messages(world, queues.live) == 0
        assert await _holds(world, queues.dead)

    mailbox = world.through.mailbox(queues.live, queues.dead)
    return Play(act=lambda: mailbox.park(poison, "cannot be read"), judge=judge)


async def parking_what_cannot_be_read(world: World) -> Play:
    return await _parking(world, ".fifo")


async def parking_an_event(world: World) -> Play:
    """The intake queue is a standard one, and so are its dead letters."""
    return await _parking(world, "")


async def _letter(world: World, queues: Queues) -> DeadLetter:
    group = {"MessageGroupId": "x", "MessageDeduplicationId": "x"}
    await world.past.sqs.send_message(QueueUrl=queues.dead, MessageBody="not JSON", **group)
    (letter,) = await _letters(world.past, queues).look()
    return letter


def _letters(side: Side, queues: Queues) -> DeadLetters:
    pair = Pair(name="live", url=queues.live, dead_url=queues.dead)
    return DeadLetters(side.sqs, [pair], wait_s=0)


async def replaying_a_dead_letter(world: World) -> Play:
    queues = await _queues(world)
    letter = await _letter(world, queues)

    async def judge(_: Any) -> None:
        assert await _messages(world, queues.live) == 1
        assert await _messages(world, queues.dead) == 0

    return Play(act=lambda: _letters(world.through, queues).replay(letter), judge=judge)


async def mending_a_dead_letter(world: World) -> Play:
    queues = await _queues(world)
    letter = await _letter(world, queues)
    body = json.dumps({"kind": "cancel", "id": "c1", "workset_id": "w1", "by": "me"})

    async def judge(_: Any) -> None:
        assert await _messages(world, queues.live) == 1
        assert await _messages(world, queues.dead) == 0

    return Play(act=lambda: _letters(world.through, queues).mend(letter, body), judge=judge)


async def dropping_a_dead_letter(world: World) -> Play:
    queues = await _queues(world)
    letter = await _letter(world, queues)

    async def judge(_: Any) -> None:
        assert await _messages(world, queues.dead) == 0

    return Play(act=lambda: _letters(world.through, queues).drop(letter), judge=judge)


async def putting_a_dead_letter_back(world: World) -> Play:
    queues = await _queues(world)
    letter = await _letter(world, queues)

    async def judge(_: Any) -> None:
        assert [found.id for found in await _letters(world.past, queues).look()] == [letter.id]

    return Play(act=lambda: _letters(world.through, queues).put_back([letter]), judge=judge)


async def _publishing(world: World, suffix: str) -> Play:
    attributes = {"FifoTopic": "true"} if suffix else {}
    queues = await _queues(world, suffix)
    name = world.name("topic") + suffix
    topic = (await world.past.sns.create_topic(Name=name, Attributes=attributes))["TopicArn"]
    named = await world.past.sqs.get_queue_attributes(
        QueueUrl=queues.live, AttributeNames=["QueueArn"]
    )
    arn = named["Attributes"]["QueueArn"]
    await world.past.sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)

    async def judge(_: Any) -> None:
        assert await _holds(world, queues.live)

    return Play(act=lambda: Sns(world.through.sns, topic).deliver(FAILED), judge=judge)


async def telling_a_topic(world: World) -> Play:
    return await _publishing(world, "")


async def telling_a_fifo_topic(world: World) -> Play:
    return await _publishing(world, ".fifo")


QUEUE_STORIES: Final = (
    story(sending_commands, "sqs.SendMessageBatch"),
    story(receiving_commands, "sqs.ReceiveMessage"),
    story(settling_messages, "sqs.DeleteMessageBatch"),
    story(keeping_messages, "sqs.ChangeMessageVisibilityBatch"),
    story(parking_what_cannot_be_read, "sqs.SendMessage sqs.DeleteMessageBatch"),
    story(parking_an_event, "sqs.SendMessage"),
    story(replaying_a_dead_letter, "sqs.SendMessage sqs.DeleteMessage"),
    story(mending_a_dead_letter, "sqs.SendMessage sqs.DeleteMessage"),
    story(dropping_a_dead_letter, "sqs.DeleteMessage"),
    story(putting_a_dead_letter_back, "sqs.ChangeMessageVisibility"),
    story(telling_a_topic, "sns.Publish"),
    story(telling_a_fifo_topic, "sns.Publish"),
)
