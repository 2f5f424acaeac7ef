"""``rerun``: the files of a workset once more, as a workset of another name."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daylily_daemon.cli import answers, later, printing
from daylily_daemon.cli.groups import Access, Output, Shape, flattened
from daylily_daemon.cli.many import TimeoutOption
from daylily_daemon.cli.options import WorksetArgument, reporting, run_async
from daylily_daemon.cli.submit import submission_json, submit_code, tell_submission

if TYPE_CHECKING:
    from daylily_daemon.application.requests import Followed
    from daylily_daemon.application.rerun import Rerun
    from daylily_daemon.composition.backend import DropCopier
    from daylily_daemon.domain.workset import Request
    from daylily_daemon.settings.model import Settings


@flattened
def rerun(
    workset: WorksetArgument,
    access: Access,
    output: Output,
    as_: Annotated[
        str, typer.Option("--as", metavar="NAME", help="The new workset; else the id and -2.")
    ] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Return when it has ended.")] = False,
    timeout: TimeoutOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be copied; copy nothing.")
    ] = False,
) -> None:
    """Run the files of a workset that has ended once more, as a workset of another name.

    S3 copies recipe, sheet and what else was dropped, but neither results nor sentinels, to a new folder,
    which is then submitted for the same customer. The old workset and its results stay as they are. A
    copy that was cut is gone on with by the same command.

    Example: daylily-daemon rerun HG002-run7 --as HG002-run7b
    """
    with reporting():
        answers.check_wait(wait=wait, timeout_s=timeout)
        shape = output.shape
    found = access.loaded("control.bucket")
    if dry_run:
        _tell_plan(*run_async(partial(_planned, workset, as_, found.settings)), shape)
        return
    work = partial(_rerun, workset, as_, (wait, timeout), found.settings)
    outcome = run_async(work)
    _tell(outcome, shape, wait=wait)
    if wait:
        raise typer.Exit(int(submit_code(outcome)))


async def _planned(id: str, name: str, settings: Settings) -> tuple[Rerun, tuple[int, ...]]:
    async with later.backend.open_copying(settings) as (backend, copier):
        wanted = await later.rerun.rerun_of(backend, id, name)
        return wanted, await copier.sizes(wanted.source.request)


def _tell_plan(wanted: Rerun, sizes: tuple[int, ...], shape: Shape | None) -> None:
    planned = {"workset_id": wanted.id, "rerun_of": wanted.source.id, "dry_run": True}
    figures = {"files": len(sizes), "bytes": sum(sizes)}
    if _printed(planned | figures, shape):
        return
    printing.say(
        f"{len(sizes)} files, {sum(sizes):,} bytes, would be copied and submitted as {wanted.id}. "
        "Nothing was copied (--dry-run)."
    )


def _printed(value: dict[str, Any], shape: Shape | None) -> bool:
    """Print what programs read, if that is asked for."""
    if shape is Shape.JSON:
        later.output.print_json(value)
    elif shape is Shape.JSONL:
        later.output.print_line(value)
    elif shape is Shape.NAME:
        printing.say_whole(value["workset_id"])
    return shape not in (None, Shape.WIDE)


def _tell(outcome: Followed, shape: Shape | None, *, wait: bool) -> None:
    ask = outcome.command.ask
    of = {"rerun_of": getattr(ask, "rerun_of", "")}
    if not _printed(submission_json(outcome, wait=wait) | of, shape):
        tell_submission(outcome, wait=wait)


async def _rerun(
    id: str, name: str, how: tuple[bool, float | None], settings: Settings
) -> Followed:
    wait, timeout_s = how
    async with later.backend.open_copying(settings) as (backend, copier):
        wanted = await later.rerun.rerun_of(backend, id, name)
        copy = partial(_copied, copier, f"copying {wanted.source.id} to {wanted.id}")
        command = await later.rerun.rerun(backend, wanted, answers.asked_by(), copy)
        if wait:
            return await later.requests.end_of(backend, command, timeout_s)
        hint = later.requests.why_no_answer(backend, unless_none_ran=True)
        return later.requests.Followed(command, None, hint=hint)


async def _copied(copier: DropCopier, what: str, source: Request, uri: str) -> None:
    with later.drawing.bars() as bars:
        task = bars.add_task(what, total=None)

        def show(done: int, total: int) -> None:
            bars.update(task, completed=done, total=total)

        await copier.copy(show, source, uri)
