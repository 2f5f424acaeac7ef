"""Figures for Prometheus: counted as things happen in a whole daemon, read when asked, and bounded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio
import botocore.session
import pytest
from botocore import xform_name

from daylily_daemon.adapters.calls import CallOutcome
from daylily_daemon.adapters.pipelines import load_pipelines
from daylily_daemon.domain.daemon import (
    DiskLevel,
    Drain,
    JobLevel,
    Owed,
    Port,
    QueueLevel,
    Reload,
    Status,
)
from daylily_daemon.domain.errors import Permanent, Transient
from daylily_daemon.domain.failures import KNOWN, FailurePattern
from daylily_daemon.domain.model import (
    Accepted,
    Cancel,
    Category,
    Ended,
    Ignore,
    Inspection,
    Job,
    Outcome,
    Plan,
    Priority,
    Problem,
    Record,
    Refused,
    Retry,
    SetPriority,
    State,
)
from daylily_daemon.domain.pipeline import Pipeline, StepTemplate
from daylily_daemon.domain.problems import SERVICES, HealthProblem, ProblemKind
from daylily_daemon.domain.workset import Workset
from daylily_daemon.engine.counting import BeatFate, CommandFate, EventFate, NoticeFate
from daylily_daemon.figures import DESCRIBED, ENDS, MOST_CODES, STEPS, Metrics
from daylily_daemon.gauges import Instant
from daylily_daemon.ports import EventSource, Unreadable
from daylily_daemon.settings.notifications import NotificationsSettings
from tests.arch.repository import ROOT
from tests.fakes.runner import Script
from tests.unit.daemons import PLAN, Cut, World, daemon, parts_of, play, until
from tests.unit.engine_settings import a_policy, some_engine_settings

NOW: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)
MOST_SERIES: Final = 2000
EACH: Final = 100
"""Worksets of each outcome."""
CHANNELS: Final = tuple(NotificationsSettings().channels)
NO_KEY: Final = Problem("daylily_work.yaml", "key dy-r", "is missing.", "Add it.")


def value(figures: Metrics, name: str, **labels: str) -> float | None:
    found: float | None = figures.registry.get_sample_value(name, labels)
    return found


def all_of(figures: Metrics, name: str, label: str) -> dict[str, float]:
    """Return the samples of that name that are not 0, by one label."""
    found: dict[str, float] = {}
    for family in figures.registry.collect():
        for sample in family.samples:
            if sample.name == name and sample.value:
                found[sample.labels[label]] = found.get(sample.labels[label], 0) + sample.value
    return found


def series(figures: Metrics) -> int:
    page, _ = figures.page("")
    return sum(not line.startswith("#") for line in page.decode().splitlines())


# What is counted


def test_a_life_without_trouble_is_counted_from_its_drop_to_its_end() -> None:
    figures = Metrics()
    play(partial(_uneventful, figures))
    assert all_of(figures, "daylily_transitions_total", "state") == {
        "ready": 1,
        "in_progress": 1,
        "complete": 1,
    }
    assert value(figures, "daylily_commands_total", type="submit", outcome="taken") == 1
    assert value(figures, "daylily_worksets_ended_total", outcome="complete", code="") == 1
    assert all_of(figures, "daylily_step_seconds_count", "step") == dict.fromkeys(STEPS, 1)
    assert all_of(figures, "daylily_step_seconds_sum", "outcome") == {"done": 5 * 40.0}
    assert value(figures, "daylily_drop_seconds_count") == 1
    assert 7 <= (value(figures, "daylily_drop_seconds_sum") or 0) < 9
    waited_s = value(figures, "daylily_wait_seconds_sum", priority="normal")
    assert waited_s is not None
    assert 0.05 <= waited_s < 2
    assert all_of(figures, "daylily_notices_total", "channel") == {"sns": 3, "slack": 3}
    assert all_of(figures, "daylily_notices_total", "outcome") == {"told": 6}
    assert (value(figures, "daylily_lease_beats_total", outcome="answered") or 0) >= 5
    assert (value(figures, "daylily_pass_seconds_count") or 0) > 0
    assert value(figures, "daylily_worksets_without_results_total") == 0


async def _uneventful(figures: Metrics) -> None:
    world = World(counting=figures)
    world.machine._play = lambda job: Script(duration_s=40.0)
    async with daemon(world) as supervisor:
        dropped_at = supervisor.writer.clock.now() - timedelta(seconds=7)
        await world.submit("w1", dropped_at=dropped_at, sentinel="s1")
        await until(lambda: bool(world.table.worksets))
        await until(lambda: world.workset("w1").state is State.COMPLETE)
        await until(lambda: not supervisor.outbox.waiting)


def test_commands_are_counted_by_what_became_of_them() -> None:
    figures = Metrics()
    play(partial(_commanded, figures))
    fates = {
        (ask, fate): value(figures, "daylily_commands_total", type=ask, outcome=fate)
        for ask, fate in (
            ("retry", CommandFate.NO_EFFECT),
            ("set_priority", CommandFate.QUEUED),
            ("set_priority", CommandFate.TAKEN),
            ("cancel", CommandFate.QUEUED),
            ("cancel", CommandFate.TAKEN),
            ("ignore", CommandFate.NO_EFFECT),
            ("unreadable", CommandFate.PARKED),
        )
    }
    assert fates == dict.fromkeys(fates, 1)
    assert value(figures, "daylily_worksets_ended_total", outcome="canceled", code="") == 1
    assert all_of(figures, "daylily_step_seconds_count", "outcome") == {"stopped": 1}


async def _commanded(figures: Metrics) -> None:
    world = World(counting=figures)
    world.machine._play = lambda job: Script(duration_s=4000.0)
    async with daemon(world):
        await world.ask("nobody", Retry())
        world.commands.put(Unreadable("nonsense"), "odd")
        await world.submit("w1")
        await until(lambda: bool(world.machine.running()))
        await world.ask("w1", SetPriority(priority=Priority.LOW))
        await until(lambda: world.workset("w1").priority is Priority.LOW)
        await world.ask("w1", Cancel())
        await until(lambda: world.workset("w1").state is State.CANCELED)
        await world.ask("w1", Ignore())
        await until(
            lambda: (
                value(figures, "daylily_commands_total", type="ignore", outcome="no_effect") == 1
            )
        )


def test_a_complete_workset_without_a_file_of_results_is_counted() -> None:
    figures = Metrics()
    empty = Outcome(ended=Ended.EXITED, code=0, report={"files": 0, "results_s3_uri": "s3://b/r/"})

    async def story() -> None:
        world = World(counting=figures)
        world.machine._play = lambda job: Script(outcome=empty)
        async with daemon(world):
            await world.submit("w1")
            await until(lambda: bool(world.table.worksets))
            await until(lambda: world.workset("w1").state is State.COMPLETE)

    play(story)
    assert value(figures, "daylily_worksets_without_results_total") == 1


def test_heartbeats_without_an_answer_are_counted_and_so_is_the_lease_they_lose() -> None:
    figures = Metrics()
    beats = partial(value, figures, "daylily_lease_beats_total")

    async def story() -> None:
        world = World(counting=figures)
        world.machine._play = lambda job: Script(duration_s=4000.0)
        parts = parts_of(world)
        cut = Cut(parts.worksets)
        async with daemon(world, parts=replace(parts, worksets=cut)):
            await world.submit("w1")
            await until(lambda: bool(beats(outcome="answered")))
            cut.dead = True
            await until(lambda: beats(outcome="lost") == 1)

    play(story)
    assert (beats(outcome="unanswered") or 0) >= 2


def test_notices_are_counted_by_channel_and_what_became_of_them() -> None:
    figures = Metrics()

    async def story() -> None:
        world = World(counting=figures)
        parts = parts_of(world)
        parts.notifiers["sns"] = Answering(Permanent("no such topic"))
        parts.notifiers["slack"] = Answering(Transient("HTTP 503"), None)
        async with daemon(world, parts=parts) as supervisor:
            await world.submit("w1")
            await until(lambda: bool(world.table.worksets))
            await until(lambda: world.workset("w1").state is State.COMPLETE)
            await until(lambda: not supervisor.outbox.waiting)

    play(story)
    notices = partial(value, figures, "daylily_notices_total")
    assert notices(channel="sns", outcome="given_up") == 3
    assert notices(channel="slack", outcome="delayed") == 1
    assert notices(channel="slack", outcome="told") == 3


class Answering:
    """A channel that answers as it is told, the last answer for ever."""

    def __init__(self, *answers: Exception | None) -> None:
        self._answers = list(answers)

    async def deliver(self, record: Record) -> None:
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if answer is not None:
            raise answer


def test_calls_are_counted_by_outcome_and_those_that_wait_by_design_are_not_timed() -> None:
    figures = Metrics()
    figures.call("sqs", "SendMessageBatch", CallOutcome.OK, 0.2)
    figures.call("sqs", "ReceiveMessage", CallOutcome.SILENT, 20.0)
    calls = partial(value, figures, "daylily_aws_calls_total", service="sqs")
    assert calls(operation="SendMessageBatch", outcome="ok") == 1
    assert calls(operation="ReceiveMessage", outcome="silent") == 1
    assert value(figures, "daylily_aws_call_seconds_sum", service="sqs") == 0.2


# How it is now


def test_gauges_show_how_the_daemon_is_when_somebody_asks() -> None:
    figures = Metrics()
    figures.reads = lambda: Instant(now=NOW, version="9.1", format=3, status=STATUS, **KNOWN_BESIDE)
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in figures.registry.collect()
        if family.type == "gauge"
        for sample in family.samples
        if sample.name != "daylily_problems" or sample.value
    }
    assert found == {
        ("daylily_build_info", "9.1", "3"): 1,
        ("daylily_last_pass_timestamp_seconds",): NOW.timestamp() - 5,
        ("daylily_worksets", "ready"): 4,
        ("daylily_worksets", "complete"): 1000,
        ("daylily_slots",): 8,
        ("daylily_slots_used",): 2,
        ("daylily_draining",): 1,
        ("daylily_job_quietest_seconds",): 61,
        ("daylily_job_overdue_seconds",): 7,
        ("daylily_port_failing_seconds", "worksets"): 120,
        ("daylily_port_failing_seconds", "drops"): 0,
        ("daylily_port_failing_seconds", "intake"): 0,
        ("daylily_port_failing_seconds", "channel:sns"): 0,
        ("daylily_port_last_success_timestamp_seconds", "intake"): NOW.timestamp() - 1,
        ("daylily_queue_messages", "q"): 3,
        ("daylily_queue_messages", "q-dlq"): 2,
        ("daylily_queue_in_flight", "q"): 1,
        ("daylily_queue_in_flight", "q-dlq"): 0,
        ("daylily_queue_oldest_message_age_seconds", "q"): 90,
        ("daylily_notices_owed", "slack"): 11,
        ("daylily_notices_owed", "sns"): 0,
        ("daylily_notice_oldest_owed_age_seconds", "slack"): 7200,
        ("daylily_notice_oldest_owed_age_seconds", "sns"): 0,
        ("daylily_clock_skew_seconds",): -3.5,
        ("daylily_disk_free_bytes", "/fsx"): 5e9,
        ("daylily_disk_required_bytes", "/fsx"): 1e9,
        ("daylily_config_last_reload_successful",): 0,
        ("daylily_config_last_reload_timestamp_seconds",): NOW.timestamp() - 60,
        ("daylily_problems", "reload-refused"): 2,
    }


def before_now(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


FOUND: Final = HealthProblem(kind=ProblemKind.RELOAD_REFUSED, about="settings", text="No.")
STATUS: Final = Status(
    seen_at=before_now(5),
    max_worksets=8,
    active={"w1": "run", "w2": "stage"},
    drain=Drain(by="you", since=before_now(60)),
    ports={
        "worksets": Port(failing_since=before_now(120), failures=5),
        "drops": Port(failing_since=before_now(20), failures=1),
        "intake": Port(good_at=before_now(1)),
        "channel:sns": Port(),
    },
    queues={
        "q": QueueLevel(waiting=3, in_flight=1, oldest_at=before_now(90)),
        "q-dlq": QueueLevel(waiting=2, is_dead_letters=True),
    },
    channels={"slack": Owed(count=11, oldest_at=before_now(7200))},
    skew_s=-3.5,
    disks={"/fsx": DiskLevel(free=5_000_000_000, needed=1_000_000_000)},
    last_reload=Reload(result="refused", at=before_now(60).isoformat()),
    problems=(FOUND, replace(FOUND, about="more")),
)
KNOWN_BESIDE: Final[dict[str, Any]] = {
    "counts": {State.READY: 4, State.COMPLETE: 1000},
    "jobs": (JobLevel(output_at=before_now(61)), JobLevel(ends_at=before_now(7))),
}


def test_before_a_daemon_is_up_what_is_not_known_is_left_out() -> None:
    figures = Metrics()
    assert value(figures, "daylily_last_pass_timestamp_seconds") is None
    assert value(figures, "daylily_clock_skew_seconds") is None
    assert value(figures, "daylily_slots") is None
    assert value(figures, "daylily_config_last_reload_successful") == 1


# All of them


def test_figures_begin_at_zero_and_stand_alone() -> None:
    one, other = Metrics(), Metrics()
    one.beat(BeatFate.LOST)
    one.event(EventSource.LISTING, EventFate.PASSED_ON, 3)
    for figures, lost, found in ((one, 1, 3), (other, 0, 0)):
        assert value(figures, "daylily_lease_beats_total", outcome="lost") == lost
        listing = partial(value, figures, "daylily_events_taken_total", source="listing")
        assert listing(outcome="passed_on") == found


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"])
def test_the_page_comes_in_the_form_that_is_asked_for_and_without_times_of_creation(
    accept: str,
) -> None:
    figures = Metrics()
    figures.beat(BeatFate.LOST)
    page, kind = figures.page(accept)
    assert b'daylily_lease_beats_total{outcome="lost"} 1.0' in page
    assert b"_created" not in page
    assert kind.startswith(accept.partition(";")[0] or "text/plain")
    assert page.endswith(b"# EOF\n") is bool(accept)


def test_every_figure_that_is_described_is_there_and_no_other() -> None:
    names = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in Metrics().registry.collect()
    }
    assert names == {one.name for one in DESCRIBED}


def test_no_label_names_a_workset_a_customer_or_a_host() -> None:
    labels = {label for one in DESCRIBED for label in one.labels}
    assert labels == {
        *("version", "format", "state", "type", "outcome", "source", "priority", "step", "code"),
        *("service", "operation", "port", "queue", "channel", "folder", "kind"),
    }


def test_the_steps_that_are_told_apart_are_those_of_the_shipped_pipelines() -> None:
    shipped = load_pipelines(ROOT / "config" / "pipelines")
    assert {step.step for one in shipped.values() for step in one.steps} == set(STEPS)


# The bound


@pytest.mark.reported(
    "B", "a label that names the run makes series without end (epoch8/airflow-exporter#59)"
)
def test_a_hundred_worksets_of_every_outcome_make_no_more_than_two_thousand_series() -> None:
    figures = Metrics()
    world = eventful(figures)
    play(partial(_every_outcome, world))
    assert len(world.table.worksets) == EACH * len(OUTCOMES)
    ended = all_of(figures, "daylily_worksets_ended_total", "outcome")
    assert set(ended) == {"complete", "failed", "error", "canceled", "ignored"}
    assert all(many >= EACH for many in ended.values())
    assert set(all_of(figures, "daylily_step_seconds_count", "outcome")) == {
        *("done", "tolerated", "failed", "stopped")
    }
    assert len(all_of(figures, "daylily_worksets_ended_total", "code")) <= MOST_CODES + 1
    for call in every_call():
        figures.call(*call)
    for channel in CHANNELS:
        for fate in NoticeFate:
            figures.notice(channel, fate)
    figures.reads = lambda: Instant(now=NOW, status=full_status(), counts=dict.fromkeys(State, 9))
    page = figures.page("")[0].decode()
    assert series(figures) <= MOST_SERIES
    for named in ("failed-7", "lab-7", "own-step"):
        assert named not in page


OUTCOMES: Final = ("complete", "tolerated", "failed", "refused", "canceled", "ignored")
OWN: Final = Pipeline(
    name="own", steps=tuple(StepTemplate(step=f"own-step-{n}", argv=("true",)) for n in range(3))
)


def eventful(figures: Metrics) -> World:
    """Return a world in which the name of a workset decides its fate; each failure has a code of its own."""
    patterns = tuple(
        FailurePattern(f"cause-{n}-", f"SITE-{n:03}", Category.PERMANENT, retry=False)
        for n in range(EACH)
    )
    known = some_engine_settings()
    settings = replace(
        World().engine_settings,
        pipelines={**World().engine_settings.pipelines, "own": OWN},
        policy=a_policy(patterns=(*patterns, *KNOWN)),
        limits=replace(known.limits, slots=200),
    )
    world = World(counting=figures, engine_settings=settings, inputs=ByName())
    world.machine._play = _by_name
    return world


class ByName:
    async def inspect(self, workset: Workset) -> Inspection:
        await anyio.sleep(0.05)
        if workset.id.startswith("refused"):
            return Refused((NO_KEY,))
        own = Plan(pipeline="own", steps=tuple(step.step for step in OWN.steps))
        return Accepted(own if workset.id.endswith("1") else PLAN)


def _by_name(job: Job) -> Script:
    fate, number = job.name.split(".")[0].split("-")
    if fate == "canceled":
        return Script(duration_s=100_000.0)
    if fate == "failed":
        return Script(outcome=Outcome(ended=Ended.EXITED, code=1, tail=f"cause-{number}-"))
    if fate == "tolerated" and job.step == "metrics":
        return Script(outcome=Outcome(ended=Ended.EXITED, code=1))
    return Script()


async def _every_outcome(world: World) -> None:
    names = [f"{fate}-{n}" for n in range(EACH) for fate in OUTCOMES]
    async with daemon(world):
        for name in names:
            await world.submit(name, customer_id=name.replace("-", "lab-"))
            if name.startswith("ignored"):
                await world.ask(name, Ignore())
        await until(lambda: len(world.table.worksets) == len(names))
        for name in names:
            if name.startswith("canceled"):
                await world.ask(name, Cancel())
        await until(lambda: all(ws.state in ENDS for ws in world.table.worksets.values()))


def every_call() -> Iterator[tuple[str, str, CallOutcome, float]]:
    """Yield each operation that stands somewhere in the program, with each outcome it can have."""
    source = "".join(path.read_text() for path in (ROOT / "daylily_daemon").rglob("*.py"))
    session = botocore.session.get_session()
    found = 0
    for service in ("dynamodb", "sqs", "s3", "sns", "sesv2", "cloudwatch"):
        for operation in session.get_service_model(service).operation_names:
            if f".{xform_name(operation)}(" in source:
                found += 1
                for outcome in CallOutcome:
                    yield service, operation, outcome, 0.1
    assert found > 20


def full_status() -> Status:
    ports = [*SERVICES, *(f"channel:{channel}" for channel in CHANNELS)]
    good = Port(good_at=NOW, failing_since=before_now(999), failures=9)
    names = ("intake", "intake-dlq", "commands.fifo", "commands-dlq.fifo")
    return replace(
        STATUS,
        ports=dict.fromkeys(ports, good),
        queues=dict.fromkeys(names, STATUS.queues["q"]),
        channels=dict.fromkeys(CHANNELS, STATUS.channels["slack"]),
        disks=dict.fromkeys(map(str, (Path("/a"), Path("/b"))), STATUS.disks["/fsx"]),
    )
