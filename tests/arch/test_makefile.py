"""``make help`` and the documentation speak of the targets that there are."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.arch.repository import ROOT, files

TARGET = re.compile(r"^([a-z][a-z-]*):", re.MULTILINE)
HELP_LINE = re.compile(r"^  ([a-z][a-z-]*) +\S", re.MULTILINE)
# `make x` in backticks, or at the start of a line of a code block.
MENTION = re.compile(r"(?:`|^(?:\$ |    )?)make ([a-z][a-z-]*)", re.MULTILINE)


def _targets() -> set[str]:
    return set(TARGET.findall((ROOT / "Makefile").read_text()))


def _make(*arguments: str) -> str:
    result = subprocess.run(
        ("make", "--no-print-directory", *arguments),
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return result.stdout


def _mentioned(page: Path) -> set[str]:
    return set(MENTION.findall(page.read_text()))


def test_make_alone_lists_every_target() -> None:
    assert set(HELP_LINE.findall(_make())) == _targets()


def test_every_target_that_the_documentation_names_exists() -> None:
    pages = [path for path in files() if path.suffix == ".md"]
    missing = {str(page.relative_to(ROOT)): _mentioned(page) - _targets() for page in pages}
    assert {page: names for page, names in missing.items() if names} == {}


def test_the_options_of_the_demo_reach_the_program() -> None:
    plan = _make("--dry-run", "demo", "WORKSETS=4", "FAIL=1", "KEEP=1", "ARGS=--no-color")
    assert "daylily-daemon demo --worksets 4 --fail --keep --no-color" in plan


def test_an_option_of_the_demo_that_is_off_is_left_out() -> None:
    assert "--fail" not in _make("--dry-run", "demo", "FAIL=0")
