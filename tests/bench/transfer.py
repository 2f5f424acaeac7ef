"""How fast bytes move, beside the programs people know: ``python -m tests.bench.transfer --others VENV``.

A store on loopback holds each connection to a rate, as a path to S3 does; one large file and many small ones
go both ways, by every program in turn, round after round, so that the ratios are those of one run. VENV is an
environment with any of awscli, s5cmd, and s3transfer with awscrt; what it lacks is left out. Figures are
printed and kept in ``.cache/figures/transfer.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter  # noqa: TID251 - what is measured
from typing import Final

from rich.console import Console

from tests import emulators

MB: Final = 1_000_000
RATE: Final = 40 * MB
LARGE_BYTES: Final = 300 * MB
SMALL_BYTES: Final = MB
SMALL_FILES: Final = 200
ROUNDS: Final = 3
CASES: Final = ("one up", "one down", "many up", "many down")
NO_COPY: Final = "start"
BASE: Final = "aws s3 cp"

DOWN_BY_US: Final = """
import sys, anyio
from pathlib import Path
from daylily_daemon.adapters.aws import Aws, AwsOptions
from daylily_daemon.adapters.transfer import CopyOptions, Fetch, download
from daylily_daemon.composition.steps import _options, _aws, ProgressLines
url, dest, *keys = sys.argv[1:]
async def main():
    root = Path(dest)
    options = _options({jobs}, ProgressLines(print), print)
    async with _aws(options) as aws:
        plan = [Fetch("bench", key, root / key) for key in keys]
        done = await download(await aws.client("s3"), plan, root, options=options)
    assert (done.files, done.unverified) == (len(keys), 0), done
anyio.run(main)
"""
BY_S3TRANSFER: Final = """
import os, sys
import botocore.session
kind, way, url, folder, *keys = sys.argv[1:]
session = botocore.session.get_session()
if kind == "crt":
    from s3transfer import crt
    provider = crt.BotocoreCRTCredentialsWrapper(session.get_credentials()).to_crt_credentials_provider()
    client = crt.create_s3_crt_client("us-west-2", provider, use_ssl=False)
    asked = {"region_name": "us-west-2", "endpoint_url": url}
    manager = crt.CRTTransferManager(client, crt.BotocoreCRTRequestSerializer(session, asked))
else:
    from s3transfer.manager import TransferManager
    manager = TransferManager(session.create_client("s3", "us-west-2", endpoint_url=url))
with manager:
    futures = []
    for key in keys:
        path = os.path.join(folder, key)
        if way == "up":
            futures.append(manager.upload(path, "bench", "out/" + key))
        else:
            futures.append(manager.download("bench", key, path))
    for future in futures:
        future.result()
"""


@dataclass(frozen=True, slots=True)
class Task:
    """One copy: of ``keys``, which lie in ``folder`` or belong there."""

    case: str
    url: str
    folder: Path
    keys: tuple[str, ...]

    @property
    def up(self) -> bool:
        return self.case.endswith("up")

    @property
    def top(self) -> str:
        """The one file, or the folder of many."""
        return self.keys[0] if len(self.keys) == 1 else "many/"


@dataclass(frozen=True, slots=True)
class Spent:
    seconds: float
    cpu_s: float
    peak_mb: float
    connections: int
    requests: int


Program = Callable[[Task], list[str]]


def starts(others: Path | None) -> dict[str, list[str]]:
    """Return what shows how long a program takes to start and to copy nothing."""
    found = {"ours": [sys.executable, "-m", "daylily_daemon", "export", "--help"]}
    if others and (others / "bin" / "aws").exists():
        found[BASE] = [str(others / "bin" / "aws"), "--version"]
    return found


def programs(others: Path | None, jobs: int) -> dict[str, Program]:
    """Return what there is to compare, ours first."""
    found: dict[str, Program] = {"ours": lambda task: _ours(task, jobs)}
    if others is None:
        return found
    python, folder = str(others / "bin" / "python"), others / "bin"
    if (folder / "aws").exists():
        found[BASE] = lambda task: _aws(folder, task)
    if (folder / "s5cmd").exists():
        found["s5cmd"] = lambda task: _s5cmd(folder, task)
    for kind in ("classic", "crt"):
        if subprocess.run([python, "-c", "import s3transfer, awscrt"], check=False).returncode == 0:
            found[f"s3transfer {kind}"] = _s3transfer(python, kind)
    return found


def _ours(task: Task, jobs: int) -> list[str]:
    if not task.up:
        program = DOWN_BY_US.replace("{jobs}", str(jobs))
        return [sys.executable, "-c", program, task.url, str(task.folder), *task.keys]
    source = task.folder if len(task.keys) == 1 else task.folder / "many"
    program_of_ours = [sys.executable, "-m", "daylily_daemon", "export"]
    return [*program_of_ours, str(source), "s3://bench/out/", "--jobs", str(jobs)]


def _aws(folder: Path, task: Task) -> list[str]:
    there, here = f"s3://bench/{'out/' if task.up else ''}{task.top}", str(task.folder / task.top)
    ends = [here, there] if task.up else [there, here]
    recursive = [] if len(task.keys) == 1 else ["--recursive"]
    program = [str(folder / "aws"), "s3", "cp", "--only-show-errors", "--endpoint-url", task.url]
    return [*program, *recursive, *ends]


def _s5cmd(folder: Path, task: Task) -> list[str]:
    program = [str(folder / "s5cmd"), "--endpoint-url", task.url, "--log", "error", "cp"]
    here = f"{task.folder / task.top}{'' if len(task.keys) == 1 else '/'}"
    if task.up:
        return [*program, here, f"s3://bench/out/{task.top}"]
    return [*program, f"s3://bench/{task.top}{'' if len(task.keys) == 1 else '*'}", here]


def _s3transfer(python: str, kind: str) -> Program:
    def program(task: Task) -> list[str]:
        way = "up" if task.up else "down"
        return [python, "-c", BY_S3TRANSFER, kind, way, task.url, str(task.folder), *task.keys]

    return program


def spent(argv: list[str], task: Task) -> Spent:
    """Run one program to its end, in a process of its own, and return what it took."""
    began = perf_counter()
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{argv[:4]} ended with {process.returncode}.")
    figures = _figures(task.url)
    return Spent(
        seconds=seconds,
        cpu_s=usage.ru_utime + usage.ru_stime,
        peak_mb=usage.ru_maxrss * 1024 / MB,
        connections=figures["most_open"],
        requests=figures["requests"] - 1,
    )


@dataclass(slots=True)
class Report:
    rate_mb_s: float
    spent: dict[str, dict[str, list[Spent]]] = field(default_factory=dict)
    """By case and program, one per round; the case of no copy is the start alone."""

    def show(self, console: Console) -> None:
        for case, by_program in self.spent.items():
            base = by_program.get(BASE, by_program["ours"])
            base_s = median(s.seconds for s in base)
            console.print(
                f"\n{case}, {self.rate_mb_s:.0f} MB/s per connection; median of {len(base)} rounds"
            )
            for name, rounds in by_program.items():
                mid = sorted(rounds, key=lambda s: s.seconds)[len(rounds) // 2]
                console.print(
                    f"  {name:20} {mid.seconds:6.2f} s  {mid.seconds / base_s:5.2f} x {BASE}"
                    f"  CPU {mid.cpu_s:5.2f} s  peak {mid.peak_mb:4.0f} MB"
                    f"  {mid.connections:3} connections  {mid.requests:4} requests"
                )


def measure(
    url: str,
    scratch: Path,
    found: dict[str, Program],
    starting: dict[str, list[str]],
    rounds: int,
) -> Report:
    keys = {"one": ("one.bam",), "many": tuple(f"many/{n:03}.vcf" for n in range(SMALL_FILES))}
    _prepare(url, scratch / "source", keys)
    report = Report(RATE / MB)
    nothing = Task(NO_COPY, url, scratch, ())
    report.spent[NO_COPY] = {
        name: [spent(argv, nothing) for _ in range(rounds)] for name, argv in starting.items()
    }
    for case in CASES:
        report.spent[case] = {name: [] for name in found}
        for _ in range(rounds):
            for name, program in found.items():
                report.spent[case][name].append(_once(url, scratch, case, keys, program))
    return report


def _once(
    url: str, scratch: Path, case: str, keys: dict[str, tuple[str, ...]], program: Program
) -> Spent:
    kind = case.partition(" ")[0]
    names = keys[kind]
    folder = scratch / "source" / kind if case.endswith("up") else scratch / "dest"
    shutil.rmtree(scratch / "dest", ignore_errors=True)
    (scratch / "dest" / "many").mkdir(parents=True)
    _call(url, "/_forget/out/")
    _figures(url)
    task = Task(case, url, folder, names)
    done = spent(program(task), task)
    if not task.up:
        _check(folder, names, program(task))
    return done


def _check(folder: Path, names: tuple[str, ...], argv: list[str]) -> None:
    wanted = LARGE_BYTES if len(names) == 1 else SMALL_BYTES
    assert {(folder / name).stat().st_size for name in names} == {wanted}, argv


def _prepare(url: str, source: Path, keys: dict[str, tuple[str, ...]]) -> None:
    for kind, names in keys.items():
        size_bytes = LARGE_BYTES if kind == "one" else SMALL_BYTES
        for name in names:
            _call(url, f"/_seed/bench/{name}?size={size_bytes}")
            path = source / kind / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                for _ in range(size_bytes // MB):
                    file.write(os.urandom(MB))


def _figures(url: str) -> dict[str, int]:
    told: dict[str, int] = json.loads(_call(url, "/_figures/"))
    return told


def _call(url: str, path: str) -> bytes:
    with urllib.request.urlopen(url + path) as answer:
        return bytes(answer.read())


def _store(port: int) -> emulators.Launch:
    argv = (sys.executable, "-m", "tests.bench.slow_s3", str(port), str(RATE))
    return emulators.Launch(name="store", argv=argv, environ={"PYTHONPATH": str(emulators.ROOT)})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--others", type=Path, help="environment with the other programs")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--jobs", type=int, default=16, help="connections of ours")
    given = parser.parse_args()
    _leave_the_users_aws()
    with (
        tempfile.TemporaryDirectory() as folder,
        emulators.running(_store, Path(folder)) as url,
    ):
        os.environ["AWS_ENDPOINT_URL"] = url
        scratch = Path(folder)
        found = programs(given.others, given.jobs)
        report = measure(url, scratch, found, starts(given.others), given.rounds)
    report.show(Console(width=150))
    figures = emulators.CACHE / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    (figures / "transfer.json").write_text(json.dumps(asdict(report), indent=1) + "\n", "utf-8")


def _leave_the_users_aws() -> None:
    for name in list(os.environ):
        if name.startswith(("AWS_", "DAYLILY_")):
            del os.environ[name]
    os.environ["AWS_ACCESS_KEY_ID"] = os.environ["AWS_SECRET_ACCESS_KEY"] = "testing"
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    os.environ["AWS_REGION"] = "us-west-2"


if __name__ == "__main__":
    main()
