"""How all is: the daemon of this host, those of others, the worksets and the queues, and what is wrong.

The local half needs no AWS. Of the other half each part is asked for by itself: what AWS does not tell is
said, and the rest stands.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

import anyio

from daylily_daemon.application.backend import Backend
from daylily_daemon.application.health import (
    DaemonView,
    LocalDaemon,
    different_versions,
    viewed,
)
from daylily_daemon.domain.daemon import QueueLevel, Status
from daylily_daemon.domain.errors import DaemonError, Transient, leaf
from daylily_daemon.domain.model import State
from daylily_daemon.domain.problems import HealthProblem, ProblemKind, Severity, problems_of
from daylily_daemon.ports import Count

LIMIT_S: Final = 12.0
"""Longest wait for AWS. What it has not told by then is not told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """What AWS knows."""

    daemons: Sequence[DaemonView] = ()
    worksets: Mapping[State, Count] = field(default_factory=dict)
    queues: Mapping[str, QueueLevel] = field(default_factory=dict)
    troubles: tuple[DaemonError, ...] = ()
    """Why some of it is not known, each sentence once."""

    def of_here(self, local: LocalDaemon) -> tuple[HealthProblem, ...]:
        """Return what the daemon of this host says. How it is drained the registry knows better."""
        found = local.verdict.problems
        if any(local.status and d.owner == local.status.owner for d in self.daemons):
            found = tuple(p for p in found if p.kind != ProblemKind.DRAINING)
        return found

    def problems(self, now: datetime, local: LocalDaemon) -> tuple[HealthProblem, ...]:
        """Return what is wrong besides what the daemon of this host says itself."""
        mine = local.status.owner if local.status else ""
        others = [
            problem
            for daemon in self.daemons
            for problem in daemon.problems
            if daemon.owner != mine or problem.kind == ProblemKind.DRAINING
        ]
        queues = problems_of(Status(queues=self.queues), now)
        known = {problem.identity for problem in self.of_here(local)}
        found = [*others, *queues, *different_versions(self.daemons)]
        fresh: dict[tuple[str, ...], HealthProblem] = {}
        for problem in found:
            if problem.identity not in known:
                fresh.setdefault(problem.identity, problem)
        return tuple(fresh.values())


async def overview(backend: Backend) -> Overview:
    """Ask AWS for all of it, side by side. Raises nothing: what is not known is among the ``troubles``."""
    parts: dict[str, Any] = {}
    troubles: dict[str, DaemonError] = {}

    async def part(name: str, ask: Callable[[], Awaitable[Any]]) -> None:
        try:
            parts[name] = await ask()
        except Exception as exc:
            found = leaf(exc)
            if not isinstance(found, DaemonError):
                raise
            troubles.setdefault(str(found), found)

    with anyio.move_on_after(LIMIT_S) as scope:
        async with anyio.create_task_group() as tg:
            tg.start_soon(part, "daemons", backend.registry.daemons)
            tg.start_soon(part, "queues", backend.queues.depths)
            for state in State:
                tg.start_soon(part, state, _counted(backend, state))
    if scope.cancelled_caught:
        late = Transient(f"AWS has not told all of it within {LIMIT_S:g} s.")
        troubles[str(late)] = late
    now = backend.clock.now()
    daemons = [viewed(row, now) for row in parts.get("daemons", ())]
    return Overview(
        daemons=sorted(daemons, key=lambda daemon: daemon.owner),
        worksets={state: parts[state] for state in State if state in parts},
        queues=aged(parts.get("queues", {}), daemons),
        troubles=tuple(troubles.values()),
    )


def _counted(backend: Backend, state: State) -> Callable[[], Awaitable[Count]]:
    return lambda: backend.catalogue.count(state)


def aged(
    levels: Mapping[str, QueueLevel], daemons: Sequence[DaemonView]
) -> Mapping[str, QueueLevel]:
    """Add the ages that daemons know: SQS tells none."""
    known = [d.status.queues for d in daemons if d.status]
    return {name: _with_age(name, level, known) for name, level in levels.items()}


def _with_age(
    name: str, level: QueueLevel, known: Sequence[Mapping[str, QueueLevel]]
) -> QueueLevel:
    if not level.waiting + level.in_flight:
        return level
    seen = [levels[name] for levels in known if name in levels]
    aged = [one for one in seen if one.oldest_at]
    oldest = min(aged, key=lambda one: str(one.oldest_at), default=None)
    stuck = min((one.stuck_since for one in seen if one.stuck_since), default=None)
    if oldest is None:
        return replace(level, stuck_since=stuck, old_s=seen[0].old_s if seen else level.old_s)
    return replace(oldest, waiting=level.waiting, in_flight=level.in_flight, stuck_since=stuck)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The verdict, for a terminal, a program or a page."""

    now: datetime
    local: LocalDaemon
    overview: Overview
    settings: tuple[HealthProblem, ...] = ()
    """Why the settings of this host cannot be read."""

    @property
    def problems(self) -> tuple[HealthProblem, ...]:
        found = (
            *self.settings,
            *self.overview.of_here(self.local),
            *self.overview.problems(self.now, self.local),
        )
        return tuple(sorted(found, key=lambda problem: problem.severity is not Severity.PROBLEM))

    @property
    def is_well(self) -> bool:
        return all(problem.severity is not Severity.PROBLEM for problem in self.problems)

    @property
    def could_tell(self) -> bool:
        """Tell whether AWS told all that was asked."""
        return not self.overview.troubles


def verdict_line(report: Report) -> str:
    """Return ``well``, or how much is wrong, in a few words."""
    wrong = [p for p in report.problems if p.severity is Severity.PROBLEM]
    warnings = len(report.problems) - len(wrong)
    counts = [_several(len(wrong), "problem"), _several(warnings, "warning")]
    said = ", ".join(filter(None, counts))
    if wrong:
        return f"NOT WELL  {said}"
    known = "well" if report.could_tell else "well as far as is known"
    return f"{known}  {said}".rstrip()


def _several(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}" if count else ""


def unreadable_settings(text: str) -> HealthProblem:
    return HealthProblem(
        kind=ProblemKind.SETTINGS,
        about="settings",
        text=f"The settings of this host make no sense: {text} A daemon that runs keeps those it has.",
        remedy="Correct them; to see all that is wrong",
        command="daylily-daemon check-config",
    )
