"""The golden corpus of what arrives on the intake queue."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daylily_daemon.adapters.codec import command_to_dict
from daylily_daemon.adapters.envelopes import Origin, read_command, read_event, source_of
from daylily_daemon.domain.model import Cancel, Command, Ignore, Submit, WorksetId
from daylily_daemon.ports import EventSource, Unreadable

ORIGIN = Origin(bucket="control", prefix="drops/", account_id="123456789012")


def notification(key: str, bucket: str = "control", **changes: Any) -> dict[str, Any]:
    found = {"key": key, "eTag": "e1", "sequencer": "0055AED6DCD90281E5"}
    record = {
        "eventSource": "aws:s3",
        "eventName": "ObjectCreated:Put",
        "eventTime": "2026-03-01T00:00:00Z",
        "s3": {"bucket": {"name": bucket}, "object": {**found, **changes.pop("object", {})}},
        **changes,
    }
    return {"Records": [record]}


def eventbridge(key: str, **changes: Any) -> dict[str, Any]:
    return {
        "source": "aws.s3",
        "detail-type": "Object Created",
        "account": "123456789012",
        "time": "2026-03-01T00:00:00Z",
        "detail": {"bucket": {"name": "control"}, "object": {"key": key, "sequencer": "00A"}},
        **changes,
    }


def sns(message: Any) -> dict[str, Any]:
    return {"Type": "Notification", "Message": json.dumps(message), "TopicArn": "arn"}


def read(event: Any) -> tuple[Command, ...]:
    found = read_event(json.dumps(event), ORIGIN)
    assert not isinstance(found, Unreadable), found.reason
    return found


@pytest.mark.parametrize(
    "envelope",
    [
        notification("drops/HG002/daylily.ready"),
        notification("drops%2FHG002%2Fdaylily.ready"),
        sns(notification("drops/HG002/daylily.ready")),
        sns(sns(notification("drops/HG002/daylily.ready"))),
        eventbridge("drops/HG002/daylily.ready"),
        sns(eventbridge("drops/HG002/daylily.ready")),
        notification(
            "drops/HG002/daylily.ready", eventName="ObjectCreated:CompleteMultipartUpload"
        ),
    ],
)
def test_a_ready_sentinel_is_a_submission_in_every_envelope(envelope: Any) -> None:
    (command,) = read(envelope)
    assert command.workset_id == "HG002"
    assert isinstance(command.ask, Submit)
    assert command.ask.order
    assert replace(command.ask, order="") == Submit(bucket="control", prefix="drops/HG002/")


@pytest.mark.parametrize(
    "event",
    [
        {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "control"},
        notification("drops/HG002/daylily.in_progress"),
        notification("drops/HG002/daylily.complete"),
        notification("drops/HG002/daylily.error"),
        notification("drops/HG002/sample_data/daylily.ready"),
        notification("drops/daylily.ready"),
        notification("elsewhere/HG002/daylily.ready"),
        notification("drops/HG002/daylily.ready", bucket="somebody-elses"),
        notification("drops/HG002/daylily.ready", eventName="ObjectRemoved:Delete"),
        notification("drops/HG002/daylily.ready", eventSource="aws:dynamodb"),
        eventbridge("drops/HG002/daylily.ready", account="999999999999"),
        eventbridge("drops/HG002/daylily.ready", **{"detail-type": "Object Deleted"}),
        {"Records": []},
    ],
)
def test_what_is_none_of_our_business_asks_for_nothing(event: Any) -> None:
    assert read(event) == ()


@pytest.mark.parametrize(
    ("event", "source"),
    [
        (notification("drops/a/daylily.ready"), EventSource.S3),
        ({"Event": "s3:TestEvent"}, EventSource.S3),
        (sns(notification("drops/a/daylily.ready")), EventSource.SNS),
        (eventbridge("drops/a/daylily.ready"), EventSource.EVENTBRIDGE),
        ({"source": "aws.ec2"}, EventSource.UNKNOWN),
        ([], EventSource.UNKNOWN),
    ],
)
def test_the_way_an_event_came_is_told_by_its_envelope(event: Any, source: EventSource) -> None:
    assert source_of(json.dumps(event)) is source


@given(st.text())
def test_no_body_whatever_keeps_its_source_from_being_told(body: str) -> None:
    assert source_of(body) in EventSource


def test_an_ignore_sentinel_ignores() -> None:
    (command,) = read(notification("drops/HG002/daylily.ignore"))
    assert isinstance(command.ask, Ignore)


def test_keys_are_decoded_once_and_only_where_they_are_encoded() -> None:
    (plus,) = read(notification("drops/a+b/daylily.ready"))
    assert isinstance(plus.ask, Submit)
    assert plus.ask.prefix == "drops/a b/"
    (literal,) = read(notification("drops/a%2Bb/daylily.ready"))
    assert isinstance(literal.ask, Submit)
    assert literal.ask.prefix == "drops/a+b/"
    (plain,) = read(eventbridge("drops/a+b/daylily.ready"))
    assert isinstance(plain.ask, Submit)
    assert plain.ask.prefix == "drops/a+b/"


@pytest.mark.parametrize("folder", ["my workset", "..", "a+b", "Über", "x" * 200, "-rf", ".hidden"])
def test_a_folder_name_that_is_no_id_is_submitted_to_be_parked(folder: str) -> None:
    (command,) = read(eventbridge(f"drops/{folder}/daylily.ready"))
    assert isinstance(command.ask, Submit)
    assert command.ask.problem is not None
    assert folder[:200] in str(command.ask.problem)
    assert "Copy the files" in command.ask.problem.todo


def test_a_repeated_event_has_the_same_id_and_a_new_write_another() -> None:
    first = read(notification("drops/HG002/daylily.ready"))
    assert read(notification("drops/HG002/daylily.ready")) == first
    told_again = notification("drops/HG002/daylily.ready", object={"sequencer": "0055AED6DCD9FF"})
    (later,) = read(told_again)
    assert later.id == first[0].id, "the sequencer is no part of what was written"
    assert isinstance(later.ask, Submit)
    assert isinstance(first[0].ask, Submit)
    assert later.ask.order > first[0].ask.order
    for new in ({"versionId": "v2"}, {"versionId": None, "eTag": "e2"}):
        newer = notification("drops/HG002/daylily.ready", object=new)
        assert read(newer)[0].id != first[0].id


@pytest.mark.parametrize(
    "body",
    [
        "",
        "nonsense",
        "[]",
        "{}",
        '{"Records":[{"eventSource":"aws:s3"}]}',
        '{"Type":"Notification","Message":"x"}',
        "[" * 100_000,
    ],
)
def test_what_nobody_can_read_says_why(body: str) -> None:
    found = read_event(body, ORIGIN)
    assert isinstance(found, Unreadable)
    assert found.reason.endswith(".")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(
        ["Records", "s3", "bucket", "object", "key", "name", "eventSource", "eventName", "detail",
         "source", "Type", "Message", "kind", "ask", "id", "workset_id", "by"]), inner),
    max_leaves=20,
)  # fmt: skip


@given(st.text() | json_values.map(json.dumps))
def test_no_body_whatever_breaks_a_reader(body: str) -> None:
    read_event(body, ORIGIN)
    read_command(body)


def test_a_command_survives_the_queue() -> None:
    command = Command(id="c", workset_id=WorksetId("w"), by="cli:me", ask=Cancel(reason="ü"))
    assert read_command(json.dumps(command_to_dict(command))) == (command,)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": 99}, "knows up to"),
        ({"kind": "explode"}, "unknown"),
        ({"workset_id": "../etc"}, "not a workset id"),
        ({"id": ""}, "no 'id'"),
        ({"kind": "set_priority", "ask": {"priority": "yesterday"}}, "priority"),
        ({"ask": {"reason": 5}}, "reason"),
    ],
)
def test_a_bad_command_says_what_is_wrong(change: dict[str, Any], reason: str) -> None:
    good = Command(id="c", workset_id=WorksetId("w"), by="me", ask=Cancel())
    found = read_command(json.dumps({**command_to_dict(good), **change}))
    assert isinstance(found, Unreadable)
    assert reason in found.reason
