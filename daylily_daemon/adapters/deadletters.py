"""Messages that were given up: looked at, sent again, or dropped by an operator.

A look hides a message from other looks for ``LOOK_S`` or until it is put back; nothing is deleted unless
asked for by its id.
What is sent again gets a deduplication id of its own, because SQS swallows the old one for five minutes;
it follows from the message, so that a replay that was cut short and is repeated sends it once.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from botocore.exceptions import ClientError

from daylily_daemon.adapters.aws import error_code, translated
from daylily_daemon.adapters.codec import Item
from daylily_daemon.adapters.sqs import REASON
from daylily_daemon.domain.model import WORKSET_ID

LOOK_S: Final = 60
_EMPTY_ANSWERS: Final = 2
"""SQS asks only some of its servers at a time: one empty answer does not mean that nothing is there."""

_GONE: Final = frozenset({"ReceiptHandleIsInvalid"})
"""Said to a receipt that was forgotten together with its message."""
_NOT_HIDDEN: Final = _GONE | {"MessageNotInflight", "InvalidParameterValue"}
"""Said of a message that can be looked at already; the last one is what SQS says most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    queue: str
    """Name of the queue it was taken out of, not of the dead-letter queue."""
    id: str
    """SQS's message id."""
    sent_at: datetime | None
    tries: int
    reason: str
    body: str
    receipt: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A queue and its dead-letter queue."""

    name: str
    url: str
    dead_url: str


class DeadLetters:
    def __init__(self, client: Any, pairs: Sequence[Pair], *, wait_s: int = 1) -> None:
        """``wait_s`` above 0 makes SQS ask all of its servers; emulators have but one."""
        self._wait_s = wait_s
        self._client = client
        self._pairs = pairs

    async def look(self, most: int = 1000) -> list[DeadLetter]:
        """Return what is there, oldest first. Raises Transient and Permanent."""
        found: dict[str, DeadLetter] = {}
        for pair in self._pairs:
            async for letter in self._of(pair):
                found[letter.id] = letter
                if len(found) >= most:
                    break
        return sorted(found.values(), key=lambda letter: str(letter.sent_at))

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
        pair = self._pair(letter)
        message: Item = {"QueueUrl": pair.url, "MessageBody": letter.body}
        if pair.url.endswith(".fifo"):
            message["MessageGroupId"] = _group_of(letter.body)
            message["MessageDeduplicationId"] = f"replay-{letter.id}"
        async with translated(f"queue {pair.name}"):
            await self._client.send_message(**message)
        await self.drop(letter)

    async def drop(self, letter: DeadLetter) -> None:
        """Delete it for good."""
        pair = self._pair(letter)
        async with translated(f"dead letters of {pair.name}"), _unless_known(_GONE):
            await self._client.delete_message(QueueUrl=pair.dead_url, ReceiptHandle=letter.receipt)

    def _pair(self, letter: DeadLetter) -> Pair:
        return next(pair for pair in self._pairs if pair.name == letter.queue)

    async def _of(self, pair: Pair) -> AsyncIterator[DeadLetter]:
        empty, seen = 0, set[str]()
        while empty < _EMPTY_ANSWERS:
            async with translated(f"dead letters of {pair.name}"):
                answer = await self._client.receive_message(
                    QueueUrl=pair.dead_url,
                    MaxNumberOfMessages=10,
                    VisibilityTimeout=LOOK_S,
                    WaitTimeSeconds=self._wait_s,
                    AttributeNames=["All"],
                    MessageAttributeNames=["All"],
                )
            letters = [_letter(pair, message) for message in answer.get("Messages", [])]
            fresh = [letter for letter in letters if letter.id not in seen]
            seen.update(letter.id for letter in fresh)
            empty = 0 if fresh else empty + 1
            for letter in fresh:
                yield letter


@asynccontextmanager
async def _unless_known(codes: frozenset[str]) -> AsyncIterator[None]:
    """Let a refusal pass that says that it is done: the SDK repeats a call whose answer was lost."""
    try:
        yield
    except ClientError as exc:
        if error_code(exc).rpartition(".")[2] not in codes:
            raise


def _letter(pair: Pair, message: Item) -> DeadLetter:
    attributes = message.get("Attributes", {})
    told = message.get("MessageAttributes", {}).get(REASON, {}).get("StringValue", "")
    sent_ms = attributes.get("SentTimestamp")
    return DeadLetter(
        queue=pair.name,
        id=str(message["MessageId"]),
        sent_at=datetime.fromtimestamp(int(sent_ms) / 1000, UTC) if sent_ms else None,
        tries=int(attributes.get("ApproximateReceiveCount", "1")),
        reason=told or "it was received too often without being settled",
        body=str(message["Body"]),
        receipt=str(message["ReceiptHandle"]),
    )


def _group_of(body: str) -> str:
    """Return the workset the message speaks of, so that it keeps its place in that line."""
    try:
        data = json.loads(body)
    except ValueError:
        return "replayed"
    id = data.get("workset_id") if isinstance(data, dict) else None
    return id if isinstance(id, str) and WORKSET_ID.fullmatch(id) else "replayed"
