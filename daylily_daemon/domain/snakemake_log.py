"""Reads the log of Snakemake 7, 8 and 9: failed rules with wildcards, log files and exit codes.

Each line belongs to a block of Snakemake (a rule that starts, an error, a printed command, an exception) or
is a line of its own kind; all others are what tools wrote. Threads of Snakemake interleave their lines, so a
block ends where a line does not fit, and nothing depends on a block being whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from daylily_daemon.domain.workflow_log import MAX_FAILED, MAX_LINE, FailedRule, WorkflowLog

MARKS: Final = (
    "Building DAG of jobs...",
    "Error in rule ",
    "Error in group ",
    "Exiting because a job execution failed",
    "Error: Directory cannot be locked.",
    "IncompleteFilesException:",
    "snakemake: error: ",
)
"""Text that only Snakemake prints: one of these makes a log one of Snakemake's."""

_STAMP: Final = re.compile(r"\[[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}\]")
_STARTS: Final = re.compile(r" *(?:local)?(?:rule|checkpoint) ([\w.:-]+):$")
_FAILS: Final = re.compile(r" *Error in (?:rule|checkpoint) ([\w.:-]+):$")
_GROUP_FAILS: Final = re.compile(r"Error in group ([\w.:-]+):$")
_KEY: Final = re.compile(r" {4,}([a-z_-]+):(?: (.*))?$")
_SHELL_ENDS: Final = re.compile(
    r" *\((?:one of the commands|command) exited with non-zero exit code"
)
_COMMAND: Final = re.compile(r"(?:subprocess\.CalledProcessError: )?Command '")
_RETURNED: Final = re.compile(
    r"' (?:returned non-zero exit status (\d+)|died with <Signals\.(\w+): \d+>)\.$"
)
_EXCEPTION: Final = re.compile(r"(?:\w+\.)*(\w*(?:Exception|Error))(?: in (.{0,500}))?:$")
_IN_RULE: Final = re.compile(r"rule ([\w.:-]+) in ")
_JOB: Final = re.compile(r"Job (\d+)\b")
_FINISHED: Final = re.compile(r"Finished job(?:id:)? (\d+)\b")
_RESTARTED: Final = re.compile(r"Trying to restart job (\d+)\.")
_STEPS: Final = re.compile(r"\d+ of \d+ steps \(")
_FRAME: Final = re.compile(r"=+$")
_PRINTS: Final = "Shell command:"
_KEYS: Final = frozenset(
    {
        *(
            "message",
            "jobid",
            "input",
            "output",
            "log",
            "reason",
            "wildcards",
            "resources",
            "shell",
        ),
        *("benchmark", "priority", "threads", "conda-env", "container", "jobs", "affected files"),
        *("external_jobid", "cluster_jobid", "external_log"),
    }
)
_OWN: Final = (
    *("Building DAG of jobs", "Using shell:", "Provided ", "Rules claiming more threads", "host: "),
    *("Select jobs to execute", "Execute ", "Finished job", "Complete log", "Elapsed time:"),
    *("Exiting because a job execution failed", "Shutting down, this might take some time"),
    *(
        "Job failed, going on with independent jobs",
        "Trying to restart job",
        "Touching output file",
    ),
    *("Submitted job ", "Submitted group job ", "Removing temporary output", "Storing output in"),
    *("Assuming unrestricted shared filesystem", "Waiting at most ", "Nothing to be done", "Job "),
    *("Error: Directory cannot be locked", "If you are sure that no other instances of snakemake"),
    *("The files below seem to be incomplete", "To re-generate the files", "Config file "),
    *(
        "Exception in run_job for rule ",
        "Error submitting jobscript",
        "snakemake: error: ",
        "Logfile ",
    ),
    *(
        "SLURM run ID:",
        "No wall time information given",
        "Cleaning up SLURM log files",
        "Unlocking",
    ),
    *(
        "Will exit after finishing currently running jobs",
        "DAG of jobs will be updated",
        "Subsequent",
    ),
)
_REMOVING: Final = "Removing output files of failed job "
_SEE_ELSEWHERE: Final = "For further error details see"
_EMPTY_REASONS: Final = ("At least one job did not complete successfully",)
_REASON_LINES: Final = 6
_COMMAND_LINES: Final = 300


@dataclass(slots=True, kw_only=True)
class _RuleJob:
    rule: str
    jobid: str = ""
    output: str = ""
    wildcards: str = ""
    logs: tuple[str, ...] = ()
    shell: str = ""
    restarted: bool = False

    def take(self, key: str, value: str) -> None:
        match key:
            case "jobid":
                self.jobid = value
            case "output":
                self.output = value
            case "wildcards":
                self.wildcards = value
            case "log":
                self.logs = tuple(value.split(" (check log file", maxsplit=1)[0].split(", "))


class SnakemakeLog:
    """One log, read once."""

    def __init__(self) -> None:
        self._own: list[str] = []
        self._output: list[str] = []
        self._started: dict[tuple[str, str], _RuleJob] = {}
        self._failed: list[_RuleJob] = []
        self._printed: set[str] = set()
        self._maybe_commands: list[int] = []
        self._ended: list[tuple[str, str, str]] = []
        self._command: list[str] = []
        self._reasons: list[str] = []
        self._reason_left = 0
        self._shows_output = False
        self._job = _RuleJob(rule="")
        self._next: Callable[[str], None] = self._outside

    def read(self, text: str) -> WorkflowLog:
        for line in text.splitlines():
            self._next(line[:MAX_LINE].rstrip())
        output = self._without_commands()
        return WorkflowLog(
            output="\n".join(output),
            own="\n".join(self._own),
            failed=tuple(self._result(job) for job in self._distinct()),
            reason=next(filter(None, self._reasons), ""),
        )

    def _without_commands(self) -> list[str]:
        """Leave out printed commands: those of errors, and with ``-p`` what follows the start of a rule."""
        known = {n for n, line in enumerate(self._output) if line.strip() in self._printed}
        if not known.isdisjoint(self._maybe_commands):
            known.update(self._maybe_commands)
        return [line for n, line in enumerate(self._output) if n not in known]

    def _outside(self, line: str) -> None:
        self._next = self._outside
        if found := _STARTS.match(line):
            self._begin(found[1], self._in_start)
        elif found := _FAILS.match(line):
            self._own.append(line)
            self._fail(found[1])
        elif _GROUP_FAILS.match(line):
            self._own.append(line)
            self._begin("", self._in_error)
        elif _COMMAND.match(line):
            self._command = []
            self._in_command(line)
        elif found := _EXCEPTION.match(line):
            self._except(found[1], found[2] or "", line)
        elif line == "SNAKEMAKE" or (line.startswith("job ") and line.split()[1:2] == ["count"]):
            self._next = self._in_header
        elif line.startswith(_REMOVING):
            self._next = self._in_removed
        elif line.startswith(_PRINTS):
            self._printed.add(line.removeprefix(_PRINTS).strip())
        elif line.startswith(_OWN) or _STAMP.match(line) or _STEPS.match(line):
            self._say(line)
        else:
            self._output.append(line)

    def _say(self, line: str) -> None:
        self._own.append(line)
        if line.startswith("Logfile "):
            self._next = self._before_frame
        elif found := _RESTARTED.match(line):
            for job in self._failed:
                job.restarted = job.restarted or job.jobid == found[1]
        elif found := _FINISHED.match(line):
            done = found[1]
            self._failed = [j for j in self._failed if not (j.restarted and j.jobid == done)]

    def _begin(self, rule: str, state: Callable[[str], None]) -> None:
        self._job = _RuleJob(rule=rule)
        self._next = state

    def _in_start(self, line: str) -> None:
        found = _KEY.match(line)
        if not found or found[1] not in _KEYS:
            self._after_start(line)
            return
        self._job.take(found[1], found[2] or "")
        for name in (self._job.output, self._job.jobid):
            self._started[self._job.rule, name] = self._job

    def _after_start(self, line: str) -> None:
        self._next = self._after_start
        if not line:
            return
        before = len(self._output)
        self._outside(line)
        if len(self._output) > before:
            self._maybe_commands.append(before)
            self._next = self._in_maybe_command

    def _in_maybe_command(self, line: str) -> None:
        if line.startswith("    "):
            self._maybe_commands.append(len(self._output))
            self._output.append(line)
        elif line:
            self._outside(line)

    def _fail(self, rule: str) -> None:
        self._begin(rule, self._in_error)
        if len(self._failed) < MAX_FAILED:
            self._failed.append(self._job)

    def _in_error(self, line: str) -> None:
        if found := _STARTS.match(line):  # one of a group
            self._fail(found[1])
        elif (found := _KEY.match(line)) and found[1] in _KEYS:
            self._job.take(found[1], found[2] or "")
            if found[1] == "shell":
                self._command = []
                self._next = self._in_shell
            elif found[1] == "message" and found[2] != "None":
                told = (found[2] or "").split(_SEE_ELSEWHERE)[0]
                self._own.append(told)
                self._reasons.append(told)
        elif not self._job.jobid and not line.startswith("Error in ") and line:
            self._own.append(line)  # a message of several lines
        else:
            self._outside(line)

    def _in_shell(self, line: str) -> None:
        if _SHELL_ENDS.match(line):
            self._job.shell = _squeezed(self._command)
            self._next = self._in_error
        elif _STAMP.match(line) or _FAILS.match(line) or line.startswith("Exiting because"):
            self._outside(line)
        else:
            self._print(line)

    def _print(self, line: str) -> None:
        self._command.append(line)
        self._printed.add(line.strip())

    def _in_command(self, line: str) -> None:
        self._next = self._in_command
        self._print(line)
        ended = _RETURNED.search(line)
        if ended:
            command = _squeezed(self._command)[: -len(ended[0])]
            self._ended.append((command, ended[1] or "", ended[2] or ""))
            self._own.append(ended[0][2:])
        if ended or len(self._command) > _COMMAND_LINES:
            self._next = self._outside

    def _in_header(self, line: str) -> None:
        if not line:
            self._next = self._outside

    def _in_removed(self, line: str) -> None:
        self._next = self._outside

    def _before_frame(self, line: str) -> None:
        self._next = self._outside
        if _FRAME.match(line):
            self._next = self._in_frame
        else:
            self._outside(line)

    def _in_frame(self, line: str) -> None:
        if _FRAME.match(line):
            self._next = self._in_error
        else:
            self._output.append(line)

    def _except(self, name: str, where: str, line: str) -> None:
        self._own.append(line)
        if found := _IN_RULE.match(where):
            self._fail(found[1])
        of_a_command = name in {"CalledProcessError", "RuleException", "SpawnedJobError"}
        self._reasons.append("" if of_a_command else f"{name}:")
        self._shows_output = where.startswith(("file", "line")) and not of_a_command
        self._reason_left = _REASON_LINES
        self._next = self._in_exception

    def _in_exception(self, line: str) -> None:
        self._reason_left -= 1
        fits = line.strip() and not line.startswith(("  File ", *_OWN[:12])) and self._reason_left
        if not fits or _STAMP.match(line) or _EXCEPTION.match(line) or _COMMAND.match(line):
            if self._reasons[-1].endswith(":"):
                self._reasons[-1] = ""
            self._outside(line)
            return
        self._own.append(line)
        if self._shows_output:
            self._output.append(line)
        if found := _JOB.match(line):
            self._job.jobid = self._job.jobid or found[1]
        if line.startswith(_EMPTY_REASONS):
            self._reasons[-1] = ""
        elif self._reasons[-1]:
            self._reasons[-1] = f"{self._reasons[-1]} {line.strip()}"[:400]

    def _distinct(self) -> list[_RuleJob]:
        """Return each failed job once: a job on a cluster is reported by two Snakemakes."""
        jobs: dict[tuple[str, str], _RuleJob] = {}
        for job in self._failed:
            start = self._started.get((job.rule, job.output or job.jobid))
            if start and start.rule == job.rule:
                job.wildcards, job.output = start.wildcards, job.output or start.output
                job.logs = job.logs or start.logs
            known = jobs.setdefault((job.rule, job.output or job.jobid), job)
            known.logs = known.logs or job.logs
            known.shell = known.shell or job.shell
        return list(jobs.values())

    def _result(self, job: _RuleJob) -> FailedRule:
        code, signal = next(
            (
                (code, signal)
                for command, code, signal in self._ended
                if job.shell and command.endswith(job.shell)
            ),
            ("", ""),
        )
        return FailedRule(
            rule=job.rule,
            about=(job.wildcards or job.output.split(", ")[0])[:200],
            logs=tuple(name[:300] for name in job.logs),
            exit_code=int(code) if code else None,
            signal=signal,
        )


def _squeezed(lines: list[str]) -> str:
    return " ".join(" ".join(lines).split())
