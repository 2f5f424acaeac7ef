from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daylily_daemon.domain import notice
from daylily_daemon.domain.model import RecordType, State, WorksetId
from tests.records import FAILED, a_record

anything = st.text(st.characters(), max_size=200)
"""Any character at all: control characters and halves of surrogate pairs too."""
nested = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.decimals() | anything,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(anything, inner, max_size=3),
    max_leaves=10,
)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (RecordType.STATE_CHANGE, "Daylily Workset State Change: HG002-run7"),
        (RecordType.ERROR, "Daylily Workset Error: HG002-run7"),
        (RecordType.COMPLETION, "Daylily Workset Completion: HG002-run7"),
        (RecordType.LOCK_TIMEOUT, "Daylily Workset Lock Timeout: HG002-run7"),
    ],
)
def test_a_subject_reads_as_readers_of_the_old_system_know_it(
    kind: RecordType, expected: str
) -> None:
    assert notice.subject(a_record(type=kind)) == expected


@pytest.mark.reported("C", "a name with a line end adds headers to a mail (cups#1626)")
@given(anything, st.sampled_from(RecordType))
def test_a_subject_is_one_line_sns_takes_whatever_the_id_is(id: str, kind: RecordType) -> None:
    subject = notice.subject(a_record(workset_id=WorksetId(id), type=kind))
    assert len(subject) <= 100
    assert subject.isascii()
    assert subject.isprintable()


def test_a_long_id_is_cut_at_a_hundred_characters() -> None:
    subject = notice.subject(a_record(workset_id=WorksetId("w" * 80), type=RecordType.LOCK_TIMEOUT))
    assert len(subject) == 100


@pytest.mark.parametrize("state", State)
def test_every_state_comes_with_what_to_do_next(state: State) -> None:
    text = notice.text(a_record(state=state, type=RecordType.STATE_CHANGE))
    assert (
        f"What to do next: {notice.next_step(a_record(state=state, type='state_change'))}" in text
    )
    assert "{" not in notice.next_step(a_record(state=state))


def test_a_lock_timeout_asks_to_look_at_the_daemon_and_not_at_the_workset() -> None:
    step = notice.next_step(a_record(type=RecordType.LOCK_TIMEOUT, state=State.IN_PROGRESS))
    assert "daemon that held it" in step


def test_a_failure_reads_from_what_happened_over_what_to_do_to_the_evidence() -> None:
    assert notice.text(FAILED) == (
        "Workset: HG002-run7\n"
        "Event: error\n"
        "State: failed (before: error)\n"
        "Priority: normal\n"
        "Customer: lab-1\n"
        "Cluster: hpc-1\n"
        "At: 2026-03-01T12:30:05Z\n"
        "Delivery: HG002-run7/7\n"
        "\n"
        "step run of attempt 2 failed (WS-RES-002). The disk is full.\n"
        "\n"
        "What to do next: Read `daylily-daemon logs HG002-run7`, fix the cause, "
        "then run `daylily-daemon retry HG002-run7`.\n"
        "\n"
        "Error details:\n"
        "OSError: [Errno 28] No space left on device\n"
        "\n"
        "Details:\n"
        '{\n  "code": "WS-RES-002",\n  "step": "run"\n}'
    )


def test_of_long_error_details_the_end_is_kept() -> None:
    text = notice.text(a_record(error_details="begin " + "x" * 100_000 + " the cause", details={}))
    assert text.endswith("the cause")
    assert "begin" not in text


@given(anything, anything, st.dictionaries(anything, nested, max_size=3))
def test_a_text_can_be_encoded_and_has_no_control_characters_whatever_a_lab_wrote(
    message: str, error: str, details: dict[str, Any]
) -> None:
    text = notice.text(a_record(message=message, error_details=error, details=details))
    assert text.encode()
    assert all(c.isprintable() or c in "\n\t" or ord(c) > 0x9F for c in text)


def test_a_text_is_bounded_however_long_the_evidence_is() -> None:
    huge = "ä" * 300_000
    record = a_record(message=huge, error_details=huge, details={huge: huge})
    assert len(notice.text(record)) < 12_000
    assert len(json.dumps(notice.body(record))) < 100_000


def test_details_too_long_to_be_told_are_told_by_their_beginning() -> None:
    details = notice.body(a_record(details={"log": "x" * 200_000}))["details"]
    assert details["excerpt"].startswith('{"log": "xxx')


def test_the_body_for_programs_has_the_fields_of_the_old_system_and_the_delivery_id() -> None:
    assert notice.body(FAILED) == {
        "workset_id": "HG002-run7",
        "event_type": "error",
        "state": "failed",
        "message": "step run of attempt 2 failed (WS-RES-002). The disk is full.",
        "details": {"code": "WS-RES-002", "step": "run"},
        "priority": "normal",
        "cluster_name": "hpc-1",
        "error_details": "OSError: [Errno 28] No space left on device",
        "at": "2026-03-01T12:30:05Z",
        "seq": 7,
        "delivery_id": "HG002-run7/7",
    }


@given(anything, st.dictionaries(anything, nested, max_size=3))
def test_the_body_is_strict_json_whatever_the_details_hold(
    message: str, details: dict[str, Any]
) -> None:
    body = notice.body(a_record(message=message, details=details))
    assert json.loads(json.dumps(body, allow_nan=False, ensure_ascii=False).encode()) == body


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Decimal("3"), 3),
        (Decimal("1.5"), 1.5),
        (Decimal("sNaN"), "sNaN"),
        (Decimal("1E+999999"), "1E+999999"),
        (float("inf"), "inf"),
        (State.READY, "ready"),
        ((1, {2: None}), [1, {"2": None}]),
        (datetime(2026, 3, 1, 14, tzinfo=timezone(timedelta(hours=2))), "2026-03-01T12:00:00Z"),
        (b"raw", "b'raw'"),
    ],
)
def test_what_json_has_no_word_for_is_told_in_the_nearest_it_has(value: Any, expected: Any) -> None:
    assert notice.plain(value) == expected


def test_details_nested_without_end_are_cut_and_not_a_crash() -> None:
    deep: dict[str, Any] = {}
    for _ in range(5000):
        deep = {"in": deep}
    assert "nested too deeply" in json.dumps(notice.plain(deep))


def _nested(levels: int) -> Any:
    return {"in": _nested(levels - 1)} if levels else "end"


def test_details_are_told_down_to_the_sixteenth_level() -> None:
    assert notice.plain(_nested(notice.DEPTH_LIMIT)) == _nested(notice.DEPTH_LIMIT)
    assert notice.plain(_nested(notice.DEPTH_LIMIT + 1)) != _nested(notice.DEPTH_LIMIT + 1)
    assert notice.plain([[{1}]], 14) == [["(nested too deeply to be shown)"]]


def test_what_is_as_long_as_it_may_be_is_told_whole_and_one_character_more_is_cut() -> None:
    head, tail = "a" * notice.MESSAGE_LIMIT, "b" * notice.EXCERPT_LIMIT
    told = notice.body(a_record(message=head, error_details=tail))
    assert (told["message"], told["error_details"]) == (head, tail)
    cut = notice.body(a_record(message=f"{head}c", error_details=f"c{tail}"))
    assert (cut["message"], cut["error_details"]) == (f"{head[1:]}…", f"…{tail[1:]}")
    fits = {"k": "x" * (notice.DETAILS_LIMIT - len('{"k": ""}'))}
    assert notice.body(a_record(details=fits))["details"] == fits
    assert "excerpt" in notice.body(a_record(details={"k": fits["k"] + "x"}))["details"]
    assert notice.one_line("a  b\tc\nd", 7) == "a b c d"
    assert notice.one_line("a  b\tc\nd", 6) == "a b c…"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Decimal(2**63), float(2**63)),
        (Decimal(2**63 - 1), 2**63 - 1),
        (Decimal(-(2**63)), -float(2**63)),
        (Decimal("-2.5"), -2.5),
        (True, True),
        ([1.5, "a\x00b"], [1.5, "a\N{REPLACEMENT CHARACTER}b"]),
    ],
)
def test_numbers_keep_their_value(value: Any, expected: Any) -> None:
    found = notice.plain(value)
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize("state", State)
def test_a_notice_reads_as_it_always_has(state: State) -> None:
    """In full, but for what to do next, which is another test's."""
    record = a_record(
        state=state,
        previous=State.READY,
        type=RecordType.STEP,
        message="m\r\nn",
        customer_id="clinic",
        cluster_name="",
        error_details="why",
        details={"n": 1},
    )
    assert notice.text(record) == (
        f"Workset: HG002-run7\nEvent: step\nState: {state} (before: ready)\nPriority: normal\n"
        "Customer: clinic\nAt: 2026-03-01T12:30:05Z\nDelivery: HG002-run7/7\n\n"
        f"m\nn\n\nWhat to do next: {notice.next_step(record)}\n\n"
        'Error details:\nwhy\n\nDetails:\n{\n  "n": 1\n}'
    )


def test_times_are_told_in_utc() -> None:
    east = timezone(timedelta(hours=5))
    at = datetime(2026, 3, 1, 17, tzinfo=east)
    assert notice.body(a_record(at=at))["at"] == "2026-03-01T12:00:00Z"
    assert at == datetime(2026, 3, 1, 12, tzinfo=UTC)
