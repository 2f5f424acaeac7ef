"""``drain`` and ``resume``: for maintenance of a host, nothing new is started there."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from daylily_daemon.cli import later, printing
from daylily_daemon.cli.answers import asked_by
from daylily_daemon.cli.options import (
    ConfigOption,
    Exit,
    SetOption,
    Usage,
    loaded,
    reporting,
    with_backend,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daylily_daemon.application.backend import Backend
    from daylily_daemon.application.health import DaemonView

DaemonOption = Annotated[
    str,
    typer.Option("--daemon", metavar="NAME", help="Of another host, as `status` names it."),
]


def drain(
    reason: Annotated[str, typer.Option("--reason", help="Shown to whoever asks.")] = "",
    until_empty: Annotated[
        bool, typer.Option("--until-empty", help="Return when nothing runs there any more.")
    ] = False,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout", metavar="SECONDS", min=0.0, help="With --until-empty: no longer than this."
        ),
    ] = None,
    daemon: DaemonOption = "",
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Let a daemon start nothing new. What runs there runs on; what waits is left to other daemons.

    It stays so, across restarts, until `resume`. With --until-empty it returns 0 once nothing runs there.

    Example: daylily-daemon drain --until-empty --reason "new kernel"
    """
    with reporting():
        if timeout is not None and not until_empty:
            raise Usage("--timeout limits how long --until-empty waits; give both.")
    work = partial(_drain, daemon, reason, until_empty=until_empty, timeout_s=timeout)
    left = with_backend(loaded(config, set_), work)
    if left:
        printing.complain(f"Still running: {', '.join(left)}.")
        raise typer.Exit(int(Exit.NOT_REACHABLE))


async def _drain(
    name: str, reason: str, backend: Backend, *, until_empty: bool, timeout_s: float | None
) -> Sequence[str]:
    draining = later.draining
    daemons = await draining.daemons_called(backend, name)
    await draining.drain(backend, daemons, asked_by(), reason)
    _tell(daemons, "starts nothing new from now on. `daylily-daemon resume` ends that")
    return await draining.emptied(backend, daemons, timeout_s) if until_empty else ()


def resume(daemon: DaemonOption = "", config: ConfigOption = None, set_: SetOption = None) -> None:
    """Let a drained daemon start worksets again.

    Example: daylily-daemon resume
    """
    with_backend(loaded(config, set_), partial(_resume, daemon))


async def _resume(name: str, backend: Backend) -> None:
    daemons = await later.draining.daemons_called(backend, name)
    await later.draining.resume(backend, daemons)
    _tell(daemons, "starts worksets again")


def _tell(daemons: Sequence[DaemonView], what: str) -> None:
    for one in daemons:
        printing.say(f"{one.name} {what}.")
