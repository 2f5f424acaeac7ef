"""The message that a notice becomes: its headers, its text, and what nobody can put into either."""

from __future__ import annotations

import email
from datetime import timedelta
from email.message import EmailMessage
from email.policy import default as modern
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daylily_daemon.adapters.mail import compose
from daylily_daemon.domain import notice
from daylily_daemon.domain.model import Record, RecordType, State, WorksetId
from tests.records import FAILED, a_record

SENDER: Final = "daylily@lab.example"
TO: Final = ("ops@lab.example", "pi@lab.example")
HEADERS: Final = {
    *("From", "To", "Subject", "Date", "Message-ID", "In-Reply-To", "References"),
    *("Auto-Submitted", "X-Auto-Response-Suppress", "X-Daylily-Delivery"),
    *("Content-Type", "Content-Transfer-Encoding", "MIME-Version"),
}
"""All that a mail of ours has."""


def wire(record: Record, to: tuple[str, ...] = TO) -> bytes:
    return compose(record, SENDER, to).as_bytes()


def received(record: Record, to: tuple[str, ...] = TO) -> EmailMessage:
    """Return the mail as whoever gets it reads it."""
    return email.message_from_bytes(wire(record, to), policy=modern)


def text_of(mail: EmailMessage) -> str:
    words: str = mail.get_content()
    return words.replace("\r\n", "\n").rstrip("\n")


def raw_header(record: Record, name: str) -> str:
    head = wire(record).decode().partition("\r\n\r\n")[0]
    lines = [one for one in head.split("\r\n") if one.startswith(f"{name}: ")]
    (line,) = lines
    return line.removeprefix(f"{name}: ")


def test_the_subject_says_workset_and_state_first_and_then_why() -> None:
    assert received(FAILED)["Subject"] == (
        "[Daylily] HG002-run7 failed: step run of attempt 2 failed (WS-RES-002). The disk is full."
    )
    bare = a_record(state=State.IN_PROGRESS, message="")
    assert received(bare)["Subject"] == "[Daylily] HG002-run7 in progress"


def test_the_text_is_that_of_every_notice_and_plain() -> None:
    mail = received(FAILED)
    assert mail.get_content_type() == "text/plain"
    assert text_of(mail) == notice.text(FAILED)
    assert "Delivery: HG002-run7/7" in mail.get_content()


def test_it_says_that_a_program_sent_it_so_that_no_autoresponder_answers() -> None:
    mail = received(FAILED)
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["X-Auto-Response-Suppress"] == "All"
    assert mail["From"] == "Daylily <daylily@lab.example>"
    assert mail["To"] == "ops@lab.example, pi@lab.example"
    assert mail["Date"] == "Sun, 01 Mar 2026 12:30:05 +0000"
    assert mail["X-Daylily-Delivery"] == "HG002-run7/7"


def test_a_repeat_is_the_same_mail_byte_for_byte() -> None:
    assert wire(FAILED) == wire(a_record())
    assert raw_header(FAILED, "Message-ID") == "<HG002-run7.7.20260301T123005@lab.example>"


@pytest.mark.parametrize(
    "other",
    [
        a_record(seq=8),
        a_record(workset_id=WorksetId("HG002-run8")),
        a_record(at=FAILED.at + timedelta(days=30)),
    ],
    ids=["the next record", "another workset", "a workset made anew under the old name"],
)
def test_no_other_delivery_has_its_message_id(other: Record) -> None:
    assert raw_header(other, "Message-ID") != raw_header(FAILED, "Message-ID")


def test_all_mails_of_one_workset_are_one_thread_and_those_of_another_lab_are_not() -> None:
    thread = raw_header(FAILED, "References")
    later = a_record(seq=9, state=State.COMPLETE, type=RecordType.COMPLETION, prefix="moved/x/")
    assert raw_header(later, "References") == raw_header(later, "In-Reply-To") == thread
    assert raw_header(a_record(bucket="other-lab"), "References") != thread
    assert raw_header(a_record(workset_id=WorksetId("x")), "References") != thread


@pytest.mark.reported(
    "B", "long ids that the email package spoils by encoding them (cpython#100991)"
)
def test_the_longest_ids_are_whole_in_every_header() -> None:
    longest = a_record(workset_id=WorksetId("w" * 80), seq=10**9)
    for name in ("Message-ID", "References", "In-Reply-To"):
        told = raw_header(longest, name)
        assert told.startswith("<" + "w" * 80)
        assert told.endswith("@lab.example>")


@pytest.mark.reported("A", "a line break in what somebody wrote makes a header (distribution#4900)")
@pytest.mark.reported("C", "the subject twice, encoded and bare (npbackup#188)")
@given(st.text(max_size=300), st.text(max_size=300))
def test_whatever_a_lab_wrote_there_is_no_other_header_and_none_twice(one: str, two: str) -> None:
    nasty = f"{one}\r\nBcc: thief@evil.example\r\n\r\n{two}"
    mail = received(a_record(message=nasty, error_details=nasty, details={"x": nasty}))
    assert set(mail.keys()) == HEADERS
    assert len(mail.keys()) == len(HEADERS)
    assert mail["To"] == ", ".join(TO)
    assert mail.defects == []


@given(st.text(max_size=3000))
def test_every_line_on_the_wire_is_one_that_every_server_takes(words: str) -> None:
    told = wire(a_record(message=words, error_details=words * 3))
    told.decode("ascii")
    assert b"\r" not in told.replace(b"\r\n", b"")
    assert b"\n" not in told.replace(b"\r\n", b"")
    assert max(map(len, told.split(b"\r\n"))) <= 998


@pytest.mark.parametrize("words", ["Größe ±5 %", "試料 HG002", "\N{DNA DOUBLE HELIX} " * 900])
def test_letters_of_every_script_arrive(words: str) -> None:
    record = a_record(message=words)
    mail = received(record)
    assert words.split(maxsplit=1)[0] in mail["Subject"]
    assert text_of(mail) == notice.text(record)


def test_fifty_recipients_are_all_named() -> None:
    to = tuple(f"{'x' * 60}{n}@{'y' * 60}.example" for n in range(50))
    found: Any = received(FAILED, to)["To"]
    assert tuple(one.addr_spec for one in found.addresses) == to
