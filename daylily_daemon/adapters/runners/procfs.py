"""Which process is meant: (boot id, process namespace, pid, start time), never a pid alone.

A probe that fails raises; only the kernel's own word (no such process) counts as an end. That /proc shows
nothing is not its word: mounted with ``hidepid``, which is what ``ProtectProc=`` does, it keeps silent about
processes of others, and about a root process with more capabilities than ours.
"""

from __future__ import annotations

import errno
import os
import select
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import anyio

from daylily_daemon.adapters.runners import shim

POLL_S: Final = 1.0
DESCRIPTORS: Final = 48
AT_EASE: Final = 100
"""Processes that are looked at every ``POLL_S``; of more, each is looked at less often."""
LARGEST_PID: Final = 2**31
"""Beyond what any kernel gives (``PID_MAX_LIMIT`` is 4 million); calls take no larger number."""
_GONE: Final = (FileNotFoundError, ProcessLookupError)


@dataclass(frozen=True, slots=True)
class Identity:
    boot_id: str
    pid: int
    start_time: int
    """Clock ticks since boot."""
    pid_ns: str = field(default="", compare=False)
    """The namespace the pid is of; empty where an earlier version wrote it."""

    @classmethod
    def parse(cls, record: Mapping[str, Any]) -> Identity:
        """Raises KeyError, TypeError or ValueError where ``record`` is no identity."""
        pid = int(record["pid"])
        if not 0 < pid < LARGEST_PID:
            raise ValueError(f"{pid} is the number of no process")
        return cls(
            str(record["boot_id"]),
            pid,
            int(record["start_time"]),
            str(record.get("pid_ns") or ""),
        )

    @property
    def in_sight(self) -> bool:
        """Return whether its pid means the same here: another container numbers its own processes."""
        return self.pid_ns in ("", namespace("pid"))


def namespace(kind: str) -> str:
    """Return the namespace of this process; of two that live at one time the names differ. Raises OSError."""
    return os.readlink(f"/proc/self/ns/{kind}")


def is_alive(process: Identity) -> bool:
    """Tell whether exactly this process runs in the present boot; a zombie does not. Raises OSError."""
    fields = stat_fields(process.pid)
    return fields is not None and fields[0] not in "ZX" and int(fields[19]) == process.start_time


def send(process: Identity, *signals: int) -> None:
    """Signal exactly this process, or nobody if it is gone. Raises OSError."""
    fd = _open(process)
    if fd is None:
        return
    try:
        with suppress(ProcessLookupError):
            for signum in signals:
                signal.pidfd_send_signal(fd, signum)
    finally:
        os.close(fd)


class Watch:
    """Waits for the ends of processes that are nobody's children: the first few at once, the rest by looking.

    A descriptor a process would reach the limit of the daemon (1,024 as systemd sets it) with its jobs. Those
    that are looked at take turns, so that the looks of many cost what those of ``AT_EASE`` do.
    """

    def __init__(self, descriptors: int = DESCRIPTORS, poll_s: float = POLL_S) -> None:
        self._free = descriptors
        self._poll_s = poll_s
        self._looked_at = 0

    async def until_gone(self, process: Identity) -> None:
        """Return when this process has ended, or cannot be looked at: look again. Raises OSError."""
        if self._free <= 0:
            await self._look(process)
            return
        self._free -= 1
        try:
            await self._wait(process)
        finally:
            self._free += 1

    async def _look(self, process: Identity) -> None:
        self._looked_at += 1
        try:
            alive = is_alive(process)
            while alive:
                await anyio.sleep(self._poll_s * max(1.0, self._looked_at / AT_EASE))
                alive = is_alive(process)
        finally:
            self._looked_at -= 1

    async def _wait(self, process: Identity) -> None:
        try:
            fd = _open(process)
        except OSError:  # out of descriptors, or an old kernel
            await anyio.sleep(self._poll_s)
            return
        if fd is None:
            return
        try:
            await anyio.wait_readable(fd)
        finally:
            os.close(fd)


def _open(process: Identity) -> int | None:
    """Return a pidfd that is proved to be this process's, None if it is gone."""
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return None
    try:
        alive = is_alive(process)
    except OSError:
        os.close(fd)
        raise
    if alive:
        return fd
    os.close(fd)
    return None


def stat_fields(pid: int) -> list[str] | None:
    """Return None only where nothing of that number runs. Raises OSError for one that /proc hides."""
    try:
        return shim.stat_fields(pid)
    except _GONE:
        if _runs(pid):
            raise PermissionError(errno.EACCES, "/proc hides it (hidepid, ProtectProc=)") from None
        return None


def _runs(pid: int) -> bool:
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        return not select.select([fd], [], [], 0)[0]
    finally:
        os.close(fd)
