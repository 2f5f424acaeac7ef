"""Whether a daemon is well: judged by what it could last do, never by its being there alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from daylily_daemon.adapters import vitals
from daylily_daemon.adapters.host import StateDir
from daylily_daemon.adapters.vitals import Life, Port, Status
from daylily_daemon.cli.output import when

MARGIN_S: Final = 30.0
"""Beyond two sweeps without a finished pass a daemon hangs."""
FAILURES: Final = 2
"""In a row that a port may have without a word, for ``PATIENCE_S``."""
PATIENCE_S: Final = 30.0
LOGS: Final = "journalctl -u daylily-daemon"
"""Where the whole story is."""


@dataclass(frozen=True, slots=True)
class Verdict:
    healthy: bool
    lines: tuple[str, ...]
    """Sentences, the most important one first."""

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


NEVER_RAN: Final = Verdict(False, ("No daemon has run with this state directory.",))


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What is known at the moment of the question."""

    now: datetime
    life: Life
    age_s: float | None
    """Seconds since the last finished pass; None if none was."""


@dataclass(frozen=True, slots=True)
class LocalDaemon:
    """The daemon of this host's state directory, as far as it can be seen."""

    status: Status | None
    verdict: Verdict
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


def of_this_host(state: StateDir, now: datetime) -> LocalDaemon:
    """Look at the daemon of this state directory; needs no AWS."""
    try:
        status = vitals.read(state)
    except vitals.Unreadable as exc:
        return LocalDaemon(None, Verdict(False, (str(exc),)))
    process = status.process if status else None
    life = vitals.life_of(process) if process else Life.GONE
    age = vitals.age_s(status, now) if status else None
    alive = life not in (Life.GONE, Life.REPLACED)
    return LocalDaemon(status, verdict(status, Look(now=now, life=life, age_s=age)), alive)


def verdict(status: Status | None, look: Look) -> Verdict:
    """Judge a daemon. Pure."""
    if status is None:
        return NEVER_RAN
    name = f"{status.owner}: " if status.owner else ""
    if look.life in (Life.GONE, Life.REPLACED):
        return Verdict(False, (name + _not_running(status, look.life),))
    if status.starting is not None:
        return Verdict(False, (name + _starting(status, look),))
    troubles = tuple(_troubles(status, look))
    running = f"running {len(status.active)} of {_slots(status)} worksets, {status.waiting} waiting"
    said = f"{name}{running}; {_last_pass(status, look)}"
    return Verdict(not troubles, (said, *troubles))


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


def _starting(status: Status, look: Look) -> str:
    since = f" since {when(status.started_at)} UTC" if status.started_at else ""
    if look.life is Life.STOPPED:
        return f"starting{since}, and its process is stopped (SIGSTOP); SIGCONT lets it go on."
    why = status.trouble or f"it has not finished its first pass. Its log: {LOGS}"
    return f"starting{since}: {why}"


def _last_pass(status: Status, look: Look) -> str:
    hidden = "; its process cannot be seen from here" if look.life is Life.HIDDEN else ""
    ago = "" if look.age_s is None else f" ({_span(look.age_s)} ago)"
    return f"last seen {when(status.seen_at) or 'never'}{ago}{hidden}"


def _troubles(status: Status, look: Look) -> Iterator[str]:
    if look.life is Life.STOPPED:
        yield (
            "Its process is stopped (SIGSTOP): it does nothing, and its claims run out. "
            f"`kill -CONT {status.pid}` lets it go on."
        )
    if status.stopping_at is not None:
        yield f"It is stopping since {when(status.stopping_at)}; its jobs run on."
    limit_s = 2 * status.sweep_s + MARGIN_S
    if look.age_s is None or look.age_s > limit_s:
        since = when(status.seen_at) or "its start"
        yield (
            f"It hangs: no pass was finished since {since}, and one is due every {status.sweep_s:g} s. "
            f"Its log: {LOGS}"
        )
    for name in sorted(status.ports):
        if is_failing(status.ports[name], look.now):
            yield _failing(name, status.ports[name], look.now)
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
    lasted = _span((now - since).total_seconds())
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


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{max(0.0, seconds):.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} days"
