"""Pipeline files: what is refused and how, and that the shipped ones do what they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from daylily_daemon.adapters.pipelines import BadPipelines, load_pipelines
from daylily_daemon.domain.pipeline import Pipeline
from tests.made import STEPS
from tests.omics import PROGRAM, HeadNode, head_node_in, job, shipped_pipeline, values

GOOD = """\
description: A trial.
steps:
  - step: stage
    argv: ["{daylily}", stage, "{input_uri}", "{stage_dir}"]
  - step: run
    argv: [tool, --project, "{customer}", "{run_args}"]
    environment: {PROJECT: "{customer}"}
    timeout_s: 60
    grace_s: 1.5
    fatal: true
    success_file: done.txt
    progress_pattern: '(?P<percent>\\d+)%'
"""

STAGE_RUN = "steps:\n  - step: stage\n    argv: [a]\n  - step: run\n    argv: [b]\n"


def load(folder: Path, text: str, name: str = "trial.yaml") -> Pipeline:
    (folder / name).write_text(text, encoding="utf-8")
    return load_pipelines(folder)[Path(name).stem]


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(BadPipelines) as refused:
        load(folder, text)
    return str(refused.value)


def test_a_good_file_becomes_a_pipeline_named_like_the_file(tmp_path: Path) -> None:
    pipeline = load(tmp_path, GOOD)
    assert (pipeline.name, pipeline.description) == ("trial", "A trial.")
    assert [template.step for template in pipeline.steps] == ["stage", "run"]
    run = pipeline.template("run")
    assert run is not None
    assert run.argv == ("tool", "--project", "{customer}", "{run_args}")
    assert run.environment == {"PROJECT": "{customer}"}
    assert (run.timeout_s, run.grace_s, run.fatal) == (60, 1.5, True)
    assert (run.cwd, run.success_file) == ("{work_dir}", "done.txt")


def test_a_file_in_the_other_spelling_of_yaml_is_read_too(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD, "other.yml").name == "other"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("{customer}", "{costumer}", r"line 6, key steps\[1\]\.argv\[2\].*{costumer} is not known"),
        ("{customer}", "{costumer}", r"did you mean {customer}\?"),
        ("{customer}", "{zzz}", r"see the list in domain/pipeline\.py"),
        ('"{run_args}"', '"x={run_args}"', r"{run_args} is a list: it must be an element of argv by itself"),
        ('PROJECT: "{customer}"', 'PROJECT: "{clone_args}"', r"line 7, key steps\[1\]\.environment\.PROJECT"),
        ("timeout_s: 60", "timeout: 60", r"line 8, .*\.timeout: .* Did you mean `timeout_s`\?"),
        ("description:", "descriptoin:", r"line 1, key descriptoin.*Did you mean `description`\?"),
        ("description:", "zzzz:", r"Known keys are description, timeout_s, steps"),
        ("step: run", "step: Run 1", r"line 5, key steps\[1\]\.step: A name of up to 40 small letters"),
        ("timeout_s: 60", "timeout_s: -1", r"line 8, key steps\[1\]\.timeout_s: .*greater than"),
        ("timeout_s: 60", "timeout_s: long", r"line 8, .*Input should be a valid number"),
        ("timeout_s: 60", "timeout_s: 99999999", r"line 8, .*less than or equal"),
        ("fatal: true", "fatal: maybe", r"line 10, .*valid boolean\. Write true or false"),
        ("success_file: done.txt", "success_file: /etc/passwd", r"line 11, .*relative to cwd"),
        ("success_file: done.txt", "success_file: a/../../b", r"line 11, .*without `\.\.`"),
        (r"(?P<percent>\d+)%", "(", r"line 12, .*cannot be used"),
        (r"(?P<percent>\d+)%", r"(?<=a)(?P<percent>\d+)%", r"line 12, .*looks behind"),
        (r"(?P<percent>\d+)%", "%", r"line 12, .*A group named percent, or groups named done and total"),
        ("argv: [tool,", "argv: [12,", r"line 6, .*argv\[0\].*valid string\. Put the value in quotes"),
        ('argv: [tool, --project, "{customer}", "{run_args}"]', "argv: []", r"line 6, .*at least 1 item"),
        ('argv: [tool, --project, "{customer}", "{run_args}"]', "argv: tool", r"line 6, .*Write a list"),
        ("PROJECT: ", "1BAD: ", r"environment.*"),
    ],
)  # fmt: skip
def test_a_fault_is_told_with_file_line_key_and_what_was_expected(
    tmp_path: Path, old: str, new: str, told: str
) -> None:
    text = GOOD.replace(old, new)
    assert text != GOOD
    message = refusal(tmp_path, text)
    assert message.startswith(f"{tmp_path / 'trial.yaml'}, line ")
    assert re.search(told, message), message


def test_every_problem_of_every_file_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("steps: [")
    message = refusal(
        tmp_path, GOOD.replace("timeout_s", "timeout").replace("step: run", "step: X")
    )
    assert len(message.splitlines()) == 3
    assert "other.yaml" in message
    assert "is not valid YAML" in message


def test_steps_have_the_order_of_the_file_and_any_names_but_none_twice(tmp_path: Path) -> None:
    two_runs = "steps:\n  - {step: align, argv: [a]}\n  - {step: verify, argv: [b]}\n"
    (tmp_path / "trial.yaml").write_text(f"{two_runs}  - {{step: call-2, argv: [c]}}\n")
    loaded = load_pipelines(tmp_path)["trial"]
    assert [template.step for template in loaded.steps] == ["align", "verify", "call-2"]
    twice = STAGE_RUN + "  - step: run\n    argv: [c]\n"
    assert "The step run is there twice" in refusal(tmp_path, twice)


def test_a_missing_key_is_told_at_the_step_that_lacks_it(tmp_path: Path) -> None:
    message = refusal(tmp_path, "steps:\n  - step: run\n")
    assert "line 2, key steps[0].argv: The key is missing. Add the key." in message


def test_two_files_of_one_name_and_a_name_that_is_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "trial.yml").write_text(GOOD)
    (tmp_path / "no name.yaml").write_text(GOOD)
    message = refusal(tmp_path, GOOD)
    assert "Another file gives the same pipeline" in message
    assert "no name of a pipeline" in message


def test_a_folder_that_is_empty_or_missing_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(BadPipelines, match="There is no pipeline file"):
        load_pipelines(tmp_path)
    with pytest.raises(BadPipelines, match="cannot be read: No such file or directory"):
        load_pipelines(tmp_path / "none")


# The shipped pipelines.


@pytest.mark.parametrize("name", ["demo", "daylily-omics"])
def test_a_shipped_pipeline_has_all_steps_and_can_be_filled(name: str, tmp_path: Path) -> None:
    assert [template.step for template in shipped_pipeline(name).steps] == list(STEPS)
    for step in STEPS:
        assert "{" + "work_dir}" not in str(job(name, step, values(tmp_path)))
    fatal = [template.step for template in shipped_pipeline(name).steps if template.fatal]
    assert fatal == ["stage", "run", "export"]


def test_the_demo_runs_our_own_commands(tmp_path: Path) -> None:
    made = job("demo", "run", values(tmp_path))
    sheet, results = tmp_path / "stage" / "stage_samples.tsv", tmp_path / "work" / "results"
    assert made.argv == (*PROGRAM, "fastq-report", str(sheet), str(results))
    assert made.success_file == "results/summary.tsv"


def test_the_progress_patterns_understand_snakemake(tmp_path: Path) -> None:
    for name, line in (
        ("demo", "3 of 10 steps (30%) done"),
        ("daylily-omics", "17 of 192 steps (8.9%) done"),
    ):
        found = re.search(job(name, "run", values(tmp_path)).progress_pattern, line)
        assert found is not None
        assert int(found["done"]) in {3, 17}
        assert int(found["total"]) in {10, 192}


@pytest.fixture
def head_node(tmp_path: Path) -> HeadNode:
    return head_node_in(tmp_path)


def test_the_omics_run_clones_initialises_activates_and_runs(head_node: HeadNode) -> None:
    done = head_node.run()
    assert done.returncode == 0, done.stderr
    assert head_node.trace("day-clone") == ["-d", "ws1", "-t", "main"]
    assert head_node.trace("dyoinit") == ["0", str(head_node.tree), "lab one"]
    assert head_node.trace("dy-a") == ["slurm", "hg38"]
    assert head_node.trace("dy-r") == ["-p", "help"]
    assert "1 of 2 steps (50%) done" in done.stdout
    assert (head_node.work / "daylily.successful_run").is_file()
    assert (head_node.work / "results" / "report.txt").read_text() == "report\n"
    assert (head_node.tree / "config" / "stage_samples.tsv").read_text() == "SAMPLE_ID\tR1_FQ\n"


def test_what_a_lab_writes_stays_an_argument_and_is_never_run(head_node: HeadNode) -> None:
    bait = head_node.folder / "bait"
    evil = (f"$(touch {bait})", f"`touch {bait}`", f"; touch {bait} #", "a b", '"', "'", "*", "")
    done = head_node.run(clone_args=evil, run_args=evil)
    assert done.returncode == 0, done.stderr
    assert head_node.trace("day-clone") == list(evil)
    assert not bait.exists()


def test_the_line_for_production_hands_over_all_run_arguments(head_node: HeadNode) -> None:
    arguments = ("produce_snv", "-j", "20", "--config", 'aligners=["sent","bwa2a"]', "--", "$HOME")
    done = head_node.production(*arguments)
    assert done.returncode == 0, done.stderr
    assert head_node.trace("dy-r") == list(arguments)


def test_without_clone_arguments_the_tree_gets_the_name_of_the_recipe(head_node: HeadNode) -> None:
    assert head_node.run(clone_args=(), workdir_name="tree7").returncode == 0
    assert head_node.trace("day-clone") == ["-d", "tree7"]


def test_a_second_attempt_goes_on_in_the_tree_of_the_first(head_node: HeadNode) -> None:
    head_node.environment = {"RUN_FAILS": "7"}
    assert head_node.run().returncode == 1
    assert not (head_node.work / "daylily.successful_run").exists()
    (head_node.folder / "trace" / "day-clone").unlink()
    head_node.environment = {}
    done = head_node.run()
    assert done.returncode == 0, done.stderr
    assert "day-clone" not in head_node.traced()
    assert not (head_node.tree / "daylily.failed_run").exists()


def leave_lock(head_node: HeadNode) -> Path:
    lock = head_node.tree / ".snakemake" / "locks" / "0.input.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.write_text("work/HG002.bam\n")
    return lock


def test_an_attempt_after_one_that_was_killed_unlocks_and_makes_half_done_files_anew(
    head_node: HeadNode,
) -> None:
    head_node.environment = {"KILLED": "1"}
    assert head_node.production("all", "-k").returncode == -9
    assert head_node.trace("dy-r") == ["all", "-k"], "the first attempt changes no argument"
    lock = leave_lock(head_node)
    head_node.environment = {}
    done = head_node.production("all", "-k")
    assert done.returncode == 0, done.stderr
    assert head_node.trace("dy-r") == ["--rerun-incomplete", "all", "-k"]
    assert not lock.exists()
    assert "Removed .snakemake/locks/0.input.lock" in done.stdout


def test_an_attempt_that_never_reached_its_pipeline_still_owes_the_unlocking(
    head_node: HeadNode,
) -> None:
    head_node.environment = {"KILLED": "1"}
    head_node.production("all")
    lock = leave_lock(head_node)
    head_node.environment = {}
    sheet = head_node.folder / "stage" / "stage_samples.tsv"
    text = sheet.read_text()
    sheet.unlink()
    assert head_node.production("all").returncode == 1
    assert lock.exists()
    sheet.write_text(text)
    assert head_node.production("all").returncode == 0
    assert not lock.exists()


def test_a_snakemake_that_was_killed_alone_is_unlocked_too(head_node: HeadNode) -> None:
    """As the kernel does it when memory runs out: the script around it lives on and ends in order."""
    head_node.environment = {"LEFT": "1"}
    assert head_node.production("all").returncode == 1
    head_node.environment = {}
    done = head_node.production("all")
    assert done.returncode == 0, done.stderr
    assert "Removed .snakemake/locks/0.output.lock" in done.stdout
    assert head_node.production("all").returncode == 0
    assert head_node.trace("dy-r") == ["all"], "that is over"


def test_the_lock_of_somebody_else_stays(head_node: HeadNode) -> None:
    """After an attempt that ended by itself a lock is that of a person who works there."""
    head_node.environment = {"RUN_FAILS": "7"}
    assert head_node.production("all").returncode == 1
    lock = leave_lock(head_node)
    for environment in ({"RUN_FAILS": "7"}, {}, {}):
        head_node.environment = dict(environment)
        head_node.production("all")
        assert head_node.trace("dy-r") == ["all"]
        assert lock.exists()


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"CLONE_FAILS": "1"}, "day-clone failed. If the folder is there already"),
        ({"TREE": "/proc/none"}, "day-clone failed"),
        ({"RUN_FAILS": "7"}, "dy-r failed; see its log above and daylily.failed_run"),
        ({"FORGETS": "1"}, "dy-r left no daylily.successful_run"),
    ],
)
def test_a_failure_ends_the_run_with_a_sentence(
    head_node: HeadNode, environment: dict[str, str], told: str
) -> None:
    head_node.environment = environment
    done = head_node.run()
    assert done.returncode == 1
    assert told in done.stderr
    assert not (head_node.work / "daylily.successful_run").exists()


def test_a_clone_that_names_no_folder_is_a_failure(head_node: HeadNode) -> None:
    (head_node.folder / "bin" / "day-clone").write_text("#!/bin/bash\necho cloned\n")
    done = head_node.run()
    assert done.returncode == 1
    assert "day-clone printed no line 'Location: DIR'" in done.stderr
    assert "dy-r" not in head_node.traced()


def test_cleaning_up_removes_stage_and_tree_after_a_success(head_node: HeadNode) -> None:
    head_node.run()
    done = head_node.run("cleanup")
    assert done.returncode == 0, done.stderr
    assert not (head_node.folder / "stage").exists()
    assert not head_node.tree.parent.exists()
    assert head_node.tree.parent.parent.exists()


def test_cleaning_up_leaves_everything_while_results_are_not_safe(head_node: HeadNode) -> None:
    head_node.run()
    (head_node.folder / "work" / ".daylily-export-unfinished").touch()
    assert head_node.run("cleanup").returncode == 1
    assert (head_node.folder / "stage").exists()
    assert head_node.tree.exists()


def test_an_export_that_may_fail_is_refused_where_a_cleanup_follows(tmp_path: Path) -> None:
    text = "steps: [{step: run, argv: [x]}, {step: export, argv: [x], fatal: false}"
    (tmp_path / "bad.yaml").write_text(text + ", {step: cleanup, argv: [x]}]")
    with pytest.raises(BadPipelines, match="make it fatal"):
        load_pipelines(tmp_path)
    (tmp_path / "bad.yaml").write_text(text + "]")
    assert load_pipelines(tmp_path)


def test_cleaning_up_leaves_a_tree_that_did_not_succeed(head_node: HeadNode) -> None:
    head_node.environment = {"RUN_FAILS": "7"}
    head_node.run()
    assert head_node.run("cleanup").returncode == 1
    assert head_node.tree.exists()
