"""Traces for whoever collects those of OpenTelemetry: OTLP over HTTP, as JSON.

The trace of a run is sent when it ends, made of the audit trail (``domain/tracing.py``); all other records
are settled without a call. A repeat sends the same spans under the same ids: a collector that keeps spans by
their ids has them once. A run that goes on after it failed is sent again at its next end, whole.

The format is that of opentelemetry-proto: ids are hexadecimal in JSON, times are nanoseconds as text, and a
collector that drops spans says so in an answer that is a success otherwise (OTLP specification, "Partial
Success"): asking again would not help.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import aiohttp

from daylily_daemon.adapters.http import (
    Reply,
    accept,
    check_address,
    check_secret,
    host_of,
    post_json,
)
from daylily_daemon.domain import notice
from daylily_daemon.domain.errors import Permanent, Transient
from daylily_daemon.domain.model import Record
from daylily_daemon.domain.tracing import SpanEvent, TraceSpan, ends_a_run, lone_span, spans_of
from daylily_daemon.ports import Trail

SERVICE: Final = "daylily-daemon"
REASON_LIMIT: Final = 200
PAGE: Final = 1000
MOST_PAGES: Final = 20
"""Of a trail; a workset with more records than that is traced by the last of them."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_INTERNAL: Final = 1
_OK, _ERROR = 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Otlp:
    session: aiohttp.ClientSession
    url: str = field(repr=False)
    """Of the traces alone: ``https://collector/v1/traces``."""
    header: str = field(repr=False, default="")
    """``name: value`` of a header that says who we are; empty sends none."""
    trail: Trail
    timeout_s: float = 10.0

    def __post_init__(self) -> None:
        check_address(self.url, "the collector of traces")
        if self.header:
            name, value = self._header()
            check_secret(name, "The name of the header for the collector")
            for word in value.split() or [""]:
                check_secret(word, "The value of the header for the collector")

    def _header(self) -> tuple[str, str]:
        name, _, value = self.header.partition(":")
        return name.strip(), " ".join(value.split())

    async def deliver(self, record: Record) -> None:
        spans = await self._spans(record)
        if not spans:
            return
        body = json.dumps(_request(spans)).encode()
        headers = dict([self._header()]) if self.header else {}
        reply = await post_json(self.session, self.url, body, headers, self.timeout_s)
        accept(reply, f"The collector at {host_of(self.url)}")
        self._check_kept(reply)

    async def _spans(self, record: Record) -> Sequence[TraceSpan]:
        if record.workset_id == notice.TEST_ID:
            return [lone_span(record)]
        return spans_of(await self._read(record), record) if ends_a_run(record) else ()

    async def _read(self, record: Record) -> Sequence[Record]:
        """Raises Transient while the trail does not show all that came before ``record``."""
        found: list[Record] = []
        after = max(0, record.seq - MOST_PAGES * PAGE)
        while after < record.seq - 1:
            page = await self.trail.read(record.workset_id, after=after, limit=PAGE)
            if not page:
                raise Transient(
                    f"The trail of {record.workset_id} cannot be read up to {record.id} yet."
                )
            found += page
            after = page[-1].seq
        return found

    def _check_kept(self, reply: Reply) -> None:
        dropped, reason = _dropped(reply)
        if dropped:
            said = f" ({reason})" if reason and not self._is_secret(reason) else ""
            raise Permanent(
                f"The collector at {host_of(self.url)} dropped {dropped} spans{said}. Look at its limits."
            )

    def _is_secret(self, text: str) -> bool:
        return any(word in text for word in self._header()[1].split())


def _dropped(reply: Reply) -> tuple[int, str]:
    """Return how many spans were refused in an answer that is a success, and the collector's reason."""
    try:
        partial = json.loads(reply.body)["partialSuccess"]
        reason = notice.one_line(str(partial.get("errorMessage", "")), REASON_LIMIT).rstrip(".")
        return int(partial.get("rejectedSpans", 0)), reason
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return 0, ""


def _request(spans: Sequence[TraceSpan]) -> dict[str, Any]:
    scope = {"scope": {"name": SERVICE}, "spans": [_span(span) for span in spans]}
    resource = {"attributes": [_attribute("service.name", SERVICE)]}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [scope]}]}


def _span(span: TraceSpan) -> dict[str, Any]:
    status = {"code": _ERROR, "message": span.failed} if span.failed else {"code": _OK}
    told = {
        "traceId": span.trace,
        "spanId": span.id,
        "parentSpanId": span.parent,
        "name": span.name,
        "kind": _INTERNAL,
        "startTimeUnixNano": _nanoseconds(span.began),
        "endTimeUnixNano": _nanoseconds(span.ended),
        "attributes": [_attribute(name, value) for name, value in span.attributes.items()],
        "events": [_event(event) for event in span.events],
        "status": status,
    }
    return {name: value for name, value in told.items() if value}


def _event(event: SpanEvent) -> dict[str, Any]:
    message = [_attribute("message", event.text)] if event.text else []
    return {"timeUnixNano": _nanoseconds(event.at), "name": event.name, "attributes": message}


def _attribute(name: str, value: str | int) -> dict[str, Any]:
    kind = "intValue" if isinstance(value, int) else "stringValue"
    return {"key": name, "value": {kind: str(value)}}


def _nanoseconds(at: datetime) -> str:
    return str((at - _EPOCH) // timedelta(microseconds=1) * 1000)
