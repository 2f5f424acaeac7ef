"""Receivers of notices: real servers on loopback that know the rules of the real ones, and break them.

Each bench is one channel with its receiver. What a receiver does with a well-formed notice is its
``Answer``; a ``Fault`` from the script comes before, after or instead of it.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum, auto
from itertools import count
from typing import Any, Final

import aiohttp
from aiohttp import test_utils, web
from anyio import Event
from yarl import URL

from daylily_daemon.adapters.aws import Aws, AwsOptions
from daylily_daemon.adapters.notifiers.linear import Linear
from daylily_daemon.adapters.notifiers.s3_sentinels import S3Sentinels
from daylily_daemon.adapters.notifiers.slack import Slack
from daylily_daemon.adapters.notifiers.sns import Sns
from daylily_daemon.adapters.notifiers.webhook import DELIVERY, SIGNATURE, Webhook, verify
from daylily_daemon.adapters.s3 import S3Objects
from daylily_daemon.domain.errors import Impeded, Permanent, Transient
from daylily_daemon.ports import Notifier
from tests.fakes.notifier import Failure, MemoryNotifier
from tests.records import FAILED

NOW: Final = datetime(2026, 3, 1, 12, 31, tzinfo=UTC)
SLACK_PATH: Final = "/services/T0DAYLILY/B0/vErYsEcReTpAtH"
LINEAR_KEY: Final = "lin_api_vErYsEcReTkEy"
WEBHOOK_SECRET: Final = "whsec_vErYsEcReT"
WEBHOOK_PATH: Final = "/hooks/vErYsEcReTtOkEn"
SECRET_WORDS: Final = "vErYsEcReT: what a receiver says is not repeated to people"
AWS_REFUSAL: Final = (
    "<ErrorResponse><Error><Code>InvalidParameter</Code><Message>Message too long</Message></Error>"
    "</ErrorResponse>"
)
NUMBERS: Final = count(1)
"""For names that no other test uses."""
OF_ONE_CONNECTION: Final = frozenset(
    {"connection", "content-length", "expect", "keep-alive", "transfer-encoding"}
)
DELIVERY_LINE: Final = re.compile(r"^Delivery: (\S+)$", re.MULTILINE)


class Fault(StrEnum):
    LIMITED = auto()
    """429 with Retry-After in seconds."""
    LIMITED_UNTIL = auto()
    """429 with Retry-After as a date two minutes ahead."""
    BROKEN = auto()
    UNAVAILABLE = auto()
    RESET = auto()
    """The connection is reset before anything is done."""
    NOT_HTTP = auto()
    """Nothing is done, and what comes back is no HTTP."""
    LOST = auto()
    """The notice arrives, and the connection is reset instead of an answer."""
    HALF = auto()
    """The notice arrives, and the connection is reset within the body of the answer."""
    GARBAGE = auto()
    """The notice arrives, and the body of the answer is no JSON."""
    HUGE = auto()
    """The notice arrives, and the body of the answer never ends."""
    SILENT = auto()
    """No answer at all."""
    MOVED = auto()
    REFUSED = auto()
    FORBIDDEN = auto()
    NOT_FOUND = auto()


@dataclass(frozen=True, slots=True)
class Heard:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Answer = Callable[[Heard], Awaitable[web.StreamResponse]]


class Receiver:
    def __init__(self, answer: Answer, *, refusal: str = SECRET_WORDS) -> None:
        self.script: deque[Fault] = deque()
        self.heard: list[Heard] = []
        self.elsewhere = 0
        """Requests at the place a redirect points to."""
        self.sent_bytes = 0
        """Of an answer that never ends."""
        self._answer = answer
        self._refusal = refusal
        self._over = Event()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[URL]:
        app = web.Application()
        app.router.add_route("*", "/elsewhere", self._redirected)
        app.router.add_route("*", "/{path:.*}", self._handle)
        server = test_utils.TestServer(app, host="127.0.0.1")
        await server.start_server(access_log=None)
        try:
            yield server.make_url("/")
        finally:
            self._over.set()
            await server.close()

    async def _redirected(self, _: web.Request) -> web.StreamResponse:
        self.elsewhere += 1
        return web.Response()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        heard = Heard(request.method, request.raw_path, request.headers, await request.read())
        self.heard.append(heard)
        match self.script.popleft() if self.script else None:
            case Fault.RESET:
                return _reset(request)
            case Fault.NOT_HTTP:
                assert request.transport is not None
                request.transport.write(b"220 mail.example ESMTP\r\n\r\n")
                return _reset(request)
            case Fault.LOST:
                await self._answer(heard)
                return _reset(request)
            case Fault.HALF:
                await self._answer(heard)
                return await self._half(request)
            case Fault.HUGE:
                await self._answer(heard)
                return await self._huge(request)
            case Fault.GARBAGE:
                await self._answer(heard)
                return web.Response(text="<html>it works!")
            case Fault.SILENT:
                await self._over.wait()
                return _reset(request)
            case None:
                return await self._answer(heard)
            case fault:
                ours = fault in {Fault.FORBIDDEN, Fault.NOT_FOUND}
                return _refusal(fault, SECRET_WORDS if ours else self._refusal)

    async def _half(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = 1000
        await response.prepare(request)
        await response.write(b'{"data": {"issueCreate": {"success": true')
        return _reset(request)

    async def _huge(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while self.sent_bytes < 256 * 1024 * 1024:
                await response.write(b" " * 65_536)
                self.sent_bytes += 65_536
        return response


def _reset(request: web.Request) -> web.StreamResponse:
    """Reset the connection: without lingering, closing it sends RST."""
    assert request.transport is not None
    connection = request.transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.transport.abort()
    return web.Response()


def _refusal(fault: Fault, words: str) -> web.Response:
    status, headers = {
        Fault.LIMITED: (429, {"Retry-After": "7"}),
        Fault.LIMITED_UNTIL: (
            429,
            {
                "Date": "Sun, 01 Mar 2026 12:00:00 GMT",
                "Retry-After": "Sun, 01 Mar 2026 12:02:00 GMT",
            },
        ),
        Fault.BROKEN: (500, {}),
        Fault.UNAVAILABLE: (503, {"Retry-After": "3"}),
        Fault.MOVED: (307, {"Location": "/elsewhere"}),
        Fault.REFUSED: (422, {}),
        Fault.FORBIDDEN: (403, {}),
        Fault.NOT_FOUND: (404, {}),
    }[fault]
    return web.Response(status=status, headers=headers, text=words)


@dataclass(kw_only=True)
class Bench:
    """One channel, its receiver, and what that receiver holds."""

    channel: Notifier
    told: Callable[[], Awaitable[list[str]]]
    """Delivery ids of the notices the receiver has."""
    receiver: Receiver | None = None
    drops_repeats: bool = False
    """The receiver, or the channel's way of writing, makes one of two deliveries."""
    status_decides: bool = True
    """2xx is an answer even if the body is lost or senseless."""
    sends_after_a_cut: int = 1
    """aiohttp by itself repeats a PUT whose connection broke, once."""
    script: deque[Any] = field(default_factory=deque)
    takes_faults: bool = False
    """Whether the script is one of faults, as that of a mail server, and not one of a fake's failures."""

    def next(self, fault: Fault) -> None:
        if self.receiver is None:
            self.script.append(fault if self.takes_faults else _in_memory(fault))
            return
        cut = fault in {Fault.RESET, Fault.LOST}
        self.receiver.script.extend([fault] * (self.sends_after_a_cut if cut else 1))


Opened = AbstractAsyncContextManager[Bench]


@dataclass(frozen=True, slots=True)
class Clock:
    at: datetime = NOW

    def now(self) -> datetime:
        return self.at


def _in_memory(fault: Fault) -> Failure:
    if fault in {Fault.FORBIDDEN, Fault.NOT_FOUND}:
        return Failure(Impeded("The receiver does not want us."))
    if fault is Fault.REFUSED:
        return Failure(Permanent("The receiver does not want it."))
    wait_s = {Fault.LIMITED: 7.0, Fault.UNAVAILABLE: 3.0}.get(fault)
    return Failure(Transient("No answer.", retry_after_s=wait_s), told=fault is Fault.LOST)


@asynccontextmanager
async def memory(moto_url: str, timeout_s: float) -> AsyncIterator[Bench]:
    channel = MemoryNotifier()

    async def told() -> list[str]:
        return [record.id for record in channel.delivered]

    yield Bench(channel=channel, told=told, script=channel.script)


@asynccontextmanager
async def slack(moto_url: str, timeout_s: float) -> AsyncIterator[Bench]:
    posted: list[str] = []

    async def answer(heard: Heard) -> web.Response:
        if heard.path != SLACK_PATH:
            return web.Response(status=404, text="no_service")
        section = heard.json["blocks"][0]["text"]["text"]
        if not heard.json["text"] or len(section) > 3000:
            return web.Response(status=400, text="invalid_blocks")
        posted.append(section)
        return web.Response(text="ok")

    async def told() -> list[str]:
        return DELIVERY_LINE.findall("\n".join(posted))

    receiver = Receiver(answer)
    async with receiver.serving() as url, aiohttp.ClientSession() as session:
        channel = Slack(session=session, url=str(url.with_path(SLACK_PATH)), timeout_s=timeout_s)
        yield Bench(channel=channel, told=told, receiver=receiver)


@asynccontextmanager
async def webhook(moto_url: str, timeout_s: float) -> AsyncIterator[Bench]:
    taken: list[str] = []

    async def answer(heard: Heard) -> web.Response:
        if not verify(WEBHOOK_SECRET, heard.headers[SIGNATURE], heard.body, NOW):
            return web.Response(status=401)
        assert heard.json["delivery_id"] == heard.headers[DELIVERY]
        taken.append(heard.headers[DELIVERY])
        return web.Response(status=204)

    async def told() -> list[str]:
        return taken

    receiver = Receiver(answer)
    async with receiver.serving() as url, aiohttp.ClientSession() as session:
        channel = Webhook(
            session=session,
            url=str(url.with_path(WEBHOOK_PATH)),
            secret=WEBHOOK_SECRET,
            clock=Clock(),
            timeout_s=timeout_s,
        )
        yield Bench(channel=channel, told=told, receiver=receiver)


def linear_error(message: str, code: str, more: str = "") -> dict[str, Any]:
    extensions = {"code": code, "userPresentableMessage": more}
    return {"errors": [{"message": message, "extensions": extensions}], "data": None}


@asynccontextmanager
async def linear(moto_url: str, timeout_s: float) -> AsyncIterator[Bench]:
    issues: dict[str, dict[str, Any]] = {}

    async def answer(heard: Heard) -> web.Response:
        if heard.headers["Authorization"] != LINEAR_KEY:
            refused = linear_error("Authentication required", "AUTHENTICATION_ERROR")
            return web.json_response(refused, status=400)
        issue = heard.json["variables"]["input"]
        if issue["id"] in issues:
            said = f"Entity Issue with id {issue['id']} already exists."
            return web.json_response(
                linear_error("conflict on insert of Issue", "INPUT_ERROR", said)
            )
        issues[issue["id"]] = issue
        created = {"success": True, "issue": {"id": issue["id"]}}
        return web.json_response({"data": {"issueCreate": created}})

    async def told() -> list[str]:
        return DELIVERY_LINE.findall("\n".join(i["description"] for i in issues.values()))

    receiver = Receiver(answer)
    async with receiver.serving() as url, aiohttp.ClientSession() as session:
        channel = Linear(
            session=session,
            api_key=LINEAR_KEY,
            team_id="3b7d3585-029d-4490-80ce-6a44c6d9f081",
            endpoint=str(url.with_path("/graphql")),
            timeout_s=timeout_s,
        )
        yield Bench(
            channel=channel,
            told=told,
            receiver=receiver,
            drops_repeats=True,
            status_decides=False,
        )


@asynccontextmanager
async def in_front_of(
    moto_url: str, timeout_s: float, refusal: str = AWS_REFUSAL
) -> AsyncIterator[tuple[Receiver, Aws, Aws]]:
    """Yield a receiver that hands requests on to moto, AWS through it, and AWS past it."""

    async def answer(heard: Heard) -> web.Response:
        async with session.request(
            heard.method,
            URL(moto_url.rstrip("/") + heard.path, encoded=True),
            data=heard.body,
            headers={k: v for k, v in heard.headers.items() if k.lower() not in OF_ONE_CONNECTION},
            allow_redirects=False,
        ) as reply:
            kept = {k: v for k, v in reply.headers.items() if k.lower() not in OF_ONE_CONNECTION}
            return web.Response(status=reply.status, headers=kept, body=await reply.read())

    receiver = Receiver(answer, refusal=refusal)
    async with (
        aiohttp.ClientSession() as session,
        receiver.serving() as url,
        Aws(_options(str(url), timeout_s)) as through,
        Aws(_options(moto_url, 20.0)) as past,
    ):
        yield receiver, through, past


def _options(url: str, timeout_s: float) -> AwsOptions:
    return AwsOptions(endpoint_url=url, read_timeout_s=timeout_s, max_attempts=1)


@asynccontextmanager
async def sns(moto_url: str, timeout_s: float) -> AsyncIterator[Bench]:
    async with _sns(moto_url, timeout_s, "", {}) as bench:
        yield bench


@asynccontextmanager
async def sns_fifo(moto_url: str, timeout_s: float) -> AsyncIterator[Bench]:
    async with _sns(moto_url, timeout_s, ".fifo", {"FifoTopic": "true"}) as bench:
        yield bench


@asynccontextmanager
async def _sns(
    moto_url: str, timeout_s: float, suffix: str, fifo: dict[str, str]
) -> AsyncIterator[Bench]:
    """A topic with a queue subscribed to it: what is in the queue was told."""
    async with in_front_of(moto_url, timeout_s) as (receiver, through, past):
        topics, queues = await past.client("sns"), await past.client("sqs")
        name = f"notices-{next(NUMBERS)}{suffix}"
        arn = (await topics.create_topic(Name=name, Attributes=fifo))["TopicArn"]
        of_queue = {"FifoQueue": "true"} if fifo else {}
        queue = (await queues.create_queue(QueueName=name, Attributes=of_queue))["QueueUrl"]
        named = await queues.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])
        await topics.subscribe(
            TopicArn=arn, Protocol="sqs", Endpoint=named["Attributes"]["QueueArn"]
        )

        async def told() -> list[str]:
            got = await queues.receive_message(
                QueueUrl=queue, MaxNumberOfMessages=10, VisibilityTimeout=0
            )
            texts = [json.loads(message["Body"])["Message"] for message in got.get("Messages", [])]
            return DELIVERY_LINE.findall("\n".join(texts))

        channel = Sns(await through.client("sns"), arn)
        yield Bench(channel=channel, told=told, receiver=receiver, drops_repeats=bool(fifo))


@asynccontextmanager
async def s3_sentinels(moto_url: str, timeout_s: float) -> AsyncIterator[Bench]:
    async with in_front_of(moto_url, timeout_s) as (receiver, through, past):
        s3 = await past.client("s3")
        region = {"LocationConstraint": "us-west-2"}
        with contextlib.suppress(s3.exceptions.BucketAlreadyOwnedByYou):
            await s3.create_bucket(Bucket=FAILED.bucket, CreateBucketConfiguration=region)
        objects = S3Objects(s3)
        await objects.delete(FAILED.bucket, FAILED.prefix + "daylily.error")

        async def told() -> list[str]:
            found = await objects.list(FAILED.bucket, FAILED.prefix)
            bodies = [await objects.read(FAILED.bucket, info.key, 1000) or b"" for info in found]
            stamp = FAILED.at.strftime("%Y%m%dT%H%M%S").encode()
            return [FAILED.id for body in bodies if body.startswith(stamp)]

        channel = S3Sentinels(S3Objects(await through.client("s3")))
        yield Bench(
            channel=channel,
            told=told,
            receiver=receiver,
            drops_repeats=True,
            sends_after_a_cut=2,
        )
