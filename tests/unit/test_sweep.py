"""What a daemon finds in the index that nobody told it of: in time, in order, and whatever else waits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import anyio
import pytest

from daylily_daemon.domain.errors import Transient
from daylily_daemon.domain.model import Accepted, Inspection, Priority, State, WorksetId
from daylily_daemon.domain.turn import Queue, Turn, turn_of
from daylily_daemon.domain.workset import Workset
from daylily_daemon.engine import backlog, sweep
from tests.fakes.runner import MemoryMachine, Script
from tests.fakes.store import LoopClock, MemoryTurns, Table
from tests.made import a_workset, asked, running
from tests.sim.planting import put
from tests.unit.daemons import PLAN, World, daemon, parts_of, play, until
from tests.unit.engine_settings import some_limits

HOUR_S = 3600.0


def a_world(
    slots: int = 1, per_customer: int = 0, job_s: float = 2.0, **engine_settings: Any
) -> World:
    """Return a world whose daemon looks into the index only once an hour."""
    world = World(machine=MemoryMachine(lambda job: Script(duration_s=job_s)))
    limits = some_limits(slots=slots, per_customer=per_customer)
    world.engine_settings = replace(
        world.engine_settings, limits=limits, sweep_s=HOUR_S, **engine_settings
    )
    return world


def add(world: World, id: str, at_s: float = 0.0, **named: Any) -> Workset:
    """Put a workset into the table as if another daemon had."""
    at = LoopClock().start + timedelta(seconds=at_s)
    ws = a_workset(id, now=at, **{"plan": PLAN, "version": 1, **named})
    world.table.worksets[ws.id], world.table.nonces[ws.id] = ws, ""
    return ws


def started(world: World) -> list[str]:
    """Return the worksets whose first job was started, in order."""
    return [name.split(".")[0] for name in world.machine.starts if name.endswith(".stage")]


@pytest.mark.reported("B", "two jobs an interval, however many wait (db-scheduler#46)")
@pytest.mark.reported("B", "one job a poll, whatever the queue holds (workhorse#15)")
def test_a_long_line_is_worked_off_without_waiting_for_the_next_look() -> None:
    async def story() -> None:
        world = a_world()
        names = [add(world, f"w{n:02}", n / 10).id for n in range(40)]
        async with daemon(world):
            await until(lambda: len(started(world)) == 40, within_s=40 * 15)
        assert started(world) == names
        assert anyio.current_time() < HOUR_S

    play(story)


@pytest.mark.reported("B", "a retry waits for the next scheduled poll (MetPX/sarracenia#1447)")
def test_a_retry_that_another_daemon_left_is_made_when_it_is_due() -> None:
    async def story() -> None:
        world = a_world(slots=4)
        due = LoopClock().start + timedelta(seconds=600)
        later = due + timedelta(seconds=300)
        for id, at in (("soon", due), ("later", later)):
            add(world, id, state=State.RETRYING, retry_after=at, retry_count=1)
        async with daemon(world):
            for id, at_s in (("soon", 600), ("later", 900)):
                await until(lambda id=id: id in started(world), within_s=HOUR_S)  # type: ignore[misc]
                assert at_s <= anyio.current_time() < at_s + 3

    play(story)


@pytest.mark.reported(
    "B", "the same 500 jobs that cannot run are fetched again and again (ngageoint/scale#1846)"
)
def test_what_asks_for_another_cluster_is_left_to_it_and_hides_nothing() -> None:
    async def story() -> None:
        world = a_world()
        elsewhere = replace(PLAN, cluster_name="hpc-2")
        for n in range(300):
            add(world, f"e{n:03}", plan=elsewhere, priority=Priority.URGENT)
        add(world, "mine")
        async with daemon(world):
            await until(lambda: started(world) == ["mine"], within_s=60)
            await anyio.sleep(60)
        assert started(world) == ["mine"]

    play(story)


@pytest.mark.reported("B", "jobs at their concurrency limit block the others (agenda#304)")
@pytest.mark.reported(
    "B", "a limit of rows lets old blocked jobs hide every newer one (ctrliq/ascender#922)"
)
def test_customers_at_their_limit_hide_nobody_however_many_of_theirs_wait() -> None:
    async def story() -> None:
        world = a_world(slots=8, per_customer=1, job_s=1000.0)
        for n in range(300):
            add(world, f"a{n:03}", n / 10, customer_id="a")
        for n in range(3):
            add(world, f"c{n}", 100.0, customer_id=f"c{n}", priority=Priority.LOW)
        async with daemon(world):
            await anyio.sleep(60)
            assert sorted(started(world)) == ["a000", "c0", "c1", "c2"]

    play(story)


@pytest.mark.parametrize("known", [3, 2000])
def test_inputs_that_nobody_looked_at_are_found_and_checked_however_many(known: int) -> None:
    async def story() -> None:
        world = a_world(slots=1000, job_s=0.1)
        for n in range(120):
            add(world, f"w{n:03}", n / 10, plan=None)
        with put((sweep, "CHECKS", 5)), put((backlog, "MOST_KNOWN", known)):
            async with daemon(world):
                await until(lambda: len(started(world)) == 120, within_s=600)

    play(story)


def test_an_urgent_one_is_known_although_no_more_can_be() -> None:
    async def story() -> None:
        world = a_world(job_s=100.0)
        for n in range(30):
            add(world, f"w{n:02}", n / 10)
        with put((backlog, "MOST_KNOWN", 5)):
            async with daemon(world):
                await until(lambda: bool(started(world)), within_s=60)
                await world.submit("baby", priority=Priority.URGENT)
                await until(lambda: len(started(world)) == 2, within_s=1000)
        assert started(world) == ["w00", "baby"]

    play(story)


def test_how_many_wait_is_told_as_far_as_it_is_known() -> None:
    async def story() -> None:
        world = a_world(slots=0)
        for n in range(30):
            add(world, f"w{n:02}")
        async with daemon(world) as supervisor:
            await anyio.sleep(10)
            told = supervisor.snapshot()
            assert (told.waiting, told.waits_more) == (10, True)
            del world.table.worksets[WorksetId("w00")]

    play(story)


def test_as_many_start_at_once_as_there_is_room_for() -> None:
    async def story() -> None:
        world = a_world(slots=60, job_s=1000.0)
        for n in range(60):
            add(world, f"w{n:02}", n / 10)
        async with daemon(world):
            await until(lambda: len(started(world)) == 60, within_s=0.9)

    play(story)


def test_what_runs_out_of_sight_counts_for_its_customer() -> None:
    async def story() -> None:
        world = a_world(slots=8, per_customer=1)
        far = asked(running("far", scope="host:far/1", owner="other"), customer_id="a")
        world.table.worksets[far.id], world.table.nonces[far.id] = far, ""
        for customer in "ab":
            add(world, f"w-{customer}", customer_id=customer)
        async with daemon(world):
            await until(lambda: bool(started(world)), within_s=60)
            await anyio.sleep(60)
        assert started(world) == ["w-b"]

    play(story)


@dataclass
class StaleTurns(MemoryTurns):
    """An index in which one workset stands where it stood before, and stays there until it is corrected."""

    table: Table
    stale: Turn
    refiled: list[WorksetId] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(self.table)

    async def line_up(self, queue: Queue, *, after: str = "", limit: int) -> Sequence[Turn]:
        found = await super().line_up(queue, after=after, limit=limit)
        others = [turn for turn in found if turn.id != self.stale.id]
        return [*others, self.stale] if queue is self.stale.queue and not after else others

    async def refile(self, ws: Workset) -> None:
        self.refiled.append(ws.id)


@pytest.mark.parametrize("stands_as", [State.READY, State.IN_PROGRESS])
def test_what_stands_at_a_wrong_turn_for_two_readings_is_put_right(stands_as: State) -> None:
    """As it is where a version before this one changed an item: it knows of no turns."""

    async def story() -> None:
        world = a_world()
        world.engine_settings = replace(world.engine_settings, sweep_s=15.0)
        was = running("odd", scope=parts_of(world).runner.scope, owner="other")
        if stands_as is State.READY:
            was = replace(was, state=State.READY, plan=PLAN, lock=None)
        stale = turn_of(was)
        assert stale is not None
        add(world, "odd", state=State.RETRYING, retry_after=LoopClock().start + timedelta(days=9))
        turns = StaleTurns(world.table, stale)
        async with daemon(world, parts=replace(parts_of(world), turns=turns)):
            await anyio.sleep(10)
            assert turns.refiled == [], "the index may just be late"
            await anyio.sleep(10)
            assert turns.refiled == ["odd"]

    play(story)


class BrokenInputs:
    """Nobody can look at those whose name begins with ``bad``."""

    async def inspect(self, workset: Workset) -> Inspection:
        await anyio.sleep(0.05)
        if workset.id.startswith("bad"):
            raise Transient("no answer")
        return Accepted(PLAN)


def test_those_that_are_left_alone_for_a_while_hide_nobody_behind_them() -> None:
    async def story() -> None:
        world = a_world(slots=8)
        world.engine_settings = replace(world.engine_settings, input_poll_s=1000.0)
        world.inputs = BrokenInputs()
        for n in range(10):
            add(world, f"bad{n}", n / 10, plan=None)
        add(world, "good", 5.0, plan=None)
        with put((sweep, "CHECKS", 5)):
            async with daemon(world):
                await until(lambda: started(world) == ["good"], within_s=60)

    play(story)


def test_those_that_have_no_room_leave_memory_to_one_that_has() -> None:
    """A customer at its limit must not fill what is remembered (storm 1875 found it)."""

    async def story() -> None:
        world = a_world(slots=8, per_customer=1, job_s=1000.0)
        world.engine_settings = replace(world.engine_settings, sweep_s=15.0)
        add(world, "first", 0.0, customer_id="busy")
        for n in range(5):
            add(world, f"behind{n}", 1.0 + n, customer_id="busy")
        add(world, "other", 60.0, customer_id="quiet")
        with put((backlog, "MOST_KNOWN", 3)):
            async with daemon(world):
                await until(lambda: set(started(world)) == {"first", "other"}, within_s=120)

    play(story)
