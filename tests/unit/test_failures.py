"""Why a job failed: what its end and the end of its log say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daylily_daemon.domain.failures import (
    KNOWN,
    LINE_CHARS,
    Diagnosis,
    FailurePattern,
    classify,
)
from daylily_daemon.domain.model import Category, Ended, Outcome
from daylily_daemon.domain.patterns import compiled

reported = pytest.mark.reported


def failure(tail: str) -> Diagnosis:
    return classify(Outcome(ended=Ended.EXITED, code=1, tail=tail))


AT = "2026-11-25T03:04:05"
LINES = [
    ("slurmstepd: error: Detected 1 oom_kill event in StepId=4711.batch.", "WS-RES-001"),
    ("slurmstepd: error: Exceeded job memory limit", "WS-RES-001"),
    ("slurmstepd: error: Job 4711 exceeded memory limit (9000 > 8000), being killed", "WS-RES-001"),
    ("[ 12.3] oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null)", "WS-RES-001"),
    ("Some of your processes may have been killed by the cgroup out-of-memory handler.", "WS-RES-001"),
    ('Exception in thread "main" java.lang.OutOfMemoryError: Java heap space', "WS-RES-001"),
    ("bash: line 3: 31337 Killed                  samtools sort -@ 8 in.bam", "WS-RES-001"),
    ("Killed", "WS-RES-001"),
    ("samtools sort: failed to write: No space left on device", "WS-RES-002"),
    ("cp: error writing 'HG002.bam': Disk quota exceeded", "WS-RES-002"),
    ("/bin/sh: line 1: 77 CPU time limit exceeded (core dumped) bwa mem", "WS-RES-003"),
    (f"slurmstepd: error: *** JOB 4711 ON q1-dy-1 CANCELLED AT {AT} DUE TO TIME LIMIT ***", "WS-TIME-001"),
    (f"slurmstepd: error: *** JOB 4711 ON q1-dy-1 CANCELLED AT {AT} DUE TO NODE FAILURE ***", "WS-CLU-001"),
    (f"slurmstepd: error: *** JOB 4711 ON q1-dy-1 CANCELLED AT {AT} DUE TO PREEMPTION ***", "WS-CLU-001"),
    (f"slurmstepd: error: *** JOB 4711 ON q1-dy-1 CANCELLED AT {AT} DUE TO JOB REQUEUE ***", "WS-CLU-001"),
    (f"slurmstepd: error: *** JOB 4711 ON q1-dy-1 CANCELLED AT {AT} ***", "WS-JOB-003"),
    ("sbatch: error: Batch job submission failed: Invalid account", "WS-CLU-002"),
    ("slurm_load_jobs error: Unable to contact slurm controller (connect failure)", "WS-CLU-002"),
    ('Read timeout on endpoint URL: "https://lab.s3.us-west-2.amazonaws.com/x"', "WS-NET-001"),
    ("An error occurred (RequestTimeout) when calling the PutObject operation", "WS-NET-001"),
    ("download failed: s3://lab/a.bam Connection to lab.s3.amazonaws.com timed out", "WS-NET-001"),
    ("curl: (56) Recv failure: Connection reset by peer", "WS-NET-002"),
    ("curl: (6) Could not resolve host: zenodo.example", "WS-NET-002"),
    ("An error occurred (SlowDown) when calling the PutObject operation", "WS-AWS-001"),
    ("(Service: Amazon S3; Status Code: 503; Error Code: SlowDown; Request ID: X)", "WS-AWS-001"),
    ("ThrottlingException: Rate exceeded", "WS-AWS-001"),
    ("An error occurred (AccessDenied) when calling the PutObject operation", "WS-AWS-002"),
    ("User: arn:aws:sts::1:x is not authorized to perform: s3:ListBucket", "WS-AWS-002"),
    ("An error occurred (403) when calling the HeadObject operation: Forbidden", "WS-AWS-002"),
    ("fatal error: S3 Access Denied", "WS-AWS-002"),
    ("An error occurred (ExpiredToken) when calling the GetObject operation", "WS-AWS-003"),
    ("Unable to locate credentials. You can configure credentials", "WS-AWS-003"),
    ("The security token included in the request is invalid", "WS-AWS-003"),
    ("(AccessDenied): The security token included in the request is expired", "WS-AWS-003"),
    ("gzip: /fsx/HG002_R1.fastq.gz: unexpected end of file", "WS-DAT-001"),
    ("gzip: /fsx/HG002_R1.fastq.gz: not in gzip format", "WS-DAT-001"),
    ("Error: invalid FASTQ", "WS-DAT-001"),
    ("ERROR: sequence and quality have different length", "WS-DAT-001"),
    ("gzip: /fsx/HG002_R1.fastq.gz: No such file or directory", "WS-DAT-002"),
    ("[Errno 2] No such file or directory: '/fsx/HG002_R1.fq.gz'", "WS-DAT-002"),
    ("Fasta index file hg38.fa.fai for reference hg38.fa does not exist", "WS-DAT-003"),
    ("[E::bwa_idx_load_from_disk] fail to locate the index files", "WS-PIP-001"),
    ("[bns_restore_core] fail to open file 'hg38.fa.ann'", "WS-PIP-001"),
    ("A USER ERROR has occurred: Bad input: bad file", "WS-PIP-002"),
    ("org.broadinstitute.hellbender.exceptions.GATKException: x", "WS-PIP-002"),
    ("snakemake: error: unrecognized arguments: --kk", "WS-CFG-003"),
]  # fmt: skip


@reported("D", "memory ran out, with exit code 2 (assemblyqc#141)")
@pytest.mark.parametrize(("line", "code"), LINES)
def test_a_telling_line_has_its_code_wherever_it_stands_and_is_quoted(line: str, code: str) -> None:
    for tail in (line, f"start\n{line}\nbye\n", f"{line}\ncleaning up"):
        found = failure(tail)
        assert (found.code, line[:100] in found.message) == (code, True)


NAMES = [
    "logs/bwa/s1.log",
    "wrote results/gatk/HG002.error.bam",
    "Using GATK jar /opt/gatk-package-4.5.0.0-local.jar",
    "12:00:01 INFO  org.broadinstitute.hellbender.utils.NativeLibraryLoader - loaded",
    "sample SlowDown has 3 lanes",
    "align SlowDown_R1.fastq.gz",
    "FAILED_samples.txt was written",
    "logs/s3.log: step timed out",
    "s3s3s3s3 timed out",
    "bash: -c: line 2: syntax error: unexpected end of file",
    "sample Throttling-1 done",
    "docker run --oom-kill-disable img",
    "gatk_failed.vcf bwa_error.bam",
    "0 reads Killed by the filter",
    "UnboundLocalError: local variable 'x' was referenced before assignment",
    "no errors; AccessDeniedSample.bam made",
]


@pytest.mark.parametrize("line", NAMES)
def test_a_name_is_no_error(line: str) -> None:
    assert failure(f"{line}\nexit\n").code == "WS-UNK-000"


def test_one_thing_has_one_meaning_whoever_ended_the_job() -> None:
    """Slurm's time limit is a time limit, not CPU time; what somebody stopped was stopped."""
    pairs = {
        Ended.TIMED_OUT: f"*** JOB 1 ON n CANCELLED AT {AT} DUE TO TIME LIMIT ***",
        Ended.STOPPED: f"*** JOB 1 ON n CANCELLED AT {AT} ***",
        Ended.OUT_OF_MEMORY: "slurmstepd: error: Detected 1 oom_kill event in StepId=1.0",
    }
    for ended, line in pairs.items():
        ours, theirs = classify(Outcome(ended=ended)), failure(line)
        assert (ours.code, ours.category, ours.retry) == (
            theirs.code,
            theirs.category,
            theirs.retry,
        )


def test_a_code_has_one_category_and_one_rule_of_retry() -> None:
    rules: dict[str, set[tuple[Category, bool, bool]]] = {}
    for entry in KNOWN:
        rules.setdefault(entry.code, set()).add((entry.category, entry.retry, entry.ours))
    assert {code: rule for code, rule in rules.items() if len(rule) > 1} == {}


def test_every_pattern_can_be_searched_in_linear_time() -> None:
    for entry in KNOWN:
        assert not compiled(entry.pattern, ignore_case=True).search("")


def test_our_own_missing_rights_and_credentials_are_no_fault_of_the_workset() -> None:
    ours = {entry.code for entry in KNOWN if entry.ours}
    assert ours == {"WS-AWS-002", "WS-AWS-003"}
    found = failure("An error occurred (AccessDenied) when calling the PutObject operation")
    assert (found.ours, found.retry) == (True, True)
    assert not failure("Error: invalid FASTQ").ours
    assert not failure("who knows").ours


def test_what_was_tried_again_is_not_what_ended_the_job() -> None:
    log = (
        "WARN connection reset by peer, retrying (1 of 5)\n"
        "gzip: HG002_R1.fastq.gz: unexpected end of file\n"
    )
    assert failure(log).code == "WS-DAT-001"
    assert failure(log.splitlines()[0]).code == "WS-NET-002", "nothing else says why"


def test_the_quoted_part_of_a_long_line_holds_what_is_telling() -> None:
    found = failure("x" * 10_000 + " No space left on device " + "y" * 10_000)
    assert "No space left on device" in found.message
    assert len(found.message) < LINE_CHARS + 100


def test_patterns_of_operators_come_first_and_see_everything() -> None:
    mine = FailurePattern("Error in rule sort", "LAB-1", Category.DATA, False, "the lab's own")
    tail = "Building DAG of jobs...\nError in rule sort_bam:\n    jobid: 1\nNo space left on device"
    outcome = Outcome(ended=Ended.EXITED, code=1, tail=tail)
    assert classify(outcome).code == "WS-RES-002"
    assert classify(outcome, (mine,)).code == "LAB-1"


@given(tail=st.text(max_size=2_000))
def test_any_log_has_a_code_and_a_sentence_of_bounded_length(tail: str) -> None:
    found = failure(tail)
    assert found.code
    assert len(found.message) < 1_500
