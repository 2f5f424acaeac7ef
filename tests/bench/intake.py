"""How fast drops are taken in: ``python -m tests.bench.intake [start] [flood]``.

``start``: from the upload of a trigger to the first job of its workset, and the same in a bare loop of the
fewest calls that could do it. ``flood``: many drops at once, taken in by the daemon, and by a bare loop of
the same calls. The daemon checks inputs, tells people and runs worksets in between, which the bare loop does
not; how many of each until the last drop was taken in stands beside the rates. In the middle of the flood
comes a drop that is urgent: the seconds from its trigger until it was taken in, checked and claimed, and
until its job started. Everything on one ministack, in one run.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from statistics import median
from time import monotonic, time  # noqa: TID251 - what is measured
from typing import Any, Final

import anyio

from daylily_daemon.adapters.codec import typed_item, workset_to_item
from daylily_daemon.bootstrap import open_clients
from daylily_daemon.domain.model import State
from daylily_daemon.settings.sources import Sources, load
from tests import emulators
from tests.bench.latency import Bench, leave_the_users_aws, started
from tests.bench.scale import first_token, usage_of
from tests.e2e.harness import PREFIX, Daemon, Lab, until
from tests.made import a_workset

STARTS: Final = 15
DROPS: Final = 2000
BATCH: Final = 10
LISTENERS: Final = 2
UPLOADERS: Final = 8
IN_BETWEEN: Final = ("input_checked", "notice_delivered", "claimed")
NOTHING_S: Final = 3.0
"""After so long without a message there are no more."""


@dataclass(frozen=True, slots=True)
class Bare:
    """Clients, and the names of what they talk to."""

    db: Any
    sqs: Any
    s3: Any
    lab: Lab
    intake: str
    commands: str

    async def take_in(self) -> list[str]:
        """Take one batch from S3's events to items; return the prefixes."""
        await self.pass_on()
        return await self.register()

    async def pass_on(self) -> None:
        events = await self._receive(self.intake)
        keys = [
            record["s3"]["object"]["key"]
            for message in events
            for record in json.loads(message["Body"]).get("Records", [])
        ]
        async with anyio.create_task_group() as tg:
            for key in keys:
                tg.start_soon(partial(self.s3.head_object, Bucket=self.lab.bucket, Key=key))
        if keys:
            entries = [
                {
                    "Id": str(n),
                    "MessageBody": key,
                    "MessageGroupId": key.split("/")[-2],
                    "MessageDeduplicationId": key.split("/")[-2],
                }
                for n, key in enumerate(keys)
            ]
            await self.sqs.send_message_batch(QueueUrl=self.commands, Entries=entries)
        await self._delete(self.intake, events)

    async def register(self) -> list[str]:
        commands = await self._receive(self.commands)
        async with anyio.create_task_group() as tg:
            for message in commands:
                tg.start_soon(self.write, message["Body"].split("/")[-2])
        await self._delete(self.commands, commands)
        return [message["Body"].rpartition("/")[0] for message in commands]

    async def trigger(self, key: str) -> None:
        await self.s3.put_object(Bucket=self.lab.bucket, Key=key, Body=b"")

    async def _receive(self, url: str) -> list[Any]:
        answer = await self.sqs.receive_message(
            QueueUrl=url, MaxNumberOfMessages=BATCH, WaitTimeSeconds=1, VisibilityTimeout=60
        )
        return list(answer.get("Messages", ()))

    async def _delete(self, url: str, messages: Sequence[Any]) -> None:
        if messages:
            entries = [
                {"Id": str(n), "ReceiptHandle": m["ReceiptHandle"]} for n, m in enumerate(messages)
            ]
            await self.sqs.delete_message_batch(QueueUrl=url, Entries=entries)

    async def write(self, name: str) -> None:
        tables = self.lab.settings["tables"]
        item = typed_item(workset_to_item(a_workset(f"bare-{name}")))
        rows = [{"workset_id": {"S": f"bare-{name}"}, "seq": {"S": s}} for s in ("1", "once")]
        await self.db.transact_write_items(
            TransactItems=[
                {"Put": {"TableName": tables["worksets"], "Item": item}},
                *({"Put": {"TableName": tables["events"], "Item": row}} for row in rows),
            ]
        )

    async def start(self, prefix: str) -> None:
        """Look at the input, write that down, claim, and start a process."""
        listed = await self.s3.list_objects_v2(Bucket=self.lab.bucket, Prefix=prefix)
        texts = [o["Key"] for o in listed["Contents"] if o["Key"].endswith((".yaml", ".tsv"))]
        async with anyio.create_task_group() as tg:
            for key in texts:
                tg.start_soon(self._read, key)
        for _ in ("checked", "claimed"):
            await self.write(prefix.rsplit("/", maxsplit=1)[-1])
        await anyio.run_process(["/bin/true"])

    async def _read(self, key: str) -> None:
        answer = await self.s3.get_object(Bucket=self.lab.bucket, Key=key)
        await answer["Body"].read()


async def with_clients(lab: Lab, work: Any) -> Any:
    settings = load(Sources(config=lab.config, environment=lab.environment())).settings
    async with open_clients(settings) as clients:
        sqs = await clients.aws.client("sqs")
        urls = [
            (await sqs.get_queue_url(QueueName=lab.settings["queues"][name]))["QueueUrl"]
            for name in ("intake", "commands")
        ]
        db, s3 = await clients.aws.client("dynamodb"), await clients.aws.client("s3")
        return await work(Bare(db, sqs, s3, lab, *urls))


# --- one drop ----------------------------------------------------------------------------------------


def starts(url: str) -> dict[str, float]:
    """Return the median seconds from trigger to first job, of the daemon and of the bare loop."""
    with started(url) as bench:
        lab = bench.lab
        ours = median(_start(lab, f"ours-{n}") for n in range(STARTS))
        bench.daemon.terminate()
        bare = median(anyio.run(partial(with_clients, lab, _bare_starts)))
    return {"daemon_s": round(ours, 3), "bare_s": round(bare, 3), "ratio": round(ours / bare, 2)}


def _start(lab: Lab, name: str) -> float:
    folder = lab.sample(name)
    lab.upload(folder, name)
    dropped = time()
    lab.drop(folder)
    lab.wait_for(name, State.COMPLETE)
    return first_token(lab, name).stat().st_mtime - dropped


async def _bare_starts(bare: Bare) -> list[float]:
    """Both queues are listened to all the time, as a daemon does."""
    found: list[float] = []
    began = 0.0

    async def listen() -> None:
        while True:
            await bare.pass_on()

    async with anyio.create_task_group() as tg:
        tg.start_soon(listen)
        for n in range(STARTS):
            folder = bare.lab.sample(f"bare-{n}")
            bare.lab.upload(folder, folder.name)
            began = monotonic()
            tg.start_soon(bare.trigger, f"{PREFIX}{folder.name}/daylily.ready")
            while not (prefixes := await bare.register()):
                pass
            await bare.start(prefixes[0])
            found.append(monotonic() - began)
        tg.cancel_scope.cancel()
    return found


# --- a flood -----------------------------------------------------------------------------------------


def flood(url: str) -> dict[str, float]:
    """Return drops a second, of the daemon and of the bare loop, and how long the urgent one waited."""
    with started(url, daemon={"max_worksets": 1}) as bench:
        lab = bench.lab
        bench.daemon.terminate()
        files = contents(lab.sample("many"))
        names = [f"many-{n:04}" for n in range(DROPS)]
        anyio.run(partial(with_clients, lab, partial(_upload_all, files=files, names=names)))
        ours = _taken_by_the_daemon(bench, names)
        triggers = partial(_put_triggers, names=names)
        anyio.run(partial(with_clients, lab, triggers))
        bare = anyio.run(partial(with_clients, lab, _taken_bare))
    return {
        "daemon": round(DROPS / ours["seconds"], 1),
        "bare": round(bare, 1),
        "ratio": round(DROPS / ours["seconds"] / bare, 2),
        **{name: round(value, 2) for name, value in ours.items() if name != "seconds"},
    }


def _taken_by_the_daemon(bench: Bench, names: Sequence[str]) -> dict[str, float]:
    lab = bench.lab
    anyio.run(partial(with_clients, lab, partial(_put_triggers, names=names)))
    lab.configure(daemon={"max_worksets": 0})
    daemon = lab.start(wait=False)
    until(lambda: daemon.said("command_taken"), within_s=60)
    began, before = monotonic(), usage_of(daemon.process.pid)
    until(lambda: len(daemon.said("command_taken")) >= DROPS / 4, within_s=600)
    lab.configure(daemon={"max_worksets": 1})
    replace(bench, daemon=daemon).reload()
    urgent = lab.sample("urgent")
    with (urgent / "daylily_work.yaml").open("a", encoding="utf-8") as recipe:
        recipe.write("priority: urgent\n")
    lab.upload(urgent, "urgent")
    dropped = time()
    lab.drop(urgent)
    lab.wait_for("urgent", State.COMPLETE, within_s=600)
    waited = first_token(lab, "urgent").stat().st_mtime - dropped
    until(lambda: len(daemon.said("command_taken")) >= DROPS, within_s=600)
    cpu_s = usage_of(daemon.process.pid).cpu_s - before.cpu_s
    core = cpu_s / (monotonic() - began)
    daemon.terminate()
    return {**_told_by(daemon, dropped), "urgent_s": waited, "core": core}


def _told_by(daemon: Daemon, dropped: float) -> dict[str, float]:
    """Return what the log says of the flood, and of the urgent drop."""
    taken = [_at(line) for line in daemon.said("command_taken")]
    last = taken[DROPS - 1]
    done = {name: [_at(line) for line in daemon.said(name)] for name in IN_BETWEEN}
    legs = {
        f"{name}_s": _at(line) - dropped
        for name in ("command_taken", "input_checked", "claimed")
        for line in daemon.said(name)[::-1]
        if line["workset"] == "urgent"
    }
    counts = {name: sum(at < last for at in found) for name, found in done.items()}
    return {"seconds": last - taken[0], **counts, **legs}


def _at(line: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(line["timestamp"]).timestamp()


def contents(folder: Path) -> dict[str, bytes]:
    """Return what a lab uploads before its trigger."""
    paths = [p for p in folder.rglob("*") if p.is_file() and p.name != "daylily.ready"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


async def _upload_all(bare: Bare, files: Mapping[str, bytes], names: Sequence[str]) -> None:
    limit = anyio.CapacityLimiter(UPLOADERS)

    async def put(name: str) -> None:
        async with limit:
            for path, body in files.items():
                await bare.s3.put_object(
                    Bucket=bare.lab.bucket, Key=f"{PREFIX}{name}/{path}", Body=body
                )

    async with anyio.create_task_group() as tg:
        for name in names:
            tg.start_soon(put, name)


async def _put_triggers(bare: Bare, names: Sequence[str]) -> None:
    for name in names:
        key = f"{PREFIX}{name}/daylily.ready"
        await bare.s3.put_object(Bucket=bare.lab.bucket, Key=key, Body=os.urandom(8))


async def _taken_bare(bare: Bare) -> float:
    """Return how many were taken in a second, until nothing comes any more."""
    began = last = monotonic()
    taken = 0

    async def listen() -> None:
        nonlocal taken, last
        while monotonic() - last < NOTHING_S:
            if found := await bare.take_in():
                taken, last = taken + len(found), monotonic()

    async with anyio.create_task_group() as tg:
        for _ in range(LISTENERS):
            tg.start_soon(listen)
    return taken / (last - began)


def main() -> None:
    wanted = sys.argv[1:] or ["start", "flood"]
    leave_the_users_aws()
    emulators.prepare_ministack(os.environ)
    parts = {"start": starts, "flood": flood}
    found = {}
    for name in wanted:
        with (
            tempfile.TemporaryDirectory() as folder,
            emulators.running(emulators.ministack, Path(folder)) as url,
        ):
            found[name] = parts[name](url)
            sys.stdout.write(f"{name}: {found[name]}\n")
    kept = emulators.CACHE / "figures"
    kept.mkdir(parents=True, exist_ok=True)
    (kept / "intake.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
