"""The engine, whole, over ports in memory, on a virtual clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import anyio
import pytest

from daylily_daemon.domain.errors import Transient
from daylily_daemon.domain.model import (
    Cancel,
    Ended,
    HostLost,
    Inspection,
    Job,
    Missing,
    Outcome,
    Priority,
    Problem,
    Progress,
    Refused,
    Retry,
    SetPriority,
    State,
)
from daylily_daemon.domain.turn import Queue, Turn
from daylily_daemon.domain.workset import Workset
from tests.fakes.runner import MemoryMachine, MemoryRunner, Script
from tests.fakes.store import MemoryTurns, Table
from tests.made import STEPS
from tests.unit.daemons import (
    PIPELINE,
    GoodInputs,
    World,
    daemon,
    killed_daemon,
    parts_of,
    play,
    until,
)
from tests.unit.engine_settings import a_policy, some_limits

FAILS = Outcome(ended=Ended.EXITED, code=1, tail="something went wrong")


def is_in(world: World, id: str, state: State) -> bool:
    return id in world.table.worksets and world.workset(id).state is state


def test_a_submitted_workset_runs_every_step_and_tells_everyone() -> None:
    async def story() -> None:
        world = World()
        async with daemon(world):
            await world.submit("w1")
            await until(lambda: is_in(world, "w1", State.COMPLETE))
            assert anyio.current_time() < 10
            await until(lambda: len(world.told["slack"]) == 3)
        assert [n.split(".")[2] for n in world.machine.starts] == [
            "stage", "run", "export", "metrics", "cleanup",
        ]  # fmt: skip
        assert world.states("w1") == ["ready", "in_progress", "complete"]
        assert [r.state for r in world.told["sns"]] == ["ready", "in_progress", "complete"]
        assert world.workset("w1").owner is None
        assert not [r for rows in world.table.records.values() for r in rows if r.owed]

    play(story)


def test_a_failed_step_is_tried_again_from_where_it_failed_and_then_given_up() -> None:
    async def story() -> None:
        def script(job: Job) -> Script:
            return Script(outcome=FAILS) if job.step == "run" else Script()

        world = World(machine=MemoryMachine(script))
        async with daemon(world):
            await world.submit("w1")
            await until(lambda: is_in(world, "w1", State.FAILED))
        steps = [n.split(".", 1)[1] for n in world.machine.starts]
        assert steps == ["1.stage", "1.run", "2.run", "3.run"]
        assert "something went wrong" in world.workset("w1").error_details
        assert code_of(world, "w1") == "WS-UNK-000"

    play(story)


def test_the_run_outlives_the_daemon_and_is_picked_up_by_the_next() -> None:
    async def story() -> None:
        world = World(machine=MemoryMachine(lambda job: Script(duration_s=3600)))
        async with daemon(world):
            await world.submit("w1")
            await until(lambda: len(world.machine.starts) == 1)
        assert world.workset("w1").owner is None
        assert world.machine.running()
        await anyio.sleep(600)
        async with killed_daemon(world):
            await until(lambda: world.workset("w1").owner is not None)
            await anyio.sleep(600)
        async with daemon(world):
            await until(lambda: is_in(world, "w1", State.COMPLETE), within_s=24 * 3600)
        assert len(world.machine.starts) == 5

    play(story)


def test_another_daemon_takes_over_only_after_a_whole_ttl_of_silence() -> None:
    async def story() -> None:
        world = World(machine=MemoryMachine(lambda job: Script(duration_s=900)))
        async with daemon(world, "b"):
            async with killed_daemon(world, "a"):
                await world.submit("w1")
                await until(lambda: len(world.machine.starts) == 1)
                await anyio.sleep(300)
                owner = world.workset("w1").owner
            died_at = anyio.current_time()
            if owner == "a":
                await until(lambda: world.workset("w1").owner == "b")
                assert 45 <= anyio.current_time() - died_at <= 90
            await until(lambda: is_in(world, "w1", State.COMPLETE), within_s=48 * 3600)
        assert len(world.machine.starts) == 5

    play(story)


def test_a_cancel_stops_the_job_and_ends_as_canceled() -> None:
    async def story() -> None:
        world = World(machine=MemoryMachine(lambda job: Script(duration_s=900)))
        async with daemon(world):
            await world.submit("w1")
            await until(lambda: len(world.machine.starts) == 1)
            asked = anyio.current_time()
            await world.ask("w1", Cancel(reason="wrong flow cell"))
            await until(lambda: is_in(world, "w1", State.CANCELED))
            assert anyio.current_time() - asked < 5
        assert not world.machine.running()
        assert "wrong flow cell" in world.workset("w1").history[-1].reason

    play(story)


def test_a_cancel_is_obeyed_when_another_daemon_reads_the_message() -> None:
    async def story() -> None:
        world = World(machine=MemoryMachine(lambda job: Script(duration_s=900)))
        async with daemon(world, "a"):
            await world.submit("w1")
            await until(lambda: len(world.machine.starts) == 1)
            async with daemon(world, "b"):
                for _ in range(8):
                    await world.ask("w1", SetPriority(priority=Priority.LOW))
                await world.ask("w1", Cancel())
                await until(lambda: is_in(world, "w1", State.CANCELED), within_s=60)
        assert not world.workset("w1").inbox

    play(story)


def test_input_that_never_comes_parks_the_workset_and_a_corrected_drop_runs() -> None:
    class LateInputs:
        there = False

        async def inspect(self, workset: Workset) -> Inspection:
            if self.there:
                return await GoodInputs().inspect(workset)
            return Missing((Problem("daylily_work.yaml", "", "is not there.", "Upload it."),))

    async def story() -> None:
        inputs = LateInputs()
        world = World(inputs=inputs)
        async with daemon(world):
            await world.submit("w1")
            await until(lambda: is_in(world, "w1", State.ERROR))
            assert 115 <= anyio.current_time() <= 140
            assert "daylily_work.yaml" in world.workset("w1").error_details
            inputs.there = True
            await world.submit("w1")
            await until(lambda: is_in(world, "w1", State.COMPLETE))
        assert world.workset("w1").error_details == ""

    play(story)


def test_a_bad_workset_among_good_ones_stops_nobody() -> None:
    class SomeBad:
        async def inspect(self, workset: Workset) -> Inspection:
            if workset.id == "bad":
                return Refused((Problem("stage_samples.tsv", "line 2", "is bad.", "Fix it."),))
            return await GoodInputs().inspect(workset)

    async def story() -> None:
        world = World(inputs=SomeBad())
        async with daemon(world):
            await world.submit("w1", "bad", "w2")
            await until(lambda: is_in(world, "w1", State.COMPLETE))
            await until(lambda: is_in(world, "w2", State.COMPLETE))
        assert world.workset("bad").state is State.ERROR

    play(story)


def test_no_more_than_allowed_run_at_once_and_urgent_goes_first() -> None:
    async def story() -> None:
        machine = MemoryMachine(lambda job: Script(duration_s=10))
        world = World(machine=machine)
        world.engine_settings = replace(world.engine_settings, limits=some_limits(slots=1))
        async with daemon(world):
            await world.submit("w0")
            await until(lambda: len(machine.starts) == 1)
            await world.submit("w1", "w2", "w3")
            await world.submit("u", priority=Priority.URGENT)
            for id in ("u", "w1", "w2", "w3"):
                await until(lambda id=id: is_in(world, id, State.COMPLETE))  # type: ignore[misc]
        order = [n.split(".")[0] for n in machine.starts if n.endswith("stage")]
        assert order == ["w0", "u", "w1", "w2", "w3"]

    play(story)


def code_of(world: World, id: str) -> str:
    failure = world.workset(id).failure
    return failure.code if failure else ""


def fraction_of(ws: Workset) -> float:
    return (ws.run.progress.fraction or 0.0) if ws.run else 0.0


def test_progress_rides_on_heartbeats_and_costs_no_write_of_its_own() -> None:
    async def story() -> None:
        lines = tuple(Progress(n / 1000, f"{n} of 1000") for n in range(1000))
        machine = MemoryMachine(lambda job: Script(duration_s=1000, progress=lines))
        world = World(machine=machine)
        world.engine_settings = replace(world.engine_settings, progress_interval_s=5.0)
        async with daemon(world):
            await world.submit("w1")
            await until(
                lambda: fraction_of(world.workset("w1")) > 0.9 if world.table.worksets else False
            )
            begun, beats = 4, 1000 / world.lease.beat_s
            assert world.workset("w1").version <= begun + beats

    play(story)


def test_an_operator_retry_resumes_at_the_failed_step() -> None:
    async def story() -> None:
        broken = {"yes": True}

        def script(job: Job) -> Script:
            bad = job.step == "export" and broken["yes"]
            return Script(outcome=FAILS) if bad else Script()

        world = World(machine=MemoryMachine(script))
        world.engine_settings = replace(world.engine_settings, policy=a_policy(max_retries=0))
        async with daemon(world):
            await world.submit("w1")
            await until(lambda: is_in(world, "w1", State.FAILED))
            broken["yes"] = False
            await world.ask("w1", Retry())
            await until(lambda: is_in(world, "w1", State.COMPLETE))
        starts = [n.split(".", 1)[1] for n in world.machine.starts]
        assert starts[3:] == ["2.export", "2.metrics", "2.cleanup"]

    play(story)


def test_on_a_full_disk_nothing_new_starts_and_what_runs_runs_on_until_there_is_room() -> None:
    async def story() -> None:
        full = {"why": ""}

        async def held() -> str:
            return full["why"]

        machine = MemoryMachine(lambda _: Script(duration_s=300.0))
        world = World(machine=machine, look_for_room=held)
        async with daemon(world) as supervisor:
            await world.submit("w1")
            await until(lambda: is_in(world, "w1", State.IN_PROGRESS))
            full["why"] = "The disk of /data has 0.0 GB left."
            await world.submit("w2")
            beat = world.workset("w1").beat
            await anyio.sleep(200)
            assert supervisor.snapshot().held == full["why"]
            assert world.workset("w2").state is State.READY
            assert world.workset("w1").beat >= beat + 10
            full["why"] = ""
            await until(lambda: is_in(world, "w2", State.IN_PROGRESS), within_s=60)
        assert world.states("w1") == ["ready", "in_progress"]

    play(story)


def test_a_run_whose_machine_is_gone_goes_on_elsewhere_once_somebody_vouches_for_it() -> None:
    async def story() -> None:
        world, other = World(), World(machine=MemoryMachine())
        world.machine = MemoryMachine(lambda _: Script(duration_s=1000.0))
        async with killed_daemon(world):
            await world.submit("w1")
            await until(lambda: bool(world.machine.starts))
        there = replace(parts_of(world), runner=MemoryRunner(other.machine, machine_id="new"))
        async with daemon(world, "b", there):
            await anyio.sleep(600)
            assert world.workset("w1").owner == "a"
            assert other.machine.starts == []
            await world.ask("w1", HostLost())
            await until(lambda: is_in(world, "w1", State.COMPLETE))
        assert other.machine.starts[0] == "w1.2.stage"
        assert len(world.machine.starts) == 1

    play(story)


def test_whoever_vouches_for_the_end_of_a_machine_that_is_there_is_told_so() -> None:
    async def story() -> None:
        world = World(machine=MemoryMachine(lambda _: Script(duration_s=100.0)))
        async with daemon(world):
            await world.submit("w1")
            await until(lambda: is_in(world, "w1", State.IN_PROGRESS))
            await world.ask("w1", HostLost())
            await until(lambda: is_in(world, "w1", State.COMPLETE))
        assert world.states("w1") == ["ready", "in_progress", "complete"]
        rows = world.table.records[world.workset("w1").id]
        assert any("had no effect: it is in progress on host:memory" in r.message for r in rows)

    play(story)


def test_the_steps_of_a_run_share_its_time_limit() -> None:
    async def story() -> None:
        lengths = {"stage": 600.0, "run": 5000.0}
        world = World(machine=MemoryMachine(lambda job: Script(duration_s=lengths[job.step])))
        world.engine_settings = replace(
            world.engine_settings, pipelines={"demo": replace(PIPELINE, timeout_s=1000.0)}
        )
        async with daemon(world):
            await world.submit("w1")
            await until(lambda: is_in(world, "w1", State.FAILED))
            assert 1000 <= anyio.current_time() < 1020
        assert "step run: It reached its time limit" in world.workset("w1").error_details
        assert code_of(world, "w1") == "WS-TIME-001"

    play(story)


@pytest.mark.reported("C", "tasks that run on over a restart are not counted (CGRU#374)")
def test_a_run_takes_its_slot_from_the_start_of_the_daemon_that_adopts_it() -> None:
    """Seen as three runs in two slots: the index was throttled when a daemon came back."""

    async def story() -> None:
        world = World(machine=MemoryMachine(lambda _: Script(duration_s=100)))
        world.engine_settings = replace(world.engine_settings, limits=some_limits(slots=1))
        async with killed_daemon(world):
            await world.submit("w1")
            await until(lambda: bool(world.machine.starts))
        parts = parts_of(world)
        throttled = Throttled(world.table, until_s=anyio.current_time() + 60)
        async with daemon(world, parts=replace(parts, turns=throttled)):
            await world.submit("w2")
            await until(lambda: is_in(world, "w2", State.COMPLETE))
        assert [name[:2] for name in world.machine.starts] == ["w1"] * 5 + ["w2"] * 5

    play(story)


class Throttled(MemoryTurns):
    """A store whose index does not answer until then."""

    def __init__(self, table: Table, until_s: float) -> None:
        super().__init__(table)
        self._until_s = until_s

    async def line_up(self, queue: Queue, *, after: str = "", limit: int) -> Sequence[Turn]:
        if anyio.current_time() < self._until_s:
            raise Transient("throttled")
        return await super().line_up(queue, after=after, limit=limit)


@pytest.mark.reported(
    "A", "a rerun finds what an earlier run left, and is taken for done (autosubmit#43)"
)
def test_a_workset_whose_item_was_deleted_by_hand_is_run_anew_when_it_is_dropped_again() -> None:
    """Seen as a submission in the dead letters: its first audit record existed already."""

    async def story() -> None:
        world = World()
        async with daemon(world):
            await world.submit("w1")
            await until(lambda: is_in(world, "w1", State.COMPLETE))
            del world.table.worksets[world.workset("w1").id]
            await world.submit("w1")
            await until(lambda: is_in(world, "w1", State.COMPLETE))
        assert world.commands.parked == []
        assert world.machine.starts[5:] == [f"w1.2.{step}" for step in STEPS]
        rows = world.table.records[world.workset("w1").id]
        assert [row.seq for row in rows] == list(range(1, len(rows) + 1))
        assert any("its item had been removed" in row.message for row in rows)

    play(story)
