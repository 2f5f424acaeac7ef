"""Paths that nobody could find are refused at once, with the sentence that helps."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daylily_daemon.domain.paths import NONE, is_none, name_fault, path_fault, place_of
from daylily_daemon.domain.sheet import Sheet, input_fault, read_sheet


@pytest.mark.parametrize(
    ("path", "words", "todo"),
    [
        ("~/a.fq", "begins with ~", "whole path"),
        ("~lab/a.fq", "begins with ~", "whole path"),
        ("$HOME/a.fq", "holds $HOME", "value itself"),
        ("/fsx/${RUN}/a.fq", "holds ${RUN}", "value itself"),
        ("%USERPROFILE%/a.fq", "holds %USERPROFILE%", "value itself"),
        ("*.fastq.gz", "pattern", "cell of its own"),
        ("a_R?.fq", "pattern", "cell of its own"),
        ("a_L00[1-4].fq", "pattern", "cell of its own"),
        ("a_R{1,2}.fq", "pattern", "cell of its own"),
        ("C:\\data\\a.fq", "Windows", "Upload"),
        ("D:/data/a.fq", "Windows", "Upload"),
        ("\\\\nas\\lab\\a.fq", "Windows", "Upload"),
        ("data\\a.fq", "Windows", "between folders"),
        ("s3:b1b/k.fq", "s3://bucket/key", "Did you mean s3://b1b/k.fq?"),
        ("s3:/b1b/k.fq", "s3://bucket/key", "Did you mean s3://b1b/k.fq?"),
        ("s3//b1b/k.fq", "s3://bucket/key", "Did you mean s3://b1b/k.fq?"),
        ("s3:///b1b/k.fq", "s3://bucket/key", "Did you mean s3://b1b/k.fq?"),
        ("S3://b1b/k.fq", "s3://bucket/key", "Did you mean s3://b1b/k.fq?"),
        ("s3a://b1b/k.fq", "s3://bucket/key", "Did you mean s3://b1b/k.fq?"),
        ("s3 ://b1b/k.fq", "s3://bucket/key", "Did you mean s3://b1b/k.fq?"),
        ("s3://b1b", "s3://bucket/key", "and a key"),
        ("s3://Lab_Reads/k.fq", "s3://bucket/key", "small letters"),
        ("arn:aws:s3:::b1b/k.fq", "s3://bucket/key", "S3 address"),
        ("https://b1b.s3.amazonaws.com/k.fq?X-Amz-Signature=1", "s3://bucket/key", "S3 address"),
        ("ftp://lab/k.fq", "s3://bucket/key", "S3 address"),
        ("gs://b1b/k.fq", "s3://bucket/key", "S3 address"),
        ("file:///data/k.fq", "s3://bucket/key", "absolute path alone"),
        ("file:/data/k.fq", "s3://bucket/key", "absolute path alone"),
        ("s3://<bucket>/a.fq", "angle brackets", "real bucket"),
        ("{sample}_R1.fq", "curly brackets", "real bucket"),
        ("s3://b1b/#REF!/a.fq", "#REF!", "Fix"),
        ("'a.fq'", "quote", "Remove the quotes"),
        ('"a.fq', "quote", "Remove the quotes"),
        ("\u201ca.fq\u201d", "U+201C", 'Type "'),
        ("a\u2013b.fq", "U+2013", "Type -"),
        ("a\u2212b.fq", "U+2212, minus sign", "Type -"),
        ("a\u00a0b.fq", "U+00A0", "Remove"),
        ("a\u202eb.fq", "U+202E", "Remove"),
        ("../a.fq", "upwards", "whole path"),
        ("TBD", "is no path", "`na`"),
        ("./", "no file and no folder of its own", "folder below"),
        ("/", "no file and no folder of its own", "folder below"),
        ("?", "is no path", "`na`"),
        ("<NA>", "angle", "Put"),
        ("a_R1.fq.gz,b_R1.fq.gz", "several files", "row of its own"),
        ("a_R1.fq.gz; b_R1.fq.gz", "several files", "row of its own"),
        ("a.bam|b.bam", "several files", "row of its own"),
        ("a_R1.fastq.gz b_R1.fastq.gz", "several files", "row of its own"),
    ],
)
def test_what_is_no_path_is_told_at_first_sight(path: str, words: str, todo: str) -> None:
    fault = path_fault(path)
    assert fault is not None
    assert words in fault[0]
    assert todo in fault[1]


@pytest.mark.parametrize(
    "path",
    [
        *("s3://lab/a b+c%20=@,é.fastq.gz", "/fsx/a:b", "C__x.fq", "a..b/c", "./a.fq", "a/~b.fq"),
        *("s3/a.fq", "s3://lab/a//b.fq", "s3://lab/a%2Fb%C3%A9%20c.fq", "a [2].fq", "a(1).fq"),
        *("a#1.fq", "a&b.fq", "5$.fq", "s3://lab/x!y'z.fq", "ftp_data/a.fq", "unknown/a.fq", "0"),
        *("Müller/プレート.fq", "a_R1.fq.gz.part", ".hidden/a.fq", "s3data/a.fq", "a.fq.gz_b.fq"),
    ],
)
def test_odd_but_legal_paths_are_looked_up(path: str) -> None:
    assert path_fault(path) is None


@pytest.mark.reported("D", "NaN in the place of a file (metagenome-atlas#695)")
@pytest.mark.parametrize("none", sorted(NONE))
def test_every_way_to_say_that_there_is_no_second_file_is_understood(none: str) -> None:
    for written in (none, none.upper(), none.capitalize()):
        assert is_none(written)
        sheet = read_sheet(f"SAMPLE_ID\tR1_FQ\tR2_FQ\nS1\ta.fq\t{written}\n".encode())
        assert isinstance(sheet, Sheet)
        assert [file.column for file in sheet.rows[0].files] == ["R1_FQ"]


@pytest.mark.parametrize(
    ("name", "form", "words"),
    [
        ("a.fastq.bz2", "FQ", "packed with bzip2"),
        ("a.FQ.BZ2", "FQ", "packed with bzip2"),
        ("a.fastq.xz", "FASTQ", "packed with xz"),
        ("a.fastq.ora", "FQ", "packed with DRAGEN ORA"),
        ("a.zip", "FQ", "packed with zip"),
        ("a.fastq.zst", "FQ", "packed with Zstandard"),
        ("a.tar.gz", "FQ", "packed with tar"),
        ("a.tgz", "FQ", "packed with tar"),
        ("a.7z", "FQ", "packed with 7-Zip"),
        ("a.sra", "FQ", "packed with SRA"),
        ("a.bam", "FQ", "no FASTQ file"),
        ("a.pod5", "FASTQ", "no FASTQ file"),
        ("a.cram.gz", "FQ", "no FASTQ file"),
        ("a.fastq.gz.md5", "FQ", "no FASTQ file"),
        ("a_fastqc.html", "FQ", "no FASTQ file"),
        ("a.cram.crai", "CRAM", "no file of reads"),
        ("a.fastq.gz", "CRAM", "no CRAM file"),
        ("a.fq", "BAM", "no BAM file"),
        ("a.bam.zip", "BAM", "no BAM file"),
    ],
)
def test_a_file_of_another_format_is_known_by_its_name(name: str, form: str, words: str) -> None:
    fault = name_fault(f"s3://lab/run.bam.d/{name}", form)
    assert fault is not None
    assert words in fault[0]


@pytest.mark.parametrize(
    ("name", "form"),
    [
        *(
            ("a.fastq.gz", "FQ"),
            ("a.FASTQ", "FQ"),
            ("a.fq.gz", "FASTQ"),
            ("a", "FQ"),
            ("a.gz", "FQ"),
        ),
        *(("s_1_sequence.txt", "FQ"), ("bam.fastq.gz", "FQ"), ("tar.fq", "FQ"), ("xz_R1.fq", "FQ")),
        *(
            ("a.bam", "UBAM"),
            ("a.bam", "CRAM"),
            ("a.cram", "BAM"),
            ("a.pod5", "POD5"),
            ("x", "CRAM"),
        ),
        *(("HG002.v1.2.R1.fastq.gz", "FQ"), ("a.zip_R1.fastq.gz", "FQ")),
    ],
)
def test_names_that_say_nothing_else_are_let_through(name: str, form: str) -> None:
    assert name_fault(f"s3://lab/a/{name}", form) is None


def test_a_folder_is_not_judged_by_the_end_of_its_name() -> None:
    assert input_fault("ONT_FQ", "s3://lab/run.bam/") is None
    assert input_fault("ONT_FASTQ_PREFIX", "s3://lab/run.zip") is None
    assert input_fault("R1_FQ", "a.bam") is not None


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=40))
def test_any_path_is_looked_up_or_refused_with_two_sentences(path: str) -> None:
    fault = path_fault(path)
    if fault is None:
        assert str(place_of(path, "own", "ws/"))
        return
    what, todo = fault
    assert what.endswith(".")
    assert todo.endswith((".", "?"))
    assert what.isprintable()
