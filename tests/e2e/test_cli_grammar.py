"""How commands are called: help, completion in a real shell, ids from the table, and lists that go on."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from daylily_daemon.cli.app import COMMANDS
from daylily_daemon.domain.model import State
from tests.e2e.harness import PROGRAM, Lab, processes_of, until
from tests.e2e.incidents_of_daemons import HELD

INSTALLED = str(Path(sys.executable).with_name("daylily-daemon"))
SHELLS = [shell for shell in ("bash", "zsh", "fish") if shutil.which(shell)]
LOADED = {
    "bash": 'eval "$({program} completion bash)"; complete -p daylily-daemon',
    "zsh": 'autoload -U compinit; compinit -u; eval "$({program} completion zsh)"; '
    "whence -w _daylily_daemon_completion",
    "fish": "{program} completion fish | source; complete -c daylily-daemon",
}


def test_help_is_asked_for_in_three_ways(empty_lab: Lab) -> None:
    told = empty_lab.run_cli("retry", "--help")
    assert told.code == 0
    assert [empty_lab.run_cli(*way).stdout for way in (("retry", "-h"), ("help", "retry"))] == [
        told.stdout
    ] * 2
    inner = empty_lab.run_cli("help", "dlq", "replay")
    assert inner.stdout == empty_lab.run_cli("dlq", "replay", "-h").stdout
    assert empty_lab.run_cli("help").stdout == empty_lab.run_cli("-h").stdout
    wrong = empty_lab.run_cli("help", "retyr")
    assert (wrong.code, "There is no command retyr" in wrong.stderr) == (2, True)


def test_the_settings_file_may_be_named_before_the_command(empty_lab: Lab) -> None:
    config = str(empty_lab.config)
    for before in (("--config", config), ("-c", config), (f"--config={config}",)):
        answer = empty_lab.run_cli(*before, "check-config", "--json", DAYLILY_CONFIG="/not/there")
        assert answer.json["control.bucket"]["value"] == empty_lab.bucket
    missing = empty_lab.run_cli("--config", "/not/there", "check-config")
    assert (missing.code, "/not/there" in missing.stderr) == (2, True)
    assert empty_lab.run_cli("--config", "/not/there", "check-config", "-c", config).code == 0
    assert empty_lab.run_cli("--config").code == 2


def test_the_shells_that_are_here_are_tried() -> None:
    assert "bash" in SHELLS


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_loads_its_completion(empty_lab: Lab, tmp_path: Path, shell: str) -> None:
    program = " ".join(PROGRAM)
    done = subprocess.run(
        [shell, "-c", LOADED[shell].format(program=program)],
        env=empty_lab.environment() | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "daylily" in done.stdout
    other = empty_lab.run_cli("completion", "tcsh")
    assert other.code == 2


def _completed_in_bash(lab: Lab, cache: Path, *words: str, **environment: str) -> list[str]:
    """Return what bash offers for the last word, by the script that the program prints."""
    folder = lab.folder / "bin"
    folder.mkdir(exist_ok=True)
    program = folder / "daylily-daemon"
    if not program.exists():
        program.symlink_to(INSTALLED)
    script = (
        'eval "$(daylily-daemon completion bash)"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); '
        '_daylily_daemon_completion daylily-daemon; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", script, "bash", "daylily-daemon", *words],
        env=_environment(lab, cache, environment)
        | {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.split()


def _environment(lab: Lab, cache: Path, more: Mapping[str, str]) -> dict[str, str]:
    return lab.environment() | {"XDG_CACHE_HOME": str(cache)} | dict(more)


def test_bash_completes_commands_and_ids_of_the_table(lab: Lab, tmp_path: Path) -> None:
    lab.start()
    for id in ("HG002-run7", "HG002-run8", "other"):
        lab.wait_for(lab.drop_sample(id), State.COMPLETE)
    assert _completed_in_bash(lab, tmp_path, "li") == ["list"]
    assert _completed_in_bash(lab, tmp_path, "help", "rer") == ["rerun"]
    _completed_in_bash(lab, tmp_path, "show", "HG")
    ids = until(lambda: _completed_in_bash(lab, tmp_path, "show", "HG"))
    assert sorted(ids) == ["HG002-run7", "HG002-run8"]
    assert _completed_in_bash(lab, tmp_path, "cancel", "HG002-run7", "HG") == ["HG002-run8"]
    assert _completed_in_bash(lab, tmp_path, "priority", "other", "u") == ["urgent"]
    kept = list((tmp_path / "daylily-daemon").iterdir())
    assert all(path.stat().st_mode & 0o077 == 0 for path in kept)


@pytest.mark.reported(
    "B", "a shell that hangs in a completion (kubectl#1247, fish-kubectl-completions#1)"
)
def test_a_completion_of_ids_waits_for_nobody(empty_lab: Lab, tmp_path: Path) -> None:
    """Least of all for an AWS that takes the connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        environ = _environment(empty_lab, tmp_path, {"AWS_ENDPOINT_URL": url})
        for _ in range(3):
            done = subprocess.run(
                [INSTALLED],
                env=environ
                | {
                    "_DAYLILY_DAEMON_COMPLETE": "complete_bash",
                    "COMP_WORDS": "daylily-daemon show HG",
                    "COMP_CWORD": "2",
                },
                capture_output=True,
                text=True,
                check=True,
                timeout=5,
            )
            assert (done.stdout.strip(), done.stderr) == ("", "")
    (asked,) = (tmp_path / "daylily-daemon").glob("*.asked")
    assert asked.stat().st_size == 0
    until(lambda: not processes_of(tmp_path), within_s=30)


# --- --watch ------------------------------------------------------------------------------------------


def test_a_watched_list_tells_each_change_as_a_line(lab: Lab) -> None:
    lab.start()
    lab.wait_for(lab.drop_sample("first"), State.COMPLETE)
    with subprocess.Popen(
        [*PROGRAM, "list", "--watch=1s", "--prefix", "first"],
        cwd=lab.folder,
        env=lab.environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as watching:
        assert watching.stdout is not None
        shown = json.loads(watching.stdout.readline())
        assert (shown["workset_id"], shown["state"]) == ("first", "complete")
        assert lab.run_cli("archive", "first", "--wait").code == 0
        assert json.loads(watching.stdout.readline()) == {"workset_id": "first", "gone": True}
        watching.send_signal(signal.SIGINT)
    assert watching.returncode == 130


def test_a_watched_list_is_drawn_again_on_a_terminal(lab: Lab) -> None:
    lab.start()
    lab.wait_for(lab.drop_sample("first"), State.COMPLETE)
    master, slave = pty.openpty()
    with subprocess.Popen(
        [*PROGRAM, "list", "--watch"], cwd=lab.folder, env=lab.environment(), stdout=slave
    ) as watching:
        os.close(slave)
        seen = b""
        while b"complete" not in seen:
            seen += os.read(master, 10_000)
        lab.drop_sample("second")
        while b"second" not in seen:
            seen += os.read(master, 10_000)
        watching.send_signal(signal.SIGINT)
        watching.wait()
    os.close(master)
    assert b'"workset_id"' not in seen


WATCHED: Final[Mapping[str, Callable[[Any], bool]]] = {
    "status": lambda seen: not seen["daemon"]["active"],
    "top": lambda seen: "gone" in seen,
    "explain held": lambda seen: seen["state"] == "complete",
}
"""What can be watched besides a list, and how it looks once nothing runs any more."""


@pytest.mark.parametrize("command", WATCHED)
def test_what_else_is_watched_tells_each_change_as_a_line(lab: Lab, command: str) -> None:
    lab.pipeline("noting", run=HELD)
    lab.start()
    lab.drop_sample("held")
    lab.wait_started("held", "1 run")
    with subprocess.Popen(
        [*PROGRAM, *command.split(), "--watch=1s"],
        cwd=lab.folder,
        env=lab.environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as watching:
        assert watching.stdout is not None
        assert "held" in watching.stdout.readline()
        lab.open_gate("held")
        lab.wait_for("held", State.COMPLETE)
        while not WATCHED[command](json.loads(watching.stdout.readline())):
            pass
        watching.send_signal(signal.SIGINT)
    assert watching.returncode == 130


def test_top_shows_what_runs_and_its_processes(lab: Lab) -> None:
    lab.pipeline("noting", run=HELD)
    lab.start()
    assert "Nothing runs" in lab.run_cli("top").words
    lab.drop_sample("held")
    lab.wait_started("held", "1 run")
    (row,) = lab.run_cli("top", "--json").json
    assert (row["workset_id"], row["step"]) == ("held", "run")
    assert row["processes"][0].startswith(("sh (", "sleep ("))
    until(lambda: lab.run_cli("top", "--json").json[0]["left_s"], within_s=60)
    assert lab.run_cli("top", "-o", "name").stdout == "held\n"
    assert lab.run_cli("top", "--sort", "size").code == 2
    shown = lab.run_cli("top", COLUMNS="80").stdout.splitlines()
    assert all(len(line) <= 80 for line in shown)
    lab.open_gate("held")
    lab.wait_for("held", State.COMPLETE)


@pytest.mark.parametrize("options", ["--watch=0s", "--watch=soon", "--watch --cursor x"])
def test_a_watch_that_makes_no_sense_is_a_sentence(empty_lab: Lab, options: str) -> None:
    assert empty_lab.run_cli("list", *options.split()).code == 2


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_the_short_help(empty_lab: Lab, name: str) -> None:
    assert empty_lab.run_cli(name, "-h").code == 0
