"""The same asked of many worksets: which they are, what would come of it, and what came of it.

A workset is asked by itself, and has an outcome of its own. Whatever happens to one, the others are asked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, TypeVar

import anyio

from daylily_daemon.application.backend import Backend
from daylily_daemon.application.queries import ORDER, Listing, list_worksets, show
from daylily_daemon.application.requests import Followed, answer_to
from daylily_daemon.domain import commands
from daylily_daemon.domain.errors import DaemonError, errors_alone
from daylily_daemon.domain.model import Ask, Command, HostLost
from daylily_daemon.domain.workset import Workset

PAGES: Final = 10
"""Read for one filter: each is at most ``READ_ROWS`` rows."""
AT_ONCE: Final = 16
"""Calls."""
LEAST_S: Final = 2.0
"""For the answer to each command, where the time for all of them is up: one look."""

T = TypeVar("T")
S = TypeVar("S")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    worksets: Sequence[Workset]
    more: bool = False
    """Whether there may be others that match."""


async def named(backend: Backend, ids: Sequence[str]) -> Chosen:
    """Return the worksets of these ids, each once. Raises as ``queries.show``, for any that is not there."""
    found = await _each(list(dict.fromkeys(ids)), partial(show, backend))
    return Chosen(worksets=found)


async def matching(backend: Backend, listing: Listing, ask: Ask, limit: int) -> Chosen:
    """Return up to ``limit`` worksets; without a state, those in states that ``ask`` is for.

    Reads at most ``PAGES`` pages. Raises as ``list_worksets``.
    """
    fits = commands.FITS[type(ask)]
    wanted = replace(listing, states=listing.states or tuple(s for s in ORDER if s in fits))
    found, cursor = list[Workset](), ""
    for _ in range(PAGES):
        listed = await list_worksets(backend, wanted, cursor=cursor, limit=limit - len(found))
        found += listed.worksets
        cursor = listed.cursor
        if not cursor or len(found) == limit:
            break
    return Chosen(worksets=found, more=bool(cursor))


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked of each, by whom, and how long the answers are waited for."""

    ask: Ask
    by: str
    wait: bool = False
    timeout_s: float | None = None


def foreseen(backend: Backend, ws: Workset, question: Question) -> Followed:
    """Return what would come of it as things are now. Nothing is sent."""
    command = _command(backend, ws, question)
    at_the_door = isinstance(
        question.ask, HostLost
    )  # whether a machine is gone only its time can tell
    decide = commands.ask if at_the_door else commands.apply
    decision = decide(ws, command, backend.clock.now())
    return Followed(command, decision.answers[-1], decision.workset)


@dataclass(frozen=True, slots=True)
class Unasked:
    """A command that could not be sent, or whose answer could not be looked for."""

    command: Command
    error: DaemonError
    sent: bool


Told = Callable[[Followed | Unasked], None]


async def ask_each(
    backend: Backend, worksets: Sequence[Workset], question: Question, told: Told
) -> None:
    """Ask, and tell the outcome of each as soon as it is known, in no order."""
    asked = [_command(backend, ws, question) for ws in worksets]
    sent = [one for one in await _each(asked, partial(_sent, backend, told)) if one]
    if not question.wait:
        for command in sent:
            told(Followed(command, None))
        return
    until = None if question.timeout_s is None else anyio.current_time() + question.timeout_s

    async def follow(command: Command) -> None:
        left = None if until is None else max(LEAST_S, until - anyio.current_time())
        try:
            told(await answer_to(backend, command, left))
        except DaemonError as exc:
            told(Unasked(command, exc, sent=True))

    await _each(sent, follow)


async def _sent(backend: Backend, told: Told, command: Command) -> Command | None:
    """Return the command once it lies in the queue."""
    try:
        await backend.queues.send(command)
    except DaemonError as exc:
        told(Unasked(command, exc, sent=False))
        return None
    return command


def _command(backend: Backend, ws: Workset, question: Question) -> Command:
    id = backend.ids.fresh()
    return Command(id=id, workset_id=ws.id, by=question.by, ask=question.ask)


async def _each(items: Sequence[S], do: Callable[[S], Awaitable[T]]) -> list[T]:
    """Do it to each, some at once; return what came of them, in order."""
    results: dict[int, T] = {}
    limiter = anyio.CapacityLimiter(AT_ONCE)

    async def one(place: int, item: S) -> None:
        async with limiter:
            results[place] = await do(item)

    with errors_alone():
        async with anyio.create_task_group() as tg:
            for place, item in enumerate(items):
                tg.start_soon(one, place, item)
    return [results[place] for place in range(len(items))]
