"""What every answer to one POST means, however it is written."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import aiohttp
import anyio
import pytest
from aiohttp import web
from anyio.abc import SocketStream
from hypothesis import given, settings
from hypothesis import strategies as st

from daylily_daemon.adapters.http import (
    BODY_LIMIT_BYTES,
    Reply,
    accept,
    opened_session,
    post_json,
    proxy_of,
)
from daylily_daemon.domain.errors import DaemonError, Impeded, Permanent, Transient
from tests.contract.receivers import Heard, Receiver


def latin(raw: bytes) -> str:
    return raw.decode("latin-1")


NOON: Final = {"Date": "Sun, 01 Mar 2026 12:00:00 GMT"}


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_every_2xx_means_taken(status: int) -> None:
    accept(Reply(status, {}), "The receiver")


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
def test_trouble_of_the_receiver_means_again(status: int) -> None:
    with pytest.raises(Transient, match=f"HTTP {status}.*will be sent again"):
        accept(Reply(status, {}), "The receiver")


@pytest.mark.parametrize("status", [400, 409, 413, 422])
def test_a_notice_that_no_receiver_takes_is_a_no_that_says_what_to_look_at(status: int) -> None:
    with pytest.raises(Permanent, match=f"HTTP {status}.*(settings|secret|receiver)"):
        accept(Reply(status, {}), "The receiver")


@pytest.mark.parametrize(
    "status", [301, 302, 304, 307, 308, 401, 402, 403, 404, 405, 407, 410, 415, 418, 451, 499]
)
def test_a_wrong_address_or_secret_is_ours_to_mend(status: int) -> None:
    with pytest.raises(Impeded, match=f"HTTP {status}.*(settings|secret|receiver)"):
        accept(Reply(status, {}), "The receiver")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": " 0 "}, 0.0),
        ({"Retry-After": "999999999999"}, 3600.0),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "1e9"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": ""}, None),
        ({}, None),
        (NOON | {"Retry-After": "Sun, 01 Mar 2026 12:00:30 GMT"}, 30.0),
        (NOON | {"Retry-After": "Sun, 01 Mar 2026 12:00:30 -0000"}, 30.0),
        (NOON | {"Retry-After": "Sun, 01 Mar 2026 11:00:00 GMT"}, 0.0),
        (NOON | {"Retry-After": "Mon, 01 Mar 2027 12:00:00 GMT"}, 3600.0),
        ({"Retry-After": "Sun, 01 Mar 2026 12:00:30 GMT"}, None),
        ({"Date": "yesterday", "Retry-After": "Sun, 01 Mar 2026 12:00:30 GMT"}, None),
    ],
)
def test_retry_after_is_read_by_the_receivers_own_clock_and_never_beyond_an_hour(
    headers: Mapping[str, str], expected: float | None
) -> None:
    assert Reply(429, headers).retry_after_s == expected


@pytest.mark.reported("C", "the address of a webhook, a secret, in a log (fetcharr#45, thumper#33)")
@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("http://127.0.0.1:9/hidden", Transient),
        ("https://no-such-host.invalid/hidden", Transient),
        ("https://" + "a" * 64 + ".invalid/hidden", Impeded),
        ("https:///hidden", Impeded),
        ("http://127.0.0.1:99999/hidden", Impeded),
    ],
)
async def test_a_receiver_that_cannot_be_reached_is_told_from_one_that_cannot_exist(
    monkeypatch: pytest.MonkeyPatch, url: str, kind: type[Exception]
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name)
    async with aiohttp.ClientSession() as session:
        with pytest.raises(kind) as caught:
            await post_json(session, url, b"{}", {}, 20.0)
    assert "hidden" not in str(caught.value)


DATES: Final = st.sampled_from(
    [
        "Sun, 01 Mar 2026 12:00:30 GMT",
        "Sun, 01 Mar 99999999999999999999 12:00:30 GMT",
        "Sun, 99 Mar 2026 99:99:99 +99999999999999",
        "Sun, 01 Mar 0001 00:00:00 +2359",
        "Fri, 31 Dec 9999 23:59:59 -2359",
        "1e309",
        "9" * 5000,
        "\u0661\u0662",
        "-1",
        "+5",
        "0x10",
        "1_000",
        "",
    ]
)
HEADERS: Final = st.one_of(DATES, st.text(max_size=300), st.binary(max_size=300).map(latin))


@given(HEADERS, HEADERS)
@pytest.mark.reported("B", "a Retry-After beyond what a clock can hold (urllib3#3743)")
@pytest.mark.reported("B", "a date beyond the last year (anthropic-sdk-python#1827)")
def test_whatever_a_header_says_the_wait_is_none_or_within_an_hour(asked: str, now: str) -> None:
    reply = Reply(429, {"Retry-After": asked, "Date": now})
    wait_s = reply.retry_after_s
    assert wait_s is None or 0 <= wait_s <= 3600
    again = reply.seconds_until(datetime(2026, 3, 1, tzinfo=UTC))
    assert again is None or 0 <= again <= 3600


@dataclass
class Wire:
    """Answers each connection with the bytes it is given, and then as told."""

    answer: bytes
    then: str = "close"

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        over = anyio.Event()

        async def talk(stream: SocketStream) -> None:
            async with stream:
                with suppress(anyio.BrokenResourceError, anyio.EndOfStream):
                    await stream.receive()
                    await stream.send(self.answer)
                    while self.then == "more":
                        await stream.send(self.answer[-65536:])
                    if self.then == "wait":
                        await over.wait()

        async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
            port = listener.extra(anyio.abc.SocketAttribute.local_port)
            async with anyio.create_task_group() as group:
                group.start_soon(listener.serve, talk)
                yield f"http://127.0.0.1:{port}/"
                over.set()
                group.cancel_scope.cancel()


async def told(wire: Wire, timeout_s: float = 5.0) -> Reply | DaemonError:
    """Return what comes of one POST; anything but an answer or an error of ours is raised."""
    async with wire.serving() as url, aiohttp.ClientSession() as session:
        try:
            reply = await post_json(session, url, b"{}", {}, timeout_s)
            accept(reply, "The receiver")
        except (Transient, Permanent) as error:
            return error
        return reply


OK: Final = b"HTTP/1.1 200 OK\r\n"
GZIP_BOMB: Final = gzip.compress(b"0" * 50_000_000)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\r\n\r\n",
        b"\x00" * 1000,
        b"\xff\xfe\xfd\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 \xd9\xa1\xd9\xa2\xd9\xa3 OK\r\n\r\n",
        b"HTTP/1.1 99999999999999999999 OK\r\n\r\n",
        b"HTTP/1.1 -1 OK\r\n\r\n",
        b"HTTP/9999999999.9 200 OK\r\n\r\n",
        b"HTTP/1.1 200 " + b"x" * 100_000 + b"\r\n\r\n",
        OK + b"X: " + b"x" * 1_000_000 + b"\r\n\r\n",
        OK + b"X: y\r\n" * 100_000 + b"\r\n",
        OK + b": empty\r\n\r\n",
        OK + b"no colon\r\n\r\n",
        OK + b" folded: x\r\n\r\n",
        OK + b"X: a\x00b\r\n\r\n",
        OK + b"Content-Length: -5\r\n\r\n",
        OK + b"Content-Length: 99999999999999999999999999\r\n\r\nx",
        OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxy",
        OK + b"Content-Length: abc\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\nzzzz\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 5000 + b"\r\n",
        OK + b"Transfer-Encoding: gzip, chunked, nonsense\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        OK + b"Content-Encoding: gzip\r\n\r\nnot gzip at all",
        OK + b"Content-Encoding: gzip\r\n\r\n" + GZIP_BOMB,
        OK + b"Content-Encoding: no-such-thing\r\n\r\nx",
        OK + b"Content-Type: text/html; charset=no-such-charset\r\n\r\nx",
        OK + b"Content-Type: ;;;=\xff\r\n\r\nx",
        OK
        + b"Set-Cookie: "
        + b"a=b;" * 1000
        + b"Expires=Fri, 31 Dec 99999999999 00:00:00 GMT\r\n\r\n",
        OK + b"Set-Cookie: x=y; Max-Age=99999999999999999999999999\r\n\r\n",
        OK + b"Set-Cookie: x=y; Expires=Fri, 32 Foo 2026 99:99:99 GMT; Domain=..\r\n\r\n",
        OK + b"Link: <::::>; rel=x\r\nLocation: http://[::1\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://[::1\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: " + b"x" * 7000 + b"\r\n\r\n",
        b"HTTP/1.1 401 No\r\nWWW-Authenticate: \xff\xff\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 1000,
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n\x81",
        b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + OK + b"\r\n",
        b"HTTP/1.1 204 No\r\nContent-Length: 1000\r\n\r\nbody",
        b"HTTP/1.1 503 No\r\nRetry-After: Sun, 01 Mar 99999999999999999999 12:00:00 GMT\r\n\r\n",
        b"HTTP/1.1 503 No\r\nRetry-After: " + b"9" * 8000 + b"\r\n\r\n",
    ],
)
@pytest.mark.parametrize("then", ["close", "wait"])
async def test_whatever_a_receiver_answers_only_our_errors_leave(answer: bytes, then: str) -> None:
    came = await told(Wire(answer, then), 0.5 if then == "wait" else 5.0)
    if isinstance(came, Reply):
        assert len(came.body) <= BODY_LIMIT_BYTES
    else:
        assert len(str(came)) < 500
        wait_s = came.retry_after_s if isinstance(came, Transient) else None
        assert wait_s is None or 0 <= wait_s <= 3600


@pytest.mark.parametrize("head", [OK + b"\r\n", OK, b"HTTP/1.1 100 Continue\r\n\r\n", b"H" * 65536])
async def test_an_answer_without_end_takes_no_longer_than_its_time(head: bytes) -> None:
    with anyio.fail_after(20):
        await told(Wire(head + b"X: y\r\n" * 8000, "more"), 1.0)


@given(st.binary(max_size=400))
@settings(max_examples=60)
def test_any_bytes_for_an_answer_are_an_answer_or_unknown(answer: bytes) -> None:
    anyio.run(told, Wire(b"HTTP/1.1 " + answer))


async def test_a_receiver_is_reached_through_the_proxy_of_the_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def answer(heard: Heard) -> web.Response:
        return web.Response(status=204)

    receiver = Receiver(answer)
    async with receiver.serving() as url, opened_session({}) as session:
        monkeypatch.setenv("HTTP_PROXY", f"http://user:pass@{url.host}:{url.port}")
        monkeypatch.setenv("http_proxy", f"http://user:pass@{url.host}:{url.port}")
        reply = await post_json(session, "http://hook.example/x", b"{}", {}, 5.0)
    assert reply.status == 204
    (heard,) = receiver.heard
    assert heard.path == "http://hook.example/x"
    assert heard.headers["Proxy-Authorization"].startswith("Basic ")
    assert "Authorization" not in heard.headers


@pytest.mark.reported("E", "NO_PROXY that is not obeyed (request#2849, HTTP.jl#746)")
@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("https://hooks.slack.com/x", "http://proxy.lab:3128"),
        ("https://inside.lab/x", None),
        ("https://a.inside.lab:8443/x", None),
        ("http://127.0.0.1:1/x", None),
        ("http://localhost/x", None),
        ("https://127.0.0.1/x", None),
        ("https://[::1/", None),
    ],
)
def test_no_proxy_is_obeyed(monkeypatch: pytest.MonkeyPatch, url: str, proxy: str | None) -> None:
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://proxy.lab:3128")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "10.0.0.0/8, .inside.lab")
    assert proxy_of(url) == proxy


@pytest.mark.parametrize("bundle", ["/no/such.pem", "/etc", "/dev/null", ""])
async def test_a_bundle_that_cannot_be_read_takes_no_channel_away(bundle: str) -> None:
    async with opened_session({"AWS_CA_BUNDLE": bundle}) as session:
        assert not session.closed


@pytest.mark.reported("C", "credentials of .netrc sent along unasked (requests#6928, httpx#568)")
async def test_nothing_of_netrc_reaches_a_receiver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETRC", str(_netrc(tmp_path)))

    async def answer(heard: Heard) -> web.Response:
        return web.Response(status=204)

    receiver = Receiver(answer)
    async with receiver.serving() as url, opened_session({}) as session:
        await post_json(session, str(url), b"{}", {}, 5.0)
    assert "Authorization" not in receiver.heard[0].headers


def _netrc(folder: Path) -> Path:
    path = folder / "netrc"
    path.write_text("default login lab password secret\n")
    path.chmod(0o600)
    return path
