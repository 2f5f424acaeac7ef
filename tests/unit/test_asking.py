"""What the commands that ask for something make of the answers there are: exit codes and names."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from daylily_daemon.application.requests import Followed
from daylily_daemon.cli.answers import asked_by, check_wait, exit_code_of
from daylily_daemon.cli.options import Exit, Usage, seconds
from daylily_daemon.domain.model import (
    Answer,
    Ask,
    Cancel,
    Command,
    CommandEffect,
    Ignore,
    State,
    WorksetId,
)
from tests.made import a_workset, running

AT = datetime(2026, 3, 4, tzinfo=UTC)
ID = WorksetId("HG002")


def _answer(effect: CommandEffect) -> Answer:
    return Answer(command_id="c", effect=effect, text="a sentence", at=AT)


def _command(ask: Ask | None = None) -> Command:
    return Command(id="c", workset_id=ID, by="me", ask=ask or Ignore())


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
    outcome = Followed(_command(), _answer(effect) if effect else None)
    assert exit_code_of(outcome) is code


@pytest.mark.reported("E", "a cancel says succeeded while everything runs on (homeboy#12579)")
def test_a_cancel_whose_job_has_not_ended_is_no_success() -> None:
    ws = running(ID, stopping="canceled by me")
    applied = _answer(CommandEffect.APPLIED)
    canceled = a_workset(ID, State.CANCELED)
    assert exit_code_of(Followed(_command(Cancel()), applied, ws)) is Exit.NOT_REACHABLE
    assert exit_code_of(Followed(_command(Cancel()), applied, canceled)) is Exit.OK
    assert exit_code_of(Followed(_command(Ignore()), applied, ws)) is Exit.OK


def test_a_time_limit_belongs_to_a_wait() -> None:
    check_wait(wait=True, timeout_s=3)
    check_wait(wait=False, timeout_s=None)
    with pytest.raises(Usage):
        check_wait(wait=False, timeout_s=3)


def test_who_asks_is_named_even_where_the_user_has_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getuid", lambda: 54321)
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    assert asked_by().startswith("cli:uid-54321@")
    monkeypatch.setenv("LOGNAME", "x" * 10_000)
    assert len(asked_by()) < 140


@pytest.mark.parametrize(
    ("text", "length_s"), [("30s", 30), ("90m", 5400), ("12h", 43_200), ("7d", 604_800)]
)
def test_an_age_has_a_unit(text: str, length_s: float) -> None:
    assert seconds(text) == length_s


@pytest.mark.parametrize("text", ["7", "d", "-7d", "7 d", "1.5h", "7D", "9999999999d", "٣d"])
def test_what_is_no_age_is_a_sentence(text: str) -> None:
    with pytest.raises(Usage, match="is no age: write 30s"):
        seconds(text)
