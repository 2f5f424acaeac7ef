"""What a daemon says of itself, for whoever asks how it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class Life(StrEnum):
    """What the kernel says of the process that wrote a status."""

    RUNNING = "running"
    STOPPED = "stopped"
    """By SIGSTOP or a terminal; it does nothing until SIGCONT."""
    GONE = "gone"
    REPLACED = "replaced"
    """Its number belongs to another process now, or the machine was started again since."""
    HIDDEN = "hidden"
    """It cannot be seen from here: another user's, or in another container."""


def _all_aware(*times: datetime | None) -> None:
    """Raises ValueError for a time without a zone, which nothing can be counted from."""
    if any(at is not None and at.utcoffset() is None for at in times):
        raise ValueError("a time has no time zone")


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process, and where its number means that."""

    pid: int
    start_time: int | None = None
    """Clock ticks since boot; a daemon before this version did not write it."""
    boot_id: str = ""
    pid_namespace: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """As ``engine.health.PortHealth``."""

    good_at: datetime | None = None
    failing_since: datetime | None = None
    failures: int = 0
    code: str = ""
    text: str = ""

    def __post_init__(self) -> None:
        _all_aware(self.good_at, self.failing_since)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reload:
    result: str = ""
    at: str = ""
    problems: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    needs_restart: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What a daemon says of itself. Everything may be missing: it may be of another version."""

    pid: int | None = None
    """Absent until its first pass is finished."""
    start_time: int | None = None
    boot_id: str = ""
    pid_namespace: str = ""
    starting: Process | None = None
    """While it has not finished its first pass."""
    trouble: str = ""
    """What keeps it from starting, as a sentence."""
    owner: str = ""
    version: str = ""
    started_at: datetime | None = None
    stopping_at: datetime | None = None
    stopped_at: datetime | None = None
    """Both only after an orderly stop was asked for."""
    seen_at: datetime | None = None
    """When the last pass was finished."""
    seen_monotonic_s: float | None = None
    """The same on CLOCK_MONOTONIC, which nobody sets."""
    sweep_s: float = 0.0
    """0 until a pass was finished."""
    max_worksets: int | None = None
    max_per_customer: int = 0
    age_s: float | None = None
    cluster: str | None = None
    """As ``admission.Limits`` has them; None where a version before this one wrote it."""
    active: Mapping[str, str] = field(default_factory=dict)
    customers: Mapping[str, str] = field(default_factory=dict)
    waiting: int = 0
    waits_more: bool = False
    """Whether more wait than it knows of."""
    owed: int = 0
    held: str = ""
    ports: Mapping[str, Port] = field(default_factory=dict)
    last_reload: Reload | None = None

    def __post_init__(self) -> None:
        _all_aware(self.started_at, self.stopping_at, self.stopped_at, self.seen_at)

    @property
    def process(self) -> Process | None:
        if self.starting is not None or self.pid is None:
            return self.starting
        return Process(
            pid=self.pid,
            start_time=self.start_time,
            boot_id=self.boot_id,
            pid_namespace=self.pid_namespace,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """What could be seen of the daemon of a host at one moment."""

    now: datetime
    status: Status | None = None
    """What it said last; None if none ever ran, or what it said cannot be read."""
    unreadable: str = ""
    """Why that cannot be read, as a sentence."""
    life: Life = Life.GONE
    age_s: float | None = None
    """Seconds since the last finished pass; None if none was."""
