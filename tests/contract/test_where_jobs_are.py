"""Where a job is: folders that were moved, copied or lost, machines of one image, terms that were stored."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio
import pytest

from daylily_daemon.adapters.runners import procfs
from daylily_daemon.adapters.runners.jobdir import JobDirectory, Revoked
from daylily_daemon.domain.errors import Permanent, Unclear
from daylily_daemon.domain.model import Ended, Job, Outcome
from tests.contract.gated_jobs import (
    a_job,
    end_all,
    gate,
    gated,
    start,
)
from tests.contract.runner_harness import ProcessHarness, eventually, wait_for

ROOT: Final = Path(__file__).resolve().parents[2]


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[ProcessHarness]:
    made = ProcessHarness(tmp_path / "state" / "jobs")
    yield made
    for mark in ("state", "moved", "copy"):
        end_all(str(tmp_path / mark))


# The folder


@pytest.mark.reported("A", "a data directory under another path (nomad#632)")
async def test_a_job_is_adopted_where_its_state_directory_was_moved_to(lab: ProcessHarness) -> None:
    job = a_job(lab, gated(lab, 3), success_file="made")
    job = replace(job, scope=lab.runner().scope)
    await start(lab, job)
    lab.directory.parent.rename(lab.directory.parent.parent / "moved")
    there = ProcessHarness(lab.directory.parent.parent / "moved" / "jobs")
    runner = there.processes()
    assert runner.scope == job.scope
    await runner.look(job)
    await runner.ensure(job)
    gate(lab).touch()
    assert (await runner.wait(job)).code == 3
    record = there.directory / "ws-0" / "r1" / "1-run" / "exit.json"
    assert json.loads(record.read_text())["code"] == 3
    assert not lab.directory.exists()
    assert there.starts(replace(job, directory=str(record.parent))) == 1


async def test_a_stop_reaches_a_job_whose_state_directory_was_moved(lab: ProcessHarness) -> None:
    job = a_job(lab, "sleep 60")
    await start(lab, job)
    command = JobDirectory(job.directory).command()
    lab.directory.parent.rename(lab.directory.parent.parent / "moved")
    runner = ProcessHarness(lab.directory.parent.parent / "moved" / "jobs").runner()
    await runner.stop(job)
    assert command is not None
    assert not procfs.is_alive(command)
    assert (await runner.wait(job)).ended is Ended.STOPPED


async def test_a_folder_that_moved_away_under_the_daemon_starts_nothing(
    lab: ProcessHarness,
) -> None:
    runner, job = lab.runner(), a_job(lab, gated(lab))
    await runner.ensure(job)
    lab.directory.parent.rename(lab.directory.parent.parent / "moved")
    for call in (runner.ensure, runner.wait, runner.stop):
        with pytest.raises(Unclear, match="is not the folder any more"):
            await call(job)
    assert not lab.directory.exists()


async def test_a_copy_of_the_folder_tends_the_job_where_it_is(lab: ProcessHarness) -> None:
    job = a_job(lab, gated(lab, 4))
    job = replace(job, scope=lab.runner().scope)
    await start(lab, job)
    shutil.copytree(lab.directory.parent, lab.directory.parent.parent / "copy")
    runner = ProcessHarness(lab.directory.parent.parent / "copy" / "jobs").processes()
    assert runner.scope != job.scope
    await runner.look(job)
    gate(lab).touch()
    assert (await runner.wait(job)).code == 4
    assert lab.starts(job) == 1


async def test_a_copy_does_not_answer_for_a_folder_that_is_gone(lab: ProcessHarness) -> None:
    job = a_job(lab, gated(lab))
    job = replace(job, scope=lab.runner().scope)
    lab.runner()
    shutil.copytree(lab.directory.parent, lab.directory.parent.parent / "copy")
    await start(lab, job)
    lab.directory.parent.rename(lab.directory.parent.parent / "moved")
    runner = ProcessHarness(lab.directory.parent.parent / "copy" / "jobs").runner()
    for call in (runner.look, runner.ensure, runner.stop, runner.wait):
        with pytest.raises(Unclear, match="cannot be found on this machine"):
            await call(job)
    copied = lab.directory.parent.parent / "copy" / "jobs" / "ws-0"
    assert not copied.exists()


@pytest.mark.reported("A", "the data directory removed under running tasks (nomad#9512)")
@pytest.mark.parametrize("vanished", ["token", "folder"])
async def test_a_start_that_was_seen_and_left_no_token_is_unclear(
    lab: ProcessHarness, vanished: str
) -> None:
    job = a_job(lab, gated(lab), confirmed=True)
    await start(lab, replace(job, confirmed=False))
    runner = lab.runner()
    if vanished == "token":
        await anyio.Path(job.directory, "token").unlink()
    else:
        os.rename(job.directory, lab.directory.parent / "away")
    for call in (runner.ensure, runner.wait, runner.stop):
        with pytest.raises(Unclear, match="its token is gone"):
            await call(job)
    assert not JobDirectory(job.directory).has_record()


async def test_a_start_that_was_seen_is_not_given_up_for_a_token_that_says_revoked(
    lab: ProcessHarness,
) -> None:
    job = a_job(lab, "true", confirmed=True)
    JobDirectory(job.directory).revoke()
    for call in (lab.runner().ensure, lab.runner().wait, lab.runner().stop):
        with pytest.raises(Unclear, match="its token is gone"):
            await call(job)


@pytest.mark.parametrize("washed", ["", "exec env -i "])
async def test_a_folder_put_back_to_an_older_state_starts_nothing_beside_what_runs(
    lab: ProcessHarness, washed: str
) -> None:
    job = a_job(lab, f"{washed}sh -c '{wait_for(gate(lab))}'")
    await start(lab, job)
    os.rename(job.directory, lab.directory.parent / "away")
    with pytest.raises(Unclear, match=r"Process \d+ of job ws-0\.1\.run runs on this machine"):
        await lab.runner().ensure(job)
    assert JobDirectory(job.directory).token() is None


# Machines


def apart(tmp_path: Path, verb: str, boot: str, asked: dict[str, Any]) -> dict[str, str]:
    """Call the runner on another machine of the same image: all the same but the boot id."""
    (tmp_path / boot).write_text(f"{boot}\n")
    mount = 'mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"'
    call = (sys.executable, "-m", "tests.contract.machine_apart", verb, json.dumps(asked))
    namespace = ("unshare", "--mount", "--propagation", "private", "sh", "-c", mount)
    done = subprocess.run(
        [*namespace, str(tmp_path / boot), *call],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, str] = json.loads(done.stdout)
    return answer


@pytest.mark.reported("A", "two agents of one image have one identity (graylog2-server#25446)")
@pytest.mark.needs_root  # for mounts
@pytest.mark.parametrize("storage", ["copied", "shared"])
def test_a_second_machine_of_one_image_neither_starts_nor_ends_the_job(
    tmp_path: Path, storage: str, request: pytest.FixtureRequest
) -> None:
    request.addfinalizer(partial(end_all, str(tmp_path)))
    jobs = tmp_path / "state" / "jobs"
    started = tmp_path / "starts"
    asked = {
        "jobs": str(jobs),
        "name": "ws-0.1.run",
        "directory": f"{jobs}/ws-0/r1/1-run",
        "scope": "",
        "argv": ["sh", "-c", f"echo $$ >> {started}; {wait_for(tmp_path / 'gate')}; exit 3"],
    }
    first = apart(tmp_path, "ensure", "boot-one", asked)
    assert first["ended"] == "returned"
    asked["scope"] = first["scope"]
    if storage == "copied":
        shutil.copytree(tmp_path / "state", tmp_path / "image")
        asked["jobs"] = str(tmp_path / "image" / "jobs")
    for verb in ("look", "ensure", "wait", "stop"):
        second = apart(tmp_path, verb, "boot-two", asked)
        assert second["scope"] != first["scope"]
        assert second["ended"].startswith("Unclear: ") or (verb, second["ended"]) == (
            "ensure",
            "returned",  # its token is found, and so nothing is started
        )
    assert len(started.read_text().split()) == 1
    (tmp_path / "gate").touch()


@pytest.mark.reported("A", "a pid of a dead container is alive in the next one (paseo#5128)")
async def test_a_job_of_another_process_namespace_is_out_of_sight(lab: ProcessHarness) -> None:
    job = a_job(lab, "exit 3")
    await start(lab, job)
    token = anyio.Path(job.directory, "token")
    await eventually(JobDirectory(job.directory).has_record)
    os.unlink(f"{job.directory}/exit.json")
    await token.write_text(json.dumps({**json.loads(await token.read_text()), "pid_ns": "pid:[1]"}))
    for call in (lab.runner().wait, lab.runner().stop):
        with pytest.raises(Unclear, match="another container"):
            await call(job)


@pytest.mark.parametrize("machine", ["unproven", "another", "restarted"])
async def test_only_a_restart_of_the_very_machine_ends_its_jobs(
    lab: ProcessHarness, machine: str
) -> None:
    job = a_job(lab, "sleep 60")
    await start(lab, job)
    changes: dict[str, dict[str, Any]] = {
        "unproven": {"boot_id": "two", "proven": False},
        "another": {"boot_id": "two", "id": "i-00000000000000000"},
        "restarted": {"boot_id": "two"},
    }
    lab.machine = replace(lab.machine, **changes[machine])
    runner = lab.runner()
    await runner.ensure(job)
    if machine == "restarted":
        assert (await runner.wait(job)).ended is Ended.HOST_LOST
        await runner.stop(job)
        return
    for call in (runner.wait, runner.stop):
        with pytest.raises(Unclear, match="on another machine, or before a restart"):
            await call(job)


# Runs of earlier versions


def as_earlier_versions_wrote_it(job: Job) -> None:
    token, spec = Path(job.directory, "token"), Path(job.directory, "spec.json")
    known = json.loads(token.read_text())
    kept = ("state", "boot_id", "pid", "start_time", "at")
    token.write_text(json.dumps({name: known[name] for name in kept}))
    stored = json.loads(spec.read_text())
    for name in ("mark", "machine", "progress_pattern"):
        del stored[name]
    spec.write_text(json.dumps(stored))


async def test_a_run_of_an_earlier_version_is_adopted_on_its_machine(lab: ProcessHarness) -> None:
    job = a_job(lab, gated(lab, 6))
    await start(lab, job)
    job = replace(job, scope=f"host:{lab.machine.host_id}")
    as_earlier_versions_wrote_it(job)
    runner = lab.processes()
    await runner.look(job)
    await runner.ensure(job)
    gate(lab).touch()
    assert (await runner.wait(job)).code == 6
    assert lab.starts(job) == 1


@pytest.mark.parametrize("elsewhere", ["boot", "machine", "folder", "no token"])
async def test_a_run_of_an_earlier_version_is_not_adopted_by_a_clone(
    lab: ProcessHarness, elsewhere: str
) -> None:
    job = a_job(lab, gated(lab))
    await start(lab, job)
    job = replace(job, scope=f"host:{lab.machine.host_id}")
    as_earlier_versions_wrote_it(job)
    match elsewhere:
        case "boot":
            lab.machine = replace(lab.machine, boot_id="two")
        case "machine":
            job = replace(job, scope="host:another")
        case "folder":
            lab = ProcessHarness(lab.directory.parent.parent / "copy")
        case _:
            await anyio.Path(job.directory, "token").unlink()
    with pytest.raises(Unclear, match="cannot be found on this machine"):
        await lab.processes().look(job)


# What was stored counts


async def test_what_runs_is_read_by_what_was_stored_at_its_start(
    lab: ProcessHarness, tmp_path: Path
) -> None:
    script = f"echo '{{\"n\": 1}}' > r.json; touch made; echo 3 of 4 steps; {gated(lab)}"
    job = a_job(lab, script, cwd=str(tmp_path / "run"), success_file="made", report_file="r.json")
    await start(lab, job)
    changed = replace(
        job, argv=(), cwd="/nowhere", success_file="other", report_file="x", progress_pattern=""
    )
    runner = lab.runner()
    await runner.ensure(changed)

    async def shows_progress() -> bool:
        found = await runner.progress(changed)
        return found is not None and found.fraction == 0.75

    await eventually(shows_progress)
    gate(lab).touch()
    outcome = await runner.wait(changed)
    assert outcome == Outcome(
        ended=Ended.EXITED,
        code=0,
        success_file_found=True,
        tail="3 of 4 steps\n",
        report={"n": 1},
        duration_s=outcome.duration_s,
        usage=outcome.usage,
    )


async def test_a_job_whose_step_is_gone_is_revoked_before_it_is_refused(
    lab: ProcessHarness,
) -> None:
    job = a_job(lab, "exit 0")
    with pytest.raises(Permanent, match="names no command"):
        await lab.runner().ensure(replace(job, argv=()))
    with pytest.raises(Permanent, match="revoked"):
        await lab.runner().ensure(job)
    assert isinstance(JobDirectory(job.directory).token(), Revoked)
    assert lab.starts(job) == 0
