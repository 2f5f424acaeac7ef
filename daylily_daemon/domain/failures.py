"""Why a job failed, as far as it decides whether to try again.

The table holds the codes of the system this one replaces (WS-RES-001 and so on); operators put their own
patterns before it by configuration. The first pattern that matches the tail of the log wins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from daylily_daemon.domain.model import Category, Ended, Outcome
from daylily_daemon.domain.patterns import search


@dataclass(frozen=True, slots=True)
class FailurePattern:
    pattern: str
    """Regular expression, searched without regard to case in the last lines of the log."""
    code: str
    category: Category
    retry: bool
    meaning: str = ""
    ours: bool = False
    """Our own rights or credentials are missing: nobody's input is at fault, and it uses up no try."""


@dataclass(frozen=True, slots=True)
class Failure:
    code: str
    category: Category
    retry: bool
    message: str
    """A sentence for people: what ended how, and the telling line of the log."""
    ours: bool = False
    """Our own rights or credentials are missing: nobody's input is at fault, and it uses up no try."""


_R, _D, _T = Category.RESOURCE, Category.DATA, Category.TRANSIENT

KNOWN: Final = (
    FailurePattern(
        r"out of memory|oom[- ]?kill|cannot allocate memory|std::bad_alloc|MemoryError",
        "WS-RES-001", _R, True, "it ran out of memory",
    ),
    FailurePattern(
        r"no space left on device|disk quota exceeded", "WS-RES-002", _R, True, "a disk was full"
    ),
    FailurePattern(
        r"cpu time limit exceeded|due to time limit", "WS-RES-003", _R, True,
        "it used up its CPU time",
    ),
    FailurePattern(
        r"connection refused|connection reset by peer", "WS-NET-002", _T, True,
        "a connection was refused or cut",
    ),
    FailurePattern(
        r"(s3|amazonaws)\S*.{0,80}time[d ]?\s?out|RequestTimeout|Read timeout on endpoint",
        "WS-NET-001", _T, True, "S3 did not answer in time",
    ),
    FailurePattern(
        r"invalid fastq|truncated fastq|fastq.{0,60}(malformed|corrupt)|not in gzip format"
        r"|unexpected end of file|invalid compressed data",
        "WS-DAT-001", _D, False, "a FASTQ file is damaged",
    ),
    FailurePattern(
        r"MissingInputException|missing input files|no such file or directory.{0,120}\.f(ast)?q",
        "WS-DAT-002", _D, False, "an input file is missing",
    ),
    FailurePattern(
        r"invalid reference|reference.{0,40}(not found|does not exist)", "WS-DAT-003", _D, False,
        "the reference genome is not usable",
    ),
    FailurePattern(
        r"Throttling|SlowDown|Rate exceeded|TooManyRequests|RequestLimitExceeded", "WS-AWS-001",
        _T, True, "AWS asked for fewer requests",
    ),
    FailurePattern(
        r"ExpiredToken|token included in the request is (expired|invalid)|InvalidClientTokenId"
        r"|Unable to locate credentials|NoCredentialsError|InvalidAccessKeyId",
        "WS-AWS-003", Category.CONFIGURATION, True, "the AWS credentials of the job were not valid",
        ours=True,
    ),
    FailurePattern(
        r"AccessDenied|Access Denied|UnauthorizedOperation|not authorized to perform",
        "WS-AWS-002", Category.CONFIGURATION, True, "AWS refused access", ours=True,
    ),
    FailurePattern(
        r"NODE_FAIL|node failure", "WS-CLU-001", _T, True, "a node of the cluster failed"
    ),
    FailurePattern(
        r"(slurm|sbatch|srun): error", "WS-CLU-002", _T, True, "Slurm reported an error"
    ),
    FailurePattern(
        r"\[E::bwa|bwa.{0,40}(error|failed)", "WS-PIP-001", _T, True, "BWA reported an error"
    ),
    FailurePattern(
        r"org\.broadinstitute|gatk.{0,40}(error|exception)|A USER ERROR has occurred",
        "WS-PIP-002", _T, True, "GATK reported an error",
    ),
)  # fmt: skip

_UNTRIED: Final = {
    Ended.OUT_OF_MEMORY: ("WS-RES-001", _R, True, "was ended by the system: out of memory"),
    Ended.TIMED_OUT: ("WS-TIME-001", Category.PERMANENT, False, "reached its time limit"),
    Ended.LOST: ("WS-JOB-001", _T, True, "died together with its keeper and left no exit code"),
    Ended.HOST_LOST: ("WS-JOB-002", _T, True, "ended when its machine restarted"),
    Ended.STOPPED: ("WS-JOB-003", Category.PERMANENT, False, "was stopped from outside"),
}


def classify(outcome: Outcome, extra: tuple[FailurePattern, ...] = ()) -> Failure:
    """Return why ``outcome`` is no success. A failure no pattern knows is tried again."""
    if known := _UNTRIED.get(outcome.ended):
        code, category, retry, how = known
        return Failure(code, category, retry, f"It {how}.")
    how = _how(outcome)
    for entry in (*extra, *KNOWN):
        if found := search(entry.pattern, outcome.tail, ignore_case=True):
            line = _line_around(outcome.tail, found.start)
            meaning = entry.meaning or "the log shows a known error"
            message = f"It {how}; {meaning}: {line}"
            return Failure(entry.code, entry.category, entry.retry, message, ours=entry.ours)
    last = outcome.tail.strip().rsplit("\n", 1)[-1][:300]
    return Failure("WS-UNK-000", _T, True, f"It {how}. Last line of its log: {last or '(empty)'}")


def _how(outcome: Outcome) -> str:
    if outcome.ended is Ended.SIGNALLED:
        return f"was ended by signal {outcome.code}"
    if outcome.code == 0 and outcome.success_file_found is False:
        return "ended with exit code 0, but without its success file"
    return f"ended with exit code {outcome.code}"


def _line_around(text: str, position: int) -> str:
    start = text.rfind("\n", 0, position) + 1
    end = text.find("\n", position)
    return text[start : end if end >= 0 else len(text)].strip()[:300]
