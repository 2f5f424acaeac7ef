"""The systemd unit is one systemd takes, and fits the settings it is shipped with."""

from __future__ import annotations

import shutil
import subprocess
from configparser import ConfigParser
from pathlib import Path

import pytest
from annotated_types import Le

from daylily_daemon.adapters import own_process
from daylily_daemon.settings.keys import LEAVES
from tests.arch.repository import ROOT

UNIT = ROOT / "deploy" / "systemd" / "daylily-daemon.service"
EXECUTABLE = "/opt/daylily-daemon/bin/daylily-daemon"
EXPOSURE_TENTHS = 32
"""Least threshold, in tenths, that ``systemd-analyze security`` accepts: no hardening gets lost."""

with_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


def service() -> dict[str, str]:
    parser = ConfigParser(interpolation=None, delimiters="=", comment_prefixes="#")
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # documented so
    parser.read(UNIT)
    return dict(parser["Unit"]) | dict(parser["Service"])


def copy_of(folder: Path, *, replacing: tuple[str, str] = ("", "")) -> Path:
    """Write the unit with an executable that exists: systemd wants to see it."""
    executable = folder / "daylily-daemon"
    executable.write_text("#!/bin/sh\n")
    executable.chmod(0o755)
    copy = folder / UNIT.name
    text = UNIT.read_text().replace(EXECUTABLE, str(executable))
    copy.write_text(text.replace(*replacing) if replacing[0] else text)
    return copy


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ("systemd-analyze", "--no-pager", *arguments),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def verify(unit: Path) -> subprocess.CompletedProcess[str]:
    return analyze("--recursive-errors=yes", "verify", str(unit))


@with_systemd
def test_systemd_takes_the_unit_without_a_word(tmp_path: Path) -> None:
    answer = verify(copy_of(tmp_path))
    assert (answer.returncode, answer.stderr) == (0, "")


@pytest.mark.reported(
    "G", "options of a unit that systemd passes over in silence (systemd#5813, netbird#1971)"
)
@with_systemd
@pytest.mark.parametrize(
    "replacing", [("Restart=always", "Restrat=always"), ("KillMode=process", "KillMode=proces")]
)
def test_a_slip_in_the_unit_is_found(tmp_path: Path, replacing: tuple[str, str]) -> None:
    answer = verify(copy_of(tmp_path, replacing=replacing))
    assert answer.returncode or answer.stderr


@with_systemd
def test_the_hardening_is_as_tight_as_jobs_allow(tmp_path: Path) -> None:
    unit = str(copy_of(tmp_path))
    threshold = f"--threshold={EXPOSURE_TENTHS}"
    answer = analyze("security", "--offline=true", threshold, unit)
    assert answer.returncode == 0, answer.stdout


@pytest.mark.reported(
    "G", "a restart of the service kills what it had started (curia#132, puppet#3700)"
)
def test_jobs_outlive_the_daemon() -> None:
    assert service()["KillMode"] == "process"
    assert service()["OOMPolicy"] == "continue"
    assert service()["TasksMax"] == "infinity"
    assert "PrivateTmp" not in service()


def test_the_daemon_and_its_jobs_may_have_many_files_open() -> None:
    assert service()["LimitNOFILE"] == str(own_process.MOST_FILES)


def test_the_daemon_always_comes_back() -> None:
    assert service()["Restart"] == "always"
    assert service()["StartLimitIntervalSec"] == "0"
    assert int(service()["OOMScoreAdjust"]) < 0


def test_the_daemon_is_told_and_tells_by_the_protocol_of_old_systemd_too() -> None:
    assert service()["Type"] == "notify"
    assert service()["ExecReload"] == "/bin/kill -HUP $MAINPID"


def test_systemd_is_more_patient_than_the_daemon() -> None:
    bounds = LEAVES["daemon.stop_deadline_s"].field.metadata
    longest_s = next(bound.le for bound in bounds if isinstance(bound, Le))
    assert isinstance(longest_s, int)
    assert int(service()["TimeoutStopSec"]) >= longest_s + 10
    assert int(service()["WatchdogSec"]) >= 4 * LEAVES["daemon.sweep_s"].default


def test_the_places_of_the_unit_are_those_of_the_settings() -> None:
    state_dir = Path("/var/lib") / service()["StateDirectory"]
    assert state_dir == LEAVES["daemon.state_dir"].default
    roots = [path.removeprefix("-") for path in service()["ReadWritePaths"].split()]
    data_dir = LEAVES["daemon.data_dir"].default
    assert any(data_dir.is_relative_to(root) for root in roots)
