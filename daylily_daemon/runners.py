"""The runners, by the names that items keep, and which of them takes new jobs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, get_args

from daylily_daemon.adapters import identity
from daylily_daemon.adapters.host import StateDir
from daylily_daemon.adapters.runners.account import RunAs
from daylily_daemon.adapters.runners.launch import Isolation, passed_on
from daylily_daemon.adapters.runners.process import ProcessRunner
from daylily_daemon.adapters.runners.tmux import TmuxRunner
from daylily_daemon.domain.totality import total
from daylily_daemon.ports import Runner
from daylily_daemon.settings.model import RunnerKind, Settings


def machine_of(settings: Settings) -> identity.Machine:
    return identity.this_machine(settings.daemon.machine)


def _process(settings: Settings, environ: Mapping[str, str]) -> ProcessRunner:
    jobs = identity.identified(StateDir(settings.daemon.state_dir).jobs, machine_of(settings))
    run_as = run_as_of(settings)
    if run_as is not None:
        run_as.check()
    return ProcessRunner(
        jobs,
        installation=settings.tables.worksets,
        base_environment=passed_on(environ, settings.runner.pass_environment),
        isolation=isolation_of(settings, environ),
        run_as=run_as,
    )


def _tmux(settings: Settings, environ: Mapping[str, str]) -> TmuxRunner:
    return TmuxRunner(
        _process(settings, environ),
        socket=StateDir(settings.daemon.state_dir).tmux_socket,
        environment=passed_on(environ, settings.runner.pass_environment),
    )


Make = Callable[[Settings, Mapping[str, str]], Runner]
KINDS: Final = [kind for kind in get_args(RunnerKind) if kind != "auto"]
_RUNNERS: Final[Mapping[str, Make]] = {"process": _process, "tmux": _tmux}
RUNNERS: Final[Mapping[str, Make]] = total("runners.RUNNERS", _RUNNERS, KINDS)
"""Every runner, by the name an item keeps: a workset is adopted by the runner that started it."""


def runner_kind(settings: Settings, environ: Mapping[str, str]) -> str:
    """Return the runner for new runs: ``auto`` is tmux where it is installed."""
    if settings.runner.kind != "auto":
        return settings.runner.kind
    return "tmux" if shutil.which("tmux", path=environ.get("PATH")) else "process"


@dataclass(frozen=True, slots=True, kw_only=True)
class Runners:
    """Every runner of a daemon by its name, and what tells its runs from those of others."""

    by_name: Mapping[str, Runner]
    kind: str
    """The name of the one that takes new runs."""
    former_scopes: frozenset[str]


def runners_of(settings: Settings, environ: Mapping[str, str]) -> Runners:
    """Make every runner. Raises Impeded and Transient.

    May hang: it reads the state directory, and asks the directory of users. One caller at a time.
    """
    return Runners(
        by_name={name: make(settings, environ) for name, make in RUNNERS.items()},
        kind=runner_kind(settings, environ),
        former_scopes=frozenset({f"host:{machine_of(settings).host_id}"}),
    )


def run_as_of(settings: Settings) -> RunAs | None:
    runner = settings.runner
    return RunAs(runner.user, tuple(map(str, runner.writable))) if runner.user else None


def isolation_of(settings: Settings, environ: Mapping[str, str]) -> Isolation:
    """``auto`` is a unit of its own where systemd runs us and lets us make one: as root."""
    if settings.runner.user:
        return Isolation.SYSTEMD
    if settings.runner.isolation != "auto":
        return Isolation(settings.runner.isolation)
    can = "INVOCATION_ID" in environ and os.geteuid() == 0 and shutil.which("systemd-run")
    return Isolation.SYSTEMD if can else Isolation.SESSION
