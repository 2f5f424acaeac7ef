"""A head node as people install one: the unit as it is shipped, under a real systemd.

The unit runs unchanged from the places it names. The program in /opt/daylily-daemon is this very
environment; the lab's folder, which lies in /tmp, is /etc/daylily-daemon too, so that settings are read
from where the unit has them while jobs leave their evidence in /tmp. What a test needs otherwise than
shipped (shorter pauses, another user) is in a drop-in, as ``systemctl edit`` writes one.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, TypeVar

from daylily_daemon.adapters.runners.account import DROP_IN
from daylily_daemon.adapters.runners.process import Isolation
from daylily_daemon.domain.model import State
from daylily_daemon.domain.workset import Workset
from tests.e2e.harness import Lab, until
from tests.e2e.systemd_machine import Machine, booted

T = TypeVar("T")

ROOT: Final = Path(__file__).resolve().parent.parent.parent
UNIT: Final = ROOT / "deploy" / "systemd" / "daylily-daemon.service"
SERVICE: Final = UNIT.name
STATE_DIR: Final = "/var/lib/daylily-daemon"
ETC: Final = "/etc/daylily-daemon"
ENVIRONMENT_DIR: Final = "/opt/daylily-environment"
SOURCE_DIR: Final = "/opt/daylily-source"
USERADD: Final = f"useradd --system --user-group --home-dir {STATE_DIR} daylily"
"""As the unit tells people to."""
JOBS_USER: Final = "daylily-jobs"
USERADD_JOBS: Final = f"useradd --system --user-group --create-home {JOBS_USER}"
"""As the daemon itself does that misses him."""
WATCHDOG_S: Final = 3
HAPPENS_WITHIN_S: Final = 30.0
HELD: Final = 'while [ ! -e "$gate" ]; do echo beat; sleep 0.1; done; exit "$(cat "$gate")"'

PROGRAM: Final = f"""\
#!{ENVIRONMENT_DIR}/bin/{Path(sys.executable).name}
import sys
from daylily_daemon.__main__ import main
sys.exit(main())
"""
QUICKER: Final = f"[Service]\nRestartSec=100ms\nWatchdogSec={WATCHDOG_S}\n"


class Way(StrEnum):
    """How the jobs live: the ways that people can choose."""

    SESSION = "session"
    """In the daemon's control group, as shipped."""
    LINGER = "linger"
    """Each in a unit of its own, under the service manager of the user ``daylily``."""
    ROOT = "root"
    """The same under the system's manager; the daemon is root then. It gets a /tmp of its own too."""
    USER = "user"
    """The same, and jobs run as another user (``runner.user``), by the drop-in that is shipped."""


DROP_INS: Final = {
    Way.SESSION: QUICKER,
    Way.LINGER: QUICKER,
    Way.ROOT: f"{QUICKER}User=root\nGroup=root\nPrivateTmp=yes\n",
    Way.USER: QUICKER,
}


@dataclass(slots=True, kw_only=True)
class HeadNode:
    machine: Machine
    lab: Lab
    way: Way

    # --- the daemon's unit --------------------------------------------------------------------

    def systemctl(self, *argv: str) -> str:
        return self.machine.run("systemctl", *argv)

    def shows(self, name: str, unit: str = SERVICE) -> str:
        """Return a property of a unit as systemd shows it."""
        return self.systemctl("show", "--value", "-p", name, unit)

    @property
    def main_pid(self) -> int:
        """A number inside, as all are here; 0 while no daemon runs."""
        return int(self.shows("MainPID"))

    def send(self, signal: str) -> None:
        self.systemctl("kill", "--kill-who=main", f"--signal={signal}", SERVICE)

    def replaced(self, before: int) -> None:
        """Wait until systemd has put another process into the place of ``before``, a ready one."""
        self.until(lambda: self.main_pid not in (0, before))
        self.until(lambda: self.shows("ActiveState") == "active")

    def drop_in(self, name: str, text: str) -> None:
        """Write a drop-in for the daemon's unit, or empty it; counts from the next start or stop."""
        path = self.lab.folder / "units" / f"{SERVICE}.d" / name
        path.write_text(text, encoding="utf-8")
        self.systemctl("daemon-reload")

    def status(self) -> dict[str, Any]:
        """Return what the daemon last wrote for ``daylily-daemon status``."""
        text = self.machine.path(f"{STATE_DIR}/status.json").read_text(encoding="utf-8")
        found: dict[str, Any] = json.loads(text)
        return found

    def reload(self) -> dict[str, Any]:
        """Reload the settings; return what the daemon says came of it, once systemd calls it up again."""
        before = self.status()["last_reload"]
        self.systemctl("reload", SERVICE)
        self.until(lambda: self.status()["last_reload"] != before)
        self.until(lambda: self.shows("ActiveState") == "active")
        found: dict[str, Any] = self.status()["last_reload"]
        return found

    def journal(self, *options: str) -> str:
        return self.machine.says("journalctl", "--no-pager", "-o", "cat", "-u", SERVICE, *options)

    def until(self, condition: Callable[[], T]) -> T:
        return until(condition, HAPPENS_WITHIN_S, lambda: self.journal()[-6000:])

    def manage_user(self, verb: str) -> None:
        """Start or stop the service manager of the user ``daylily``."""
        self.systemctl(verb, f"user@{self.machine.run('id', '-u', 'daylily')}.service")

    # --- worksets and their jobs --------------------------------------------------------------

    def drop(self, name: str) -> Workset:
        """Drop a workset and return it once its job, which waits for ``end``, was started."""
        self.lab.drop_sample(name)
        self.until(lambda: self.starts(name) and self.beats(name))
        return self.wait(name, State.IN_PROGRESS)

    def end(self, name: str, code: int) -> None:
        """Let the job end with that exit code."""
        draft = self.lab.folder / "gates" / f"{name}.new"
        draft.write_text(str(code), encoding="ascii")
        draft.rename(self.lab.folder / "gates" / name)

    def wait(self, name: str, state: State) -> Workset:
        return self.wait_until(name, lambda ws: ws.state is state)

    def wait_until(self, name: str, holds: Callable[[Workset], bool]) -> Workset:
        def look() -> Workset | None:
            found = self.lab.load(name)
            return found if found is not None and holds(found) else None

        found = self.until(look)
        assert found is not None
        return found

    def starts(self, name: str) -> list[str]:
        """Return the evidence: a line for each start of a job of that workset."""
        return [line for line in self.lab.evidence().elements() if line.split()[0] == name]

    def beats(self, name: str) -> int:
        """Return how often the job has shown that it lives."""
        log = self.job_dir(name) / "log"
        return log.read_text(encoding="utf-8").count("beat\n") if log.exists() else 0

    def job_dir(self, name: str) -> Path:
        return self.machine.path(f"{STATE_DIR}/jobs/{name}/r1/1-run")

    def record(self, name: str, file: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.job_dir(name) / file).read_text(encoding="utf-8"))
        return found

    def proc(self, pid: int, file: str) -> Path:
        return self.machine.path(f"/proc/{pid}/{file}")

    def cgroup(self, pid: int) -> str:
        return self.proc(pid, "cgroup").read_text(encoding="utf-8").strip().rpartition("::")[2]

    def tmux_sessions(self) -> list[str]:
        socket = f"{STATE_DIR}/tmux.sock"
        return self.machine.says("tmux", "-S", socket, "list-sessions", "-F", "#S").split()


@contextmanager
def installed(url: str, way: Way) -> Iterator[HeadNode]:
    """A head node with the daemon running, on the emulator at ``url``."""
    with tempfile.TemporaryDirectory(prefix="daylily-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o777)
        lab = _lab(folder, url, way)
        _write_what_is_installed(lab, way)
        with booted(folder / "overlay", _shown(folder)) as machine:
            machine.run(*USERADD.split())
            machine.run(*USERADD_JOBS.split())
            head = HeadNode(machine=machine, lab=lab, way=way)
            if way is Way.LINGER:
                _linger(head)
            head.systemctl("start", SERVICE)
            yield head
        lab.aws.close()


def _lab(folder: Path, url: str, way: Way) -> Lab:
    lab = Lab(folder, url)
    lab.config = folder / "config.yaml"
    lab.pipeline("held", run=HELD)
    del lab.settings["daemon"]["state_dir"], lab.settings["daemon"]["data_dir"]
    isolation = Isolation.SESSION if way is Way.SESSION else Isolation.SYSTEMD
    as_user: dict[str, Any] = {}
    if way is Way.USER:
        passed_on = ["PATH", "HOME", "LANG", "AWS_*", "NO_PROXY", "PYTHONPATH"]
        as_user = {"user": JOBS_USER, "writable": [str(folder)], "pass_environment": passed_on}
    lab.configure(
        daemon={"sweep_s": 1},
        runner={"kind": "tmux", "isolation": str(isolation), **as_user},
        pipelines={"dir": f"{ETC}/pipelines", "default": "held"},
        retry={"max_retries": 0},
    )
    lab.provision()
    return lab


def _write_what_is_installed(lab: Lab, way: Way) -> None:
    folder = lab.folder
    for name in ("fsx", "overlay"):
        (folder / name).mkdir()
        (folder / name).chmod(0o777)
    _write(folder / "environment", _environment(lab))
    _write(folder / "program" / "bin" / "daylily-daemon", PROGRAM)
    _write(folder / "units" / SERVICE, UNIT.read_text(encoding="utf-8"))
    _write(folder / "units" / f"{SERVICE}.d" / "tests.conf", DROP_INS[way])
    if way is Way.USER:
        shipped = ROOT / DROP_IN
        _write(folder / "units" / f"{SERVICE}.d" / shipped.name, shipped.read_text("utf-8"))


def _environment(lab: Lab) -> str:
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_EC2_METADATA_DISABLED", "NO_PROXY")
    found = {name: os.environ[name] for name in names}
    found |= {"AWS_ENDPOINT_URL": lab.url, "AWS_REGION": "us-west-2", "PYTHONPATH": SOURCE_DIR}
    return "".join(f"{name}={value}\n" for name, value in found.items())


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


def _shown(folder: Path) -> list[str]:
    """Say what of this machine is seen on the head node, and where."""
    return [
        f"{sys.base_prefix}:{sys.base_prefix}",
        f"{sys.prefix}:{ENVIRONMENT_DIR}",
        f"{ROOT}:{SOURCE_DIR}",
        f"{folder}/program:/opt/daylily-daemon",
        f"{folder}/units:/etc/systemd/system",
        f"{folder}:{ETC}",
        f"{folder}/fsx:/fsx:rw",
        f"{folder}:{folder}:rw",
    ]


def _linger(head: HeadNode) -> None:
    """Do by hand what ``loginctl enable-linger daylily`` leads to: logind does not run here."""
    units = head.lab.folder / "units"
    runtime = "[Service]\nExecStart=\nExecStart=/bin/true\nExecStop=\n"
    _write(units / "user-runtime-dir@.service.d" / "tests.conf", runtime)
    manager = "[Service]\nEnvironment=XDG_RUNTIME_DIR=/run/user/%i\n"
    _write(units / "user@.service.d" / "tests.conf", manager)
    user = head.machine.run("id", "-u", "daylily")
    head.machine.run("install", "-d", "-m", "700", "-o", "daylily", f"/run/user/{user}")
    head.systemctl("daemon-reload")
    head.manage_user("start")
