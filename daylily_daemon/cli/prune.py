"""``prune``: removes what runs that are complete have left on this host."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daylily_daemon.cli import later, printing
from daylily_daemon.cli.groups import Access, Output, Shape, flattened
from daylily_daemon.cli.options import Exit, Usage, reporting, run_async, seconds
from daylily_daemon.domain.errors import DaemonError

if TYPE_CHECKING:
    from daylily_daemon.application.pruning import Pruning
    from daylily_daemon.cli.layout import Grid
    from daylily_daemon.domain.prune import PruneVerdict
    from daylily_daemon.settings.model import Settings

OlderOption = Annotated[
    str, typer.Option("--older", metavar="AGE", help="Complete for at least so long: 30d, 8w.")
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Remove them without a question.")]
DryRunOption = Annotated[
    bool,
    typer.Option("--dry-run", help="Show what may go, and why the rest stays; remove nothing."),
]


@flattened
def prune(
    older: OlderOption,
    access: Access,
    output: Output,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Remove the folders that complete worksets have left on this host, to make room.

    A folder goes only if the results of its run are in S3 as they were exported, all its jobs have ended
    here, and nothing uses it; the logs of the jobs are stored beside the results first. All else stays, and
    the list says why. Run it as the daemon's user or as root. The exit code is 0 also if nothing may go.

    Example: daylily-daemon prune --older 30d --dry-run
    """
    with reporting():
        older_s, shape = seconds(older), output.shape
        if not (yes or dry_run or printing.somebody_is_there()):
            raise Usage("This removes folders for good: look with --dry-run, and agree with --yes.")
    told = Removals(shape=shape, dry_run=dry_run)
    found = access.loaded("control.bucket")
    run_async(partial(_pruned, found.settings, older_s, told, yes=yes))
    told.finish()
    raise typer.Exit(int(Exit.FAILED if told.failed else Exit.OK))


async def _pruned(settings: Settings, older_s: float, told: Removals, *, yes: bool) -> None:
    async with later.pruning.open_pruning(settings, older_s) as pruning:
        verdicts = [verdict async for verdict in pruning.preview()]
        may_go = [verdict for verdict in verdicts if not verdict.kept]
        if told.dry_run or not may_go:
            told.take_all(verdicts)
        elif _agreed(verdicts, may_go, yes=yes):
            told.take_all([verdict for verdict in verdicts if verdict.kept])
            await _remove(pruning, may_go, told)


def _agreed(verdicts: Sequence[PruneVerdict], may_go: Sequence[PruneVerdict], *, yes: bool) -> bool:
    """Show the rows and ask."""
    printing.tell_grid(grid_of(verdicts))
    these = "this workset" if len(may_go) == 1 else f"these {len(may_go)} worksets"
    if yes or printing.agreed(f"Remove the folders of {these} for good ({_size(may_go)})?"):
        return True
    printing.complain("Nothing was removed.", style="")
    raise typer.Exit(int(Exit.FAILED))


async def _remove(pruning: Pruning, verdicts: Sequence[PruneVerdict], told: Removals) -> None:
    """Remove them one after another; what is wrong with one keeps no other."""
    if left := await pruning.folders.clear():
        printing.complain(f"Removed what {left} removals that were cut had left.", style="")
    for verdict in verdicts:
        try:
            told.take(await pruning.prune(verdict))
        except DaemonError as exc:
            told.fail(verdict, str(exc))


@dataclass(slots=True, kw_only=True)
class Removals:
    """Prints what becomes of each."""

    shape: Shape | None
    dry_run: bool
    failed: int = 0
    _verdicts: list[PruneVerdict] = field(default_factory=list)
    _objects: list[dict[str, Any]] = field(default_factory=list)

    @property
    def _is_for_people(self) -> bool:
        return self.shape in (None, Shape.WIDE)

    def take_all(self, verdicts: Sequence[PruneVerdict]) -> None:
        """Take what stays as it is: nothing is removed of it."""
        for verdict in verdicts:
            self._note(verdict, as_json(verdict))
        if self.dry_run and self._is_for_people and verdicts:
            printing.say_grid(grid_of(verdicts))

    def take(self, verdict: PruneVerdict) -> None:
        self._note(verdict, as_json(verdict))
        if self._is_for_people:
            what = f"kept: {verdict.kept}" if verdict.kept else f"removed, {_size([verdict])}"
            printing.say(f"{verdict.evidence.id}: {what}")

    def fail(self, verdict: PruneVerdict, why: str) -> None:
        self.failed += 1
        self._note(verdict, {**as_json(verdict), "error": why})
        printing.complain(f"{verdict.evidence.id}: {why}")

    def _note(self, verdict: PruneVerdict, shape: dict[str, Any]) -> None:
        self._verdicts.append(verdict)
        if self.shape is Shape.JSON:
            self._objects.append(shape)
        elif self.shape is Shape.JSONL:
            later.output.print_line(shape)
        elif self.shape is Shape.NAME and (verdict.removed or (self.dry_run and not verdict.kept)):
            printing.say_whole(verdict.evidence.id)

    def finish(self) -> None:
        """Print what belongs to all of them."""
        if self.shape is Shape.JSON:
            later.output.print_json(self._objects)
        elif self._is_for_people:
            printing.say(self._sum())

    def _sum(self) -> str:
        number = len(self._verdicts)
        if not number:
            return "No workset that ended so long ago has folders on this host."
        gone = [verdict for verdict in self._verdicts if verdict.removed]
        if not self.dry_run:
            return f"{len(gone)} of {number} removed, {_size(gone)}."
        may = [verdict for verdict in self._verdicts if not verdict.kept]
        return f"{len(may)} of {number} may go, {_size(may)}. Nothing was removed (--dry-run)."


def as_json(verdict: PruneVerdict) -> dict[str, Any]:
    evidence = verdict.evidence
    return {
        "workset_id": evidence.id,
        "state": evidence.ws.shown_state if evidence.ws else None,
        "ended_at": evidence.ws.state_since if evidence.ws else None,
        "may_go": not verdict.kept,
        "kept": verdict.kept,
        "folders": [{"path": one.path, "bytes": one.size_bytes} for one in verdict.folders],
        "bytes": verdict.size_bytes,
        "removed": verdict.removed,
    }


def grid_of(verdicts: Sequence[PruneVerdict]) -> Grid:
    """Return a row for each that is kept, which says why, and one for each folder that may go."""
    layout = later.layout
    room = max((len(one.path) for verdict in verdicts for one in verdict.folders), default=0)
    last = f"{'FOLDER':<{room}}  SIZE"
    columns = [layout.GridColumn(heading=name) for name in ("WORKSET", "STATE", "ENDED", last)]
    rows = [row for verdict in verdicts for row in _rows(verdict, room)]
    return layout.Grid(columns=tuple(columns), rows=rows, together=2)


def _rows(verdict: PruneVerdict, room: int) -> Iterator[tuple[str, ...]]:
    evidence = verdict.evidence
    ws = evidence.ws
    known = (ws.shown_state, f"{ws.state_since:%Y-%m-%d}") if ws else ("-", "-")
    if verdict.kept:
        yield evidence.id, *known, f"kept: {verdict.kept}"
    for n, folder in enumerate(verdict.folders):
        size = later.sizes.readable(folder.size_bytes)
        yield *((evidence.id, *known) if n == 0 else ("", "", "")), f"{folder.path:<{room}}  {size}"


def _size(verdicts: Sequence[PruneVerdict]) -> str:
    return str(later.sizes.readable(sum(verdict.size_bytes for verdict in verdicts)))
