"""A machine with a real systemd for the tests: an overlay over this one.

The same systemd, Python and tools, but whatever is written there is gone with it, and nothing is shared but
the network. ``tests/tools/systemd_overlay.sh`` makes it; here it is entered, and ended.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from daylily_daemon.adapters.runners.shim import stat_fields
from tests.e2e.harness import until

SCRIPT: Final = Path(__file__).resolve().parent.parent / "tools" / "systemd_overlay.sh"
SYSTEMD: Final = Path("/lib/systemd/systemd")
MARKER: Final = "daylily-overlay"
NAMESPACES: Final = {"mount": "mnt", "pid": "pid", "uts": "uts", "ipc": "ipc", "cgroup": "cgroup"}
ENVIRONMENT: Final = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C",
    "SYSTEMD_PAGER": "",
    "SYSTEMD_COLORS": "0",
}
BOOTED_WITHIN_S: Final = 30.0
ANSWERED_WITHIN_S: Final = 90.0
ENDED_WITHIN_S: Final = 10.0


class MachineError(Exception):
    """The machine cannot be had; the text says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Held by descriptors of what was proved to be inside: a pid could come to mean something else."""

    root: int
    namespaces: tuple[int, ...]
    log: Path

    def run(self, *argv: str) -> str:
        """Run a command inside and return its output; fail with what it said if that was an error."""
        done = self._enter(argv)
        assert done.returncode == 0, f"{argv} ended with {done.returncode}: {done.stderr}"
        return done.stdout.strip()

    def says(self, *argv: str) -> str:
        """Run a command inside and return its output, whatever its exit code."""
        return self._enter(argv).stdout.strip()

    def said(self) -> str:
        """Return what the boot, and then systemd itself, have said."""
        journal = self.says("journalctl", "--no-pager", "-o", "cat", "_PID=1")
        return f"{self.log.read_text(errors='replace')}{journal}"

    def path(self, inside: str) -> Path:
        """Return the way to a file inside; no part of it may be a link that begins with a slash."""
        return Path(f"/proc/self/fd/{self.root}{inside}")

    def _enter(self, argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
        kinds = zip(NAMESPACES, self.namespaces, strict=True)
        enter = [f"--{kind}=/proc/self/fd/{fd}" for kind, fd in kinds]
        return subprocess.run(
            ["nsenter", *enter, "--", *argv],
            pass_fds=self.namespaces,
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=ANSWERED_WITHIN_S,
        )


@contextmanager
def booted(folder: Path, shown: Sequence[str]) -> Iterator[Machine]:
    """Boot a machine in the empty ``folder``, end it and all that runs on it. Raises MachineError.

    ``shown``: folders of this machine to be seen there, written as the script wants them.
    """
    _require_tools()
    token = secrets.token_hex(16)
    with ExitStack() as stack:
        process = _launch(folder, token, shown)
        stack.callback(_clear, folder, token)
        stack.callback(_end, process)
        first = until(lambda: _first(process, folder, token), BOOTED_WITHIN_S)
        machine = _held(stack, first, token, folder / "log")
        up = ("systemctl", "is-active", "basic.target")
        until(lambda: machine.says(*up) == "active", BOOTED_WITHIN_S, machine.said)
        yield machine


def _require_tools() -> None:
    missing = [name for name in ("nsenter", "setpriv", "unshare") if shutil.which(name) is None]
    if missing or not SYSTEMD.exists():
        what = ", ".join([*missing, *([] if SYSTEMD.exists() else [str(SYSTEMD)])])
        raise MachineError(
            f"The tests on a real systemd miss {what}. Install the Debian packages systemd and "
            "util-linux, then run them again."
        )


def _launch(folder: Path, token: str, shown: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start the machine; it dies with the thread that called this, however that ends."""
    boot = ("sh", str(SCRIPT), "boot", str(folder), token, *shown)
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            ("setpriv", "--pdeathsig", "KILL", "--", *boot),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _first(process: subprocess.Popen[bytes], folder: Path, token: str) -> int:
    """Return the pid of the first process inside, once the marker proves its root the overlay, or 0."""
    if process.poll() is not None:
        raise MachineError(
            "No systemd can be booted here. The tests of the unit file need root with "
            "CAP_SYS_ADMIN, overlayfs and a writable cgroup2; run them where these are to be had, "
            f"a privileged container for instance.\n{(folder / 'log').read_text(errors='replace')}"
        )
    for pid in (name for name in os.listdir("/proc") if name.isdigit()):
        with suppress(OSError):  # it ended meanwhile, or has no such file
            if int(stat_fields(int(pid))[1]) == process.pid and _marker(f"/proc/{pid}") == token:
                return int(pid)
    return 0


def _marker(process: str) -> str:
    return Path(f"{process}/root/{MARKER}").read_text(encoding="ascii").strip()


def _held(stack: ExitStack, first: int, token: str, log: Path) -> Machine:
    """Open what leads inside; only then look once more whether it does."""

    def held(path: str, flags: int) -> int:
        fd = os.open(f"/proc/{first}/{path}", flags)
        stack.callback(os.close, fd)
        return fd

    spaces = tuple(held(f"ns/{name}", os.O_RDONLY) for name in NAMESPACES.values())
    root = held("root", os.O_PATH | os.O_DIRECTORY)
    machine = Machine(root=root, namespaces=spaces, log=log)
    assert machine.path(f"/{MARKER}").read_text(encoding="ascii").strip() == token
    assert machine.run("cat", f"/{MARKER}") == token
    assert not Path(f"/{MARKER}").exists(), "what is written there appears on this machine"
    return machine


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the machine: its first process dies with the one that made it, and all others with that."""
    process.kill()
    process.wait()


def _clear(folder: Path, token: str) -> None:
    """Remove the control groups, which go only once the last process is gone."""

    def clear() -> bool:
        argv = ("sh", str(SCRIPT), "clear", str(folder), token)
        return subprocess.run(argv, check=False, capture_output=True).returncode == 0

    if (folder / "cgroup").exists():
        until(clear, ENDED_WITHIN_S)
