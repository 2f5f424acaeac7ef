"""Which process is meant: (boot id, pid, start time), never a pid alone.

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
from dataclasses import dataclass
from typing import Any, Final

import anyio

from daylily_daemon.adapters.runners import shim

POLL_S: Final = 1.0
_GONE: Final = (FileNotFoundError, ProcessLookupError)


@dataclass(frozen=True, slots=True)
class Identity:
    boot_id: str
    pid: int
    start_time: int
    """Clock ticks since boot."""

    @classmethod
    def parse(cls, record: Mapping[str, Any]) -> Identity:
        """Raises KeyError, TypeError or ValueError where ``record`` is no identity."""
        return cls(str(record["boot_id"]), int(record["pid"]), int(record["start_time"]))


def is_alive(process: Identity) -> bool:
    """Tell whether exactly this process runs in the present boot; a zombie does not. Raises OSError."""
    fields = _stat_fields(process.pid)
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


async def until_gone(process: Identity) -> None:
    """Return when this process has ended, or a second later where no pidfd can be had: look again."""
    try:
        fd = _open(process)
    except OSError:  # out of descriptors, or an old kernel
        await anyio.sleep(POLL_S)
        return
    if fd is None:
        return
    try:
        await anyio.wait_readable(fd)
    finally:
        os.close(fd)


def survivors(directory: str, command: Identity | None) -> list[Identity]:
    """Return what still runs of the job in ``directory`` though its shim is gone. Raises OSError.

    Found by the variable every descendant inherits, and by the session of the command while that
    lives: without it the number of the session may have been given to somebody else.
    """
    session = command.pid if command is not None and is_alive(command) else None
    cookie = f"\0{shim.COOKIE}={directory}\0".encode()
    found = []
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        fields = _stat_fields(pid)
        if fields is None or fields[0] in "ZX":
            continue
        if int(fields[3]) == session or cookie in _environment(pid):
            found.append(Identity(shim.boot_id(), pid, int(fields[19])))
    return found


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


def _stat_fields(pid: int) -> list[str] | None:
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


def _environment(pid: int) -> bytes:
    """Return the environment block between zero bytes; empty for processes that are not ours to read."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return b"\0" + file.read()
    except (*_GONE, PermissionError):
        return b""
