"""One whole daemon over ports in memory, for tests of the engine on a virtual clock."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import anyio

from daylily_daemon.domain.model import (
    Accepted,
    Command,
    Inspection,
    Plan,
    Record,
    Submit,
    WorksetId,
)
from daylily_daemon.domain.pipeline import Pipeline, StepTemplate
from daylily_daemon.domain.routing import Filter, Routing
from daylily_daemon.domain.workset import Workset
from daylily_daemon.engine.admitter import never_held
from daylily_daemon.engine.counting import Counting
from daylily_daemon.engine.health import Health, guarded
from daylily_daemon.engine.intake import Intake
from daylily_daemon.engine.lease import LeaseConfig
from daylily_daemon.engine.live_settings import EngineSettings, LiveSettings
from daylily_daemon.engine.looks import Looks
from daylily_daemon.engine.outbox import Outbox, OutboxConfig
from daylily_daemon.engine.shepherd import Shepherd
from daylily_daemon.engine.supervisor import Supervisor
from daylily_daemon.engine.tender import Place
from daylily_daemon.engine.writer import Writer
from daylily_daemon.ports import (
    Change,
    Clock,
    Drops,
    Inputs,
    Mailbox,
    Notifier,
    Runner,
    Trail,
    Turns,
    Worksets,
)
from tests.fakes.notifier import MemoryNotifier
from tests.fakes.runner import MemoryMachine, MemoryRunner
from tests.fakes.store import (
    Counter,
    LoopClock,
    MemoryMailbox,
    MemoryTrail,
    MemoryTurns,
    MemoryWorksets,
    NoDrops,
    Queue,
    Table,
)
from tests.sim.vclock import BACKEND
from tests.unit.engine_settings import a_lease, some_engine_settings

STEPS = ("stage", "run", "export", "metrics", "cleanup")
PIPELINE = Pipeline(
    name="demo",
    steps=tuple(
        StepTemplate(step=s, argv=("true",), fatal=s not in ("metrics", "cleanup")) for s in STEPS
    ),
)
PLAN = Plan(pipeline="demo", steps=STEPS, export_uri="s3://b/results/", samples=1)


class GoodInputs:
    async def inspect(self, workset: Workset) -> Inspection:
        await anyio.sleep(0.05)
        return Accepted(PLAN)


@dataclass
class World:
    """What outlives daemons."""

    table: Table = field(default_factory=Table)
    intake: Queue = field(default_factory=Queue)
    commands: Queue = field(default_factory=Queue)
    machine: MemoryMachine = field(default_factory=MemoryMachine)
    told: dict[str, list[Record]] = field(default_factory=lambda: {"sns": [], "slack": []})
    engine_settings: EngineSettings = field(
        default_factory=lambda: some_engine_settings(
            pipelines={"demo": PIPELINE}, routing=Routing({"sns": Filter(), "slack": Filter()})
        )
    )
    inputs: Inputs = field(default_factory=GoodInputs)
    ids: Counter = field(default_factory=Counter)
    lease: LeaseConfig = field(default_factory=a_lease)
    outbox: OutboxConfig = field(default_factory=lambda: OutboxConfig(owner=""))
    look_for_room: Callable[[], Awaitable[str]] = never_held
    counting: Counting = field(default_factory=Counting)
    asked: list[Command] = field(default_factory=list)
    asked_at: dict[str, float] = field(default_factory=dict)

    def asked_of(self, id: WorksetId) -> int:
        """Return how many commands were asked of a workset."""
        return sum(command.workset_id == id for command in self.asked)

    def workset(self, id: str) -> Workset:
        return self.table.worksets[WorksetId(id)]

    def states(self, id: str) -> list[str]:
        return [str(t.state) for t in self.workset(id).history]

    async def submit(self, *ids: str, **fields: Any) -> None:
        commands = [
            Command(
                id=f"drop-{self.ids.fresh()}",
                workset_id=WorksetId(id),
                by="s3",
                ask=Submit(bucket="b", prefix=f"p/{id}/", **fields),
            )
            for id in ids
        ]
        await MemoryMailbox(self.commands).send(commands)

    async def ask(self, id: str, ask: Any) -> None:
        name = f"ask-{self.ids.fresh()}"
        command = Command(id=name, workset_id=WorksetId(id), by=f"cli:{name};", ask=ask)
        self.asked.append(command)
        self.asked_at[name] = anyio.current_time()
        await MemoryMailbox(self.commands).send([command])


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A daemon's ports; a simulation puts faults in front of each."""

    worksets: Worksets
    turns: Turns
    trail: Trail
    intake: Mailbox
    commands: Mailbox
    runner: Runner
    notifiers: dict[str, Notifier]
    inputs: Inputs
    drops: Drops


def parts_of(world: World) -> Parts:
    return Parts(
        worksets=MemoryWorksets(world.table),
        turns=MemoryTurns(world.table),
        trail=MemoryTrail(world.table),
        intake=MemoryMailbox(world.intake),
        commands=MemoryMailbox(world.commands),
        runner=MemoryRunner(world.machine),
        notifiers={name: MemoryNotifier(delivered=told) for name, told in world.told.items()},
        inputs=world.inputs,
        drops=NoDrops(),
    )


def supervisor_of(
    world: World, parts: Parts, owner: str = "a", clock: Clock | None = None
) -> Supervisor:
    clock, live = clock or LoopClock(), LiveSettings(world.engine_settings)
    health = Health(clock)
    channels: dict[str, Notifier] = {
        name: guarded(channel, f"channel:{name}", health)
        for name, channel in parts.notifiers.items()
    }
    trail = guarded(parts.trail, "trail", health)
    outbox = Outbox(trail, lambda: channels, clock, live, replace(world.outbox, owner=owner))
    outbox.counting = world.counting
    runner = guarded(parts.runner, "runner", health)
    writer = Writer(
        worksets=guarded(parts.worksets, "worksets", health),
        clock=clock,
        ids=world.ids,
        owner=owner,
        live=live,
        on_records=outbox.take,
        counting=world.counting,
    )
    return Supervisor(
        writer=writer,
        turns=guarded(parts.turns, "turns", health),
        live=live,
        lease=world.lease,
        place=Place(runner="memory", scope=parts.runner.scope, data_dir="/data", jobs_dir="/jobs"),
        shepherd=Shepherd(runners={"memory": runner}, live=live, looks=Looks(live)),
        inputs=guarded(parts.inputs, "inputs", health),
        intake=Intake(
            events=guarded(parts.intake, "intake", health),
            commands=guarded(parts.commands, "commands", health),
            drops=guarded(parts.drops, "drops", health),
            trail=trail,
            writer=writer,
            live=live,
            health=health,
            answer_s=5.0,
            flood=outbox.flood,
        ),
        outbox=outbox,
        health=health,
        look_for_room=world.look_for_room,
        release_s=8.0,
        drain_s=4.0,
    )


@asynccontextmanager
async def daemon(
    world: World, owner: str = "a", parts: Parts | None = None
) -> AsyncIterator[Supervisor]:
    """Run a daemon around the body and stop it as SIGTERM does."""
    supervisor = supervisor_of(world, parts or parts_of(world), owner)
    stop = anyio.Event()
    async with anyio.create_task_group() as tg:
        tg.start_soon(supervisor.run, stop)
        yield supervisor
        stop.set()


@asynccontextmanager
async def killed_daemon(world: World, owner: str = "a") -> AsyncIterator[Supervisor]:
    """Run a daemon around the body and end it without a word: nothing it sends arrives any more."""
    parts = parts_of(world)
    cut = Cut(parts.worksets)
    supervisor = supervisor_of(world, replace(parts, worksets=cut), owner)
    async with anyio.create_task_group() as tg:
        tg.start_soon(supervisor.run, anyio.Event())
        yield supervisor
        cut.dead = True
        tg.cancel_scope.cancel()


class Cut:
    """A store whose wire can be cut."""

    def __init__(self, inner: Worksets) -> None:
        self._inner = inner
        self.dead = False

    async def _alive(self) -> None:
        if self.dead:
            await anyio.sleep_forever()

    async def load(self, id: WorksetId) -> Workset | None:
        await self._alive()
        return await self._inner.load(id)

    async def commit(self, change: Change) -> Workset:
        await self._alive()
        return await self._inner.commit(change)

    async def announced(self, ids: Any) -> Any:
        await self._alive()
        return await self._inner.announced(ids)


def play(story: Callable[[], Awaitable[None]]) -> None:
    """Run a story on a virtual clock: hours pass in milliseconds."""
    anyio.run(story, backend_options=BACKEND)


async def until(condition: Callable[[], bool], within_s: float = 3600.0) -> None:
    with anyio.fail_after(within_s):
        while not condition():
            await anyio.sleep(0.25)
