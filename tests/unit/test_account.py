"""Jobs as another user: who can be one, what he is given, and what is not followed on the way there."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from daylily_daemon.adapters.runners import enter
from daylily_daemon.adapters.runners.account import (
    NAMESPACES,
    Account,
    RunAs,
    check_namespaces,
    hand_over,
)
from daylily_daemon.domain.errors import Impeded, Transient
from daylily_daemon.domain.model import Job, JobName

NOBODY = pwd.getpwnam("nobody")
ACCOUNT = Account(
    "nobody", NOBODY.pw_uid, NOBODY.pw_gid, (NOBODY.pw_gid,), "/nonexistent", "/bin/sh"
)


@pytest.fixture
def reachable(tmp_path: Path) -> Path:
    """A folder that everybody may enter."""
    for folder in (tmp_path, *tmp_path.parents):
        if not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o011)
    return tmp_path


def job_in(folder: Path, cwd: str = "work") -> Job:
    run_dir = folder / "data" / "ws" / "r1"
    return Job(
        name=JobName("ws.1.run"),
        directory=str(folder / "jobs" / "ws" / "r1" / "1-run"),
        step="run",
        argv=("true",),
        environment={"HOME": "/of/the/pipeline"},
        run_dir=str(run_dir),
        cwd=str(run_dir / cwd),
    )


def owner(path: Path) -> str:
    return pwd.getpwuid(path.stat(follow_symlinks=False).st_uid).pw_name


def test_a_user_that_is_not_there_is_trouble_of_ours_with_its_cure() -> None:
    with pytest.raises(Impeded, match=r"no user nobody-at-all .*useradd .*nobody-at-all"):
        RunAs("nobody-at-all").account()


def test_root_is_no_other_user() -> None:
    with pytest.raises(Impeded, match="cannot run as root"):
        RunAs("root").account()


def test_a_user_has_the_groups_home_and_shell_that_this_machine_knows() -> None:
    found = RunAs("nobody").account()
    assert (found.uid, found.gid) == (NOBODY.pw_uid, NOBODY.pw_gid)
    assert found.gid in found.groups
    assert found.environment["HOME"] == NOBODY.pw_dir


def test_a_pipeline_may_set_what_the_user_brings_along(tmp_path: Path) -> None:
    found = ACCOUNT.command_of(job_in(tmp_path))
    assert found.environment["HOME"] == "/of/the/pipeline"
    assert found.environment["USER"] == "nobody"
    assert found.argv[-4:] == (str(ACCOUNT.uid), str(ACCOUNT.gid), str(ACCOUNT.gid), "true")


def test_a_machine_without_user_namespaces_is_refused_before_any_job_is(tmp_path: Path) -> None:
    limit = tmp_path / "max_user_namespaces"
    check_namespaces(limit)
    limit.write_text("1\n")
    check_namespaces(limit)
    limit.write_text("0\n")
    with pytest.raises(Impeded, match=r"set user\.max_user_namespaces .* leave runner\.user empty"):
        check_namespaces(limit)


@pytest.mark.needs_root
def test_a_job_that_gets_no_user_namespace_says_what_to_do() -> None:
    inside = (
        f"import runpy; enter = runpy.run_path({enter.__file__!r}); enter['leave_namespace'](0, 0); "
        f"open({str(NAMESPACES)!r}, 'w').write('0'); enter['main'](['0', '0', '', 'true'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", inside], capture_output=True, text=True, check=False
    )
    assert done.returncode == enter.NOT_EXECUTABLE
    assert "allows no more user namespaces: raise user.max_user_namespaces" in done.stderr
    assert "leave runner.user empty" in done.stderr


@pytest.mark.reported(
    "C",
    "supplementary groups are kept when privileges are dropped (ClickHouse/ClickHouse#105247, "
    "haskell/process#149, coreos/ignition#2242, roehling/postsrsd#133)",
)
@pytest.mark.needs_root
def test_a_command_has_the_groups_of_its_user_and_none_of_the_daemons() -> None:
    own, daemons = [NOBODY.pw_gid, 4343], [0, 4242]
    numbers = (NOBODY.pw_uid, NOBODY.pw_gid, ",".join(map(str, own)))
    with subprocess.Popen(
        [sys.executable, "-IS", enter.__file__, *map(str, numbers), "sh", "-c", "echo; read end"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd="/",
        extra_groups=daemons,
    ) as command:
        assert command.stdout is not None
        assert command.stdout.readline() == b"\n"
        status = Path(f"/proc/{command.pid}/status").read_text(encoding="utf-8")
        command.communicate(b"\n")
    said = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert sorted(map(int, said["Groups"].split())) == sorted(own)
    assert set(said["Uid"].split()) == {str(NOBODY.pw_uid)}
    assert set(said["Gid"].split()) == {str(NOBODY.pw_gid)}


@pytest.mark.parametrize("folder", ["/with space", "/with:colon", "/with%h", "/a/../b", "relative"])
def test_a_path_that_a_unit_might_read_otherwise_is_refused(folder: str) -> None:
    job = replace(job_in(Path("/srv")), run_dir=f"{folder}/ws/r1")
    with pytest.raises(Impeded, match="a path was expected of letters"):
        list(RunAs("nobody").properties(job, job.directory))
    with pytest.raises(Impeded, match="a path was expected of letters"):
        list(RunAs("nobody", (folder,)).properties(job_in(Path("/srv")), "/jobs"))


@pytest.mark.needs_root
def test_the_folder_of_a_run_and_what_is_inside_is_the_users_and_what_leads_there_is_not(
    reachable: Path,
) -> None:
    job = job_in(reachable, "work/deep")
    hand_over(job, ACCOUNT)
    assert [owner(Path(p)) for p in (job.run_dir, job.cwd)] == ["nobody", "nobody"]
    assert owner(Path(job.run_dir).parent) == "root"
    assert Path(job.run_dir).parent.stat().st_mode & 0o777 == 0o711


@pytest.mark.needs_root
def test_a_link_in_the_folder_of_a_run_gives_nothing_away(reachable: Path) -> None:
    job, elsewhere = job_in(reachable), reachable / "elsewhere"
    elsewhere.mkdir()
    Path(job.run_dir).mkdir(parents=True)
    Path(job.cwd).symlink_to(elsewhere)
    with pytest.raises(Transient, match="cannot be given to the user nobody"):
        RunAs("nobody").given(job)
    assert owner(elsewhere) == "root"


@pytest.mark.needs_root
def test_a_folder_that_is_somebody_elses_stays_his(reachable: Path) -> None:
    job = job_in(reachable)
    Path(job.cwd).mkdir(parents=True)
    os.chown(job.cwd, 12345, 12345)
    hand_over(job, ACCOUNT)
    assert Path(job.cwd).stat().st_uid == 12345


@pytest.mark.needs_root
def test_a_folder_that_the_user_cannot_enter_is_named(reachable: Path) -> None:
    closed = reachable / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(Impeded, match=f"chmod o\\+x {closed}"):
        RunAs("nobody").given(job_in(closed))
