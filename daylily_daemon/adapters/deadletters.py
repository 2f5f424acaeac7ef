"""Messages that were given up: looked at, sent again, or dropped by an operator.

A look hides a message from other looks for ``LOOK_S`` or until it is put back; nothing is deleted unless
asked for by its id.
What is sent again gets a deduplication id of its own, because SQS swallows the old one for five minutes;
it follows from the message, so that a replay that was cut short and is repeated sends it once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from anyio import CancelScope, current_time
from botocore.exceptions import ClientError

from daylily_daemon.adapters.aws import error_code, translated
from daylily_daemon.adapters.codec import Item
from daylily_daemon.adapters.envelopes import read_command
from daylily_daemon.adapters.sqs import REASON, Decode, sent_at, tries
from daylily_daemon.domain.errors import Permanent
from daylily_daemon.domain.model import WORKSET_ID, Command
from daylily_daemon.ports import DeadLetter, Unreadable

LOOK_S: Final = 60
PUT_BACK_S: Final = 20.0
"""How long what was looked at may take to be put back when we are interrupted."""
_EMPTY_ANSWERS: Final = 2
"""SQS asks only some of its servers at a time: one empty answer does not mean that nothing is there."""

_GONE: Final = frozenset({"ReceiptHandleIsInvalid"})
"""Said to a receipt that was forgotten together with its message."""
_NOT_HIDDEN: Final = _GONE | {"MessageNotInflight", "InvalidParameterValue"}
"""Said of a message that can be looked at already; the last one is what SQS says most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A queue and its dead-letter queue."""

    name: str
    url: str
    dead_url: str
    decode: Decode = read_command
    """How whoever reads the queue understands a message."""


class DeadLetters:
    def __init__(self, client: Any, pairs: Sequence[Pair], *, wait_s: int = 1) -> None:
        """``wait_s`` above 0 makes SQS ask all of its servers; emulators have but one."""
        self._wait_s = wait_s
        self._client = client
        self._pairs = pairs

    async def look(self, most: int = 1000) -> list[DeadLetter]:
        """Return what can be seen now, oldest first, about ``most`` a queue. Raises Transient and Permanent.

        In a FIFO queue no more of a group can be seen while ten of it are held: see ``unseen``.
        """
        found: dict[str, DeadLetter] = {}
        for pair in self._pairs:
            found |= await self._look_into(pair, most)
        return sorted(found.values(), key=lambda letter: str(letter.sent_at))

    async def unseen(self) -> int:
        """Return about how many there are besides those that are held by a look."""
        return sum([await self._waiting(pair) for pair in self._pairs])

    async def replay_all(self) -> int:
        """Send all again, also those that come into sight only as others go; return how many.

        What a daemon gives up again meanwhile stays. Raises Permanent for what no queue takes, at the end.
        """
        sent, stays = set[str](), dict[str, Permanent]()

        async def send(letter: DeadLetter) -> bool:
            if letter.id in stays or letter.body in sent:
                return False
            try:
                await self.replay(letter)
            except Permanent as exc:
                stays[letter.id] = exc
                return False
            sent.add(letter.body)
            return True

        count = await self._until_empty(send)
        if stays:
            first = next(iter(stays.values()))
            raise Permanent(f"{count} messages were sent again; {len(stays)} stay: {first}")
        return count

    async def drop_all(self) -> int:
        """Delete all for good, also those that come into sight only as others go; return how many."""

        async def delete(letter: DeadLetter) -> bool:
            await self.drop(letter)
            return True

        return await self._until_empty(delete)

    async def _until_empty(self, act: Callable[[DeadLetter], Awaitable[bool]]) -> int:
        """Act on all that can be seen, again and again, until a look finds nothing to act on."""
        total, done = 0, 1
        while done:
            letters = await self.look()
            left = list(letters)
            done = 0
            try:
                for letter in letters:
                    if await act(letter):
                        left.remove(letter)
                        done += 1
            finally:
                with CancelScope(shield=True, deadline=current_time() + PUT_BACK_S):
                    await self.put_back(left)
            total += done
        return total

    async def put_back(self, letters: Sequence[DeadLetter]) -> None:
        """Let the next look see them at once."""
        for letter in letters:
            pair = self._pair(letter)
            async with translated(f"dead letters of {pair.name}"), _unless_known(_NOT_HIDDEN):
                await self._client.change_message_visibility(
                    QueueUrl=pair.dead_url, ReceiptHandle=letter.receipt, VisibilityTimeout=0
                )

    async def replay(self, letter: DeadLetter) -> None:
        """Send it to its queue again, as a new message, then delete it here."""
        await self._send(letter, letter.body, f"replay-{letter.id}")
        await self.drop(letter)

    async def check(self, letter: DeadLetter, body: str) -> Sequence[Command]:
        """Raises Permanent with the sentence of the decoder."""
        found = self._pair(letter).decode(body)
        if isinstance(found, Unreadable):
            raise Permanent(
                f"The new message cannot be read either, so nothing was sent. {found.reason}"
            )
        if not found:
            raise Permanent(
                "The new message asks for nothing of this program (a test event, or about another place), so "
                "nothing was sent. To be rid of the old one: `daylily-daemon dlq drop`."
            )
        return found

    async def mend(self, letter: DeadLetter, body: str) -> Sequence[Command]:
        """Send another body in place of the letter's, in the group that body speaks of."""
        commands = await self.check(letter, body)
        digest = hashlib.sha256(body.encode()).hexdigest()[:32]
        await self._send(letter, body, f"mend-{letter.id[:64]}-{digest}")
        await self.drop(letter)
        return commands

    async def _send(self, letter: DeadLetter, body: str, once: str) -> None:
        pair = self._pair(letter)
        message: Item = {"QueueUrl": pair.url, "MessageBody": body}
        if pair.url.endswith(".fifo"):
            message |= {"MessageGroupId": _group_of(body), "MessageDeduplicationId": once}
        async with translated(f"queue {pair.name}"):
            await self._client.send_message(**message)

    async def drop(self, letter: DeadLetter) -> None:
        """Delete it for good."""
        pair = self._pair(letter)
        async with translated(f"dead letters of {pair.name}"), _unless_known(_GONE):
            await self._client.delete_message(QueueUrl=pair.dead_url, ReceiptHandle=letter.receipt)

    def _pair(self, letter: DeadLetter) -> Pair:
        return next(pair for pair in self._pairs if pair.name == letter.queue)

    async def _look_into(self, pair: Pair, most: int) -> dict[str, DeadLetter]:
        found: dict[str, DeadLetter] = {}
        empty = 0
        while empty < _EMPTY_ANSWERS and len(found) < most:
            letters = await self._some(pair)
            empty = 0 if any(letter.id not in found for letter in letters) else empty + 1
            # Of one that is seen twice the newer receipt counts.
            found |= {letter.id: letter for letter in letters}
        return found

    async def _some(self, pair: Pair) -> list[DeadLetter]:
        async with translated(f"dead letters of {pair.name}"):
            answer = await self._client.receive_message(
                QueueUrl=pair.dead_url,
                MaxNumberOfMessages=10,
                VisibilityTimeout=LOOK_S,
                WaitTimeSeconds=self._wait_s,
                AttributeNames=["All"],
                MessageAttributeNames=["All"],
            )
        return [_letter(pair, message) for message in answer.get("Messages") or []]

    async def _waiting(self, pair: Pair) -> int:
        name = "ApproximateNumberOfMessages"
        async with translated(f"dead letters of {pair.name}"):
            answer = await self._client.get_queue_attributes(
                QueueUrl=pair.dead_url, AttributeNames=[name]
            )
        return int(answer.get("Attributes", {}).get(name, "0"))


@asynccontextmanager
async def _unless_known(codes: frozenset[str]) -> AsyncIterator[None]:
    """Let a refusal pass that says that it is done: the SDK repeats a call whose answer was lost."""
    try:
        yield
    except ClientError as exc:
        if error_code(exc).rpartition(".")[2] not in codes:
            raise


def _letter(pair: Pair, message: Item) -> DeadLetter:
    told = (message.get("MessageAttributes") or {}).get(REASON, {}).get("StringValue", "")
    receipt = str(message.get("ReceiptHandle", ""))
    return DeadLetter(
        queue=pair.name,
        id=str(message.get("MessageId") or receipt),
        sent_at=sent_at(message),
        tries=tries(message),
        reason=told or "it was received too often without being settled",
        body=str(message.get("Body", "")),
        receipt=receipt,
    )


def _group_of(body: str) -> str:
    """Return the workset the message speaks of, so that it keeps its place in that line."""
    try:
        data = json.loads(body)
    except ValueError:
        return "replayed"
    id = data.get("workset_id") if isinstance(data, dict) else None
    return id if isinstance(id, str) and WORKSET_ID.fullmatch(id) else "replayed"
