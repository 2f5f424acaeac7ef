"""Spans are read side by side where that is of use, and listed one after another all the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from daylily_daemon.adapters.paging import PageRows, PageSource, Read, page_of
from daylily_daemon.domain.listing import ListedRow, Position, Query, Span
from daylily_daemon.domain.model import State, WorksetId
from daylily_daemon.domain.workset import Workset
from daylily_daemon.ports import Page
from tests.made import a_workset
from tests.unit.backends import played

QUERY = Query(states=(State.ERROR, State.READY))


def _row(id: str) -> ListedRow:
    return ListedRow(WorksetId(id), f"1#{id}")


def _reads(answers: Mapping[Position, PageRows], asked: list[Position]) -> Read:
    async def read(span: Span, at: Position, most: int) -> PageRows:
        asked.append(at)
        return answers[at]

    return read


async def _loaded(ids: Sequence[WorksetId]) -> Sequence[Workset]:
    """Those of the state after the first one, by their names; ``gone`` is there no more."""
    return [a_workset(id, State.READY if id == "z" else State.ERROR) for id in ids if id != "gone"]


def _paged(answers: Mapping[Position, PageRows], limit: int) -> tuple[Page, list[Position]]:
    asked: list[Position] = []

    async def play() -> Page:
        return await page_of(QUERY, None, limit, PageSource(_reads(answers, asked), _loaded))

    return played(play), asked


def test_what_lies_behind_a_state_with_more_is_not_listed_before_it() -> None:
    middle = Position(0, "1#a", "a")
    answers = {
        Position(0): PageRows([_row("a")], 1, middle),
        Position(1): PageRows([_row("z")], 1, None),
        middle: PageRows([_row("b")], 1, None),
    }
    page, asked = _paged(answers, 9)
    assert [ws.id for ws in page.worksets] == ["a", "b", "z"]
    assert page.after is None
    assert asked == [Position(0), Position(1), middle, Position(1)]


def test_a_page_is_cut_where_it_is_full_though_more_was_read() -> None:
    answers = {
        Position(0): PageRows([_row("a"), _row("b")], 2, None),
        Position(1): PageRows([_row("z")], 1, None),
    }
    page, _ = _paged(answers, 1)
    assert [ws.id for ws in page.worksets] == ["a"]
    assert page.after == Position(0, "1#a", "a")
    both, _ = _paged(answers, 2)
    assert ([ws.id for ws in both.worksets], both.after) == (["a", "b"], Position(0, "1#b", "b"))


def test_a_search_reads_one_span_after_another() -> None:
    asked: list[Position] = []
    answers = {
        Position(0): PageRows([], 999, None),
        Position(1): PageRows([], 1, Position(1, "1#q", "q")),
    }

    async def play() -> Page:
        return await page_of(
            replace(QUERY, prefix="x"), None, 9, PageSource(_reads(answers, asked), _loaded)
        )

    page = played(play)
    assert (page.worksets, page.after) == ((), Position(1, "1#q", "q"))
    assert asked == [Position(0), Position(1)]


def test_what_has_left_its_place_since_the_index_was_written_is_not_shown_there() -> None:
    answers = {
        Position(0): PageRows([_row("a"), _row("z"), _row("gone")], 3, None),
        Position(1): PageRows([_row("z")], 1, None),
    }
    page, _ = _paged(answers, 9)
    assert [(ws.id, str(ws.state)) for ws in page.worksets] == [("a", "error"), ("z", "ready")]
