"""``notify``: how the channels stand, and a test message through one of them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daylily_daemon.cli import later, printing
from daylily_daemon.cli.answers import asked_by
from daylily_daemon.cli.options import (
    ConfigOption,
    Exit,
    JsonOption,
    SetOption,
    loaded,
    run_async,
    with_backend,
)
from daylily_daemon.cli.parsing import LazyCommand, LazyGroup

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from daylily_daemon.application.telling import ChannelStanding
    from daylily_daemon.cli.layout import Grid

app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Channels: how they stand, and a test message.",
)


@app.command("status", cls=LazyCommand)
def status(config: ConfigOption = None, set_: SetOption = None, json: JsonOption = False) -> None:
    """Show of every channel what it is owed, when it last took something, and its last trouble.

    The exit code is 1 if telling one of them fails.

    Example: daylily-daemon notify status
    """
    found = loaded(config, set_)
    switched_on = later.inspection.switched_on(found.settings)
    standings = with_backend(found, partial(later.telling.standings, enabled=switched_on))
    if json:
        later.output.print_json([_as_json(one) for one in standings])
    else:
        printing.say_grid(_grid(standings))
    raise typer.Exit(int(Exit.FAILED if any(s.is_failing for s in standings) else Exit.OK))


@app.command("test", cls=LazyCommand)
def try_channel(
    channel: Annotated[
        str, typer.Argument(metavar="CHANNEL", help="Name of the channel: slack, email, sns ...")
    ],
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Send a test message through a channel, and say what its receiver answered.

    An alarm of PagerDuty is ended at once, a sentinel in S3 removed. The message says that it is a test.
    The exit code is 1 if it was refused, and 4 if there was no answer.

    Example: daylily-daemon notify test s3_sentinels
    """
    found = loaded(config, set_)
    printing.say(run_async(partial(later.inspection.tested, found.settings, channel, asked_by())))


def _grid(standings: Sequence[ChannelStanding]) -> Grid:
    layout = later.layout
    columns = ("CHANNEL", "ENABLED", "OWED", "OLDEST", "LAST GOOD", "LAST TROUBLE")
    return layout.Grid(
        columns=tuple(layout.GridColumn(heading=name) for name in columns),
        rows=[_row(one) for one in standings],
    )


def _row(one: ChannelStanding) -> tuple[str, ...]:
    return (
        one.name,
        "yes" if one.enabled else "no",
        str(one.owed.count) if one.owed.count else "-",
        _ago(one.owed.oldest_at, one.now, ""),
        _ago(one.port.good_at, one.now, " ago"),
        _trouble(one),
    )


def _ago(at: datetime | None, now: datetime, end: str) -> str:
    return "-" if at is None else f"{later.times.span((now - at).total_seconds())}{end}"


def _trouble(one: ChannelStanding) -> str:
    if one.port.failing_since is None:
        return "-"
    since = later.times.when(one.port.failing_since)
    return f"{one.port.failures} times since {since}: {one.port.text}"


def _as_json(one: ChannelStanding) -> dict[str, Any]:
    return {
        "channel": one.name,
        "enabled": one.enabled,
        "owed": one.owed.count,
        "oldest_at": one.owed.oldest_at,
        "good_at": one.port.good_at,
        "failing": one.is_failing,
        "failing_since": one.port.failing_since,
        "failures": one.port.failures,
        "trouble": one.port.text,
    }
