"""Storms: a seed draws knobs and troubles; then everything calms down and must come to rest."""

from __future__ import annotations

import random
from collections.abc import Sequence

import anyio

from daylily_daemon.domain.model import (
    Archive,
    Cancel,
    Delete,
    Ignore,
    Priority,
    Restore,
    Retry,
    SetPriority,
)
from tests.sim import troubles
from tests.sim.knobs import Knobs, drawn
from tests.sim.stories import (
    Outcome,
    Story,
    life,
    new_sim,
    outcome_of,
    patched,
    submit_one,
    until_rest,
    watch,
)
from tests.sim.vclock import BACKEND
from tests.sim.wire import QUIET, ROUGH, Weather
from tests.sim.world import Sim

REST_WITHIN_S = 4 * 3600.0
"""How long everything may take to settle: clocks were set back, and with them the ends of pauses put off; all
work may be that of one customer who may run one at a time."""
STORM = Story(name="storm", script=submit_one, failures=0.15)


def play_seed(seed: int, story: Story = STORM) -> Outcome:
    """Play a storm of faults chosen by ``seed``, then a quiet phase in which everything must settle."""
    knobs = drawn(random.Random(f"knobs of {seed}"))
    with patched(story), knobs.planted():
        return anyio.run(_weathered, story, seed, knobs, backend_options=BACKEND)


async def _weathered(story: Story, seed: int, knobs: Knobs) -> Outcome:
    sim = new_sim(seed, story, knobs)
    sim.drawn.append(str(knobs))
    sim.accidents = ROUGH.accidents
    rng = sim.rng
    storm = {"on": True}
    _settle_on_machines(sim)

    def weather() -> Weather:
        return ROUGH if storm["on"] and knobs.rough else QUIET

    async with anyio.create_task_group() as tg:
        sim.spawner = tg
        for name in "abc"[: knobs.daemons]:
            tg.start_soon(life, sim, name, weather, rng.uniform(1, 90))
        tg.start_soon(watch, sim)
        tg.start_soon(troubles.vouch, sim)
        tg.start_soon(_misfortunes, sim, storm)
        for n in range(knobs.worksets):
            _announce_somehow(sim, f"w{n}")
            await anyio.sleep(rng.uniform(0, 60))
            if rng.random() < 0.6:
                await _ask_something(sim)
        await anyio.sleep(rng.uniform(60, 600))
        storm["on"] = False
        restore(sim, story, knobs)
        await until_rest(sim, REST_WITHIN_S)
        await anyio.sleep(max(ROUGH.late_s, knobs.reconcile_s) + 1)
        await until_rest(sim, REST_WITHIN_S)
        outcome = outcome_of(sim, exactly_once=False)
        tg.cancel_scope.cancel()
    return outcome


def restore(sim: Sim, story: Story, knobs: Knobs) -> None:
    """Heal what is broken, and take back what was set."""
    troubles.heal(sim)
    before = new_sim(0, story, knobs).world.engine_settings
    sim.turn(pipelines=before.pipelines, policy=before.policy, routing=before.routing)


def _settle_on_machines(sim: Sim) -> None:
    for n, name in enumerate("abc"[: sim.knobs.daemons]):
        sim.machines[name] = f"m{n % sim.knobs.machines}"


async def _ask_something(sim: Sim) -> None:
    """Ask as the command line does: only of a workset that is there."""
    if known := sorted(sim.world.table.worksets):
        asks = [Cancel(), Retry(), Ignore(), SetPriority(priority=Priority.URGENT)]
        if sim.rng.random() < 0.2:
            asks = [Archive(), Archive(), Restore(), Delete()]
        await sim.world.ask(sim.rng.choice(known), sim.rng.choice(asks))


def _announce_somehow(sim: Sim, id: str) -> None:
    """Tell of a drop once or more often, in any order and with any delay."""
    for _ in range(sim.rng.choice([1, 1, 2, 3])):
        sim.spawn(_announce_later, sim, id)
    sim.announce(id, id)


async def _announce_later(sim: Sim, id: str) -> None:
    await anyio.sleep(sim.rng.choice([0.0, 1.0, 60.0, 400.0]))
    sim.announce(id, id)


async def _misfortunes(sim: Sim, storm: dict[str, bool]) -> None:
    """Let something befall a daemon, or all of them, as long as the storm lasts."""
    while storm["on"]:
        await anyio.sleep(sim.rng.uniform(5, 120))
        wire = sim.rng.choice(list(sim.wires.values()))
        trouble = sim.rng.choice(troubles.DRAWN)
        if storm["on"]:
            befall(sim, wire.name, trouble)


def befall(sim: Sim, daemon: str, trouble: troubles.Trouble) -> None:
    sim.drawn.append(f"{anyio.current_time():.0f} s: {daemon}: {trouble.__name__}")
    trouble(sim, sim.wires[daemon])


def play_troubles(
    kinds: Sequence[troubles.Trouble], seed: int = 1, story: Story = STORM
) -> Outcome:
    """Play a few kinds of trouble alone, in turn, in an otherwise quiet story with two daemons."""
    knobs = Knobs(daemons=2, slots=2, customers=2, reconcile_s=120.0, longest_s=120.0)
    with patched(story), knobs.planted():
        return anyio.run(_troubled, kinds, seed, knobs, backend_options=BACKEND)


async def _troubled(kinds: Sequence[troubles.Trouble], seed: int, knobs: Knobs) -> Outcome:
    sim = new_sim(seed, STORM, knobs)
    async with anyio.create_task_group() as tg:
        sim.spawner = tg
        for name in "ab":
            tg.start_soon(life, sim, name, lambda: QUIET, 20.0)
        tg.start_soon(watch, sim)
        tg.start_soon(troubles.vouch, sim)
        for n in range(knobs.worksets):
            sim.announce(f"w{n}", f"w{n}")
        for n in range(3 * len(kinds)):
            await anyio.sleep(sim.rng.uniform(20, 90))
            befall(sim, sim.rng.choice("ab"), kinds[n % len(kinds)])
        await anyio.sleep(sim.rng.uniform(20, 400))
        restore(sim, STORM, knobs)
        await until_rest(sim, REST_WITHIN_S)
        outcome = outcome_of(sim, exactly_once=False)
        tg.cancel_scope.cancel()
    return outcome
