"""What is wrong with a daemon, each with what to do about it.

A daemon judges itself after each pass, by what its calls came to, and writes what it found where anybody can
read it. Whoever asks adds only what a daemon cannot say of itself: that it hangs, is silent, or has ended
(``application/health.py``). A problem is there as long as its cause is, and goes by itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from daylily_daemon.domain.errors import CREDENTIALS
from daylily_daemon.domain.times import span, when
from daylily_daemon.domain.totality import total

if TYPE_CHECKING:
    from daylily_daemon.domain.daemon import DiskLevel, Drain, JobLevel, Port, QueueLevel, Status


class Severity(StrEnum):
    PROBLEM = "problem"
    """Somebody has to act, or work stands still."""
    WARNING = "warning"
    """It goes on as it is; somebody should know."""


class ProblemKind(StrEnum):
    """Never renamed: alerts and programs know problems by it."""

    NOT_RUNNING = "daemon-not-running"
    STOPPED = "daemon-stopped"
    HANGS = "daemon-hangs"
    SILENT = "daemon-silent"
    STARTING = "daemon-starting"
    STOPPING = "daemon-stopping"
    UNREADABLE = "status-unreadable"
    SETTINGS = "settings-unreadable"
    VERSIONS = "versions-differ"
    REFUSED = "port-refused"
    CREDENTIALS = "credentials-refused"
    THROTTLED = "port-throttled"
    UNREACHABLE = "port-unreachable"
    CHANNEL = "channel-failing"
    DEAD_LETTERS = "dead-letters"
    QUEUE_OLD = "queue-old"
    HELD = "admission-held"
    DRAINING = "draining"
    DISK = "disk-filling-up"
    RELOAD_REFUSED = "reload-refused"
    EVENTS_MISSED = "events-missed"
    CLOCK = "clock-off"
    JOB_OVERDUE = "job-overdue"
    JOB_QUIET = "job-quiet"


_MEANINGS: Final[Mapping[ProblemKind, str]] = {
    ProblemKind.NOT_RUNNING: "The process of this host's daemon has ended. Its jobs run on.",
    ProblemKind.STOPPED: "SIGSTOP or a terminal keeps its process from doing anything.",
    ProblemKind.HANGS: "Its process lives and finishes no pass. systemd replaces it.",
    ProblemKind.SILENT: "It has not signed the registry for five minutes: its host is lost, or cut off.",
    ProblemKind.STARTING: "It waits for what it needs to start: a disk, AWS, a table.",
    ProblemKind.STOPPING: "Somebody stops it; it lets go of its worksets, whose jobs run on.",
    ProblemKind.UNREADABLE: "The status file of this host cannot be read by this user.",
    ProblemKind.SETTINGS: "The settings that this command reads make no sense.",
    ProblemKind.VERSIONS: "Daemons of several versions run beside each other.",
    ProblemKind.REFUSED: "AWS or this host refuses what the daemon needs: a right, a table, a key.",
    ProblemKind.CREDENTIALS: "AWS does not accept who we say we are.",
    ProblemKind.THROTTLED: "AWS answers that it is asked too often.",
    ProblemKind.UNREACHABLE: "No answer comes, or none that can be understood.",
    ProblemKind.CHANNEL: "A channel takes no notices. They wait, in order, and hold nothing else up.",
    ProblemKind.DEAD_LETTERS: "Messages that nobody could read, or that were received too often.",
    ProblemKind.QUEUE_OLD: "A message is not answered for longer than `queues.old_s`.",
    ProblemKind.HELD: "This host cannot take more: a disk is full, or does not answer.",
    ProblemKind.DRAINING: "Somebody wants nothing new started there.",
    ProblemKind.DISK: "Less than twice `daemon.min_free_gb` is free.",
    ProblemKind.RELOAD_REFUSED: "The settings on disk make no sense; those before are in force.",
    ProblemKind.EVENTS_MISSED: "The listing found drops of which no event told.",
    ProblemKind.CLOCK: "This host's clock is off that of AWS by 10 s; from 240 s on it is a problem.",
    ProblemKind.JOB_OVERDUE: "A job goes on after its limit, or a cancel, and the grace that follows.",
    ProblemKind.JOB_QUIET: "A job has written nothing to its log for four hours. It may hang.",
}
MEANINGS: Final = total("problems.MEANINGS", _MEANINGS, tuple(ProblemKind))
"""What each kind means, for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthProblem:
    kind: str
    """A ``ProblemKind``; a daemon of another version may know others."""
    about: str
    """The one word in front: ``AWS``, ``slack``, ``clock``, the name of a daemon."""
    subject: str = ""
    """Which of several things of that kind: a service, the name of a queue, a folder."""
    daemon: str = ""
    """The name of the daemon that says it, where that is not the one of this host."""
    text: str
    """What is wrong, as a sentence."""
    remedy: str = ""
    """What to do, as a sentence; empty where ``command`` says it all."""
    command: str = ""
    """A command that does it or shows more, exactly as it is typed."""
    severity: Severity = Severity.PROBLEM
    since: datetime | None = None

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """Return what two problems have in common that are one: all daemons see the same AWS."""
        is_shared = self.about == AWS or self.kind in _SEEN_BY_ALL
        return self.kind, self.about, self.subject, "" if is_shared else self.daemon

    @property
    def sentence(self) -> str:
        """Return the text with the name of the daemon in front that says it, if that is another one."""
        return f"{self.daemon}: {self.text}" if self.daemon else self.text

    @property
    def advice(self) -> str:
        """Return what to do on one line, the command last."""
        return ": ".join(part for part in (self.remedy.rstrip(".:"), self.command) if part)


AWS: Final = "AWS"
_SEEN_BY_ALL: Final = frozenset(
    {
        ProblemKind.CHANNEL,
        ProblemKind.DEAD_LETTERS,
        ProblemKind.QUEUE_OLD,
        ProblemKind.EVENTS_MISSED,
    }
)
FAILURES: Final = 2
"""In a row that a port may have without a word, for ``PATIENCE_S``."""
PATIENCE_S: Final = 30.0
SKEW_S: Final = 10.0
"""Beyond it people misread logs; AWS refuses signatures after 300 s."""
SKEW_REFUSED_S: Final = 240.0
QUIET_S: Final = 4 * 3600.0
"""Without a line in its log, and a job is said to be quiet."""
OVERDUE_S: Final = 60.0
"""A job that should have ended has so long to be seen to have."""
FILLING_UP: Final = 2
"""Times the room that must be free: below it a disk is said to fill up."""


def is_failing(port: Port, now: datetime) -> bool:
    """Tell whether this is more than a call that went wrong once: several in a row, or two over a while."""
    if port.failing_since is None:
        return False
    lasted_s = (now - port.failing_since).total_seconds()
    return port.failures > FAILURES or (port.failures > 1 and lasted_s > PATIENCE_S)


def failing_s(port: Port, now: datetime) -> float:
    """Return how long calls of a port fail in a row, in seconds; 0 where only one went wrong."""
    since = port.failing_since if is_failing(port, now) else None
    return (now - since).total_seconds() if since else 0.0


def problems_of(status: Status, now: datetime) -> tuple[HealthProblem, ...]:
    """Return what a daemon that runs can say is wrong with itself, the most urgent first."""
    found = [
        *_of_ports(status, now),
        *_of_channels(status, now),
        *_of_queues(status, now),
        *_of_admission(status),
        *_of_disks(status),
        *_of_reload(status),
        *_of_events(status),
        *_of_clock(status),
        *_of_jobs(status, now),
    ]
    return tuple(sorted(found, key=lambda problem: problem.severity is not Severity.PROBLEM))


# --- ports ----------------------------------------------------------------------------------------

SERVICES: Final[Mapping[str, str]] = {
    "worksets": "DynamoDB",
    "turns": "DynamoDB",
    "trail": "DynamoDB",
    "registry": "DynamoDB",
    "catalogue": "DynamoDB",
    "intake": "SQS",
    "commands": "SQS",
    "levels": "SQS",
    "drops": "S3",
    "inputs": "S3",
    "runner": "the runner",
    "disk": "the disks",
    "cloudwatch": "CloudWatch",
}
"""What stands behind each port of a daemon."""
_AWS: Final = frozenset({AWS, "DynamoDB", "SQS", "S3", "CloudWatch"})
_ONLY_TOLD: Final = frozenset({"CloudWatch"})
"""What is told figures, and nothing waits for: its trouble is a warning."""
THROTTLED: Final = re.compile(r"throttl|slowdown|toomany|exceeded|limitreached", re.IGNORECASE)


def _of_ports(status: Status, now: datetime) -> Iterator[HealthProblem]:
    failing: dict[tuple[str, ProblemKind], Port] = {}
    for name, port in sorted(status.ports.items()):
        if name.startswith("channel:") or not is_failing(port, now):
            continue
        service = SERVICES.get(name, name)
        kind = kind_of(port)
        shared = kind is ProblemKind.CREDENTIALS and service not in _ONLY_TOLD
        both = (AWS if shared else service), kind
        failing[both] = _merged(failing[both], port) if both in failing else port
    for (service, kind), port in failing.items():
        yield _port_problem(service, kind, port, status, now)


def kind_of(port: Port) -> ProblemKind:
    """Return what kind of trouble the last call of a failing port met."""
    if port.error == CREDENTIALS:
        return ProblemKind.CREDENTIALS
    if THROTTLED.search(port.error):
        return ProblemKind.THROTTLED
    return ProblemKind.REFUSED if port.code == "impeded" else ProblemKind.UNREACHABLE


def _merged(one: Port, other: Port) -> Port:
    """Return two ports of one service as one: what lasts longer, and all failures."""
    first, second = sorted((one, other), key=lambda port: str(port.failing_since or "~"))
    return replace(first, failures=first.failures + second.failures)


_VERBS: Final[Mapping[ProblemKind, str]] = {
    ProblemKind.CREDENTIALS: "refuses our credentials",
    ProblemKind.THROTTLED: "throttles",
    ProblemKind.REFUSED: "refuses",
    ProblemKind.UNREACHABLE: "does not answer",
}


def _port_problem(
    service: str, kind: ProblemKind, port: Port, status: Status, now: datetime
) -> HealthProblem:
    since = port.failing_since or now
    lasted = span((now - since).total_seconds())
    return HealthProblem(
        kind=kind,
        about=AWS if service in _AWS else service.removeprefix("the "),
        subject=service,
        text=f"{service} {_VERBS[kind]} since {when(since)} ({lasted}, {port.failures} times): {port.text}",
        remedy=_port_remedy(service, kind, len(status.active)),
        severity=_port_severity(service, kind),
        since=since,
    )


def _port_severity(service: str, kind: ProblemKind) -> Severity:
    is_minor = kind is ProblemKind.THROTTLED or service in _ONLY_TOLD
    return Severity.WARNING if is_minor else Severity.PROBLEM


def _port_remedy(service: str, kind: ProblemKind, jobs: int) -> str:
    if service not in _AWS:
        return f"Look at {service} on this host; it goes on by itself once that works"
    calm = f"Nothing is lost, {jobs} jobs run on"
    match kind:
        case ProblemKind.CREDENTIALS:
            return f"Renew the credentials of this host's role or profile. {calm}"
        case ProblemKind.THROTTLED:
            return f"Wait, or raise the quota of {service}. {calm}"
        case ProblemKind.REFUSED:
            return f"Fix what it names. {calm}, and it goes on by itself"
        case _:
            return f"Look at the network of this host and at AWS's status page. {calm}"


# --- channels -------------------------------------------------------------------------------------


def _of_channels(status: Status, now: datetime) -> Iterator[HealthProblem]:
    for name, port in sorted(status.ports.items()):
        kind, _, channel = name.partition(":")
        if kind != "channel" or not is_failing(port, now):
            continue
        since = port.failing_since or now
        owed = status.channels.get(channel)
        text = f"Telling {channel} fails since {when(since)} ({port.failures} times): {port.text}"
        if owed and owed.oldest_at:
            age = span((now - owed.oldest_at).total_seconds())
            text = f"{owed.count} notices owed, oldest {age}. {text}"
        yield HealthProblem(
            kind=ProblemKind.CHANNEL,
            about=channel,
            text=text,
            remedy=f"Nothing if {channel} is down: what is owed is delivered once it answers. Else look at "
            f"notifications.{channel}, and try it",
            command=f"daylily-daemon notify test {channel}",
            since=since,
        )


# --- queues ---------------------------------------------------------------------------------------


def _of_queues(status: Status, now: datetime) -> Iterator[HealthProblem]:
    for name, level in sorted(status.queues.items()):
        if level.is_dead_letters:
            if level.waiting:
                yield _dead_letters(name, level)
        elif level.age_s(now) > level.old_s:
            yield _old_queue(name, level, now)


def _dead_letters(name: str, level: QueueLevel) -> HealthProblem:
    many = "message was" if level.waiting == 1 else "messages were"
    return HealthProblem(
        kind=ProblemKind.DEAD_LETTERS,
        about="queue",
        subject=name,
        text=f"{level.waiting} {many} given up and lie in {name}.",
        remedy="See what they are, then mend, replay or drop them",
        command="daylily-daemon dlq list",
        since=level.oldest_at,
    )


def _old_queue(name: str, level: QueueLevel, now: datetime) -> HealthProblem:
    group = f": group {level.group}" if level.group else ""
    least = "" if level.oldest_at else "at least "
    age = span(level.age_s(now))
    return HealthProblem(
        kind=ProblemKind.QUEUE_OLD,
        about="queue",
        subject=name,
        text=f"{name}: {level.waiting} waiting, {level.in_flight} in flight, oldest {least}{age}{group}.",
        remedy="Messages in flight are with a daemon that has not answered them yet, or with another "
        "program that reads this queue: look for it",
        since=level.oldest_at or level.stuck_since,
    )


# --- this host ------------------------------------------------------------------------------------


def _of_admission(status: Status) -> Iterator[HealthProblem]:
    if status.drain is not None:
        drain = status.drain
        yield HealthProblem(
            kind=ProblemKind.DRAINING,
            about="drain",
            text=f"{why_drained(drain)} Nothing new is started; {len(status.active)} run on.",
            command="daylily-daemon resume",
            severity=Severity.WARNING,
            since=drain.since,
        )
    elif status.held:
        is_full = any(map(is_short, status.disks.values()))
        yield HealthProblem(
            kind=ProblemKind.HELD,
            about="start",
            text=f"Nothing new is started. {status.held}",
            remedy=_HELD_BY_A_DISK if is_full else "It goes on by itself once that is fixed",
            command=PRUNE if is_full else "",
        )


PRUNE: Final = "daylily-daemon prune --older 30d --dry-run"
_HELD_BY_A_DISK: Final = "It goes on by itself once there is room. See what may be removed"


def is_short(level: DiskLevel) -> bool:
    """Tell whether less is free than must be, so that nothing new is started."""
    return level.free < level.needed


def why_drained(drain: Drain) -> str:
    why = f": {drain.reason.rstrip('.')}" if drain.reason else ""
    return f"Drained by {drain.by} since {when(drain.since)}{why}."


def _of_disks(status: Status) -> Iterator[HealthProblem]:
    for folder, level in sorted(status.disks.items()):
        if level.needed and not status.held and level.free < FILLING_UP * level.needed:
            yield HealthProblem(
                kind=ProblemKind.DISK,
                about="disk",
                subject=folder,
                text=f"{folder} has {level.free / 1e9:.1f} GB left; below {level.needed / 1e9:.1f} GB "
                "nothing new is started.",
                remedy="Raise the size of the disk, or remove what is no longer needed. See what that is",
                command=PRUNE,
                severity=Severity.WARNING,
            )


def _of_reload(status: Status) -> Iterator[HealthProblem]:
    reload = status.last_reload
    if reload is not None and reload.result == "refused":
        yield HealthProblem(
            kind=ProblemKind.RELOAD_REFUSED,
            about="settings",
            text=f"The settings on disk are refused since {reload.at[:19].replace('T', ' ')}: "
            f"{'; '.join(reload.problems)} The old ones are in force.",
            remedy="Correct them, then reload the daemon; to see all that is wrong",
            command="daylily-daemon check-config",
        )


def _of_events(status: Status) -> Iterator[HealthProblem]:
    missed = status.missed
    if missed is not None and missed.count:
        drops = "drop was" if missed.count == 1 else "drops were"
        yield HealthProblem(
            kind=ProblemKind.EVENTS_MISSED,
            about="events",
            text=f"{missed.count} {drops} found by listing, not by event, since {when(missed.since)}.",
            remedy="The bucket does not tell us of drops, which start late therefore. Set it up again",
            command="daylily-daemon init",
            severity=Severity.WARNING,
            since=missed.since,
        )


def _of_clock(status: Status) -> Iterator[HealthProblem]:
    skew_s = status.skew_s
    if skew_s is None or abs(skew_s) < SKEW_S:
        return
    refused, side = abs(skew_s) >= SKEW_REFUSED_S, "ahead of" if skew_s > 0 else "behind"
    yield HealthProblem(
        kind=ProblemKind.CLOCK,
        about="clock",
        text=f"The clock of this host is {span(abs(skew_s))} {side} AWS.",
        remedy="AWS refuses what is signed more than 5 min off. See whether the time service runs",
        command="chronyc tracking",
        severity=Severity.PROBLEM if refused else Severity.WARNING,
    )


# --- jobs -----------------------------------------------------------------------------------------


def is_worth_a_look(job: JobLevel, now: datetime) -> bool:
    """Tell whether somebody should look at a job: it is quiet for long, or should have ended."""
    return job.overdue_s(now) > OVERDUE_S or job.quiet_s(now) > QUIET_S


def _of_jobs(status: Status, now: datetime) -> Iterator[HealthProblem]:
    for id, job in sorted(status.jobs.items()):
        if job.overdue_s(now) > OVERDUE_S:
            yield _overdue(id, job, now)
        elif job.quiet_s(now) > QUIET_S:
            yield _quiet(id, job, now)


def _overdue(id: str, job: JobLevel, now: datetime) -> HealthProblem:
    return HealthProblem(
        kind=ProblemKind.JOB_OVERDUE,
        about="job",
        subject=id,
        text=f"{id}: step {job.step} should have ended {span(job.overdue_s(now))} ago, and something of it "
        "still runs.",
        remedy="See which of its processes are left; one that waits for a disk ends when the disk answers",
        command=f"daylily-daemon explain {id}",
        since=job.ends_at,
    )


def _quiet(id: str, job: JobLevel, now: datetime) -> HealthProblem:
    return HealthProblem(
        kind=ProblemKind.JOB_QUIET,
        about="job",
        subject=id,
        text=f"{id}: step {job.step} has written nothing for {span(job.quiet_s(now))}; it may hang.",
        remedy="See what it does, then wait, or cancel it and run it again",
        command=f"daylily-daemon explain {id}",
        severity=Severity.WARNING,
        since=job.output_at,
    )
