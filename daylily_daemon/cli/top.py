"""``top``: what runs, where, for how long, and what its processes do."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daylily_daemon.cli import later, printing
from daylily_daemon.cli.groups import Access, Output, Shape, WatchOption, flattened
from daylily_daemon.cli.options import reporting, with_backend
from daylily_daemon.domain.activity import By
from daylily_daemon.domain.model import MOST_LISTED

if TYPE_CHECKING:
    from daylily_daemon.application.backend import Backend
    from daylily_daemon.application.running import Running, RunningNow
    from daylily_daemon.cli.layout import Grid


@flattened
def top(
    output: Output,
    watching: WatchOption,
    access: Access,
    sort: Annotated[By, typer.Option("--sort", help="What comes first.")] = By.QUIET,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=MOST_LISTED, help="At most so many.")
    ] = 100,
) -> None:
    """Show what runs: the step, for how long, how quiet it is, processors and memory.

    Processors and memory are those of the processes of this host, as far as this user may see them. LEFT is
    the time until its limit.

    Example: daylily-daemon top --sort quiet
    """
    with reporting():
        shape, every_s = output.shape, watching.every_s
    look = partial(_look, sort, limit)
    if every_s is None:
        _say(with_backend(access.loaded(), look), shape)
        return

    async def watch(backend: Backend) -> None:
        watched = later.watching.WatchedView(
            look=partial(look, backend),
            drawn=lambda found: _grid(found).lines(printing.width()),
            rows=lambda found: {row.workset.id: _row_shape(row, found) for row in found.rows},
            every_s=every_s,
        )
        await watched.go_on(lines=watching.as_lines(shape))

    with_backend(access.loaded(), watch)


async def _look(sort: By, limit: int, backend: Backend) -> RunningNow:
    return await later.running.running(backend, sort, limit)


def _say(found: RunningNow, shape: Shape | None) -> None:
    if shape is Shape.NAME:
        for row in found.rows:
            printing.say_whole(row.workset.id)
    elif shape is Shape.JSONL:
        for row in found.rows:
            later.output.print_line(_row_shape(row, found))
    elif shape is Shape.JSON:
        later.output.print_json([_row_shape(row, found) for row in found.rows])
    elif found.rows:
        printing.say_grid(_grid(found))
    else:
        printing.say("Nothing runs.")
    if found.more:
        printing.complain(
            f"{len(found.rows)} are shown, and more run: --limit shows more.", style=""
        )


def _grid(found: RunningNow) -> Grid:
    layout = later.layout
    columns = (
        *(layout.GridColumn(heading=name) for name in ("WORKSET", "STEP")),
        *(layout.GridColumn(heading=name, missed=n) for name, n in (("FOR", 0), ("LEFT", 3))),
        *(layout.GridColumn(heading=name) for name in ("QUIET", "CPUS", "MEMORY")),
        layout.GridColumn(heading="PROCS", missed=2),
        layout.GridColumn(heading="ON"),
    )
    return layout.Grid(columns=columns, rows=[_row(row, found) for row in found.rows], together=2)


def _row(row: Running, found: RunningNow) -> tuple[str, ...]:
    age, ws, activity = later.wording.age, row.workset, row.activity
    left_s = row.left_s(found.now)
    left = "-" if left_s is None else age(left_s) if left_s > 0 else f"-{age(-left_s)} !"
    quiet = later.wording.quiet_text(ws.run, found.now) if ws.run else ""
    return (
        ws.id,
        ws.step.name if ws.step else "-",
        age(row.lasted_s(found.now)),
        left,
        quiet.removeprefix("quiet ") or "-",
        f"{activity.cpus:.1f}" if activity else "-",
        later.sizes.readable(activity.memory_bytes) if activity else "-",
        str(len(activity.names)) if activity else "-",
        later.health.short_name(ws.owner) if ws.owner else "nobody holds it",
    )


def _row_shape(row: Running, found: RunningNow) -> dict[str, Any]:
    ws, activity = row.workset, row.activity
    left_s = row.left_s(found.now)
    return {
        "workset_id": ws.id,
        "step": ws.step.name if ws.step else None,
        "owner": ws.owner,
        "scope": ws.scope,
        "lasted_s": round(row.lasted_s(found.now), 1),
        "left_s": None if left_s is None else round(left_s, 1),
        "quiet_s": round(row.quiet_s(found.now), 1),
        "cpus": None if activity is None else round(activity.cpus, 2),
        "memory_bytes": None if activity is None else activity.memory_bytes,
        "processes": None if activity is None else list(activity.names),
    }
