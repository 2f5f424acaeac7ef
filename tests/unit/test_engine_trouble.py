"""The engine, whole, when something around it goes wrong in one particular way."""

from __future__ import annotations

import errno
from collections import deque
from dataclasses import replace

import anyio
import pytest

from daylily_daemon.domain.errors import Transient
from daylily_daemon.domain.model import Job, Retry, State
from tests.fakes.notifier import Failure, MemoryNotifier
from tests.fakes.runner import MemoryMachine, MemoryRunner, Script
from tests.unit.daemons import World, daemon, parts_of, play, until
from tests.unit.engine_settings import some_limits

LONG = Script(duration_s=1000.0)


def in_state(world: World, state: State) -> list[str]:
    return sorted(ws.id for ws in world.table.worksets.values() if ws.state is state)


@pytest.mark.reported("B", "a notification channel that hangs holds up every alert (crowdsec#2619)")
def test_a_dead_channel_delays_nobody_and_is_given_up_visibly_at_the_stated_age() -> None:
    async def story() -> None:
        world = World()
        world.engine_settings = replace(world.engine_settings, give_up_s=3600.0)
        dead = MemoryNotifier(script=deque([Failure(Transient("no answer"))] * 10_000))
        parts = parts_of(world)
        channels = {**parts.notifiers, "slack": dead}
        async with daemon(world, parts=replace(parts, notifiers=channels)):
            await world.submit(*(f"w{n}" for n in range(4)))
            await until(lambda: len(in_state(world, State.COMPLETE)) == 4, within_s=60)
            await until(lambda: len(world.told["sns"]) == 12, within_s=10)
            await anyio.sleep(5)
            rows = [r for rows in world.table.records.values() for r in rows if r.notify]
            assert {channel for r in rows for channel in r.owed} == {"slack"}
            await anyio.sleep(3600 + 600)
        rows = [r for rows in world.table.records.values() for r in rows if r.notify]
        assert [set(r.owed) for r in rows] == [set()] * 12
        assert [set(r.given_up) for r in rows] == [{"slack"}] * 12
        tries = 10_000 - len(dead.script)
        assert tries < 12 * 60, "a channel that is down must not be hammered"

    play(story)


def test_a_receiver_that_asks_for_patience_is_left_alone_for_so_long() -> None:
    async def story() -> None:
        world, asked = World(), Failure(Transient("slow down", retry_after_s=500.0))
        patient = MemoryNotifier(delivered=world.told["slack"], script=deque([asked]))
        parts = parts_of(world)
        channels = {**parts.notifiers, "slack": patient}
        async with daemon(world, parts=replace(parts, notifiers=channels)):
            await world.submit("w1")
            await until(lambda: in_state(world, State.COMPLETE) == ["w1"])
            await anyio.sleep(400)
            assert world.told["slack"] == []
            await until(lambda: len(world.told["slack"]) == 3, within_s=150)

    play(story)


def test_fewer_slots_after_a_reload_leave_alone_what_runs() -> None:
    async def story() -> None:
        world = World(machine=MemoryMachine(lambda _: LONG))
        async with daemon(world) as supervisor:
            await world.submit("w1", "w2", "w3")
            await until(lambda: len(world.machine.running()) == 3)
            supervisor.live.current = replace(supervisor.live.current, limits=some_limits(slots=1))
            supervisor.nudge()
            await world.submit("w4")
            await anyio.sleep(600)
            assert in_state(world, State.IN_PROGRESS) == ["w1", "w2", "w3"]
            assert in_state(world, State.READY) == ["w4"]
            await until(lambda: "w4" in in_state(world, State.IN_PROGRESS), within_s=6000)
            assert in_state(world, State.COMPLETE) == ["w1", "w2", "w3"]

    play(story)


class ShortOfFiles(MemoryRunner):
    """A runner whose process has no file descriptors left for a while."""

    left = 3

    async def ensure(self, job: Job) -> None:
        if self.left and job.name.startswith("w1."):
            self.left -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        await super().ensure(job)


def test_a_workset_that_cannot_get_a_file_descriptor_breaks_alone_and_recovers() -> None:
    async def story() -> None:
        world = World()
        parts = replace(parts_of(world), runner=ShortOfFiles(world.machine))
        async with daemon(world, parts=parts):
            await world.submit("w1", "w2")
            await until(lambda: in_state(world, State.COMPLETE) == ["w2"], within_s=30)
            await until(lambda: in_state(world, State.COMPLETE) == ["w1", "w2"], within_s=300)
        assert world.workset("w1").attempt == 1

    play(story)


def test_an_item_deleted_by_hand_is_let_go_and_never_started_again() -> None:
    async def story() -> None:
        world = World(machine=MemoryMachine(lambda _: LONG))
        async with daemon(world) as supervisor:
            await world.submit("w1")
            await until(lambda: len(world.machine.starts) == 1)
            del world.table.worksets[world.workset("w1").id]
            await anyio.sleep(1200)
            assert supervisor.snapshot().active == {}
        assert world.machine.starts == ["w1.1.stage"]
        assert world.table.worksets == {}

    play(story)


def test_a_state_set_by_hand_stands_until_somebody_asks_for_a_retry() -> None:
    async def story() -> None:
        world = World(machine=MemoryMachine(lambda _: LONG))
        async with daemon(world):
            await world.submit("w1")
            await until(lambda: len(world.machine.starts) == 1)
            ws = world.workset("w1")
            world.table.worksets[ws.id] = replace(ws, state=State.FAILED)
            await anyio.sleep(1200)
            assert in_state(world, State.FAILED) == ["w1"]
            assert world.machine.starts == ["w1.1.stage"]
            await world.ask("w1", Retry())
            await until(lambda: in_state(world, State.IN_PROGRESS) == ["w1"], within_s=60)

    play(story)
