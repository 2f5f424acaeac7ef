"""Small parts of the domain, each at its edge: templates, tables, numbers, names, what a command leaves."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from daylily_daemon.domain import printable, report
from daylily_daemon.domain.commands import apply
from daylily_daemon.domain.daemon import Port
from daylily_daemon.domain.errors import Permanent, Transient
from daylily_daemon.domain.events import JobExited
from daylily_daemon.domain.failures import FailurePattern, classify
from daylily_daemon.domain.fit import genome_of, plan_of
from daylily_daemon.domain.lifecycle import decide
from daylily_daemon.domain.listing import Position, Query, Span, fits, is_searched, spans_of
from daylily_daemon.domain.model import (
    Cancel,
    Category,
    Command,
    CommandEffect,
    Ended,
    Job,
    JobName,
    Outcome,
    Plan,
    Priority,
    State,
    Submit,
    WorksetId,
)
from daylily_daemon.domain.paths import S3Place, name_fault
from daylily_daemon.domain.pipeline import (
    Pipeline,
    StepTemplate,
    fill,
    fill_argv,
    render,
    time_for,
    unknown_placeholders,
    uses,
)
from daylily_daemon.domain.places import Territory, Use, judge, submission_place_problem
from daylily_daemon.domain.recipe import Recipe
from daylily_daemon.domain.run import StepEnd
from daylily_daemon.domain.totality import total
from tests.made import NOW, a_lock, a_run, a_workset, asked, at_run, running
from tests.unit.engine_settings import a_policy

ID = WorksetId("w1")
STEP = StepTemplate(step="run", argv=("{a}", "x{b}y", "{many}"), timeout_s=100.0)
PIPE = Pipeline(name="demo", steps=(STEP,), timeout_s=50.0)


@pytest.mark.parametrize(
    ("timeout_s", "fatal", "spent_s", "left_s"),
    [(50.0, True, 0.0, 50.0), (50.0, True, 49.5, 1.0), (50.0, True, 60.0, 1.0), (0.0, True, 9.0, 100.0),
     (50.0, False, 9.0, 100.0), (500.0, True, 9.0, 100.0), (50.0, True, 48.5, 1.5)],
)  # fmt: skip
def test_a_step_has_what_is_left_of_its_runs_time_and_a_second_at_least(
    timeout_s: float, fatal: bool, spent_s: float, left_s: float
) -> None:
    pipeline = replace(PIPE, timeout_s=timeout_s)
    assert time_for(pipeline, replace(STEP, fatal=fatal), spent_s) == left_s


def test_a_template_is_filled_and_says_which_placeholder_it_lacks() -> None:
    values: dict[str, Any] = {"a": "1", "b": "2", "many": ("3", "4")}
    assert fill_argv(STEP.argv, values) == ("1", "x2y", "3", "4")
    with pytest.raises(
        Permanent, match=r"^The placeholder \{c\} in 'x\{c\}' has no value here; fix"
    ):
        fill("x{c}", values)
    with pytest.raises(Permanent, match=r"\{many\} in 'x\{many\}' is a list and must stand alone"):
        fill_argv(("x{many}",), values)
    files = replace(STEP, cwd="/{b}", success_file="{a}.ok", report_file="{b}.json")
    template = replace(files, environment={"K": "{a}"}, progress_pattern="{a}", grace_s=3.0)
    found = Job(name=JobName("w1.1.run"), directory="/d", step="run", argv=())
    job = render(template, values, found)
    assert (job.argv, job.environment, job.cwd) == (("1", "x2y", "3", "4"), {"K": "1"}, "/2")
    assert (job.success_file, job.report_file, job.progress_pattern) == ("1.ok", "2.json", "{a}")
    assert (job.timeout_s, job.grace_s) == (100.0, 3.0)
    assert unknown_placeholders("{workset} {nothing}") == ["nothing"]


def test_what_a_pipeline_uses_stands_in_an_argument_a_variable_or_a_folder() -> None:
    for changed in ({"argv": ("x{g}",)}, {"environment": {"K": "{g}"}}, {"cwd": "{g}"}):
        step: StepTemplate = replace(STEP, **changed)
        assert uses(replace(PIPE, steps=(STEP, step)), "g")
    assert not uses(PIPE, "g")
    assert replace(STEP, argv=("{daylily}", "stage")).is_own
    assert not STEP.is_own
    assert PIPE.template("run") is STEP
    assert PIPE.template("other") is None


def test_a_plan_says_which_steps_are_own_and_optional_and_what_the_recipe_leaves_open() -> None:
    own = replace(STEP, step="stage", argv=("{daylily}",))
    loose = replace(STEP, step="metrics", fatal=False)
    pipeline = replace(PIPE, steps=(own, STEP, loose))
    plan = plan_of(
        Recipe(workdir_name="w", run_args=("-p",), cluster_name="east"), pipeline, "s3://r/"
    )
    assert plan == Plan(
        pipeline="demo",
        steps=("stage", "run", "metrics"),
        optional=("metrics",),
        own=("stage",),
        run_args=("-p",),
        workdir_name="w",
        export_uri="s3://r/",
        cluster_name="east",
    )
    known = replace(PIPE, reference_genomes=("hg38", "b37"))
    assert (genome_of(known, "GRCh38"), genome_of(known, "B37"), genome_of(known, "")) == (
        "hg38",
        "b37",
        "",
    )
    assert genome_of(known, "hg19") is None
    assert (genome_of(PIPE, ""), genome_of(PIPE, "hg38")) == ("", None)


def test_a_table_names_what_it_lacks_and_what_it_has_too_much() -> None:
    assert total("t", {1: "a", 2: "b"}, (1, 2)) == {1: "a", 2: "b"}
    with pytest.raises(TypeError, match=r"^t has no line for 3, 4\. Add what is to happen then\.$"):
        total("t", {1: "a"}, (1, 3, 4))
    with pytest.raises(TypeError, match=r"^t has a line for 2, 5, which is unknown\.$"):
        total("t", {1: "a", 2: "b", 5: "c"}, (1,))


@pytest.mark.parametrize(("told", "kept"), [(-5.0, 0.0), (0.0, 0.0), (7.5, 7.5), (1e9, 86_400.0)])
def test_a_pause_that_is_asked_for_is_between_nothing_and_a_day(told: float, kept: float) -> None:
    assert Transient("x", retry_after_s=told).retry_after_s == kept
    assert Transient("x").retry_after_s is None


@pytest.mark.parametrize("name", ["good_at", "failing_since"])
def test_a_port_takes_no_time_without_a_zone(name: str) -> None:
    with pytest.raises(ValueError, match="no time zone"):
        Port(**{name: datetime(2026, 1, 1)})  # type: ignore[arg-type] # noqa: DTZ001


def test_letters_of_other_languages_are_no_marks_however_many() -> None:
    assert printable.one_line("äöüßäöüß" * 3) == "äöüßäöüß" * 3


def test_the_greatest_number_is_kept_as_text() -> None:
    assert report.bounded({"a": 1e30, "b": 1e-30, "c": 9.9e29}) == {
        "a": "1e+30",
        "b": "1e-30",
        "c": 9.9e29,
    }


@pytest.mark.parametrize(
    ("name", "form", "is_one"),
    [("a.bam.x.fastq", "FQ", True), ("a.bam.gz", "FQ", False), ("a.bam", "FASTQ", False),
     ("a.fq.x.bam", "BAM", True), ("a.fq.gz", "BAM", False), ("a.fastq.gz", "FQ", True),
     ("a", "FQ", True), ("a.tar.gz", "FQ", False)],
)  # fmt: skip
def test_the_last_two_ends_of_a_name_say_what_a_file_is(name: str, form: str, is_one: bool) -> None:
    assert (name_fault(f"s3://b/{name}", form) is None) is is_one


def test_a_list_is_looked_through_only_for_what_no_index_serves() -> None:
    ready = (State.READY,)
    assert is_searched(Query(states=ready, prefix="HG"))
    assert not is_searched(Query(states=ready, customer="c", priority=Priority.LOW))
    assert not is_searched(Query(states=ready, customer="c"))
    assert not is_searched(Query(states=ready, priority=Priority.LOW))
    span = Span(State.READY, ("1#a", "1#c"))
    assert [span.holds(key) for key in ("1#", "1#a", "1#b", "1#c", "1#d")] == [
        False,
        True,
        True,
        True,
        False,
    ]
    low = Query(states=(State.READY, State.FAILED), priority=Priority.LOW)
    assert [s.bounds for s in spans_of(low)] == [("2#", "2$")] * 2
    assert fits(low, Position(1, "2#x", "w"))
    assert not fits(low, Position(2, "2#x", "w"))
    assert not fits(low, Position(0, "1#x", "w"))
    assert not fits(low, Position(0, "", "w"))
    assert not fits(low, Position(0, "2#x", ""))
    assert not fits(low, Position(-1, "2#x", "w"))


def test_as_many_open_places_are_named_as_fit_into_a_sentence() -> None:
    land = Territory(inputs=tuple(S3Place(f"b{n}", "") for n in range(7)))
    fault = judge(S3Place("other", "x"), Use.FILE, land)
    assert fault is not None
    assert "s3://b4/. " not in fault[0]
    assert fault[0].endswith("s3://b3/ or s3://b4/.")
    long = submission_place_problem("b", "p" * 200 + "/", ID, S3Place("c", ""))
    assert "p" * 200 in str(long)


# What commands and ends leave behind.


def a_command(ask: Any, id: str = "c1") -> Command:
    return Command(id=id, workset_id=ID, by="me", ask=ask)


def test_a_trigger_that_was_answered_leaves_its_place_in_the_order() -> None:
    ws = asked(a_workset(), sentinel="s1")
    again = Submit(bucket="b", prefix="p/w1/", sentinel="s1", order="05")
    decision = apply(ws, a_command(again), NOW)
    assert decision.answers[0].effect is CommandEffect.NONE
    assert decision.workset.request.sentinel_order == "05"


def test_a_command_that_was_obeyed_before_leaves_the_inbox() -> None:
    cancel = a_command(Cancel())
    ws = replace(
        running(owner="a"), inbox=(cancel, a_command(Cancel(), "c2")), seen_commands=("c1",)
    )
    assert [c.id for c in apply(ws, cancel, NOW).workset.inbox] == ["c2"]


LAB = FailurePattern("odd scanner", "LAB-1", Category.DATA, False, "the scanner is off")
ODD = Outcome(ended=Ended.EXITED, code=1, tail="odd scanner", duration_s=2.0)


def test_patterns_of_operators_decide_what_becomes_of_a_run() -> None:
    policy = a_policy(patterns=(LAB,))
    ws = running(owner="a")
    assert ws.job is not None
    ended = decide(ws, JobExited(ws.job, ODD), policy, NOW).workset
    assert (ended.state, ended.failure and ended.failure.code) == (State.FAILED, "LAB-1")
    told = decide(ws, JobExited(ws.job, ODD, fatal=False), policy, NOW)
    assert "the scanner is off" in told.records[0].message
    assert told.workset.run is not None
    assert told.workset.run.steps[1].end is StepEnd.TOLERATED
    assert told.workset.run.steps[1].seconds == 2.0


def test_an_attempt_that_goes_on_keeps_what_the_one_before_has_reported() -> None:
    from tests.unit.test_lifecycle import CLAIM  # noqa: PLC0415

    run = a_run(failed="cleanup", reports={"reads": 7}, results_uri="s3://there/")
    plan = Plan(pipeline="demo", steps=tuple(step.name for step in run.steps))
    ws = a_workset(run=run, plan=plan, attempt=1)
    again = decide(ws, CLAIM, a_policy(), NOW).workset
    assert again.run is not None
    assert (again.run.reports, again.run.results_uri, again.run.id) == (
        {"reads": 7},
        "s3://there/",
        "r1",
    )
    assert again.results_uri == "s3://there/"
    anew = decide(at_run(ws, steps=run.steps[:1]), CLAIM, a_policy(), NOW).workset
    assert anew.run is not None
    assert (anew.run.reports, anew.run.id) == ({}, "r2")


def test_a_ready_workset_that_is_claimed_is_shown_as_locked() -> None:
    assert replace(a_workset(), lock=a_lock("a")).shown_state == "locked"
    assert (a_workset().shown_state, running(owner="a").shown_state) == ("ready", "in_progress")


def test_points_at_the_end_of_the_last_line_are_not_doubled() -> None:
    text = "Error in rule a:\n    jobid: 3\n\nwhat is it. \n"
    message = classify(Outcome(ended=Ended.EXITED, code=3, tail=text)).message
    assert message.endswith("Last line of its output: what is it.")
