"""A lab whose runs are traced: a real daemon, a collector by the schema, and jobs that know their span."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from anyio.from_thread import start_blocking_portal

from daylily_daemon.domain.model import State
from tests.contract.receivers import Receiver
from tests.contract.trace_collector import HEADER, PATH, Collector
from tests.e2e.harness import Lab


@dataclass
class Collecting:
    collector: Collector
    url: str


@pytest.fixture
def collecting(lab: Lab) -> Iterator[Collecting]:
    collector = Collector()
    (lab.folder / "header").write_text(f"{HEADER}\n")
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(Receiver(collector.answer).serving()) as url,
    ):
        yield Collecting(collector, str(url.with_path(PATH)))


def test_a_run_that_is_retried_is_one_trace_and_its_jobs_are_part_of_it(
    lab: Lab, collecting: Collecting
) -> None:
    note = 'echo "$TRACEPARENT" >> "$gate.traces"'
    lab.pipeline("traced", stage=note, run=f'{note}; [ "$attempt" -gt 1 ]')
    otlp = {"enabled": True, "url": collecting.url, "header_file": "header"}
    lab.configure(
        pipelines={"default": "traced"},
        retry={"max_retries": 0},
        notifications={"otlp": otlp},
    )
    assert "otlp took it" in lab.run_cli("notify", "test", "otlp").words
    collecting.collector.spans.clear()
    daemon = lab.start()

    workset = lab.drop_sample("traced")
    lab.wait_for(workset, State.FAILED)
    lab.wait_paid(workset)
    first = collecting.collector.named()
    assert first.keys() == {"workset traced", *("1 wait", "1 step stage", "1 step run")}

    assert lab.run_cli("retry", workset).code == 0
    lab.wait_for(workset, State.COMPLETE)
    lab.wait_paid(workset)
    spans = collecting.collector.named()
    assert spans.keys() - first.keys() == {"2 wait", "2 step run"}
    assert len({trace for trace, _ in collecting.collector.spans}) == 1

    told = (lab.folder / "gates" / f"{workset}.traces").read_text().split()
    jobs = [spans[name] for name in ("1 step stage", "1 step run", "2 step run")]
    assert told == [f"00-{job.trace_id.hex()}-{job.span_id.hex()}-01" for job in jobs]
    assert daemon.terminate() == 0
    assert "vErYsEcReT" not in f"{lab.run_cli('check-config').words} {daemon.log_text()}"
