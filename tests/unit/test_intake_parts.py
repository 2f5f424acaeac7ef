"""Doorbell, relay, inspector and drive, each alone: patience, what is parked, deleted, or comes again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import Any

import anyio
import pytest
from anyio import current_time

from daylily_daemon.domain.errors import (
    DaemonError,
    Impeded,
    InboxFull,
    Newer,
    Permanent,
    Transient,
)
from daylily_daemon.domain.model import (
    Accepted,
    Answer,
    Command,
    CommandEffect,
    Inspection,
    Plan,
    SetPriority,
    State,
    Submit,
    WorksetId,
)
from daylily_daemon.domain.model import Priority as P
from daylily_daemon.domain.workset import Workset
from daylily_daemon.engine.backlog import Backlog, BeatObserver
from daylily_daemon.engine.doorbell import HIDDEN_S, HOLD_TRIES, Doorbell, Relay, park
from daylily_daemon.engine.health import Health
from daylily_daemon.engine.inspector import BREAKS, Inspector
from daylily_daemon.engine.intake import Intake
from daylily_daemon.engine.wakeup import Wakeup
from daylily_daemon.engine.writer import Applied, Overtaken
from daylily_daemon.ports import Conflict, Delivery, Unreadable
from tests.fakes.store import MemoryTrail
from tests.made import a_workset
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

    async def receive(self) -> Sequence[Delivery]:
        self.received += 1
        if self.received > 1:
            await anyio.sleep_forever()
        return self.batch

    async def settle(self, deliveries: Sequence[Delivery]) -> None:
        self.settled += [delivery.receipt for delivery in deliveries]

    async def keep(self, deliveries: Sequence[Delivery], hidden_s: int) -> None:
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


def test_messages_that_alone_meet_trouble_are_left_to_come_again_once_others_succeed() -> None:
    async def story() -> None:
        written = iter(range(1000))
        nothing = [Transient("no")] * 1000
        others = Bell(a_delivery(a_command()), answers=nothing, written=partial(next, written))
        await others.rings(2000)
        assert (len(others.box.kept), others.box.received) == (HOLD_TRIES - 1, 2)
        alone = Bell(a_delivery(a_command()), answers=nothing, written=lambda: 0)
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


@dataclass
class Looks:
    """Looks at S3 that fail for one workset."""

    error: Exception | None = None
    missed: list[Command] = field(default_factory=list)
    looks: list[float] = field(default_factory=list)

    async def as_it_is(self, command: Command) -> Command:
        if self.error and command.workset_id == "w1":
            raise self.error
        return replace(command, by="looked at")

    async def unannounced(self) -> Sequence[Command]:
        self.looks.append(current_time())
        return self.missed


async def relayed(box: Box, out: Box, looks: Looks, for_s: float = 30.0, **set_to: Any) -> None:
    relay = Relay(intake=box, commands=out, drops=looks, **set_to)
    with anyio.move_on_after(for_s):
        await relay.listen()


def test_events_are_looked_at_passed_on_in_one_batch_and_deleted() -> None:
    async def story() -> None:
        box, out = (
            Box([a_delivery(a_command()), a_delivery(a_command("c2", "w2")), a_delivery()]),
            Box(),
        )
        await relayed(box, out, Looks())
        assert [(c.id, c.by) for c in out.sent] == [("c1", "looked at"), ("c2", "looked at")]
        assert box.settled == ["c1", "c2", "r"]

    play(story)


def test_events_that_cannot_be_passed_on_together_are_passed_on_one_by_one() -> None:
    async def story() -> None:
        box = Box([a_delivery(a_command()), a_delivery(a_command("c2", "w2"))])
        out = Box(send_errors=[Transient("no"), Permanent("too large")])
        await relayed(box, out, Looks())
        assert (box.parked, box.settled) == ([("c1", "too large")], ["c2"])

    play(story)


@pytest.mark.parametrize(
    ("error", "tries", "parked", "hidden"),
    [
        (Permanent("never"), 1, 1, 0),
        (Odd(), 3, 0, 0),
        (Odd(), 4, 1, 0),
        (Transient("no"), 9, 0, 6),
    ],
)
def test_an_event_is_parked_for_what_is_its_own_trouble_and_held_for_ours(
    error: Exception, tries: int, parked: int, hidden: int
) -> None:
    async def story() -> None:
        box = Box([a_delivery(a_command(), tries=tries)])
        await relayed(box, Box(), Looks(error))
        assert (len(box.parked), len(box.kept), box.settled) == (parked, hidden, [])

    play(story)


def test_what_no_event_told_of_is_sent_and_looked_for_again_after_the_pause() -> None:
    async def story() -> None:
        store, out, looks = Store(), Box(), Looks(missed=[a_command()])
        writer = a_writer(store)
        intake = Intake(
            events=Box(),
            commands=out,
            drops=looks,
            trail=MemoryTrail(store.table),
            writer=writer,
            live=writer.live,
            health=Health(Watch()),
            answer_s=5.0,
        )
        with anyio.move_on_after(700):
            async with anyio.create_task_group() as tg:
                intake.start(tg, lambda _: None)
        assert looks.looks == [0.0, 600.0]
        assert [c.id for c in out.sent] == ["c1", "c1"]
        assert out.received == 3, "two doorbells listen, and one of them got a batch"

    play(story)


# The check of an input.


@dataclass
class Checks:
    answers: list[Any]
    asked: int = 0

    async def inspect(self, workset: Workset) -> Inspection:
        self.asked += 1
        match self.answers.pop(0):
            case Exception() as error:
                raise error
            case float() as pause_s:
                await anyio.sleep(pause_s)
        return Accepted(Plan(pipeline="demo", steps=("run",)))


def an_inspector(store: Store, *answers: Any) -> Inspector:
    writer = a_writer(store)
    backlog = Backlog(owner="me", observer=BeatObserver(60.0), index_lag_s=30.0)
    return Inspector(writer=writer, inputs=Checks(list(answers)), backlog=backlog, wakeup=Wakeup())


async def checked(inspector: Inspector, ws: Workset) -> Applied | Overtaken | DaemonError:
    try:
        return await inspector.check(ws)
    except DaemonError as exc:
        return exc


def test_an_input_that_is_good_has_a_plan() -> None:
    async def story() -> None:
        store = Store()
        found = await checked(an_inspector(store, None), store.hold(a_workset("w1")))
        assert isinstance(found, Applied)
        assert found.workset.plan is not None

    play(story)


def test_a_check_takes_so_long_and_no_longer_and_people_see_why_it_waits() -> None:
    async def story() -> None:
        store = Store()
        store.hold(a_workset("w1"))
        inspector = an_inspector(store, 899.0, 901.0)
        assert isinstance(await checked(inspector, store.table.worksets[WorksetId("w1")]), Applied)
        late = store.hold(a_workset("w1"))
        found = await checked(inspector, late)
        assert isinstance(found, Transient)
        assert current_time() == 899.0 + 900.0
        told = "its input could not be checked: The check of its input gave no answer within 900 s."
        assert store.table.worksets[late.id].waiting_for == told

    play(story)


def test_why_an_input_is_not_checked_is_said_once_a_minute_at_most_and_not_twice() -> None:
    async def story() -> None:
        store = Store()
        ws = store.hold(a_workset("w1"))
        inspector = an_inspector(store, *(Transient(f"no {n}") for n in range(8)))
        await anyio.sleep(1)
        for pause_s in (0.0, 30.0, 29.0, 1.0):
            await anyio.sleep(pause_s)
            await checked(inspector, store.table.worksets[ws.id])
        assert [round(at) for at in store.at] == [1, 61]
        assert store.table.worksets[ws.id].waiting_for.endswith("no 3")
        same = store.hold(replace(ws, waiting_for="its input could not be checked: no 4"))
        await anyio.sleep(100)
        await checked(inspector, same)
        assert len(store.at) == 2
        long = store.hold(ws)
        inspector.inputs = Checks([Transient("x" * 500)])
        await checked(inspector, long)
        assert len(store.table.worksets[ws.id].waiting_for) == 300

    play(story)


def test_a_check_that_breaks_five_times_in_a_row_parks_its_workset_with_the_reason() -> None:
    async def story() -> None:
        store = Store()
        ws = store.hold(a_workset("w1"))
        broken = [*[Odd()] * (BREAKS - 1), None, *[Odd()] * BREAKS]
        inspector = an_inspector(store, *broken)
        for _ in range(2 * BREAKS):
            store.hold(ws)
            await checked(inspector, ws)
        assert store.table.worksets[ws.id].state is State.READY, "a good one starts the count anew"
        store.hold(ws)
        found = await checked(inspector, ws)
        assert isinstance(found, Applied)
        assert found.workset.state is State.ERROR
        assert found.workset.error_details == (
            "w1: The check of this input broke 5 times in a row, for a reason nobody foresaw. "
            "Report it with the daemon's log (event unexpected); after an upgrade retry the workset."
        )

    play(story)


def test_trouble_of_ours_never_parks_an_input() -> None:
    async def story() -> None:
        store = Store()
        ws = store.hold(a_workset("w1"))
        inspector = an_inspector(store, *[Transient("no")] * 20)
        for _ in range(20):
            assert isinstance(await checked(inspector, ws), Transient)

    play(story)


def test_a_check_that_was_overtaken_learns_what_is_there() -> None:
    async def story() -> None:
        store = Store(answers=[Conflict(None)])
        inspector = an_inspector(store, None)
        assert await checked(inspector, a_workset("w1")) == Overtaken(None)

    play(story)
