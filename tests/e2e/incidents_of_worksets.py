"""Incidents of worksets and their jobs: see ``tests/e2e/incident.py``."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest
import yaml

from daylily_daemon.adapters.host import SystemClock
from daylily_daemon.domain.model import State
from daylily_daemon.domain.problems import ProblemKind
from tests.e2e.harness import PREFIX, Lab, until
from tests.e2e.incident import Scene, Story, found, incident
from tests.e2e.incidents_of_daemons import HELD

GROUPS: Final = Path("/sys/fs/cgroup")
QUIET: Final = timedelta(hours=5)


@incident(9, "JobQuiet")
def a_quiet_job(scene: Scene) -> Story:
    lab = scene.lab
    lab.pipeline("noting", run=HELD)
    scene.start()
    lab.drop_sample("hangs")
    lab.wait_started("hangs", "1 run")
    _fall_silent(lab, "hangs")
    yield found("hangs: step run has written nothing for 5 h", kind=ProblemKind.JOB_QUIET)
    yield found(
        *("quiet 5 h 00", "It may hang", "daylily-daemon logs -f hangs", "Its job has "),
        *("daylily-daemon cancel hangs --wait", "daylily-daemon retry hangs"),
        by="explain hangs",
    )
    yield found("quiet 5 h 00 !", by="list")
    assert lab.run_cli("cancel", "hangs", "--wait").code == 0


def _fall_silent(lab: Lab, id: str) -> None:
    """Let the log of its job be as old as that of one that has hung for hours."""
    (log,) = (lab.state.path / "jobs" / id).glob("*/*-run/log")
    at = SystemClock().now().timestamp() - QUIET.total_seconds()
    os.utime(log, (at, at))


@incident(10, "Failing")
def jobs_that_run_out_of_memory(scene: Scene) -> Story:
    lab = scene.lab
    with _group("memory") as group:
        (group / "memory.limit_in_bytes").write_text(str(48 * 1024 * 1024))
        grow = f'exec {shlex.quote(sys.executable)} -c "x = bytearray(10**9)"'
        lab.pipeline("noting", run=f"[ -e $gate ] || {{ echo $$ > {group}/cgroup.procs; {grow}; }}")
        lab.configure(retry={"max_retries": 0})
        scene.start()
        ids = ("large-1", "large-2", "large-3")
        for id in ids:
            lab.drop_sample(id)
            lab.wait_for(id, State.FAILED)
        yield found(
            *("WS-RES-001", "out of memory", "killed by the kernel; its peak was "),
            *("MB", "daylily-daemon retry large-1"),
            by="explain large-1",
        )
        for id in ids:
            lab.open_gate(id)
        again = lab.run_cli("retry", "--state", "failed", "--code", "WS-RES-001", "--yes")
        assert again.code == 0
        for id in ids:
            lab.wait_for(id, State.COMPLETE)


@incident(13, "")
def a_drop_on_a_complete_workset(scene: Scene) -> Story:
    lab = scene.lab
    scene.start()
    lab.drop_sample("again")
    lab.wait_for("again", State.COMPLETE)
    lab.put(f"{PREFIX}again/daylily.ready", b"once more")
    yield found(
        *("submission by s3 had no effect: it is complete", "daylily-daemon rerun again"),
        by="explain again",
    )
    assert lab.run_cli("rerun", "again").code == 0
    lab.wait_for("again-2", State.COMPLETE)


@incident(14, "Waiting")
def a_flood_by_one_customer(scene: Scene) -> Story:
    lab = scene.lab
    lab.pipeline("noting", run=HELD)
    lab.configure(daemon={"max_per_customer": 1})
    scene.start()
    lab.drop_sample("first")
    lab.wait_started("first", "1 run")
    lab.drop_sample("second")
    lab.wait_until("second", lambda ws: ws.plan)
    yield found("place 1 of 1", "daemon.max_per_customer", by="explain second")
    for id in ("first", "second"):
        lab.open_gate(id)
        lab.wait_for(id, State.COMPLETE)


@incident(17, "SlotsFull")
def slots_that_are_stuck(scene: Scene) -> Story:
    lab = scene.lab
    lab.pipeline("noting", run=HELD)
    lab.configure(daemon={"max_worksets": 1})
    scene.start()
    lab.drop_sample("holds")
    lab.wait_started("holds", "1 run")
    lab.drop_sample("waits")
    lab.wait_until("waits", lambda ws: ws.plan)
    _fall_silent(lab, "holds")
    yield found("holds", "run", "5 h 00 !", "0.0", "lab/", by="top --sort quiet")
    yield found("slot", by="explain waits")
    assert lab.run_cli("cancel", "holds", "--wait").code == 0
    lab.open_gate("waits")
    lab.wait_for("waits", State.COMPLETE)


@incident(18, "StopOverdue")
def a_cancel_that_does_not_end(scene: Scene) -> Story:
    """Its process is frozen, as one is that waits for a disk: even SIGKILL waits then."""
    lab = scene.lab
    with _group("freezer") as group:
        lab.pipeline("noting", run=f"echo $$ > {group}/cgroup.procs; {HELD}")
        scene.start()
        lab.drop_sample("stays")
        lab.wait_started("stays", "1 run")
        until((group / "cgroup.procs").read_text)
        (group / "freezer.state").write_text("FROZEN")
        try:
            assert lab.run_cli("cancel", "stays").code == 0
            yield found("stays: step run should have ended ", kind=ProblemKind.JOB_OVERDUE)
            yield found(
                *("It is being stopped since", "has been killed since", "Its job has ", "sh ("),
                by="explain stays",
            )
        finally:
            (group / "freezer.state").write_text("THAWED")
        lab.wait_for("stays", State.CANCELED)


@incident(19, "EmptyResults")
def complete_and_empty(scene: Scene) -> Story:
    lab = scene.lab
    exporting(lab, "mkdir -p {results_dir}")
    scene.start()
    lab.drop_sample("empty")
    lab.wait_for("empty", State.COMPLETE)
    yield found("0 files!", by="list")
    yield found("has no results: 0 files", "results: required", by="explain empty")
    exporting(lab, "mkdir -p {results_dir}; echo a > {results_dir}/a.txt", results="required")
    assert lab.run_cli("reload", "--wait").code == 0
    assert lab.run_cli("rerun", "empty", "--as", "full").code == 0
    ws = lab.wait_for("full", State.COMPLETE)
    assert ws.run is not None
    assert (ws.run.results_files, ws.run.results_bytes) == (1, 2)


def exporting(lab: Lab, run: str, results: str = "optional") -> None:
    """Write a pipeline whose export is that of the program, and counts."""
    export = ("{daylily}", "export", "{results_dir}", "{export_uri}", "--report")
    steps = [
        {"step": "run", "argv": ["sh", "-c", run]},
        {
            "step": "export",
            "argv": [*export, "{work_dir}/export.json"],
            "report_file": "export.json",
        },
    ]
    text = yaml.safe_dump({"results": results, "steps": steps})
    (lab.pipelines / "noting.yaml").write_text(text)


@contextmanager
def _group(controller: str) -> Iterator[Path]:
    """Make a control group of the first kind, under which the kernel does to a job what it does to one."""
    group = GROUPS / controller / f"daylily-{os.getpid()}-{time.monotonic_ns()}"
    try:
        group.mkdir()
    except OSError as exc:
        pytest.skip(f"{group} cannot be made: it takes root, and cgroups of version 1 ({exc}).")
    try:
        yield group
    finally:
        until(lambda: not (group / "cgroup.procs").read_text())
        group.rmdir()
