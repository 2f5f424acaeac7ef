"""Whether jobs can be run the way the settings say, on this host. Starts none."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from daylily_daemon.adapters.runners.account import RunAs
from daylily_daemon.adapters.runners.launch import Isolation, advice
from daylily_daemon.domain.errors import DaemonError
from daylily_daemon.domain.finding import CheckResult, Grade, ok

VERSION_S: Final = 5.0
LINGER: Final = Path("/var/lib/systemd/linger")


@dataclass(frozen=True, slots=True, kw_only=True)
class HowJobsRun:
    kind: str
    """``tmux`` or ``process``."""
    isolation: Isolation
    is_asked: bool
    """Whether a setting asks for that isolation; else it is what fits."""
    run_as: RunAs | None


def judged_runner(how: HowJobsRun, environ: Mapping[str, str]) -> Sequence[CheckResult]:
    """Look for what the runner needs. Blocks for a few seconds at most."""
    path = environ.get("PATH")
    said = [_version("tmux", "-V", path)] if how.kind == "tmux" else [how.kind]
    wrong = [*_of_tmux(how, said[0])]
    if how.isolation is Isolation.SYSTEMD:
        said.append(_version("systemd-run", "--version", path))
        wrong += [*_of_systemd(said[1]), *_of_linger()]
        said.append("jobs in units of their own")
    else:
        said.append(f"jobs in sessions of their own{'' if how.is_asked else _unless_systemd()}")
    wrong += _of_account(how.run_as)
    return wrong or [ok(f"{', '.join(said)}.")]


def _unless_systemd() -> str:
    return ", or in units if systemd runs the daemon as root"


def _of_tmux(how: HowJobsRun, version: str) -> Iterator[CheckResult]:
    if how.kind == "tmux" and not version:
        yield CheckResult(
            grade=Grade.FAIL,
            text="tmux was not found, or does not say its version.",
            remedy="Install it, or set runner.kind to process; jobs run, and nobody can watch them",
        )


def _of_systemd(version: str) -> Iterator[CheckResult]:
    if not version:
        yield CheckResult(
            grade=Grade.FAIL,
            text="systemd-run was not found, or does not say its version.",
            remedy="Set runner.isolation to session",
        )
    elif why := advice(Isolation.SYSTEMD).lstrip(". "):
        yield CheckResult(
            grade=Grade.FAIL,
            text=why,
            remedy="As root",
            command=f"loginctl enable-linger {_user()}",
        )


def _of_linger() -> Iterator[CheckResult]:
    """A user's manager ends with his last login, and the jobs with it, unless he lingers."""
    if os.geteuid() and not (LINGER / _user()).exists():
        yield CheckResult(
            grade=Grade.WARN,
            text=f"The user {_user()} does not linger: jobs end when he logs out everywhere.",
            remedy="As root",
            command=f"loginctl enable-linger {_user()}",
        )


def _of_account(run_as: RunAs | None) -> Iterator[CheckResult]:
    if run_as is None:
        return
    try:
        run_as.check()
    except DaemonError as exc:
        yield CheckResult(grade=Grade.FAIL, text=str(exc))


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _version(program: str, option: str, path: str | None) -> str:
    """Return the first line that a program says of itself, empty if it is not there or does not answer."""
    found = shutil.which(program, path=path)
    if found is None:
        return ""
    try:
        done = subprocess.run(
            [found, option],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=VERSION_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = done.stdout.splitlines()
    return lines[0][:100] if done.returncode == 0 and lines else ""
