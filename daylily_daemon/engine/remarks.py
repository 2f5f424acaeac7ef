"""Words for people, written into an item that nobody holds: best effort, and never in the way of anything."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import structlog

from daylily_daemon.domain.decision import Decision
from daylily_daemon.domain.errors import DaemonError
from daylily_daemon.domain.model import State, Workset, WorksetId
from daylily_daemon.domain.routing import Routing
from daylily_daemon.engine.boundary import foreign_as_unexpected
from daylily_daemon.engine.lease import Desk

log = structlog.get_logger()

TROUBLE_CHARS: Final = 500


async def remark(desk: Desk, ws: Workset, **fields: Any) -> None:
    """Write these fields into the item, if it is still what we saw; say nothing if that fails."""
    try:
        with foreign_as_unexpected("a remark"):
            await desk.write(desk.change(ws, Decision(replace(ws, **fields)), Routing()))
    except DaemonError as exc:
        log.info("remark_not_written", workset=ws.id, error=str(exc))


async def say_trouble(desk: Desk, id: WorksetId, text: str) -> None:
    """Let people see why a run that nobody holds is not taken up. What is said already is not said again."""
    said = text[:TROUBLE_CHARS]
    try:
        with foreign_as_unexpected("a remark"):
            ws = await desk.worksets.load(id)
    except DaemonError as exc:
        log.info("remark_not_written", workset=id, error=str(exc))
        return
    if (
        ws is not None
        and ws.state is State.IN_PROGRESS
        and not ws.lock_owner
        and ws.trouble != said
    ):
        await remark(desk, ws, trouble=said)
