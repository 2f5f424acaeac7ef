"""What a daemon costs as the work grows: ``python -m tests.bench.scale [backlog[=10000,…]] [held[=200,…]]``.

A real daemon on ministack, with its tables in DynamoDB Local, whose queries cost what they bring, as those
of AWS do. ``backlog``: worksets that wait behind a customer's limit, and an urgent one of another among them.
``held``: runs in progress, copies of one real run whose job lives. All rows are measured in one run.
Figures are printed and kept in ``.cache/figures/scale.json``.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from statistics import median
from time import monotonic, sleep, time  # noqa: TID251 - what is measured
from typing import Final

import anyio
from rich.console import Console
from rich.table import Table

from daylily_daemon.adapters.codec import typed_item, workset_to_item
from daylily_daemon.bootstrap import open_clients
from daylily_daemon.domain.model import Command, Priority, State, Submit, WorksetId
from daylily_daemon.domain.workset import Workset
from daylily_daemon.settings.sources import Sources, load
from tests import emulators
from tests.bench.adoption import copies, put_bare
from tests.bench.latency import GATED, Bench, leave_the_users_aws, started
from tests.e2e.harness import PREFIX, TINY, Lab, until

BACKLOGS: Final = (0, 1_000, 10_000, 100_000)
HELD: Final = (10, 200, 1_000)
WATCHED_S: Final = 60.0
DROPS: Final = 5
BATCH: Final = 25
LOADERS: Final = 8
PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
TICKS_S: Final = os.sysconf("SC_CLK_TCK")

Row = dict[str, float]


# --- what a process costs ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Usage:
    cpu_s: float
    memory_mb: float
    descriptors: int


def usage_of(pid: int) -> Usage:
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    cpu_s = (int(stat[11]) + int(stat[12])) / TICKS_S
    return Usage(cpu_s, pages * PAGE_BYTES / 1e6, len(os.listdir(f"/proc/{pid}/fd")))


def watched(bench: Bench, seconds: float = WATCHED_S) -> Row:
    """Return what the daemon spends a minute while nobody asks anything of it."""
    pid = bench.daemon.process.pid
    calls, before = bench.calls(), usage_of(pid)
    began = monotonic()
    sleep(seconds)
    minutes, after = (monotonic() - began) / 60, usage_of(pid)
    made = bench.calls() - calls
    service = {
        name: sum(n for (s, _), n in made.items() if s == name) for name in ("dynamodb", "sqs")
    }
    writes = sum(n for (_, op), n in made.items() if op in ("UpdateItem", "TransactWriteItems"))
    return {
        "core": round((after.cpu_s - before.cpu_s) / (60 * minutes), 4),
        "dynamodb": round(service["dynamodb"] / minutes, 1),
        "sqs": round(service["sqs"] / minutes, 1),
        "writes": round(writes / minutes, 1),
        "mb": round(after.memory_mb, 1),
        "descriptors": after.descriptors,
    }


# --- what waits --------------------------------------------------------------------------------------


def with_backlog(url: str, size: int) -> Row:
    """Measure a daemon with ``size`` worksets of a customer who may run none now."""
    with started(url, runner={"kind": "process"}) as bench:
        lab = bench.lab
        lab.pipeline("gated", run=GATED)
        lab.configure(daemon={"max_per_customer": 1})
        bench.reload()
        busy = lab.drop_sample("busy", replace(TINY, pipeline="gated"))
        lab.wait_started(busy, "1 run")
        running = lab.load(busy)
        assert running is not None
        loaded_s = anyio.run(partial(put_all, lab, [waiting_like(running, n) for n in range(size)]))
        sleep(35)  # more than two readings, so that what waits is known
        row = watched(bench) | {"loaded_s": round(loaded_s, 1)}
        row["urgent_s"] = round(median(urgent(lab, f"urgent-{n}") for n in range(DROPS)), 3)
        bench.daemon.terminate()
        lab.open_gate(busy)
    return row


def waiting_like(ws: Workset, n: int) -> Workset:
    """Return a checked workset of the same customer that waits for a slot."""
    since = ws.created_at + timedelta(milliseconds=n)
    return replace(
        ws,
        id=WorksetId(f"waits-{n:06}"),
        request=replace(ws.request, submitted_at=since),
        created_at=since,
        state=State.READY,
        lock=None,
        run=None,
        attempt=0,
        version=1,
    )


async def put_all(lab: Lab, worksets: Sequence[Workset]) -> float:
    """Write all items, in batches; return the seconds it took."""
    found = load(Sources(config=lab.config, environment=lab.environment()))
    async with open_clients(found.settings) as clients:
        client, table = await clients.aws.client("dynamodb"), found.settings.tables.worksets
        limit = anyio.CapacityLimiter(LOADERS)

        async def put(part: Sequence[Workset]) -> None:
            async with limit:
                items = [typed_item(workset_to_item(ws)) for ws in part]
                left = {table: [{"PutRequest": {"Item": item}} for item in items]}
                while left:
                    answer = await client.batch_write_item(RequestItems=left)
                    left = answer.get("UnprocessedItems") or {}

        began = monotonic()
        async with anyio.create_task_group() as tasks:
            for start in range(0, len(worksets), BATCH):
                tasks.start_soon(put, worksets[start : start + BATCH])
        return monotonic() - began


def urgent(lab: Lab, name: str) -> float:
    """Return the seconds from an urgent submission of another customer to its first job."""
    lab.upload(lab.sample(name), name)
    ask = Submit(
        bucket=lab.bucket, prefix=f"{PREFIX}{name}/", customer_id=name, priority=Priority.URGENT
    )
    sent_at = time()
    anyio.run(partial(send, lab, Command(id=name, workset_id=WorksetId(name), by="bench", ask=ask)))
    lab.wait_for(name, State.COMPLETE)
    return first_token(lab, name).stat().st_mtime - sent_at


async def send(lab: Lab, command: Command) -> None:
    found = load(Sources(config=lab.config, environment=lab.environment()))
    async with open_clients(found.settings) as clients:
        await (await clients.commands()).send([command])


def first_token(lab: Lab, name: str) -> Path:
    (token,) = (
        f / "token" for f in lab.job_folders() if f.parts[-3] == name and f.name == "1-stage"
    )
    return token


# --- what runs ---------------------------------------------------------------------------------------


def with_runs(url: str, held: int) -> Row:
    """Measure a daemon that holds ``held`` runs, and how long it takes to adopt them."""
    with started(url, daemon={"max_worksets": max(held, 2)}) as bench:
        lab = bench.lab
        lab.pipeline("gated", run=GATED)
        bench.reload()
        original = lab.drop_sample("original", replace(TINY, pipeline="gated"))
        lab.wait_started(original, "1 run")
        bench.daemon.terminate()
        ws = lab.load(original)
        assert ws is not None
        put_s = anyio.run(partial(put_bare, lab, copies(ws, held - 1)))
        began = monotonic()
        daemon = lab.start()
        until(lambda: len(daemon.said("claimed")) >= held, within_s=600)
        adopted_s = monotonic() - began
        again = replace(bench, daemon=daemon)
        sleep(20)  # until the work of adopting is over
        row = watched(again)
        row |= {"adopted_s": round(adopted_s, 2), "adopted": round(adopted_s / put_s, 2)}
        row["writes"] = round(row["writes"] / held, 2)
        daemon.terminate()
        lab.open_gate(original)
    return row


# --- the report --------------------------------------------------------------------------------------


PARTS: Final = {"backlog": (with_backlog, BACKLOGS), "held": (with_runs, HELD)}


def measured(url: str, wanted: Sequence[str]) -> dict[str, dict[int, Row]]:
    found: dict[str, dict[int, Row]] = {}
    for word in wanted:
        name, _, chosen = word.partition("=")
        measure, usual = PARTS[name]
        for size in [int(size) for size in chosen.split(",")] if chosen else usual:
            found.setdefault(name, {})[size] = measure(url, size)
            show(name, found[name])
    return found


def show(name: str, rows: dict[int, Row]) -> None:
    headings = list(dict.fromkeys(key for row in rows.values() for key in row))
    table = Table(title=name, title_justify="left")
    for heading in ("", *headings):
        table.add_column(heading, justify="right")
    for size, row in rows.items():
        table.add_row(f"{size:,}", *(f"{row.get(heading, 0):g}" for heading in headings))
    Console(width=120).print(table)


def main() -> None:
    wanted = sys.argv[1:] or list(PARTS)
    leave_the_users_aws()
    emulators.prepare_ministack(os.environ)
    emulators.prepare_dynamodb_local(os.environ)
    with (
        tempfile.TemporaryDirectory() as one,
        tempfile.TemporaryDirectory() as other,
        emulators.running(emulators.ministack, Path(one)) as url,
        emulators.running(emulators.dynamodb_local, Path(other)) as dynamodb,
    ):
        os.environ["AWS_ENDPOINT_URL_DYNAMODB"] = dynamodb
        found = measured(url, wanted)
    kept = emulators.CACHE / "figures"
    kept.mkdir(parents=True, exist_ok=True)
    (kept / "scale.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
