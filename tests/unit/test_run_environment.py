"""What a job learns of its run by its environment, and what of its rendering somebody else has a say in."""

from __future__ import annotations

from dataclasses import replace

import pytest

from daylily_daemon.domain.errors import Permanent
from daylily_daemon.domain.model import Plan
from daylily_daemon.domain.pipeline import Pipeline, StepTemplate
from daylily_daemon.domain.tracing import traceparent
from daylily_daemon.domain.workset import Workset
from daylily_daemon.engine.live_settings import LiveSettings
from daylily_daemon.engine.looks import Looks
from daylily_daemon.engine.shepherd import Shepherd, run_environment, values_of
from tests.made import asked, at_run, running
from tests.unit.engine_settings import some_engine_settings

PLAN = Plan(pipeline="demo", steps=("stage", "run"), pin="1.a.b.c.1.2")
WORKSET = replace(
    asked(running("HG002", "stage", folder="/fsx/data/worksets/HG002/r1"), bucket="lab"), plan=PLAN
)
ALWAYS = {
    "DAYLILY_RUN_DIR": "/fsx/data/worksets/HG002/r1",
    "DAYLILY_INPUT_URI": "s3://lab/p/HG002/",
    "TRACEPARENT": traceparent(WORKSET),
}


def test_our_own_steps_learn_whose_run_it_is_where_and_what_was_checked() -> None:
    assert run_environment(WORKSET) == {**ALWAYS, "DAYLILY_PIN": "1.a.b.c.1.2"}


def test_a_plan_of_a_time_before_pins_says_nothing_of_them() -> None:
    assert run_environment(replace(WORKSET, plan=replace(PLAN, pin=""))) == ALWAYS


STEP = StepTemplate(
    step="stage",
    argv=("stage", "{input_uri}", "{customer}", "{bucket}/{prefix}", "{attempt}", "{run_id}"),
    environment={"WHO": "step", "STEP": "{workset}", "DAYLILY_RUN_DIR": "as the step says"},
    grace_s=7.0,
)
DEMO = Pipeline(name="demo", steps=(STEP, StepTemplate(step="run", argv=("run",), fatal=False)))


def a_shepherd(grace_s: float | None = None) -> Shepherd:
    environment = {"WHO": "settings", "ALL": "1", "DAYLILY_INPUT_URI": "as the settings say"}
    engine_settings = some_engine_settings(
        pipelines={"demo": DEMO}, environment=environment, grace_s=grace_s
    )
    live = LiveSettings(engine_settings)
    return Shepherd(runners={}, live=live, looks=Looks(live))


def test_a_step_has_the_last_word_on_its_environment_and_the_settings_the_first() -> None:
    job, trouble = a_shepherd().run_job(WORKSET)
    assert trouble == ""
    assert job.environment == {
        "ALL": "1",
        "WHO": "step",
        "STEP": "HG002",
        "DAYLILY_RUN_DIR": "as the step says",
        "DAYLILY_INPUT_URI": "s3://lab/p/HG002/",
        "DAYLILY_PIN": "1.a.b.c.1.2",
        "TRACEPARENT": traceparent(WORKSET),
    }


@pytest.mark.parametrize(("set_to", "grace_s"), [(None, 7.0), (0.0, 0.0), (3.0, 3.0)])
def test_a_grace_period_that_is_set_holds_for_every_step_0_too(
    set_to: float | None, grace_s: float
) -> None:
    job, _ = a_shepherd(set_to).run_job(WORKSET)
    assert job.grace_s == grace_s


def test_a_job_is_rendered_with_what_is_known_of_its_run() -> None:
    job, _ = a_shepherd().run_job(asked(WORKSET, customer_id="clinic"))
    assert job.argv == ("stage", "s3://lab/p/HG002/", "clinic", "lab/p/HG002/", "1", "r1")
    assert (job.name, job.step, job.directory) == ("HG002.1.stage", "stage", "/j/HG002/r1/1-stage")
    assert (job.scope, job.run_dir) == ("host:1", "/fsx/data/worksets/HG002/r1")
    assert not job.confirmed
    seen, _ = a_shepherd().run_job(at_run(WORKSET, confirmed="HG002.1.stage"))
    assert seen.confirmed


def test_every_placeholder_has_its_value() -> None:
    plan = replace(PLAN, run_args=("a b",), clone_args=("-t", "x"), workdir_name="w", cluster_name="east",
                   export_uri="s3://out/", reference_genome="hg38")  # fmt: skip
    assert values_of(replace(WORKSET, plan=plan), {"tools": "/opt", "attempt": "no"}) == {
        "tools": "/opt",
        "workset": "HG002",
        "customer": "unassigned",
        "bucket": "lab",
        "prefix": "p/HG002/",
        "input_uri": "s3://lab/p/HG002/",
        "export_uri": "s3://out/",
        "stage_dir": "/fsx/data/worksets/HG002/r1/stage",
        "work_dir": "/fsx/data/worksets/HG002/r1/work",
        "results_dir": "/fsx/data/worksets/HG002/r1/work/results",
        "jobs_dir": "/j/HG002/r1",
        "run_args": ("a b",),
        "clone_args": ("-t", "x"),
        "workdir_name": "w",
        "cluster_name": "east",
        "reference_genome": "hg38",
        "run_id": "r1",
        "attempt": "1",
    }


def test_a_job_whose_pipeline_is_gone_keeps_its_name_and_says_what_to_restore() -> None:
    gone = replace(WORKSET, plan=replace(PLAN, pipeline="other"))
    job, trouble = a_shepherd().run_job(gone)
    assert (job.name, job.argv) == ("HG002.1.stage", ())
    assert "Pipeline 'other' has no step stage any more" in trouble
    assert a_shepherd().is_fatal(gone)


def test_a_failure_ends_the_run_unless_plan_or_pipeline_says_otherwise() -> None:
    shepherd = a_shepherd()
    assert shepherd.is_fatal(WORKSET)
    assert not shepherd.is_fatal(replace(running("HG002", "run"), plan=PLAN)), (
        "the pipeline of today"
    )
    planned = tuple(replace(step, fatal=False) for step in WORKSET.run.steps) if WORKSET.run else ()
    assert not shepherd.is_fatal(at_run(WORKSET, steps=planned)), "as it was planned"


@pytest.mark.parametrize("nothing", [replace(WORKSET, run=None), at_run(WORKSET, steps=())])
def test_without_a_step_there_is_no_job(nothing: Workset) -> None:
    with pytest.raises(Permanent, match="no job to stop"):
        a_shepherd().stop_job(nothing)


def test_without_a_run_and_a_plan_a_step_learns_of_its_input_alone() -> None:
    bare = replace(WORKSET, run=None, plan=None)
    assert run_environment(bare) == {"DAYLILY_INPUT_URI": "s3://lab/p/HG002/"}
