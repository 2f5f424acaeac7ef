"""One or more worksets that something is asked of: by their ids, or by a filter.

Of more than one, and of whatever a filter finds, the rows are shown first and somebody has to agree.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from daylily_daemon.cli import answers, later, printing
from daylily_daemon.cli.groups import Access, Filters, Output, Shape
from daylily_daemon.cli.options import Exit, Usage, reporting, with_backend
from daylily_daemon.domain.model import MOST_LISTED, Ask

if TYPE_CHECKING:
    from daylily_daemon.application.backend import Backend
    from daylily_daemon.application.batch import Chosen, Question
    from daylily_daemon.cli.answers import Outcome

TIMEOUT_S: Final = 60.0

WaitOption = Annotated[
    bool, typer.Option("--wait", help="Return when it is known what became of it.")
]
TimeoutOption = Annotated[
    float | None,
    typer.Option("--timeout", metavar="SECONDS", min=0.0, help="With --wait: no longer than this."),
]


def offered(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return ids, and what else may stand where one may: the values of an argument behind the ids."""
    behind = [p for p in ctx.command.params if p.param_type_name == "argument" and p.nargs == 1]
    values = [item.value for param in behind for item in param.shell_complete(ctx, incomplete)]
    return [*values, *later.ids.ids_for(ctx, incomplete)]


@dataclass(frozen=True, kw_only=True)
class Subjects(Filters):
    """Ids, or a filter."""

    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="WORKSET", help="Ids of worksets.", autocompletion=offered),
    ] = None
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=MOST_LISTED, help="Of a filter: at most so many.")
    ] = 100

    @property
    def is_filter(self) -> bool:
        """Raises Usage for ids beside a filter, and for neither."""
        filters = Filters(**{f.name: getattr(self, f.name) for f in fields(Filters)})
        if bool(self.ids) == filters.are_given:
            raise Usage(
                "Name worksets by their ids, or say which with --state, --customer, --code, --pipeline, "
                "--since, --older or --host; not both."
            )
        return filters.are_given


@dataclass(frozen=True, kw_only=True)
class Asking(Access, Output):
    """How something is asked."""

    wait: WaitOption = False
    timeout: TimeoutOption = None
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Ask it of all of them without a question.")
    ] = False
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would become of it; ask nothing.")
    ] = False

    def question(self, ask: Ask) -> Question:
        """Return what is asked. Raises Usage for a time limit of nothing."""
        answers.check_wait(wait=self.wait, timeout_s=self.timeout)
        timeout_s = TIMEOUT_S if self.timeout is None else self.timeout
        return later.batch.Question(
            ask=ask, by=answers.asked_by(), wait=self.wait, timeout_s=timeout_s
        )


def ask_of(worksets: Subjects, ask: Ask, asking: Asking) -> None:
    """Ask it of each; the exit code says whether all were done."""
    with reporting():
        question, shape = asking.question(ask), asking.shape
        many = worksets.is_filter or len(set(worksets.ids or ())) > 1
        if many and not asking.yes and not asking.dry_run and not printing.somebody_is_there():
            raise Usage("This asks something of several worksets: agree to it with --yes.")
    outcomes = Outcomes(
        shape=shape, many=many, waited=asking.wait or asking.dry_run, dry_run=asking.dry_run
    )
    work = partial(_asked, worksets, question, asking, outcomes)
    with_backend(asking.loaded(), work)
    outcomes.finish()
    raise typer.Exit(int(outcomes.code))


async def _asked(
    worksets: Subjects, question: Question, asking: Asking, outcomes: Outcomes, backend: Backend
) -> None:
    chosen = await _chosen(worksets, question.ask, backend)
    if not chosen.worksets:
        printing.complain("There are no such worksets.", style="")
        return
    if asking.dry_run:
        for ws in chosen.worksets:
            outcomes.take(later.batch.foreseen(backend, ws, question))
    elif not outcomes.many or _agreed(chosen, question.ask, asking, backend):
        await later.batch.ask_each(backend, chosen.worksets, question, outcomes.take)


async def _chosen(worksets: Subjects, ask: Ask, backend: Backend) -> Chosen:
    if not worksets.is_filter:
        return await later.batch.named(backend, worksets.ids or ())
    found = await later.batch.matching(backend, worksets.listing(), ask, worksets.limit)
    if found.more:
        printing.complain(
            f"These are the first {len(found.worksets)}; there may be more. Ask again when they are done, or "
            "raise --limit.",
            style="",
        )
    return found


def _agreed(chosen: Chosen, ask: Ask, asking: Asking, backend: Backend) -> bool:
    """Show the rows and ask."""
    wide = asking.shape is Shape.WIDE
    printing.tell_grid(later.output.list_grid(chosen.worksets, backend.clock.now(), wide=wide))
    number = len(chosen.worksets)
    those = "this workset" if number == 1 else f"these {number} worksets"
    if asking.yes or printing.agreed(f"{answers.verb(ask).capitalize()} {those}?"):
        return True
    printing.complain("Nothing was asked.", style="")
    raise typer.Exit(int(Exit.FAILED))


@dataclass(slots=True, kw_only=True)
class Outcomes:
    """Prints what became of each, as it becomes known."""

    shape: Shape | None
    many: bool
    waited: bool
    dry_run: bool
    codes: list[Exit] = field(default_factory=list)
    _objects: list[dict[str, Any]] = field(default_factory=list)

    @property
    def code(self) -> Exit:
        return answers.code_of_all(self.codes)

    def take(self, outcome: Outcome) -> None:
        code = answers.code_of(outcome, waited=self.waited)
        if self.dry_run and code is Exit.NOT_REACHABLE:
            code = Exit.OK  # it would lie where its holder, or the next one, finds it
        self.codes.append(code)
        if self.shape is Shape.JSON:
            self._objects.append(self._as_json(outcome))
        elif self.shape is Shape.JSONL:
            later.output.print_line(self._as_json(outcome))
        elif self.shape is Shape.NAME:
            if code is Exit.OK:
                printing.say_whole(outcome.command.workset_id)
        else:
            self._say(outcome, code)

    def _as_json(self, outcome: Outcome) -> dict[str, Any]:
        return {**answers.as_json(outcome), **({"dry_run": True} if self.dry_run else {})}

    def _say(self, outcome: Outcome, code: Exit) -> None:
        would = "would be so: " if self.dry_run else ""
        if self.many or self.dry_run:
            id = outcome.command.workset_id
            line = answers.line_of(outcome, waited=self.waited).removeprefix(f"{id}: ")
            printing.say(f"{id}: {would}{line}")
            return
        said = answers.sentence_of(outcome, waited=self.waited)
        if code is Exit.OK:
            printing.say(said)
        else:
            printing.complain(said)

    def finish(self) -> None:
        """Print what belongs to all of them."""
        if self.shape is Shape.JSON:
            later.output.print_json(self._objects if self.many else self._objects[0])
        elif self.shape is None and self.many and self.codes:
            done = self.codes.count(Exit.OK)
            what = "would be done" if self.dry_run else "done" if self.waited else "asked for"
            printing.complain(f"{done} of {len(self.codes)} {what}.", style="")
