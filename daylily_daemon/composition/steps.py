"""The programs that pipelines are made of: stage, export, and what is made of the results.

AWS is reached by the variables other tools obey too: AWS_REGION, AWS_PROFILE, AWS_ENDPOINT_URL. Each is given
``say``, which prints one line: the daemon reads the progress of a job from them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import anyio
import yaml

from daylily_daemon.adapters.aws import Aws, options_from
from daylily_daemon.adapters.exporting import MAX_TOLD, Target, left_out_problem, told
from daylily_daemon.adapters.exporting import export as export_results
from daylily_daemon.adapters.remaining import UNFINISHED_FILE
from daylily_daemon.adapters.reports import figures, report_on_samples, write_json
from daylily_daemon.adapters.staging import stage as stage_workset
from daylily_daemon.adapters.transfer import CopyOptions, local_files, split_uri
from daylily_daemon.domain.errors import DaemonError
from daylily_daemon.domain.places import Shared
from daylily_daemon.domain.sizes import readable

LINE_EVERY_S = 1.0
TROUBLE_EVERY_S = 60.0
READ_TIMEOUT_S = 60.0
EXPORT_FILE = "fsx_export.yaml"

Say = Callable[[str], None]


class ProgressLines:
    """Prints ``3 of 10 steps (30%) done`` as Snakemake does, a line a second at most.

    A step is a file; the percentage is by bytes, so that it moves within a large file too.
    """

    def __init__(self, say: Say) -> None:
        self._say = say
        self._files = (0, 0)
        self._percent = 0
        self._printed = ""
        self._next = -math.inf

    def bytes(self, done: int, total: int) -> None:
        self._percent = min(100, 100 * done // total) if total else 0
        self._look()

    def files(self, done: int, total: int) -> None:
        self._files = (done, total)
        self._look()

    def finish(self, files: int) -> None:
        self._files, self._percent = (files, files), 100
        self._print()

    def _look(self) -> None:
        if anyio.current_time() >= self._next:
            self._next = anyio.current_time() + LINE_EVERY_S
            self._print()

    def _print(self) -> None:
        line = "{} of {} steps ({}%) done".format(*self._files, self._percent)
        if line != self._printed:
            self._say(line)
        self._printed = line


class StepPatience:
    """Says why a copy is waiting, a line a minute at most: it goes on by itself until it is ended."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._next = -math.inf

    def tell(self, reason: str) -> None:
        if anyio.current_time() >= self._next:
            self._next = anyio.current_time() + TROUBLE_EVERY_S
            self._say(f"Waiting, and trying again: {reason}")


async def stage(uri: str, dest: Path, pin: str, jobs: int, say: Say) -> None:
    """Bring all files of a workset to ``dest``; a ``pin`` that is not empty is what they must be."""
    lines = ProgressLines(say)
    options = _options(jobs, lines, say)
    async with _aws(options) as aws:
        client = await aws.client("s3")
        staged = await stage_workset(
            client, uri, dest, pin=pin, options=options, progress=lines.bytes
        )
    done = staged.downloaded
    say(f"Remote FSx stage directory: {staged.folder}")
    say(f"Staged files ({len(staged.files)}):")
    for path in staged.files:
        say(f"  {path}")
    say("")
    say(f"{readable(done.size_bytes)} in {done.files} files; {done.unchanged} were there already.")
    if done.unverified:
        say(f"Of {done.unverified} files S3 keeps no digest: only their size was compared.")
    lines.finish(done.files)


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """What is to be exported, and where to."""

    source: Path
    uri: str
    within: tuple[Path, ...] = ()
    """Folders into which links may lead, besides ``source``."""
    workset_uri: str = ""
    shared: Shared = Shared.FOLDER
    report: Path | None = None
    """JSON to write."""


async def export(wanted: Export, jobs: int, say: Say) -> None:
    """Export results. Raises Permanent if files had to be left out, after all others are safe."""
    source, report = wanted.source, wanted.report
    lines = ProgressLines(say)
    options = replace(_options(jobs, lines, say), within=tuple(_roots(source, wanted.within)))
    target = Target(uri=wanted.uri, workset_uri=wanted.workset_uri, shared=wanted.shared)
    try:
        await anyio.to_thread.run_sync(_begin_status, source, report)
        split_uri(target.uri)
        async with _aws(options) as aws:
            client = await aws.client("s3")
            done = await export_results(
                client, source, target, options=options, progress=lines.bytes
            )
    except DaemonError as exc:
        await anyio.to_thread.run_sync(_write_status, source, "error", target.uri, str(exc))
        raise
    problem = left_out_problem(done)
    status, message = ("error", str(problem)) if problem else ("success", told(done))
    await anyio.to_thread.run_sync(_write_status, source, status, done.uri, message)
    if report:
        with local_files(f"Writing {report}"):
            await anyio.to_thread.run_sync(write_json, report, done.report())
    for line in (*done.uploaded.left_out[:MAX_TOLD], *done.warnings, told(done)):
        say(line)
    if problem:
        raise problem
    lines.finish(done.uploaded.files)


def _begin_status(source: Path, report: Path | None) -> None:
    """Forget what an earlier try left, and note that results are not safe yet: a cleanup looks for that."""
    with local_files(f"Writing beside {source}"):
        (source.parent / EXPORT_FILE).unlink(missing_ok=True)
        if report:
            report.unlink(missing_ok=True)
        (source.parent / UNFINISHED_FILE).touch()


def _write_status(source: Path, status: str, uri: str, message: str) -> None:
    """Readers of the old system wait for this file; it is written whole or not at all."""
    path = source.parent / EXPORT_FILE
    content = {"fsx_export": {"status": status, "s3_uri": uri, "message": message}}
    written = path.with_name(f".{EXPORT_FILE}.new")
    with local_files(f"Writing {path}"):
        written.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), "utf-8")
        written.replace(path)
        if status == "success":
            (source.parent / UNFINISHED_FILE).unlink(missing_ok=True)


def _roots(source: Path, within: tuple[Path, ...]) -> Iterator[Path]:
    """Yield where links of a run may lead; the tree that holds its results belongs to it too."""
    yield from within
    if within and source.is_symlink():
        yield source.resolve().parent


def report_fastq(sheet: Path, dest: Path, pause: Callable[[], None], say: Say) -> None:
    """Report on all FASTQ files of a sheet; ``pause`` is called after each step."""

    def on_step(done: int, total: int) -> None:
        say(f"{done} of {total} steps ({100 * done // total}%) done")
        pause()

    for report in report_on_samples(sheet, dest, on_step):
        say("  ".join(f"{key} {value}" for key, value in report.as_dict().items()))


def write_metrics(results: Path, output: Path, say: Say) -> None:
    """Count what there is in ``results``, and write that as JSON."""
    found = figures(results)
    with local_files(f"Writing {output}"):
        write_json(output, found)
    say("  ".join(f"{key} {value}" for key, value in found.items()))


def _options(jobs: int, lines: ProgressLines, say: Say) -> CopyOptions:
    trouble = StepPatience(say).tell
    return CopyOptions(jobs=jobs, tries=None, on_file=lines.files, on_trouble=trouble)


def _aws(options: CopyOptions) -> Aws:
    """Connections enough, and time enough for S3 to put a large upload together."""
    found = options_from(os.environ)
    pool_size = max(found.pool_size, 2 * options.jobs)
    return Aws(
        replace(found, read_timeout_s=READ_TIMEOUT_S, pool_size=pool_size, sign_bodies=False)
    )
