"""Where tools of a pipeline are found: a step that runs ``bash -lc`` has the PATH of a login shell."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from daylily_daemon.domain.model import State
from tests.e2e.harness import Lab

LOOKS = 'command -v day-clone > "$1" || :'


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A folder with the tool that a step calls by its name."""
    tool = tmp_path / "tools" / "day-clone"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    return tool.parent


def found_by_a_job(lab: Lab, home: Path, environ: dict[str, str], **step: object) -> str:
    """Return where a login shell in a job found the tool; empty if it did not."""
    found = lab.folder / "found"
    entry = {"step": "run", "argv": ["bash", "-lc", LOOKS, "-", str(found)], "timeout_s": 60}
    text = yaml.safe_dump({"description": "Looks.", "steps": [entry | step]})
    (lab.pipelines / "noting.yaml").write_text(text)
    lab.outside = {**os.environ, "HOME": str(home), **environ}
    daemon = lab.start()
    lab.wait_for(lab.drop_sample("looking"), State.COMPLETE)
    assert daemon.terminate() == 0
    return found.read_text().strip()


def test_the_path_of_the_daemon_reaches_a_job_only_where_the_login_shells_of_the_host_keep_one(
    lab: Lab, tools: Path, tmp_path: Path
) -> None:
    path = f"{tools}:{os.environ['PATH']}"
    argv = ("env", "-i", f"HOME={tmp_path}", f"PATH={path}", "bash", "-lc", 'echo "$PATH"')
    kept = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    found = found_by_a_job(lab, tmp_path, {"PATH": path})
    assert found == (str(tools / "day-clone") if str(tools) in kept else "")


def test_the_profile_of_the_daemon_s_user_does(lab: Lab, tools: Path, tmp_path: Path) -> None:
    (tmp_path / ".profile").write_text(f"PATH={tools}:$PATH\n")
    assert found_by_a_job(lab, tmp_path, {}) == str(tools / "day-clone")


def test_a_file_that_a_step_names_as_bash_env_does(lab: Lab, tools: Path, tmp_path: Path) -> None:
    (tmp_path / "jobs.sh").write_text(f"PATH={tools}:$PATH\n")
    named = {"BASH_ENV": str(tmp_path / "jobs.sh")}
    assert found_by_a_job(lab, tmp_path, {}, environment=named) == str(tools / "day-clone")


def test_the_line_that_the_documentation_tries_it_with_tells_the_truth(
    tools: Path, tmp_path: Path
) -> None:
    argv = ("env", "-i", f"HOME={tmp_path}", "bash", "-lc", "command -v day-clone")
    before = subprocess.run(argv, capture_output=True, text=True, check=False)
    (tmp_path / ".profile").write_text(f"PATH={tools}:$PATH\n")
    after = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (before.returncode, after.stdout.strip()) == (1, str(tools / "day-clone"))
