"""Figures in CloudWatch, as its users of the old system know them: one namespace, no dimensions.

What a call may hold stands in the API reference of PutMetricData: 1,000 metrics, 1 MB, and no number that is
none. A name has 255 characters at most, so 1,000 metrics without dimensions stay below 1 MB.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, assert_never

from daylily_daemon.adapters.aws import translated
from daylily_daemon.domain.datum import CountDatum, Datum, LevelDatum, TimesDatum
from daylily_daemon.ports import Clock

NAMESPACE: Final = "Daylily/WorksetMonitor"
MOST: Final = 1000
"""Metrics in one call."""


class CloudWatchMetrics:
    """Stores figures by PutMetricData. Needs the right to do so for this namespace."""

    def __init__(self, find_client: Callable[[], Awaitable[Any]], clock: Clock) -> None:
        self._find_client = find_client
        self._clock = clock

    async def put(self, data: Sequence[Datum]) -> None:
        """Raises Impeded for a missing right, and Transient; of more than 1,000 some may be stored then."""
        client, at = await self._find_client(), self._clock.now()
        entries = [{**_entry(datum), "Timestamp": at} for datum in data]
        for first in range(0, len(entries), MOST):
            async with translated("the metrics in CloudWatch"):
                part = entries[first : first + MOST]
                await client.put_metric_data(Namespace=NAMESPACE, MetricData=part)


def _entry(datum: Datum) -> dict[str, Any]:
    match datum:
        case LevelDatum(name=name, value=value):
            return {"MetricName": name, "Unit": "Count", "Value": value}
        case CountDatum(name=name, count=count):
            # As the old system told it, one call an event: samples and sum are the number of events.
            return {"MetricName": name, "Unit": "Count", "Values": [1.0], "Counts": [float(count)]}
        case TimesDatum(name=name):
            return {"MetricName": name, "Unit": "Seconds", "StatisticValues": _statistics(datum)}
        case _:
            assert_never(datum)


def _statistics(datum: TimesDatum) -> dict[str, float]:
    return {
        "SampleCount": float(datum.count),
        "Sum": datum.sum_s,
        "Minimum": datum.least_s,
        "Maximum": datum.most_s,
    }
