"""Jobs in the folders a daemon gives them, which run until a gate opens; and how to find what they leave."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

from daylily_daemon.adapters.runners import procfs
from daylily_daemon.adapters.runners.jobdir import JobDirectory
from daylily_daemon.domain.model import Job, JobName
from tests.contract.runner_harness import ProcessHarness, eventually, wait_for


def end_all(path: str) -> None:
    """End every process that was started below ``path``, found by what its arguments or folder say."""
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            said = Path(f"/proc/{name}/cmdline").read_bytes().decode(errors="replace")
            place = os.readlink(f"/proc/{name}/cwd")
        except OSError:
            continue
        if int(name) != os.getpid() and (path in said or place.startswith(path)):
            os.kill(int(name), signal.SIGKILL)


def a_job(lab: ProcessHarness, script: str, attempt: int = 1, **changes: Any) -> Job:
    """Return a job whose folder lies where the daemon puts it; it runs until the gate opens."""
    directory = f"{lab.directory}/ws-0/r1/{attempt}-run"
    named: dict[str, Any] = {"name": JobName(f"ws-0.{attempt}.run"), "directory": directory}
    return replace(lab.shell(script), **named, **changes)


def gate(lab: ProcessHarness) -> Path:
    return lab.directory.parent.parent / "gate"


def gated(lab: ProcessHarness, code: int = 0) -> str:
    return f"{wait_for(gate(lab))}; exit {code}"


async def start(lab: ProcessHarness, job: Job) -> None:
    await lab.runner().ensure(job)
    await eventually(lambda: lab.starts(job) == 1)


def kill(*processes: procfs.Identity) -> None:
    for process in processes:
        procfs.send(process, signal.SIGKILL)


async def kill_shim_and_command(lab: ProcessHarness, job: Job) -> None:
    command = JobDirectory(job.directory).command()
    assert command is not None
    kill(lab.shim(job), command)
    await eventually(lambda: not procfs.is_alive(command))


def nap(seconds: int) -> str:
    """Return a command that lasts so long, and that no other test process gives at the same time."""
    return f"sleep {seconds}.{os.getpid()}"


def pids_of(said: str) -> list[int]:
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b" ".join(words).decode(errors="replace").strip() == said:
            found.append(int(name))
    return found
