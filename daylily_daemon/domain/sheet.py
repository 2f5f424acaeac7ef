"""The sample sheet: which samples there are, and which input files each row names.

Every sequencing platform has a column set of its own, so only what is used is required: SAMPLE_ID, and
at least one column that names input files. All problems of a sheet are told at once, each with its line.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from daylily_daemon.domain.columns import Column, Kind, input_column, named
from daylily_daemon.domain.document import BadDocument, decode_text, shown, unseen
from daylily_daemon.domain.model import Problem

SHEET_FILE: Final = "stage_samples.tsv"
RECIPE_FILE: Final = "daylily_work.yaml"
MAX_SHEET_BYTES: Final = 5 * 1024 * 1024
MAX_ROWS: Final = 10_000
MAX_PROBLEMS: Final = 50
MAX_PATH: Final = 1024

SAMPLE_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
"""Ids that become parts of file names: of samples, runs, experiments and lanes."""
COLUMNS: Final = (
    *("RUN_ID", "SAMPLE_ID", "EXPERIMENTID", "SAMPLE_TYPE", "LIB_PREP", "SEQ_VENDOR"),
    *("SEQ_PLATFORM", "LANE", "SEQBC_ID", "PATH_TO_CONCORDANCE_DATA_DIR", "R1_FQ", "R2_FQ"),
    *("STAGE_DIRECTIVE", "STAGE_TARGET", "SUBSAMPLE_PCT", "IS_POS_CTRL", "IS_NEG_CTRL"),
    *("N_X", "N_Y", "EXTERNAL_SAMPLE_ID"),
)
"""The columns of the short-read platforms, in their order."""

_KEY: Final = ("RUN_ID", "SAMPLE_ID", "EXPERIMENTID", "LANE")
"""Columns that, as far as they exist, tell one row from another."""
_LINE_END: Final = re.compile(r"\r\n|\r|\n")
_S3_URI: Final = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/(.+)", re.DOTALL)
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")
_TODO_HEADER: Final = (
    "Start the sheet with tab-separated column names, SAMPLE_ID and R1_FQ among them."
)


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
class Row:
    line: int
    """1-based, in the file as it was sent."""
    sample_id: str
    lane: str = ""
    files: tuple[InputFile, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    file: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class S3Place:
    bucket: str
    key: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True, slots=True)
class LocalPlace:
    path: str
    """Absolute, on the host of the daemon."""

    def __str__(self) -> str:
        return self.path


Place = S3Place | LocalPlace


def split_s3(uri: str) -> S3Place | None:
    """Return bucket and key of ``s3://bucket/key``; None if it is no such thing."""
    match = _S3_URI.fullmatch(uri)
    return S3Place(match[1], match[2]) if match and ".." not in match[1] else None


def place_of(path: str, bucket: str, prefix: str) -> Place:
    """Return where an input path points; a relative one starts at the workset's prefix."""
    if path.startswith("/"):
        return LocalPlace(path)
    return split_s3(path) or S3Place(bucket, prefix + path.removeprefix("./"))


def path_fault(path: str) -> tuple[str, str] | None:
    """Return what is wrong with an input path and what to do; None if it may be looked up."""
    said = shown(path, 300)
    odd = unseen(path)
    if odd:
        return (
            f"The path {said} holds a character that cannot be seen ({odd}).",
            "Remove it.",
        )
    if "<" in path or ">" in path:
        what = f"The path {said} still holds a placeholder in angle brackets."
        return what, "Put the real bucket or folder in its place."
    if len(path) > MAX_PATH:
        return f"The path {said} is longer than {MAX_PATH} characters.", "Shorten it."
    if ".." in path.split("/"):
        return f"The path {said} leads upwards by `..`.", "Write the whole path."
    if _SCHEME.match(path) and split_s3(path) is None:
        what = f"The path {said} is not of the form s3://bucket/key."
        return what, "Give an S3 address, an absolute path or one relative to the workset."
    return None


def capped(problems: Sequence[Problem]) -> tuple[Problem, ...]:
    """Return at most 50 problems, and then one that counts the rest."""
    if len(problems) <= MAX_PROBLEMS:
        return tuple(problems)
    first = problems[0]
    what = f"And {len(problems) - MAX_PROBLEMS:,} more problems like these."
    todo = "Mend those above first; the rest is shown then."
    rest = Problem(first.file, "", what, todo, first.category)
    return (*problems[:MAX_PROBLEMS], rest)


def read_sheet(data: bytes, file: str = SHEET_FILE) -> Sheet | tuple[Problem, ...]:
    """Return the rows, or everything that is wrong with the sheet. Raises nothing."""
    if len(data) > MAX_SHEET_BYTES:
        what = f"The sheet has {len(data):,} bytes; at most {MAX_SHEET_BYTES:,} are allowed."
        return (Problem(file, "", what, "Split the workset into several."),)
    try:
        lines = list(_lines(decode_text(data, file)))
    except BadDocument as exc:
        return (exc.problem,)
    if not lines:
        what = "The sheet is empty; a header line with column names was expected."
        return (Problem(file, "line 1", what, _TODO_HEADER),)
    number, header = lines[0]
    columns = _cells(header)
    wrong = list(_header_problems(file, number, columns)) or _count_problems(file, number, lines)
    inputs = {name: column for name in columns if (column := input_column(name))}
    return capped(wrong) if wrong else _Reading(file, columns, inputs).sheet(lines[1:])


def relocated(data: bytes, new_path: Callable[[str], str]) -> str:
    """Return an accepted sheet with every input path replaced, ready for a pipeline to read.

    ``new_path`` is given the paths that the rows of the sheet have.

    Lines end in ``\\n``; byte order mark, blank lines, comments and spaces around cells are gone.
    Raises BadDocument if the bytes are no text.
    """
    lines = [_cells(line) for _, line in _lines(decode_text(data, SHEET_FILE))]
    inputs = [
        (i, c) for i, name in enumerate(lines[0] if lines else ()) if (c := input_column(name))
    ]
    for cells in lines[1:]:
        for i, column in inputs:
            if i < len(cells) and not _is_none(cells[i]):
                cells[i] = new_path(named(column, cells[i])[1])
    return "".join("\t".join(cells) + "\n" for cells in lines)


def sheet_from_samples(samples: Sequence[Sample], file: str = RECIPE_FILE) -> Sheet:
    """Return what stands in for a sheet when the recipe itself lists the samples."""
    return Sheet(file=file, rows=tuple(_row_of(i, sample) for i, sample in enumerate(samples)))


def text_from_samples(samples: Sequence[Sample]) -> str:
    """Return a sheet file with the 20 usual columns; what a recipe does not say is ``na``."""
    lines = ["\t".join(COLUMNS)]
    for sample in samples:
        known = {
            "SAMPLE_ID": sample.sample_id,
            "EXTERNAL_SAMPLE_ID": sample.sample_id,
            "R1_FQ": sample.fastq_r1,
            "R2_FQ": sample.fastq_r2 or "na",
            "LANE": "0",
        }
        lines.append("\t".join(known.get(column, "na") for column in COLUMNS))
    return "\n".join(lines) + "\n"


def places_of(sheet: Sheet, bucket: str, prefix: str) -> dict[Place, Kind]:
    """Return every place that a sheet names, once, in its order, and what has to be fetched from there."""
    files = (file for row in sheet.rows for file in row.files)
    return {place_of(file.path, bucket, prefix): file.kind for file in files}


def _row_of(index: int, sample: Sample) -> Row:
    where = f"line {sample.line}, key samples[{index}]"
    keys = (("fastq_r1", "R1_FQ", sample.fastq_r1), ("fastq_r2", "R2_FQ", sample.fastq_r2))
    files = tuple(_file(key, name, path, f"{where}.{key}") for key, name, path in keys if path)
    return Row(line=sample.line, sample_id=sample.sample_id, files=files)


def _file(key: str, name: str, cell: str, where: str) -> InputFile:
    column = input_column(name)
    kind, path = named(column, cell) if column else (Kind.FILE, cell)
    return InputFile(column=key, path=path, kind=kind, where=where)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield line number and text of every line that is neither blank nor a comment."""
    for number, line in enumerate(_LINE_END.split(text), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield number, line


def _cells(line: str) -> list[str]:
    return [cell.strip(" ") for cell in line.split("\t")]


def _is_none(cell: str) -> bool:
    return cell.lower() in {"", "na", "n/a"}


def _header_problems(file: str, number: int, columns: list[str]) -> Iterator[Problem]:
    where = f"line {number}"
    if len(columns) == 1 and (separator := _other_separator(columns[0])):
        what = f"The columns are separated by {separator}; tabs were expected."
        yield Problem(file, where, what, "Save the sheet as tab-separated text.")
        return
    names = shown(", ".join(columns), 200)
    if "SAMPLE_ID" not in columns:
        what = f"There is no column SAMPLE_ID among {names}; names are written in capitals."
        yield Problem(file, where, what, _TODO_HEADER)
    if not any(input_column(name) for name in columns):
        what = f"No column among {names} names input files (such as R1_FQ, ONT_CRAM or UG_BAM)."
        yield Problem(file, where, what, _TODO_HEADER)
    for name, times in Counter(columns).items():
        what = (
            f"The column {shown(name)} is there more than once."
            if name
            else "A column has no name."
        )
        if times > 1 or not name:
            yield Problem(file, where, what, "Give every column one name of its own.")


def _other_separator(header: str) -> str:
    if "," in header:
        return "commas"
    if ";" in header:
        return "semicolons"
    return "spaces" if " " in header else ""


def _count_problems(file: str, header: int, lines: list[tuple[int, str]]) -> list[Problem]:
    rows = len(lines) - 1
    if rows == 0:
        what = "There is a header, but no row below it."
        return [Problem(file, f"line {header}", what, "Add one row a sample and lane.")]
    if rows > MAX_ROWS:
        what = f"There are {rows:,} rows; at most {MAX_ROWS:,} are allowed."
        where = f"line {lines[MAX_ROWS + 1][0]}"
        return [Problem(file, where, what, "Split the workset into several.")]
    return []


@dataclass(slots=True)
class _Reading:
    """Reads the rows below one header and collects what is wrong with them."""

    file: str
    columns: list[str]
    inputs: dict[str, Column]
    problems: list[Problem] = field(default_factory=list)
    seen: dict[tuple[str, ...], int] = field(default_factory=dict)

    def sheet(self, lines: list[tuple[int, str]]) -> Sheet | tuple[Problem, ...]:
        rows = [self._row(number, _cells(line)) for number, line in lines]
        if self.problems:
            return capped(self.problems)
        return Sheet(file=self.file, rows=tuple(row for row in rows if row))

    def _row(self, line: int, cells: list[str]) -> Row | None:
        if len(cells) != len(self.columns):
            what = f"The row has {len(cells)} cells; the header has {len(self.columns)}."
            todo = "Put one tab between cells, also around empty ones."
            if len(cells) == 1 and (separator := _other_separator(cells[0])):
                todo = f"It is separated by {separator}: put tabs in their place."
            self._add(line, "", what, todo)
            return None
        named = dict(zip(self.columns, cells, strict=True))
        self._check_key(line, named)
        files = self._files(line, named)
        return Row(line=line, sample_id=named["SAMPLE_ID"], lane=named.get("LANE", ""), files=files)

    def _check_key(self, line: int, named: dict[str, str]) -> None:
        for column in _KEY:
            value = named.get(column, "")
            if column == "SAMPLE_ID" and _is_none(value):
                self._add(line, column, "The row has no sample id.", "Fill it in.")
            elif value and not SAMPLE_ID.fullmatch(value):
                what = f"{shown(value)} cannot be part of a file name."
                todo = (
                    "Use up to 80 letters, digits, `.`, `_` and `-`; begin with a letter or digit."
                )
                self._add(line, column, what, todo)
        key = tuple(named.get(column, "") for column in _KEY)
        first = self.seen.setdefault(key, line)
        if first != line:
            said = ", ".join(f"{name} {shown(named[name])}" for name in _KEY if name in named)
            what = f"The same sample and lane ({said}) is on line {first} and line {line}."
            self._add(line, "", what, "Remove one of the two rows, or give each a lane of its own.")

    def _files(self, line: int, named: dict[str, str]) -> tuple[InputFile, ...]:
        given = {name: named[name] for name in self.inputs if not _is_none(named[name])}
        if not given:
            self._add(
                line,
                "",
                "The row names no input file.",
                f"Fill in {shown(' or '.join(self.inputs))}.",
            )
        self._check_mates(line, given)
        for column, path in given.items():
            fault = path_fault(path)
            if fault:
                self._add(line, column, *fault)
        return tuple(
            _file(name, name, path, f"line {line}, column {name}") for name, path in given.items()
        )

    def _check_mates(self, line: int, given: dict[str, str]) -> None:
        first_named: dict[str, str] = {}
        for column, path in given.items():
            mate = self.inputs[column].first
            if mate in self.inputs and mate not in given:
                what = f"{mate} is empty, while {column} is given."
                self._add(line, mate, what, f"Fill in {mate} too.")
            if path in first_named:
                what = f"{first_named[path]} and {column} name the same file {shown(path)}."
                self._add(line, column, what, "Name the file of each read.")
            first_named.setdefault(path, column)

    def _add(self, line: int, column: str, what: str, todo: str) -> None:
        where = f"line {line}, column {column}" if column else f"line {line}"
        self.problems.append(Problem(self.file, where, what, todo))
