"""A wire between AWS clients and an emulator that breaks as it is told to, call by call.

It knows which call a request is, as AWS tells them apart, and refuses one with the error body of that call's
protocol. Any program that reads ``AWS_ENDPOINT_URL`` can be put behind it.

``microburst`` from PyPI was tried in its place. It passes answers without a body (HEAD, DELETE) where it was
told to cut them, says 503 for credentials that have expired, ends a silence with an answer of its own, and
needs an environment of its own because of botocore.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import aiohttp
from aiohttp import test_utils, web
from anyio import Event
from yarl import URL

CASE: Final = "x-fault-case"
"""Header that tells the requests of one test from those of others that run meanwhile."""
OF_ONE_CONNECTION: Final = frozenset(
    {"connection", "content-length", "expect", "keep-alive", "transfer-encoding"}
)


class Fault(StrEnum):
    THROTTLE = "throttle"
    BROKEN = "500"
    HANG = "hang"
    """No answer until the client gives up. Nothing is handed on."""
    RESET_BEFORE = "reset_before"
    """The connection is reset before anything is handed on."""
    CUT_AFTER = "cut_after"
    """The request is handed on and done, and the connection is reset instead of an answer."""
    EXPIRED = "expired"
    """The credentials are not accepted any more."""


@dataclass(frozen=True, slots=True, order=True)
class Call:
    service: str
    operation: str

    def __str__(self) -> str:
        return f"{self.service}.{self.operation}"


@dataclass(slots=True, kw_only=True)
class Order:
    """Which requests are to meet which fault."""

    fault: Fault
    call: Call
    case: str
    times: int = 1
    """The first so many of them."""
    happened: int = 0

    def takes(self, call: Call, case: str) -> bool:
        taken = (self.call, self.case) == (call, case) and self.happened < self.times
        self.happened += taken
        return taken


@dataclass(frozen=True, slots=True)
class Heard:
    method: str
    path: str
    """Quoted as it came, with the query."""
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class FaultProxy:
    def __init__(self, upstream: str) -> None:
        self.orders: list[Order] = []
        self._upstream = upstream
        self._over = Event()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Yield the URL to give to clients."""
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._handle)
        server = test_utils.TestServer(app, host="127.0.0.1")
        async with aiohttp.ClientSession(auto_decompress=False) as self._session:
            await server.start_server(access_log=None)
            try:
                yield str(server.make_url("/"))
            finally:
                self._over.set()
                await server.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        heard = Heard(request.method, request.raw_path, request.headers, await request.read())
        call, case = call_of(heard), heard.headers.get(CASE, "")
        taken = [order.fault for order in self.orders if order.takes(call, case)]
        match taken[0] if taken else None:
            case None:
                return await hand_on(self._session, self._upstream, heard)
            case Fault.HANG:
                await self._over.wait()
                return reset(request)
            case Fault.RESET_BEFORE:
                return reset(request)
            case Fault.CUT_AFTER:
                await hand_on(self._session, self._upstream, heard)
                return reset(request)
            case fault:
                return refusal(fault, call)


async def hand_on(session: aiohttp.ClientSession, upstream: str, heard: Heard) -> web.Response:
    """Make the same request of ``upstream`` and return its answer."""
    url = URL(upstream.rstrip("/") + heard.path, encoded=True)
    async with session.request(
        heard.method,
        url,
        data=heard.body,
        headers=_kept(heard.headers),
        skip_auto_headers={"Content-Type"},
        allow_redirects=False,
    ) as reply:
        headers, body = _kept(reply.headers), await reply.read()
        if heard.method == "HEAD" and "Content-Length" in reply.headers:
            headers["Content-Length"] = reply.headers["Content-Length"]
        return web.Response(status=reply.status, headers=headers, body=body or None)


def _kept(headers: Mapping[str, str]) -> dict[str, str]:
    return {k: v for k, v in headers.items() if k.lower() not in OF_ONE_CONNECTION}


def reset(request: web.Request) -> web.Response:
    """Reset the connection: without lingering, closing it sends RST."""
    assert request.transport is not None
    connection = request.transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.transport.abort()
    return web.Response()


# --- which call a request is ---------------------------------------------------------------------


_TARGETS: Final = {"DynamoDB_20120810": "dynamodb", "AmazonSQS": "sqs"}
_BUCKET: Final = {
    "GET list-type": "ListObjectsV2",
    "GET notification": "GetBucketNotificationConfiguration",
    "PUT notification": "PutBucketNotificationConfiguration",
    "GET uploads": "ListMultipartUploads",
    "PUT": "CreateBucket",
    "HEAD": "HeadBucket",
}
_OBJECT: Final = {
    "GET uploadId": "ListParts",
    "PUT uploadId": "UploadPart",
    "POST uploads": "CreateMultipartUpload",
    "POST uploadId": "CompleteMultipartUpload",
    "HEAD": "HeadObject",
    "GET": "GetObject",
    "PUT": "PutObject",
    "DELETE": "DeleteObject",
}
_TELLING: Final = ("list-type", "notification", "uploads", "uploadId")
"""Parameters of a query that make it another call."""


def call_of(heard: Heard) -> Call:
    """Return the call by the target header (JSON), the form (SNS) or method, path and query (S3)."""
    prefix, _, operation = heard.headers.get("X-Amz-Target", "").partition(".")
    if operation:
        return Call(_TARGETS.get(prefix, prefix), operation)
    form = heard.headers.get("Content-Type", "").startswith("application/x-www-form-urlencoded")
    if form and (action := parse_qs(heard.body.decode()).get("Action")):
        return Call("sns", action[0])
    return Call("s3", _s3_operation(heard))


def _s3_operation(heard: Heard) -> str:
    """Of path-style addresses: ``/bucket/key``."""
    parts = urlsplit(heard.path)
    query = parse_qs(parts.query, keep_blank_values=True)
    telling = "".join(name for name in _TELLING if name in query)
    request = f"{heard.method} {telling}".strip()
    _, _, key = parts.path.strip("/").partition("/")
    if heard.headers.get("x-amz-copy-source"):
        return "UploadPartCopy" if "uploadId" in telling else "CopyObject"
    return (_OBJECT if key else _BUCKET).get(request, request)


# --- refusals, as AWS writes them ----------------------------------------------------------------


_REFUSALS: Final[Mapping[tuple[Fault, str], tuple[int, str]]] = {
    (Fault.THROTTLE, "dynamodb"): (400, "ProvisionedThroughputExceededException"),
    (Fault.THROTTLE, "sqs"): (400, "RequestThrottled"),
    (Fault.THROTTLE, "s3"): (503, "SlowDown"),
    (Fault.THROTTLE, "sns"): (429, "Throttled"),
    (Fault.BROKEN, "dynamodb"): (500, "InternalServerError"),
    (Fault.BROKEN, "sqs"): (500, "InternalFailure"),
    (Fault.BROKEN, "s3"): (500, "InternalError"),
    (Fault.BROKEN, "sns"): (500, "InternalError"),
    (Fault.EXPIRED, "dynamodb"): (400, "ExpiredTokenException"),
    (Fault.EXPIRED, "sqs"): (403, "ExpiredTokenException"),
    (Fault.EXPIRED, "s3"): (400, "ExpiredToken"),
    (Fault.EXPIRED, "sns"): (403, "ExpiredToken"),
}
_WORDS: Final = "So says the wire."


def refusal(fault: Fault, call: Call) -> web.Response:
    status, code = _REFUSALS[fault, call.service]
    match call.service:
        case "s3":
            return _s3_refusal(call, status, code)
        case "sns":
            body = (
                '<ErrorResponse xmlns="http://sns.amazonaws.com/doc/2010-03-31/">'
                f"<Error><Type>Sender</Type><Code>{code}</Code><Message>{_WORDS}</Message></Error>"
                "<RequestId>r-1</RequestId></ErrorResponse>"
            )
            return web.Response(status=status, text=body, content_type="text/xml")
        case _:
            error = json.dumps(
                {"__type": f"com.amazonaws.{call.service}#{code}", "message": _WORDS}
            )
            headers = {"Content-Type": "application/x-amz-json-1.0"}
            return web.Response(status=status, headers=headers, body=error.encode())


def _s3_refusal(call: Call, status: int, code: str) -> web.Response:
    """An answer to HEAD has no body, and so no code: the SDK sees the status alone."""
    if call.operation.startswith("Head"):
        return web.Response(status=status)
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>'
        f"<Error><Code>{code}</Code><Message>{_WORDS}</Message><RequestId>r-1</RequestId></Error>"
    )
    return web.Response(status=status, text=body, content_type="application/xml")
