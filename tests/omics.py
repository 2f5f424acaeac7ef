"""The shipped omics pipeline, on a head node of stand-ins for day-clone, dyoinit, dy-a and dy-r."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path

from daylily_daemon.adapters.pipelines import load_pipelines
from daylily_daemon.domain.model import Job, JobName
from daylily_daemon.domain.pipeline import Pipeline, Value, render
from daylily_daemon.settings.sources import shipped

PROGRAM = ("python3", "-P", "-m", "daylily_daemon")


def values(folder: Path, **changed: Value) -> dict[str, Value]:
    return {
        "daylily": PROGRAM,
        "workset": "ws1",
        "customer": "lab one",
        "input_uri": "s3://lab/drops/ws1/",
        "export_uri": "s3://lab/out/ws1/",
        "stage_dir": str(folder / "stage"),
        "work_dir": str(folder / "work"),
        "results_dir": str(folder / "work" / "results"),
        "run_args": ("help",),
        "clone_args": ("-d", "ws1", "-t", "main"),
        "workdir_name": "ws1",
        **changed,
    }


def shipped_pipeline(name: str) -> Pipeline:
    return load_pipelines(shipped("pipelines"))[name]


def job(name: str, step: str, filled: dict[str, Value]) -> Job:
    template = shipped_pipeline(name).template(step)
    assert template is not None
    found = Job(name=JobName(f"ws1.1.{step}"), directory="jobs", step=step, argv=())
    return render(template, filled, found)


DAY_CLONE = """\
#!/bin/bash
printf '%s\\n' "$@" > "$TRACE/day-clone"
[ -z "$CLONE_FAILS" ] || { echo "Error: destination '/x' already exists." >&2; exit 1; }
mkdir -p "$TREE" && echo "Great success! Daylily repository cloned." && echo "Location  : $TREE"
"""
DYOINIT = """\
printf '%s\\n' "$#" "$PWD" "$DAYLILY_PROJECT" > "$TRACE/dyoinit"
alias dy-a='. day_activate'
"""
DAY_ACTIVATE = """\
printf '%s\\n' "$@" > "$TRACE/dy-a"
export DAY_PROFILE=$1
"""
DY_R = """\
#!/bin/bash
printf '%s\\n' "$@" > "$TRACE/dy-r"
echo "1 of 2 steps (50%) done"
[ "$DAY_PROFILE" = slurm ] || exit 33
[ -z "$LEFT" ] || { mkdir -p .snakemake/locks; touch .snakemake/locks/0.output.lock; exit 137; }
[ -z "$KILLED" ] || { kill -9 "$PPID"; exit 9; }
[ -z "$RUN_FAILS" ] || { date >> daylily.failed_run; exit "$RUN_FAILS"; }
[ -n "$FORGETS" ] || date >> daylily.successful_run
echo report > results/report.txt
"""


@dataclass
class HeadNode:
    """Stand-ins for the programs of the head node, on the PATH that a login shell sets up."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def work(self) -> Path:
        return self.folder / "work"

    @property
    def tree(self) -> Path:
        return self.folder / "analysis results" / "ws1" / "daylily-omics-analysis"

    @property
    def base_environment(self) -> dict[str, str]:
        return {
            "PATH": "/usr/bin:/bin",
            "HOME": str(self.folder),
            "TRACE": str(self.folder / "trace"),
            "TREE": str(self.tree),
        }

    def run(self, step: str = "run", **changed: Value) -> subprocess.CompletedProcess[str]:
        return self.start(job("daylily-omics", step, values(self.folder, **changed)))

    def production(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.start(self.production_job(*arguments))

    def production_job(self, *arguments: str) -> Job:
        """Return the run as after the change that the comment in the file asks for."""
        made = job("daylily-omics", "run", values(self.folder, run_args=arguments))
        bash, option, script, *rest = made.argv
        changed = re.sub(r'(?m)^dy-r -p help .*|^#   (?=dy-r "\$)', "", script)
        return replace(made, argv=(bash, option, changed, *rest))

    def start(self, made: Job) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            made.argv,
            cwd=self.work,
            env={**self.base_environment, **made.environment, **self.environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )

    def trace(self, program: str) -> list[str]:
        return (self.folder / "trace" / program).read_text().splitlines()

    def traced(self) -> set[str]:
        return set(os.listdir(self.folder / "trace"))


def head_node_in(folder: Path, dy_r: str = DY_R) -> HeadNode:
    """Make the folders and put the programs there."""
    node = HeadNode(folder)
    programs = folder / "bin"
    for made in (programs, folder / "trace", folder / "stage", node.work):
        made.mkdir()
    for name, text in (
        ("day-clone", DAY_CLONE),
        ("dyoinit", DYOINIT),
        ("day_activate", DAY_ACTIVATE),
        ("dy-r", dy_r),
    ):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    (folder / ".profile").write_text(f'export PATH="{programs}:$PATH"\n')
    (folder / "stage" / "stage_samples.tsv").write_text("SAMPLE_ID\tR1_FQ\n")
    return node
