"""The command that starts a shim, in a session or in a unit of its own."""

from __future__ import annotations

import errno
import fnmatch
import math
import os
import re
import resource
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from daylily_daemon.adapters.runners import shim
from daylily_daemon.adapters.runners.logs import clean
from daylily_daemon.adapters.runners.remains import unit_of
from daylily_daemon.domain.model import Job

LAUNCH_TIMEOUT_S: Final = 30.0
UNIT_STOP_MARGIN_S: Final = 30
"""Beyond the grace period, for the shim to write its record before systemd kills it."""
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Isolation(StrEnum):
    SESSION = "session"
    SYSTEMD = "systemd"


@dataclass(frozen=True, slots=True)
class Launch:
    job: Job
    directory: str
    mark: str
    variables: tuple[str, ...] = ()
    """Names of what the launcher's environment hands on; their values stay out of the arguments."""
    properties: tuple[str, ...] = ()
    """Of its unit, besides those that all have."""

    def argv(self, isolation: Isolation) -> list[str]:
        python = [sys.executable, "-IS", "-X", "utf8", os.path.abspath(shim.__file__)]
        match isolation:
            case Isolation.SESSION:
                return [*python, self.directory]
            case Isolation.SYSTEMD:
                command = [*python, "--foreground", self.directory]
                return [*self._systemd_run(), *(word.replace("$", "$$") for word in command)]

    def environment(self, base: Mapping[str, str], isolation: Isolation) -> dict[str, str]:
        """Return the jobs' environment, and what systemd-run needs to find a user's manager."""
        manager = {}
        if isolation is Isolation.SYSTEMD and os.geteuid() != 0:
            manager["XDG_RUNTIME_DIR"] = f"/run/user/{os.geteuid()}"
        return {**manager, **base, shim.SHIM_MARK: self.mark}

    def _systemd_run(self) -> list[str]:
        stop_s = math.ceil(self.job.grace_s) + UNIT_STOP_MARGIN_S
        return [
            "systemd-run",
            "--system" if os.geteuid() == 0 else "--user",
            "--quiet",
            "--collect",
            "--no-ask-password",
            "--service-type=notify",
            f"--unit={unit_of(self.job.name)}",
            "--property=KillMode=mixed",
            "--property=OOMPolicy=continue",
            "--property=TimeoutStartSec=infinity",
            f"--property=TimeoutStopSec={stop_s}",
            f"--property=UMask={_umask():04o}",
            f"--property=LimitNOFILE={_open_files()}",
            *(f"--property={text}" for text in self.properties),
            *(f"--setenv={name}" for name in self.variables if _VARIABLE.fullmatch(name)),
            f"--setenv={shim.SHIM_MARK}={self.mark}",
            "--",
        ]


def passed_on(environ: Mapping[str, str], patterns: tuple[str, ...]) -> dict[str, str]:
    """Return the variables jobs may see. Keys of channels never match the default patterns."""
    return {
        name: value
        for name, value in environ.items()
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    }


def _umask() -> int:
    """Return this process's umask without a moment in which it is another one."""
    for line in (
        Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    ):
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    return 0o022


def _open_files() -> str:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    return ":".join("infinity" if n == resource.RLIM_INFINITY else str(n) for n in limits)


def run_launcher(argv: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str]:
    """Return the exit code of a launcher, and what it said to stderr at its end.

    In a thread that can be left: one that hangs on a disk cannot be killed, nor can its end be waited for.
    """
    done = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
        timeout=LAUNCH_TIMEOUT_S,
        check=False,
    )
    return done.returncode, clean(done.stderr[-500:]).strip()


def advice(isolation: Isolation) -> str:
    """Return what else to do if a launch failed, empty if nothing is known."""
    user = os.geteuid()
    needed = isolation is Isolation.SYSTEMD and user != 0
    if not needed or _listens(f"/run/user/{user}/systemd/private"):
        return ""
    return (
        f". No service manager runs for user {user}: run `loginctl enable-linger {user}` as root, "
        "or set runner.isolation to session."
    )


def _listens(path: str) -> bool:
    """Tell whether somebody listens on a socket; the file alone stays behind after a crash."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as channel:
        try:
            channel.connect(path)
        except OSError as exc:
            return exc.errno == errno.EAGAIN  # its queue is full
    return True
