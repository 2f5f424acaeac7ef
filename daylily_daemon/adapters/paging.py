"""Pages of worksets, for every store that can read a part of an index: never more than is bounded here.

One more than wanted is looked for, so that whoever is told that there is more finds something there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from anyio import create_task_group

from daylily_daemon.domain.errors import errors_alone
from daylily_daemon.domain.listing import (
    ListedRow,
    Position,
    Query,
    Span,
    is_in_items,
    is_searched,
    matches,
    spans_of,
)
from daylily_daemon.domain.model import WorksetId
from daylily_daemon.domain.workset import Workset
from daylily_daemon.ports import READ_ROWS, Page

MOST_CALLS: Final = 60
"""Reads for one page: a store may answer with fewer rows at a time than it was asked for."""


AT_ONCE: Final = 8
"""Spans that are begun at once."""


@dataclass(frozen=True, slots=True)
class PageRows:
    """The answer to one read."""

    found: Sequence[ListedRow]
    """Those that match, in the order of the index."""
    read: int
    """How many were read, those that do not match too."""
    more: Position | None
    """Where this span goes on; None at its end."""


Load = Callable[[Sequence[WorksetId]], Awaitable[Sequence[Workset]]]
"""Returns the worksets there are of these ids."""
Read = Callable[[Span, Position, int], Awaitable[PageRows]]
"""Reads at most so many rows of a span from a position on."""


@dataclass(frozen=True, slots=True)
class PageSource:
    """An index, and the items behind it."""

    read: Read
    load: Load


async def page_of(query: Query, after: Position | None, limit: int, source: PageSource) -> Page:
    """Return up to ``limit`` worksets, and where the next page begins.

    What has left its place since the index was written is not shown there.
    """
    source = _sifting(query, source) if is_in_items(query) else source
    walk = _Walk(query, after or Position(), limit)
    while walk.goes_on:
        places = walk.places()
        for place, rows in zip(places, await _at_once(places, walk, source.read), strict=True):
            walk.take(place, rows)
    kept, more = walk.page()
    loaded = {ws.id: ws for ws in await source.load([row.id for _, row in kept])} if kept else {}
    shown = ((walk.spans[at.span], loaded.get(row.id)) for at, row in kept)
    return Page(
        worksets=tuple(ws for span, ws in shown if ws and matches(query, span, ws)), after=more
    )


def _sifting(query: Query, source: PageSource) -> PageSource:
    """Return a source whose rows are those that match by their items, each of which is read once."""
    spans, known = spans_of(query), dict[WorksetId, Workset]()

    async def read(span: Span, at: Position, most: int) -> PageRows:
        rows = await source.read(span, at, most)
        items = await source.load([row.id for row in rows.found]) if rows.found else []
        kept = {ws.id: ws for ws in items if matches(query, spans[at.span], ws)}
        known.update(kept)
        return replace(rows, found=[row for row in rows.found if row.id in kept])

    async def load(ids: Sequence[WorksetId]) -> Sequence[Workset]:
        return [known[id] for id in ids if id in known]

    return PageSource(read, load)


async def _at_once(places: Sequence[Position], walk: _Walk, read: Read) -> list[PageRows]:
    """Return the answers in the order of ``places``. Raises what the first read that fails raises."""
    answers: dict[int, PageRows] = {}
    most = walk.rows

    async def one(at: Position) -> None:
        answers[at.span] = await read(walk.spans[at.span], at, most)

    with errors_alone():
        async with create_task_group() as tg:
            for at in places:
                tg.start_soon(one, at)
    return [answers[at.span] for at in places]


@dataclass(slots=True)
class _Walk:
    query: Query
    at: Position
    limit: int
    spans: Sequence[Span] = field(init=False)
    found: list[tuple[Position, ListedRow]] = field(default_factory=list)
    rows_left: int = READ_ROWS
    calls_left: int = MOST_CALLS

    def __post_init__(self) -> None:
        self.spans = spans_of(self.query)

    @property
    def goes_on(self) -> bool:
        affordable = self.rows_left > 0 and self.calls_left > 0
        return affordable and len(self.found) <= self.limit and self.at.span < len(self.spans)

    @property
    def rows(self) -> int:
        if is_searched(self.query):
            return self.rows_left
        return min(self.rows_left, self.limit + 1 - len(self.found))

    def places(self) -> list[Position]:
        """Return where to read next: many states are short, so some spans are begun at once.

        Not in the middle of one, which has more for itself, nor beyond the rows that may be read.
        """
        if self.at.id:
            return [self.at]
        affordable = min(self.rows_left // self.rows, self.calls_left, AT_ONCE)
        first = self.at.span
        last = min(first + max(affordable, 1), len(self.spans))
        return [Position(span) for span in range(first, last)]

    def take(self, place: Position, rows: PageRows) -> None:
        """Take an answer; what lies behind a span that has more is of no use yet."""
        self.rows_left -= rows.read
        self.calls_left -= 1
        if place == self.at:
            span = place.span
            self.found += [(Position(span, row.key, row.id), row) for row in rows.found]
            self.at = rows.more or Position(span + 1)

    def page(self) -> tuple[list[tuple[Position, ListedRow]], Position | None]:
        """Return the rows of this page, in order, and where the next one begins."""
        kept = self.found[: self.limit]
        more: Position | None = self.at if self.at.span < len(self.spans) else None
        if len(self.found) > len(kept):
            more = kept[-1][0]
        return sorted(kept, key=lambda found: (found[0].span, found[0].key)), more
