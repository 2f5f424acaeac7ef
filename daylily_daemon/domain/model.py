"""The values around worksets: what is asked for, planned, run and told. Everything here is frozen."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, NewType, assert_never

from daylily_daemon.domain.times import all_aware

WorksetId = NewType("WorksetId", str)
Fence = NewType("Fence", int)
"""Claim number of a workset; grows with every claim and is never reset."""
JobName = NewType("JobName", str)
"""``<workset id>.<attempt>.<step>``: one name per attempt and step, for ever."""

WORKSET_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,79}")
"""The one pattern of ids: safe in a path, an argv element, a job, tmux or queue group name."""

INBOX_LIMIT: Final = 20
WARNINGS_LIMIT: Final = 20
HISTORY_LIMIT: Final = 20
SEEN_LIMIT: Final = 20
MOST_LISTED: Final = 1000


class State(StrEnum):
    """Stored states. ``locked`` is shown for a claimed ready workset and never stored."""

    READY = "ready"
    IN_PROGRESS = "in_progress"
    COMPLETE = "complete"
    ERROR = "error"
    IGNORED = "ignored"
    RETRYING = "retrying"
    FAILED = "failed"
    CANCELED = "canceled"
    ARCHIVED = "archived"
    DELETED = "deleted"


class Priority(StrEnum):
    URGENT = "urgent"
    NORMAL = "normal"
    LOW = "low"

    @property
    def rank(self) -> int:
        """0 for urgent, 1 for normal, 2 for low: sorts as the index does."""
        match self:
            case Priority.URGENT:
                return 0
            case Priority.NORMAL:
                return 1
            case Priority.LOW:
                return 2
            case _:
                assert_never(self)


class Category(StrEnum):
    """Why something failed, as far as it decides what to do next."""

    TRANSIENT = "transient"
    RESOURCE = "resource"
    CONFIGURATION = "configuration"
    DATA = "data"
    PERMANENT = "permanent"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with what a lab sent, in words for the person who can fix it."""

    file: str
    where: str
    """Line, key or column: ``line 3``, ``key dy-r``, ``line 7, column R1_FQ``; may be empty."""
    what: str
    """What was found and what was expected."""
    todo: str
    """What to do now, as a sentence."""
    category: Category = Category.DATA

    def __str__(self) -> str:
        place = f"{self.file}, {self.where}" if self.where else self.file
        return f"{place}: {self.what} {self.todo}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is going to be run: the checked recipe, frozen into the workset's item."""

    pipeline: str
    steps: tuple[str, ...]
    """Their names, in the order in which they run."""
    optional: tuple[str, ...] = ()
    """Those whose failure is recorded while the run goes on."""
    own: tuple[str, ...] = ()
    """Those that this program does itself: where our rights are missing there, it uses up no try."""
    results_required: bool = False
    """Whether an export of no file at all is a failure, as the pipeline says."""
    run_args: tuple[str, ...] = ()
    """Argument list after ``dy-r``, split once by POSIX shell rules; never joined into a shell string."""
    clone_args: tuple[str, ...] = ()
    workdir_name: str = ""
    export_uri: str = ""
    """``s3://bucket/prefix/`` with a closing slash."""
    cluster_name: str = ""
    reference_genome: str = ""
    samples: int = 0
    """Rows of the sample sheet."""
    pin: str = ""
    """What exactly was checked (``domain/pins.py``): recipe, sheet and inputs, and stage refuses any other.
    Empty in plans made before there were pins."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The input is good: run it by this plan."""

    plan: Plan
    max_retries: int | None = None
    priority: str | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Missing:
    """Files that are not there yet; they may still be on their way."""

    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """Running this would fail later, for reasons the lab can fix."""

    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class Unwanted:
    """Whoever dropped it says, with ``sentinel``, that it is not to be run."""

    sentinel: str


Inspection = Accepted | Missing | Refused | Unwanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Submit:
    """Run what lies under ``s3://bucket/prefix``."""

    bucket: str
    prefix: str
    """Ends with a slash."""
    customer_id: str = ""
    priority: Priority | None = None
    """None leaves the priority of a known workset alone; a new one becomes normal."""
    problem: Problem | None = None
    """Set where the drop itself is unusable (a folder name that is no id): park it, visibly."""
    sentinel: str = ""
    """Which write of ``daylily.ready`` this answers (``naming.trigger_id``); empty if nobody wrote one."""
    order: str = ""
    """Greater with each write that ``sentinel`` cannot tell apart: two of one content in one second, in a
    bucket without versions. Empty where nobody knows."""
    rerun_of: str = ""
    """The workset whose files were copied to make this one; empty for what a lab dropped."""
    dropped_at: datetime | None = None
    """When that was written, by the clock of S3, which knows seconds; None if nobody wrote one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    from_start: bool = False
    """Run every step again instead of resuming at the one that failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostLost:
    """Somebody vouches that nothing of a run in progress runs any more, for example because its machine no
    longer exists. It counts only where no daemon can see the job: out of reach, or ``unclear``. Of a workset
    that is not in progress it is a retry."""

    from_start: bool = False
    """As in Retry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ignore:
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetPriority:
    priority: Priority


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """Put aside what has come to its end: a list leaves it out, and nothing starts it."""

    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restore:
    """Bring an archived workset back into the state it was archived in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    """Give up an archived workset for good. Its name stays taken, its item and its trail are kept."""

    reason: str = ""


Ask = Submit | Cancel | Retry | HostLost | Ignore | SetPriority | Archive | Restore | Delete


class CommandEffect(StrEnum):
    """What became of a command."""

    APPLIED = "applied"
    QUEUED = "queued"
    """It lies in the inbox of a run; its owner answers it."""
    NONE = "none"
    """It does not fit the state of its workset."""
    REFUSED = "refused"
    """Whoever asked may not ask this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What is remembered of a command for ever, so that a repeat changes nothing and people can read it."""

    command_id: str
    effect: CommandEffect
    text: str
    """A sentence, the one in the audit trail."""
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What somebody wants of one workset; applying the same ``id`` twice changes nothing."""

    id: str
    workset_id: WorksetId
    by: str
    """Who asked, for the audit trail: ``s3``, ``sweep``, ``cli:<user>@<host>``."""
    ask: Ask


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """One line of the item's bounded ``state_history``."""

    state: State
    at: datetime
    reason: str = ""


class RecordType(StrEnum):
    """Event types of the audit trail; the first four are those notifications know."""

    STATE_CHANGE = "state_change"
    ERROR = "error"
    COMPLETION = "completion"
    LOCK_TIMEOUT = "lock_timeout"
    STEP = "step"
    COMMAND = "command"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One audit event. Never rewritten; only ``owed`` shrinks as channels deliver."""

    workset_id: WorksetId
    seq: int
    """1, 2, 3 … per workset; written under this number at most once."""
    at: datetime
    type: RecordType
    state: State
    previous: State | None = None
    message: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    priority: Priority = Priority.NORMAL
    customer_id: str = ""
    cluster_name: str = ""
    bucket: str = ""
    prefix: str = ""
    error_details: str = ""
    by: str = ""
    notify: bool = False
    """Whether channels may be told; which of them is the routing's decision."""
    owed: frozenset[str] = frozenset()
    """Channels that still have to be told."""
    given_up: frozenset[str] = frozenset()
    """Channels that refused for good, or did not answer for the stated age."""
    teller: str = ""
    """The daemon that delivers what is owed; another takes over only what stands still."""

    @property
    def id(self) -> str:
        """Fixed for ever, so that receivers can drop a repeat: ``<workset id>/<seq>``."""
        return f"{self.workset_id}/{self.seq}"


class Ended(StrEnum):
    """How a job ended."""

    EXITED = "exited"
    SIGNALLED = "signalled"
    TIMED_OUT = "timed_out"
    STOPPED = "stopped"
    OUT_OF_MEMORY = "out_of_memory"
    LOST = "lost"
    """Its shim died without leaving a record, and nothing of it runs."""
    HOST_LOST = "host_lost"
    """The machine restarted under it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobUsage:
    """What a job used, as far as its machine could tell. None where it could not."""

    cpu_s: float | None = None
    """Processor time of all its processes that ended before it did, in seconds."""
    peak_bytes: int | None = None
    """The most memory it had at one time, where it ran in a unit of its own; else that of its largest
    process."""
    memory_kills: int | None = None
    """Processes that the kernel ended for want of memory while it ran, of it or beside it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What is known for certain about a job that ended."""

    ended: Ended
    code: int | None = None
    """Exit code, or the number of the signal for ``SIGNALLED``."""
    success_file_found: bool | None = None
    """None where the step names no success file."""
    tail: str = ""
    """The last lines of the log, bounded."""
    report: Mapping[str, Any] = field(default_factory=dict)
    """The step's JSON report file, where it names one; bounded."""
    duration_s: float = 0.0
    usage: JobUsage | None = None
    """None where its record is of a version that did not measure it, or there is none."""
    warnings: tuple[str, ...] = ()
    """What people should know although it ended as it should: processes left behind, output lost. Bounded."""

    @property
    def succeeded(self) -> bool:
        return (
            self.ended is Ended.EXITED and self.code == 0 and self.success_file_found is not False
        )


@dataclass(frozen=True, slots=True)
class Progress:
    fraction: float | None
    """0.0 to 1.0."""
    message: str
    output_at: datetime | None = None
    """When its log was last written to, as far as anybody has looked; None before there is a log."""

    def __post_init__(self) -> None:
        """Raises ValueError."""
        all_aware(self.output_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Everything a runner needs to start one step, rendered."""

    name: JobName
    directory: str
    """Absolute; holds token, log and exit record of this job alone."""
    scope: str = ""
    """What its run was begun under; empty for the runner's own."""
    key: str = ""
    """That of its run: a token with another one was left by another attempt of the same name."""
    step: str
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    """Added to the filtered environment of the daemon; no secrets (it is written to disk)."""
    cwd: str = ""
    """Created if missing; the job directory if empty."""
    run_dir: str = ""
    """The folder of its run's data, which it shares with the other steps."""
    timeout_s: float = 86_400.0
    grace_s: float = 30.0
    """Between the polite signal and the hard one."""
    success_file: str = ""
    """Relative to ``cwd``; must exist for the job to count as a success."""
    report_file: str = ""
    """Relative to ``cwd``; a small JSON object the job leaves for the workset's metrics."""
    progress_pattern: str = ""
    """Regular expression with a group ``percent``, or ``done`` and ``total``; last match counts."""
    log_limit_bytes: int = 64 * 1024 * 1024
    confirmed: bool = False
    """Its start was seen earlier: a token that is not found now means unknown, never a job to start."""
