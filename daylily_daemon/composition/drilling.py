"""A drill: the daemon of this host is killed on purpose, and every run has to have gone on.

Jobs are known by their shims: the same process before and after, for the same attempt, is a run that nothing
happened to. Whoever starts daemons (systemd) has to start the next one; nobody else does it here.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Final

import anyio

from daylily_daemon.adapters.blocking import Disk
from daylily_daemon.adapters.runners import procfs
from daylily_daemon.adapters.runners.jobdir import JobDirectory, Started
from daylily_daemon.adapters.runners.procfs import Identity
from daylily_daemon.application.backend import Backend
from daylily_daemon.application.errors import NotFound
from daylily_daemon.composition.host import daemon_here
from daylily_daemon.domain.daemon import Life, Sighting
from daylily_daemon.domain.errors import DaemonError, Permanent
from daylily_daemon.domain.model import State, WorksetId
from daylily_daemon.domain.workset import Workset

LOOK_S: Final = 0.2


class Fate(StrEnum):
    """What became of a run while its daemon was gone."""

    WENT_ON = "went on"
    """The same attempt, and the same process of the same job, or a later step of it; a daemon holds it."""
    ENDED = "ended"
    """It was completed or canceled meanwhile, in the same attempt."""
    NOT_TAKEN_UP = "not taken up"
    """It goes on, and no daemon holds it yet."""
    LOST = "did not go on"
    """It failed meanwhile, or is another attempt now, or its job is gone."""


@dataclass(frozen=True, slots=True)
class HeldRun:
    """A run at the moment of the kill."""

    ws: Workset
    shim: Identity | None
    """None between two steps, or where this user may not see it."""


@dataclass(frozen=True, slots=True)
class Survived:
    id: WorksetId
    step: str
    """The present one, or that of the moment of the kill."""
    fate: Fate


@dataclass(frozen=True, slots=True)
class Drilled:
    runs: Sequence[Survived]
    back_s: float | None
    """Seconds until a daemon had finished a pass and held all that goes on; None if none did in time."""

    @property
    def is_good(self) -> bool:
        return self.back_s is not None and all(
            run.fate in (Fate.WENT_ON, Fate.ENDED) for run in self.runs
        )


async def held_here(backend: Backend, state_dir: Path) -> tuple[Identity, Sequence[HeldRun]]:
    """Return the daemon of this host and what it holds. Raises NotFound where none runs."""
    process, status = _process(await _seen(state_dir))
    if process is None or status is None:
        raise NotFound(
            f"No daemon runs here with the state directory {state_dir}, so there is none to kill. "
            "`daylily-daemon status` says more."
        )
    found = await backend.turns.load_all([WorksetId(id) for id in status])
    return process, [HeldRun(ws, await _shim(ws)) for ws in found if ws.state is State.IN_PROGRESS]


async def drill(
    backend: Backend, state_dir: Path, daemon: Identity, held: Sequence[HeldRun], timeout_s: float
) -> Drilled:
    """Kill ``daemon`` and watch what becomes of ``held``.

    Raises NotFound where it has ended by itself since, and Permanent where this user may not.
    """
    if not procfs.is_alive(daemon):
        raise NotFound(
            f"Daemon {daemon.pid} has ended meanwhile, so nothing was killed. Run this again once "
            "`daylily-daemon status` shows the next one."
        )
    try:
        procfs.send(daemon, signal.SIGKILL)
    except PermissionError:
        raise Permanent(
            "This user may not kill the daemon. Run this as the daemon's user or as root."
        ) from None
    killed, mine = anyio.current_time(), frozenset[str]()
    back_s: float | None = None
    with anyio.move_on_after(timeout_s):
        while back_s is None:
            mine, next_one = await _holds(state_dir)
            if next_one not in (None, daemon) and await _is_settled(backend, mine, held):
                back_s = anyio.current_time() - killed
            else:
                await anyio.sleep(LOOK_S)
    return Drilled([await _survived(backend, run, mine) for run in held], back_s)


async def _is_settled(backend: Backend, mine: frozenset[str], held: Sequence[HeldRun]) -> bool:
    """Tell whether all of ``held`` that is still in progress is among ``mine``, and its job runs.

    A job that has ended is about to be noticed: what becomes of its run is not known yet.
    """
    with suppress(DaemonError):
        found = await backend.turns.load_all([run.ws.id for run in held])
        return all(
            [ws.id in mine and await _runs(ws) for ws in found if ws.state is State.IN_PROGRESS]
        )
    return False


async def _runs(ws: Workset) -> bool:
    """Tell whether its job runs, as far as it can be seen."""
    process = await _shim(ws)
    return process is None or not process.in_sight or procfs.is_alive(process)


async def _survived(backend: Backend, run: HeldRun, mine: frozenset[str]) -> Survived:
    ws = await backend.worksets.load(run.ws.id)
    if ws is None or ws.attempt != run.ws.attempt:
        return Survived(run.ws.id, run.ws.step.name if run.ws.step else "", Fate.LOST)
    if ws.state is not State.IN_PROGRESS or ws.step is None:
        good = ws.state in (State.COMPLETE, State.CANCELED)
        step = run.ws.step.name if run.ws.step else ""
        return Survived(ws.id, step, Fate.ENDED if good else Fate.LOST)
    same_step = run.ws.step is not None and run.ws.step.name == ws.step.name
    now = await _shim(ws) if same_step and run.shim else run.shim
    if same_step and now != run.shim:
        return Survived(ws.id, ws.step.name, Fate.LOST)
    return Survived(ws.id, ws.step.name, Fate.WENT_ON if ws.id in mine else Fate.NOT_TAKEN_UP)


async def _holds(state_dir: Path) -> tuple[frozenset[str], Identity | None]:
    """Return what the daemon of this host holds, and its process once it has finished a pass."""
    process, status = _process(await _seen(state_dir))
    return frozenset(status or ()), process


def _process(seen: Sighting) -> tuple[Identity | None, Sequence[str] | None]:
    status = seen.status
    if seen.life is not Life.RUNNING or status is None or status.pid is None:
        return None, None
    found = Identity(status.boot_id, status.pid, status.start_time or 0)
    return found, tuple(status.active)


async def _seen(state_dir: Path) -> Sighting:
    return await Disk("state directory", limit_s=5.0).run(partial(daemon_here, state_dir))


async def _shim(ws: Workset) -> Identity | None:
    """Return the process over the present job of ``ws``, None where none is to be seen."""

    def look() -> Identity | None:
        token = JobDirectory(ws.step.place).token() if ws.step and ws.step.place else None
        return token.shim if isinstance(token, Started) else None

    with suppress(DaemonError):
        return await Disk("job folders", limit_s=5.0).run(look)
    return None
