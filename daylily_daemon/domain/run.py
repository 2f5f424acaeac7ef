"""A run: the steps of a pipeline, one after another, and how far they are.

A run is one value. It begins with a claim, goes on over attempts from the first step that is not done, and
is dropped whole when a workset begins anew, so that nothing of it can be forgotten or left behind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from daylily_daemon.domain.model import JobUsage, Outcome, Progress
from daylily_daemon.domain.times import all_aware


class StepEnd(StrEnum):
    DONE = "done"
    TOLERATED = "tolerated"
    """It failed, and the run went on."""
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRun:
    """One step of a run, before, while and after it runs."""

    name: str
    """As the pipeline file has it."""
    fatal: bool = True
    """Whether the run ends if it fails, as planned."""
    runner: str = ""
    scope: str = ""
    """Who can see its job: the folder and its machine for processes and tmux, the cluster for Slurm."""
    place: str = ""
    """The folder of its job: token, log, exit record."""
    started_at: datetime | None = None
    seconds: float | None = None
    """How long it took, by its shim's clock."""
    limit_s: float | None = None
    """How long it may take, as it was started with; None until its start was seen."""
    grace_s: float | None = None
    """As ``limit_s``: between the polite signal and the hard one, after its limit or a cancel."""
    usage: JobUsage | None = None
    """None until it has ended."""
    end: StepEnd | None = None
    """None until it has ended."""

    def __post_init__(self) -> None:
        """Raises ValueError."""
        all_aware(self.started_at)

    @property
    def is_done(self) -> bool:
        return self.end in (StepEnd.DONE, StepEnd.TOLERATED)


NOTHING_YET = Progress(fraction=None, message="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    id: str
    """Names the folder of its data; attempts that go on with it keep it."""
    attempt: int
    """The number of the present or last one, in all runs of the workset."""
    key: str
    """Random, of this attempt alone and stored before anything is started: a token with another one is of
    another attempt, whatever its name says. Empty in runs that were begun before there were keys."""
    folder: str
    """Holds the data: stage, work and results folders."""
    steps: tuple[StepRun, ...]
    started_at: datetime | None = None
    """The present or last attempt."""
    stopping: str = ""
    """Why the job is being stopped; not empty from an accepted cancel to its end."""
    stopping_at: datetime | None = None
    """Since when."""
    progress: Progress = NOTHING_YET
    """Of the current step."""
    trouble: str = ""
    """Why it does not go on, as a sentence of a daemon; empty while nothing is in the way."""
    unclear: bool = False
    """Whether its job lives cannot be told: it waits for proof, or for who vouches (``HostLost``)."""
    confirmed: str = ""
    """Name of the job whose start was seen last; absence of its token is no proof that it never ran."""
    reports: Mapping[str, Any] = field(default_factory=dict)
    """What the jobs reported. Foreign: bounded in size, depth and keys, and no decision is based on it."""
    results_uri: str = ""
    """Where the export says that it has put the results; empty until it has said so."""
    results_files: int | None = None
    """How many files it says those are; None where it does not say."""
    results_bytes: int | None = None
    """Their size together, as ``results_files``."""

    def __post_init__(self) -> None:
        """Raises ValueError."""
        all_aware(self.started_at, self.stopping_at)

    @property
    def jobs_dir(self) -> str:
        """Return the folder that holds one folder per job, named ``<attempt>-<step>``."""
        return self.steps[-1].place.rpartition("/")[0] if self.steps else ""

    @property
    def current(self) -> StepRun | None:
        """Return the step that is to run now; None where one has failed or was stopped, or all are done."""
        for step in self.steps:
            if not step.is_done:
                return step if step.end is None else None
        return None

    @property
    def latest(self) -> StepRun | None:
        """Return the step that is to run now, else the one that ended last; None before there are steps."""
        ended = [step for step in self.steps if step.end]
        return self.current or next(reversed(ended), None)

    @property
    def failed(self) -> StepRun | None:
        return next((step for step in self.steps if step.end is StepEnd.FAILED), None)

    @property
    def spent_s(self) -> float:
        """Return how long the steps that are done took."""
        return sum(step.seconds or 0.0 for step in self.steps)

    def entered(self, now: datetime) -> Run:
        """Return the run at the start of its current step."""
        return self._with(started_at=now)

    def left(self, end: StepEnd, outcome: Outcome | None = None) -> Run:
        """Return the run after its current step: nothing of it runs, and what was seen of it is over."""
        known = {"seconds": round(outcome.duration_s, 3), "usage": outcome.usage} if outcome else {}
        return replace(
            self._with(end=end, **known),
            progress=NOTHING_YET,
            trouble="",
            unclear=False,
            stopping="",
            stopping_at=None,
        )

    def limited(self, limit_s: float, grace_s: float) -> Run:
        """Return the run with the limits that its current step was started with, which never change."""
        if self.current is None or self.current.limit_s is not None:
            return self
        return self._with(limit_s=limit_s, grace_s=grace_s)

    def quiet_s(self, now: datetime) -> float:
        """Return how long nothing was added to the log, in seconds; 0 where nothing is known of it."""
        at = self.progress.output_at
        return max(0.0, (now - at).total_seconds()) if at else 0.0

    def ends_at(self) -> datetime | None:
        """Return when nothing of the current step should run any more; None where nobody knows.

        That is after its limit, or after the order to stop, and the grace that follows either.
        """
        step = self.current
        if step is None or step.grace_s is None:
            return None
        grace = timedelta(seconds=step.grace_s)
        if self.stopping_at is not None:
            return self.stopping_at + grace
        if step.started_at is None or step.limit_s is None:
            return None
        return step.started_at + timedelta(seconds=step.limit_s) + grace

    def seen_from(self, scope: str, jobs_dir: str) -> Run:
        """Return the run with the places of what is still to end: its folder of jobs may have been moved."""
        steps = tuple(
            step if step.end else replace(step, scope=scope, place=_moved(step.place, jobs_dir))
            for step in self.steps
        )
        return replace(self, steps=steps)

    def _with(self, **changes: Any) -> Run:
        current = self.current
        if current is None:
            return self
        changed = replace(current, **changes)
        steps = tuple(changed if step is current else step for step in self.steps)
        return replace(self, steps=steps)


def _moved(place: str, jobs_dir: str) -> str:
    return f"{jobs_dir}/{place.rpartition('/')[2]}"
