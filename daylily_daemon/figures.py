"""Figures for Prometheus: what happened is counted as it happens, how it is now is read when somebody asks.

Every label has a bounded number of values. None is the name of a workset, a customer or a host, and none
comes out of a message: what those could be nobody bounds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Final, get_args

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import choose_encoder

from daylily_daemon.adapters.calls import CallOutcome
from daylily_daemon.domain.failures import BY_ITS_END, KNOWN
from daylily_daemon.domain.model import Ask, Command, CommandEffect, Priority, State, Submit
from daylily_daemon.domain.run import StepRun
from daylily_daemon.domain.workset import Workset
from daylily_daemon.engine.counting import BeatFate, CommandFate, Counting, EventFate, NoticeFate
from daylily_daemon.gauges import GAUGES, Described, GaugeCollector, Instant
from daylily_daemon.ports import Change, EventSource

OTHER: Final = "other"
STEPS: Final = ("stage", "run", "export", "metrics", "cleanup")
"""Those of the shipped pipelines; a site's own are ``other``."""
MOST_CODES: Final = 64
"""Failure codes that are told apart; a site's own patterns may give any number."""
LOCKS: Final = ("acquired", "released")
ENDS: Final = frozenset({State.COMPLETE, State.ERROR, State.FAILED, State.CANCELED, State.IGNORED})
"""States that a workset leaves only if somebody asks."""
"""In a report: how many files of results there are."""

CODES: Final = frozenset(
    {
        *(known.code for known in KNOWN),
        *(judged[0] for judged in BY_ITS_END.values() if judged),
        *("WS-UNK-000", "WS-CFG-002", ""),
    }
)
"""Failure codes of this program; empty where nothing failed."""
_HOUR: Final = 3600
STEP_BUCKETS: Final = (1, 5, 15, 60, 300, 900, 1800, *(h * _HOUR for h in (1, 3, 6, 12, 24, 48)))
DROP_BUCKETS: Final = (0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600)
WAIT_BUCKETS: Final = (*DROP_BUCKETS, *(h * _HOUR for h in (1, 6, 24)))
"""A workset that waits for a slot waits for the run of another one."""
CALL_BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

_FATES: Final[Mapping[CommandEffect, CommandFate]] = {
    CommandEffect.APPLIED: CommandFate.TAKEN,
    CommandEffect.QUEUED: CommandFate.QUEUED,
    CommandEffect.NONE: CommandFate.NO_EFFECT,
    CommandEffect.REFUSED: CommandFate.REFUSED,
}


def _called(kind: type) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()


ASKS: Final = (*(_called(kind) for kind in get_args(Ask)), "unreadable")
"""Types of commands as labels."""


COUNTERS: Final = {
    one.name: one
    for one in (
        Described("daylily_transitions_total", "States that were entered.", ("state",)),
        Described(
            "daylily_commands_total",
            "What became of commands. One that was queued for a run is counted again when it is answered.",
            ("type", "outcome"),
        ),
        Described(
            "daylily_events_taken_total",
            "Messages of the intake queue, and drops that only a listing found.",
            ("source", "outcome"),
        ),
        Described(
            "daylily_worksets_ended_total",
            "Worksets that came to an end of their own or by command, with the code of the failure.",
            ("outcome", "code"),
        ),
        Described(
            "daylily_worksets_without_results_total",
            "Worksets that are complete although their report counts no file of results.",
        ),
        Described(
            "daylily_aws_calls_total",
            "Calls of AWS that ended; ok includes a definite no about one thing.",
            ("service", "operation", "outcome"),
        ),
        Described("daylily_notices_total", "Tries to tell a channel.", ("channel", "outcome")),
        Described("daylily_lease_beats_total", "Heartbeats of leases.", ("outcome",)),
        Described("daylily_worksets_registered_total", "Worksets that were never seen before."),
        Described(
            "daylily_locks_total",
            "Locks of worksets that were taken (acquired) and given back (released).",
            ("outcome",),
        ),
    )
}
HISTOGRAMS: Final = {
    one.name: one
    for one in (
        Described("daylily_pass_seconds", "Time of a pass over the worksets."),
        Described(
            "daylily_drop_seconds", "From the write of a trigger in S3 to its workset being ready."
        ),
        Described(
            "daylily_wait_seconds",
            "From a submission or retry to the claim, the check of the input included.",
            ("priority",),
        ),
        Described("daylily_step_seconds", "Time of a step of a run.", ("step", "outcome")),
        Described(
            "daylily_aws_call_seconds",
            "Time of a call of AWS, repeats by the SDK included; without receives, which wait.",
            ("service",),
        ),
    )
}
FORESEEN: Final[Mapping[str, Iterable[str]]] = {
    "daylily_transitions_total": State,
    "daylily_locks_total": LOCKS,
    "daylily_lease_beats_total": BeatFate,
}
"""All values that the one label of a counter can have."""
_BUCKETS: Final = {
    "daylily_pass_seconds": CALL_BUCKETS,
    "daylily_drop_seconds": DROP_BUCKETS,
    "daylily_wait_seconds": WAIT_BUCKETS,
    "daylily_step_seconds": STEP_BUCKETS,
    "daylily_aws_call_seconds": CALL_BUCKETS,
}


DESCRIBED: Final = tuple(
    sorted(
        (*COUNTERS.values(), *HISTOGRAMS.values(), *(gauge.described for gauge in GAUGES)),
        key=lambda one: one.name,
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """How long something took, over all labels of a histogram."""

    bounds: tuple[float, ...]
    """Upper ends of the buckets, in seconds; the last is infinite."""
    counts: tuple[int, ...]
    """In each bucket alone."""
    sum_s: float

    def less(self, before: Spread) -> Spread:
        """Return what was added since ``before``."""
        grown = tuple(now - then for now, then in zip(self.counts, before.counts, strict=True))
        return Spread(bounds=self.bounds, counts=grown, sum_s=self.sum_s - before.sum_s)


class Metrics(Counting):
    """All figures of a daemon, at zero, in a registry of their own."""

    def __init__(self) -> None:
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self.reads: Callable[[], Instant] = Instant
        """Returns how the daemon is; whoever knows it puts itself here."""
        self._codes = set(CODES)
        self._counters = {name: self._counter(one) for name, one in COUNTERS.items()}
        self._histograms = {name: self._histogram(one) for name, one in HISTOGRAMS.items()}
        self._begin_at_zero()
        self.registry.register(GaugeCollector(self._read))

    def _read(self) -> Instant:
        return self.reads()

    def _counter(self, one: Described) -> Counter:
        return Counter(one.name, one.meaning, one.labels, registry=self.registry)

    def _histogram(self, one: Described) -> Histogram:
        buckets = _BUCKETS[one.name]
        return Histogram(one.name, one.meaning, one.labels, registry=self.registry, buckets=buckets)

    def _begin_at_zero(self) -> None:
        """A rate needs the zero before the first one; so what can be foreseen is there from the start."""
        for ask in ASKS:
            for fate in CommandFate:
                self._counters["daylily_commands_total"].labels(ask, fate)
        for source in EventSource:
            for taken in EventFate:
                self._counters["daylily_events_taken_total"].labels(source, taken)
        for name, values in FORESEEN.items():
            for value in values:
                self._counters[name].labels(value)
        ended = self._counters["daylily_worksets_ended_total"]
        for code in CODES:
            ended.labels(State.FAILED, code)
        for state in ENDS - {State.FAILED, State.ERROR}:
            ended.labels(state, "")
        for priority in Priority:
            self._histograms["daylily_wait_seconds"].labels(priority)

    def _count(self, name: str, *labels: str) -> None:
        counter = self._counters[name]
        (counter.labels(*labels) if labels else counter).inc()

    def _observe(self, name: str, seconds: float, *labels: str) -> None:
        """Clocks of two hosts may differ by more than it took."""
        histogram = self._histograms[name]
        (histogram.labels(*labels) if labels else histogram).observe(max(0.0, seconds))

    def page(self, accept: str) -> tuple[bytes, str]:
        """Return the figures for Prometheus, and the content type, as the header Accept asks for them."""
        encode, kind = choose_encoder(accept)
        return encode(self.registry), kind

    def count_of(self, name: str, labels: tuple[str, ...]) -> float:
        """Return the value of a counter."""
        counter = self._counters[name]
        (family,) = (counter.labels(*labels) if labels else counter).collect()
        return float(family.samples[0].value)

    def spread_of(self, name: str) -> Spread:
        """Return a histogram, with its labels added up."""
        found: dict[float, float] = dict.fromkeys((*_BUCKETS[name], inf), 0.0)
        total_s = 0.0
        for family in self._histograms[name].collect():
            for sample in family.samples:
                if sample.name == f"{name}_bucket":
                    found[float(sample.labels["le"])] += sample.value
                elif sample.name == f"{name}_sum":
                    total_s += sample.value
        below = (0.0, *found.values())
        counts = tuple(int(up - low) for up, low in zip(found.values(), below, strict=False))
        return Spread(bounds=tuple(found), counts=counts, sum_s=total_s)

    # --- what the engine tells --------------------------------------------------------------------

    def call(self, service: str, operation: str, outcome: CallOutcome, seconds: float) -> None:
        self._count("daylily_aws_calls_total", service, operation, outcome)
        if operation != "ReceiveMessage":
            self._observe("daylily_aws_call_seconds", seconds, service)

    def command(self, command: Command | None, fate: CommandFate) -> None:
        ask = _called(type(command.ask)) if command else "unreadable"
        self._count("daylily_commands_total", ask, fate)

    def event(self, source: EventSource, fate: EventFate, many: int = 1) -> None:
        self._counters["daylily_events_taken_total"].labels(source, fate).inc(many)

    def notice(self, channel: str, fate: NoticeFate) -> None:
        self._count("daylily_notices_total", channel, fate)

    def beat(self, fate: BeatFate) -> None:
        self._count("daylily_lease_beats_total", fate)

    def passed(self, seconds: float) -> None:
        self._observe("daylily_pass_seconds", seconds)

    def stored(self, change: Change, asked: Command | None) -> None:
        before, after = change.before, change.after
        for record in change.records:
            if record.previous != record.state:
                self._count("daylily_transitions_total", record.state)
        self._count_answers(change, asked)
        self._count_lock(before, after)
        if before is None or before.state is not after.state:
            self._count_move(before, after)
        if asked and isinstance(asked.ask, Submit):
            self._time_drop(asked.ask, before, after)
        if before and (step := step_left(before, after)):
            name = step.name if step.name in STEPS else OTHER
            self._observe("daylily_step_seconds", _lasted(step, after), name, step.end or "")

    def _count_answers(self, change: Change, asked: Command | None) -> None:
        inbox = change.before.inbox if change.before else ()
        known = {command.id: command for command in (*inbox, *((asked,) if asked else ()))}
        for answer in change.answers:
            if answer.command_id in known:
                self.command(known[answer.command_id], _FATES[answer.effect])

    def _count_lock(self, before: Workset | None, after: Workset) -> None:
        if before is None:
            self._count("daylily_worksets_registered_total")
            return
        if after.fence > before.fence:
            self._count("daylily_locks_total", "acquired")
        if before.lock is not None and after.lock is None:
            self._count("daylily_locks_total", "released")

    def _count_move(self, before: Workset | None, after: Workset) -> None:
        if after.state in ENDS:
            code = after.failure.code if after.failure else ""
            self._count("daylily_worksets_ended_total", after.state, self._code(code))
        if after.state is State.COMPLETE and after.run and after.run.results_files == 0:
            self._count("daylily_worksets_without_results_total")
        if before and before.state is State.READY and after.state is State.IN_PROGRESS:
            since = before.request.submitted_at or before.created_at
            waited_s = (after.updated_at - since).total_seconds()
            self._observe("daylily_wait_seconds", waited_s, after.priority)

    def _code(self, code: str) -> str:
        if len(self._codes) < MOST_CODES:
            self._codes.add(code)
        return code if code in self._codes else OTHER

    def _time_drop(self, submit: Submit, before: Workset | None, after: Workset) -> None:
        fresh = before is None or before.request.submitted_at != after.request.submitted_at
        if submit.dropped_at and fresh and after.state is State.READY:
            self._observe(
                "daylily_drop_seconds", (after.updated_at - submit.dropped_at).total_seconds()
            )


def step_left(before: Workset, after: Workset) -> StepRun | None:
    """Return the step that a write has ended; None if it ended none."""
    left, run = before.step, after.run
    found = (
        next((step for step in run.steps if left and step.name == left.name), None) if run else None
    )
    return found if found and found.end is not None else None


def _lasted(step: StepRun, after: Workset) -> float:
    if step.seconds is not None:
        return step.seconds
    return (after.updated_at - (step.started_at or after.updated_at)).total_seconds()
