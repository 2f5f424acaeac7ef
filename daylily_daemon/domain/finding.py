"""What a check of ``doctor`` found, as a value: how it is, in a sentence, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from daylily_daemon.domain.problems import HealthProblem, Severity


class CheckName(StrEnum):
    """The checks, in the order in which they are told."""

    SETTINGS = "settings"
    CREDENTIALS = "credentials"
    RIGHTS = "rights"
    TABLES = "tables"
    BUCKET = "bucket"
    QUEUES = "queues"
    CLOCK = "clock"
    DISKS = "disks"
    RUNNER = "runner"
    CHANNELS = "channels"
    VERSIONS = "versions"


class Grade(StrEnum):
    OK = "ok"
    WARN = "warn"
    UNKNOWN = "unknown"
    """It could not be told; nothing is concluded from that."""
    FAIL = "FAIL"


WORSE: Final = tuple(Grade)
"""Each is worse than those before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    grade: Grade
    text: str
    """A sentence."""
    remedy: str = ""
    """What to do, as a sentence; empty where ``command`` says it all, or nothing is to be done."""
    command: str = ""
    """As it is typed."""


def ok(text: str) -> CheckResult:
    return CheckResult(grade=Grade.OK, text=text)


def worst(findings: Iterable[CheckResult]) -> Grade:
    """Return how bad it is as a whole; nothing found is good."""
    return max((found.grade for found in findings), key=WORSE.index, default=Grade.OK)


def finding_of(problem: HealthProblem) -> CheckResult:
    """Return what ``status`` calls a problem as a check tells it."""
    fails = problem.severity is Severity.PROBLEM
    return CheckResult(
        grade=Grade.FAIL if fails else Grade.WARN,
        text=problem.sentence,
        remedy=problem.remedy,
        command=problem.command,
    )
