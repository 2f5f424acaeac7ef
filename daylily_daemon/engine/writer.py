"""The only way an item changes: decide, address, commit.

Everybody who has an event for a workset brings it here: a doorbell with a command, an inspector with what it
found, a daemon that claims, and the holder of a term. The decision is the domain's, the write is conditional
on the very item it was decided on, and what the outbox owes is stored in the same write.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from anyio import CancelScope, Semaphore, current_time, sleep

from daylily_daemon.domain.commands import register
from daylily_daemon.domain.decision import Decision, Effect
from daylily_daemon.domain.errors import Transient
from daylily_daemon.domain.events import Asked, Event
from daylily_daemon.domain.lifecycle import decide
from daylily_daemon.domain.model import Command, Record, Submit
from daylily_daemon.domain.workset import Workset
from daylily_daemon.engine.boundary import aside
from daylily_daemon.engine.counting import Counting
from daylily_daemon.engine.live_settings import LiveSettings
from daylily_daemon.ports import Change, Clock, Conflict, Ids, Worksets

WRITES_AT_ONCE: Final = 16
"""Of one daemon. The SDK's pool has more connections, so that a write with a permit need not wait for one."""


@dataclass(frozen=True, slots=True)
class Applied:
    """The event was decided on the workset, which is as it is stored now."""

    workset: Workset
    effects: tuple[Effect, ...]
    written: bool
    """False where the event changed nothing."""


@dataclass(frozen=True, slots=True)
class Overtaken:
    """Somebody else's write came first; nothing of ours is stored."""

    current: Workset | None
    """The item as it is now; None if it was removed."""


@dataclass(frozen=True, slots=True)
class Holder:
    """What the holder of a term does with each of its writes."""

    seal: Callable[[Workset], Workset]
    """Gives the item the sign of life that every write of a holder is."""
    repeat_s: float
    """Pause before a write without an answer is repeated, as the same write, until it has one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    worksets: Worksets
    clock: Clock
    ids: Ids
    owner: str
    """This daemon, as items name it."""
    live: LiveSettings
    on_records: Callable[[tuple[Record, ...]], None]
    """Called with the records of each write once it is stored: the outbox."""
    counting: Counting = field(default_factory=Counting)
    permits: Semaphore = field(default_factory=lambda: Semaphore(WRITES_AT_ONCE, fast_acquire=True))
    """Who waits for one has sent nothing yet: a thousand runs to adopt must not time out in a queue."""
    write_s: float = 5.0
    """How long a write that was sent is heard out, cancelled or not: a claim nobody knows of would stand
    until somebody takes it over."""

    async def apply(
        self, before: Workset, event: Event, holder: Holder | None = None
    ) -> Applied | Overtaken:
        """Decide on ``event`` and store what it makes of ``before``.

        Raises what ``Worksets.commit`` and ``decide`` raise; Transient not to a holder.
        """
        decision = decide(before, event, self.live.current.policy, self.clock.now())
        if decision.workset == before:
            return Applied(before, decision.effects, written=False)
        asked = event.command if isinstance(event, Asked) else None
        if holder is None:
            return await self._store(before, decision, asked)
        sealed = decision.becoming(holder.seal(decision.workset))
        return await self._store(before, sealed, asked, holder.repeat_s)

    async def register(
        self, command: Command, submit: Submit, left: Sequence[Record]
    ) -> Applied | Overtaken:
        """Store a workset that was never seen before; ``left`` is the trail of an item that was removed.

        Raises what ``Worksets.commit`` raises: Permanent where there are records under its numbers.
        """
        decision = register(command, submit, self.clock.now(), left)
        return await self._store(None, decision, command)

    async def _store(
        self,
        before: Workset | None,
        decision: Decision,
        asked: Command | None,
        repeat_s: float | None = None,
    ) -> Applied | Overtaken:
        change = self._change(before, decision, asked.id if asked else None)
        while True:
            try:
                stored = await self._commit(change)
            except Conflict as conflict:
                return Overtaken(conflict.current)
            except Transient:
                if repeat_s is None:
                    raise
                await sleep(repeat_s)
            else:
                with aside("counting a write"):
                    self.counting.stored(change, asked)
                return Applied(stored, decision.effects, written=True)

    def _change(self, before: Workset | None, decision: Decision, once: str | None) -> Change:
        routing = self.live.current.routing
        addressed = tuple(
            replace(record, owed=routing.owed(record), teller=self.owner)
            for record in decision.records
        )
        return Change(
            before=before,
            after=decision.workset,
            nonce=self.ids.fresh(),
            records=addressed,
            once=once,
            answers=decision.answers,
        )

    async def _commit(self, change: Change) -> Workset:
        async with self.permits:
            with CancelScope(shield=True, deadline=current_time() + self.write_s):
                stored = await self.worksets.commit(change)
                with aside("taking records over"):
                    self.on_records(change.records)
                return stored
        raise Transient(f"{change.after.id}: the store did not answer within {self.write_s:g} s")
