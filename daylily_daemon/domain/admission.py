"""Which ready worksets may start now, and why the others may not.

Pure: the daemon and ``explain`` ask the same functions. Urgent before normal before low; within a priority
first in, first out. A low workset that has waited ``age_s`` counts as normal, so it waits long but never for
ever; nothing counts as urgent that is not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from daylily_daemon.domain.lifecycle import due
from daylily_daemon.domain.model import Priority, State, WorksetId
from daylily_daemon.domain.workset import Workset


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What this daemon may take on."""

    slots: int
    """Worksets that may run at once on this daemon; what runs beyond it (after a reload) runs on."""
    per_customer: int
    """Worksets of one customer that may run at once, on all daemons; 0 for no limit. Worksets without a
    customer count as those of one."""
    age_s: float
    """Longer than a run, or a full host would turn the priorities off."""
    cluster: str
    """Name of the cluster this daemon serves; empty where it is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    limits: Limits
    running: int
    """Worksets that this daemon holds or is about to claim."""
    customers: Mapping[str, int] = field(default_factory=dict)
    """Worksets running now, by customer, on all daemons."""
    held: str = ""
    """Why nothing new may start on this host, as a sentence; empty if it may."""


def capacity_of(
    limits: Limits, active: Mapping[WorksetId, str], runs: Mapping[WorksetId, str], held: str = ""
) -> Capacity:
    """Count once what runs: ``active`` is this daemon's own, ``runs`` any in progress, by customer."""
    customers = Counter({**runs, **active}.values())
    return Capacity(limits=limits, running=len(active), customers=customers, held=held)


def room_for(capacity: Capacity, customer: str) -> int:
    """Return how many worksets of ``customer`` could start now if no other did."""
    limits, taken = capacity.limits, capacity.customers.get(customer, 0)
    free = 0 if capacity.held else limits.slots - capacity.running
    return max(0, min(free, limits.per_customer - taken) if limits.per_customer else free)


@dataclass(frozen=True, slots=True)
class Verdict:
    workset_id: WorksetId
    admitted: bool
    reason: str
    """A sentence for ``explain``."""


def order(candidates: Sequence[Workset], now: datetime, age_s: float) -> list[Workset]:
    """Return candidates, first to start first."""

    def place(ws: Workset) -> tuple[int, datetime, str]:
        since = ws.request.submitted_at or ws.created_at
        return (_rank(ws, (now - since).total_seconds(), age_s), since, ws.id)

    return sorted(candidates, key=place)


def _rank(ws: Workset, waited_s: float, age_s: float) -> int:
    """Low counts as normal after ``age_s``; that is all: promotion is by one class, and never to urgent."""
    aged = ws.priority is Priority.LOW and waited_s >= age_s
    return Priority.NORMAL.rank if aged else ws.priority.rank


def admit(candidates: Sequence[Workset], capacity: Capacity, now: datetime) -> list[Verdict]:
    """Return one verdict per candidate, in the order in which they would start. Linear but for sorting."""
    tally = _Tally(capacity, dict(capacity.customers))
    ordered = order(candidates, now, capacity.limits.age_s)
    return [tally.verdict(ws, now) for ws in ordered]


@dataclass(slots=True)
class _Tally:
    """What has been given away so far in one round."""

    capacity: Capacity
    customers: dict[str, int]
    given: int = 0
    waiting: int = 0

    def verdict(self, ws: Workset, now: datetime) -> Verdict:
        if reason := _not_due(ws, now) or _elsewhere(ws, self.capacity.limits.cluster):
            return Verdict(ws.id, False, reason)
        if reason := self._no_room(ws):
            self.waiting += 1
            return Verdict(ws.id, False, reason)
        self.given += 1
        self.customers[ws.request.customer_id] = self.customers.get(ws.request.customer_id, 0) + 1
        return Verdict(ws.id, True, "A slot is free and it is next.")

    def _no_room(self, ws: Workset) -> str:
        limits, taken = self.capacity.limits, self.customers.get(ws.request.customer_id, 0)
        if self.capacity.held:
            return self.capacity.held
        if limits.per_customer and taken >= limits.per_customer:
            customer = ws.request.customer_id
            who = f"Customer {customer}" if customer else "Work without a customer"
            slots = "slot" if taken == 1 else "slots"
            return (
                f"{who} already takes {taken} {slots}, and the limit is {limits.per_customer} "
                "(daemon.max_per_customer)."
            )
        if self.capacity.running + self.given < limits.slots:
            return ""
        if not limits.slots:
            return "This daemon starts nothing: daemon.max_worksets is 0."
        taken = self.capacity.running + self.given
        return f"{taken} of {limits.slots} slots are taken, and {_before(self.waiting)} before it."


def _before(waiting: int) -> str:
    return "1 workset is" if waiting == 1 else f"{waiting or 'no'} worksets are"


def _not_due(ws: Workset, now: datetime) -> str:
    if due(ws, now):
        return ""
    if ws.state is State.RETRYING and ws.retry_after is not None:
        return f"It is tried again at {ws.retry_after:%Y-%m-%d %H:%M:%S} UTC."
    if ws.state is State.READY:
        return ws.waiting_for or "Its input has not been checked yet."
    return f"It is {ws.state}."


def is_elsewhere(wanted: str, cluster: str) -> bool:
    """Return whether what asks for the cluster ``wanted`` may not run on ``cluster``."""
    return bool(wanted) and wanted != cluster


def _elsewhere(ws: Workset, cluster: str) -> str:
    """Return why this is not the cluster to run it on; empty if it is, or nobody cares."""
    wanted = ws.cluster_name
    if not is_elsewhere(wanted, cluster):
        return ""
    here = f"is on cluster {cluster}" if cluster else "does not know its cluster (daemon.cluster)"
    return (
        f"It asks for cluster {wanted}, and the daemon here {here}. It waits for one that serves {wanted}; "
        "to run it here, take the cluster out of the recipe and put daylily.ready again."
    )
