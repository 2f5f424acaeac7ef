"""Parts of the engine, each alone: what it makes of trouble, of time, and of a store that says no."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import anyio
import pytest
from anyio import current_time, sleep

from daylily_daemon.domain.daemon import Port
from daylily_daemon.domain.errors import Impeded, Permanent, Transient, Unexpected, leaf
from daylily_daemon.domain.events import Asked, Claimed, Commanded, InputNotChecked, Noted
from daylily_daemon.domain.model import Cancel, Command, Record, State, Submit, WorksetId
from daylily_daemon.domain.remarks import Remarks
from daylily_daemon.domain.routing import Filter, Routing
from daylily_daemon.domain.workset import Workset
from daylily_daemon.engine.boundary import aside, for_ever, foreign_as_unexpected
from daylily_daemon.engine.health import FORGIVEN, TEXT_LIMIT, Health, guarded
from daylily_daemon.engine.live_settings import LiveSettings
from daylily_daemon.engine.remarks import remark, say_trouble
from daylily_daemon.engine.wakeup import Wakeup
from daylily_daemon.engine.writer import Applied, Holder, Overtaken, Writer
from daylily_daemon.ports import Change, Conflict, Worksets
from tests.fakes.store import Counter, MemoryWorksets, Table
from tests.made import NOW, a_workset, asked, running
from tests.sim.hunt import quietly
from tests.unit.daemons import play
from tests.unit.engine_settings import some_engine_settings


@pytest.fixture(autouse=True)
def silence() -> Iterator[None]:
    """Nobody reads these logs, and drawing a traceback takes seconds."""
    with quietly():
        yield


@dataclass
class Watch:
    """A clock that stands until somebody moves it."""

    at: datetime = NOW

    def now(self) -> datetime:
        return self.at


# What leaves a boundary.


class Odd(Exception):
    """Of somebody else's code."""


def test_the_first_leaf_of_nested_groups_is_what_is_told() -> None:
    first = Odd("first")
    assert leaf(ExceptionGroup("a", [ExceptionGroup("b", [first, Odd()]), Odd()])) is first
    assert leaf(first) is first


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (Permanent("no"), Permanent, "no"),
        (ExceptionGroup("g", [Permanent("one"), Permanent("two")]), Permanent, "one"),
        (
            Odd("x" * 300),
            Unexpected,
            f"it met something nobody foresaw (Odd: {'x' * 200}). It will",
        ),
        (ExceptionGroup("g", [Permanent("one"), Odd("two")]), Unexpected, "(Odd: two)"),
        (ExceptionGroup("g", [Odd("two")]), Unexpected, "(Odd: two)"),
    ],
)
def test_only_our_own_errors_leave_a_boundary(error: Exception, kind: type, told: str) -> None:
    with pytest.raises(kind) as left, foreign_as_unexpected("it"):
        raise error
    assert type(left.value) is kind
    assert str(left.value).startswith(told) or told in str(left.value)


def test_what_is_told_on_the_side_disturbs_nobody() -> None:
    with aside("telling"):
        raise Odd


def test_work_that_fails_is_done_again_after_the_pause_or_the_longer_one_asked_for() -> None:
    times: list[float] = []
    errors = iter(
        [
            Odd(),
            Permanent("no"),
            Transient("later", retry_after_s=30.0),
            Transient("much later", retry_after_s=600.0),
            Transient("soon", retry_after_s=1.0),
        ]
    )

    async def work() -> None:
        times.append(current_time())
        if (error := next(errors, None)) is not None:
            raise error
        await anyio.sleep_forever()

    async def story() -> None:
        with anyio.move_on_after(500):
            await for_ever("the work", work, 5.0)

    play(story)
    assert [round(b - a) for a, b in pairwise(times)] == [5, 5, 30, 60, 5]


# What a port could last do.


def test_a_port_is_as_well_as_the_worst_of_its_calls() -> None:
    watch = Watch()
    health = Health(watch)
    health.good("store", "load")
    health.bad("store", "commit", Impeded("x" * 600))
    watch.at += timedelta(seconds=10)
    health.bad("store", "commit", Transient("again"))
    health.bad("store", "page", Transient("later"))
    health.good("queue", "send")
    assert health.ports == {
        "queue": Port(good_at=watch.at),
        "store": Port(
            good_at=NOW,
            failing_since=NOW,
            failed_at=watch.at,
            failures=2,
            code="transient",
            text="again",
        ),
    }
    health.good("store", "commit")
    assert health.ports["store"].text == "later"
    assert health.ports["store"].good_at == watch.at
    assert (health.answered("store", "commit"), health.answered("store", "other")) == (1, 0)


def test_a_long_trouble_is_cut_and_has_its_code() -> None:
    health = Health(Watch())
    health.bad("store", "load", Impeded("x" * 600))
    seen = health.ports["store"]
    assert (seen.code, seen.text, seen.failures) == ("impeded", "x" * TEXT_LIMIT, 1)


def test_trouble_that_nobody_met_again_is_forgiven_after_a_while() -> None:
    watch = Watch()
    health = Health(watch)
    health.good("store", "load")
    health.bad("store", "load", Transient("no answer"))
    watch.at += FORGIVEN
    assert health.ports["store"].failures == 1
    watch.at += timedelta(seconds=1)
    assert health.ports["store"] == Port(good_at=NOW)


def test_a_channel_that_was_switched_off_is_forgotten_and_nothing_else() -> None:
    health = Health(Watch())
    for port in ("channel:a", "channel:b", "store"):
        health.good(port, "call")
    health.keep_only("channel:", ["b", "c"])
    assert set(health.ports) == {"channel:b", "store"}


class Called:
    name = "a port"

    def plain(self) -> str:
        return "plain"

    async def call(self, error: Exception | None = None) -> str:
        if error:
            raise error
        return "answer"


def test_every_call_of_a_guarded_port_is_noted_and_nothing_foreign_comes_out() -> None:
    async def story() -> None:
        health = Health(Watch())
        port = guarded(Called(), "store", health)
        assert (port.name, port.plain(), await port.call()) == ("a port", "plain", "answer")
        assert health.answered("store", "call") == 1
        with pytest.raises(Permanent):
            await port.call(Permanent("a definite no is an answer"))
        assert health.answered("store", "call") == 2
        with pytest.raises(Unexpected, match=r"^store\.call met"):
            await port.call(Odd())
        with pytest.raises(Transient):
            await port.call(Transient("x"))
        assert (health.ports["store"].failures, health.answered("store", "call")) == (2, 2)

    play(story)


def test_a_call_that_came_before_ends_the_next_wait_and_only_that() -> None:
    async def story() -> None:
        wakeup = Wakeup()
        wakeup.call()
        await wakeup.wait(current_time() + 100)
        assert current_time() < 1
        await wakeup.wait(current_time() + 100)
        assert round(current_time()) == 100
        await wakeup.wait(current_time() - 5)
        assert round(current_time()) == 100

    play(story)


# What is written, and how.


@dataclass
class Store:
    """A store that answers a write as it is told, one after another, then as the one behind it."""

    table: Table = field(default_factory=Table)
    answers: list[Any] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    at: list[float] = field(default_factory=list)

    async def load(self, id: WorksetId) -> Workset | None:
        if self.answers:
            raise self.answers.pop(0)
        return self.table.worksets.get(id)

    async def commit(self, change: Change) -> Workset:
        self.changes.append(change)
        self.at.append(current_time())
        match self.answers.pop(0) if self.answers else None:
            case Exception() as error:
                raise error
            case float() as pause_s:
                await sleep(pause_s)
        return await MemoryWorksets(self.table).commit(change)

    def hold(self, ws: Workset) -> Workset:
        self.table.worksets[ws.id] = ws
        self.table.nonces[ws.id] = ""
        return ws


def a_writer(
    store: Store, on_records: Callable[[tuple[Record, ...]], None] = lambda _: None
) -> Writer:
    worksets: Worksets = store  # type: ignore[assignment]
    live = LiveSettings(some_engine_settings(routing=Routing({"sns": Filter(), "slack": Filter()})))
    return Writer(
        worksets=worksets,
        clock=Watch(),
        ids=Counter("n"),
        owner="me",
        live=live,
        on_records=on_records,
    )


CLAIM = Claimed(owner="me", key="k", runner="r", scope="s", data_dir="/d", jobs_dir="/j", ttl_s=1)
CANCEL = Command(id="c1", workset_id=WorksetId("w1"), by="me", ask=Cancel())


def test_a_write_has_its_records_addressed_its_answers_and_the_name_of_its_command() -> None:
    async def story() -> None:
        store, told = Store(), list[Record]()
        ready = store.hold(a_workset("w1"))
        found = await a_writer(store, told.extend).apply(ready, Asked(CANCEL))
        assert isinstance(found, Applied)
        assert (found.workset.state, found.workset.version, found.written) == (
            State.CANCELED,
            1,
            True,
        )
        (change,) = store.changes
        assert (change.before, change.nonce, change.once) == (ready, "n1", "c1")
        assert [(r.teller, r.owed) for r in change.records] == [("me", frozenset({"sns", "slack"}))]
        assert [answer.command_id for answer in change.answers] == ["c1"]
        assert told == list(change.records)

    play(story)


def test_what_changes_nothing_is_not_written_and_a_holders_command_has_no_name_of_its_own() -> None:
    async def story() -> None:
        store = Store()
        ready = store.hold(a_workset("w1"))
        nothing = await a_writer(store).apply(ready, CLAIM)
        assert nothing == Applied(ready, (), written=False)
        assert store.changes == []
        await a_writer(store).apply(ready, Commanded(CANCEL))
        assert store.changes[0].once is None

    play(story)


def test_a_write_that_was_overtaken_says_what_is_there() -> None:
    async def story() -> None:
        other = a_workset("w1", State.IGNORED)
        store = Store(answers=[Conflict(other)])
        assert await a_writer(store).apply(a_workset("w1"), Asked(CANCEL)) == Overtaken(other)

    play(story)


def test_a_write_without_an_answer_is_the_callers_to_repeat_but_for_a_holder() -> None:
    async def story() -> None:
        with pytest.raises(Transient):
            await a_writer(Store(answers=[Transient("no answer")])).apply(
                a_workset("w1"), Asked(CANCEL)
            )
        store = Store(answers=[Transient("no answer"), Transient("none again")])
        held = store.hold(running("w1", owner="me"))
        holder = Holder(lambda ws: replace(ws, beat=ws.beat + 7), repeat_s=3.0)
        found = await a_writer(store).apply(held, Noted(None, Remarks(trouble="x")), holder)
        assert isinstance(found, Applied)
        assert found.workset.beat == 8, "the seal is on every write"
        assert len({change.nonce for change in store.changes}) == 1, "the very same write"
        assert store.at == [0.0, 3.0, 6.0]

    play(story)


def test_a_write_is_heard_out_for_so_long_and_then_its_outcome_is_unknown() -> None:
    async def story() -> None:
        store = Store(answers=[4.0, 6.0])
        ready = store.hold(a_workset("w1"))
        stored = await a_writer(store).apply(ready, Asked(CANCEL))
        assert isinstance(stored, Applied)
        with pytest.raises(Transient, match=r"w1: the store did not answer within 5 s"):
            await a_writer(store).apply(ready, Asked(CANCEL))
        assert current_time() == 9.0

    play(story)


def test_a_write_that_was_sent_is_heard_out_though_its_sender_ends() -> None:
    async def story() -> None:
        store, told = Store(answers=[2.0]), list[Record]()
        ready = store.hold(a_workset("w1"))
        with anyio.move_on_after(1.0):
            await a_writer(store, told.extend).apply(ready, Asked(CANCEL))
        assert store.table.worksets[ready.id].state is State.CANCELED
        assert len(told) == 1

    play(story)


def test_an_outbox_that_breaks_undoes_no_write() -> None:
    def broken(records: tuple[Record, ...]) -> None:
        raise Odd

    async def story() -> None:
        store = Store()
        found = await a_writer(store, broken).apply(store.hold(a_workset("w1")), Asked(CANCEL))
        assert isinstance(found, Applied)

    play(story)


def test_a_new_workset_is_written_under_the_name_of_its_command() -> None:
    async def story() -> None:
        store = Store()
        submit = Submit(bucket="b", prefix="p/w1/")
        command = replace(CANCEL, ask=submit)
        found = await a_writer(store).register(command, submit, [])
        assert isinstance(found, Applied)
        assert found.workset.request.submitted_at == NOW
        (change,) = store.changes
        assert (change.before, change.once, change.nonce) == (None, "c1", "n1")
        assert change.records[0].teller == "me"

    play(story)


# What people are told of an item that nobody holds.


def test_a_remark_is_written_if_it_can_be_and_is_never_in_the_way() -> None:
    async def story() -> None:
        store = Store()
        ready = store.hold(a_workset("w1"))
        await remark(a_writer(store), ready, InputNotChecked("no rights"))
        assert store.table.worksets[ready.id].waiting_for == "no rights"
        store.answers = [Odd()]
        await remark(a_writer(store), ready, InputNotChecked("again"))

    play(story)


@pytest.mark.parametrize(
    ("ws", "writes"),
    [
        (running("w1"), 1),
        (running("w1", owner="b"), 0),
        (running("w1", trouble="no runner"), 0),
        (a_workset("w1"), 0),
        (asked(a_workset("w2"), bucket="b"), 0),
    ],
)
def test_why_a_run_is_not_taken_up_is_said_once_and_only_of_one_that_nobody_holds(
    ws: Workset, writes: int
) -> None:
    async def story() -> None:
        store = Store()
        store.hold(ws)
        await say_trouble(a_writer(store), WorksetId("w1"), "no runner")
        assert len(store.changes) == writes
        if writes:
            assert store.table.worksets[ws.id].trouble == "no runner"
        store.answers = [Odd()]
        await say_trouble(a_writer(store), WorksetId("w1"), "something else")

    play(story)


def test_a_long_trouble_that_is_said_already_is_not_said_again() -> None:
    async def story() -> None:
        store = Store()
        store.hold(running("w1", trouble="x" * 500))
        await say_trouble(a_writer(store), WorksetId("w1"), "x" * 900)
        assert store.changes == []

    play(story)
