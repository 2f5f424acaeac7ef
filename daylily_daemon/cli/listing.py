"""``list``: worksets by state, a page at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from daylily_daemon.cli import later, printing
from daylily_daemon.cli.groups import Access, Filters, Output, Shape, WatchOption, age_s, flattened
from daylily_daemon.cli.options import Usage, reporting, with_backend
from daylily_daemon.domain.model import MOST_LISTED, Priority

if TYPE_CHECKING:
    from daylily_daemon.application.backend import Backend
    from daylily_daemon.application.queries import Listed, Listing
    from daylily_daemon.cli.layout import Line

Dated: TypeAlias = "tuple[Listed, datetime]"
"""A page, and when it was read."""


@dataclass(frozen=True, kw_only=True)
class Paging:
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=MOST_LISTED, help="At most so many.")
    ] = 100
    cursor: Annotated[
        str | None,
        typer.Option("--cursor", help="Go on where a page ended. '' is the first, for --json."),
    ] = None


@flattened
def list_(
    filters: Filters,
    paging: Paging,
    output: Output,
    watching: WatchOption,
    access: Access,
    priority: Annotated[
        Priority | None, typer.Option("--priority", help="Only of this priority.")
    ] = None,
    prefix: Annotated[str, typer.Option("--prefix", metavar="ID", help="Whose id begins so.")] = "",
    submitted_since: Annotated[
        str,
        typer.Option(
            "--submitted-since", "--newer-than", metavar="AGE", help="First submitted since: 90m."
        ),
    ] = "",
    submitted_before: Annotated[
        str,
        typer.Option(
            "--submitted-before", "--older-than", metavar="AGE", help="First submitted before: 7d."
        ),
    ] = "",
) -> None:
    """List worksets: those that run, that need somebody, that wait, and that are over.

    In each state urgent and old ones come first; AGE is for how long one is in its state. What is archived or
    deleted is shown with --state alone. Where there are more, it says how to go on. --json prints a list;
    with --cursor an object with "items" and "next", the next cursor or null.

    Example: daylily-daemon list --state in_progress --state error
    """
    with reporting():
        shape, every_s = output.shape, watching.every_s
        if every_s is not None and paging.cursor is not None:
            raise Usage("--watch takes no --cursor: it shows the first page.")
        listing = filters.listing(
            priority=priority,
            prefix=prefix,
            newer_than_s=age_s(submitted_since),
            older_than_s=age_s(submitted_before),
        )
    if every_s is not None:
        watch = partial(_watch, listing, paging, every_s, shape)
        with_backend(access.loaded(), watch)
        return
    listed, now = with_backend(access.loaded(), partial(_listed, listing, paging))
    if shape is Shape.JSON:
        _print_page(listed, paged=paging.cursor is not None)
    else:
        _say_page(listed, now, shape, every=listing == later.queries.Listing())


async def _watch(
    listing: Listing, paging: Paging, every_s: float, shape: Shape | None, backend: Backend
) -> None:
    def drawn(seen: Dated) -> Iterator[Line]:
        listed, now = seen
        grid = later.output.list_grid(listed.worksets, now, wide=shape is Shape.WIDE)
        return grid.lines(printing.width())

    watched = later.watching.WatchedView(
        look=partial(_listed, listing, paging, backend),
        drawn=drawn,
        rows=lambda seen: {ws.id: later.shapes.workset_shape(ws) for ws in seen[0].worksets},
        every_s=every_s,
    )
    await watched.go_on(lines=WatchOption.as_lines(shape))


async def _listed(listing: Listing, paging: Paging, backend: Backend) -> Dated:
    page = await later.queries.list_worksets(
        backend, listing, cursor=paging.cursor or "", limit=paging.limit
    )
    return page, backend.clock.now()


def _print_page(listed: Listed, *, paged: bool) -> None:
    items = [later.shapes.workset_shape(ws) for ws in listed.worksets]
    if paged:
        later.output.print_json({"items": items, "next": listed.cursor or None})
        return
    later.output.print_json(items)
    _say_more(listed)


def _say_page(listed: Listed, now: datetime, shape: Shape | None, *, every: bool) -> None:
    if shape is Shape.NAME:
        for ws in listed.worksets:
            printing.say_whole(ws.id)
    elif shape is Shape.JSONL:
        for ws in listed.worksets:
            later.output.print_line(later.shapes.workset_shape(ws))
    elif listed.worksets:
        grid = later.output.list_grid(listed.worksets, now, wide=shape is Shape.WIDE)
        printing.say_grid(grid)
    elif not listed.cursor and every:
        printing.say("There are no worksets here yet. `daylily-daemon submit` adds one.")
    elif not listed.cursor:
        printing.say("There are no such worksets.")
    _say_more(listed)


def _say_more(listed: Listed) -> None:
    """Say how to go on, if there may be more."""
    if not listed.cursor:
        return
    n = len(listed.worksets)
    what = f"{n} are shown, and there may be more" if n else "None was found so far"
    printing.complain(f"{what}. To go on, give the same options and:", style="")
    printing.complain_as_it_is(f"  --cursor {listed.cursor}")
