"""How played mutants are judged: by layer, and by whether each that lives has a reason."""

from __future__ import annotations

import libcst as cst
import pytest

from tests.mutation.results import Module, Tally, layer, reasons, stale, unexplained
from tests.mutation.rules import is_wording

LIVED = Module(
    Tally("domain.run", 5, 7, 1, 2), ("domain.run left: `a` => `b`", "domain.run left: `c`")
)
UNDER_WAY = Module(Tally("engine.lease", 0, 1, 0, 1, left=9), ("engine.lease keep: `x` => `y`",))


def test_what_mypy_refuses_counts_for_nothing_and_what_never_ends_is_noticed() -> None:
    assert (LIVED.tally.played, LIVED.tally.rate) == (10, 80.0)
    assert layer("engine", [LIVED, UNDER_WAY]).rate == 50.0
    assert layer("domain", [UNDER_WAY]).played == 0


@pytest.mark.parametrize(
    ("names", "left"),
    [
        ([], 2),
        (["domain.run left: `a` => `b`"], 1),
        (["domain.run left: *"], 0),
        (["domain.run left: `a"], 2),
        (["engine.lease keep: *"], 2),
    ],
)
def test_a_mutant_that_lives_needs_a_reason_by_its_name_or_by_how_that_begins(
    names: list[str], left: int
) -> None:
    assert len(unexplained([LIVED], dict.fromkeys(names, "why"))) == left


def test_a_reason_is_stale_once_nothing_lives_by_it_in_a_module_that_was_played_to_the_end() -> (
    None
):
    why = dict.fromkeys(
        ["domain.run left: *", "domain.run gone: `a`", "engine.lease gone: `a`"], "why"
    )
    assert stale([LIVED, UNDER_WAY], why) == ["domain.run gone: `a`"]


@pytest.mark.parametrize(
    ("code", "is_left_out"),
    [
        ('"a sentence."', True),
        ('"word"', False),
        ('" "', False),
        ('log.info("event", job=1)', True),
        ('bound.info("event")', True),
        ("run(1)", False),
    ],
)
def test_sentences_and_what_logs_say_are_left_as_they_are(code: str, is_left_out: bool) -> None:
    assert is_wording(cst.parse_expression(code)) is is_left_out


def test_every_reason_is_a_sentence() -> None:
    assert all(why.endswith(".") for why in reasons().values())
