"""``explain``: why a workset is where it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daylily_daemon.cli import later, printing
from daylily_daemon.cli.options import (
    ConfigOption,
    JsonOption,
    SetOption,
    WorksetArgument,
    loaded,
    with_backend,
)

if TYPE_CHECKING:
    from daylily_daemon.application.backend import Backend
    from daylily_daemon.application.queries import Explanation


def explain(
    workset: WorksetArgument,
    config: ConfigOption = None,
    set_: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Say why a workset is where it is, and what to do.

    Example: daylily-daemon explain HG002-run7
    """

    async def ask(backend: Backend) -> Explanation:
        return await later.queries.explain(backend, workset)

    found = with_backend(loaded(config, set_), ask)
    ws, lines = found.workset, found.lines
    if json:
        later.output.print_json(
            {"workset_id": ws.id, "state": ws.shown_state, "why": "\n".join(lines)}
        )
        return
    for line in lines:
        printing.say(line)
