"""Which log ``logs`` shows of a workset, by what lies in its folder of jobs."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from daylily_daemon.application.errors import NotFound
from daylily_daemon.composition.host import log_of
from daylily_daemon.composition.keptlogs import latest_log
from daylily_daemon.domain.model import State
from daylily_daemon.domain.workset import Workset
from tests.made import a_run, a_workset, running

STEPS = ("run", "re-run", "pack")


def left_by(jobs: Path, *names: str) -> None:
    """Leave the folders of these jobs, started one after the other."""
    for second, name in enumerate(names):
        (jobs / name).mkdir(parents=True)
        (jobs / name / "log").write_text(name)
        os.utime(jobs / name, (second, second))


async def shown(ws: Workset, step: str = "") -> str:
    pieces = [piece async for piece in log_of(ws, step, 10, on=False)]
    return b"".join(pieces).decode().strip()


async def test_a_step_is_not_taken_for_one_whose_name_ends_like_it(tmp_path: Path) -> None:
    left_by(tmp_path, "1-run", "2-run", "2-re-run")
    ws = running(step="pack", steps=STEPS, jobs_dir=str(tmp_path))
    assert await shown(ws, "run") == "2-run"
    assert await shown(ws, "re-run") == "2-re-run"


async def test_without_a_step_it_is_the_one_that_runs_or_else_the_last(tmp_path: Path) -> None:
    left_by(tmp_path, "1-re-run", "1-run", "1-pack")
    now = running(step="run", steps=STEPS, jobs_dir=str(tmp_path))
    assert await shown(now) == "1-run"
    failed = a_run(failed="pack", steps=STEPS, jobs_dir=str(tmp_path))
    assert await shown(a_workset(state=State.FAILED, run=failed)) == "1-pack"


async def test_where_there_is_no_log_it_says_where_the_jobs_ran(tmp_path: Path) -> None:
    run = a_run("re-run", steps=STEPS, jobs_dir=str(tmp_path / "gone"))
    before, now, later = run.steps
    moved = replace(run, steps=(before, replace(now, scope="host:here"), later))
    with pytest.raises(NotFound, match=r"Its jobs run on host:here. Once `prune` has removed them"):
        await shown(a_workset(state=State.IN_PROGRESS, run=moved))


def test_of_kept_logs_the_latest_step_of_the_latest_attempt_is_shown_whatever_lies_beside() -> None:
    run = a_run("run")
    names = [f"{attempt}-{step.name}/log" for attempt in (9, 10) for step in run.steps]
    beside = [
        "²-run/log",
        "x/log",
        "-run/log",
        "log",
        "11-run/exit.json",
        "11-run/log.1",
        "11-run/a/log",
    ]
    assert latest_log([*names, *beside], run, "") == names[-1]
    assert latest_log([*names, *beside], run, "run") == "10-run/log"
    assert latest_log(beside, run, "run") is None
