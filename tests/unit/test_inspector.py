"""The check of one input: how long it takes, what people see of it, and what parks it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import anyio
from anyio import current_time

from daylily_daemon.domain.errors import (
    DaemonError,
    Transient,
)
from daylily_daemon.domain.model import (
    Accepted,
    Inspection,
    Plan,
    Priority,
    State,
    WorksetId,
)
from daylily_daemon.domain.workset import Workset
from daylily_daemon.engine.backlog import Backlog, BeatObserver
from daylily_daemon.engine.inspector import BREAKS, Inspector
from daylily_daemon.engine.wakeup import Wakeup
from daylily_daemon.engine.writer import Applied, Overtaken
from daylily_daemon.ports import Conflict
from tests.made import NOW, a_workset
from tests.unit.daemons import play
from tests.unit.test_engine_parts import Odd, Store, a_writer, silence

__all__ = ["silence"]


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


@dataclass
class Hanging:
    """A check that says which workset it looks at, and ends only for those that are let go."""

    order: list[str] = field(default_factory=list)
    ends: dict[str, anyio.Event] = field(default_factory=dict)

    async def inspect(self, workset: Workset) -> Inspection:
        self.order.append(workset.id)
        await self.ends.setdefault(workset.id, anyio.Event()).wait()
        return Accepted(Plan(pipeline="demo", steps=("run",)))


def a_flood(store: Store, count: int) -> tuple[Inspector, Hanging]:
    inspector, hanging = an_inspector(store), Hanging()
    inspector.inputs = hanging
    for n in range(count):
        at = NOW + timedelta(seconds=n)
        ws = store.hold(a_workset(f"w{n:02}", submitted_at=at))
        inspector.backlog.stored(ws, 0.0)
    return inspector, hanging


def test_inputs_of_a_flood_are_checked_a_few_at_a_time_the_newest_and_the_oldest_in_turn() -> None:
    async def story() -> None:
        store = Store()
        inspector, hanging = a_flood(store, 20)
        urgent = a_workset("urgent", priority=Priority.URGENT, submitted_at=NOW)
        inspector.backlog.stored(store.hold(urgent), 0.0)
        async with anyio.create_task_group() as tg:
            inspector.check_what_is_due(tg, ())
            inspector.check_what_is_due(tg, ())
            await anyio.sleep(1)
            assert hanging.order == ["urgent", "w00", "w19", "w01", "w18", "w02", "w17", "w03"]
            hanging.ends["w00"].set()
            await anyio.sleep(1)
            inspector.check_what_is_due(tg, ())
            await anyio.sleep(1)
            assert hanging.order[8:] == ["w16"]
            tg.cancel_scope.cancel()

    play(story)


def test_who_dropped_last_counts_as_the_newest_whenever_it_was_taken_in() -> None:
    async def story() -> None:
        store = Store()
        inspector, hanging = a_flood(store, 20)
        last = a_workset("last", submitted_at=NOW, dropped_at=NOW + timedelta(hours=1))
        inspector.backlog.stored(store.hold(last), 0.0)
        async with anyio.create_task_group() as tg:
            inspector.check_what_is_due(tg, ())
            await anyio.sleep(1)
            assert hanging.order[:3] == ["last", "w00", "w19"]
            tg.cancel_scope.cancel()

    play(story)


def test_a_check_that_hangs_takes_no_place_of_another() -> None:
    async def story() -> None:
        inspector, hanging = a_flood(Store(), 20)
        async with anyio.create_task_group() as tg:
            for asked_at, checking in ((0, 8), (4.9, 8), (5.1, 16), (10.2, 20)):
                await anyio.sleep_until(asked_at)
                inspector.check_what_is_due(tg, ())
                await anyio.lowlevel.checkpoint()
                assert len(hanging.order) == checking
            tg.cancel_scope.cancel()

    play(story)
