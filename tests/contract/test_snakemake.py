"""A real Snakemake under the shipped pipeline, as a job: its failures, and what follows a hard end."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from daylily_daemon.adapters.identity import identified, this_machine
from daylily_daemon.adapters.runners.process import ProcessRunner
from daylily_daemon.domain.failures import classify
from daylily_daemon.domain.model import Ended, Job, JobName, Outcome
from tests.contract.runner_harness import eventually, running_in
from tests.omics import HeadNode, head_node_in

SNAKEFILE = """\
rule all:
    input: "results/HG002.bam"

rule align:
    output: "results/{sample}.bam"
    log: "logs/bwa/{sample}.log"
    shell: '''
        if [ -e fail ]; then echo "disk read error" > {log}; exit 7; fi
        echo half > {output}
        while [ -e hold ]; do sleep 0.1; done
        echo whole > {output}
    '''
"""
DY_R = """\
#!/bin/bash
"SNAKEMAKE" --cores 1 "$@" || { code=$?; date >> daylily.failed_run; exit $code; }
date >> daylily.successful_run
"""


@pytest.fixture
def head_node(tmp_path: Path, snakemake: Path) -> HeadNode:
    node = head_node_in(tmp_path, DY_R.replace("SNAKEMAKE", str(snakemake)))
    node.tree.mkdir(parents=True)
    (node.tree / "Snakefile").write_text(SNAKEFILE)
    return node


def attempt(head_node: HeadNode, number: int) -> Job:
    return replace(
        head_node.production_job("all"),
        name=JobName(f"ws1.{number}.run"),
        directory=str(head_node.folder / "jobs" / f"{number}-run"),
        timeout_s=100,
    )


async def start(head_node: HeadNode, job: Job) -> ProcessRunner:
    home = identified(str(head_node.folder / "jobs"), this_machine())
    runner = ProcessRunner(home, base_environment=head_node.base_environment)
    await runner.ensure(job)
    return runner


async def run(head_node: HeadNode, number: int) -> Outcome:
    job = attempt(head_node, number)
    runner = await start(head_node, job)
    return await runner.wait(job)


def is_half_done(result: Path) -> bool:
    return result.exists() and result.read_text() == "half\n"


async def kill_hard(folder: Path, *, but: int = 0) -> None:
    """Kill what works in ``folder`` at once, and again until nothing is left; without the ``but`` oldest."""

    def is_empty() -> bool:
        left = sorted(running_in(str(folder)))[but:]
        for signum in (signal.SIGSTOP, signal.SIGKILL):
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signum)
        return not left

    await eventually(is_empty, within_s=30)


async def test_a_rule_that_fails_in_a_real_snakemake_is_named_with_sample_and_log(
    head_node: HeadNode,
) -> None:
    (head_node.tree / "fail").touch()
    failure = classify(await run(head_node, 1))
    assert failure.code == "WS-UNK-000", "logs/bwa is a name, not BWA"
    assert "rule align (sample=HG002) failed with exit code 7" in failure.message
    assert "See logs/bwa/HG002.log." in failure.message


@pytest.mark.reported("D", "a folder locked for ever by a run that was killed (smrtsv2#18)")
@pytest.mark.reported("D", "an unlocking that never reaches the wrapped Snakemake (snakemake#2919)")
@pytest.mark.parametrize("but", [0, 1], ids=["all of the job", "all but its script"])
async def test_the_attempt_after_a_kill_unlocks_and_makes_the_half_done_file_anew(
    head_node: HeadNode, but: int
) -> None:
    hold, result = head_node.tree / "hold", head_node.tree / "results" / "HG002.bam"
    hold.touch()
    first = attempt(head_node, 1)
    runner = await start(head_node, first)
    await eventually(lambda: is_half_done(result), within_s=60)
    await kill_hard(head_node.tree, but=but)
    ended = await runner.wait(first)
    assert ended.ended is (Ended.EXITED if but else Ended.SIGNALLED)
    assert not ended.succeeded
    hold.unlink()
    assert list((head_node.tree / ".snakemake" / "locks").iterdir())

    second = await run(head_node, 2)
    assert second.succeeded, second.tail
    assert "Removed .snakemake/locks/" in second.tail
    assert result.read_text() == "whole\n"


@pytest.mark.parametrize(("argument", "code"), [("-k", "WS-PIP-004"), ("--ri", "WS-PIP-003")])
async def test_without_unlocking_a_retry_says_what_is_wrong_and_what_cures_it(
    head_node: HeadNode, argument: str, code: str
) -> None:
    """As with a pipeline of one's own that does not do what the shipped one does."""
    hold = head_node.tree / "hold"
    hold.touch()
    first = attempt(head_node, 1)
    runner = await start(head_node, first)
    await eventually(lambda: is_half_done(head_node.tree / "results" / "HG002.bam"), within_s=60)
    await kill_hard(head_node.tree)
    await runner.wait(first)
    hold.unlink()
    (head_node.work / ".dy-r-runs").unlink()
    done = head_node.production("all", argument)
    outcome = Outcome(ended=Ended.EXITED, code=done.returncode, tail=done.stdout + done.stderr)
    failure = classify(outcome)
    assert (failure.code, failure.retry) == (code, True)
    assert "daylily-omics" in failure.message
