"""The journal by its native protocol, read by a parser of its own; what is not taken is never waited for."""

from __future__ import annotations

import io
import json
import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import pytest
import structlog

from daylily_daemon.adapters.journal import LINE_LIMIT, STDERR_LIMIT
from daylily_daemon.telemetry import configure
from tests.unit.test_telemetry import HUSH, log, logging_as_it_was

__all__ = ["logging_as_it_was"]
"""A fixture that every test here uses."""

FLOOD: Final = 5000


@dataclass
class Journald:
    """Receives as journald does: names and values line by line, or a length where a line has a name alone."""

    listening: socket.socket
    entries: list[dict[str, str]] = field(default_factory=list)

    @property
    def address(self) -> str:
        return str(self.listening.getsockname())

    def heard(self) -> list[dict[str, str]]:
        """Return all that lies in the socket."""
        while True:
            try:
                self.entries.append(parsed(self.listening.recv(1 << 20)))
            except BlockingIOError:
                return self.entries


def parsed(message: bytes) -> dict[str, str]:
    found: dict[str, str] = {}
    stream = io.BytesIO(message)
    while head := stream.readline().rstrip(b"\n"):
        name, equals, value = head.partition(b"=")
        if not equals:
            size = int.from_bytes(stream.read(8), "little")
            value, end = stream.read(size), stream.read(1)
            assert (len(value), end) == (size, b"\n")
        assert name.decode() not in found
        found[name.decode()] = value.decode()
    assert stream.read() == b""
    return found


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[Journald]:
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as listening:
        listening.bind(str(tmp_path / "socket"))
        listening.setblocking(False)
        yield Journald(listening)


@dataclass
class Stderr:
    """The stream behind stderr, which nobody reads until a test does."""

    stream: IO[str]
    end: socket.socket

    def lines(self) -> list[str]:
        taken = b""
        while True:
            try:
                taken += self.end.recv(1 << 20)
            except BlockingIOError:
                return taken.decode().splitlines()


@pytest.fixture
def stderr() -> Iterator[Stderr]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    theirs.setblocking(False)
    with closing(ours), closing(theirs), ours.makefile("w", encoding="utf-8") as stream:
        yield Stderr(stream, theirs)


def test_an_event_comes_with_its_priority_and_its_values_as_fields(
    journald: Journald, stderr: Stderr
) -> None:
    configure("debug", json=True, stream=stderr.stream, journal=journald.address)
    log().bind(workset="HG002-run7").info("claimed", fence=3, run="r1", worksets=["a"], step=None)
    (entry,) = journald.heard()
    line = json.loads(entry.pop("MESSAGE"))
    assert (line["event"], line["workset"], line["worksets"]) == ("claimed", "HG002-run7", ["a"])
    assert entry == {
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "daylily-daemon",
        "WORKSET": "HG002-run7",
        "DAYLILY_EVENT": "claimed",
        "DAYLILY_FENCE": "3",
        "DAYLILY_RUN": "r1",
    }
    assert stderr.lines() == [], "nothing is said twice"


@pytest.mark.parametrize("json", [True, False])
@pytest.mark.parametrize(
    ("level", "priority"),
    [("debug", "7"), ("info", "6"), ("warning", "4"), ("error", "3"), ("critical", "2")],
)
def test_the_journal_is_told_the_priority_of_each_line(
    journald: Journald, stderr: Stderr, level: str, priority: str, json: bool
) -> None:
    configure("debug", json=json, stream=stderr.stream, journal=journald.address)
    getattr(log(), level)("seen")
    assert [entry["PRIORITY"] for entry in journald.heard()] == [priority]


def test_lines_of_libraries_have_a_priority_too(journald: Journald, stderr: Stderr) -> None:
    configure("info", json=True, stream=stderr.stream, journal=journald.address)
    logging.getLogger("botocore").warning("foreign %s", "word")
    (entry,) = journald.heard()
    assert (entry["PRIORITY"], entry["DAYLILY_EVENT"]) == ("4", "foreign word")
    assert entry["DAYLILY_LOGGER"] == "botocore"


def test_secrets_are_no_fields_either(journald: Journald, stderr: Stderr) -> None:
    configure("info", json=True, stream=stderr.stream, journal=journald.address)
    log().warning("asked", api_key=HUSH, token=HUSH)
    (entry,) = journald.heard()
    assert HUSH not in str(entry)
    assert entry["DAYLILY_API_KEY"] == "***"


@pytest.mark.reported("C", "a name with a line end forges a line of the log (servy#354)")
@pytest.mark.parametrize("json", [True, False])
def test_a_value_with_a_line_end_forges_no_field(
    journald: Journald, stderr: Stderr, json: bool
) -> None:
    configure("info", json=json, stream=stderr.stream, journal=journald.address)
    log().info("read", workset="a\nPRIORITY=0\n_UID=0", text="b\0c\ud800")
    (entry,) = journald.heard()
    assert entry["PRIORITY"] == "6"
    assert "_UID" not in entry
    assert entry["WORKSET"].startswith("a")


@pytest.mark.reported(
    "E", "a long line is too much for a datagram and is lost (terok-ai/terok#1226)"
)
def test_a_line_of_any_length_arrives_cut_at_a_bound(journald: Journald, stderr: Stderr) -> None:
    configure("info", json=True, stream=stderr.stream, journal=journald.address)
    log().info("long", text="x" * 3_000_000, **{f"more_{n}": "y" * 1000 for n in range(100)})
    (entry,) = journald.heard()
    assert len(entry["MESSAGE"]) == LINE_LIMIT
    assert entry["DAYLILY_EVENT"] == "long"
    assert entry["DAYLILY_TEXT"] == "x" * 250
    assert len(entry) <= 40
    assert stderr.lines() == []


def test_a_traceback_is_in_the_line_and_no_field(journald: Journald, stderr: Stderr) -> None:
    configure("info", json=True, stream=stderr.stream, journal=journald.address)
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        log().exception("broke")
    (entry,) = journald.heard()
    assert "ValueError: first" in json.loads(entry["MESSAGE"])["exception"]
    assert not [name for name in entry if "EXC" in name]


def test_where_there_is_no_journal_lines_go_to_stderr(tmp_path: Path, stderr: Stderr) -> None:
    configure("info", json=True, stream=stderr.stream, journal=str(tmp_path / "nobody"))
    log().info("seen", workset="w1")
    assert [json.loads(line)["event"] for line in stderr.lines()] == ["seen"]


def test_what_a_full_journal_does_not_take_goes_to_stderr_and_nothing_twice(
    journald: Journald, stderr: Stderr
) -> None:
    configure("info", json=True, stream=stderr.stream, journal=journald.address)
    flood(lambda: len(stderr.lines()))
    sent = [json.loads(entry["MESSAGE"])["number"] for entry in journald.heard()]
    assert sent == list(range(len(sent)))
    log().info("later")
    assert journald.heard()[-1]["DAYLILY_EVENT"] == "later", "the journal is asked again"
    assert stderr.lines() == []


def flood(refused: Callable[[], Any]) -> None:
    """Say a line after another until one was refused."""
    for number in range(FLOOD):
        log().info("seen", number=number)
        if refused():
            return
    pytest.fail("a socket that nobody reads took everything")


@pytest.mark.reported("B", "daemons hang as long as journald does (systemd/systemd#16456)")
def test_where_nothing_takes_a_line_it_is_left_out_and_counted(
    journald: Journald, stderr: Stderr
) -> None:
    configure("info", json=True, stream=stderr.stream, journal=journald.address)
    for number in range(FLOOD):
        log().info("seen", number=number, text="x" * 300)
    sent, written = len(journald.heard()), len(stderr.lines())
    log().info("later")
    entry = journald.heard()[-1]
    assert entry["DAYLILY_EVENT"] == "later"
    assert int(entry["DAYLILY_LEFT_OUT"]) == FLOOD - sent - written > 0
    log().info("last")
    assert "DAYLILY_LEFT_OUT" not in journald.heard()[-1], "told once"


def test_a_line_is_cut_to_what_stderr_takes_at_once(tmp_path: Path, stderr: Stderr) -> None:
    configure("info", json=True, stream=stderr.stream, journal=str(tmp_path / "nobody"))
    log().info("long", text="ä" * 1_000_000)
    (line,) = stderr.lines()
    assert STDERR_LIMIT - 10 < len(line.encode()) <= STDERR_LIMIT


def test_configuring_again_leaves_no_socket_behind(journald: Journald, stderr: Stderr) -> None:
    configure("info", json=True, stream=stderr.stream, journal=journald.address)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        configure("info", json=True, stream=stderr.stream, journal=journald.address)
    assert len(os.listdir("/proc/self/fd")) == before
    structlog.get_logger().info("once")
    assert len(journald.heard()) == 1
