"""Which tests may be left out, tried on a run of pytest in a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.arch.repository import ROOT

TESTS = """
import pytest

@pytest.mark.needs_root
def test_for_root(): pass

def test_for_all(): pass
"""
NOBODY = "import os\nos.geteuid = lambda: 65534\n"
MARKERS = "[pytest]\nmarkers = needs_root\n"


def run(folder: Path, *options: str, conftest: str = "", more: str = "", ci: str = "") -> str:
    (folder / "pytest.ini").write_text(MARKERS)
    (folder / "conftest.py").write_text(conftest)
    (folder / "test_x.py").write_text(TESTS + more)
    argv = (sys.executable, "-m", "pytest", "-q", "-p", "tests.left_out", *options, "test_x.py")
    environ = os.environ | {"PYTHONPATH": str(ROOT), "CI": ci}
    done = subprocess.run(
        argv, cwd=folder, env=environ, capture_output=True, text=True, check=False, timeout=100
    )
    return done.stdout


@pytest.mark.reported(
    "F", "tests that fail for everybody but root (kata-containers/agent#177, osbuild#547)"
)
@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_user_other_than_root_sees_what_was_left_out(tmp_path: Path, workers: str) -> None:
    said = run(tmp_path, "-n", workers, conftest=NOBODY)
    assert "left out because they need root: 1 tests" in said
    assert "test_x.py: 1" in said
    assert "1 passed" in said
    assert "failed" not in said


def test_root_runs_everything(tmp_path: Path) -> None:
    said = run(tmp_path, "-n", "0", conftest=NOBODY.replace("65534", "0"))
    assert "2 passed" in said
    assert "left out" not in said


SKIP = "\ndef test_tool(): pytest.skip('no spin')\n"
SKIP_ALL = "\npytest.skip('no spin', allow_module_level=True)\n"


@pytest.mark.reported("F", "a missing tool turns tests off in CI (ccache#638, chonkstep#75)")
@pytest.mark.parametrize("more", [SKIP, SKIP_ALL])
def test_a_skip_is_a_failure_in_ci_and_nowhere_else(tmp_path: Path, more: str) -> None:
    assert "1 skipped" in run(tmp_path, "-n", "0", more=more)
    said = run(tmp_path, "-n", "0", more=more, ci="true")
    assert "It was skipped, which nothing may be in CI" in said
    assert "skipped" not in said.splitlines()[-1]


def test_an_expected_failure_is_no_skip(tmp_path: Path) -> None:
    more = "\n@pytest.mark.xfail\ndef test_known(): assert False\n"
    assert "1 xfailed" in run(tmp_path, "-n", "0", more=more, ci="true")
