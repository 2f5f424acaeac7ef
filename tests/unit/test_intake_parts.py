"""Doorbell, relay, inspector and drive, each alone: patience, what is parked, deleted, or comes again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import Any

import anyio
import pytest
from anyio import current_time

from daylily_daemon.domain.errors import (
    Impeded,
    InboxFull,
    Newer,
    Permanent,
    Transient,
)
from daylily_daemon.domain.model import (
    Answer,
    Command,
    CommandEffect,
    SetPriority,
    Submit,
    WorksetId,
)
from daylily_daemon.domain.model import Priority as P
from daylily_daemon.domain.workset import Workset
from daylily_daemon.engine import ahead
from daylily_daemon.engine.ahead import HIDDEN_S
from daylily_daemon.engine.doorbell import HOLD_TRIES, Doorbell, park
from daylily_daemon.ports import Conflict, Delivery, Unreadable
from tests.fakes.store import MemoryTrail
from tests.made import a_workset
from tests.sim.planting import put
from tests.unit.daemons import play
from tests.unit.test_engine_parts import Odd, Store, Watch, a_writer, silence

__all__ = ["silence"]


def a_command(id: str = "c1", workset: str = "w1", **ask: Any) -> Command:
    what = Submit(bucket="b", prefix=f"p/{workset}/") if not ask else SetPriority(**ask)
    return Command(id=id, workset_id=WorksetId(workset), by="me", ask=what)


def a_delivery(*commands: Command, tries: int = 1, receipt: str = "") -> Delivery:
    name = receipt or (commands[0].id if commands else "r")
    return Delivery(content=commands, receipt=name, tries=tries)


@dataclass
class Box:
    """A mailbox that gives one batch, then nothing, and remembers what was done with it."""

    batch: Sequence[Delivery] = ()
    sent: list[Command] = field(default_factory=list)
    send_errors: list[Exception] = field(default_factory=list)
    park_error: Exception | None = None
    keep_error: Exception | None = None
    settled: list[str] = field(default_factory=list)
    parked: list[tuple[str, str]] = field(default_factory=list)
    kept: list[tuple[float, int]] = field(default_factory=list)
    received: int = 0
    slow_s: float = 0.0
    """How long it takes to delete and to hide."""

    async def receive(self) -> Sequence[Delivery]:
        self.received += 1
        if self.received > 1:
            await anyio.sleep_forever()
        return self.batch

    async def settle(self, deliveries: Sequence[Delivery]) -> None:
        await anyio.sleep(self.slow_s)
        self.settled += [delivery.receipt for delivery in deliveries]

    async def keep(self, deliveries: Sequence[Delivery], hidden_s: int) -> None:
        await anyio.sleep(self.slow_s)
        self.kept.append((current_time(), hidden_s))
        if self.keep_error:
            raise self.keep_error

    async def park(self, delivery: Delivery, reason: str) -> None:
        if self.park_error:
            raise self.park_error
        self.parked.append((delivery.receipt, reason))

    async def send(self, commands: Sequence[Command]) -> None:
        if self.send_errors:
            raise self.send_errors.pop(0)
        self.sent += commands


class Bell:
    """A doorbell over a store and a box."""

    def __init__(self, *batch: Delivery, answers: Sequence[Any] = (), **set_to: Any) -> None:
        self.store, self.box = Store(answers=list(answers)), Box(batch)
        self.stored: list[Workset] = []
        self.trail = MemoryTrail(self.store.table)
        self.doorbell = Doorbell(
            mailbox=self.box,
            trail=self.trail,
            writer=a_writer(self.store),
            on_workset=self.stored.append,
            **{"answer_s": 10.0, **set_to},
        )

    async def rings(self, for_s: float = 60.0) -> Bell:
        with anyio.move_on_after(for_s):
            await self.doorbell.listen()
        return self


def test_what_is_answered_is_told_on_and_deleted() -> None:
    async def story() -> None:
        bell = await Bell(a_delivery(a_command()), a_delivery()).rings()
        assert sorted(bell.box.settled) == ["c1", "r"], "a message that asks for nothing too"
        assert [ws.id for ws in bell.stored] == ["w1"]

    play(story)


def test_a_command_for_nobody_has_an_answer() -> None:
    async def story() -> None:
        bell = await Bell(a_delivery(a_command(priority=P.LOW))).rings()
        assert bell.box.settled == ["c1"]
        answer = await bell.trail.answer_to(WorksetId("w1"), "c1")
        assert answer == Answer(
            command_id="c1",
            effect=CommandEffect.NONE,
            text="There is no workset w1; submit it first.",
            at=Watch().now(),
        )
        assert bell.stored == []

    play(story)


@pytest.mark.parametrize("answers", [[Transient("no"), Transient("no")], [Impeded("no")]])
def test_a_command_without_an_answer_is_tried_again_at_once(answers: list[Any]) -> None:
    async def story() -> None:
        bell = await Bell(a_delivery(a_command()), answers=answers).rings()
        assert bell.box.settled == ["c1"]
        assert bell.store.at == [float(n) for n in range(len(answers) + 1)]
        assert bell.box.kept == []

    play(story)


def test_messages_in_hand_are_hidden_and_tried_again_with_longer_pauses() -> None:
    async def story() -> None:
        bell = await Bell(a_delivery(a_command()), answers=[Transient("no")] * 21).rings(600)
        assert bell.box.settled == ["c1"]
        assert [hidden for _, hidden in bell.box.kept] == [HIDDEN_S] * 4
        at = [round(when) for when, _ in bell.box.kept]
        assert at == [4, 9, 15, 23], "five tries a second apart, then pauses of 1, 2, 4, 8 s"
        assert bell.box.received == 2

    play(story)


def test_messages_that_cannot_be_hidden_are_kept_in_hand_all_the_same() -> None:
    async def story() -> None:
        bell = Bell(a_delivery(a_command()), answers=[Transient("no")] * 7)
        bell.box.keep_error = Odd()
        assert (await bell.rings()).box.settled == ["c1"]

    play(story)


def test_who_ends_with_messages_in_hand_gives_them_back() -> None:
    async def story() -> None:
        bell = await Bell(a_delivery(a_command()), answers=[Transient("no")] * 50).rings(4.5)
        assert [hidden for _, hidden in bell.box.kept] == [HIDDEN_S, 0]

    play(story)


@pytest.mark.parametrize(
    ("slow_s", "ends_at", "given_back"), [(0.9, 5.65, True), (9.0, 5.75, False)]
)
def test_giving_messages_back_takes_a_second_at_most(
    slow_s: float, ends_at: float, given_back: bool
) -> None:
    async def story() -> None:
        bell = Bell(a_delivery(a_command()), answers=[Transient("no")] * 50)
        with anyio.move_on_after(4.7):
            async with anyio.create_task_group() as tg:
                tg.start_soon(bell.doorbell.listen)
                await anyio.sleep(4.6)
                bell.box.slow_s = slow_s
        assert (0 in [hidden for _, hidden in bell.box.kept]) is given_back
        assert current_time() <= ends_at

    play(story)


def test_who_ends_in_the_middle_of_an_answer_deletes_what_is_answered() -> None:
    async def story() -> None:
        bell = await Bell(a_delivery(a_command()), answers=[2.0]).rings(1.0)
        assert bell.box.settled == ["c1"]
        assert current_time() == 2.0

    play(story)


def test_deleting_that_never_ends_holds_nobody_up() -> None:
    async def story() -> None:
        bell = Bell(a_delivery(a_command()))
        bell.box.slow_s = 1e9
        await bell.rings(5.0)
        assert (bell.box.received, bell.box.settled) == (2, []), "after its share of the time"

    play(story)


def test_a_command_that_was_overtaken_is_decided_anew_on_what_is_there() -> None:
    async def story() -> None:
        bell = Bell(a_delivery(a_command(priority=P.LOW)))
        there = bell.store.hold(a_workset("w1", priority=P.URGENT))
        commit = bell.store.commit
        conflicts = [Conflict(there)]

        async def overtaken(change: Any) -> Workset:
            stored = commit(change) if not conflicts else None
            bell.store.changes += [] if stored else [change]
            if stored is None:
                raise conflicts.pop()
            return await stored

        bell.store.commit = overtaken  # type: ignore[method-assign]
        await bell.rings()
        assert bell.stored[0].priority is P.LOW
        assert len(bell.store.changes) == 2

    play(story)


def test_messages_that_alone_meet_trouble_are_left_to_come_again_once_others_succeed() -> None:
    async def story() -> None:
        written = iter(range(1000))
        nothing = [Transient("no")] * 1000
        others = Bell(a_delivery(a_command()), answers=nothing, written=partial(next, written))
        with put((ahead, "HANDS", 1)):
            await others.rings(2000)
        assert (len(others.box.kept), others.box.received) == (HOLD_TRIES - 1, 2)
        alone = Bell(a_delivery(a_command()), answers=nothing, written=lambda: 0)
        with put((ahead, "HANDS", 1)):
            await alone.rings(2000)
        assert len(alone.box.kept) > HOLD_TRIES
        assert alone.box.received == 1
        pauses = [round(b - a) for (a, _), (b, _) in pairwise(alone.box.kept)]
        assert pauses[:7] == [5, 6, 8, 12, 20, 34, 34], "never more than half a minute"

    play(story)


@pytest.mark.parametrize(
    ("error", "tries", "fate"),
    [
        (Permanent("never"), 1, "parked: never"),
        (Odd("x"), 3, "comes again"),
        (Odd("x"), 4, "parked: a command met something nobody foresaw (Odd: x)."),
        (Newer("newer"), 9, "comes again"),
    ],
)
def test_a_message_is_parked_for_what_is_its_own_trouble_and_no_other(
    error: Exception, tries: int, fate: str
) -> None:
    async def story() -> None:
        one = a_delivery(a_command(), tries=tries)
        bell = await Bell(one, a_delivery(a_command("c2", "w1")), answers=[error] * 5).rings()
        if fate == "comes again":
            assert (bell.box.parked, bell.box.settled, bell.box.kept) == ([], [], [])
        else:
            assert bell.box.parked[0][0] == "c1"
            assert bell.box.parked[0][1].startswith(fate.removeprefix("parked: "))

    play(story)


class Full(Store):
    """A store of a workset whose inbox is full."""

    async def commit(self, change: Any) -> Workset:
        raise InboxFull("w1 has 20 commands waiting.")


@pytest.mark.parametrize(("tries", "settled"), [(3, []), (4, ["c1", "c2"])])
def test_who_finds_the_inbox_full_again_and_again_is_refused_with_an_answer(
    tries: int, settled: list[str]
) -> None:
    async def story() -> None:
        batch = [a_delivery(a_command(id, priority=P.LOW), tries=tries) for id in ("c1", "c2")]
        bell = Bell(*batch)
        full = Full(bell.store.table)
        full.hold(a_workset("w1"))
        bell.doorbell = replace(bell.doorbell, writer=a_writer(full))
        await bell.rings()
        assert bell.box.settled == settled
        answer = await bell.trail.answer_to(WorksetId("w1"), "c1")
        assert (answer is not None) is bool(settled)
        if answer:
            assert answer.effect is CommandEffect.REFUSED
            assert answer.text == "w1 has 20 commands waiting."

    play(story)


def test_what_is_behind_a_command_without_an_answer_does_not_overtake_it() -> None:
    async def story() -> None:
        batch = [a_delivery(a_command("c1")), a_delivery(a_command("c2", priority=P.LOW))]
        bell = await Bell(*batch, answers=[Odd()]).rings()
        assert (bell.box.settled, len(bell.store.changes)) == ([], 1)

    play(story)


def test_what_has_no_answer_in_its_share_of_the_time_is_cut_off_and_the_rest_deleted() -> None:
    async def story() -> None:
        bell = Bell(a_delivery(a_command()), answers=[4.9, 4.9, 4.9], answer_s=10.0)
        hung = a_delivery(a_command("c2", "w2", priority=P.LOW))
        bell.box.batch = [*bell.box.batch, hung]
        waits = bell.store.load

        async def load(id: WorksetId) -> Workset | None:
            if id == "w2":
                await anyio.sleep_forever()
            return await waits(id)

        bell.store.load = load  # type: ignore[method-assign]
        await bell.rings(9.0)
        assert bell.box.settled == ["c1"]
        assert bell.box.received == 2

    play(story)


def test_a_message_nobody_can_read_is_parked_and_stops_no_other() -> None:
    async def story() -> None:
        odd = Delivery(content=Unreadable("nonsense"), receipt="x")
        bell = await Bell(odd, a_delivery(a_command())).rings()
        assert (bell.box.parked, bell.box.settled) == ([("x", "nonsense")], ["c1"])
        assert await park(Box(park_error=Odd()), odd, "why") is False
        assert await park(Box(), odd, "why") is True

    play(story)


def test_a_workset_whose_item_was_removed_goes_on_with_its_numbers() -> None:
    async def story() -> None:
        bell = await Bell(a_delivery(a_command())).rings()
        del bell.store.table.worksets[WorksetId("w1")]
        again = Bell(a_delivery(a_command("c2")))
        again.store.table = bell.store.table
        again.doorbell = replace(
            again.doorbell, writer=a_writer(again.store), trail=MemoryTrail(bell.store.table)
        )
        await again.rings()
        assert again.stored[0].last_seq == 2
        assert [r.seq for r in bell.store.table.records[WorksetId("w1")]] == [1, 2]

    play(story)


def test_batches_are_taken_side_by_side_so_that_trouble_of_one_keeps_no_other() -> None:
    async def story() -> None:
        box = Boxes([a_delivery(a_command(f"c{n}", f"w{n}"))] for n in range(9))
        bell = Bell(answers=[Transient("no")] * 10_000)
        listening = replace(bell.doorbell, mailbox=box)
        with anyio.move_on_after(100):
            await listening.listen()
        assert box.received == ahead.HANDS, "no more than can be in hand"

    play(story)


class Boxes(Box):
    """A batch for every receive."""

    def __init__(self, batches: Iterable[list[Delivery]]) -> None:
        super().__init__()
        self.batches = list(batches)

    async def receive(self) -> Sequence[Delivery]:
        if not self.batches:
            await anyio.sleep_forever()
        self.received += 1
        batch: list[Delivery] = self.batches.pop()
        return batch


@pytest.mark.parametrize(("succeeds", "given_back"), [(False, True), (True, False)])
def test_others_have_what_waits_only_where_nothing_succeeds_for_long(
    succeeds: bool, given_back: bool
) -> None:
    async def story() -> None:
        good = [[a_delivery(a_command(f"g{n}", f"good{n}"))] for n in range(4)]
        bad = [[a_delivery(a_command(f"b{n}", f"bad{n}"))] for n in range(9)]
        box, count = Boxes([*bad, *good]), iter(range(10_000))
        bell = Bell(written=partial(next, count) if succeeds else int)
        commit = bell.store.commit

        async def without_bad(change: Any) -> Workset:
            if change.after.id.startswith("bad"):
                raise Transient("no")
            return await commit(change)

        bell.store.commit = without_bad  # type: ignore[method-assign]
        with anyio.move_on_after(60):
            await replace(bell.doorbell, mailbox=box).listen()
        back = [hidden for at, hidden in box.kept if at < 60 and not hidden]
        assert bool(back) is given_back
        assert sorted(box.settled) == ["g0", "g1", "g2", "g3"]

    play(story)
