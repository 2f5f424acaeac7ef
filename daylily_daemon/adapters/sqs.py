"""SQS queues as mailboxes: the standard intake queue, and the FIFO queue grouped by workset.

Whatever is done in batches is judged message by message: one that cannot be read, sent, deleted or parked is
in nobody's way.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import structlog
from anyio import current_time

from daylily_daemon.adapters.answers import Meaning, meaning_of, shown
from daylily_daemon.adapters.aws import translated
from daylily_daemon.adapters.codec import Item, command_to_dict
from daylily_daemon.domain.errors import DaemonError, Impeded, Permanent, Transient
from daylily_daemon.domain.model import Command
from daylily_daemon.ports import Delivery, EventSource, Unreadable

_BATCH: Final = 10
"""Messages in one call, a limit of SQS."""
REASON: Final = "daylily_reason"
"""Message attribute of a parked message: why it could not be read."""

REASON_LIMIT_BYTES: Final = 1000
"""Of the reason in UTF-8: it counts toward the size of the message."""
_UNSENDABLE: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

log = structlog.get_logger()
T = TypeVar("T")
Decode = Callable[[str], "tuple[Command, ...] | Unreadable"]
SourceOf = Callable[[str], EventSource]
"""Tells by which way a message came, whatever is in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueConfig:
    url: str
    dead_letter_url: str
    wait_s: int
    """Long poll, 0 to 20 s."""
    visibility_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _SqsDelivery(Delivery):
    message_id: str
    body: str
    sent_at: datetime | None
    group: str


@dataclass(slots=True)
class Unsettled:
    """What was received and not settled: the age of a queue, of which SQS itself tells nothing."""

    forgotten_s: float
    """After which a message that did not come again is with somebody else, or nowhere."""
    received_at: float = -math.inf
    """When a message came last, on the loop's clock."""
    _seen: dict[str, tuple[float, _SqsDelivery]] = field(default_factory=dict)

    def received(self, deliveries: Sequence[_SqsDelivery]) -> None:
        now = current_time()
        for delivery in deliveries:
            self._seen[delivery.message_id] = now, delivery
            self.received_at = now

    def settled(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            if isinstance(delivery, _SqsDelivery):
                self._seen.pop(delivery.message_id, None)

    def oldest(self) -> tuple[datetime | None, str]:
        """Return when the oldest was sent, and its group; None if nothing is unsettled."""
        kept = current_time() - self.forgotten_s
        self._seen = {id: seen for id, seen in self._seen.items() if seen[0] >= kept}
        found = [(one.sent_at, one.group) for _, one in self._seen.values() if one.sent_at]
        return min(found, default=(None, ""))


class SqsMailbox:
    def __init__(
        self,
        client: Any,
        config: QueueConfig,
        decode: Decode,
        source_of: SourceOf = lambda body: EventSource.UNKNOWN,
    ) -> None:
        self._client = client
        self._config = config
        self._decode = decode
        self._source_of = source_of
        self._fifo = config.url.endswith(".fifo")
        self.unsettled = Unsettled(forgotten_s=2.0 * config.visibility_s)
        self._name = f"queue {_name_of(config.url)}"
        self._dead_name = f"queue {_name_of(config.dead_letter_url)}"

    async def receive(self) -> Sequence[Delivery]:
        async with translated(self._name):
            answer = await self._client.receive_message(
                QueueUrl=self._config.url,
                MaxNumberOfMessages=_BATCH,
                WaitTimeSeconds=self._config.wait_s,
                VisibilityTimeout=self._config.visibility_s,
                AttributeNames=["ApproximateReceiveCount", "SentTimestamp", "MessageGroupId"],
            )
        found = [self._delivery(message) for message in answer.get("Messages") or []]
        deliveries = [delivery for delivery in found if delivery]
        self.unsettled.received(deliveries)
        return deliveries

    async def settle(self, deliveries: Sequence[Delivery]) -> None:
        """Delete these; what SQS fails to delete is tried once more, then left to come again."""
        self.unsettled.settled(deliveries)
        for batch in _batches(deliveries):
            failed = await self._delete(batch)
            again = [batch[n] for n, problem in failed.items() if problem.meaning is not Meaning.NO]
            left = await self._delete(again) if again else {}
            if left:
                problems = [str(problem) for problem in left.values()]
                log.warning("messages_not_deleted", queue=self._name, problems=problems)

    async def _delete(self, batch: Sequence[Delivery]) -> Mapping[int, _Refusal]:
        entries = [
            {"Id": str(n), "ReceiptHandle": delivery.receipt} for n, delivery in enumerate(batch)
        ]
        async with translated(self._name):
            answer = await self._client.delete_message_batch(
                QueueUrl=self._config.url, Entries=entries
            )
        return _problems("DeleteMessageBatch", answer, len(batch))

    async def keep(self, deliveries: Sequence[Delivery], hidden_s: int) -> None:
        """What SQS does not hide comes again, which changes nothing."""
        for batch in _batches(deliveries):
            entries = [
                {
                    "Id": str(n),
                    "ReceiptHandle": delivery.receipt,
                    "VisibilityTimeout": hidden_s,
                }
                for n, delivery in enumerate(batch)
            ]
            async with translated(self._name):
                await self._client.change_message_visibility_batch(
                    QueueUrl=self._config.url, Entries=entries
                )

    async def park(self, delivery: Delivery, reason: str) -> None:
        """Raises Permanent for what no queue takes: after its tries SQS itself moves that, unchanged."""
        if not isinstance(delivery, _SqsDelivery):
            raise TypeError("only what this mailbox received can be parked by it")
        message: Item = {
            "QueueUrl": self._config.dead_letter_url,
            "MessageBody": delivery.body,
        }
        if self._config.dead_letter_url.endswith(".fifo"):
            # A group of its own, since one in flight blocks its whole group. Not named by its body: a
            # replayed message that is parked again is another one.
            name = f"parked-{delivery.message_id}"
            message |= {"MessageGroupId": name, "MessageDeduplicationId": name}
        why = {"DataType": "String", "StringValue": sendable(reason)}
        try:
            await self._send_dead({**message, "MessageAttributes": {REASON: why}})
        except Permanent as exc:
            log.warning("parked_without_reason", reason=reason, error=str(exc))
            await self._send_dead(message)
        await self.settle([delivery])

    async def _send_dead(self, message: Item) -> None:
        async with translated(self._dead_name):
            await self._client.send_message(**message)

    async def send(self, commands: Sequence[Command]) -> None:
        if not self._fifo:
            raise Permanent("Commands go to the FIFO queue only.")
        problems: list[tuple[Command, _Refusal]] = []
        for batch in _batches(commands):
            problems += await self._send_batch(batch)
        if problems:
            raise _not_sent(problems)

    async def _send_batch(self, batch: Sequence[Command]) -> list[tuple[Command, _Refusal]]:
        """Return what was not taken and why. Raises Transient."""
        entries = [_entry(n, command) for n, command in enumerate(batch)]
        try:
            async with translated(self._name):
                answer = await self._client.send_message_batch(
                    QueueUrl=self._config.url, Entries=entries
                )
        except Permanent as exc:
            if len(batch) == 1:
                return [(batch[0], _Refusal(exc.code, str(exc), Meaning.NO))]
            # Too much together, or one that cannot be in any batch.
            return [lost for one in batch for lost in await self._send_batch([one])]
        failed = _problems("SendMessageBatch", answer, len(batch))
        return [(batch[n], problem) for n, problem in failed.items()]

    def _delivery(self, message: Item) -> _SqsDelivery | None:
        """Return one message, whatever is wrong with it; None for one that cannot even be deleted."""
        receipt, body = message.get("ReceiptHandle"), str(message.get("Body", ""))
        if not receipt:
            log.error("message_without_receipt", queue=self._name, message=shown(message))
            return None
        return _SqsDelivery(
            content=self._content(body),
            receipt=str(receipt),
            tries=tries(message),
            source=self._source_of(body),
            sent_at=sent_at(message),
            group=str(message.get("Attributes", {}).get("MessageGroupId", "")),
            message_id=str(message.get("MessageId") or _digest(str(receipt))),
            body=body,
        )

    def _content(self, body: str) -> tuple[Command, ...] | Unreadable:
        try:
            return self._decode(body)
        except Exception as exc:
            log.exception("message_undecodable", queue=self._name)
            return Unreadable(f"It broke its reader: {type(exc).__name__}: {shown(exc, 200)}.")


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Why one message of a batch was not taken."""

    code: str
    text: str
    meaning: Meaning

    def __str__(self) -> str:
        return f"{self.text} ({self.code})"


def _problems(operation: str, answer: Item, count: int) -> Mapping[int, _Refusal]:
    """Return by place what failed in a batch of ``count``, whatever the status of the whole."""
    found: dict[int, _Refusal] = {}
    for failed in answer.get("Failed") or []:
        code, words = str(failed.get("Code") or "unknown"), str(failed.get("Message") or "")
        meaning = meaning_of(operation, code, 400 if failed.get("SenderFault") else 0, words)
        if not failed.get("SenderFault") and meaning is Meaning.NO:
            meaning = Meaning.AGAIN
        id = str(failed.get("Id"))
        if id.isdecimal() and int(id) < count:
            found[int(id)] = _Refusal(shown(code, 100), shown(words), meaning)
    return found


def _not_sent(problems: Sequence[tuple[Command, _Refusal]]) -> DaemonError:
    """Permanent only if none of them can ever be sent: what may pass has to be repeated."""
    kinds: dict[Meaning, type[DaemonError]] = {
        Meaning.AGAIN: Transient,
        Meaning.OURS: Impeded,
        Meaning.NO: Permanent,
    }
    worst = next(m for m in kinds if any(p.meaning is m for _, p in problems))
    told = "; ".join(f"{command.id}: {problem}" for command, problem in problems[:3])
    text = f"SQS did not take {len(problems)} commands: {told}. The others were sent."
    error = kinds[worst](text)
    error.code = next(problem.code for _, problem in problems if problem.meaning is worst)
    return error


def tries(message: Item) -> int:
    """Return how often the message was received, 1 where it does not say so."""
    count = str((message.get("Attributes") or {}).get("ApproximateReceiveCount", ""))
    return int(count) if re.fullmatch("[0-9]{1,9}", count) else 1


def sent_at(message: Item) -> datetime | None:
    """Return when the message was sent, None where it does not say so."""
    sent_ms = str((message.get("Attributes") or {}).get("SentTimestamp", ""))
    if not re.fullmatch("[0-9]{1,14}", sent_ms):
        return None
    return datetime.fromtimestamp(int(sent_ms) / 1000, UTC)


def _name_of(url: str) -> str:
    return url.rstrip("/").rpartition("/")[2]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()


def _entry(n: int, command: Command) -> Item:
    return {
        "Id": str(n),
        "MessageBody": json.dumps(command_to_dict(command), separators=(",", ":")),
        "MessageGroupId": command.workset_id,
        "MessageDeduplicationId": _digest(command.id),
    }


def sendable(text: str, limit_bytes: int = REASON_LIMIT_BYTES) -> str:
    """Return ``text`` without what SQS does not take, and no longer than ``limit_bytes`` in UTF-8."""
    clean = _UNSENDABLE.sub("", text[:limit_bytes])
    return clean.encode()[:limit_bytes].decode(errors="ignore") or "?"


def _batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), _BATCH):
        yield items[start : start + _BATCH]
