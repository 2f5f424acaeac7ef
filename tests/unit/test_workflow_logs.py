"""What workflow managers say in a log: recorded from real Snakemakes, Nextflow's written by hand."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daylily_daemon.adapters.runners.logs import clean
from daylily_daemon.domain.failures import Diagnosis, classify, read_log
from daylily_daemon.domain.model import Category, Ended, Outcome
from daylily_daemon.domain.workflow_log import MAX_FAILED
from tests.costs import assert_linear

RECORDED = Path(__file__).parent.parent / "data" / "workflow"
reported = pytest.mark.reported


def log(name: str) -> str:
    return (RECORDED / f"{name}.log").read_text(encoding="utf-8")


def failure(tail: str) -> Diagnosis:
    return classify(Outcome(ended=Ended.EXITED, code=1, tail=tail))


def in_all(name: str, *versions: int) -> list[str]:
    return [f"{name}.snakemake{version}" for version in versions or (7, 8, 9)]


SORTED = "logs/bwa/HG002.sort.log"
EXPECTED: dict[str, tuple[str, tuple[str, ...]]] = {
    "sort": ("WS-UNK-000", ("rule sort_bam (sample=HG002) failed", f"See {SORTED}")),
    "show-failed-logs": (
        "WS-RES-002",
        ("rule sort_bam (sample=HG002) failed", "samtools sort: failed", SORTED),
    ),
    "keep-going": (
        "WS-PIP-001",
        ("rule bwa_mem", "(sample=HG002)", "(sample=NA12878)", "(sample=gatk-1)", "[E::bwa_idx"),
    ),
    "quiet": ("WS-UNK-000", ("rule quiet (work/quiet) failed", "logs/gatk/failed.log")),
    "run-block": ("WS-UNK-000", ("rule python", "ValueError: reference table is empty")),
    "no-output": ("WS-PIP-005", ("rule no_output", "MissingOutputException")),
    "no-input": ("WS-DAT-002", ("rule no_input", "an input file is missing")),
    "locked": ("WS-PIP-003", ("snakemake --unlock", "Directory cannot be locked")),
    "incomplete": ("WS-PIP-004", ("--rerun-incomplete",)),
    "cluster": ("WS-CLU-002", ("rule sort_bam (sample=HG002) failed", SORTED)),
}
SLURM = {
    "timeout": ("WS-TIME-001", "Slurm ended a job at its time limit"),
    "out_of_memory": ("WS-RES-001", "it ran out of memory"),
    "node_fail": ("WS-CLU-001", "a node of the cluster failed"),
    "cancelled": ("WS-JOB-003", "a Slurm job was canceled"),
    "failed": ("WS-UNK-000", "SLURM status is: 'FAILED'"),
}


@reported("D", "a log that names the failed rule far from its end (snakemake#3529)")
@reported("D", "an exception of a run block that nobody sees (snakemake#1881)")
@pytest.mark.parametrize("version", [7, 8, 9])
@pytest.mark.parametrize("name", EXPECTED)
def test_a_failed_rule_is_named_with_its_sample_and_its_log(name: str, version: int) -> None:
    code, told = EXPECTED[name]
    found = failure(log(f"{name}.snakemake{version}"))
    assert found.code == code
    for part in told:
        assert part in found.message, found.message


@reported("D", "jobs of Slurm whose end nobody finds (snakemake-executor-plugin-slurm#325)")
@pytest.mark.parametrize("version", [8, 9])
@pytest.mark.parametrize("state", SLURM)
def test_what_slurm_says_of_a_rules_job_is_the_reason(state: str, version: int) -> None:
    code, told = SLURM[state]
    found = failure(log(f"slurm-{state}.snakemake{version}"))
    assert found.code == code
    assert "rule sort_bam (sample=" in found.message
    assert told in found.message
    assert ".snakemake/slurm_logs/rule_sort_bam/" in found.message


@pytest.mark.parametrize(("name", "code"), [("sort", 3), ("quiet", 42)])
def test_the_exit_code_of_the_rule_is_told_where_snakemake_says_it(name: str, code: int) -> None:
    for recorded in in_all(name, 8, 9):
        assert f"failed with exit code {code}" in failure(log(recorded)).message
    assert "failed with exit code" not in failure(log(f"{name}.snakemake7")).message


def test_a_rule_that_a_signal_ended_says_which() -> None:
    for recorded in in_all("killed", 8, 9):
        found = failure(log(recorded))
        assert (found.code, "ended by SIGKILL" in found.message) == ("WS-RES-001", True)


def test_commands_and_file_names_that_snakemake_prints_are_no_output_of_tools() -> None:
    """`No space left on device` stands in the command, and in `logs/bwa` nothing of BWA."""
    for recorded in in_all("sort"):
        read = read_log(log(recorded))
        assert read.output.strip() == ""
        assert "No space left" not in read.own
    for recorded in in_all("keep-going"):
        lines = read_log(log(recorded)).output.splitlines()
        assert [line for line in lines if "[E::" in line] == [
            "[E::bwa_idx_load_from_disk] fail to locate the index files"
        ] * 3


@reported("D", "a workflow that ends without naming a rule (wags#38)")
def test_a_log_without_a_failed_rule_is_not_said_to_be_empty() -> None:
    text = "Building DAG of jobs...\nExiting because a job execution failed. Look above\n"
    assert "Last line of its log: Exiting because a job execution failed" in failure(text).message


PRINTED = """\
Building DAG of jobs...
rule dedup:
    output: work/b.bam
    jobid: 3
    wildcards: sample=b


        gatk MarkDuplicates -O work/b.bam \\
            2> logs/gatk/error.log

rule align:
    output: work/a.bam
    jobid: 2
    wildcards: sample=a

bwa mem a.fq > work/a.bam 2> logs/bwa/failed.error
tool: it is broken
[Wed Nov 25 17:04:52 2026]
Error in rule align:
    jobid: 2
    output: work/a.bam
    shell:
        bwa mem a.fq > work/a.bam 2> logs/bwa/failed.error
        (one of the commands exited with non-zero exit code; note that snakemake uses bash strict mode!)

Exiting because a job execution failed. Look above for error message
"""


def test_with_printed_commands_no_command_of_any_rule_is_output() -> None:
    assert read_log(PRINTED).output.strip() == "tool: it is broken"
    for recorded in in_all("keep-going"):
        assert "echo trimmed" not in read_log(log(recorded)).output
    unprinted = PRINTED.replace("        bwa mem a.fq", "        another command")
    assert "MarkDuplicates" in read_log(unprinted).output, "it may be what a tool wrote"


def test_a_log_that_ends_well_names_no_failed_rule() -> None:
    for recorded in in_all("ends-well"):
        assert read_log(log(recorded)).failed == ()


def test_colours_are_gone_before_anybody_reads() -> None:
    """Logs pass through ``clean`` first; here only what it leaves."""
    text = log("sort.snakemake9")
    coloured = "\n".join(f"\x1b[31m{line}\x1b[0m" for line in text.splitlines())
    assert failure(clean(coloured.encode())) == failure(text)


RETRIED = """\
Building DAG of jobs...
[Wed Nov 25 17:04:58 2026]
rule trim:
    output: work/a.trim
    jobid: 7
    wildcards: sample=a

[Wed Nov 25 17:04:58 2026]
Error in rule trim:
    jobid: 7
    output: work/a.trim
    shell:
        false
        (one of the commands exited with non-zero exit code; note that snakemake uses bash strict mode!)

Trying to restart job 7.
[Wed Nov 25 17:04:59 2026]
Finished job 7.
1 of 3 steps (33%) done
"""


def test_a_rule_that_succeeded_when_it_was_tried_again_did_not_fail() -> None:
    assert read_log(RETRIED).failed == ()
    before = RETRIED.replace("Finished job 7.", "Finished job 8.")
    assert [str(rule) for rule in read_log(before).failed] == ["trim (sample=a)"]
    not_again = RETRIED.replace("Trying to restart job 7.", "")
    assert len(read_log(not_again).failed) == 1, "another Snakemake counts its jobs anew"


def test_the_exit_code_of_another_command_is_not_that_of_a_rule_without_one() -> None:
    for recorded in in_all("run-block"):
        assert "failed with exit code" not in failure(log(recorded)).message


def test_of_many_failed_rules_some_are_named_and_all_are_counted() -> None:
    jobs = "".join(
        f"Error in rule call:\n    jobid: {n}\n    output: work/{n}.vcf\n" for n in range(30)
    )
    found = failure(f"Building DAG of jobs...\n{jobs}Exiting because a job execution failed.\n")
    assert "rule call (work/0.vcf) failed; so did call (work/1.vcf)" in found.message
    assert "and at least 25 more" in found.message


def test_what_is_kept_of_failed_rules_is_bounded() -> None:
    text = "".join(f"Error in rule r{n}:\n    jobid: {n}\n" for n in range(5_000))
    assert len(read_log(text).failed) == MAX_FAILED


def test_a_group_of_jobs_names_its_rules() -> None:
    found = failure(
        "Building DAG of jobs...\n"
        "Error in group 3f2a:\n    jobs:\n"
        "        rule dedup:\n            jobid: 4\n            output: a.bam\n"
        "            log: logs/dedup/a.log (check log file(s) for error details)\n"
    )
    assert "rule dedup (a.bam) failed" in found.message
    assert "See logs/dedup/a.log." in found.message


# As Nextflow prints it; written by hand.
NEXTFLOW = """\
N E X T F L O W  ~  version 24.10.0
[3f/9a1c2e] process > SAREK:BWAMEM1_MEM (HG002) [100%] 1 of 1, failed: 1
ERROR ~ Error executing process > 'SAREK:BWAMEM1_MEM (HG002)'

Caused by:
  Process `SAREK:BWAMEM1_MEM (HG002)` terminated with an error exit status (CODE)

Command executed:

  bwa mem ref.fa a.fq || echo 'bwa: error, No space left on device'

Command exit status:
  CODE

Command output:
  (empty)

Command error:
  WHAT

Work dir:
  /fsx/work/3f/9a1c2e

Tip: you can replicate the issue by changing to the process work dir
"""


def nextflow(code: int, what: str) -> Diagnosis:
    return failure(NEXTFLOW.replace("CODE", str(code)).replace("WHAT", what))


@reported("D", "memory ran out, seen in the exit status alone (wf-single-cell#40)")
def test_a_failed_process_of_nextflow_is_named_with_its_sample_status_and_folder() -> None:
    found = nextflow(137, "quiet")
    assert found.code == "WS-RES-001"
    assert "process SAREK:BWAMEM1_MEM (HG002) failed with exit code 137" in found.message
    assert "See /fsx/work/3f/9a1c2e/.command.log." in found.message
    assert nextflow(1, "gzip: a_R1.fq.gz: unexpected end of file").code == "WS-DAT-001"
    assert nextflow(1, "quiet").code == "WS-UNK-000", "the command is no output"


@reported("D", "a container killed for its memory, with exit code 2 (genomeassembler#223)")
def test_what_nextflow_says_of_a_container_is_the_reason() -> None:
    cause = "Essential container in task exited - OutOfMemoryError: Container killed"
    text = NEXTFLOW.replace("Process `SAREK:BWAMEM1_MEM (HG002)` terminated", cause)
    assert failure(text.replace("CODE", "2")).code == "WS-RES-001"


def test_a_session_of_nextflow_that_is_locked_has_the_code_of_a_locked_folder() -> None:
    text = "N E X T F L O W  ~  version 24.10.0\nUnable to acquire lock on session with ID 1f-2\n"
    found = failure(text)
    assert (found.code, found.category, found.retry) == ("WS-PIP-003", Category.TRANSIENT, True)


ALL = sorted(RECORDED.glob("*.log"))


@given(name=st.sampled_from(ALL), cut=st.floats(0, 1), seed=st.integers(0, 2**16))
def test_no_cut_and_no_order_of_lines_upsets_the_reader(name: Path, cut: float, seed: int) -> None:
    text = name.read_text(encoding="utf-8")
    part = text[int(len(text) * cut) :]
    lines = part.splitlines()
    random.Random(seed).shuffle(lines)
    for log_ in (part, "\n".join(lines)):
        found = failure(log_)
        assert found.code
        assert len(found.message) < 3_000


@pytest.mark.parametrize(
    "line",
    [
        "Error in rule x:",
        "    shell:",
        "Command 'x",
        "rule x:",
        "Logfile x:",
        "=====",
        "ValueError:",
        "Removing output files of failed job x since they might be corrupted:",
        "x" * 300,
        "a",
    ],
)
def test_eight_times_the_log_takes_about_eight_times_as_long_to_read(line: str) -> None:
    def read(lines: int) -> None:
        read_log("Building DAG of jobs...\n" + f"{line}\n    output: {line}\n" * lines)

    assert_linear(read, 500, 4_000)
