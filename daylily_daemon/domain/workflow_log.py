"""What a workflow manager says in a job's log, told apart from what its tools wrote.

A manager prints names: of rules, samples, files, whole commands. None of that is a tool's report of an
error, though it may look like one (``logs/bwa/failed.log``). Reading is linear in the text, and what is kept
is bounded.
"""

from __future__ import annotations

from dataclasses import dataclass, field

MAX_FAILED = 100
"""Most failed rules that are kept of one log."""
FAILURES = ("Error in rule ", "Error in group ", "Error executing process > ")
"""How a manager begins to report a failure."""
MAX_LINE = 2_000
"""Characters of a line that are looked at."""
_TOLD = 4
_LOGS_TOLD = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedRule:
    """One job of a workflow (a rule or process, for one sample) that failed for good."""

    rule: str
    about: str = ""
    """What it worked on: ``sample=HG002, lane=L001``, a tag, or its first output; may be empty."""
    logs: tuple[str, ...] = ()
    """Its log files, as the manager names them."""
    exit_code: int | None = None
    signal: str = ""
    """``SIGKILL`` and the like, where a signal ended it."""

    def __str__(self) -> str:
        return f"{self.rule} ({self.about})" if self.about else self.rule


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowLog:
    output: str
    """What tools wrote, with what the manager shows of their logs; all of it where there is no manager."""
    own: str = ""
    """What the manager says by itself, without the commands it prints."""
    failed: tuple[FailedRule, ...] = field(default=())
    reason: str = ""
    """What the manager reports besides the failure of a command, in one line."""
    unit: str = "rule"
    """What the manager calls a kind of job."""

    def told(self) -> str:
        """Return what failed as the middle of a sentence; empty if no rule did."""
        if not self.failed:
            return ""
        first, *others = self.failed
        text = f"{self.unit} {first} failed"
        if first.signal:
            text += f", ended by {first.signal}"
        elif first.exit_code is not None:
            text += f" with exit code {first.exit_code}"
        if others:
            text += f"; so did {', '.join(map(str, others[:_TOLD]))}"
        if len(others) > _TOLD:
            text += f" and at least {len(others) - _TOLD} more"
        return text

    def where(self) -> str:
        """Return where to look, as a sentence; empty if the manager names no file."""
        logs = [name for job in self.failed for name in job.logs]
        return f"See {' and '.join(logs[:_LOGS_TOLD])}." if logs else ""
