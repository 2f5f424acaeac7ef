"""A collector of traces that takes what the published schema of OpenTelemetry takes, and nothing else.

``opentelemetry-proto`` has the messages, protobuf reads their JSON, fields that are not in the schema are an
error. One thing is OTLP's own: ids are hexadecimal in JSON, where protobuf has base64.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

import aiohttp
from aiohttp import web
from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtoSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from daylily_daemon.adapters.notifiers.otlp import Otlp
from daylily_daemon.domain.model import Record, RecordType, State, WorksetId
from tests.contract.receivers import Bench, Heard, Receiver
from tests.fakes.store import MemoryTrail, Table
from tests.records import FAILED, a_record

PATH: Final = "/v1/traces"
HEADER: Final = "x-team: vErYsEcReTtOkEn"
_IDS: Final = {"traceId", "spanId", "parentSpanId"}


@dataclass
class Collector:
    """Keeps spans by trace and id, as backends do: a repeat replaces what is there."""

    spans: dict[tuple[str, str], Any] = field(default_factory=dict)
    requests: int = 0

    async def answer(self, heard: Heard) -> web.Response:
        if heard.path != PATH or heard.headers.get("x-team") != "vErYsEcReTtOkEn":
            return web.Response(status=404 if heard.path != PATH else 401)
        try:
            found = parsed(heard.body)
        except (ValueError, AssertionError, json_format.ParseError) as exc:
            return web.json_response({"code": 3, "message": str(exc)[:500]}, status=400)
        self.requests += 1
        for span in found:
            self.spans[span.trace_id.hex(), span.span_id.hex()] = span
        return web.json_response({})

    def named(self) -> dict[str, Any]:
        """Return the spans by attempt and name: ``1 step run``; that of the whole has its name alone."""
        found = {}
        for span in self.spans.values():
            attempt = attributes(span).get("daylily.attempt", "")
            found[f"{attempt} {span.name}".strip()] = span
        return found


def parsed(body: bytes) -> list[Any]:
    """Return the spans of a request. Raises what is wrong with it by schema or specification."""
    request = json_format.Parse(
        json.dumps(_with_base64(json.loads(body))), ExportTraceServiceRequest()
    )
    (resource,) = request.resource_spans
    assert [pair.key for pair in resource.resource.attributes] == ["service.name"]
    found = [span for scope in resource.scope_spans for span in scope.spans]
    for span in found:
        _check(span, {other.span_id for other in found})
    return found


def _check(span: Any, ids: set[bytes]) -> None:
    assert (len(span.trace_id), len(span.span_id)) == (16, 8)
    assert any(span.trace_id)
    assert any(span.span_id)
    assert not span.parent_span_id or span.parent_span_id in ids
    assert 0 < span.start_time_unix_nano <= span.end_time_unix_nano
    assert span.name
    assert span.kind == ProtoSpan.SPAN_KIND_INTERNAL
    assert span.status.code in (Status.STATUS_CODE_OK, Status.STATUS_CODE_ERROR)
    for event in span.events:
        assert event.name
        assert span.start_time_unix_nano <= event.time_unix_nano <= span.end_time_unix_nano


def _with_base64(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_base64(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    return {
        name: b64encode(bytes.fromhex(inner)).decode() if name in _IDS else _with_base64(inner)
        for name, inner in value.items()
    }


def attributes(span: Any) -> dict[str, Any]:
    return {
        pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in span.attributes
    }


def before_failed() -> list[Record]:
    """Return what came before ``FAILED``: an attempt that was tried again, and the second one."""
    told: tuple[tuple[State, State | None, dict[str, Any]], ...] = (
        (State.READY, None, {}),
        (State.IN_PROGRESS, State.READY, {"run": "r1", "attempt": 1, "step": "run"}),
        (State.ERROR, State.IN_PROGRESS, {"code": "WS-NET-001", "step": "run"}),
        (State.RETRYING, State.ERROR, {}),
        (State.IN_PROGRESS, State.READY, {"run": "r1", "attempt": 2, "step": "run"}),
        (State.ERROR, State.IN_PROGRESS, {"code": "WS-RES-002", "step": "run"}),
    )
    return [
        a_record(
            seq=seq,
            at=FAILED.at - timedelta(minutes=7 - seq),
            type=RecordType.STATE_CHANGE,
            state=state,
            previous=previous,
            details=details,
        )
        for seq, (state, previous, details) in enumerate(told, 1)
    ]


def an_otlp(
    url: str,
    session: aiohttp.ClientSession,
    records: Sequence[Record],
    timeout_s: float = 20.0,
    header: str = HEADER,
) -> Otlp:
    table = Table(records={WorksetId(FAILED.workset_id): list(records)})
    return Otlp(
        session=session, url=url, header=header, trail=MemoryTrail(table), timeout_s=timeout_s
    )


@asynccontextmanager
async def otlp(moto_url: str, timeout_s: float) -> AsyncIterator[Bench]:
    collector = Collector()

    async def told() -> list[str]:
        wholes = [span for span in collector.spans.values() if not span.parent_span_id]
        return [attributes(span)["daylily.delivery"] for span in wholes]

    receiver = Receiver(collector.answer)
    async with receiver.serving() as url, aiohttp.ClientSession() as session:
        channel = an_otlp(str(url.with_path(PATH)), session, [*before_failed(), FAILED], timeout_s)
        yield Bench(channel=channel, told=told, receiver=receiver, drops_repeats=True)
