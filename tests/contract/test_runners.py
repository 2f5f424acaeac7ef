"""What every runner promises, the one in memory included."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from daylily_daemon.adapters.host import SystemClock
from daylily_daemon.domain.errors import Permanent, Transient, Unclear
from daylily_daemon.domain.model import Ended, Job, Outcome, Progress
from daylily_daemon.ports import Runner
from tests.contract.runner_harness import (
    Act,
    Harness,
    MemoryHarness,
    ProcessHarness,
    TmuxHarness,
    eventually,
)

HARNESSES = {"memory": MemoryHarness, "process": ProcessHarness, "tmux": TmuxHarness}


@pytest.fixture(params=HARNESSES)
async def harness(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Harness]:
    made: Harness = HARNESSES[request.param](tmp_path)
    yield made
    await made.clean_up()


@pytest.mark.parametrize("code", [0, 77])
async def test_the_exit_code_of_the_job_is_reported(harness: Harness, code: int) -> None:
    runner, job = harness.runner(), harness.job(Act(code=code))
    await runner.ensure(job)
    outcome = await runner.wait(job)
    assert (outcome.ended, outcome.code) == (Ended.EXITED, code)
    assert outcome.succeeded is (code == 0)


async def test_a_signal_that_ended_the_job_is_told_from_an_exit_code(harness: Harness) -> None:
    runner, job = harness.runner(), harness.job(Act(dies_of=signal.SIGUSR1))
    await runner.ensure(job)
    outcome = await runner.wait(job)
    assert (outcome.ended, outcome.code) == (Ended.SIGNALLED, signal.SIGUSR1)


async def test_a_job_that_exceeds_its_time_is_ended_and_told_so(harness: Harness) -> None:
    runner, job = harness.runner(), harness.job(Act(lasts_s=60), timeout_s=0.2)
    await runner.ensure(job)
    outcome = await runner.wait(job)
    assert outcome.ended is Ended.TIMED_OUT
    assert outcome.duration_s >= 0.2
    assert not harness.is_running(job)


async def test_a_job_that_was_never_started_is_unknown_not_failed(harness: Harness) -> None:
    runner, job = harness.runner(), harness.job(Act())
    with pytest.raises(Transient, match="never started"):
        await runner.wait(job)
    assert await runner.progress(job) is None


async def test_a_job_stopped_before_its_start_never_runs(harness: Harness) -> None:
    runner, job = harness.runner(), harness.job(Act())
    await runner.stop(job)
    with pytest.raises(Permanent, match="revoked"):
        await runner.ensure(job)
    assert (await runner.wait(job)).ended is Ended.STOPPED
    await runner.stop(job)
    assert harness.starts(job) == 0


async def test_a_running_job_is_stopped_however_often_that_is_asked(harness: Harness) -> None:
    runner, job = harness.runner(), harness.job(Act(lasts_s=60))
    await runner.ensure(job)
    await eventually(lambda: harness.is_running(job))
    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(runner.stop, job)
    assert not harness.is_running(job)
    await runner.stop(job)
    await runner.ensure(job)
    assert (await runner.wait(job)).ended is Ended.STOPPED
    assert harness.starts(job) == 1


async def test_twenty_starts_at_once_run_the_job_once(harness: Harness) -> None:
    runners, job = [harness.runner() for _ in range(4)], harness.job(Act(lasts_s=0.3))
    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(runners[number % 4].ensure, job)
    assert (await runners[0].wait(job)).succeeded
    assert harness.starts(job) == 1


async def test_a_job_that_has_ended_is_not_started_again(harness: Harness) -> None:
    runner, job = harness.runner(), harness.job(Act(code=3))
    await runner.ensure(job)
    first = await runner.wait(job)
    await runner.ensure(job)
    assert await harness.runner().wait(job) == first
    assert harness.starts(job) == 1


async def test_what_another_attempt_left_under_this_name_is_not_taken_for_this_one(
    harness: Harness,
) -> None:
    """A table that is put back to an older state gives names away a second time."""
    job = harness.job(Act(), key="of-the-first")
    await harness.runner().ensure(job)
    assert (await harness.runner().wait(job)).succeeded
    again, runner = replace(job, key="of-the-second"), harness.runner()
    for ask in (runner.ensure, runner.wait, runner.stop):
        with pytest.raises(Unclear, match="another attempt of this name"):
            await ask(again)
    assert harness.starts(job) == 1


@pytest.mark.parametrize(("started", "asked"), [("", "new"), ("old", "")])
async def test_a_job_of_a_version_that_knew_no_keys_is_known_by_its_name(
    harness: Harness, started: str, asked: str
) -> None:
    job = harness.job(Act(code=3), key=started)
    await harness.runner().ensure(job)
    runner, again = harness.runner(), replace(job, key=asked)
    await runner.ensure(again)
    assert (await runner.wait(again)).code == 3
    assert harness.starts(job) == 1


async def test_a_new_runner_adopts_a_running_job(harness: Harness) -> None:
    act = Act(says="3 of 12 steps", shown=(Progress(0.25, "3 of 12 steps"),), lasts_s=0.3, code=4)
    job = harness.job(act)
    await harness.runner().ensure(job)
    successor = harness.runner()

    async def sees_progress() -> bool:
        seen = await successor.progress(job)
        return seen is not None and replace(seen, output_at=None) == act.shown[0]

    await eventually(sees_progress)
    await successor.ensure(job)
    outcome = await successor.wait(job)
    assert (outcome.ended, outcome.code) == (Ended.EXITED, 4)
    assert harness.starts(job) == 1


async def test_it_is_known_how_long_a_job_has_written_nothing(harness: Harness) -> None:
    job, runner = harness.job(Act(lasts_s=30.0)), harness.runner()
    await runner.ensure(job)

    async def is_quiet() -> bool:
        return 1.0 < await _quiet_s(runner, job) < 5

    await eventually(is_quiet)
    await runner.stop(job)


async def test_a_job_that_writes_is_not_quiet(harness: Harness) -> None:
    if isinstance(harness, MemoryHarness):
        return  # its jobs write nothing
    loud = ("sh", "-c", "while :; do echo .; sleep 0.05; done")
    job, runner = harness.job(Act(), argv=loud), harness.runner()
    await runner.ensure(job)
    await anyio.sleep(2.5)
    assert await _quiet_s(runner, job) < 2, "times are in whole seconds"
    await runner.stop(job)


async def _quiet_s(runner: Runner, job: Job) -> float:
    seen = await runner.progress(job)
    if seen is None or seen.output_at is None:
        return 0.0
    return (SystemClock().now() - seen.output_at).total_seconds()


async def test_giving_up_a_wait_leaves_the_job_alone(harness: Harness) -> None:
    runner, job = harness.runner(), harness.job(Act(lasts_s=0.4, code=5))
    await runner.ensure(job)
    with anyio.move_on_after(0.05) as waiting:
        await runner.wait(job)
    assert waiting.cancelled_caught
    assert (await runner.wait(job)).code == 5


async def test_several_can_wait_for_one_job(harness: Harness) -> None:
    runner, job = harness.runner(), harness.job(Act(lasts_s=0.1, code=6))
    await runner.ensure(job)
    outcomes: list[Outcome] = []

    async def wait() -> None:
        outcomes.append(await runner.wait(job))

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(wait)
    assert [outcome.code for outcome in outcomes] == [6, 6, 6]


async def test_runners_of_one_machine_have_one_scope(harness: Harness) -> None:
    assert harness.runner().scope == harness.runner().scope
    assert harness.runner().scope.startswith("host:")
