"""Which worksets a list is asked for, and what of an index that is.

Worksets lie in an index by state, within it by priority, age and id (``Workset.priority_key``), and those
of one customer in another, in the same order. So state, priority and age are bounds of keys: a ``Span`` each,
read one after another. What no key serves is looked for row by row: a prefix of the id in the index, and in
the items why it failed, its pipeline, where it ran, and since when it is in its state.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from daylily_daemon.domain.model import Priority, State, WorksetId
from daylily_daemon.domain.workset import Workset

Bounds = tuple[str, str]
"""The least and the greatest ``priority_key``; both belong to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    states: tuple[State, ...]
    """In the order in which they are listed; each once."""
    customer: str = ""
    """Empty for every customer."""
    priority: Priority | None = None
    created_from: datetime | None = None
    created_before: datetime | None = None
    prefix: str = ""
    """How the id begins."""
    code: str = ""
    """Of the failure it is in error for."""
    pipeline: str = ""
    host: str = ""
    """A daemon or a machine: see ``is_of_host``."""
    entered_from: datetime | None = None
    entered_before: datetime | None = None
    """When it came into the state it is in."""


@dataclass(frozen=True, slots=True)
class Span:
    """A part of an index that is read from its beginning to its end."""

    state: State
    bounds: Bounds | None = None
    """None for everything in this state."""

    def holds(self, key: str) -> bool:
        return self.bounds is None or self.bounds[0] <= key <= self.bounds[1]


@dataclass(frozen=True, slots=True)
class Position:
    """Where reading goes on: right after the workset ``id``, or at the beginning of the span."""

    span: int = 0
    key: str = ""
    id: str = ""


def spans_of(query: Query) -> tuple[Span, ...]:
    """Return what is to be read, in order: at most one span a state and priority."""
    bounds = tuple(_bounds(query)) or (None,)
    return tuple(Span(state, one) for state in query.states for one in bounds)


def _bounds(query: Query) -> Iterator[Bounds]:
    oldest, newest = query.created_from, _newest(query)
    if query.priority is None and oldest is None and newest is None:
        return
    ranks = sorted(p.rank for p in Priority) if query.priority is None else [query.priority.rank]
    for rank in ranks:
        low = f"{rank}#{_written(oldest)}" if oldest else f"{rank}#"
        high = f"{rank}#{_written(newest)}" if newest else f"{rank}$"  # the sign after #
        yield low, high


def _newest(query: Query) -> datetime | None:
    """Return before when it was made: before it came into its state, too."""
    bounds = [at for at in (query.created_before, query.entered_before) if at is not None]
    return min(bounds, default=None)


def _written(at: datetime) -> str:
    """As in ``Workset.priority_key``, where an id follows: so a bound comes before all of its moment."""
    return at.astimezone(UTC).isoformat()


def is_searched(query: Query) -> bool:
    """Tell whether rows have to be read to be left out."""
    return bool(query.prefix) or is_in_items(query)


def is_in_items(query: Query) -> bool:
    """Tell whether it takes the items themselves to tell what matches: an index has keys alone."""
    entered = query.entered_from or query.entered_before
    return bool(query.code or query.pipeline or query.host or entered)


def fits(query: Query, position: Position) -> bool:
    """Tell whether a list by ``query`` can ever have come to ``position``."""
    spans = spans_of(query)
    if not 0 <= position.span < len(spans):
        return False
    if not position.id:
        return not position.key
    return bool(position.key) and spans[position.span].holds(position.key)


def matches(query: Query, span: Span, ws: Workset) -> bool:
    return (
        ws.state is span.state
        and span.holds(ws.priority_key)
        and query.customer in ("", ws.request.customer_id)
        and ws.id.startswith(query.prefix)
        and _item_matches(query, ws)
    )


def _item_matches(query: Query, ws: Workset) -> bool:
    since = ws.state_since
    return (
        query.code in ("", ws.failure.code if ws.failure else "")
        and query.pipeline in ("", ws.plan.pipeline if ws.plan else "")
        and (not query.host or is_of_host(ws, query.host))
        and (query.entered_from is None or since >= query.entered_from)
        and (query.entered_before is None or since < query.entered_before)
    )


def is_of_host(ws: Workset, name: str) -> bool:
    """Tell whether a daemon holds it, or it runs or last ran on a machine, that ``name`` names.

    A daemon is ``name/machine/folder`` (``StateDir.locked``), a machine ``host:machine/folder``; any number
    of their parts from the beginning will do.
    """
    step = ws.run.latest if ws.run else None
    place = step.scope.removeprefix("host:") if step else ""
    wanted = name.removeprefix("host:").rstrip("/") + "/"
    return any(f"{part}/".startswith(wanted) for part in (ws.owner or "", place) if part)


@dataclass(frozen=True, slots=True)
class ListedRow:
    """A row of the index."""

    id: WorksetId
    key: str
    """Its ``priority_key``."""
