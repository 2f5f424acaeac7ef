"""Tables and sentences as lines of text, for a terminal of any width and for programs.

Identifiers and states are never cut and never wrapped, whatever the width: first the columns that can be
missed go, then the last column moves to lines of its own. Without a width (a pipe, a file) nothing is cut,
left out or wrapped, and each row is one line. Everything that comes in is made printable here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from rich.cells import cell_len, set_cell_size

from daylily_daemon.domain import printable

GAP: Final = 2
ROOM: Final = 24
"""Cells that the last column needs to be worth reading beside the others."""
INDENT: Final = 4
ELLIPSIS: Final = "…"
COMMAND: Final = "$ "
"""In front of a command that somebody may copy."""
_WORD: Final = re.compile(r" *[^ ]+")


class Piece(NamedTuple):
    """Some text in one style; a line is a row of them."""

    text: str
    style: str = ""


Line = tuple[Piece, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GridColumn:
    heading: str
    missed: int = 0
    """0: always shown. Of the others the one with the largest number goes first."""
    wide_from: int = 0
    """Cells of a terminal from which on it is shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A table whose last column takes what room is left and whose others are whole."""

    columns: tuple[GridColumn, ...]
    rows: Sequence[Sequence[str | Piece]]
    cut: bool = False
    """Whether a last column that is too long is cut on a terminal; else it is wrapped."""
    together: int = 1
    """How many of the first columns stand on one line, however narrow the terminal is."""

    def lines(self, width: int | None) -> Iterator[Line]:
        rows = [[_run(cell) for cell in row] for row in self.rows]
        heads = [Piece(column.heading, "bold") for column in self.columns]
        sizes = [max(cell_len(row[n].text) for row in [heads, *rows]) for n in range(len(heads))]
        shown = _shown(self.columns, sizes, width)
        *fixed, last = shown
        room = _room(sizes, fixed, width)
        beside = room is None or room >= min(ROOM, sizes[last])
        for row in [heads, *rows]:
            cells = [row[n] for n in fixed]
            if beside:
                padded = [_padded(row[n], sizes[n]) for n in fixed]
                yield from _beside(padded, _fitted(row[last], room, cut=self.cut))
            elif width is not None:
                own = _fitted(row[last], width - INDENT, cut=self.cut)
                yield from _flowed(cells, width, self.together)
                yield from ((Piece(" " * INDENT), run) for run in own if run.text)


def facts(pairs: Iterable[tuple[str, str]], width: int | None) -> Iterator[Line]:
    """Yield one name with its value a row; a value may have several lines."""
    found = [(printable.one_line(name), printable.lines(value)) for name, value in pairs]
    name_size = max((cell_len(name) for name, _ in found), default=0)
    room = None if width is None else width - name_size - GAP
    for name, value in found:
        lines = list(wrapped(value, room))
        for n, line in enumerate(lines or [""]):
            head = name if n == 0 else ""
            yield (Piece(head + " " * (name_size + GAP - cell_len(head)), "bold"), Piece(line))


def wrapped(text: str, room: int | None) -> Iterator[str]:
    """Yield lines of at most ``room`` cells, broken between words only; a longer word stays whole.

    So does a line that begins with ``$``: a command, to be copied.
    """
    for line in printable.lines(text).split("\n"):
        if room is None or line.startswith(COMMAND):
            yield line
        else:
            yield from _wrapped_line(line, room)


def _wrapped_line(line: str, room: int) -> Iterator[str]:
    indent = line[: len(line) - len(line.lstrip(" "))]
    current = ""
    for word in _WORD.findall(line):
        if current and cell_len(current + word) > room:
            yield current
            current = indent + word.lstrip(" ")
        else:
            current += word
    yield current


def _run(cell: str | Piece) -> Piece:
    run = Piece(cell) if isinstance(cell, str) else cell
    return Piece(printable.one_line(run.text), run.style)


def _shown(columns: Sequence[GridColumn], sizes: Sequence[int], width: int | None) -> list[int]:
    """Return the numbers of the columns to show."""
    shown = [n for n, one in enumerate(columns) if width is None or width >= one.wide_from]
    wanted = min(ROOM, sizes[-1])
    while (room := _room(sizes, shown[:-1], width)) is not None and room < wanted:
        missed = max(shown[:-1], key=lambda n: columns[n].missed, default=0)
        if not columns[missed].missed:
            break
        shown.remove(missed)
    return shown


def _room(sizes: Sequence[int], fixed: Sequence[int], width: int | None) -> int | None:
    return None if width is None else width - sum(sizes[n] + GAP for n in fixed)


def _fitted(run: Piece, room: int | None, *, cut: bool) -> list[Piece]:
    if room is None:
        return [run]
    if cut:
        return [Piece(_cut(run.text, room), run.style)]
    return [Piece(line, run.style) for line in _wrapped_line(run.text, room)]


def _cut(text: str, room: int) -> str:
    return text if cell_len(text) <= room else set_cell_size(text, max(room - 1, 0)) + ELLIPSIS


def _padded(run: Piece, size: int) -> Piece:
    return Piece(run.text + " " * (size - cell_len(run.text) + GAP), run.style)


def _beside(fixed: Sequence[Piece], last: Sequence[Piece]) -> Iterator[Line]:
    """Yield the lines of one row: what is wrapped goes on below its own beginning."""
    yield (*fixed, last[0])
    margin = Piece(" " * sum(cell_len(run.text) for run in fixed))
    yield from ((margin, run) for run in last[1:])


def _flowed(cells: Sequence[Piece], width: int, together: int) -> Iterator[Line]:
    """Yield whole cells, as many a line as it takes; the first ones ``together``, however long."""
    line = list(_spaced(cells[:together]))
    for cell in cells[together:]:
        used = sum(cell_len(run.text) for run in line)
        if used + GAP + cell_len(cell.text) > width:
            yield tuple(line)
            line = [cell]
        else:
            line += [Piece(" " * GAP), cell]
    yield tuple(line)


def _spaced(cells: Sequence[Piece]) -> Iterator[Piece]:
    for n, cell in enumerate(cells):
        yield from [Piece(" " * GAP), cell] if n else [cell]
