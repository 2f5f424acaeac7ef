"""Traces of runs, as a projection of the audit trail: nothing is remembered for them.

One trace a workset and run, whatever number of daemons, attempts and days it took. Its ids are digests of
what it is about, so whoever tells of it, and however often, tells of the same spans; and a job knows the span
it is part of before that has ended (``TRACEPARENT``, as in W3C Trace Context).

The check of the input leaves no record, so it is part of the wait; when channels took their notices stands in
no record either.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from hashlib import sha256
from typing import Any, Final

from daylily_daemon.domain import notice
from daylily_daemon.domain.model import Record, RecordType, State, WorksetId
from daylily_daemon.domain.workset import Workset

ENDS: Final = frozenset({State.COMPLETE, State.FAILED, State.CANCELED, State.IGNORED})
"""States in which a run is over, until somebody asks for more of it."""
SPANS_LIMIT: Final = 500
EVENTS_LIMIT: Final = 128
"""Of the trace, as the SDKs of OpenTelemetry have by default; the last ones count."""
TEXT_LIMIT: Final = 250
"""Characters of an attribute."""
Attributes = Mapping[str, str | int]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanEvent:
    """Something that happened at one moment of a span."""

    at: datetime
    name: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceSpan:
    trace: str
    """32 hexadecimal digits."""
    id: str
    """16 hexadecimal digits."""
    parent: str = ""
    """Empty for that of the whole run."""
    name: str
    began: datetime
    ended: datetime
    failed: str = ""
    """Why, as a sentence; empty if it went well."""
    attributes: Attributes = field(default_factory=dict)
    events: tuple[SpanEvent, ...] = ()


def trace_id(bucket: str, workset: WorksetId, run: str) -> str:
    """Return the id of a run's trace. The bucket keeps worksets of two labs apart."""
    return sha256(f"{bucket}/{workset}/{run}".encode()).hexdigest()[:32]


def span_id(trace: str, *what: object) -> str:
    """Return the id of a part of a trace; without ``what`` that of the whole."""
    return sha256("/".join((trace, *map(str, what))).encode()).hexdigest()[:16]


def traceparent(ws: Workset) -> str:
    """Return what the job of the present step is part of; empty if there is none."""
    if ws.run is None or ws.step is None:
        return ""
    trace = trace_id(ws.request.bucket, ws.id, ws.run.id)
    return f"00-{trace}-{span_id(trace, 'step', ws.run.attempt, ws.step.name)}-01"


def ends_a_run(record: Record) -> bool:
    """Tell whether a run may be over with this; whether there was one the trail tells."""
    return record.state in ENDS and record.previous not in (None, record.state, State.ARCHIVED)


def spans_of(records: Sequence[Record], last: Record) -> tuple[TraceSpan, ...]:
    """Return the trace of the run that ``last`` ends, the whole first; none if nothing ran.

    ``records`` are those of the workset, in order; of them counts what came before ``last``. Those of daemons
    that did not write down what a trace needs yet make none.
    """
    known = [*(record for record in records if record.seq < last.seq), last]
    run = next((r for record in reversed(known) if (r := _run_of(record))), "")
    if not run:
        return ()
    mine = known[_beginning(known, run) :]
    trace = trace_id(last.bucket, last.workset_id, run)
    parts = list(_Parts(trace, mine[0].at).spans(mine))[-SPANS_LIMIT:]
    return (_whole(trace, mine, run), *parts)


def lone_span(record: Record) -> TraceSpan:
    """Return a trace of one moment, for a test of whoever receives traces."""
    trace = trace_id(record.bucket, record.workset_id, str(record.seq))
    return _whole(trace, [record], "")


def _run_of(record: Record) -> str:
    """Return the run that a record begins or resumes, empty for others."""
    begins = record.state is State.IN_PROGRESS and record.type is RecordType.STATE_CHANGE
    return str(record.details.get("run", "")) if begins else ""


def _beginning(records: Sequence[Record], run: str) -> int:
    """Return the index of the record by which the workset waited for the first attempt of ``run``."""
    first = next(i for i, record in enumerate(records) if _run_of(record) == run)
    asked = (i for i in range(first, -1, -1) if _makes_ready(records[i]))
    return next(asked, first)


def _makes_ready(record: Record) -> bool:
    return record.state is State.READY and record.previous is not State.READY


def _whole(trace: str, records: Sequence[Record], run: str) -> TraceSpan:
    last = records[-1]
    told = {
        "daylily.workset": last.workset_id,
        "daylily.run": run,
        "daylily.state": str(last.state),
        "daylily.customer": last.customer_id,
        "daylily.priority": str(last.priority),
        "daylily.cluster": last.cluster_name,
        "daylily.delivery": last.id,
    }
    return TraceSpan(
        trace=trace,
        id=span_id(trace),
        name=f"workset {last.workset_id}",
        began=records[0].at,
        ended=last.at,
        failed="" if last.state is State.COMPLETE else _text(last.message),
        attributes={name: _text(value) for name, value in told.items() if value},
        events=tuple(_event(record) for record in records[-EVENTS_LIMIT:]),
    )


def _event(record: Record) -> SpanEvent:
    name = record.state if record.previous is not record.state else record.type
    return SpanEvent(at=record.at, name=str(name), text=_text(record.message))


def _text(value: str) -> str:
    return notice.one_line(value, TEXT_LIMIT)


@dataclass(slots=True)
class _Parts:
    """Goes through the records of a run, and remembers what is open."""

    trace: str
    waits_since: datetime
    attempt: int = 0
    step: str = ""
    step_since: datetime | None = None
    code: str = ""
    """Of a failure that the run goes on after."""

    def spans(self, records: Sequence[Record]) -> Iterator[TraceSpan]:
        for record in records:
            if _run_of(record):
                yield self._begun(record)
            elif record.type is RecordType.STEP and "next" in record.details:
                yield from self._left(record, "")
                self._enter(record.details.get("next"), record.at)
            elif record.type is RecordType.STEP and "code" in record.details:
                self.code = str(record.details["code"])
            elif record.previous is State.IN_PROGRESS and record.state is not State.IN_PROGRESS:
                failed = "" if record.state is State.COMPLETE else _text(record.message)
                yield from self._left(record, failed)
                self.waits_since = record.at

    def _begun(self, record: Record) -> TraceSpan:
        """An attempt begins, and with it its wait is over."""
        attempt = record.details.get("attempt")
        self.attempt = attempt if isinstance(attempt, int) else self.attempt + 1
        self._enter(record.details.get("step"), record.at)
        return self._span("wait", self.waits_since, record.at)

    def _enter(self, step: Any, at: datetime) -> None:
        self.step, self.step_since, self.code = str(step or ""), at, ""

    def _left(self, record: Record, failed: str) -> Iterator[TraceSpan]:
        if self.step and self.step_since is not None:
            code = self.code or str(record.details.get("code", ""))
            why = failed or (f"It failed ({code}), and the run went on." if self.code else "")
            found = self._span(f"step {self.step}", self.step_since, record.at)
            about = {"daylily.step": _text(self.step), **({"daylily.code": code} if code else {})}
            yield replace(
                found,
                id=span_id(self.trace, "step", self.attempt, self.step),
                failed=why,
                attributes={**found.attributes, **about},
            )
        self.step, self.step_since = "", None

    def _span(self, name: str, began: datetime, ended: datetime) -> TraceSpan:
        return TraceSpan(
            trace=self.trace,
            id=span_id(self.trace, name, self.attempt),
            parent=span_id(self.trace),
            name=_text(name),
            began=began,
            ended=max(began, ended),
            attributes={"daylily.attempt": self.attempt},
        )
