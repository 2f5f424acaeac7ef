"""Questions about worksets. They change nothing, and cost a bounded number of calls."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from daylily_daemon.application import cursors
from daylily_daemon.application.backend import Backend
from daylily_daemon.application.cursors import CursorPlace, written
from daylily_daemon.application.errors import Invalid, NotFound
from daylily_daemon.application.explaining import View, how_its_holder_is, why
from daylily_daemon.application.health import DaemonView, judged, viewed
from daylily_daemon.application.wording import progress_text
from daylily_daemon.domain.errors import DaemonError
from daylily_daemon.domain.listing import Query, fits
from daylily_daemon.domain.model import (
    MOST_LISTED,
    WORKSET_ID,
    Priority,
    Record,
    State,
    WorksetId,
)
from daylily_daemon.domain.totality import total
from daylily_daemon.domain.turn import Need, Turn
from daylily_daemon.domain.workset import Workset
from daylily_daemon.engine.lineup import Lineup

LINE: Final = 100
"""Worksets of one line that ``explain`` compares one with."""
RECORDS: Final = 100_000
"""Of one audit trail that are read."""


def workset_id(text: str) -> WorksetId:
    """Raises Invalid for what can be no id."""
    if not WORKSET_ID.fullmatch(text):
        raise Invalid(
            f"{text!r} is no workset id: letters, digits, - and _, at most 80, the first a letter or digit."
        )
    return WorksetId(text)


async def show(backend: Backend, text: str) -> Workset:
    """Return the workset of this id. Raises Invalid, and NotFound with what is known of its submission."""
    ws = await backend.worksets.load(workset_id(text))
    if ws is None:
        known = f"There is no workset {text}. `daylily-daemon list` shows those there are."
        raise NotFound("\n".join([known, *await _unanswered(backend, text)]))
    return ws


async def _unanswered(backend: Backend, id: str) -> list[str]:
    """Return what to say where a submission may still wait in a queue for a daemon; nothing if none does."""
    try:
        waiting = await backend.queues.unanswered()
    except DaemonError:
        return []
    counts = [(waiting.commands, "command"), (waiting.events, "S3 event")]
    told = [f"{n} {what}{'s' if n > 1 else ''}" for n, what in counts if n]
    if not told:
        return []
    verdict = judged(backend.sighting(backend.clock.now())).verdict
    where = "" if verdict.healthy else f" The daemon of this host: {verdict.lines[0]}"
    return [
        f"But no daemon has answered {' and '.join(told)} in the queues yet, and the submission of {id} may "
        f"be among them.{where}"
    ]


# --- list ---------------------------------------------------------------------------------------------

_RANK: Final = {
    State.IN_PROGRESS: 0,
    State.ERROR: 1,
    State.FAILED: 2,
    State.RETRYING: 3,
    State.READY: 4,
    State.COMPLETE: 5,
    State.CANCELED: 6,
    State.IGNORED: 7,
    State.ARCHIVED: 8,
    State.DELETED: 9,
}
ORDER: Final = tuple(sorted(State, key=total("queries.RANK", _RANK, tuple(State)).__getitem__))
"""In which all states are listed: what runs, what needs somebody, what waits, what is over."""
LISTED: Final = tuple(state for state in ORDER if state not in (State.ARCHIVED, State.DELETED))
"""Without being asked for by name: what was put aside is out of sight."""
CUSTOMER_CHARS: Final = 200
LAST_EVENTS: Final = 3
"""Of a workset, that an explanation ends with."""
LONGEST_AGE_S: Final = 100 * 365 * 86_400.0
_PREFIX: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,79}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Which worksets are wanted. What is empty leaves nothing out, but for the states."""

    states: tuple[State, ...] = ()
    """Empty for ``LISTED``."""
    customer: str = ""
    priority: Priority | None = None
    older_than_s: float | None = None
    newer_than_s: float | None = None
    """Since they were first submitted; at most ``LONGEST_AGE_S``."""
    prefix: str = ""
    """How the id begins."""
    code: str = ""
    pipeline: str = ""
    host: str = ""
    since_s: float | None = None
    older_s: float | None = None
    """For how long it is in its state: at most, and at least; at most ``LONGEST_AGE_S``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    worksets: Sequence[Workset]
    cursor: str
    """Asks for what comes next; empty if that was all."""


async def list_worksets(
    backend: Backend, listing: Listing, *, cursor: str = "", limit: int = 100
) -> Listed:
    """Return a page of worksets, state by state, urgent and old ones first.

    A page may be short, or empty, and have a cursor: what no index serves is looked for in a bounded number
    of rows a call. Raises Invalid for a listing, limit or cursor that makes no sense.
    """
    if not 1 <= limit <= MOST_LISTED:
        raise Invalid(f"A page has 1 to {MOST_LISTED} worksets, not {limit}.")
    question = repr(listing)
    place = cursors.read(cursor, question) if cursor else None
    asked_at = place.asked_at if place else backend.clock.now()
    query = _query(listing, asked_at)
    after = place.position if place else None
    if after is not None and not fits(query, after):
        raise Invalid("This cursor leads out of its list. Leave it out to begin anew.")
    page = await backend.catalogue.page(query, after=after, limit=limit)
    next_ = CursorPlace(asked_at=asked_at, position=page.after) if page.after else None
    return Listed(worksets=page.worksets, cursor=written(next_, question) if next_ else "")


def _query(listing: Listing, now: datetime) -> Query:
    older, newer = listing.older_than_s, listing.newer_than_s
    if older is not None and newer is not None and older >= newer:
        raise Invalid(
            "Nothing is older than that and newer too: the first age must be the shorter one."
        )
    least, most = listing.older_s, listing.since_s
    if least is not None and most is not None and least >= most:
        raise Invalid("Nothing is in its state for longer than --older and shorter than --since.")
    if listing.prefix and not _PREFIX.fullmatch(listing.prefix):
        raise Invalid(f"No workset id begins with {listing.prefix[:100]!r}.")
    for what, text in (("a customer's id", listing.customer), *_texts(listing)):
        if len(text) > CUSTOMER_CHARS:
            raise Invalid(f"{text[:50]!r}... is too long for {what}.")
    return Query(
        states=tuple(dict.fromkeys(listing.states)) or LISTED,
        customer=listing.customer,
        priority=listing.priority,
        created_from=_before(now, newer),
        created_before=_before(now, older),
        prefix=listing.prefix,
        code=listing.code,
        pipeline=listing.pipeline,
        host=listing.host,
        entered_from=_before(now, listing.since_s),
        entered_before=_before(now, listing.older_s),
    )


def _texts(listing: Listing) -> tuple[tuple[str, str], ...]:
    return (
        ("a code", listing.code),
        ("a pipeline's name", listing.pipeline),
        ("a host's name", listing.host),
    )


def _before(now: datetime, age_s: float | None) -> datetime | None:
    if age_s is None:
        return None
    if not 0 <= age_s <= LONGEST_AGE_S:
        raise Invalid("An age is from 0 seconds to 100 years.")
    return now - timedelta(seconds=age_s)


# --- one workset --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    records: Sequence[Record]
    """Oldest first."""
    more: bool
    """Whether there are more than ``RECORDS``."""


async def events(backend: Backend, text: str) -> Events:
    """Return the audit trail of a workset. Raises as ``show``."""
    ws = await show(backend, text)
    records = await backend.trail.read(ws.id, limit=RECORDS + 1)
    return Events(records=records[:RECORDS], more=len(records) > RECORDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    workset: Workset
    lines: tuple[str, ...]
    """Sentences, the most important one first."""


async def explain(backend: Backend, text: str) -> Explanation:
    """Return why a workset is where it is. Raises as ``show``."""
    ws = await show(backend, text)
    return Explanation(workset=ws, lines=tuple(why(ws, await _view(backend, ws))))


async def _view(backend: Backend, ws: Workset) -> View:
    now = backend.clock.now()
    view = View(
        now=now,
        daemon=judged(backend.sighting(now)),
        limits=backend.limits,
        holder=await _holder(backend, ws, now),
        job=await _job(backend, ws),
        events=await backend.trail.read(ws.id, after=max(0, ws.last_seq - LAST_EVENTS)),
    )
    if ws.state not in (State.READY, State.RETRYING):
        return view
    lineup = Lineup(backend.turns)
    runs = {turn.id: turn.customer for turn in await lineup.running()}
    reading = await lineup.waiting(_shown, lambda _: False)
    waiting = await lineup.loaded(reading.turns, {})
    return replace(view, waiting=waiting, more=reading.more, runs=runs)


async def where_it_runs(backend: Backend, ws: Workset) -> str:
    """Return who holds a run and how it is, as sentences; empty where nobody does. Raises nothing of AWS."""
    if ws.owner is None or ws.state is not State.IN_PROGRESS:
        return ""
    now = backend.clock.now()
    view = View(
        now=now,
        daemon=judged(backend.sighting(now)),
        limits=backend.limits,
        holder=await _holder(backend, ws, now),
    )
    said = f"It is at: {progress_text(ws, now)}. " if ws.step else ""
    return f"{said}{how_its_holder_is(ws.owner, view)} There: `daylily-daemon logs {ws.id}`."


async def _job(backend: Backend, ws: Workset) -> str | None:
    if ws.state is not State.IN_PROGRESS:
        return None
    found = await backend.activities([ws])
    return found[ws.id].text if ws.id in found else None


async def _holder(backend: Backend, ws: Workset, now: datetime) -> DaemonView | None:
    """Return the daemon that holds it, None where none does or the registry does not tell."""
    if ws.owner is None:
        return None
    try:
        rows = await backend.registry.daemons()
    except DaemonError:
        return None
    return next((viewed(row, now) for row in rows if row.owner == ws.owner), None)


def _shown(turn: Turn) -> int:
    """Return how many worksets of a line are read to tell what goes before one."""
    return 0 if turn.need == Need.UNCHECKED else LINE
