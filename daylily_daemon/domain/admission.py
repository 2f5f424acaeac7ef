"""Which ready worksets may start now, and why the others may not.

Pure: the daemon and ``explain`` ask the same function. Urgent before normal before low; within a
priority first in, first out. A workset that has waited ``age_s`` counts one class higher, twice that
long two classes, so low priority waits long but never for ever.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from daylily_daemon.domain.lifecycle import due
from daylily_daemon.domain.model import State, Workset, WorksetId


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    slots: int
    """Worksets that may run at once; what runs beyond it (after a reload) runs on."""
    running: int
    per_customer: int = 0
    """0 for no limit."""
    customers: Mapping[str, int] = field(default_factory=dict)
    """Worksets running now, by customer."""
    age_s: float = 6 * 3600.0
    held: str = ""
    """Why nothing new may start on this host, as a sentence; empty if it may."""


@dataclass(frozen=True, slots=True)
class Verdict:
    workset_id: WorksetId
    admitted: bool
    reason: str
    """A sentence for ``explain``."""


def order(candidates: Sequence[Workset], now: datetime, age_s: float) -> list[Workset]:
    """Return candidates, first to start first."""

    def place(ws: Workset) -> tuple[float, datetime, str]:
        since = ws.submitted_at or ws.created_at
        waited = max(0.0, (now - since).total_seconds())
        return (ws.priority.rank - int(waited // age_s), since, ws.id)

    return sorted(candidates, key=place)


def admit(candidates: Sequence[Workset], capacity: Capacity, now: datetime) -> list[Verdict]:
    """Return one verdict a candidate, in the order in which they would start."""
    free = capacity.slots - capacity.running
    customers = dict(capacity.customers)
    verdicts: list[Verdict] = []
    for ws in order(candidates, now, capacity.age_s):
        if reason := _not_due(ws, now):
            verdicts.append(Verdict(ws.id, False, reason))
            continue
        taken = customers.get(ws.customer_id, 0)
        if capacity.held:
            reason = capacity.held
        elif capacity.per_customer and ws.customer_id and taken >= capacity.per_customer:
            reason = f"Customer {ws.customer_id} already runs {taken}, which is the limit."
        elif free <= 0:
            ahead = sum(not v.admitted for v in verdicts)
            reason = f"All {capacity.slots} slots are taken, and {ahead} worksets are before it."
        else:
            free -= 1
            customers[ws.customer_id] = taken + 1
            verdicts.append(Verdict(ws.id, True, "A slot is free and it is next."))
            continue
        verdicts.append(Verdict(ws.id, False, reason))
    return verdicts


def _not_due(ws: Workset, now: datetime) -> str:
    if due(ws, now):
        return ""
    if ws.state is State.RETRYING and ws.retry_after is not None:
        return f"It is tried again at {ws.retry_after:%Y-%m-%d %H:%M:%S} UTC."
    if ws.state is State.READY:
        return ws.progress_message or "Its input has not been checked yet."
    return f"It is {ws.state}."
