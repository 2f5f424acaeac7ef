"""What runs leave on a real disk: it is told apart, and only what was looked at is removed."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import anyio
import pytest

from daylily_daemon.adapters.identity import identified, this_machine
from daylily_daemon.adapters.remaining import TRASH, UNFINISHED_FILE, HostFolders, mount_points
from daylily_daemon.adapters.runners import procfs
from daylily_daemon.adapters.runners.jobdir import JobDirectory
from daylily_daemon.adapters.runners.process import scope_of
from daylily_daemon.domain.errors import Permanent
from daylily_daemon.domain.model import Job, JobName, WorksetId
from daylily_daemon.domain.prune import JobLeft, RunFolder, RunRemains
from daylily_daemon.domain.run import Run
from daylily_daemon.ports import RunFolders
from tests.contract.gated_jobs import end_all, kill_shim_and_command
from tests.contract.runner_harness import ProcessHarness, eventually
from tests.fakes.folders import MemoryFolders
from tests.made import a_run

ID: Final = WorksetId("ws-0")
STEPS: Final = ("run",)


@dataclass
class Host:
    """The folders of a daemon, and jobs that really ran in them."""

    root: Path
    mounted: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.jobs = ProcessHarness(self.root / "state" / "jobs")
        self.home = identified(str(self.jobs.directory), self.jobs.machine)
        self.data.mkdir(parents=True)
        (self.data / "reads.bam").write_bytes(b"x" * 100_000)

    @property
    def data(self) -> Path:
        return self.root / "data" / ID / "r1"

    @property
    def records(self) -> Path:
        return self.jobs.directory / ID / "r1"

    @property
    def run(self) -> Run:
        return a_run(
            steps=STEPS,
            scope=scope_of(self.home),
            jobs_dir=str(self.records),
            folder=str(self.data),
        )

    def folders(self) -> HostFolders:
        return HostFolders(
            data_dir=str(self.root / "data"),
            jobs_dir=str(self.jobs.directory),
            machine=self.jobs.machine,
            installation="worksets",
            mounts=lambda: [*mount_points(), *self.mounted],
        )

    async def look(self) -> RunRemains:
        return await self.folders().look(ID, self.run)

    def job(self, script: str = "exit 0", name: str = "1-run") -> Job:
        where = {"name": JobName(f"{ID}.1.run"), "directory": f"{self.records}/{name}"}
        return replace(self.jobs.shell(script), **where)  # type: ignore[arg-type]

    async def ran(self, script: str = "exit 0") -> Job:
        job, runner = self.job(script), self.jobs.runner()
        await runner.ensure(job)
        await runner.wait(job)
        await self.over(job)
        return job

    async def over(self, job: Job) -> None:
        """Wait until the shim is gone too, which ends a moment after it has left its record."""
        await eventually(lambda: not procfs.is_alive(self.jobs.shim(job)))


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    yield Host(tmp_path)
    end_all(str(tmp_path))


# --- what both must do --------------------------------------------------------------------------------


@pytest.fixture(params=["memory", "disk"])
async def left(request: pytest.FixtureRequest, host: Host) -> RunFolders:
    """A run on a host, as it is and as the memory has it."""
    await host.ran()
    if request.param == "disk":
        return host.folders()
    root = str(host.root)
    memory = MemoryFolders(f"{root}/data", f"{root}/state/jobs", scope_of(host.home))
    records = RunFolder(path=str(host.records), size_bytes=1, identity=(1, 2))
    memory.left[ID, "r1"] = RunRemains(
        data_dir=str(host.data),
        data=RunFolder(path=str(host.data), size_bytes=100_000, identity=(1, 1)),
        records=records,
        scope=scope_of(host.home),
        jobs={"1-run": JobLeft.ENDED},
    )
    return memory


async def test_what_a_run_has_left_is_found_and_goes(left: RunFolders, host: Host) -> None:
    assert await left.worksets() == [ID]
    found = await left.look(ID, host.run)
    assert (found.data_dir, found.scope) == (str(host.data), host.run.steps[0].scope)
    assert found.jobs == {"1-run": JobLeft.ENDED}
    assert [folder.path for folder in found.folders] == [str(host.data), str(host.records)]
    assert [folder.obstacle for folder in found.folders] == ["", ""]
    assert found.folders[0].size_bytes >= 100_000
    for folder in found.folders:
        await left.remove(folder)
    assert (await left.look(ID, host.run)).folders == ()
    assert await left.worksets() == []
    assert await left.clear() == 0


async def test_of_a_run_that_left_nothing_nothing_is_found(left: RunFolders, host: Host) -> None:
    assert (await left.look(ID, replace(host.run, id="r9"))).folders == ()
    assert (await left.look(WorksetId("w-unknown"), host.run)).folders == ()


async def test_what_was_not_looked_at_like_that_stays(left: RunFolders, host: Host) -> None:
    (data, _) = (await left.look(ID, host.run)).folders
    with pytest.raises(Permanent, match="is not the folder any more"):
        await left.remove(replace(data, identity=(9, 9)))
    assert (await left.look(ID, host.run)).data == data


# --- jobs ---------------------------------------------------------------------------------------------


async def test_a_job_that_runs_is_seen_by_its_token_and_its_processes(host: Host) -> None:
    job = host.job("until [ -e gate ]; do sleep 0.05; done")
    await host.jobs.runner().ensure(replace(job, cwd=str(host.data)))
    found = await host.look()
    assert found.jobs == {"1-run": JobLeft.RUNS}
    assert found.processes
    (host.data / "gate").touch()


async def test_a_job_of_which_no_end_is_known_may_run(host: Host) -> None:
    job = host.job("exec sleep 600")
    await host.jobs.runner().ensure(job)
    await eventually(lambda: JobDirectory(job.directory).command() is not None)
    await kill_shim_and_command(host.jobs, job)
    await eventually(lambda: JobDirectory(job.directory).has_ended())
    assert (await host.look()).jobs == {"1-run": JobLeft.UNKNOWN}
    token = host.records / "1-run" / "token"
    record = json.loads(token.read_text())
    for machine, left in (
        ("i-another", JobLeft.UNKNOWN),
        ("", JobLeft.UNKNOWN),
        (host.jobs.machine.id, JobLeft.ENDED),  # it was restarted since
    ):
        spec = {**record["spec"], "machine": machine}
        token.write_text(json.dumps({**record, "boot_id": "another", "spec": spec}))
        assert (await host.look()).jobs == {"1-run": left}, machine


async def test_a_token_that_is_free_revoked_or_unreadable_is_told_apart(host: Host) -> None:
    await host.jobs.runner().stop(host.job(name="1-revoked"))
    (host.records / "1-free").mkdir()
    (host.records / "1-torn").mkdir()
    (host.records / "1-torn" / "token").write_text("{")
    (host.records / "1-link").symlink_to(host.records / "1-revoked")
    assert (await host.look()).jobs == {
        "1-revoked": JobLeft.REVOKED,
        "1-free": JobLeft.FREE,
        "1-torn": JobLeft.UNKNOWN,
        "1-link": JobLeft.UNKNOWN,
    }


async def test_a_token_of_another_attempt_of_the_same_name_proves_nothing(host: Host) -> None:
    job = replace(host.job(), key="k1")
    await host.jobs.runner().ensure(job)
    await host.jobs.runner().wait(job)
    await host.over(job)
    mine, other = (replace(host.run, key=key) for key in ("k1", "k2"))
    assert (await host.folders().look(ID, mine)).jobs == {"1-run": JobLeft.ENDED}
    assert (await host.folders().look(ID, other)).jobs == {"1-run": JobLeft.UNKNOWN}
    assert (await host.folders().look(ID, replace(other, attempt=2))).jobs == {
        "1-run": JobLeft.ENDED
    }


async def test_whoever_works_in_a_folder_or_reads_from_it_is_seen(host: Host) -> None:
    await host.ran()
    assert (await host.look()).processes == ()
    for argv, cwd in (
        (("sleep", "600"), host.data),
        (("sh", "-c", f"exec sleep 600 < {host.data}/reads.bam"), host.root),
    ):
        async with await anyio.open_process(argv, cwd=cwd) as process:
            held = f"process {process.pid}"

            async def is_seen(held: str = held) -> bool:
                return held in (await host.look()).processes

            await eventually(is_seen)
            process.kill()


async def test_a_copy_of_the_state_directory_knows_no_jobs(host: Host) -> None:
    await host.ran()
    other = replace(host.jobs.machine, id="i-another")
    found = await replace(host.folders(), machine=other).look(ID, host.run)
    assert found.scope == ""
    assert replace(this_machine(), id="x") != other


# --- what lies in the way -----------------------------------------------------------------------------


def _moved_away(folder: Path, host: Host) -> None:
    folder.rename(host.root / "elsewhere")
    folder.symlink_to(host.root / "elsewhere")


@pytest.mark.reported(
    "A", "a name that is a link is resolved, and what it leads to deleted (KiroCrew#3172)"
)
async def test_a_link_in_the_path_is_not_followed(host: Host) -> None:
    await host.ran()
    _moved_away(host.data, host)
    found = await host.look()
    assert found.data
    assert found.data.obstacle == "itself is a symbolic link"
    with pytest.raises((Permanent, NotADirectoryError)):
        await host.folders().remove(replace(found.data, identity=(1, 1)))
    assert (host.root / "elsewhere" / "reads.bam").exists()


async def test_a_link_above_the_folder_is_not_followed(host: Host) -> None:
    await host.ran()
    before = (await host.look()).data
    assert before
    _moved_away(host.data.parent, host)
    found = (await host.look()).data
    assert found
    assert found.obstacle == "is behind ws-0, which is a symbolic link"
    with pytest.raises(Permanent):
        await host.folders().remove(before)
    assert (host.root / "elsewhere" / "r1" / "reads.bam").exists()


async def test_links_inside_go_and_what_they_lead_to_stays(host: Host) -> None:
    tree = host.root / "tree"
    tree.mkdir()
    (tree / "kept").touch()
    (host.data / "results").symlink_to(tree)
    (host.data / "loop").symlink_to(host.data)
    os.link(tree / "kept", host.data / "second-name")
    data = (await host.look()).data
    assert data
    assert data.obstacle == ""
    await host.folders().remove(data)
    assert not host.data.exists()
    assert (tree / "kept").exists()


@pytest.mark.parametrize("below", ["", "/work", "/.."])
async def test_a_mount_point_on_the_way_or_inside_stays(host: Host, below: str) -> None:
    (host.data / "work").mkdir()
    host.mounted.append(f"{host.data}{below}" if below != "/.." else str(host.data.parent))
    data = (await host.look()).data
    assert data
    assert data.obstacle == f"has something mounted at {host.mounted[0]}"
    host.mounted[0] = f"{host.data}-beside"
    data = (await host.look()).data
    assert data
    assert data.obstacle == ""


@pytest.mark.needs_root  # for mounts
def test_a_bind_mount_is_a_mount_point(tmp_path: Path) -> None:
    source, place = tmp_path / "source", tmp_path / "a place"
    source.mkdir()
    place.mkdir()
    program = (
        "from daylily_daemon.adapters.remaining import mount_points\n"
        f"print({str(place)!r} in mount_points())"
    )
    script = f"mount --bind '{source}' '{place}' && exec '{sys.executable}' -c \"$1\""
    argv = (
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "--",
        "sh",
        "-c",
        script,
        "-",
        program,
    )
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        pytest.skip(f"this machine lets nobody mount: {done.stderr}")
    assert done.stdout == "True\n"


async def test_what_this_user_may_not_remove_is_said_before_anything_goes(host: Host) -> None:
    locked = host.data / "locked"
    locked.mkdir()
    (locked / "file").touch()
    locked.chmod(0o500)
    said = _as_somebody(host)
    locked.chmod(0o000)
    unreadable = _as_somebody(host)
    locked.chmod(0o700)
    assert said == "has ./locked, in which this user may not remove anything"
    assert unreadable.startswith("has ")
    assert "locked" in unreadable
    assert "Permission denied" in unreadable


def _as_somebody(host: Host) -> str:
    """Return what another look says that has no rights of root."""
    if os.geteuid() != 0:
        found = anyio.run(host.look)
        return found.data.obstacle if found.data else ""
    for path in (host.root, *host.root.parents):
        if path.stat().st_uid == os.geteuid() and len(path.parts) > 2:
            path.chmod(0o755)
    subprocess.run(("chown", "-R", "65534", str(host.root)), check=True)
    program = (
        "import os, sys\n"
        "from daylily_daemon.adapters.remaining import _looked_at\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "print(_looked_at(sys.argv[1], ('ws-0', 'r1'), ()).obstacle)"
    )
    argv = (sys.executable, "-c", program, str(host.root / "data"))
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


async def test_an_export_that_did_not_end_well_is_seen(host: Host) -> None:
    (host.data / "work").mkdir()
    assert not (await host.look()).unfinished_export
    (host.data / "work" / UNFINISHED_FILE).touch()
    assert (await host.look()).unfinished_export


async def test_whose_sheet_names_a_file_in_it_is_seen(host: Host) -> None:
    sheet = host.root / "data" / "ws-1" / "r1" / "stage" / "stage_samples.tsv"
    sheet.parent.mkdir(parents=True)
    sheet.write_text(f"SAMPLE\tFQ\nA\t{host.data}/reads.fastq.gz\n")
    (host.data / "stage").mkdir()
    (host.data / "stage" / "stage_samples.tsv").write_text(f"A\t{host.data}/reads.bam\n")
    assert (await host.look()).named_by == (WorksetId("ws-1"),)
    sheet.write_text(f"SAMPLE\tFQ\nA\t{host.data}0/reads.fastq.gz\n")
    assert (await host.look()).named_by == ()
    sheet.unlink()
    os.mkfifo(sheet)
    assert (await host.look()).named_by == (), "nobody waits for a writer"


# --- removal ------------------------------------------------------------------------------------------


async def test_a_removal_that_was_cut_is_gone_on_with(host: Host) -> None:
    trash = host.root / "data" / TRASH / "ws-0.r1.0badcafe"
    trash.mkdir(parents=True)
    (trash / "left").touch()
    assert await host.folders().worksets() == [ID]
    assert await host.folders().clear() == 1
    assert not trash.exists()
    assert host.data.exists()


@pytest.mark.reported(
    "B", "what makes room needs room itself, and fails on a full disk (restic#3289)"
)
async def test_a_folder_goes_from_a_disk_that_is_full(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    data = (await host.look()).data
    assert data
    with monkeypatch.context() as full:
        full.setattr(os, "mkdir", no_room)
        full.setattr(os, "rename", no_room)
        with pytest.raises(Permanent, match="is not the folder any more"):
            await host.folders().remove(replace(data, identity=(1, 1)))
        await host.folders().remove(data)
    assert not host.data.exists()


async def test_other_runs_of_the_workset_stay(host: Host) -> None:
    second = host.data.parent / "r2"
    second.mkdir()
    data = (await host.look()).data
    assert data
    await host.folders().remove(data)
    assert (host.data.exists(), second.exists()) == (False, True)


@pytest.mark.parametrize("path", ["/etc/x", "{root}/data/ws-0", "{root}/data/../data/ws-0/r1"])
async def test_what_is_no_folder_of_a_run_is_never_removed(host: Host, path: str) -> None:
    status = host.data.stat()
    folder = RunFolder(path=path.format(root=host.root), identity=(status.st_dev, status.st_ino))
    with pytest.raises(Permanent, match="is no folder of a run"):
        await host.folders().remove(folder)
    assert host.data.exists()


async def test_a_run_with_a_strange_name_is_not_looked_for(host: Host) -> None:
    for id in ("..", "r1/../../ws-1/r1", "", "r\0"):
        assert (await host.folders().look(ID, replace(host.run, id=id))).folders == ()


@pytest.fixture(autouse=True)
def _writable(tmp_path: Path) -> Iterator[None]:
    yield
    subprocess.run(("chmod", "-R", "u+rwX", str(tmp_path)), check=False)
