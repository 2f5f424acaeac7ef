"""What is said of jobs that ended: see ``tests/unit/diagnoses.py``."""

from __future__ import annotations

import pytest

from tests.unit import diagnoses

SAID = diagnoses.GOLDEN.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", diagnoses.RECORDED)
def test_a_recorded_log_is_understood_as_it_is_told(name: str) -> None:
    assert diagnoses.of_log(name) in SAID


@pytest.mark.parametrize("name", diagnoses.TEXTS)
def test_an_odd_log_is_understood_as_it_is_told(name: str) -> None:
    assert diagnoses.of_written(name) in SAID


def test_a_job_succeeded_or_not_by_its_end_code_and_success_file() -> None:
    assert diagnoses.of_ends() in SAID


def test_nothing_else_is_said() -> None:
    assert diagnoses.told() == SAID
