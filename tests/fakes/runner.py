"""A runner without processes: jobs last as long as their script says, on the event loop's clock.

What happened is kept in a ``MemoryMachine``, so that several runners, one a daemon, see the same jobs, and
a daemon that dies loses nothing of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

import anyio
from anyio import lowlevel

from daylily_daemon.adapters.host import SystemClock
from daylily_daemon.domain.errors import Permanent, Transient, Unclear
from daylily_daemon.domain.model import Ended, Job, JobName, Outcome, Progress
from daylily_daemon.domain.run import NOTHING_YET

SUCCESS: Final = Outcome(ended=Ended.EXITED, code=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What a job does when it is left alone."""

    duration_s: float = 1.0
    outcome: Outcome = SUCCESS
    progress: tuple[Progress, ...] = ()
    """Shown one after the other, evenly over the duration, the first one from the start."""
    stop_s: float = 0.0
    """How long it takes to end when it is asked to."""


@dataclass(slots=True, kw_only=True)
class _Run:
    key: str
    script: Script
    started_at: float
    ends_at: float
    wrote_at: datetime
    outcome: Outcome
    """What it will have been from ``ends_at`` on."""
    changed: anyio.Event = field(default_factory=anyio.Event)

    def has_ended(self) -> bool:
        return anyio.current_time() >= self.ends_at

    def end_early(self, ended: Ended, after_s: float) -> None:
        at = anyio.current_time() + after_s
        if at < self.ends_at:
            self.ends_at = at
            self.outcome = Outcome(ended=ended, duration_s=at - self.started_at)
            changed, self.changed = self.changed, anyio.Event()
            changed.set()

    async def until_ended(self) -> Outcome:
        while not self.has_ended():
            with anyio.CancelScope(deadline=self.ends_at):
                await self.changed.wait()
        return self.outcome


class MemoryMachine:
    """The world of the jobs. ``play`` says what each job does; ``starts`` is every start there was."""

    def __init__(
        self,
        play: Callable[[Job], Script] = lambda _: Script(),
        now: Callable[[], datetime] | None = None,
    ) -> None:
        self._play = play
        self._now = now or SystemClock().now
        self._runs: dict[JobName, _Run] = {}
        self._revoked: set[JobName] = set()
        self.starts: list[JobName] = []

    def running(self) -> frozenset[JobName]:
        return frozenset(name for name, run in self._runs.items() if not run.has_ended())

    def restart(self) -> None:
        """Lose the machine under every job that runs."""
        for run in self._runs.values():
            run.end_early(Ended.HOST_LOST, 0.0)

    def start(self, job: Job) -> None:
        """Start ``job`` unless it ever was. Raises Permanent if it was revoked."""
        if self.was_revoked(job):
            raise Permanent(f"Job {job.name} was revoked before it started; it will never run.")
        if job.name not in self._runs:
            self._runs[job.name] = _run(job, self._play(job), self._now())
            self.starts.append(job.name)

    def others_of(self, job: Job) -> list[JobName]:
        """Return what runs of the same workset under another name."""
        workset = job.name.split(".", 1)[0]
        return [n for n in self.running() if n.split(".", 1)[0] == workset and n != job.name]

    def forget(self, name: JobName) -> None:
        """Lose every trace of a job whose start was seen, as a restored backup does; it runs on."""
        self._runs.pop(name)

    def run_of(self, job: Job) -> _Run | None:
        """Return what was started under this name. Raises Unclear if another attempt started it."""
        run = self._runs.get(job.name)
        if run is not None and job.key and run.key not in ("", job.key):
            raise Unclear(f"Job {job.name} was started by another attempt of this name.")
        return run

    def outcome_of(self, name: JobName) -> Outcome | None:
        """Return how a job that has ended did so."""
        run = self._runs.get(name)
        return run.outcome if run is not None and run.has_ended() else None

    def was_revoked(self, job: Job) -> bool:
        return job.name in self._revoked

    def revoke(self, job: Job) -> None:
        """See to it that ``job`` never starts, if it has not yet."""
        if job.name not in self._runs:
            self._revoked.add(job.name)


class MemoryRunner:
    def __init__(self, machine: MemoryMachine, *, machine_id: str = "memory") -> None:
        self._machine = machine
        self._machine_id = machine_id

    @property
    def scope(self) -> str:
        return f"host:{self._machine_id}"

    async def look(self, job: Job) -> None:
        await lowlevel.checkpoint()

    async def ensure(self, job: Job) -> None:
        await lowlevel.checkpoint()
        if not job.argv:
            self._machine.revoke(job)
        elif self._machine.run_of(job) is None and job.confirmed:
            raise Unclear(f"Job {job.name} was seen to start, and nothing is known of it now.")
        elif others := self._machine.others_of(job):
            raise Unclear(f"Job {job.name} must wait: {', '.join(sorted(others))} still runs.")
        self._machine.start(job)

    async def wait(self, job: Job) -> Outcome:
        await lowlevel.checkpoint()
        if self._machine.was_revoked(job):
            return Outcome(ended=Ended.STOPPED)
        run = self._machine.run_of(job)
        if run is None:
            raise Transient(f"Job {job.name} was never started; start it, or revoke it.")
        return await run.until_ended()

    async def progress(self, job: Job) -> Progress | None:
        await lowlevel.checkpoint()
        run = self._machine.run_of(job)
        if run is None:
            return None
        lasted = (anyio.current_time() - run.started_at) / max(run.script.duration_s, 1e-9)
        shown = run.script.progress or (NOTHING_YET,)
        return replace(shown[min(int(lasted * len(shown)), len(shown) - 1)], output_at=run.wrote_at)

    async def stop(self, job: Job) -> None:
        await lowlevel.checkpoint()
        run = self._machine.run_of(job)
        self._machine.revoke(job)
        if run is not None:
            run.end_early(Ended.STOPPED, run.script.stop_s)
            await run.until_ended()


def _run(job: Job, script: Script, wrote_at: datetime) -> _Run:
    now = anyio.current_time()
    lasts_s = min(script.duration_s, job.timeout_s)
    ended = script.outcome
    if script.duration_s > job.timeout_s:
        ended = Outcome(ended=Ended.TIMED_OUT)
    outcome = replace(ended, duration_s=lasts_s)
    return _Run(
        key=job.key,
        script=script,
        started_at=now,
        ends_at=now + lasts_s,
        wrote_at=wrote_at,
        outcome=outcome,
    )
