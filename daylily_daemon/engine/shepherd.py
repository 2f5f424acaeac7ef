"""Drive one workset, inside its term, until it leaves ``in_progress``.

Events go to ``decide`` through the term, which saves before anything is done; effects run as tasks and
come back as events. Cancelling the shepherd cancels tasks, never jobs: a job is stopped by StopJob alone.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar, assert_never

import structlog
from anyio import create_memory_object_stream, create_task_group, sleep
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from daylily_daemon.domain.decision import Effect, RunJob, StopJob
from daylily_daemon.domain.errors import LeaseLost, Permanent, Transient
from daylily_daemon.domain.lifecycle import Commanded, Event, JobExited, JobRefused, JobStopped
from daylily_daemon.domain.model import Command, Job, JobName, State, Workset
from daylily_daemon.domain.pipeline import Value, render, time_for
from daylily_daemon.engine.dials import Live
from daylily_daemon.engine.lease import Term
from daylily_daemon.ports import Runner

T = TypeVar("T")
log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Shepherd:
    runners: Mapping[str, Runner]
    live: Live
    pause_s: float = 2.0
    """Before a call of unknown outcome is made again."""

    async def drive(self, term: Term, effects: tuple[Effect, ...]) -> None:
        """Return once the workset is no longer in progress. Raises Fenced and LeaseLost, in a group."""
        send, receive = create_memory_object_stream[Event](math.inf)
        with send, receive, term.trusted:
            async with create_task_group() as tg:
                tg.start_soon(term.keep)
                await _Watch(self, term, tg, send, receive).follow(effects)
                tg.cancel_scope.cancel()
        if term.trusted.cancelled_caught:
            raise LeaseLost(f"{term.workset.id}: the store did not answer in time")

    def stop_job(self, ws: Workset) -> Job:
        """Return what a runner needs to find and stop the current job."""
        step = ws.step
        if step is None or ws.job is None:
            raise Permanent(f"{ws.id} has no job to stop.")
        return Job(name=ws.job, directory=ws.job_dir, step=step, argv=())

    def run_job(self, ws: Workset) -> tuple[Job, bool]:
        """Render the current job; the flag says whether its failure ends the run. Raises Permanent."""
        dials = self.live.now
        name = ws.plan.pipeline if ws.plan else ""
        pipeline = dials.pipelines.get(name)
        template = pipeline.template(ws.step) if pipeline and ws.step else None
        if pipeline is None or template is None or ws.job is None:
            raise Permanent(
                f"Pipeline {name!r} has no step {ws.step} any more; restore it in the pipelines "
                "folder, reload, and retry the workset."
            )
        job = render(template, values_of(ws, dials.values), ws.job, ws.job_dir)
        environment = {**dials.environment, **job.environment}
        grace_s = job.grace_s if dials.grace_s is None else dials.grace_s
        timeout_s = time_for(pipeline, template, ws.spent_s)
        job = replace(job, environment=environment, grace_s=grace_s, timeout_s=timeout_s)
        return job, template.fatal


def values_of(ws: Workset, general: Mapping[str, Value]) -> dict[str, Value]:
    """Return the placeholder values of one workset."""
    plan = ws.plan
    if plan is None:
        raise Permanent(f"{ws.id} has no checked plan; retry it.")
    return {
        **general,
        "workset": ws.id,
        "customer": ws.customer_id or "unassigned",
        "bucket": ws.bucket,
        "prefix": ws.prefix,
        "input_uri": f"s3://{ws.bucket}/{ws.prefix}",
        "export_uri": plan.export_uri,
        "stage_dir": f"{ws.run_dir}/stage",
        "work_dir": f"{ws.run_dir}/work",
        "results_dir": f"{ws.run_dir}/work/results",
        "jobs_dir": ws.jobs_dir,
        "run_args": plan.run_args,
        "clone_args": plan.clone_args,
        "workdir_name": plan.workdir_name,
        "cluster_name": ws.cluster_name,
        "reference_genome": plan.reference_genome,
        "run_id": ws.run_id,
        "attempt": str(ws.attempt),
    }


@dataclass(slots=True)
class _Watch:
    """The moving parts of one drive."""

    shepherd: Shepherd
    term: Term
    tg: TaskGroup
    send: MemoryObjectSendStream[Event]
    receive: MemoryObjectReceiveStream[Event]

    async def follow(self, effects: tuple[Effect, ...]) -> None:
        busy: set[Effect] = set()
        handed: set[str] = set()

        def hand_over(command: Command) -> None:
            if command.id not in handed:
                handed.add(command.id)
                self.send.send_nowait(Commanded(command))

        self.term.on_command = hand_over
        for command in self.term.workset.inbox:
            hand_over(command)
        self._start(effects, busy)
        async for event in self.receive:
            dials = self.shepherd.live.now
            todo = await self.term.apply(event, dials.policy, dials.routing)
            if self.term.workset.state is not State.IN_PROGRESS:
                return
            self._start(tuple(todo), busy)

    def _start(self, effects: tuple[Effect, ...], busy: set[Effect]) -> None:
        for effect in effects:
            if effect not in busy:
                busy.add(effect)
                self.tg.start_soon(self._run, effect, self.term.workset)

    async def _run(self, effect: Effect, ws: Workset) -> None:
        match effect:
            case RunJob(job=job):
                await self._run_job(job, ws)
            case StopJob(job=job):
                await self._stop_job(job, ws)
            case _:
                assert_never(effect)

    async def _stop_job(self, name: JobName, ws: Workset) -> None:
        try:
            runner = _runner_of(self.shepherd.runners, ws)
            await self._until_answered(partial(runner.stop, self.shepherd.stop_job(ws)))
        except Permanent as exc:
            await self.send.send(JobRefused(name, str(exc)))
        else:
            await self.send.send(JobStopped(name))

    async def _run_job(self, name: JobName, ws: Workset) -> None:
        try:
            runner = _runner_of(self.shepherd.runners, ws)
            job, fatal = self.shepherd.run_job(ws)
            await self._until_answered(partial(runner.ensure, job))
        except Permanent as exc:
            await self.send.send(JobRefused(name, str(exc)))
            return
        async with create_task_group() as looking:
            looking.start_soon(self._look, runner, job)
            outcome = await self._until_answered(partial(runner.wait, job))
            looking.cancel_scope.cancel()
        await self.send.send(JobExited(name, outcome, fatal))

    async def _look(self, runner: Runner, job: Job) -> None:
        last = None
        while True:
            await sleep(self.shepherd.live.now.look_s)
            progress = await self._until_answered(partial(runner.progress, job))
            if progress is not None and progress != last:
                last = progress
                self.term.note(progress)

    async def _until_answered(self, call: Callable[[], Awaitable[T]]) -> T:
        """Repeat a call whose outcome is unknown, under the same name; the term bounds how long."""
        while True:
            try:
                return await call()
            except Transient as exc:
                log.warning("unanswered", workset=self.term.workset.id, error=str(exc))
                await sleep(self.shepherd.pause_s)


def _runner_of(runners: Mapping[str, Runner], ws: Workset) -> Runner:
    runner = runners.get(ws.runner)
    if runner is None:
        raise Permanent(f"The runner {ws.runner!r} of this run is not set up on this daemon.")
    return runner
