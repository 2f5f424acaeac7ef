"""``submit``: a folder of the control bucket, or a local one, of which only what belongs to it is uploaded.

It looks before it touches anything: what would have no effect is refused before a byte goes up, or the files
in S3 would no longer be those that ran.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import anyio
import typer

from daylily_daemon.cli import later, printing
from daylily_daemon.cli.answers import asked_by, check_wait, exit_code_of
from daylily_daemon.cli.many import TimeoutOption
from daylily_daemon.cli.options import (
    ConfigOption,
    Exit,
    JsonOption,
    SetOption,
    Usage,
    loaded,
    reporting,
    run_async,
)
from daylily_daemon.domain.model import CommandEffect, Priority, State, WorksetId

if TYPE_CHECKING:
    from daylily_daemon.application.requests import Followed
    from daylily_daemon.composition.backend import Uploader
    from daylily_daemon.settings.model import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitWish:
    """What is to be submitted, and how."""

    source: str
    priority: Priority | None = None
    customer: str = ""
    wait: bool = False
    timeout_s: float | None = None

    @property
    def is_local(self) -> bool:
        return not self.source.startswith("s3://")


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
    wish = SubmitWish(
        source=source, priority=priority, customer=customer, wait=wait, timeout_s=timeout
    )
    outcome = run_async(partial(_submit, wish, found.settings))
    if json:
        later.output.print_json(submission_json(outcome, wait=wait))
    else:
        tell_submission(outcome, wait=wait)
    if wait:
        raise typer.Exit(int(submit_code(outcome)))


def submission_json(outcome: Followed, *, wait: bool) -> dict[str, Any]:
    if not wait:
        return {"workset_id": outcome.command.workset_id}
    ws, answer = outcome.workset, outcome.answer
    return {
        "workset_id": outcome.command.workset_id,
        **(later.shapes.workset_shape(ws) if ws else {}),
        "effect": answer.effect if answer else None,
        "text": answer.text if answer else "",
    }


def submit_code(outcome: Followed) -> Exit:
    """0 only for a workset that completed by this very submission."""
    ws = outcome.workset
    if (code := exit_code_of(outcome)) is not Exit.OK:
        return code
    if ws is None or ws.state not in later.requests.ENDED:
        return Exit.NOT_REACHABLE
    return Exit.OK if ws.state is State.COMPLETE else Exit.FAILED


def tell_submission(outcome: Followed, *, wait: bool) -> None:
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
        printing.complain(later.wording.sentence(answer.text))
    elif ws is not None:
        printing.say(f"{id} is {ws.shown_state}. {later.wording.reason_text(ws)}".rstrip())


async def _submit(wish: SubmitWish, settings: Settings) -> Followed:
    async with later.backend.open_uploading(settings) as (backend, uploader):
        if wish.is_local:
            id = await _named_by(anyio.Path(wish.source))
            upload = partial(_upload, uploader, Path(wish.source), id)
        else:
            id, upload = later.requests.in_control_bucket(backend, wish.source), None
        submission = later.requests.Submission(
            id=id, by=asked_by(), customer=wish.customer, priority=wish.priority
        )
        command = await later.requests.submit(backend, submission, upload)
        if wish.wait:
            return await later.requests.end_of(backend, command, wish.timeout_s)
        hint = later.requests.why_no_answer(backend, unless_none_ran=True)
        return later.requests.Followed(command, None, hint=hint)


async def _named_by(folder: anyio.Path) -> WorksetId:
    if not await folder.is_dir():
        raise Usage(f"{folder} is neither a folder of this host nor an s3:// address.")
    return later.queries.workset_id((await folder.resolve()).name)


async def _upload(uploader: Uploader, folder: Path, id: WorksetId, uri: str) -> None:
    with later.drawing.bars() as bars:
        task = bars.add_task(f"uploading {id}", total=None)

        def show(done: int, total: int) -> None:
            bars.update(task, completed=done, total=total)

        await uploader.upload(
            folder, id, later.backend.Watching(absent=_tell_absent, progress=show), uri
        )


def _tell_absent(absent: str) -> None:
    printing.complain(f"{absent} It must be in S3 already, or come soon.", style="")
