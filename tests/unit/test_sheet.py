"""Sample sheets: what is accepted, and that each problem names file, line and column."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from daylily_daemon.domain.columns import Kind
from daylily_daemon.domain.document import BadDocument
from daylily_daemon.domain.model import Category, Problem
from daylily_daemon.domain.sheet import (
    COLUMNS,
    MAX_PROBLEMS,
    MAX_ROWS,
    MAX_SHEET_BYTES,
    InputFile,
    LocalPlace,
    Row,
    S3Place,
    Sample,
    Sheet,
    path_fault,
    place_of,
    read_sheet,
    relocated,
    sheet_from_samples,
    split_s3,
    text_from_samples,
)
from tests.costs import assert_linear, cost_s

HEADER = "\t".join(COLUMNS)
READS = "s3://lab-reads/active_worksets/runme14/sample_data/RIH0_ANA0-HG002_DBC0_0"


def row(**cells: str) -> str:
    usual = {
        **dict.fromkeys(COLUMNS, "x"),
        "RUN_ID": "R0",
        "SAMPLE_ID": "HG002",
        "EXPERIMENTID": "x4",
        "LANE": "0",
        "PATH_TO_CONCORDANCE_DATA_DIR": "",
        "R1_FQ": f"{READS}.R1.fastq.gz",
        "R2_FQ": f"{READS}.R2.fastq.gz",
        "SUBSAMPLE_PCT": "na",
    }
    return "\t".join({**usual, **cells}[column] for column in COLUMNS)


def text(*rows: str, header: str = HEADER, end: str = "\n") -> str:
    return end.join([header, *rows]) + end


def accepted(data: str | bytes) -> Sheet:
    sheet = read_sheet(data.encode() if isinstance(data, str) else data)
    assert isinstance(sheet, Sheet), [str(problem) for problem in sheet]
    return sheet


def refused(data: str | bytes) -> tuple[Problem, ...]:
    problems = read_sheet(data.encode() if isinstance(data, str) else data)
    assert isinstance(problems, tuple)
    for problem in problems:
        assert problem.file == "stage_samples.tsv"
        assert problem.category is Category.DATA
        assert problem.todo.endswith(".")
    return problems


def only(data: str | bytes) -> Problem:
    (problem,) = refused(data)
    return problem


def test_the_real_sheet_is_accepted() -> None:
    assert accepted(text(row())) == Sheet(
        file="stage_samples.tsv",
        rows=(
            Row(
                line=2,
                sample_id="HG002",
                files=(
                    InputFile(
                        column="R1_FQ",
                        path=f"{READS}.R1.fastq.gz",
                        kind=Kind.READ_1,
                        where="line 2, column R1_FQ",
                    ),
                    InputFile(
                        column="R2_FQ",
                        path=f"{READS}.R2.fastq.gz",
                        kind=Kind.READ_2,
                        where="line 2, column R2_FQ",
                    ),
                ),
            ),
        ),
    )


def test_the_template_is_refused_for_the_bucket_nobody_filled_in() -> None:
    left = "s3://<REF-BUCKET-NAME>/data/HG002_30x_R"
    first = row(
        R1_FQ=".test_data/data/a.R1.fastq.gz", R2_FQ=".test_data/data/a.R2.fastq.gz", LANE="1"
    )
    second = row(R1_FQ=left + "1.fastq.gz", R2_FQ=left + "2.fastq.gz")
    problems = refused(text(first, second, end="\r\n"))
    assert [problem.where for problem in problems] == [
        "line 3, column R1_FQ",
        "line 3, column R2_FQ",
    ]
    assert "<REF-BUCKET-NAME>" in problems[0].what
    assert "placeholder" in problems[0].what


@pytest.mark.reported(
    "D", "a byte order mark and Windows line ends in a sample sheet (nf-core/rnaseq#705)"
)
def test_windows_and_old_line_ends_a_byte_order_mark_blanks_and_comments_are_fine() -> None:
    rows = ("", row(), " \t ", row(LANE="1"), '""\t""', "")
    for end in ("\r\n", "\n", "\r"):
        head = f"# a comment{end}## another{end}#{end}{end}".encode()
        sheet = accepted(b"\xef\xbb\xbf" + head + text(*rows, end=end).encode())
        assert [one.line for one in sheet.rows] == [7, 9]
        assert sheet.rows[0].files[-1].path == f"{READS}.R2.fastq.gz"


def test_a_last_line_without_an_end_is_read() -> None:
    assert len(accepted(text(row()).rstrip("\n")).rows) == 1


@pytest.mark.parametrize(
    ("columns", "cells", "inputs"),
    [
        ("SAMPLE_ID ONT_POD5", "a s3://lab/p/", ["ONT_POD5"]),
        ("SAMPLE_ID PACBIO_UBAM LANE", "a /fsx/a.bam 1", ["PACBIO_UBAM"]),
        ("SAMPLE_ID UG_CRAM UG_CRAM_INDEX", "a a.cram a.crai", ["UG_CRAM"]),
        ("SAMPLE_ID ROCHE_FASTQ1 ROCHE_FASTQ2", "a 1.fq 2.fq", ["ROCHE_FASTQ1", "ROCHE_FASTQ2"]),
        ("SAMPLE_ID PB_BAM PATH_TO_CONCORDANCE_DATA_DIR", "a a.bam /no/where/", ["PB_BAM"]),
    ],
)
def test_other_platforms_bring_other_columns(columns: str, cells: str, inputs: list[str]) -> None:
    sheet = accepted(columns.replace(" ", "\t") + "\n" + cells.replace(" ", "\t"))
    assert [file.column for file in sheet.rows[0].files] == inputs


@pytest.mark.parametrize("none", ["", "na", "NA", "n/a"])
def test_an_empty_path_means_no_file(none: str) -> None:
    (only_row,) = accepted(text(row(R2_FQ=none))).rows
    assert [file.column for file in only_row.files] == ["R1_FQ"]


@pytest.mark.parametrize(
    ("cells", "where", "words"),
    [
        ({"SAMPLE_ID": ""}, "line 2, column SAMPLE_ID", "no sample id"),
        ({"SAMPLE_ID": "na"}, "line 2, column SAMPLE_ID", "no sample id"),
        ({"SAMPLE_ID": "../x"}, "line 2, column SAMPLE_ID", "file name"),
        ({"SAMPLE_ID": "a b"}, "line 2, column SAMPLE_ID", "file name"),
        ({"SAMPLE_ID": "-x"}, "line 2, column SAMPLE_ID", "file name"),
        ({"SAMPLE_ID": "HG002\u00a0"}, "line 2, column SAMPLE_ID", "file name"),
        ({"SAMPLE_ID": "x" * 81}, "line 2, column SAMPLE_ID", "file name"),
        ({"LANE": "1;2"}, "line 2, column LANE", "file name"),
        ({"R1_FQ": ""}, "line 2, column R1_FQ", "R1_FQ is empty, while R2_FQ is given"),
        ({"R1_FQ": "", "R2_FQ": "na"}, "line 2", "names no input file"),
        ({"R1_FQ": "a", "R2_FQ": "a"}, "line 2, column R2_FQ", "same file 'a'"),
        ({"R1_FQ": "s3://<BUCKET>/a"}, "line 2, column R1_FQ", "placeholder"),
        ({"R1_FQ": "s3://lab"}, "line 2, column R1_FQ", "s3://bucket/key"),
        ({"R1_FQ": "https://lab/a"}, "line 2, column R1_FQ", "s3://bucket/key"),
        ({"R1_FQ": "../other/a"}, "line 2, column R1_FQ", "upwards"),
        ({"R1_FQ": "/fsx/../etc/passwd"}, "line 2, column R1_FQ", "upwards"),
        ({"R1_FQ": "a\u200b.fq"}, "line 2, column R1_FQ", "U+200B"),
        ({"R1_FQ": "x" * 2000}, "line 2, column R1_FQ", "longer than"),
    ],
)
def test_a_bad_cell_is_named_by_line_and_column(
    cells: dict[str, str], where: str, words: str
) -> None:
    problem = only(text(row(**cells)))
    assert problem.where == where
    assert words in problem.what


def test_mates_are_told_apart_on_other_platforms_too() -> None:
    problem = only("SAMPLE_ID\tILMN_R1_FQ\tILMN_R2_FQ\na\t\tb\n")
    assert problem.where == "line 2, column ILMN_R1_FQ"


@pytest.mark.parametrize(("extra", "count"), [("\tmore", 21), ("\t", 21)])
def test_a_row_with_too_many_cells_is_refused(extra: str, count: int) -> None:
    problem = only(text(row(), row(LANE="1") + extra))
    assert problem.where == "line 3"
    assert problem.what == f"The row has {count} cells; the header has 20."


def test_a_row_with_too_few_cells_is_refused() -> None:
    assert "has 19 cells" in only(text(row().rpartition("\t")[0])).what


def test_a_row_with_other_separators_is_recognised() -> None:
    assert "commas" in only(text(row().replace("\t", ","))).todo
    assert "spaces" in only(text(row().replace("\t", "  "))).todo


@pytest.mark.parametrize(
    ("separator", "word"),
    [(",", "commas"), (";", "semicolons"), (" ", "spaces"), ("    ", "spaces")],
)
def test_a_sheet_without_tabs_is_recognised(separator: str, word: str) -> None:
    problem = only(text(row()).replace("\t", separator))
    assert problem.where == "line 1"
    assert f"separated by {word}; tabs were expected" in problem.what


def test_the_same_sample_and_lane_twice_names_both_lines() -> None:
    problem = only(text(row(), row(LANE="1"), row(R1_FQ="other")))
    assert problem.where == "line 4"
    assert "on line 2 and line 4" in problem.what
    assert "SAMPLE_ID 'HG002', EXPERIMENTID 'x4', LANE '0'" in problem.what


def test_only_columns_that_exist_tell_rows_apart() -> None:
    header = "SAMPLE_ID\tR1_FQ\n"
    assert "line 2 and line 3" in only(header + "a\tx\na\ty\n").what
    assert len(accepted("LANE\t" + header + "1\ta\tx\n2\ta\ty\n").rows) == 2


@pytest.mark.parametrize(
    ("data", "where", "words"),
    [
        ("", "line 1", "empty"),
        ("\n# only\n\n", "line 1", "empty"),
        ("RUN_ID\tR1_FQ\nR0\ta\n", "line 1", "no column SAMPLE_ID"),
        ("sample_id\tR1_FQ\nR0\ta\n", "line 1", "capitals"),
        ("\nSAMPLE_ID\tR1\nS\ta\n", "line 2", "names input files"),
        ("SAMPLE_ID\tPATH_TO_CONCORDANCE_DATA_DIR\nS\ta\n", "line 1", "names input files"),
        ("SAMPLE_ID\tR1_FQ\tR1_FQ\na\tb\tc\n", "line 1", "'R1_FQ' is there more than once"),
        ("SAMPLE_ID\t\tR1_FQ\na\t\tb\n", "line 1", "Column 2 has no name"),
        ("SAMPLE_ID\tR1_FQ\n", "line 1", "no row"),
    ],
)
def test_a_bad_header_is_refused(data: str, where: str, words: str) -> None:
    problem = only(data)
    assert problem.where == where
    assert words in problem.what


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_named(encoding: str) -> None:
    problem = only(text(row()).encode(encoding))
    assert "UTF-16" in problem.what
    assert "Save it as UTF-8" in problem.todo
    assert problem.where == "line 1"


def test_latin_1_and_nul_bytes_are_found_on_their_line() -> None:
    assert only(text(row(), row(LANE="1", LIB_PREP="für")).encode("latin-1")).where == "line 3"
    assert only(text(row(), end="\r").encode("latin-1") + b"a\xfc").where == "line 3"
    assert only(text(row()).encode() + b"\0").where == "line 3"
    assert "workbook" in only(b"PK\x03\x04\x14\x00\x06\x00\x08\x00").what


def test_a_sheet_of_50_megabytes_is_refused_for_less_than_a_small_one_costs() -> None:
    data = text(row()).encode() * (50 * 1024 * 1024 // 500)
    small = text(*(row(LANE=str(lane)) for lane in range(1000)))
    assert cost_s(lambda: only(data)) < cost_s(lambda: accepted(small))
    assert f"at most {MAX_SHEET_BYTES:,}" in only(data).what


def test_rows_end_at_the_limit() -> None:
    lines = [f"s{i}\tf{i}" for i in range(MAX_ROWS + 1)]
    header = "SAMPLE_ID\tR1_FQ"
    assert len(accepted(text(*lines[:-1], header=header)).rows) == MAX_ROWS
    problem = only(text(*lines, header=header))
    assert problem.where == f"line {MAX_ROWS + 2}"
    assert f"at most {MAX_ROWS:,}" in problem.what


def test_at_most_fifty_problems_are_listed_and_the_rest_counted() -> None:
    problems = refused(text(*(f"s{i}\t" for i in range(80)), header="SAMPLE_ID\tR1_FQ"))
    assert len(problems) == MAX_PROBLEMS + 1
    assert "And 30 more" in problems[-1].what


@pytest.mark.parametrize("unit", [b"\t", b"\n", b"_", b"a\t\r"])
def test_odd_sheets_are_refused_at_a_cost_that_grows_with_their_size(unit: bytes) -> None:
    def work(size_bytes: int) -> None:
        problems = refused(unit * (size_bytes // len(unit)))
        assert all(len(str(problem)) < 600 for problem in problems)

    assert_linear(work, MAX_SHEET_BYTES // 16, MAX_SHEET_BYTES)


def test_a_relocated_sheet_differs_in_its_input_paths_only() -> None:
    local = {f"{READS}.R1.fastq.gz": "/fsx/1.gz", f"{READS}.R2.fastq.gz": "/fsx/2.gz"}
    concordance = "s3://lab/concordance/"
    before = text(row(PATH_TO_CONCORDANCE_DATA_DIR=concordance), row(LANE="1", R2_FQ="na"))
    after = text(
        row(PATH_TO_CONCORDANCE_DATA_DIR=concordance, R1_FQ="/fsx/1.gz", R2_FQ="/fsx/2.gz"),
        row(LANE="1", R1_FQ="/fsx/1.gz", R2_FQ="na"),
    )
    assert relocated(before.encode(), local.__getitem__) == after


@pytest.mark.reported("D", "a space after the name of the sample column (bactopia#276)")
def test_a_relocated_sheet_is_clean_for_readers_that_are_less_patient() -> None:
    messy = b"\xef\xbb\xbf# c\r\n SAMPLE_ID\tR1_FQ \r\n\r\na\t f.gz\r\n"
    assert relocated(messy, lambda path: "/fsx/" + path) == "SAMPLE_ID\tR1_FQ\na\t/fsx/f.gz\n"


def test_relocating_what_is_no_text_raises_what_it_declares() -> None:
    with pytest.raises(BadDocument):
        relocated(b"\xff", str)
    assert relocated(b"", str) == ""


def test_samples_of_a_recipe_stand_in_for_a_sheet() -> None:
    samples = (
        Sample(sample_id="a", fastq_r1="1.gz", fastq_r2="2.gz", line=3),
        Sample(sample_id="b", fastq_r1="3.gz", line=6),
    )
    sheet = sheet_from_samples(samples)
    assert sheet.file == "daylily_work.yaml"
    assert [(one.sample_id, one.line) for one in sheet.rows] == [("a", 3), ("b", 6)]
    assert [file.where for one in sheet.rows for file in one.files] == [
        "line 3, key samples[0].fastq_r1",
        "line 3, key samples[0].fastq_r2",
        "line 6, key samples[1].fastq_r1",
    ]
    written = text_from_samples(samples)
    read = accepted(written)
    assert [[file.path for file in one.files] for one in read.rows] == [["1.gz", "2.gz"], ["3.gz"]]
    assert "/fsx/3.gz" in relocated(written.encode(), lambda path: "/fsx/" + path)


def test_a_path_is_in_s3_on_this_host_or_in_the_workset() -> None:
    assert place_of("s3://lab/a/b", "own", "p/ws/") == S3Place("lab", "a/b")
    assert place_of("/fsx/a", "own", "p/ws/") == LocalPlace("/fsx/a")
    assert place_of("sample_data/a", "own", "p/ws/") == S3Place("own", "p/ws/sample_data/a")
    assert place_of("./a", "own", "p/ws/") == S3Place("own", "p/ws/a")
    assert str(S3Place("lab", "a/b")) == "s3://lab/a/b"


@pytest.mark.parametrize(
    "uri", ["s3://a/b", "s3://Lab/a", "s3://lab/", "s3:/lab/a", "s3://a..b/c", "lab/a"]
)
def test_what_is_no_s3_address_is_not_taken_for_one(uri: str) -> None:
    assert split_s3(uri) is None


def test_spaces_and_odd_but_legal_characters_may_be_in_a_path() -> None:
    for path in ("s3://lab/a b+c%20=@,é.fastq.gz", "/fsx/a:b", "C__x.fq", "a..b/c"):
        assert path_fault(path) is None


CELLS = st.sampled_from(
    ["SAMPLE_ID", "R1_FQ", "R2_FQ", "LANE", "a", "s3://lab/x", "", "na", "#", "<x>"]
)
TABLES = st.lists(st.lists(CELLS, max_size=4).map("\t".join), max_size=6)
SHEETS = st.builds(
    lambda lines, end: end.join(lines), TABLES, st.sampled_from(["\n", "\r\n", "\r"])
)


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.binary(max_size=300), SHEETS.map(str.encode)))
@example(b"SAMPLE_ID\tR1_FQ\na\tb\x0b\n")
@example("SAMPLE_ID\tR1_FQ\u2028\na\tb\n".encode())
def test_any_bytes_are_a_sheet_or_a_list_of_problems(data: bytes) -> None:
    result = read_sheet(data)
    if isinstance(result, Sheet):
        assert result.rows
        assert all(one.files and one.sample_id for one in result.rows)
        assert relocated(data, str).count("\n") == len(result.rows) + 1
        return
    assert result
    for problem in result:
        assert problem.file == "stage_samples.tsv"
        assert re.match(r"line \d+", problem.where)


@settings(max_examples=200, deadline=None)
@given(SHEETS)
def test_relocating_to_the_same_paths_changes_nothing_that_is_read(data: str) -> None:
    before = read_sheet(data.encode())
    after = read_sheet(relocated(data.encode(), str).encode())
    if isinstance(before, Sheet):
        assert isinstance(after, Sheet)
        assert [[f.path for f in one.files] for one in before.rows] == [
            [f.path for f in one.files] for one in after.rows
        ]
