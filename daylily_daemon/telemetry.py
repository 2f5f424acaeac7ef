"""What the daemon says of itself: logs for people and journald, states for systemd.

Logs are events: one line each, JSON where a program reads them. structlog and the logging of libraries
leave through the same handler, and every value passes the same two gates: what stands under a key that
looks like a secret is masked, and control characters are spelled out, so that nothing a lab or a job
writes can forge a line or reach a terminal as an escape sequence. Only tracebacks on a terminal are
longer than a line.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, Final, TextIO

import structlog
from structlog.typing import EventDict, ExcInfo, Processor, WrappedLogger

from daylily_daemon.adapters.journal import JournalHandler
from daylily_daemon.domain import printable

LOGGER: Final = "daylily_daemon"
MASK: Final = "***"
NOTIFY_TIMEOUT_S: Final = 1.0

_SECRET_KEY: Final = re.compile(
    r"secret|passw|token|credential|authorization|cookie|webhook_url|signature"
    r"|(api|access|private|session)_?-?key",
    re.IGNORECASE,
)

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def wants_json(format: str, stream: IO[str], environment: Mapping[str, str]) -> bool:
    """Decide ``auto``: a console only where a person watches a terminal, never under systemd."""
    watched = stream.isatty() and "NOTIFY_SOCKET" not in environment
    return format == "json" or (format == "auto" and not watched)


def is_journal(stream: IO[str], environment: Mapping[str, str]) -> bool:
    """Tell whether what is written to ``stream`` goes to the journal, as systemd.exec(5) has it."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environment.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def configure(
    level: str,
    *,
    json: bool,
    stream: IO[str] | None = None,
    journal: str = "",
    watch: tuple[Processor, ...] = (),
) -> None:
    """Send all logging of this process to ``stream`` (stderr by default); may be called again.

    ``journal`` is the socket of the journal, if ``stream`` leads there: it gets each line with priority and
    fields, and ``stream`` only what it does not take. ``watch`` are processors that look at each of our own
    events on its way out.
    """
    stream = stream or sys.stderr
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        mask_secrets,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *watch,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=lambda *_: logging.getLogger(LOGGER),
        cache_logger_on_first_use=False,
    )
    libraries = [structlog.stdlib.add_logger_name, *shared]
    rendering = _json() if json else _console(colors=stream.isatty())
    handler = logging.StreamHandler(stream)
    if journal:
        handler = JournalHandler(stream, journal)
        rendering.insert(0, handler.note)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=libraries,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    _replace(handler)
    set_level(level)


def set_level(level: str) -> None:
    """Let through what is at least ``level``; libraries speak from WARNING on."""
    logging.getLogger(LOGGER).setLevel(level.upper())


def _replace(handler: logging.Handler) -> None:
    root = logging.getLogger()
    for old in root.handlers[:]:
        if isinstance(old.formatter, structlog.stdlib.ProcessorFormatter):
            root.removeHandler(old)
            old.close()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)


def _json() -> list[Processor]:
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]


SAID_EVERY_S: Final = 60.0
_REMEMBERED: Final = 1000
"""Sentences; beyond, all are forgotten and may be said again."""


@dataclass(slots=True)
class Repeats:
    """Lets the same warning or error through once a minute, with how often it was left out since.

    The same is one of the same name with the same sentence, whichever workset or message it is about. A
    defect, which has a traceback, is always told.
    """

    monotonic_s: Callable[[], float]
    _said: dict[tuple[str, ...], tuple[float, int]] = field(default_factory=dict)
    """When it was said last, and how often it was left out since."""

    def __call__(self, _logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        """Raises DropEvent, which is how structlog leaves a line out."""
        sentence = event.get("error") or event.get("reason")
        if method not in ("warning", "error") or not isinstance(sentence, str):
            return event
        if event.get("exc_info"):
            return event
        known, now = (str(event.get("event")), sentence), self.monotonic_s()
        said_at, left_out = self._said.get(known, (-SAID_EVERY_S, 0))
        if now - said_at < SAID_EVERY_S:
            self._said[known] = said_at, left_out + 1
            raise structlog.DropEvent
        if len(self._said) >= _REMEMBERED:
            self._said.clear()
        self._said[known] = now, 0
        return {**event, "repeated": left_out} if left_out else event


def _console(*, colors: bool) -> list[Processor]:
    return [
        one_line,
        structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=_traceback),
    ]


def _traceback(output: TextIO, exc_info: ExcInfo) -> None:
    """Write a traceback without local variables, which structlog's own would show, secrets and all."""
    text = "".join(traceback.format_exception(*exc_info))
    output.write("\n" + printable.lines(text.rstrip("\n")))


def mask_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Mask what stands under a key that looks like a secret, however deep."""
    return {key: _masked(key, value) for key, value in event.items()}


def _masked(key: object, value: Any) -> Any:
    if isinstance(key, str) and _SECRET_KEY.search(key):
        return MASK
    if isinstance(value, Mapping):
        return {str(inner): _masked(inner, found) for inner, found in value.items()}
    if isinstance(value, list):
        return [_masked(None, found) for found in value]
    if isinstance(value, tuple):
        return tuple(_masked(None, found) for found in value)
    return value


def one_line(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Spell out what a terminal might obey; JSON does so by itself, and so does the repr of other values."""
    return {
        key: printable.one_line(value) if isinstance(value, str) else value
        for key, value in event.items()
    }


def sd_notify(address: str, state: str) -> bool:
    """Send ``state`` to systemd as one datagram; return whether it took it. No address, no-op."""
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.settimeout(NOTIFY_TIMEOUT_S)
        try:
            channel.sendto(state.encode(), address)
        except OSError:
            return False
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Systemd:
    """The service manager as the daemon sees it; everything is a no-op without one."""

    address: str = ""
    watchdog_s: float | None = None
    """How often to say ``watchdog``: half of what systemd waits for. None if it does not watch."""

    def ready(self, text: str = "") -> bool:
        return self._say("READY=1", text)

    def reloading(self, monotonic_usec: int) -> bool:
        """Say that a reload begins; ``ready`` must follow. CLOCK_MONOTONIC in microseconds."""
        return sd_notify(self.address, f"RELOADING=1\nMONOTONIC_USEC={monotonic_usec}")

    def stopping(self, text: str = "") -> bool:
        return self._say("STOPPING=1", text)

    def watchdog(self) -> bool:
        """Say that a pass over all worksets was finished, not merely that the process lives."""
        return sd_notify(self.address, "WATCHDOG=1")

    def status(self, text: str) -> bool:
        return sd_notify(self.address, _status(text))

    def _say(self, state: str, text: str) -> bool:
        return sd_notify(self.address, f"{state}\n{_status(text)}" if text else state)


def _status(text: str) -> str:
    return f"STATUS={printable.one_line(_CONTROL.sub(' ', text))}"


def systemd(environment: Mapping[str, str], pid: int) -> Systemd:
    """Read what systemd told the process ``pid``; its watchdog may be meant for another one."""
    usec = environment.get("WATCHDOG_USEC", "")
    ours = environment.get("WATCHDOG_PID", str(pid)) == str(pid)
    return Systemd(
        address=environment.get("NOTIFY_SOCKET", ""),
        watchdog_s=int(usec) / 2_000_000 if usec.isdecimal() and ours else None,
    )
