"""Commands that look at worksets: list, show, events, logs, explain, status."""

from __future__ import annotations

import shlex
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import anyio
import typer

from daylily_daemon.adapters.host import StateDir, SystemClock
from daylily_daemon.adapters.provision import dead_letter_name, find_queue
from daylily_daemon.adapters.runners.logs import follow, tail
from daylily_daemon.adapters.runners.tmux import session_name
from daylily_daemon.bootstrap import Tools, limits_of
from daylily_daemon.cli import output, printing
from daylily_daemon.cli.options import (
    ConfigOption,
    JsonOption,
    NotFound,
    SetOption,
    Usage,
    WorksetArgument,
    existing,
    loaded,
    with_tools,
)
from daylily_daemon.domain import printable
from daylily_daemon.domain.admission import admit, capacity_of
from daylily_daemon.domain.lifecycle import due
from daylily_daemon.domain.model import Job, State, Step, Workset, WorksetId

StateOption = Annotated[
    list[State] | None, typer.Option("--state", help="Only these states; may be repeated.")
]


FORGIVEN: Final = timedelta(minutes=5)
"""Clocks of hosts differ: only a lease that ended long ago is worth a word."""


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
    worksets = with_tools(found, partial(_listed, state or list(State), customer, limit))
    if json:
        output.print_json([output.workset_json(ws) for ws in worksets])
    elif worksets:
        printing.say_grid(output.list_grid(worksets))
    else:
        printing.say("There are no worksets here yet. `daylily-daemon submit` adds one.")


async def _listed(
    states: Sequence[State], customer: str, limit: int, tools: Tools
) -> list[Workset]:
    found: dict[State, Sequence[Workset]] = {}

    async def read(state: State) -> None:
        found[state] = await tools.worksets.in_state(state, limit=limit)

    async with anyio.create_task_group() as tg:
        for state in states:
            tg.start_soon(read, state)
    rows = [ws for state in states for ws in found[state]]
    return [ws for ws in rows if not customer or ws.customer_id == customer]


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
    if ws.state is State.IN_PROGRESS and ws.runner == "tmux":
        command = attach_command(ws, found.settings.daemon.state_dir)
        printing.say_whole(f"watch it: {command}")


def attach_command(ws: Workset, state_dir: Path) -> str:
    """Return the shell command that shows the running job on its head node."""
    if ws.step is None or ws.job is None:
        return ""
    name = session_name(Job(name=ws.job, directory=ws.job_dir, step=ws.step, argv=()))
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
        return list(await tools.trail.read(ws.id, limit=100_000))

    records = with_tools(found, read)
    if json:
        output.print_json([output.record_json(record) for record in records])
    else:
        printing.say_grid(output.records_grid(records))


def logs(
    workset: WorksetArgument,
    follow_: Annotated[bool, typer.Option("--follow", "-f", help="Go on until it ends.")] = False,
    step: Annotated[
        Step | None, typer.Option("--step", help="Of this step; else the latest.")
    ] = None,
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


async def _logs(
    id: str, step: Step | None, lines: int, how: tuple[bool, bool], tools: Tools
) -> None:
    ws = await existing(tools, id)
    directory = str(_job_directory(ws, step))
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


def _job_directory(ws: Workset, step: Step | None) -> Path:
    if not ws.jobs_dir:
        raise NotFound(f"{ws.id} has not run yet: it is {ws.shown_state}.")
    folder = Path(ws.jobs_dir)
    wanted = step or ws.step
    found = sorted(folder.glob(f"*-{wanted or '*'}"), key=lambda p: p.stat().st_mtime)
    if not found:
        raise NotFound(
            f"There is no log of {ws.id} in {folder} on this host. It runs on {ws.runner_scope}; its "
            f"exported logs, if any, are under {ws.results_s3_uri or 'its results'}."
        )
    return found[-1]


def explain(
    workset: WorksetArgument,
    config: ConfigOption = None,
    set_: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Say why a workset is where it is, and what to do.

    Example: daylily-daemon explain HG002-run7
    """
    found = loaded(config, set_)

    async def read(tools: Tools) -> tuple[Workset, str]:
        ws = await existing(tools, workset)
        return ws, await _why(ws, tools)

    ws, why = with_tools(found, read)
    if json:
        output.print_json({"workset_id": ws.id, "state": ws.shown_state, "why": why})
    else:
        printing.say(why)


async def _why(ws: Workset, tools: Tools) -> str:
    match ws.state:
        case State.READY | State.RETRYING:
            return await _why_waiting(ws, tools)
        case State.IN_PROGRESS:
            held = f"held by {ws.lock_owner}" if ws.lock_owner else "waiting to be picked up again"
            doing = output.progress_text(ws)
            running = f"It runs, attempt {ws.attempt}, {held}: {doing or 'no progress told yet'}."
            return f"{running}{_out_of_reach(ws)}"
        case State.ERROR | State.FAILED:
            return (
                f"{ws.error_details}\nCode {ws.error_code}, category {ws.error_category}. When the cause "
                f"is mended: `daylily-daemon retry {ws.id}`, or put daylily.ready again."
            )
        case State.COMPLETE:
            return f"It is complete. Results: {ws.results_s3_uri}"
        case State.IGNORED | State.CANCELED:
            last = ws.history[-1].reason if ws.history else ""
            return (
                f"It was {last or ws.state}. `daylily-daemon retry {ws.id}` makes it ready again."
            )
        case _:
            return f"It is {ws.state}."


def _out_of_reach(ws: Workset) -> str:
    """Return what to do about a run whose daemon has not been heard of for long."""
    expires = ws.lock_expires_at
    if ws.lock_owner and expires and SystemClock().now() - expires < FORGIVEN:
        return ""
    return (
        f"\nNo daemon holds it now. One on {ws.runner_scope} picks it up by itself: is one running there? "
        f"If that machine exists no more: `daylily-daemon retry {ws.id} --host-gone`"
    )


async def _why_waiting(ws: Workset, tools: Tools) -> str:
    settings = tools.settings
    waiting = await _listed([State.READY, State.RETRYING], "", 1000, tools)
    running = await _listed([State.IN_PROGRESS], "", 1000, tools)
    status = StateDir(settings.daemon.state_dir).read_status() or {}
    limits = replace(
        limits_of(settings),
        slots=int(status.get("max_worksets", settings.daemon.max_worksets)),
        per_customer=int(status.get("max_per_customer", settings.daemon.max_per_customer)),
    )
    active = {WorksetId(id): str(c) for id, c in (status.get("customers") or {}).items()}
    capacity = capacity_of(limits, active, running, str(status.get("held", "")))
    now = SystemClock().now()
    verdicts = admit([w for w in waiting if w.id != ws.id] + [ws], capacity, now)
    place = [v.workset_id for v in verdicts].index(ws.id)
    alive = "" if _is_running(status) else " No daemon runs on this host; does one run elsewhere?"
    before = f"\nThe last try failed: {ws.error_details}" if ws.error_details else ""
    queued = f"It waits at place {place + 1} of {len(verdicts)}. " if due(ws, now) else ""
    return f"{queued}{verdicts[place].reason}{alive}{before}"


def status(config: ConfigOption = None, set_: SetOption = None, json: JsonOption = False) -> None:
    """Show the daemon of this host, how many worksets are in each state, and the queues.

    Example: daylily-daemon status
    """
    found = loaded(config, set_)
    figures = with_tools(found, _figures)
    daemon = StateDir(found.settings.daemon.state_dir).read_status()
    if json:
        output.print_json({"daemon": daemon, **figures})
        return
    printing.say_facts([("daemon", _daemon_text(daemon)), *_reload_text(daemon)])
    states = [(state, str(n)) for state, n in figures["worksets"].items() if n]
    printing.say_facts(states or [("worksets", "none")])
    printing.say_facts([(q, f"{n} messages") for q, n in figures["queues"].items()])


async def _figures(tools: Tools) -> dict[str, dict[str, int]]:
    counts: dict[State, int] = {}

    async def count(state: State) -> None:
        counts[state] = (await tools.worksets.count(state)).found

    async with anyio.create_task_group() as tg:
        for state in State:
            tg.start_soon(count, state)
    queues = tools.settings.queues
    names = [q for n in (queues.intake, queues.commands) for q in (n, dead_letter_name(n))]
    return {
        "worksets": {str(state): counts[state] for state in State},
        "queues": {name: await _depth(name, tools) for name in names},
    }


async def _depth(name: str, tools: Tools) -> int:
    sqs = await tools.aws.client("sqs")
    url = await find_queue(sqs, name)
    if url is None:
        raise Usage(f"The queue {name} does not exist. Run `daylily-daemon init` first.")
    return await tools.queue_depth(url)


def _is_running(status: dict[str, Any]) -> bool:
    return "pid" in status and Path(f"/proc/{status['pid']}").exists()


def _daemon_text(status: dict[str, Any] | None) -> str:
    if status is None:
        return "none has run with this state directory"
    alive = _is_running(status)
    running = len(status.get("active") or {})
    what = f"running {running} of {status.get('max_worksets')} worksets" if alive else "not running"
    held = f". {status['held']}" if alive and status.get("held") else ""
    return f"{status.get('owner')}: {what}; last seen {status.get('seen_at')}{held}"


def _reload_text(status: dict[str, Any] | None) -> list[tuple[str, str]]:
    reload = (status or {}).get("last_reload")
    if not reload:
        return []
    more = "; ".join(reload.get("problems", [])) or ", ".join(reload.get("changed", []))
    rows = [("last reload", f"{reload['result']} at {reload['at']}: {more or 'nothing changed'}")]
    if pending := reload.get("needs_restart"):
        rows.append(("needs a restart", ", ".join(pending)))
    return rows
