"""Whole daemons that live, die and overlap, and the drivers that make them do so."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import anyio

from daylily_daemon.domain.errors import Transient
from daylily_daemon.domain.model import (
    Archive,
    Cancel,
    Delete,
    Priority,
    Restore,
    Retry,
    SetPriority,
    State,
    WorksetId,
)
from daylily_daemon.engine.supervisor import Supervisor
from daylily_daemon.ports import Unreadable
from tests.sim import copies
from tests.sim.knobs import Knobs
from tests.sim.patience import Patience
from tests.sim.ports import MISSING, Input, SteppedClock
from tests.sim.promises import broken
from tests.sim.vclock import BACKEND
from tests.sim.wire import QUIET, Death, Outage, Weather, Wire
from tests.sim.world import Sim
from tests.unit.daemons import supervisor_of
from tests.unit.engine_settings import a_policy

REST_WITHIN_S = 1800.0
"""How long everything may take to settle once the weather is quiet."""
LOOK_S = 15.0
"""Between two looks for worksets that wait in vain."""

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
    drawn: list[str]
    """Which knobs and troubles a seed drew."""


@dataclass(frozen=True, kw_only=True)
class Story:
    name: str
    script: Script
    failures: float = 0.0
    daemons: int = 1
    knobs: Knobs = field(default_factory=Knobs)
    rest_s: float = 2.0
    """How long a dead daemon stays dead."""
    weather: Weather = QUIET
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
        while ws.state is not State.COMPLETE and ws.job != f"{ws.id}.1.cleanup":
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


async def drop_a_crowd(sim: Sim) -> None:
    for n in range(8):
        sim.announce(f"w{n}", f"w{n}")
    await anyio.sleep(1)


async def wait_for_late_files(sim: Sim) -> None:
    """First the files never come; then they are dropped again, and come within their time."""
    id = WorksetId("w1")
    sim.inputs[id] = Input(until=300.0, answer=MISSING)
    sim.announce(id, "e1")
    await anyio.sleep(400)
    sim.inputs[id] = Input(until=anyio.current_time() + 60, answer=MISSING)
    sim.announce(id, "e2")


async def flood_the_inbox(sim: Sim) -> None:
    sim.announce("w1", "w1")
    await anyio.sleep(20)
    for _ in range(12):
        await sim.world.ask("w1", SetPriority(priority=Priority.LOW))


async def retry_what_failed(sim: Sim) -> None:
    await sim.world.submit("w1")
    await anyio.sleep(400)
    await sim.world.ask("w1", Retry())


async def put_aside_and_back(sim: Sim) -> None:
    """Archive what runs, in vain, and what has ended; bring one back, and give the other up for good."""
    await sim.world.submit("w1", "w2")
    await anyio.sleep(20)
    await sim.world.ask("w1", Archive())
    await anyio.sleep(400)
    for what in (Archive(), Restore(), Retry()):
        await sim.world.ask("w1", what)
    for gone in (Delete(), Archive(), Delete(), Restore(), Retry()):
        await sim.world.ask("w2", gone)


async def tell_past_a_dead_channel(sim: Sim) -> None:
    """More is owed to a dead channel than one look shows, and then the daemon dies."""
    for channel, until in (("slack", 2000.0), ("sns", 320.0)):
        gone = Outage(calls=(channel,), until=until, error=lambda call: Transient(f"{call}: gone"))
        sim.log.outages.append(gone)
    for n in range(15):
        sim.announce(f"w{n}", f"w{n}")
    await anyio.sleep(300)
    for wire in sim.wires.values():
        wire.died.set()
    await anyio.sleep(1000)


async def tell_a_channel_that_was_away(sim: Sim) -> None:
    """Nobody dies, and a channel takes nothing for so long that daemons take over from each other."""
    gone = Outage(calls=("slack",), until=1200.0, error=lambda call: Transient(f"{call}: gone"))
    sim.log.outages.append(gone)
    for n in range(4):
        sim.announce(f"w{n}", f"w{n}")
    await anyio.sleep(2400)


PLAIN = Story(name="plain", script=submit_one)
FAILING = Story(name="failing", script=submit_one, failures=0.5)
CANCELED = Story(name="canceled", script=submit_and_cancel)
BUSY = Story(name="busy", script=submit_twice_and_more, failures=0.2)
SHARED = Story(
    name="shared",
    script=submit_and_cancel_late,
    daemons=2,
    knobs=Knobs(shortest_s=20.0, longest_s=120.0),
)
RACING = Story(name="racing", script=cancel_at_the_end, knobs=Knobs(shortest_s=1.0, longest_s=1.0))
HASTY = Story(name="hasty", script=submit_and_ask_at_once)
REPEATED = Story(
    name="repeated",
    script=submit_twice_and_more,
    weather=Weather(answer_lost=0.3, blind_repeat=1.0, slow_s=0.02),
)
ENDED = Story(name="ended", script=end_at_each_notice, failures=0.3)
SKEWED = replace(
    SHARED,
    name="skewed",
    script=hand_over_and_back,
    knobs=Knobs(shortest_s=20.0, longest_s=120.0, skewed=True),
)
DESERTED = Story(name="deserted", script=submit_one, daemons=2, rest_s=10 * REST_WITHIN_S)
DROPPED = Story(name="dropped", script=announce_and_announce_again, failures=0.5)
SLOW = Story(name="slow", script=cancel_a_slow_start, weather=Weather(slow_start=0.9, slow_s=0.02))
CROWDED = Story(
    name="crowded",
    script=drop_a_crowd,
    knobs=Knobs(slots=3, per_customer=1, customers=4, sweep_s=5.0),
)
PUT_ASIDE = Story(name="put_aside", script=put_aside_and_back, failures=0.3)
LATE = Story(name="late", script=wait_for_late_files)
FLOODED = Story(name="flooded", script=flood_the_inbox, knobs=Knobs(inbox=2))
GRACELESS = Story(name="graceless", script=submit_one, knobs=Knobs(grace_s=0.0))
HOPELESS = Story(name="hopeless", script=retry_what_failed, failures=1.0)
MUTED = Story(
    name="muted",
    script=tell_past_a_dead_channel,
    knobs=Knobs(page=20, shortest_s=1.0, longest_s=2.0),
    daemons=2,
)
AWAY = Story(name="away", script=tell_a_channel_that_was_away, daemons=2)
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
            CROWDED,
            LATE,
            PUT_ASIDE,
            FLOODED,
            GRACELESS,
            HOPELESS,
            MUTED,
            AWAY,
        ),
    )
}


def new_sim(seed: int, story: Story, knobs: Knobs | None = None) -> Sim:
    knobs = knobs or story.knobs
    sim = Sim(random.Random(seed), knobs, failures=story.failures)
    sim.lengths_s = (knobs.shortest_s, knobs.longest_s)
    sim.skewed = knobs.skewed
    sim.world.lease = knobs.lease
    sim.world.outbox = replace(sim.world.outbox, per_channel=knobs.per_channel)
    sim.world.engine_settings = replace(
        sim.world.engine_settings,
        policy=a_policy(
            max_retries=knobs.max_retries, base_s=20, cap_s=60, input_wait_s=knobs.input_wait_s
        ),
        limits=knobs.limits,
        progress_interval_s=30.0,
        sweep_s=knobs.sweep_s,
        reconcile_s=knobs.reconcile_s,
        give_up_s=knobs.give_up_s,
        grace_s=knobs.grace_s,
    )
    return sim


async def watch(sim: Sim) -> None:
    """Look for worksets that wait although there is room."""
    patience = Patience(sim)
    while True:
        await anyio.sleep(LOOK_S)
        patience.look()


async def life(sim: Sim, name: str, weather: Callable[[], Weather], rest_s: float) -> None:
    """Run a daemon; whenever it dies or is told to end, start it again after a pause."""
    clock = sim.clocks.setdefault(name, SteppedClock())
    clock.off_s = sim.rng.uniform(-300, 300) if sim.skewed else 0.0
    while True:
        wire = Wire(sim.log, sim.rng, sim.spawn, name, sim.knobs.ttl_s)
        wire.weather = weather()
        sim.wires[name] = wire
        made = supervisor_of(sim.world, sim.parts(wire), name, clock)
        supervisor = replace(made, look_for_room=sim.held, index_lag_s=sim.knobs.index_lag_s)
        sim.supervisors[name] = supervisor
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


async def until_rest(sim: Sim, within_s: float = REST_WITHIN_S) -> None:
    with anyio.move_on_after(within_s):
        while not sim.at_rest and not sim.violations:
            await anyio.sleep(3.0)


@contextmanager
def patched(story: Story) -> Iterator[None]:
    planted = story.patches() if story.patches else nullcontext()
    with copies.quick(), planted, story.knobs.planted():
        yield


def outcome_of(sim: Sim, *, exactly_once: bool) -> Outcome:
    table = sim.world.table
    records = [r for rows in table.records.values() for r in rows]
    history = [(r.id, r.state, r.at.isoformat(), r.message) for r in records]
    return Outcome(
        broken=broken(sim, exactly_once=exactly_once),
        effects=list(sim.log.effects),
        history=history,
        virtual_s=anyio.current_time(),
        happened=list(sim.log.happened),
        starts=len(sim.world.machine.starts),
        crashes=sim.crashes,
        drawn=sim.drawn,
    )


async def _with_deaths(story: Story, seed: int, deaths: frozenset[Death]) -> Outcome:
    sim = new_sim(seed, story)
    sim.log.deaths = set(deaths)
    async with anyio.create_task_group() as tg:
        sim.spawner = tg
        for name in "abc"[: story.daemons]:
            tg.start_soon(life, sim, name, lambda: story.weather, story.rest_s)
        tg.start_soon(watch, sim)
        await story.script(sim)
        await until_rest(sim)
        certain = not deaths and not story.weather.answer_lost
        outcome = outcome_of(sim, exactly_once=certain)
        tg.cancel_scope.cancel()
    return outcome


def play_with_deaths(
    story: Story, deaths: frozenset[Death] = frozenset(), seed: int = 1
) -> Outcome:
    """Play ``story`` on a quiet day, killing the daemon at exactly these effects."""
    with patched(story):
        return anyio.run(_with_deaths, story, seed, deaths, backend_options=BACKEND)


def crash_points(story: Story, cut_s: float = 0.0) -> list[Death]:
    """Return every place at which a daemon of ``story`` can be struck: before and after every effect."""
    effects = len(play_with_deaths(story).effects)
    return [Death(at, after, cut_s) for at in range(effects) for after in (False, True)]
