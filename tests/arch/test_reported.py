"""Cases from public reports are listed by the markers of their tests; one that cannot be read is named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.arch.repository import ROOT


def table_of(root: Path, text: str) -> subprocess.CompletedProcess[str]:
    (root / "tests" / "unit").mkdir(parents=True)
    (root / "tests" / "unit" / "test_it.py").write_text(text)
    return subprocess.run(
        (sys.executable, str(ROOT / "scripts" / "reported_cases.py"), str(root)),
        capture_output=True,
        text=True,
        check=False,
    )


def test_each_marker_of_a_test_becomes_a_row_below_the_heading_of_its_kind(tmp_path: Path) -> None:
    answer = table_of(
        tmp_path,
        """
@pytest.mark.reported("B", "one bad file (prefect#2)")
@pytest.mark.parametrize("n", [pytest.param(1, marks=pytest.mark.reported("A", "a | b (x#1)"))])
async def test_it_goes_on(n: int) -> None: ...
""",
    )
    assert answer.returncode == 0, answer.stderr
    first, second = answer.stdout.split("\n\n### ")
    assert "A. Something runs twice" in first
    assert "| a \\| b (x#1) | it goes on | `unit/test_it.py::test_it_goes_on` |" in answer.stdout
    assert second.startswith("B. One thing stops everything")
    assert "| one bad file (prefect#2) | it goes on |" in second


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('@pytest.mark.reported("H", "x (y#1)")\ndef test_a(): ...\n', "KIND is one of A, B"),
        ('@pytest.mark.reported("A")\ndef test_a(): ...\n', "two literal strings"),
        ('@pytest.mark.reported("A", CASE)\ndef test_a(): ...\n', "two literal strings"),
        ('pytestmark = pytest.mark.reported("A", "x (y#1)")\n', "stands in the decorators"),
    ],
)
def test_a_marker_that_cannot_be_read_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    answer = table_of(tmp_path, text)
    assert answer.returncode == 1
    assert "tests/unit/test_it.py" in answer.stderr
    assert complaint in answer.stderr
