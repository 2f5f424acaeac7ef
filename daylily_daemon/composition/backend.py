"""The backend of the application, made of AWS and of this host."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

from anyio import to_thread

from daylily_daemon.adapters.host import RandomIds, StateDir, SystemClock
from daylily_daemon.adapters.localdrop import files_to_submit
from daylily_daemon.adapters.provision import dead_letter_name, find_queue
from daylily_daemon.adapters.transfer.uploads import upload, upload_files
from daylily_daemon.adapters.vitals import sighting
from daylily_daemon.application.backend import Backend
from daylily_daemon.bootstrap import Tools, limits_of, open_tools
from daylily_daemon.domain.errors import Permanent
from daylily_daemon.domain.model import Command, WorksetId
from daylily_daemon.ports import GivenUp, Unanswered
from daylily_daemon.settings.model import Settings


@asynccontextmanager
async def open_backend(settings: Settings) -> AsyncIterator[Backend]:
    async with open_tools(settings) as tools:
        yield backend_of(tools)


def backend_of(tools: Tools) -> Backend:
    settings = tools.settings
    return Backend(
        worksets=tools.worksets,
        turns=tools.turns,
        catalogue=tools.catalogue,
        trail=tools.trail,
        queues=SqsQueues(tools),
        clock=SystemClock(),
        ids=RandomIds(),
        sighting=partial(sighting, StateDir(settings.daemon.state_dir)),
        limits=limits_of(settings),
        bucket=settings.control.bucket,
        prefix=settings.control.prefix,
    )


@dataclass(frozen=True, slots=True)
class SqsQueues:
    tools: Tools

    async def send(self, command: Command) -> None:
        await (await self.tools.commands()).send([command])

    async def unanswered(self) -> Unanswered:
        queues = self.tools.settings.queues
        commands = await self.tools.unanswered(queues.commands)
        return Unanswered(commands=commands, events=await self.tools.unanswered(queues.intake))

    async def depths(self) -> Mapping[str, int]:
        queues = self.tools.settings.queues
        names = [q for n in (queues.intake, queues.commands) for q in (n, dead_letter_name(n))]
        return {name: await self._depth(name) for name in names}

    async def _depth(self, name: str) -> int:
        url = await find_queue(await self.tools.aws.client("sqs"), name)
        if url is None:
            raise Permanent(f"The queue {name} does not exist. Run `daylily-daemon init` first.")
        return await self.tools.queue_depth(url)


@asynccontextmanager
async def open_given_up(settings: Settings) -> AsyncIterator[GivenUp]:
    """Yield the messages that were given up by either queue."""
    async with open_tools(settings) as tools:
        yield await tools.dead_letters()


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
    async with open_tools(settings) as tools:
        yield backend_of(tools), Uploader(tools)


@dataclass(frozen=True, slots=True)
class Uploader:
    tools: Tools

    async def upload(self, folder: Path, id: WorksetId, watching: Watching, uri: str) -> None:
        """Upload what of ``folder`` belongs to the workset. Raises Permanent for a problem in it."""
        drop = await to_thread.run_sync(files_to_submit, folder, id)
        for absent in drop.absent:
            watching.absent(absent)
        client = await self.tools.aws.client("s3")
        await upload_files(client, drop.files, uri, progress=watching.progress)


async def upload_whole(tools: Tools, folder: Path, uri: str) -> datetime:
    """Upload every file of a folder; return when that was done."""
    await upload(await tools.aws.client("s3"), folder, uri)
    return SystemClock().now()
