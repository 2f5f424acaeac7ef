"""The model of lease and start token holds, and sees every bug that was seeded into it."""

from __future__ import annotations

from functools import cache
from typing import Final

import pytest

from tests.model import check

pytestmark = pytest.mark.timeout(600)  # seconds each on an idle machine; the machine may be busy

CUT_OFF_REPORT: Final = """
error: max search depth too small
State-vector 100 byte, depth reached 49, errors: 0
     1234 states, stored
     5678 transitions (= stored+matched)
"""
BLIND_REPORT: Final = """
State-vector 100 byte, depth reached 3044, errors: 0
   735924 states, stored
2.2689807e+08 transitions (= stored+matched)
unreached in proctype Steps
	lease.pml:301, state 77, "D[d].watch = 2"
	lease.pml:396, state 613, "-end-"
"""


@cache
def found(case: check.Case) -> check.Result:
    """Each case is searched once a session."""
    try:
        return check.run(case)
    except check.CannotCheck as exc:
        pytest.fail(str(exc), pytrace=False)


@pytest.mark.parametrize("case", check.RIGHT, ids=lambda case: case.name)
def test_the_right_model_holds_in_every_state(case: check.Case) -> None:
    assert found(case).complaint == ""


@pytest.mark.parametrize("case", check.MUTANTS, ids=lambda case: case.name)
def test_a_seeded_bug_is_found(case: check.Case) -> None:
    assert found(case).complaint == ""


def test_a_search_that_was_cut_off_proves_nothing() -> None:
    result = check.Result(check.RIGHT[0], check.parse(CUT_OFF_REPORT))
    assert "cut off" in result.complaint


def test_an_empty_report_proves_nothing() -> None:
    assert "cut off" in check.Result(check.RIGHT[0], check.parse("")).complaint


def test_a_step_that_is_never_taken_proves_nothing() -> None:
    figures = check.parse(BLIND_REPORT)
    assert figures.unreached == ("line 301: D[d].watch = 2",)
    assert figures.transitions == 226_898_070
    assert "never reached" in check.Result(check.RIGHT[0], figures).complaint


def test_a_mutant_that_breaks_something_else_is_not_counted_as_found() -> None:
    report = "pan:1: assertion violated (live==0) (at depth 9)\n depth reached 9, errors: 1\n"
    result = check.Result(check.MUTANTS[0], check.parse(report))
    assert "seeded to break" in result.complaint


def test_a_missing_tool_is_named_with_the_command_that_installs_it() -> None:
    with pytest.raises(check.CannotCheck, match=r"needs no-such-tool.*apt-get install .*spin"):
        check.complain_of_missing_tools(("no-such-tool",))
