"""Commands that ask for something: submit, cancel, retry, ignore, priority."""

from __future__ import annotations

import getpass
import re
import secrets
import socket
from functools import partial
from pathlib import Path
from typing import Annotated

import anyio
import typer

from daylily_daemon.adapters.codec import command_to_dict
from daylily_daemon.adapters.transfer.uploads import upload
from daylily_daemon.bootstrap import Tools
from daylily_daemon.cli import output, printing
from daylily_daemon.cli.options import (
    ConfigOption,
    JsonOption,
    SetOption,
    Usage,
    WorksetArgument,
    existing,
    loaded,
    reporting,
    with_tools,
    workset_id,
)
from daylily_daemon.domain.model import (
    Ask,
    Cancel,
    Command,
    Ignore,
    Priority,
    Retry,
    SetPriority,
    State,
    Submit,
    Workset,
    WorksetId,
)
from daylily_daemon.domain.naming import workset_of_key

POLL_S = 1.0
SENTINEL = re.compile(r"daylily\.[a-z_]+")
SETTLED = frozenset(State) - {State.READY, State.IN_PROGRESS, State.RETRYING}


def command_for(id: WorksetId, ask: Ask) -> Command:
    by = f"cli:{getpass.getuser()}@{socket.gethostname()}"
    return Command(id=secrets.token_hex(12), workset_id=id, by=by, ask=ask)


def submit(
    source: Annotated[
        str,
        typer.Argument(
            metavar="S3_URI|FOLDER", help="A workset in the control bucket, or a local folder."
        ),
    ],
    priority: Annotated[Priority | None, typer.Option("--priority", help="How urgent.")] = None,
    customer: Annotated[str, typer.Option("--customer", help="Whose it is.")] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Return when it has ended.")] = False,
    config: ConfigOption = None,
    set_: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Submit a workset: a folder of the control bucket, or a local folder, which is uploaded first.

    With --wait the exit code is 0 only if it completed.

    Example: daylily-daemon submit ./HG002-run7 --priority urgent --wait
    """
    with reporting():
        found = loaded(config, set_, "control.bucket")
        ask = partial(_submit, source, priority, customer, wait)
    ws_id, ws = with_tools(found, ask)
    if json:
        output.print_json(output.workset_json(ws) if ws else {"workset_id": ws_id})
    elif ws is None:
        printing.say(f"{ws_id} is submitted. `daylily-daemon show {ws_id}` shows where it is.")
    else:
        printing.say(f"{ws_id} is {ws.shown_state}. {output.progress_text(ws)}")
    if ws is not None and ws.state is not State.COMPLETE:
        raise typer.Exit(1)


async def _submit(
    source: str, priority: Priority | None, customer: str, wait: bool, tools: Tools
) -> tuple[WorksetId, Workset | None]:
    control = tools.settings.control
    if source.startswith("s3://"):
        id = _in_control_bucket(source, control.bucket, control.prefix)
    else:
        id = await _uploaded(anyio.Path(source), tools)
    ask = Submit(
        bucket=control.bucket,
        prefix=f"{control.prefix}{id}/",
        customer_id=customer,
        priority=priority,
    )
    command = command_for(id, ask)
    await (await tools.commands()).send([command])
    return id, await _until_settled(command, tools) if wait else None


def _in_control_bucket(uri: str, bucket: str, prefix: str) -> WorksetId:
    name, _, key = uri.removeprefix("s3://").partition("/")
    place = workset_of_key(prefix, key.rstrip("/") + "/daylily.ready")
    if name != bucket or place is None:
        raise Usage(
            f"{uri} is no workset of the control bucket; it must be s3://{bucket}/{prefix}<workset>/. "
            "To run files that lie elsewhere, submit a local copy of the folder."
        )
    return workset_id(place[0])


async def _uploaded(folder: anyio.Path, tools: Tools) -> WorksetId:
    if not await folder.is_dir():
        raise Usage(f"{folder} is neither a folder of this host nor an s3:// address.")
    id = workset_id((await folder.resolve()).name)
    control = tools.settings.control
    with printing.bars() as bars:
        task = bars.add_task(f"uploading {id}", total=None)
        await upload(
            await tools.aws.client("s3"),
            Path(folder),
            f"s3://{control.bucket}/{control.prefix}{id}/",
            progress=lambda done, total: bars.update(task, completed=done, total=total),
            # A sentinel would be a second submission, and one of an old run would be misread.
            skip=lambda name: SENTINEL.fullmatch(name) is not None,
        )
    return id


async def _until_settled(command: Command, tools: Tools) -> Workset:
    while True:
        ws = await tools.worksets.load(command.workset_id)
        taken = ws is not None and command.id in ws.seen_commands
        if ws is not None and taken and ws.state in SETTLED:
            return ws
        await anyio.sleep(POLL_S)


def _ask(id: str, ask: Ask, config: Path | None, set_: list[str] | None, json: bool) -> None:
    found = loaded(config, set_)

    async def send(tools: Tools) -> Command:
        ws = await existing(tools, id)
        command = command_for(ws.id, ask)
        await (await tools.commands()).send([command])
        return command

    command = with_tools(found, send)
    if json:
        output.print_json(command_to_dict(command))
    else:
        what = type(ask).__name__.lower().replace("setp", "p")
        printing.say(
            f"{what} of {id} is asked for. `daylily-daemon events {id}` shows what became of it."
        )


def cancel(
    workset: WorksetArgument,
    reason: Annotated[str, typer.Option("--reason", help="For the audit trail.")] = "",
    config: ConfigOption = None,
    set_: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Stop a running workset, or take a waiting one out.

    Example: daylily-daemon cancel HG002-run7 --reason "wrong flow cell"
    """
    _ask(workset, Cancel(reason=reason), config, set_, json)


def retry(
    workset: WorksetArgument,
    from_start: Annotated[bool, typer.Option("--from-start", help="Run every step again.")] = False,
    host_gone: Annotated[
        bool,
        typer.Option(
            "--host-gone",
            help="I know that the machine it ran on exists no more, and its jobs with it.",
        ),
    ] = False,
    config: ConfigOption = None,
    set_: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Run a failed, parked, canceled or ignored workset again, from the step that failed.

    With --host-gone also one in progress on a machine that was terminated: no daemon can tell whether its
    job still runs, so somebody has to. A daemon that does reach that machine goes on with the run instead.

    Example: daylily-daemon retry HG002-run7
    """
    _ask(workset, Retry(from_start=from_start, host_gone=host_gone), config, set_, json)


def ignore(
    workset: WorksetArgument,
    reason: Annotated[str, typer.Option("--reason", help="For the audit trail.")] = "",
    config: ConfigOption = None,
    set_: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Leave a workset alone until somebody retries it.

    Example: daylily-daemon ignore HG002-test
    """
    _ask(workset, Ignore(reason=reason), config, set_, json)


def priority(
    workset: WorksetArgument,
    value: Annotated[Priority, typer.Argument(help="How urgent it is now.")],
    config: ConfigOption = None,
    set_: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Change the priority of a workset.

    Example: daylily-daemon priority HG002-run7 urgent
    """
    _ask(workset, SetPriority(priority=value), config, set_, json)
