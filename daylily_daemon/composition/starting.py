"""The start of the daemon: what it needs is waited for, and said.

A disk that is full, a mount that is broken, an AWS that does not answer or does not let us, a table that
nobody has made yet: all of that is fixed by somebody while the daemon waits, and none of it is a reason
to end. What no waiting fixes ends it: settings that make no sense, another daemon on the same state
directory.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar

import anyio
import structlog
from anyio import current_time

from daylily_daemon.adapters.aws import OnCall
from daylily_daemon.adapters.blocking import LIMIT_S, Disk
from daylily_daemon.adapters.host import StateDir
from daylily_daemon.bootstrap import (
    Clients,
    Daemon,
    Hooks,
    daemon_name,
    open_clients,
    open_daemon,
)
from daylily_daemon.domain.errors import DaemonError, Permanent
from daylily_daemon.domain.turn import Queue
from daylily_daemon.engine.boundary import foreign_as_unexpected
from daylily_daemon.engine.live_settings import EngineSettings
from daylily_daemon.in_force import engine_settings_of
from daylily_daemon.runners import machine_of, runners_of
from daylily_daemon.settings.model import Settings
from daylily_daemon.settings.sources import BadSettings, Loaded, Sources, digests, load

T = TypeVar("T")
log = structlog.get_logger()

FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 30.0
REPEATED_S: Final = 600.0
"""How often a trouble that stays is logged again."""


@dataclass(slots=True)
class StartPatience:
    """Tries a thing until it works. A trouble is logged once, and again if it stays."""

    tell: Callable[[str], None]
    """Called with the trouble as a sentence, before each pause."""
    again: anyio.Event = field(default_factory=anyio.Event)
    """Set it to end a pause at once."""
    _said: str = ""
    _said_at: float = 0.0

    async def until_done(
        self, what: str, work: Callable[[], Awaitable[T]], ends: tuple[type[DaemonError], ...] = ()
    ) -> T:
        """Return what ``work`` returns, once it does. Raises only what is one of ``ends``."""
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                with foreign_as_unexpected(what):
                    return await work()
            except ends:
                raise
            except DaemonError as exc:
                self._trouble(what, str(exc))
            with anyio.move_on_after(pause_s):
                await self.again.wait()
            self.again = anyio.Event()
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _trouble(self, what: str, text: str) -> None:
        if text != self._said or current_time() - self._said_at >= REPEATED_S:
            self._said, self._said_at = text, current_time()
            log.warning("start_waits", what=what, error=text)
        self.tell(text)


@dataclass(frozen=True, slots=True)
class Read:
    """The settings, and what the daemon takes from them and from the files they name."""

    loaded: Loaded
    engine_settings: EngineSettings
    digests: Mapping[str, str]
    """As ``Status.settings``."""

    @property
    def settings(self) -> Settings:
        return self.loaded.settings


class Reader:
    """Reads everything that a reload reads, in a thread: its disk may stall, too."""

    def __init__(self, where: Sources, *, limit_s: float = LIMIT_S) -> None:
        self._where = where
        self._disk = Disk("folder of the settings", limit_s=limit_s, hanging=2)

    async def read(self) -> Read:
        """Raises BadSettings, Permanent for a pipeline file, and Transient if a file does not come."""
        return await self._disk.run(self._read)

    def _read(self) -> Read:
        found = load(self._where)
        return Read(found, engine_settings_of(found.settings), digests(found.settings))


async def first_settings(reader: Reader, patience: StartPatience) -> Read:
    """Raises BadSettings and Permanent: what makes no sense is for people, at once."""
    return await patience.until_done("the settings", reader.read, (BadSettings, Permanent))


@asynccontextmanager
async def locked_state(read: Callable[[], Read], patience: StartPatience) -> AsyncIterator[str]:
    """Hold the state directory once it can be had, and yield the owner id that belongs to it.

    What ``read`` returns may change as long as it waits. Raises Permanent if another daemon has it.
    """
    take = partial(_lock, read, Disk("state directory"))
    held, owner = await patience.until_done("the state directory", take, (Permanent,))
    with held:
        yield owner


async def _lock(read: Callable[[], Read], disk: Disk) -> tuple[ExitStack, str]:
    while True:
        taken = read()
        held, owner = await disk.run(partial(_lock_now, taken.settings))
        if read() is taken:
            return held, owner
        held.close()  # a reload came meanwhile


def _lock_now(settings: Settings) -> tuple[ExitStack, str]:
    state, held = StateDir(settings.daemon.state_dir), ExitStack()
    owner = held.enter_context(state.locked(daemon_name(settings), machine_of(settings)))
    return held, owner


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """What a daemon is opened with, beside its settings."""

    environ: Mapping[str, str]
    owner: str
    hooks: Hooks
    on_call: OnCall
    runners: Disk = field(
        default_factory=partial(
            Disk, "state directory, or the directory of users behind it,", hanging=1
        )
    )
    """Where runners are made, for all tries: one that hangs must not go on beside another."""


@asynccontextmanager
async def opened(
    read: Callable[[], Read], wiring: Wiring, patience: StartPatience
) -> AsyncIterator[Daemon]:
    """Open the daemon once AWS answers and has all its parts. Raises nothing of its own.

    What ``read`` returns may change as long as it waits: each try takes what there is.
    """
    stack, daemon = await patience.until_done("AWS", partial(_open, read, wiring))
    async with stack:
        yield daemon


async def _open(read: Callable[[], Read], wiring: Wiring) -> tuple[AsyncExitStack, Daemon]:
    async with AsyncExitStack() as stack:
        while True:
            taken = read()
            clients = await stack.enter_async_context(open_clients(taken.settings, wiring.on_call))
            await _look_at_tables(clients)
            make = partial(runners_of, taken.settings, wiring.environ)
            runners = await wiring.runners.run(make)
            opening = open_daemon(
                clients, taken.engine_settings, runners, wiring.owner, wiring.hooks
            )
            daemon = await stack.enter_async_context(opening)
            if read() is taken:
                return stack.pop_all(), daemon
            await stack.aclose()  # a reload came meanwhile


async def _look_at_tables(clients: Clients) -> None:
    """Raises what is missing or refused, as a sentence."""
    await clients.turns.line_up(Queue.WAITING, limit=1)
    await clients.trail.owed(limit=1)
