"""What a daemon says of itself, for whoever asks how it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from daylily_daemon.domain.problems import HealthProblem, problems_of
from daylily_daemon.domain.times import all_aware


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
    """What a daemon's calls of one port came to."""

    good_at: datetime | None = None
    """When a call was last answered; a definite no about one thing is an answer."""
    failing_since: datetime | None = None
    """When the first of an unbroken row of failures happened; None while it works."""
    failed_at: datetime | None = None
    """When the last of them happened."""
    failures: int = 0
    """In that row."""
    code: str = ""
    """``transient``, ``impeded``, ``unclear`` or ``unexpected``."""
    error: str = ""
    """What the other side calls it, ``ThrottlingException``; ``credentials`` for all trouble with those."""
    text: str = ""
    """The last trouble, as a sentence."""

    def __post_init__(self) -> None:
        all_aware(self.good_at, self.failing_since, self.failed_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Owed:
    """Notices that a channel has not taken yet, of those this daemon has in hand."""

    count: int = 0
    oldest_at: datetime | None = None

    def __post_init__(self) -> None:
        all_aware(self.oldest_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLevel:
    """A queue as its daemon sees it. SQS counts roughly, and tells no age."""

    waiting: int = 0
    in_flight: int = 0
    """Received by somebody who has not settled them yet."""
    oldest_at: datetime | None = None
    """When the oldest was sent of those that this daemon has received and not settled."""
    group: str = ""
    """Its group, which is its workset."""
    stuck_since: datetime | None = None
    """Since when messages wait of which it receives none."""
    old_s: float = 300.0
    """The age beyond which a message should have been answered, in seconds."""
    is_dead_letters: bool = False

    def __post_init__(self) -> None:
        all_aware(self.oldest_at, self.stuck_since)

    def age_s(self, now: datetime) -> float:
        """Return how long the oldest has waited, at least; 0 where nothing is known to wait."""
        since = min((at for at in (self.oldest_at, self.stuck_since) if at), default=None)
        return 0.0 if since is None else (now - since).total_seconds()


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskLevel:
    free: int
    """Bytes."""
    needed: int
    """Bytes below which nothing new is started; 0 asks for none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobLevel:
    """A job that people should look at, as its daemon sees it."""

    step: str = ""
    output_at: datetime | None = None
    """When its log was last written to."""
    ends_at: datetime | None = None
    """When nothing of it should run any more."""

    def __post_init__(self) -> None:
        all_aware(self.output_at, self.ends_at)

    def quiet_s(self, now: datetime) -> float:
        """Return how long nothing was added to its log, in seconds; 0 where nothing is known of it."""
        return max(0.0, (now - self.output_at).total_seconds()) if self.output_at else 0.0

    def overdue_s(self, now: datetime) -> float:
        """Return how long it goes on after it should have ended, in seconds; 0 before that."""
        return max(0.0, (now - self.ends_at).total_seconds()) if self.ends_at else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Missed:
    """Drops that a listing found and no event told of, until events come again."""

    count: int = 0
    since: datetime | None = None

    def __post_init__(self) -> None:
        all_aware(self.since)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """That a daemon takes on nothing new, because somebody wants it so."""

    by: str
    since: datetime
    reason: str = ""

    def __post_init__(self) -> None:
        all_aware(self.since)


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
    item_format: int = 0
    """The newest format of worksets that it reads, and the one it writes; 0 where nobody said."""
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
    passes: int = 0
    held: str = ""
    ports: Mapping[str, Port] = field(default_factory=dict)
    last_reload: Reload | None = None
    host: str = ""
    channels: Mapping[str, Owed] = field(default_factory=dict)
    queues: Mapping[str, QueueLevel] = field(default_factory=dict)
    disks: Mapping[str, DiskLevel] = field(default_factory=dict)
    jobs: Mapping[str, JobLevel] = field(default_factory=dict)
    """Those that are quiet or overdue, by workset: the worst of them, ``engine/looks.py`` says how many."""
    missed: Missed | None = None
    skew_s: float | None = None
    """This host's clock minus that of AWS, in seconds; None until AWS has answered."""
    drain: Drain | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    """A digest of each setting that has another value than its default; empty where that was not told."""
    problems: tuple[HealthProblem, ...] = ()
    """What it found to be wrong, after its last pass."""

    def __post_init__(self) -> None:
        all_aware(self.started_at, self.stopping_at, self.stopped_at, self.seen_at)

    def found_wrong(self, now: datetime) -> Status:
        """Return this with what is wrong with it; what was wrong before keeps the time it was seen first."""
        before = {p.identity: p.since for p in self.problems}
        found = tuple(
            p if p.since else replace(p, since=before.get(p.identity) or now)
            for p in problems_of(self, now)
        )
        return replace(self, problems=found)

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
class Registered:
    """A daemon as the registry has it."""

    owner: str
    said_at: datetime | None
    """When it said so, by its own clock."""
    status: Status | None
    """None where it is written in a way that this version cannot read."""
    drain: Drain | None = None


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
