"""Requests: each is a command in the queue, and what becomes of it is a daemon's answer.

Nothing here changes a workset. A request that is sent says nothing about its answer; ``answer_to`` and
``end_of`` wait for that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import anyio

from daylily_daemon.application.backend import Backend
from daylily_daemon.application.errors import Invalid, NoEffect
from daylily_daemon.application.health import judged
from daylily_daemon.application.queries import show, workset_id
from daylily_daemon.application.wording import sentence
from daylily_daemon.domain import commands
from daylily_daemon.domain.model import (
    Answer,
    Ask,
    Cancel,
    Command,
    CommandEffect,
    Priority,
    State,
    Submit,
    WorksetId,
)
from daylily_daemon.domain.naming import workset_of_key
from daylily_daemon.domain.workset import Workset

FIRST_LOOK_S: Final = 0.2
LOOK_S: Final = 1.0
ENDED: Final = frozenset(State) - {State.READY, State.IN_PROGRESS, State.RETRYING}
_INEFFECTIVE: Final = (CommandEffect.NONE, CommandEffect.REFUSED)


@dataclass(frozen=True, slots=True)
class Followed:
    """What is known of a command when the waiting ends."""

    command: Command
    answer: Answer | None
    workset: Workset | None = None
    hint: str = ""
    """Why there may be no answer yet."""

    @property
    def is_settled(self) -> bool:
        """Tell whether nothing more will be written about it; a queued one is answered by who runs it."""
        return self.answer is not None and is_settled(self.answer)

    @property
    def is_stopping(self) -> bool:
        """Tell whether a cancel was obeyed and the job has not ended yet."""
        ws = self.workset
        return isinstance(self.command.ask, Cancel) and bool(ws and _is_being_stopped(ws))


def is_settled(answer: Answer) -> bool:
    return answer.effect is not CommandEffect.QUEUED


def _is_being_stopped(ws: Workset) -> bool:
    return ws.run is not None and ws.step is not None and bool(ws.run.stopping)


async def ask(backend: Backend, text: str, what: Ask, by: str) -> Command:
    """Ask something of the workset with this id. Raises as ``queries.show``."""
    ws = await show(backend, text)
    command = Command(id=backend.ids.fresh(), workset_id=ws.id, by=by, ask=what)
    await backend.queues.send(command)
    return command


async def answer_to(backend: Backend, command: Command, timeout_s: float | None) -> Followed:
    """Wait until a command is answered for good; for a cancel, also until the job has ended."""
    began = anyio.current_time()
    answer = await _answer(backend, command, timeout_s)
    hint = "" if answer else why_no_answer(backend)
    if isinstance(command.ask, Cancel):
        ws = await _stopped(backend, command.workset_id, _left(timeout_s, began))
    else:
        ws = await backend.worksets.load(command.workset_id)
    return Followed(command, answer, ws, hint)


async def end_of(backend: Backend, command: Command, timeout_s: float | None) -> Followed:
    """Wait until what was submitted has ended, or will never run by this command."""
    began = anyio.current_time()
    answer = await _answer(backend, command, timeout_s)
    ws = await backend.worksets.load(command.workset_id)
    if answer is None or answer.effect is not CommandEffect.APPLIED:
        return Followed(command, answer, ws, "" if answer else why_no_answer(backend))
    with anyio.move_on_after(_left(timeout_s, began)):
        while ws is not None and ws.state not in ENDED:
            await anyio.sleep(LOOK_S)
            ws = await backend.worksets.load(command.workset_id)
    return Followed(command, answer, ws)


def _left(timeout_s: float | None, began: float) -> float | None:
    return None if timeout_s is None else max(0.0, timeout_s - (anyio.current_time() - began))


async def _answer(backend: Backend, command: Command, timeout_s: float | None) -> Answer | None:
    """Wait until a command is settled; return the last answer there was when the time is up."""
    last: Answer | None = None
    pause_s = FIRST_LOOK_S
    with anyio.move_on_after(timeout_s):
        while True:
            last = await backend.trail.answer_to(command.workset_id, command.id) or last
            if last is not None and is_settled(last):
                return last
            await anyio.sleep(pause_s)
            pause_s = min(LOOK_S, 2 * pause_s)
    return last


async def _stopped(backend: Backend, id: WorksetId, timeout_s: float | None) -> Workset | None:
    """Wait until a workset that is being stopped has stopped; return it as it is then."""
    ws = await backend.worksets.load(id)
    with anyio.move_on_after(timeout_s):
        while ws is not None and _is_being_stopped(ws):
            await anyio.sleep(LOOK_S)
            ws = await backend.worksets.load(id)
    return ws


def why_no_answer(backend: Backend, *, unless_none_ran: bool = False) -> str:
    """Return what is wrong with the daemon of this host, as a sentence to be added; empty if nothing is.

    ``unless_none_ran``: a host that never had a daemon is not worth a word, others have it.
    """
    daemon = judged(backend.sighting(backend.clock.now()))
    if unless_none_ran and daemon.status is None:
        return ""
    return "" if daemon.verdict.healthy else f"\nThe daemon of this host: {daemon.verdict.text}"


# --- submit -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    id: WorksetId
    by: str
    customer: str = ""
    priority: Priority | None = None


Upload = Callable[[str], Awaitable[None]]
"""Brings the files to an address that ends with a slash."""


async def submit(backend: Backend, submission: Submission, upload: Upload | None = None) -> Command:
    """Submit a workset; ``upload`` brings its files there first, if they are not there yet.

    Raises NoEffect before anything is uploaded for what is running, complete, or another customer's.
    """
    ask = Submit(
        bucket=backend.bucket,
        prefix=f"{backend.prefix}{submission.id}/",
        customer_id=submission.customer,
        priority=submission.priority,
    )
    command = Command(id=backend.ids.fresh(), workset_id=submission.id, by=submission.by, ask=ask)
    await _check_effect(backend, command)
    if upload is not None:
        await upload(f"s3://{ask.bucket}/{ask.prefix}")
        await _check_effect(backend, command)
    await backend.queues.send(command)
    return command


async def _check_effect(backend: Backend, command: Command) -> None:
    """Raises NoEffect, with the daemon's own words, where a submission would have none."""
    ws = await backend.worksets.load(command.workset_id)
    if ws is None:
        return
    for answer in commands.apply(ws, command, backend.clock.now()).answers:
        if answer.effect in _INEFFECTIVE:
            raise NoEffect(f"Nothing was submitted: {sentence(answer.text)}")


def in_control_bucket(backend: Backend, uri: str) -> WorksetId:
    """Return the workset whose folder ``uri`` names. Raises Invalid for what is none."""
    bucket, prefix = backend.bucket, backend.prefix
    name, _, key = uri.removeprefix("s3://").partition("/")
    place = workset_of_key(prefix, key.rstrip("/") + "/daylily.ready")
    if name != bucket or place is None:
        raise Invalid(
            f"{uri} is no workset of the control bucket; it must be s3://{bucket}/{prefix}<workset>/. "
            "To run files that lie elsewhere, submit a local copy of the folder."
        )
    return workset_id(place[0])
