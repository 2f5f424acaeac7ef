"""What can be seen on this host without AWS: its daemon, and the logs of its jobs."""

from __future__ import annotations

import os
import shlex
import signal
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import anyio

from daylily_daemon.adapters.host import StateDir, SystemClock
from daylily_daemon.adapters.runners import procfs
from daylily_daemon.adapters.runners.jobdir import JobDirectory, Started
from daylily_daemon.adapters.runners.logs import follow, tail
from daylily_daemon.adapters.runners.tmux import session_name
from daylily_daemon.adapters.vitals import sighting
from daylily_daemon.application.errors import NotFound
from daylily_daemon.domain.daemon import Life, Reload, Sighting
from daylily_daemon.domain.errors import Permanent, Transient
from daylily_daemon.domain.prune import logs_uri
from daylily_daemon.domain.run import Run
from daylily_daemon.domain.workset import Workset

LOOK_S: Final = 0.1


def now_here() -> datetime:
    """Return the time by the clock of this host, aware."""
    return SystemClock().now()


def daemon_here(state_dir: Path) -> Sighting:
    return sighting(StateDir(state_dir), now_here())


def status_as_written(state_dir: Path) -> dict[str, Any] | None:
    """Return what the daemon of this directory last said; None if there is nothing to read."""
    return StateDir(state_dir).read_status()


def ask_for_reload(state_dir: Path) -> Reload | None:
    """Send SIGHUP to the daemon of this directory; return what its last reload came to before.

    Raises NotFound where none runs, and Permanent where this user may not.
    """
    seen = daemon_here(state_dir)
    process = seen.status.process if seen.status else None
    if seen.status is None or process is None or seen.life is not Life.RUNNING:
        raise NotFound(
            f"No daemon runs here with the state directory {state_dir}; `daylily-daemon status` says more. "
            "One that is started reads its settings by itself."
        )
    try:
        os.kill(process.pid, signal.SIGHUP)
    except PermissionError:
        raise Permanent(
            "This user may not signal the daemon. Run this as the daemon's user or as root, or "
            "`systemctl reload daylily-daemon`."
        ) from None
    return seen.status.last_reload


async def reloaded(state_dir: Path, before: Reload | None, timeout_s: float) -> Reload | None:
    """Wait for the outcome of a reload that was asked for; None if there is none in time."""
    with anyio.move_on_after(timeout_s):
        while True:
            status = daemon_here(state_dir).status
            if status and status.last_reload is not None and status.last_reload != before:
                return status.last_reload
            await anyio.sleep(LOOK_S)
    return None


def attach_command(ws: Workset, state_dir: Path) -> str:
    """Return the shell command that shows the running job on its head node; empty if there is none."""
    if ws.job is None or ws.step is None or ws.step.runner != "tmux":
        return ""
    name = session_name(ws.job)
    socket = shlex.quote(StateDir(state_dir).tmux_socket)
    return f"tmux -S {socket} attach -t '={name}'"


# --- logs ---------------------------------------------------------------------------------------------


async def log_of(ws: Workset, step: str, lines: int, *, on: bool) -> AsyncIterator[bytes]:
    """Yield the last ``lines`` of the latest job of ``step`` (or of any), and what follows if ``on``.

    Raises NotFound where no log is on this host, and Permanent where it may not be read.
    """
    directory = str(await anyio.to_thread.run_sync(_job_directory, ws, step))
    if on:
        async for piece in follow(directory, lines=lines):
            yield piece
    else:
        yield await anyio.to_thread.run_sync(tail, directory, lines)


def _job_directory(ws: Workset, step: str) -> Path:
    """Return the folder of the job that was started last."""
    if ws.run is None:
        raise NotFound(f"{ws.id} has not run yet: it is {ws.shown_state}.")
    folder = Path(ws.run.jobs_dir)
    wanted = step or (ws.step.name if ws.step else "")
    try:
        found = [
            (entry.stat().st_mtime, entry.path)
            for entry in os.scandir(folder)
            if not wanted or entry.name.partition("-")[2] == wanted
        ]
    except FileNotFoundError:
        found = []
    except OSError as exc:
        raise _unreadable(folder, exc.strerror) from exc
    if not found:
        scope = ws.run.latest.scope if ws.run.latest else "another host"
        raise NotFound(
            f"There is no log of {ws.id} in {folder} on this host. Its jobs run on {scope}. Once "
            f"`prune` has removed them, they are in {_stored(ws.run)}."
        )
    latest = Path(max(found)[1])
    if (latest / "log").exists() and not os.access(latest / "log", os.R_OK):
        raise _unreadable(latest / "log", "permission denied")
    return latest


def _stored(run: Run) -> str:
    return logs_uri(run) if run.results_uri else "S3, beside its results"


def _unreadable(path: Path, why: str | None) -> Permanent:
    return Permanent(
        f"{path} cannot be read: {why}. Run this as the daemon's user or as root, and see whether its disk "
        "answers."
    )


# --- the end of a demonstration -----------------------------------------------------------------------


def tmux_socket(state_dir: Path) -> str:
    return StateDir(state_dir).tmux_socket


def end_jobs(state_dir: Path) -> None:
    """End every job that was started from this directory. Blocks for a few seconds a job at most."""
    for token in state_dir.glob("jobs/*/*/*/token"):
        with suppress(Transient, OSError):
            _end_job(JobDirectory(str(token.parent)))


def _end_job(job: JobDirectory) -> None:
    token = job.token()
    if isinstance(token, Started) and procfs.is_alive(token.shim):
        procfs.send(token.shim, signal.SIGTERM)
        for _ in range(100):
            if not procfs.is_alive(token.shim):
                return
            time.sleep(0.05)
