"""Pruning, made of AWS and of the disks of this host."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from daylily_daemon.adapters.host import StateDir
from daylily_daemon.adapters.remaining import HostFolders
from daylily_daemon.adapters.runresults import S3Results
from daylily_daemon.application.pruning import Pruning
from daylily_daemon.bootstrap import open_clients
from daylily_daemon.composition.backend import backend_of
from daylily_daemon.runners import machine_of
from daylily_daemon.settings.model import Settings


@asynccontextmanager
async def open_pruning(settings: Settings, older_s: float) -> AsyncIterator[Pruning]:
    """Yield what looks at, and removes, folders of runs that are complete for ``older_s`` seconds."""
    async with open_clients(settings) as clients:
        yield Pruning(
            backend=backend_of(clients),
            folders=folders_of(settings),
            results=S3Results(await clients.aws.client("s3")),
            older_s=older_s,
        )


def folders_of(settings: Settings) -> HostFolders:
    return HostFolders(
        data_dir=str(settings.daemon.data_dir),
        jobs_dir=StateDir(settings.daemon.state_dir).jobs,
        machine=machine_of(settings),
        installation=settings.tables.worksets,
    )
