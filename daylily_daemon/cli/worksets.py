"""Commands that look at worksets: list, show, events, logs, explain, status."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from daylily_daemon.application import queries
from daylily_daemon.application.backend import Backend
from daylily_daemon.application.queries import Listed, Listing
from daylily_daemon.cli import output, printing
from daylily_daemon.cli.options import (
    ConfigOption,
    JsonOption,
    SetOption,
    WorksetArgument,
    loaded,
    reporting,
    seconds,
    with_backend,
)
from daylily_daemon.composition.host import attach_command, log_of
from daylily_daemon.composition.shapes import record_shape, workset_shape
from daylily_daemon.domain import printable
from daylily_daemon.domain.model import Priority, State

StateOption = Annotated[
    list[State] | None, typer.Option("--state", help="Only these states; may be repeated.")
]


def list_(
    state: StateOption = None,
    customer: Annotated[str, typer.Option("--customer", help="Only this customer.")] = "",
    priority: Annotated[
        Priority | None, typer.Option("--priority", help="Only of this priority.")
    ] = None,
    older: Annotated[
        str, typer.Option("--older-than", metavar="AGE", help="First submitted before: 90m, 7d.")
    ] = "",
    newer: Annotated[
        str, typer.Option("--newer-than", metavar="AGE", help="First submitted since: 90m, 7d.")
    ] = "",
    prefix: Annotated[str, typer.Option("--prefix", metavar="ID", help="Whose id begins so.")] = "",
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=queries.MOST_LISTED, help="At most so many.")
    ] = 100,
    cursor: Annotated[
        str | None,
        typer.Option("--cursor", help="Go on where a page ended. '' is the first, for --json."),
    ] = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    json: JsonOption = False,
) -> None:
    """List worksets: those that run, that need somebody, that wait, and that are over.

    In each state urgent and old ones come first. Where there are more, it says how to go on. --json prints a
    list; with --cursor an object with "items" and "next", which is the next cursor or null.

    Example: daylily-daemon list --state in_progress --state error
    """
    with reporting():
        listing = Listing(
            states=tuple(state or ()),
            customer=customer,
            priority=priority,
            older_than_s=seconds(older) if older else None,
            newer_than_s=seconds(newer) if newer else None,
            prefix=prefix,
        )
    found = loaded(config, set_)
    ask = partial(queries.list_worksets, listing=listing, cursor=cursor or "", limit=limit)
    listed = with_backend(found, ask)
    if json:
        items = [workset_shape(ws) for ws in listed.worksets]
        paged = {"items": items, "next": listed.cursor or None}
        output.print_json(items if cursor is None else paged)
    elif listed.worksets:
        printing.say_grid(output.list_grid(listed.worksets))
    elif not listed.cursor:
        printing.say(_nothing(listing))
    if listed.cursor and not (json and cursor is not None):
        _say_more(listed)


def _nothing(listing: Listing) -> str:
    if listing == Listing():
        return "There are no worksets here yet. `daylily-daemon submit` adds one."
    return "There are no such worksets."


def _say_more(listed: Listed) -> None:
    n = len(listed.worksets)
    what = f"{n} are shown, and there may be more" if n else "None was found so far"
    printing.complain(f"{what}. To go on, give the same options and:", style="")
    printing.complain_as_it_is(f"  --cursor {listed.cursor}")


def show(
    workset: WorksetArgument,
    config: ConfigOption = None,
    set_: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Show everything about one workset.

    Example: daylily-daemon show HG002-run7
    """
    found = loaded(config, set_)
    ws = with_backend(found, partial(queries.show, text=workset))
    if json:
        output.print_json(workset_shape(ws))
        return
    printing.say_facts(output.facts(ws))
    if command := attach_command(ws, found.settings.daemon.state_dir):
        printing.say_whole(f"watch it: {command}")


def events(
    workset: WorksetArgument,
    config: ConfigOption = None,
    set_: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Show the audit trail of one workset, oldest first.

    Example: daylily-daemon events HG002-run7
    """
    found = with_backend(loaded(config, set_), partial(queries.events, text=workset))
    if found.more:
        told = f"Only the first {queries.RECORDS:,} records are shown."
        printing.complain(told, style="")
    if json:
        output.print_json([record_shape(record) for record in found.records])
    else:
        printing.say_grid(output.records_grid(found.records))


def logs(
    workset: WorksetArgument,
    follow_: Annotated[bool, typer.Option("--follow", "-f", help="Go on until it ends.")] = False,
    step: Annotated[str, typer.Option("--step", help="Of this step; else the latest.")] = "",
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="Last lines.")] = 100,
    raw: Annotated[
        bool,
        typer.Option("--raw", help="The bytes as the job wrote them, escapes and colours too."),
    ] = False,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Print the log of a workset's job. Works on the host that runs it.

    Colours are left out, and what else could act on a terminal is spelled out.

    Example: daylily-daemon logs -f HG002-run7
    """
    found = loaded(config, set_)
    with_backend(found, partial(_logs, workset, step, lines, (follow_, raw)))


async def _logs(id: str, step: str, lines: int, how: tuple[bool, bool], backend: Backend) -> None:
    ws = await queries.show(backend, id)
    follow_, raw = how
    text = printable.LogText()
    async for piece in log_of(ws, step, lines, on=follow_):
        if raw:
            printing.write_bytes(piece)
        else:
            printing.write_text(text.read(piece))
    printing.write_text(text.rest())
