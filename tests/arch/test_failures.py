"""Every failure we know of names the tests that show what happens then."""

from __future__ import annotations

import re

from tests.arch.repository import ROOT
from tests.sim.mutants import BY_NAME

TABLE = (ROOT / "tests" / "failures.md").read_text(encoding="utf-8")
ROWS = [
    line.strip("| ").split(" | ") for line in TABLE.splitlines() if re.match(r"\| \d+ \|", line)
]
TESTS = re.findall(r"`([\w/]+\.py)::(test_\w+)`", TABLE)


def test_all_failures_have_a_row() -> None:
    assert [int(row[0]) for row in ROWS] == list(range(1, 55))


def test_a_row_names_a_test_or_says_why_it_needs_none() -> None:
    silent = [row for row in ROWS if "::test_" not in row[-1] and "does not apply" not in row[-1]]
    assert silent == []


def test_every_test_that_is_named_exists() -> None:
    assert len(TESTS) > 80
    gone = [
        f"{file}::{test}"
        for file, test in TESTS
        if f"def {test}(" not in (ROOT / "tests" / file).read_text(encoding="utf-8")
    ]
    assert gone == []


def test_every_mutant_that_is_named_exists() -> None:
    named = {
        name.strip() for names in re.findall(r"\[([a-z_, ]+)\]", TABLE) for name in names.split(",")
    }
    assert named
    assert named <= set(BY_NAME)
