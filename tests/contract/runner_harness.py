"""One way to say what a job shall do, understood by every runner under test."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import anyio

from daylily_daemon.adapters.identity import Machine, identified, this_machine
from daylily_daemon.adapters.runners import procfs
from daylily_daemon.adapters.runners.jobdir import JobDirectory, Started
from daylily_daemon.adapters.runners.process import ProcessRunner
from daylily_daemon.adapters.runners.tmux import TmuxRunner
from daylily_daemon.domain.model import Ended, Job, JobName, Outcome, Progress
from daylily_daemon.ports import Runner
from tests.fakes.runner import MemoryMachine, MemoryRunner, Script

BASE_ENVIRONMENT = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
INSTANCE = "i-0123456789abcdef0"
PROGRESS = r"(?P<done>\d+) of (?P<total>\d+) steps"


@dataclass(frozen=True, kw_only=True)
class Act:
    """What a job does: say something, last for a while, leave files, and end."""

    says: str = ""
    lasts_s: float = 0.0
    code: int = 0
    dies_of: int = 0
    shown: tuple[Progress, ...] = ()
    """The progress that a runner finds in what it says."""


async def eventually(
    condition: Callable[[], bool] | Callable[[], Awaitable[bool]], within_s: float = 8.0
) -> None:
    """Return when ``condition`` holds; fail once it has not for so long."""
    with anyio.fail_after(within_s):
        while True:
            held = condition()
            if held if isinstance(held, bool) else await held:
                return
            await anyio.sleep(0.01)


def running_in(directory: str) -> list[int]:
    """Return the processes that work in ``directory``: found otherwise than the runner finds them."""
    found = []
    for name in os.listdir("/proc"):
        with suppress(OSError):
            if name.isdigit() and os.readlink(f"/proc/{name}/cwd") == directory:
                found.append(int(name))
    return found


def kill_in(directory: str) -> None:
    for pid in running_in(directory):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def wait_for(path: Path) -> str:
    """Return shell text that waits until ``path`` exists."""
    return f"until [ -e {path} ]; do sleep 0.02; done"


class Harness(Protocol):
    def runner(self) -> Runner:
        """Return a new runner, as after a restart of the daemon."""
        ...

    def job(self, act: Act, **changes: Any) -> Job: ...

    def starts(self, job: Job) -> int:
        """Return how often the command of ``job`` was really run."""
        ...

    def is_running(self, job: Job) -> bool: ...

    async def clean_up(self) -> None: ...


def plain_job(directory: Path, number: int) -> Job:
    return Job(
        name=JobName(f"ws-{number}.1.run"),
        directory=str(directory / f"ws-{number}.1.run"),
        step="run",
        argv=("true",),
        timeout_s=30.0,
        grace_s=0.3,
        progress_pattern=PROGRESS,
    )


class MemoryHarness:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._acts: dict[JobName, Act] = {}
        self.machine = MemoryMachine(lambda job: _script(self._acts[job.name]))

    def runner(self) -> Runner:
        return MemoryRunner(self.machine)

    def job(self, act: Act, **changes: Any) -> Job:
        job = replace(plain_job(self._directory, len(self._acts)), **changes)
        self._acts[job.name] = act
        return job

    def starts(self, job: Job) -> int:
        return self.machine.starts.count(job.name)

    def is_running(self, job: Job) -> bool:
        return job.name in self.machine.running()

    async def clean_up(self) -> None:
        self.machine.restart()


def _script(act: Act) -> Script:
    outcome = Outcome(ended=Ended.EXITED, code=act.code)
    if act.dies_of:
        outcome = Outcome(ended=Ended.SIGNALLED, code=act.dies_of)
    return Script(duration_s=act.lasts_s, outcome=outcome, progress=act.shown)


@dataclass
class ProcessHarness:
    directory: Path
    jobs: list[Job] = field(default_factory=list)
    machine: Machine = field(
        default_factory=lambda: replace(this_machine(), id=INSTANCE, proven=True)
    )

    def processes(self, home: str = "") -> ProcessRunner:
        """Return a runner for the jobs in ``home``, which is the harness's folder by itself."""
        return ProcessRunner(
            identified(home or str(self.directory), self.machine),
            base_environment=BASE_ENVIRONMENT,
            late_record_s=0.2,
        )

    def runner(self) -> Runner:
        return self.processes()

    def job(self, act: Act, **changes: Any) -> Job:
        end = f"kill -{act.dies_of} $$" if act.dies_of else f"exit {act.code}"
        says = f"printf '%s\\n' {shlex.quote(act.says)}" if act.says else ":"
        # not exec'd: the shell stays, so that stopping has a tree to stop
        return self.shell(f"{says}; sleep {act.lasts_s}; {end}", **changes)

    def shell(self, script: str, **changes: Any) -> Job:
        """Return a job that notes its start and then runs ``script``."""
        started = 'echo $$ >> "$DAYLILY_JOB_DIRECTORY/starts"'
        job = replace(
            plain_job(self.directory, len(self.jobs)), argv=("sh", "-c", f"{started}; {script}")
        )
        self.jobs.append(replace(job, **changes))
        return self.jobs[-1]

    def starts(self, job: Job) -> int:
        return len(self.lines(job, "starts"))

    def is_running(self, job: Job) -> bool:
        return bool(running_in(job.directory))

    def lines(self, job: Job, name: str) -> list[str]:
        path = Path(job.directory) / name
        return path.read_text(errors="replace").splitlines() if path.exists() else []

    def shim(self, job: Job) -> procfs.Identity:
        token = JobDirectory(job.directory).token()
        assert isinstance(token, Started)
        return token.shim

    def exit_record(self, job: Job) -> dict[str, Any]:
        record: dict[str, Any] = json.loads((Path(job.directory) / "exit.json").read_text())
        return record

    async def clean_up(self) -> None:
        for job in self.jobs:
            files = JobDirectory(job.directory)
            token = files.token()
            if isinstance(token, Started):
                procfs.send(token.shim, signal.SIGKILL)
            kill_in(job.directory)


@dataclass
class TmuxHarness(ProcessHarness):
    @property
    def socket(self) -> str:
        return str(self.directory / "tmux.sock")

    def tmux(self) -> TmuxRunner:
        return TmuxRunner(self.processes(), socket=self.socket, environment=BASE_ENVIRONMENT)

    def runner(self) -> Runner:
        return self.tmux()

    def ask_tmux(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["tmux", "-S", self.socket, *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=BASE_ENVIRONMENT,
        )

    async def clean_up(self) -> None:
        await super().clean_up()
        self.ask_tmux("kill-server")
