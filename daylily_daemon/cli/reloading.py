"""``reload``: the daemon of this host reads its settings again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from daylily_daemon.cli import later, printing
from daylily_daemon.cli.options import ConfigOption, Exit, SetOption, loaded, reporting, run_async

if TYPE_CHECKING:
    from daylily_daemon.domain.daemon import Reload

TIMEOUT_S = 30.0


def reload(
    wait: Annotated[
        bool, typer.Option("--wait", help="Return when it is known what became of it.")
    ] = False,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout", metavar="SECONDS", min=0.0, help="With --wait: no longer than this."
        ),
    ] = TIMEOUT_S,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only check the settings and pipelines.")
    ] = False,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Have the daemon of this host read its settings and pipelines again, as SIGHUP does.

    With --wait it returns 0 once they are in force, and 1 with what is wrong if they were refused.

    Example: daylily-daemon reload --wait
    """
    found = loaded(config, set_)
    with reporting():
        later.in_force.engine_settings_of(found.settings)
        if dry_run:
            printing.say("Settings and pipelines can be loaded. Nothing was reloaded.")
            return
        before = later.host.ask_for_reload(found.settings.daemon.state_dir)
    if not wait:
        printing.say("Asked for. `daylily-daemon status` shows what became of it.")
        return
    state_dir = found.settings.daemon.state_dir
    outcome = run_async(lambda: later.host.reloaded(state_dir, before, timeout))
    raise typer.Exit(int(_told(outcome, timeout)))


def _told(outcome: Reload | None, timeout_s: float) -> Exit:
    if outcome is None:
        printing.complain(
            f"The daemon has not answered within {timeout_s:g} s. `daylily-daemon status` shows how it is."
        )
        return Exit.NOT_REACHABLE
    if outcome.result == "refused":
        printing.complain("\n".join(("Refused; the old settings are in force.", *outcome.problems)))
        return Exit.FAILED
    printing.say(f"In force. Changed: {', '.join(outcome.changed) or 'nothing'}.")
    if outcome.needs_restart:
        printing.say(f"Waits for a restart: {', '.join(outcome.needs_restart)}.")
    return Exit.OK
