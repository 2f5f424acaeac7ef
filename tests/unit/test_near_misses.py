"""No name that people take for one we know is passed over in silence, however it is written."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from daylily_daemon.domain.columns import COLUMNS, KNOWN, OTHER_COLUMNS, input_column, meant_column
from daylily_daemon.domain.lookalikes import fold, is_slip
from daylily_daemon.domain.model import WorksetId
from daylily_daemon.domain.recipe import SAMPLE_KEYS, read_recipe
from daylily_daemon.domain.sheet import Sheet, read_sheet

UNSEEN = st.sampled_from(
    ["\u00a0", "\u200b", "\u200d", "\u2060", "\ufeff", "\u00ad", "\u2003", "\u3000", "\u202e"]
)
SIGNS = st.sampled_from(["_", "-", " ", ".", "/", "__", "\u2013", "\u2010", "\u2212", "\uff3f", ""])
ALIKE = {
    **dict(
        zip(
            "ABCEHIKMOPSTXYJ",
            "\u0410\u0412\u0421\u0415\u041d\u0406\u041a\u041c\u041e\u0420\u0405\u0422\u0425\u04ae\u0408",
            strict=True,
        )
    ),
    **dict(zip("NZ01", "\u039d\u0396\u041el", strict=True)),
}
"""Letters of other alphabets that look the same."""
LETTERS = st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")


@st.composite
def disguises(draw: st.DrawFn, name: str) -> str:
    """Return a name that reads like ``name``: same letters, other case, alphabet, signs, unseen ones."""
    text = "".join(
        draw(st.sampled_from([char, char.lower(), ALIKE.get(char, char), chr(ord(char) + 0xFEE0)]))
        if char.isalnum()
        else draw(SIGNS)
        for char in name
    )
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(UNSEEN) + text[at:]
    return text


@st.composite
def slips(draw: st.DrawFn, name: str) -> str:
    """Return ``name`` with one letter more, less or another, or two exchanged."""
    at = draw(st.integers(0, len(name) - 1))
    before, char, after = name[:at], name[at], name[at + 1 :]
    return draw(
        st.sampled_from(
            [
                before + after,
                before + char + char + after,
                before + draw(LETTERS) + after,
                before + after[:1] + char + after[1:],
            ]
        )
    )


NAMES = st.sampled_from(sorted(KNOWN - {"SAMPLE_ID", "SAMPLEID"}))
NO_SLIP = {"N_X", "N_Y"}
"""Too short: a slip away from them are names of all sorts."""


def refusal(header: str, cell: str) -> str:
    data = f"SAMPLE_ID\tZZ_FQ\t{header}\nS1\ta.fq\t{cell}\n".encode()
    found = read_sheet(data)
    return "" if isinstance(found, Sheet) else str(found[0])


@settings(max_examples=500, deadline=None)
@given(NAMES.flatmap(lambda name: st.tuples(st.just(name), disguises(name))))
@example(("R2_FQ", "R2_FQ\u00a0"))
@example(("R2_FQ", "r2_fq"))
@example(("R2_FQ", "R2-FQ"))
@example(("R2_FQ", "R_2_FQ"))
@example(("LANE", "L\u0410NE"))
@example(("ONT_FASTQ_PREFIX", "ont fastq prefix"))
def test_a_column_that_reads_like_a_known_one_is_never_ignored(names: tuple[str, str]) -> None:
    name, written = names
    if written.strip(" ") == name:
        return
    told = refusal(written, "b.fq")
    assert f"looks like {name}," in told


@settings(max_examples=500, deadline=None)
@given(NAMES.flatmap(lambda name: st.tuples(st.just(name), slips(name))))
@example(("R2_FQ", "R2_F"))
@example(("R2_FQ", "R2_FG"))
@example(("R2_FQ", "R_FQ"))
@example(("LANE", "LNAE"))
def test_a_column_with_one_slip_is_refused_or_understood(names: tuple[str, str]) -> None:
    name, written = names
    if written in KNOWN or name in NO_SLIP:
        return
    understood = input_column(written) is not None and input_column(name) is not None
    assert (
        "looks like" in refusal(written, "b.fq")
        or understood
        or "has no name" in refusal(written, "")
    )


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("R2 FQ", "R2_FQ"),
        ("R2FQ", "R2_FQ"),
        ("R_FQ", "R1_FQ"),
        ("R22_FQ", "R2_FQ"),
        ("R2_FQ.", "R2_FQ"),
        ("EXPERIMENT_ID", "EXPERIMENTID"),
        ("RUNID", "RUN_ID"),
        ("Sub-Sample PCT", "SUBSAMPLE_PCT"),
        ("lab7_r2_fq", "LAB7_R2_FQ"),
        ("Lab7 fastq prefix", "LAB7_FASTQ_PREFIX"),
        ("\uff32\uff12\uff3f\uff26\uff31", "R2_FQ"),
    ],
)
def test_the_name_that_was_meant_is_told(written: str, name: str) -> None:
    assert meant_column(written, ["SAMPLE_ID", written]) == name


@pytest.mark.parametrize(
    "name",
    [
        *(
            "NOTES",
            "UG_CRAM_INDEX",
            "OPERATOR",
            "BARCODE",
            "R3_FQ",
            "I1_FQ",
            "LAB7_CRAM",
            "Gr\u00f6\u00dfe",
        ),
        *("SEX", "PLATE", "WELL", "KIT", "M_X", "DATE", "INSERT_SIZE", "SAMPLE_NAME", "RUN_DATE"),
    ],
)
def test_other_columns_are_welcome(name: str) -> None:
    assert meant_column(name, [*COLUMNS, name]) == ""


def test_known_columns_are_no_near_misses_of_each_other() -> None:
    assert [name for name in KNOWN if meant_column(name, [])] == []
    folded = [fold(name) for name in (*COLUMNS, *OTHER_COLUMNS) if name != "SAMPLEID"]
    assert len(folded) == len(set(folded))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("lane", "lane", True),
        ("lane", "lanes", True),
        ("lane", "lne", True),
        ("lane", "lnae", True),
        ("lane", "lame", True),
        ("lane", "alne", True),
        ("lane", "nale", False),
        ("lane", "name1", False),
        ("run", "ran", False),
        ("r2f", "r2fq", True),
        ("", "r2fq", False),
    ],
)
def test_a_slip_is_one_letter_or_two_exchanged(one: str, other: str, same: bool) -> None:
    assert is_slip(one, other) is same
    assert is_slip(other, one) is same


KEYS = ("samples", "pipeline", "reference_genome", "priority", "max_retries", "workdir_name")


def recipe_refusal(text: str) -> str:
    found = read_recipe(text.encode(), WorksetId("w"))
    return " ".join(str(problem) for problem in found) if isinstance(found, tuple) else ""


def quoted(key: str) -> str:
    return '"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"'


@pytest.mark.reported("D", "a misspelt key of a YAML file is ignored (SUEWS#1647)")
@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([*KEYS, "budget", "export_uri"]).flatmap(
        lambda key: st.tuples(st.just(key), disguises(key.upper()))
    )
)
@example(("priority", "Priority"))
@example(("export_uri", "exportURI"))
def test_a_key_that_reads_like_a_known_one_is_never_ignored(names: tuple[str, str]) -> None:
    key, written = names
    if written in {key, key.replace("_", "-")}:
        return
    assert f"looks like {key}," in recipe_refusal(f"dy-r: help\n{quoted(written)}: x\n").replace(
        "-", "_"
    )


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(SAMPLE_KEYS[2:]).flatmap(
        lambda key: st.tuples(st.just(key), disguises(key.upper()))
    )
)
@example(("fastq_r2", "fastq_R2"))
@example(("fastq_r2", "fastq-r2"))
def test_a_key_of_a_sample_that_reads_like_a_known_one_is_never_ignored(
    names: tuple[str, str],
) -> None:
    key, written = names
    if written == key:
        return
    text = f"pipeline: demo\nsamples: [{{sample_id: S1, fastq_r1: a.fq, {quoted(written)}: '3'}}]\n"
    told = recipe_refusal(text)
    assert f"looks like {key}," in told
    assert "key samples[0]." in told


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("genome: hg19", "reference_genome"),
        ("Reference: hg19", "reference_genome"),
        ("smaples: []", "samples"),
        ("prority: urgent", "priority"),
        ("max_retrie: 3", "max_retries"),
        ("max_retry: 3", "max_retries"),
        ("\u201cdy-r\u201d: x", "dy-r"),
        ("Cluster: a", "cluster_name"),
    ],
)
def test_other_words_and_slips_for_a_key_are_told(line: str, key: str) -> None:
    assert f"looks like {key}," in recipe_refusal(f"run: help\n{line}\n")


def test_keys_nobody_knows_are_left_alone() -> None:
    lines = ("note_to_self: x", "customer: y", "estimated_coverage: 30", "notes: \u201cx\u201d")
    assert recipe_refusal("\n".join(["dy-r: help", *lines])) == ""
    sample = "{sample_id: S1, fastq_r1: a.fq, sex: f, tissue: blood, md5: 0a}"
    assert recipe_refusal(f"pipeline: demo\nsamples: [{sample}]\n") == ""


@pytest.mark.parametrize(
    ("key", "name"),
    [
        *(
            ("r2", "fastq_r2"),
            ("R2_FQ", "fastq_r2"),
            ("read_2", "fastq_r2"),
            ("fastq2", "fastq_r2"),
        ),
        *(("depth", "coverage"), ("Coverage", "coverage")),
    ],
)
def test_other_words_for_a_key_of_a_sample_are_told(key: str, name: str) -> None:
    told = recipe_refusal(
        f"pipeline: demo\nsamples: [{{sample_id: S1, fastq_r1: a_R1, {key}: '30'}}]"
    )
    assert f"looks like {name}," in told
    full = f"pipeline: demo\nsamples: [{{sample_id: S1, fastq_r1: a, name: Anna, {name}: '30'}}]"
    assert recipe_refusal(full) == ""


@pytest.mark.parametrize("key", ["r2", "mate", "fq2", "read2", "FASTQ_2", "reverse"])
def test_reads_under_a_key_nobody_knows_are_not_left_out_in_silence(key: str) -> None:
    told = recipe_refusal(
        f"pipeline: demo\nsamples: [{{sample_id: S1, fastq_r1: a_R1.fq.gz, {key}: a_R2.fq.gz}}]"
    )
    assert f"key samples[0].{key}" in told
    assert "fastq_r2" in told


@pytest.mark.parametrize("column", ["READ2", "R2", "FASTQ_2", "Reverse", "R2_PATH", "MATE"])
def test_reads_in_a_column_nobody_knows_are_not_left_out_in_silence(column: str) -> None:
    told = refusal(column, "s3://lab/a_R2.fastq.gz")
    assert f"line 2, column {column}" in told
    assert "looks like input" in told
