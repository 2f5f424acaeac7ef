"""What is said of jobs that ended, by their recorded logs: code, category, sentence, and what was told apart.

``tests/golden/diagnoses.txt`` holds it. After a change that is meant, write it anew and read the difference:
``python -m tests.unit.diagnoses``.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from daylily_daemon.domain.failures import FailurePattern, classify, read_log
from daylily_daemon.domain.model import Category, Ended, Outcome
from tests.unit.lives import shown

TESTS: Final = Path(__file__).resolve().parents[1]
GOLDEN: Final = TESTS / "golden" / "diagnoses.txt"
RECORDED: Final = {path.name: path for path in sorted((TESTS / "data" / "workflow").glob("*.log"))}
EXTRA: Final = (
    FailurePattern(
        "odd scanner", "LAB-1", Category.RESOURCE, True, "the scanner of the lab is off"
    ),
    FailurePattern("bare pattern", "LAB-2", Category.DATA, False),
)
NEXTFLOW: Final = """\
N E X T F L O W  ~  version 24
Launching `x/y` [z]
executor >  local (2)
[12/abcdef] process > ALIGN (HG002)
a line of a tool
ERROR ~ Error executing process > 'NF:ALIGN (HG002 lane 1)'

Caused by:
  Process `NF:ALIGN (HG002 lane 1)` terminated with an error exit status (137)

Command executed:
  bwa mem failed.fq

Command exit status:
  137

Command output:
  (empty)

Command error:
  [E::bwa] the end
  killed

Work dir:
  /fsx/work/12/abcdef

Tip: view the log
behind the tip
Error executing process > 'NF:SORT'
Command exit status:
  none
Work dir:

"""
TEXTS: Final[Mapping[str, str]] = {
    "nothing": "",
    "blanks": " \n\n ",
    "one line": "what was it",
    "three lines": "first\nsecond one.\n  third one.  \n",
    "a long line": "x" * 300,
    "a long line that tells": "y" * 200 + " No space left on device " + "z" * 300 + "\nlast",
    "tells twice": "Killed\nretrying: No space left on device\nOut of memory\nlast",
    "tells at last": "begin\nNo space left on device",
    "retried only": "retrying: No space left on device",
    "odd scanner": "before\nthe ODD scanner.\nafter",
    "bare": "a bare pattern",
    "nextflow": NEXTFLOW,
    "nextflow, silent": "Error executing process > 'ALIGN'\n",
    "nextflow, locked": "Unable to acquire lock on session with ID abc\n",
    "snakemake, one failed": (
        "Error in rule a:\n    jobid: 3\n    output: out/a, out/b\n"
        "    log: l/a.log, l/b.log (check log file(s) for error details)\n"
        "    shell:\n        do  it\n        now\n        (one of the commands exited)\n\n"
        "Exiting because a job execution failed.\n"
    ),
    "snakemake, tried again": (
        "Error in rule a:\n    jobid: 3\nTrying to restart job 3.\nFinished job 3.\n"
        "Error in rule b:\n    jobid: 4\n"
    ),
    "snakemake, table": (
        "Building DAG of jobs...\njob       count    min threads\n-------  -----\nsort      1   1\n\n"
        "a line of a tool\njob done\nSNAKEMAKE\nversion 5\n\nlast"
    ),
    "snakemake, one rule twice": (
        "Error in rule a:\n    jobid: 3\n    output: o\n\nError in rule a:\n    jobid: 9\n    output: o\n"
        "    log: l/a.log\n\nError in rule a:\n    jobid: 10\n    output: o\n    log: l/b.log\n"
    ),
    "nextflow, many": "".join(f"Error executing process > 'P{n}'\n" for n in range(101)),
    "a line with X": "Error in rule a:\n    jobid: 3\n    log: l\n\nNo space left on deviceX",
    "snakemake, command": "Building DAG of jobs...\nShell command: cmd x\ncmd x\nout\n",
    "snakemake, many": "".join(f"Error in rule r{n}:\n    jobid: {n}\n\n" for n in range(12)),
}
ENDS: Final = (
    *(Outcome(ended=ended, code=9, tail="No space left on device") for ended in Ended),
    Outcome(ended=Ended.EXITED, code=0, success_file_found=False, tail="done"),
    Outcome(ended=Ended.EXITED, code=0, success_file_found=True, tail="done"),
    Outcome(ended=Ended.EXITED, code=1, success_file_found=False, tail="done"),
    Outcome(ended=Ended.EXITED, code=0),
)


def of_text(text: str) -> str:
    """Return what is read in a log, its parts by their number of lines and a sum, and the diagnosis."""
    log = read_log(text)
    parts = " ".join(
        f"{name} {len(part.splitlines())}/{zlib.crc32(part.encode()):08x}"
        for name, part in (("own", log.own), ("output", log.output))
    )
    job = Outcome(ended=Ended.EXITED, code=3, tail=text)
    lines = [
        f"    {log.unit}s: {shown(log.failed)} {log.reason!r} {parts}",
        f"    {log.told()!r} {log.where()!r}",
        f"    {shown(classify(job, EXTRA))}",
    ]
    return "\n".join(lines) + "\n"


def of_log(name: str) -> str:
    return f"log {name}\n{of_text(RECORDED[name].read_text(encoding='utf-8'))}"


def of_written(name: str) -> str:
    return f"text {name}\n{of_text(TEXTS[name])}"


def of_ends() -> str:
    return "".join(f"{shown(end)}\n    {end.succeeded} {shown(classify(end))}\n" for end in ENDS)


def told() -> str:
    return "".join([*map(of_log, RECORDED), *map(of_written, TEXTS), of_ends()])


if __name__ == "__main__":
    GOLDEN.write_text(told(), encoding="utf-8")
