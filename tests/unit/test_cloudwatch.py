"""Figures for CloudWatch: what the daemon counts anyway, once, under the names of the old system."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

import pytest
from anyio import create_task_group, sleep

from daylily_daemon.cloudwatch import (
    COUNTS,
    EVERY_S,
    SETTING,
    TIMES,
    Reporter,
    counted_so_far,
    leads,
)
from daylily_daemon.domain.daemon import Port, Registered, Status
from daylily_daemon.domain.datum import LevelDatum, TimesDatum
from daylily_daemon.domain.errors import Impeded, Transient
from daylily_daemon.domain.model import Ended, Job, Outcome, State
from daylily_daemon.domain.problems import HealthProblem, ProblemKind, Severity, problems_of
from daylily_daemon.engine.health import Health, guarded
from daylily_daemon.figures import Metrics
from daylily_daemon.gauges import Instant
from tests.fakes.metricstore import MemoryMetricStore
from tests.fakes.registry import MemoryRegistry
from tests.fakes.runner import Script
from tests.fakes.store import LoopClock
from tests.unit.daemons import World, daemon, play, until

NOW: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)
HEAD1, HEAD2, HEAD3 = "head1/01/aa", "head2/02/bb", "head3/03/cc"
SENDING: Final = Status(settings={SETTING: "x"})


@dataclass
class Sending:
    """A daemon's figures, and where they go."""

    figures: Metrics = field(default_factory=Metrics)
    store: MemoryMetricStore = field(default_factory=MemoryMetricStore)
    registry: MemoryRegistry = field(default_factory=MemoryRegistry)
    on: bool = True

    def reporter(self, owner: str = HEAD1) -> Reporter:
        return Reporter(
            owner=owner,
            metrics=self.figures,
            store=self.store,
            registry=self.registry,
            is_on=lambda: self.on,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with create_task_group() as tg:
            tg.start_soon(self.reporter().run)
            yield
            tg.cancel_scope.cancel()

    def levels(self) -> dict[str, float]:
        return {one.name: one.value for one in self.store.stored if isinstance(one, LevelDatum)}


def test_a_retried_and_a_failed_workset_are_told_under_the_old_names() -> None:
    sending = Sending()
    play(partial(_two_lives, sending))
    assert sending.store.counted() == {
        "WorksetRegistered": 2,
        "LockAcquired": 3,
        "LockReleased": 3,
        "WorksetRetry": 1,
        "WorksetPermanentFailure": 1,
        "WorksetStateReady": 3,
        "WorksetStateIn_Progress": 3,
        "WorksetStateError": 2,
        "WorksetStateRetrying": 1,
        "WorksetStateFailed": 1,
        "WorksetStateComplete": 1,
    }
    steps = [one for one in sending.store.stored if one.name == "StepSeconds"]
    waits = [one for one in sending.store.stored if one.name == "WaitSeconds"]
    assert sum(one.count for one in steps if isinstance(one, TimesDatum)) == 7
    assert sum(one.count for one in waits if isinstance(one, TimesDatum)) == 2


async def _two_lives(sending: Sending) -> None:
    """The first fails twice, the second time for good; the second is complete."""
    world = World(counting=sending.figures)
    world.machine._play = _by_attempt
    async with sending.running(), daemon(world):
        await world.submit("w1")
        await world.submit("w2")
        await until(lambda: len(world.table.worksets) == 2)
        await until(lambda: world.workset("w1").state is State.FAILED)
        await until(lambda: world.workset("w2").state is State.COMPLETE)


def _by_attempt(job: Job) -> Script:
    workset, attempt, _ = job.name.split(".")
    if workset == "w2":
        return Script(duration_s=40.0)
    ended = (
        Outcome(ended=Ended.EXITED, code=1) if attempt == "1" else Outcome(ended=Ended.TIMED_OUT)
    )
    return Script(outcome=ended, duration_s=5.0)


@pytest.mark.reported(
    "E", "figures of a call that failed are lost (micrometer-metrics/micrometer#3238)"
)
def test_a_minute_that_was_not_answered_is_made_up_for_by_the_next_and_nothing_counts_twice() -> (
    None
):
    sending = Sending()
    sending.store.script.extend([None, Transient("no answer"), Impeded("no right"), None])

    async def story() -> None:
        async with sending.running():
            for _ in range(5):
                await sleep(EVERY_S)
                sending.figures._count("daylily_locks_total", "acquired")

    play(story)
    assert sending.store.counted() == {"LockAcquired": 5}
    assert sending.store.calls >= 6


@pytest.mark.reported(
    "E", "figures are sent twice when a program ends (micrometer-metrics/micrometer#1154)"
)
def test_it_calls_once_a_minute_and_the_end_of_the_daemon_tells_the_rest() -> None:
    sending = Sending()

    async def story() -> None:
        async with sending.running():
            await sleep(10 * EVERY_S + 1)
            assert sending.store.calls == 11
            sending.figures._count("daylily_locks_total", "released")

    play(story)
    assert sending.store.counted() == {"LockReleased": 1}
    ups = [one for one in sending.store.stored if one.name == "DaemonUp"]
    assert len(ups) == 11, "who ends is not up"


def test_what_was_counted_while_it_was_off_is_not_told() -> None:
    sending = Sending(on=False)

    async def story() -> None:
        async with sending.running():
            sending.figures._count("daylily_locks_total", "acquired")
            await sleep(2 * EVERY_S)
            assert sending.store.calls == 0
            sending.on = True
            sending.figures._count("daylily_locks_total", "released")
            await sleep(EVERY_S)

    play(story)
    assert sending.store.counted() == {"LockReleased": 1}


@pytest.mark.parametrize(
    ("took_s", "least_s", "most_s"),
    [
        ((40.0,), 40.0, 40.0),
        ((40.0, 50.0), 15.0, 60.0),
        ((0.5, 400.0), 0.0, 400.5),
        ((400_000.0, 500_000.0), 172_800.0, 900_000.0),
    ],
)
def test_a_histogram_becomes_a_statistic_set_whose_mean_lies_within_it(
    took_s: tuple[float, ...], least_s: float, most_s: float
) -> None:
    figures = Metrics()
    before = counted_so_far(figures)
    for one_s in took_s:
        figures._observe("daylily_step_seconds", one_s, "run", "done")
    (told,) = counted_so_far(figures).since(before)
    assert told == TimesDatum("StepSeconds", len(took_s), sum(took_s), least_s, most_s)
    assert told.least_s <= sum(took_s) / len(took_s) <= told.most_s


def test_every_name_is_taken_from_a_counter_that_exists_and_is_at_zero() -> None:
    so_far = counted_so_far(Metrics())
    assert set(so_far.counts) == set(COUNTS)
    assert set(so_far.counts.values()) == {0}
    assert set(so_far.times) == set(TIMES)
    assert len(COUNTS) + len(TIMES) + 2 + len(State) < 40, "each of them costs money"


# Who tells of all worksets


def alive(owner: str, **changes: object) -> Registered:
    return replace(Registered(owner=owner, said_at=NOW, status=SENDING), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ([], True),
        ([alive(HEAD2)], True),
        ([alive(HEAD1)], False),
        ([alive(HEAD1), alive(HEAD3)], False),
        ([alive(HEAD1, said_at=NOW - timedelta(minutes=6))], True),
        ([alive(HEAD1, said_at=None)], True),
        ([alive(HEAD1, status=None)], True),
        ([alive(HEAD1, status=Status())], True),
        ([alive(HEAD1, status=replace(SENDING, stopped_at=NOW))], True),
        ([alive(HEAD3)], True),
    ],
)
def test_the_first_daemon_by_name_that_is_alive_and_sends_tells_of_all(
    others: list[Registered], expected: bool
) -> None:
    assert leads(HEAD2, others, NOW) is expected


def test_two_daemons_tell_the_numbers_of_all_worksets_once_and_each_its_own_problems() -> None:
    problem = HealthProblem(kind=ProblemKind.CLOCK, about="clock", text="It is off.")
    warned = replace(problem, severity=Severity.WARNING)
    sending = Sending()
    status = Status(problems=(problem, warned))
    counts = {State.READY: 4, State.IN_PROGRESS: 2}
    sending.figures.reads = lambda: Instant(now=NOW, status=status, counts=counts)

    async def story() -> None:
        for owner in (HEAD1, HEAD2):
            await sending.registry.sign(owner, SENDING, NOW)
        await sending.reporter(HEAD2).send()
        assert sending.levels() == {"DaemonUp": 1, "ProblemCount": 1}
        await sending.reporter(HEAD1).send()
        assert sending.levels() == {
            "DaemonUp": 1,
            "ProblemCount": 1,
            "QueueDepthReady": 4,
            "QueueDepthIn_Progress": 2,
        }

    play(story)


def test_without_an_answer_of_the_registry_the_numbers_of_all_are_left_out() -> None:
    class Silent(MemoryRegistry):
        async def daemons(self) -> list[Registered]:
            raise Transient("no answer")

    sending = Sending(registry=Silent())
    sending.figures.reads = lambda: Instant(now=NOW, counts={State.READY: 4})
    play(lambda: sending.reporter().send())
    assert sending.levels() == {"DaemonUp": 1, "ProblemCount": 0}


# Its trouble


@pytest.mark.parametrize("code", ["", "AccessDenied", "credentials", "ThrottlingException"])
def test_a_call_that_fails_is_a_warning_and_never_more(code: str) -> None:
    failing = Port(failing_since=NOW, failures=3, code="impeded", error=code, text="No.")
    (found,) = problems_of(Status(ports={"cloudwatch": failing}), NOW + timedelta(minutes=3))
    assert found.severity is Severity.WARNING
    assert found.sentence.startswith("CloudWatch ")


def test_the_store_is_guarded_so_that_status_hears_of_it() -> None:
    sending = Sending()
    sending.store.script.extend([Impeded("no right")] * 3)

    async def story() -> None:
        health = Health(LoopClock())
        reporter = sending.reporter()
        reporter.store = guarded(sending.store, "cloudwatch", health)
        for _ in range(3):
            with pytest.raises(Impeded):
                await reporter.send()
        assert health.ports["cloudwatch"].failures == 3

    play(story)
