"""Drive one workset, inside its term, until it leaves ``in_progress``.

Events go to ``decide`` through the term, which saves before anything is done; effects run as tasks and
come back as events. Cancelling the shepherd cancels tasks, never jobs: a job is stopped by StopJob alone.

A job that was started is found again by its name and described by what was stored when it started: it is
waited for whatever became of its pipeline file since. Trouble on the way is written into the item, so that
``explain`` says why a run does not go on, and after ``let_go_s`` of it a run that cannot be tended from here
is let go, for a daemon that can.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar, assert_never

import structlog
from anyio import create_task_group, current_time, sleep
from anyio.abc import TaskGroup

from daylily_daemon.domain.decision import Effect, RunJob, StopJob
from daylily_daemon.domain.errors import LeaseLost, Permanent, Transient, Unclear
from daylily_daemon.domain.events import Commanded, JobExited, JobRefused, JobStopped
from daylily_daemon.domain.model import Command, Job, JobName, State
from daylily_daemon.domain.pipeline import Pipeline, StepTemplate, Value, render, time_for
from daylily_daemon.domain.remarks import Remarks
from daylily_daemon.domain.tracing import traceparent
from daylily_daemon.domain.workset import Workset
from daylily_daemon.engine.lease import Term, left_in_inbox
from daylily_daemon.engine.live_settings import LiveSettings
from daylily_daemon.engine.looks import Looks
from daylily_daemon.ports import Runner

T = TypeVar("T")
log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Shepherd:
    runners: Mapping[str, Runner]
    live: LiveSettings
    looks: Looks
    pause_s: float = 2.0
    """Before a call of unknown outcome is made again; doubles up to ``pause_cap_s``."""
    pause_cap_s: float = 60.0
    let_go_s: float = 300.0
    """How long a job may be out of sight before its workset is let go."""

    async def drive(self, term: Term, effects: tuple[Effect, ...]) -> None:
        """Return once the workset is no longer in progress. Raises Fenced and LeaseLost, in a group."""
        with term.trusted:
            async with create_task_group() as tg:
                try:
                    await _Drive(self, term, tg).follow(effects)
                finally:
                    term.on_command = left_in_inbox
                tg.cancel_scope.cancel()
        if term.trusted.cancelled_caught:
            raise LeaseLost(f"{term.workset.id}: the store did not answer in time")

    def stop_job(self, ws: Workset) -> Job:
        """Return what a runner needs to find the current job, and to stop it."""
        if ws.run is None or ws.step is None or ws.job is None:
            raise Permanent(f"{ws.id} has no job to stop.")
        return Job(
            name=ws.job,
            directory=ws.step.place,
            scope=ws.step.scope,
            key=ws.run.key,
            step=ws.step.name,
            argv=(),
        )

    def run_job(self, ws: Workset) -> tuple[Job, str]:
        """Render the current job; one that cannot be rendered any more has no ``argv``, and a reason."""
        found = self.stop_job(ws)
        found = replace(found, confirmed=ws.run is not None and ws.run.confirmed == found.name)
        try:
            return self._rendered(ws, found), ""
        except Permanent as exc:
            return found, str(exc)

    def is_fatal(self, ws: Workset) -> bool:
        """Return whether a failure of the current step ends the run: as planned, or as said today."""
        template = self._template(ws)
        planned = ws.step is not None and not ws.step.fatal
        return not (planned or (template is not None and not template.fatal))

    def _template(self, ws: Workset) -> StepTemplate | None:
        pipeline = self._pipeline(ws)
        return pipeline.template(ws.step.name) if pipeline and ws.step else None

    def _pipeline(self, ws: Workset) -> Pipeline | None:
        return self.live.current.pipelines.get(ws.plan.pipeline) if ws.plan else None

    def _rendered(self, ws: Workset, found: Job) -> Job:
        engine_settings, pipeline, template = (
            self.live.current,
            self._pipeline(ws),
            self._template(ws),
        )
        if ws.run is None or pipeline is None or template is None:
            name = ws.plan.pipeline if ws.plan else ""
            raise Permanent(
                f"Pipeline {name!r} has no step {found.step} any more; restore it in the pipelines "
                "folder, reload, and retry the workset."
            )
        job = render(template, values_of(ws, engine_settings.values), found)
        return replace(
            job,
            environment={**engine_settings.environment, **run_environment(ws), **job.environment},
            grace_s=job.grace_s if engine_settings.grace_s is None else engine_settings.grace_s,
            timeout_s=time_for(pipeline, template, ws.run.spent_s),
            run_dir=ws.run.folder,
        )


def values_of(ws: Workset, general: Mapping[str, Value]) -> dict[str, Value]:
    """Return the placeholder values of one workset."""
    plan, run, request = ws.plan, ws.run, ws.request
    if plan is None or run is None:
        raise Permanent(f"{ws.id} has no checked plan; retry it.")
    return {
        **general,
        "workset": ws.id,
        "customer": request.customer_id or "unassigned",
        "bucket": request.bucket,
        "prefix": request.prefix,
        "input_uri": f"s3://{request.bucket}/{request.prefix}",
        "export_uri": plan.export_uri,
        "stage_dir": f"{run.folder}/stage",
        "work_dir": f"{run.folder}/work",
        "results_dir": f"{run.folder}/work/results",
        "jobs_dir": run.jobs_dir,
        "run_args": plan.run_args,
        "clone_args": plan.clone_args,
        "workdir_name": plan.workdir_name,
        "cluster_name": ws.cluster_name,
        "reference_genome": plan.reference_genome,
        "run_id": run.id,
        "attempt": str(run.attempt),
    }


def run_environment(ws: Workset) -> dict[str, str]:
    """Return what steps need to know of a run, however a pipeline file calls them."""
    known = {
        "DAYLILY_RUN_DIR": ws.run.folder if ws.run else "",
        "DAYLILY_INPUT_URI": f"s3://{ws.request.bucket}/{ws.request.prefix}",
        "DAYLILY_PIN": ws.plan.pin if ws.plan else "",
        "TRACEPARENT": traceparent(ws),
    }
    return {name: value for name, value in known.items() if value}


@dataclass(slots=True)
class _Drive:
    """The moving parts of one drive."""

    shepherd: Shepherd
    term: Term
    tg: TaskGroup

    async def follow(self, effects: tuple[Effect, ...]) -> None:
        busy: set[Effect] = set()
        handed: set[str] = set()

        def hand_over(command: Command) -> None:
            if command.id not in handed:
                handed.add(command.id)
                self.term.tell(Commanded(command))

        self.term.on_command = hand_over
        for command in self.term.workset.inbox:
            hand_over(command)
        while self.term.workset.state is State.IN_PROGRESS:
            self._start(effects, busy)
            effects = tuple(await self.term.apply(await self.term.told()))

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
            runner, job = runner_of(self.shepherd.runners, ws), self.shepherd.stop_job(ws)
            await self._until_answered(partial(runner.stop, job), runner, job)
        except Permanent as exc:
            self.term.tell(JobRefused(name, str(exc)))
        else:
            self.term.tell(JobStopped(name))

    async def _run_job(self, name: JobName, ws: Workset) -> None:
        why = ""
        try:
            runner = runner_of(self.shepherd.runners, ws)
            job, why = self.shepherd.run_job(ws)
            await self._until_answered(partial(runner.ensure, job), runner, job)
        except Permanent as exc:
            self.term.tell(JobRefused(name, why or str(exc)))
            return
        limits = (job.timeout_s, job.grace_s)
        self.term.note(name, Remarks(confirmed=name, limits=limits), eager=False)
        job = replace(job, argv=(), environment={})  # what starts it is not kept as long as it runs
        with self.shepherd.looks.into(runner, job, self.term):
            outcome = await self._until_answered(partial(runner.wait, job), runner, job)
        self.term.tell(JobExited(name, outcome, self.shepherd.is_fatal(ws)))

    async def _until_answered(
        self, call: Callable[[], Awaitable[T]], runner: Runner, job: Job
    ) -> T:
        """Repeat a call whose outcome is unknown, under the same name; the term bounds how long.

        What is in the way is written into the item. Raises Transient where nothing of the job could be seen
        for ``let_go_s``: another daemon may see it.
        """
        shepherd, since, pause_s = self.shepherd, current_time(), self.shepherd.pause_s
        troubled = bool(self.term.workset.trouble)
        while True:
            try:
                answer = await call()
            except Transient as exc:
                log.warning("unanswered", job=job.name, error=str(exc))
                troubled = True
                self._note_trouble(job, str(exc), isinstance(exc, Unclear))
                if current_time() - since >= shepherd.let_go_s:
                    await runner.look(job)
                await sleep(pause_s)
                pause_s = min(2 * pause_s, shepherd.pause_cap_s)
            else:
                if troubled:
                    self._note_trouble(job, "", unclear=False)
                return answer

    def _note_trouble(self, job: Job, text: str, unclear: bool) -> None:
        self.term.note(job.name, Remarks(trouble=text, unclear=unclear))


def runner_of(runners: Mapping[str, Runner], ws: Workset) -> Runner:
    """Return the runner that started the current step. Raises Transient: another daemon may have it."""
    name = ws.step.runner if ws.step else ""
    runner = runners.get(name)
    if runner is None:
        raise Transient(f"The runner {name!r} of this run is not set up on this daemon.")
    return runner
