"""Traces as a projection of the audit trail of whole daemons, and what a job knows of its own span."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from daylily_daemon.domain.model import (
    Cancel,
    Ended,
    Job,
    Outcome,
    Record,
    RecordType,
    Retry,
    State,
    WorksetId,
)
from daylily_daemon.domain.tracing import TraceSpan, ends_a_run, spans_of, trace_id, traceparent
from daylily_daemon.engine.shepherd import run_environment
from tests.fakes.runner import Script
from tests.made import asked, running
from tests.unit.daemons import STEPS, World, daemon, play, until

FAILED = Outcome(ended=Ended.EXITED, code=1)
TIMED_OUT = Outcome(ended=Ended.TIMED_OUT)


def trail_of(world: World, id: str = "w1") -> Sequence[Record]:
    return world.table.records[WorksetId(id)]


def traces(world: World, id: str = "w1") -> list[tuple[TraceSpan, ...]]:
    """Return what would be sent, one after another."""
    trail = trail_of(world, id)
    return [spans_of(trail, record) for record in trail if ends_a_run(record)]


def names(spans: Sequence[TraceSpan]) -> list[str]:
    return [f"{span.attributes.get('daylily.attempt', '')} {span.name}".strip() for span in spans]


async def lived(world: World, *states: State, again: Retry | Cancel | None = None) -> None:
    """Submit w1 and wait for the first state; then ask, and wait for the next one."""
    async with daemon(world):
        await world.submit("w1")
        await until(lambda: bool(world.table.worksets))
        await until(lambda: world.workset("w1").state is states[0])
        for state in states[1:]:
            await world.ask("w1", again)
            await until(lambda state=state: world.workset("w1").state is state)  # type: ignore[misc]


def test_a_run_without_trouble_is_a_wait_and_its_steps() -> None:
    world = World()
    world.machine._play = lambda job: Script(duration_s=40.0)
    play(partial(lived, world, State.COMPLETE))
    ((whole, *parts),) = traces(world)
    assert names([whole, *parts]) == ["workset w1", "1 wait", *(f"1 step {s}" for s in STEPS)]
    assert not whole.failed
    assert {span.parent for span in parts} == {whole.id}
    steps = parts[1:]
    assert all(39 < (span.ended - span.began).total_seconds() < 45 for span in steps)
    assert [span.began for span in steps[1:]] == [span.ended for span in steps[:-1]]
    assert (whole.began, whole.ended) == (parts[0].began, parts[-1].ended)
    assert whole.attributes["daylily.state"] == "complete"
    assert whole.attributes["daylily.run"] == "r1"


def test_a_step_that_may_fail_is_a_failed_span_of_a_run_that_went_well() -> None:
    world = World()
    world.machine._play = lambda job: Script(outcome=FAILED) if job.step == "metrics" else Script()
    play(partial(lived, world, State.COMPLETE))
    ((whole, *parts),) = traces(world)
    assert not whole.failed
    (failed,) = [span for span in parts if span.failed]
    assert failed.name == "step metrics"
    assert failed.attributes["daylily.code"] == "WS-UNK-000"


def test_a_run_that_is_tried_again_and_fails_for_good_is_one_trace_and_its_retry_adds_to_it() -> (
    None
):
    world = World()
    world.machine._play = _run_fails_twice
    play(partial(lived, world, State.FAILED, State.COMPLETE, again=Retry()))
    first, second = traces(world)
    assert names(first) == [
        *("workset w1", "1 wait", "1 step stage", "1 step run", "2 wait", "2 step run"),
    ]
    assert [span.name for span in first[1:] if span.failed] == ["step run", "step run"]
    assert first[0].failed
    assert {span.id for span in first} < {span.id for span in second}
    assert {span.trace for span in (*first, *second)} == {first[0].trace}
    assert names(second)[6:] == [
        *("3 wait", "3 step run", "3 step export", "3 step metrics", "3 step cleanup"),
    ]
    assert not second[0].failed


def _run_fails_twice(job: Job) -> Script:
    _, attempt, step = job.name.split(".")
    if step != "run" or attempt == "3":
        return Script()
    return Script(outcome=FAILED if attempt == "1" else TIMED_OUT)


def test_a_run_from_the_start_is_another_trace() -> None:
    world = World()
    world.machine._play = lambda job: Script(outcome=TIMED_OUT) if ".1." in job.name else Script()
    play(partial(lived, world, State.FAILED, State.COMPLETE, again=Retry(from_start=True)))
    first, second = traces(world)
    assert first[0].trace != second[0].trace
    assert not {span.id for span in first} & {span.id for span in second}
    assert second[0].began >= first[0].ended, "it waits from the retry on"
    assert names(second)[1] == "2 wait"


def test_what_is_asked_of_a_workset_that_waits_does_not_shorten_its_wait() -> None:
    world = World()
    play(partial(lived, world, State.COMPLETE))
    ready, claimed, *rest = trail_of(world)
    assert claimed.state is State.IN_PROGRESS
    asked_at = ready.at + (claimed.at - ready.at) / 2
    noted = replace(ready, seq=2, at=asked_at, previous=State.READY, type=RecordType.COMMAND)
    later = [replace(record, seq=record.seq + 1) for record in (claimed, *rest)]
    (whole, wait, *_) = spans_of([ready, noted, *later], later[-1])
    assert whole.began == wait.began == ready.at


def test_a_run_that_is_canceled_ends_with_the_step_that_was_stopped() -> None:
    world = World()
    world.machine._play = lambda job: Script(duration_s=4000.0)

    async def story() -> None:
        async with daemon(world):
            await world.submit("w1")
            await until(lambda: bool(world.machine.running()))
            await world.ask("w1", Cancel(reason="a typo"))
            await until(lambda: world.workset("w1").state is State.CANCELED)

    play(story)
    ((whole, *parts),) = traces(world)
    assert names(parts) == ["1 wait", "1 step stage"]
    assert parts[-1].failed
    assert whole.failed


def test_a_job_knows_its_span_before_that_has_ended() -> None:
    world = World()
    known: dict[str, str] = {}

    def noted(job: Job) -> Script:
        known[job.step] = job.environment["TRACEPARENT"]
        return Script()

    world.machine._play = noted
    play(partial(lived, world, State.COMPLETE))
    ((whole, *parts),) = traces(world)
    steps = {span.name.removeprefix("step "): span for span in parts[1:]}
    assert known == {name: f"00-{whole.trace}-{span.id}-01" for name, span in steps.items()}


def test_a_trail_of_a_daemon_before_this_one_makes_no_trace_and_harms_nothing() -> None:
    world = World()
    play(partial(lived, world, State.COMPLETE))
    bare = [
        Record(
            workset_id=r.workset_id,
            seq=r.seq,
            at=r.at,
            type=r.type,
            state=r.state,
            previous=r.previous,
        )
        for r in trail_of(world)
    ]
    assert spans_of(bare, bare[-1]) == ()
    odd = [r for r in bare if r.type is not RecordType.STEP]
    assert spans_of(odd, odd[-1]) == ()


def test_two_labs_with_the_same_names_have_other_traces() -> None:
    ours, theirs = (trace_id(bucket, WorksetId("HG002"), "r1") for bucket in ("ours", "theirs"))
    assert ours != theirs
    assert len(ours) == 32


def test_the_environment_of_a_step_names_its_span() -> None:
    ws = asked(running("HG002", "stage", folder="/f"), bucket="lab")
    assert run_environment(ws)["TRACEPARENT"] == traceparent(ws)
    version, trace, span, flags = traceparent(ws).split("-")
    assert (version, len(trace), len(span), flags) == ("00", 32, 16, "01")
