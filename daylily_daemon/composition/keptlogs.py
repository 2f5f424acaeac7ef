"""Logs of jobs whose folders are on no disk any more: `prune` has kept them beside the results in S3."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from daylily_daemon.adapters.runners.logs import last_lines
from daylily_daemon.adapters.s3 import S3Objects
from daylily_daemon.adapters.transfer import split_uri
from daylily_daemon.bootstrap import open_clients
from daylily_daemon.domain.prune import logs_uri
from daylily_daemon.domain.run import Run
from daylily_daemon.settings.model import Settings

MOST_BYTES: Final = 64 * 1024 * 1024
"""Of a log that are read; a shim keeps no larger one by default."""


async def kept_log(settings: Settings, run: Run, step: str, lines: int) -> bytes | None:
    """Return the end of the log of the job that ran last, or of ``step``; None where none is kept.

    Raises Transient, Denied and Permanent.
    """
    if not run.results_uri:
        return None
    async with open_clients(settings) as clients:
        objects = S3Objects(await clients.aws.client("s3"))
        bucket, prefix = split_uri(logs_uri(run))
        jobs = {info.key.removeprefix(prefix) for info in await objects.list(bucket, prefix)}
        name = latest_log(jobs, run, step)
        if name is None:
            return None
        pieces = [f"{name}.1", name] if f"{name}.1" in jobs else [name]  # the older one first
        found = [await objects.read(bucket, f"{prefix}{piece}", MOST_BYTES) for piece in pieces]
    return last_lines(b"".join(filter(None, found)), lines)


def latest_log(names: Iterable[str], run: Run, step: str) -> str | None:
    """Return the log of the latest step of the latest attempt; names are ``<attempt>-<step>/log``."""
    order = {known.name: n for n, known in enumerate(run.steps)}
    found: dict[tuple[int, int], str] = {}
    for name in names:
        job, _, file = name.partition("/")
        attempt, _, of = job.partition("-")
        if file == "log" and attempt.isascii() and attempt.isdigit() and step in ("", of):
            found[int(attempt), order.get(of, -1)] = name
    return found[max(found)] if found else None
