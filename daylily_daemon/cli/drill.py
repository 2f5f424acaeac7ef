"""``drill``: the daemon is killed on purpose, and shown that every run went on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from daylily_daemon.cli import later, printing
from daylily_daemon.cli.groups import Access, flattened
from daylily_daemon.cli.options import Exit, JsonOption, Usage, reporting, with_backend

if TYPE_CHECKING:
    from daylily_daemon.application.backend import Backend
    from daylily_daemon.composition.drilling import Drilled, HeldRun

TIMEOUT_S = 90.0


@flattened
def drill(
    access: Access,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout", metavar="SECONDS", min=1.0, help="How long the next daemon may take."
        ),
    ] = TIMEOUT_S,
    json: JsonOption = False,
) -> None:
    """Kill the daemon of this host on purpose, and show that every run went on.

    Jobs are not touched. systemd has to start the next daemon, as the unit that is shipped says. It returns 0
    if each run went on in the same attempt or came to its end, 1 if one did not, and 4 if no daemon was back
    in time.

    Example: daylily-daemon drill --yes
    """
    found = access.loaded("control.bucket")
    state_dir = found.settings.daemon.state_dir

    async def act(backend: Backend) -> Drilled:
        daemon, held = await later.drilling.held_here(backend, state_dir)
        _agree(daemon.pid, held, yes=yes)
        return await later.drilling.drill(backend, state_dir, daemon, held, timeout)

    with reporting():
        done: Drilled = with_backend(found, act)
    if json:
        later.output.print_json(_shape(done))
    else:
        _say(done, timeout)
    raise typer.Exit(int(_code(done)))


def _agree(pid: int, held: Sequence[HeldRun], *, yes: bool) -> None:
    many = "1 workset" if len(held) == 1 else f"{len(held)} worksets"
    what = f"Daemon {pid} runs here and holds {many}."
    if yes:
        printing.complain(what, style="")
        return
    if not printing.somebody_is_there():
        raise Usage(f"{what} To kill it without being asked, give --yes.")
    if not printing.agreed(f"{what} Kill it now?"):
        raise typer.Abort


def _say(done: Drilled, timeout_s: float) -> None:
    layout = later.layout
    if done.runs:
        columns = tuple(layout.GridColumn(heading=name) for name in ("WORKSET", "STEP", "FATE"))
        rows = [(run.id, run.step or "-", run.fate) for run in done.runs]
        printing.say_grid(layout.Grid(columns=columns, rows=rows, together=2))
    if done.back_s is None:
        printing.complain(
            f"No daemon was back within {timeout_s:g} s. Start it (`systemctl start daylily-daemon`): what "
            "runs goes on, and it takes that up. `daylily-daemon status` shows how it is."
        )
    elif done.is_good:
        printing.say(
            f"Good. The next daemon was back after {done.back_s:.1f} s, and every run went on."
        )
    else:
        printing.complain("Not good: a run did not go on. `daylily-daemon explain` tells of each.")


def _code(done: Drilled) -> Exit:
    if done.is_good:
        return Exit.OK
    return Exit.NOT_REACHABLE if done.back_s is None else Exit.FAILED


def _shape(done: Drilled) -> dict[str, object]:
    runs = [{"workset_id": run.id, "step": run.step, "fate": run.fate} for run in done.runs]
    return {"good": done.is_good, "back_s": done.back_s, "runs": runs}
