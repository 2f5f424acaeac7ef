"""Notices owed, delivered: concurrently per channel, in order per workset and channel.

What is owed was written with the state change itself; here it is only paid. A channel that is slow or
dead holds up nobody else. A crash between delivery and settling makes a repeat under the same delivery
id, which the receivers that can drop repeats drop. Leftovers are taken over by a conditional write, since
the index that shows them may be stale: our own from before a restart at once, those of another daemon when
they have been standing still for ``takeover_s`` on this host's clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

import structlog
from anyio import CapacityLimiter, Event, create_task_group, current_time, sleep
from anyio.abc import TaskGroup

from daylily_daemon.domain.errors import DaemonError, Permanent, Transient
from daylily_daemon.domain.model import Record, WorksetId
from daylily_daemon.engine.boundary import for_ever, foreign_as_unexpected
from daylily_daemon.engine.dials import Live
from daylily_daemon.ports import Clock, Notifier, Trail

log = structlog.get_logger()

PATIENCE_S: Final = 3600.0
"""Longest pause that a receiver can ask for."""
_REMEMBERED: Final = 10_000
"""Worksets whose last record is remembered; one that is forgotten costs a look at its trail."""


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
        self._last: dict[WorksetId, int] = {}
        self._held: dict[WorksetId, list[Record]] = {}

    @property
    def waiting(self) -> int:
        """Records in hand with something still owed."""
        return len(self._debts)

    async def drained(self) -> None:
        """Return once nothing is in hand."""
        while self._debts or self._held:
            self._paid = Event()
            await self._paid.wait()

    def take(self, records: tuple[Record, ...]) -> None:
        """Deliver what these freshly written records owe.

        A record that does not follow the last one we saw of its workset waits: another daemon wrote
        what lies between, or an answer got lost, and may still have to deliver it.
        """
        for record in records:
            last = self._last.get(record.workset_id)
            if record.workset_id in self._held:
                self._held[record.workset_id].append(record)
            elif record.seq == 1 or (last is not None and record.seq == last + 1):
                self._enqueue(record)
            elif record.owed:
                self._held[record.workset_id] = [record]
                self._spawn(self._catch_up, record.workset_id)

    def _enqueue(self, record: Record) -> None:
        if len(self._last) > _REMEMBERED:
            self._last.clear()
        self._last[record.workset_id] = record.seq
        if record.owed and record.id not in self._debts:
            debt = self._debts[record.id] = _Debt(record, set(record.owed))
            for channel in sorted(record.owed):
                self._queue(channel, debt)

    async def _catch_up(self, workset: WorksetId) -> None:
        """Wait until nothing before the held records is owed, taking over what stands still."""
        first = self._held[workset][0].seq
        while True:
            try:
                with foreign_as_unexpected("the outbox"):
                    rows = await self._rows_before(workset, first)
                    earlier = [r for r in rows if r.owed and r.id not in self._debts]
                    if not await self._take_over(earlier):
                        break
            except DaemonError as exc:
                log.warning("outbox_unreachable", error=str(exc))
            await sleep(self._config.flush_s)
        for record in self._held.pop(workset):
            self._enqueue(record)
        self._paid.set()

    async def _rows_before(self, workset: WorksetId, seq: int) -> list[Record]:
        """Return all records of a workset before ``seq``, page by page."""
        found: list[Record] = []
        while page := await self._trail.read(workset, after=found[-1].seq if found else 0):
            found += [r for r in page if r.seq < seq]
            if not found or page[-1].seq >= seq - 1:
                break
        return found

    async def _take_over(self, records: Sequence[Record]) -> bool:
        """Take over, in order, what stands still of one workset; True if something is left."""
        for record in records:
            if not self._stands_still(record):
                return True
            taken = await self._trail.take_over(record, self._config.owner)
            self._still.pop(record.id, None)
            if taken is not None:
                self._enqueue(taken)
        return False

    async def run(self) -> None:
        """Deliver until cancelled. What is not delivered then is still owed in the store."""
        async with create_task_group() as tg:
            self._tg = tg
            tg.start_soon(self._flush)
            await self._sweep()

    def _spawn(self, work: Callable[..., Coroutine[Any, Any, None]], *args: str) -> None:
        """Records come only from tasks that live shorter than ``run``: see the supervision tree."""
        if self._tg is None:
            raise RuntimeError("the outbox does not run yet")
        self._tg.start_soon(work, *args)

    def _queue(self, channel: str, debt: _Debt) -> None:
        key = (channel, debt.record.workset_id)
        line = self._lines.get(key)
        if line is not None:
            line.append(debt)
            return
        self._lines[key] = deque([debt])
        self._spawn(self._pay, *key)

    async def _pay(self, channel: str, workset: str) -> None:
        """Work off one line: one workset's notices on one channel, in their order."""
        line = self._lines[channel, workset]
        try:
            with foreign_as_unexpected(f"paying {workset} on {channel}"):
                while line:
                    await self._pay_first(line, channel)
        except DaemonError as exc:
            log.warning("line_left", workset=workset, channel=channel, error=str(exc))
            for debt in line:  # still owed in the store, where the next sweep finds it
                self._debts.pop(debt.record.id, None)
        del self._lines[channel, workset]

    async def _pay_first(self, line: deque[_Debt], channel: str) -> None:
        limit = self._limits.setdefault(channel, CapacityLimiter(self._config.per_channel))
        debt = line[0]
        delivered = await self._deliver(channel, debt.record, limit)
        (debt.told if delivered else debt.given_up).add(channel)
        debt.open.discard(channel)
        line.popleft()
        if not debt.open:
            await self._settle(debt)

    async def _deliver(self, channel: str, record: Record, limit: CapacityLimiter) -> bool:
        bound = log.bind(workset=record.workset_id, channel=channel, delivery=record.id)
        pause_s = self._config.base_s
        while True:
            notifier = self._notifiers().get(channel)
            if notifier is None:
                bound.warning("notice_given_up", reason="the channel is no longer configured")
                return False
            try:
                with foreign_as_unexpected(f"channel {channel}"):
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
                await sleep(max(pause_s, min(exc.retry_after_s or 0.0, PATIENCE_S)))
                pause_s = min(self._config.cap_s, pause_s * 2)
            else:
                bound.info("notice_delivered", type=record.type, state=record.state)
                return True

    def _too_old(self, record: Record) -> bool:
        return self._clock.now() - record.at > timedelta(seconds=self._live.now.give_up_s)

    async def _settle(self, debt: _Debt) -> None:
        told, given_up = frozenset(debt.told), frozenset(debt.given_up)
        try:
            with foreign_as_unexpected("settling a notice"):
                debt.record = await self._trail.settle(debt.record, told, given_up)
        except DaemonError as exc:
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
        await for_ever("the search for notices left behind", self._sweep_once, self._config.sweep_s)

    async def _sweep_once(self) -> None:
        await self._find_leftovers()
        await sleep(self._config.sweep_s)

    async def _find_leftovers(self) -> None:
        """Take over what others left, a workset at a time, up to the first that may still be alive.

        All pages are read: what a dead channel is owed must not hide what others are.
        """
        found: dict[WorksetId, list[Record]] = {}
        page = await self._trail.owed()
        while True:
            for record in page.records:
                if record.id not in self._debts and record.workset_id not in self._held:
                    found.setdefault(record.workset_id, []).append(record)
            if page.more is None:
                break
            page = await self._trail.owed(after=page.more)
        seen = {r.id for rows in found.values() for r in rows}
        held = {id for id in self._still if id.rsplit("/", 1)[0] in self._held}
        self._still = {id: at for id, at in self._still.items() if id in seen | held}
        for rows in found.values():
            await self._take_over(sorted(rows, key=lambda r: r.seq))

    def _stands_still(self, record: Record) -> bool:
        if record.teller == self._config.owner:
            return True
        seen, since = self._still.setdefault(record.id, (record, current_time()))
        if (seen.teller, seen.owed) != (record.teller, record.owed):
            self._still[record.id] = (record, current_time())
            return False
        return current_time() - since >= self._config.takeover_s
