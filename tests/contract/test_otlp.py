"""Traces as a collector has them: one a run, the same however often they are sent."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final

import aiohttp
import pytest
from aiohttp import web
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from daylily_daemon.adapters.notifiers.otlp import Otlp
from daylily_daemon.application.telling import place_of_test, send_test
from daylily_daemon.domain.errors import Permanent, Transient
from daylily_daemon.domain.model import Record, RecordType, State
from tests.contract.receivers import Heard, Receiver
from tests.contract.trace_collector import (
    HEADER,
    PATH,
    Collector,
    an_otlp,
    attributes,
    before_failed,
    otlp,
    parsed,
)
from tests.records import FAILED, a_record

ALL: Final = (*before_failed(), FAILED)


@dataclass
class Traced:
    channel: Otlp
    collector: Collector


@asynccontextmanager
async def traced(*records: Record) -> AsyncIterator[Traced]:
    collector = Collector()
    async with (
        Receiver(collector.answer).serving() as url,
        aiohttp.ClientSession() as session,
    ):
        yield Traced(an_otlp(str(url.with_path(PATH)), session, records), collector)


async def test_a_run_of_two_attempts_is_one_trace() -> None:
    async with traced(*ALL) as found:
        await found.channel.deliver(FAILED)
    spans = found.collector.named()
    assert spans.keys() == {
        *("workset HG002-run7", "1 wait", "1 step run", "2 wait", "2 step run"),
    }
    assert {trace for trace, _ in found.collector.spans} == {spans["1 wait"].trace_id.hex()}
    whole = spans.pop("workset HG002-run7")
    assert {span.parent_span_id for span in spans.values()} == {whole.span_id}
    assert lasted_s(whole) == 6 * 60
    assert [event.name for event in whole.events] == [
        *("ready", "in_progress", "error", "retrying", "in_progress", "error", "failed"),
    ]
    assert {name: lasted_s(span) for name, span in spans.items()} == {
        "1 wait": 60,
        "1 step run": 60,
        "2 wait": 120,
        "2 step run": 60,
    }
    assert attributes(spans["1 step run"])["daylily.code"] == "WS-NET-001"
    assert attributes(spans["2 step run"])["daylily.code"] == "WS-RES-002"
    assert {name for name, span in spans.items() if failed(span)} == {"1 step run", "2 step run"}
    assert failed(whole)


def lasted_s(span: Any) -> float:
    seconds: float = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9
    return seconds


def failed(span: Any) -> bool:
    return bool(span.status.code == Status.STATUS_CODE_ERROR)


async def test_a_repeat_is_the_same_spans_and_a_run_that_goes_on_adds_to_them() -> None:
    async with traced(*ALL) as found:
        await found.channel.deliver(FAILED)
        once = dict(found.collector.spans)
        await found.channel.deliver(FAILED)
        assert found.collector.spans == once
        assert found.collector.requests == 2
    on = [
        a_record(seq=8, state=State.READY, previous=State.FAILED, type=RecordType.STATE_CHANGE),
        a_record(
            seq=9,
            state=State.IN_PROGRESS,
            previous=State.READY,
            type=RecordType.STATE_CHANGE,
            details={"run": "r1", "attempt": 3, "step": "run"},
        ),
    ]
    end = a_record(
        seq=10,
        at=FAILED.at + timedelta(hours=1),
        state=State.COMPLETE,
        previous=State.IN_PROGRESS,
        type=RecordType.COMPLETION,
    )
    async with traced(*ALL, *on) as later:
        await later.channel.deliver(end)
    assert once.keys() < later.collector.spans.keys()
    assert later.collector.named().keys() - found.collector.named().keys() == {
        *("3 wait", "3 step run"),
    }
    assert not failed(later.collector.named()["workset HG002-run7"])


async def test_another_run_of_the_workset_is_another_trace() -> None:
    async with traced(*ALL) as first:
        await first.channel.deliver(FAILED)
    renamed = [
        replace(record, details={**record.details, "run": "r3"})
        if "run" in record.details
        else record
        for record in ALL
    ]
    async with traced(*renamed) as other:
        await other.channel.deliver(FAILED)
    assert not first.collector.spans.keys() & other.collector.spans.keys()


@pytest.mark.parametrize(
    "changes",
    [
        {"state": State.IN_PROGRESS, "previous": State.READY, "type": RecordType.STATE_CHANGE},
        {"state": State.RETRYING},
        {"state": State.FAILED, "previous": State.FAILED, "type": RecordType.COMMAND},
        {"state": State.ARCHIVED, "previous": State.FAILED},
        {"state": State.FAILED, "previous": State.ARCHIVED},
    ],
)
async def test_what_ends_no_run_is_settled_without_a_call(changes: dict[str, Any]) -> None:
    async with traced(*ALL) as found:
        await found.channel.deliver(a_record(**changes))
        assert found.collector.requests == 0


async def test_what_never_ran_has_no_trace() -> None:
    never = (ALL[0], a_record(seq=2, state=State.CANCELED, previous=State.READY))
    async with traced(*never) as found:
        await found.channel.deliver(never[1])
        assert found.collector.requests == 0


async def test_a_trail_that_does_not_show_all_of_it_yet_is_waited_for() -> None:
    async with traced() as found:
        with pytest.raises(Transient, match="cannot be read up to HG002-run7/7 yet"):
            await found.channel.deliver(FAILED)


async def test_a_long_trail_makes_a_trace_of_bounded_size() -> None:
    noted = [a_record(seq=n, type=RecordType.COMMAND) for n in range(8, 3008)]
    last = a_record(seq=3008)
    async with traced(*ALL, *noted) as found:
        await found.channel.deliver(last)
    assert len(found.collector.named()["workset HG002-run7"].events) == 128


@pytest.mark.reported(
    "E",
    "a collector drops spans in an answer that is a success, and nobody hears of it "
    "(MindfulSoftwareLLC/dartastic_opentelemetry#226)",
)
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            {"partialSuccess": {"rejectedSpans": "2", "errorMessage": "too old"}},
            "2 spans (too old)",
        ),
        ({"partialSuccess": {"rejectedSpans": 1}}, "dropped 1 spans."),
        ({"partialSuccess": {"rejectedSpans": 1, "errorMessage": HEADER}}, "dropped 1 spans."),
    ],
)
async def test_spans_that_a_collector_drops_are_told_of_and_not_sent_again(
    answer: dict[str, Any], words: str
) -> None:
    with pytest.raises(Permanent) as found:
        await delivered_to(json.dumps(answer))
    assert words in str(found.value)
    assert "vErYsEcReT" not in str(found.value)


@pytest.mark.parametrize(
    "body",
    [
        *("", "{}", "[]", "null", "no", '{"partialSuccess": null}', '{"partialSuccess": []}'),
        '{"partialSuccess": {"errorMessage": "a warning"}}',
        '{"partialSuccess": {"rejectedSpans": 0}}',
        '{"partialSuccess": {"rejectedSpans": "some"}}',
    ],
)
async def test_any_other_answer_of_a_success_is_one(body: str) -> None:
    await delivered_to(body)


async def delivered_to(body: str) -> None:
    async def answer(_: Heard) -> web.Response:
        return web.Response(text=body)

    async with Receiver(answer).serving() as url, aiohttp.ClientSession() as session:
        await an_otlp(str(url.with_path(PATH)), session, ALL).deliver(FAILED)


@pytest.mark.parametrize("header", ["two words: x", "name", "name:", ": value", "n: v\x00", "ä: b"])
async def test_a_header_that_is_none_is_refused_at_once(header: str) -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(Permanent, match="header for the collector"):
            an_otlp("https://collector/v1/traces", session, (), header=header)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("authorization: Bearer  a.b", ("authorization", "Bearer a.b")),
        ("x-team:k\n", ("x-team", "k")),
    ],
)
async def test_a_header_of_several_words_is_sent_whole(
    header: str, expected: tuple[str, str]
) -> None:
    sent: list[Heard] = []

    async def answer(heard: Heard) -> web.Response:
        sent.append(heard)
        return web.json_response({})

    async with Receiver(answer).serving() as url, aiohttp.ClientSession() as session:
        await an_otlp(str(url), session, ALL, header=header).deliver(FAILED)
        await an_otlp(str(url), session, ALL, header="").deliver(FAILED)
    assert sent[0].headers[expected[0]] == expected[1]
    assert expected[0] not in sent[1].headers


async def test_a_test_message_is_a_trace_of_its_own() -> None:
    async with traced() as found:
        place = place_of_test("lab", "p/", FAILED.at)
        assert "otlp took it" in await send_test(found.channel, "otlp", "ops", place)
    (span,) = found.collector.spans.values()
    assert span.name == "workset daylily-daemon-test"


@pytest.mark.reported(
    "D",
    "ids of spans in base64, as protobuf has them, are refused (open-telemetry/opentelemetry-swift#537)",
)
async def test_the_receiver_refuses_what_the_schema_does_not_have() -> None:
    """A check that takes everything would prove nothing of the others."""
    async with otlp("", 20.0) as bench:
        await bench.channel.deliver(FAILED)
        assert bench.receiver is not None
        good = bench.receiver.heard[0].json
    assert parsed(json.dumps(good).encode())
    span = good["resourceSpans"][0]["scopeSpans"][0]["spans"][1]
    for name, value in (
        ("spanId", "00"),
        ("spanId", "gMEgDJS+EXg="),
        ("parentSpanId", "0123456789abcdef"),
        ("endTimeUnixNano", "1"),
        ("kind", "SPAN_KIND_NONE"),
        ("began", "1"),
    ):
        kept = span.get(name)
        span[name] = value
        with pytest.raises(Exception):  # noqa: B017, PT011 - of several libraries
            parsed(json.dumps(good).encode())
        span[name] = kept
        if kept is None:
            del span[name]
