"""Messages of one batch that take long, or find an inbox full, and what becomes of the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import anyio

from daylily_daemon.domain.errors import Permanent
from daylily_daemon.domain.model import (
    CommandEffect,
    HostLost,
    Priority,
    SetPriority,
    State,
    WorksetId,
)
from daylily_daemon.domain.workset import Workset
from daylily_daemon.ports import Change, Delivery
from tests.fakes.runner import MemoryMachine, MemoryRunner, Script
from tests.fakes.store import MemoryMailbox, MemoryTrail, MemoryWorksets
from tests.unit.daemons import World, daemon, killed_daemon, parts_of, play, until

LONG = Script(duration_s=7200.0)
MOST_RECEIVES = 5
"""After which SQS moves a message to the dead letters by itself (``queues.max_receive``)."""


class Counting(MemoryMailbox):
    """Remembers how often each command was received."""

    def __init__(self, world: World) -> None:
        super().__init__(world.commands)
        self.received: Counter[str] = Counter()

    async def receive(self) -> Sequence[Delivery]:
        found = await super().receive()
        for delivery in found:
            if isinstance(delivery.content, tuple):
                self.received.update(command.id for command in delivery.content)
        return found

    async def settle(self, deliveries: Sequence[Delivery]) -> None:
        await anyio.sleep(0.5)
        await super().settle(deliveries)


def test_a_flood_for_a_machine_that_is_gone_is_answered_and_so_is_who_vouches_for_it() -> None:
    async def story() -> None:
        world = World(machine=MemoryMachine(lambda job: LONG))
        async with killed_daemon(world):
            await world.submit("w1")
            await until(lambda: bool(world.machine.starts))
        world.machine.restart()
        for _ in range(60):
            await world.ask("w1", SetPriority(priority=Priority.LOW))
        await world.ask("w1", HostLost())
        commands = Counting(world)
        elsewhere = MemoryRunner(world.machine, machine_id="new")
        parts = replace(parts_of(world), commands=commands, runner=elsewhere)
        async with daemon(world, "b", parts):
            await until(lambda: world.workset("w1").attempt == 2, within_s=1800)
            await until(lambda: not world.commands.messages, within_s=60)
        effects = [
            await MemoryTrail(world.table).answer_to(WorksetId("w1"), c.id) for c in world.asked
        ]
        refused = sum(a is not None and a.effect is CommandEffect.REFUSED for a in effects)
        assert refused == 40, "those that found no room have an answer"
        assert all(a is not None and a.effect is not CommandEffect.QUEUED for a in effects)
        assert max(commands.received.values()) < MOST_RECEIVES

    play(story)


class Refusing(MemoryWorksets):
    """A store that says a definite no to whatever is written of one workset."""

    async def commit(self, change: Change) -> Workset:
        if change.after.id == "w1":
            raise Permanent("the item would become too large")
        return await super().commit(change)


def test_a_command_that_can_never_be_stored_is_parked_with_the_reason_and_not_deleted() -> None:
    async def story() -> None:
        world = World()
        await world.submit("w1", "w2")
        wired: dict[str, Any] = {"worksets": Refusing(world.table)}
        async with daemon(world, parts=replace(parts_of(world), **wired)):
            await until(lambda: bool(world.commands.parked), within_s=60)
            await until(lambda: not world.commands.messages, within_s=60)
            await until(lambda: world.workset("w2").state is State.COMPLETE)
        assert [reason for _, reason in world.commands.parked] == [
            "the item would become too large"
        ]

    play(story)


class SlowFor(MemoryWorksets):
    """A store that never answers about one workset."""

    def __init__(self, world: World, id: str) -> None:
        super().__init__(world.table)
        self.slow_id: str | None = id

    async def load(self, id: WorksetId) -> Workset | None:
        await self._wait(id)
        return await super().load(id)

    async def commit(self, change: Change) -> Workset:
        await self._wait(change.after.id)
        return await super().commit(change)

    async def _wait(self, id: str) -> None:
        if id == self.slow_id:
            await anyio.sleep_forever()


def test_what_was_answered_is_deleted_though_another_message_of_its_batch_gets_no_answer() -> None:
    async def story() -> None:
        world = World()
        commands, store = Counting(world), SlowFor(world, "w1")
        wired: dict[str, Any] = {"worksets": store, "commands": commands}
        await world.submit("w1", "w2", "w3")
        async with daemon(world, parts=replace(parts_of(world), **wired)):
            await until(lambda: len(world.commands.messages) == 1, within_s=20)
            assert {ws.id for ws in world.table.worksets.values()} == {"w2", "w3"}
            store.slow_id = None
            await until(lambda: len(world.table.worksets) == 3, within_s=300)
            await until(lambda: world.workset("w1").state is State.COMPLETE)
        assert [n for id, n in commands.received.items()][1:] == [1, 1]

    play(story)
