"""The ports that questions and requests go through, for the command line as for any other door."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from daylily_daemon.domain.activity import Activity
from daylily_daemon.domain.admission import Limits
from daylily_daemon.domain.daemon import Sighting
from daylily_daemon.domain.model import WorksetId
from daylily_daemon.domain.workset import Workset
from daylily_daemon.ports import Catalogue, Clock, Ids, Queues, Registry, Trail, Turns, Worksets


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    worksets: Worksets
    turns: Turns
    catalogue: Catalogue
    trail: Trail
    queues: Queues
    registry: Registry
    clock: Clock
    ids: Ids
    sighting: Callable[[datetime], Sighting]
    """What can be seen of the daemon of this host."""
    activities: Callable[[Sequence[Workset]], Awaitable[Mapping[WorksetId, Activity]]]
    """What the jobs of these do, as far as they run on this host and can be seen."""
    limits: Limits
    """As configured here; what a daemon says of itself counts more."""
    bucket: str
    prefix: str
    """Of the control bucket; ends with a slash."""
