"""Notices owed, delivered: concurrently per channel, in order per workset and channel.

What is owed was written with the state change itself; here it is only paid. A channel that is slow or
dead holds up nobody else, whoever tells. A crash between delivery and settling makes a repeat under the same
delivery id, which the receivers that can drop repeats drop. Leftovers are taken over by a conditional write,
since the index that shows them may be stale: our own from before a restart at once, those of another daemon
when they have been standing still for ``takeover_s`` on this host's clock.

So what waits for a dead channel may be another daemon's by the time the channel answers. Before a notice is
told it must be *ours*, by a write that the others saw less than ``sure_s`` ago or by asking, and *next*:
nothing before it is owed on its channel by anybody else.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

import structlog
from anyio import CapacityLimiter, Event, create_task_group, current_time, sleep
from anyio.abc import TaskGroup

from daylily_daemon.domain.daemon import Owed
from daylily_daemon.domain.errors import DaemonError, Permanent, Transient
from daylily_daemon.domain.model import Record, WorksetId
from daylily_daemon.engine.boundary import for_ever, foreign_as_unexpected
from daylily_daemon.engine.counting import Counting, NoticeFate
from daylily_daemon.engine.flood import Flood
from daylily_daemon.engine.live_settings import LiveSettings
from daylily_daemon.engine.wakeup import Wakeup
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
    sure_s: float = 15.0
    """How long a record that we wrote or took over is ours without asking; less than ``takeover_s`` by more
    than a delivery takes."""
    base_s: float = 1.0
    cap_s: float = 300.0
    """Pause between tries: doubling from base to cap, or what the receiver asks for."""
    per_channel: int = 8
    """Deliveries at once on one channel."""
    gives_way_s: float = 10.0
    """Age up to which a notice waits for the end of a flood of messages; less than ``sure_s``."""


@dataclass(slots=True, eq=False)
class _PendingDelivery:
    """What is left to do for one record."""

    record: Record
    open: set[str]
    since: int
    """Everything of its workset from this number on is ours, or was: only before it others may owe."""
    ours_at: float
    """When we wrote it or took it from another daemon, on the loop's clock."""
    told: set[str] = field(default_factory=set)
    given_up: set[str] = field(default_factory=set)


class _Lost(Transient):
    """The notice is not ours to tell any more, or was told."""


class _Unsure(Transient):
    """Whether it is still ours cannot be asked now; then it is not ours to give up either."""


class Outbox:
    def __init__(
        self,
        trail: Trail,
        notifiers: Callable[[], Mapping[str, Notifier]],
        clock: Clock,
        live: LiveSettings,
        config: OutboxConfig,
    ) -> None:
        self._trail = trail
        self._notifiers = notifiers
        self._clock = clock
        self._live = live
        self._config = config
        self.flood: Final = Flood()
        """While it is on, fresh notices wait for a while."""
        self.counting = Counting()
        self._pending: dict[str, _PendingDelivery] = {}
        self._lines: dict[tuple[str, WorksetId], list[_PendingDelivery]] = {}
        self._limits: dict[str, CapacityLimiter] = {}
        self._still: dict[str, tuple[Record, float]] = {}
        self._tg: TaskGroup | None = None
        self._paid = Event()
        self._unsettled = Wakeup()
        self._losses = 0
        self._own: dict[WorksetId, tuple[int, int]] = {}
        self._clear: dict[WorksetId, dict[str, int]] = {}

    @property
    def waiting(self) -> int:
        """Records in hand with something still owed."""
        return len(self._pending)

    def owed(self) -> Mapping[str, Owed]:
        """Return what each channel is owed of the records in hand."""
        found: dict[str, Owed] = {}
        for pending in self._pending.values():
            at = pending.record.at
            for channel in pending.open:
                seen = found.get(channel, Owed(oldest_at=at))
                oldest_at = min(at, seen.oldest_at or at)
                found[channel] = Owed(count=seen.count + 1, oldest_at=oldest_at)
        return found

    async def drained(self) -> None:
        """Return once nothing is in hand."""
        while self._pending:
            self._paid = Event()
            await self._paid.wait()

    def take(self, records: tuple[Record, ...]) -> None:
        """Deliver what these freshly written records owe.

        Between a record that does not follow the last one we saw of its workset and that one, another daemon
        wrote something, or an answer got lost: that may still have to be delivered.
        """
        if max(len(self._own), len(self._clear)) > _REMEMBERED:
            self._own.clear()
            self._clear.clear()
        for record in records:
            since, last = self._own.get(record.workset_id, (0, 0))
            since = since if record.seq == last + 1 and last else record.seq
            self._own[record.workset_id] = since, record.seq
            self._enqueue(record, since, current_time())

    def _enqueue(self, record: Record, since: int, ours_at: float) -> None:
        if record.owed and record.id not in self._pending:
            pending = _PendingDelivery(record, set(record.owed), since, ours_at)
            self._pending[record.id] = pending
            for channel in sorted(record.owed):
                self._queue(channel, pending)

    async def _wait_for_turn(self, channel: str, pending: _PendingDelivery) -> None:
        """Wait until nobody else owes anything before it on ``channel``, taking over what stands still."""
        id, pause_s = pending.record.workset_id, self._config.flush_s
        while self._has(pending) and pending.since > (known := self._clear_from(id, channel)):
            try:
                with foreign_as_unexpected("the outbox"):
                    since, losses = pending.since, self._losses
                    rows = await self._rows(id, known, since)
                    earlier = [r for r in rows if channel in r.owed and r.id not in self._pending]
                    if not await self._take_over(earlier) and losses == self._losses:
                        self._clear.setdefault(id, {})[channel] = since
                        return
            except DaemonError as exc:
                log.warning("outbox_unreachable", error=str(exc))
            await sleep(pause_s)
            pause_s = min(self._config.takeover_s / 2, 2 * pause_s)

    def _clear_from(self, id: WorksetId, channel: str) -> int:
        """Return before which number nobody else owes ``channel`` anything, as far as we know."""
        return self._clear.get(id, {}).get(channel, 1)

    async def _rows(self, workset: WorksetId, first: int, end: int) -> list[Record]:
        """Return the records of a workset from number ``first`` on and before ``end``, page by page."""
        found: list[Record] = []
        after = first - 1
        while page := await self._trail.read(workset, after=after):
            found += [r for r in page if r.seq < end]
            after = page[-1].seq
            if after >= end - 1:
                break
        return found

    async def _take_over(self, records: Sequence[Record]) -> bool:
        """Take over, in order, what stands still of one workset; True if something is left, or may be."""
        left = False
        for record in records:
            if not self._stands_still(record):
                return True
            taken = await self._trail.take_over(record, self._config.owner)
            self._still.pop(record.id, None)
            if taken is None:
                left = True
                continue
            from_another = record.teller != self._config.owner
            self._enqueue(taken, taken.seq, current_time() if from_another else -math.inf)
        return left

    async def run(self) -> None:
        """Deliver until cancelled. What is not delivered then is still owed in the store."""
        async with create_task_group() as tg:
            self._tg = tg
            tg.start_soon(self._flush)
            await self._sweep()

    def _spawn(self, work: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        """Records come only from tasks that live shorter than ``run``: see the supervision tree."""
        if self._tg is None:
            raise RuntimeError("the outbox does not run yet")
        self._tg.start_soon(work, *args)

    def _queue(self, channel: str, pending: _PendingDelivery) -> None:
        key = (channel, pending.record.workset_id)
        line = self._lines.get(key)
        if line is not None:
            insort(line, pending, key=_number)
            return
        self._lines[key] = [pending]
        self._spawn(self._deliver_in_order, *key)

    async def _deliver_in_order(self, channel: str, workset: WorksetId) -> None:
        """Work off one line: one workset's notices on one channel, in their order."""
        line = self._lines[channel, workset]
        try:
            with foreign_as_unexpected(f"paying {workset} on {channel}"):
                while line:
                    await self._deliver_first(line, channel)
        except DaemonError as exc:
            log.warning("line_left", workset=workset, channel=channel, error=str(exc))
            for pending in list(line):  # still owed in the store, where the next sweep finds it
                self._lose(pending)
        del self._lines[channel, workset]

    async def _deliver_first(self, line: list[_PendingDelivery], channel: str) -> None:
        pending = line[0]
        await self._wait_for_turn(channel, pending)
        if line[:1] != [pending]:
            return
        try:
            delivered = await self._deliver(channel, pending)
        except _Lost:
            self._leave(line, channel, pending)
            return
        (pending.told if delivered else pending.given_up).add(channel)
        self._leave(line, channel, pending)
        if not pending.open or not self._has(pending):
            await self._settle(pending)
        else:
            self._unsettled.call()

    def _has(self, pending: _PendingDelivery) -> bool:
        return self._pending.get(pending.record.id) is pending

    def _leave(self, line: list[_PendingDelivery], channel: str, pending: _PendingDelivery) -> None:
        pending.open.discard(channel)
        if pending in line:
            line.remove(pending)
        self._drop_if_done(pending)

    def _lose(self, pending: _PendingDelivery) -> None:
        """Leave a record to whoever has it now; what is ours behind it has to wait for its turn."""
        id = pending.record.workset_id
        self._losses += 1
        if self._has(pending):
            del self._pending[pending.record.id]
        self._own.pop(id, None)
        self._clear.pop(id, None)
        for channel in pending.record.owed:
            line = self._lines.get((channel, id), [])
            if pending in line:
                line.remove(pending)
            for other in line:
                other.since = other.record.seq
        self._paid.set()

    async def _deliver(self, channel: str, pending: _PendingDelivery) -> bool:
        """Return whether it was told, or given up. Raises _Lost if it is another daemon's now."""
        record = pending.record
        bound = log.bind(workset=record.workset_id, channel=channel, delivery=record.id)
        limit = self._limits.setdefault(channel, CapacityLimiter(self._config.per_channel))
        pause_s = self._config.base_s
        while True:
            notifier = self._notifiers().get(channel)
            if notifier is None:
                bound.warning("notice_given_up", reason="the channel is no longer configured")
                self.counting.notice(channel, NoticeFate.GIVEN_UP)
                return False
            try:
                with foreign_as_unexpected(f"channel {channel}"):
                    async with limit:
                        await self.flood.give_way(pending.ours_at + self._config.gives_way_s)
                        await self._make_sure(channel, pending)
                        await notifier.deliver(record)
            except Permanent as exc:
                bound.error("notice_given_up", reason=str(exc))
                self.counting.notice(channel, NoticeFate.GIVEN_UP)
                return False
            except _Lost:
                bound.info("notice_left_to_another")
                raise
            except Transient as exc:
                if self._too_old(record) and not isinstance(exc, _Unsure):
                    bound.error("notice_given_up", reason=f"too old; last answer: {exc}")
                    self.counting.notice(channel, NoticeFate.GIVEN_UP)
                    return False
                self.counting.notice(channel, NoticeFate.DELAYED)
                bound.warning("notice_delayed", reason=str(exc), pause_s=pause_s)
                await sleep(max(pause_s, min(exc.retry_after_s or 0.0, PATIENCE_S)))
                pause_s = min(self._config.cap_s, pause_s * 2)
            else:
                bound.info("notice_delivered", type=record.type, state=record.state)
                self.counting.notice(channel, NoticeFate.TOLD)
                return True

    async def _make_sure(self, channel: str, pending: _PendingDelivery) -> None:
        """Raise _Lost if the record is not ours any more, and _Unsure if nobody can say."""
        if not self._has(pending):
            raise _Lost("another daemon has it")
        if current_time() - pending.ours_at < self._config.sure_s:
            return
        try:
            with foreign_as_unexpected("the outbox"):
                now = await self._trail.take_over(pending.record, self._config.owner)
        except DaemonError as exc:
            raise _Unsure(f"whether it is still ours to tell is unknown: {exc}") from exc
        if now is None:
            self._lose(pending)
            raise _Lost("another daemon has it, or has told it")
        pending.record = now
        if channel not in now.owed:
            raise _Lost("it was told")

    def _too_old(self, record: Record) -> bool:
        return self._clock.now() - record.at > timedelta(seconds=self._live.current.give_up_s)

    async def _settle(self, pending: _PendingDelivery) -> None:
        told, given_up = frozenset(pending.told), frozenset(pending.given_up)
        try:
            with foreign_as_unexpected("settling a notice"):
                pending.record = await self._trail.settle(pending.record, told, given_up)
        except DaemonError as exc:
            log.warning("settle_unanswered", delivery=pending.record.id, error=str(exc))
            self._unsettled.call()
            return
        pending.told -= told
        pending.given_up -= given_up
        self._drop_if_done(pending)

    def _drop_if_done(self, pending: _PendingDelivery) -> None:
        if self._has(pending) and not (pending.open or pending.told or pending.given_up):
            del self._pending[pending.record.id]
            self._paid.set()

    async def _flush(self) -> None:
        """Settle what was delivered while another channel of the same record is slow."""
        while True:
            await self._unsettled.wait()
            await sleep(self._config.flush_s)
            for pending in list(self._pending.values()):
                if pending.told or pending.given_up:
                    await self._settle(pending)

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
                if record.id not in self._pending:
                    found.setdefault(record.workset_id, []).append(record)
            if page.more is None:
                break
            page = await self._trail.owed(after=page.more)
        seen = {r.id for rows in found.values() for r in rows}
        waiting = {workset for _, workset in self._lines}
        held = {id for id in self._still if id.rsplit("/", 1)[0] in waiting}
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


def _number(pending: _PendingDelivery) -> int:
    return pending.record.seq
