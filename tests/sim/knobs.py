"""What differs from seed to seed besides luck: limits, sizes and times, small enough to be reached."""

from __future__ import annotations

import random
from dataclasses import dataclass, fields
from typing import Any, Final

from daylily_daemon.domain import commands
from daylily_daemon.domain.admission import Limits
from daylily_daemon.engine import backlog, lineup, sweep
from daylily_daemon.engine.lease import LeaseConfig
from tests.sim.planting import put
from tests.unit.engine_settings import some_limits


@dataclass(frozen=True, slots=True, kw_only=True)
class Knobs:
    slots: int = 8
    """Worksets that run at once on one daemon."""
    per_customer: int = 0
    customers: int = 0
    """Labs that drop; 0 for drops of nobody."""
    worksets: int = 4
    daemons: int = 1
    machines: int = 1
    """Hosts that the daemons share; no host sees the jobs of another."""
    inbox: int = 20
    """Commands that may wait for the owner of a run."""
    page: int = 100
    """Records that one look at what is owed brings."""
    index_page: int = 100
    """Turns that one look at what waits brings."""
    index_calls: int = 20
    """Looks of one reading."""
    ahead: int = 10
    """Worksets of a line that are known beyond those that could start."""
    checks: int = 20
    """Worksets of a line whose input is to be checked."""
    known: int = 2000
    """Worksets that wait, as many as are remembered."""
    per_channel: int = 8
    give_up_s: float = 86_400.0
    ttl_s: float = 60.0
    sweep_s: float = 15.0
    reconcile_s: float = 600.0
    index_lag_s: float = 30.0
    input_wait_s: float = 120.0
    max_retries: int = 2
    grace_s: float | None = None
    shortest_s: float = 5.0
    longest_s: float = 40.0
    """How long jobs last."""
    skewed: bool = False
    """Whether the wall clocks of the daemons differ by minutes, and are set meanwhile."""
    rough: bool = False
    """Whether single calls get lost, come late and are answered twice, besides every other trouble."""

    def __str__(self) -> str:
        usual = Knobs()
        pairs = ((field.name, getattr(self, field.name)) for field in fields(self))
        return ", ".join(
            f"{name}={v:g}" if isinstance(v, float) else f"{name}={v}"
            for name, v in pairs
            if v != getattr(usual, name)
        )

    @property
    def lease(self) -> LeaseConfig:
        return LeaseConfig(ttl_s=self.ttl_s, margin_s=self.ttl_s / 6, beat_s=self.ttl_s / 4)

    @property
    def limits(self) -> Limits:
        return some_limits(slots=self.slots, per_customer=self.per_customer)

    def planted(self) -> Any:
        """Return a context in which the program's fixed bounds are these."""
        return put(
            (commands, "INBOX_LIMIT", self.inbox),
            (lineup, "PAGE", self.index_page),
            (lineup, "CALLS", self.index_calls),
            (sweep, "AHEAD", self.ahead),
            (sweep, "CHECKS", self.checks),
            (backlog, "MOST_KNOWN", self.known),
        )


CHOICES: Final[dict[str, tuple[Any, ...]]] = {
    "slots": (1, 2, 3, 8),
    "per_customer": (0, 1, 2),
    "customers": (0, 1, 3),
    "worksets": (3, 4, 6),
    "daemons": (1, 2, 2, 3),
    "machines": (1, 1, 2),
    "inbox": (2, 20),
    "page": (1, 3, 100),
    "index_page": (1, 3, 100),
    "index_calls": (4, 20),
    "ahead": (1, 10),
    "checks": (1, 20),
    "known": (3, 2000),
    "per_channel": (1, 8),
    "give_up_s": (900.0, 86_400.0),
    "ttl_s": (24.0, 60.0, 120.0),
    "sweep_s": (5.0, 15.0, 60.0),
    "reconcile_s": (60.0, 600.0),
    "index_lag_s": (5.0, 30.0),
    "input_wait_s": (60.0, 120.0, 600.0),
    "max_retries": (0, 1, 2),
    "grace_s": (None, 0.0, 7.0),
    "skewed": (False, True),
    "rough": (False, True, True),
}
LENGTHS_S: Final = ((5.0, 40.0), (1.0, 10.0), (30.0, 600.0))


def drawn(rng: random.Random) -> Knobs:
    """Return knobs as the seed behind ``rng`` wants them."""
    shortest_s, longest_s = rng.choice(LENGTHS_S)
    chosen = {name: rng.choice(values) for name, values in CHOICES.items()}
    return Knobs(shortest_s=shortest_s, longest_s=longest_s, **chosen)
