"""What the jobs of this host do: their processes, processors and memory.

For people alone: no decision is based on it. The processes of a job are those below its shim, which is found
by its token. Whoever may not read that, or the processes of another user, sees nothing of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

import anyio
import psutil

from daylily_daemon.adapters.blocking import Disk
from daylily_daemon.adapters.runners import procfs, shim
from daylily_daemon.adapters.runners.jobdir import JobDirectory, Started
from daylily_daemon.domain.activity import Activity
from daylily_daemon.domain.errors import DaemonError, Transient
from daylily_daemon.domain.model import WorksetId
from daylily_daemon.domain.workset import Workset

WITHIN_S: Final = 5.0
BETWEEN_S: Final = 0.5
"""Two looks apart, processors in use are told by what was used meanwhile."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """One job at one look."""

    names: tuple[str, ...] = ()
    cpu_s: float = 0.0
    """Of all its processes and what they have waited for: it only grows."""
    memory_bytes: int = 0


async def activities(
    worksets: Sequence[Workset], between_s: float = BETWEEN_S
) -> Mapping[WorksetId, Activity]:
    """Return what the jobs of ``worksets`` do, those that run here and can be seen. Takes ``between_s``.

    A disk or a kernel that does not answer in time shows nothing, and is in the way of nothing else.
    """
    disk, kernel = Disk("job folders", limit_s=WITHIN_S), Disk("processes", limit_s=WITHIN_S)
    try:
        shims = await disk.run(partial(_shims, worksets))
        if not shims:
            return {}
        before, since = await kernel.run(partial(_look, shims)), anyio.current_time()
        await anyio.sleep(between_s)
        after, until = await kernel.run(partial(_look, shims)), anyio.current_time()
    except Transient:
        return {}
    return {
        id: Activity(
            names=seen.names,
            cpus=max(0.0, seen.cpu_s - before[id].cpu_s) / (until - since),
            memory_bytes=seen.memory_bytes,
        )
        for id, seen in after.items()
    }


def _shims(worksets: Sequence[Workset]) -> dict[WorksetId, int]:
    """Return the process that is over each job that runs here, by what is written in its folder."""
    found: dict[WorksetId, int] = {}
    for ws in worksets:
        with suppress(DaemonError, OSError):
            token = JobDirectory(ws.step.place).token() if ws.step and ws.step.place else None
            if isinstance(token, Started) and token.shim.in_sight and _runs(token):
                found[ws.id] = token.shim.pid
    return found


def _runs(token: Started) -> bool:
    return token.shim.boot_id == shim.boot_id() and procfs.is_alive(token.shim)


def _look(shims: Mapping[WorksetId, int]) -> dict[WorksetId, _Seen]:
    """Look at all processes of this host once, and at those below each shim closely."""
    children: dict[int, list[psutil.Process]] = {}
    for process in psutil.process_iter(["ppid"]):
        children.setdefault(process.info["ppid"], []).append(process)
    return {id: _seen(list(below(pid, children)), pid) for id, pid in shims.items()}


def below(pid: int, children: Mapping[int, Sequence[psutil.Process]]) -> Iterator[psutil.Process]:
    """Yield each process below ``pid`` once, however deep.

    Parents are read one after the other, so that a number which is given anew meanwhile may close a circle.
    """
    left, seen = [pid], {pid}
    while left:
        for child in children.get(left.pop(), ()):
            if child.pid not in seen:
                seen.add(child.pid)
                left.append(child.pid)
                yield child


def _seen(processes: Sequence[psutil.Process], over_them: int) -> _Seen:
    known: list[tuple[int, str]] = []
    cpu_s = 0.0
    with suppress(psutil.Error):
        cpu_s = _cpu_s(psutil.Process(over_them))
    for process in processes:
        with suppress(psutil.Error), process.oneshot():
            if process.status() != psutil.STATUS_ZOMBIE:
                known.append((process.memory_info().rss, f"{process.name()} ({process.pid})"))
            cpu_s += _cpu_s(process)
    known.sort(reverse=True)
    return _Seen(tuple(name for _, name in known), cpu_s, sum(size for size, _ in known))


def _cpu_s(process: psutil.Process) -> float:
    """Return what it used, and what its children used that it has waited for."""
    times = process.cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)
