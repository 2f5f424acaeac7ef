"""The backend of the application, made of AWS and of this host."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path

from anyio import to_thread

from daylily_daemon.adapters.host import RandomIds, StateDir, SystemClock
from daylily_daemon.adapters.levels import level_of
from daylily_daemon.adapters.localdrop import files_to_submit
from daylily_daemon.adapters.processes import activities
from daylily_daemon.adapters.provision import dead_letter_name, find_queue
from daylily_daemon.adapters.transfer.copying import OnProgress, split_uri
from daylily_daemon.adapters.transfer.uploads import upload, upload_files
from daylily_daemon.adapters.transfer.within_s3 import copy_drop, drop_at
from daylily_daemon.adapters.vitals import sighting
from daylily_daemon.application.backend import Backend
from daylily_daemon.bootstrap import Clients, open_clients
from daylily_daemon.domain.daemon import QueueLevel
from daylily_daemon.domain.errors import Permanent
from daylily_daemon.domain.model import Command, WorksetId
from daylily_daemon.domain.sheet import S3Place
from daylily_daemon.domain.workset import Request
from daylily_daemon.in_force import limits_of
from daylily_daemon.ports import GivenUp, Unanswered
from daylily_daemon.settings.model import Settings


@asynccontextmanager
async def open_backend(settings: Settings) -> AsyncIterator[Backend]:
    async with open_clients(settings) as clients:
        yield backend_of(clients)


def backend_of(clients: Clients) -> Backend:
    settings = clients.settings
    return Backend(
        worksets=clients.worksets,
        turns=clients.turns,
        catalogue=clients.catalogue,
        trail=clients.trail,
        queues=SqsQueues(clients),
        registry=clients.registry,
        clock=SystemClock(),
        ids=RandomIds(),
        sighting=partial(sighting, StateDir(settings.daemon.state_dir)),
        activities=activities,
        limits=limits_of(settings),
        bucket=settings.control.bucket,
        prefix=settings.control.prefix,
    )


@dataclass(frozen=True, slots=True)
class SqsQueues:
    clients: Clients

    async def send(self, command: Command) -> None:
        await (await self.clients.commands()).send([command])

    async def unanswered(self) -> Unanswered:
        queues = self.clients.settings.queues
        commands = await self.clients.unanswered(queues.commands)
        return Unanswered(commands=commands, events=await self.clients.unanswered(queues.intake))

    async def depths(self) -> Mapping[str, QueueLevel]:
        queues, found = self.clients.settings.queues, dict[str, QueueLevel]()
        for name in (queues.intake, queues.commands):
            dead = dead_letter_name(name)
            found[name] = await self._level(name)
            found[dead] = replace(await self._level(dead), is_dead_letters=True)
        return found

    async def _level(self, name: str) -> QueueLevel:
        sqs = await self.clients.aws.client("sqs")
        url = await find_queue(sqs, name)
        if url is None:
            raise Permanent(f"The queue {name} does not exist. Run `daylily-daemon init` first.")
        return await level_of(sqs, name, url)


@asynccontextmanager
async def open_given_up(settings: Settings) -> AsyncIterator[GivenUp]:
    """Yield the messages that were given up by either queue."""
    async with open_clients(settings) as clients:
        yield await clients.dead_letters()


@dataclass(frozen=True, slots=True, kw_only=True)
class Watching:
    """Who is told how an upload goes."""

    absent: Callable[[str], None]
    """Of what is named and not in the folder, a sentence each."""
    progress: Callable[[int, int], None]
    """Bytes done, and in all."""


@asynccontextmanager
async def open_uploading(settings: Settings) -> AsyncIterator[tuple[Backend, Uploader]]:
    """Yield a backend, and what uploads local folders to its bucket."""
    async with open_clients(settings) as clients:
        yield backend_of(clients), Uploader(clients)


@dataclass(frozen=True, slots=True)
class Uploader:
    clients: Clients

    async def upload(self, folder: Path, id: WorksetId, watching: Watching, uri: str) -> None:
        """Upload what of ``folder`` belongs to the workset. Raises Permanent for a problem in it."""
        drop = await to_thread.run_sync(files_to_submit, folder, id)
        for absent in drop.absent:
            watching.absent(absent)
        client = await self.clients.aws.client("s3")
        await upload_files(client, drop.files, uri, progress=watching.progress)


@asynccontextmanager
async def open_copying(settings: Settings) -> AsyncIterator[tuple[Backend, DropCopier]]:
    """Yield a backend, and what copies drops from one folder of S3 to another."""
    async with open_clients(settings) as clients:
        yield backend_of(clients), DropCopier(clients)


@dataclass(frozen=True, slots=True)
class DropCopier:
    clients: Clients

    async def copy(self, progress: OnProgress, source: Request, target_uri: str) -> None:
        """Copy the drop of a workset. Raises Permanent for a place that is taken, and Transient."""
        client = await self.clients.aws.client("s3")
        target = S3Place(*split_uri(target_uri))
        await copy_drop(client, _place_of(source), target, progress=progress)

    async def sizes(self, source: Request) -> tuple[int, ...]:
        """Return the size of each file of a drop, in bytes."""
        files = await drop_at(await self.clients.aws.client("s3"), _place_of(source))
        return tuple(info.size for info in files)


def _place_of(source: Request) -> S3Place:
    return S3Place(source.bucket, source.prefix)


async def upload_whole(clients: Clients, folder: Path, uri: str) -> datetime:
    """Upload every file of a folder; return when that was done."""
    await upload(await clients.aws.client("s3"), folder, uri)
    return SystemClock().now()
