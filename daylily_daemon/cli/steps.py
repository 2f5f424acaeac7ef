"""The commands that pipelines are made of; each is also of use by hand.

AWS is reached by the variables other tools obey too: AWS_REGION, AWS_PROFILE, AWS_ENDPOINT_URL.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import anyio
import typer
import yaml

from daylily_daemon.adapters.aws import Aws, options_from
from daylily_daemon.adapters.exporting import (
    MAX_TOLD,
    Shared,
    Target,
    left_out_problem,
    told,
)
from daylily_daemon.adapters.exporting import export as export_results
from daylily_daemon.adapters.reports import figures, report_on_samples, write_json
from daylily_daemon.adapters.staging import stage as stage_workset
from daylily_daemon.adapters.transfer import (
    CopyOptions,
    local_files,
    readable,
    split_uri,
)
from daylily_daemon.cli import printing
from daylily_daemon.cli.options import reporting, run_async
from daylily_daemon.domain.errors import DaemonError

LINE_EVERY_S = 1.0
TROUBLE_EVERY_S = 60.0
READ_TIMEOUT_S = 60.0
EXPORT_FILE = "fsx_export.yaml"
UNFINISHED_FILE = ".daylily-export-unfinished"
"""Lies beside the results from the beginning of an export to the end of one that left nothing out."""

JobsOption = Annotated[int, typer.Option("--jobs", min=1, max=64, help="Files copied at once.")]


class ProgressLines:
    """Prints ``3 of 10 steps (30%) done`` as Snakemake does, a line a second at most.

    A step is a file; the percentage is by bytes, so that it moves within a large file too.
    """

    def __init__(self) -> None:
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
            printing.say_whole(line)
        self._printed = line


class Patience:
    """Says why a copy is waiting, a line a minute at most: it goes on by itself until it is ended."""

    def __init__(self) -> None:
        self._next = -math.inf

    def tell(self, reason: str) -> None:
        if anyio.current_time() >= self._next:
            self._next = anyio.current_time() + TROUBLE_EVERY_S
            printing.say_whole(f"Waiting, and trying again: {reason}")


def stage(
    input_uri: Annotated[str, typer.Argument(metavar="INPUT_URI", help="s3://bucket/prefix/.")],
    dest: Annotated[Path, typer.Argument(metavar="DEST", help="Folder to stage into.")],
    jobs: JobsOption = 8,
    pin: Annotated[
        str,
        typer.Option(
            "--pin",
            metavar="TEXT",
            envvar="DAYLILY_PIN",
            help="What was checked; all else is refused.",
        ),
    ] = "",
) -> None:
    """Bring recipe, sample sheet and all input files of a workset to a local folder.

    DEST/stage_samples.tsv is written last, with local paths. A repeat copies only what is missing.

    Example: daylily-daemon stage s3://lab/daylily_monitoring/active_worksets/HG002-run7/ /fsx/stage/x
    """
    run_async(partial(_stage, input_uri, dest.absolute(), pin, CopyOptions(jobs=jobs, tries=None)))


async def _stage(uri: str, dest: Path, pin: str, options: CopyOptions) -> None:
    lines = ProgressLines()
    options = replace(options, on_file=lines.files, on_trouble=Patience().tell)
    async with _aws(options) as aws:
        client = await aws.client("s3")
        staged = await stage_workset(
            client, uri, dest, pin=pin, options=options, progress=lines.bytes
        )
    done = staged.downloaded
    printing.say_whole(f"Remote FSx stage directory: {staged.folder}")
    printing.say_whole(f"Staged files ({len(staged.files)}):")
    for path in staged.files:
        printing.say_whole(f"  {path}")
    printing.say()
    printing.say_whole(
        f"{readable(done.size_bytes)} in {done.files} files; {done.unchanged} were there already."
    )
    if done.unverified:
        printing.say_whole(
            f"Of {done.unverified} files S3 keeps no digest: only their size was compared."
        )
    lines.finish(done.files)


def export(
    source_dir: Annotated[Path, typer.Argument(metavar="SOURCE_DIR", help="Folder of results.")],
    s3_uri: Annotated[str, typer.Argument(metavar="S3_URI", help="s3://bucket/prefix/.")],
    jobs: JobsOption = 8,
    within: Annotated[
        list[Path] | None,
        typer.Option(
            "--within",
            metavar="DIR",
            envvar="DAYLILY_RUN_DIR",
            help="Folder into which links may lead, besides SOURCE_DIR; may be repeated.",
        ),
    ] = None,
    workset: Annotated[
        str,
        typer.Option(
            "--workset",
            metavar="URI",
            envvar="DAYLILY_INPUT_URI",
            help="Folder of the workset whose results these are; the place is marked as its.",
        ),
    ] = "",
    shared: Annotated[
        Shared,
        typer.Option(
            "--shared",
            envvar="DAYLILY_SHARED_RESULTS",
            help="What to do where another workset's results are: use a folder below it, or refuse.",
        ),
    ] = Shared.FOLDER,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE", help="JSON to write.")
    ] = None,
) -> None:
    """Copy every file of a folder to S3, except those S3 has already with the same content.

    Links are followed into SOURCE_DIR and the folders of --within. What cannot be copied is named, and the
    exit code is 1 then. What came of it is written to fsx_export.yaml beside SOURCE_DIR.

    Example: daylily-daemon export /fsx/work/HG002-run7/results s3://lab/results/HG002-run7/
    """
    source = source_dir.absolute()
    options = CopyOptions(jobs=jobs, within=tuple(_roots(source, within or [])), tries=None)
    target = Target(uri=s3_uri, workset_uri=workset, shared=shared)
    run_async(partial(_export, source, target, options, report))


def _roots(source: Path, within: list[Path]) -> Iterator[Path]:
    """Yield where links of a run may lead; the tree that holds its results belongs to it too."""
    yield from within
    if within and source.is_symlink():
        yield source.resolve().parent


async def _export(source: Path, target: Target, options: CopyOptions, report: Path | None) -> None:
    lines = ProgressLines()
    options = replace(options, on_file=lines.files, on_trouble=Patience().tell)
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
        printing.say_whole(line)
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


def fastq_report(
    sheet: Annotated[Path, typer.Argument(metavar="SHEET", help="A staged stage_samples.tsv.")],
    dest: Annotated[Path, typer.Argument(metavar="DEST", help="Folder to write into.")],
    pace: Annotated[
        float, typer.Option("--pace", min=0, help="Seconds to rest after each step, to be watched.")
    ] = 0.0,
) -> None:
    """Read all FASTQ files of a sample sheet and report reads, bases, GC and mean quality a sample.

    The first line that is not FASTQ ends it, with file and line.

    Example: daylily-daemon fastq-report /fsx/stage/x/stage_samples.tsv /fsx/work/x/results
    """

    def on_step(done: int, total: int) -> None:
        printing.say_whole(f"{done} of {total} steps ({100 * done // total}%) done")
        time.sleep(pace)

    with reporting():
        for report in report_on_samples(sheet, dest, on_step):
            printing.say_whole(
                "  ".join(f"{key} {value}" for key, value in report.as_dict().items())
            )


def collect_metrics(
    results: Annotated[Path, typer.Argument(metavar="WORK_DIR", help="Folder of results.")],
    output: Annotated[Path, typer.Option("--output", metavar="FILE", help="JSON to write.")],
) -> None:
    """Count files and bytes of the results, and samples, reads and bases where summary.tsv has them.

    Example: daylily-daemon collect-metrics /fsx/work/x/results --output /fsx/work/x/metrics.json
    """
    with reporting():
        found = figures(results)
        with local_files(f"Writing {output}"):
            write_json(output, found)
        printing.say_whole("  ".join(f"{key} {value}" for key, value in found.items()))


def _aws(options: CopyOptions) -> Aws:
    """One connection a file, and time enough for S3 to put a large upload together."""
    found = replace(options_from(os.environ), read_timeout_s=READ_TIMEOUT_S)
    return Aws(replace(found, pool_size=max(found.pool_size, 2 * options.jobs)))


def register(app: typer.Typer) -> None:
    """Add these commands to the program."""
    app.command("stage")(stage)
    app.command("export")(export)
    app.command("fastq-report")(fastq_report)
    app.command("collect-metrics")(collect_metrics)
