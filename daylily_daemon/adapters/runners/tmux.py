"""The same jobs as ``process.py``, each with a tmux session in which people can watch the log.

The session only shows the log. No fact is taken from it: tmux loses exit codes, its server can be killed
by anybody, and its socket can be hidden by a sandbox, none of which says anything about the job.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from typing import Final

import anyio
import structlog

from daylily_daemon.adapters.runners import shim
from daylily_daemon.adapters.runners.logs import clean
from daylily_daemon.adapters.runners.process import ProcessRunner
from daylily_daemon.domain.errors import Transient
from daylily_daemon.domain.model import Job, JobName, Outcome, Progress

TMUX_TIMEOUT_S: Final = 5.0
log = structlog.get_logger(__name__)


class TmuxRunner:
    def __init__(
        self, processes: ProcessRunner, *, socket: str, environment: Mapping[str, str]
    ) -> None:
        """``socket`` lies in the state directory: one in ``/tmp`` is hidden by a private ``/tmp``."""
        self._processes = processes
        self._socket = socket
        self._environment = {**environment, shim.VIEW_MARK: "1"}

    @property
    def scope(self) -> str:
        return self._processes.scope

    async def look(self, job: Job) -> None:
        await self._processes.look(job)

    async def ensure(self, job: Job) -> None:
        """Start ``job`` as ProcessRunner does; a session that cannot be opened is only a warning."""
        await self._processes.ensure(job)
        try:
            directory, shim = await self._processes.running(job)
            if shim is not None:
                await self._open_session(job, directory, shim.pid)
        except (OSError, TimeoutError, Transient) as exc:
            log.warning("tmux_session_not_opened", job=job.name, error=str(exc) or repr(exc))

    async def wait(self, job: Job) -> Outcome:
        return await self._processes.wait(job)

    async def progress(self, job: Job) -> Progress | None:
        return await self._processes.progress(job)

    async def stop(self, job: Job) -> None:
        await self._processes.stop(job)

    async def _open_session(self, job: Job, directory: str, shim_pid: int) -> None:
        """Open the session unless it is there; it closes by itself within seconds of the job's end."""
        log_file = os.path.join(directory, "log")
        show = ["tail", "-n", "+1", f"--pid={shim_pid}", "-F", log_file]
        open_session = ["new-session", "-d", "-s", session_name(job.name), "-x", "200", "-y", "50"]
        with anyio.fail_after(TMUX_TIMEOUT_S):
            done = await anyio.run_process(
                ["tmux", "-S", self._socket, "-f", "/dev/null", *open_session, *show],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                check=False,
                env=self._environment,
                start_new_session=True,
            )
        said = clean(done.stderr).strip()
        if done.returncode and not said.startswith("duplicate session"):
            log.warning("tmux_session_not_opened", job=job.name, error=said)


def session_name(job: JobName) -> str:
    """Return the session's name; tmux takes a dot for the end of one."""
    return f"daylily_{job.replace('.', '-')}"
