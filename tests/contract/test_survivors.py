"""What the lack of a token, of a record, or of a process proves: the cases in which a job could run twice."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeVar

import anyio
import pytest

from daylily_daemon.adapters.blocking import Disk
from daylily_daemon.adapters.runners import procfs, remains, shim
from daylily_daemon.adapters.runners.jobdir import JobDirectory, Revoked, Started
from daylily_daemon.adapters.runners.launch import Isolation, Launch
from daylily_daemon.domain.errors import Permanent, Transient, Unclear
from daylily_daemon.domain.model import Ended, Job, JobName
from tests.contract.gated_jobs import (
    a_job,
    end_all,
    gated,
    kill,
    kill_shim_and_command,
    nap,
    pids_of,
    start,
)
from tests.contract.runner_harness import Act, ProcessHarness, eventually

T = TypeVar("T")
ROOT: Final = Path(__file__).resolve().parents[2]


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[ProcessHarness]:
    made = ProcessHarness(tmp_path / "state" / "jobs")
    yield made
    for mark in ("state", "moved", "copy"):
        end_all(str(tmp_path / mark))


# Survivors of another attempt


@pytest.mark.reported(
    "A", "an executor that died while its client was away is started again (nomad#17424)"
)
async def test_nothing_is_started_beside_what_an_earlier_attempt_left(lab: ProcessHarness) -> None:
    first, second = a_job(lab, gated(lab)), a_job(lab, "exit 5", attempt=2)
    await start(lab, first)
    kill(lab.shim(first))
    command = JobDirectory(first.directory).command()
    assert command is not None
    with pytest.raises(Unclear, match=f"{command.pid} of job ws-0.1.run .* kill {command.pid}"):
        await lab.runner().ensure(second)
    assert lab.starts(second) == 0
    kill(command)
    await lab.runner().ensure(second)
    assert (await lab.runner().wait(second)).code == 5


async def test_what_earlier_versions_started_is_found_by_the_folder_it_names(
    lab: ProcessHarness,
) -> None:
    first, second = a_job(lab, "true"), a_job(lab, "exit 5", attempt=2)
    environment = {**os.environ, shim.PLACE: first.directory}
    async with await anyio.open_process(["sleep", "60"], env=environment) as left:
        with pytest.raises(Unclear, match=f"Process {left.pid} of job .* runs on this machine"):
            await lab.runner().ensure(second)
        left.kill()
    await lab.runner().ensure(second)


async def test_jobs_of_other_worksets_and_installations_are_in_nobodys_way(
    lab: ProcessHarness, tmp_path: Path
) -> None:
    job = a_job(lab, "exit 0", attempt=2)
    async with AsyncExitStack() as others:
        for mark in ("lab/ws-00.1.run/f", "elsewhere/ws-0.1.run/f"):
            environment = {shim.MARK: mark, "PATH": os.environ["PATH"]}
            other = await anyio.open_process(["sleep", "60"], env=environment, cwd=tmp_path)
            await others.enter_async_context(other)
            others.callback(other.kill)
        await lab.runner().ensure(job)
        assert (await lab.runner().wait(job)).succeeded


# An end without a record


@pytest.mark.reported("A", "a process tree found by a variable that children drop (fastbuild#486)")
async def test_a_child_without_environment_is_alive_by_its_session(lab: ProcessHarness) -> None:
    job = a_job(lab, f"env -i {nap(60)} & wait")
    await start(lab, job)
    await eventually(lambda: bool(pids_of(nap(60))))
    await kill_shim_and_command(lab, job)
    with anyio.move_on_after(1) as waiting:
        await lab.runner().wait(job)
    assert waiting.cancelled_caught, "its child was still running"
    with pytest.raises(Unclear, match="left no record"):
        await lab.runner().stop(job)
    assert pids_of(nap(60)) == []


@pytest.mark.reported("A", "processes that live on after their executor was killed (nomad#6980)")
async def test_a_child_that_washed_everything_off_keeps_the_end_unclear(
    lab: ProcessHarness,
) -> None:
    job = a_job(lab, f"setsid env -i {nap(61)} & wait")
    await start(lab, job)
    await eventually(lambda: bool(pids_of(nap(61))))
    await kill_shim_and_command(lab, job)
    for call in (lab.runner().wait, lab.runner().stop, lab.runner().wait):
        with pytest.raises(Unclear, match=r"`setsid env -i`.*retry ws-0 --host-gone"):
            await call(job)
    assert len(pids_of(nap(61))) == 1
    os.kill(pids_of(nap(61))[0], signal.SIGKILL)


@contextmanager
def control_group(name: str) -> Iterator[Path]:
    """Yield a group of cgroup2, which ends with this; skip where nobody may make one."""
    folder = Path(remains._folder(f"/{name}"))
    try:
        folder.mkdir()
    except OSError as exc:
        pytest.skip(f"this machine lets nobody make a control group: {exc}")
    try:
        yield folder
    finally:
        for pid in map(int, (folder / "cgroup.procs").read_text().split()):
            os.kill(pid, signal.SIGKILL)
        for _ in range(200):
            try:
                folder.rmdir()
                break
            except OSError:
                time.sleep(0.05)


async def started_in(group: Path, lab: ProcessHarness, job: Job) -> None:
    """Start ``job`` in a control group, as systemd does with what belongs to a unit."""
    runner, launch = lab.runner(), Launch(job, job.directory, f"lab/{job.name}/f")
    JobDirectory(job.directory).prepare(job, launch.mark, lab.machine.id)
    enter = f'echo $$ > {group}/cgroup.procs; exec "$0" "$@"'
    argv = ("sh", "-c", enter, *launch.argv(Isolation.SESSION))
    await anyio.run_process(argv, env=launch.environment(dict(os.environ), Isolation.SESSION))
    await runner.ensure(job)
    await eventually(lambda: lab.starts(job) == 1)


@pytest.mark.needs_root  # for control groups
@pytest.mark.parametrize("washed", [True, False])
async def test_a_control_group_proves_what_marks_cannot(lab: ProcessHarness, washed: bool) -> None:
    child = f"setsid env -i {nap(62)} & wait" if washed else "wait"
    job = a_job(lab, f"{nap(63)} & {child}")
    with control_group(f"daylily-test-{os.getpid()}") as group:
        await started_in(group, lab, job)
        await eventually(lambda: len(pids_of(nap(62))) == washed)
        await kill_shim_and_command(lab, job)
        for pid in pids_of(nap(63)):
            os.kill(pid, signal.SIGKILL)
        if washed:
            with pytest.raises(Unclear):
                await lab.runner().wait(job)
            os.kill(pids_of(nap(62))[0], signal.SIGKILL)
        await eventually(lambda: not (group / "cgroup.procs").read_text())
        assert (await lab.runner().wait(job)).ended is Ended.LOST
        await lab.runner().stop(job)
    assert (await lab.runner().wait(job)).ended is Ended.LOST, "the group is gone"


@pytest.mark.needs_root  # for control groups
async def test_what_belongs_to_others_in_a_shared_group_does_not_hide_the_end(
    lab: ProcessHarness,
) -> None:
    """As in the shipped unit: all jobs, and the daemon, live in one group."""
    job, name = a_job(lab, f"wait; {nap(64)}"), f"daylily-test-shared-{os.getpid()}"
    other = replace(lab.shell(f"env -i {nap(65)} & wait"), name=JobName("other.1.run"))
    with control_group(name) as group:
        await started_in(group, lab, other)
        await started_in(group, lab, job)
        await orphan_in(group, f"{nap(66)}", {shim.VIEW_MARK: "1"})
        await kill_shim_and_command(lab, job)
        for pid in pids_of(nap(64)):
            os.kill(pid, signal.SIGKILL)
        assert (await lab.runner().wait(job)).ended is Ended.LOST
        await orphan_in(group, f"{nap(67)}", {})
        with pytest.raises(Unclear):
            await lab.runner().wait(job)


async def orphan_in(group: Path, command: str, environment: dict[str, str]) -> None:
    """Leave a process in ``group`` that is nobody's child."""
    script = f"echo $$ > {group}/cgroup.procs; (setsid {command} > /dev/null 2>&1 &)"
    await anyio.run_process(("sh", "-c", script), env={"PATH": os.environ["PATH"], **environment})
    await eventually(lambda: bool(pids_of(command)))


# Answers that lie, disks that stall


def over_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make ``link`` answer EEXIST for what it did, as a repeated request of NFS does."""
    real = os.link

    def link(source: str, target: str) -> None:
        real(source, target)
        raise FileExistsError(17, "File exists", target)

    monkeypatch.setattr(os, "link", link)


@pytest.mark.reported("A", "NFS reports failure for a link that landed (prime-agent#2035)")
def test_a_shim_knows_its_token_whatever_link_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = {"directory": str(tmp_path), "mark": "lab/ws.1.run/f"}
    over_the_network(monkeypatch)
    assert shim.win_token(spec, shim.identity(os.getpid()))
    assert not shim.win_token(spec, shim.identity(os.getpid()))
    assert os.listdir(tmp_path) == ["token"]


def test_a_link_whose_answer_was_an_error_is_looked_at_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.link

    def link(source: str, target: str) -> None:
        real(source, target)
        raise OSError(5, "Input/output error", target)

    monkeypatch.setattr(os, "link", link)
    spec = {"directory": str(tmp_path), "mark": "lab/ws.1.run/f"}
    assert shim.win_token(spec, shim.identity(os.getpid()))


async def test_a_revocation_is_known_and_durable_whatever_link_said(
    lab: ProcessHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = a_job(lab, "true")
    synced: list[str] = []
    over_the_network(monkeypatch)
    monkeypatch.setattr(shim, "fsync_directory", synced.append)
    await lab.runner().stop(job)
    assert synced == [job.directory]
    assert isinstance(JobDirectory(job.directory).token(), Revoked)
    with pytest.raises(Permanent, match="revoked"):
        await lab.runner().ensure(job)


class StalledDisk(Disk):
    """Each call hangs in its thread, as on a mount that is gone, until the disk answers."""

    def __init__(self, what: str, limit_s: float) -> None:
        super().__init__(what, limit_s=limit_s)
        self.answers = threading.Event()

    async def run(self, work: Callable[[], T]) -> T:
        def late() -> T:
            self.answers.wait()
            return work()

        return await super().run(late)


@pytest.mark.reported("B", "a read of /proc or of a stalled disk never returns (moby#15204)")
async def test_a_disk_that_stalls_is_an_unknown_answer_in_bounded_time(lab: ProcessHarness) -> None:
    job, runner = a_job(lab, "true"), lab.processes()
    disk = runner._disk = StalledDisk("job folders", limit_s=0.2)
    for call in (runner.look, runner.ensure, runner.wait, runner.stop):
        with anyio.fail_after(5), pytest.raises(Transient, match="does not answer"):
            await call(job)
    disk.answers.set()


# Warnings


async def test_what_was_left_behind_or_lost_is_a_warning(lab: ProcessHarness) -> None:
    job = a_job(lab, "sleep 60 & sleep 60 & exit 0")
    await start(lab, job)
    outcome = await lab.runner().wait(job)
    assert outcome.succeeded
    (warning,) = outcome.warnings
    assert warning.startswith(
        "2 processes that the command left in the background were ended: sleep ("
    )


async def test_output_that_was_lost_and_a_report_that_is_none_are_warnings(
    lab: ProcessHarness,
) -> None:
    job = a_job(lab, "echo '[1]' > r.json; echo lost", report_file="r.json", cwd="")
    os.makedirs(job.directory)
    os.symlink("/dev/full", f"{job.directory}/log")
    await start(lab, job)
    assert (await lab.runner().wait(job)).warnings == (
        "5 bytes of its output could not be written to its log.",
        "Its report r.json was left out: it is not an object.",
    )


# Units


@pytest.mark.reported(
    "G", "a unit of a user has other limits than the program that makes it (scylladb#7133)"
)
def test_a_unit_has_the_umask_and_the_open_files_of_the_daemon(lab: ProcessHarness) -> None:
    job = lab.job(Act())
    before = os.umask(0o027)
    try:
        argv = Launch(job, job.directory, "lab/ws.1.run/f").argv(Isolation.SYSTEMD)
    finally:
        os.umask(before)
    assert "--property=UMask=0027" in argv
    (limit,) = [word for word in argv if word.startswith("--property=LimitNOFILE=")]
    soft, _, hard = limit.rpartition("=")[2].partition(":")
    assert soft
    assert hard
    lab.jobs.clear()


async def test_a_thousand_jobs_are_watched_with_few_descriptors() -> None:
    me, watch = procfs.Identity.parse(shim.identity(os.getpid())), procfs.Watch(poll_s=0.05)
    before = len(os.listdir("/proc/self/fd"))
    async with anyio.create_task_group() as group:
        for _ in range(1000):
            group.start_soon(watch.until_gone, me)
        await anyio.sleep(0.2)
        assert len(os.listdir("/proc/self/fd")) <= before + procfs.DESCRIPTORS + 1
        group.cancel_scope.cancel()


async def test_the_end_of_one_that_is_only_looked_at_is_noticed() -> None:
    watch = procfs.Watch(descriptors=0, poll_s=0.02)
    async with await anyio.open_process(["sleep", "60"]) as process:
        known = procfs.Identity.parse(shim.identity(process.pid))
        with anyio.move_on_after(0.1) as waiting:
            await watch.until_gone(known)
        assert waiting.cancelled_caught
        process.kill()
        with anyio.fail_after(5):
            await watch.until_gone(known)


def test_a_token_tells_how_and_where_it_was_won(tmp_path: Path) -> None:
    spec = {"directory": str(tmp_path), "mark": "lab/ws.1.run/f", "machine": "i-1", "grace_s": 3}
    assert shim.win_token(spec, shim.identity(os.getpid()))
    token = JobDirectory(str(tmp_path)).token()
    assert isinstance(token, Started)
    assert (token.machine, token.mark, token.terms.grace_s) == ("i-1", "lab/ws.1.run/f", 3.0)
    assert token.shim.in_sight
