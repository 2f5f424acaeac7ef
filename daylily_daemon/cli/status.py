"""``status``: the daemon of this host first, which needs no AWS, then what AWS knows."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import anyio
import typer

from daylily_daemon.adapters.dynamodb import Count
from daylily_daemon.adapters.host import StateDir, SystemClock
from daylily_daemon.adapters.provision import dead_letter_name, find_queue
from daylily_daemon.adapters.vitals import Reload
from daylily_daemon.bootstrap import Tools
from daylily_daemon.cli import health, output, printing
from daylily_daemon.cli.options import (
    ConfigOption,
    Exit,
    JsonOption,
    SetOption,
    exit_code,
    loaded,
    reporting,
    tooled,
)
from daylily_daemon.domain.errors import DaemonError, Permanent
from daylily_daemon.domain.model import State
from daylily_daemon.engine.boundary import leaf
from daylily_daemon.settings.sources import Loaded


@dataclass(frozen=True, slots=True)
class Figures:
    """What AWS knows of all worksets and queues."""

    worksets: dict[State, Count] = field(default_factory=dict)
    queues: dict[str, int] = field(default_factory=dict)
    trouble: DaemonError | None = None
    """Why there are none."""


def status(config: ConfigOption = None, set_: SetOption = None, json: JsonOption = False) -> None:
    """Show whether the daemon of this host is well, how many worksets are in each state, and the queues.

    The exit code is 0 only if the daemon is well: it finished a pass a moment ago and reaches what it needs.

    Example: daylily-daemon status
    """
    found = loaded(config, set_)
    state = StateDir(found.settings.daemon.state_dir)
    daemon = health.of_this_host(state, SystemClock().now())
    if not json:
        said = ["well" if daemon.verdict.healthy else "NOT WELL", *daemon.verdict.lines]
        printing.say_facts([("daemon", "\n".join(said)), *_reload(daemon)])
    with reporting():
        figures = _figures_or_why(found)
    if json:
        output.print_json(_as_json(daemon, state.read_status(), figures))
    else:
        _say(figures)
    raise typer.Exit(int(_code(daemon, figures)))


def _code(daemon: health.LocalDaemon, figures: Figures) -> Exit:
    if not daemon.verdict.healthy:
        return Exit.FAILED
    return exit_code(figures.trouble) if figures.trouble else Exit.OK


def _as_json(
    daemon: health.LocalDaemon, said: dict[str, Any] | None, figures: Figures
) -> dict[str, Any]:
    return {
        "daemon": said,
        "healthy": daemon.verdict.healthy,
        "verdict": daemon.verdict.lines,
        "aws": str(figures.trouble or ""),
        "worksets": {str(s): figures.worksets[s].found for s in State if s in figures.worksets},
        "at_least": [str(s) for s in State if s in figures.worksets and figures.worksets[s].more],
        "queues": figures.queues,
    }


def _say(figures: Figures) -> None:
    if figures.trouble is not None:
        printing.say_facts([("AWS", str(figures.trouble))])
        return
    counts = [(str(s), figures.worksets[s]) for s in State if figures.worksets[s].found]
    rows = [(name, f"{n.found:,}{'+' if n.more else ''}") for name, n in counts]
    printing.say_facts(rows or [("worksets", "none")])
    printing.say_facts([(name, f"{n} messages") for name, n in figures.queues.items()])


def _figures_or_why(found: Loaded) -> Figures:
    try:
        return anyio.run(partial(tooled, found, _figures))
    except Exception as exc:
        trouble = leaf(exc)
        if not isinstance(trouble, DaemonError):
            raise
        return Figures(trouble=trouble)


async def _figures(tools: Tools) -> Figures:
    counts: dict[State, Count] = {}

    async def count(state: State) -> None:
        counts[state] = await tools.worksets.count(state)

    async with anyio.create_task_group() as tg:
        for state in State:
            tg.start_soon(partial(count, state))
    queues = tools.settings.queues
    names = [q for n in (queues.intake, queues.commands) for q in (n, dead_letter_name(n))]
    return Figures(counts, {name: await _depth(name, tools) for name in names})


async def _depth(name: str, tools: Tools) -> int:
    url = await find_queue(await tools.aws.client("sqs"), name)
    if url is None:
        raise Permanent(f"The queue {name} does not exist. Run `daylily-daemon init` first.")
    return await tools.queue_depth(url)


def _reload(daemon: health.LocalDaemon) -> list[tuple[str, str]]:
    reload = daemon.status.last_reload if daemon.status else None
    if reload is None:
        return []
    return [
        ("last reload", f"{reload.result} at {reload.at}: {_came_to(reload)}"),
        *([("needs a restart", ", ".join(reload.needs_restart))] if reload.needs_restart else []),
    ]


def _came_to(reload: Reload) -> str:
    return "; ".join(reload.problems) or ", ".join(reload.changed) or "nothing changed"
