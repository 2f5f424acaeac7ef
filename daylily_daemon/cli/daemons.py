"""``daemon``: the daemons that hold worksets, as the table tells of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from daylily_daemon.cli import later, printing
from daylily_daemon.cli.groups import flattened
from daylily_daemon.cli.many import Asking, Subjects, ask_of
from daylily_daemon.cli.options import Exit, with_backend
from daylily_daemon.cli.parsing import LazyCommand, LazyGroup
from daylily_daemon.domain.model import HostLost, State

if TYPE_CHECKING:
    from daylily_daemon.application.backend import Backend

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
    try:
        ask_of(held, HostLost(from_start=from_start), asking)
    except typer.Exit as ended:
        if ended.exit_code == Exit.OK and not asking.dry_run:
            _strike_off(name, asking)
        raise


def _strike_off(name: str, asking: Asking) -> None:
    """``status`` need not warn of its silence any more."""
    for struck in with_backend(asking.loaded(), partial(_struck_off, name)):
        printing.complain(f"{struck} is off the registry.", style="")


async def _struck_off(name: str, backend: Backend) -> Sequence[str]:
    return await later.draining.strike_off(backend, name)


app.command("gone", cls=LazyCommand)(flattened(gone))


@app.callback()
def _group() -> None:
    """Daemons and what they hold."""
