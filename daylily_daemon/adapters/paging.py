"""Pages of worksets, for every store that can read a part of an index: never more than is bounded here.

One more than wanted is looked for, so that whoever is told that there is more finds something there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from daylily_daemon.domain.listing import Position, Query, Row, Span, is_searched, spans_of
from daylily_daemon.ports import READ_ROWS, Page

MOST_CALLS: Final = 60
"""Reads for one page: a store may answer with fewer rows at a time than it was asked for."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The answer to one read."""

    found: Sequence[Row]
    """Those that match, in the order of the index."""
    read: int
    """How many were read, those that do not match too."""
    more: Position | None
    """Where this span goes on; None at its end."""


Read = Callable[[Span, Position, int], Awaitable[Rows]]
"""Reads at most so many rows of a span from a position on."""


async def page_of(query: Query, after: Position | None, limit: int, read: Read) -> Page:
    """Return up to ``limit`` worksets, and where the next page begins."""
    walk = _Walk(query, after or Position(), limit)
    while walk.goes_on:
        walk.take(await read(walk.span, walk.at, walk.rows))
    return walk.page()


@dataclass(slots=True)
class _Walk:
    query: Query
    at: Position
    limit: int
    spans: Sequence[Span] = field(init=False)
    found: list[tuple[Position, Row]] = field(default_factory=list)
    rows_left: int = READ_ROWS
    calls_left: int = MOST_CALLS

    def __post_init__(self) -> None:
        self.spans = spans_of(self.query)

    @property
    def goes_on(self) -> bool:
        affordable = self.rows_left > 0 and self.calls_left > 0
        return affordable and len(self.found) <= self.limit and self.at.span < len(self.spans)

    @property
    def span(self) -> Span:
        return self.spans[self.at.span]

    @property
    def rows(self) -> int:
        if is_searched(self.query):
            return self.rows_left
        return min(self.rows_left, self.limit + 1 - len(self.found))

    def take(self, rows: Rows) -> None:
        span = self.at.span
        self.found += [(Position(span, row.key, row.id), row) for row in rows.found]
        self.rows_left -= rows.read
        self.calls_left -= 1
        self.at = rows.more or Position(span + 1)

    def page(self) -> Page:
        kept = self.found[: self.limit]
        more: Position | None = self.at if self.at.span < len(self.spans) else None
        if len(self.found) > len(kept):
            more = kept[-1][0]
        kept.sort(key=lambda found: (found[0].span, found[0].key))
        return Page(worksets=tuple(row.workset for _, row in kept), after=more)
