"""Where a workset stands among those that daemons look for: what waits, and what runs.

Worksets that wait and differ in nothing but their time form a *line*: the same need, priority, customer and
cluster. Only the first ones of a line matter, because no limit lets a later one start before them. The key of
a turn sorts by line and then by time, so that whoever reads an index of turns can leave a long line after a
few rows. What a turn says is a suggestion, as everything in an index is; the item decides.

A turn changes with the state, the priority and the plan of a workset, never with a heartbeat.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final
from urllib.parse import quote, unquote

from daylily_daemon.domain.commands import host_lost_by
from daylily_daemon.domain.model import State, WorksetId
from daylily_daemon.domain.workset import Workset

PART_CHARS: Final = 200
"""Of one part of a key, in ASCII; DynamoDB takes a range key of 1,024 bytes."""
ANYWHERE: Final = "*"
"""Instead of the scope of a run of which somebody vouches that its machine is gone. No quoted text has it."""
_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)
_EVER: Final = "0"
"""Sorts before every time."""
_BEHIND: Final = "~"
"""Sorts behind every time and every quoted text."""


class Queue(StrEnum):
    WAITING = "waiting"
    RUNNING = "running"


class Need(StrEnum):
    """What those who wait need next, in the order in which it is read."""

    READY = "ready"
    """A slot."""
    RETRYING = "retrying"
    """A slot, once their time has come."""
    UNCHECKED = "unchecked"
    """A look at their input."""


@dataclass(frozen=True, slots=True)
class Turn:
    queue: Queue
    key: str
    """``<line>|<time>|<id>`` where something waits, ``<scope>|<customer>|<id>`` where it runs."""
    id: WorksetId

    def _part(self, place: int) -> str:
        parts = self.key.split("|")
        return parts[place] if place < len(parts) else ""

    # Of what waits

    @property
    def line(self) -> str:
        return "|".join(self.key.split("|")[:4])

    @property
    def beyond(self) -> str:
        """Return a key behind the whole line and before the next one."""
        return f"{self.line}|{_BEHIND}"

    @property
    def need(self) -> str:
        """Return a ``Need``, or what a version after this one wrote."""
        return self._part(0)

    @property
    def customer(self) -> str:
        return unquote(self._part(2 if self.queue is Queue.WAITING else 1))

    @property
    def cluster(self) -> str:
        """Return the cluster it asks for, cut as in its key (``as_part``)."""
        return self._part(3)

    @property
    def since(self) -> str:
        """Return when it began to wait, or for a retry when it is due: UTC, as text that sorts."""
        return self._part(4)

    @property
    def since_at(self) -> datetime:
        """Return ``since`` as a time, long ago where somebody wrote what is none."""
        try:
            at = datetime.fromisoformat(self.since)
        except ValueError:
            return _LONG_AGO
        return at if at.tzinfo else at.replace(tzinfo=UTC)

    # Of what runs

    @property
    def scope(self) -> str:
        """Return who can see its job, ``ANYWHERE`` where its machine is gone."""
        return unquote(self._part(0))


def as_part(text: str) -> str:
    """Return ``text`` as part of a key: without the sign between parts, and bounded."""
    return quote(text)[:PART_CHARS]


def turn_of(ws: Workset) -> Turn | None:
    """Return the turn of a workset, None for one that neither waits nor runs."""
    if ws.state is State.IN_PROGRESS:
        scope = ANYWHERE if host_lost_by(ws) else as_part(ws.scope)
        key = "|".join((scope, as_part(ws.request.customer_id), ws.id))
        return Turn(Queue.RUNNING, key, ws.id)
    need = _need(ws)
    if need is None:
        return None
    parts = (str(need), str(ws.priority.rank), as_part(ws.request.customer_id))
    key = "|".join((*parts, as_part(ws.cluster_name), _since(ws, need), ws.id))
    return Turn(Queue.WAITING, key, ws.id)


def _need(ws: Workset) -> Need | None:
    if ws.state is State.READY:
        return Need.READY if ws.plan else Need.UNCHECKED
    return Need.RETRYING if ws.state is State.RETRYING else None


def _since(ws: Workset, need: Need) -> str:
    if need is Need.RETRYING:
        return _written(ws.retry_after) if ws.retry_after else _EVER
    return _written(ws.request.submitted_at or ws.created_at)


def _written(at: datetime) -> str:
    return at.astimezone(UTC).isoformat()
