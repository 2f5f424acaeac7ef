"""Quiet hours: nothing is wrong but that answers get lost and calls are slow now and then, as AWS has it.

What the daemons say of themselves is judged each minute as ``status`` judges it. A problem may come, where
calls in a row fail; it must not last, and nobody may be woken by it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import Final

import anyio

from daylily_daemon.domain.daemon import Status
from daylily_daemon.domain.problems import Severity, failing_s, is_worth_a_look
from daylily_daemon.engine.supervisor import Supervisor
from tests.sim.knobs import Knobs
from tests.sim.stories import Story, life, new_sim, patched, submit_one
from tests.sim.vclock import BACKEND
from tests.sim.wire import Weather
from tests.sim.world import Sim

HOUR_S: Final = 3600.0
LOOK_S: Final = 60.0
LASTS_S: Final = 300.0
"""Beyond which a problem is said to last; so long a port may fail before an alert wakes somebody."""
WORK_EVERY_S: Final = 4 * HOUR_S
NOW_AND_THEN: Final = Weather(lost=0.02, answer_lost=0.02, slow_s=1.0, redelivered=0.02, stale=0.05)
QUIET: Final = Story(
    name="quiet hours",
    script=submit_one,
    knobs=Knobs(daemons=2, sweep_s=60.0, reconcile_s=600.0, shortest_s=600.0, longest_s=7200.0),
)

Identity = tuple[str, str, str, str]


@dataclass
class Watch:
    """What was seen of the health of all daemons."""

    since: dict[tuple[str, Identity], float] = field(default_factory=dict)
    """When a problem that is there now was seen first, by daemon."""
    came: int = 0
    """Problems that came and went."""
    lasting: set[str] = field(default_factory=set)
    pages: set[str] = field(default_factory=set)

    def look(self, name: str, supervisor: Supervisor) -> None:
        now, at = supervisor.writer.clock.now(), anyio.current_time()
        status = _status(supervisor)
        found = {(name, p.identity): p for p in status.found_wrong(now).problems}
        for key in [key for key in self.since if key[0] == name and key not in found]:
            del self.since[key]
            self.came += 1
        for key, problem in found.items():
            lasted_s = at - self.since.setdefault(key, at)
            if lasted_s >= LASTS_S and problem.severity is Severity.PROBLEM:
                self.lasting.add(f"{at / HOUR_S:.1f} h: {name}: {problem.text}")
        for port, seen in status.ports.items():
            if failing_s(seen, now) > LASTS_S and not port.startswith("channel:"):
                self.pages.add(f"{at / HOUR_S:.1f} h: {name}: {port}: {seen.text}")


def _status(supervisor: Supervisor) -> Status:
    """As the service writes it, of what the engine knows."""
    now = supervisor.writer.clock.now()
    worst = supervisor.shepherd.looks.worst()
    jobs = {id: job for id, job in worst.items() if is_worth_a_look(job, now)}
    return Status(ports=supervisor.health.ports, jobs=jobs)


def quiet_hours(hours: float, seed: int = 1, weather: Weather = NOW_AND_THEN) -> tuple[Watch, Sim]:
    with patched(QUIET), QUIET.knobs.planted():
        return anyio.run(_quiet, hours, seed, weather, backend_options=BACKEND)


async def _quiet(hours: float, seed: int, weather: Weather) -> tuple[Watch, Sim]:
    sim, watch = new_sim(seed, QUIET), Watch()
    sim.rng = random.Random(seed)
    async with anyio.create_task_group() as tg:
        sim.spawner = tg
        for name in ("a", "b"):
            tg.start_soon(life, sim, name, lambda: weather, 60.0)
        tg.start_soon(_work, sim)
        with anyio.move_on_after(hours * HOUR_S):
            while True:
                await anyio.sleep(LOOK_S)
                for name, supervisor in sim.supervisors.items():
                    watch.look(name, supervisor)
        tg.cancel_scope.cancel()
    return watch, sim


async def _work(sim: Sim) -> None:
    for n in range(1000):
        await sim.world.submit(f"w{n}")
        await anyio.sleep(WORK_EVERY_S)


def cut_off(weather: Weather = NOW_AND_THEN) -> Weather:
    """Return a weather in which nothing arrives: what a problem is for."""
    return replace(weather, lost=1.0)
