"""What reading a lab's files answers, in full: see ``tests/unit/readings.py``."""

from __future__ import annotations

import pytest

from tests.unit import readings

ANSWERS = readings.GOLDEN.read_text(encoding="utf-8")


@pytest.mark.parametrize("number", range(len(readings.ALL_RECIPES)))
def test_a_recipe_is_read_as_it_is_told(number: int) -> None:
    assert readings.of_recipe(readings.ALL_RECIPES[number]) in ANSWERS


@pytest.mark.parametrize("number", range(len(readings.ALL_SHEETS)))
def test_a_sheet_is_read_as_it_is_told(number: int) -> None:
    assert readings.of_sheet(readings.ALL_SHEETS[number]) in ANSWERS


def test_what_a_shell_would_give_a_meaning_to_is_found() -> None:
    assert readings.of_shell() in ANSWERS


def test_nothing_else_is_told() -> None:
    assert readings.told() == ANSWERS
