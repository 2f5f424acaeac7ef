"""Whether a daemon is well: judged by what it could last do, never by its being there alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from daylily_daemon.application.wording import span, when
from daylily_daemon.domain.daemon import Life, Port, Sighting, Status

MARGIN_S: Final = 30.0
"""Beyond two sweeps without a finished pass a daemon hangs."""
FAILURES: Final = 2
"""In a row that a port may have without a word, for ``PATIENCE_S``."""
PATIENCE_S: Final = 30.0
LOGS: Final = "journalctl -u daylily-daemon"
"""Where the whole story is."""


@dataclass(frozen=True, slots=True)
class HealthVerdict:
    healthy: bool
    lines: tuple[str, ...]
    """Sentences, the most important one first."""

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


NEVER_RAN: Final = HealthVerdict(False, ("No daemon has run with this state directory.",))


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
    status = seen.status
    if seen.unreadable:
        return HealthVerdict(False, (seen.unreadable,))
    if status is None:
        return NEVER_RAN
    name = f"{status.owner}: " if status.owner else ""
    if seen.life in (Life.GONE, Life.REPLACED):
        return HealthVerdict(False, (name + _not_running(status, seen.life),))
    if status.starting is not None:
        return HealthVerdict(False, (name + _starting(status, seen),))
    troubles = tuple(_troubles(status, seen))
    running = (
        f"running {len(status.active)} of {_slots(status)} worksets, {_waiting(status)} waiting"
    )
    said = f"{name}{running}; {_last_pass(status, seen)}"
    return HealthVerdict(not troubles, (said, *troubles))


def _waiting(status: Status) -> str:
    return f"{status.waiting}{'+' if status.waits_more else ''}"


def _slots(status: Status) -> str:
    return "?" if status.max_worksets is None else str(status.max_worksets)


def _not_running(status: Status, life: Life) -> str:
    seen = when(status.seen_at) or "never"
    if status.stopped_at is not None:
        return f"not running; last seen {seen}, stopped in order at {when(status.stopped_at)}."
    process = status.process
    number = process.pid if process else "?"
    taken = "" if life is Life.GONE else f"; its process number {number} is not its own any more"
    if status.starting is not None:
        return f"not running; it ended while it was starting{taken}. Its log says why: {LOGS}"
    return f"not running; last seen {seen}, and it was not stopped in order{taken}. Its log says why: {LOGS}"


def _starting(status: Status, seen: Sighting) -> str:
    since = f" since {when(status.started_at)} UTC" if status.started_at else ""
    if seen.life is Life.STOPPED:
        return f"starting{since}, and its process is stopped (SIGSTOP); SIGCONT lets it go on."
    why = status.trouble or f"it has not finished its first pass. Its log: {LOGS}"
    return f"starting{since}: {why}"


def _last_pass(status: Status, seen: Sighting) -> str:
    hidden = "; its process cannot be seen from here" if seen.life is Life.HIDDEN else ""
    ago = "" if seen.age_s is None else f" ({span(seen.age_s)} ago)"
    return f"last seen {when(status.seen_at) or 'never'}{ago}{hidden}"


def _troubles(status: Status, seen: Sighting) -> Iterator[str]:
    if seen.life is Life.STOPPED:
        yield (
            "Its process is stopped (SIGSTOP): it does nothing, and its claims run out. "
            f"`kill -CONT {status.pid}` lets it go on."
        )
    if status.stopping_at is not None:
        yield f"It is stopping since {when(status.stopping_at)}; its jobs run on."
    limit_s = 2 * status.sweep_s + MARGIN_S
    if seen.age_s is None or seen.age_s > limit_s:
        since = when(status.seen_at) or "its start"
        yield (
            f"It hangs: no pass was finished since {since}, and one is due every {status.sweep_s:g} s. "
            f"Its log: {LOGS}"
        )
    for name in sorted(status.ports):
        if is_failing(status.ports[name], seen.now):
            yield _failing(name, status.ports[name], seen.now)
    if status.held:
        yield f"Nothing new is started. {status.held}"


def is_failing(port: Port, now: datetime) -> bool:
    """Tell whether this is more than a call that went wrong once: several in a row, or two over a while."""
    if port.failing_since is None:
        return False
    lasted_s = (now - port.failing_since).total_seconds()
    return port.failures > FAILURES or (port.failures > 1 and lasted_s > PATIENCE_S)


def _failing(name: str, port: Port, now: datetime) -> str:
    since = port.failing_since or now
    lasted = span((now - since).total_seconds())
    kind, _, channel = name.partition(":")
    what = f"Telling {channel} fails" if kind == "channel" else NAMES.get(name, f"{name} fails")
    return f"{what} since {when(since)} ({lasted}, {port.failures} times in a row): {port.text}"


NAMES: Final = {
    "worksets": "The table of worksets fails",
    "trail": "The table of audit events fails",
    "intake": "The queue of S3 events fails",
    "commands": "The queue of commands fails",
    "inputs": "Checking inputs fails",
    "drops": "Listing the drops fails",
    "runner": "Starting or watching jobs fails",
    "disk": "The disks do not answer",
}
