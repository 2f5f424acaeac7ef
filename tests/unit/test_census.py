"""Worksets by state are counted a little at a time."""

from __future__ import annotations

from dataclasses import replace

import anyio

from daylily_daemon.domain.model import Record, State
from daylily_daemon.engine.census import EVERY_S, TURNS, Census
from daylily_daemon.ports import Count
from tests.fakes.store import MemoryCatalogue, Table
from tests.made import a_workset
from tests.unit.daemons import World, daemon, play, until


class CountedCatalogue(MemoryCatalogue):
    def __init__(self, table: Table) -> None:
        super().__init__(table)
        self.asked: list[State] = []

    async def count(self, state: State, *, most: int = 1000) -> Count:
        self.asked.append(state)
        return await super().count(state, most=most)


def test_a_quiet_daemon_counts_one_state_in_ten_minutes_and_each_of_them_in_turn() -> None:
    async def story() -> None:
        catalogue = CountedCatalogue(Table())
        census = Census(catalogue=catalogue)
        await census.count()
        assert set(catalogue.asked) == set(State)
        catalogue.asked.clear()
        async with anyio.create_task_group() as tg:
            tg.start_soon(census.run)
            await anyio.sleep((len(State) * TURNS - 0.5) * EVERY_S)
            tg.cancel_scope.cancel()
        assert sorted(catalogue.asked) == sorted(State)

    play(story)


def test_states_that_a_workset_was_moved_between_are_counted_within_a_minute() -> None:
    async def story() -> None:
        table = Table()
        catalogue = CountedCatalogue(table)
        census = Census(catalogue=catalogue)
        await census.count()
        assert census.found()[State.FAILED] == 0
        table.worksets[a_workset("w1").id] = replace(a_workset("w1"), state=State.FAILED)
        record = replace(await a_record(), state=State.FAILED, previous=State.READY)
        catalogue.asked.clear()
        census.moved((record, replace(record, state=State.READY, previous=State.READY)))
        await census.count()
        assert census.found()[State.FAILED] == 1
        await census.count()
        await census.count()
        assert catalogue.asked.count(State.FAILED) == 2, "again after a minute: an index lags"
        assert catalogue.asked.count(State.READY) == 2
        assert len(catalogue.asked) <= 4 + 3

    play(story)


async def a_record() -> Record:
    world = World()
    async with daemon(world):
        await world.submit("w1")
        await until(lambda: bool(world.table.records))
    return next(iter(world.table.records.values()))[0]


def test_a_count_without_an_answer_leaves_the_old_one_and_is_made_again() -> None:
    async def story() -> None:
        census = Census(catalogue=Silent(Table()))
        await census.count()
        assert census.found() == {}
        assert isinstance(census.catalogue, Silent)
        census.catalogue.answers = True
        await census.count()
        assert set(census.found()) == set(State)

    play(story)


class Silent(MemoryCatalogue):
    answers = False

    async def count(self, state: State, *, most: int = 1000) -> Count:
        if not self.answers:
            await anyio.sleep_forever()
        return await super().count(state, most=most)
