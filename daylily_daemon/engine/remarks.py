"""Words for people, written into an item that nobody holds: best effort, and never in the way of anything."""

from __future__ import annotations

import structlog

from daylily_daemon.domain.errors import DaemonError
from daylily_daemon.domain.events import InputNotChecked, Noted
from daylily_daemon.domain.model import State, WorksetId
from daylily_daemon.domain.remarks import TROUBLE_CHARS, Remarks
from daylily_daemon.domain.workset import Workset
from daylily_daemon.engine.boundary import foreign_as_unexpected
from daylily_daemon.engine.writer import Writer

log = structlog.get_logger()


async def remark(writer: Writer, ws: Workset, event: InputNotChecked | Noted) -> None:
    """Write this into the item, if it is still what we saw; say nothing if that fails."""
    try:
        with foreign_as_unexpected("a remark"):
            await writer.apply(ws, event)
    except DaemonError as exc:
        log.info("remark_not_written", workset=ws.id, error=str(exc))


async def say_trouble(writer: Writer, id: WorksetId, text: str) -> None:
    """Let people see why a run that nobody holds is not taken up. What is said already is not said again."""
    try:
        with foreign_as_unexpected("a remark"):
            ws = await writer.worksets.load(id)
    except DaemonError as exc:
        log.info("remark_not_written", workset=id, error=str(exc))
        return
    if ws is None or ws.state is not State.IN_PROGRESS or ws.lock:
        return
    if ws.trouble != text[:TROUBLE_CHARS]:
        await remark(writer, ws, Noted(ws.job, Remarks(trouble=text)))
