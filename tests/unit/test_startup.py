"""What help and completion import: names and options, not what the commands work with."""

from __future__ import annotations

import ast
import inspect
import os
import subprocess
import sys
from typing import Any, Final

import pytest

from daylily_daemon.cli import later
from daylily_daemon.cli.app import COMMANDS, imported, whole_program

LEAST: Final = {
    "aiobotocore",
    "botocore",
    "aiohttp",
    "asyncio",
    "structlog",
    "prometheus_client",
    "pydantic",
}
"""What no help and no completion may import; nor what of ours imports it."""
OURS: Final = {
    f"daylily_daemon.{name}"
    for name in ("application.queries", "bootstrap", "composition", "settings", "telemetry")
}
DRAWING: Final = {"rich", "pygments"}
LOOK: Final = """
import atexit, os, sys
atexit.register(lambda: os.write(int(os.environ["LOOK"]), " ".join(sys.modules).encode()))
sys.argv[0] = "daylily-daemon"
from daylily_daemon.__main__ import main
main()
"""


def _modules(*arguments: str, **environment: str) -> tuple[set[str], str]:
    """Run the program with ``arguments``; return the modules it had at its end, and what it said."""
    reader, writer = os.pipe()
    done = subprocess.run(
        [sys.executable, "-c", LOOK, *arguments],
        env=os.environ | environment | {"LOOK": str(writer)},
        pass_fds=(writer,),
        capture_output=True,
        text=True,
        check=False,
    )
    os.close(writer)
    with os.fdopen(reader, "rb") as told:
        modules = set(told.read().decode().split())
    assert (done.returncode, done.stderr) == (0, "")
    return modules, done.stdout


def _completed(*words: str) -> tuple[set[str], list[str]]:
    """Return the modules that a completion of the last word imports, and what it offers."""
    modules, said = _modules(
        _DAYLILY_DAEMON_COMPLETE="complete_bash",
        COMP_WORDS=" ".join(("daylily-daemon", *words)),
        COMP_CWORD=str(len(words)),
    )
    return modules, said.split()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        *((name, "--help") for name in COMMANDS),
        ("dlq", "replay", "--help"),
        ("daemon", "gone", "--help"),
    ],
    ids=" ".join,
)
def test_a_help_imports_nothing_that_commands_work_with(arguments: tuple[str, ...]) -> None:
    modules, said = _modules(*arguments)
    assert said.startswith("Usage: daylily-daemon")
    assert modules & (LEAST | OURS | DRAWING) == set()


def test_the_help_imports_no_command() -> None:
    modules, _ = _modules("--help")
    commands = {
        f"daylily_daemon.cli.{entry.place.partition('.')[0]}" for entry in COMMANDS.values()
    }
    assert modules & commands == set()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("l",), ["list", "logs"]),
        (("--v",), ["--version"]),
        (("list", "--st"), ["--state"]),
        (("list", "--state", "in_"), ["in_progress"]),
        (("list", "--limit", "5", "--p"), ["--pipeline", "--priority", "--prefix"]),
        (("priority", "HG002", "u"), ["urgent"]),
        (("dlq", "re"), ["replay"]),
        (("dlq", "replay", "--all", "--a"), []),
    ],
    ids=str,
)
def test_a_completion_offers_what_fits_and_imports_no_more_than_a_help(
    words: tuple[str, ...], offered: list[str]
) -> None:
    modules, found = _completed(*words)
    assert found == offered
    assert modules & (LEAST | OURS | DRAWING) == set()


def test_a_completion_that_shows_help_loads_nothing_to_draw_it() -> None:
    modules, said = _modules(
        _DAYLILY_DAEMON_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS="daylily-daemon sh"
    )
    assert '"show":"Show everything about one workset."' in said
    assert modules & (LEAST | OURS | DRAWING) == set()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_told_how_to_complete(shell: str) -> None:
    _, said = _modules(_DAYLILY_DAEMON_COMPLETE=f"source_{shell}")
    assert "_DAYLILY_DAEMON_COMPLETE=complete_" in said


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_their_own_help_says(name: str) -> None:
    command = imported(name)
    assert command.help.split("\n", 1)[0] == COMMANDS[name].line


def test_the_list_is_in_the_order_of_the_table() -> None:
    assert list(whole_program().commands) == list(COMMANDS)


def test_what_is_imported_later_is_what_the_type_checker_reads() -> None:
    guard = next(
        node for node in ast.parse(inspect.getsource(later)).body if isinstance(node, ast.If)
    )
    read = {
        alias.name: node.module
        for node in guard.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert read == later.PLACES


@pytest.mark.parametrize("name", later.PLACES)
def test_each_module_that_is_imported_later_is_there(name: str) -> None:
    module: Any = getattr(later, name)
    assert module.__name__ == f"{later.PLACES[name]}.{name}"


def test_no_other_module_is_imported_later() -> None:
    with pytest.raises(AttributeError):
        later.nothing  # type: ignore[attr-defined]  # noqa: B018 - that asking for it fails
