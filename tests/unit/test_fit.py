"""What a recipe or sheet asks for is obeyed by its pipeline, or refused by the pipeline's own list."""

from __future__ import annotations

from pathlib import Path

import pytest

from daylily_daemon.adapters.pipelines import BadPipelines, load_pipelines
from daylily_daemon.domain.fit import genome_of, unmet
from daylily_daemon.domain.model import Category, Problem, WorksetId
from daylily_daemon.domain.pipeline import Pipeline, StepTemplate
from daylily_daemon.domain.recipe import Recipe, read_recipe
from daylily_daemon.domain.sheet import Sheet, read_sheet, sheet_from_samples, text_from_samples
from daylily_daemon.settings.sources import shipped

RUN = StepTemplate(step="run", argv=("tool", "{run_args}"))
TOLD = StepTemplate(step="run", argv=("tool", "--genome={reference_genome}"))


def pipeline(*genomes: str, step: StepTemplate = RUN, **obeys: tuple[float, float]) -> Pipeline:
    return Pipeline(name="trial", steps=(step,), reference_genomes=genomes, obeys=obeys)


def recipe(text: str) -> Recipe:
    found = read_recipe(f"dy-r: help\n{text}\n".encode(), WorksetId("w"))
    assert isinstance(found, Recipe), found
    return found


def sheet(column: str = "NOTES", *cells: str) -> Sheet:
    rows = "".join(f"S{i}\ta{i}.fq\t{cell}\n" for i, cell in enumerate(cells or ("x",)))
    found = read_sheet(f"SAMPLE_ID\tR1_FQ\t{column}\n{rows}".encode())
    assert isinstance(found, Sheet), found
    return found


def asked(genome: str, of: Pipeline) -> tuple[Problem, ...]:
    return unmet(of, recipe(f"reference_genome: {genome}"), sheet())


@pytest.mark.parametrize(
    ("asks", "runs", "called"),
    [
        ("hg38", ("hg38",), "hg38"),
        ("HG38", ("hg38",), "hg38"),
        ("GRCh38", ("hg38",), "hg38"),
        ("hg38", ("GRCh38",), "GRCh38"),
        ("grch38", ("GRCh38", "hg38"), "GRCh38"),
        ("hg38_broad", ("hg38", "hg38_broad"), "hg38_broad"),
        ("b37", ("b37",), "b37"),
        ("T2T-CHM13v2.0", ("t2t-chm13v2.0",), "t2t-chm13v2.0"),
        ("", ("hg38",), ""),
        ("hg19", ("hg38",), None),
        ("GRCh37", ("hg19", "b37"), None),
        ("hg38_broad", ("hg38",), None),
        ("hg3", ("hg38",), None),
        ("hg38", (), None),
        ("", (), ""),
    ],
)
def test_a_genome_is_one_of_those_the_pipeline_lists_in_its_own_spelling(
    asks: str, runs: tuple[str, ...], called: str | None
) -> None:
    assert (
        genome_of(pipeline(*runs), recipe(f"reference_genome: '{asks}'").reference_genome) == called
    )


def test_a_pipeline_that_is_told_the_genome_may_leave_the_list_out() -> None:
    assert genome_of(pipeline(step=TOLD), "anything") == "anything"
    assert asked("anything", pipeline(step=TOLD)) == ()
    assert genome_of(pipeline("hg38", step=TOLD), "b37") is None


@pytest.mark.reported("D", "the reference genome asked for is ignored (oncokb-annotator#186)")
def test_a_genome_that_is_not_run_is_refused_with_the_pipelines_own_list() -> None:
    (problem,) = asked("hg19", pipeline("hg38", "b37"))
    assert problem.where == "line 2, key reference_genome"
    assert problem.category is Category.CONFIGURATION
    assert "The pipeline trial does not run 'hg19'." in problem.what
    assert "Use one of hg38, b37" in problem.todo
    (problem,) = asked("hg19", pipeline())
    assert "its file names no reference genomes" in problem.what


@pytest.mark.parametrize(
    ("value", "fine"), [("0.5", True), ("1", True), ("50", False), ("na", True), ("100", True)]
)
def test_a_share_of_the_reads_is_within_what_the_pipeline_takes(value: str, fine: bool) -> None:
    problems = unmet(pipeline(SUBSAMPLE_PCT=(0, 1)), recipe(""), sheet("SUBSAMPLE_PCT", value))
    assert (problems == ()) is fine
    if problems:
        assert problems[0].where == "line 2, column SUBSAMPLE_PCT"
        assert "takes SUBSAMPLE_PCT from 0 to 1, not 50" in problems[0].what


def test_what_a_pipeline_does_not_obey_is_refused_where_it_stands() -> None:
    cells = ("na", "0.25", "1", "0.5")
    problems = unmet(pipeline(), recipe(""), sheet("ONT_SUBSAMPLE_PCT", *cells))
    assert [problem.where for problem in problems] == [
        "line 3, column ONT_SUBSAMPLE_PCT",
        "line 5, column ONT_SUBSAMPLE_PCT",
    ]
    assert "does not obey ONT_SUBSAMPLE_PCT, so 0.25 would change nothing" in problems[0].what


def test_at_most_fifty_one_wishes_are_told() -> None:
    assert len(unmet(pipeline(), recipe(""), sheet("SUBSAMPLE_PCT", *["0.5"] * 200))) == 51


SAMPLES = "samples:\n- {sample_id: S1, fastq_r1: a.fq, coverage: 30.5}\n- {sample_id: S2, fastq_r1: b.fq}\n"


def test_the_coverage_of_a_sample_is_obeyed_or_refused() -> None:
    asks = recipe(SAMPLES)
    named = sheet_from_samples(asks.samples)
    assert unmet(pipeline(COVERAGE=(1, 100)), asks, named) == ()
    assert len(unmet(pipeline(COVERAGE=(31, 100)), asks, named)) == 1
    (problem,) = unmet(pipeline(), asks, named)
    assert problem.where == "line 3, key samples[0].coverage"
    staged = read_sheet(text_from_samples(asks.samples).encode())
    assert isinstance(staged, Sheet)
    assert [[wish.value for wish in row.wishes] for row in staged.rows] == [[30.5], []]


def test_the_shipped_pipelines_say_what_they_run() -> None:
    known = load_pipelines(shipped("pipelines"))
    omics, demo = known["daylily-omics"], known["demo"]
    assert [bool(asked(genome, omics)) for genome in ("hg38", "GRCh38", "hg19", "b37")] == [
        *(False, False, True, True),
    ]
    assert asked("hg19", demo) == ()
    assert unmet(omics, recipe(""), sheet("SUBSAMPLE_PCT", "0.1")) == ()
    assert len(unmet(demo, recipe(""), sheet("SUBSAMPLE_PCT", "0.1"))) == 1


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("reference_genomes: hg38", "list"),
        ("reference_genomes: [hg 38]", "pattern"),
        ("obeys: {SUBSAMPLE: [0, 1]}", "is no number that a sheet or recipe asks for"),
        ("obeys: {SUBSAMPLE_PCT: [1, 0]}", "[least, most]"),
        ("obeys: {SUBSAMPLE_PCT: [0]}", "at least 2 items"),
        ("obeys: {SUBSAMPLE_PCT: 1}", "list"),
        ("reference_genome: [hg38]", "Did you mean `reference_genomes`?"),
    ],
)
def test_a_bad_list_in_a_pipeline_file_is_told(tmp_path: Path, line: str, words: str) -> None:
    (tmp_path / "trial.yaml").write_text(f"{line}\nsteps:\n  - step: run\n    argv: [a]\n")
    with pytest.raises(BadPipelines) as refused:
        load_pipelines(tmp_path)
    assert words in str(refused.value)


def test_a_pipeline_file_says_what_it_runs_and_obeys(tmp_path: Path) -> None:
    text = "reference_genomes: [hg38_broad, b37]\nobeys: {SUBSAMPLE_PCT: [0, 1], COVERAGE: [1, 60.5]}\n"
    (tmp_path / "trial.yaml").write_text(text + "steps:\n  - step: run\n    argv: [a]\n")
    found = load_pipelines(tmp_path)["trial"]
    assert found.reference_genomes == ("hg38_broad", "b37")
    assert found.obeys == {"SUBSAMPLE_PCT": (0, 1), "COVERAGE": (1, 60.5)}
