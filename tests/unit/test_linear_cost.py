"""Reading input costs in proportion to its size: eight times as much costs nowhere near 64 times as much."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from daylily_daemon.domain.document import parse
from daylily_daemon.domain.model import WorksetId
from daylily_daemon.domain.paths import path_fault
from daylily_daemon.domain.places import mentioned
from daylily_daemon.domain.recipe import read_recipe
from daylily_daemon.domain.sheet import read_sheet, relocated
from tests.costs import assert_linear


def keys(count: int) -> object:
    document = parse("".join(f"k{i}: x\n" for i in range(count)).encode(), "x.yaml")
    return [document.line_of(f"k{i}") for i in range(count)]


def samples(count: int) -> object:
    lines = "".join(
        f"- {{sample_id: S{i}, fastq_r1: a{i}, fastq_r2: b{i}}}\n" for i in range(count)
    )
    return read_recipe(f"pipeline: demo\nsamples:\n{lines}".encode(), WorksetId("w"))


def bad_samples(count: int) -> object:
    lines = "".join(f"- {{sample_id: S {i}, fastq_r1: ~/a}}\n" for i in range(count))
    return read_recipe(f"samples:\n{lines}pipeline: demo\n".encode(), WorksetId("w"))


def unknown_keys(count: int) -> object:
    entry = ", ".join(f"k{i}: x" for i in range(count))
    return read_recipe(f"pipeline: demo\nsamples: [{{{entry}}}]\n".encode(), WorksetId("w"))


def rows(count: int) -> object:
    lines = "".join(f"S{i}\tr/{i}_R1.fq.gz\tr/{i}_R2.fq.gz\tx\n" for i in range(count))
    data = f"SAMPLE_ID\tR1_FQ\tR2_FQ\tNOTES\n{lines}".encode()
    return read_sheet(data), relocated(data, str)


def bad_rows(count: int) -> object:
    lines = "".join(f"S{i}\t~/a\t#REF!\t#\n" for i in range(count))
    return read_sheet(f"SAMPLE_ID\tR1_FQ\tR2_FQ\tNOTES\n{lines}".encode())


def columns(count: int) -> object:
    header = "\t".join(f"SAMPLE-{i}_TYPE" for i in range(count))
    return read_sheet(f"SAMPLE_ID\tR1_FQ\t{header}\nS1\ta\n".encode())


def too_many_columns(count: int) -> object:
    header = "\t".join(f"C{i}_FQ" for i in range(count))
    return read_sheet(f"SAMPLE_ID\t{header}\nS1\ta\n".encode())


def one_row_of_signs(count: int) -> object:
    return read_sheet(b"SAMPLE_ID\tR1_FQ\nS1\t" + b"#aa_" * count + b"\n")


def lines_of_comment(count: int) -> object:
    return read_sheet(b"#\tx\n" * count)


def paths_in_a_cell(count: int) -> object:
    return mentioned("/a,b /" * count)


def odd_path(count: int) -> object:
    return path_fault("s3://lab/" + "a[{$%b-" * count)


@pytest.mark.reported("F", "seconds that a busy machine does not keep (gsd-core#478, Moldavite#44)")
@pytest.mark.reported("B", "a mapping of many keys is read in quadratic time (libfyaml#394)")
@pytest.mark.parametrize(
    ("work", "small"),
    [
        (keys, 250),
        (samples, 300),
        (bad_samples, 300),
        (unknown_keys, 1_000),
        (rows, 1_000),
        (bad_rows, 1_000),
        (columns, 30),
        (too_many_columns, 15_000),
        (one_row_of_signs, 100_000),
        (lines_of_comment, 100_000),
        (paths_in_a_cell, 2_000),
        (odd_path, 15),
    ],
)
@pytest.mark.timeout(300)
def test_reading_costs_in_proportion_to_the_size(work: Callable[[int], object], small: int) -> None:
    assert_linear(work, small, 8 * small)


def odd_document(piece: str) -> Callable[[int], object]:
    def work(size: int) -> None:
        read_recipe(("a: " + piece * (size // len(piece)))[:size].encode(), WorksetId("w"))

    return work


@pytest.mark.parametrize(
    "piece",
    ["[", "- ", "x,", "? ", ": ", "&a ", "*a ", "!a ", "''", "x ", "\n x", "#\n", "{a: ", "%X\n"],
)
def test_odd_documents_cost_in_proportion_to_their_size(piece: str) -> None:
    assert_linear(odd_document(piece), 16_000, 128_000)
