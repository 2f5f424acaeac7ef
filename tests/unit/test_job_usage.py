"""What is known of a job beside that it runs: what it used, and what its processes do."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import anyio
import pytest

from daylily_daemon.adapters.processes import activities
from daylily_daemon.adapters.runners import shim
from daylily_daemon.application.running import By, running
from daylily_daemon.application.wording import quiet_text, reason_text, step_text
from daylily_daemon.domain.activity import Activity
from daylily_daemon.domain.failures import classify
from daylily_daemon.domain.model import Ended, JobUsage, Outcome, State, WorksetId
from daylily_daemon.domain.report import LARGEST, results_of
from daylily_daemon.domain.run import StepEnd, StepRun
from daylily_daemon.domain.workset import Workset
from tests.fakes.store import Table
from tests.made import NOW, a_run, a_workset
from tests.unit.backends import a_backend, played, stored

BUSY = "import os, time\nos.fork()\nx = bytearray(30_000_000)\nwhile True: pass"


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[Workset]:
    """A run whose job, below what stands for its shim, is two processes that compute."""
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
