"""The man page says what the help says, and a reader of man pages has nothing to complain about."""

from __future__ import annotations

import subprocess
import sys

from daylily_daemon.cli.app import whole_program
from tests.arch.repository import ROOT

PAGE = ROOT / "docs" / "daylily-daemon.1"


def test_the_page_is_what_the_help_says_today() -> None:
    command = (sys.executable, str(ROOT / "scripts" / "generate_man.py"))
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert PAGE.read_text(encoding="utf-8") == done.stdout, "run `make docs`"


def test_it_is_rendered_without_a_warning_and_has_every_command() -> None:
    command = ("groff", "-man", "-ww", "-k", "-Tutf8", str(PAGE))
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    shown = done.stdout.replace("\x1b", "")
    for name in whole_program().commands:
        assert name in shown
