"""How a daemon is at the moment, as gauges for Prometheus: read when somebody asks, from what it knows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from daylily_daemon.domain.daemon import JobLevel, Status
from daylily_daemon.domain.model import State
from daylily_daemon.domain.problems import ProblemKind, failing_s

_NEVER: Final = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class Described:
    """A metric, as the documentation has it."""

    name: str
    meaning: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Instant:
    """How a daemon is at the moment."""

    now: datetime = _NEVER
    version: str = ""
    format: int = 0
    status: Status = field(default_factory=Status)
    counts: Mapping[State, int] = field(default_factory=dict)
    jobs: Sequence[JobLevel] = ()
    """The worst of them."""


Values = Iterable[tuple[tuple[str, ...], float]]


@dataclass(frozen=True, slots=True)
class _Gauge:
    described: Described
    read: Callable[[Instant], Values]


def _gauge(
    name: str, meaning: str, labels: tuple[str, ...], read: Callable[[Instant], Values]
) -> _Gauge:
    return _Gauge(Described(name, meaning, labels), read)


def _one(value: float | None) -> Values:
    return [] if value is None else [((), float(value))]


def _at(at: datetime | None) -> Values:
    return _one(at.timestamp() if at else None)


def _by_port(instant: Instant) -> Values:
    for name, port in instant.status.ports.items():
        yield (name,), failing_s(port, instant.now)


def _owed(instant: Instant) -> Iterator[tuple[str, int, float]]:
    """Yield each channel that was or is to be told anything, how much it is owed, and the oldest's age."""
    owed, ports = instant.status.channels, instant.status.ports
    told = [port.removeprefix("channel:") for port in ports if port.startswith("channel:")]
    for channel in sorted({*owed, *told}):
        found = owed.get(channel)
        oldest_at = found.oldest_at if found else None
        age_s = (instant.now - oldest_at).total_seconds() if oldest_at else 0.0
        yield channel, found.count if found else 0, age_s


def _problems(instant: Instant) -> Values:
    kinds = [problem.kind for problem in instant.status.problems]
    return [((str(kind),), float(kinds.count(str(kind)))) for kind in ProblemKind]


def _reloaded(instant: Instant) -> float:
    last = instant.status.last_reload
    return float(last is None or last.result != "refused")


def _reloaded_at(instant: Instant) -> Values:
    last = instant.status.last_reload
    return _at(datetime.fromisoformat(last.at) if last and last.at else instant.status.started_at)


GAUGES: Final = (
    _gauge(
        "daylily_build_info",
        "1, with the version of the program and the format of the items it writes.",
        ("version", "format"),
        lambda r: [((r.version, str(r.format)), 1.0)],
    ),
    _gauge(
        "daylily_last_pass_timestamp_seconds",
        "When the last pass over the worksets was finished.",
        (),
        lambda r: _at(r.status.seen_at),
    ),
    _gauge(
        "daylily_worksets",
        "Worksets of all daemons by stored state, 1000 at most; as of the last minute where this daemon "
        "moved one, else of the last ten.",
        ("state",),
        lambda r: [((str(state),), float(many)) for state, many in r.counts.items()],
    ),
    _gauge(
        "daylily_slots",
        "Worksets that this daemon may run at once.",
        (),
        lambda r: _one(r.status.max_worksets),
    ),
    _gauge(
        "daylily_slots_used",
        "Worksets that this daemon holds.",
        (),
        lambda r: _one(len(r.status.active)),
    ),
    _gauge(
        "daylily_draining",
        "1 while somebody wants that nothing new is started.",
        (),
        lambda r: _one(r.status.drain is not None),
    ),
    _gauge(
        "daylily_job_quietest_seconds",
        "Longest time that a job of this daemon has written nothing to its log.",
        (),
        lambda r: _one(max((job.quiet_s(r.now) for job in r.jobs), default=0.0)),
    ),
    _gauge(
        "daylily_job_overdue_seconds",
        "Longest time that a job of this daemon goes on after its limit, or an order to stop, and the grace.",
        (),
        lambda r: _one(max((job.overdue_s(r.now) for job in r.jobs), default=0.0)),
    ),
    _gauge(
        "daylily_port_failing_seconds",
        "How long calls of this kind fail in a row; 0 after a success, or where only one went wrong.",
        ("port",),
        _by_port,
    ),
    _gauge(
        "daylily_port_last_success_timestamp_seconds",
        "When a call of this kind was last answered.",
        ("port",),
        lambda r: [((n,), p.good_at.timestamp()) for n, p in r.status.ports.items() if p.good_at],
    ),
    _gauge(
        "daylily_queue_messages",
        "Messages that wait, as SQS counts them: roughly.",
        ("queue",),
        lambda r: [((name,), float(q.waiting)) for name, q in r.status.queues.items()],
    ),
    _gauge(
        "daylily_queue_in_flight",
        "Messages that somebody has received and not answered, roughly.",
        ("queue",),
        lambda r: [((name,), float(q.in_flight)) for name, q in r.status.queues.items()],
    ),
    _gauge(
        "daylily_queue_oldest_message_age_seconds",
        "Age of the oldest message, at least; not of dead letters.",
        ("queue",),
        lambda r: [
            ((name,), q.age_s(r.now))
            for name, q in r.status.queues.items()
            if not q.is_dead_letters
        ],
    ),
    _gauge(
        "daylily_notices_owed",
        "Notices that a channel did not take yet.",
        ("channel",),
        lambda r: [((channel,), float(many)) for channel, many, _ in _owed(r)],
    ),
    _gauge(
        "daylily_notice_oldest_owed_age_seconds",
        "Age of the oldest notice that a channel did not take yet.",
        ("channel",),
        lambda r: [((channel,), age_s) for channel, _, age_s in _owed(r)],
    ),
    _gauge(
        "daylily_clock_skew_seconds",
        "Clock of this host minus that of AWS.",
        (),
        lambda r: _one(r.status.skew_s),
    ),
    _gauge(
        "daylily_disk_free_bytes",
        "Room that is left where the daemon writes.",
        ("folder",),
        lambda r: [((name,), float(disk.free)) for name, disk in r.status.disks.items()],
    ),
    _gauge(
        "daylily_disk_required_bytes",
        "Room below which nothing new is started.",
        ("folder",),
        lambda r: [((name,), float(disk.needed)) for name, disk in r.status.disks.items()],
    ),
    _gauge(
        "daylily_config_last_reload_successful",
        "0 while the settings that were last read are refused, and older ones are in force.",
        (),
        lambda r: _one(_reloaded(r)),
    ),
    _gauge(
        "daylily_config_last_reload_timestamp_seconds",
        "When the settings were last read.",
        (),
        _reloaded_at,
    ),
    _gauge(
        "daylily_problems",
        "What the daemon finds wrong with itself, by kind, as status shows it.",
        ("kind",),
        _problems,
    ),
)


class GaugeCollector(Collector):
    def __init__(self, read: Callable[[], Instant]) -> None:
        self._read = read

    def collect(self) -> Iterator[GaugeMetricFamily]:
        instant = self._read()
        for gauge in GAUGES:
            known = gauge.described
            family = GaugeMetricFamily(known.name, known.meaning, labels=known.labels)
            for labels, value in gauge.read(instant):
                family.add_metric(labels, value)
            yield family
