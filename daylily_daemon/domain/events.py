"""What happens to worksets: everything that ``lifecycle.decide`` decides on."""

from __future__ import annotations

from dataclasses import dataclass

from daylily_daemon.domain.model import Command, Inspection, JobName, Outcome
from daylily_daemon.domain.remarks import Remarks


@dataclass(frozen=True, slots=True)
class Asked:
    """Somebody wants something of the workset: a command at the door."""

    command: Command


@dataclass(frozen=True, slots=True)
class Commanded:
    """The holder of the workset obeys a command from its inbox."""

    command: Command


@dataclass(frozen=True, slots=True)
class Inspected:
    inspection: Inspection


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """A daemon takes the workset: a ready one to start it, one in progress to adopt its job."""

    owner: str
    key: str
    """Of the attempt it may begin: see ``Run.key``."""
    runner: str
    scope: str
    data_dir: str
    """Under it lies one folder per workset, and in that one a run's data."""
    jobs_dir: str
    """The same for tokens, logs and exit records; a local disk."""
    ttl_s: float
    sees_job: bool = False
    """Whether the job of a workset in progress can be seen from here: same folder of tokens, same machine."""
    beside: bool = False
    """Whether that is in the folder of another daemon of this machine, where it stays."""


@dataclass(frozen=True, slots=True)
class JobExited:
    job: JobName
    outcome: Outcome
    fatal: bool = True


@dataclass(frozen=True, slots=True)
class JobRefused:
    """The job can never be started; it did not run."""

    job: JobName
    reason: str


@dataclass(frozen=True, slots=True)
class JobStopped:
    job: JobName


@dataclass(frozen=True, slots=True)
class InputNotChecked:
    """The input of a ready workset cannot be looked at now, for a reason of ours."""

    why: str


@dataclass(frozen=True, slots=True)
class Noted:
    """Something is to be seen in the item, if ``job`` is still what runs. Of a holder a sign of life too."""

    job: JobName | None
    remarks: Remarks


@dataclass(frozen=True, slots=True)
class LetGo:
    """The holder gives the lock back, with what it has seen last."""

    job: JobName | None
    remarks: Remarks


Event = (
    Asked
    | Commanded
    | Inspected
    | InputNotChecked
    | Claimed
    | JobExited
    | JobRefused
    | JobStopped
    | Noted
    | LetGo
)
