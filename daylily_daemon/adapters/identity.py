"""Which machine this is, which folder that is, and what follows for the jobs that were started there.

A job runs on one machine and leaves its token in one folder. To say anything about a job from a file, or
from the lack of one, takes proof that the file lies in *that* folder on *that* machine. So much can be
copied that most names prove nothing:

========================  ==========================================  ==================================
what                      who has it too                              what it is good for here
========================  ==========================================  ==================================
``/etc/machine-id``       every machine of one image, a container     to know runs of earlier versions
host name                 the same, and whoever is renamed            to show to people
path of the state folder  every machine set up alike                  nothing
files in the state        images, snapshots, restored backups,        nothing by themselves
folder, ids in them       ``cp -a``, a volume attached elsewhere
boot id                   nobody; a container shares its host's       a machine, from one start to the next
cloud's instance id       nobody; a container shares its host's       a machine, for as long as it exists
process id, start time    every boot, every process namespace         a process, together with the two
========================  ==========================================  ==================================

**A machine** is therefore the cloud's instance, whose id the firmware shows; it stays with a reboot, and
with a stop and start, and no image has it. Where no cloud gives one, an operator may give one
(``daemon.machine``), and vouches that no other machine has it. Otherwise the machine is its boot: after a
restart it counts as another one, because nothing tells that from a copy. Only a *proven* machine that shows
a new boot id was restarted, and only by that are the processes of its old boot known to be gone.

**A folder** has an id in a small file of its own, ``identity.json``, beside what no copy takes along: inode
and time of birth of that very file, and the machine. A folder that was renamed keeps all of it, and so its
id. A copy (``cp``, ``rsync``, a restored archive, a move to another file system) has other ones; an image, a
snapshot or a volume that is used elsewhere has another machine: each gets a new id. A copy of a whole disk
used on the same machine has another device number, which counts within one boot; between boots devices are
numbered anew, and what such a copy may lack then is known to be over.

**A scope**, ``host:<machine>/<folder>``, is what a run is stored with. Who has the same scope has that folder
on that machine: there, and nowhere else, the lack of a token says that a job was never started. Everywhere
else it says nothing. And it says nothing of a job whose start was seen (``Job.confirmed``), because a folder
can be rolled back in its place.

What stays: a machine resumed twice from one image of its memory runs its jobs twice by that alone. A run
whose folder was copied away, or whose machine got a new id, needs somebody who vouches that nothing of it
runs (``retry --host-gone``).
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import secrets
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from daylily_daemon.domain.errors import Transient, Unclear

FILE: Final = "identity.json"
FILE_BYTES: Final = 4096
_CLOUD: Final = (
    ("sys/devices/virtual/dmi/id/board_asset_tag", re.compile(r"i-[0-9a-f]{8,32}")),
    ("sys/hypervisor/uuid", re.compile(r"ec2[0-9a-f]{5}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.I)),
)
"""Where the firmware shows the instance id, to every user and without a network, and how it looks."""
_STATX_BTIME: Final = 0x800
_BIRTH_AT: Final = 80
_AT_EMPTY_PATH: Final = 0x1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    id: str
    """No image copies it. Holds no slash."""
    boot_id: str
    proven: bool
    """It outlives a restart: a new boot id under the same ``id`` is a restart of this machine."""
    host_id: str = ""
    """``/etc/machine-id`` or the host name, which images copy; kept only to know old scopes."""

    def was_restarted_since(self, machine_id: str, boot_id: str) -> bool:
        """Return whether what ran in that boot of that machine is proved to be gone by a restart."""
        return self.proven and machine_id == self.id and boot_id != self.boot_id


def this_machine(named: str = "", root: Path = Path("/")) -> Machine:
    """Return the machine this process runs on. ``named``: what an operator calls it.

    An id of the cloud goes before that: settings are copied with images, firmware is not. Raises Transient.
    """
    boot_id = _first_line(root / "proc/sys/kernel/random/boot_id")
    if not boot_id:
        raise Transient("The boot id of this machine cannot be read; is /proc mounted?")
    given = _given_by_the_cloud(root) or named
    host_id = _first_line(root / "etc/machine-id") or socket.gethostname()
    return Machine(
        id=given or f"boot-{boot_id}", boot_id=boot_id, proven=bool(given), host_id=host_id
    )


def _given_by_the_cloud(root: Path) -> str:
    for file, form in _CLOUD:
        said = _first_line(root / file)
        if form.fullmatch(said):
            return said.lower()
    return ""


def _first_line(path: Path) -> str:
    try:
        with path.open(encoding="ascii", errors="replace") as file:
            return file.readline(256).strip()
    except OSError:
        return ""


@dataclass(frozen=True, slots=True)
class _Mark:
    """What a copy of the file does not have."""

    machine: str
    boot_id: str
    device: int
    inode: int
    born_ns: int
    """0 where the file system does not note it."""

    def is_copied_from(self, other: _Mark) -> bool:
        """Return whether ``self``, as it is found now, shows that ``other`` was written elsewhere."""
        return (
            (self.machine, self.inode, self.born_ns) != (other.machine, other.inode, other.born_ns)
        ) or (self.boot_id == other.boot_id and self.device != other.device)


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder that knows itself again when it was moved, and does not know its copies."""

    path: str
    id: str
    machine: Machine

    def verify(self) -> None:
        """Return if the folder is still at its path; whatever is looked for there can then be missed.

        Raises Unclear: it was moved, replaced or unmounted meanwhile.
        """
        with _in_words(self.path):
            found = _read(self.path, self.machine)
        if found is None or found[0] != self.id or found[1].is_copied_from(found[2]):
            raise Unclear(
                f"{self.path} is not the folder any more that it was when the daemon started (moved, "
                "replaced or not mounted). What is not found there may still run. Put it back, or restart "
                "the daemon with daemon.state_dir set to where it is now."
            )


def identified(path: str, machine: Machine) -> Folder:
    """Return the folder at ``path`` (made if missing) with its id; a new id if it is new or a copy.

    One caller at a time. Raises Transient where it cannot be read or written.
    """
    with _in_words(path):
        os.makedirs(path, 0o750, exist_ok=True)
        found = _read(path, machine)
        if found is None:
            return Folder(path, _write(path, machine, secrets.token_hex(8)), machine)
        id, now, then = found
        if now.is_copied_from(then):
            id = _write(path, machine, secrets.token_hex(8))
        elif now != then:
            id = _write(path, machine, id)
        return Folder(path, id, machine)


def known_again(path: str, machine: Machine) -> Folder | None:
    """Return the folder at ``path`` if it was identified before on this machine and is no copy.

    Changes nothing. Raises Transient where it cannot be read.
    """
    with _in_words(path):
        found = _read(path, machine)
    if found is None or found[1].is_copied_from(found[2]):
        return None
    return Folder(path, found[0], machine)


def _read(path: str, machine: Machine) -> tuple[str, _Mark, _Mark] | None:
    """Return id, the mark of the file as it is, and the mark as it was written; None without a file."""
    try:
        with open(os.path.join(path, FILE), "rb") as file:
            now, data = _mark(file.fileno(), machine), file.read(FILE_BYTES)
    except FileNotFoundError:
        return None
    try:
        record: Mapping[str, Any] = json.loads(data)
        then = _Mark(
            str(record["machine"]),
            str(record["boot_id"]),
            int(record["device"]),
            int(record["inode"]),
            int(record["born_ns"]),
        )
        return str(record["id"]), now, then
    except (KeyError, TypeError, ValueError):  # torn or edited: proves nothing
        return None


def _write(path: str, machine: Machine, id: str) -> str:
    """Put a new file in place, complete and durable, that says what it is itself; return ``id``."""
    draft = os.path.join(path, f".{FILE}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with open(draft, "x", encoding="utf-8") as file:
            json.dump({"id": id, **asdict(_mark(file.fileno(), machine))}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, os.path.join(path, FILE))
    except OSError:
        with suppress(OSError):
            os.unlink(draft)
        raise
    return id


def _mark(fd: int, machine: Machine) -> _Mark:
    stat = os.fstat(fd)
    return _Mark(machine.id, machine.boot_id, stat.st_dev, stat.st_ino, _born_ns(fd))


def _born_ns(fd: int) -> int:
    """Return when a file was made, in nanoseconds since 1970; 0 if its file system does not say.

    No tool can set it, and a file that takes over an inode number has its own. ``os.stat`` does not show it.
    """
    room = ctypes.create_string_buffer(256)
    statx = getattr(ctypes.CDLL(None), "statx", None)
    if statx is None or statx(fd, b"", _AT_EMPTY_PATH, _STATX_BTIME, room):
        return 0
    if not int.from_bytes(room.raw[:4], "little") & _STATX_BTIME:
        return 0
    seconds = int.from_bytes(room.raw[_BIRTH_AT : _BIRTH_AT + 8], "little", signed=True)
    return seconds * 10**9 + int.from_bytes(room.raw[_BIRTH_AT + 8 : _BIRTH_AT + 12], "little")


@contextmanager
def _in_words(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise Transient(
            f"{exc.filename or path} cannot be used: {exc.strerror}. Check the disk and the permissions of "
            "the daemon; it will try again."
        ) from exc


def cluster_of_this_host(root: Path = Path("/")) -> str:
    """Return the name of the ParallelCluster whose node this is; empty on other hosts.

    From ``/etc/parallelcluster/cfnconfig``, which every node has: ``cluster_name``, and before version 3
    ``stack_name`` with a fixed beginning.
    """
    try:
        text = (root / "etc/parallelcluster/cfnconfig").read_text(
            encoding="utf-8", errors="replace"
        )
    except OSError:
        return ""
    said: dict[str, str] = dict(
        re.findall(r"^(cluster_name|stack_name)=[\"']?([\w-]+)", text[:65536], re.MULTILINE)
    )
    return said.get("cluster_name") or said.get("stack_name", "").removeprefix("parallelcluster-")
