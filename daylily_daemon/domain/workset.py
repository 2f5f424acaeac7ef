"""A workset: what was asked for, in which state that is, who holds it, and its run.

It is what one DynamoDB item says; ``version`` and ``fence`` travel with it, so that a write can prove what it
was decided on. Attribute names that readers of the old system know (``docs/operations.md``) are given by the
codec in the store, not here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from daylily_daemon.domain.model import (
    Category,
    Command,
    Fence,
    JobName,
    Plan,
    Priority,
    State,
    Transition,
    WorksetId,
)
from daylily_daemon.domain.run import Run, StepRun


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What was submitted, and by which trigger."""

    bucket: str
    prefix: str
    """Ends with a slash."""
    submitted_at: datetime | None = None
    """When it last became ready by a submission; input files are awaited from here on."""
    customer_id: str = ""
    workset_type: str = "ruo"
    metadata: Mapping[str, Any] = field(default_factory=dict)
    sentinel: str = ""
    """Which write of ``daylily.ready`` was answered last (``naming.trigger_id``)."""
    sentinel_order: str = ""
    """As ``Submit.order``, of that write."""
    rerun_of: str = ""
    """As in Submit."""
    dropped_at: datetime | None = None
    """As in Submit, of that write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """Who works on a workset. The times are for people: nobody decides by them."""

    owner: str
    acquired_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why the last attempt failed, or why the input was refused."""

    code: str
    category: Category
    details: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Workset:
    id: WorksetId
    request: Request
    created_at: datetime
    updated_at: datetime
    priority: Priority = Priority.NORMAL

    state: State = State.READY
    plan: Plan | None = None
    """None until the input was checked; admission looks only at worksets that have one."""
    waiting_for: str = ""
    """Why the input of a ready workset is not checked yet, as a sentence."""
    warnings: tuple[str, ...] = ()
    """What people should know although nothing failed. Bounded; of this submission."""

    lock: Lock | None = None
    fence: Fence = Fence(0)  # noqa: RUF009  a number
    beat: int = 0
    """Grows with every write of an owner; a contender watches it stand still for a whole TTL."""
    version: int = 0

    attempt: int = 0
    """How many attempts there were: grows with every one and is never reset, so job names are unique."""
    run: Run | None = None
    """The present or last run; None before the first one, and when it is to begin anew."""
    failure: Failure | None = None
    retry_count: int = 0
    max_retries: int | None = None
    """From the recipe; None takes the configured limit."""
    retry_after: datetime | None = None

    inbox: tuple[Command, ...] = ()
    seen_commands: tuple[str, ...] = ()
    history: tuple[Transition, ...] = ()
    last_seq: int = 0

    @property
    def owner(self) -> str | None:
        """Return the daemon that holds it, None if nobody does."""
        return self.lock.owner if self.lock else None

    @property
    def step(self) -> StepRun | None:
        """Return the step that is to run now; None but in progress."""
        return self.run.current if self.run and self.state is State.IN_PROGRESS else None

    @property
    def job(self) -> JobName | None:
        """Return the job that is to run now, None but in progress."""
        step = self.step
        return JobName(f"{self.id}.{self.attempt}.{step.name}") if step else None

    @property
    def error_details(self) -> str:
        """Return why it failed, empty if it has not."""
        return self.failure.details if self.failure else ""

    @property
    def scope(self) -> str:
        """Return who can see the job that is to run now; empty but in progress."""
        step = self.step
        return step.scope if step else ""

    @property
    def trouble(self) -> str:
        return self.run.trouble if self.run else ""

    @property
    def unclear(self) -> bool:
        return self.run is not None and self.run.unclear

    @property
    def cluster_name(self) -> str:
        """Return the cluster it asks for; empty if any will do, or nobody has looked yet."""
        return self.plan.cluster_name if self.plan else ""

    @property
    def results_uri(self) -> str:
        """Return where its results are, or will be as planned."""
        told = self.run.results_uri if self.run else ""
        return told or (self.plan.export_uri if self.plan else "")

    @property
    def priority_key(self) -> str:
        """Range key of the index: urgent first, then first in, first out."""
        return f"{self.priority.rank}#{self.created_at.isoformat()}#{self.id}"

    @property
    def state_key(self) -> str:
        """Range key of the index of one customer's worksets: by state, then as in ``priority_key``."""
        return f"{self.state}#{self.priority_key}"

    @property
    def state_since(self) -> datetime:
        """Return when it came into its state; an item without a history tells when it changed last."""
        last = self.history[-1] if self.history else None
        return last.at if last and last.state is self.state else self.updated_at

    @property
    def shown_state(self) -> str:
        return "locked" if self.state is State.READY and self.lock else str(self.state)
