"""Commands that look at one workset: show, events, logs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from daylily_daemon.application.errors import NotFound
from daylily_daemon.cli import later, printing
from daylily_daemon.cli.options import (
    ConfigOption,
    JsonOption,
    SetOption,
    WorksetArgument,
    loaded,
    with_backend,
)

if TYPE_CHECKING:
    from daylily_daemon.application.backend import Backend
    from daylily_daemon.settings.model import Settings


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
    """Print the log of a workset's job: on the host that runs it, or as `prune` has kept it.

    Colours are left out, and what else could act on a terminal is spelled out.

    Example: daylily-daemon logs -f HG002-run7
    """
    found = loaded(config, set_)
    wanted = WantedLog(step=step, lines=lines, on=follow_, raw=raw)
    with_backend(found, partial(_logs, found.settings, workset, wanted))


@dataclass(frozen=True, kw_only=True)
class WantedLog:
    step: str
    lines: int
    on: bool
    raw: bool


async def _logs(settings: Settings, id: str, wanted: WantedLog, backend: Backend) -> None:
    ws = await later.queries.show(backend, id)
    try:
        await _print(later.host.log_of(ws, wanted.step, wanted.lines, on=wanted.on), raw=wanted.raw)
    except NotFound as not_here:
        if ws.run is None:
            raise
        kept = await later.keptlogs.kept_log(settings, ws.run, wanted.step, wanted.lines)
        if kept is None:
            where = await later.queries.where_it_runs(backend, ws)
            raise NotFound(f"{not_here} {where}".strip()) from None
        await _print(_at_once(kept), raw=wanted.raw)


async def _at_once(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def _print(pieces: AsyncIterator[bytes], *, raw: bool) -> None:
    text = later.printable.LogText()
    async for piece in pieces:
        if raw:
            printing.write_bytes(piece)
        else:
            printing.write_text(text.read(piece))
    printing.write_text(text.rest())
