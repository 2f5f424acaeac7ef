"""Holds worksets: claims each, has it driven, and gives its lease back."""

from __future__ import annotations

from dataclasses import dataclass, field

import structlog
from anyio import CancelScope, current_time
from anyio.abc import TaskGroup

from daylily_daemon.domain.commands import host_lost_by
from daylily_daemon.domain.decision import Effect
from daylily_daemon.domain.errors import DaemonError, Fenced, LeaseLost, Transient, Unexpected
from daylily_daemon.domain.events import Claimed
from daylily_daemon.domain.lifecycle import resume
from daylily_daemon.domain.model import State, WorksetId
from daylily_daemon.domain.workset import Workset
from daylily_daemon.engine.backlog import Backlog
from daylily_daemon.engine.boundary import foreign_as_unexpected
from daylily_daemon.engine.counting import BeatFate
from daylily_daemon.engine.lease import LeaseConfig, Term, claim
from daylily_daemon.engine.remarks import say_trouble
from daylily_daemon.engine.shepherd import Shepherd, runner_of
from daylily_daemon.engine.wakeup import Wakeup
from daylily_daemon.engine.writer import Writer

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where this daemon runs jobs."""

    runner: str
    scope: str
    data_dir: str
    jobs_dir: str
    former_scopes: frozenset[str] = frozenset()
    """What versions before this one called this machine."""

    def sees(self, scope: str) -> bool:
        """Return whether jobs of ``scope`` may be in sight; whether one is, its runner says."""
        return scope == self.scope or scope in self.former_scopes or self.is_beside(scope)

    def is_beside(self, scope: str) -> bool:
        """Return whether ``scope`` is another folder of this machine, and so of another daemon."""
        machine, _, folder = self.scope.partition("/")
        return bool(folder) and scope != self.scope and scope.startswith(f"{machine}/")


@dataclass(slots=True)
class Held:
    """A workset this daemon works on, from the decision to take it to letting it go."""

    customer: str
    term: Term | None = None
    """None until it is claimed."""

    @property
    def pipeline(self) -> str:
        """Return the name of the pipeline that it runs; empty until it is claimed."""
        ws = self.term.workset if self.term else None
        return ws.plan.pipeline if ws and ws.plan else ""

    @property
    def doing(self) -> str:
        """Return what it is at, for people."""
        ws = self.term.workset if self.term else None
        if ws is None or ws.run is None or ws.step is None:
            return ""
        return f"{ws.step.name} {ws.run.progress.message}".strip()


class _Untendable(Transient):
    """A run in progress that is ours by its scope, and whose job cannot be looked at from here."""


@dataclass(slots=True, kw_only=True)
class Tender:
    writer: Writer
    lease: LeaseConfig
    place: Place
    shepherd: Shepherd
    backlog: Backlog
    wakeup: Wakeup
    """Called when a workset was let go: there is room."""
    release_s: float
    """How long giving back a lease may take; one not given back is taken back at the next start."""
    rest_s: float = 30.0
    """How long a workset whose shepherd broke is left alone; doubles up to ``rest_cap_s``."""
    rest_cap_s: float = 1800.0
    held: dict[WorksetId, Held] = field(default_factory=dict)

    _broke: dict[WorksetId, int] = field(default_factory=dict)
    """How often in a row work on a workset met something unforeseen."""

    def take(self, ws: Workset, tg: TaskGroup) -> None:
        """Hold ``ws`` from now on, if the claim of it succeeds."""
        self.held[ws.id] = Held(ws.request.customer_id)
        self.backlog.forget(ws.id)
        tg.start_soon(self._tend, ws)

    def poke(self, id: WorksetId) -> bool:
        """Let its holder look at the item; False if it is not held here."""
        held = self.held.get(id)
        if held is not None and held.term is not None:
            held.term.poke()
        return held is not None

    async def _tend(self, ws: Workset) -> None:
        """Hold one workset. What it raises never stops another: the one blanket is here."""
        try:
            with foreign_as_unexpected(f"the shepherd of {ws.id}"):
                await self._claim_and_drive(ws)
            self._broke.pop(ws.id, None)
        except Unexpected as exc:
            pause_s = min(self.rest_cap_s, self.rest_s * 2 ** self._broke.get(ws.id, 0))
            self._broke[ws.id] = self._broke.get(ws.id, 0) + 1
            log.warning("workset_rests", workset=ws.id, rest_s=pause_s, error=str(exc))
            await self._let_rest(ws, pause_s, exc)
        except _Untendable as exc:
            log.warning("workset_not_claimed", workset=ws.id, error=str(exc))
            await self._let_rest(ws, self.rest_s, exc)
        except (Fenced, LeaseLost) as exc:
            log.warning("lease_lost", workset=ws.id, error=str(exc))
            self.writer.counting.beat(BeatFate.LOST)
            self._doubt(ws)
        except DaemonError as exc:
            log.warning("workset_let_go", workset=ws.id, error=str(exc))
            self._doubt(ws)
        finally:
            self.held.pop(ws.id, None)
            self.wakeup.call()

    async def _let_rest(self, ws: Workset, pause_s: float, why: DaemonError) -> None:
        self.backlog.rest(ws.id, current_time() + pause_s)
        await say_trouble(self.writer, ws.id, str(why))

    def _doubt(self, ws: Workset) -> None:
        self.backlog.doubt(ws.id, current_time() + self.lease.repeat_s)

    async def _claim_and_drive(self, ws: Workset) -> None:
        taken = await claim(self.writer, self.lease, ws, await self._claim_of(ws))
        if taken is None:
            self._doubt(ws)
            return
        term, effects = taken
        self.held[ws.id].term = term
        run, step = term.workset.run, term.workset.step
        bound = log.bind(workset=ws.id, fence=term.workset.fence, attempt=term.workset.attempt)
        bound.info("claimed", run=run and run.id, step=step and step.name)
        if resume(term.workset):
            await self._drive(term, effects)
            bound.info("left", state=term.workset.state)
        self.backlog.stored(term.workset, current_time())

    async def _claim_of(self, ws: Workset) -> Claimed:
        return Claimed(
            owner=self.writer.owner,
            key=self.writer.ids.fresh(),
            runner=self.place.runner,
            scope=self.place.scope,
            data_dir=self.place.data_dir,
            jobs_dir=self.place.jobs_dir,
            ttl_s=self.lease.ttl_s,
            sees_job=await self._sees(ws),
            beside=self.place.is_beside(ws.scope),
        )

    async def _drive(self, term: Term, effects: tuple[Effect, ...]) -> None:
        try:
            await self.shepherd.drive(term, effects)
        finally:
            with CancelScope(shield=True, deadline=current_time() + self.release_s):
                await self._release(term)

    async def _sees(self, ws: Workset) -> bool:
        """Return whether the job of a run in progress can be tended here.

        Raises _Untendable where it should be and cannot, unless somebody vouches that it is gone.
        """
        if ws.state is not State.IN_PROGRESS or not ws.step or not self.place.sees(ws.scope):
            return self.place.sees(ws.scope)
        try:
            await runner_of(self.shepherd.runners, ws).look(self.shepherd.stop_job(ws))
        except Transient as exc:
            if host_lost_by(ws):
                return False
            raise _Untendable(str(exc)) from exc
        return True

    async def _release(self, term: Term) -> None:
        try:
            await term.release()
        except DaemonError as exc:
            log.info("not_released", workset=term.workset.id, error=str(exc))
