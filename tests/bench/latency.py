"""How fast a drop is answered, and what it costs in AWS calls: ``python -m tests.bench.latency``.

A real daemon on moto, everything on this machine, so the times are those of the program and an emulator;
the calls are those it makes on AWS too. Figures are printed and kept in ``.cache/figures/latency.json``.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
import urllib.request
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from time import monotonic, perf_counter, sleep  # noqa: TID251 - what is measured
from typing import Any, Final

import anyio
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.table import Table

from daylily_daemon.adapters.codec import typed_item, workset_to_item
from daylily_daemon.adapters.host import RandomIds, SystemClock
from daylily_daemon.bootstrap import Clients, open_clients
from daylily_daemon.domain import lifecycle
from daylily_daemon.domain.decision import Decision
from daylily_daemon.domain.model import State, WorksetId
from daylily_daemon.domain.workset import Request, Workset
from daylily_daemon.ports import Change
from daylily_daemon.settings.sources import Sources, load
from tests import emulators
from tests.e2e.harness import TINY, Daemon, Lab, opened, until
from tests.emulators import free_port

WORKSETS: Final = 20
COMMITS: Final = 200
MINUTE_S: Final = 60.0
OLD_SYSTEM: Final = (16, 20)
"""DynamoDB calls per workset of the system before this one, without history, fence or outbox."""
STEPS: Final = ("stage", "run", "export", "metrics", "cleanup")
GATED: Final = 'while [ ! -e "$gate" ]; do sleep 0.2; done'
SERVICES: Final = ("dynamodb", "sqs", "s3", "sns")

Calls = Counter[tuple[str, str]]
"""By service and operation."""


@dataclass(frozen=True, slots=True)
class Bench:
    """A lab with one daemon, and the port it tells its figures on."""

    lab: Lab
    daemon: Daemon
    port: int

    def calls(self) -> Calls:
        """Return the calls so far, whatever came of them."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics") as answer:
            families = text_string_to_metric_families(answer.read().decode())
        found: Calls = Counter()
        for sample in (sample for family in families for sample in family.samples):
            if sample.name == "daylily_aws_calls_total":
                found[sample.labels["service"], sample.labels["operation"]] += int(sample.value)
        return found

    def slots(self, slots: int) -> None:
        self.lab.configure(daemon={"max_worksets": slots})
        self.reload()

    def reload(self) -> None:
        before = len(self.daemon.said("reloaded"))
        self.daemon.send(signal.SIGHUP)
        until(lambda: len(self.daemon.said("reloaded")) > before)


@contextmanager
def started(url: str, **sections: dict[str, Any]) -> Iterator[Bench]:
    """Start a daemon with the settings of production, but for names, folders and those given."""
    with tempfile.TemporaryDirectory() as folder, opened(Path(folder), url) as lab:
        port = free_port()
        lab.configure(
            metrics={"port": port},
            daemon={"sweep_s": 15, "max_worksets": 2 * WORKSETS},
            inputs={"poll_s": 5},
            progress={"interval_s": 30},
        )
        lab.configure(**sections)
        lab.pipeline("noting", **dict.fromkeys(STEPS, ""))
        lab.provision()
        yield Bench(lab, lab.start(), port)


# --- drop to first job -------------------------------------------------------------------------------


def latencies(url: str) -> dict[str, float]:
    """Return the seconds from the trigger's upload to the first job's start."""
    with started(url) as bench:
        found = sorted(_latency(bench.lab, f"fast-{n}") for n in range(WORKSETS))
    return {"median": median(found), "least": found[0], "most": found[-1]}


def _latency(lab: Lab, name: str) -> float:
    folder = lab.sample(name)
    lab.upload(folder, name)
    dropped = SystemClock().now().timestamp()
    lab.drop(folder)
    lab.wait_for(name, State.COMPLETE)
    (token,) = (
        f / "token" for f in lab.job_folders() if f.parts[-3] == name and f.name == "1-stage"
    )
    return token.stat().st_mtime - dropped


# --- calls -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Calls, by service."""

    to_ready: dict[str, float]
    """Per workset, from drop to accepted."""
    to_complete: dict[str, float]
    """Per workset, from claim to complete with every notice delivered, of five short steps."""
    running: dict[str, float]
    """Per workset and minute of a running job."""
    idle: dict[str, float]
    """Per minute of a daemon with nothing to do."""
    operations: dict[str, float]
    """Those of ``to_complete`` by operation."""


def costs(url: str) -> Costs:
    """Count in batches, so that the calls of the daemon's own rounds hardly show; they are taken off."""
    with started(url) as bench:
        still = _spent(bench, partial(sleep, MINUTE_S))
        bench.slots(0)
        ready = _spent(bench, partial(_drop_all, bench.lab), still)
        complete = _spent(bench, partial(_run_all, bench), still)
        running = _with_jobs_running(bench, still)
    return Costs(
        to_ready=_by_service(ready.each()),
        to_complete=_by_service(complete.each()),
        running=_by_service(running.each()),
        idle=_by_service(_idle(url).calls),
        operations={f"{s} {op}": n for (s, op), n in sorted(complete.each().items()) if n >= 0.05},
    )


def _idle(url: str) -> Spent:
    """By another name of this machine the program takes the emulator for AWS, and polls as long as there."""
    with started(url.replace("127.0.0.1", "localhost")) as bench:
        return _spent(bench, partial(sleep, MINUTE_S))


@dataclass(frozen=True, slots=True)
class Spent:
    calls: dict[tuple[str, str], float]
    seconds: float

    def each(self) -> dict[tuple[str, str], float]:
        return {call: count / WORKSETS for call, count in self.calls.items()}


def _spent(bench: Bench, work: Callable[[], object], less: Spent | None = None) -> Spent:
    """Count what ``work`` makes the daemon call, without what it would have called idly meanwhile."""
    before, began = bench.calls(), monotonic()
    work()
    seconds = monotonic() - began
    after = bench.calls()
    rate = {call: n / less.seconds for call, n in less.calls.items()} if less else {}
    calls = {
        call: max(0.0, n - before[call] - rate.get(call, 0) * seconds) for call, n in after.items()
    }
    return Spent(calls, seconds)


def _by_service(calls: dict[tuple[str, str], float]) -> dict[str, float]:
    sums = dict.fromkeys(SERVICES, 0.0)
    for (service, _), count in calls.items():
        sums[service] = sums.get(service, 0.0) + count
    return {service: round(count, 1) for service, count in sums.items()}


def _drop_all(lab: Lab) -> None:
    for n in range(WORKSETS):
        lab.drop_sample(f"cost-{n}")
    for n in range(WORKSETS):
        lab.wait_until(f"cost-{n}", lambda ws: ws.plan)
        lab.wait_paid(f"cost-{n}")


def _run_all(bench: Bench) -> None:
    bench.slots(WORKSETS)
    _wait_ended(bench.lab, "cost")


def _wait_ended(lab: Lab, name: str) -> None:
    for n in range(WORKSETS):
        lab.wait_for(f"{name}-{n}", State.COMPLETE)
        lab.wait_paid(f"{name}-{n}")


def _with_jobs_running(bench: Bench, still: Spent) -> Spent:
    lab = bench.lab
    lab.pipeline("gated", run=GATED)
    bench.slots(WORKSETS)
    names = [lab.drop_sample(f"long-{n}", replace(TINY, pipeline="gated")) for n in range(WORKSETS)]
    for name in names:
        lab.wait_started(name, "1 run")
        lab.wait_paid(name)
    spent = _spent(bench, partial(sleep, MINUTE_S), still)
    for name in names:
        lab.open_gate(name)
    _wait_ended(lab, "long")
    return spent


# --- one write ---------------------------------------------------------------------------------------


def writes(url: str) -> dict[str, float]:
    """Return median milliseconds of a write: of the bare item, of the store without and with a record."""
    with tempfile.TemporaryDirectory() as folder, opened(Path(folder), url) as lab:
        lab.provision()
        return anyio.run(_writes, lab)


async def _writes(lab: Lab) -> dict[str, float]:
    settings = load(Sources(config=lab.config, environment=lab.environment())).settings
    async with open_clients(settings) as clients:
        writer = Writer(clients, await clients.aws.client("dynamodb"), settings.tables.worksets)
        return await writer.medians()


@dataclass(slots=True)
class Writer:
    """The same item written three ways in turn, so that a busy machine slows all of them."""

    clients: Clients
    client: Any
    table: str

    async def medians(self) -> dict[str, float]:
        found: dict[str, list[float]] = {"put": [], "commit": [], "commit with record": []}
        now = SystemClock().now()
        id = WorksetId("written")
        request = Request(bucket="lab", prefix="x/")
        first = Workset(id=id, request=request, created_at=now, updated_at=now)
        ws = await self._commit(None, Decision(first).registered(now, "submitted", "bench"))
        bare = typed_item({**workset_to_item(ws), "workset_id": "bare"})
        for _ in range(COMMITS):
            found["put"].append(await _timed(self._put, bare))
            beat = Decision(replace(ws, beat=ws.beat + 1))
            found["commit"].append(await _timed(self._commit, ws, beat))
            ws = await self._load(id)
            noted = Decision(ws).record(now, "step run done", lifecycle.STEP)
            found["commit with record"].append(await _timed(self._commit, ws, noted))
            ws = await self._load(id)
        return {way: round(median(times) * 1000, 2) for way, times in found.items()}

    async def _put(self, item: dict[str, Any]) -> None:
        await self.client.put_item(TableName=self.table, Item=item)

    async def _commit(self, before: Workset | None, decision: Decision) -> Workset:
        nonce = RandomIds().fresh()
        change = Change(
            before=before, after=decision.workset, nonce=nonce, records=decision.records
        )
        return await self.clients.worksets.commit(change)

    async def _load(self, id: WorksetId) -> Workset:
        found = await self.clients.worksets.load(id)
        assert found is not None
        return found


async def _timed(work: Callable[..., Awaitable[object]], *arguments: Any) -> float:
    began = perf_counter()
    await work(*arguments)
    return perf_counter() - began


# --- the report --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    worksets: int
    drop_to_first_job_s: dict[str, float]
    calls: Costs
    write_ms: dict[str, float]

    def show(self, console: Console) -> None:
        times = self.drop_to_first_job_s
        console.print(
            f"Drop to first job, of {self.worksets} worksets: median {times['median']:.2f} s "
            f"({times['least']:.2f} to {times['most']:.2f})"
        )
        console.print(self._table())
        for operation, count in self.calls.operations.items():
            console.print(f"  claim to complete: {operation} {count:.2f}")
        ours = self.calls.to_complete["dynamodb"]
        console.print(
            f"DynamoDB calls from claim to complete: {ours:.1f}; the old system made {OLD_SYSTEM[0]} "
            f"to {OLD_SYSTEM[1]} ({ours / OLD_SYSTEM[0]:.2f} to {ours / OLD_SYSTEM[1]:.2f} of it)"
        )
        put = self.write_ms["put"]
        for way, ms in self.write_ms.items():
            console.print(f"  {way}: {ms:.2f} ms, {ms / put:.2f} times a bare PutItem")

    def _table(self) -> Table:
        table = Table(title="AWS calls of the daemon", title_justify="left")
        for heading in ("", *SERVICES):
            table.add_column(heading, justify="right")
        rows = {
            "a workset, drop to ready": self.calls.to_ready,
            "a workset, claim to complete": self.calls.to_complete,
            "a workset, minute of a running job": self.calls.running,
            "the daemon, idle minute": self.calls.idle,
        }
        for name, calls in rows.items():
            table.add_row(name, *(f"{calls[service]:.1f}" for service in SERVICES))
        return table


def main() -> None:
    leave_the_users_aws()
    with (
        tempfile.TemporaryDirectory() as folder,
        emulators.running(emulators.moto, Path(folder)) as url,
    ):
        report = Report(
            worksets=WORKSETS,
            drop_to_first_job_s=latencies(url),
            calls=costs(url),
            write_ms=writes(url),
        )
    report.show(Console())
    figures = emulators.CACHE / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    text = json.dumps(asdict(report), indent=1)
    (figures / "latency.json").write_text(text + "\n", encoding="utf-8")


def leave_the_users_aws() -> None:
    for name in list(os.environ):
        if name.startswith(("AWS_", "DAYLILY_")):
            del os.environ[name]
    os.environ["AWS_ACCESS_KEY_ID"] = os.environ["AWS_SECRET_ACCESS_KEY"] = "testing"
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"


if __name__ == "__main__":
    main()
