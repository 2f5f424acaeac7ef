"""A queue that is read ahead: the last is not looked at last, and others have what is of no use here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import inf

import anyio
from anyio import current_time

from daylily_daemon.domain.errors import Transient
from daylily_daemon.engine.ahead import AHEAD, HANDS, HIDDEN_S, KEPT_AFTER_S, READERS, Ahead, Hand
from daylily_daemon.engine.flood import Flood
from daylily_daemon.ports import Delivery
from tests.unit.daemons import play
from tests.unit.test_engine_parts import silence
from tests.unit.test_intake_parts import Box

__all__ = ["silence"]


@dataclass
class Stream(Box):
    """A queue of ``left`` batches of one message, numbered in their order."""

    left: int = 0
    asked: int = 0
    at_once: int = 0
    most_at_once: int = 0
    hidden: list[tuple[str, int]] = field(default_factory=list)

    async def receive(self) -> Sequence[Delivery]:
        self.asked += 1
        number = self.asked
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await (anyio.sleep(0.01) if number <= self.left else anyio.sleep_forever())
        self.at_once -= 1
        self.received += 1
        return [Delivery(content=(), receipt=str(number), tries=1)]

    async def keep(self, deliveries: Sequence[Delivery], hidden_s: int) -> None:
        self.hidden += [(delivery.receipt, hidden_s) for delivery in deliveries]


async def taken(box: Stream, take: Callable[[Hand], object], for_s: float, each_s: float) -> None:
    async def work(hand: Hand) -> None:
        await anyio.sleep(each_s)
        take(hand)

    with anyio.move_on_after(for_s):
        await Ahead(box, Flood()).listen("a queue", work, 1.0)


def test_the_newest_and_the_oldest_are_taken_in_turn() -> None:
    async def story() -> None:
        box, order = Stream(left=40), list[int]()
        await taken(box, lambda hand: order.append(int(hand.deliveries[0].receipt)), 60, 1.0)
        assert sorted(order) == [*range(1, 41)], "each of them once"
        left = sorted(set(range(1, 41)) - {*order[: 2 * HANDS]})
        assert order[2 * HANDS : 2 * HANDS + 4] == [left[-1], left[0], left[-2], left[1]]
        assert box.most_at_once <= READERS

    play(story)


def test_nothing_is_read_ahead_before_something_found_its_answer() -> None:
    async def story() -> None:
        box = Stream(left=10_000)
        await taken(box, id, 9.5, 10.0)
        assert box.received == HANDS
        await taken(box, id, 19.5, 10.0)
        assert AHEAD <= box.received - HANDS < AHEAD + HANDS + READERS

    play(story)


def test_what_waits_is_kept_hidden_and_given_back_at_the_end() -> None:
    async def story() -> None:
        box = Stream(left=3 * HANDS)
        await taken(box, id, 17 + KEPT_AFTER_S + 3, 17.0)
        kept, back = box.hidden[:HANDS], box.hidden[HANDS:]
        assert {hidden for _, hidden in kept} == {HIDDEN_S}
        assert {hidden for _, hidden in back} == {0}
        assert {name for name, _ in kept} == {name for name, _ in back}

    play(story)


def test_with_trouble_others_have_what_waits_and_no_more_is_read() -> None:
    async def story() -> None:
        box, calls = Stream(left=10_000), list[float]()

        async def take(hand: Hand) -> None:
            calls.append(current_time())
            await anyio.sleep(1.0)
            if current_time() > 3:
                hand.ahead.hold()
                await hand.ahead.give_back()
                await anyio.sleep_forever()

        with anyio.move_on_after(60):
            await Ahead(box, Flood()).listen("a queue", take, 1.0)
        assert {hidden for _, hidden in box.hidden} == {0}
        assert len(box.hidden) == box.received - len(calls), "what is in hand stays in hand"
        assert box.received < AHEAD + 3 * HANDS

    play(story)


def test_what_can_wait_gives_way_to_a_flood_for_a_bounded_time() -> None:
    async def story() -> None:
        flood, passed = Flood(), list[float]()

        async def wait(until: float) -> None:
            await flood.give_way(until)
            passed.append(current_time())

        await wait(inf)
        flood.rise()
        flood.rise()
        async with anyio.create_task_group() as tg:
            for until in (inf, 5.0, 20.0, -inf):
                tg.start_soon(partial(wait, until))
            await anyio.sleep(9.0)
            flood.fall()
            await anyio.sleep(1.0)
            flood.fall()
        assert passed == [0.0, 0.0, 5.0, 10.0, 10.0]

    play(story)


def test_trouble_of_one_batch_ends_no_hand() -> None:
    async def story() -> None:
        box, seen = Stream(left=20), list[str]()

        def break_once(hand: Hand) -> None:
            seen.append(hand.deliveries[0].receipt)
            if len(seen) <= HANDS:
                raise Transient("no")

        await taken(box, break_once, 60, 1.0)
        assert len(seen) == 20

    play(story)
