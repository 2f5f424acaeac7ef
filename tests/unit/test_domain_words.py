"""Sentences that hold a number, a name or a choice: each with the right one in it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from daylily_daemon.domain import notice
from daylily_daemon.domain.events import Inspected, JobExited
from daylily_daemon.domain.fit import unmet
from daylily_daemon.domain.lifecycle import decide
from daylily_daemon.domain.listing import Position, Query, fits
from daylily_daemon.domain.model import (
    Accepted,
    Ended,
    Outcome,
    Plan,
    RecordType,
    State,
    WorksetId,
)
from daylily_daemon.domain.pipeline import Pipeline, StepTemplate
from daylily_daemon.domain.recipe import Recipe, read_recipe
from daylily_daemon.domain.sheet import Row, Sheet, Wish
from daylily_daemon.domain.workflow_log import FailedRule, WorkflowLog
from tests.made import NOW, a_run, a_workset, running
from tests.records import a_record
from tests.unit.engine_settings import a_policy

PIPE = Pipeline(name="demo", steps=(StepTemplate(step="run", argv=("run",)),))


def test_what_a_pipeline_does_not_obey_is_told_with_its_place_and_what_it_takes() -> None:
    recipe = Recipe(workdir_name="", reference_genome="hg19", where={"reference_genome": "line 3"})
    wish = Wish(name="COVERAGE", value=90.0, where="line 2, column COVERAGE")
    sheet = Sheet(file="s.tsv", rows=(Row(line=2, sample_id="S1", files=(), wishes=(wish,)),))
    assert [str(problem) for problem in unmet(PIPE, recipe, sheet)] == [
        "daylily_work.yaml, line 3: The pipeline demo does not run 'hg19', as its file names no reference "
        "genomes. Leave the key out, or let an operator add `reference_genomes` to the pipeline's file.",
        "s.tsv, line 2, column COVERAGE: The pipeline demo does not obey COVERAGE, so 90 would change "
        "nothing. Leave it empty or write `na`, or choose a pipeline that does.",
    ]
    strict = replace(PIPE, reference_genomes=("hg38", "b37"), obeys={"COVERAGE": (1.0, 80.0)})
    assert [str(problem) for problem in unmet(strict, recipe, sheet)] == [
        "daylily_work.yaml, line 3: The pipeline demo does not run 'hg19'. Use one of hg38, b37, or another "
        "pipeline.",
        "s.tsv, line 2, column COVERAGE: The pipeline demo takes COVERAGE from 1 to 80, not 90. "
        "Correct the number, or leave it out.",
    ]
    for value in (1.0, 80.0):
        fine = replace(sheet, rows=(replace(sheet.rows[0], wishes=(replace(wish, value=value),)),))
        assert unmet(strict, replace(recipe, reference_genome="b37"), fine) == ()


@pytest.mark.parametrize(
    ("warnings", "told"),
    [((), "s3://r/"), (("one",), "But: one"), (("one", "two"), "But: one (1 more)")],
)
def test_the_end_is_told_with_the_first_warning_and_how_many_more(
    warnings: tuple[str, ...], told: str
) -> None:
    plan = Plan(pipeline="demo", steps=("run",), export_uri="s3://r/")
    checked = decide(
        a_workset(), Inspected(Accepted(plan, warnings=warnings)), a_policy(), NOW
    ).workset
    ws = replace(running(owner="a"), warnings=checked.warnings, plan=plan)
    ws = replace(ws, run=a_run("run", steps=("run",)))
    assert ws.job is not None
    done = decide(ws, JobExited(ws.job, Outcome(ended=Ended.EXITED, code=0)), a_policy(), NOW)
    assert done.records[-1].message.endswith(told)


def test_a_position_has_a_key_whoever_asks() -> None:
    one = Query(states=(State.READY,), customer="c")
    assert not fits(one, Position(0, "", "w1"))
    assert fits(one, Position(0, "9#", "w1"))


def test_what_ascii_lacks_is_one_question_mark_in_a_subject() -> None:
    record = a_record(workset_id=WorksetId("wä1"), type=RecordType.ERROR)
    assert notice.subject(record) == "Daylily Workset Error: w?1"


@pytest.mark.parametrize("state", State)
def test_what_to_do_next_names_the_workset_and_a_command_that_there_is(state: State) -> None:
    record = a_record(state=state, type=RecordType.STATE_CHANGE)
    said = notice.next_step(record)
    assert "None" not in said
    assert state is State.ARCHIVED or f"HG002-run7{'`'}" in said or "HG002-run7" in said


def test_a_sample_of_a_recipe_names_fastq_files() -> None:
    found = read_recipe(
        b"pipeline: demo\nsamples: [{sample_id: S1, fastq_r1: a.bam, fastq_r2: b.cram}]\n",
        WorksetId("w1"),
    )
    assert isinstance(found, tuple)
    assert [p.where for p in found] == [
        "line 2, key samples[0].fastq_r1",
        "line 2, key samples[0].fastq_r2",
    ]


@pytest.mark.parametrize(
    ("failed", "told"),
    [
        (0, ""),
        (1, "rule r0 failed"),
        (2, "rule r0 failed; so did r1"),
        (5, "rule r0 failed; so did r1, r2, r3, r4"),
        (7, "rule r0 failed; so did r1, r2, r3, r4 and at least 2 more"),
    ],
)
def test_of_failed_rules_five_are_named_and_the_rest_is_counted(failed: int, told: str) -> None:
    rules = tuple(FailedRule(rule=f"r{n}", logs=(f"l{n}", f"m{n}")) for n in range(failed))
    log = WorkflowLog(output="", failed=rules)
    assert log.told() == told
    assert log.where() == ("See l0 and m0." if failed else "")
    coded = replace(log, failed=(FailedRule(rule="r", exit_code=0),))
    assert coded.told() == "rule r failed with exit code 0"
    assert replace(log, failed=(FailedRule(rule="r", signal="SIGKILL", exit_code=9),)).told() == (
        "rule r failed, ended by SIGKILL"
    )
