"""One term of a lease on a virtual clock: when it beats, what a beat carries, and what ends it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import anyio
import pytest
from anyio import current_time, sleep

from daylily_daemon.domain.decision import RunJob
from daylily_daemon.domain.errors import Fenced, Transient
from daylily_daemon.domain.events import Claimed, Commanded, JobExited
from daylily_daemon.domain.model import (
    Cancel,
    Command,
    Ended,
    Fence,
    JobName,
    Outcome,
    Plan,
    Progress,
    SetPriority,
    State,
    WorksetId,
)
from daylily_daemon.domain.model import Priority as P
from daylily_daemon.domain.remarks import Remarks
from daylily_daemon.domain.workset import Workset
from daylily_daemon.engine.lease import LeaseConfig, Term, claim
from daylily_daemon.ports import Conflict
from tests.made import NOW, a_workset, at_run, running
from tests.unit.daemons import play
from tests.unit.test_engine_parts import Store, Watch, a_writer

LEASE = LeaseConfig(ttl_s=60.0, margin_s=10.0, beat_s=15.0)
JOB = JobName("w1.1.run")
HELD = replace(
    running("w1", owner="me"), plan=Plan(pipeline="demo", steps=("run",)), fence=Fence(3)
)
LOW = Command(id="c1", workset_id=WorksetId("w1"), by="you", ask=SetPriority(priority=P.LOW))


def halfway(fraction: float) -> Remarks:
    return Remarks(progress=Progress(fraction, "halfway"))


class Stage:
    """A term of a workset, and the store behind it."""

    def __init__(self, ws: Workset = HELD) -> None:
        self.store, self.watch = Store(), Watch()
        writer = replace(a_writer(self.store), clock=self.watch)
        self.term = Term(writer, LEASE, self.store.hold(ws), current_time())
        self.commands: list[Command] = []
        self.term.on_command = self.commands.append

    @property
    def item(self) -> Workset:
        return self.store.table.worksets[WorksetId("w1")]

    def by_somebody_else(self, **changes: Any) -> None:
        self.store.table.worksets[self.item.id] = replace(
            self.item, version=self.item.version + 1, **changes
        )
        self.store.table.nonces[self.item.id] = "other"

    async def keeping(self, act: Callable[[], Awaitable[None]], for_s: float) -> list[float]:
        """Keep the term for so long while something else is done; return when it wrote."""
        with anyio.move_on_after(for_s):
            async with anyio.create_task_group() as tg:
                tg.start_soon(self.term.keep)
                await act()
        return [round(at, 2) for at in self.store.at]


async def nothing() -> None:
    """Do nothing meanwhile."""


def test_a_term_is_trusted_for_the_ttl_without_the_margin_from_before_the_request() -> None:
    async def story() -> None:
        await sleep(5)
        stage = Stage()
        assert stage.term.trusted.deadline == 55.0
        stage.store.answers = [4.0]
        await stage.term.apply(Commanded(LOW))
        assert (current_time(), stage.term.trusted.deadline) == (9.0, 55.0), "as of the request"

    play(story)


def test_a_quiet_term_beats_every_beat_and_each_beat_is_seen_in_the_item() -> None:
    async def story() -> None:
        stage = Stage()
        stage.watch.at = NOW + timedelta(seconds=7)
        assert await stage.keeping(nothing, 50) == [15.0, 30.0, 45.0]
        assert stage.item.beat == 3
        assert stage.item.lock is not None
        assert stage.item.lock.expires_at == NOW + timedelta(seconds=67)
        assert stage.term.trusted.deadline == 95.0

    play(story)


def test_every_write_of_the_holder_is_a_beat_and_the_next_one_waits_from_there() -> None:
    async def story() -> None:
        stage = Stage()

        async def act() -> None:
            await sleep(10)
            await stage.term.apply(Commanded(LOW))

        assert await stage.keeping(act, 30) == [10.0, 25.0]
        assert stage.item.beat == 2

    play(story)


def test_progress_hurries_a_beat_but_no_faster_than_allowed_and_is_written_once() -> None:
    async def story() -> None:
        stage = Stage()

        async def act() -> None:
            for number in range(40):
                stage.term.note(JOB, halfway(number / 100))
                await sleep(0.1)

        assert await stage.keeping(act, 18) == [1.0, 2.0, 3.0, 4.0]
        assert stage.item.run is not None
        assert stage.item.run.progress.fraction == 0.39

    play(story)


def test_what_is_in_no_hurry_waits_for_the_beat_and_goes_with_it() -> None:
    async def story() -> None:
        stage = Stage()
        stage.term.note(JOB, Remarks(confirmed=JOB), eager=False)
        stage.term.note(JOB, Remarks(trouble="odd"), eager=False)
        assert await stage.keeping(nothing, 16) == [15.0]
        assert stage.item.run is not None
        assert (stage.item.run.confirmed, stage.item.trouble) == (JOB, "odd")

    play(story)


def test_remarks_of_another_job_are_dropped_with_it() -> None:
    async def story() -> None:
        stage = Stage()
        stage.term.note(JobName("w1.1.stage"), Remarks(trouble="old"))
        stage.term.note(JOB, halfway(0.5))
        await stage.keeping(nothing, 2)
        assert stage.item.trouble == ""
        assert stage.item.run is not None
        assert stage.item.run.progress.fraction == 0.5

    play(story)


def test_a_remark_that_comes_during_a_beat_goes_with_the_next_one() -> None:
    async def story() -> None:
        stage = Stage()
        stage.term.note(JOB, halfway(0.1))
        stage.store.answers = [0.5]

        async def act() -> None:
            await sleep(1.2)
            stage.term.note(JOB, Remarks(trouble="meanwhile"))

        assert await stage.keeping(act, 14) == [1.0, 2.0]
        assert stage.item.trouble == "meanwhile"

    play(story)


def test_a_poke_is_followed_at_once_and_a_flood_of_them_is_bounded() -> None:
    async def story() -> None:
        stage = Stage()

        async def act() -> None:
            await sleep(5)
            for _ in range(30):
                stage.term.poke()
                await sleep(0.01)

        at = await stage.keeping(act, 14)
        assert at[0] == 5.0
        assert len(at) <= 8
        assert all(round(later - sooner, 2) >= 0.05 for sooner, later in pairwise(at))

    play(story)


def test_a_command_in_the_inbox_is_handed_over_and_the_decision_made_again_on_what_is_there() -> (
    None
):
    async def story() -> None:
        stage = Stage()
        stage.by_somebody_else(inbox=(LOW,))
        effects = await stage.term.apply(JobExited(JOB, Outcome(ended=Ended.EXITED, code=0)))
        assert stage.commands == [LOW]
        assert effects[0] == RunJob(JOB), "what follows from what was missed"
        assert stage.item.run is not None
        assert stage.item.run.steps[1].is_done
        assert stage.term.workset == stage.item

    play(story)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"fence": 4}, "claimed by another daemon"),
        ({"lock": None}, "changed by hand"),
        ({"state": State.CANCELED}, "changed by hand"),
        ({"lock": a_workset(owner="b").lock}, "changed by hand"),
    ],
)
def test_a_term_ends_where_the_item_is_not_its_own_any_more(
    changes: dict[str, object], told: str
) -> None:
    async def story() -> None:
        stage = Stage()
        stage.by_somebody_else(**changes)
        with pytest.raises(Fenced, match=told):
            await stage.term.apply(Commanded(LOW))
        assert stage.commands == []
        again = Stage()
        again.by_somebody_else(**changes)
        with pytest.raises(Fenced, match=told):
            await again.term.release()

    play(story)


def test_a_term_ends_where_the_item_was_removed() -> None:
    async def story() -> None:
        stage = Stage()
        stage.store.answers = [Conflict(None)]
        with pytest.raises(Fenced, match="removed"):
            await stage.term.apply(Commanded(LOW))

    play(story)


def test_a_beat_without_an_answer_is_repeated_and_trust_runs_out_meanwhile() -> None:
    async def story() -> None:
        stage = Stage()
        stage.store.answers = [Transient("no answer")] * 100
        at = await stage.keeping(nothing, 40)
        assert at[:3] == [15.0, 16.0, 17.0]
        assert stage.term.trusted.deadline == 50.0

    play(story)


def test_a_term_is_released_with_what_was_seen_last_and_only_a_change_in_between_is_tried_again() -> (
    None
):
    async def story() -> None:
        stage = Stage()
        stage.term.note(JOB, Remarks(trouble="at last"), eager=False)
        stage.by_somebody_else(priority=P.LOW)
        await stage.term.release()
        assert (stage.item.owner, stage.item.trouble, stage.item.priority) == (
            None,
            "at last",
            P.LOW,
        )
        assert stage.term.workset == stage.item
        assert len(stage.store.changes) == 2
        unlucky = Stage()
        unlucky.store.answers = [Conflict(HELD), Conflict(HELD)]
        await unlucky.term.release()
        assert unlucky.item.owner == "me"
        silent = Stage()
        silent.store.answers = [Transient("no answer")]
        with pytest.raises(Transient):
            await silent.term.release()

    play(story)


CLAIM = Claimed(
    owner="me",
    key="k",
    runner="r",
    scope="s",
    data_dir="/d",
    jobs_dir="/j",
    ttl_s=60.0,
    sees_job=True,
)


def test_a_claim_is_a_term_from_before_it_was_asked_for_with_what_is_to_be_done() -> None:
    async def story() -> None:
        store = Store(answers=[3.0])
        left = store.hold(replace(at_run(running("w1")), fence=Fence(1)))
        taken = await claim(a_writer(store), LEASE, left, CLAIM)
        assert taken is not None
        term, effects = taken
        assert (term.trusted.deadline, term.workset.fence, effects) == (50.0, 2, (RunJob(JOB),))
        term.on_command(LOW)

    play(story)


def test_nothing_is_claimed_that_is_not_due_or_was_taken() -> None:
    async def story() -> None:
        store = Store()
        assert await claim(a_writer(store), LEASE, store.hold(a_workset("w1")), CLAIM) is None
        store.answers = [Conflict(HELD)]
        assert await claim(a_writer(store), LEASE, store.hold(running("w1")), CLAIM) is None
        store.answers = [Transient("perhaps")]
        with suppress(Transient):
            await claim(a_writer(store), LEASE, store.hold(running("w1")), CLAIM)
            raise AssertionError("an outcome that is unknown was taken for a no")

    play(story)


def test_a_cancel_is_among_what_a_term_decides() -> None:
    async def story() -> None:
        stage = Stage()
        await stage.term.apply(Commanded(replace(LOW, ask=Cancel(reason="no"))))
        assert stage.item.run is not None
        assert stage.item.run.stopping == "canceled by you: no"

    play(story)
