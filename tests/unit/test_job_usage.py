"""What is known of a job beside that it runs: what it used, and what its processes do."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import anyio
import pytest

from daylily_daemon.adapters import processes
from daylily_daemon.adapters.processes import activities
from daylily_daemon.adapters.runners import shim
from daylily_daemon.adapters.runners.jobdir import JobDirectory
from daylily_daemon.application.examining import judged_versions
from daylily_daemon.application.health import DaemonState, DaemonView, different_versions
from daylily_daemon.application.running import running
from daylily_daemon.application.wording import quiet_text, reason_text, step_text
from daylily_daemon.domain.activity import Activity, By
from daylily_daemon.domain.daemon import JobLevel, Status
from daylily_daemon.domain.events import Claimed, JobExited
from daylily_daemon.domain.failures import classify
from daylily_daemon.domain.finding import Grade
from daylily_daemon.domain.lifecycle import decide
from daylily_daemon.domain.model import Ended, JobUsage, Outcome, Plan, State, WorksetId
from daylily_daemon.domain.problems import ProblemKind, problems_of
from daylily_daemon.domain.report import LARGEST, results_of
from daylily_daemon.domain.run import StepEnd, StepRun
from daylily_daemon.domain.workset import Lock, Workset
from tests.fakes.store import Table
from tests.made import NOW, STEPS, a_run, a_workset
from tests.unit.backends import a_backend, played, stored
from tests.unit.engine_settings import a_policy

DIES = "if not os.fork(): os._exit(0)"
BUSY = f"import os, time\n{DIES}\nos.fork()\nx = bytearray(30_000_000)\nwhile True: pass"


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[Workset]:
    """A run whose job, below what stands for its shim, is two processes that compute; one is dead."""
    job = f"{sys.executable} -c '{BUSY}' & wait"
    process = subprocess.Popen(["sh", "-c", job], start_new_session=True)
    place = tmp_path / "1-run"
    place.mkdir()
    identity = shim.identity(process.pid)
    shim.write_whole(str(place / "token"), {"state": "started", **identity, "spec": {}})
    run = a_run("run")
    steps = tuple(replace(s, place=str(place)) if s.name == "run" else s for s in run.steps)
    yield a_workset("w1", state=State.IN_PROGRESS, attempt=1, run=replace(run, steps=steps))
    os.killpg(process.pid, 9)
    process.wait()


def test_processes_processors_and_memory_of_a_job_are_seen(busy: Workset) -> None:
    elsewhere = a_workset("w2", state=State.IN_PROGRESS, attempt=1, run=a_run("run"))

    async def look() -> Activity | None:
        for _ in range(50):
            found = await activities([busy, elsewhere], between_s=0.3)
            assert found.keys() <= {busy.id}
            if found and len(found[busy.id].names) == 2:
                return found[busy.id]
        return None

    seen = anyio.run(look)
    assert seen is not None
    assert seen.cpus > 0.2
    assert seen.memory_bytes > 30_000_000
    assert seen.text.startswith("Its job has 2 processes, ")


def test_where_the_processes_do_not_answer_nothing_is_seen_and_nothing_fails(
    busy: Workset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "WITHIN_S", 0.2)
    monkeypatch.setattr(processes, "_look", lambda _: time.sleep(1))
    assert anyio.run(activities, [busy]) == {}


def test_what_runs_is_sorted_by_what_is_asked_for() -> None:
    table = Table()
    for n, id in enumerate(("a", "b", "c")):
        run = a_run("run")
        at = NOW.replace(minute=10 * n)
        steps = tuple(replace(s, started_at=at) if s.end is None else s for s in run.steps)
        ws = a_workset(id, state=State.IN_PROGRESS, attempt=1, run=replace(run, steps=steps))
        played(partial(stored, table, ws))
    seen = {WorksetId("b"): Activity(names=("x (1)",), cpus=2.0, memory_bytes=5)}

    async def known(_: object) -> dict[WorksetId, Activity]:
        return seen

    backend = a_backend(table, activities=known)

    async def ids(by: By) -> str:
        return "".join(row.workset.id for row in (await running(backend, by, 10)).rows)

    assert played(lambda: ids(By.CPU))[0] == "b"
    assert played(lambda: ids(By.MEMORY))[0] == "b"
    assert played(lambda: ids(By.AGE)) == "abc"


def test_a_job_that_ran_out_of_memory_says_how_much_it_had() -> None:
    usage = JobUsage(cpu_s=3.0, peak_bytes=61_000_000_000, memory_kills=2)
    told = classify(Outcome(ended=Ended.OUT_OF_MEMORY, usage=usage)).message
    assert told == (
        "It was ended by the system: out of memory (2 processes were killed by the kernel; its peak was "
        "61.0 GB)."
    )
    assert "peak" not in classify(Outcome(ended=Ended.TIMED_OUT, usage=usage)).message


def test_what_a_step_used_is_shown() -> None:
    usage = JobUsage(cpu_s=7200.0, peak_bytes=1500, memory_kills=0)
    step = StepRun(name="run", end=StepEnd.DONE, seconds=3600.0, usage=usage)
    assert step_text(step) == "run done in 1 h 00, 2 h 00 of CPU, peak 1.5 kB"
    assert step_text(StepRun(name="run")) == "run not yet"
    assert step_text(StepRun(name="run", started_at=NOW)) == "run runs"


@pytest.mark.parametrize("files", [None, -1, True, "3", 1.5, LARGEST, [3]])
def test_a_report_that_does_not_count_says_nothing_of_how_many(files: object) -> None:
    results = results_of({"results_s3_uri": "s3://b/r/", "files": files, "bytes": 5})
    assert results is not None
    assert (results.files, results.size_bytes) == (None, 5)
    for nowhere in ("file:///x", "s3:///", "s3://", "s3://b", "s3://b/", "s3:///x", "s3://b//"):
        assert results_of({"results_s3_uri": nowhere, "files": 1}) is None


def test_a_list_says_how_quiet_what_runs_is() -> None:
    ws = a_workset("w1", state=State.IN_PROGRESS, attempt=1, run=a_run("run"))
    assert ws.run is not None
    assert quiet_text(ws.run, NOW) == ""
    assert reason_text(ws, NOW) == "run"
    empty = a_workset("w1", state=State.COMPLETE, run=a_run(results_files=0))
    assert reason_text(empty).startswith("0 files!")


def test_what_the_record_says_is_known_and_a_record_without_it_is_read(tmp_path: Path) -> None:
    record = {"ended": "exited", "code": 0, "success_file_found": None, "duration_s": 1.0}
    usage = {"cpu_s": 1.5, "peak_bytes": 3000, "memory_kills": 2}
    whole = {**record, "shim": shim.identity(os.getpid())}
    files = JobDirectory(str(tmp_path))
    shim.write_whole(str(tmp_path / "exit.json"), {**whole, "usage": usage})
    found = files.record()
    assert found is not None
    assert found.usage == JobUsage(cpu_s=1.5, peak_bytes=3000, memory_kills=2)
    shim.write_whole(str(tmp_path / "exit.json"), whole)
    assert (files.record() or found).usage is None


# --- the run ---------------------------------------------------------------------------------------

POLICY = a_policy(max_retries=0)


def _at(step: str, *, required: bool = True) -> Workset:
    plan = Plan(pipeline="demo", steps=STEPS, results_required=required)
    lock = Lock(owner="lab", acquired_at=NOW, expires_at=NOW)
    run = a_run(step)
    return a_workset("w1", state=State.IN_PROGRESS, attempt=1, plan=plan, lock=lock, run=run)


def _exported(ws: Workset, files: object) -> Workset:
    report = {"results_s3_uri": "s3://b/r/", "files": files, "bytes": 7}
    assert ws.job is not None
    done = Outcome(ended=Ended.EXITED, code=0, report=report)
    return decide(ws, JobExited(ws.job, done, fatal=True), POLICY, NOW).workset


def test_an_export_of_nothing_fails_only_where_results_have_to_be() -> None:
    empty = _exported(_at("export"), 0)
    assert (empty.state, empty.failure and empty.failure.code) == (State.FAILED, "WS-OUT-001")
    for ws in (_exported(_at("export"), 3), _exported(_at("export", required=False), 0)):
        assert ws.state is State.IN_PROGRESS
    assert _exported(_at("export"), None).state is State.IN_PROGRESS, "nobody counted"


def test_what_was_exported_is_known_over_attempts() -> None:
    ws = _exported(_at("export"), 3)
    assert ws.run is not None
    assert (ws.run.results_files, ws.run.results_bytes) == (3, 7)
    assert ws.job is not None
    crashed = Outcome(ended=Ended.LOST)
    patient = a_policy(max_retries=3)
    waiting = decide(ws, JobExited(ws.job, crashed, fatal=True), patient, NOW).workset
    assert waiting.state is State.RETRYING
    claim = Claimed(
        owner="lab", key="k2", runner="process", scope="host:1", data_dir="/d", jobs_dir="/j",
        ttl_s=60, sees_job=True, beside=False,
    )  # fmt: skip
    again = decide(waiting, claim, patient, NOW + timedelta(days=1)).workset
    assert again.run is not None
    assert (again.attempt, again.run.results_files, again.run.results_bytes) == (2, 3, 7)


def test_the_limits_of_a_step_are_those_it_was_started_with() -> None:
    run = a_run("run").entered(NOW)
    assert run.ends_at() is None
    limited = run.limited(100.0, 30.0).limited(5.0, 1.0)
    assert limited.ends_at() == NOW + timedelta(seconds=130)
    stopping = replace(limited, stopping="canceled", stopping_at=NOW + timedelta(seconds=10))
    assert stopping.ends_at() == NOW + timedelta(seconds=40)
    left = stopping.left(StepEnd.STOPPED)
    assert (left.stopping_at, left.ends_at()) == (None, None)


# --- who is told -----------------------------------------------------------------------------------


def _kinds(**job: datetime) -> list[str]:
    status = Status(jobs={"w1": JobLevel(step="run", **job)})
    return [problem.kind for problem in problems_of(status, NOW)]


def test_quiet_and_overdue_jobs_are_problems_after_a_while() -> None:
    hours, minute = timedelta(hours=4), timedelta(minutes=1)
    assert _kinds(output_at=NOW - hours) == []
    assert _kinds(output_at=NOW - hours - minute) == [ProblemKind.JOB_QUIET]
    assert _kinds(ends_at=NOW - minute) == []
    assert _kinds(ends_at=NOW - 2 * minute) == [ProblemKind.JOB_OVERDUE]
    both = {"output_at": NOW - 2 * hours, "ends_at": NOW - 2 * minute}
    assert _kinds(**both) == [ProblemKind.JOB_OVERDUE]


def _daemon(name: str, version: str, item_format: int) -> DaemonView:
    status = Status(version=version, item_format=item_format, seen_at=NOW, sweep_s=15)
    return DaemonView(owner=name, state=DaemonState.RUNNING, status=status, age_s=1.0)


def test_daemons_that_leave_alone_what_the_newest_writes_are_named() -> None:
    old, new = _daemon("old", "0.1", 3), _daemon("new", "0.2", 4)
    (problem,) = different_versions([old, new])
    assert "old leaves alone what the newest writes (format 4)." in problem.text
    (problem,) = different_versions([old, _daemon("new", "0.2", 3)])
    assert "leaves alone" not in problem.text
    assert different_versions([old, _daemon("other", "0.1", 3)]) == ()


def test_before_an_upgrade_it_is_told_who_understands_whom() -> None:
    old, new = _daemon("old", "0.1", 3), _daemon("new", "0.2", 4)
    (same,) = judged_versions("0.1", 3, [old])
    assert (same.grade, "writes another." in same.text) == (Grade.OK, True)
    (behind,) = judged_versions("0.2", 4, [old, new])
    assert (behind.grade, behind.text.startswith("old reads up to format 3")) == (Grade.WARN, True)
    (ahead,) = judged_versions("0.1", 3, [old, new])
    assert (ahead.grade, ahead.text.startswith("new writes format 4")) == (Grade.FAIL, True)
    stopped = replace(new, state=DaemonState.STOPPED)
    assert judged_versions("0.1", 3, [stopped])[0].grade is Grade.OK
