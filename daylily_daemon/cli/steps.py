"""The commands that pipelines are made of; each is also of use by hand.

AWS is reached by the variables other tools obey too: AWS_REGION, AWS_PROFILE, AWS_ENDPOINT_URL.
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import anyio
import typer
import yaml

from daylily_daemon.adapters.aws import Aws, options_from
from daylily_daemon.adapters.reports import figures, report_on_samples, write_json
from daylily_daemon.adapters.staging import stage as stage_workset
from daylily_daemon.adapters.transfer import (
    CopyOptions,
    Uploaded,
    local_files,
    readable,
    split_uri,
    upload,
)
from daylily_daemon.cli import printing
from daylily_daemon.cli.options import reporting, run_async
from daylily_daemon.domain.errors import DaemonError

LINE_EVERY_S = 1.0
READ_TIMEOUT_S = 60.0
EXPORT_FILE = "fsx_export.yaml"

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
        self._percent = 100 * done // total if total else 0
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


def stage(
    input_uri: Annotated[str, typer.Argument(metavar="INPUT_URI", help="s3://bucket/prefix/.")],
    dest: Annotated[Path, typer.Argument(metavar="DEST", help="Folder to stage into.")],
    jobs: JobsOption = 8,
) -> None:
    """Bring recipe, sample sheet and all input files of a workset to a local folder.

    DEST/stage_samples.tsv is written last, with local paths. A repeat copies only what is missing.

    Example: daylily-daemon stage s3://lab/daylily_monitoring/active_worksets/HG002-run7/ /fsx/stage/x
    """
    run_async(partial(_stage, input_uri, dest.absolute(), CopyOptions(jobs=jobs)))


async def _stage(uri: str, dest: Path, options: CopyOptions) -> None:
    lines = ProgressLines()
    options = replace(options, on_file=lines.files)
    async with _aws(options) as aws:
        client = await aws.client("s3")
        staged = await stage_workset(client, uri, dest, options=options, progress=lines.bytes)
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
) -> None:
    """Copy every file of a folder to S3, except those S3 has already with the same content.

    What came of it is written to fsx_export.yaml beside SOURCE_DIR.

    Example: daylily-daemon export /fsx/work/HG002-run7/results s3://lab/results/HG002-run7/
    """
    run_async(partial(_export, source_dir.absolute(), s3_uri, CopyOptions(jobs=jobs)))


async def _export(source: Path, uri: str, options: CopyOptions) -> None:
    lines = ProgressLines()
    options = replace(options, on_file=lines.files)
    try:
        bucket, prefix = split_uri(uri)
        async with _aws(options) as aws:
            client = await aws.client("s3")
            done = await upload(client, source, uri, options=options, progress=lines.bytes)
    except DaemonError as exc:
        await anyio.to_thread.run_sync(_write_status, source, "error", uri, str(exc))
        raise
    told = _told(done, f"s3://{bucket}/{prefix}")
    await anyio.to_thread.run_sync(_write_status, source, "success", uri, told)
    for line in (*done.left_out, told):
        printing.say_whole(line)
    lines.finish(done.files)


def _told(done: Uploaded, uri: str) -> str:
    if not done.files:
        return f"There was nothing to export to {uri}."
    left_out = f"; {len(done.left_out)} left out" if done.left_out else ""
    size = f"{done.files} files ({readable(done.size_bytes)})"
    return f"{size} are in {uri}, {done.unchanged} of them were there already{left_out}."


def _write_status(source: Path, status: str, uri: str, message: str) -> None:
    """Readers of the old system wait for this file; it is written whole or not at all."""
    path = source.parent / EXPORT_FILE
    content = {"fsx_export": {"status": status, "s3_uri": uri, "message": message}}
    written = path.with_name(f".{EXPORT_FILE}.new")
    with local_files(f"Writing {path}"):
        written.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), "utf-8")
        written.replace(path)


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
