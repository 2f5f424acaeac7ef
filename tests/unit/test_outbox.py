"""Several daemons tell of the same worksets, over channels that are down for long."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import anyio
import pytest

from daylily_daemon.domain.errors import Transient
from daylily_daemon.domain.model import Record, RecordType, State, WorksetId
from daylily_daemon.engine.live_settings import LiveSettings
from daylily_daemon.engine.outbox import Outbox, OutboxConfig
from tests.fakes.runner import MemoryMachine, MemoryRunner, Script
from tests.fakes.store import LoopClock, MemoryTrail, Table
from tests.unit.daemons import World, parts_of, play, supervisor_of, until
from tests.unit.engine_settings import some_engine_settings


@dataclass
class Deaf:
    """A channel that takes nothing until ``from_s``, and then what it is told, by whomever."""

    told: list[Record]
    from_s: float
    asked: list[tuple[float, str]] = field(default_factory=list)

    async def deliver(self, record: Record) -> None:
        await anyio.sleep(0.2)
        self.asked.append((anyio.current_time(), record.id))
        if anyio.current_time() < self.from_s:
            raise Transient("no answer")
        self.told.append(record)


@dataclass
class Ahead(LoopClock):
    by_s: float = 0.0

    def __post_init__(self) -> None:
        super().__init__()

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=self.by_s)


class Daemons:
    """Daemons on machines of their own, each ended on its own."""

    def __init__(self, world: World, slack: Deaf) -> None:
        self.world, self.slack = world, slack
        self.stack = AsyncExitStack()
        self.stops: list[anyio.Event] = []

    async def __aenter__(self) -> Daemons:
        self.tg = await self.stack.enter_async_context(anyio.create_task_group())
        return self

    async def __aexit__(self, *_: object) -> None:
        for stop in self.stops:
            stop.set()
        await self.stack.aclose()

    def start(self, name: str, ahead_s: float = 0.0, *, full: bool = False) -> None:
        """``full``: it writes down what is asked for, and starts nothing."""
        parts = parts_of(self.world)
        runner = MemoryRunner(self.world.machine, machine_id=name)
        parts = replace(parts, runner=runner, notifiers={**parts.notifiers, "slack": self.slack})
        supervisor = supervisor_of(self.world, parts, name, Ahead(by_s=ahead_s))
        if full:
            supervisor = replace(supervisor, look_for_room=no_room)
        self.stops.append(anyio.Event())
        self.tg.start_soon(supervisor.run, self.stops[-1])


async def no_room() -> str:
    return "no room"


def seqs(told: list[Record], id: str) -> list[int]:
    return list(dict.fromkeys(r.seq for r in told if r.workset_id == id))


@pytest.mark.parametrize("ahead_s", [0.0, 600.0, -600.0])
def test_what_waits_for_a_dead_channel_is_told_once_and_in_order_whoever_tells(
    ahead_s: float,
) -> None:
    async def story() -> None:
        world = World(machine=MemoryMachine(lambda job: Script(duration_s=100.0)))
        world.engine_settings = replace(world.engine_settings, give_up_s=1500.0)
        slack = Deaf(world.told["slack"], from_s=1200.0)
        async with Daemons(world, slack) as daemons:
            daemons.start("a")
            daemons.start("b", ahead_s)
            daemons.start("c")
            await world.submit(*(f"w{n}" for n in range(6)))
            await until(lambda: len(world.table.worksets) == 6)
            everything = world.table.records.values()
            await until(lambda: not any(r.owed for rows in everything for r in rows), 7200)
            await anyio.sleep(1200)
            assert {ws.state for ws in world.table.worksets.values()} == {State.COMPLETE}
        for name, told in world.told.items():
            repeats = [id for id, n in Counter(r.id for r in told).items() if n > 1]
            assert repeats == [], name
            for id in world.table.worksets:
                assert all(one < two for one, two in pairwise(seqs(told, id))), name

    play(story)


def test_a_well_channel_is_told_at_once_though_another_daemon_still_owes_a_dead_one() -> None:
    async def story() -> None:
        world = World(machine=MemoryMachine(lambda job: Script(duration_s=100.0)))
        slack = Deaf(world.told["slack"], from_s=math.inf)
        async with Daemons(world, slack) as daemons:
            daemons.start("a", full=True)
            await world.submit("w1")
            await until(lambda: "w1" in world.table.worksets)
            daemons.start("b")
            await until(lambda: bool(world.machine.starts))
            await anyio.sleep(5)
            assert seqs(world.told["sns"], "w1") == [1, 2]
            tellers = [r.teller for r in world.table.records[WorksetId("w1")] if "slack" in r.owed]
            assert tellers == ["a", "b"]

    play(story)


ID = WorksetId("w1")
AT = datetime(2026, 1, 1, tzinfo=UTC)


def owing(seq: int, *channels: str, teller: str = "a") -> Record:
    return Record(
        workset_id=ID,
        seq=seq,
        at=AT,
        type=RecordType.STATE_CHANGE,
        state=State.READY,
        message="",
        owed=frozenset(channels),
        teller=teller,
    )


@dataclass
class Slow:
    """A channel that takes ``takes_s`` for each notice, and fails before ``from_s``."""

    takes_s: float = 0.1
    from_s: float = 0.0
    told: list[int] = field(default_factory=list)

    async def deliver(self, record: Record) -> None:
        at = anyio.current_time()
        await anyio.sleep(self.takes_s)
        if at < self.from_s:
            raise Transient("no answer")
        self.told.append(record.seq)


@asynccontextmanager
async def outbox_over(
    *records: Record, made: type[MemoryTrail] = MemoryTrail, **channels: Slow
) -> AsyncIterator[tuple[Outbox, Table]]:
    """Run the outbox of daemon ``a`` over a trail that holds ``records``."""
    table = Table(records={ID: list(records)})
    config = OutboxConfig(owner="a")
    found: dict[str, Any] = dict(channels)
    live = LiveSettings(some_engine_settings(give_up_s=1e6))
    outbox = Outbox(made(table), lambda: found, LoopClock(AT), live, config)
    async with anyio.create_task_group() as tg:
        tg.start_soon(outbox.run)
        await anyio.sleep(1)
        yield outbox, table
        tg.cancel_scope.cancel()


def owed_now(table: Table) -> dict[int, set[str]]:
    return {r.seq: set(r.owed) for r in table.records[ID] if r.owed}


def test_what_is_behind_a_notice_that_another_daemon_has_now_waits_for_it() -> None:
    async def story() -> None:
        mine = owing(1, "slack"), owing(2, "slack")
        slack = Slow(from_s=40.0)
        async with outbox_over(slack=slack) as (outbox, table):
            table.records[ID] = list(mine)
            outbox.take(mine)
            trail = MemoryTrail(table)
            await anyio.sleep(20)
            taken = await trail.take_over(mine[0], "b")
            assert taken is not None
            await anyio.sleep(50)
            assert slack.told == [], "daemon b has the first, and is about to tell it"
            await trail.settle(taken, frozenset({"slack"}))
            await anyio.sleep(60)
            assert slack.told == [2]

    play(story)


def test_a_record_that_does_not_follow_waits_for_what_a_dead_daemon_owed_before_it() -> None:
    async def story() -> None:
        left = owing(1, "sns", "slack", teller="b"), owing(2, "sns", teller="b")
        sns, slack = Slow(), Slow()
        async with outbox_over(*left, sns=sns, slack=slack) as (outbox, table):
            mine = owing(3, "sns", "slack"), owing(4, "sns")
            table.records[ID] += mine
            outbox.take(mine)
            await anyio.sleep(30)
            assert (sns.told, slack.told) == ([], [])
            await anyio.sleep(200)
            assert (sns.told, slack.told) == ([1, 2, 3, 4], [1, 3])
            assert owed_now(table) == {}

    play(story)


def test_what_was_told_is_struck_off_though_the_record_is_another_daemons_by_then() -> None:
    async def story() -> None:
        record = owing(1, "sns", "slack", "mail")
        sns, slack, mail = Slow(takes_s=60.0), Slow(from_s=math.inf), Slow(takes_s=500.0)
        async with outbox_over(sns=sns, slack=slack, mail=mail) as (outbox, table):
            table.records[ID] = [record]
            outbox.take((record,))
            await anyio.sleep(5)
            assert await MemoryTrail(table).take_over(record, "b") is not None
            await anyio.sleep(57)
            assert (sns.told, outbox.waiting) == ([1], 0)
            assert owed_now(table) == {1: {"slack", "mail"}}

    play(story)


def test_a_notice_that_somebody_else_told_is_not_told_again() -> None:
    async def story() -> None:
        record = owing(1, "sns", "slack")
        sns, slack = Slow(from_s=30.0), Slow(from_s=30.0)
        async with outbox_over(sns=sns, slack=slack) as (outbox, table):
            table.records[ID] = [record]
            outbox.take((record,))
            await anyio.sleep(20)
            await MemoryTrail(table).settle(record, frozenset({"slack"}))
            await anyio.sleep(100)
            assert (sns.told, slack.told) == ([1], [])
            assert (owed_now(table), outbox.waiting) == ({}, 0)

    play(story)


class Contested(MemoryTrail):
    """A trail in which another daemon is always a moment earlier, as far as the first record goes."""

    async def take_over(self, record: Record, teller: str) -> Record | None:
        if record.seq == 1:
            await super().take_over(self._now(record), f"d{anyio.current_time():.0f}")
        return await super().take_over(record, teller)


def test_what_was_left_waits_for_an_earlier_notice_that_another_daemon_got_hold_of() -> None:
    async def story() -> None:
        left = owing(1, "slack", teller="c"), owing(2, "slack", teller="c")
        slack = Slow()
        async with outbox_over(*left, made=Contested, slack=slack) as (_, table):
            await anyio.sleep(600)
            assert slack.told == []
            await MemoryTrail(table).settle(left[0], frozenset({"slack"}))
            await anyio.sleep(60)
            assert slack.told == [2]

    play(story)
