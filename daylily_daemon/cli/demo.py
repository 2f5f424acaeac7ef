"""``demo``: a real workset from an S3 drop to exported results, on this machine alone."""

from __future__ import annotations

from typing import Annotated

import typer

from daylily_daemon.cli import later
from daylily_daemon.cli.options import reporting


def demo(
    worksets: Annotated[int, typer.Option("--worksets", min=1, max=50, help="How many.")] = 1,
    fail: Annotated[bool, typer.Option("--fail", help="Add one whose FASTQ is missing.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running.")] = False,
) -> None:
    """Run sample worksets from drop to results on an emulated AWS, and show every step.

    Example: daylily-daemon demo --worksets 4 --fail
    """
    with reporting():
        raise typer.Exit(later.demonstration.play(worksets, fail=fail, keep=keep))
