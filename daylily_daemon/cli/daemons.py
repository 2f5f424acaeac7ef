"""``daemon``: the daemons that hold worksets, as the table tells of them."""

from __future__ import annotations

from typing import Annotated

import typer

from daylily_daemon.cli.groups import flattened
from daylily_daemon.cli.many import Asking, Subjects, ask_of
from daylily_daemon.cli.parsing import LazyCommand, LazyGroup
from daylily_daemon.domain.model import HostLost, State

app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Daemons and what they hold.",
)


def gone(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="The daemon, as `held by` shows it, or its machine."),
    ],
    asking: Asking,
    from_start: Annotated[bool, typer.Option("--from-start", help="Run every step again.")] = False,
) -> None:
    """Say that a daemon's machine no longer exists: what it holds is run again elsewhere.

    It finds the worksets in progress that the daemon of this name holds, or whose job ran on the machine of
    this id, shows them, and asks of each what `retry --host-gone` asks. A daemon that does reach a job goes
    on with it. NAME is how `held by` of `show` begins, up to a slash.

    Example: daylily-daemon daemon gone head2 --dry-run
    """
    held = Subjects(state=[State.IN_PROGRESS], host=name, limit=1000)
    ask_of(held, HostLost(from_start=from_start), asking)


app.command("gone", cls=LazyCommand)(flattened(gone))


@app.callback()
def _group() -> None:
    """Daemons and what they hold."""
