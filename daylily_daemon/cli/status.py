"""``status``: the daemon of this host first, which needs no AWS, then what AWS knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import anyio
import typer

from daylily_daemon.cli import later, printing
from daylily_daemon.cli.options import (
    ConfigOption,
    Exit,
    JsonOption,
    SetOption,
    exit_code,
    loaded,
    reporting,
)
from daylily_daemon.domain.errors import DaemonError, leaf
from daylily_daemon.domain.model import State

if TYPE_CHECKING:
    from daylily_daemon.application.health import LocalDaemon
    from daylily_daemon.application.queries import Figures
    from daylily_daemon.domain.daemon import Reload
    from daylily_daemon.settings.sources import Loaded

Counted: TypeAlias = "tuple[Figures, DaemonError | None]"
"""What AWS knows, or why nothing is known of it."""


def status(config: ConfigOption = None, set_: SetOption = None, json: JsonOption = False) -> None:
    """Show whether the daemon of this host is well, how many worksets are in each state, and the queues.

    The exit code is 0 only if the daemon is well: it finished a pass a moment ago and reaches what it needs.

    Example: daylily-daemon status
    """
    found = loaded(config, set_)
    state_dir = found.settings.daemon.state_dir
    daemon = later.health.judged(later.host.daemon_here(state_dir))
    if not json:
        said = ["well" if daemon.verdict.healthy else "NOT WELL", *daemon.verdict.lines]
        printing.say_facts([("daemon", "\n".join(said)), *_reload(daemon)])
    with reporting():
        counted = _counted(found)
    if json:
        later.output.print_json(_as_json(daemon, later.host.status_as_written(state_dir), counted))
    else:
        _say(counted)
    raise typer.Exit(int(_code(daemon, counted[1])))


def _code(daemon: LocalDaemon, trouble: DaemonError | None) -> Exit:
    if not daemon.verdict.healthy:
        return Exit.FAILED
    return exit_code(trouble) if trouble else Exit.OK


def _as_json(daemon: LocalDaemon, said: dict[str, Any] | None, counted: Counted) -> dict[str, Any]:
    figures, trouble = counted
    return {
        "daemon": said,
        "healthy": daemon.verdict.healthy,
        "verdict": daemon.verdict.lines,
        "aws": str(trouble or ""),
        "worksets": {str(s): figures.worksets[s].found for s in State if s in figures.worksets},
        "at_least": [str(s) for s in State if s in figures.worksets and figures.worksets[s].more],
        "queues": figures.queues,
    }


def _say(counted: Counted) -> None:
    figures, trouble = counted
    if trouble is not None:
        printing.say_facts([("AWS", str(trouble))])
        return
    counts = [(str(s), figures.worksets[s]) for s in State if figures.worksets[s].found]
    rows = [(name, f"{n.found:,}{'+' if n.more else ''}") for name, n in counts]
    printing.say_facts(rows or [("worksets", "none")])
    printing.say_facts([(name, f"{n} messages") for name, n in figures.queues.items()])


def _counted(found: Loaded) -> Counted:
    async def count() -> Figures:
        async with later.backend.open_backend(found.settings) as backend:
            return await later.queries.figures(backend)

    try:
        return anyio.run(count), None
    except Exception as exc:
        trouble = leaf(exc)
        if not isinstance(trouble, DaemonError):
            raise
        return later.queries.Figures(), trouble


def _reload(daemon: LocalDaemon) -> list[tuple[str, str]]:
    reload = daemon.status.last_reload if daemon.status else None
    if reload is None:
        return []
    return [
        ("last reload", f"{reload.result} at {reload.at}: {_came_to(reload)}"),
        *([("needs a restart", ", ".join(reload.needs_restart))] if reload.needs_restart else []),
    ]


def _came_to(reload: Reload) -> str:
    return "; ".join(reload.problems) or ", ".join(reload.changed) or "nothing changed"
