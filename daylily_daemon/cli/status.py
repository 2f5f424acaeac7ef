"""``status``: what is wrong and what to do about it, then who runs, what waits and how the queues stand.

The daemon of this host is looked at without AWS, and with settings that make no sense, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import anyio
import typer

from daylily_daemon.cli import later, printing
from daylily_daemon.cli.groups import Access, Shape, WatchOption, flattened
from daylily_daemon.cli.options import Exit, JsonOption, exit_code, reporting, sources
from daylily_daemon.domain.errors import DaemonError, leaf
from daylily_daemon.domain.model import State

if TYPE_CHECKING:
    from daylily_daemon.application.health import DaemonView
    from daylily_daemon.application.overview import Overview, Report
    from daylily_daemon.cli.layout import Grid, Line
    from daylily_daemon.domain.daemon import QueueLevel, Reload
    from daylily_daemon.domain.problems import HealthProblem
    from daylily_daemon.settings.model import Settings
    from daylily_daemon.settings.sources import Sources

QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print nothing; the exit code tells.")
]
StrictOption = Annotated[
    bool, typer.Option("--strict", help="A warning makes the exit code 1, too.")
]


@flattened
def status(
    watching: WatchOption,
    access: Access,
    quiet: QuietOption = False,
    strict: StrictOption = False,
    json: JsonOption = False,
) -> None:
    """Show what is wrong and what to do about it, all daemons, worksets by state, and the queues.

    The exit code is 0 only if all is well, 1 if something is wrong, and 4 if AWS did not tell.

    Example: daylily-daemon status
    """
    with reporting():
        where, every_s = sources(access.config, access.set_), watching.every_s
        if every_s is not None:
            lines = watching.as_lines(Shape.JSON if json else None)
            anyio.run(partial(_watch, where, every_s, lines=lines))
        report = anyio.run(_report, where)
    if json:
        later.output.print_json(_as_json(report))
    elif not quiet:
        printing.say_lines(_lines(report))
    raise typer.Exit(int(_code(report, strict=strict)))


async def _watch(where: Sources, every_s: float, *, lines: bool) -> None:
    watched = later.watching.WatchedView(
        look=partial(_report, where),
        drawn=_lines,
        rows=lambda report: {"status": _as_json(report)},
        every_s=every_s,
    )
    await watched.go_on(lines=lines)


async def _report(where: Sources) -> Report:
    settings: Settings | None = None
    refused: tuple[HealthProblem, ...] = ()
    try:
        settings = later.sources.load(where).settings
    except later.sources.BadSettings as bad:
        refused = (later.overview.unreadable_settings(str(bad)),)
    later.telemetry.configure("error", json=False)
    state_dir = settings.daemon.state_dir if settings else later.sources.state_dir_of(where)
    seen = later.host.daemon_here(state_dir)
    return later.overview.Report(
        now=seen.now,
        local=later.health.judged(seen),
        overview=await _asked(settings) if settings else later.overview.Overview(),
        settings=refused,
    )


async def _asked(settings: Settings) -> Overview:
    try:
        async with later.backend.open_backend(settings) as backend:
            return await later.overview.overview(backend)
    except Exception as exc:
        trouble = leaf(exc)
        if not isinstance(trouble, DaemonError):
            raise
        return later.overview.Overview(troubles=(trouble,))


def _code(report: Report, *, strict: bool) -> Exit:
    if report.settings:
        return Exit.USAGE
    if not report.is_well or (strict and report.problems):
        return Exit.FAILED
    return Exit.OK if report.could_tell else exit_code(report.overview.troubles[0])


# --- for people -----------------------------------------------------------------------------------


def _lines(report: Report) -> Iterator[Line]:
    """Yield what is shown, in the order in which it matters, for a terminal as wide as it is now."""
    layout, width = later.layout, printing.width()
    empty: Line = ()
    verdict = f"{later.overview.verdict_line(report)}  {report.now:%H:%M:%S} UTC"
    style = "bold green" if report.is_well else "bold red"
    yield from ((layout.Piece(line, style),) for line in layout.wrapped(verdict, width))
    yield from layout.facts([*map(_shown, report.problems), *_unknown(report)], width)
    if report.local.verdict.headline:
        yield empty
        yield from layout.facts([("here", report.local.verdict.headline), *_reload(report)], width)
    if report.overview.daemons:
        yield empty
        yield from _daemons(report).lines(width)
    if report.overview.worksets:
        yield empty
        yield from layout.facts([("worksets", _counts(report.overview))], width)
    if report.overview.queues:
        yield empty
        yield from _queues(report).lines(width)


def _shown(problem: HealthProblem) -> tuple[str, str]:
    mark = "✗" if problem.severity == "problem" else "!"
    remedy, end = problem.remedy.rstrip("."), ":" if problem.command else "."
    command = f"$ {problem.command}" if problem.command else ""
    lines = (problem.sentence, f"do: {remedy}{end}" if remedy else "", command)
    return f"{mark} {problem.about}", "\n".join(filter(None, lines))


def _unknown(report: Report) -> Iterator[tuple[str, str]]:
    for trouble in report.overview.troubles:
        yield "? AWS", str(trouble)


def _daemons(report: Report) -> Grid:
    layout = later.layout
    columns = ("DAEMON", "STATE", "VERSION", "UP", "SLOTS", "LAST WORD")
    return layout.Grid(
        columns=tuple(layout.GridColumn(heading=name) for name in columns),
        rows=[_daemon_row(daemon, report) for daemon in report.overview.daemons],
    )


def _daemon_row(daemon: DaemonView, report: Report) -> tuple[str, ...]:
    status, span = daemon.status, later.times.span
    running = status is not None and daemon.state in ("running", "hanging", "starting")
    up = "-"
    if status and running and status.started_at:
        up = span((report.now - status.started_at).total_seconds())
    slots = f"{len(status.active)} of {status.max_worksets}" if status else "-"
    age = "-" if daemon.age_s is None else f"{span(daemon.age_s)} ago"
    drained = " (drained)" if status and status.drain else ""
    return (
        daemon.name,
        f"{daemon.state}{drained}",
        status.version if status else "?",
        up,
        slots,
        age,
    )


def _counts(overview: Overview) -> str:
    shown = [
        f"{count.found:,}{'+' if count.more else ''} {state}"
        for state, count in overview.worksets.items()
        if count.found
    ]
    return ", ".join(shown) or "none"


def _queues(report: Report) -> Grid:
    layout = later.layout
    columns = ("QUEUE", "WAITING", "IN FLIGHT", "OLDEST")
    return layout.Grid(
        columns=tuple(layout.GridColumn(heading=name) for name in columns),
        rows=[
            (name, str(level.waiting), str(level.in_flight), _age(level, report))
            for name, level in report.overview.queues.items()
        ],
    )


def _age(level: QueueLevel, report: Report) -> str:
    if level.is_dead_letters:
        return "do: daylily-daemon dlq list" if level.waiting else "-"
    age_s = level.age_s(report.now)
    if not age_s:
        return "-"
    group = f" ({level.group})" if level.group else ""
    return f"{'' if level.oldest_at else 'at least '}{later.times.span(age_s)}{group}"


def _reload(report: Report) -> list[tuple[str, str]]:
    reload = report.local.status.last_reload if report.local.status else None
    if reload is None:
        return []
    return [
        ("last reload", f"{reload.result} at {reload.at}: {_came_to(reload)}"),
        *([("needs a restart", ", ".join(reload.needs_restart))] if reload.needs_restart else []),
    ]


def _came_to(reload: Reload) -> str:
    return "; ".join(reload.problems) or ", ".join(reload.changed) or "nothing changed"


# --- for programs ---------------------------------------------------------------------------------


def _as_json(report: Report) -> dict[str, Any]:
    overview = report.overview
    return {
        "healthy": report.is_well,
        "verdict": later.overview.verdict_line(report),
        "problems": [later.shapes.problem_shape(p) for p in report.problems],
        "aws": [str(trouble) for trouble in overview.troubles],
        "daemon": later.shapes.status_shape(report.local.status),
        "daemons": [
            {
                "name": d.name,
                "owner": d.owner,
                "state": d.state,
                "said": later.shapes.status_shape(d.status),
            }
            for d in overview.daemons
        ],
        "worksets": {str(s): overview.worksets[s].found for s in State if s in overview.worksets},
        "at_least": [str(s) for s in State if s in overview.worksets and overview.worksets[s].more],
        "queues": later.shapes.levels_shape(overview.queues),
    }
