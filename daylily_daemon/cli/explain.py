"""``explain``: why a workset is where it is."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from daylily_daemon.cli import later, printing
from daylily_daemon.cli.groups import Access, Shape, WatchOption, flattened
from daylily_daemon.cli.options import JsonOption, WorksetArgument, reporting, with_backend

if TYPE_CHECKING:
    from daylily_daemon.application.backend import Backend
    from daylily_daemon.application.queries import Explanation
    from daylily_daemon.cli.layout import Line


@flattened
def explain(
    workset: WorksetArgument,
    watching: WatchOption,
    access: Access,
    json: JsonOption = False,
) -> None:
    """Say why a workset is where it is, and what to do.

    Example: daylily-daemon explain HG002-run7
    """
    with reporting():
        every_s = watching.every_s

    async def ask(backend: Backend) -> Explanation:
        return await later.queries.explain(backend, workset)

    async def watch(backend: Backend) -> None:
        watched = later.watching.WatchedView(
            look=partial(ask, backend),
            drawn=_lines,
            rows=lambda found: {workset: _shape(found)},
            every_s=every_s or 0,
        )
        await watched.go_on(lines=watching.as_lines(Shape.JSON if json else None))

    if every_s is not None:
        with_backend(access.loaded(), watch)
        return
    found = with_backend(access.loaded(), ask)
    if json:
        later.output.print_json(_shape(found))
        return
    for line in found.lines:
        printing.say(line)


def _lines(found: Explanation) -> Iterator[Line]:
    for text in found.lines:
        for line in later.layout.wrapped(text, printing.width()):
            yield (later.layout.Piece(line),)


def _shape(found: Explanation) -> dict[str, Any]:
    ws = found.workset
    return {"workset_id": ws.id, "state": ws.shown_state, "why": "\n".join(found.lines)}
