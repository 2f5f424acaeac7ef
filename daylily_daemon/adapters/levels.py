"""How much lies in the queues, and for how long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from anyio import current_time

from daylily_daemon.adapters.aws import translated
from daylily_daemon.adapters.sqs import SqsMailbox
from daylily_daemon.domain.daemon import QueueLevel
from daylily_daemon.ports import Clock

_WAITING: Final = "ApproximateNumberOfMessages"
_IN_FLIGHT: Final = "ApproximateNumberOfMessagesNotVisible"


async def level_of(sqs: Any, name: str, url: str) -> QueueLevel:
    """Ask SQS how much is in a queue, roughly. One call."""
    async with translated(f"queue {name}"):
        answer = await sqs.get_queue_attributes(QueueUrl=url, AttributeNames=[_WAITING, _IN_FLIGHT])
    found = answer.get("Attributes") or {}
    return QueueLevel(
        waiting=int(found.get(_WAITING, "0")), in_flight=int(found.get(_IN_FLIGHT, "0"))
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedQueue:
    url: str
    mailbox: SqsMailbox | None
    """None for dead letters, which nobody receives."""
    old_s: float = 0.0
    """As in QueueLevel."""


@dataclass(slots=True, kw_only=True)
class QueueLevels:
    """The queues of a daemon. Their age is known by what it received itself."""

    sqs: Any
    clock: Clock
    queues: Mapping[str, WatchedQueue]
    _looked_at: float = field(default_factory=current_time)
    _last: Mapping[str, QueueLevel] = field(default_factory=dict)

    async def levels(self) -> Mapping[str, QueueLevel]:
        """Return what is in each queue; one call for each of them."""
        found = {name: await self._level(name, queue) for name, queue in self.queues.items()}
        self._last, self._looked_at = found, current_time()
        return found

    async def _level(self, name: str, queue: WatchedQueue) -> QueueLevel:
        level = await level_of(self.sqs, name, queue.url)
        if queue.mailbox is None:
            return replace(level, is_dead_letters=True)
        unsettled = queue.mailbox.unsettled
        oldest_at, group = unsettled.oldest()
        return replace(
            level,
            oldest_at=oldest_at,
            group=group,
            stuck_since=self._stuck_since(name, level, unsettled.received_at),
            old_s=queue.old_s,
        )

    def _stuck_since(self, name: str, level: QueueLevel, received_at: float) -> datetime | None:
        """Return since when messages wait although none came: not before the last look at the queue."""
        if not level.waiting or received_at >= self._looked_at:
            return None
        before = self._last.get(name)
        return (before.stuck_since if before else None) or self.clock.now()
