"""``init`` and ``check-config``."""

from __future__ import annotations

from typing import Annotated

import typer

from daylily_daemon.cli import later, printing
from daylily_daemon.cli.options import (
    ConfigOption,
    JsonOption,
    SetOption,
    loaded,
    reporting,
    run_async,
    sources,
)
from daylily_daemon.domain.errors import DaemonError

Problems = list[str]


def init(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what is missing.")] = False,
    create_bucket: Annotated[
        bool, typer.Option("--create-bucket", help="Make the control bucket too.")
    ] = False,
    drop_old_indexes: Annotated[
        bool,
        typer.Option(
            "--drop-old-indexes",
            help="Drop the indexes that only versions before this one need, once none of them runs.",
        ),
    ] = False,
    config: ConfigOption = None,
    set_: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Make or complete tables, queues, topic and bucket notification. Running it twice changes nothing.

    Example: daylily-daemon init --config lab.yaml --dry-run
    """
    with reporting():
        found = loaded(config, set_, "control.bucket")

    async def work() -> list[str]:
        done: list[str] = []
        waits = printing.complain
        how = {"create_bucket": create_bucket, "drop_old_indexes": drop_old_indexes}
        async with later.provisioning.provisioning(found.settings, tell=waits, **how) as missing:
            async for part in missing:
                if not json:
                    printing.say(f"{'would ' if dry_run else ''}{part.what}")
                if not dry_run:
                    await part.do()
                done.append(part.what)
        return done

    done = run_async(work)
    if json:
        later.output.print_json({"dry_run": dry_run, "steps": done})
    elif not done:
        printing.say("Everything is there already.")


def check_config(
    config: ConfigOption = None, set_: SetOption = None, json: JsonOption = False
) -> None:
    """Print the settings that would be in force and where each comes from, or every problem at once.

    Example: daylily-daemon check-config --config lab.yaml
    """
    problems: Problems = []
    try:
        found = later.sources.load(sources(config, set_, "control.bucket"))
        later.in_force.engine_settings_of(found.settings)
    except DaemonError as exc:
        problems = [str(p) for p in getattr(exc, "problems", ())] or [str(exc)]
    if problems:
        if json:
            later.output.print_json({"problems": problems})
        for problem in problems:
            printing.complain(f"- {problem}", style="")
        what = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        printing.complain(f"{what}; nothing was changed.", style="")
        raise typer.Exit(2)
    rows = later.sources.describe(found)
    if json:
        later.output.print_json({r.key: {"value": r.value_shown, "origin": r.origin} for r in rows})
        return
    printing.say_grid(later.output.settings_grid(rows))
