"""What spreadsheets and people make of a sheet: understood where it is plain, else told; no row is lost."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from daylily_daemon.domain.sheet import MAX_FILES, Sheet, read_sheet, relocated
from daylily_daemon.domain.table import (
    MAX_COLUMNS,
    MAX_COMMENTS,
    MAX_COUNTED,
    MAX_NAME,
    MAX_PROBLEMS,
    MAX_ROWS,
    Enough,
    Problems,
)

HEADER = "SAMPLE_ID\tLANE\tR1_FQ\tR2_FQ\tNOTES\n"


def read(text: str) -> Sheet | list[str]:
    found = read_sheet(text.encode())
    return found if isinstance(found, Sheet) else [str(problem) for problem in found]


def rows(text: str) -> list[tuple[int, str, list[str]]]:
    sheet = read(text)
    assert isinstance(sheet, Sheet), sheet
    return [(row.line, row.sample_id, [file.path for file in row.files]) for row in sheet.rows]


def told(text: str) -> str:
    problems = read(text)
    assert isinstance(problems, list)
    assert len(problems) == 1, problems
    return problems[0]


@pytest.mark.parametrize(
    "error",
    [
        *("#N/A", "#REF!", "#NAME?", "#VALUE!", "#DIV/0!", "#NUM!", "#NULL!", "#SPILL!", "#CALC!"),
        *("#FIELD!", "#BUSY!", "#CONNECT!", "#BLOCKED!", "#UNKNOWN!", "#GETTING_DATA", "#ERROR!"),
        *(
            "#n/a",
            "#NV",
            "#BEZUG!",
            "#WERT!",
            "#NOM?",
            "#VALEUR!",
            "#\u00a1REF!",
            "########",
            "Err:502",
        ),
    ],
)
@pytest.mark.parametrize("column", range(5))
def test_an_error_value_of_a_spreadsheet_is_refused_wherever_it_stands(
    error: str, column: int
) -> None:
    cells = ["S2", "1", "b_R1.fq", "b_R2.fq", "x"]
    cells[column] = error
    for line in ("\t".join(cells), "\t".join(f'"{cell}"' for cell in cells)):
        problems = read(f"{HEADER}S1\t1\ta_R1.fq\ta_R2.fq\tx\n{line}\n")
        assert isinstance(problems, list)
        assert f"line 3, column {HEADER.split()[column]}: The cell holds {error}" in problems[0]


@pytest.mark.reported("D", "rows that begin with # are dropped as comments (datagrunt#217)")
@pytest.mark.parametrize("line", ["# S2\t1\tb\tc\tx", "#S2\t1\tb\tc\tx", " # a comment", "##", "#"])
def test_below_the_header_no_line_is_a_comment(line: str) -> None:
    assert "line 3" in read(f"{HEADER}S1\t1\ta\tb\tx\n{line}\n")[0]  # type: ignore[index]


def test_a_row_whose_free_text_begins_with_a_sign_is_told_too() -> None:
    assert "line 2: The line begins with `#`" in told("NOTES\tSAMPLE_ID\tR1_FQ\n#2\tS1\ta\n")
    assert rows("SAMPLE_ID\tR1_FQ\tNOTES\nS1\ta\t#2\n") == [(2, "S1", ["a"])]


@pytest.mark.parametrize("comment", ["# made by the lab", "## x\ty", "#", "#comment", "  # x"])
def test_comments_stand_above_the_header(comment: str) -> None:
    assert rows(f"{comment}\n\n{comment}\n{HEADER}S1\t1\ta\tb\tx\n") == [(5, "S1", ["a", "b"])]


@pytest.mark.parametrize(
    "header", ["#SAMPLE_ID\tR1_FQ", "# sample id\tR1_FQ", '#"SAMPLE_ID"\tR1_FQ']
)
def test_a_header_that_begins_like_a_comment_is_told(header: str) -> None:
    assert "Remove the `#`" in told(f"{header}\nS1\ta\n")


def test_a_hint_for_spreadsheets_is_no_header() -> None:
    assert rows("sep=\t\nSAMPLE_ID\tR1_FQ\nS1\ta\n") == [(3, "S1", ["a"])]


@pytest.mark.parametrize(
    "header", ["SAMPLE_ID,LANE\tR1_FQ", "SAMPLE_ID  LANE\tR1_FQ", "SAMPLE_ID LANE\tR1_FQ"]
)
def test_a_header_with_tabs_and_other_signs_is_told(header: str) -> None:
    assert "is several names; tabs were expected" in told(f"{header}\nS1\ta\n")


def test_a_row_lost_above_the_header_is_told() -> None:
    assert "#N/A" in told(f"#N/A\t1\ta\tb\tx\n{HEADER}S1\t1\ta\tb\tx\n")


def test_quotes_around_cells_are_taken_off() -> None:
    text = '"SAMPLE_ID"\t"R1_FQ"\tNOTES\n"S1"\t" a b.fq "\t"say ""hi"""\n'
    assert rows(text) == [(2, "S1", ["a b.fq"])]
    assert relocated(text.encode(), str) == 'SAMPLE_ID\tR1_FQ\tNOTES\nS1\ta b.fq\tsay "hi"\n'
    assert rows('SAMPLE_ID\tR1_FQ\tNOTES\nS1\ta\t5" disk\n') == [(2, "S1", ["a"])]


def test_a_staged_sheet_says_na_where_there_is_no_file() -> None:
    cells = ["", "na", "NA", "none", ".", "-", "NaN"]
    data = "SAMPLE_ID\tR1_FQ\tR2_FQ\n" + "".join(f"S{i}\ta\t{c}\n" for i, c in enumerate(cells))
    staged = [line.split("\t")[2] for line in relocated(data.encode(), str).splitlines()[1:]]
    assert staged == ["", "na", "NA", "na", "na", "na", "na"]


@pytest.mark.parametrize("cell", ['"a\tb"', '"a\nS2\tb"', '"a', '"a"b"'])
def test_tabs_line_breaks_and_stray_quotes_in_a_quoted_cell_are_told(cell: str) -> None:
    problems = read(f"SAMPLE_ID\tR1_FQ\nS1\t{cell}\n")
    assert isinstance(problems, list)
    assert any("Save the sheet without quotes" in problem for problem in problems)


@pytest.mark.parametrize("tabs", [1, 2, 30])
def test_tabs_at_the_ends_of_lines_do_not_matter(tabs: int) -> None:
    end = "\t" * tabs
    text = f"SAMPLE_ID\tR1_FQ{end}\nS1\ta{end}\nS2\tb\nS3\tc\t\n"
    assert rows(text) == [(2, "S1", ["a"]), (3, "S2", ["b"]), (4, "S3", ["c"])]
    assert relocated(text.encode(), str).splitlines()[0] == "SAMPLE_ID\tR1_FQ"


def test_what_stands_below_no_name_is_told() -> None:
    assert "There is 'x' in column 4, which has no name" in told(
        "SAMPLE_ID\tR1_FQ\t\t\nS1\ta\t\tx\n"
    )
    assert "There is 'x' in column 3, which has no name" in told("SAMPLE_ID\tR1_FQ\t\nS1\ta\tx\n")
    assert "Column 2 has no name" in told("SAMPLE_ID\t\tR1_FQ\nS1\t\ta\n")


@pytest.mark.parametrize(
    ("column", "cell", "words"),
    [
        ("SAMPLE_ID", "1-Mar", "into a date"),
        ("SAMPLE_ID", "Sep-02", "into a date"),
        ("RUN_ID", "01-Mar-2026", "into a date"),
        ("SAMPLE_ID", "1.2E+05", "rounded"),
        ("SAMPLE_ID", "1E+05", "rounded"),
        ("SAMPLE_ID", "1.00E10", "rounded"),
        ("LANE", "1.0", "Write 1."),
        ("SAMPLE_ID", "0012.0", "Write 0012."),
        ("SAMPLE_ID", "12,0", "Write 12."),
        ("SAMPLE_ID", "a\u2013b", "en dash"),
        ("SAMPLE_ID", "=1+1", "file name"),
        ("SAMPLE_ID", "none", "no sample id"),
    ],
)
def test_an_id_that_a_spreadsheet_changed_is_told(column: str, cell: str, words: str) -> None:
    usual = {"RUN_ID": "R0", "SAMPLE_ID": "S1", "LANE": "1", "R1_FQ": "a", column: cell}
    message = told("\t".join(usual) + "\n" + "\t".join(usual.values()) + "\n")
    assert f"line 2, column {column}" in message
    assert words in message


@pytest.mark.parametrize(
    "name", ["1E05", "MAR1", "2026-03-01", "1.2", "20260301", "12-May1", "E10"]
)
def test_ids_that_only_look_a_little_like_numbers_or_dates_are_fine(name: str) -> None:
    assert rows(f"SAMPLE_ID\tR1_FQ\n{name}\ta\n") == [(2, name, ["a"])]


@pytest.mark.parametrize(
    ("value", "fine"),
    [
        *(("na", True), ("", True), ("1", True), ("100", True), ("0", True), ("0.5", True)),
        *(
            (".5", True),
            ("33.3", True),
            ("abc", False),
            ("-1", False),
            ("101", False),
            ("0,5", False),
        ),
        *(("50%", False), ("1e-1", False), ("nan", True), ("inf", False), ("0x1", False)),
    ],
)
@pytest.mark.parametrize("column", ["SUBSAMPLE_PCT", "ONT_SUBSAMPLE_PCT", "ROCHE_DOWNSAMPLE_RATIO"])
def test_a_share_of_the_reads_is_a_number_or_none(column: str, value: str, fine: bool) -> None:
    found = read(f"SAMPLE_ID\tR1_FQ\t{column}\nS1\ta\t{value}\n")
    assert isinstance(found, Sheet) is fine
    if isinstance(found, list):
        assert f"line 2, column {column}" in found[0]


def test_the_second_read_needs_the_column_of_the_first() -> None:
    message = told("SAMPLE_ID\tR1_FQ\tR2_FASTQ\nS1\ta\tb\n")
    assert "There is a column R2_FASTQ, but none called R1_FASTQ" in message


@pytest.mark.reported("D", "a backspace in a sample sheet (auto_process_ngs#188)")
@pytest.mark.parametrize(
    ("column", "cell", "fine"),
    [
        ("SEQ_PLATFORM", "NOVASEQX\u00a0", False),
        ("SEQ_PLATFORM", "NOVA\u200bSEQX", False),
        ("SEQ_PLATFORM", "caf\u00e9", True),
        ("NOTES", "two\u00a0words", True),
        ("NOTES", "a\x08b", False),
        ("NOTES", "\x1b[31m", False),
        ("LIB_PREP", "a\x7fb", False),
    ],
)
def test_what_programs_compare_holds_nothing_that_nobody_sees(
    column: str, cell: str, fine: bool
) -> None:
    found = read(f"SAMPLE_ID\tR1_FQ\t{column}\nS1\ta\t{cell}\n")
    assert isinstance(found, Sheet) is fine
    if isinstance(found, list):
        assert f"line 2, column {column}" in found[0]
        assert "U+" in found[0]


PAIRS = "SAMPLE_ID\tLANE\tR1_FQ\tR2_FQ\n"


@pytest.mark.reported("D", "one FASTQ file in the rows of two samples (nf-core/sarek#623)")
@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("S1\t1\ta_R2.fq\ta_R1.fq\n", "Exchange the two"),
        ("S1\t1\tx/a.R2.fq.gz\ty/a.R1.fq.gz\n", "Exchange the two"),
        (
            "S1\t1\ta_R1.fq\ta_R2.fq\nS2\t1\ta_R1.fq\tb_R2.fq\n",
            "'a_R1.fq' has another mate on line 2",
        ),
        (
            "S1\t1\ta_R1.fq\ta_R2.fq\nS2\t1\tb_R1.fq\ta_R2.fq\n",
            "'a_R2.fq' has another mate on line 2",
        ),
    ],
)
def test_reads_that_were_exchanged_or_copied_to_the_wrong_row_are_told(
    lines: str, words: str
) -> None:
    assert words in told(PAIRS + lines)


@pytest.mark.parametrize(
    "lines",
    [
        "S1\t1\ta_R1.fq\ta_R2.fq\nS2\t1\ta_R1.fq\ta_R2.fq\n",
        "S1\t1\tKO_R2_1.fq\tKO_R2_2.fq\n",
        "S1\t1\tKO_R1.fq\tna\nS1\t2\tKO_R2.fq\tna\n",
        "S1\t1\tR2D2_R1.fq\tR2D2_R2.fq\n",
        "S1\t1\ta_1.fq\ta_2.fq\n",
    ],
)
def test_pairs_may_be_used_again_and_named_as_one_likes(lines: str) -> None:
    assert rows(PAIRS + lines)


def test_columns_names_rows_files_and_comments_are_bounded() -> None:
    many = "\t".join(f"C{i}" for i in range(MAX_COLUMNS))
    assert f"at most {MAX_COLUMNS}" in told(f"SAMPLE_ID\t{many}\nS1\n")
    assert f"at most {MAX_COLUMNS}" in told("SAMPLE_ID" + "\t" * 60_000 + "\nS1\n")
    assert len(
        rows(
            "SAMPLE_ID\tR1_FQ\t"
            + many.rpartition("\t")[0].rpartition("\t")[0]
            + "\nS1\ta"
            + "\tx" * 254
        )
    )
    assert f"longer than {MAX_NAME}" in told(
        f"SAMPLE_ID\tR1_FQ\t{'N' * (MAX_NAME + 1)}\nS1\ta\tb\n"
    )
    comments = "# x\n" * (MAX_COMMENTS + 1)
    assert f"line {MAX_COMMENTS + 1}" in told(comments + "SAMPLE_ID\tR1_FQ\nS1\ta\n")
    wide = "\t".join(f"A{i}_FQ" for i in range(255))
    body = "".join(f"S{i}\t" + "\t".join(f"x{j}" for j in range(255)) + "\n" for i in range(197))
    assert f"more than {MAX_FILES:,} input files" in told(f"SAMPLE_ID\t{wide}\n{body}")


def test_no_more_problems_are_made_than_anybody_counts() -> None:
    problems = read_sheet(
        ("SAMPLE_ID\tR1_FQ\n" + "".join(f"S{i}\t~\n" for i in range(MAX_ROWS))).encode()
    )
    assert isinstance(problems, tuple)
    assert len(problems) == MAX_PROBLEMS + 1
    assert f"at least {MAX_COUNTED - MAX_PROBLEMS} more" in problems[-1].what


def test_a_collector_ends_the_reading_when_there_are_enough() -> None:
    collected = Problems("x")
    for _ in range(MAX_COUNTED - 1):
        collected.add("", "", "")
    with pytest.raises(Enough):
        collected.add("", "", "")
    assert len(collected.found) == MAX_COUNTED


CELL = st.sampled_from(
    [
        *("S1", "S2", "1", "a_R1.fq", "a_R2.fq", "na", "", "none", "x y", '"q"', '"', "#", "#N/A"),
        *("# c", " ", "\u00a0", "5%", "a#b", '""', "Err", "\x0b", "\x1c", "\u2028", "\x85"),
    ]
)
LINES = st.lists(st.lists(CELL, min_size=1, max_size=6).map("\t".join), max_size=6)


@settings(max_examples=600, deadline=None)
@given(LINES, st.sampled_from(["\n", "\r\n", "\r"]), st.booleans())
@example(["S1\t1\ta\tb\tx", '""\t""'], "\n", True)
def test_no_line_of_an_accepted_sheet_is_lost(lines: list[str], end: str, last: bool) -> None:
    text = end.join([HEADER.strip(), *lines]) + (end if last else "")
    sheet = read(text)
    if isinstance(sheet, Sheet):
        written = [
            i + 2 for i, line in enumerate(lines) if line.replace('"', "").strip(" \t\x0b\x0c")
        ]
        assert [row.line for row in sheet.rows] == written
        assert relocated(text.encode(), str).count("\n") == len(written) + 1
