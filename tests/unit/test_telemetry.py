from __future__ import annotations

import io
import json
import logging
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog

from daylily_daemon.telemetry import (
    Repeats,
    Systemd,
    configure,
    is_journal,
    sd_notify,
    set_level,
    systemd,
    wants_json,
)

HUSH = "hush-1f3a"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("daylily_daemon")
    handlers, root_level, our_level = root.handlers[:], root.level, ours.level
    # A library that configures logging (import-linter does) disables all loggers it does not name.
    ours.disabled = logging.getLogger("botocore").disabled = False
    yield
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers[:] = handlers
    root.setLevel(root_level)
    ours.setLevel(our_level)


def log() -> Any:
    return structlog.get_logger()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def fail_with_a_secret_at_hand() -> None:
    password = HUSH
    raise ValueError(f"first\nsecond\x1b[31m {len(password)}")


def log_a_failure() -> None:
    try:
        fail_with_a_secret_at_hand()
    except ValueError:
        log().exception("step_failed", workset="w1")


def test_an_event_is_one_line_of_json_with_its_context() -> None:
    stream = io.StringIO()
    configure("info", json=True, stream=stream)
    log().bind(workset="w1", run="r1").info("job_started", command="c1", text="a\nb")
    (line,) = lines(stream)
    at = datetime.fromisoformat(line.pop("timestamp"))
    assert at.utcoffset() == timedelta(0)
    assert line == {
        "event": "job_started",
        "level": "info",
        "workset": "w1",
        "run": "r1",
        "command": "c1",
        "text": "a\nb",
    }


def test_a_traceback_is_part_of_the_one_line() -> None:
    stream = io.StringIO()
    configure("info", json=True, stream=stream)
    log_a_failure()
    (line,) = lines(stream)
    assert "fail_with_a_secret_at_hand" in line["exception"]


@pytest.mark.parametrize(
    ("stream", "json"), [(io.StringIO(), True), (io.StringIO(), False), (Terminal(), False)]
)
def test_a_traceback_shows_no_local_variables(stream: io.StringIO, json: bool) -> None:
    configure("info", json=json, stream=stream)
    log_a_failure()
    assert "ValueError: first" in stream.getvalue()
    assert HUSH not in stream.getvalue()


@pytest.mark.parametrize("json", [True, False])
@pytest.mark.parametrize(
    "key",
    ["api_key", "ApiKey", "token", "password", "webhook_url", "client_secret", "Authorization"],
)
def test_what_looks_like_a_secret_is_masked_however_deep(json: bool, key: str) -> None:
    stream = io.StringIO()
    configure("info", json=json, stream=stream)
    log().info(
        "asked", **{key: HUSH}, details={"headers": [{key: HUSH}], ("odd", 1): ({key: HUSH},)}
    )
    assert HUSH not in stream.getvalue()
    assert stream.getvalue().count("***") == 3


def test_what_looks_like_no_secret_is_shown() -> None:
    stream = io.StringIO()
    configure("info", json=True, stream=stream)
    log().info("asked", key="k", workset="w", sort_key="s", keys=["a"])
    shown = lines(stream)[0]
    assert (shown["key"], shown["sort_key"], shown["keys"]) == ("k", "s", ["a"])


@pytest.mark.reported("C", "a name with a line end forges a line of the log (servy#354)")
def test_nothing_foreign_forges_a_line_or_commands_a_terminal() -> None:
    stream = io.StringIO()
    configure("info", json=False, stream=stream)
    log().info("read\x1b[2J", text="a\nb\x1b[31m\u2028c", details={"x": "d\ne\x1b"})
    logging.getLogger("botocore").warning("foreign\nline\x07")
    assert len(stream.getvalue().splitlines()) == 2
    log_a_failure()
    assert "\x1b" not in stream.getvalue()
    assert "\x07" not in stream.getvalue()


def test_the_level_changes_while_running() -> None:
    stream = io.StringIO()
    configure("info", json=True, stream=stream)
    bound = log().bind(workset="w1")
    bound.debug("unseen")
    set_level("debug")
    bound.debug("seen")
    set_level("error")
    bound.warning("unseen")
    assert [line["event"] for line in lines(stream)] == ["seen"]


def test_the_journal_is_known_by_the_file_it_gave(tmp_path: Path) -> None:
    with (tmp_path / "a").open("w") as ours, (tmp_path / "b").open("w") as other:
        found = os.fstat(ours.fileno())
        environment = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        assert is_journal(ours, environment)
        assert not is_journal(other, environment), "stderr was sent elsewhere"
        assert not is_journal(ours, {})
        assert not is_journal(io.StringIO(), environment)


def test_the_same_sentence_is_said_once_a_minute_with_how_often_it_was_left_out() -> None:
    stream, now = io.StringIO(), [0.0]
    configure("info", json=True, stream=stream, watch=(Repeats(lambda: now[0]),))
    for number in range(87):
        now[0] = number / 4.35
        log().warning("command_comes_again", error="No right.", workset=f"w{number}", tries=number)
        log().info("seen", error="No right.")
    log().warning("command_comes_again", error="No table.")
    log().warning("event_comes_again", error="No right.")
    now[0] = 60.0
    log().warning("command_comes_again", error="No right.", workset="w88")
    now[0] = 119.0
    log().warning("command_comes_again", error="No right.")
    now[0] = 120.0
    log().warning("command_comes_again", error="No right.")
    said = [line for line in lines(stream) if line["event"] != "seen"]
    assert [(line["error"], line.get("repeated")) for line in said] == [
        ("No right.", None),
        ("No table.", None),
        ("No right.", None),
        ("No right.", 86),
        ("No right.", 1),
    ]
    assert len(lines(stream)) == len(said) + 87


def test_a_defect_is_told_each_time_and_sentences_are_not_kept_for_ever() -> None:
    stream = io.StringIO()
    repeats = Repeats(lambda: 0.0)
    configure("info", json=True, stream=stream, watch=(repeats,))
    for _ in range(2):
        try:
            raise ValueError
        except ValueError as exc:
            log().error("unexpected", error="odd", exc_info=exc)
    assert len(lines(stream)) == 2
    for number in range(2500):
        log().warning("again", error=f"No {number}.")
    assert len(repeats._said) <= 1000


def test_libraries_speak_from_warning_on_in_the_same_form() -> None:
    stream = io.StringIO()
    configure("debug", json=True, stream=stream)
    logging.getLogger("botocore.retries").info("unseen")
    logging.getLogger("botocore.retries").warning("retry %s", 3)
    (line,) = lines(stream)
    assert (line["event"], line["level"], line["logger"]) == (
        "retry 3",
        "warning",
        "botocore.retries",
    )
    assert line["timestamp"].endswith("Z")


def test_warnings_of_python_are_events_too() -> None:
    stream = io.StringIO()
    configure("info", json=True, stream=stream)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("odd", UserWarning, stacklevel=1)
    (line,) = lines(stream)
    assert "UserWarning: odd" in line["event"]


def test_configuring_again_does_not_double_the_lines() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure("info", json=True, stream=first)
    configure("info", json=True, stream=second)
    log().info("once")
    assert (len(lines(first)), len(lines(second))) == (0, 1)


@pytest.mark.parametrize(
    ("format", "stream", "environment", "expected"),
    [
        ("auto", Terminal(), {}, False),
        ("auto", Terminal(), {"NOTIFY_SOCKET": "@x"}, True),
        ("auto", io.StringIO(), {}, True),
        ("json", Terminal(), {}, True),
        ("console", io.StringIO(), {"NOTIFY_SOCKET": "@x"}, False),
    ],
)
def test_a_console_is_for_people_and_json_for_the_rest(
    format: str, stream: io.StringIO, environment: dict[str, str], expected: bool
) -> None:
    assert wants_json(format, stream, environment) is expected


def test_only_a_terminal_gets_colours() -> None:
    terminal, file = Terminal(), io.StringIO()
    for stream in (terminal, file):
        configure("info", json=False, stream=stream)
        log().info("seen")
    assert "\x1b[" in terminal.getvalue()
    assert "\x1b[" not in file.getvalue()


@pytest.fixture(params=["path", "abstract"])
def service_manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[socket.socket]:
    """The socket systemd would listen on, in both of its forms."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as listening:
        listening.settimeout(5)
        name = str(tmp_path / "notify")
        listening.bind(name if request.param == "path" else "\0" + name)
        yield listening


def address_of(listening: socket.socket) -> str:
    name = listening.getsockname()
    return "@" + name[1:].decode() if isinstance(name, bytes) else str(name)


def heard(listening: socket.socket) -> str:
    return listening.recv(4096).decode()


def test_each_state_is_one_datagram(service_manager: socket.socket) -> None:
    manager = Systemd(address=address_of(service_manager))
    assert manager.ready("Watching 3 worksets.")
    assert heard(service_manager) == "READY=1\nSTATUS=Watching 3 worksets."
    assert manager.reloading(1234567)
    assert heard(service_manager) == "RELOADING=1\nMONOTONIC_USEC=1234567"
    assert manager.ready()
    assert heard(service_manager) == "READY=1"
    assert manager.watchdog()
    assert heard(service_manager) == "WATCHDOG=1"
    assert manager.stopping("Letting go.")
    assert heard(service_manager) == "STOPPING=1\nSTATUS=Letting go."


def test_a_status_cannot_smuggle_in_a_state(service_manager: socket.socket) -> None:
    Systemd(address=address_of(service_manager)).status("fine\nSTOPPING=1\r\0")
    assert heard(service_manager) == "STATUS=fine STOPPING=1  "


def test_without_a_service_manager_nothing_is_said(tmp_path: Path) -> None:
    manager = systemd({}, pid=1)
    assert manager == Systemd(address="", watchdog_s=None)
    assert not manager.ready()
    assert not manager.reloading(1)
    assert not sd_notify(str(tmp_path / "nobody"), "READY=1")


def test_a_service_manager_that_does_not_read_holds_nobody_up(
    service_manager: socket.socket,
) -> None:
    address = address_of(service_manager)
    for _ in range(5000):
        if not sd_notify(address, "WATCHDOG=1"):
            return
    pytest.fail("the queue of a socket that nobody reads never filled up")


def test_the_watchdog_is_fed_twice_as_often_as_systemd_looks() -> None:
    told = {"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "42"}
    assert systemd(told, pid=42).watchdog_s == 1.5
    assert systemd(told, pid=43).watchdog_s is None
    assert systemd(told | {"WATCHDOG_USEC": "soon"}, pid=42).watchdog_s is None
    del told["WATCHDOG_PID"]
    assert systemd(told, pid=43).watchdog_s == 1.5
