"""The figures of a daemon for CloudWatch, once a minute: what was counted since, and how it is.

Nothing is counted here. What Prometheus is shown grows from the start of the daemon on; told is what it grew
by since the last call that was answered, so the next one makes up for a minute without CloudWatch. A call
that was carried out although its answer got lost makes its minute count twice.

The names are those of the old system, spelled as it spelled them (``WorksetStateIn_Progress``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import structlog
from anyio import CancelScope, current_time, sleep

from daylily_daemon.application.health import SILENT
from daylily_daemon.domain.daemon import Registered
from daylily_daemon.domain.datum import CountDatum, Datum, LevelDatum, TimesDatum
from daylily_daemon.domain.errors import DaemonError
from daylily_daemon.domain.model import State
from daylily_daemon.domain.problems import Severity
from daylily_daemon.engine.boundary import for_ever, foreign_as_unexpected
from daylily_daemon.figures import Metrics, Spread
from daylily_daemon.gauges import Instant
from daylily_daemon.ports import MetricStore, Registry

EVERY_S: Final = 60.0
LAST_WORD_S: Final = 2.0
"""How long the end of the daemon waits for what was counted last."""
SETTING: Final = "cloudwatch.enabled"
_TRANSITIONS: Final = "daylily_transitions_total"
_LOCKS: Final = "daylily_locks_total"
COUNTS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "WorksetRegistered": ("daylily_worksets_registered_total", ()),
    "LockAcquired": (_LOCKS, ("acquired",)),
    "LockReleased": (_LOCKS, ("released",)),
    "WorksetRetry": (_TRANSITIONS, (State.RETRYING,)),
    "WorksetPermanentFailure": (_TRANSITIONS, (State.FAILED,)),
    **{f"WorksetState{state.title()}": (_TRANSITIONS, (state,)) for state in State},
}
"""Each with the counter it is taken from, and the labels there."""
TIMES: Final = {"WaitSeconds": "daylily_wait_seconds", "StepSeconds": "daylily_step_seconds"}
log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedSoFar:
    """What was counted from the start of the daemon to one moment."""

    counts: Mapping[str, int]
    times: Mapping[str, Spread]

    def since(self, before: CountedSoFar) -> Iterator[CountDatum | TimesDatum]:
        """Yield what happened after ``before``; of what did not happen there is nothing to pay for."""
        for name, count in self.counts.items():
            if grown := count - before.counts[name]:
                yield CountDatum(name, grown)
        for name, spread in self.times.items():
            if told := _told(name, spread.less(before.times[name])):
                yield told


def counted_so_far(metrics: Metrics) -> CountedSoFar:
    counts = {name: int(metrics.count_of(*where)) for name, where in COUNTS.items()}
    return CountedSoFar(counts=counts, times={n: metrics.spread_of(h) for n, h in TIMES.items()})


def _told(name: str, spread: Spread) -> TimesDatum | None:
    """Return a histogram as CloudWatch takes it; least and most are as coarse as the buckets."""
    filled = [number for number, many in enumerate(spread.counts) if many]
    if not filled:
        return None
    count, bounds = sum(spread.counts), spread.bounds
    mean_s = spread.sum_s / count
    least_s = bounds[filled[0] - 1] if filled[0] else 0.0
    most_s = min(bounds[filled[-1]], spread.sum_s)
    return TimesDatum(
        name=name,
        count=count,
        sum_s=spread.sum_s,
        least_s=mean_s if count == 1 else min(least_s, mean_s),
        most_s=mean_s if count == 1 else max(most_s, mean_s),
    )


def levels(instant: Instant, *, leading: bool) -> Iterator[LevelDatum]:
    """Yield how a daemon is; the one that leads tells of all worksets, whose numbers all daemons share."""
    problems = [p for p in instant.status.problems if p.severity is Severity.PROBLEM]
    yield LevelDatum("DaemonUp", 1.0)
    yield LevelDatum("ProblemCount", float(len(problems)))
    if leading:
        for state, many in instant.counts.items():
            yield LevelDatum(f"QueueDepth{state.title()}", float(many))


def leads(owner: str, daemons: Sequence[Registered], now: datetime) -> bool:
    """Tell whether ``owner`` is the first by name of the daemons that are alive and send figures.

    All would tell the same numbers, and CloudWatch would add them up. No lease is worth that: two who lead
    for a minute make one minute count twice in a sum, and nothing else.
    """
    return min((row.owner for row in daemons if _sends(row, now)), default=owner) >= owner


def _sends(row: Registered, now: datetime) -> bool:
    said_at, status = row.said_at, row.status
    if status is None or said_at is None or status.stopped_at is not None:
        return False
    return SETTING in status.settings and now - said_at <= SILENT


@dataclass(slots=True, kw_only=True)
class Reporter:
    """Sends the figures for as long as ``is_on`` says so."""

    owner: str
    metrics: Metrics
    store: MetricStore
    registry: Registry
    is_on: Callable[[], bool]
    _sent: CountedSoFar = field(init=False)

    def __post_init__(self) -> None:
        self._sent = counted_so_far(self.metrics)

    async def run(self) -> None:
        """Send until cancelled, and at last once more. Trouble is logged, and left to the next minute."""
        try:
            await for_ever("sending figures to CloudWatch", self._send_and_rest, EVERY_S)
        finally:
            with CancelScope(shield=True, deadline=current_time() + LAST_WORD_S):
                await self._last_word()

    async def _send_and_rest(self) -> None:
        await self.send()
        await sleep(EVERY_S)

    async def _last_word(self) -> None:
        try:
            with foreign_as_unexpected("sending figures to CloudWatch"):
                await self.send(last=True)
        except DaemonError as exc:
            log.info("figures_not_sent", error=str(exc))

    async def send(self, *, last: bool = False) -> None:
        """Send what was counted since the last time that was answered. Raises what the store raises."""
        now = counted_so_far(self.metrics)
        if self.is_on():
            instant = self.metrics.reads()
            counted = list[Datum](now.since(self._sent))
            more = [] if last else levels(instant, leading=await self._leads(instant.now))
            await self.store.put([*counted, *more])
        self._sent = now

    async def _leads(self, now: datetime) -> bool:
        """Where the registry does not answer nobody can tell; a minute is left out then."""
        try:
            return leads(self.owner, await self.registry.daemons(), now)
        except DaemonError as exc:
            log.debug("leader_unknown", error=str(exc))
            return False
