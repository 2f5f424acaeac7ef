"""When somebody is called, when the alarm ends, and what PagerDuty's answers mean."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import pytest
from aiohttp import web

from daylily_daemon.adapters.notifiers.pagerduty import ACTIONS, RESOLVING, PagerDuty, dedup_key
from daylily_daemon.domain.errors import DaemonError, Impeded, Permanent, Transient
from daylily_daemon.domain.model import Priority, RecordType, State, WorksetId
from tests.contract.pager_receiver import PATH, ROUTING_KEY, SIZE_LIMIT_BYTES, Pager, a_pager
from tests.contract.receivers import Heard, Receiver
from tests.records import FAILED, a_record

TELLING: Final = (RecordType.STATE_CHANGE, RecordType.ERROR, RecordType.COMPLETION)


@dataclass
class Duty:
    """The channel, the service it calls, and what was sent."""

    channel: PagerDuty
    pager: Pager
    heard: list[Heard]

    async def turns(self, state: State, **more: Any) -> None:
        kind = RecordType.ERROR if state in {State.ERROR, State.FAILED} else RecordType.STATE_CHANGE
        await self.channel.deliver(a_record(state=state, type=more.pop("type", kind), **more))

    @property
    def open(self) -> list[bool]:
        return [alert.open for alert in self.pager.alerts]

    @property
    def last(self) -> Any:
        return self.heard[-1].json


@pytest.fixture
async def duty() -> AsyncIterator[Duty]:
    pager = Pager()
    receiver = Receiver(pager.answer)
    async with receiver.serving() as url, aiohttp.ClientSession() as session:
        yield Duty(a_pager(str(url.with_path(PATH)), session), pager, receiver.heard)


@asynccontextmanager
async def answering(status: int, body: Any, **headers: str) -> AsyncIterator[PagerDuty]:
    async def answer(_: Heard) -> web.Response:
        text = body if isinstance(body, str) else json.dumps(body)
        return web.Response(status=status, text=text, headers=headers)

    async with Receiver(answer).serving() as url, aiohttp.ClientSession() as session:
        yield a_pager(str(url.with_path(PATH)), session)


async def test_one_alarm_lasts_through_retries_until_the_workset_is_complete(duty: Duty) -> None:
    await duty.turns(State.FAILED, seq=7)
    assert duty.open == [True]
    await duty.turns(State.READY, seq=8)
    await duty.turns(State.IN_PROGRESS, seq=9)
    await duty.turns(State.RETRYING, seq=10, type=RecordType.ERROR)
    assert len(duty.heard) == 1
    await duty.turns(State.FAILED, seq=11)
    assert [alert.deliveries for alert in duty.pager.alerts] == [["HG002-run7/7", "HG002-run7/11"]]
    await duty.turns(State.COMPLETE, seq=12, type=RecordType.COMPLETION)
    assert duty.open == [False]
    await duty.turns(State.FAILED, seq=13)
    assert duty.open == [False, True]


@pytest.mark.parametrize("end", sorted(RESOLVING))
async def test_a_workset_that_nobody_will_complete_keeps_no_alarm(duty: Duty, end: State) -> None:
    await duty.turns(State.ERROR)
    await duty.turns(end, seq=8)
    assert duty.open == [False]


async def test_the_end_of_a_workset_without_alarm_is_dropped_by_pagerduty(duty: Duty) -> None:
    await duty.turns(State.COMPLETE, type=RecordType.COMPLETION)
    await duty.turns(State.COMPLETE, type=RecordType.COMPLETION)
    assert duty.open == []


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("kind", RecordType)
async def test_a_record_is_sent_if_its_state_means_something_and_is_news(
    duty: Duty, kind: RecordType, state: State
) -> None:
    await duty.turns(state, type=kind)
    sent = [heard.json["event_action"] for heard in duty.heard]
    assert sent == ([ACTIONS[state].value] if ACTIONS[state] and kind in TELLING else [])


def test_worksets_that_need_somebody_are_those_in_error_and_failed() -> None:
    assert {s for s, action in ACTIONS.items() if action == "trigger"} == {
        State.ERROR,
        State.FAILED,
    }


@pytest.mark.reported("G", "one key for all, so that one end closes every alarm (kibana#76908)")
@pytest.mark.reported("G", "alarms of different things become one (kubestellar/console#8389)")
def test_each_workset_has_one_key_wherever_its_folder_is_moved() -> None:
    key = dedup_key(FAILED)
    assert dedup_key(a_record(seq=99, state=State.COMPLETE, prefix="moved/HG002-run7/")) == key
    others = [a_record(workset_id=WorksetId("HG002-run8")), a_record(bucket="other-lab")]
    assert len({key, *map(dedup_key, others)}) == 3
    assert len(key) <= 255


async def test_the_end_of_an_alarm_tells_nothing_of_the_workset(duty: Duty) -> None:
    await duty.turns(State.CANCELED, message="secret project")
    assert duty.last.keys() == {"routing_key", "event_action", "dedup_key"}
    assert "HG002" not in json.dumps(duty.last)


async def test_an_alarm_says_what_happened_where_and_what_to_do(duty: Duty) -> None:
    await duty.turns(State.FAILED)
    event = duty.last
    payload, details = event["payload"], event["payload"]["custom_details"]
    assert event["client"] == "daylily-daemon"
    assert payload["summary"].startswith("HG002-run7 failed: step run of attempt 2 failed (WS-RES-")
    assert payload["timestamp"] == "2026-03-01T12:30:05Z"
    assert payload["source"] == "s3://lab-bucket/daylily_monitoring/active_worksets/HG002-run7/"
    assert (payload["component"], payload["group"], payload["class"]) == (
        "run",
        "hpc-1",
        "WS-RES-002",
    )
    assert details["what_to_do"].startswith("Read `daylily-daemon logs HG002-run7`")
    assert details["error_details"] == FAILED.error_details


@pytest.mark.parametrize(
    ("state", "priority", "severity"),
    [
        (State.ERROR, Priority.LOW, "warning"),
        (State.ERROR, Priority.NORMAL, "warning"),
        (State.ERROR, Priority.URGENT, "error"),
        (State.FAILED, Priority.NORMAL, "error"),
        (State.FAILED, Priority.URGENT, "critical"),
    ],
)
async def test_how_bad_it_is_follows_from_the_state_and_is_worse_if_urgent(
    duty: Duty, state: State, priority: Priority, severity: str
) -> None:
    await duty.turns(state, priority=priority)
    assert duty.last["payload"]["severity"] == severity


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("us-west-2", "console.aws.amazon.com"),
        ("cn-north-1", "console.amazonaws.cn"),
        ("us-gov-west-1", "console.amazonaws-us-gov.com"),
    ],
)
async def test_an_alarm_links_to_the_folder_of_the_workset(region: str, host: str) -> None:
    pager = Pager()
    receiver = Receiver(pager.answer)
    async with receiver.serving() as url, aiohttp.ClientSession() as session:
        channel = PagerDuty(
            session=session, routing_key=ROUTING_KEY, url=str(url.with_path(PATH)), region=region
        )
        await channel.deliver(a_record(prefix="drops/ä &x=1/"))
    (link,) = receiver.heard[0].json["links"]
    assert (
        link["href"] == f"https://{host}/s3/buckets/lab-bucket?prefix=drops%2F%C3%A4%20%26x%3D1%2F"
    )


async def test_a_workset_that_lies_nowhere_has_an_alarm_all_the_same(duty: Duty) -> None:
    await duty.turns(State.ERROR, bucket="", prefix="", cluster_name="", details={}, message="")
    assert duty.open == [True]
    assert duty.last["links"] == []
    assert "group" not in duty.last["payload"]


@pytest.mark.reported(
    "B", "a summary of more than 1024 characters (alertmanager#1700, dagster#19567)"
)
@pytest.mark.parametrize("letter", ["x", "ß", "\N{DNA DOUBLE HELIX}", '"', "\x00", "\ud800"])
async def test_a_summary_too_long_is_cut_and_the_alarm_is_raised(duty: Duty, letter: str) -> None:
    await duty.turns(State.FAILED, message=letter * 5000)
    assert len(duty.last["payload"]["summary"]) == 1024
    assert duty.open == [True]


@pytest.mark.reported("B", "an event of more than 512 KB (alertmanager#2178)")
async def test_the_biggest_event_is_small_enough(duty: Duty) -> None:
    big = "\N{DNA DOUBLE HELIX}" * 400_000
    details = {"step": big, "code": big, "more": [big] * 9, **{f"{n}": big[:50] for n in range(99)}}
    await duty.turns(State.FAILED, message=big, error_details=big, details=details)
    assert duty.open == [True]
    assert len(duty.heard[0].body) < SIZE_LIMIT_BYTES / 2


@pytest.mark.reported("G", "a wrong key that looks like a wrong event (envato/pagerduty#70)")
@pytest.mark.parametrize(
    "error",
    [
        "Invalid routing key",
        "Length of 'routing_key' is incorrect (should be 32 characters)",
        f"'routing_key' {ROUTING_KEY} cannot contain non-alphanumeric characters.",
        "Service key is the wrong length (should be 32 characters)",
    ],
)
async def test_a_wrong_key_waits_for_the_right_one_and_is_not_shown(error: str) -> None:
    body = {"status": "invalid event", "message": "Event object is invalid", "errors": [error]}
    async with answering(400, body) as channel:
        with pytest.raises(Impeded, match="does not know the routing key") as caught:
            await channel.deliver(FAILED)
    assert ROUTING_KEY not in f"{caught.value} {channel!r}"


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (202, "", None),
        (202, "[" * 50_000, None),
        (200, {"status": "success"}, None),
        (400, {"errors": ["'summary' is too long"]}, Permanent),
        (400, {"errors": "x"}, Permanent),
        (400, {"errors": [None, {}, ["deep"]]}, Permanent),
        (400, [], Permanent),
        (400, "[" * 50_000, Permanent),
        (401, "", Impeded),
        (403, "", Impeded),
        (404, "", Impeded),
        (413, "", Permanent),
        (429, "", Transient),
        (500, {"errors": ["Invalid routing key"]}, Transient),
        (503, "", Transient),
    ],
)
async def test_what_an_answer_means_is_said_by_its_status(
    status: int, body: Any, kind: type[DaemonError] | None
) -> None:
    async with answering(status, body) as channel:
        if kind is None:
            await channel.deliver(FAILED)
            return
        with pytest.raises(kind, match=f"PagerDuty answered with HTTP {status}") as caught:
            await channel.deliver(FAILED)
    assert type(caught.value) is kind


async def test_a_busy_pagerduty_is_left_alone_for_as_long_as_it_asks() -> None:
    async with answering(429, "", **{"Retry-After": "120"}) as channel:
        with pytest.raises(Transient) as caught:
            await channel.deliver(FAILED)
    assert caught.value.retry_after_s == 120.0


@pytest.mark.parametrize("url", ["http://events.pagerduty.com/v2/enqueue", "events.pagerduty.com"])
async def test_an_address_or_key_that_cannot_be_is_refused_at_once(url: str) -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(Permanent, match="The address of PagerDuty"):
            a_pager(url, session)
        with pytest.raises(Permanent, match="routing key of PagerDuty"):
            PagerDuty(session=session, routing_key="a b", url="https://x.example/", region="")
