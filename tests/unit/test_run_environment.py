"""What our own steps learn of a run by their environment, whatever a pipeline file says."""

from __future__ import annotations

from dataclasses import replace

from daylily_daemon.domain.model import Plan
from daylily_daemon.engine.shepherd import run_environment
from tests.made import asked, running

PLAN = Plan(pipeline="demo", steps=("stage", "run"), pin="1.a.b.c.1.2")
WORKSET = replace(
    asked(running("HG002", "stage", folder="/fsx/data/worksets/HG002/r1"), bucket="lab"), plan=PLAN
)
ALWAYS = {
    "DAYLILY_RUN_DIR": "/fsx/data/worksets/HG002/r1",
    "DAYLILY_INPUT_URI": "s3://lab/p/HG002/",
}


def test_our_own_steps_learn_whose_run_it_is_where_and_what_was_checked() -> None:
    assert run_environment(WORKSET) == {**ALWAYS, "DAYLILY_PIN": "1.a.b.c.1.2"}


def test_a_plan_of_a_time_before_pins_says_nothing_of_them() -> None:
    assert run_environment(replace(WORKSET, plan=replace(PLAN, pin=""))) == ALWAYS
