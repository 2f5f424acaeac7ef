"""What this daemon knows of worksets that wait for it: pure, and never the authority.

Two sources fill it. The index, read every ``sweep_s``, knows of everything and lags behind; what a doorbell,
an inspector or a term of this daemon has stored is newer than the index for a while. Of one workset the
greater version counts, and for ``index_lag_s`` also what the index does not show at all. It only suggests:
the conditional write of a claim decides, and a suggestion that was wrong is left alone for a moment.

Every ``now`` is the loop's clock in seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from daylily_daemon.domain.commands import host_lost_by
from daylily_daemon.domain.lifecycle import due
from daylily_daemon.domain.model import Fence, State, WorksetId
from daylily_daemon.domain.workset import Workset

WAITING = (State.READY, State.RETRYING)

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


@dataclass(slots=True, kw_only=True)
class Backlog:
    owner: str
    """This daemon, as items name it."""
    observer: BeatObserver
    index_lag_s: float = 30.0
    """How long what we stored ourselves counts more than an index that does not show it yet."""
    waiting: dict[WorksetId, Workset] = field(default_factory=dict)
    """Ready or waiting for their next try; and runs that this daemon has just let go."""
    in_progress: tuple[Workset, ...] = ()
    """Runs as the index last showed them, anybody's."""
    was_read: bool = False
    """Whether the index was read since the start: before, nobody knows what runs."""
    read_at: float = 0.0
    """When the index is to be read next."""

    _stored_at: dict[WorksetId, float] = field(default_factory=dict)
    _not_before: dict[WorksetId, float] = field(default_factory=dict)

    # What is learned

    def read(self, waiting: Sequence[Workset], in_progress: Sequence[Workset], now: float) -> None:
        """Take over what the index shows."""
        fresh = {ws.id: ws for ws in waiting}
        self.waiting = {**fresh, **self._newer(fresh, now)}
        self.in_progress = tuple(in_progress)
        self.was_read = True
        shown = (*self.in_progress, *fresh.values())
        self.observer.keep_only({ws.id for ws in shown})
        for ws in shown:
            if ws.owner not in (None, self.owner):
                self.observer.observe(ws, now)

    def _newer(self, fresh: dict[WorksetId, Workset], now: float) -> dict[WorksetId, Workset]:
        """Return what is known better than by an index that lags behind."""
        self._stored_at = {
            id: at for id, at in self._stored_at.items() if now - at < self.index_lag_s
        }
        return {
            id: ws
            for id, ws in self.waiting.items()
            if (ws.version > fresh[id].version if id in fresh else id in self._stored_at)
        }

    def stored(self, ws: Workset, now: float) -> None:
        """Take over what was just written, or read under a condition."""
        known = self.waiting.get(ws.id)
        if known is not None and known.version > ws.version:
            return
        self.forget(ws.id)
        self.in_progress = tuple(known for known in self.in_progress if known.id != ws.id)
        if ws.state in (*WAITING, State.IN_PROGRESS):
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
        known = (*self.in_progress, *self.waiting.values())
        return (ws for ws in known if ws.state is State.IN_PROGRESS)
