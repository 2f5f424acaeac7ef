"""Whole daemons that live, die and overlap, and the drivers that make them do so."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import anyio

from daylily_daemon.domain.lifecycle import Policy
from daylily_daemon.domain.model import Cancel, Ignore, Priority, Retry, SetPriority, State, Step
from daylily_daemon.engine.supervisor import Supervisor
from daylily_daemon.ports import Unreadable
from tests.sim.vclock import BACKEND
from tests.sim.wire import QUIET, ROUGH, Death, Weather, Wire
from tests.sim.world import Sim, SteppedClock
from tests.unit.daemons import supervisor_of

REST_WITHIN_S = 1800.0
"""How long everything may take to settle once the weather is quiet."""
REST_AFTER_STORM_S = 2 * 3600.0
"""The same when clocks were set back, and with them the ends of pauses put off."""

Script = Callable[[Sim], Awaitable[None]]


@dataclass
class Outcome:
    """What a story came to."""

    broken: list[str]
    effects: list[str]
    history: list[tuple[Any, ...]]
    virtual_s: float
    happened: list[Death]
    starts: int
    crashes: int


@dataclass(frozen=True, kw_only=True)
class Story:
    name: str
    script: Script
    failures: float = 0.0
    daemons: int = 1
    lengths_s: tuple[float, float] = (5.0, 40.0)
    """How long jobs last."""
    rest_s: float = 2.0
    """How long a dead daemon stays dead."""
    weather: Weather = QUIET
    skewed: bool = False
    """Whether the wall clocks of the daemons differ by minutes."""
    patches: Callable[[], Any] | None = field(default=None)
    """Plants a bug for as long as the story is played."""

    def with_bug(self, plant: Callable[[], Any]) -> Story:
        return replace(self, patches=plant)


async def submit_one(sim: Sim) -> None:
    await sim.world.submit("w1")


async def submit_and_cancel(sim: Sim) -> None:
    await sim.world.submit("w1")
    await anyio.sleep(30)
    await sim.world.ask("w1", Cancel())


async def submit_and_cancel_late(sim: Sim) -> None:
    await sim.world.submit("w1")
    await anyio.sleep(200)
    await sim.world.ask("w1", Cancel())


async def submit_twice_and_more(sim: Sim) -> None:
    sim.world.commands.put(Unreadable("nonsense"), "w1")
    await sim.world.submit("w1", "w2")
    await anyio.sleep(3)
    await sim.world.submit("w1")
    await sim.world.ask("w2", SetPriority(priority=Priority.URGENT))
    await anyio.sleep(60)
    await sim.world.ask("w1", Cancel())
    await anyio.sleep(60)
    await sim.world.ask("w1", Retry())


async def cancel_a_slow_start(sim: Sim) -> None:
    for n in range(6):
        await sim.world.submit(f"w{n}")
    await anyio.sleep(20)
    for n in range(6):
        await sim.world.ask(f"w{n}", Cancel())


async def cancel_at_the_end(sim: Sim) -> None:
    """Ask for a cancel when the last job is about to end, ends, or has just ended."""
    for n in range(30):
        await sim.world.submit(f"w{n}")
        await anyio.sleep(0.5)
        ws = sim.world.workset(f"w{n}")
        while ws.state is not State.COMPLETE and ws.step is not Step.CLEANUP:
            await anyio.sleep(0.01)
            ws = sim.world.workset(f"w{n}")
        await anyio.sleep(0.9 + 0.006 * n)
        await sim.world.ask(f"w{n}", Cancel())


async def submit_and_ask_at_once(sim: Sim) -> None:
    """A submission and a command behind it reach the daemon in one batch."""
    for n in range(5):
        await sim.world.submit(f"w{n}")
        await sim.world.ask(f"w{n}", SetPriority(priority=Priority.URGENT))


async def hand_over_and_back(sim: Sim) -> None:
    """Let first one daemon, then the other hold everything, with clocks that do not agree."""
    await sim.world.submit("w1", "w2")
    for name in "ba":
        await anyio.sleep(150)
        sim.wires[name].told_to_end.set()


async def end_at_each_notice(sim: Sim) -> None:
    """Tell the daemon to end whenever it has just written something that people must hear of."""
    sim.ends_at_notices = True
    await sim.world.submit("w1", "w2")


async def announce_and_announce_again(sim: Sim) -> None:
    """One drop, told three times, the last time long after SQS forgot it; then a new drop."""
    for _ in range(2):
        sim.announce("w1", "e1")
    await anyio.sleep(1500)
    sim.announce("w1", "e1")
    await anyio.sleep(100)
    sim.announce("w1", "e2")


PLAIN = Story(name="plain", script=submit_one)
FAILING = Story(name="failing", script=submit_one, failures=0.5)
CANCELED = Story(name="canceled", script=submit_and_cancel)
BUSY = Story(name="busy", script=submit_twice_and_more, failures=0.2)
SHARED = Story(name="shared", script=submit_and_cancel_late, daemons=2, lengths_s=(20.0, 120.0))
RACING = Story(name="racing", script=cancel_at_the_end, lengths_s=(1.0, 1.0))
HASTY = Story(name="hasty", script=submit_and_ask_at_once)
REPEATED = Story(
    name="repeated",
    script=submit_twice_and_more,
    weather=Weather(answer_lost=0.3, blind_repeat=1.0, slow_s=0.02),
)
ENDED = Story(name="ended", script=end_at_each_notice, failures=0.3)
SKEWED = replace(SHARED, name="skewed", script=hand_over_and_back, skewed=True)
DESERTED = Story(name="deserted", script=submit_one, daemons=2, rest_s=10 * REST_WITHIN_S)
DROPPED = Story(name="dropped", script=announce_and_announce_again, failures=0.5)
SLOW = Story(name="slow", script=cancel_a_slow_start, weather=Weather(slow_start=0.9, slow_s=0.02))
STORIES = {
    story.name: story
    for story in (
        *(
            PLAIN,
            FAILING,
            CANCELED,
            BUSY,
            SHARED,
            DESERTED,
            DROPPED,
            SLOW,
            RACING,
            HASTY,
            SKEWED,
            REPEATED,
            ENDED,
        ),
    )
}


def new_sim(seed: int, story: Story) -> Sim:
    sim = Sim(random.Random(seed), failures=story.failures, lengths_s=story.lengths_s)
    sim.skewed = story.skewed
    policy = Policy(max_retries=2, base_s=20, cap_s=60)
    sim.world.dials = replace(sim.world.dials, policy=policy, look_s=30.0)
    return sim


async def _life(sim: Sim, name: str, weather: Callable[[], Weather], rest_s: float) -> None:
    """Run a daemon; whenever it dies or is told to end, start it again after a pause."""
    clock = sim.clocks.setdefault(name, SteppedClock())
    clock.off_s = sim.rng.uniform(-300, 300) if sim.skewed else 0.0
    while True:
        wire = Wire(sim.log, sim.rng, sim.spawn, name)
        wire.weather = weather()
        sim.wires[name] = wire
        supervisor = supervisor_of(sim.world, sim.parts(wire), name, clock)
        async with anyio.create_task_group() as tg:
            tg.start_soon(_until_told, sim, supervisor, wire)
            await wire.died.wait()
            sim.crashes += 1
            tg.cancel_scope.cancel()
        await anyio.sleep(rest_s)


async def _until_told(sim: Sim, supervisor: Supervisor, wire: Wire) -> None:
    try:
        await supervisor.run(wire.told_to_end)
    except* Exception as group:  # noqa: BLE001 - whatever it is, it is a finding
        sim.wrong(f"{wire.name} broke: {group.exceptions[0]!r}")
    else:
        sim.ended_well(wire)
    wire.died.set()


async def _until_rest(sim: Sim, within_s: float = REST_WITHIN_S) -> None:
    with anyio.move_on_after(within_s):
        while not sim.at_rest and not sim.violations:
            await anyio.sleep(1.0)


@contextmanager
def _patched(story: Story) -> Iterator[None]:
    if story.patches is None:
        yield
        return
    with story.patches():
        yield


def _outcome(sim: Sim, *, exactly_once: bool) -> Outcome:
    table = sim.world.table
    records = [r for rows in table.records.values() for r in rows]
    history = [(r.id, r.state, r.at.isoformat(), r.message) for r in records]
    return Outcome(
        broken=sim.broken(exactly_once=exactly_once),
        effects=list(sim.log.effects),
        history=history,
        virtual_s=anyio.current_time(),
        happened=list(sim.log.happened),
        starts=len(sim.world.machine.starts),
        crashes=sim.crashes,
    )


async def _with_deaths(story: Story, seed: int, deaths: frozenset[Death]) -> Outcome:
    sim = new_sim(seed, story)
    sim.log.deaths = set(deaths)
    async with anyio.create_task_group() as tg:
        sim.spawner = tg
        for name in "abc"[: story.daemons]:
            tg.start_soon(_life, sim, name, lambda: story.weather, story.rest_s)
        await story.script(sim)
        await _until_rest(sim)
        certain = not deaths and not story.weather.answer_lost
        outcome = _outcome(sim, exactly_once=certain)
        tg.cancel_scope.cancel()
    return outcome


def play_with_deaths(
    story: Story, deaths: frozenset[Death] = frozenset(), seed: int = 1
) -> Outcome:
    """Play ``story`` on a quiet day, killing the daemon at exactly these effects."""
    with _patched(story):
        return anyio.run(_with_deaths, story, seed, deaths, backend_options=BACKEND)


def crash_points(story: Story, cut_s: float = 0.0) -> list[Death]:
    """Return every place at which a daemon of ``story`` can be struck: before and after every effect."""
    effects = len(play_with_deaths(story).effects)
    return [Death(at, after, cut_s) for at in range(effects) for after in (False, True)]


async def _weathered(story: Story, seed: int) -> Outcome:
    sim = new_sim(seed, story)
    sim.skewed = True
    sim.accidents = ROUGH.accidents
    rng = sim.rng
    sim.lengths_s = rng.choice([(5.0, 40.0), (1.0, 10.0), (30.0, 600.0)])
    storm = {"on": True}
    daemons = rng.choice([1, 2, 2, 3])
    async with anyio.create_task_group() as tg:
        sim.spawner = tg
        for name in "abc"[:daemons]:
            tg.start_soon(
                _life, sim, name, lambda: ROUGH if storm["on"] else QUIET, rng.uniform(1, 90)
            )
        tg.start_soon(_misfortunes, sim, storm)
        for n in range(4):
            _announce_somehow(sim, f"w{n}")
            await anyio.sleep(rng.uniform(0, 60))
            if rng.random() < 0.6:
                await _ask_something(sim)
        await anyio.sleep(rng.uniform(60, 600))
        storm["on"] = False
        sim.accidents = sim.disk_full_until = 0.0
        for wire in sim.wires.values():
            wire.calm_down()
        await _until_rest(sim, REST_AFTER_STORM_S)
        await anyio.sleep(ROUGH.late_s + 1)
        await _until_rest(sim, REST_AFTER_STORM_S)
        outcome = _outcome(sim, exactly_once=False)
        tg.cancel_scope.cancel()
    return outcome


async def _ask_something(sim: Sim) -> None:
    """Ask as the command line does: only of a workset that is there."""
    if known := sorted(sim.world.table.worksets):
        asks = [Cancel(), Retry(), Ignore(), SetPriority(priority=Priority.URGENT)]
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
        misfortune = sim.rng.choice(MISFORTUNES)
        if storm["on"]:
            misfortune(sim, wire)


def _kill(sim: Sim, wire: Wire) -> None:
    wire.died.set()


def _end(sim: Sim, wire: Wire) -> None:
    wire.told_to_end.set()


def _cut_off(sim: Sim, wire: Wire) -> None:
    wire.cut_until = anyio.current_time() + sim.rng.uniform(5, 200)


def _pause(sim: Sim, wire: Wire) -> None:
    wire.paused_until = anyio.current_time() + sim.rng.choice([5.0, 70.0, 600.0])


def _throttle_everybody(sim: Sim, wire: Wire) -> None:
    for each in sim.wires.values():
        each.throttled_until = anyio.current_time() + sim.rng.uniform(5, 120)


def _set_the_clock(sim: Sim, wire: Wire) -> None:
    sim.clocks[wire.name].off_s += sim.rng.uniform(-1800, 1800)


def _fill_the_disk(sim: Sim, wire: Wire) -> None:
    sim.disk_full_until = anyio.current_time() + sim.rng.uniform(5, 120)


def _reboot(sim: Sim, wire: Wire) -> None:
    sim.reboot()


MISFORTUNES = (
    *(_kill, _kill, _kill, _end, _end, _cut_off, _cut_off, _pause, _pause),
    *(_throttle_everybody, _set_the_clock, _fill_the_disk, _reboot),
)


def play_seed(seed: int, story: Story | None = None) -> Outcome:
    """Play a storm of faults chosen by ``seed``, then a quiet phase in which everything must settle."""
    story = story or Story(name="storm", script=submit_one, failures=0.15)
    with _patched(story):
        return anyio.run(_weathered, story, seed, backend_options=BACKEND)
