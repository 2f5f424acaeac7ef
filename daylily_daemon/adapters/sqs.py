"""SQS queues as mailboxes: the standard intake queue, and the FIFO queue grouped by workset."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from daylily_daemon.adapters.aws import translated
from daylily_daemon.adapters.codec import Item, command_to_dict
from daylily_daemon.domain.errors import Permanent, Transient
from daylily_daemon.domain.model import Command
from daylily_daemon.ports import Delivery, Unreadable

_BATCH: Final = 10
"""Messages in one call, a limit of SQS."""
REASON: Final = "daylily_reason"
"""Message attribute of a parked message: why it could not be read."""

T = TypeVar("T")
Decode = Callable[[str], "tuple[Command, ...] | Unreadable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueConfig:
    url: str
    dead_letter_url: str
    wait_s: int = 20
    """Long poll, 0 to 20 s."""
    visibility_s: int = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class _SqsDelivery(Delivery):
    message_id: str
    body: str


class SqsMailbox:
    def __init__(self, client: Any, config: QueueConfig, decode: Decode) -> None:
        self._client = client
        self._config = config
        self._decode = decode
        self._fifo = config.url.endswith(".fifo")

    async def receive(self) -> Sequence[Delivery]:
        async with translated():
            answer = await self._client.receive_message(
                QueueUrl=self._config.url,
                MaxNumberOfMessages=_BATCH,
                WaitTimeSeconds=self._config.wait_s,
                VisibilityTimeout=self._config.visibility_s,
                AttributeNames=["ApproximateReceiveCount"],
            )
        return [self._delivery(message) for message in answer.get("Messages", [])]

    async def settle(self, deliveries: Sequence[Delivery]) -> None:
        for batch in _batches(deliveries):
            entries = [
                {"Id": str(n), "ReceiptHandle": delivery.receipt}
                for n, delivery in enumerate(batch)
            ]
            async with translated():
                await self._client.delete_message_batch(QueueUrl=self._config.url, Entries=entries)

    async def park(self, delivery: Delivery, reason: str) -> None:
        if not isinstance(delivery, _SqsDelivery):
            raise TypeError("only what this mailbox received can be parked by it")
        message: Item = {
            "QueueUrl": self._config.dead_letter_url,
            "MessageBody": delivery.body,
            "MessageAttributes": {
                REASON: {"DataType": "String", "StringValue": _sendable(reason)[:1000] or "?"}
            },
        }
        if self._config.dead_letter_url.endswith(".fifo"):
            # Not named by its body: a replayed message that is parked again is another one.
            name = f"parked-{delivery.message_id}"
            message |= {"MessageGroupId": "parked", "MessageDeduplicationId": name}
        async with translated():
            await self._client.send_message(**message)
        await self.settle([delivery])

    async def send(self, commands: Sequence[Command]) -> None:
        if not self._fifo:
            raise Permanent("Commands go to the FIFO queue only.")
        for batch in _batches(commands):
            entries = [_entry(n, command) for n, command in enumerate(batch)]
            async with translated():
                answer = await self._client.send_message_batch(
                    QueueUrl=self._config.url, Entries=entries
                )
            for failed in answer.get("Failed", []):
                error = Permanent if failed.get("SenderFault") else Transient
                raise error(f"SQS refused a command: {failed.get('Code')}: {failed.get('Message')}")

    def _delivery(self, message: Item) -> _SqsDelivery:
        tries = int(message.get("Attributes", {}).get("ApproximateReceiveCount", "1"))
        body = str(message["Body"])
        return _SqsDelivery(
            content=self._decode(body),
            receipt=message["ReceiptHandle"],
            tries=tries,
            message_id=str(message["MessageId"]),
            body=body,
        )


def _entry(n: int, command: Command) -> Item:
    return {
        "Id": str(n),
        "MessageBody": json.dumps(command_to_dict(command), separators=(",", ":")),
        "MessageGroupId": command.workset_id,
        "MessageDeduplicationId": hashlib.sha256(command.id.encode()).hexdigest(),
    }


def _sendable(text: str) -> str:
    """Drop what SQS does not take: control characters other than tab and newlines."""
    return "".join(c for c in text if c in "\t\n\r" or ord(c) >= 0x20)


def _batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), _BATCH):
        yield items[start : start + _BATCH]
