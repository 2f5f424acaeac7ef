"""What our own steps learn of a run by their environment, whatever a pipeline file says."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from daylily_daemon.domain.model import Plan, State, Step, Workset, WorksetId
from daylily_daemon.engine.shepherd import run_environment

NOW = datetime(2026, 1, 1, tzinfo=UTC)
WORKSET = Workset(
    id=WorksetId("HG002"),
    bucket="lab",
    prefix="drops/HG002/",
    created_at=NOW,
    updated_at=NOW,
    state=State.IN_PROGRESS,
    step=Step.STAGE,
    run_dir="/fsx/data/worksets/HG002/r1",
    plan=Plan(pipeline="demo", steps=(Step.STAGE, Step.RUN), pin="1.a.b.c.1.2"),
)
ALWAYS = {
    "DAYLILY_RUN_DIR": "/fsx/data/worksets/HG002/r1",
    "DAYLILY_INPUT_URI": "s3://lab/drops/HG002/",
}


def test_staging_learns_what_was_checked() -> None:
    assert run_environment(WORKSET) == {**ALWAYS, "DAYLILY_PIN": "1.a.b.c.1.2"}


@pytest.mark.parametrize("step", [Step.RUN, Step.EXPORT, Step.METRICS, Step.CLEANUP])
def test_other_steps_learn_whose_run_it_is_and_where(step: Step) -> None:
    assert run_environment(replace(WORKSET, step=step)) == ALWAYS


def test_a_plan_of_a_time_before_pins_says_nothing_of_them() -> None:
    plan = Plan(pipeline="demo", steps=(Step.STAGE, Step.RUN))
    assert run_environment(replace(WORKSET, plan=plan)) == ALWAYS
