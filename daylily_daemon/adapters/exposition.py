"""The endpoint for Prometheus and for probes, on loopback, for a bounded number of connections.

It is served by the event loop itself, so that it costs no thread a connection and stays silent when the loop
does: an answer of ``/healthz`` proves that it turns. A connection that asks for nothing costs a descriptor
for ever; so one serves one request within ``LIMIT_S``, and the oldest ones make room for a new one, which is
how a scrape gets through however many others there are.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from daylily_daemon.domain.errors import Permanent

LOOPBACK: Final = "127.0.0.1"
MOST_CONNECTIONS: Final = 32
BACKLOG: Final = 16
"""Connections that may be accepted in one turn of the loop, before any makes room."""
LIMIT_S: Final = 10.0
"""From the opening of a connection to the end of its answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pages:
    metrics: Callable[[str], tuple[bytes, str]]
    """Returns the figures and their content type for what the header Accept says."""
    why_not_ready: Callable[[], Sequence[str]]
    """Returns sentences; none where all is well."""

    def answer(self, path: str, accept: str) -> web.Response:
        match path:
            case "/" | "/metrics":
                body, kind = self.metrics(accept)
                return web.Response(body=body, headers={"Content-Type": kind})
            case "/healthz":
                return web.Response(text="ok\n")
            case "/readyz":
                reasons = self.why_not_ready()
                status = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
                return web.Response(status=status, text="\n".join(reasons or ["ok"]) + "\n")
            case _:
                text = "Ask for GET /metrics, /healthz or /readyz.\n"
                return web.Response(status=HTTPStatus.NOT_FOUND, text=text)


class _Bounded(web.Server):
    def __init__(self, *arguments: Any, limit_s: float, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._limit_s = limit_s
        self._ends: dict[RequestHandler, asyncio.TimerHandle] = {}

    def __call__(self) -> RequestHandler:
        for oldest in self.connections[: len(self.connections) - MOST_CONNECTIONS + 1]:
            _abort(oldest)
        handler = super().__call__()
        loop = asyncio.get_running_loop()
        self._ends[handler] = loop.call_later(self._limit_s, _abort, handler)
        return handler

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        if end := self._ends.pop(handler, None):
            end.cancel()
        super().connection_lost(handler, exc)


def _abort(handler: RequestHandler) -> None:
    if handler.transport is not None:
        handler.transport.abort()


@asynccontextmanager
async def serving(port: int, pages: Pages, *, limit_s: float = LIMIT_S) -> AsyncIterator[int]:
    """Answer on this port of 127.0.0.1, 0 for a free one, and yield the port.

    Raises Permanent if it cannot be opened.
    """

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        asks = request.method in ("GET", "HEAD")
        accept = request.headers.get("Accept", "")
        response = pages.answer(request.path if asks else "", accept)
        response.force_close()
        return response

    server = _Bounded(answer, access_log=None, limit_s=limit_s)
    try:
        listening = await asyncio.get_running_loop().create_server(
            server, LOOPBACK, port, backlog=BACKLOG
        )
    except OSError as error:
        why = f"cannot be opened: {error.strerror}. Choose another metrics.port, or 0 for none."
        raise Permanent(f"The port {port} for metrics {why}") from error
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()
        await server.shutdown(0)
