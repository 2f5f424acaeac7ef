"""AWS on a bad day: what stands between the program and the emulator, and may answer in its place."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

_SCOPE: Final = re.compile(r"Credential=[^/]+/\d+/[^/]+/(\w+)/")
_PASSED_OVER: Final = frozenset(
    {"connection", "transfer-encoding", "content-length", "date", "server"}
)


@dataclass
class TroubledAws:
    """Set ``code`` for what is answered in place of the emulator, and ``ahead_s`` for the clock of AWS."""

    url: str
    emulator: str
    code: str = ""
    words: str = ""
    status: int = 400
    only: str = ""
    """Of one service alone; empty: all."""
    ahead_s: float = 0.0
    asked: int = 0
    """Requests so far."""

    def refuse(self, code: str, words: str, status: int = 400, only: str = "") -> None:
        self.words, self.status, self.only, self.code = words, status, only, code

    def recover(self) -> None:
        self.code, self.ahead_s = "", 0.0

    def date(self) -> str:
        now = datetime.now(UTC) + timedelta(seconds=self.ahead_s)  # noqa: TID251 - as a server says it
        return format_datetime(now, usegmt=True)

    def refusal(self, service: str) -> tuple[str, bytes]:
        if service in ("dynamodb", "sqs"):
            body = f'{{"__type": "com.amazonaws#{self.code}", "message": "{self.words}"}}'
            return "application/x-amz-json-1.0", body.encode()
        if service == "monitoring":
            return "application/cbor", _cbor({"__type": self.code, "message": self.words})
        inner = f"<Code>{self.code}</Code><Message>{self.words}</Message>"
        body = f"<Error>{inner}</Error>"
        if service != "s3":
            body = f"<ErrorResponse><Error><Type>Sender</Type>{inner}</Error></ErrorResponse>"
        return "application/xml", body.encode()


def _cbor(texts: Mapping[str, str]) -> bytes:
    """Return texts as CBOR has them (RFC 8949): a map of strings of less than 256 bytes."""
    words = [word.encode() for pair in texts.items() for word in pair]
    return bytes([0xA0 + len(texts)]) + b"".join(b"\x78%c%s" % (len(w), w) for w in words)


@contextmanager
def troubled_aws(emulator: str) -> Iterator[TroubledAws]:
    """Yield a way to the emulator that can be made to go wrong."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.aws = TroubledAws(f"http://127.0.0.1:{server.server_port}", emulator)  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.aws  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _any(self) -> None:
        aws: TroubledAws = self.server.aws  # type: ignore[attr-defined]
        aws.asked += 1
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        scope = _SCOPE.search(self.headers.get("Authorization", ""))
        service = scope[1] if scope else ""
        if aws.code and aws.only in ("", service):
            kind, answer = aws.refusal(service)
            self._answer(aws, aws.status, {"Content-Type": kind}, answer)
        else:
            self._answer(aws, *self._asked(aws.emulator, body))

    def _asked(self, emulator: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        inner = HTTPConnection(emulator.removeprefix("http://"), timeout=60)
        try:
            headers = {name: value for name, value in self.headers.items() if name != "Host"}
            headers["Host"] = emulator.removeprefix("http://")
            inner.request(self.command, self.path, body, headers)
            found = inner.getresponse()
            return found.status, dict(found.getheaders()), found.read()
        finally:
            inner.close()

    def _answer(self, aws: TroubledAws, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in _PASSED_OVER:
                self.send_header(name, value)
        self.send_header("Date", aws.date())
        length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(body))
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _any

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""
