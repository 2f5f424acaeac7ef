"""An AWS that answers as it is told, call by call, in the wire formats of the real one.

The emulators succeed, or break as a whole. What only the real AWS says (half a batch refused, keys left
unprocessed, rights taken away and given back, a key of KMS disabled, the error page of a proxy in between)
is written here, and goes through the real SDK.
"""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs

from aiohttp import test_utils, web

from daylily_daemon.adapters.aws import Aws, AwsOptions
from daylily_daemon.adapters.tables import Tables
from tests.contract.fault_proxy import Call, Heard, call_of, reset

JSON_PROTOCOL: Final = frozenset({"dynamodb", "sqs"})
TABLES: Final = Tables(
    worksets="worksets", events="events", control="control", older_index="state-priority-index"
)
_WORDS: Final = "So says the script."


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False
    """The connection is reset in the middle of the body."""


Says = Callable[[Call], Answer]


def ok(**parts: Any) -> Says:
    """Answer with ``parts`` in JSON; S3 and SNS get the empty answer of their protocol."""

    def say(call: Call) -> Answer:
        if call.service in JSON_PROTOCOL:
            return Answer(body=json.dumps(parts).encode())
        done = f"<{call.operation}Response><{call.operation}Result/></{call.operation}Response>"
        return Answer(body=done.encode())

    return say


def refused(code: str, status: int = 400, words: str = _WORDS, **more: Any) -> Says:
    """Refuse with ``code``, written as the service of the call writes errors. ``more`` is JSON beside it."""

    def say(call: Call) -> Answer:
        if call.service in JSON_PROTOCOL:
            error = {"__type": f"com.amazonaws.{call.service}#{code}", "message": words, **more}
            return Answer(status=status, body=json.dumps(error).encode())
        if call.operation.startswith("Head"):
            return Answer(status=status)
        inner = f"<Code>{code}</Code><Message>{words}</Message>"
        if call.service == "s3":
            return Answer(status=status, body=f"<Error>{inner}</Error>".encode())
        text = f"<ErrorResponse><Error><Type>Sender</Type>{inner}</Error></ErrorResponse>"
        return Answer(status=status, body=text.encode())

    return say


def raw(status: int, body: bytes, *, cut: bool = False, **headers: str) -> Says:
    """Answer with these bytes, whatever was asked."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: Answer(status=status, body=body, headers=named, cut=cut)


class ScriptedAws:
    """Keeps the script, and what was asked. The last answer of an operation is repeated."""

    def __init__(self) -> None:
        self.asked: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        """Parameters of every request, by operation."""
        self.signed: list[str] = []
        """The header by which each request proves who sends it."""
        self._script: defaultdict[str, deque[Says]] = defaultdict(deque)

    def say(self, operation: str, *answers: Says) -> None:
        """Answer ``operation`` (``*`` for all that have no answer of their own) so, from now on."""
        self._script[operation] = deque(answers)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._handle)
        server = test_utils.TestServer(app, host="127.0.0.1")
        await server.start_server(access_log=None)
        try:
            yield str(server.make_url("/"))
        finally:
            await server.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        heard = Heard(request.method, request.raw_path, request.headers, await request.read())
        call = call_of(heard)
        self.signed.append(heard.headers.get("Authorization", ""))
        self.asked[call.operation].append(_parameters(call, heard))
        script = self._script.get(call.operation) or self._script["*"]
        says = script.popleft() if len(script) > 1 else script[0]
        answer = says(call)
        if not answer.cut:
            return web.Response(status=answer.status, body=answer.body, headers=answer.headers)
        promised = {**answer.headers, "Content-Length": str(len(answer.body) + 1000)}
        response = web.StreamResponse(status=answer.status, headers=promised)
        await response.prepare(request)
        await response.write(answer.body)
        return reset(request)


def _parameters(call: Call, heard: Heard) -> dict[str, Any]:
    if call.service in JSON_PROTOCOL:
        return dict(heard.json)
    if call.service == "s3":
        return {"path": heard.path}
    return {name: values[0] for name, values in parse_qs(heard.body.decode()).items()}


@asynccontextmanager
async def scripted(**options: Any) -> AsyncIterator[tuple[ScriptedAws, Aws]]:
    """Yield the script and AWS as the program sees it, one try a call unless told otherwise."""
    script = ScriptedAws()
    async with (
        script.serving() as url,
        Aws(AwsOptions(endpoint_url=url, **{"max_attempts": 1, **options})) as aws,
    ):
        yield script, aws
