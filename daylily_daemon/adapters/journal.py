"""The journal of systemd by its native protocol: one datagram an event, with fields that people search by.

https://systemd.io/JOURNAL_NATIVE_PROTOCOL has the format, and what a sender may rely on. Nothing here waits:
what the socket of the journal does not take at once goes to stderr, which leads to the journal too but knows
no fields, and what stderr does not take either is left out and counted.
"""

from __future__ import annotations

import logging
import re
import select
import socket
import struct
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from typing import IO, Any, Final

ADDRESS: Final = "/run/systemd/journal/socket"
IDENTIFIER: Final = "daylily-daemon"
"""What ``journalctl`` shows in front of each line."""
LINE_LIMIT: Final = 128 * 1024
"""Bytes of a line: with its fields it fits into one datagram of Linux's default size, 208 KiB."""
STDERR_LIMIT: Final = 32 * 1024
"""Bytes of a line that a stream takes at once if it takes anything at all (unix_writable in Linux)."""
FIELDS_LIMIT: Final = 30
VALUE_LIMIT: Final = 250
"""Characters of a field; the line has the whole value."""
PRIORITIES: Final = {"critical": 2, "error": 3, "warning": 4, "info": 6, "debug": 7}
"""As in sd-daemon(3)."""

_NAME: Final = re.compile(r"[a-zA-Z][a-zA-Z0-9_]{0,50}")
_OWN_NAMES: Final = {"workset": "WORKSET"}
"""Fields without the prefix that keeps ours apart from those of others."""
_SOUGHT: Final = frozenset({"event", "workset"})
"""Never left out for want of room."""
_TOLD_OTHERWISE: Final = frozenset({"level", "timestamp", "exception", "exc_info"})


def fields_of(event: Mapping[str, Any]) -> dict[str, str]:
    """Return the fields of an event: ``WORKSET``, ``DAYLILY_EVENT``, and so on for every single value."""
    priority = PRIORITIES.get(str(event.get("level")), PRIORITIES["info"])
    found = {"PRIORITY": str(priority), "SYSLOG_IDENTIFIER": IDENTIFIER}
    for key in sorted(event, key=lambda key: key not in _SOUGHT):
        value = event[key]
        if key in _TOLD_OTHERWISE or not isinstance(value, str | int | float):
            continue
        if len(found) < FIELDS_LIMIT and _NAME.fullmatch(key):
            name = _OWN_NAMES.get(key, f"DAYLILY_{key.upper()}")
            found[name] = str(value)[:VALUE_LIMIT]
    return found


def datagram(line: str, fields: Mapping[str, str]) -> bytes:
    """Return the message: a value with a line end is told by its length, so that it forges no field."""
    message = line.encode(errors="backslashreplace")[:LINE_LIMIT]
    parts = [_field("MESSAGE", message)]
    parts += [
        _field(name, value.encode(errors="backslashreplace")) for name, value in fields.items()
    ]
    return b"".join(parts)


def _field(name: str, value: bytes) -> bytes:
    if b"\n" in value:
        return b"%s\n%s%s\n" % (name.encode(), struct.pack("<Q", len(value)), value)
    return b"%s=%s\n" % (name.encode(), value)


class JournalHandler(logging.StreamHandler[IO[str]]):
    """Sends lines to the journal at ``address``; ``stream``, which is stderr, has what it does not take."""

    def __init__(self, stream: IO[str], address: str = ADDRESS) -> None:
        super().__init__(stream)
        self._address = address
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_UNIX, kind)
        self._left_out = 0
        self._fields: Mapping[str, str] = {}

    def note(
        self, _logger: Any, _method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        """Keep the fields of the event that is being formatted; a processor of structlog.

        What a formatter returns is a plain text, and handlers format one event at a time.
        """
        self._fields = fields_of(event)
        return event

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
            if not self._sent(line, self._fields):
                self._write(line)
        except Exception:  # noqa: BLE001 - as in every handler: who logs is not to suffer from it
            self.handleError(record)

    def _sent(self, line: str, fields: Mapping[str, str]) -> bool:
        if self._left_out:
            fields = {**fields, "DAYLILY_LEFT_OUT": str(self._left_out)}
        try:
            self._socket.sendto(datagram(line, fields), self._address)
        except OSError:  # it is full, or not there
            return False
        self._left_out = 0
        return True

    def _write(self, line: str) -> None:
        """Write to the stream if it takes that at once, else count the line as left out."""
        poll = select.poll()
        poll.register(self.stream, select.POLLOUT)
        if not any(state & select.POLLOUT for _, state in poll.poll(0)):
            self._left_out += 1
            return
        whole = line.encode(errors="backslashreplace")[:STDERR_LIMIT]
        self.stream.write(f"{whole.decode(errors='ignore')}\n")
        self.flush()

    def close(self) -> None:
        with suppress(OSError):
            self._socket.close()
        super().close()
