"""The relay and the intake, each alone: what is passed on, parked, held, or left to come again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import anyio
import pytest
from anyio import current_time

from daylily_daemon.domain.errors import (
    Permanent,
    Transient,
)
from daylily_daemon.domain.model import (
    Command,
)
from daylily_daemon.engine import ahead
from daylily_daemon.engine.ahead import HIDDEN_S
from daylily_daemon.engine.doorbell import Relay
from daylily_daemon.engine.health import Health
from daylily_daemon.engine.intake import Intake
from daylily_daemon.figures import Metrics
from daylily_daemon.ports import EventSource, Unreadable
from tests.fakes.store import MemoryTrail
from tests.sim.planting import put
from tests.unit.daemons import play
from tests.unit.test_engine_parts import Odd, Store, Watch, a_writer, silence
from tests.unit.test_intake_parts import Box, a_command, a_delivery

__all__ = ["silence"]


@dataclass
class Looks:
    """Looks at S3 that fail for one workset."""

    error: Exception | None = None
    missed: list[Command] = field(default_factory=list)
    looks: list[float] = field(default_factory=list)

    async def as_it_is(self, command: Command) -> Command:
        if self.error and command.workset_id == "w1":
            raise self.error
        if command.workset_id == "odd":
            raise Odd
        return replace(command, by="looked at")

    async def unannounced(self) -> Sequence[Command]:
        self.looks.append(current_time())
        return self.missed


async def relayed(box: Box, out: Box, looks: Looks, for_s: float = 30.0, **set_to: Any) -> None:
    relay = Relay(intake=box, commands=out, drops=looks, **set_to)
    with anyio.move_on_after(for_s):
        await relay.listen()


def test_events_are_looked_at_passed_on_in_one_batch_and_deleted() -> None:
    async def story() -> None:
        box, out = (
            Box([a_delivery(a_command()), a_delivery(a_command("c2", "w2")), a_delivery()]),
            Box(),
        )
        await relayed(box, out, Looks())
        assert [(c.id, c.by) for c in out.sent] == [("c1", "looked at"), ("c2", "looked at")]
        assert box.settled == ["c1", "c2", "r"]

    play(story)


def test_what_became_of_events_is_counted_by_the_way_they_came() -> None:
    async def story() -> None:
        figures = Metrics()
        by_sns = replace(a_delivery(a_command()), source=EventSource.SNS)
        test_event = replace(a_delivery(), source=EventSource.S3)
        odd = replace(a_delivery(a_command("c3", "w3")), content=Unreadable("nonsense"))
        await relayed(Box([by_sns, test_event, odd]), Box(), Looks(), counting=figures)
        counted = {
            (sample.labels["source"], sample.labels["outcome"])
            for family in figures.registry.collect()
            for sample in family.samples
            if sample.name == "daylily_events_taken_total" and sample.value == 1
        }
        assert counted == {("sns", "passed_on"), ("s3", "nothing"), ("unknown", "parked")}

    play(story)


def test_events_that_cannot_be_passed_on_together_are_passed_on_one_by_one() -> None:
    async def story() -> None:
        box = Box([a_delivery(a_command()), a_delivery(a_command("c2", "w2"))])
        out = Box(send_errors=[Transient("no"), Permanent("too large")])
        await relayed(box, out, Looks())
        assert (box.parked, box.settled) == ([("c1", "too large")], ["c2"])

    play(story)


@pytest.mark.parametrize(
    ("error", "tries", "parked", "hidden"),
    [
        (Permanent("never"), 1, 1, 0),
        (Odd(), 3, 0, 0),
        (Odd(), 4, 1, 0),
        (Transient("no"), 9, 0, 6),
    ],
)
def test_an_event_is_parked_for_what_is_its_own_trouble_and_held_for_ours(
    error: Exception, tries: int, parked: int, hidden: int
) -> None:
    async def story() -> None:
        box = Box([a_delivery(a_command(), tries=tries)])
        await relayed(box, Box(), Looks(error))
        assert (len(box.parked), len(box.kept), box.settled) == (parked, hidden, [])

    play(story)


def test_events_are_held_as_long_as_one_of_them_meets_trouble_of_ours() -> None:
    async def story() -> None:
        box = Box([a_delivery(a_command()), a_delivery(a_command("c2", "odd"))])
        await relayed(box, Box(), Looks(Transient("no")))
        assert [hidden for _, hidden in box.kept[:2]] == [HIDDEN_S, HIDDEN_S]
        alone = Box([a_delivery(a_command("c2", "odd"))])
        await relayed(alone, Box(), Looks())
        assert (alone.kept, alone.received) == ([], 2)

    play(story)


def an_intake(store: Store, events: Box, commands: Box, drops: Looks, health: Health) -> Intake:
    writer = a_writer(store)
    return Intake(
        events=events,
        commands=commands,
        drops=drops,
        trail=MemoryTrail(store.table),
        writer=writer,
        live=writer.live,
        health=health,
        answer_s=5.0,
    )


@pytest.mark.parametrize(
    ("port", "call", "left"),
    [
        ("worksets", "commit", "commands"),
        ("worksets", "load", ""),
        ("drops", "as_it_is", "events"),
        ("drops", "unannounced", ""),
    ],
)
def test_messages_are_left_where_the_same_call_succeeds_for_others(
    port: str, call: str, left: str
) -> None:
    async def story() -> None:
        health = Health(Watch())
        store = Store(answers=[Transient("no")] * 10_000)
        boxes = {
            "events": Box([a_delivery(a_command())]),
            "commands": Box([a_delivery(a_command())]),
        }
        looks = Looks(Transient("no"))
        intake = an_intake(store, boxes["events"], boxes["commands"], looks, health)
        with anyio.move_on_after(1500), put((ahead, "HANDS", 1)):
            async with anyio.create_task_group() as tg:
                intake.start(tg, lambda _: None)
                while True:
                    await anyio.sleep(1)
                    health.good(port, call)
        assert [name for name, box in boxes.items() if box.received > 1] == ([left] if left else [])

    play(story)


def test_what_no_event_told_of_is_sent_and_looked_for_again_after_the_pause() -> None:
    async def story() -> None:
        store, out, looks = Store(), Box(), Looks(missed=[a_command()])
        intake = an_intake(store, Box(), out, looks, Health(Watch()))
        with anyio.move_on_after(700):
            async with anyio.create_task_group() as tg:
                intake.start(tg, lambda _: None)
        assert looks.looks == [0.0, 600.0]
        assert [c.id for c in out.sent] == ["c1", "c1"]
        assert out.received == 2, "one batch, and then nothing"

    play(story)
