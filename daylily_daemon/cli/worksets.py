"""Commands that look at worksets: list, show, events, logs, explain, status."""

from __future__ import annotations

import os
import shlex
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import anyio
import typer

from daylily_daemon.adapters.host import StateDir
from daylily_daemon.adapters.runners.logs import follow, tail
from daylily_daemon.adapters.runners.tmux import session_name
from daylily_daemon.bootstrap import Tools
from daylily_daemon.cli import output, printing
from daylily_daemon.cli.options import (
    ConfigOption,
    Failed,
    JsonOption,
    NotFound,
    SetOption,
    WorksetArgument,
    existing,
    loaded,
    with_tools,
)
from daylily_daemon.domain import printable
from daylily_daemon.domain.model import State
from daylily_daemon.domain.workset import Workset

RECORDS: Final = 100_000
"""Of one audit trail that are shown."""
StateOption = Annotated[
    list[State] | None, typer.Option("--state", help="Only these states; may be repeated.")
]


def list_(
    state: StateOption = None,
    customer: Annotated[str, typer.Option("--customer", help="Only this customer.")] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many a state.")] = 100,
    config: ConfigOption = None,
    set_: SetOption = None,
    json: JsonOption = False,
) -> None:
    """List worksets, urgent and old ones first.

    Example: daylily-daemon list --state in_progress --state error
    """
    found = loaded(config, set_)
    states = state or list(State)
    listed = with_tools(found, partial(_listed, states, customer, limit))
    worksets = [ws for state in states for ws in listed[state][:limit]]
    if json:
        output.print_json([output.workset_json(ws) for ws in worksets])
    elif worksets:
        printing.say_grid(output.list_grid(worksets))
    elif customer or state:
        printing.say("There are no such worksets.")
    else:
        printing.say("There are no worksets here yet. `daylily-daemon submit` adds one.")
    if more := [str(state) for state in states if len(listed[state]) > limit]:
        told = f"Of {', '.join(more)} only the first {limit} are shown; --limit shows more."
        printing.complain(told, style="")


async def _listed(
    states: Sequence[State], customer: str, limit: int, tools: Tools
) -> dict[State, Sequence[Workset]]:
    """Return by state one more than ``limit`` where there are more."""
    found: dict[State, Sequence[Workset]] = {}

    async def read(state: State) -> None:
        store = tools.worksets
        if customer:
            found[state] = await store.of_customer(state, customer, limit=limit + 1)
        else:
            found[state] = await store.in_state(state, limit=limit + 1)

    async with anyio.create_task_group() as tg:
        for state in states:
            tg.start_soon(read, state)
    return found


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
    ws = with_tools(found, partial(_existing, workset))
    if json:
        output.print_json(output.workset_json(ws))
        return
    printing.say_facts(output.facts(ws))
    if ws.step and ws.step.runner == "tmux":
        command = attach_command(ws, found.settings.daemon.state_dir)
        printing.say_whole(f"watch it: {command}")


def attach_command(ws: Workset, state_dir: Path) -> str:
    """Return the shell command that shows the running job on its head node."""
    if ws.job is None:
        return ""
    name = session_name(ws.job)
    socket = shlex.quote(StateDir(state_dir).tmux_socket)
    return f"tmux -S {socket} attach -t '={name}'"


async def _existing(id: str, tools: Tools) -> Workset:
    return await existing(tools, id)


def events(
    workset: WorksetArgument,
    config: ConfigOption = None,
    set_: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Show the audit trail of one workset, oldest first.

    Example: daylily-daemon events HG002-run7
    """
    found = loaded(config, set_)

    async def read(tools: Tools) -> list[Any]:
        ws = await existing(tools, workset)
        return list(await tools.trail.read(ws.id, limit=RECORDS + 1))

    records = with_tools(found, read)
    if len(records) > RECORDS:
        del records[RECORDS:]
        printing.complain(f"Only the first {RECORDS:,} records are shown.", style="")
    if json:
        output.print_json([output.record_json(record) for record in records])
    else:
        printing.say_grid(output.records_grid(records))


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
    """Print the log of a workset's job. Works on the host that runs it.

    Colours are left out, and what else could act on a terminal is spelled out.

    Example: daylily-daemon logs -f HG002-run7
    """
    found = loaded(config, set_)
    with_tools(found, partial(_logs, workset, step, lines, (follow_, raw)))


async def _logs(id: str, step: str, lines: int, how: tuple[bool, bool], tools: Tools) -> None:
    ws = await existing(tools, id)
    directory = str(await anyio.to_thread.run_sync(_job_directory, ws, step))
    follow_, raw = how
    text = printable.LogText()
    async for piece in follow(directory, lines=lines) if follow_ else _tail(directory, lines):
        if raw:
            printing.write_bytes(piece)
        else:
            printing.write_text(text.read(piece))
    printing.write_text(text.rest())


async def _tail(directory: str, lines: int) -> AsyncIterator[bytes]:
    yield await anyio.to_thread.run_sync(tail, directory, lines)


def _job_directory(ws: Workset, step: str) -> Path:
    """Return the folder of the job that was started last. Raises NotFound, and Failed for what is hidden."""
    if ws.run is None:
        raise NotFound(f"{ws.id} has not run yet: it is {ws.shown_state}.")
    folder = Path(ws.run.jobs_dir)
    wanted = step or (ws.step.name if ws.step else "")
    try:
        found = [
            (entry.stat().st_mtime, entry.path)
            for entry in os.scandir(folder)
            if not wanted or entry.name.endswith(f"-{wanted}")
        ]
    except FileNotFoundError:
        found = []
    except OSError as exc:
        raise _unreadable(folder, exc.strerror) from exc
    if not found:
        raise NotFound(
            f"There is no log of {ws.id} in {folder} on this host. It runs on {ws.run.steps[-1].scope}; its "
            f"exported logs, if any, are under {ws.results_uri or 'its results'}."
        )
    latest = Path(max(found)[1])
    if (latest / "log").exists() and not os.access(latest / "log", os.R_OK):
        raise _unreadable(latest / "log", "permission denied")
    return latest


def _unreadable(path: Path, why: str | None) -> Failed:
    return Failed(
        f"{path} cannot be read: {why}. Run this as the daemon's user or as root, and see whether its disk "
        "answers."
    )
