"""The door to the terminal: widths count on terminals only, and nothing that is printed acts."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from daylily_daemon.cli import printing
from daylily_daemon.cli.layout import Grid, GridColumn

HOSTILE = "\x1b[31mred\x1b]0;t\x07 \x9b1m \u202ex\u2066 \u200b \U000e0041 [red]a[/red] :boom:"
PROGRAM = [sys.executable, "-m", "daylily_daemon"]


@contextmanager
def _terminal(columns: int) -> Iterator[tuple[int, io.TextIOWrapper]]:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with os.fdopen(slave, "w", encoding="utf-8") as stream:
        yield master, stream
    os.close(master)


@pytest.mark.parametrize(("columns", "told", "width"), [(53, "", 53), (53, "91", 91), (0, "", 80)])
def test_the_width_is_that_of_the_terminal_or_what_columns_says(
    monkeypatch: pytest.MonkeyPatch, columns: int, told: str, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", told)
    with _terminal(columns) as (_, stream):
        monkeypatch.setattr(sys, "stdout", stream)
        assert printing.width() == width


def test_a_pipe_has_no_width_whatever_columns_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    grid = Grid(
        columns=(GridColumn(heading="A"), GridColumn(heading="B")), rows=[("a", "long " * 60)]
    )
    printing.say_grid(grid)
    printing.say("many words " * 60)
    printing.say_facts([("name", "value " * 60)])
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_nothing_printed_is_obeyed_by_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    printing.say(HOSTILE)
    printing.say_whole(HOSTILE)
    printing.say_facts([(HOSTILE, HOSTILE)])
    printing.say_grid(
        Grid(columns=(GridColumn(heading="A"), GridColumn(heading="B")), rows=[[HOSTILE] * 2])
    )
    printing.complain(HOSTILE)
    printing.say_json({HOSTILE: HOSTILE})
    shown = capsys.readouterr()
    for text in (shown.out, shown.err):
        assert all(char == "\n" or char.isprintable() for char in text)
    assert shown.out.count("[red]a[/red] :boom:") == 8
    assert "\\x1b[31mred" in shown.err


def test_json_says_exactly_what_was_there(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"text": HOSTILE + "\n\t\x00患者é\U0001f4a5\ud800", "n": [1, 2.5, None, True]}
    printing.say_json(value)
    shown = capsys.readouterr().out
    assert json.loads(shown) == value
    assert "患者é" in shown


def test_a_locale_without_the_characters_is_no_reason_to_fail() -> None:
    code = (
        "from daylily_daemon.cli import printing; printing.prepare(); "
        "printing.say('ready \\u2192 complete \\u60a3'); printing.say_json({'a': '\\u2192'})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "ready \\u2192 complete" in done.stdout


def test_a_reader_that_goes_away_ends_a_command_as_sigpipe_would() -> None:
    code = (
        "from daylily_daemon.cli import printing\n"
        "with printing.to_the_end():\n"
        "    for _ in range(100000): printing.say('line')\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        assert writer.stderr is not None
        assert writer.stdout.readline() == "line\n"
        writer.stdout.close()
        assert writer.stderr.read() == ""
    assert writer.returncode == 141


GOOD = ("check-config", "--set", "control.bucket=lab-control")


@pytest.mark.parametrize("command", [GOOD, ("help",), ("version", "--json")])
def test_a_command_whose_reader_is_gone_ends_as_sigpipe_would(command: tuple[str, ...]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    program = [sys.executable, "-m", "daylily_daemon", *command]
    try:
        done = subprocess.run(program, stdout=writer, stderr=subprocess.PIPE, check=False)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def _by_shell(redirected: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = ["sh", "-c", f'exec "$@" {redirected}', "sh", *PROGRAM, *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


@pytest.mark.reported(
    "E", "output that nobody could store, and exit code 0 (uutils/coreutils#9782)"
)
@pytest.mark.reported("E", "output that nobody could store, and not a word of it (fd#737)")
@pytest.mark.parametrize("arguments", [GOOD, (*GOOD, "--json"), ("--version",), ("--help",)])
def test_output_without_room_is_no_success_and_is_said(arguments: tuple[str, ...]) -> None:
    done = _by_shell(">/dev/full", *arguments)
    assert done.returncode == 1
    assert "could not write all it had to say: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert "report it" not in done.stderr


@pytest.mark.reported("E", "a full stderr changes the exit code (uutils/coreutils#10613)")
@pytest.mark.reported("E", "closed streams end a program with a traceback (crudini#82, nab#990)")
@pytest.mark.parametrize("redirected", ["2>/dev/full", "2>&-", ">&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_streams_that_take_nothing_change_no_exit_code(redirected: str) -> None:
    assert _by_shell(redirected, *GOOD).returncode == 0
    refused = _by_shell(redirected, "check-config", "--set", "nothing")
    assert refused.returncode == 2
    assert "Traceback" not in refused.stderr
    assert _by_shell(redirected, "nonsense").returncode == 2


@pytest.mark.reported("D", "names read in the encoding of the locale (aws-cli#1368, lsyncd#657)")
def test_names_are_utf8_whatever_the_locale() -> None:
    def told(**locale: str) -> str:
        argv = [*PROGRAM, *GOOD, "--json", "--set", "daemon.data_dir=/fsx/患者 é"]
        environ = os.environ | locale
        return subprocess.run(argv, env=environ, capture_output=True, check=True).stdout.decode()

    ascii_ = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    assert json.loads(told(**ascii_))["daemon.data_dir"]["value"] == "/fsx/患者 é"
    assert told(**ascii_) == told(LC_ALL="C.UTF-8")


def test_what_is_wrong_with_a_command_line_is_printed_through_the_same_door() -> None:
    done = subprocess.run(
        [*PROGRAM, "show", "a", HOSTILE], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "extra argument" in done.stderr
    assert all(char == "\n" or char.isprintable() for char in done.stderr)


def test_help_and_version_end_with_zero() -> None:
    for option in ("--help", "--version"):
        done = subprocess.run([*PROGRAM, option], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout
