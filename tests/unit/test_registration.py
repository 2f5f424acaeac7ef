"""What a daemon says of itself to all, and learns of those who want it drained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from anyio import create_task_group, current_time, sleep, sleep_forever

from daylily_daemon.adapters.skew import ANSWERS, ClockSkew
from daylily_daemon.adapters.sqs import Unsettled, _SqsDelivery
from daylily_daemon.domain.daemon import DiskLevel, Drain, Missed, Owed, QueueLevel, Status
from daylily_daemon.domain.errors import Transient
from daylily_daemon.domain.model import Cancel, Command, WorksetId
from daylily_daemon.engine.intake import EVENTS_REMEMBERED, MissedEvents
from daylily_daemon.engine.live_settings import LiveSettings
from daylily_daemon.engine.registration import LIMIT_S, SIGN_S, SOONEST_S, Registration
from tests.fakes.registry import MemoryRegistry
from tests.unit.daemons import play
from tests.unit.engine_settings import some_engine_settings

NOW: Final = datetime(2026, 3, 4, tzinfo=UTC)
DRAIN: Final = Drain(by="cli:ops", since=NOW, reason="new kernel")
LEVEL: Final = {"q": QueueLevel(waiting=3)}
DISK: Final = {"/fsx": DiskLevel(free=2, needed=1)}


@dataclass
class SteppedClock:
    at: datetime = NOW

    def now(self) -> datetime:
        return self.at


@dataclass
class Counted(MemoryRegistry):
    """A registry that counts, and may hang or fail."""

    signed_at: list[float] = field(default_factory=list)
    asked: int = 0
    hangs: bool = False
    fails: bool = False

    async def _trouble(self) -> None:
        if self.hangs:
            await sleep_forever()
        if self.fails:
            raise Transient("AWS is away.")

    async def sign(self, owner: str, status: Status, at: datetime) -> Drain | None:
        self.signed_at.append(current_time())
        await self._trouble()
        return await super().sign(owner, status, at)

    async def drained(self, owner: str) -> Drain | None:
        self.asked += 1
        await self._trouble()
        return await super().drained(owner)


@dataclass
class Queues:
    fails: bool = False

    async def levels(self) -> Mapping[str, QueueLevel]:
        if self.fails:
            raise Transient("SQS is away.")
        return LEVEL


async def _disks() -> Mapping[str, DiskLevel]:
    return DISK


def _registration(
    registry: Counted, levels: Queues | None = None, sweep_s: float = 15.0
) -> Registration:
    return Registration(
        owner="a",
        registry=registry,
        clock=SteppedClock(),
        live=LiveSettings(some_engine_settings(sweep_s=sweep_s)),
        levels=levels or Queues(),
        disks=_disks,
        owed=lambda: {"slack": Owed(count=1)},
    )


def test_a_daemon_signs_once_a_minute_and_soon_after_a_change() -> None:
    async def story() -> None:
        registry = Counted()
        one = _registration(registry)
        async with create_task_group() as tg:
            tg.start_soon(one.run, Status)
            await sleep(3 * SIGN_S + 2 * SOONEST_S)
            assert [at - registry.signed_at[0] for at in registry.signed_at] == [0, 60, 120, 180]
            for _ in range(10):
                one.changed()
                await sleep(0.1)
            assert len(registry.signed_at) == 5, "however often it changes"
            await sleep(SOONEST_S)
            assert len(registry.signed_at) == 6
            tg.cancel_scope.cancel()

    play(story)


def test_what_is_measured_stays_where_something_does_not_answer() -> None:
    async def story() -> None:
        levels = Queues()
        one = _registration(Counted(), levels)
        await one.measure()
        assert one.measured.queues == LEVEL
        assert one.measured.disks == DISK
        assert one.measured.channels == {"slack": Owed(count=1)}
        levels.fails = True
        one.disks = sleep_forever  # type: ignore[assignment]
        before = current_time()
        await one.measure()
        assert (one.measured.queues, one.measured.disks) == (LEVEL, DISK)
        assert current_time() - before <= LIMIT_S

    play(story)


def test_a_registry_that_does_not_answer_holds_nothing_up() -> None:
    async def story() -> None:
        registry = Counted(hangs=True)
        one = _registration(registry)
        before = current_time()
        await one.sign(Status())
        assert await one.drained() == ""
        assert current_time() - before <= 2 * LIMIT_S
        registry.hangs, registry.fails = False, True
        await one.sign(Status())
        one.drain = DRAIN
        assert "new kernel" in await one.drained(), "what was known last counts"

    play(story)


def test_a_drain_is_known_before_anything_is_started() -> None:
    async def story() -> None:
        registry, told = Counted(), list[Drain | None]()
        one = _registration(registry)
        one.on_drain = told.append
        await one.sign(Status())
        await registry.drain("a", DRAIN)
        assert "Drained by cli:ops" in await one.drained(), "though it signed a moment ago"
        await registry.drain("a", None)
        await one.sign(Status())
        assert await one.drained() == ""
        assert told == [DRAIN, None]

    play(story)


# --- events that never came ---------------------------------------------------------------------------

LATE: Final = timedelta(seconds=60)


def _submit(id: str) -> Command:
    return Command(id=id, workset_id=WorksetId("w"), by="s3", ask=Cancel())


def test_a_drop_is_missed_when_no_event_told_of_it_in_time() -> None:
    clock = SteppedClock()
    missed = MissedEvents(clock)
    missed.found([_submit("a"), _submit("b")])
    assert missed.told(LATE) == Missed()
    clock.at += LATE
    assert missed.told(LATE) == Missed(count=2, since=NOW)
    missed.found([_submit("a")])
    assert missed.told(LATE) == Missed(count=2, since=NOW), "found again is found once"


def test_a_late_event_is_none_that_was_missed_and_any_other_shows_that_they_come_again() -> None:
    clock = SteppedClock()
    missed = MissedEvents(clock)
    missed.found([_submit("a"), _submit("b")])
    missed.told_by_event([_submit("a")])
    clock.at += LATE
    assert missed.told(LATE).count == 1
    missed.told_by_event([_submit("c")])
    assert missed.told(LATE) == Missed()
    missed.told_by_event([_submit("d")])
    missed.found([_submit("d")])
    clock.at += LATE
    assert missed.told(LATE) == Missed(), "its event came before the listing"


def test_what_events_told_is_remembered_within_bounds() -> None:
    missed = MissedEvents(SteppedClock())
    missed.told_by_event([_submit(f"c{n}") for n in range(2 * EVENTS_REMEMBERED)])
    assert len(missed._told) == EVENTS_REMEMBERED


# --- the age of a queue -------------------------------------------------------------------------------


def _delivery(id: str, age_s: float, group: str = "HG002") -> _SqsDelivery:
    return _SqsDelivery(
        content=(),
        receipt=id,
        message_id=id,
        body="",
        sent_at=NOW - timedelta(seconds=age_s),
        group=group,
    )


def test_the_oldest_unsettled_message_tells_the_age_of_its_queue() -> None:
    async def story() -> None:
        seen = Unsettled(forgotten_s=120.0)
        assert seen.oldest() == (None, "")
        old, young = _delivery("m1", 60, "HG001"), _delivery("m2", 10)
        seen.received([young, old, replace(_delivery("m3", 0), sent_at=None)])
        assert seen.oldest() == (old.sent_at, "HG001")
        seen.settled([replace(old, receipt="of another receive")])
        assert seen.oldest() == (young.sent_at, "HG002")
        await sleep(121)
        assert seen.oldest() == (None, ""), "it never came again: somebody else has it"

    play(story)


# --- the clock ----------------------------------------------------------------------------------------


def test_a_clock_is_compared_with_the_dates_of_answers() -> None:
    clock = SteppedClock()
    skew = ClockSkew(clock)
    for _ in range(2):
        skew.heard({"date": "Wed, 04 Mar 2026 00:00:00 GMT"})
    assert skew.seconds() is None, "two answers say little"
    clock.at += timedelta(seconds=61.5)
    for _ in range(ANSWERS):
        skew.heard({"date": "Wed, 04 Mar 2026 00:00:00 GMT"})
    assert skew.seconds() == 61.0
    for text in ("", "soon", "Wed, 04 Mar 2026 00:00:00", "Wed, 99 Mar 2026 00:00:00 GMT"):
        skew.heard({"date": text})
    skew.heard({})
    assert skew.seconds() == 61.0
