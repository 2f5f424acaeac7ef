"""What ``demo`` plays: a real workset from an S3 drop to exported results, on this machine alone.

The AWS endpoint is an emulator on loopback; everything else is what production has: ``init``, the daemon as a
process of its own, jobs that outlive it, and a mail box that is subscribed to the topic.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Final

import anyio
import yaml

from daylily_daemon.application.wording import progress_text
from daylily_daemon.bootstrap import Clients, open_clients
from daylily_daemon.cli import drawing, output, printing
from daylily_daemon.cli.options import Failed
from daylily_daemon.cli.sampledata import SampleWorkset, write_sample_workset
from daylily_daemon.composition.backend import upload_whole
from daylily_daemon.composition.host import end_jobs, now_here, status_as_written, tmux_socket
from daylily_daemon.domain.model import Record, State, WorksetId
from daylily_daemon.domain.workset import Workset
from daylily_daemon.settings.model import Settings
from daylily_daemon.settings.sources import Sources, load

BUCKET: Final = "daylily-demo-control"
PREFIX: Final = Settings().control.prefix
MAIL: Final = "daylily-demo-mail"
TRIGGER: Final = "daylily.ready"
START_WAIT_S: Final = 30.0
RUN_WAIT_S: Final = 300.0
LOOK_S: Final = 0.2
BAD: Final = "demo-bad"


def play(worksets: int, *, fail: bool, keep: bool) -> int:
    """Play the demo from its beginning to its end; return the exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    return anyio.run(partial(_demo, worksets, fail, keep))


def _interrupt(number: int, frame: FrameType | None) -> None:
    """End as Ctrl-C does, so that nothing is left behind; impatience does not make that faster."""
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, signal.SIG_IGN)
    raise KeyboardInterrupt


@dataclass(slots=True)
class Stage:
    """The folder of one demo and the processes that belong to it."""

    folder: Path
    url: str = ""
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def config(self) -> Path:
        return self.folder / "demo.yaml"

    def environment(self) -> dict[str, str]:
        """Only what a daemon needs: nothing of this user's AWS can be reached by mistake."""
        kept = {"PATH", "HOME", "LANG", "TERM", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH"}
        return {name: value for name, value in os.environ.items() if name in kept} | {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_REGION": "us-west-2",
            "AWS_ACCESS_KEY_ID": "demo",
            "AWS_SECRET_ACCESS_KEY": "demo",
            "AWS_EC2_METADATA_DISABLED": "true",
            "DAYLILY_CONFIG": str(self.config),
        }

    def start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        with open(self.folder / f"{name}.log", "ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment(),
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def log_tail(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")[-2000:]

    def clear_away(self) -> None:
        """End what was started, the last first; jobs too; then remove the folder.

        A second Ctrl-C does not stop this half-way; it takes seconds at most.
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        for process in reversed(self.processes):
            _end(process)
        end_jobs(self.state)
        if Path(tmux_socket(self.state)).exists():
            kill = ["tmux", "-S", tmux_socket(self.state), "kill-server"]
            subprocess.run(kill, check=False, capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def _demo(worksets: int, fail: bool, keep: bool) -> int:
    stage = Stage(Path(tempfile.mkdtemp(prefix="daylily-demo-")))
    kept = False
    try:
        settings = await _prepare(stage)
        ids = [f"demo-{n + 1}" for n in range(worksets)] + ([BAD] if fail else [])
        async with open_clients(settings) as clients:
            code = await _play(stage, clients, ids)
        kept = keep
    finally:
        if not kept:
            stage.clear_away()
    if kept:
        _say_how_to_look_around(stage)
    return code


async def _prepare(stage: Stage) -> Settings:
    """Start the emulator, run ``init`` on it, subscribe to the topic, start the daemon."""
    port = _free_port()
    stage.url = f"http://127.0.0.1:{port}"
    emulator = stage.start(
        "emulator", "daylily_daemon.cli.emulator", "-H", "127.0.0.1", "-p", str(port)
    )
    await _until(stage, emulator, "emulator", lambda: _listens(port))
    printing.say(f"AWS emulator on {stage.url}")
    stage.config.write_text(yaml.safe_dump(_settings(stage)), encoding="utf-8")
    environment = stage.environment()
    os.environ.update(environment)
    await _init(stage)
    settings = load(Sources(config=stage.config, environment=environment)).settings
    async with open_clients(settings) as clients:
        await _subscribe(clients)
    daemon = stage.start("daemon", "daylily_daemon", "run", "--config", str(stage.config))
    ready = partial(_says_ready, stage, daemon.pid)
    await _until(stage, daemon, "daemon", ready)
    runner = "tmux" if shutil.which("tmux") else "plain processes (tmux is not installed)"
    printing.say(f"daemon is process {daemon.pid}; jobs run in {runner}")
    return settings


def _settings(stage: Stage) -> dict[str, Any]:
    return {
        "control": {"bucket": BUCKET},
        "daemon": {
            "name": "demo",
            "state_dir": str(stage.state),
            "data_dir": str(stage.folder / "data"),
            "min_free_gb": 0,  # a few kilobytes are all it writes
            "sweep_s": 5,
            "max_worksets": 4,
        },
        "inputs": {"wait_s": 4, "poll_s": 1},
        "pipelines": {"default": "demo"},
        "progress": {"interval_s": 0.5},
        "log": {"level": "info"},
    }


async def _init(stage: Stage) -> None:
    arguments = ["daylily_daemon", "init", "--create-bucket", "--config", str(stage.config)]
    process = stage.start("init", *arguments)
    code = await anyio.to_thread.run_sync(process.wait)
    if code:
        raise Failed(f"init ended with exit code {code}:\n{stage.log_tail('init')}")
    stage.processes.remove(process)
    printing.say("init made tables, queues, topic and bucket notification")


def _says_ready(stage: Stage, pid: int) -> bool:
    status = status_as_written(stage.state)
    return status is not None and status.get("pid") == pid


async def _until(
    stage: Stage, process: subprocess.Popen[bytes], name: str, condition: Callable[[], bool]
) -> None:
    with anyio.move_on_after(START_WAIT_S):
        while process.poll() is None:
            if condition():
                return
            await anyio.sleep(0.05)
    if name == "emulator" and "No module named" in stage.log_tail(name):
        raise Failed(
            "The emulator is not installed. Install it with: pip install 'daylily-daemon[demo]'"
        )
    raise Failed(f"The {name} did not start:\n{stage.log_tail(name)}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def _subscribe(clients: Clients) -> None:
    sns, sqs = await clients.aws.client("sns"), await clients.aws.client("sqs")
    url = (await sqs.create_queue(QueueName=MAIL))["QueueUrl"]
    answer = await sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
    topic = (await sns.create_topic(Name=clients.settings.topic.sns_topic_name))["TopicArn"]
    arn = answer["Attributes"]["QueueArn"]
    await sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)


# --- the play ------------------------------------------------------------------------------------


async def _play(stage: Stage, clients: Clients, ids: list[str]) -> int:
    dropped: dict[str, datetime] = {}
    for n, id in enumerate(ids):
        folder = stage.folder / "drops" / id
        write_sample_workset(folder, SampleWorkset(samples=3, seed=n, leave_out_a_fastq=id == BAD))
        dropped[id] = await _drop(clients, folder)
    what = "1 workset" if len(ids) == 1 else f"{len(ids)} worksets"
    printing.say_whole(f"dropped {what} of 3 samples into s3://{BUCKET}/{PREFIX}")
    ended = await _watch(clients, ids)
    trails = {id: list(await clients.trail.read(WorksetId(id))) for id in ids}
    mail = await _mail(clients, sum(bool(_told(r)) for rows in trails.values() for r in rows))
    for id in ids:
        printing.say(f"\n{id}: {ended[id].shown_state}", style="bold")
        printing.say_facts(_report(stage, ended[id], trails[id], dropped[id], mail))
    wrong = [ws.id for ws in ended.values() if (ws.state is State.COMPLETE) == (ws.id == BAD)]
    if wrong:
        printing.complain(f"Not as expected: {', '.join(wrong)}")
        printing.complain_as_it_is(stage.log_tail("daemon"))
    return 1 if wrong else 0


def _told(record: Record) -> bool:
    return record.notify


async def _drop(clients: Clients, folder: Path) -> datetime:
    """Upload a folder as a lab does: the trigger last. Return when the trigger was put."""
    trigger = folder / TRIGGER
    body = trigger.read_bytes()
    trigger.unlink()
    at = await upload_whole(clients, folder, f"s3://{BUCKET}/{PREFIX}{folder.name}/")
    await clients.objects.put(BUCKET, f"{PREFIX}{folder.name}/{TRIGGER}", body)
    return at


async def _watch(clients: Clients, ids: list[str]) -> dict[str, Workset]:
    """Show progress until every workset has come to rest."""
    rest = {State.COMPLETE, State.ERROR, State.FAILED, State.CANCELED}
    seen: dict[str, Workset] = {}
    with drawing.live() as live:
        with anyio.move_on_after(RUN_WAIT_S):
            while len(seen) < len(ids) or any(ws.state not in rest for ws in seen.values()):
                for id in ids:
                    await _look(clients, id, seen, printing.is_terminal())
                grid = output.list_grid(list(seen.values()), now_here())
                live.update(drawing.table(grid.lines(printing.width())))
                await anyio.sleep(LOOK_S)
    if len(seen) < len(ids) or any(ws.state not in rest for ws in seen.values()):
        late = ", ".join(id for id in ids if id not in seen or seen[id].state not in rest)
        raise Failed(f"After {RUN_WAIT_S:.0f} s these have not ended: {late}.")
    return seen


async def _look(clients: Clients, id: str, seen: dict[str, Workset], live: bool) -> None:
    ws = await clients.worksets.load(WorksetId(id))
    if ws is None:
        return
    before = seen.get(id)
    seen[id] = ws
    moved = before is None or (before.state, before.step) != (ws.state, ws.step)
    if moved and not live:
        printing.say_whole(f"{id}: {ws.shown_state} {progress_text(ws)}")


async def _mail(clients: Clients, expected: int) -> dict[str, list[str]]:
    """Return the subjects that arrived, by workset."""
    sqs = await clients.aws.client("sqs")
    url = (await sqs.get_queue_url(QueueName=MAIL))["QueueUrl"]
    found: dict[str, list[str]] = {}
    count = 0
    with anyio.move_on_after(10.0):
        while count < expected:
            answer = await sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)
            for message in answer.get("Messages", []):
                envelope = json.loads(message["Body"])
                id = envelope["MessageAttributes"]["workset_id"]["Value"]
                state = envelope["MessageAttributes"]["state"]["Value"]
                found.setdefault(id, []).append(f"{envelope['Subject']} ({state})")
                count += 1
                await sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return found


def _report(
    stage: Stage,
    ws: Workset,
    trail: list[Record],
    dropped: datetime,
    mail: dict[str, list[str]],
) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for name, at in (("claimed", _claimed_at(trail)), ("first job", _first_job(stage, ws))):
        if at is not None:
            pairs.append((f"drop to {name}", f"{(at - dropped).total_seconds():.2f} s"))
    pairs += [
        (f"step {step.name}", f"{step.seconds:.2f} s")
        for step in (ws.run.steps if ws.run else ())
        if step.seconds is not None
    ]
    if ws.failure:
        pairs.append(("refused", ws.failure.details))
    pairs += [("notification", line) for line in mail.get(ws.id, [])]
    if ws.state is State.COMPLETE:
        pairs.append(("drop to complete", f"{(trail[-1].at - dropped).total_seconds():.2f} s"))
        pairs.append(("results", ws.results_uri))
    return pairs


def _claimed_at(trail: list[Record]) -> datetime | None:
    return next((r.at for r in trail if r.state is State.IN_PROGRESS), None)


def _first_job(stage: Stage, ws: Workset) -> datetime | None:
    tokens = [p.stat().st_mtime for p in stage.state.glob(f"jobs/{ws.id}/*/*/token")]
    return datetime.fromtimestamp(min(tokens), UTC) if tokens else None


def _say_how_to_look_around(stage: Stage) -> None:
    exports = "".join(f"export {k}='{v}'\n" for k, v in stage.environment().items() if "_" in k)
    (stage.folder / "env").write_text(exports, encoding="utf-8")
    ends = [f"kill {p.pid}; tail --pid={p.pid} -f /dev/null; " for p in reversed(stage.processes)]
    program = f"{sys.executable} -m daylily_daemon"
    printing.say("\nEverything keeps running. To look around:")
    printing.say_whole(f"  . {stage.folder}/env")
    for command in ("list", "show demo-1", "events demo-1", "logs demo-1 --step run", "status"):
        printing.say_whole(f"  {program} {command}")
    printing.say(f"The log of the daemon is {stage.folder}/daemon.log. To end it:")
    printing.say_whole(f"  {''.join(ends)}rm -r {stage.folder}")
