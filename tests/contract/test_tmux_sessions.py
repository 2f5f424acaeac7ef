"""What the tmux session of a job is, and what it must never be: a source of facts."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from daylily_daemon.adapters.runners.tmux import TmuxRunner, session_name
from daylily_daemon.domain.model import Ended
from tests.contract.runner_harness import Act, TmuxHarness, eventually, wait_for

needs_tmux = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")


@pytest.fixture
async def tmux(tmp_path: Path) -> AsyncIterator[TmuxHarness]:
    made = TmuxHarness(tmp_path)
    yield made
    await made.clean_up()


@needs_tmux
async def test_killing_the_tmux_server_leaves_the_job_alone(tmux: TmuxHarness) -> None:
    job = tmux.shell(f"echo hello; {wait_for(tmux.directory / 'go')}; exit 3")
    await tmux.runner().ensure(job)
    name = "=daylily_ws-0-1-run"
    await eventually(
        lambda: "hello" in tmux.ask_tmux("capture-pane", "-p", "-t", f"{name}:").stdout
    )
    assert tmux.ask_tmux("kill-server").returncode == 0
    (tmux.directory / "go").touch()
    outcome = await tmux.runner().wait(job)
    assert (outcome.ended, outcome.code) == (Ended.EXITED, 3)


@needs_tmux
async def test_the_session_opens_once_and_closes_after_the_job(tmux: TmuxHarness) -> None:
    job = tmux.job(Act(lasts_s=60))
    with capture_logs() as logs:
        await tmux.runner().ensure(job)
        await tmux.runner().ensure(job)
    assert logs == []
    assert tmux.ask_tmux("list-sessions", "-F", "#S").stdout.split() == ["daylily_ws-0-1-run"]
    assert session_name(job.name) == "daylily_ws-0-1-run"
    await tmux.runner().stop(job)
    await eventually(lambda: tmux.ask_tmux("has-session").returncode != 0)


async def test_without_tmux_jobs_run_and_only_the_view_is_missing(tmux: TmuxHarness) -> None:
    job = tmux.job(Act(lasts_s=0.3, code=2))
    runner = TmuxRunner(tmux.processes(), socket=tmux.socket, environment={"PATH": "/nonexistent"})
    with capture_logs() as logs:
        await runner.ensure(job)
    assert [line["event"] for line in logs] == ["tmux_session_not_opened"]
    assert (await runner.wait(job)).code == 2


async def test_a_session_that_cannot_be_opened_is_only_a_warning(tmux: TmuxHarness) -> None:
    tmux.directory = tmux.directory / ("x" * 120)
    job = tmux.job(Act(lasts_s=0.3, code=2))
    with capture_logs() as logs:
        await tmux.runner().ensure(job)
    assert [line["event"] for line in logs] == ["tmux_session_not_opened"]
    assert (await tmux.runner().wait(job)).code == 2
