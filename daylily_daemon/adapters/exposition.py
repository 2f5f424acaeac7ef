"""The endpoint for Prometheus: one page, on loopback, for a bounded number of connections.

It is served by the event loop itself, so that it costs no thread a connection and stays silent when the loop
does. A connection that asks for nothing costs a descriptor for ever; so the oldest ones make room for a new
one, which is how a scrape gets through however many others there are.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Final

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from daylily_daemon.domain.errors import Permanent

LOOPBACK: Final = "127.0.0.1"
MOST_CONNECTIONS: Final = 32
BACKLOG: Final = 16
"""Connections that may be accepted in one turn of the loop, before any makes room."""

Render = Callable[[str], tuple[bytes, str]]
"""Returns the page and its content type for what the header Accept says."""


class _Bounded(web.Server):
    def __call__(self) -> RequestHandler:
        for oldest in self.connections[: len(self.connections) - MOST_CONNECTIONS + 1]:
            if oldest.transport is not None:
                oldest.transport.abort()
        return super().__call__()


@asynccontextmanager
async def serving(port: int, render: Render) -> AsyncIterator[int]:
    """Answer GET /metrics on this port of 127.0.0.1, 0 for a free one, and yield the port.

    Raises Permanent if it cannot be opened.
    """

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.path not in ("/", "/metrics") or request.method not in ("GET", "HEAD"):
            return web.Response(status=HTTPStatus.NOT_FOUND, text="Ask for GET /metrics.\n")
        body, kind = render(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": kind})

    server = _Bounded(answer, access_log=None)
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
