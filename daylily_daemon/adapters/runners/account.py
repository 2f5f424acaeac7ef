"""Jobs as another user than the daemon's, each of which sees of the runs' data only its own run's.

Only in units of their own (``launch.py``). The shim stays root's, and so do the job's token, log and exit
record, which its command can neither write nor read. The command runs as the user, in a view of the file
system in which all is read-only but the folder of its run, a /tmp of its own, and what a setting names; the
folders of other runs are not there. ``enter.py`` is what turns from the one into the other.
"""

from __future__ import annotations

import os
import pwd
import re
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from daylily_daemon.adapters.runners import enter
from daylily_daemon.domain.errors import Impeded, Transient
from daylily_daemon.domain.model import Job

DROP_IN: Final = "deploy/systemd/jobs-as-another-user.conf"
NAMESPACES: Final = Path("/proc/sys/user/max_user_namespaces")
PLAIN: Final = re.compile(r"/[\w./+@=,-]*", re.ASCII)
"""The paths that need no quoting in a property of a unit, whatever systemd's version."""
CAPABILITIES: Final = {
    "CAP_CHOWN": 0,
    "CAP_DAC_OVERRIDE": 1,
    "CAP_KILL": 5,
    "CAP_SYS_PTRACE": 19,
}
"""What the daemon needs besides being root, with the numbers the kernel gives them: to hand over the folder
of a run, to reach what the job left there, to end its processes and to see whose they are."""


@dataclass(frozen=True, slots=True)
class Account:
    """The user whom commands run as, as this machine knows him."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str
    shell: str

    @property
    def environment(self) -> Mapping[str, str]:
        known = {"USER": self.name, "LOGNAME": self.name, "HOME": self.home, "SHELL": self.shell}
        return {name: value for name, value in known.items() if value}

    def command_of(self, job: Job) -> Job:
        """Return ``job`` with the command that becomes the user first."""
        groups = ",".join(map(str, self.groups))
        become = (sys.executable, "-IS", "-X", "utf8", os.path.abspath(enter.__file__))
        argv = (*become, str(self.uid), str(self.gid), groups, *job.argv)
        return replace(job, argv=argv, environment={**self.environment, **job.environment})


def check_namespaces(limit: Path) -> None:
    """Raises Impeded where ``limit`` says 0; where there is no such file, nothing is concluded from that."""
    try:
        most = limit.read_text(encoding="ascii").strip()
    except OSError:
        return
    if most == "0":
        raise Impeded(
            "Jobs of another user get a user namespace of their own, and this machine allows none: set "
            "user.max_user_namespaces to more than 0 (`sysctl -w user.max_user_namespaces=10000`, and a file "
            "in /etc/sysctl.d to keep it), or leave runner.user empty."
        )


@dataclass(frozen=True, slots=True)
class RunAs:
    """Whom jobs run as, and where they may write besides the folder of their run and a /tmp of their own."""

    user: str
    writable: tuple[str, ...] = ()

    def account(self) -> Account:
        """Return the user as this machine knows him now. Raises Impeded; may hang, as directories do."""
        try:
            found = pwd.getpwnam(self.user)
        except KeyError:
            raise Impeded(
                f"There is no user {self.user} on this machine, whom jobs are to run as: make him "
                f"(`useradd --system --user-group --create-home {self.user}`), or set runner.user to one "
                "that there is."
            ) from None
        if found.pw_uid == 0:
            raise Impeded("Jobs cannot run as root: set runner.user to a user without its rights.")
        groups = tuple(sorted(os.getgrouplist(self.user, found.pw_gid)))
        return Account(self.user, found.pw_uid, found.pw_gid, groups, found.pw_dir, found.pw_shell)

    def given(self, job: Job) -> Job:
        """Return ``job`` as its shim gets it, whose user can write to the folder of its run then.

        Raises Impeded and Transient; may hang, as disks do.
        """
        account = self.account()
        try:
            hand_over(job, account)
        except OSError as exc:
            raise Transient(
                f"{job.run_dir} cannot be given to the user {self.user}: {exc.strerror}. "
                "Is it on a disk that the daemon may write to? It will try again."
            ) from exc
        return account.command_of(job)

    def check(self) -> None:
        """Raises Impeded where no job can run as this user on this machine."""
        self.account()
        lacking = [name for name, bit in CAPABILITIES.items() if not _effective() >> bit & 1]
        if os.geteuid() != 0 or lacking:
            what = f"the rights {', '.join(lacking)}" if os.geteuid() == 0 else "to be root"
            raise Impeded(
                f"To run jobs as the user {self.user} the daemon needs {what}. Install {DROP_IN} as a "
                "drop-in of its unit, or leave runner.user empty."
            )
        check_namespaces(NAMESPACES)

    def properties(self, job: Job, directory: str) -> Iterator[str]:
        """Yield what the job's unit needs besides. Raises Impeded for a path that no property can hold."""
        own, others = job.run_dir, os.path.dirname(os.path.dirname(job.run_dir))
        for path in (directory, own, *self.writable):
            if not PLAIN.fullmatch(path) or ".." in path.split("/"):
                raise Impeded(
                    f"Jobs of the user {self.user} cannot be given {path!r} to write to: a path was "
                    "expected of letters, digits and . _ + @ = , - alone. Name another one in the settings."
                )
        yield from ("ProtectSystem=strict", "PrivateTmp=yes", "NoNewPrivileges=yes")
        yield f"TemporaryFileSystem={others}:ro"
        yield f"BindPaths={' '.join((own, *(f'-{path}' for path in self.writable)))}"
        yield f"ReadWritePaths={' '.join((directory, own, *(f'-{path}' for path in self.writable)))}"


def hand_over(job: Job, account: Account) -> None:
    """Make the folders of the run that are missing, down to the job's ``cwd``, for the user to write to.

    What leads to the run's folder stays root's. From there on no link is followed: the user could have put it
    there. Raises OSError, and Impeded where the user cannot get there.
    """
    _lead_to(Path(job.run_dir), account)
    inside = Path(job.cwd).is_relative_to(job.run_dir)
    deeper = Path(job.cwd).relative_to(job.run_dir).parts if inside else ()
    with ExitStack() as opened:
        at = _opened(os.path.dirname(job.run_dir), None, opened)
        for name in (os.path.basename(job.run_dir), *deeper):
            _make(name, at)
            at = _opened(name, at, opened)
            if os.fstat(at).st_uid == os.geteuid():
                os.fchown(at, account.uid, account.gid)


def _lead_to(run_dir: Path, account: Account) -> None:
    for folder in reversed(run_dir.parents):
        if not folder.exists():
            folder.mkdir()
            folder.chmod(0o711)
    for folder in reversed(
        run_dir.parents[2:]
    ):  # the two next to it are seen otherwise by the user
        if not _may_enter(folder, account):
            raise Impeded(
                f"The user {account.name} cannot enter the folder {folder}, in which the data of runs lies: "
                f"`chmod o+x {folder}` lets him, and does not let him list it."
            )


def _may_enter(folder: Path, account: Account) -> bool:
    status = folder.stat()
    if status.st_uid == account.uid:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid in account.groups:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)


def _make(name: str, at: int) -> None:
    try:
        os.mkdir(name, 0o750, dir_fd=at)
    except FileExistsError:
        return


def _opened(name: str, at: int | None, opened: ExitStack) -> int:
    follow = 0 if at is None else os.O_NOFOLLOW
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | follow, dir_fd=at)
    opened.callback(os.close, fd)
    return fd


def _effective() -> int:
    """Return the rights of this process, a bit each."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    return int(next(line for line in status.splitlines() if line.startswith("CapEff:"))[7:], 16)
