"""A laboratory for the real program: its own bucket, tables, queues and folders, on a shared emulator.

The daemon and every command run as separate processes, as they do in production. What happened is read
from where it is stored: the tables, the log of the daemon, the folders of the jobs, and the *evidence*, a
file to which each job adds a line when it starts.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeVar

import anyio
import botocore.session
import yaml

from daylily_daemon.adapters.codec import plain_item, record_from_item, workset_from_item
from daylily_daemon.adapters.host import StateDir
from daylily_daemon.adapters.provision import Provisioner
from daylily_daemon.adapters.runners import procfs, remains
from daylily_daemon.adapters.runners.jobdir import JobDirectory, Started
from daylily_daemon.bootstrap import aws_of, wanted_of
from daylily_daemon.cli.sampledata import SampleWorkset, write_sample_workset
from daylily_daemon.domain.model import Record, State
from daylily_daemon.domain.workset import Workset
from daylily_daemon.settings.sources import Sources, load
from tests.e2e.processes import SETTLED_WITHIN_S, Answer, Daemon, processes_of, until

__all__ = ["Answer", "Daemon", "Lab", "Sdk", "opened", "processes_of", "until"]

T = TypeVar("T")

PREFIX: Final = "daylily_monitoring/active_worksets/"
READY: Final = "daylily.ready"
COMMAND_WITHIN_S: Final = 60.0
GONE_WITHIN_S: Final = 15.0
TINY: Final = SampleWorkset(samples=1, reads=10, read_length=20, pipeline="")
"""The smallest workset in the real file format; its pipeline is the configured default."""


@dataclass(slots=True)
class Sdk:
    """Plain AWS clients of the test, beside those of the program."""

    url: str
    _made: dict[str, Any] = field(default_factory=dict)

    def __call__(self, service: str) -> Any:
        if service not in self._made:
            session = botocore.session.get_session()
            self._made[service] = session.create_client(
                service,
                region_name="us-west-2",
                endpoint_url=os.environ.get(f"AWS_ENDPOINT_URL_{service.upper()}", self.url),
            )
        return self._made[service]

    def close(self) -> None:
        for client in self._made.values():
            client.close()


class Lab:
    """Everything one test needs. Names are its own, so that labs can share an emulator."""

    def __init__(self, folder: Path, url: str) -> None:
        mine = secrets.token_hex(4)
        self.folder = folder
        self.url = url
        self.bucket = f"lab-{mine}"
        self.topic = f"topic-{mine}"
        self.aws = Sdk(url)
        self.state = StateDir(folder / "state")
        self.config = folder / "lab.yaml"
        self.pipelines = folder / "pipelines"
        self.daemons: list[Daemon] = []
        self.program = PROGRAM
        self.outside: Mapping[str, str] = os.environ
        """What the environment of its processes is made of."""
        self.settings = _settings(self, mine)
        for name in ("pipelines", "gates", "drops"):
            (folder / name).mkdir()
        self.configure()
        self.pipeline("noting")

    # --- settings, pipelines ------------------------------------------------------------------

    def configure(self, **sections: Mapping[str, Any]) -> None:
        """Change settings and write the file. A running daemon reads it again after SIGHUP."""
        for name, section in sections.items():
            self.settings[name] = {**self.settings.get(name, {}), **section}
        self.config.write_text(yaml.safe_dump(self.settings), encoding="utf-8")

    def pipeline(self, name: str, **steps: str) -> None:
        """Write a pipeline whose steps note their start and then run a piece of shell.

        Without ``steps`` it is stage, run and export, which only note. ``$gate`` is the path that
        ``open_gate`` makes; ``$attempt`` counts. The step ``metrics`` may fail, the others may not.
        """
        scripts = steps or dict.fromkeys(("stage", "run", "export"), "")
        entries = [self._step(step, script) for step, script in scripts.items()]
        text = yaml.safe_dump({"description": "For tests.", "steps": entries})
        (self.pipelines / f"{name}.yaml").write_text(text, encoding="utf-8")

    def _step(self, step: str, script: str) -> dict[str, Any]:
        note = 'echo "$1" >> "$2"; gate=$3 attempt=$4; '
        line, gate = f"{{workset}} {{attempt}} {step}", f"{self.folder}/gates/{{workset}}"
        return {
            "step": str(step),
            "argv": ["sh", "-c", note + script, "lab", line, str(self.notes), gate, "{attempt}"],
            "timeout_s": 3600,  # longer than a file of tests takes on a busy machine
            "grace_s": 2,
            "fatal": step != "metrics",
        }

    # --- what AWS holds -----------------------------------------------------------------------

    def provision(self) -> None:
        """Do what ``init --create-bucket`` does, without paying for a process."""
        anyio.run(self._provision)

    async def _provision(self) -> None:
        sources = Sources(config=self.config, environment=self.environment())
        settings = load(sources).settings
        async with aws_of(settings) as aws:
            async for step in Provisioner(aws, wanted_of(settings, create_bucket=True)).missing():
                await step.do()

    def put(self, key: str, body: bytes, bucket: str = "") -> None:
        self.aws("s3").put_object(Bucket=bucket or self.bucket, Key=key, Body=body)

    def get(self, key: str) -> bytes | None:
        s3 = self.aws("s3")
        try:
            body: bytes = s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        except s3.exceptions.NoSuchKey:
            return None
        return body

    def drop(self, folder: Path, name: str = "") -> str:
        """Upload a folder as a lab does, ``daylily.ready`` last; return the workset's name."""
        name = name or folder.name
        self.upload(folder, name)
        self.put(f"{PREFIX}{name}/{READY}", (folder / READY).read_bytes())
        return name

    def upload(self, folder: Path, name: str) -> None:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            if path.name != READY:
                key = f"{PREFIX}{name}/{path.relative_to(folder).as_posix()}"
                self.put(key, path.read_bytes())

    def sample(self, name: str, spec: SampleWorkset = TINY) -> Path:
        """Write a sample workset into a folder of that name."""
        folder = self.folder / "drops" / name
        write_sample_workset(folder, spec)
        return folder

    def drop_sample(self, name: str, spec: SampleWorkset = TINY) -> str:
        return self.drop(self.sample(name, spec))

    def load(self, workset: str) -> Workset | None:
        answer = self.aws("dynamodb").get_item(
            TableName=self.settings["tables"]["worksets"],
            Key={"workset_id": {"S": workset}},
            ConsistentRead=True,
        )
        item = answer.get("Item")
        return workset_from_item(plain_item(item)) if item else None

    def trail(self, workset: str) -> list[Record]:
        answer = self.aws("dynamodb").query(
            TableName=self.settings["tables"]["events"],
            KeyConditionExpression="workset_id = :id AND seq BETWEEN :a AND :z",
            ExpressionAttributeValues={
                ":id": {"S": workset},
                ":a": {"S": "0"},
                ":z": {"S": ":"},
            },
            ConsistentRead=True,
        )
        return [record_from_item(plain_item(item)) for item in answer["Items"]]

    def wait_until(
        self, workset: str, holds: Callable[[Workset], object], within_s: float = SETTLED_WITHIN_S
    ) -> Workset:
        """Wait until the stored workset is as wanted; return it."""

        def look() -> Workset | None:
            ws = self.load(workset)
            return ws if ws is not None and holds(ws) else None

        found = until(look, within_s, lambda: self._story(workset))
        assert found is not None
        return found

    def wait_for(self, workset: str, state: State, within_s: float = SETTLED_WITHIN_S) -> Workset:
        return self.wait_until(workset, lambda ws: ws.state is state, within_s)

    def wait_told(self, workset: str, words: str) -> Record:
        """Wait for an audit record whose message holds ``words``."""

        def look() -> list[Record]:
            return [record for record in self.trail(workset) if words in record.message]

        return until(look, why=lambda: self._story(workset))[-1]

    def wait_paid(self, workset: str) -> None:
        """Wait until every notice of this workset was delivered and settled."""
        until(
            lambda: not any(record.owed for record in self.trail(workset)),
            why=lambda: self._story(workset),
        )

    def wait_listed(self, state: State) -> list[dict[str, Any]]:
        """Wait until ``list`` shows worksets in that state; return what it shows."""

        def look() -> list[dict[str, Any]]:
            answer = self.run_cli("list", "--state", str(state), "--json")
            found: list[dict[str, Any]] = answer.json
            return found

        return until(look)

    def wait_queued(self, queue: str, messages: int) -> None:
        """Wait until so many messages can be received from a queue."""
        sqs, name = self.aws("sqs"), "ApproximateNumberOfMessages"
        url = sqs.get_queue_url(QueueName=queue)["QueueUrl"]

        def look() -> bool:
            answer = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=[name])
            return bool(answer["Attributes"][name] == str(messages))

        until(look)

    def _story(self, workset: str) -> str:
        log = self.daemons[-1].log_text() if self.daemons else "No daemon was started."
        return f"{workset} is {self.load(workset)}\n{log}"

    # --- processes ----------------------------------------------------------------------------

    def environment(self) -> dict[str, str]:
        """As a service would have it. Compiled modules are kept: each process starts faster."""
        kept = {k: v for k, v in self.outside.items() if k != "PYTHONDONTWRITEBYTECODE"}
        return kept | {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_REGION": "us-west-2",
            "COLUMNS": "300",
            "DAYLILY_CONFIG": str(self.config),
        }

    def start(self, *arguments: str, wait: bool = True) -> Daemon:
        """Start the daemon; return once it has finished its first sweep, unless told not to wait."""
        log = self.folder / f"daemon-{len(self.daemons)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*self.program, "run", "--config", str(self.config), *arguments],
                cwd=self.folder,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        daemon = Daemon(process, log, self.state)
        self.daemons.append(daemon)
        if wait:
            daemon.wait_up()
        return daemon

    def run_cli(self, *arguments: str, **environment: str) -> Answer:
        """Run one command to its end. Whatever happens, nobody is ever shown a traceback."""
        done = subprocess.run(
            [*self.program, *arguments],
            cwd=self.folder,
            env=self.environment() | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_WITHIN_S,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Answer(done.returncode, done.stdout, done.stderr)

    # --- jobs and their evidence --------------------------------------------------------------

    @cached_property
    def notes(self) -> Path:
        return self.folder / "evidence"

    def evidence(self, workset: str = "") -> Counter[str]:
        """Return how often each job was really started, by ``<workset> <attempt> <step>``."""
        lines = self.notes.read_text(encoding="utf-8").splitlines() if self.notes.exists() else []
        return Counter(line for line in lines if workset in ("", line.split()[0]))

    def wait_started(self, workset: str, job: str) -> None:
        """Wait until the evidence has ``job``, written ``1 run``: attempt and step."""
        until(
            lambda: f"{workset} {job}" in self.evidence(workset), why=lambda: self._story(workset)
        )

    def open_gate(self, workset: str) -> None:
        (self.folder / "gates" / workset).touch()

    def job_folders(self) -> list[Path]:
        """Of every state directory beside the lab's own, whose names begin like that."""
        tokens = self.state.path.parent.glob(f"{self.state.path.name}*/jobs/*/*/*/token")
        return sorted(path.parent for path in tokens)

    def running_jobs(self) -> list[str]:
        """Return the jobs whose shim won its token and has left no record yet."""
        folders = [JobDirectory(str(folder)) for folder in self.job_folders()]
        return [_name(job) for job in folders if not job.has_ended()]

    def exit_codes(self) -> dict[str, int | None]:
        """Return what the shims recorded, by ``<workset> <attempt> <step>``."""
        found = {}
        for folder in self.job_folders():
            record = json.loads((folder / "exit.json").read_text(encoding="utf-8"))
            found[record["name"].replace(".", " ")] = record["code"]
        return found

    # --- the end ------------------------------------------------------------------------------

    def close(self) -> None:
        """End the daemons, the jobs and the tmux server of this lab, and nothing else."""
        for daemon in self.daemons:
            if daemon.process.poll() is None:
                daemon.kill()
        for folder in self.job_folders():
            _end_job(JobDirectory(str(folder)))
        if Path(self.state.tmux_socket).exists():
            self.tmux("kill-server")
        self.aws.close()

    def tmux(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["tmux", "-S", self.state.tmux_socket, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_WITHIN_S,
        )

    def complaints(self) -> list[str]:
        """Return the lines of all daemon logs that tell of a defect of the program."""
        return [
            line
            for daemon in self.daemons
            for line in daemon.log.read_text(errors="replace").splitlines()
            if DEFECT.search(line)
        ]


PROGRAM: Final[tuple[str, ...]] = (sys.executable, "-m", "daylily_daemon")
DEFECT: Final = re.compile(r"workset_rests|Traceback|was never awaited|never retrieved")


@contextmanager
def opened(folder: Path, url: str) -> Iterator[Lab]:
    """A lab from its making to its end; fails if a daemon complained or anything is left running."""
    lab = Lab(folder, url)
    try:
        yield lab
    finally:
        lab.close()
    assert lab.complaints() == []
    until(lambda: not processes_of(folder), GONE_WITHIN_S, lambda: f"Left: {processes_of(folder)}")


def _settings(lab: Lab, mine: str) -> dict[str, Any]:
    """Short pauses throughout; one setting that matters in production stays as it is: the lease."""
    return {
        "control": {"bucket": lab.bucket, "prefix": PREFIX},
        "tables": {
            "worksets": f"worksets-{mine}",
            "events": f"events-{mine}",
            "control": f"control-{mine}",
        },
        "queues": {"intake": f"intake-{mine}", "commands": f"commands-{mine}.fifo"},
        "topic": {"sns_topic_name": lab.topic},
        "daemon": {
            "name": "lab",
            "state_dir": str(lab.state.path),
            "data_dir": str(lab.folder / "data"),
            "min_free_gb": 0,
            "max_worksets": 4,
            "sweep_s": 2,
        },
        "inputs": {"wait_s": 60, "poll_s": 0.5},
        "runner": {"kind": "process", "isolation": "session"},
        "pipelines": {"dir": str(lab.pipelines), "default": "noting"},
        "progress": {"interval_s": 0.5},
        "retry": {"base_s": 0.5, "cap_s": 1},
        "log": {"level": "info", "format": "json"},
    }


def _name(job: JobDirectory) -> str:
    spec = json.loads(Path(job.path, "spec.json").read_text(encoding="utf-8"))
    return str(spec["name"]).replace(".", " ")


def _end_job(job: JobDirectory) -> None:
    token = job.token()
    if isinstance(token, Started):
        procfs.send(token.shim, signal.SIGKILL)
        known = remains.KnownJob(token.mark, frozenset({job.path}), job.command())
        for process in remains.members(known):
            procfs.send(process, signal.SIGKILL)
