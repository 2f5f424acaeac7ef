"""The sample sheet: which samples there are, and which input files each row names.

Every sequencing platform has a column set of its own, so only what is used is required: SAMPLE_ID, and
at least one column that names input files. All problems of a sheet are told at once, each with its line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from daylily_daemon.domain.columns import (
    COLUMNS,
    INPUT_ENDS,
    KEY_COLUMNS,
    KNOWN,
    Column,
    Kind,
    input_column,
    is_wish,
    named,
)
from daylily_daemon.domain.document import BadDocument, shown
from daylily_daemon.domain.lookalikes import typographic_fault
from daylily_daemon.domain.model import Problem
from daylily_daemon.domain.paths import (
    MAX_PATH,
    LocalPlace,
    Place,
    S3Place,
    is_none,
    name_fault,
    path_fault,
    place_of,
    split_s3,
)
from daylily_daemon.domain.table import (
    MAX_COLUMNS,
    MAX_COUNTED,
    MAX_PROBLEMS,
    MAX_ROWS,
    Enough,
    Problems,
    Table,
    read_table,
)

__all__ = [
    "COLUMNS",
    "MAX_COLUMNS",
    "MAX_FILES",
    "MAX_PATH",
    "MAX_PROBLEMS",
    "MAX_ROWS",
    "MAX_SHEET_BYTES",
    "RECIPE_FILE",
    "SAMPLE_ID",
    "SHEET_FILE",
    "InputFile",
    "LocalPlace",
    "Place",
    "Row",
    "S3Place",
    "Sample",
    "Sheet",
    "Wish",
    "capped",
    "id_fault",
    "input_fault",
    "path_fault",
    "place_of",
    "places_of",
    "read_sheet",
    "relocated",
    "sheet_from_samples",
    "split_s3",
    "text_from_samples",
]

SHEET_FILE: Final = "stage_samples.tsv"
RECIPE_FILE: Final = "daylily_work.yaml"
MAX_SHEET_BYTES: Final = 5 * 1024 * 1024
MAX_FILES: Final = 50_000
"""Input files of one sheet: those of 10,000 rows, and some."""

SAMPLE_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
"""Ids that become parts of file names: of samples, runs, experiments and lanes."""

_MONTHS: Final = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
_DATE: Final = re.compile(rf"[0-3]?[0-9]-(?:{_MONTHS})(?:-[0-9]{{2,4}})?|(?:{_MONTHS})-[0-9]{{2}}")
_ROUNDED: Final = re.compile(r"[0-9](?:[.,][0-9]+)?[Ee]\+[0-9]+|[0-9][.,][0-9]+[Ee][0-9]+")
_DECIMAL: Final = re.compile(r"([0-9]+)[.,]0+")
_NUMBER: Final = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,9})?|\.[0-9]{1,9}")
_READ: Final = re.compile(r"(?<=[._-])[Rr]([12])(?=[._-])")
_ALL_READS: Final = frozenset({0.0, 1.0, 100.0})
"""What people write as the share of the reads for all of them, besides ``na``."""
_TODO_INPUT: Final = (
    "Name input in columns such as R1_FQ, R2_FQ, ONT_FASTQ_PREFIX, ONT_CRAM or PB_BAM."
)
_TODO_ID: Final = "Use up to 80 letters, digits, `.`, `_` and `-`; begin with a letter or digit."


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One sample as a recipe names it, when there is no sheet."""

    sample_id: str
    fastq_r1: str
    fastq_r2: str = ""
    coverage: float | None = None
    """Wanted depth, as a multiple of the genome."""
    line: int = 0
    """Where the recipe names it, 1-based."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFile:
    column: str
    path: str
    """``s3://bucket/key``, an absolute path, or one relative to the workset's prefix; that of a folder
    ends with a slash."""
    kind: Kind
    """What it is: one object, or everything below the path."""
    where: str
    """For messages: ``line 7, column R1_FQ``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A number that changes what a pipeline does with the reads, if it obeys it."""

    name: str
    """``COVERAGE``, ``SUBSAMPLE_PCT``, …"""
    value: float
    where: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    line: int
    """1-based, in the file as it was sent."""
    sample_id: str
    files: tuple[InputFile, ...]
    wishes: tuple[Wish, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    file: str
    rows: tuple[Row, ...]


def capped(problems: Sequence[Problem]) -> tuple[Problem, ...]:
    """Return at most 50 problems, and then one that counts the rest."""
    if len(problems) <= MAX_PROBLEMS:
        return tuple(problems)
    first = problems[0]
    count = "at least " if len(problems) >= MAX_COUNTED else ""
    what = f"And {count}{len(problems) - MAX_PROBLEMS:,} more problems like these."
    todo = "Fix those above first; the rest is shown then."
    rest = Problem(first.file, "", what, todo, first.category)
    return (*problems[:MAX_PROBLEMS], rest)


def read_sheet(data: bytes, file: str = SHEET_FILE) -> Sheet | tuple[Problem, ...]:
    """Return the rows, or everything that is wrong with the sheet. Raises nothing."""
    if len(data) > MAX_SHEET_BYTES:
        what = f"The sheet has {len(data):,} bytes; at most {MAX_SHEET_BYTES:,} are allowed."
        return (Problem(file, "", what, "Split the workset into several."),)
    problems, rows = Problems(file), list[Row]()
    try:
        table = read_table(data, problems)
        if table and _has_what_is_needed(table, problems):
            rows = _SheetReading(problems, table).rows()
    except BadDocument as exc:
        return (exc.problem,)
    except Enough:
        pass
    return capped(problems.found) if problems.found else Sheet(file=file, rows=tuple(rows))


def relocated(data: bytes, new_path: Callable[[str], str]) -> str:
    """Return an accepted sheet with every input path replaced, ready for a pipeline to read.

    ``new_path`` is given the paths that the rows of the sheet have. Lines end in ``\\n``; byte order mark,
    blank lines, comments, quotes and spaces around cells are gone, and where there is no file stands
    nothing or ``na``. Raises BadDocument if the bytes are no text; empty if they are no sheet.
    """
    table = _table(data)
    if table is None:
        return ""
    inputs = [(i, column) for i, name in enumerate(table.columns) if (column := input_column(name))]
    lines = [list(table.columns), *(cells for _, cells in table.rows)]
    for cells in lines[1:]:
        for i, column in inputs:
            cells[i] = _relocated(column, cells[i], new_path)
    return "".join("\t".join(cells) + "\n" for cells in lines)


def _table(data: bytes) -> Table | None:
    try:
        return read_table(data, Problems(SHEET_FILE))
    except Enough:
        return None


def _relocated(column: Column, cell: str, new_path: Callable[[str], str]) -> str:
    if is_none(cell):
        return cell and (cell if cell.lower() == "na" else "na")
    return new_path(named(column, cell)[1])


def places_of(sheet: Sheet, bucket: str, prefix: str) -> dict[Place, Kind]:
    """Return every place that a sheet names, once, in its order, and what has to be fetched from there."""
    files = (file for row in sheet.rows for file in row.files)
    return {place_of(file.path, bucket, prefix): file.kind for file in files}


def sheet_from_samples(samples: Sequence[Sample], file: str = RECIPE_FILE) -> Sheet:
    """Return what stands in for a sheet when the recipe itself lists the samples."""
    return Sheet(file=file, rows=tuple(_row_of(i, sample) for i, sample in enumerate(samples)))


def text_from_samples(samples: Sequence[Sample]) -> str:
    """Return a sheet file with the 20 usual columns; what a recipe does not say is ``na``.

    COVERAGE is one more where a sample has it.
    """
    depth = any(sample.coverage is not None for sample in samples)
    columns = (*COLUMNS, "COVERAGE") if depth else COLUMNS
    lines = ["\t".join(columns)]
    for sample in samples:
        said = {
            "SAMPLE_ID": sample.sample_id,
            "EXTERNAL_SAMPLE_ID": sample.sample_id,
            "R1_FQ": sample.fastq_r1,
            "R2_FQ": sample.fastq_r2 or "na",
            "LANE": "0",
            "COVERAGE": "na" if sample.coverage is None else f"{sample.coverage:g}",
        }
        lines.append("\t".join(said.get(column, "na") for column in columns))
    return "\n".join(lines) + "\n"


def _row_of(index: int, sample: Sample) -> Row:
    where = f"line {sample.line}, key samples[{index}]"
    keys = (("fastq_r1", "R1_FQ", sample.fastq_r1), ("fastq_r2", "R2_FQ", sample.fastq_r2))
    files = tuple(_file(key, name, path, f"{where}.{key}") for key, name, path in keys if path)
    wishes: tuple[Wish, ...] = ()
    if sample.coverage is not None:
        wishes = (Wish(name="COVERAGE", value=sample.coverage, where=f"{where}.coverage"),)
    return Row(line=sample.line, sample_id=sample.sample_id, files=files, wishes=wishes)


def _file(key: str, name: str, cell: str, where: str) -> InputFile:
    column = input_column(name)
    kind, path = named(column, cell) if column else (Kind.FILE, cell)
    return InputFile(column=key, path=path, kind=kind, where=where)


def input_fault(name: str, path: str) -> tuple[str, str] | None:
    """Return what is wrong with the path in an input column, at first sight; None if it may be looked up."""
    column = input_column(name)
    fault = path_fault(path)
    if fault or column is None:
        return fault
    kind, path = named(column, path)
    return None if kind.is_folder else name_fault(path, column.format)


def id_fault(value: str) -> tuple[str, str] | None:
    """Return why a value cannot be an id that becomes part of a file name, and what to do."""
    if fault := typographic_fault(value):
        return fault
    if _DATE.fullmatch(value):
        what = f"{shown(value)} looks like a name that a spreadsheet turned into a date."
        return what, "Format the column as text, and write the name as it was."
    if _ROUNDED.fullmatch(value):
        what = f"{shown(value)} looks like a number that a spreadsheet rounded."
        return what, "Format the column as text, and write all digits."
    if whole := _DECIMAL.fullmatch(value):
        what = f"{shown(value)} looks like a whole number that a program gave a decimal point."
        return what, f"Write {whole[1]}."
    if not SAMPLE_ID.fullmatch(value):
        return f"{shown(value)} cannot be part of a file name.", _TODO_ID
    return None


def _read_of(path: str) -> str:
    """Return ``1`` or ``2`` if the name of a file says of which read it is; empty if not."""
    found = _READ.findall(path.rpartition("/")[2])
    return found[-1] if found else ""


def _has_what_is_needed(table: Table, problems: Problems) -> bool:
    before, where = len(problems.found), f"line {table.header}"
    names = shown(", ".join(table.columns), 200)
    if "SAMPLE_ID" not in table.columns:
        what = f"There is no column SAMPLE_ID among {names}; names are written in capitals."
        problems.add(where, what, "Add it, with the id of each row's sample.")
    inputs = [column for name in table.columns if (column := input_column(name))]
    if not inputs:
        what = f"No column among {names} names input files (such as R1_FQ, ONT_CRAM or UG_BAM)."
        problems.add(where, what, _TODO_INPUT)
    for column in inputs:
        if column.first and column.first not in table.columns:
            what = f"There is a column {column.name}, but none called {column.first}."
            problems.add(where, what, "Add it, or correct the name of the one that was meant.")
    return len(problems.found) == before


@dataclass(slots=True)
class _SheetReading:
    """Reads the rows of one table and collects what is wrong with them."""

    problems: Problems
    table: Table
    inputs: dict[str, Column] = field(init=False)
    others: tuple[str, ...] = field(init=False)
    """Columns nobody here knows."""
    wishes: tuple[str, ...] = field(init=False)
    seen: dict[tuple[str, ...], int] = field(default_factory=dict)
    repeated: set[int] = field(default_factory=set)
    """Lines of a sample and lane that was there before."""
    pairs: dict[str, tuple[int, tuple[str, str]]] = field(default_factory=dict)
    """File to the first line that names it, and the pair it belongs to there."""
    files: int = 0

    def __post_init__(self) -> None:
        names = self.table.columns
        self.inputs = {name: column for name in names if (column := input_column(name))}
        self.wishes = tuple(name for name in names if is_wish(name))
        plain = KNOWN | self.inputs.keys()
        self.others = tuple(name for name in names if name not in plain)

    def rows(self) -> list[Row]:
        return [self._row(line, cells) for line, cells in self.table.rows]

    def _row(self, line: int, cells: list[str]) -> Row:
        cell = dict(zip(self.table.columns, cells, strict=True))
        self._check_key(line, cell)
        self._check_others(line, cell)
        return Row(
            line=line,
            sample_id=cell["SAMPLE_ID"],
            files=self._files(line, cell),
            wishes=tuple(self._wishes(line, cell)),
        )

    def _check_key(self, line: int, cell: dict[str, str]) -> None:
        for column in KEY_COLUMNS:
            value = cell.get(column, "")
            if column == "SAMPLE_ID" and is_none(value):
                self._add(line, column, "The row has no sample id.", "Fill it in.")
            elif value and not is_none(value) and (fault := id_fault(value)):
                self._add(line, column, *fault)
        key = tuple(cell.get(column, "") for column in KEY_COLUMNS)
        first = self.seen.setdefault(key, line)
        if first != line:
            self.repeated.add(line)
            said = ", ".join(f"{name} {shown(cell[name])}" for name in KEY_COLUMNS if name in cell)
            what = f"The same sample and lane ({said}) is on line {first} and line {line}."
            self._add(line, "", what, "Remove one of the two rows, or give each a lane of its own.")

    def _check_others(self, line: int, cell: dict[str, str]) -> None:
        for column in self.others:
            if cell[column].lower().endswith(INPUT_ENDS):
                what = f"{shown(cell[column], 300)} looks like input, but no input is read from this column."
                self._add(line, column, what, _TODO_INPUT)

    def _wishes(self, line: int, cell: dict[str, str]) -> list[Wish]:
        found = []
        for name in self.wishes:
            text = cell[name]
            if is_none(text):
                continue
            value = float(text) if _NUMBER.fullmatch(text) else -1.0
            if value < 0 or (value > 100 and name != "COVERAGE"):
                most = "" if name == "COVERAGE" else " to 100"
                what = f"{shown(text)} is no number from 0{most}, with a point for decimals."
                self._add(line, name, what, "Correct it, or write `na`.")
            elif name == "COVERAGE" or value not in _ALL_READS:
                found.append(Wish(name=name, value=value, where=f"line {line}, column {name}"))
        return found

    def _files(self, line: int, cell: dict[str, str]) -> tuple[InputFile, ...]:
        given = {name: cell[name] for name in self.inputs if not is_none(cell[name])}
        if not given:
            todo = f"Fill in {shown(' or '.join(self.inputs))}."
            self._add(line, "", "The row names no input file.", todo)
        self.files += len(given)
        if self.files > MAX_FILES:
            what = f"There are more than {MAX_FILES:,} input files."
            self._add(line, "", what, "Split the workset into several.")
            raise Enough
        before = len(self.problems.found)
        self._check_mates(line, given)
        if len(self.problems.found) == before and line not in self.repeated:
            self._check_pairs(line, given)
        for column, path in given.items():
            fault = input_fault(column, path)
            if fault:
                self._add(line, column, *fault)
        return tuple(
            _file(name, name, path, f"line {line}, column {name}") for name, path in given.items()
        )

    def _check_mates(self, line: int, given: dict[str, str]) -> None:
        first_named: dict[str, str] = {}
        for column, path in given.items():
            mate = self.inputs[column].first
            if mate and mate not in given:
                what = f"{mate} is empty, while {column} is given."
                self._add(line, mate, what, f"Fill in {mate} too.")
            if path in first_named:
                what = f"{first_named[path]} and {column} name the same file {shown(path)}."
                self._add(line, column, what, "Name the file of each read.")
            first_named.setdefault(path, column)

    def _check_pairs(self, line: int, given: dict[str, str]) -> None:
        """A file has one mate: another one, or the other order, is a slip of copy and paste."""
        for column, path in given.items():
            first = self.inputs[column].first
            if not (self.inputs[column].kind.is_mate and first in given):
                continue
            pair = (given[first], path)
            if _read_of(pair[0]) == "2" and _read_of(pair[1]) == "1":
                what = f"{first} names {shown(pair[0], 200)}, and {column} {shown(path, 200)}."
                self._add(line, column, what, "Exchange the two, as their names say.")
            for file in pair:
                before = self.pairs.setdefault(file, (line, pair))
                if before[1] != pair:
                    what = f"{shown(file, 300)} has another mate on line {before[0]}."
                    self._add(line, column, what, "Correct the file of one of the two lines.")

    def _add(self, line: int, column: str, what: str, todo: str) -> None:
        self.problems.add(f"line {line}, column {column}" if column else f"line {line}", what, todo)
