"""Jobs as detached processes of this machine, each under a shim of its own.

``ensure`` launches the shim and then believes nothing but the token: whatever the launcher said, did
not say, or was too slow to say. ``wait`` believes nothing but the shim's record, and reports a job as
lost only when neither the shim nor anything the job started runs any more.

Two ways to launch. ``session``: the shim detaches into a session of its own and survives everything
that does not kill by control group. ``systemd``: a transient unit, which survives the daemon's unit and
escapes its sandbox and limits. There the shim stays the process that systemd started (a double fork
would leave systemd guessing its main process) and says READY once the command runs, so the answer of
``systemd-run`` is as definite as that of the detaching shim. ``KillMode=mixed``: a stop of the unit, or of
the machine, asks the shim alone, which ends the tree in order and records it; what outlives the shim is
killed with the unit.
"""

from __future__ import annotations

import errno
import math
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final

import anyio
from anyio import to_thread

from daylily_daemon.adapters.runners import procfs, shim
from daylily_daemon.adapters.runners.jobdir import JobDirectory, Revoked, Started
from daylily_daemon.adapters.runners.logs import Cursor, ProgressReader, clean, follow, tail
from daylily_daemon.adapters.runners.procfs import Identity
from daylily_daemon.domain.errors import Permanent, Transient
from daylily_daemon.domain.model import Ended, Job, JobName, Outcome, Progress

__all__ = ["Isolation", "ProcessRunner", "follow", "tail"]

LAUNCH_TIMEOUT_S: Final = 30.0
OUTCOME_TAIL_BYTES: Final = 8 * 1024
RECORD_POLL_S: Final = 0.1
KILL_AGAIN_S: Final = 0.1
UNIT_STOP_MARGIN_S: Final = 30
"""Beyond the grace period, for the shim to write its record before systemd kills it."""
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Isolation(StrEnum):
    SESSION = "session"
    SYSTEMD = "systemd"


class ProcessRunner:
    def __init__(
        self,
        *,
        machine_id: str,
        base_environment: Mapping[str, str],
        isolation: Isolation = Isolation.SESSION,
        boot_id: str | None = None,
        late_record_s: float = 3.0,
    ) -> None:
        """``base_environment`` is what jobs get of the daemon's; it must hold no secrets.

        ``late_record_s``: how long the record of a shim that is gone may take to become visible.
        """
        self._scope = f"host:{machine_id}"
        self._base_environment = dict(base_environment)
        self._isolation = isolation
        self._boot_id = boot_id or shim.boot_id()
        self._late_record_s = late_record_s
        self._readers: dict[JobName, ProgressReader] = {}

    @property
    def scope(self) -> str:
        return self._scope

    async def look(self, job: Job) -> None:
        """Return if the folder of ``job`` can be read and its job tended. Raises Transient."""
        await to_thread.run_sync(JobDirectory(job.directory).token)

    async def ensure(self, job: Job) -> None:
        """Start ``job`` unless its token was ever won. Raises Permanent once it was revoked."""
        if not job.argv:
            raise Permanent(f"Job {job.name} names no command; mend the step's configuration.")
        files = JobDirectory(job.directory)
        if await self._was_started(job, files):
            return
        await to_thread.run_sync(files.prepare, job)
        said = await self._launch(job)
        if not await self._was_started(job, files):
            raise Transient(f"The start of job {job.name} was not confirmed: {said}")

    async def wait(self, job: Job) -> Outcome:
        """Wait until ``job`` has ended for certain. Cancelling it leaves the job alone."""
        files = JobDirectory(job.directory)
        match await to_thread.run_sync(files.token):
            case None:
                raise Transient(f"Job {job.name} was never started; start it, or revoke it.")
            case Revoked():
                return Outcome(ended=Ended.STOPPED)
            case Started(process):
                outcome = await self._end_of(job, process)
                self._readers.pop(job.name, None)
                return outcome

    async def progress(self, job: Job) -> Progress | None:
        reader = self._readers.get(job.name)
        if reader is None:
            reader = self._readers[job.name] = ProgressReader(job)
        try:
            return await to_thread.run_sync(reader.read)
        except OSError as exc:
            raise Transient(f"The log of job {job.name} cannot be read: {exc}.") from exc

    async def stop(self, job: Job) -> None:
        """Revoke the token, or else end the job; return once nothing of it runs."""
        files = JobDirectory(job.directory)
        token = await to_thread.run_sync(files.revoke)
        if isinstance(token, Revoked) or token.shim.boot_id != self._boot_id:
            return
        await to_thread.run_sync(files.note_stop)
        await self._stop_shim(token.shim, files)
        if not await to_thread.run_sync(files.has_record):
            await self._end_survivors(job, files)

    async def _was_started(self, job: Job, files: JobDirectory) -> bool:
        token = await to_thread.run_sync(files.token)
        if isinstance(token, Revoked):
            raise Permanent(f"Job {job.name} was revoked before it started; it will never run.")
        return token is not None

    async def _launch(self, job: Job) -> str:
        """Run the launcher; return what it said for people. Its answer proves nothing."""
        argv = launch_argv(job, self._isolation, tuple(self._base_environment))
        try:
            with anyio.fail_after(LAUNCH_TIMEOUT_S):
                done = await anyio.run_process(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    check=False,
                    env=self._launcher_environment(),
                    start_new_session=True,
                )
        except TimeoutError:
            return f"{argv[0]} gave no answer within {LAUNCH_TIMEOUT_S:.0f} seconds."
        except OSError as exc:
            return f"{argv[0]} cannot be run: {exc.strerror}."
        said = clean(done.stderr[-500:]).strip()
        return f"{argv[0]} ended with {done.returncode}. {said}{self._advice()}"

    def _advice(self) -> str:
        user = os.geteuid()
        needed = self._isolation is Isolation.SYSTEMD and user != 0
        if not needed or _listens(f"/run/user/{user}/systemd/private"):
            return ""
        return (
            f". No service manager runs for user {user}: run `loginctl enable-linger {user}` as root, "
            "or set runner.isolation to session."
        )

    def _launcher_environment(self) -> dict[str, str]:
        """Return the jobs' environment, and what systemd-run needs to find a user's manager."""
        manager = {}
        if self._isolation is Isolation.SYSTEMD and os.geteuid() != 0:
            manager["XDG_RUNTIME_DIR"] = f"/run/user/{os.geteuid()}"
        return {**manager, **self._base_environment}

    async def _end_of(self, job: Job, process: Identity) -> Outcome:
        while True:
            if outcome := await to_thread.run_sync(self._recorded, job):
                return outcome
            if process.boot_id != self._boot_id:
                return Outcome(ended=Ended.HOST_LOST, tail=_tail(job))
            if not _is_alive(process):
                return await self._end_without_shim(job)
            await procfs.until_gone(process)

    async def _end_without_shim(self, job: Job) -> Outcome:
        with anyio.move_on_after(self._late_record_s):
            while True:
                if outcome := await to_thread.run_sync(self._recorded, job):
                    return outcome
                await anyio.sleep(RECORD_POLL_S)
        files = JobDirectory(job.directory)
        left = await to_thread.run_sync(files.survivors)
        while left:
            await anyio.sleep(procfs.POLL_S)
            left = await to_thread.run_sync(files.survivors)
        return Outcome(ended=Ended.LOST, tail=_tail(job))

    def _recorded(self, job: Job) -> Outcome | None:
        files = JobDirectory(job.directory)
        return files.outcome(job, self._boot_id, _tail(job)) if files.has_record() else None

    async def _stop_shim(self, process: Identity, files: JobDirectory) -> None:
        try:
            procfs.send(process, signal.SIGTERM, signal.SIGCONT)
        except OSError as exc:
            raise Transient(f"Process {process.pid} cannot be signalled: {exc.strerror}.") from exc
        while _is_alive(process) and not await to_thread.run_sync(files.has_record):
            with anyio.move_on_after(procfs.POLL_S):
                await procfs.until_gone(process)

    async def _end_survivors(self, job: Job, files: JobDirectory) -> None:
        """End what a shim left behind that was killed: politely, then hard until nothing runs."""
        left = await to_thread.run_sync(files.survivors)
        _signal_all(left, signal.SIGTERM, signal.SIGCONT)
        with anyio.move_on_after(job.grace_s):
            while left:
                await anyio.sleep(KILL_AGAIN_S)
                left = await to_thread.run_sync(files.survivors)
        while left := await to_thread.run_sync(files.survivors):
            _signal_all(left, signal.SIGKILL)
            await anyio.sleep(KILL_AGAIN_S)


def launch_argv(job: Job, isolation: Isolation, variables: Sequence[str]) -> list[str]:
    """Return the command that starts the shim; of ``variables`` only the names appear in it."""
    python = [sys.executable, "-IS", "-X", "utf8", os.path.abspath(shim.__file__)]
    match isolation:
        case Isolation.SESSION:
            return [*python, job.directory]
        case Isolation.SYSTEMD:
            command = [*python, "--foreground", job.directory]
            return [*_systemd_run(job, variables), *(word.replace("$", "$$") for word in command)]


def _systemd_run(job: Job, variables: Sequence[str]) -> list[str]:
    stop_s = math.ceil(job.grace_s) + UNIT_STOP_MARGIN_S
    return [
        "systemd-run",
        "--system" if os.geteuid() == 0 else "--user",
        "--quiet",
        "--collect",
        "--no-ask-password",
        "--service-type=notify",
        f"--unit=daylily-job-{job.name}.service",
        "--property=KillMode=mixed",
        "--property=OOMPolicy=continue",
        "--property=TimeoutStartSec=infinity",
        f"--property=TimeoutStopSec={stop_s}",
        *(f"--setenv={name}" for name in variables if _VARIABLE.fullmatch(name)),
        "--",
    ]


def _listens(path: str) -> bool:
    """Tell whether somebody listens on a socket; the file alone stays behind after a crash."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as channel:
        try:
            channel.connect(path)
        except OSError as exc:
            return exc.errno == errno.EAGAIN  # its queue is full
    return True


def _is_alive(process: Identity) -> bool:
    try:
        return procfs.is_alive(process)
    except OSError as exc:
        raise Transient(f"Process {process.pid} cannot be looked at: {exc.strerror}.") from exc


def _signal_all(processes: Sequence[Identity], *signals: int) -> None:
    for process in processes:
        try:
            procfs.send(process, *signals)
        except OSError as exc:
            raise Transient(f"Process {process.pid} cannot be signalled: {exc.strerror}.") from exc


def _tail(job: Job) -> str:
    """Return the end of the log; a log that cannot be read must not hide how a job ended."""
    try:
        return clean(Cursor(job.directory).read_end(OUTCOME_TAIL_BYTES))
    except OSError:
        return ""
