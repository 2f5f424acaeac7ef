"""Asking is not having: what the commands that ask for something make of the answers there are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import anyio
import pytest

from daylily_daemon.cli.asking import (
    Outcome,
    answered,
    check_wait,
    command_for,
    is_settled,
    stopped,
)
from daylily_daemon.cli.options import Exit, Failed, Usage
from daylily_daemon.cli.submit import check_effect
from daylily_daemon.domain.model import (
    Answer,
    Ask,
    Cancel,
    Command,
    CommandEffect,
    Ignore,
    State,
    Submit,
    WorksetId,
)
from daylily_daemon.domain.workset import Workset
from tests.made import a_workset, running
from tests.sim.vclock import BACKEND

AT = datetime(2026, 3, 4, tzinfo=UTC)
ID = WorksetId("HG002")


def _answer(effect: CommandEffect) -> Answer:
    return Answer(command_id="c", effect=effect, text="a sentence", at=AT)


def _command(ask: Ask | None = None) -> Command:
    return replace(command_for(ID, ask or Ignore()), id="c")


@dataclass
class Answers:
    """Says what is due by the loop's clock."""

    due: dict[float, CommandEffect]
    looks: int = 0

    async def answer_to(self, id: WorksetId, command_id: str) -> Answer | None:
        assert (id, command_id) == (ID, "c")
        self.looks += 1
        said = [effect for at, effect in self.due.items() if anyio.current_time() >= at]
        return _answer(said[-1]) if said else None


@dataclass
class Worksets:
    at: Callable[[], Workset]

    async def load(self, id: WorksetId) -> Workset | None:
        assert id == ID
        return self.at()


def _waited(due: dict[float, CommandEffect], timeout_s: float | None) -> tuple[object, float]:
    async def play() -> tuple[object, float]:
        began = anyio.current_time()
        answers = Answers({began + at: effect for at, effect in due.items()})
        answer = await answered(answers, _command(), timeout_s, is_settled)
        assert answers.looks <= 4 + anyio.current_time() - began
        return answer and answer.effect, anyio.current_time() - began

    return anyio.run(play, backend_options=BACKEND)


def test_an_answer_is_waited_for_until_nothing_more_will_be_said() -> None:
    due = {5.0: CommandEffect.QUEUED, 40.0: CommandEffect.APPLIED}
    effect, took_s = _waited(due, 60)
    assert effect is CommandEffect.APPLIED
    assert 40 <= took_s < 42


@pytest.mark.parametrize(
    ("due", "last"), [({}, None), ({5.0: CommandEffect.QUEUED}, CommandEffect.QUEUED)]
)
def test_the_time_limit_ends_the_waiting_with_what_was_said_last(
    due: dict[float, CommandEffect], last: CommandEffect | None
) -> None:
    effect, took_s = _waited(due, 60)
    assert effect is last
    assert took_s == pytest.approx(60, abs=1)


@pytest.mark.reported("E", "a cancel of nothing ends with 0 (receptor#441)")
@pytest.mark.parametrize(
    ("effect", "code"),
    [
        (None, Exit.NOT_REACHABLE),
        (CommandEffect.QUEUED, Exit.NOT_REACHABLE),
        (CommandEffect.NONE, Exit.FAILED),
        (CommandEffect.REFUSED, Exit.FAILED),
        (CommandEffect.APPLIED, Exit.OK),
    ],
)
def test_the_exit_code_is_0_only_for_an_effect(effect: CommandEffect | None, code: Exit) -> None:
    outcome = Outcome(_command(), _answer(effect) if effect else None)
    assert outcome.code is code


@pytest.mark.reported("E", "a cancel says succeeded while everything runs on (homeboy#12579)")
def test_a_cancel_whose_job_has_not_ended_is_no_success() -> None:
    ws = running(ID, stopping="canceled by me")
    applied = _answer(CommandEffect.APPLIED)
    assert Outcome(_command(Cancel()), applied, ws).code is Exit.NOT_REACHABLE
    assert Outcome(_command(Cancel()), applied, a_workset(ID, State.CANCELED)).code is Exit.OK
    assert Outcome(_command(Ignore()), applied, ws).code is Exit.OK


def test_stopping_is_waited_for_and_only_that() -> None:
    stopping = running(ID, stopping="canceled by me")

    async def play() -> tuple[Workset | None, Workset | None]:
        end = anyio.current_time() + 30
        worksets = Worksets(
            lambda: stopping if anyio.current_time() < end else a_workset(ID, State.CANCELED)
        )
        return await stopped(worksets, ID, 5), await stopped(worksets, ID, None)

    early, late = anyio.run(play, backend_options=BACKEND)
    assert early == stopping
    assert late is not None
    assert late.state is State.CANCELED


def test_a_time_limit_belongs_to_a_wait() -> None:
    check_wait(wait=True, timeout_s=3)
    check_wait(wait=False, timeout_s=None)
    with pytest.raises(Usage):
        check_wait(wait=False, timeout_s=3)


# --- submit -------------------------------------------------------------------------------------------


def _submission(customer: str = "") -> Command:
    return _command(Submit(bucket="b", prefix="p/", customer_id=customer))


@pytest.mark.parametrize("state", list(State))
def test_a_submission_is_refused_beforehand_exactly_where_it_would_have_no_effect(
    state: State,
) -> None:
    ws = running(ID, owner="x") if state is State.IN_PROGRESS else a_workset(ID, state)
    refused = {State.IN_PROGRESS, State.COMPLETE, State.ARCHIVED, State.DELETED}
    if state not in refused:
        check_effect(ws, _submission())
        return
    with pytest.raises(Failed, match=r"Nothing was submitted: .* had no effect: it is"):
        check_effect(ws, _submission())


def test_a_name_that_belongs_to_another_customer_is_refused_beforehand() -> None:
    ws = a_workset(ID, State.ERROR, customer_id="lab-7")
    check_effect(ws, _submission("lab-7"))
    check_effect(ws, _submission())
    check_effect(None, _submission("lab-8"))
    with pytest.raises(Failed, match="another customer"):
        check_effect(ws, _submission("lab-8"))


def test_who_asks_is_named_even_where_the_user_has_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getuid", lambda: 54321)
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    assert command_for(ID, Ignore()).by.startswith("cli:uid-54321@")
    monkeypatch.setenv("LOGNAME", "x" * 10_000)
    assert len(command_for(ID, Ignore()).by) < 140
