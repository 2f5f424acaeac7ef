"""What is worst of all jobs, as those who look into their logs know it."""

from __future__ import annotations

import anyio

from daylily_daemon.domain.model import Cancel, State
from tests.fakes.runner import Script
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
