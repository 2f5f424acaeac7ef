"""``submit``: a folder of the control bucket, or a local one, of which only what belongs to it is uploaded.

It looks before it touches anything: what would have no effect is refused before a byte goes up, or the files
in S3 would no longer be those that ran.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import anyio
import typer
from anyio import to_thread

from daylily_daemon.adapters.host import SystemClock
from daylily_daemon.adapters.localdrop import LocalDrop, files_to_submit
from daylily_daemon.adapters.transfer.uploads import upload_files
from daylily_daemon.bootstrap import Tools
from daylily_daemon.cli import output, printing
from daylily_daemon.cli.asking import (
    LOOK_S,
    Outcome,
    TimeoutOption,
    answered,
    check_wait,
    command_for,
    is_settled,
    sentence,
    why_no_answer,
)
from daylily_daemon.cli.options import (
    ConfigOption,
    Exit,
    Failed,
    JsonOption,
    SetOption,
    Usage,
    loaded,
    reporting,
    with_tools,
    workset_id,
)
from daylily_daemon.domain import commands
from daylily_daemon.domain.model import Command, CommandEffect, Priority, State, Submit, WorksetId
from daylily_daemon.domain.naming import workset_of_key
from daylily_daemon.domain.workset import Workset

SETTLED: Final = frozenset(State) - {State.READY, State.IN_PROGRESS, State.RETRYING}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is to be submitted, and how."""

    source: str
    priority: Priority | None = None
    customer: str = ""
    wait: bool = False
    timeout_s: float | None = None


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
    timeout: TimeoutOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Submit a workset: a folder of the control bucket, or a local folder, which is uploaded first.

    Of a local folder go its three documents and the files its sheet names, links followed; nothing else. One
    that runs, is complete or belongs to another customer is refused before anything is uploaded. With --wait
    the exit code is 0 only if it completed.

    Example: daylily-daemon submit ./HG002-run7 --priority urgent --wait
    """
    with reporting():
        check_wait(wait=wait, timeout_s=timeout)
        if not source.strip():
            raise Usage("Name a folder of this host or an s3:// address; what was given is empty.")
        found = loaded(config, set_, "control.bucket")
    wish = Wish(source=source, priority=priority, customer=customer, wait=wait, timeout_s=timeout)
    outcome = with_tools(found, partial(_submit, wish))
    if json:
        output.print_json(_as_json(outcome) if wait else {"workset_id": outcome.command.workset_id})
    else:
        _tell(outcome, wait=wait)
    if wait:
        raise typer.Exit(int(_code(outcome)))


def _as_json(outcome: Outcome) -> dict[str, Any]:
    ws, answer = outcome.workset, outcome.answer
    return {
        "workset_id": outcome.command.workset_id,
        **(output.workset_json(ws) if ws else {}),
        "effect": answer.effect if answer else None,
        "text": answer.text if answer else "",
    }


def _code(outcome: Outcome) -> Exit:
    """0 only for a workset that completed by this very submission."""
    ws = outcome.workset
    if outcome.code is not Exit.OK:
        return outcome.code
    if ws is None or ws.state not in SETTLED:
        return Exit.NOT_REACHABLE
    return Exit.OK if ws.state is State.COMPLETE else Exit.FAILED


def _tell(outcome: Outcome, *, wait: bool) -> None:
    id, answer, ws = outcome.command.workset_id, outcome.answer, outcome.workset
    if not wait:
        printing.say(
            f"{id} is submitted: the command waits for a daemon. `daylily-daemon show {id}` shows where "
            "it is."
        )
        if outcome.hint:
            printing.complain(outcome.hint.strip(), style="")
    elif answer is None:
        printing.complain(
            f"{id} is submitted, and no daemon has answered yet. The command stays in the queue until one "
            f"does.{outcome.hint}"
        )
    elif answer.effect in (CommandEffect.NONE, CommandEffect.REFUSED):
        printing.complain(sentence(answer.text))
    elif ws is not None:
        printing.say(f"{id} is {ws.shown_state}. {output.reason_text(ws)}".rstrip())


async def _submit(wish: Wish, tools: Tools) -> Outcome:
    control = tools.settings.control
    if wish.source.startswith("s3://"):
        id = _in_control_bucket(wish.source, control.bucket, control.prefix)
    else:
        id = await _named_by(anyio.Path(wish.source))
    ask = Submit(
        bucket=control.bucket,
        prefix=f"{control.prefix}{id}/",
        customer_id=wish.customer,
        priority=wish.priority,
    )
    command = command_for(id, ask)
    check_effect(await tools.worksets.load(id), command)
    if not wish.source.startswith("s3://"):
        await _upload(Path(wish.source), id, ask, tools)
        check_effect(await tools.worksets.load(id), command)
    await (await tools.commands()).send([command])
    if not wish.wait:
        return Outcome(command, None, hint=why_no_answer(tools, unless_none_ran=True))
    return await _until_settled(command, wish.timeout_s, tools)


def check_effect(ws: Workset | None, command: Command) -> None:
    """Raises Failed, with the daemon's own words, where the submission of ``ws`` would have no effect."""
    if ws is None:
        return
    for answer in commands.apply(ws, command, SystemClock().now()).answers:
        if answer.effect in (CommandEffect.NONE, CommandEffect.REFUSED):
            raise Failed(f"Nothing was submitted: {sentence(answer.text)}")


def _in_control_bucket(uri: str, bucket: str, prefix: str) -> WorksetId:
    name, _, key = uri.removeprefix("s3://").partition("/")
    place = workset_of_key(prefix, key.rstrip("/") + "/daylily.ready")
    if name != bucket or place is None:
        raise Usage(
            f"{uri} is no workset of the control bucket; it must be s3://{bucket}/{prefix}<workset>/. "
            "To run files that lie elsewhere, submit a local copy of the folder."
        )
    return workset_id(place[0])


async def _named_by(folder: anyio.Path) -> WorksetId:
    if not await folder.is_dir():
        raise Usage(f"{folder} is neither a folder of this host nor an s3:// address.")
    return workset_id((await folder.resolve()).name)


async def _upload(folder: Path, id: WorksetId, ask: Submit, tools: Tools) -> None:
    drop = await to_thread.run_sync(files_to_submit, folder, id)
    _tell_absent(drop)
    client = await tools.aws.client("s3")
    with printing.bars() as bars:
        task = bars.add_task(f"uploading {id}", total=None)

        def show(done: int, total: int) -> None:
            bars.update(task, completed=done, total=total)

        await upload_files(client, drop.files, f"s3://{ask.bucket}/{ask.prefix}", progress=show)


def _tell_absent(drop: LocalDrop) -> None:
    for absent in drop.absent:
        printing.complain(f"{absent} It must be in S3 already, or come soon.", style="")


async def _until_settled(command: Command, timeout_s: float | None, tools: Tools) -> Outcome:
    began = anyio.current_time()
    answer = await answered(tools.trail, command, timeout_s, is_settled)
    if answer is None or answer.effect is not CommandEffect.APPLIED:
        now = await tools.worksets.load(command.workset_id)
        return Outcome(command, answer, now, "" if answer else why_no_answer(tools))
    left_s = None if timeout_s is None else max(0.0, timeout_s - (anyio.current_time() - began))
    ws = await tools.worksets.load(command.workset_id)
    with anyio.move_on_after(left_s):
        while ws is not None and ws.state not in SETTLED:
            await anyio.sleep(LOOK_S)
            ws = await tools.worksets.load(command.workset_id)
    return Outcome(command, answer, ws)
