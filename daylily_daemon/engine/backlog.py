"""What this daemon knows of worksets that wait for it: pure, and never the authority.

Two sources fill it. The index, read every ``sweep_s``, shows the first worksets of every line and lags
behind; what a doorbell, an inspector or a term of this daemon has stored is newer than the index for a while.
Of one workset the greater version counts, and for ``index_lag_s`` also what the index does not show at all.
However much waits, no more than ``MOST_KNOWN`` worksets are known: what is left out is found again in the
index. It only suggests: the conditional write of a claim decides, and a suggestion that was wrong is left
alone for a moment.

Every ``now`` is the loop's clock in seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Final

from daylily_daemon.domain.commands import host_lost_by
from daylily_daemon.domain.lifecycle import due
from daylily_daemon.domain.model import Fence, Priority, State, WorksetId
from daylily_daemon.domain.workset import Workset

WAITING = (State.READY, State.RETRYING)
MOST_KNOWN: Final = 2000
"""Worksets that wait, as many as are remembered; urgent ones beyond."""

Sees = Callable[[str], bool]
"""Whether jobs of a scope may be in sight of this daemon."""


class BeatObserver:
    """How long the beats of other owners have stood still, on this host's monotonic clock."""

    def __init__(self, ttl_s: float) -> None:
        self._ttl_s = ttl_s
        self._seen: dict[WorksetId, tuple[tuple[Fence, int], float]] = {}

    def observe(self, ws: Workset, now: float) -> None:
        """Note the beat of a workset that was just read."""
        beat = (ws.fence, ws.beat)
        known = self._seen.get(ws.id)
        if known is None or known[0] != beat:
            self._seen[ws.id] = (beat, now)

    def is_dead(self, ws: Workset, now: float) -> bool:
        """Return whether exactly this beat has been standing still for a whole TTL."""
        known = self._seen.get(ws.id)
        beat = (ws.fence, ws.beat)
        return bool(known and known[0] == beat and now - known[1] >= self._ttl_s)

    def keep_only(self, ids: set[WorksetId]) -> None:
        """Forget the worksets that are no longer of interest."""
        self._seen = {id: seen for id, seen in self._seen.items() if id in ids}


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one reading of the index showed."""

    waiting: Sequence[Workset] = ()
    complete: bool = True
    """Whether whatever is not among ``waiting`` need not be known."""
    more: bool = False
    """As in Backlog."""
    due_at: datetime | None = None
    """When the first of those is due that wait for their next try and are not among ``waiting``."""
    in_progress: Sequence[Workset] = ()
    """Those of which this daemon may see the job, and that it does not hold."""
    runs: Mapping[WorksetId, str] = field(default_factory=dict)
    """As in Backlog."""


@dataclass(slots=True, kw_only=True)
class Backlog:
    owner: str
    """This daemon, as items name it."""
    observer: BeatObserver
    index_lag_s: float = 30.0
    """How long what we stored ourselves counts more than an index that does not show it yet."""
    waiting: dict[WorksetId, Workset] = field(default_factory=dict)
    """Ready or waiting for their next try; and runs that this daemon has just let go."""
    in_progress: dict[WorksetId, Workset] = field(default_factory=dict)
    """Runs that this daemon may have to go on with, as they were last read."""
    runs: dict[WorksetId, str] = field(default_factory=dict)
    """The customers of all runs in progress, on any host, as the index last showed them."""
    more: bool = False
    """Whether others wait that are not known here."""
    was_read: bool = False
    """Whether the index was read since the start: before, nobody knows what runs."""
    read_at: float = 0.0
    """When the index is to be read next."""

    _stored_at: dict[WorksetId, float] = field(default_factory=dict)
    _not_before: dict[WorksetId, float] = field(default_factory=dict)

    # What is learned

    def read(self, look: Look, now: float) -> None:
        """Take over what the index shows."""
        fresh = {ws.id: ws for ws in look.waiting}
        self._stored_at = {
            id: at for id, at in self._stored_at.items() if now - at < self.index_lag_s
        }
        kept = {id: ws for id, ws in self.waiting.items() if self._is_kept(ws, fresh, look)}
        known = {**fresh, **kept}
        self.waiting = dict(islice(known.items(), MOST_KNOWN))
        self.in_progress = {ws.id: ws for ws in look.in_progress}
        self.runs = dict(look.runs)
        self.more = look.more or len(known) > MOST_KNOWN
        self.was_read = True
        shown = (*look.in_progress, *fresh.values())
        self.observer.keep_only({ws.id for ws in shown})
        for ws in shown:
            if ws.owner not in (None, self.owner):
                self.observer.observe(ws, now)

    def _is_kept(self, ws: Workset, fresh: Mapping[WorksetId, Workset], look: Look) -> bool:
        """Return whether this is known better than by an index that lags behind, or was not looked for."""
        if ws.id in fresh:
            return ws.version > fresh[ws.id].version
        return not look.complete or ws.id in self._stored_at or ws.id in self._not_before

    def stored(self, ws: Workset, now: float) -> None:
        """Take over what was just written, or read under a condition."""
        known = self.waiting.get(ws.id)
        if known is not None and known.version > ws.version:
            return
        self.forget(ws.id)
        self.in_progress.pop(ws.id, None)
        if ws.state is not State.IN_PROGRESS:
            self.runs.pop(ws.id, None)
        if ws.state in (*WAITING, State.IN_PROGRESS):
            self._remember(ws, now)

    def _remember(self, ws: Workset, now: float) -> None:
        if len(self.waiting) >= MOST_KNOWN and ws.priority is not Priority.URGENT:
            self.more = True
            return
        self.waiting[ws.id] = ws
        self._stored_at[ws.id] = now

    def forget(self, id: WorksetId) -> None:
        self.waiting.pop(id, None)

    def rest(self, id: WorksetId, until: float) -> None:
        """Leave a workset alone until then."""
        self._not_before[id] = until

    def doubt(self, id: WorksetId, until: float) -> None:
        """What was known of it was not so: leave it alone until then, and read the index anew."""
        self.rest(id, until)
        self.read_at = min(self.read_at, until)

    def wake(self, now: float) -> None:
        """Forget the rests that are over."""
        self._not_before = {id: at for id, at in self._not_before.items() if at > now}

    def is_resting(self, id: WorksetId) -> bool:
        return id in self._not_before

    # What it suggests

    def is_free(self, ws: Workset, now: float) -> bool:
        """Return whether nobody works on it, as far as is known: a claim of it may succeed."""
        if self._not_before.get(ws.id, 0.0) > now:
            return False
        return ws.owner in (None, self.owner) or self.observer.is_dead(ws, now)

    def to_adopt(self, sees: Sees, held: Container[WorksetId], now: float) -> Iterator[Workset]:
        """Yield runs that this daemon may go on with, or whose machine somebody says is gone."""
        for ws in self._running():
            reachable = sees(ws.scope) or host_lost_by(ws)
            if ws.id not in held and reachable and self.is_free(ws, now):
                yield ws

    def to_check(self, held: Container[WorksetId], now: float) -> Iterator[Workset]:
        """Yield ready worksets whose input is to be looked at now."""
        for ws in list(self.waiting.values()):
            unchecked = ws.state is State.READY and ws.plan is None
            if unchecked and ws.id not in held and self.is_free(ws, now):
                yield ws

    def to_start(
        self, held: Container[WorksetId], now: float, clock: datetime
    ) -> Iterator[Workset]:
        """Yield worksets that wait for nothing but a slot."""
        for ws in self.waiting.values():
            if due(ws, clock) and ws.id not in held and self.is_free(ws, now):
                yield ws

    def is_used_up(self, held: Container[WorksetId], now: float, clock: datetime) -> bool:
        """Return whether nothing is known that could be checked or started now."""
        usable = (*self.to_check(held, now), *self.to_start(held, now, clock))
        return not usable

    def as_read(self) -> dict[WorksetId, Workset]:
        """Return what need not be read again while the index shows it at the same turn."""
        return {id: ws for id, ws in self.waiting.items() if ws.owner in (None, self.owner)}

    def unheld(self, sees: Sees) -> dict[WorksetId, str]:
        """Return runs of this host that nobody works on now, by customer: their jobs take slots all the same.

        So it is after a start until they are adopted, and whenever a claim has to be made again.
        """
        return {
            ws.id: ws.request.customer_id
            for ws in self._running()
            if ws.owner in (None, self.owner) and sees(ws.scope)
        }

    def next_at(self, now: float, clock: datetime) -> float:
        """Return when there is something to do again: a reading, a rest or a pause that is over."""
        pauses = (
            now + (ws.retry_after - clock).total_seconds()
            for ws in self.waiting.values()
            if ws.state is State.RETRYING and ws.retry_after and ws.retry_after > clock
        )
        return min([self.read_at, *pauses, *self._not_before.values()])

    def _running(self) -> Iterator[Workset]:
        known = (*self.in_progress.values(), *self.waiting.values())
        return (ws for ws in known if ws.state is State.IN_PROGRESS)
