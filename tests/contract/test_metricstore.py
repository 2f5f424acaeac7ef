"""What every store of figures must do, read back by its own statistics."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import count
from typing import Any, Final

import pytest

from daylily_daemon.adapters import metricdata
from daylily_daemon.adapters.aws import Aws, AwsOptions
from daylily_daemon.adapters.host import SystemClock
from daylily_daemon.adapters.metricdata import MOST, CloudWatchMetrics
from daylily_daemon.domain.datum import CountDatum, Datum, LevelDatum, TimesDatum
from daylily_daemon.domain.errors import Impeded, Transient
from daylily_daemon.ports import MetricStore
from tests.fakes.metricstore import MemoryMetricStore

Statistics = tuple[float, float, float, float]
"""Samples, sum, least and most."""
CALL_LIMIT_BYTES: Final = 1_000_000
NUMBERS: Final = count(1)


@dataclass(frozen=True)
class MetricBench:
    store: MetricStore
    statistics: Callable[[str], Awaitable[Statistics]]
    """Of a metric, over the last minutes."""


@pytest.fixture(params=["memory", "moto", "ministack"])
async def bench(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[MetricBench]:
    if request.param == "memory":
        store = MemoryMetricStore()
        yield MetricBench(store, partial(_of_memory, store))
        return
    namespace = f"{metricdata.NAMESPACE}/{secrets.token_hex(4)}"
    monkeypatch.setattr(metricdata, "NAMESPACE", namespace)
    url = request.getfixturevalue(f"{request.param}_url")
    async with Aws(AwsOptions(endpoint_url=url)) as aws:
        find = partial(aws.client, "cloudwatch", max_attempts=1)
        yield MetricBench(
            CloudWatchMetrics(find, SystemClock()), partial(_of_aws, await find(), namespace)
        )


async def _of_memory(store: MemoryMetricStore, name: str) -> Statistics:
    found = [_as_statistics(datum) for datum in store.stored if datum.name == name]
    samples, sums, least, most = zip(*found, strict=True)
    return sum(samples), sum(sums), min(least), max(most)


def _as_statistics(datum: Datum) -> Statistics:
    match datum:
        case LevelDatum(value=value):
            return 1, value, value, value
        case CountDatum(count=many):
            return many, many, 1, 1
        case TimesDatum():
            return datum.count, datum.sum_s, datum.least_s, datum.most_s


async def _of_aws(client: Any, namespace: str, name: str) -> Statistics:
    now = SystemClock().now()
    answer = await client.get_metric_statistics(
        Namespace=namespace,
        MetricName=name,
        StartTime=now - timedelta(hours=1),
        EndTime=now + timedelta(hours=1),
        Period=7200,
        Statistics=["SampleCount", "Sum", "Minimum", "Maximum"],
    )
    points = answer["Datapoints"]
    return (
        sum(point["SampleCount"] for point in points),
        sum(point["Sum"] for point in points),
        min(point["Minimum"] for point in points),
        max(point["Maximum"] for point in points),
    )


async def test_what_happened_is_as_many_samples_as_the_old_system_sent(bench: MetricBench) -> None:
    await bench.store.put([CountDatum("WorksetRetry", 3), CountDatum("LockAcquired", 1)])
    await bench.store.put([CountDatum("WorksetRetry", 4)])
    assert await bench.statistics("WorksetRetry") == (7, 7, 1, 1)
    assert await bench.statistics("LockAcquired") == (1, 1, 1, 1)


async def test_how_something_is_is_one_sample(bench: MetricBench) -> None:
    await bench.store.put([LevelDatum("QueueDepthReady", 0.0)])
    await bench.store.put([LevelDatum("QueueDepthReady", 12.0)])
    assert await bench.statistics("QueueDepthReady") == (2, 12, 0, 12)


async def test_how_long_something_took_keeps_samples_sum_and_ends(bench: MetricBench) -> None:
    took = TimesDatum("StepSeconds", count=3, sum_s=400.5, least_s=60, most_s=300)
    await bench.store.put([took])
    assert await bench.statistics("StepSeconds") == (3, 400.5, 60, 300)


async def test_nothing_to_tell_is_no_call(bench: MetricBench) -> None:
    await bench.store.put([])


@dataclass
class ListeningClient:
    """Takes calls as the API reference says they must be."""

    calls: list[list[dict[str, Any]]]

    async def put_metric_data(self, Namespace: str, MetricData: list[dict[str, Any]]) -> None:
        assert 0 < len(MetricData) <= 1000
        assert len(json.dumps(MetricData, default=str)) < CALL_LIMIT_BYTES
        self.calls.append(MetricData)


async def test_no_call_holds_more_than_cloudwatch_takes() -> None:
    client = ListeningClient([])

    async def find() -> ListeningClient:
        return client

    store = CloudWatchMetrics(find, SystemClock())
    longest = TimesDatum("x" * 255, count=10**9, sum_s=1e300 / 3, least_s=1 / 3, most_s=1e300 / 3)
    await store.put([longest] * (2 * MOST + 1))
    assert [len(call) for call in client.calls] == [1000, 1000, 1]
    await store.put([])
    assert len(client.calls) == 3


async def test_a_store_that_is_not_there_is_unknown_and_asked_once() -> None:
    async with Aws(AwsOptions(endpoint_url="http://127.0.0.1:9")) as aws:
        store = CloudWatchMetrics(partial(aws.client, "cloudwatch", max_attempts=1), SystemClock())
        with pytest.raises(Transient) as found:
            await store.put([LevelDatum("DaemonUp", 1.0)])
    assert not isinstance(found.value, Impeded)
