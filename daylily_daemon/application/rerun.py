"""Running the files of a workset again, as a workset of another name: the first one stays as it is."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from daylily_daemon.application.backend import Backend
from daylily_daemon.application.errors import NoEffect
from daylily_daemon.application.queries import show, workset_id
from daylily_daemon.application.requests import ENDED
from daylily_daemon.domain.model import Command, State, Submit, WorksetId
from daylily_daemon.domain.workset import Request, Workset

COPIED: Final = ENDED - {State.DELETED}
"""The states of worksets whose files may be run again under another name."""

CopyDrop = Callable[[Request, str], Awaitable[None]]
"""Brings the files of a drop to an address that ends with a slash."""


@dataclass(frozen=True, slots=True)
class Rerun:
    """What is to be run again, and under which name."""

    source: Workset
    id: WorksetId


async def rerun_of(backend: Backend, text: str, name: str = "") -> Rerun:
    """Return what would be run again. Raises NoEffect for a name that is taken, and as ``queries.show``."""
    ws = await show(backend, text)
    if ws.state not in COPIED:
        advice = "" if ws.state is State.DELETED else "; wait for its end, or cancel it first"
        raise NoEffect(f"{ws.id} is {ws.state}{advice}. Nothing was copied.")
    id = workset_id(name or next_name(ws))
    await _check_free(backend, id)
    return Rerun(ws, id)


def next_name(ws: Workset) -> str:
    """Return ``HG002-2`` for HG002, and ``HG002-3`` for what was made of HG002 as HG002-2."""
    base, number = ws.request.rerun_of, 1
    found = re.fullmatch(f"{re.escape(base)}-([0-9]{{1,6}})", ws.id) if base else None
    if found:
        number = int(found[1])
    return f"{base if found else ws.id}-{number + 1}"


async def _check_free(backend: Backend, id: WorksetId) -> None:
    """Raises NoEffect for a name that a workset has."""
    if (there := await backend.worksets.load(id)) is not None:
        raise NoEffect(
            f"There is a workset {id} already; it is {there.state}. Choose another name with --as."
        )


async def rerun(backend: Backend, wanted: Rerun, by: str, copy: CopyDrop) -> Command:
    """Copy the drop, then submit it for the same customer, as urgent as it was. Raises NoEffect."""
    source = wanted.source
    ask = Submit(
        bucket=backend.bucket,
        prefix=f"{backend.prefix}{wanted.id}/",
        customer_id=source.request.customer_id,
        priority=source.priority,
        rerun_of=source.id,
    )
    await copy(source.request, f"s3://{ask.bucket}/{ask.prefix}")
    await _check_free(backend, wanted.id)
    command = Command(id=backend.ids.fresh(), workset_id=wanted.id, by=by, ask=ask)
    await backend.queues.send(command)
    return command
