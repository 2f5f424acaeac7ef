"""Paths that a recipe or sheet holds besides its inputs: which are found, and what is said of them."""

from __future__ import annotations

from dataclasses import astuple

import pytest

from daylily_daemon.domain.mentions import (
    MAX_MENTIONS,
    Mention,
    judge_mentions,
    local_paths,
    mentions_in_recipe,
    mentions_in_sheet,
)
from daylily_daemon.domain.paths import S3Place
from daylily_daemon.domain.places import Territory
from daylily_daemon.domain.recipe import Recipe

LAND = Territory(
    control=S3Place("lab", "drops/"), own=S3Place("lab", "drops/me/"), closed=("/fsx/x",)
)
HEAD = b"SAMPLE_ID\tR1_FQ\tNOTES\tREF\n"


def test_arguments_that_may_hold_a_path_are_found_with_where_they_stand() -> None:
    recipe = Recipe(
        workdir_name="", run_args=("-p", "/a", "..", "%41", "b"), clone_args=("x/y", "z")
    )
    assert [astuple(one) for one in mentions_in_recipe(recipe)] == [
        ("daylily_work.yaml", "arguments of the run", "/a"),
        ("daylily_work.yaml", "arguments of the run", ".."),
        ("daylily_work.yaml", "arguments of the run", "%41"),
        ("daylily_work.yaml", "arguments of the clone", "x/y"),
    ]


def test_cells_that_name_no_input_are_found_each_text_once() -> None:
    data = HEAD + b"S1\t/in/a\tn/a\t/ref\nS2\t/in/b\tplain\t/ref\n"
    assert [astuple(one) for one in mentions_in_sheet(data)] == [
        ("stage_samples.tsv", "line 2, column NOTES", "n/a"),
        ("stage_samples.tsv", "line 2, column REF", "/ref"),
    ]


@pytest.mark.parametrize("data", [b"", b"\xff", b"S1,a\n", b"\n" * 9])
def test_what_is_no_sheet_mentions_nothing(data: bytes) -> None:
    assert mentions_in_sheet(data) == ()


def test_what_may_not_be_named_is_told_with_its_place() -> None:
    mentions = [
        Mention("f", "line 1", "/fsx/x/y"),
        Mention("f", "line 2", "a/../b"),
        Mention("g", "line 3", "/usr/x s3://lab/drops/you/"),
        Mention("g", "line 4", "/usr/x"),
    ]
    assert [str(problem) for problem in judge_mentions(mentions, LAND)] == [
        "f, line 1: /fsx/x/y reaches into /fsx/x, which is not open to worksets. Copy the file elsewhere, "
        "or upload it to S3 and give that address, then put daylily.ready again.",
        "f, line 2: 'a/../b' leads upwards by `..`. Write the whole path, then put daylily.ready again.",
        "g, line 3: s3://lab/drops/you/ reaches below s3://lab/drops/ outside this workset's own folder. "
        "Name a place in s3://lab/drops/me/ or outside of the worksets, then put daylily.ready again.",
    ]
    assert [path for _, path in local_paths(mentions)][:2] == ["/fsx/x/y", "/usr/x"]


def test_of_very_many_cells_the_first_are_judged_and_the_rest_is_refused_at_once() -> None:
    few = [Mention("f", "", f"/a{n}") for n in range(MAX_MENTIONS)]
    assert judge_mentions(few, LAND) == []
    (problem,) = judge_mentions([*few, Mention("f", "", "/fsx/x")], LAND)
    assert str(problem) == (
        "stage_samples.tsv: More than 20,000 cells besides the inputs hold a path. "
        "Leave out the columns that nothing reads."
    )
