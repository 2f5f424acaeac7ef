"""What is left of a job whose shim is gone, and what proves that nothing is.

**Seen** is a process that carries the mark every descendant inherits, or whose session is the command's, or
that is in the control group of the job's own unit. The number of a session in use is not given to another
process, so a member proves the session alive whatever became of its leader; only a living leader with
another start time shows that the number was free meanwhile, and is somebody else's now.

**Not seen is not gone.** A process that empties its environment and opens a session (``setsid env -i``, as
Apptainer, sudo and daemons do) carries nothing, and once the shim is dead nothing leads to it. Two things
prove that there is none:

- The control group the shim was started in no longer exists, or another one has its name. A process cannot
  leave its group without the rights of root, and a group with a process in it cannot be removed.
- Every process of that group is somebody else's: the daemon's own children, the descendants of a living shim
  of another job (a shim is the reaper of all its descendants, and nobody else's orphan becomes its child),
  what carries another job's mark, and the view of the logs. That is how it is in the shipped unit, where
  all jobs share the daemon's group.

Both are about this cgroup namespace and this process namespace alone. Where neither proves anything, an end
without a record stays unclear until somebody vouches for it.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from daylily_daemon.adapters.runners import procfs, shim
from daylily_daemon.adapters.runners.procfs import Identity

GROUPS: Final = "/sys/fs/cgroup"
_PR_GET_CHILD_SUBREAPER: Final = 37


@dataclass(frozen=True, slots=True)
class Marked:
    """What a process says about whose it is; empty where it says nothing."""

    job: str = ""
    """``<installation>/<job name>/<folder id>`` of a job's descendant."""
    shim: str = ""
    """The same of a shim."""
    view: str = ""
    place: str = ""
    """The folder of the job when it was started; all that descendants of earlier versions carry."""

    @property
    def any(self) -> str:
        return self.job or self.shim


@dataclass(frozen=True, slots=True)
class KnownJob:
    """By what the processes of one job are known."""

    mark: str
    places: frozenset[str] = frozenset()
    """Its folder, by every path it was known by."""
    command: Identity | None = None

    @property
    def workset(self) -> str:
        """The part of a mark that all jobs of the workset share."""
        installation, name, _ = parts(self.mark)
        return f"{installation}/{name.split('.')[0]}"


@dataclass(frozen=True, slots=True)
class Group:
    """The control group a job was started in."""

    path: str
    inode: int
    cgroup_ns: str

    @classmethod
    def parse(cls, record: Mapping[str, Any]) -> Group:
        """Raises KeyError, TypeError or ValueError where ``record`` is no group."""
        return cls(str(record["path"]), int(record["inode"]), str(record["cgroup_ns"]))


@dataclass(frozen=True, slots=True)
class Survivor:
    process: Identity
    job: str
    """The name of its job."""
    is_shim: bool


def parts(mark: str) -> tuple[str, str, str]:
    """Return installation, job name and folder id of a mark; empty strings for what is none."""
    found = mark.split("/")
    return (found[0], found[1], found[2]) if len(found) == 3 else ("", "", "")


@dataclass(slots=True)
class ProcessTable:
    """The processes of this machine that can be seen, at one look. Raises OSError."""

    stats: dict[int, list[str]] = field(default_factory=dict)
    marks: dict[int, Marked] = field(default_factory=dict)

    @classmethod
    def now(cls) -> ProcessTable:
        table = cls()
        for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
            with suppress(PermissionError):  # /proc names it and shows nothing: not one of ours
                table.add(pid)
        return table

    def add(self, pid: int) -> bool:
        """Look at one process; return whether it runs."""
        fields = procfs.stat_fields(pid)
        if fields is None or fields[0] in "ZX":
            return False
        self.stats[pid] = fields
        return True

    def mark(self, pid: int) -> Marked:
        if pid not in self.marks:
            self.marks[pid] = _marked(pid)
        return self.marks[pid]

    def identity(self, pid: int) -> Identity:
        start_time = int(self.stats[pid][19])
        return Identity(shim.boot_id(), pid, start_time, procfs.namespace("pid"))

    def parent(self, pid: int) -> int:
        return int(self.stats[pid][1])

    def session(self, pid: int) -> int:
        return int(self.stats[pid][3])


def members(job: KnownJob, group: Group | None = None) -> list[Identity]:
    """Return what is seen to run of ``job``, whose shim is gone. Raises OSError."""
    table, session = ProcessTable.now(), _session(job.command)
    inside = set(_pids(group)) if group is not None and _is_own(group, job) else set()
    return [
        table.identity(pid)
        for pid in table.stats
        if pid in inside or table.session(pid) == session or _is_of(table.mark(pid), job)
    ]


def survivors(job: KnownJob) -> list[Survivor]:
    """Return every process of the same workset that runs, shims too, the oldest first. Raises OSError.

    Whoever ends that one ends what it would start anew; its number may be the largest of all.
    """
    table, found = ProcessTable.now(), []
    near = {os.path.dirname(os.path.dirname(place)) + "/" for place in job.places}
    for pid in table.stats:
        marked = table.mark(pid)
        if marked.any:
            installation, name, _ = parts(marked.any)
            if f"{installation}/{name.split('.')[0]}" == job.workset:
                found.append(Survivor(table.identity(pid), name, is_shim=not marked.job))
        elif any(marked.place.startswith(folder) for folder in near):
            name = parts(job.mark)[1] if marked.place in job.places else marked.place
            found.append(Survivor(table.identity(pid), name, is_shim=False))
    return sorted(found, key=lambda one: one.process.start_time)


def group_of(process: Identity) -> Group | None:
    """Return the control group of a living process, None where there is none to be seen. Raises OSError."""
    path = _group_path(process.pid)
    if path is None or not procfs.is_alive(process):
        return None
    try:
        return Group(path, os.stat(_folder(path)).st_ino, procfs.namespace("cgroup"))
    except FileNotFoundError:
        return None


def are_proved_gone(job: KnownJob, group: Group) -> bool:
    """Return whether nothing of ``job`` can be left of what was in ``group``. Raises OSError."""
    own = _group_path(os.getpid())
    if group.cgroup_ns != procfs.namespace("cgroup") or own is None:
        return False
    if not os.path.isdir(_folder(own)):  # what is mounted there now is something else
        return False
    try:
        if os.stat(_folder(group.path)).st_ino != group.inode:
            return True
    except FileNotFoundError:
        return True
    table = ProcessTable.now()
    return all(_is_somebody_elses(pid, job, table) for pid in _pids(group))


def _is_somebody_elses(pid: int, job: KnownJob, table: ProcessTable) -> bool:
    if pid == 0:  # of another process namespace
        return False
    if pid not in table.stats and not table.add(pid):
        return True  # it has ended
    for ancestor in _line(pid, table):
        marked = table.mark(ancestor)
        if _is_of(marked, job):
            return False
        if marked.any or marked.view or marked.place or _is_us(ancestor):
            return True
    return False


def _line(pid: int, table: ProcessTable) -> Iterator[int]:
    """Yield a process and its ancestors, the nearest first."""
    while pid in table.stats or (pid and table.add(pid)):
        yield pid
        pid = table.parent(pid)


def _is_us(pid: int) -> bool:
    """Return whether a child of ``pid`` is one of this daemon's: not if it gets orphans as children."""
    if pid != os.getpid() or pid == 1:
        return False
    reaper = ctypes.c_int(1)
    answered = ctypes.CDLL(None).prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(reaper), 0, 0, 0)
    return answered == 0 and reaper.value == 0


def _is_of(marked: Marked, job: KnownJob) -> bool:
    if marked.any:
        return marked.any == job.mark
    return bool(marked.place) and marked.place in job.places


def _session(command: Identity | None) -> int | None:
    """Return the number of the command's session unless it is known to be another one's by now."""
    if command is None:
        return None
    leader = procfs.stat_fields(command.pid)
    reused = leader is not None and int(leader[19]) != command.start_time
    return None if reused else command.pid


def _is_own(group: Group, job: KnownJob) -> bool:
    return os.path.basename(group.path) == unit_of(parts(job.mark)[1])


def unit_of(job_name: str) -> str:
    """Return the name of a job's transient unit."""
    return f"daylily-job-{job_name}.service"


def _group_path(pid: int) -> str | None:
    with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        return next((line[3:].rstrip("\n") for line in file if line.startswith("0::")), None)


def _folder(path: str) -> str:
    unified = os.path.exists(f"{GROUPS}/cgroup.controllers")
    return f"{GROUPS}{path}" if unified else f"{GROUPS}/unified{path}"


def _pids(group: Group) -> Iterator[int]:
    """Yield the processes of a group and of those below it, as long as it is that group."""
    folder = _folder(group.path)
    try:
        if os.stat(folder).st_ino != group.inode:
            return
    except FileNotFoundError:
        return
    for place, _, _ in os.walk(folder):
        try:
            with open(f"{place}/cgroup.procs", encoding="ascii") as file:
                yield from [int(line) for line in file]
        except FileNotFoundError:
            continue


def _marked(pid: int) -> Marked:
    """Return what a process carries; nothing for those that are not ours to read."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            words = file.read().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return Marked()
    found = {}
    for word in words:
        name, _, value = word.partition(b"=")
        if name in _NAMES:
            found[_NAMES[name]] = value.decode(errors="replace")
    return Marked(**found)


_NAMES: Final = {
    shim.MARK.encode(): "job",
    shim.SHIM_MARK.encode(): "shim",
    shim.VIEW_MARK.encode(): "view",
    shim.PLACE.encode(): "place",
}
