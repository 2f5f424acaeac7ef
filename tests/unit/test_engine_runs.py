"""The engine, whole, when a run cannot be seen, started or ended as usual; every command is answered."""

from __future__ import annotations

from dataclasses import replace

import anyio
import anyio.lowlevel
import pytest

from daylily_daemon.domain.errors import Transient, Unclear
from daylily_daemon.domain.model import (
    Cancel,
    Command,
    CommandEffect,
    HostLost,
    Job,
    Outcome,
    Priority,
    Retry,
    SetPriority,
    State,
    WorksetId,
)
from tests.fakes.runner import MemoryMachine, MemoryRunner, Script
from tests.unit.daemons import (
    World,
    daemon,
    killed_daemon,
    parts_of,
    play,
    until,
)

LONG = Script(duration_s=1000.0)


def is_in(world: World, id: str, state: State) -> bool:
    return WorksetId(id) in world.table.worksets and world.workset(id).state is state


@pytest.mark.reported("B", "a second daemon claims a run whose folder it may not read")
def test_a_run_whose_job_cannot_be_looked_at_is_not_claimed() -> None:
    class Blind(MemoryRunner):
        async def look(self, job: Job) -> None:
            raise Transient("/jobs/w1 cannot be used: Permission denied.")

    async def story() -> None:
        world = World(machine=MemoryMachine(lambda _: LONG))
        async with killed_daemon(world, "a"):
            await world.submit("w1")
            await until(lambda: bool(world.machine.starts))
        parts = replace(parts_of(world), runner=Blind(world.machine))
        async with daemon(world, "b", parts):
            await anyio.sleep(600)
            assert world.workset("w1").owner == "a"
        async with daemon(world, "c"):
            await until(lambda: is_in(world, "w1", State.COMPLETE), within_s=7200)
        assert len(world.machine.starts) == 5

    play(story)


def test_a_run_that_cannot_be_seen_for_long_is_let_go_and_says_why() -> None:
    class Blinded(MemoryRunner):
        blind = False

        async def look(self, job: Job) -> None:
            if self.blind:
                raise Transient("/jobs cannot be used: Input/output error.")

        async def wait(self, job: Job) -> Outcome:
            while not self.blind:
                await anyio.sleep(1)
            raise Transient("/jobs cannot be used: Input/output error.")

    async def story() -> None:
        world = World(machine=MemoryMachine(lambda _: LONG))
        runner = Blinded(world.machine)
        async with daemon(world, parts=replace(parts_of(world), runner=runner)):
            await world.submit("w1")
            await until(lambda: bool(world.machine.starts))
            runner.blind = True
            await anyio.sleep(120)
            assert "Input/output error" in world.workset("w1").trouble
            await until(lambda: world.workset("w1").owner is None, within_s=600)
            assert world.workset("w1").state is State.IN_PROGRESS
        async with daemon(world, "b"):
            await until(lambda: is_in(world, "w1", State.COMPLETE), within_s=7200)
        assert world.workset("w1").trouble == ""
        assert world.workset("w1").attempt == 1

    play(story)


@pytest.mark.reported("A", "a pipeline file removed during a run, then a restart")
def test_a_job_whose_pipeline_is_gone_is_waited_for_and_never_started_again() -> None:
    async def story() -> None:
        world = World(machine=MemoryMachine(lambda _: Script(duration_s=600.0)))
        engine_settings = world.engine_settings
        async with daemon(world):
            await world.submit("w1")
            await until(lambda: bool(world.machine.starts))
        world.engine_settings = replace(engine_settings, pipelines={})
        async with daemon(world):
            await anyio.sleep(300)
            assert is_in(world, "w1", State.IN_PROGRESS)
            await until(lambda: is_in(world, "w1", State.FAILED), within_s=900)
        assert world.machine.starts == ["w1.1.stage"]
        assert "no step run any more" in world.workset("w1").error_details
        world.engine_settings = engine_settings
        async with daemon(world):
            await world.ask("w1", Retry())
            await until(lambda: is_in(world, "w1", State.COMPLETE), within_s=7200)
        assert world.machine.starts[1] == "w1.2.run"

    play(story)


def test_a_start_that_was_seen_is_never_repeated_when_its_token_is_gone() -> None:
    async def story() -> None:
        world = World(machine=MemoryMachine(lambda _: LONG))
        async with daemon(world):
            await world.submit("w1")
            await until(lambda: bool(world.machine.starts))
            await anyio.sleep(60)
        world.machine.forget(world.machine.starts[0])
        async with daemon(world):
            await anyio.sleep(3000)
            ws = world.workset("w1")
            assert (ws.state, ws.unclear) == (State.IN_PROGRESS, True)
            assert "was seen to start" in ws.trouble
        assert world.machine.starts == ["w1.1.stage"]

    play(story)


class Unproven(MemoryRunner):
    async def wait(self, job: Job) -> Outcome:
        if job.name == "w1.1.run":
            await anyio.sleep(5)
            raise Unclear("The shim of w1.1.run was killed and left no record.")
        return await super().wait(job)


@pytest.mark.reported("A", "a killed shim is taken for the end of its job (nomad#6980)")
def test_an_end_without_proof_stays_unclear_until_somebody_vouches_for_it() -> None:
    async def story() -> None:
        world = World()
        parts = replace(parts_of(world), runner=Unproven(world.machine))
        async with daemon(world, parts=parts):
            await world.submit("w1")
            await anyio.sleep(24 * 3600)
            ws = world.workset("w1")
            assert (ws.state, ws.unclear) == (State.IN_PROGRESS, True)
            assert "left no record" in ws.trouble
            assert ws.owner == "a"
            await world.ask("w1", Retry())
            await anyio.sleep(60)
            assert is_in(world, "w1", State.IN_PROGRESS), "a plain retry vouches for nothing"
            await world.ask("w1", HostLost())
            await until(lambda: is_in(world, "w1", State.COMPLETE), within_s=300)
        steps = [name.split(".", 1)[1] for name in world.machine.starts]
        assert steps == ["1.stage", "1.run", "2.run", "2.export", "2.metrics", "2.cleanup"]
        assert not world.workset("w1").unclear

    play(story)


def test_a_cancel_of_an_unclear_run_is_obeyed() -> None:
    async def story() -> None:
        world = World()
        parts = replace(parts_of(world), runner=Unproven(world.machine))
        async with daemon(world, parts=parts):
            await world.submit("w1")
            await until(lambda: "w1.1.run" in world.machine.starts)
            await anyio.sleep(120)
            await world.ask("w1", Cancel())
            await until(lambda: is_in(world, "w1", State.CANCELED), within_s=120)

    play(story)


@pytest.mark.reported("A", "a command id is forgotten after twenty others")
def test_a_command_that_comes_again_after_many_others_changes_nothing() -> None:
    async def story() -> None:
        world = World()
        async with daemon(world):
            await world.submit("w1")
            await until(lambda: is_in(world, "w1", State.COMPLETE), within_s=60)
            low = Command(
                id="low",
                workset_id=WorksetId("w1"),
                by="cli:me",
                ask=SetPriority(priority=Priority.LOW),
            )
            world.commands.put((low,), "w1")
            await until(lambda: world.workset("w1").priority is Priority.LOW)
            for _ in range(40):
                await world.ask("w1", SetPriority(priority=Priority.URGENT))
            await until(lambda: not world.commands.messages)
            world.commands.put((low,), "w1")
            await until(lambda: not world.commands.messages)
            assert world.workset("w1").priority is Priority.URGENT
        assert world.commands.parked == []

    play(story)


def test_every_command_has_an_answer_also_one_for_a_workset_nobody_knows() -> None:
    async def story() -> None:
        world = World(machine=MemoryMachine(lambda _: LONG))
        async with daemon(world):
            await world.ask("nobody", Cancel())
            await world.submit("w1")
            await until(lambda: is_in(world, "w1", State.IN_PROGRESS))
            await world.ask("w1", Retry())
            await world.ask("w1", Cancel())
            await until(lambda: is_in(world, "w1", State.CANCELED), within_s=60)
            await world.ask("w1", Cancel())
            await until(lambda: not world.commands.messages)
        effects = {c.id: world.table.answers[c.workset_id, c.id] for c in world.asked}
        assert [a.effect if a else None for a in effects.values()] == [
            CommandEffect.NONE,
            CommandEffect.NONE,
            CommandEffect.APPLIED,
            CommandEffect.NONE,
        ]
        assert all(a and a.text for a in effects.values())

    play(story)


def test_a_command_that_comes_while_a_run_is_let_go_stays_in_its_inbox_and_the_lease_is_given_back() -> (
    None
):
    """Seen in a storm: whoever had listened was gone, and the release broke with it."""

    async def story() -> None:
        world = World(machine=MemoryMachine(lambda job: Script(duration_s=1000)))
        async with daemon(world):
            await world.submit("w1")
            await until(lambda: bool(world.machine.starts))
            await anyio.sleep(1)
            ws = world.workset("w1")
            late = Command(
                id="c9", workset_id=ws.id, by="cli", ask=SetPriority(priority=Priority.LOW)
            )
            changed = replace(ws, inbox=(late,), version=ws.version + 1)
            world.table.worksets[ws.id], world.table.nonces[ws.id] = changed, "another's"
        assert world.workset("w1").owner is None
        assert [command.id for command in world.workset("w1").inbox] == ["c9"]

    play(story)
