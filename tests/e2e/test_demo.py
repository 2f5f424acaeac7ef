"""``demo`` as a newcomer types it: what it shows, and that it leaves nothing behind, however it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.harness import COMMAND_WITHIN_S, GONE_WITHIN_S, PROGRAM, processes_of, until

NOT_PASSED_ON = ("AWS_", "DAYLILY_", "PYTHONDONTWRITEBYTECODE")
ROWS = ("drop to claimed", "drop to first job", "step stage", "step run", "drop to complete")


@dataclass(frozen=True, slots=True)
class Newcomer:
    """Somebody on a fresh machine: an empty home, an empty folder for temporary files, no AWS."""

    home: Path
    tmp: Path

    def environment(self, path: str = "") -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(NOT_PASSED_ON)}
        own = {"HOME": str(self.home), "TMPDIR": str(self.tmp), "COLUMNS": "500"}
        return kept | own | ({"PATH": path} if path else {})

    def start(self, *options: str, path: str = "") -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*PROGRAM, "demo", *options],
            cwd=self.home,
            env=self.environment(path),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def see(self, *options: str, code: int = 0, path: str = "") -> str:
        """Run it to its end; return what it printed."""
        with self.start(*options, path=path) as process:
            said, _ = process.communicate(timeout=COMMAND_WITHIN_S)
        assert process.returncode == code, said
        assert "Traceback" not in said
        return said

    def left(self) -> list[str]:
        """Return what there still is of it: processes, files."""
        return processes_of(self.tmp) + [str(path) for path in self.tmp.iterdir()]

    def assert_nothing_left(self) -> None:
        until(lambda: not self.left(), GONE_WITHIN_S, lambda: "\n".join(self.left()))


@pytest.fixture
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Newcomer]:
    found = Newcomer(tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("t"))
    yield found
    found.assert_nothing_left()


def _read_until(process: subprocess.Popen[str], words: str) -> str:
    """Read what it prints up to the line with these words."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if words in line:
            return said
    raise AssertionError(f"It never said {words!r}:\n{said}")


def test_the_demo_runs_a_workset_to_its_results_and_shows_every_time(newcomer: Newcomer) -> None:
    said = newcomer.see()
    assert "demo-1: complete" in said
    for row in ROWS:
        assert re.search(rf"{row} +\d+\.\d\d s", said), said
    assert re.search(r"results +s3://daylily-demo-control/\S+/demo-1/results/", said)
    assert [
        state for state in ("ready", "in_progress", "complete") if f"({state})" not in said
    ] == []
    newcomer.assert_nothing_left()


def test_a_bad_workset_among_good_ones_is_parked_and_no_tmux_is_needed(
    newcomer: Newcomer, tmp_path: Path
) -> None:
    (tmp_path / "rm").symlink_to("/bin/rm")
    said = newcomer.see("--worksets", "2", "--fail", path=str(tmp_path))
    assert "jobs run in plain processes (tmux is not installed)" in said
    assert said.count("drop to complete") == 2
    table = said.rpartition("demo-bad: error")[2]
    assert re.search(
        r"stage_samples\.tsv, line 4, column R2_FQ: s3://\S+ was not found in S3", table
    )
    assert "Upload it or correct the path, then put daylily.ready again." in table
    assert "Daylily Workset Error: demo-bad (error)" in table


@pytest.mark.parametrize(
    "moment", ["AWS emulator on", "daemon is process", "in_progress stage", "in_progress run"]
)
def test_ctrl_c_leaves_nothing_behind(newcomer: Newcomer, moment: str) -> None:
    with newcomer.start("--worksets", "2") as process:
        _read_until(process, moment)
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=COMMAND_WITHIN_S)
    assert process.returncode == 130, rest
    assert "Traceback" not in rest
    assert newcomer.left() == []


def test_sigterm_and_an_impatient_ctrl_c_leave_nothing_behind_either(newcomer: Newcomer) -> None:
    with newcomer.start() as process:
        _read_until(process, "in_progress run")
        process.send_signal(signal.SIGTERM)
        until(lambda: _interrupted_to_the_end(process))
        rest, _ = process.communicate(timeout=COMMAND_WITHIN_S)
    assert process.returncode == 130, rest
    assert "Traceback" not in rest
    assert newcomer.left() == []


def _interrupted_to_the_end(process: subprocess.Popen[str]) -> bool:
    process.send_signal(signal.SIGINT)
    return process.poll() is not None


def test_keep_leaves_it_running_and_every_command_it_prints_works(newcomer: Newcomer) -> None:
    said = newcomer.see("--keep")
    around, end = said.partition("To look around:")[2].split("To end it:")
    source, *commands = [line.strip() for line in around.splitlines() if line.startswith("  ")]
    assert len(commands) == 5
    try:
        for command in commands:
            answer = _shell(f"{source}; {command}", newcomer)
            assert answer.returncode == 0, (command, answer)
            assert "demo-1" in answer.stdout or command.endswith(("status", "run"))
    finally:
        assert _shell(end, newcomer).returncode == 0


def _shell(line: str, newcomer: Newcomer) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", line],
        cwd=newcomer.home,
        env=newcomer.environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=COMMAND_WITHIN_S,
    )
