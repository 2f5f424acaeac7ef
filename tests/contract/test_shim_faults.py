"""Disks that are full or fail under a shim, and a shim that is killed at any of its system calls.

Whatever happens: a command is started once at most, a shim whose command was started records how it really
ended, and nothing is ever taken for a success that was none. A full disk is a real one (a small tmpfs in
mounts of its own) or a limit on the size of files; single calls are made to fail by strace.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import anyio
import pytest

from daylily_daemon.adapters.runners import procfs, shim
from daylily_daemon.adapters.runners.jobdir import JobDirectory
from daylily_daemon.domain.errors import Transient, Unclear
from daylily_daemon.domain.model import Ended, Job
from tests.contract.runner_harness import ProcessHarness, eventually, running_in, wait_for
from tests.disks import DISK_BYTES, fill_up, small_disk

QUICKER: Final = {"RETRY_RECORD_S: Final = 1.0": 0.05, "LOOK_AGAIN_S: Final = 60.0": 0.2}
"""What the shim of these tests has otherwise than the shipped one."""
CODE: Final = 5
HELD: Final = "/proc/self/fd/3"
"""How the shim names its directory: by the first descriptor it opens."""
MARK: Final = "lab/ws.1.run/f"
TRACED_WITHIN_S: Final = 30

# What fails, and with which error. Of the names of a call this machine has one.
FAILING: Final = {
    "?clone,?clone3,?fork,?vfork": "EAGAIN",
    "fsync": "EIO",
    "ftruncate": "EIO",
    "?link,?linkat": "EIO",
    "openat": "EMFILE",
    "pipe2": "EMFILE",
    "?rename,?renameat,?renameat2": "EIO",
    "?unlink,?unlinkat": "EIO",
    "write": "ENOSPC",
}


@pytest.fixture
async def processes(tmp_path: Path) -> AsyncIterator[ProcessHarness]:
    made = ProcessHarness(tmp_path)
    yield made
    await made.clean_up()


async def start(harness: ProcessHarness, job: Job) -> None:
    await harness.runner().ensure(job)
    await eventually(lambda: harness.starts(job) == 1)


# A full disk


async def test_on_a_full_disk_there_is_still_room_for_the_record(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        processes = ProcessHarness(disk)
        job = processes.shell(f"{wait_for(tmp_path / 'go')}; exit 6")
        await start(processes, job)
        fill_up(disk / "filler")
        (tmp_path / "go").touch()
        assert (await processes.runner().wait(job)).code == 6


async def test_a_job_whose_output_fills_the_disk_goes_on_to_its_true_end(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        processes = ProcessHarness(disk)
        job = processes.shell("head -c 300000 /dev/zero; exit 4")
        await start(processes, job)
        assert (await processes.runner().wait(job)).code == 4
        missing_bytes = processes.exit_record(job)["dropped_log_bytes"]
        assert 300_000 - DISK_BYTES < missing_bytes < 300_000


async def test_a_job_that_finds_the_disk_full_is_not_started_until_there_is_room(
    tmp_path: Path,
) -> None:
    with small_disk(tmp_path / "disk") as disk:
        processes = ProcessHarness(disk)
        job = processes.shell("exit 3")
        fill_up(disk / "filler")
        with pytest.raises(Transient, match="No space left"):
            await processes.runner().ensure(job)
        assert JobDirectory(job.directory).token() is None
        assert processes.starts(job) == 0
        (disk / "filler").unlink()
        await start(processes, job)
        assert (await processes.runner().wait(job)).code == 3


def let_write(process: procfs.Identity, file_bytes: int) -> None:
    _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (file_bytes, hard))


async def ended_unrecorded(processes: ProcessHarness, go: Path) -> Job:
    """Return a job that has ended with 6 while its shim can write nothing at all."""
    job = processes.shell(f"{wait_for(go)}; echo late; exit 6")
    await start(processes, job)
    let_write(processes.shim(job), 0)
    await anyio.Path(go).touch()
    await eventually(lambda: not processes.is_running(job))
    with anyio.move_on_after(0.3) as waiting:
        await processes.runner().wait(job)
    assert waiting.cancelled_caught, "how it ended cannot be known yet"
    return job


async def test_a_record_that_cannot_be_written_is_waited_for(
    processes: ProcessHarness, tmp_path: Path
) -> None:
    job = await ended_unrecorded(processes, tmp_path / "go")
    let_write(processes.shim(job), resource.RLIM_INFINITY)
    assert (await processes.runner().wait(job)).code == 6
    assert processes.starts(job) == 1


async def test_a_shim_killed_before_it_could_record_leaves_an_unclear_end_not_a_success(
    processes: ProcessHarness, tmp_path: Path
) -> None:
    job = await ended_unrecorded(processes, tmp_path / "go")
    procfs.send(processes.shim(job), signal.SIGKILL)
    with pytest.raises(Unclear):
        await processes.runner().wait(job)
    await processes.runner().ensure(job)
    assert processes.starts(job) == 1


# System calls that fail


class Traced:
    """A shim that tries again quickly, under strace. It runs in the foreground; its command is not traced."""

    def __init__(self, folder: Path) -> None:
        assert shutil.which("strace"), "strace is missing: run scripts/system-packages.sh"
        self.folder = folder
        self.log = folder / "trace"
        self.file = folder / "shim.py"
        text = Path(shim.__file__).read_text(encoding="utf-8")
        for shipped, quicker in QUICKER.items():
            assert shipped in text
            text = text.replace(shipped, f"{shipped.partition('=')[0]}= {quicker}")
        self.file.write_text(text, encoding="utf-8")
        self.harness = ProcessHarness(folder)

    def job(self, script: str = f"echo hello; exit {CODE}") -> Job:
        job = self.harness.shell(script)
        JobDirectory(job.directory).prepare(job, MARK, "m1")
        return job

    def run(self, job: Job, *strace: str) -> int:
        tracer = ("strace", "-qq", "-o", str(self.log), *strace, "--") if strace else ()
        argv = (sys.executable, "-IS", "-X", "utf8", str(self.file), "--foreground", job.directory)
        done = subprocess.run(
            (*tracer, *argv), check=False, capture_output=True, timeout=TRACED_WITHIN_S
        )
        assert b"ptrace" not in done.stderr, done.stderr.decode()
        return done.returncode

    def points(self, names: str) -> range:
        """Return the numbers of those calls of a shim that works, from its first look at the job on."""
        self.run(self.job(), "-e", f"trace={names},openat")
        lines = self.log.read_text(errors="replace").splitlines()
        first = next(number for number, line in enumerate(lines) if "spec.json" in line)
        wanted = names.replace("?", "").split(",")
        calls = [line.partition("(")[0] in wanted for line in lines]
        assert any(calls[first:]), "no call of that name was made"
        return range(sum(calls[:first]) + 1, sum(calls) + 1)

    def record(self, job: Job) -> dict[str, Any] | None:
        path = Path(job.directory) / "exit.json"
        found: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
        return found


@pytest.fixture
async def traced(tmp_path: Path) -> AsyncIterator[Traced]:
    made = Traced(tmp_path)
    yield made
    await made.harness.clean_up()


def assert_it_can_still_run(traced: Traced, job: Job) -> None:
    """Nothing has happened: a second shim finds the token free and everything as it should be."""
    assert traced.harness.starts(job) == 0
    assert traced.run(job) == CODE
    assert traced.harness.exit_record(job)["code"] == CODE
    assert traced.harness.starts(job) == 1


@pytest.mark.parametrize("names", FAILING)
def test_whichever_call_fails_the_command_runs_once_and_its_code_is_recorded(
    traced: Traced, names: str
) -> None:
    failed = 0
    for number in traced.points(names):
        job = traced.job()
        traced.run(job, "-e", f"inject={names}:error={FAILING[names]}:when={number}")
        failed += "INJECTED" in traced.log.read_text(errors="replace")
        if not (Path(job.directory) / "token").exists():
            assert_it_can_still_run(traced, job)
            continue
        record, starts = traced.record(job), traced.harness.starts(job)
        assert traced.run(job) == shim.TOKEN_LOST
        assert traced.harness.starts(job) == starts
        where = f"{names} number {number}: {record}"
        if starts:
            assert record is not None, where
            assert (starts, record["ended"], record["code"]) == (1, "exited", CODE), where
        else:
            assert record is None or record["code"] == shim.NOT_EXECUTABLE, where
    assert failed


async def nothing_runs_of(job: Job) -> None:
    await eventually(lambda: not running_in(job.directory))


@pytest.mark.parametrize("names", FAILING)
async def test_a_shim_killed_at_any_call_leaves_the_truth_or_an_unclear_end(
    traced: Traced, names: str
) -> None:
    for number in traced.points(names):
        job = traced.job()
        traced.run(job, "-e", f"inject={names}:signal=KILL:when={number}")
        await nothing_runs_of(job)
        if not (Path(job.directory) / "token").exists():
            assert_it_can_still_run(traced, job)
            continue
        await traced.harness.runner().ensure(job)
        try:
            outcome = await traced.harness.runner().wait(job)
        except Unclear:
            assert traced.record(job) is None, number
        else:
            assert (outcome.ended, outcome.code) == (Ended.EXITED, CODE), number
        assert traced.harness.starts(job) <= 1


@pytest.mark.parametrize(
    ("file", "fault"),
    [
        ("exit.json.tmp", "write:error=ENOSPC:when=1..6"),
        ("exit.json.tmp", "write:error=EDQUOT:when=2..6"),
        ("exit.json.tmp", "fsync:error=EIO:when=1..6"),
        ("exit.json.tmp", "ftruncate:error=EIO:when=2..6"),
        ("exit.json.tmp", "?rename,?renameat,?renameat2:error=EIO:when=1..6"),
        (".", "fsync:error=EIO:when=1..6"),
    ],
)
def test_a_disk_that_fails_for_a_while_delays_the_record_only(
    traced: Traced, file: str, fault: str
) -> None:
    job = traced.job()
    # a call that takes a descriptor is known by the true path, one that takes a name by what the shim says
    paths = [os.path.normpath(os.path.join(place, file)) for place in (job.directory, HELD)]
    assert traced.run(job, "-P", paths[0], "-P", paths[1], "-e", f"inject={fault}") == CODE
    assert traced.log.read_text().count("INJECTED") >= 5
    record = traced.harness.exit_record(job)
    assert (record["ended"], record["code"]) == ("exited", CODE)
    assert traced.harness.starts(job) == 1


def test_lines_that_the_log_could_not_take_are_missed_where_they_were(traced: Traced) -> None:
    job = traced.job("echo one; until grep -q one log; do sleep 0.02; done; echo two; exit 5")
    log = Path(job.directory) / "log"
    fault = "inject=write:error=ENOSPC:when=2"
    assert traced.run(job, "-P", str(log), "-e", fault) == CODE
    assert traced.harness.exit_record(job)["code"] == CODE
    assert traced.harness.exit_record(job)["dropped_log_bytes"] == len("two\n")
    assert log.read_bytes() == b"one\n" + shim.GAP % len("two\n")


# Memory


@contextmanager
def memory_group(name: str, limit_bytes: int) -> Iterator[Path]:
    """Yield the file that takes processes into a control group with so much memory."""
    root = Path("/sys/fs/cgroup")
    unified = (root / "cgroup.subtree_control").exists()
    folder = root / name if unified else root / "memory" / name
    limit = folder / ("memory.max" if unified else "memory.limit_in_bytes")
    try:
        folder.mkdir()
        limit.write_text(str(limit_bytes))
    except OSError as exc:
        if folder.exists():
            folder.rmdir()
        pytest.skip(f"this machine lets nobody limit memory: {exc}")
    try:
        yield folder / "cgroup.procs"
    finally:
        folder.rmdir()


@pytest.mark.needs_root  # to make a control group
def test_a_command_that_the_kernel_kills_for_memory_is_told_from_other_kills(
    traced: Traced,
) -> None:
    greedy = f"exec {sys.executable} -IS -c 'bytearray(200 << 20)'"
    job = replace(traced.job(), argv=("sh", "-c", greedy))
    JobDirectory(job.directory).prepare(job, MARK, "m1")
    with memory_group(f"daylily-test-{os.getpid()}", 48 << 20) as procs:
        enter = f'echo $$ > {procs}; exec "$0" -IS "$1" --foreground "$2"'
        argv = ("sh", "-c", enter, sys.executable, str(traced.file), job.directory)
        subprocess.run(argv, check=False, timeout=TRACED_WITHIN_S)
    assert traced.harness.exit_record(job)["ended"] == Ended.OUT_OF_MEMORY
