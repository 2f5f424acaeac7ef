"""The endpoint for Prometheus: one page, and no number of connections keeps a scrape out."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from contextlib import ExitStack, suppress
from dataclasses import replace

import aiohttp
import pytest
from anyio import current_time, fail_after, sleep, to_thread
from anyio.lowlevel import checkpoint

from daylily_daemon.adapters.exposition import BACKLOG, MOST_CONNECTIONS, Pages, serving
from daylily_daemon.domain.errors import Permanent

IDLE = 300


def page(accept: str) -> tuple[bytes, str]:
    return b"daylily_worksets 1\n", "text/plain; version=0.0.4"


PAGES = Pages(metrics=page, why_not_ready=list)


async def get(port: int, path: str = "/metrics", method: str = "GET") -> tuple[int, str]:
    url = f"http://127.0.0.1:{port}{path}"
    async with aiohttp.ClientSession() as session, session.request(method, url) as answer:
        return answer.status, await answer.text()


async def is_refused(host: str, port: int) -> bool:
    with socket.socket() as client:
        return await to_thread.run_sync(client.connect_ex, (host, port)) == errno.ECONNREFUSED


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_the_page_is_served_on_one_address_of_loopback_until_closed() -> None:
    async with serving(0, PAGES) as port:
        assert await get(port) == (200, "daylily_worksets 1\n")
        assert await get(port, method="HEAD") == (200, "")
        assert await is_refused("127.0.0.2", port)
    assert await is_refused("127.0.0.1", port)


async def test_nothing_else_is_served() -> None:
    async with serving(0, PAGES) as port:
        assert (await get(port, "/debug"))[0] == 404
        assert (await get(port, method="POST"))[0] == 404


async def test_a_process_that_answers_is_healthy_whether_it_is_ready_or_not() -> None:
    reasons: list[str] = []
    async with serving(0, replace(PAGES, why_not_ready=lambda: reasons)) as port:
        assert await get(port, "/healthz") == (200, "ok\n")
        assert await get(port, "/readyz") == (200, "ok\n")
        reasons += ["DynamoDB has not answered yet.", "The last pass was finished 9 min ago."]
        assert await get(port, "/healthz") == (200, "ok\n")
        assert await get(port, "/readyz") == (503, "\n".join(reasons) + "\n")
        assert await get(port, "/readyz", method="HEAD") == (503, "")
        assert (await get(port, "/readyz", method="POST"))[0] == 404


HALF = (
    b"",
    b"GET",
    b"GET /healthz HTTP/1.1\r\nHost: a\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n1",
)


@pytest.mark.parametrize("sent", HALF)
async def test_a_request_that_does_not_come_to_its_end_is_cut_off_in_time(sent: bytes) -> None:
    async with serving(0, PAGES, limit_s=0.5) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        began = current_time()
        with fail_after(10), suppress(ConnectionError):
            await reader.read()
        assert current_time() - began < 5
        writer.close()
        assert (await get(port, "/healthz"))[0] == 200


@pytest.mark.reported(
    "B",
    "clients that send byte by byte keep the endpoint from others (prometheus/client_java#2284)",
)
async def test_a_client_that_sends_a_byte_at_a_time_is_cut_off_in_time() -> None:
    async with serving(0, PAGES, limit_s=0.5) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /healthz HTTP/1.1\r\nX: ")
        with fail_after(10), suppress(ConnectionError):
            while not writer.is_closing():
                writer.write(b"a")
                await writer.drain()
                await sleep(0.05)
        writer.close()


async def test_a_connection_serves_one_request() -> None:
    async with serving(0, PAGES) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(2 * b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        with fail_after(10):
            answered = await reader.read()
        assert answered.count(b"200 OK") == 1
        assert b"Connection: close" in answered
        writer.close()


async def test_a_taken_port_is_a_sentence() -> None:
    async with serving(0, PAGES) as port:
        with pytest.raises(Permanent, match=r"metrics\.port"):
            async with serving(port, PAGES):
                pass


async def test_idle_connections_cost_a_bounded_number_of_files_and_keep_no_scrape_out() -> None:
    async with serving(0, PAGES) as port:
        before = open_files()
        with ExitStack() as stack:
            for _ in range(IDLE):
                await to_thread.run_sync(connect, stack, port)
            assert open_files() - before - IDLE <= MOST_CONNECTIONS + BACKLOG
            assert await get(port) == (200, "daylily_worksets 1\n")


def connect(stack: ExitStack, port: int) -> socket.socket:
    return stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))


async def test_a_client_that_reads_nothing_and_one_that_sends_for_ever_hold_nobody_up() -> None:
    async with serving(0, PAGES) as port:
        _, slow = await asyncio.open_connection("127.0.0.1", port)
        slow.write(b"GET /metrics HTTP/1.1\r\nHost: a\r\nX-Long: ")
        _, deaf = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(200):
            deaf.write(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await get(port))[0] == 200
        for writer in (slow, deaf):
            writer.close()


async def test_answers_that_nobody_reads_are_given_up_for_newer_connections() -> None:
    """Closing such a connection would wait until it was read."""
    whole = bytes(8_000_000)
    async with serving(0, replace(PAGES, metrics=lambda accept: (whole, "text/plain"))) as port:
        before, deaf = open_files(), 3 * MOST_CONNECTIONS
        with ExitStack() as stack:
            for _ in range(deaf):
                client = await to_thread.run_sync(connect, stack, port)
                await to_thread.run_sync(
                    client.sendall, b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"
                )
                await checkpoint()
            assert open_files() - before - deaf <= MOST_CONNECTIONS + BACKLOG
