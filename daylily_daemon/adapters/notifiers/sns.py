"""Amazon SNS: e-mail, text messages and whatever else is subscribed to a topic.

A FIFO topic tells once within five minutes (it drops a repeated deduplication id) and keeps the order
of each workset. A standard topic tells at least once, and in no order.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Protocol

from daylily_daemon.adapters.aws import translated
from daylily_daemon.domain import notice
from daylily_daemon.domain.model import Record


class Publisher(Protocol):
    """The one call this channel makes of an SNS client."""

    async def publish(self, **request: Any) -> Any: ...


@dataclass(frozen=True, slots=True)
class Sns:
    client: Publisher
    topic_arn: str

    async def deliver(self, record: Record) -> None:
        request = {
            "TopicArn": self.topic_arn,
            "Subject": notice.subject(record),
            "Message": notice.text(record),
            "MessageAttributes": _attributes(record),
        }
        if self.topic_arn.endswith(".fifo"):
            request["MessageGroupId"] = str(record.workset_id)
            request["MessageDeduplicationId"] = sha256(record.id.encode()).hexdigest()
        async with translated(f"the topic {self.topic_arn}"):
            await self.client.publish(**request)


@dataclass(slots=True)
class NamedTopic:
    """The topic that ``find`` returns the ARN of, looked for when there is something to tell.

    Not before: a topic that is missing, or may not be listed, keeps notices waiting and nothing else.
    """

    client: Publisher
    find: Callable[[], Awaitable[str]]
    _found: Sns | None = None

    async def deliver(self, record: Record) -> None:
        if self._found is None:
            self._found = Sns(client=self.client, topic_arn=await self.find())
        await self._found.deliver(record)


def _attributes(record: Record) -> dict[str, dict[str, str]]:
    """What a subscription's filter policy can ask for."""
    values = {
        "workset_id": str(record.workset_id),
        "event_type": str(record.type),
        "state": str(record.state),
        "priority": str(record.priority),
    }
    return {name: {"DataType": "String", "StringValue": value} for name, value in values.items()}
