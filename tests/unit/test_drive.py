"""Driving and tending one workset over a scripted runner: what is repeated, noted, let go, and rested."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import anyio
import pytest
from anyio import current_time

from daylily_daemon.domain.daemon import JobLevel
from daylily_daemon.domain.errors import LeaseLost, Permanent, Transient, Unclear
from daylily_daemon.domain.lifecycle import resume
from daylily_daemon.domain.model import (
    Cancel,
    Command,
    Ended,
    HostLost,
    Job,
    Outcome,
    Plan,
    Progress,
    State,
    WorksetId,
)
from daylily_daemon.domain.pipeline import Pipeline, StepTemplate
from daylily_daemon.domain.run import NOTHING_YET
from daylily_daemon.domain.workset import Workset
from daylily_daemon.engine.backlog import Backlog, BeatObserver
from daylily_daemon.engine.boundary import foreign_as_unexpected
from daylily_daemon.engine.lease import Term
from daylily_daemon.engine.live_settings import LiveSettings
from daylily_daemon.engine.looks import Looks
from daylily_daemon.engine.shepherd import Shepherd, runner_of
from daylily_daemon.engine.tender import Held, Place, Tender
from daylily_daemon.engine.wakeup import Wakeup
from daylily_daemon.ports import Runner
from tests.made import NOW, a_run, a_workset, at_run
from tests.unit.daemons import play
from tests.unit.engine_settings import some_engine_settings
from tests.unit.test_engine_parts import Odd, Store, a_writer, silence
from tests.unit.test_term import LEASE

ID = WorksetId("w1")
GOOD = Outcome(ended=Ended.EXITED, code=0, duration_s=1.0)
BAD = Outcome(ended=Ended.EXITED, code=1, tail="invalid FASTQ")
DEMO = Pipeline(name="demo", steps=(StepTemplate(step="run", argv=("run",)),))
ONE_STEP = Plan(pipeline="demo", steps=("run",))
HELD = replace(
    a_workset("w1", State.IN_PROGRESS, owner="me", run=a_run("run", steps=("run",))),
    plan=ONE_STEP,
    attempt=1,
)

__all__ = ["silence"]


@dataclass
class Scripted:
    """A runner that answers each method as it is told, one answer after another, the last one for ever."""

    answers: dict[str, list[Any]] = field(default_factory=dict)
    calls: list[tuple[str, float, Job]] = field(default_factory=list)
    scope: str = "host:1"

    async def _answer(self, method: str, job: Job, usual: Any) -> Any:
        self.calls.append((method, round(current_time(), 2), job))
        told = self.answers.get(method, [usual])
        one = told.pop(0) if len(told) > 1 else told[0]
        match one:
            case Exception():
                raise one
            case float() as pause_s:
                await anyio.sleep(pause_s)
                return usual
        return one

    async def ensure(self, job: Job) -> None:
        await self._answer("ensure", job, None)

    async def wait(self, job: Job) -> Outcome:
        answer: Outcome = await self._answer("wait", job, GOOD)
        return answer

    async def stop(self, job: Job) -> None:
        await self._answer("stop", job, None)

    async def look(self, job: Job) -> None:
        await self._answer("look", job, None)

    async def progress(self, job: Job) -> Progress | None:
        answer: Progress | None = await self._answer("progress", job, None)
        return answer

    def times(self, method: str) -> list[float]:
        return [at for name, at, _ in self.calls if name == method]


@dataclass(slots=True, kw_only=True)
class Resting(Backlog):
    """Remembers for how long worksets were to be left alone."""

    rests: list[float] = field(default_factory=list)

    def rest(self, id: WorksetId, until: float) -> None:
        self.rests.append(until - current_time())


class Stage:
    def __init__(self, ws: Workset = HELD, **answers: list[Any]) -> None:
        self.runner = Scripted(dict(answers))
        self.store = Store()
        writer = a_writer(self.store)
        self.store.hold(ws)
        runner: Runner = self.runner
        live = LiveSettings(some_engine_settings(pipelines={"demo": DEMO}, progress_interval_s=5.0))
        self.shepherd = Shepherd(runners={"process": runner}, live=live, looks=Looks(live))
        self.backlog = Resting(owner="me", observer=BeatObserver(60.0), index_lag_s=30.0)
        self.wakeup = Wakeup()
        place = Place(runner="process", scope="host:1/state", data_dir="/d", jobs_dir="/j")
        self.tender = Tender(
            writer=writer,
            lease=LEASE,
            place=place,
            shepherd=self.shepherd,
            backlog=self.backlog,
            wakeup=self.wakeup,
            release_s=8.0,
        )

    @property
    def item(self) -> Workset:
        return self.store.table.worksets[ID]

    @asynccontextmanager
    async def looking(self) -> AsyncIterator[None]:
        """Have logs looked into, as a daemon does beside what it tends."""
        with foreign_as_unexpected("a test"):
            async with anyio.create_task_group() as looks:
                looks.start_soon(self.shepherd.looks.run)
                yield
                looks.cancel_scope.cancel()

    async def driven(self) -> Workset:
        term = Term(self.tender.writer, LEASE, self.item, current_time())
        async with self.looking():
            await self.shepherd.drive(term, resume(self.item))
        return self.item

    async def tended(self, ws: Workset | None = None) -> Workset:
        async with self.looking(), anyio.create_task_group() as tg:
            self.tender.take(ws or self.item, tg)
            assert ID in self.tender.held
        assert ID not in self.tender.held
        return self.item


def test_of_each_job_it_is_known_when_it_wrote_last_and_when_it_should_have_ended() -> None:
    async def story() -> None:
        wrote = [None, NOW, NOW + timedelta(days=1)]
        shown = [replace(NOTHING_YET, output_at=at) for at in wrote]
        limited = Stage(wait=[400.0], progress=[None, *shown])
        known: list[JobLevel] = []

        async def look() -> None:
            for at in (6, 12, 19, 300):
                await anyio.sleep(at - current_time())
                known.append(limited.shepherd.looks.worst()[ID])

        async with anyio.create_task_group() as tg:
            tg.start_soon(look)
            await limited.driven()
        assert [level.output_at for level in known] == [None, *wrote]
        began = HELD.run.steps[0].started_at if HELD.run else None
        assert began is None or known[-1].ends_at == began + timedelta(seconds=86_400 + 30)
        assert limited.shepherd.looks.worst() == {}

    play(story)


def test_a_job_is_started_waited_for_and_ends_its_run() -> None:
    async def story() -> None:
        stage = Stage(wait=[21.0])
        assert (await stage.driven()).state is State.COMPLETE
        assert [name for name, *_ in stage.runner.calls if name != "progress"] == ["ensure", "wait"]
        assert stage.runner.calls[0][2].argv == ("run",)
        assert stage.runner.times("progress") == [5.0, 10.0, 15.0, 20.0]

    play(story)


def test_a_failure_is_fatal_as_planned() -> None:
    async def story() -> None:
        assert (await Stage(wait=[BAD]).driven()).state is State.FAILED
        steps = (replace(HELD.run.steps[0], fatal=False),) if HELD.run else ()
        planned = at_run(HELD, steps=steps)
        assert (await Stage(planned, wait=[BAD]).driven()).state is State.COMPLETE

    play(story)


def test_a_call_without_an_answer_is_repeated_with_longer_pauses_and_what_is_in_the_way_is_seen() -> (
    None
):
    async def story() -> None:
        stage = Stage(ensure=[*[Transient("no socket")] * 8, None], wait=[30.0])
        troubles: list[str] = []

        async def look() -> None:
            for pause_s in (100, 150):
                await anyio.sleep(pause_s)
                troubles.append(stage.item.trouble)

        async with anyio.create_task_group() as tg:
            tg.start_soon(look)
            await stage.driven()
        pauses = [round(b - a) for a, b in pairwise(stage.runner.times("ensure"))]
        assert pauses == [2, 4, 8, 16, 32, 60, 60, 60]
        assert troubles == ["no socket", ""], "it is gone as soon as it is over"
        assert stage.item.state is State.COMPLETE

    play(story)


def test_an_old_trouble_is_over_once_the_job_is_seen() -> None:
    async def story() -> None:
        stage = Stage(at_run(HELD, trouble="no runner"), wait=[30.0])
        async with anyio.create_task_group() as tg:
            tg.start_soon(stage.driven)
            await anyio.sleep(5)
            assert stage.item.trouble == ""
        quiet = Stage(wait=[14.0], progress=[Progress(0.5, "half")])
        await quiet.driven()
        assert len(quiet.store.at) == 1, "progress waits for the beat"

    play(story)


def test_a_job_out_of_sight_for_long_is_looked_for_and_only_then_let_go() -> None:
    async def story() -> None:
        await anyio.sleep(1000)
        gone = Stage(wait=[Transient("no answer")], look=[Transient("its host is gone")])
        with pytest.raises(Transient, match="its host is gone"):
            await gone.driven()
        assert gone.runner.times("look")[0] == 1302.0
        there = Stage(wait=[*[Transient("no answer")] * 14, None])
        there.runner.answers["wait"][-1] = GOOD
        assert (await there.driven()).state is State.COMPLETE
        assert len(there.runner.times("look")) > 3

    play(story)


def test_a_run_that_is_unclear_says_so_until_it_is_not() -> None:
    async def story() -> None:
        stage = Stage(wait=[*[Unclear("its shim is gone")] * 5, 20.0])
        seen: list[bool] = []

        async def look() -> None:
            await anyio.sleep(20)
            seen.append(stage.item.unclear)

        async with anyio.create_task_group() as tg:
            tg.start_soon(look)
            await stage.driven()
        assert (seen, stage.item.unclear) == ([True], False)

    play(story)


def test_what_can_never_be_started_is_refused_with_the_reason_that_tells_most() -> None:
    async def story() -> None:
        refused = await Stage(ensure=[Permanent("no such program")]).driven()
        assert "no such program" in refused.error_details
        nameless = replace(HELD, plan=replace(ONE_STEP, pipeline="gone"))
        told = await Stage(nameless, ensure=[Permanent("no argv")]).driven()
        assert "Pipeline 'gone' has no step run any more" in told.error_details

    play(story)


def test_progress_is_noted_when_it_changes_and_what_hides_it_harms_nothing() -> None:
    async def story() -> None:
        half, same = Progress(0.5, "half"), Progress(0.5, "half")
        seen = [Transient("no log"), Permanent("odd"), None, half, same, Progress(0.9, "nearly")]
        stage = Stage(wait=[80.0], progress=list(seen))
        told: list[float | None] = []

        async def look() -> None:
            for _ in range(5):
                await anyio.sleep(14)
                assert stage.item.run is not None
                told.append(stage.item.run.progress.fraction)

        async with anyio.create_task_group() as tg:
            tg.start_soon(look)
            await stage.driven()
        assert told == [None, None, 0.9, 0.9, 0.9], "a beat carries what was seen last"

    play(story)


def test_a_cancel_from_the_inbox_stops_the_job_and_is_obeyed_once() -> None:
    async def story() -> None:
        cancel = Command(id="c", workset_id=ID, by="me", ask=Cancel())
        stage = Stage(replace(HELD, inbox=(cancel,)), wait=[1e9])
        assert (await stage.driven()).state is State.CANCELED
        assert len(stage.runner.times("stop")) == 1
        refused = Stage(replace(HELD, inbox=(cancel,)), wait=[1e9], stop=[Permanent("not ours")])
        assert (await refused.driven()).state is State.CANCELED

    play(story)


def test_a_store_that_does_not_answer_costs_the_lease_and_no_job() -> None:
    async def story() -> None:
        stage = Stage(wait=[1e9])
        stage.store.answers = [Transient("no")] * 1000
        with pytest.raises(LeaseLost, match="w1: the store did not answer in time"):
            await stage.driven()
        assert current_time() == 50.0
        assert stage.runner.times("stop") == []

    play(story)


def test_a_runner_that_is_not_set_up_here_may_be_elsewhere() -> None:
    with pytest.raises(Transient, match="The runner 'process' of this run is not set up"):
        runner_of({}, HELD)
    with pytest.raises(Transient, match="The runner '' of"):
        runner_of({}, a_workset("w1"))


# Tending.


READY = replace(a_workset("w1", customer_id="clinic"), plan=ONE_STEP)


def test_a_ready_workset_is_claimed_driven_and_known_as_it_ended() -> None:
    async def story() -> None:
        stage = Stage(READY)
        ended = await stage.tended()
        assert (ended.state, ended.owner, ended.fence) == (State.COMPLETE, None, 1)
        assert ended.run is not None
        assert (ended.run.folder, ended.run.jobs_dir) == ("/d/w1/r1", "/j/w1/r1")
        assert (ended.run.steps[0].scope, ended.run.key) == ("host:1/state", "n1")

    play(story)


def test_while_it_is_held_people_see_what_it_is_at_and_whose_it_is() -> None:
    async def story() -> None:
        stage = Stage(READY, wait=[30.0], progress=[Progress(0.1, "12 of 120")])
        async with stage.looking(), anyio.create_task_group() as tg:
            stage.tender.take(stage.item, tg)
            held = stage.tender.held[ID]
            assert (held.customer, held.doing) == ("clinic", "")
            assert stage.tender.poke(ID)
            await anyio.sleep(1)
            assert held.doing == "run"
            await anyio.sleep(15)
            assert held.doing == "run 12 of 120"
            assert stage.tender.poke(ID)
        assert not stage.tender.poke(ID)
        assert Held("x").doing == ""

    play(story)


@pytest.mark.parametrize(
    ("scope", "sees", "beside"),
    [
        ("host:1/state", True, False),
        ("host:1/other", True, True),
        ("host:1", False, False),
        ("host:2/state", False, False),
        ("old", True, False),
        ("host:10/state", False, False),
    ],
)
def test_a_place_sees_its_own_machine_under_every_name_and_no_other(
    scope: str, sees: bool, beside: bool
) -> None:
    place = Place(
        runner="r",
        scope="host:1/state",
        data_dir="/d",
        jobs_dir="/j",
        former_scopes=frozenset({"old"}),
    )
    assert (place.sees(scope), place.is_beside(scope)) == (sees, beside)
    bare = replace(place, scope="host:1", former_scopes=frozenset())
    assert not bare.is_beside("host:1/other")


LEFT = at_run(
    replace(HELD, lock=None), steps=a_run("run", steps=("run",), scope="host:1/state").steps
)
BESIDE = at_run(LEFT, steps=a_run("run", steps=("run",), scope="host:1/other", jobs_dir="/k").steps)


def test_a_run_in_progress_is_looked_at_before_it_is_claimed() -> None:
    async def story() -> None:
        stage = Stage(LEFT)
        assert (await stage.tended()).state is State.COMPLETE
        assert stage.runner.times("look") == [0.0]
        beside = Stage(BESIDE, wait=[5.0])
        async with anyio.create_task_group() as tg:
            beside.tender.take(BESIDE, tg)
            await anyio.sleep(1)
            assert beside.item.step is not None
            assert beside.item.step.place == "/k/1-run", "it stays where it is"
            assert beside.item.step.scope == "host:1/other"

    play(story)


def test_a_run_that_cannot_be_looked_at_is_left_alone_for_a_while_and_says_why() -> None:
    async def story() -> None:
        stage = Stage(LEFT, look=[Transient("its socket is gone")])
        left = await stage.tended()
        assert (left.owner, left.fence, left.trouble) == (None, 0, "its socket is gone")
        assert stage.backlog.rests == [30.0]

    play(story)


def test_a_run_that_cannot_be_looked_at_is_given_up_where_somebody_vouches_for_its_end() -> None:
    async def story() -> None:
        vouching = Command(id="v", workset_id=ID, by="me", ask=HostLost())
        stage = Stage(replace(LEFT, inbox=(vouching,)), look=[Transient("gone")])
        assert (await stage.tended()).state is State.READY

    play(story)


def test_a_lease_is_given_back_when_the_daemon_ends_and_for_so_long_and_no_longer() -> None:
    async def story() -> None:
        stage = Stage(READY, wait=[1e9])
        async with anyio.create_task_group() as tg:
            stage.tender.take(stage.item, tg)
            await anyio.sleep(5)
            tg.cancel_scope.cancel()
        assert stage.item.owner is None
        assert stage.item.state is State.IN_PROGRESS
        silent = Stage(READY, wait=[1e9])
        async with anyio.create_task_group() as tg:
            silent.tender.take(silent.item, tg)
            await anyio.sleep(5)
            silent.store.answers = [100.0]
            tg.cancel_scope.cancel()
        assert silent.item.owner == "me"
        assert current_time() == 5 + 5 + 5, "a write is heard out for 5 s, which is less than 8"

    play(story)


def test_a_workset_whose_shepherd_breaks_rests_longer_each_time() -> None:
    async def story() -> None:
        stage = Stage(READY, ensure=[Odd("never seen")])
        rests = stage.backlog.rests
        for _ in range(8):
            await stage.tended()
        assert rests == [30, 60, 120, 240, 480, 960, 1800, 1800]
        assert "never seen" in stage.item.trouble
        stage.runner.answers["ensure"] = [None]
        await stage.tended()
        stage.store.table.records.clear()
        stage.store.hold(READY)
        stage.runner.answers["ensure"] = [Odd("again")]
        await stage.tended()
        assert rests[-1] == 30

    play(story)
