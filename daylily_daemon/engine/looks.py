"""Looks into the logs of all jobs that are waited for, each every ``progress_interval_s``.

A few who look share the jobs, the one first that was looked at longest ago. A task for each job would cost
more than all else that is kept of a run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from heapq import nsmallest
from typing import Final

import structlog
from anyio import Semaphore, create_task_group, current_time, sleep

from daylily_daemon.domain.daemon import JobLevel
from daylily_daemon.domain.errors import Permanent, Transient
from daylily_daemon.domain.model import Job, Progress
from daylily_daemon.domain.remarks import Remarks
from daylily_daemon.engine.boundary import for_ever
from daylily_daemon.engine.lease import Term
from daylily_daemon.engine.live_settings import LiveSettings
from daylily_daemon.ports import Runner

AT_ONCE: Final = 4
"""Looks; a log that does not answer keeps one of them for as long as its runner waits for it."""
NOTICED_S: Final = 15.0
"""Within which another ``progress_interval_s`` counts."""
PAUSE_S: Final = 1.0
LATER: Final = datetime.max.replace(tzinfo=UTC)
WORST: Final = 10
"""Jobs of which more is said than that they run."""
log = structlog.get_logger()


@dataclass(slots=True, eq=False)
class Watched:
    """A job that is waited for, and when it was last looked at."""

    runner: Runner
    job: Job
    term: Term
    since: float
    last: Progress | None = None
    over: bool = False

    def __enter__(self) -> None:
        """It is looked at from the moment on at which it is in line."""

    def __exit__(self, *_: object) -> None:
        self.over = True

    async def look(self) -> None:
        """Note progress that is new; what is in the way of seeing it harms nothing."""
        try:
            progress = await self.runner.progress(self.job)
        except (Transient, Permanent) as exc:
            log.info("progress_not_seen", job=self.job.name, error=str(exc))
            return
        if progress is not None and progress != self.last and not self.over:
            self.last = progress
            self.term.note(self.job.name, Remarks(progress=progress), eager=False)

    def level(self) -> JobLevel:
        """Return how it is, as far as it was looked at."""
        run = self.term.workset.run
        return JobLevel(
            step=self.job.step,
            output_at=self.last.output_at if self.last else None,
            ends_at=run.ends_at() if run else None,
        )


@dataclass(slots=True)
class Looks:
    live: LiveSettings
    _watched: set[Watched] = field(default_factory=set)
    _line: deque[Watched] = field(default_factory=deque)
    _in_line: Semaphore = field(default_factory=lambda: Semaphore(0))

    def into(self, runner: Runner, job: Job, term: Term) -> Watched:
        """Have ``term`` told of the progress of ``job`` until what is returned is left."""
        watched = Watched(runner, job, term, current_time())
        self._watched.add(watched)
        self._put(watched)
        return watched

    def worst(self) -> Mapping[str, JobLevel]:
        """Return by workset what people should look at first: the most overdue, and the quietest."""
        levels = {one.term.workset.id: one.level() for one in self._watched if not one.over}
        overdue = nsmallest(WORST, levels, key=lambda id: levels[id].ends_at or LATER)
        quiet = nsmallest(WORST, levels, key=lambda id: levels[id].output_at or LATER)
        return {id: levels[id] for id in (*overdue, *quiet)}

    async def run(self) -> None:
        """Look for ever."""
        async with create_task_group() as looking:
            for _ in range(AT_ONCE):
                looking.start_soon(for_ever, "looking into logs", self._look, PAUSE_S)

    async def _look(self) -> None:
        await self._in_line.acquire()
        watched = self._line.popleft()
        while not watched.over and (left_s := self._left_s(watched)) > 0:  # noqa: ASYNC110 - settings change
            await sleep(min(left_s, NOTICED_S))
        if watched.over:
            self._watched.discard(watched)
            return
        await watched.look()
        watched.since = current_time()
        self._put(watched)

    def _put(self, watched: Watched) -> None:
        self._line.append(watched)
        self._in_line.release()

    def _left_s(self, watched: Watched) -> float:
        return watched.since + self.live.current.progress_interval_s - current_time()
