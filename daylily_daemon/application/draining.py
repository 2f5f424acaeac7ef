"""Draining: a daemon takes on nothing new, because somebody wants it so. What runs, runs to its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import anyio

from daylily_daemon.application.backend import Backend
from daylily_daemon.application.errors import NotFound
from daylily_daemon.application.health import DaemonState, DaemonView, judged, short_name, viewed
from daylily_daemon.domain.daemon import Drain

LOOK_S: Final = 2.0
REASON_CHARS: Final = 200


async def daemons_called(backend: Backend, name: str) -> Sequence[DaemonView]:
    """Return the daemons of this name, all of it or the part before a slash; of this host without a name.

    Raises NotFound, naming those there are, and what the registry raises.
    """
    now = backend.clock.now()
    local = judged(backend.sighting(now)).status
    wanted = name or (local.owner if local else "")
    rows = [viewed(row, now) for row in await backend.registry.daemons()]
    found = [daemon for daemon in rows if wanted and _is_called(daemon.owner, wanted)]
    if found:
        return found
    known = ", ".join(sorted(daemon.name for daemon in rows)) or "none has ever signed the registry"
    what = f"is called {name}" if name else "has run with the state directory of this host"
    raise NotFound(f"No daemon {what}. There are: {known}. Name one with --daemon.")


def _is_called(owner: str, name: str) -> bool:
    return name in (owner, short_name(owner), owner.partition("/")[0])


async def drain(backend: Backend, daemons: Sequence[DaemonView], by: str, reason: str = "") -> None:
    """Have these daemons start nothing new from now on, across restarts, until ``resume``."""
    drain = Drain(by=by, since=backend.clock.now(), reason=reason[:REASON_CHARS])
    for daemon in daemons:
        await backend.registry.drain(daemon.owner, drain)


async def resume(backend: Backend, daemons: Sequence[DaemonView]) -> None:
    for daemon in daemons:
        await backend.registry.drain(daemon.owner, None)


async def strike_off(backend: Backend, name: str) -> Sequence[str]:
    """Take the daemons of this name that are silent off the registry; return what they are called."""
    rows = [viewed(row, backend.clock.now()) for row in await backend.registry.daemons()]
    gone = [d for d in rows if d.state is DaemonState.SILENT and _is_called(d.owner, name)]
    for daemon in gone:
        await backend.registry.strike(daemon.owner)
    return [daemon.name for daemon in gone]


async def emptied(
    backend: Backend, daemons: Sequence[DaemonView], timeout_s: float | None
) -> Sequence[str]:
    """Wait until none of them holds a workset; return those that are still held when the time is up."""
    owners = {daemon.owner for daemon in daemons}
    left: Sequence[str] = ()
    with anyio.move_on_after(timeout_s):
        while left := await _held(backend, owners):  # noqa: ASYNC110 - other hosts tell nobody
            await anyio.sleep(LOOK_S)
    return left


async def _held(backend: Backend, owners: set[str]) -> Sequence[str]:
    """Return what these daemons hold by what they said last; the one of this host says it in each pass."""
    local = judged(backend.sighting(backend.clock.now())).status
    found: list[str] = []
    for row in await backend.registry.daemons():
        here = local is not None and local.owner == row.owner
        status = local if here else row.status
        if row.owner in owners and status is not None and status.stopped_at is None:
            found += status.active
    return sorted(found)
