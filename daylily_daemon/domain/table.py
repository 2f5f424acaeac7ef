"""Tab-separated text as spreadsheets and people save it: which lines are rows, and what their cells hold.

Comments stand above the header. Below it every line that is not blank is a row or a problem: a row that
begins with ``#N/A`` is a sample and no comment. Numbers of lines, columns and problems are bounded before
anything is done with them, and the work grows with the size of the file.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from daylily_daemon.domain.columns import KEY_COLUMNS, KNOWN, input_column, meant_column
from daylily_daemon.domain.document import decode_text, shown, unseen
from daylily_daemon.domain.lookalikes import fold, spreadsheet_error
from daylily_daemon.domain.model import Problem

MAX_ROWS: Final = 10_000
MAX_COLUMNS: Final = 256
MAX_NAME: Final = 100
"""Characters of the name of a column."""
MAX_COMMENTS: Final = 1_000
"""Lines of comment above the header."""
MAX_PROBLEMS: Final = 50
MAX_COUNTED: Final = 1_000
"""Problems after which nothing more is looked at."""

_OTHER_SEPARATOR: Final = re.compile(r" *[,;|] *| {2,}| (?=[A-Z])")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
_SEPARATOR_HINT: Final = re.compile(r'\s*"?sep=\s*"?\s*', re.IGNORECASE)
"""A first line for spreadsheets, which says that tabs separate."""
_LINE_END: Final = re.compile(r"\r\n|\r|\n")
_TODO_HEADER: Final = (
    "Start the sheet with tab-separated column names, SAMPLE_ID and R1_FQ among them."
)
_TOO_MANY_COMMENTS: Final = (
    f"There are more than {MAX_COMMENTS:,} lines of comment above the header.",
    "Remove them.",
)
_TODO_QUOTES: Final = "Save the sheet without quotes, with no tab and no line break within a cell."


class Enough(Exception):
    """So many problems were found that nobody needs the rest."""


@dataclass(slots=True)
class Problems:
    """Collects what is wrong with one file."""

    file: str
    found: list[Problem] = field(default_factory=list)

    def add(self, where: str, what: str, todo: str) -> None:
        """Note one more. Raises Enough."""
        self.found.append(Problem(self.file, where, what, todo))
        if len(self.found) >= MAX_COUNTED:
            raise Enough


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    header: int
    """Line of the header, 1-based."""
    columns: tuple[str, ...]
    rows: tuple[tuple[int, list[str]], ...]
    """Line and cells; as many cells as there are columns."""


def read_table(data: bytes, problems: Problems) -> Table | None:
    """Return header and rows; None if there is a problem with them. Raises BadDocument and Enough."""
    lines = _LINE_END.split(decode_text(data, problems.file))
    start = _header_at(lines, problems)
    if start is None:
        return None
    names = _cells(lines[start])
    columns = _named(names)
    if not _check_header(start + 1, names, len(columns), problems):
        return None
    body = [number for number in range(start + 1, len(lines)) if not _is_blank(lines[number])]
    if not _check_count(start + 1, body, problems):
        return None
    reading = _Rows(problems, columns, len(names))
    rows = [(number + 1, reading.row(number + 1, lines[number])) for number in body]
    kept = tuple((number, cells) for number, cells in rows if cells is not None)
    return Table(header=start + 1, columns=columns, rows=kept)


def _header_at(lines: list[str], problems: Problems) -> int | None:
    """Return the index of the header, which is the first line that is neither blank nor a comment."""
    comments = 0
    for index, line in enumerate(lines):
        if _is_blank(line) or _SEPARATOR_HINT.fullmatch(line):
            continue
        if not line.lstrip().startswith("#"):
            return index
        comments += 1
        if fault := _comment_fault(line) if comments <= MAX_COMMENTS else _TOO_MANY_COMMENTS:
            problems.add(f"line {index + 1}", *fault)
            return None
    what = "The sheet is empty; a header line with column names was expected."
    problems.add("line 1", what, _TODO_HEADER)
    return None


def _comment_fault(line: str) -> tuple[str, str] | None:
    """Return what is wrong with a comment above the header; None for one that is meant as such."""
    if "\t" not in line:
        return None
    names = _cells(line[: MAX_COLUMNS * MAX_NAME].lstrip("# \t"))[:MAX_COLUMNS]
    if any(fold(name) == fold("SAMPLE_ID") for name in names):
        what = "The line of column names begins with `#`, as a comment does."
        return what, "Remove the `#`."
    error = spreadsheet_error(line[:MAX_NAME])
    if error:
        what = f"The line begins with {error}, the error value of a spreadsheet, above the header."
        return what, "Remove it, or fix the formula and put the row below the header."
    return None


def _is_blank(line: str) -> bool:
    return not line or not line.strip(' \t\x0b\x0c"')


def _cells(line: str) -> list[str]:
    cells = [cell.strip(" ") for cell in line.split("\t")]
    return [_unquoted(cell) for cell in cells] if '"' in line else cells


def _unquoted(cell: str) -> str:
    """Return the cell without the quotes that spreadsheets put around it."""
    inner = cell[1:-1].replace('""', "")
    if len(cell) < 2 or not (cell[0] == cell[-1] == '"') or '"' in inner:
        return cell
    return cell[1:-1].replace('""', '"').strip(" ")


def _named(names: list[str]) -> tuple[str, ...]:
    """Return the columns without those at the end that have no name: the line ends with tabs."""
    width = next((i for i in range(len(names), 0, -1) if names[i - 1]), 0)
    return tuple(names[:width])


def separator_of(text: str) -> str:
    """Return what separates cells where tabs do not, for people; empty if nothing does."""
    signs = {
        r"\t": r"the two signs `\t`",
        ",": "commas",
        ";": "semicolons",
        "|": "vertical bars",
        " ": "spaces",
    }
    return next((words for sign, words in signs.items() if sign in text), "")


def _check_header(line: int, names: list[str], width: int, problems: Problems) -> bool:
    before, where = len(problems.found), f"line {line}"
    if width == 1 and (separator := separator_of(names[0])):
        what = f"The columns are separated by {separator}; tabs were expected."
        problems.add(where, what, "Save the sheet as tab-separated text.")
    elif width > MAX_COLUMNS or len(names) > 2 * MAX_COLUMNS:
        what = f"There are {len(names):,} columns; at most {MAX_COLUMNS} are allowed."
        problems.add(where, what, "Take out the columns that nobody needs.")
    else:
        columns = names[:width]
        for number, name in enumerate(columns, start=1):
            for fault in _name_faults(number, name, columns):
                problems.add(where, *fault)
        for name, times in Counter(columns).items():
            if times > 1 and name:
                what = f"The column {shown(name)} is there more than once."
                problems.add(where, what, "Give every column one name of its own.")
    return len(problems.found) == before


def _name_faults(number: int, name: str, columns: list[str]) -> Iterator[tuple[str, str]]:
    if not name:
        yield f"Column {number} has no name.", "Give every column one name of its own."
    elif len(name) > MAX_NAME:
        what = (
            f"The name of column {number}, {shown(name, 40)}, is longer than {MAX_NAME} characters."
        )
        yield what, "Shorten it."
    elif '"' in name:
        yield f"The quotes around {shown(name)} do not fit.", _TODO_QUOTES
    elif any(part in KNOWN for part in _OTHER_SEPARATOR.split(name)[1:]):
        what = f"Column {number}, {shown(name)}, is several names; tabs were expected between them."
        yield what, "Put tabs between all names and all cells."
    elif near := meant_column(name, columns):
        odd = unseen(name)
        why = f" (it holds {odd})" if odd else ""
        why = why or ("; names are written in capitals" if name.upper() == near else "")
        what = f"The column {shown(name)} looks like {near}, but is not written so{why}."
        yield what, f"Write {near}, or a name that nobody takes for it."
    elif error := spreadsheet_error(name):
        what = f"The name of column {number} is {error}, the error value of a spreadsheet."
        yield what, "Give the column its name."
    elif odd := unseen(name):
        what = f"The name of column {number}, {shown(name)}, holds a character that cannot be seen ({odd})."
        yield what, "Type the name anew."


def _check_count(header: int, body: list[int], problems: Problems) -> bool:
    if not body:
        what = "There is a header, but no row below it."
        problems.add(f"line {header}", what, "Add one row per sample and lane.")
    elif len(body) > MAX_ROWS:
        what = f"There are {len(body):,} rows; at most {MAX_ROWS:,} are allowed."
        problems.add(f"line {body[MAX_ROWS] + 1}", what, "Split the workset into several.")
    return 0 < len(body) <= MAX_ROWS


@dataclass(frozen=True, slots=True)
class _Rows:
    problems: Problems
    columns: tuple[str, ...]
    full: int
    """Cells of the header, those without a name at its end counted too."""

    def row(self, line: int, text: str) -> list[str] | None:
        """Return the cells of one line; None if it is a problem."""
        before, where = len(self.problems.found), f"line {line}"
        cells = _cells(text)
        if "#" in text or "rr:5" in text:
            self._check_signs(line, cells)
        if not text.isascii() or _CONTROL.search(text):
            self._check_unseen(line, cells)
        if '"' in text and any(cell[:1] == '"' for cell in cells):
            self.problems.add(
                where, "A quote at the start of a cell has no end in it.", _TODO_QUOTES
            )
        elif not self._fits(cells):
            what = f"The row has {len(cells)} cells; the header has {self.full}."
            todo = "Put one tab between cells, also around empty ones."
            if len(cells) > self.full and not any(cells[self.full :]):
                todo = "Remove the tabs at the end of the line."
            if len(cells) == 1 and (separator := separator_of(cells[0])):
                todo = f"It is separated by {separator}: put tabs in their place."
            self.problems.add(where, what, todo)
        elif any(cells[len(self.columns) :]):
            self._add_nameless(where, cells)
        return cells[: len(self.columns)] if len(self.problems.found) == before else None

    def _fits(self, cells: list[str]) -> bool:
        return len(self.columns) <= len(cells) <= self.full

    def _check_signs(self, line: int, cells: list[str]) -> None:
        names = (*self.columns, *[""] * self.full)
        errors = [
            (name, error)
            for name, cell in zip(names, cells, strict=False)
            if (error := spreadsheet_error(cell))
        ]
        for name, error in errors:
            where = f"line {line}, column {name}" if name else f"line {line}"
            what = f"The cell holds {error}, the error value of a spreadsheet."
            self.problems.add(
                where, what, "Fix the formula and save the sheet anew; empty means none."
            )
        if not errors and cells[0].startswith("#"):
            what = "The line begins with `#`, but comments stand above the header only."
            self.problems.add(
                f"line {line}", what, "Remove the line, or the `#` if it is a sample."
            )

    def _check_unseen(self, line: int, cells: list[str]) -> None:
        """Free text may hold what its writer likes; what programs compare may not hold what nobody sees."""
        for name, cell in zip(self.columns, cells, strict=False):
            strict = name in KNOWN and name not in KEY_COLUMNS and input_column(name) is None
            odd = unseen(cell) if strict or _CONTROL.search(cell) else ""
            if odd:
                what = f"{shown(cell)} holds a character that cannot be seen ({odd})."
                self.problems.add(f"line {line}, column {name}", what, "Type the cell anew.")

    def _add_nameless(self, where: str, cells: list[str]) -> None:
        number = next(i for i in range(len(self.columns), len(cells)) if cells[i])
        what = f"There is {shown(cells[number])} in column {number + 1}, which has no name."
        self.problems.add(where, what, "Name the column in the header, or empty the cell.")
