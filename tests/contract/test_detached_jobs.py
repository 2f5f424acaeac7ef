"""What runners that start real processes promise, on top of what every runner does."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from daylily_daemon.adapters.identity import identified
from daylily_daemon.adapters.runners import procfs, shim, telling
from daylily_daemon.adapters.runners.jobdir import JobDirectory, Revoked
from daylily_daemon.adapters.runners.launch import Isolation, Launch
from daylily_daemon.adapters.runners.process import ProcessRunner, follow
from daylily_daemon.domain.errors import Permanent, Transient, Unclear
from daylily_daemon.domain.model import Ended, Job, Outcome
from tests.contract.runner_harness import (
    BASE_ENVIRONMENT,
    Act,
    ProcessHarness,
    TmuxHarness,
    eventually,
    kill_in,
)

OTHER_BOOT = "another boot id"
MARK = "lab/ws.1.run/f"
STUBBORN = "trap '' TERM; echo ready; while :; do sleep 0.05; done"


@pytest.fixture(params=[ProcessHarness, TmuxHarness])
async def harness(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ProcessHarness]:
    made: ProcessHarness = request.param(tmp_path)
    yield made
    await made.clean_up()


@pytest.fixture
async def processes(tmp_path: Path) -> AsyncIterator[ProcessHarness]:
    made = ProcessHarness(tmp_path)
    yield made
    await made.clean_up()


async def run(harness: ProcessHarness, job: Job) -> Outcome:
    await harness.runner().ensure(job)
    return await harness.runner().wait(job)


async def start(harness: ProcessHarness, job: Job) -> None:
    await harness.runner().ensure(job)
    await eventually(lambda: harness.starts(job) == 1)


# Stopping


async def test_stopping_ends_a_command_that_ignores_the_polite_signal(
    harness: ProcessHarness,
) -> None:
    job = harness.shell(STUBBORN)
    await start(harness, job)
    await eventually(lambda: "ready" in harness.lines(job, "log"))
    await harness.runner().stop(job)
    assert not harness.is_running(job)
    assert (await harness.runner().wait(job)).ended is Ended.STOPPED


async def test_stopping_reaches_descendants_that_left_the_session(harness: ProcessHarness) -> None:
    (harness.directory / "stubborn").write_text(STUBBORN)
    (harness.directory / "between").write_text('setsid sh "$0/stubborn" & wait')
    away = f"(setsid sh -c '. \"$0/between\"' {harness.directory} &); sleep 60"
    job = harness.shell(away)
    await start(harness, job)
    await eventually(lambda: "ready" in harness.lines(job, "log"))
    await harness.runner().stop(job)
    assert not harness.is_running(job)


async def test_a_command_may_use_the_grace_period_to_put_things_in_order(
    processes: ProcessHarness,
) -> None:
    job = processes.shell(
        "trap 'echo tidied; exit 9' TERM; echo ready; while :; do sleep 0.05; done"
    )
    await start(processes, job)
    await eventually(lambda: "ready" in processes.lines(job, "log"))
    await processes.runner().stop(job)
    outcome = await processes.runner().wait(job)
    assert (outcome.ended, outcome.code) == (Ended.STOPPED, 9)
    assert "tidied" in outcome.tail


async def test_a_slow_launcher_finds_the_token_revoked_and_does_nothing(
    processes: ProcessHarness,
) -> None:
    job = processes.shell("true")
    JobDirectory(job.directory).prepare(job, MARK, "m1")
    await processes.runner().stop(job)
    late = await anyio.run_process(
        Launch(job, job.directory, MARK).argv(Isolation.SESSION), check=False
    )
    assert late.returncode == shim.TOKEN_LOST
    assert processes.starts(job) == 0


async def test_a_start_given_up_halfway_is_completed_by_the_next_try(
    processes: ProcessHarness,
) -> None:
    jobs = [processes.shell("echo $(seq 20); exit 8") for _ in range(9)]
    for number, job in enumerate(jobs):
        with anyio.move_on_after(0.01 * number):
            await processes.runner().ensure(job)
    for job in jobs:
        assert (await run(processes, job)).code == 8
        assert processes.starts(job) == 1


# Losing the shim, the host, or the daemon


async def test_a_killed_shim_leaves_an_end_that_is_waited_for_and_then_unclear(
    processes: ProcessHarness,
) -> None:
    job = processes.shell("while :; do sleep 0.05; done")
    await start(processes, job)
    procfs.send(processes.shim(job), signal.SIGKILL)
    with anyio.move_on_after(0.4) as waiting:
        await processes.runner().wait(job)
    assert waiting.cancelled_caught, "the command was still running"
    kill_in(job.directory)
    for _ in range(2):
        with pytest.raises(Unclear, match=r"cannot be seen from here.* --host-gone"):
            await processes.runner().wait(job)
        await processes.runner().ensure(job)
    assert processes.starts(job) == 1


async def test_stopping_ends_what_a_killed_shim_left_running(processes: ProcessHarness) -> None:
    (processes.directory / "stubborn").write_text(STUBBORN)
    job = processes.shell(f"(setsid sh {processes.directory}/stubborn &); sleep 60")
    await start(processes, job)
    await eventually(lambda: "ready" in processes.lines(job, "log"))
    procfs.send(processes.shim(job), signal.SIGKILL)
    with pytest.raises(Unclear, match="left no record"):
        await processes.runner().stop(job)
    assert not processes.is_running(job)
    with pytest.raises(Unclear, match="left no record"):
        await processes.runner().wait(job)


async def test_a_record_that_becomes_visible_late_still_counts(processes: ProcessHarness) -> None:
    job = processes.shell("exit 3")
    await run(processes, job)
    record = Path(job.directory) / "exit.json"
    hidden = record.rename(record.with_suffix(".hidden"))
    home = identified(str(processes.directory), processes.machine)
    runner = ProcessRunner(home, base_environment={}, late_record_s=10.0)

    async def appear() -> None:
        await anyio.sleep(0.3)
        hidden.rename(record)

    async with anyio.create_task_group() as group:
        group.start_soon(appear)
        assert (await runner.wait(job)).code == 3


async def test_a_pid_that_was_given_to_another_process_is_not_the_shim(
    processes: ProcessHarness,
) -> None:
    job = processes.shell("true")
    os.makedirs(job.directory)
    async with await anyio.open_process(["sleep", "60"]) as stranger:
        forged = {"state": "started", "boot_id": shim.boot_id(), "pid": stranger.pid}
        (Path(job.directory) / "token").write_text(json.dumps({**forged, "start_time": 1}))
        with pytest.raises(Unclear):
            await processes.runner().stop(job)
        with pytest.raises(Unclear):
            await processes.runner().wait(job)
        assert stranger.returncode is None
        stranger.kill()


async def test_another_boot_id_means_that_the_host_was_lost(harness: ProcessHarness) -> None:
    job = harness.shell("while :; do sleep 0.05; done")
    await start(harness, job)
    harness.machine = replace(harness.machine, boot_id=OTHER_BOOT)
    assert (await harness.runner().wait(job)).ended is Ended.HOST_LOST
    await harness.runner().stop(job)
    assert harness.starts(job) == 1


@pytest.mark.parametrize("asked", [False, True])
async def test_a_polite_shutdown_of_the_host_is_not_taken_for_a_cancel(
    processes: ProcessHarness, asked: bool
) -> None:
    job = processes.shell("sleep 60")
    await start(processes, job)
    if asked:
        await processes.runner().stop(job)
    else:
        procfs.send(processes.shim(job), signal.SIGTERM)
    assert (await processes.runner().wait(job)).ended is Ended.STOPPED
    processes.machine = replace(processes.machine, boot_id=OTHER_BOOT)
    expected = Ended.STOPPED if asked else Ended.HOST_LOST
    assert (await processes.runner().wait(job)).ended is expected


async def test_a_record_written_before_a_restart_is_still_the_outcome(
    processes: ProcessHarness,
) -> None:
    job = processes.shell("exit 7")
    await run(processes, job)
    processes.machine = replace(processes.machine, boot_id=OTHER_BOOT)
    assert (await processes.runner().wait(job)).code == 7


async def test_a_damaged_record_is_neither_success_nor_failure(processes: ProcessHarness) -> None:
    job = processes.shell("true")
    await run(processes, job)
    for damage in ("", "[1]", '{"ended": "exited"}', '{"ended": "melted"}'):
        (Path(job.directory) / "exit.json").write_text(damage)
        with pytest.raises(Transient, match=r"exit\.json is not the record"):
            await processes.runner().wait(job)


# What a job leaves behind


async def test_a_background_process_that_holds_the_log_does_not_keep_the_job_alive(
    harness: ProcessHarness,
) -> None:
    job = harness.shell("(setsid sleep 60 &); sleep 60 & exit 2")
    with anyio.fail_after(10):
        outcome = await run(harness, job)
    assert (outcome.ended, outcome.code) == (Ended.EXITED, 2)
    assert not harness.is_running(job)


async def test_output_still_in_flight_when_the_command_ends_is_kept(
    processes: ProcessHarness,
) -> None:
    job = processes.shell("exec > /dev/null; (sleep 0.2; echo late >&2) & exit 0")
    assert "late" in (await run(processes, job)).tail


async def test_a_flood_of_output_stays_within_the_limit_and_keeps_the_end(
    processes: ProcessHarness,
) -> None:
    job = processes.shell("head -c 5000000 /dev/zero | tr '\\0' x; echo; echo the end")
    outcome = await run(processes, replace(job, log_limit_bytes=100_000))
    sizes = [(Path(job.directory) / name).stat().st_size for name in ("log", "log.1")]
    assert sum(sizes) <= 100_000
    assert outcome.tail.endswith("the end\n")
    assert len(outcome.tail) <= telling.END_BYTES


async def test_a_log_that_cannot_be_written_does_not_disturb_the_job(
    harness: ProcessHarness,
) -> None:
    job = harness.shell("head -c 300000 /dev/zero; exit 4")
    os.makedirs(job.directory)
    (Path(job.directory) / "log").symlink_to("/dev/full")
    assert (await run(harness, job)).code == 4
    assert harness.exit_record(job)["dropped_log_bytes"] == 300_000


# Commands that cannot be run, files that tell success


@pytest.mark.parametrize(
    ("argv", "code", "why"),
    [
        (("no-such-command-here",), 127, "cannot run no-such-command-here: No such file"),
        (("/etc/passwd",), 126, "cannot run /etc/passwd: Permission denied"),
        (("echo", "a\0b"), 126, "embedded null byte"),
    ],
)
async def test_a_command_that_cannot_be_run_ends_as_in_a_shell(
    processes: ProcessHarness, argv: tuple[str, ...], code: int, why: str
) -> None:
    readable = {"PATH": "/usr/bin:/bin"}  # a folder of the path that is closed to us says 126
    outcome = await run(processes, processes.job(Act(), argv=argv, environment=readable))
    assert (outcome.ended, outcome.code) == (Ended.EXITED, code)
    assert why in outcome.tail


async def test_a_working_directory_that_cannot_be_entered_is_an_outcome(
    processes: ProcessHarness,
) -> None:
    outcome = await run(processes, processes.shell("true", cwd="/etc/passwd/below"))
    assert outcome.code == 126
    assert "cannot enter the directory /etc/passwd/below" in outcome.tail


async def test_a_job_without_a_command_is_refused(processes: ProcessHarness) -> None:
    with pytest.raises(Permanent, match="names no command"):
        await processes.runner().ensure(processes.job(Act(), argv=()))


async def test_a_directory_that_cannot_be_made_is_no_verdict(processes: ProcessHarness) -> None:
    job = processes.shell("true")
    await anyio.Path(job.directory).touch()
    for call in (processes.runner().ensure, processes.runner().stop, processes.runner().wait):
        with pytest.raises(Transient):
            await call(job)
    processes.jobs.clear()


async def test_a_launcher_that_cannot_be_run_is_no_verdict(
    processes: ProcessHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", "/nonexistent/python")
    with pytest.raises(Transient, match="cannot be run"):
        await processes.runner().ensure(processes.shell("true"))


@pytest.mark.parametrize("made", [True, False])
async def test_success_takes_the_success_file_besides_a_zero_exit_code(
    processes: ProcessHarness, tmp_path: Path, made: bool
) -> None:
    job = processes.shell(
        "touch done.txt" if made else "true", cwd=str(tmp_path / "new"), success_file="done.txt"
    )
    outcome = await run(processes, job)
    assert outcome.success_file_found is made
    assert outcome.succeeded is made


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        ("echo '{\"samples\": 3}' > report.json", {"samples": 3}),
        ("echo '[1]' > report.json", {}),
        ("echo '{\"x\": NaN}' > report.json", {}),
        ("printf '%070000d' 0 > report.json", {}),
        ("head -c 60000 /dev/zero | tr '\\0' '[' > report.json", {}),
        ("mkfifo report.json", {}),
        ("true", {}),
    ],
)
async def test_a_report_is_a_small_json_object_or_nothing(
    processes: ProcessHarness, write: str, expected: dict[str, int]
) -> None:
    outcome = await run(processes, processes.shell(write, report_file="report.json"))
    assert outcome.succeeded
    assert outcome.report == expected


async def test_a_job_sees_the_filtered_environment_and_its_own_additions(
    processes: ProcessHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAEMON_SECRET", "hunter2")
    job = processes.shell("env", environment={"DAYLILY_PROJECT": "lab 1 ünïcode"})
    tail = (await run(processes, job)).tail.splitlines()
    assert "DAYLILY_PROJECT=lab 1 ünïcode" in tail
    assert f"PATH={BASE_ENVIRONMENT['PATH']}" in tail
    assert not any("hunter2" in line for line in tail)


@pytest.mark.reported(
    "C", "logs and scripts of runs that all users may read (moadim-io/daemon#382)"
)
async def test_the_directory_of_a_job_is_private(processes: ProcessHarness) -> None:
    job = processes.shell("true")
    await run(processes, job)
    assert os.stat(job.directory).st_mode & 0o777 == 0o700


async def test_revoking_is_atomic_against_starting(processes: ProcessHarness) -> None:
    jobs = [processes.shell("true") for _ in range(6)]

    async def ensure(job: Job) -> None:
        try:
            await processes.runner().ensure(job)
        except Permanent:
            assert isinstance(JobDirectory(job.directory).token(), Revoked)

    async with anyio.create_task_group() as group:
        for number, job in enumerate(jobs):
            group.start_soon(ensure, job)
            await anyio.sleep(0.01 * number)
            group.start_soon(processes.runner().stop, job)
    for job in jobs:
        revoked = isinstance(JobDirectory(job.directory).token(), Revoked)
        assert not (revoked and processes.starts(job))


async def test_a_followed_log_arrives_whole_and_ends_with_the_job(
    processes: ProcessHarness,
) -> None:
    job = processes.shell("for i in $(seq 30); do echo line $i; sleep 0.01; done")
    await start(processes, job)
    with anyio.fail_after(10):
        text = b"".join([piece async for piece in follow(job.directory, lines=1000)])
    assert text.decode().splitlines() == [f"line {number}" for number in range(1, 31)]


# systemd


@pytest.mark.reported(
    "C", "secrets in the arguments of systemd-run (OpenNebula/one#7823, vm0#17730)"
)
def test_under_systemd_no_value_of_the_environment_is_in_the_arguments(
    processes: ProcessHarness,
) -> None:
    job = processes.job(Act(), environment={"SECRET": "hunter2"}, directory="/var/lib/a$b")
    launch = Launch(job, job.directory, MARK, ("PATH", "BASH_FUNC_x%%"))
    argv = launch.argv(Isolation.SYSTEMD)
    assert "--setenv=PATH" in argv
    assert not any("=hunter2" in word or "BASH_FUNC" in word for word in argv)
    assert f"--unit=daylily-job-{job.name}.service" in argv
    assert argv[-2:] == ["--foreground", "/var/lib/a$$b"]
    processes.jobs.clear()
