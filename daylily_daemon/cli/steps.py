"""The commands that pipelines are made of; each is also of use by hand."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from daylily_daemon.cli import later, printing
from daylily_daemon.cli.options import reporting, run_async
from daylily_daemon.domain.places import Shared

JobsOption = Annotated[int, typer.Option("--jobs", min=1, max=64, help="Connections at once.")]


def stage(
    input_uri: Annotated[str, typer.Argument(metavar="INPUT_URI", help="s3://bucket/prefix/.")],
    dest: Annotated[Path, typer.Argument(metavar="DEST", help="Folder to stage into.")],
    jobs: JobsOption = 16,
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
    run_async(partial(later.steps.stage, input_uri, dest.absolute(), pin, jobs, printing.say_whole))


def export(
    source_dir: Annotated[Path, typer.Argument(metavar="SOURCE_DIR", help="Folder of results.")],
    s3_uri: Annotated[str, typer.Argument(metavar="S3_URI", help="s3://bucket/prefix/.")],
    jobs: JobsOption = 16,
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
    wanted = later.steps.Export(
        source=source_dir.absolute(),
        uri=s3_uri,
        within=tuple(within or ()),
        workset_uri=workset,
        shared=shared,
        report=report,
    )
    run_async(partial(later.steps.export, wanted, jobs, printing.say_whole))


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

    with reporting():
        later.steps.report_fastq(sheet, dest, partial(time.sleep, pace), printing.say_whole)


def collect_metrics(
    results: Annotated[Path, typer.Argument(metavar="WORK_DIR", help="Folder of results.")],
    output: Annotated[Path, typer.Option("--output", metavar="FILE", help="JSON to write.")],
) -> None:
    """Count files and bytes of the results, and samples, reads and bases where summary.tsv has them.

    Example: daylily-daemon collect-metrics /fsx/work/x/results --output /fsx/work/x/metrics.json
    """
    with reporting():
        later.steps.write_metrics(results, output, printing.say_whole)
