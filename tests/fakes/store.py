"""Working in-memory store and queue. They pass the contract tests of the real ones.

The simulated world of tests/sim is made of these, with faults put in front.
"""

from __future__ import annotations

from asyncio import Future, get_running_loop
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count
from typing import Any

from anyio import current_time

from daylily_daemon.adapters.paging import PageRows, PageSource, page_of
from daylily_daemon.domain.errors import AlreadyDone, Permanent
from daylily_daemon.domain.listing import ListedRow, Position, Query, Span, matches
from daylily_daemon.domain.model import Answer, Command, Record, State, WorksetId
from daylily_daemon.domain.turn import Queue as TurnQueue
from daylily_daemon.domain.turn import Turn, turn_of
from daylily_daemon.domain.workset import Workset
from daylily_daemon.ports import (
    COUNTED,
    Announced,
    Change,
    Conflict,
    Count,
    Delivery,
    OwedPage,
    Page,
    Unreadable,
)


@dataclass(slots=True)
class Table:
    """What DynamoDB holds; outlives every daemon."""

    worksets: dict[WorksetId, Workset] = field(default_factory=dict)
    nonces: dict[WorksetId, str] = field(default_factory=dict)
    records: dict[WorksetId, list[Record]] = field(default_factory=dict)
    answers: dict[tuple[WorksetId, str], Answer | None] = field(default_factory=dict)
    """Every command that was ever answered; None where the answer was not said."""
    _turns: dict[WorksetId, tuple[Workset, Turn | None]] = field(default_factory=dict)

    def turn_of(self, ws: Workset) -> Turn | None:
        """Return the turn of an item, made when the item was last written, as an index keeps it."""
        kept = self._turns.get(ws.id)
        if kept is None or kept[0] is not ws:
            kept = self._turns[ws.id] = ws, turn_of(ws)
        return kept[1]


class MemoryWorksets:
    def __init__(self, table: Table) -> None:
        self._table = table

    async def load(self, id: WorksetId) -> Workset | None:
        return self._table.worksets.get(id)

    async def commit(self, change: Change) -> Workset:
        table, after = self._table, change.after
        current = table.worksets.get(after.id)
        if current is not None and table.nonces[after.id] == change.nonce:
            return current
        if _mark(current) != _mark(change.before):
            raise Conflict(current)
        once = (after.id, change.once) if change.once else None
        if once in table.answers:
            raise AlreadyDone(f"{change.once} was applied before")
        rows = table.records.setdefault(after.id, [])
        new = {r.seq for r in change.records}
        if new and any(r.seq in new for r in rows):
            raise Permanent("An audit record of this number exists already.")
        if once:
            table.answers[once] = None
        table.answers.update({(after.id, a.command_id): a for a in change.answers})
        stored = replace(after, version=(current.version if current else 0) + 1)
        table.worksets[after.id] = stored
        table.nonces[after.id] = change.nonce
        rows.extend(change.records)
        return stored

    async def announced(self, ids: Sequence[WorksetId]) -> Mapping[WorksetId, Announced]:
        known = (self._table.worksets[id] for id in ids if id in self._table.worksets)
        return {
            ws.id: Announced(sentinel=ws.request.sentinel, submitted_at=ws.request.submitted_at)
            for ws in known
        }


class MemoryTurns:
    def __init__(self, table: Table) -> None:
        self._table = table

    async def line_up(self, queue: TurnQueue, *, after: str = "", limit: int) -> Sequence[Turn]:
        worksets = self._table.worksets.values()
        return turns_of(worksets, queue, after, self._table.turn_of)[:limit]

    async def load_all(self, ids: Sequence[WorksetId]) -> Sequence[Workset]:
        return [ws for id in ids if (ws := self._table.worksets.get(id))]

    async def refile(self, ws: Workset) -> None:
        """Nothing to do: what is kept here has no keys of its own that could be wrong."""

    async def unfiled(self, state: State, *, limit: int = 1000) -> Sequence[Workset]:
        return ()


def turns_of(
    worksets: Iterable[Workset],
    queue: TurnQueue,
    after: str = "",
    made: Callable[[Workset], Turn | None] = turn_of,
) -> list[Turn]:
    """Return the turns of ``queue`` behind a key, in order, as an index has them."""
    turns = (turn for ws in worksets if (turn := made(ws)) and turn.queue is queue)
    return sorted((turn for turn in turns if turn.key > after), key=lambda turn: turn.key)


class MemoryCatalogue:
    def __init__(self, table: Table) -> None:
        self._table = table

    async def count(self, state: State, *, most: int = COUNTED) -> Count:
        found = sum(ws.state is state for ws in self._table.worksets.values())
        return Count(min(found, most), found > most)

    async def page(self, query: Query, *, after: Position | None = None, limit: int) -> Page:
        async def read(span: Span, at: Position, most: int) -> PageRows:
            rows = self._rows(query, span, at)
            read, left = rows[:most], rows[most:]
            served = replace(NOTHING_OF_ITEMS, states=query.states, prefix=query.prefix)
            found = [ListedRow(ws.id, ws.priority_key) for ws in read if matches(served, span, ws)]
            last = Position(at.span, read[-1].priority_key, read[-1].id) if left else None
            return PageRows(found, len(read), last)

        async def load(ids: Sequence[WorksetId]) -> Sequence[Workset]:
            return [self._table.worksets[id] for id in ids]

        return await page_of(query, after, limit, PageSource(read, load))

    def _rows(self, query: Query, span: Span, at: Position) -> list[Workset]:
        """Return what lies in the index behind ``at``, as an index has it: by state or by customer."""
        served = replace(NOTHING_OF_ITEMS, states=query.states, customer=query.customer)
        rows = (ws for ws in self._table.worksets.values() if matches(served, span, ws))
        behind = (ws for ws in rows if ws.priority_key > at.key)
        return sorted(behind, key=lambda ws: ws.priority_key)


NOTHING_OF_ITEMS = Query(states=())
"""An index has keys alone: what only items tell is not looked for there."""


def _mark(ws: Workset | None) -> tuple[int, int, State] | None:
    return (ws.version, ws.fence, ws.state) if ws else None


class MemoryTrail:
    def __init__(self, table: Table) -> None:
        self._table = table

    async def read(self, id: WorksetId, *, after: int = 0, limit: int = 1000) -> Sequence[Record]:
        return [r for r in self._table.records.get(id, []) if r.seq > after][:limit]

    async def owed(self, *, after: Any = None, limit: int = 100) -> OwedPage:
        owing = (r for rows in self._table.records.values() for r in rows if r.owed)
        rest = [r for r in sorted(owing, key=_place) if after is None or _place(r) > after]
        page = rest[:limit]
        return OwedPage(records=page, more=_place(page[-1]) if len(rest) > limit else None)

    async def answer(self, id: WorksetId, answer: Answer) -> None:
        self._table.answers.setdefault((id, answer.command_id), answer)

    async def answer_to(self, id: WorksetId, command_id: str) -> Answer | None:
        return self._table.answers.get((id, command_id))

    async def settle(
        self, record: Record, told: frozenset[str], given_up: frozenset[str] = frozenset()
    ) -> Record:
        now = self._now(record)
        left = now.owed - told - given_up
        return self._put(replace(now, owed=left, given_up=now.given_up | given_up))

    async def take_over(self, record: Record, teller: str) -> Record | None:
        now = self._now(record)
        if not now.owed or now.teller not in (record.teller, teller):
            return None
        return self._put(replace(now, teller=teller))

    def _now(self, record: Record) -> Record:
        return next(r for r in self._table.records[record.workset_id] if r.seq == record.seq)

    def _put(self, record: Record) -> Record:
        rows = self._table.records[record.workset_id]
        rows[[r.seq for r in rows].index(record.seq)] = record
        return record


def _let_go(waiter: Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _place(record: Record) -> tuple[str, int]:
    return record.workset_id, record.seq


@dataclass(slots=True)
class _Message:
    content: tuple[Command, ...] | Unreadable
    group: str
    visible_at: float = 0.0
    tries: int = 0
    receipt: str = ""


@dataclass(slots=True)
class Queue:
    """A FIFO queue with groups, visibility and deduplication, as SQS has them."""

    visibility_s: float = 30.0
    messages: deque[_Message] = field(default_factory=deque)
    seen: dict[str, float] = field(default_factory=dict)
    parked: list[tuple[tuple[Command, ...] | Unreadable, str]] = field(default_factory=list)
    receipts: count[int] = field(default_factory=lambda: count(1))
    waiting: list[Future[None]] = field(default_factory=list)
    """Those who wait for a message, each for itself."""

    def put(self, content: tuple[Command, ...] | Unreadable, group: str) -> None:
        self.messages.append(_Message(content, group))
        self.changed()

    def changed(self) -> None:
        """Let all who wait look again."""
        for waiter in self.waiting:
            _let_go(waiter)

    async def change(self, until: float) -> None:
        """Return when something changed, or at ``until`` on the loop's clock."""
        loop = get_running_loop()
        waiter = loop.create_future()
        timer = loop.call_at(until, _let_go, waiter)
        self.waiting.append(waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            self.waiting.remove(waiter)


class MemoryMailbox:
    """Groups are blocked while one of their messages is in flight; ``wait_s`` bounds a receive."""

    def __init__(self, queue: Queue, *, wait_s: float = 20.0, most: int = 10) -> None:
        self._queue = queue
        self._wait_s = wait_s
        self._most = most

    async def receive(self) -> Sequence[Delivery]:
        until = current_time() + self._wait_s
        while not (taken := self._take()) and (now := current_time()) < until:
            hidden = (m.visible_at for m in self._queue.messages if m.visible_at > now)
            await self._queue.change(min(until, min(hidden, default=until)))
        return taken

    def _take(self) -> list[Delivery]:
        if not self._queue.messages:
            return []
        now, blocked = current_time(), set[str]()
        taken: list[Delivery] = []
        for message in self._queue.messages:
            if message.visible_at > now:
                blocked.add(message.group)
            elif message.group not in blocked and len(taken) < self._most:
                message.visible_at = now + self._queue.visibility_s
                message.tries += 1
                message.receipt = f"r{next(self._queue.receipts)}"
                taken.append(
                    Delivery(content=message.content, receipt=message.receipt, tries=message.tries)
                )
        return taken

    async def settle(self, deliveries: Sequence[Delivery]) -> None:
        gone = {d.receipt for d in deliveries}
        for message in [m for m in self._queue.messages if m.receipt in gone]:
            self._queue.messages.remove(message)
        self._queue.changed()

    async def keep(self, deliveries: Sequence[Delivery], hidden_s: int) -> None:
        until = current_time() + hidden_s
        held = {d.receipt for d in deliveries}
        for message in self._queue.messages:
            if message.receipt in held:
                message.visible_at = until

    async def park(self, delivery: Delivery, reason: str) -> None:
        self._queue.parked.append((delivery.content, reason))
        await self.settle([delivery])

    async def send(self, commands: Sequence[Command]) -> None:
        now = current_time()
        for command in commands:
            if now - self._queue.seen.get(command.id, -1e9) >= 300:
                self._queue.seen[command.id] = now
                self._queue.put((command,), command.workset_id)


class NoDrops:
    """A bucket in which no event was ever missed."""

    async def as_it_is(self, command: Command) -> Command:
        return command

    async def unannounced(self) -> Sequence[Command]:
        return ()


class LoopClock:
    """Wall clock that follows the loop's clock: virtual where the loop is."""

    def __init__(self, start: datetime | None = None) -> None:
        self.start = start or datetime(2026, 1, 1, tzinfo=UTC)
        self._start_s = self.start.timestamp()

    def now(self) -> datetime:
        return datetime.fromtimestamp(self._start_s + current_time(), UTC)


class Counter:
    """Ids that count up: unique within one world, and the same in every replay."""

    def __init__(self, prefix: str = "", numbers: Callable[[], int] | None = None) -> None:
        self._prefix = prefix
        self._numbers = numbers or count(1).__next__

    def fresh(self) -> str:
        return f"{self._prefix}{self._numbers()}"
