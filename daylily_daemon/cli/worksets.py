"""Commands that look at worksets: list, show, events, logs, explain, status."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from daylily_daemon.cli import later, printing
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
from daylily_daemon.domain.model import MOST_LISTED, Priority, State

if TYPE_CHECKING:
    from daylily_daemon.application.backend import Backend
    from daylily_daemon.application.queries import Listed

StateOption = Annotated[
    list[State] | None, typer.Option("--state", help="Only these states; may be repeated.")
]
CustomerOption = Annotated[str, typer.Option("--customer", help="Only this customer.")]
PriorityOption = Annotated[
    Priority | None, typer.Option("--priority", help="Only of this priority.")
]
OlderOption = Annotated[
    str, typer.Option("--older-than", metavar="AGE", help="First submitted before: 90m, 7d.")
]
NewerOption = Annotated[
    str, typer.Option("--newer-than", metavar="AGE", help="First submitted since: 90m, 7d.")
]
PrefixOption = Annotated[str, typer.Option("--prefix", metavar="ID", help="Whose id begins so.")]
LimitOption = Annotated[
    int, typer.Option("--limit", min=1, max=MOST_LISTED, help="At most so many.")
]
CursorOption = Annotated[
    str | None,
    typer.Option("--cursor", help="Go on where a page ended. '' is the first, for --json."),
]


def list_(
    state: StateOption = None,
    customer: CustomerOption = "",
    priority: PriorityOption = None,
    older: OlderOption = "",
    newer: NewerOption = "",
    prefix: PrefixOption = "",
    limit: LimitOption = 100,
    cursor: CursorOption = None,
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
        listing = later.queries.Listing(
            states=tuple(state or ()),
            customer=customer,
            priority=priority,
            older_than_s=_age_s(older),
            newer_than_s=_age_s(newer),
            prefix=prefix,
        )
    ask = partial(later.queries.list_worksets, listing=listing, cursor=cursor or "", limit=limit)
    listed = with_backend(loaded(config, set_), ask)
    if json:
        _print_page(listed, paged=cursor is not None)
    else:
        _say_page(listed, every=listing == later.queries.Listing())


def _age_s(text: str) -> float | None:
    return seconds(text) if text else None


def _print_page(listed: Listed, *, paged: bool) -> None:
    items = [later.shapes.workset_shape(ws) for ws in listed.worksets]
    if paged:
        later.output.print_json({"items": items, "next": listed.cursor or None})
        return
    later.output.print_json(items)
    _say_more(listed)


def _say_page(listed: Listed, *, every: bool) -> None:
    if listed.worksets:
        printing.say_grid(later.output.list_grid(listed.worksets))
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
    ws = with_backend(found, partial(later.queries.show, text=workset))
    if json:
        later.output.print_json(later.shapes.workset_shape(ws))
        return
    printing.say_facts(later.output.facts(ws))
    if command := later.host.attach_command(ws, found.settings.daemon.state_dir):
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
    found = with_backend(loaded(config, set_), partial(later.queries.events, text=workset))
    if found.more:
        told = f"Only the first {later.queries.RECORDS:,} records are shown."
        printing.complain(told, style="")
    if json:
        later.output.print_json([later.shapes.record_shape(record) for record in found.records])
    else:
        printing.say_grid(later.output.records_grid(found.records))


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
    ws = await later.queries.show(backend, id)
    follow_, raw = how
    text = later.printable.LogText()
    async for piece in later.host.log_of(ws, step, lines, on=follow_):
        if raw:
            printing.write_bytes(piece)
        else:
            printing.write_text(text.read(piece))
    printing.write_text(text.rest())
