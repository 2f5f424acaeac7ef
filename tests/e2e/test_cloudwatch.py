"""A lab whose figures go to CloudWatch, under the names of old; a refusal is a warning in ``status``."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from daylily_daemon.adapters.metricdata import NAMESPACE
from daylily_daemon.domain.model import State
from daylily_daemon.domain.problems import ProblemKind
from tests.e2e.harness import Lab, until
from tests.e2e.troubled_aws import TroubledAws, troubled_aws

TWO_CALLS_WITHIN_S: Final = 100.0
"""They are a minute apart."""


@pytest.fixture
def aws(lab: Lab) -> Iterator[TroubledAws]:
    with troubled_aws(lab.url) as found:
        yield found


def told(lab: Lab, name: str) -> tuple[float, float]:
    """Return samples and sum of a metric over the last hours."""
    now = datetime.now(UTC)  # noqa: TID251 - as a reader of CloudWatch asks
    answer: Any = lab.aws("cloudwatch").get_metric_statistics(
        Namespace=NAMESPACE,
        MetricName=name,
        StartTime=now - timedelta(hours=1),
        EndTime=now + timedelta(hours=1),
        Period=7200,
        Statistics=["SampleCount", "Sum"],
    )
    points = answer["Datapoints"]
    return sum(p["SampleCount"] for p in points), sum(p["Sum"] for p in points)


def test_a_life_is_told_to_cloudwatch_under_the_names_of_old(lab: Lab) -> None:
    lab.configure(cloudwatch={"enabled": True})
    daemon = lab.start()
    workset = lab.drop_sample("told")
    lab.wait_for(workset, State.COMPLETE)
    until(lambda: told(lab, "DaemonUp")[0], why=daemon.log_text)
    assert daemon.terminate() == 0
    for name in (
        "WorksetRegistered",
        "WorksetStateReady",
        "WorksetStateIn_Progress",
        "LockReleased",
    ):
        assert told(lab, name) == (1, 1), name
    assert told(lab, "WorksetStateComplete") == (1, 1)
    assert told(lab, "WorksetRetry") == (0, 0)
    assert told(lab, "StepSeconds")[0] == 3


@pytest.mark.timeout(300)
def test_a_refusal_is_a_warning_and_everything_else_goes_on(lab: Lab, aws: TroubledAws) -> None:
    lab.configure(cloudwatch={"enabled": True})
    aws.refuse("AccessDenied", "not authorized to do cloudwatch:PutMetricData", only="monitoring")
    daemon = lab.start("--set", f"aws.endpoint_url={aws.url}")
    until(lambda: len(daemon.said("trouble")) > 1, TWO_CALLS_WITHIN_S, daemon.log_text)

    def refused() -> Any:
        found = lab.run_cli("status", "--json").json["problems"]
        return next((p for p in found if p["kind"] == ProblemKind.REFUSED), None)

    problem = until(refused, why=lambda: str(lab.run_cli("status")))
    assert problem is not None
    assert problem["severity"] == "warning"
    assert "CloudWatch refuses" in problem["text"]
    assert lab.run_cli("status", "--quiet").code == 0
    assert lab.run_cli("status", "--quiet", "--strict").code == 1
    lab.wait_for(lab.drop_sample("beside"), State.COMPLETE)
