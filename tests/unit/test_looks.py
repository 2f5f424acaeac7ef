"""What is worst of all jobs, as those who look into their logs know it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import anyio

from daylily_daemon.domain.model import Cancel, Progress, State
from daylily_daemon.engine.looks import WORST, Looks, Watched
from tests.fakes.runner import Script
from tests.made import a_run, a_workset
from tests.unit.daemons import World, daemon, play, until


def test_a_job_that_does_not_stop_when_told_to_is_overdue_after_its_grace() -> None:
    async def story() -> None:
        world = World()
        world.machine._play = lambda job: Script(duration_s=4000.0, stop_s=300.0)
        async with daemon(world) as supervisor:

            def overdue_s() -> float:
                now = supervisor.writer.clock.now()
                return supervisor.shepherd.looks.worst()["w1"].overdue_s(now)

            await world.submit("w1")
            await until(lambda: bool(world.machine.running()))
            await anyio.sleep(500)
            assert overdue_s() == 0
            await world.ask("w1", Cancel())
            await anyio.sleep(20)
            assert overdue_s() == 0, "it has its grace"
            await anyio.sleep(180)
            assert 165 < overdue_s() < 171
            await until(lambda: world.workset("w1").state is State.CANCELED)
            assert supervisor.shepherd.looks.worst() == {}

    play(story)


def test_of_many_jobs_the_quietest_and_the_most_overdue_are_told() -> None:
    at = datetime(2026, 3, 1, tzinfo=UTC)

    def watched(n: int) -> Watched:
        ws = a_workset(f"w{n}", state=State.IN_PROGRESS, attempt=1, run=a_run("run").entered(at))
        overdue = replace(ws.run.limited(n, 0.0)) if ws.run and n < 30 else ws.run
        term: Any = SimpleNamespace(workset=replace(ws, run=overdue))
        job: Any = SimpleNamespace(step="run")
        seen = Progress(None, "", at - timedelta(minutes=n)) if n >= 30 else None
        return Watched(None, job, term, 0.0, seen)  # type: ignore[arg-type]

    looks = Looks(None)  # type: ignore[arg-type]
    looks._watched.update(watched(n) for n in range(60))
    named = set(looks.worst())
    assert {f"w{n}" for n in range(WORST)} <= named, "those that should have ended first"
    assert {f"w{n}" for n in range(60 - WORST, 60)} <= named, "those that are quiet for longest"
    assert len(named) == 2 * WORST
