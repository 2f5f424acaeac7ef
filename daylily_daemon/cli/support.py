"""``support-bundle``: what others need to help, and nothing that is a secret."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import anyio
import typer

from daylily_daemon.cli import later, printing
from daylily_daemon.cli.answers import asked_by
from daylily_daemon.cli.options import ConfigOption, JsonOption, SetOption, reporting, sources

if TYPE_CHECKING:
    from daylily_daemon.domain.bundle import Packed

MOST_LINES = 100_000

FileArgument = Annotated[
    Path | None,
    typer.Argument(metavar="[FILE]", help="The new file; daylily-support.tar.gz by default."),
]
WorksetOption = Annotated[
    list[str] | None,
    typer.Option("--workset", metavar="ID", help="Put in the item of this one; may be repeated."),
]
LogOption = Annotated[
    Path | None,
    typer.Option("--log", metavar="FILE", help="The log of the daemon; else the journal's."),
]
LinesOption = Annotated[
    int, typer.Option("--lines", min=1, max=MOST_LINES, help="How many lines of it.")
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Show which files it would hold; write none.")
]


def support_bundle(
    file: FileArgument = None,
    workset: WorksetOption = None,
    log: LogOption = None,
    lines: LinesOption = 1000,
    dry_run: DryRunOption = False,
    config: ConfigOption = None,
    set_: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Write a file with what others need to help: versions, status, findings, log, and chosen worksets.

    What goes in is listed in the program, field by field; of sentences only words that the program itself
    uses. Names, paths, addresses, keys, and what labs wrote stay out. Look into it before you send it.

    Example: daylily-daemon support-bundle --dry-run
    """
    with reporting():
        where = sources(config, set_)
    later.telemetry.configure("error", json=False)
    path = file or Path("daylily-support.tar.gz")
    with reporting():
        wish = later.bundling.BundleWish(worksets=tuple(workset or ()), lines=lines, log=log)
        files = anyio.run(partial(later.bundling.gathered, where, wish, asked_by()))
        if not dry_run:
            later.bundling.write(path, files)
    _say(files, path, dry_run=dry_run, json=json)


def _say(files: list[Packed], path: Path, *, dry_run: bool, json: bool) -> None:
    if json:
        listed = [{"name": one.name, "about": one.about, "bytes": len(one.data)} for one in files]
        later.output.print_json({"file": str(path), "files": listed, "dry_run": dry_run})
        return
    printing.say_grid(_grid(files))
    for sentence in later.bundling.missing_of(files):
        printing.complain(f"Not in it: {sentence}", style="")
    written = "Nothing was written (--dry-run)." if dry_run else f"Written to {path}."
    printing.say(f"{len(files)} files, {sum(len(one.data) for one in files):,} bytes. {written}")


def _grid(files: list[Packed]) -> Any:
    layout = later.layout
    columns = tuple(layout.GridColumn(heading=name) for name in ("FILE", "BYTES", "WHAT"))
    rows = [(one.name, f"{len(one.data):,}", one.about) for one in files]
    return layout.Grid(columns=columns, rows=rows)
