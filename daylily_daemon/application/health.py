"""Whether a daemon is well: judged by what it could last do, never by its being there alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from daylily_daemon.domain.daemon import Drain, Life, Registered, Sighting, Status
from daylily_daemon.domain.problems import HealthProblem, ProblemKind, Severity, problems_of
from daylily_daemon.domain.times import span, when

MARGIN_S: Final = 30.0
"""Beyond two sweeps without a finished pass a daemon hangs."""
LOGS: Final = "journalctl -u daylily-daemon"
"""Where the whole story is."""


@dataclass(frozen=True, slots=True)
class HealthVerdict:
    headline: str
    """What it does, in a few words; empty where that is not known."""
    problems: tuple[HealthProblem, ...] = ()

    @property
    def healthy(self) -> bool:
        return all(problem.severity is not Severity.PROBLEM for problem in self.problems)

    @property
    def lines(self) -> tuple[str, ...]:
        """Return sentences, the most important one first."""
        return tuple(filter(None, (self.headline, *map(_line, self.problems))))

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


def _line(problem: HealthProblem) -> str:
    return f"{problem.sentence} Do: {problem.advice}" if problem.advice else problem.sentence


NEVER_RAN: Final = HealthVerdict(
    "",
    (
        HealthProblem(
            kind=ProblemKind.NOT_RUNNING,
            about="daemon",
            text="No daemon has run with this state directory.",
            remedy="Start it, or name its settings with --config",
            command="systemctl start daylily-daemon",
        ),
    ),
)


@dataclass(frozen=True, slots=True)
class LocalDaemon:
    """The daemon of this host's state directory, as far as it can be seen."""

    status: Status | None
    verdict: HealthVerdict
    alive: bool = False
    """Whether its process is there, well or not."""

    def holds(self, id: str, owner: str | None) -> bool:
        """Tell whether it says that it works on the workset that ``owner`` holds by the table."""
        return (
            self.alive
            and self.status is not None
            and self.status.owner == owner
            and id in self.status.active
        )


def judged(seen: Sighting) -> LocalDaemon:
    """Judge the daemon of a host. Pure."""
    alive = seen.life not in (Life.GONE, Life.REPLACED)
    return LocalDaemon(seen.status, verdict(seen), alive)


def verdict(seen: Sighting) -> HealthVerdict:
    """Judge the daemon of this host by what it said last and what the kernel says of it."""
    status = seen.status
    if seen.unreadable:
        return HealthVerdict("", (_of_daemon(ProblemKind.UNREADABLE, seen.unreadable),))
    if status is None:
        return NEVER_RAN
    name = f"{status.owner}: " if status.owner else ""
    if seen.life in (Life.GONE, Life.REPLACED):
        return HealthVerdict("", (_not_running(name, status, seen.life),))
    if status.starting is not None:
        return HealthVerdict("", (_starting(name, status, seen),))
    running = (
        f"running {len(status.active)} of {_slots(status)} worksets, {_waiting(status)} waiting"
    )
    headline = f"{name}{running}; {_last_pass(status, seen)}"
    judged_now = status.found_wrong(seen.now).problems
    return HealthVerdict(headline, (*_own_troubles(status, seen), *judged_now))


def _of_daemon(
    kind: ProblemKind,
    text: str,
    remedy: str = "",
    command: str = LOGS,
    since: datetime | None = None,
) -> HealthProblem:
    return HealthProblem(
        kind=kind, about="daemon", text=text, remedy=remedy, command=command, since=since
    )


def _waiting(status: Status) -> str:
    return f"{status.waiting}{'+' if status.waits_more else ''}"


def _slots(status: Status) -> str:
    return "?" if status.max_worksets is None else str(status.max_worksets)


def _not_running(name: str, status: Status, life: Life) -> HealthProblem:
    seen = when(status.seen_at) or "never"
    text = f"{name}not running; last seen {seen}"
    if status.stopped_at is not None:
        text += f", stopped in order at {when(status.stopped_at)}."
        start = "systemctl start daylily-daemon"
        return _of_daemon(ProblemKind.NOT_RUNNING, text, "Start it", start, status.stopped_at)
    process = status.process
    number = process.pid if process else "?"
    taken = "" if life is Life.GONE else f"; its process number {number} is not its own any more"
    ended = "it ended while it was starting" if status.starting else "it was not stopped in order"
    why = "Its log says why; its jobs run on"
    return _of_daemon(ProblemKind.NOT_RUNNING, f"{text}, and {ended}{taken}.", why)


def _starting(name: str, status: Status, seen: Sighting) -> HealthProblem:
    since = f" since {when(status.started_at)} UTC" if status.started_at else ""
    if seen.life is Life.STOPPED:
        return _stopped(f"{name}starting{since}, and its process is stopped (SIGSTOP).", status)
    why = status.trouble or "it has not finished its first pass."
    return _of_daemon(
        ProblemKind.STARTING, f"{name}starting{since}: {why}", since=status.started_at
    )


def _stopped(text: str, status: Status) -> HealthProblem:
    process = status.process
    command = f"kill -CONT {process.pid}" if process else ""
    return _of_daemon(ProblemKind.STOPPED, text, "SIGCONT lets it go on", command)


def _last_pass(status: Status, seen: Sighting) -> str:
    hidden = "; its process cannot be seen from here" if seen.life is Life.HIDDEN else ""
    ago = "" if seen.age_s is None else f" ({span(seen.age_s)} ago)"
    return f"last seen {when(status.seen_at) or 'never'}{ago}{hidden}"


def _own_troubles(status: Status, seen: Sighting) -> Iterator[HealthProblem]:
    """Yield what a daemon cannot say of itself."""
    if seen.life is Life.STOPPED:
        text = "Its process is stopped (SIGSTOP): it does nothing, and its claims run out."
        yield _stopped(text, status)
    if status.stopping_at is not None:
        text = f"It is stopping since {when(status.stopping_at)}; its jobs run on."
        yield _of_daemon(ProblemKind.STOPPING, text, "Wait", "", status.stopping_at)
    limit_s = 2 * status.sweep_s + MARGIN_S
    if seen.age_s is None or seen.age_s > limit_s:
        since = when(status.seen_at) or "its start"
        text = f"It hangs: no pass was finished since {since}, and one is due every {status.sweep_s:g} s."
        remedy = (
            "Nothing if systemd watches over it (WatchdogSec): it is replaced, jobs run on. Its log"
        )
        yield _of_daemon(ProblemKind.HANGS, text, remedy, since=status.seen_at)


# --- daemons of other hosts ---------------------------------------------------------------------------

SILENT: Final = timedelta(minutes=5)
"""Without a word, which is due each minute: then a daemon is silent."""


class DaemonState(StrEnum):
    RUNNING = "running"
    STARTING = "starting"
    HANGING = "hanging"
    STOPPED = "stopped"
    SILENT = "silent"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonView:
    """A daemon of any host, as the registry tells of it."""

    owner: str
    state: DaemonState
    status: Status | None
    age_s: float | None
    """Seconds since its last word."""
    drain: Drain | None = None
    problems: tuple[HealthProblem, ...] = ()

    @property
    def name(self) -> str:
        return short_name(self.owner)


def short_name(owner: str) -> str:
    """Return ``head1/3d1219c7`` of an owner id: its name, and enough of its folder to tell two apart."""
    name, _, rest = owner.partition("/")
    folder = rest.rpartition("/")[2]
    return f"{name}/{folder[:8]}" if folder else name


def viewed(row: Registered, now: datetime) -> DaemonView:
    """Judge a daemon that may be on another host, by what it said last."""
    age_s = None if row.said_at is None else (now - row.said_at).total_seconds()
    state = _state(row, age_s, now)
    found: tuple[HealthProblem, ...] = ()
    if state is DaemonState.SILENT:
        found = (_silent(row, age_s or 0.0),)
    elif row.status is not None and state is DaemonState.RUNNING:
        found = tuple(p for p in row.status.problems if p.kind != ProblemKind.DRAINING)
    elif state is DaemonState.HANGING:
        found = (_hanging(row),)
    told = (replace(p, daemon=short_name(row.owner)) for p in (*found, *_drained(row)))
    return DaemonView(
        owner=row.owner,
        state=state,
        status=row.status,
        age_s=age_s,
        drain=row.drain,
        problems=tuple(told),
    )


def _drained(row: Registered) -> tuple[HealthProblem, ...]:
    """As the registry has it: its daemon learns of it before it starts anything."""
    active = row.status.active if row.status else {}
    return problems_of(Status(drain=row.drain, active=active), row.said_at or _LONG_AGO)


_LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _state(row: Registered, age_s: float | None, now: datetime) -> DaemonState:
    if row.status is not None and row.status.stopped_at is not None:
        return DaemonState.STOPPED
    if age_s is not None and age_s > SILENT.total_seconds():
        return DaemonState.SILENT
    if row.status is None:
        return DaemonState.UNKNOWN
    seen_at, limit_s = row.status.seen_at, 2 * row.status.sweep_s + SILENT.total_seconds()
    if seen_at is None:
        return DaemonState.STARTING
    return DaemonState.HANGING if (now - seen_at).total_seconds() > limit_s else DaemonState.RUNNING


def _silent(row: Registered, age_s: float) -> HealthProblem:
    holds = len(row.status.active) if row.status else 0
    many = "1 workset" if holds == 1 else f"{holds} worksets"
    return HealthProblem(
        kind=ProblemKind.SILENT,
        about="daemon",
        text=f"Silent for {span(age_s)}, and held {many}.",
        remedy="Look at that host; if it is terminated",
        command=f"daylily-daemon daemon gone {row.owner.partition('/')[0]}",
        severity=Severity.PROBLEM if holds else Severity.WARNING,
        since=row.said_at,
    )


def _hanging(row: Registered) -> HealthProblem:
    seen_at = row.status.seen_at if row.status else None
    return _of_daemon(
        ProblemKind.HANGS,
        f"It hangs: no pass was finished since {when(seen_at)}.",
        "Its jobs run on. On that host its log",
        since=seen_at,
    )


def different_versions(daemons: Sequence[DaemonView]) -> tuple[HealthProblem, ...]:
    """Return a warning where daemons of several versions run beside each other."""
    alive = [d for d in daemons if d.state is DaemonState.RUNNING and d.status]
    versions = {d.status.version for d in alive if d.status}
    if len(versions) < 2:
        return ()
    names = ", ".join(f"{d.name} {d.status.version}" for d in alive if d.status)
    return (
        HealthProblem(
            kind=ProblemKind.VERSIONS,
            about="version",
            text=f"Daemons of several versions run: {names}.{_left_alone(alive)}",
            remedy="Bring all to the newest; what runs goes on meanwhile. Ask the new program first",
            command="daylily-daemon doctor versions",
            severity=Severity.WARNING,
        ),
    )


def _left_alone(alive: Sequence[DaemonView]) -> str:
    """Return which of them leave alone what the newest writes; empty where all understand each other."""
    formats = {d.name: d.status.item_format for d in alive if d.status and d.status.item_format}
    newest = max(formats.values(), default=0)
    behind = sorted(name for name, known in formats.items() if known < newest)
    if not behind:
        return ""
    return f" {', '.join(behind)} leaves alone what the newest writes (format {newest})."
