"""What was given up can be looked at, sent again and dropped, on emulators nobody here wrote."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pytest
import pytest_asyncio
from anyio import fail_after

from daylily_daemon.adapters.aws import Aws, AwsOptions
from daylily_daemon.adapters.codec import command_to_dict
from daylily_daemon.adapters.deadletters import DeadLetters, Pair
from daylily_daemon.adapters.envelopes import Origin, read_command, read_event
from daylily_daemon.adapters.provision import Provisioner, dead_letter_name, find_queue
from daylily_daemon.adapters.sqs import QueueConfig, SqsMailbox
from daylily_daemon.domain.errors import Permanent, Transient
from daylily_daemon.domain.model import Cancel, Command, Submit, WorksetId
from daylily_daemon.ports import DeadLetter, Delivery, Unreadable
from tests.contract.stores import url_of, wanted


@dataclass(frozen=True)
class Bench:
    letters: DeadLetters
    commands: SqsMailbox
    sqs: Any
    url: str
    dead_url: str
    intake: str
    queue: str


ORIGIN = Origin(bucket="lab", prefix="worksets/")


@pytest_asyncio.fixture(params=("moto", "ministack"))
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    names = wanted()
    async with Aws(AwsOptions(endpoint_url=str(url_of(request.param, request)))) as aws:
        provisioner = Provisioner(aws, names)
        async for step in provisioner.queues():
            await step.do()
        sqs = await aws.client("sqs")
        pairs = []
        for name in (names.intake_queue, names.commands_queue):
            live, dead = await find_queue(sqs, name), await find_queue(sqs, dead_letter_name(name))
            assert live
            assert dead
            decode = read_command if live.endswith(".fifo") else partial(read_event, origin=ORIGIN)
            pairs.append(Pair(name=name, url=live, dead_url=dead, decode=decode))
        url = pairs[1].url
        config = QueueConfig(url=url, dead_letter_url=pairs[1].dead_url, wait_s=1, visibility_s=30)
        mailbox = SqsMailbox(sqs, config, read_command)
        letters = DeadLetters(sqs, pairs, wait_s=0)
        yield Bench(
            letters,
            mailbox,
            sqs,
            url,
            pairs[1].dead_url,
            intake=pairs[0].name,
            queue=pairs[1].name,
        )


async def received(mailbox: SqsMailbox) -> Delivery:
    with fail_after(15):
        while not (found := await mailbox.receive()):
            pass
    return found[0]


async def parked(bench: Bench, body: str, group: str = "w1") -> None:
    await bench.sqs.send_message(
        QueueUrl=bench.url, MessageBody=body, MessageGroupId=group, MessageDeduplicationId=body[:99]
    )
    await bench.commands.park(await received(bench.commands), "it cannot be read")


async def test_what_was_parked_is_listed_with_its_reason_and_stays(bench: Bench) -> None:
    await parked(bench, "nonsense")
    (letter,) = await bench.letters.look()
    assert (letter.reason, letter.body) == ("it cannot be read", "nonsense")
    assert letter.queue.startswith("commands-")


async def test_a_replayed_command_arrives_again_as_a_new_message(bench: Bench) -> None:
    command = Command(id="c1", workset_id=WorksetId("w1"), by="test", ask=Cancel())
    await parked(bench, json.dumps(command_to_dict(command)))
    (letter,) = await bench.letters.look()
    await bench.letters.replay(letter)
    delivery = await received(bench.commands)
    assert delivery.content == (command,)
    assert await bench.letters.look() == []


async def test_a_message_that_still_cannot_be_read_is_given_up_again(bench: Bench) -> None:
    await parked(bench, "nonsense")
    (letter,) = await bench.letters.look()
    await bench.letters.replay(letter)
    await bench.commands.park(await received(bench.commands), "it still cannot be read")
    (again,) = await bench.letters.look()
    assert (again.reason, again.body) == ("it still cannot be read", "nonsense")


async def test_a_dropped_message_is_gone_for_good(bench: Bench) -> None:
    await parked(bench, "drop me")
    (letter,) = await bench.letters.look()
    await bench.letters.drop(letter)
    assert await bench.letters.look() == []
    assert await bench.commands.receive() == []


async def put_dead(bench: Bench, count: int, group: str) -> None:
    """Put messages into the dead letters as SQS moves them there, or an older version parked them."""
    for n in range(count):
        command = Command(id=f"{group}-{n}", workset_id=WorksetId("w1"), by="test", ask=Cancel())
        await bench.sqs.send_message(
            QueueUrl=bench.dead_url,
            MessageBody=json.dumps(command_to_dict(command)),
            MessageGroupId=group,
            MessageDeduplicationId=f"{group}-{n}",
        )


async def test_what_was_parked_is_listed_whole_however_much_it_is(bench: Bench) -> None:
    for n in range(13):
        await parked(bench, f"nonsense {n}")
    letters = await bench.letters.look()
    assert sorted(letter.body for letter in letters) == sorted(f"nonsense {n}" for n in range(13))
    assert await bench.letters.unseen() == 0


async def test_what_a_look_cannot_see_is_counted(bench: Bench) -> None:
    await put_dead(bench, 23, "parked")
    letters = await bench.letters.look()
    assert len(letters) + await bench.letters.unseen() == 23


async def test_all_are_sent_again_also_those_behind_the_first_ten(bench: Bench) -> None:
    await put_dead(bench, 23, "parked")
    assert await bench.letters.replay_all() == 23
    assert await bench.letters.look() == []
    assert await bench.letters.unseen() == 0
    seen: set[str] = set()
    with fail_after(60):
        while len(seen) < 23:
            deliveries = await bench.commands.receive()
            for delivery in deliveries:
                assert not isinstance(delivery.content, Unreadable)
                seen.add(delivery.content[0].id)
            await bench.commands.settle(deliveries)


async def test_all_are_dropped_also_those_behind_the_first_ten(bench: Bench) -> None:
    await put_dead(bench, 23, "parked")
    await parked(bench, "nonsense")
    assert await bench.letters.drop_all() == 24
    assert await bench.letters.look() == []
    assert await bench.letters.unseen() == 0


# --- mending ------------------------------------------------------------------------------------------

ODD = {"format": 1, "kind": "tidy", "id": "n1", "workset_id": "w1", "by": "me", "ask": {}}


def mended(**changes: object) -> str:
    return json.dumps({**ODD, **changes})


@pytest.mark.reported(
    "A", "what is sent again within five minutes is swallowed as a repeat (shoryuken#473)"
)
@pytest.mark.reported("B", "a message sent again without a group (MassTransit#4015)")
async def test_a_mended_message_arrives_in_the_line_of_its_workset_and_the_old_one_is_gone(
    bench: Bench,
) -> None:
    await parked(bench, json.dumps(ODD))
    (letter,) = await bench.letters.look()
    (asked,) = await bench.letters.mend(letter, mended(kind="cancel", workset_id="w7"))
    assert await bench.letters.look() == []
    found = await bench.sqs.receive_message(
        QueueUrl=bench.url, AttributeNames=["All"], WaitTimeSeconds=1
    )
    (message,) = found["Messages"]
    assert message["Attributes"]["MessageGroupId"] == "w7"
    assert read_command(message["Body"]) == (asked,)
    assert (asked.workset_id, asked.ask) == ("w7", Cancel())


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("{", "The message is not JSON"),
        (mended(), "The command 'tidy' is unknown; known are submit, cancel"),
        (mended(kind="cancel", workset_id="../w"), "'../w' is not a workset id"),
        (mended(kind="cancel", format=99), "this daemon knows up to 1"),
    ],
)
async def test_what_cannot_be_read_is_refused_in_the_words_of_the_decoder_and_nothing_moves(
    bench: Bench, body: str, said: str
) -> None:
    await parked(bench, json.dumps(ODD))
    (letter,) = await bench.letters.look()
    for call in (bench.letters.check, bench.letters.mend):
        with pytest.raises(Permanent, match=f"so nothing was sent. .*{re.escape(said)}"):
            await call(letter, body)
    await bench.letters.put_back([letter])
    assert [one.body for one in await bench.letters.look()] == [json.dumps(ODD)]
    assert await bench.commands.receive() == []


async def test_a_message_that_asks_for_nothing_is_no_mended_one(bench: Bench) -> None:
    for body in ('{"Event": "s3:TestEvent"}', '{"Records": []}'):
        with pytest.raises(Permanent, match="asks for nothing of this program"):
            await bench.letters.check(replace(_LETTER, queue=bench.intake), body)


async def test_each_queue_reads_a_mended_message_by_its_own_rules(bench: Bench) -> None:
    event = a_drop("w1")
    (found,) = await bench.letters.check(replace(_LETTER, queue=bench.intake), event)
    assert (found.workset_id, type(found.ask)) == ("w1", Submit)
    with pytest.raises(Permanent, match="so nothing was sent"):
        await bench.letters.check(replace(_LETTER, queue=bench.queue), event)


async def test_a_mend_that_was_cut_before_the_old_message_was_deleted_sends_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await parked(bench, json.dumps(ODD))
    (letter,) = await bench.letters.look()
    new = mended(kind="cancel")

    async def cut(letter: DeadLetter) -> None:
        raise Transient("cut")

    with monkeypatch.context() as cutting:
        cutting.setattr(bench.letters, "drop", cut)
        with pytest.raises(Transient):
            await bench.letters.mend(letter, new)
    await bench.letters.put_back([letter])
    (again,) = await bench.letters.look()
    await bench.letters.mend(again, new)
    assert await bench.letters.look() == []
    found = await bench.commands.receive()
    assert len(found) == 1
    await bench.commands.settle(found)
    assert await bench.commands.receive() == []


_LETTER = DeadLetter(queue="", id="m1", sent_at=None, tries=1, reason="", body="", receipt="r")


def a_drop(workset: str) -> str:
    found = {"key": f"worksets/{workset}/daylily.ready", "eTag": "e1", "sequencer": "1"}
    where = {"bucket": {"name": "lab"}, "object": found}
    record = {"eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "s3": where}
    return json.dumps({"Records": [record]})
