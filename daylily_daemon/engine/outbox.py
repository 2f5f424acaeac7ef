"""Notices owed, delivered: concurrently per channel, in order per workset and channel.

What is owed was written with the state change itself; here it is only paid. A channel that is slow or
dead holds up nobody else. A crash between delivery and settling makes a repeat under the same delivery
id, which the receivers that can drop repeats drop. Leftovers are taken over by a conditional write, since
the index that shows them may be stale: our own from before a restart at once, those of another daemon when
they have been standing still for ``takeover_s`` on this host's clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

import structlog
from anyio import CapacityLimiter, Event, create_task_group, current_time, sleep
from anyio.abc import TaskGroup

from daylily_daemon.domain.errors import Permanent, Transient
from daylily_daemon.domain.model import Record
from daylily_daemon.engine.dials import Live
from daylily_daemon.ports import Clock, Notifier, Trail

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxConfig:
    owner: str
    flush_s: float = 2.0
    """How long a delivered notice may stay unsettled while other channels of the record are slow."""
    sweep_s: float = 60.0
    takeover_s: float = 60.0
    base_s: float = 1.0
    cap_s: float = 300.0
    """Pause between tries: doubling from base to cap, or what the receiver asks for."""
    per_channel: int = 8
    """Deliveries at once on one channel."""


@dataclass(slots=True)
class _Debt:
    """What is left to do for one record."""

    record: Record
    open: set[str]
    told: set[str] = field(default_factory=set)
    given_up: set[str] = field(default_factory=set)


class Outbox:
    def __init__(
        self,
        trail: Trail,
        notifiers: Callable[[], Mapping[str, Notifier]],
        clock: Clock,
        live: Live,
        config: OutboxConfig,
    ) -> None:
        self._trail = trail
        self._notifiers = notifiers
        self._clock = clock
        self._live = live
        self._config = config
        self._debts: dict[str, _Debt] = {}
        self._lines: dict[tuple[str, str], deque[_Debt]] = {}
        self._limits: dict[str, CapacityLimiter] = {}
        self._still: dict[str, tuple[Record, float]] = {}
        self._tg: TaskGroup | None = None
        self._paid = Event()

    @property
    def waiting(self) -> int:
        """Records in hand with something still owed."""
        return len(self._debts)

    async def drained(self) -> None:
        """Return once nothing is in hand."""
        while self._debts:
            self._paid = Event()
            await self._paid.wait()

    def take(self, records: tuple[Record, ...]) -> None:
        """Deliver what these freshly written records owe."""
        for record in records:
            if record.owed and record.id not in self._debts:
                debt = self._debts[record.id] = _Debt(record, set(record.owed))
                for channel in sorted(record.owed):
                    self._queue(channel, debt)

    async def run(self) -> None:
        """Deliver until cancelled. What is not delivered then is still owed in the store."""
        async with create_task_group() as tg:
            self._tg = tg
            for channel, workset in list(self._lines):
                tg.start_soon(self._pay, channel, workset)
            tg.start_soon(self._flush)
            await self._sweep()

    def _queue(self, channel: str, debt: _Debt) -> None:
        key = (channel, debt.record.workset_id)
        line = self._lines.get(key)
        if line is not None:
            line.append(debt)
            return
        self._lines[key] = deque([debt])
        if self._tg is not None:
            self._tg.start_soon(self._pay, *key)

    async def _pay(self, channel: str, workset: str) -> None:
        """Work off one line: one workset's notices on one channel, in their order."""
        line = self._lines[channel, workset]
        limit = self._limits.setdefault(channel, CapacityLimiter(self._config.per_channel))
        while line:
            debt = line[0]
            delivered = await self._deliver(channel, debt.record, limit)
            (debt.told if delivered else debt.given_up).add(channel)
            debt.open.discard(channel)
            line.popleft()
            if not debt.open:
                await self._settle(debt)
        del self._lines[channel, workset]

    async def _deliver(self, channel: str, record: Record, limit: CapacityLimiter) -> bool:
        bound = log.bind(workset=record.workset_id, channel=channel, delivery=record.id)
        pause_s = self._config.base_s
        while True:
            notifier = self._notifiers().get(channel)
            if notifier is None:
                bound.warning("notice_given_up", reason="the channel is no longer configured")
                return False
            try:
                async with limit:
                    await notifier.deliver(record)
            except Permanent as exc:
                bound.error("notice_given_up", reason=str(exc))
                return False
            except Transient as exc:
                if self._too_old(record):
                    bound.error("notice_given_up", reason=f"too old; last answer: {exc}")
                    return False
                bound.warning("notice_delayed", reason=str(exc), pause_s=pause_s)
                await sleep(max(pause_s, exc.retry_after_s or 0.0))
                pause_s = min(self._config.cap_s, pause_s * 2)
            else:
                bound.info("notice_delivered", type=record.type, state=record.state)
                return True

    def _too_old(self, record: Record) -> bool:
        return self._clock.now() - record.at > timedelta(seconds=self._live.now.give_up_s)

    async def _settle(self, debt: _Debt) -> None:
        told, given_up = frozenset(debt.told), frozenset(debt.given_up)
        try:
            debt.record = await self._trail.settle(debt.record, told, given_up)
        except (Transient, Permanent) as exc:
            log.warning("settle_unanswered", delivery=debt.record.id, error=str(exc))
            return
        debt.told -= told
        debt.given_up -= given_up
        if not (debt.open or debt.told or debt.given_up):
            self._debts.pop(debt.record.id, None)
            self._paid.set()

    async def _flush(self) -> None:
        """Settle what was delivered while another channel of the same record is slow."""
        while True:
            await sleep(self._config.flush_s)
            for debt in list(self._debts.values()):
                if debt.told or debt.given_up:
                    await self._settle(debt)

    async def _sweep(self) -> None:
        while True:
            try:
                await self._find_leftovers()
            except (Transient, Permanent) as exc:
                log.warning("outbox_unreachable", error=str(exc))
            await sleep(self._config.sweep_s)

    async def _find_leftovers(self) -> None:
        found = [r for r in await self._trail.owed() if r.id not in self._debts]
        self._still = {r.id: self._still.get(r.id, (r, current_time())) for r in found}
        for record in sorted(found, key=lambda r: (r.workset_id, r.seq)):
            if self._stands_still(record):
                taken = await self._trail.take_over(record, self._config.owner)
                self.take((taken,) if taken else ())

    def _stands_still(self, record: Record) -> bool:
        if record.teller == self._config.owner:
            return True
        seen, since = self._still[record.id]
        if (seen.teller, seen.owed) != (record.teller, record.owed):
            self._still[record.id] = (record, current_time())
            return False
        return current_time() - since >= self._config.takeover_s
