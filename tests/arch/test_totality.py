"""Whoever adds a state, an end, a command, a channel or a runner is led to every place that must know it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from daylily_daemon.domain.totality import total
from tests.arch.repository import ROOT

Plants = Mapping[str, Mapping[str, str]]
"""By file: what is written there, and instead of what."""

PLANTED: Final[Plants] = {
    "domain/model.py": {
        '    READY = "ready"\n': '    READY = "ready"\n    PAUSED = "paused"\n',
        '    LOW = "low"\n': '    LOW = "low"\n    IDLE = "idle"\n',
        '    EXITED = "exited"\n': '    EXITED = "exited"\n    EVICTED = "evicted"\n',
        "class Ignore:": "class Pause:\n    pass\n\n\n@dataclass(frozen=True)\nclass Ignore:",
        "| HostLost | Ignore |": "| HostLost | Pause | Ignore |",
        "Accepted | Missing |": "Accepted | Problem | Missing |",
    },
    "domain/decision.py": {"RunJob | StopJob\n": "RunJob | StopJob | Answer\n"},
    "settings/model.py": {
        'Literal["auto", "tmux", "process"]': 'Literal["auto", "tmux", "process", "slurm"]',
    },
    "settings/notifications.py": {
        "    sns: SnsSettings = SnsSettings()\n": "    sns: SnsSettings = SnsSettings()\n"
        "    pager: SlackSettings = SlackSettings()\n",
    },
}
NAMED_BY_THE_TYPE_CHECKER: Final = {
    "application/explaining.py": "Literal[State.PAUSED]",
    "domain/notice.py": "Literal[State.PAUSED]",
    "domain/model.py": "Literal[Priority.IDLE]",
    "domain/commands.py": '"Pause"',
    "adapters/codec.py": '"Pause"',
    "domain/lifecycle.py": '"Problem"',
    "engine/shepherd.py": '"Answer"',
}
NAMED_AT_IMPORT: Final = {
    "domain.decision": "decision.NEXT has no line for paused.",
    "domain.commands": "commands.FITS has no line for",
    "domain.failures": "failures.BY_ITS_END has no line for evicted.",
    "adapters.notifiers.s3_sentinels": "s3_sentinels.WRITTEN has no line for paused.",
    "adapters.notifiers.pagerduty": "pagerduty.ACTIONS has no line for paused.",
    "adapters.codec": "codec.ASKS has no line for",
    "application.queries": "queries.RANK has no line for paused.",
    "cli.output": "output.COLOURS has no line for paused.",
    "channels": "channels.NOTIFIERS has no line for pager.",
    "runners": "runners.RUNNERS has no line for slurm.",
}


def planted(folder: Path, plants: Plants) -> Path:
    """Copy the package and write the plants into the copy."""
    package = folder / "daylily_daemon"
    shutil.copytree(ROOT / "daylily_daemon", package, ignore=shutil.ignore_patterns("__pycache__"))
    for name, changes in plants.items():
        text = (package / name).read_text()
        for before, after in changes.items():
            assert text.count(before) == 1, f"{name} has {before!r} {text.count(before)} times"
            text = text.replace(before, after)
        (package / name).write_text(text)
    return package


def test_the_type_checker_names_every_place_that_a_new_member_needs(tmp_path: Path) -> None:
    package = planted(tmp_path, PLANTED)
    options = (
        "--config-file",
        str(ROOT / "pyproject.toml"),
        "--cache-dir",
        str(tmp_path / "cache"),
    )
    command = (sys.executable, "-m", "mypy", *options, str(package))
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False).stdout
    for name, member in NAMED_BY_THE_TYPE_CHECKER.items():
        lines = [line for line in said.splitlines() if line.startswith(f"daylily_daemon/{name}:")]
        assert any(member in line for line in lines), said


@pytest.mark.parametrize(("module", "sentence"), NAMED_AT_IMPORT.items())
def test_a_table_without_a_line_for_a_new_member_stops_the_import(
    tmp_path: Path, module: str, sentence: str
) -> None:
    lenient = {
        "    if missing:\n": f'    if missing and name == "{sentence.split(maxsplit=1)[0]}":\n'
    }
    planted(tmp_path, {**PLANTED, "domain/totality.py": lenient})
    command = (sys.executable, "-c", f"import daylily_daemon.{module}")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert sentence in done.stderr
    assert "Add what is to happen then." in done.stderr


def test_a_line_for_what_is_unknown_stops_the_import_too() -> None:
    with pytest.raises(TypeError, match="t has a line for b, which is unknown"):
        total("t", {"a": 1, "b": 2}, ["a"])
