"""The lease of a workset: one claim is a *term*, named by its fence.

Every write goes through the version of the item it was decided on, so a write of an old owner is refused
by the store however late it arrives. What the lease adds is that two daemons do not *work* on one workset
at the same time:

- The holder trusts its term until (time before the request that was last confirmed) + TTL - margin, on
  its own monotonic clock. When that runs out, everything under the term is cancelled; jobs run on.
- Every write of the owner counts as a beat. When nothing is written for ``beat_s``, ``keep`` writes one.
- A contender may claim only after it has seen the same beat for a whole TTL on *its* monotonic clock
  (``BeatObserver``), and on condition that the item is still exactly what it watched.

Stored wall-clock times are for people. The start of a job is not protected by any of this but by its start
token: see the runners.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta

from anyio import CancelScope, current_time, move_on_after

from daylily_daemon.domain.decision import Effect
from daylily_daemon.domain.errors import Fenced
from daylily_daemon.domain.events import Claimed, LetGo, Noted
from daylily_daemon.domain.events import Event as LifeEvent
from daylily_daemon.domain.lifecycle import resume
from daylily_daemon.domain.model import Command, Fence, JobName, State
from daylily_daemon.domain.remarks import Remarks
from daylily_daemon.domain.workset import Workset
from daylily_daemon.engine.counting import BeatFate
from daylily_daemon.engine.wakeup import Wakeup
from daylily_daemon.engine.writer import Applied, Holder, Overtaken, Writer


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseConfig:
    ttl_s: float
    margin_s: float
    beat_s: float
    progress_s: float = 1.0
    """Least time between two writes that carry nothing but progress."""
    hurry_s: float = 0.05
    """Least time between two writes whatever happens: it bounds what a workset can make its owner write."""
    repeat_s: float = 1.0
    """Pause before a write without an answer is repeated."""

    @property
    def trust_s(self) -> float:
        return self.ttl_s - self.margin_s


class Term:
    """One claim of one workset, from claim to release.

    ``trusted`` is the cancel scope everything under the term runs in; its deadline is the trust window.
    """

    __slots__ = (
        "_config",
        "_eager",
        "_fence",
        "_holder",
        "_hurry",
        "_poke",
        "_remarked_of",
        "_remarks",
        "_told",
        "_writer",
        "_written",
        "on_command",
        "trusted",
        "workset",
    )

    def __init__(self, writer: Writer, config: LeaseConfig, workset: Workset, asked: float) -> None:
        self.workset = workset
        self.trusted = CancelScope(deadline=asked + config.trust_s)
        self.on_command: Callable[[Command], None] = left_in_inbox
        self._writer = writer
        self._config = config
        self._holder = Holder(self._sealed, config.repeat_s)
        self._fence: Fence = workset.fence
        self._written = asked
        self._told: list[LifeEvent] = []
        self._poke = Wakeup()
        self._hurry = False
        self._remarks = Remarks()
        self._remarked_of: JobName | None = None
        self._eager = False

    def tell(self, event: LifeEvent) -> None:
        """Have ``told`` return this, after what was told before."""
        self._told.append(event)
        self._poke.call()

    async def told(self) -> LifeEvent:
        """Keep the term until something is told, and return it. Raises Fenced."""
        await self.keep()
        return self._told.pop(0)

    async def keep(self) -> None:
        """Beat until something is told. Raises Fenced; a beat without an answer is simply due again."""
        while not self._told:
            if self._due() > current_time():
                await self._poke.wait(self._due())
            else:
                with move_on_after(self._config.beat_s) as scope:
                    await self._beat()
                late = scope.cancelled_caught
                self._writer.counting.beat(BeatFate.UNANSWERED if late else BeatFate.ANSWERED)

    async def apply(self, event: LifeEvent) -> list[Effect]:
        """Decide, save, and return what to do; not beside ``keep`` or another ``apply``. Raises Fenced.

        When the item moved on under our own fence (a command was put into the inbox, or an answer
        got lost), the decision is made again on what is there, and the effects that follow from
        it are returned too: an effect that already runs is not run twice by the shepherd.
        """
        missed: tuple[Effect, ...] = ()
        while (effects := await self._applied(event)) is None:
            missed = resume(self.workset)
        return [*missed, *effects]

    def note(self, job: JobName, remarks: Remarks, *, eager: bool = True) -> None:
        """Let the next beat carry this, if ``job`` is still its job then.

        ``eager`` beats come sooner, but never faster than ``progress_s`` allows.
        """
        self._remarks = remarks.over(self._remarks if self._remarked_of == job else Remarks())
        self._remarked_of = job
        if eager:
            self._eager = True
            self._poke.call()

    def poke(self) -> None:
        """Look at the item now: somebody put a command into its inbox."""
        self._hurry = True
        self._poke.call()

    async def release(self) -> None:
        """Give the lock back, once; what gets no answer ends by itself. Raises Fenced, Transient."""
        for _ in range(2):
            event = LetGo(self._remarked_of, self._remarks)
            match await self._writer.apply(self.workset, event):
                case Applied(workset=workset):
                    self.workset = workset
                    return
                case Overtaken(current=current):
                    self._accept(current)

    def _sealed(self, ws: Workset) -> Workset:
        """Every write of the holder is a beat, and moves the time that people are shown."""
        expires_at = self._writer.clock.now() + timedelta(seconds=self._config.ttl_s)
        lock = ws.lock and replace(ws.lock, expires_at=expires_at)
        return replace(ws, beat=self.workset.beat + 1, lock=lock)

    async def _applied(self, event: LifeEvent) -> tuple[Effect, ...] | None:
        """Write until answered; None if the item was not what ``event`` was decided on."""
        asked = current_time()
        found = await self._writer.apply(self.workset, event, self._holder)
        if isinstance(found, Overtaken):
            self._accept(found.current)
            return None
        self.workset = found.workset
        if found.written:
            self._written = asked
            self.trusted.deadline = asked + self._config.trust_s
        return found.effects

    async def _beat(self) -> None:
        self._hurry = False
        job, remarks = self._remarked_of, self._remarks
        if await self._applied(Noted(job, remarks)) is not None:
            if self._remarked_of == job:
                self._remarks = self._remarks.beyond(remarks)
            self._eager = self._eager and self._remarks != Remarks()

    def _accept(self, current: Workset | None) -> None:
        if current is None or current.fence != self._fence:
            raise Fenced("the workset was claimed by another daemon, or its item was removed")
        if current.owner != self._writer.owner or current.state is not State.IN_PROGRESS:
            raise Fenced("the workset's item was changed by hand")
        self.workset = current
        self._hurry = True
        self._poke.call()
        for command in current.inbox:
            self.on_command(command)

    def _due(self) -> float:
        if self._hurry:
            return self._written + self._config.hurry_s
        pause_s = self._config.progress_s if self._eager else self._config.beat_s
        return self._written + min(pause_s, self._config.beat_s)


def left_in_inbox(command: Command) -> None:
    """Before and after a shepherd listens there is nobody to hand a command to; it stays in the inbox."""


async def claim(
    writer: Writer, config: LeaseConfig, ws: Workset, event: Claimed
) -> tuple[Term, tuple[Effect, ...]] | None:
    """Take ``ws`` if it is still what we saw; None if not. Raises Transient: perhaps taken.

    A claim whose answer never came is found again by the next sweep: the item then names us.
    """
    asked = current_time()
    found = await writer.apply(ws, event)
    if isinstance(found, Overtaken) or not found.written:
        return None
    return Term(writer, config, found.workset, asked), found.effects
