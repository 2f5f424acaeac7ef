"""Identifiers and states are whole at every width, and what programs read is never cut or wrapped."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from daylily_daemon.application.wording import age
from daylily_daemon.cli import output
from daylily_daemon.cli.layout import Grid, GridColumn, Line, Piece, facts, wrapped
from daylily_daemon.domain.model import (
    WORKSET_ID,
    Progress,
    Record,
    RecordType,
    State,
    WorksetId,
)
from daylily_daemon.domain.workset import Workset
from tests.made import a_workset, running

AT = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
WIDTHS = (40, 60, 80, 120, 200, None)
REASON = (
    "stage_samples.tsv, line 7, column R1_FQ: s3://lab/fastq/HG002_L001_R1.fastq.gz is missing. "
    * 5
)
LONG_ID = "HG002-" + "x" * 74
IDS = ("demo-1", "HG002-run7-2026-03-04", LONG_ID)


def _text(lines: Iterable[Line]) -> list[str]:
    return ["".join(run.text for run in line).rstrip() for line in lines]


def _listing(*worksets: Workset, width: int | None) -> list[str]:
    return _text(output.list_grid(worksets, AT).lines(width))


@pytest.mark.reported(
    "E", "identifiers cut at the end of a narrow table (kleinkram#2358, fabric-dw-mcp-cli#427)"
)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("id", IDS)
def test_list_shows_every_id_and_state_whole_beside_a_long_reason(
    id: str, width: int | None
) -> None:
    worksets = [
        a_workset(id, state=State.ERROR, error=REASON, customer_id="lab-" + "y" * 40),
        running("other", progress=Progress(fraction=None, message="患者" * 40)),
    ]
    words = " ".join(_listing(*worksets, width=width)).split()
    assert {"WORKSET", "STATE", id, "error", "other", "in_progress"} <= set(words)


_IDS = st.from_regex(WORKSET_ID, fullmatch=True)
_WORKSETS = st.lists(
    st.builds(
        lambda id, state, error, customer: a_workset(
            id, state=state, error=error, customer_id=customer
        ),
        id=_IDS,
        state=st.sampled_from(State),
        error=st.text(max_size=4000),
        customer=st.text(max_size=100),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda ws: ws.id,
)


@given(_WORKSETS, st.none() | st.integers(1, 240), st.booleans())
def test_whatever_the_reason_and_the_width_an_id_stands_whole_beside_its_state(
    worksets: list[Workset], width: int | None, wide: bool
) -> None:
    lines = _text(output.list_grid(worksets, AT, wide=wide).lines(width))
    assert all(line.isprintable() for line in lines)
    starts = [line.split()[:2] for line in lines if not line.startswith(" ")]
    for ws in worksets:
        assert [ws.id, ws.shown_state] in starts
    if width is None:
        assert len(lines) == 1 + len(worksets)


@pytest.mark.parametrize(("width", "shown"), [(60, False), (99, False), (100, True), (None, True)])
def test_customer_and_priority_are_left_out_below_100_columns(
    width: int | None, shown: bool
) -> None:
    head = _listing(a_workset("HG002", state=State.ERROR, error="no"), width=width)[0].split()
    assert ({"PRIORITY", "CUSTOMER"} <= set(head)) is shown
    assert {"WORKSET", "STATE", "AGE", "NOW"} <= set(head)


def test_a_reason_with_less_than_24_columns_goes_into_a_line_of_its_own() -> None:
    ws = a_workset("x" * 40, state=State.ERROR, error=REASON)
    _, _, first, second, *rest = _listing(ws, width=80)
    assert first.split()[:2] == ["x" * 40, "error"]
    assert second.startswith("    stage_samples.tsv")
    assert rest == []


def test_ages_are_for_people_and_times_for_programs_are_in_utc() -> None:
    late = AT + timedelta(hours=3, minutes=12)
    ws = a_workset("HG002", state=State.ERROR, error="no", now=AT)
    assert "3 h 12" in _text(output.list_grid([ws], late).lines(80))[1]
    [_, line] = _text(output.list_grid([ws], late, wide=True).lines(None))
    assert line.count("2026-03-04T05:06:07Z") == 3
    ages = {0: "0 s", 59: "59 s", 60: "1 min", 3599: "59 min", 3600: "1 h 00"}
    ages |= {172_799: "47 h 59", 172_800: "2 days", -5: "0 s"}
    assert {s: age(s) for s in ages} == ages


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_list_keeps_to_the_width_of_the_terminal_if_the_ids_do(width: int) -> None:
    worksets = [
        a_workset("HG002-run7", state=State.ERROR, error=REASON, customer_id="lab-7"),
        running("HG002-run8", progress=Progress(fraction=None, message="患者" * 90)),
    ]
    lines = _listing(*worksets, width=width)
    assert max(cell_len(line) for line in lines) <= width
    assert sum("stage_samples.tsv" in line for line in lines) == 1


def test_at_eighty_columns_the_reason_has_room_to_be_read() -> None:
    [head, line] = _listing(a_workset("HG002-run7", state=State.ERROR, error=REASON), width=80)
    assert head.split()[:2] == ["WORKSET", "STATE"]
    assert "stage_samples.tsv, line 7" in line


@pytest.mark.reported("E", "a pipe cut at 80 columns (hassette#1855, repowise#1402)")
def test_in_a_pipe_each_workset_is_one_line_with_its_whole_reason() -> None:
    lines = _listing(
        a_workset(LONG_ID, state=State.FAILED, error=REASON + "end"),
        a_workset("short", state=State.ERROR, error="no"),
        width=None,
    )
    assert len(lines) == 3
    assert lines[1].startswith(LONG_ID)
    assert lines[1].endswith("end")
    assert lines[1].index("failed") == lines[2].index("error")


def _record(message: str, **fields: Any) -> Record:
    return Record(
        workset_id=WorksetId("demo-1"),
        seq=12,
        at=AT,
        type=RecordType.STATE_CHANGE,
        state=State.COMPLETE,
        previous=State.IN_PROGRESS,
        message=message,
        **fields,
    )


@pytest.mark.parametrize("width", WIDTHS)
def test_events_shows_states_whole_and_every_word_of_the_message(width: int | None) -> None:
    lines = _text(output.records_grid([_record(REASON)]).lines(width))
    flat = " ".join(" ".join(lines).split())
    assert "in_progress → complete" in flat
    assert all(word in flat for word in REASON.split())
    if width is None:
        assert len(lines) == 2
    else:
        longest = max(cell_len(line) for line in lines)
        assert longest <= max(width, max(map(len, REASON.split())) + 60)


def test_at_eighty_columns_a_message_has_more_than_a_few_letters_a_line() -> None:
    lines = _text(output.records_grid([_record("staging was done in 12 minutes")]).lines(80))
    assert len(lines) == 2 + 1 or lines[1].endswith("in 12 minutes")
    assert "staging was done in 12" in " ".join(lines)


def test_events_says_who_is_still_to_be_told_and_who_was_given_up() -> None:
    record = _record("it is complete", owed=frozenset({"sns"}), given_up=frozenset({"slack"}))
    [_, line] = _text(output.records_grid([record]).lines(None))
    assert line.endswith("it is complete (sns is still to be told, slack was given up)")


def test_a_cell_cannot_make_a_line_of_its_own_or_reach_the_terminal() -> None:
    hostile = "x\nother  complete\x1b[2J\u202e\u2028[red]:boom:"
    lines = _listing(
        a_workset("demo-1", state=State.ERROR, error=hostile, customer_id=hostile),
        width=None,
    )
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)
    assert "[red]:boom:" in lines[1]


@given(
    st.lists(st.lists(st.text(max_size=30), min_size=4, max_size=4), min_size=1, max_size=4),
    st.none() | st.integers(1, 220),
)
def test_no_grid_prints_a_control_character_or_loses_a_whole_column(
    rows: list[list[str]], width: int | None
) -> None:
    columns = (
        GridColumn(heading="ID"),
        GridColumn(heading="STATE"),
        GridColumn(heading="MORE", missed=1),
        GridColumn(heading="WHY"),
    )
    named: list[list[str | Piece]] = [
        [f"id{n}", Piece("in_progress", "blue"), *row[2:]] for n, row in enumerate(rows)
    ]
    lines = _text(Grid(columns=columns, rows=named, cut=True).lines(width))
    assert all(line.isprintable() for line in lines)
    words = " ".join(lines).split()
    assert [word for word in words if word in {f"id{n}" for n in range(len(rows))}]
    assert sum("in_progress" in line for line in lines) == len(rows)


def test_facts_wrap_between_words_and_keep_addresses_whole() -> None:
    address = "s3://lab-bucket/" + "deep/" * 20
    lines = _text(facts([("results", f"They are in {address} now"), ("state", "complete")], 60))
    assert any(line.strip() == address for line in lines)
    assert lines[0] == "results  They are in"
    assert lines[-1] == "state    complete"


def test_a_value_of_several_lines_keeps_them_and_each_is_printable() -> None:
    assert _text(facts([("error", "one\r\ntwo\x1b[31m"), ("a", "")], None)) == [
        "error  one",
        "       two\\x1b[31m",
        "a",
    ]


def test_sentences_are_broken_between_words_only() -> None:
    text = "Run `daylily-daemon retry HG002-run7` 患者患者 now"
    for room in range(1, 60):
        lines = list(wrapped(text, room))
        assert " ".join(lines) == text
        assert all(cell_len(line) <= room or " " not in line for line in lines)
    assert list(wrapped("a  b", None)) == ["a  b"]
    assert list(wrapped("my  file.fastq is  missing", 14)) == ["my  file.fastq", "is  missing"]
    assert list(wrapped("  indented words here", 12)) == ["  indented", "  words here"]
