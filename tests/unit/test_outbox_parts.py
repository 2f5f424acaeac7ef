"""One outbox over a trail that counts: what is asked, what is told, struck off and given up, and when."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import anyio
import pytest
from anyio import current_time

from daylily_daemon.domain.errors import Permanent, Transient
from daylily_daemon.domain.model import Record, WorksetId
from daylily_daemon.engine.live_settings import LiveSettings
from daylily_daemon.engine.outbox import Outbox, OutboxConfig
from daylily_daemon.ports import OwedPage
from tests.fakes.store import LoopClock, MemoryTrail, Table
from tests.unit.daemons import play
from tests.unit.engine_settings import some_engine_settings
from tests.unit.test_engine_parts import Odd, silence
from tests.unit.test_outbox import AT, ID, owed_now, owing

__all__ = ["silence"]


class Counting(MemoryTrail):
    """Pages of two, every call counted, and failing as long as it is told to."""

    def __init__(self, table: Table) -> None:
        super().__init__(table)
        self.calls: Counter[str] = Counter()
        self.failing: set[str] = set()

    def _call(self, name: str) -> None:
        self.calls[name] += 1
        if name in self.failing:
            raise Transient("no answer")

    async def read(self, id: WorksetId, *, after: int = 0, limit: int = 1000) -> Sequence[Record]:
        self._call("read")
        return await super().read(id, after=after, limit=2)

    async def owed(self, *, after: Any = None, limit: int = 100) -> OwedPage:
        self._call("owed")
        return await super().owed(after=after, limit=2)

    async def settle(self, *args: Any) -> Record:
        self._call("settle")
        return await super().settle(*args)

    async def take_over(self, record: Record, teller: str) -> Record | None:
        self._call("take_over")
        return await super().take_over(record, teller)


class Channel:
    """Takes ``takes_s`` for a notice; answers as it is told, then takes everything."""

    def __init__(self, *answers: Exception, takes_s: float = 0.0) -> None:
        self.answers, self.takes_s = list(answers), takes_s
        self.told: list[int] = []
        self.at: list[float] = []
        self.now = self.most = 0

    async def deliver(self, record: Record) -> None:
        self.at.append(round(current_time(), 2))
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await anyio.sleep(self.takes_s)
        finally:
            self.now -= 1
        if self.answers:
            raise self.answers.pop(0)
        self.told.append(record.seq)


class Stage:
    def __init__(self, outbox: Outbox, trail: Counting, table: Table) -> None:
        self.outbox, self.trail, self.table = outbox, trail, table

    def write(self, *records: Record) -> None:
        """Store records of ours and hand them over, as the writer does."""
        for record in records:
            self.table.records.setdefault(record.workset_id, []).append(record)
        self.outbox.take(records)

    def given_up(self) -> set[str]:
        return {name for rows in self.table.records.values() for r in rows for name in r.given_up}


@asynccontextmanager
async def stage(
    *left: Record, give_up_s: float = 1e6, begin_s: float = 100.0, **channels: Channel
) -> AsyncIterator[Stage]:
    """Run the outbox of daemon ``a`` from some time on, over a trail that holds ``left``."""
    await anyio.sleep(begin_s)
    table = Table(records={ID: list(left)})
    trail, live = Counting(table), LiveSettings(some_engine_settings(give_up_s=give_up_s))
    found: dict[str, Any] = dict(channels)
    clock = LoopClock(AT - timedelta(seconds=begin_s))
    outbox = Outbox(trail, lambda: found, clock, live, OutboxConfig(owner="a"))
    async with anyio.create_task_group() as tg:
        tg.start_soon(outbox.run)
        await anyio.lowlevel.checkpoint()
        yield Stage(outbox, trail, table)
        tg.cancel_scope.cancel()


def test_what_follows_what_we_wrote_is_told_without_a_look_at_the_trail() -> None:
    async def story() -> None:
        sns = Channel()
        async with stage(sns=sns) as on:
            on.write(owing(1, "sns"))
            on.write(owing(2, "sns"), owing(3, "sns"))
            await on.outbox.drained()
            assert (sns.told, owed_now(on.table), on.outbox.waiting) == ([1, 2, 3], {}, 0)
            assert (on.trail.calls["read"], on.trail.calls["take_over"]) == (0, 0)
            on.write(owing(5, "sns"))
            await anyio.sleep(1)
            assert on.trail.calls["read"] > 0, (
                "somebody else wrote the fourth, or an answer got lost"
            )

    play(story)


def test_what_owes_nothing_is_never_in_hand() -> None:
    async def story() -> None:
        async with stage(sns=Channel()) as on:
            on.write(owing(1), owing(2))
            assert on.outbox.waiting == 0
            with anyio.fail_after(1):
                await on.outbox.drained()

    play(story)


def test_a_notice_is_in_hand_until_it_is_struck_off_on_every_channel() -> None:
    async def story() -> None:
        sns, slack = Channel(takes_s=1.0), Channel(takes_s=9.0)
        async with stage(sns=sns, slack=slack) as on:
            on.write(owing(1, "sns", "slack"))
            await anyio.sleep(5)
            assert (on.outbox.waiting, owed_now(on.table)) == (1, {1: {"slack"}}), (
                "told ones are struck off"
            )
            await anyio.sleep(5)
            assert (on.outbox.waiting, owed_now(on.table)) == (0, {})
            assert on.given_up() == set()

    play(story)


def test_a_channel_that_is_no_longer_configured_or_refuses_is_given_up_and_the_other_is_told() -> (
    None
):
    async def story() -> None:
        sns, mail = Channel(), Channel(Permanent("no such address"))
        async with stage(sns=sns, mail=mail) as on:
            on.write(owing(1, "sns", "mail", "gone"))
            await on.outbox.drained()
            assert (sns.told, on.given_up(), owed_now(on.table)) == ([1], {"mail", "gone"}, {})

    play(story)


def test_a_notice_too_old_is_given_up_after_a_try_and_no_sooner() -> None:
    async def story() -> None:
        sns = Channel(*[Transient("no")] * 100)
        async with stage(give_up_s=50.0, sns=sns) as on:
            on.write(owing(1, "sns"))
            await on.outbox.drained()
            assert on.given_up() == {"sns"}
            assert [at - 100 for at in sns.at] == [0, 1, 3, 7, 15, 31, 63], "pauses double"

    play(story)


@pytest.mark.parametrize(("asked_s", "pause_s"), [(30.0, 30.0), (0.5, 1.0), (1e9, 3600.0)])
def test_a_receiver_may_ask_for_patience_within_an_hour(asked_s: float, pause_s: float) -> None:
    async def story() -> None:
        sns = Channel(Transient("later", retry_after_s=asked_s))
        async with stage(sns=sns) as on:
            on.write(owing(1, "sns"))
            await on.outbox.drained()
            assert sns.at[1] - sns.at[0] == pause_s

    play(story)


def test_a_pause_is_never_longer_than_five_minutes() -> None:
    async def story() -> None:
        sns = Channel(*[Transient("no")] * 12)
        async with stage(sns=sns) as on:
            on.write(owing(1, "sns"))
            await on.outbox.drained()
            assert sns.at[-1] - sns.at[-2] == 300.0

    play(story)


def test_as_many_are_told_at_once_on_a_channel_as_may_be_and_one_of_a_workset() -> None:
    async def story() -> None:
        sns = Channel(takes_s=10.0)
        async with stage(sns=sns) as on:
            for n in range(20):
                on.write(replace(owing(1, "sns"), workset_id=WorksetId(f"v{n}")))
            await on.outbox.drained()
            assert (sns.most, len(sns.told)) == (8, 20)
        one = Channel(takes_s=1.0)
        async with stage(sns=one) as on:
            on.write(*(owing(n, "sns") for n in range(1, 5)))
            await on.outbox.drained()
            assert (one.most, one.told) == (1, [1, 2, 3, 4])

    play(story)


def test_after_a_while_it_is_asked_whether_a_notice_is_still_ours() -> None:
    async def story() -> None:
        sns = Channel(*[Transient("no")] * 4)
        async with stage(sns=sns) as on:
            on.write(owing(1, "sns"))
            await on.outbox.drained()
            assert sns.at == [100.0, 101.0, 103.0, 107.0, 115.0]
            assert on.trail.calls["take_over"] == 1, "at 115 s; before, it was ours for sure"

    play(story)


def test_while_nobody_can_say_whose_it_is_a_notice_is_neither_told_nor_given_up() -> None:
    async def story() -> None:
        sns = Channel(*[Transient("no")] * 4)
        async with stage(give_up_s=20.0, sns=sns) as on:
            on.write(owing(1, "sns"))
            await anyio.sleep(10)
            on.trail.failing = {"take_over"}
            await anyio.sleep(300)
            assert (len(sns.at), on.given_up(), owed_now(on.table)) == (4, set(), {1: {"sns"}})
            on.trail.failing = set()
            await on.outbox.drained()
            assert sns.told == [1]

    play(story)


def test_what_another_daemon_left_is_told_once_it_stood_still_and_nobody_is_asked_twice() -> None:
    async def story() -> None:
        sns = Channel()
        left = [owing(n, "sns", teller="dead") for n in range(1, 6)]
        async with stage(*left, sns=sns) as on:
            await anyio.sleep(59)
            assert sns.told == []
            await anyio.sleep(5 * 60 + 10)
            assert (sns.told, owed_now(on.table)) == ([1, 2, 3, 4, 5], {})
            assert on.trail.calls["take_over"] == 5

    play(story)


def test_what_we_left_ourselves_is_told_at_once_and_asked_about_before() -> None:
    async def story() -> None:
        sns = Channel()
        async with stage(owing(1, "sns"), owing(2, "sns"), owing(3, "sns"), sns=sns) as on:
            await anyio.sleep(1)
            assert sns.told == [1, 2, 3]
            assert on.trail.calls["take_over"] == 6

    play(story)


def test_what_a_living_daemon_goes_on_with_is_left_to_it() -> None:
    async def story() -> None:
        sns = Channel()
        left = owing(1, "sns", "slack", teller="b")
        async with stage(left, owing(2, "sns", teller="b"), sns=sns, slack=Channel()) as on:
            await anyio.sleep(30)
            for _ in range(8):
                now = on.table.records[ID][0]
                on.table.records[ID][0] = replace(now, owed=now.owed ^ {"slack"})
                await anyio.sleep(60)
            assert sns.told == []
            await anyio.sleep(400)
            assert sns.told == [1, 2]

    play(story)


def test_a_trail_that_does_not_answer_costs_a_pause_and_no_notice() -> None:
    async def story() -> None:
        sns = Channel()
        async with stage(owing(1, "sns", teller="dead"), sns=sns) as on:
            on.trail.failing = {"owed", "read", "settle"}
            on.write(owing(2, "sns"))
            await anyio.sleep(300)
            assert sns.told == []
            on.trail.failing = {"settle"}
            await anyio.sleep(300)
            assert sns.told == [1, 2]
            assert owed_now(on.table) == {1: {"sns"}, 2: {"sns"}}
            on.trail.failing = set()
            await anyio.sleep(60)
            assert (owed_now(on.table), sns.told) == ({}, [1, 2]), "told once, struck off later"

    play(story)


def test_a_channel_that_breaks_is_tried_again_like_one_that_is_down() -> None:
    async def story() -> None:
        sns = Channel(Odd("a bug"))
        async with stage(sns=sns) as on:
            on.write(owing(1, "sns"), owing(2, "sns"))
            await on.outbox.drained()
            assert sns.told == [1, 2]

    play(story)


def test_records_come_only_while_it_runs() -> None:
    outbox = Outbox(
        MemoryTrail(Table()),
        dict,
        LoopClock(AT),
        LiveSettings(some_engine_settings()),
        OutboxConfig(owner="a"),
    )

    async def story() -> None:
        with pytest.raises(RuntimeError, match="does not run yet"):
            outbox.take((owing(1, "sns"),))

    play(story)
