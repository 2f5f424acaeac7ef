"""This host, this state directory, and the proof that no second daemon uses it."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any, Final

from daylily_daemon.adapters.blocking import Disk
from daylily_daemon.adapters.identity import Machine, identified
from daylily_daemon.domain.daemon import DiskLevel
from daylily_daemon.domain.errors import Permanent, Transient

MIN_FREE_FILES: Final = 1000
"""A run of ours takes some thirty files beside its data."""


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)  # noqa: TID251 - this is the Clock port


class RandomIds:
    def fresh(self) -> str:
        """Return 64 random bits in hex: one in a billion collides after 190,000 ids."""
        return secrets.token_hex(8)


class Room:
    """Whether the disks have room for another run. A disk that does not answer has none."""

    def __init__(self, folders: Sequence[Path], *, limit_s: float = 5.0) -> None:
        self._disks = [
            (folder, Disk(str(folder), limit_s=limit_s, hanging=1)) for folder in folders
        ]

    async def shortage(self, min_free_bytes: int) -> str:
        """Return, as a sentence, what keeps another run from starting; empty if nothing does.

        0 bytes: no room is asked for, but the disks must answer all the same. Takes a few seconds at most.
        """
        for folder, disk in self._disks:
            try:
                if found := await disk.run(partial(shortage, folder, min_free_bytes)):
                    return found
            except Transient as exc:
                return str(exc)
        return ""

    async def levels(self, min_free_bytes: int) -> Mapping[str, DiskLevel]:
        """Return how much is free behind each folder; one that does not answer is left out."""
        found: dict[str, DiskLevel] = {}
        for folder, disk in self._disks:
            with suppress(Transient, OSError):
                free = await disk.run(partial(free_bytes, folder))
                found[str(folder)] = DiskLevel(free=free, needed=min_free_bytes)
        return found


def free_bytes(folder: Path) -> int:
    """Return what is free on the disk of ``folder``, or of the nearest one above it. Blocks."""
    there = next(p for p in (folder, *folder.parents) if _exists(p))
    disk = os.statvfs(there)
    return disk.f_bavail * disk.f_frsize


def shortage(folder: Path, min_free_bytes: int) -> str:
    """Return, as a sentence, why ``folder`` cannot take another run; empty if it can. Blocks.

    A folder that does not exist yet counts as the nearest one above it that does.
    """
    try:
        there = next(p for p in (folder, *folder.parents) if _exists(p))
        disk = os.statvfs(there)
    except OSError as exc:
        return (
            f"The disk of {folder} cannot be used ({exc.strerror}): nothing new is started until it can. "
            "Look at its mount."
        )
    free = disk.f_bavail * disk.f_frsize
    if free < min_free_bytes:
        return (
            f"The disk of {folder} has {free / 1e9:.1f} GB left, and {min_free_bytes / 1e9:.1f} GB must "
            "be free (daemon.min_free_gb) before another workset is started. Free some space."
        )
    if min_free_bytes and disk.f_files and disk.f_favail < MIN_FREE_FILES:
        return (
            f"The disk of {folder} can take {disk.f_favail} more files, and {MIN_FREE_FILES} must be "
            "free before another workset is started. Remove files that are no longer needed."
        )
    return ""


def _exists(path: Path) -> bool:
    """As ``Path.exists``, which takes some broken mounts for absent ones."""
    try:
        path.stat()
    except FileNotFoundError:
        return False
    except NotADirectoryError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class StateDir:
    """Lock, ids, sockets and the status file of one daemon. Local disk, never in ``/tmp``."""

    path: Path

    @property
    def jobs(self) -> str:
        return str(self.path / "jobs")

    @property
    def tmux_socket(self) -> str:
        return str(self.path / "tmux.sock")

    @property
    def status(self) -> Path:
        return self.path / "status.json"

    @contextmanager
    def locked(self, name: str, machine: Machine) -> Iterator[str]:
        """Hold the directory for as long as the body runs; yield the owner id that belongs to it.

        The lock is the kernel's: having it proves that no former daemon of this directory lives. The id
        belongs to this directory on this machine: a copy of either has another one, so that nobody takes
        a lease back at once that somebody else may hold.
        Raises Permanent, naming the other daemon, if there is one, and Transient for a disk that is full,
        broken or not ours to write to.
        """
        with ExitStack() as held:
            with _in_words(self.path):
                self.path.mkdir(mode=0o750, parents=True, exist_ok=True)
                file = held.enter_context(open(self.path / "lock", "a+b", buffering=0))
                self._lock(file, name)
                folder = identified(str(self.path), machine)
            yield f"{name}/{machine.id[:19]}/{folder.id}"

    def _lock(self, file: FileIO, name: str) -> None:
        """Unbuffered: a disk that is full says so here, not when the file is closed."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            file.seek(0)
            other = (
                file.read(1000).decode(errors="replace").strip()
                or "a daemon that has not said its name yet"
            )
            raise Permanent(
                f"The state directory {self.path} is in use by {other}. Stop that daemon, or set "
                "daemon.state_dir to a folder of its own."
            ) from exc
        file.truncate(0)
        file.write(f"{name} (process {os.getpid()})\n".encode())

    def write_status(self, status: bytes) -> None:
        """Replace the status file; readers see the old or the new one, never half of it."""
        draft = self.path / "status.json.new"
        draft.write_bytes(status)
        draft.replace(self.status)

    def read_status(self) -> dict[str, Any] | None:
        """Return what the daemon of this directory last said; None if there is nothing to read."""
        try:
            status = json.loads(self.status.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return status if isinstance(status, dict) else None


@contextmanager
def _in_words(path: Path) -> Iterator[None]:
    """Raises Permanent where ``path`` can be no folder at all, and Transient for what may be fixed."""
    try:
        yield
    except OSError as exc:
        said = f"The state directory {path} cannot be used: {exc.strerror}."
        if exc.errno in _HOPELESS:
            raise Permanent(f"{said} Set daemon.state_dir to a folder.") from exc
        advice = _ADVICE.get(exc.errno or 0, "Look at its disk and its mount.")
        raise Transient(f"{said} {advice} It is tried again.") from exc


_HOPELESS: Final = {errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.EINVAL}
_ADVICE: Final = {
    errno.ENOSPC: "Free some space on its disk.",
    errno.EDQUOT: "Free some space, or raise the quota of this user.",
    errno.EACCES: "Let this user write there, or set daemon.state_dir to a folder of its own.",
    errno.EPERM: "Let this user write there, or set daemon.state_dir to a folder of its own.",
    errno.EROFS: "Make it writable, or set daemon.state_dir to a folder that is.",
}
