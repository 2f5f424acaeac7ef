"""Asking is not having: what is sent, what is refused beforehand, and what is waited for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

import anyio
import pytest

from daylily_daemon.application import requests
from daylily_daemon.application.errors import Invalid, NoEffect, NotFound
from daylily_daemon.application.requests import Followed, Submission
from daylily_daemon.domain.errors import Transient
from daylily_daemon.domain.model import (
    Answer,
    Ask,
    Cancel,
    Command,
    CommandEffect,
    Ignore,
    Priority,
    State,
    Submit,
    WorksetId,
)
from daylily_daemon.domain.workset import Workset
from daylily_daemon.ports import Unanswered
from tests.fakes.store import MemoryTrail, Table
from tests.made import a_workset, running
from tests.unit.backends import WELL, MemoryQueues, a_backend, played, stored

AT = datetime(2026, 3, 4, tzinfo=UTC)
ID = WorksetId("HG002")


def _answer(effect: CommandEffect) -> Answer:
    return Answer(command_id="c", effect=effect, text="a sentence", at=AT)


def _command(ask: Ask | None = None) -> Command:
    return Command(id="c", workset_id=ID, by="me", ask=ask or Ignore())


# --- ask ----------------------------------------------------------------------------------------------


def test_what_is_asked_is_sent_and_changes_nothing_by_itself() -> None:
    table, queues = Table(), MemoryQueues()

    async def play() -> Command:
        await stored(table, a_workset(ID))
        return await requests.ask(a_backend(table, queues), ID, Cancel(reason="why"), "me")

    command = played(play)
    assert queues.sent == [command]
    assert (command.workset_id, command.by, command.ask) == (ID, "me", Cancel(reason="why"))
    assert table.worksets[ID].state is State.READY


def test_nothing_is_sent_for_what_does_not_exist() -> None:
    queues = MemoryQueues(waiting=Unanswered(commands=1, events=2))
    backend = a_backend(Table(), queues)
    with pytest.raises(NotFound, match="answered 1 command and 2 S3 events in the queues yet"):
        played(lambda: requests.ask(backend, ID, Cancel(), "me"))
    queues.gone = Transient("AWS is away.")
    with pytest.raises(NotFound, match=r"There is no workset HG002\. .* those there are\.$"):
        played(lambda: requests.ask(backend, ID, Cancel(), "me"))
    with pytest.raises(Invalid, match="is no workset id"):
        played(lambda: requests.ask(backend, "../x", Cancel(), "me"))
    assert queues.sent == []


# --- answers ------------------------------------------------------------------------------------------


@dataclass
class Late(MemoryTrail):
    """Says what is due by the loop's clock."""

    due: dict[float, CommandEffect]
    looks: int = 0

    async def answer_to(self, id: WorksetId, command_id: str) -> Answer | None:
        assert (id, command_id) == (ID, "c")
        self.looks += 1
        said = [effect for at, effect in self.due.items() if anyio.current_time() >= at]
        return _answer(said[-1]) if said else None


def _waited(due: dict[float, CommandEffect], timeout_s: float | None) -> tuple[Followed, float]:
    async def play() -> tuple[Followed, float]:
        began = anyio.current_time()
        trail = Late({began + at: effect for at, effect in due.items()})
        backend = a_backend(Table(), trail=trail)
        outcome = await requests.answer_to(backend, _command(), timeout_s)
        assert trail.looks <= 4 + anyio.current_time() - began
        return outcome, anyio.current_time() - began

    return played(play)


def test_an_answer_is_waited_for_until_nothing_more_will_be_said() -> None:
    due = {5.0: CommandEffect.QUEUED, 40.0: CommandEffect.APPLIED}
    outcome, took_s = _waited(due, 60)
    assert outcome.is_settled
    assert outcome.hint == ""
    assert 40 <= took_s < 42


@pytest.mark.parametrize(
    ("due", "last"), [({}, None), ({5.0: CommandEffect.QUEUED}, CommandEffect.QUEUED)]
)
def test_the_time_limit_ends_the_waiting_with_what_was_said_last(
    due: dict[float, CommandEffect], last: CommandEffect | None
) -> None:
    outcome, took_s = _waited(due, 60)
    assert (outcome.answer and outcome.answer.effect) == last
    assert not outcome.is_settled
    assert ("No daemon has run" in outcome.hint) == (last is None)
    assert took_s == pytest.approx(60, abs=1)


def test_stopping_is_waited_for_within_the_same_time_limit_and_only_by_a_cancel() -> None:
    table = Table()
    stopping = running(ID, stopping="canceled by me")

    async def play() -> tuple[Followed, Followed, Followed]:
        await stored(table, stopping)
        await MemoryTrail(table).answer(ID, _answer(CommandEffect.APPLIED))
        backend = a_backend(table)
        other = await requests.answer_to(backend, _command(), 5)
        began = anyio.current_time()
        early = await requests.answer_to(backend, _command(Cancel()), 5)
        assert anyio.current_time() - began == pytest.approx(5, abs=0.1)
        async with anyio.create_task_group() as tg:
            tg.start_soon(stop)
            late = await requests.answer_to(backend, _command(Cancel()), None)
        return other, early, late

    async def stop() -> None:
        await anyio.sleep(30)
        await stored(table, a_workset(ID, State.CANCELED))

    other, early, late = played(play)
    assert not other.is_stopping
    assert early.is_stopping
    assert not late.is_stopping
    assert late.workset is not None
    assert late.workset.state is State.CANCELED


def test_the_time_limit_of_a_cancel_is_one_for_its_answer_and_its_job() -> None:
    table = Table()

    async def play() -> float:
        await stored(table, running(ID, stopping="canceled by me"))
        began = anyio.current_time()
        trail = Late({began + 4: CommandEffect.APPLIED})
        backend = a_backend(table, trail=trail)
        outcome = await requests.answer_to(backend, _command(Cancel()), 6)
        assert outcome.is_stopping
        return anyio.current_time() - began

    assert played(play) == pytest.approx(6, abs=0.1)


# --- submit -------------------------------------------------------------------------------------------

SUBMISSION = Submission(id=ID, by="me")


def _submitted(ws: Workset | None, submission: Submission = SUBMISSION) -> list[Command]:
    """Return what was sent for a submission that finds ``ws``."""
    table, queues = Table(), MemoryQueues()

    async def play() -> None:
        await stored(table, *([ws] if ws else []))
        await requests.submit(a_backend(table, queues), submission)

    played(play)
    return queues.sent


@pytest.mark.parametrize("state", list(State))
def test_a_submission_is_refused_beforehand_exactly_where_it_would_have_no_effect(
    state: State,
) -> None:
    ws = running(ID, owner="x") if state is State.IN_PROGRESS else a_workset(ID, state)
    refused = {State.IN_PROGRESS, State.COMPLETE, State.ARCHIVED, State.DELETED}
    if state not in refused:
        assert len(_submitted(ws)) == 1
        return
    with pytest.raises(NoEffect, match=r"Nothing was submitted: .* had no effect: it is"):
        _submitted(ws)


def test_a_name_that_belongs_to_another_customer_is_refused_beforehand() -> None:
    ws = a_workset(ID, State.ERROR, customer_id="lab-7")
    assert _submitted(ws, replace(SUBMISSION, customer="lab-7"))
    assert _submitted(ws)
    assert _submitted(None, replace(SUBMISSION, customer="lab-8"))
    with pytest.raises(NoEffect, match="another customer"):
        _submitted(ws, replace(SUBMISSION, customer="lab-8"))


def test_a_submission_names_its_folder_of_the_control_bucket() -> None:
    (command,) = _submitted(None, replace(SUBMISSION, customer="lab-7", priority=Priority.LOW))
    assert command.ask == Submit(
        bucket="lab", prefix="worksets/HG002/", customer_id="lab-7", priority=Priority.LOW
    )


def test_nothing_is_uploaded_for_what_is_refused_nor_sent_for_what_changed_meanwhile() -> None:
    table, queues = Table(), MemoryQueues()
    uploads: list[str] = []

    async def upload(uri: str) -> None:
        uploads.append(uri)
        await stored(table, running(ID, owner="x"))

    async def play() -> None:
        for _ in range(2):
            with pytest.raises(NoEffect):
                await requests.submit(a_backend(table, queues), SUBMISSION, upload)

    played(play)
    assert uploads == ["s3://lab/worksets/HG002/"]
    assert queues.sent == []


@pytest.mark.parametrize("uri", ["s3://lab/worksets/HG002/", "s3://lab/worksets/HG002"])
def test_a_folder_of_the_control_bucket_is_a_workset(uri: str) -> None:
    assert requests.in_control_bucket(a_backend(Table()), uri) == ID


@pytest.mark.parametrize(
    "uri", ["s3://other/worksets/HG002/", "s3://lab/HG002/", "s3://lab/worksets/a/b/", "s3://lab/"]
)
def test_no_other_address_is_a_workset(uri: str) -> None:
    with pytest.raises(Invalid, match="must be s3://lab/worksets/<workset>/"):
        requests.in_control_bucket(a_backend(Table()), uri)


def _ended(effect: CommandEffect | None, *states: State) -> Followed:
    """Return what becomes of a submission whose workset is in each of ``states`` for ten seconds."""
    table = Table()

    async def pass_through() -> None:
        for state in states:
            await stored(table, a_workset(ID, state))
            await anyio.sleep(10)

    async def play() -> Followed:
        if effect:
            await MemoryTrail(table).answer(ID, _answer(effect))
        async with anyio.create_task_group() as tg:
            tg.start_soon(pass_through)
            await anyio.sleep(0.1)
            outcome = await requests.end_of(a_backend(table, sighting=lambda _: WELL), COMMAND, 60)
            tg.cancel_scope.cancel()
        return outcome

    return played(play)


COMMAND = _command(Submit(bucket="lab", prefix="worksets/HG002/"))


def test_the_end_of_what_was_submitted_is_waited_for() -> None:
    outcome = _ended(CommandEffect.APPLIED, State.READY, State.IN_PROGRESS, State.COMPLETE)
    assert outcome.workset is not None
    assert outcome.workset.state is State.COMPLETE


def test_what_was_refused_or_not_answered_has_no_end_to_wait_for() -> None:
    refused = _ended(CommandEffect.REFUSED, State.READY, State.COMPLETE)
    assert refused.workset is not None
    assert refused.workset.state is State.READY
    silent = _ended(None, State.READY)
    assert (silent.answer, silent.hint) == (None, "")
