"""How long a daemon takes to pick up a thousand runs in progress: ``python -m tests.bench.adoption``.

One real job runs; its item and its job folder are copied under a thousand names, so every copy is a run whose
job is alive. Then a daemon is started on them, on ministack, because moto copies whole tables with each
transaction. What counts is the time from its start until every run has an owner, next to what a thousand bare
writes to the same table take, as many at a time as the daemon makes.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import monotonic  # noqa: TID251 - what is measured
from typing import Final

import anyio

from daylily_daemon.adapters.codec import typed_item, workset_to_item
from daylily_daemon.bootstrap import open_clients
from daylily_daemon.domain.model import State, WorksetId
from daylily_daemon.domain.workset import Workset
from daylily_daemon.engine.writer import WRITES_AT_ONCE
from daylily_daemon.settings.sources import Sources, load
from tests import emulators
from tests.bench.latency import leave_the_users_aws
from tests.e2e.harness import Lab, opened, until

RUNS: Final = 1000
GATED: Final = 'while [ ! -e "$gate" ]; do sleep 0.2; done'


def copies(original: Workset, count: int = RUNS) -> list[Workset]:
    """Give the job folder of ``original`` so many twins, and return their items."""
    assert original.run is not None
    run, made = original.run, []
    for n in range(count):
        id = WorksetId(f"twin-{n}")
        jobs_dir = run.jobs_dir.replace(original.id, id)
        shutil.copytree(run.jobs_dir, jobs_dir)
        steps = tuple(replace(s, place=s.place.replace(original.id, id)) for s in run.steps)
        twin = replace(run, folder=run.folder.replace(original.id, id), steps=steps)
        made.append(replace(original, id=id, run=twin, lock=None, version=1))
    return made


async def put_bare(lab: Lab, worksets: list[Workset]) -> float:
    """Write all items bare; return the seconds it took."""
    found = load(Sources(config=lab.config, environment=lab.environment()))
    async with open_clients(found.settings) as clients:
        client = await clients.aws.client("dynamodb")
        limit, table = anyio.CapacityLimiter(WRITES_AT_ONCE), found.settings.tables.worksets

        async def put(ws: Workset) -> None:
            async with limit:
                await client.put_item(TableName=table, Item=typed_item(workset_to_item(ws)))

        started = monotonic()
        async with anyio.create_task_group() as tasks:
            for ws in worksets:
                tasks.start_soon(put, ws)
        return monotonic() - started


def _owned(lab: Lab) -> int:
    listed = lab.run_cli("list", "--state", "in_progress", "--limit", str(2 * RUNS), "--json").json
    return sum(1 for ws in listed if ws.get("lock_owner"))


def measure(lab: Lab) -> dict[str, float]:
    lab.pipeline("noting", stage="", run=GATED)
    lab.provision()
    daemon = lab.start()
    lab.wait_started(lab.drop_sample("original"), "1 run")
    daemon.terminate()
    original = lab.load("original")
    assert original is not None
    assert original.state is State.IN_PROGRESS
    put_s = anyio.run(partial(put_bare, lab, copies(original)))
    started = monotonic()
    again = lab.start()
    until(lambda: len(again.said("claimed")) >= RUNS + 1, within_s=300)
    adopted_s = monotonic() - started
    owned = _owned(lab)
    again.terminate()
    lab.open_gate("original")
    jobs = len(lab.job_folders())
    return {"runs": owned, "adopted_s": round(adopted_s, 2), "put_s": round(put_s, 2), "jobs": jobs}


def main() -> None:
    leave_the_users_aws()
    with (
        tempfile.TemporaryDirectory() as folder,
        tempfile.TemporaryDirectory() as place,
        emulators.running(emulators.ministack, Path(folder)) as url,
        opened(Path(place), url) as lab,
    ):
        figures = measure(lab)
    sys.stdout.write(
        "{runs} runs adopted in {adopted_s} s from the start of the daemon; as many bare writes took "
        "{put_s} s\n".format(**figures)
    )
    kept = emulators.CACHE / "figures"
    kept.mkdir(parents=True, exist_ok=True)
    (kept / "adoption.json").write_text(json.dumps(figures) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
