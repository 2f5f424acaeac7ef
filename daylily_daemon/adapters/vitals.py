"""What a daemon leaves in ``status.json`` for whoever asks how it is, and what the kernel says of it.

The file is only what was true when it was written. Whether its process lives, and is that very process, is
asked of the kernel: a pid alone belongs to anybody.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Final

import anyio
import structlog
from anyio import to_thread
from pydantic import TypeAdapter, ValidationError

from daylily_daemon.adapters.blocking import Disk
from daylily_daemon.adapters.host import StateDir
from daylily_daemon.adapters.runners import shim
from daylily_daemon.adapters.smallfile import contents
from daylily_daemon.domain.daemon import Drain, Life, Process, Sighting, Status
from daylily_daemon.domain.errors import DaemonError

log = structlog.get_logger()

WRITE_S: Final = 5.0
"""How long the daemon waits for its state directory before it goes on without having written."""
LOOK_S: Final = 0.02
LARGEST_BYTES: Final = 8_000_000


class StatusUnreadable(DaemonError):
    """The status file is there and cannot be read, or says nothing that can be understood."""


_STATUS: Final = TypeAdapter(Status)


def this_process() -> Process:
    return Process(
        pid=os.getpid(),
        start_time=int(shim.stat_fields(os.getpid())[19]),
        boot_id=shim.boot_id(),
        pid_namespace=_pid_namespace(),
    )


def life_of(process: Process) -> Life:
    """Ask the kernel; reads /proc only."""
    if process.boot_id and process.boot_id != shim.boot_id():
        return Life.REPLACED
    if process.pid_namespace and process.pid_namespace != _pid_namespace():
        return Life.HIDDEN
    try:
        fields = shim.stat_fields(process.pid)
    except OSError:
        return Life.HIDDEN if _exists(process.pid) else Life.GONE
    if fields[0] in "ZX":
        return Life.GONE
    if process.start_time is not None and int(fields[19]) != process.start_time:
        return Life.REPLACED
    return Life.STOPPED if fields[0] == "T" else Life.RUNNING


def _exists(pid: int) -> bool:
    """Tell whether there is such a process although /proc shows none (hidepid, ProtectProc=)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    except OverflowError:  # no process has such a number
        return False
    return True


def _pid_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def monotonic_s() -> float:
    """Return CLOCK_MONOTONIC, which all processes of a machine share, in seconds."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def read(state: StateDir) -> Status | None:
    """Return what the daemon of this directory last said, None if none ever ran. Raises StatusUnreadable."""
    try:
        raw = contents(state.status, LARGEST_BYTES)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise StatusUnreadable(
            f"{state.status} cannot be read: {exc.strerror}. Run this as the daemon's user or as root."
        ) from exc
    try:
        return _STATUS.validate_json(raw)
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise StatusUnreadable(
            f"{state.status} makes no sense ({where or 'file'}: {first['msg']}). A running daemon writes it "
            "anew within a minute."
        ) from exc


async def drain_before(state: StateDir) -> Drain | None:
    """Return how the daemon of this directory was drained when it wrote last; None if that is not known."""
    try:
        status = await Disk("state directory", limit_s=WRITE_S).run(partial(read, state))
    except DaemonError:
        return None
    return status.drain if status else None


def sighting(state: StateDir, now: datetime) -> Sighting:
    """Look at the daemon of this state directory; needs no AWS."""
    try:
        status = read(state)
    except StatusUnreadable as exc:
        return Sighting(now=now, unreadable=str(exc))
    process = status.process if status else None
    return Sighting(
        now=now,
        status=status,
        life=life_of(process) if process else Life.GONE,
        age_s=age_s(status, now) if status else None,
    )


@dataclass(slots=True)
class StatusWriter:
    """Keeps ``status.json`` up to date without ever holding the event loop up for a disk."""

    state: StateDir
    _latest: Status | None = None
    _changed: anyio.Event = field(default_factory=anyio.Event)
    _writing: bool = False

    def show(self, status: Status) -> None:
        """Have this written soon; of several only the last is."""
        self._latest = status
        self._changed.set()

    async def keep(self) -> None:
        """Write what is shown, for ever."""
        while True:
            await self._changed.wait()
            self._changed = anyio.Event()
            await self.flush()

    async def flush(self) -> None:
        """Write what was shown last; return after ``WRITE_S`` at most."""
        with anyio.move_on_after(WRITE_S) as scope:
            while self._writing:  # noqa: ASYNC110 - the thread of a write that was given up tells nobody
                await anyio.sleep(LOOK_S)
            if self._latest is not None:
                write, self._latest = self._write(self._latest), None
                await to_thread.run_sync(write, abandon_on_cancel=True)
        if scope.cancelled_caught:
            log.warning("status_not_written", error="the state directory does not answer")

    def _write(self, status: Status) -> Callable[[], None]:
        def write() -> None:
            try:
                self.state.write_status(_STATUS.dump_json(status, indent=1))
            except OSError as exc:
                log.warning("status_not_written", error=str(exc))
            finally:
                self._writing = False

        self._writing = True
        return write


def age_s(status: Status, now: datetime) -> float | None:
    """Return how long ago its last pass was finished, in seconds, whoever set the clock since."""
    if status.seen_monotonic_s is not None and status.boot_id:
        with suppress(OSError):
            if status.boot_id == shim.boot_id() and status.seen_monotonic_s <= monotonic_s():
                return monotonic_s() - status.seen_monotonic_s
    return None if status.seen_at is None else abs((now - status.seen_at).total_seconds())
