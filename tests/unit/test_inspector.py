"""The check of one input: how long it takes, what people see of it, and what parks it."""

from __future__ import annotations

from dataclasses import dataclass, replace
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
    State,
    WorksetId,
)
from daylily_daemon.domain.workset import Workset
from daylily_daemon.engine.backlog import Backlog, BeatObserver
from daylily_daemon.engine.inspector import BREAKS, Inspector
from daylily_daemon.engine.wakeup import Wakeup
from daylily_daemon.engine.writer import Applied, Overtaken
from daylily_daemon.ports import Conflict
from tests.made import a_workset
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
