"""Which channels are owed a notice of a record: decided once, in the write that makes the record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from daylily_daemon.domain.model import Priority, Record, RecordType, State


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """What one channel wants to hear. An empty set stands for everything; the sets are ANDed."""

    event_types: frozenset[RecordType] = frozenset()
    states: frozenset[State] = frozenset()
    priorities: frozenset[Priority] = frozenset()
    customers: frozenset[str] = frozenset()
    always: frozenset[State] = frozenset()
    """States that are told whatever the sets above say: they end what an earlier record began."""

    def admits(self, record: Record) -> bool:
        return record.state in self.always or (
            (not self.event_types or record.type in self.event_types)
            and (not self.states or record.state in self.states)
            and (not self.priorities or record.priority in self.priorities)
            and (not self.customers or record.customer_id in self.customers)
        )


@dataclass(frozen=True, slots=True)
class Routing:
    channels: Mapping[str, Filter] = field(default_factory=dict)
    """Every channel that is switched on, by its name."""

    def owed(self, record: Record) -> frozenset[str]:
        """Return the channels to tell; none where the record is for the audit trail alone."""
        if not record.notify:
            return frozenset()
        return frozenset(name for name, wanted in self.channels.items() if wanted.admits(record))
