"""What a daemon says of itself where every host can read it, and what is asked of it there.

Once a minute it measures what nobody tells it (queues, disks, what channels are owed), judges itself, and
signs the registry; at once when it finds another problem than before. The same call brings back whether
somebody wants it drained. A registry that does not answer keeps nothing from running.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import structlog
from anyio import current_time, move_on_after

from daylily_daemon.domain.daemon import DiskLevel, Drain, Owed, QueueLevel, Status
from daylily_daemon.domain.errors import DaemonError
from daylily_daemon.domain.problems import why_drained
from daylily_daemon.engine.live_settings import LiveSettings
from daylily_daemon.engine.wakeup import Wakeup
from daylily_daemon.ports import Clock, Levels, Registry

SIGN_S: Final = 60.0
"""Between two entries at most, where nothing changes."""
SWEEPS: Final = 4
"""Between two entries, where they are fewer seconds than ``SIGN_S``."""
SOONEST_S: Final = 2.0
"""Between two entries, whatever changes."""
LIMIT_S: Final = 10.0
"""Longest wait for the registry, the queues or the disks."""
log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What was measured last."""

    queues: Mapping[str, QueueLevel] = field(default_factory=dict)
    disks: Mapping[str, DiskLevel] = field(default_factory=dict)
    channels: Mapping[str, Owed] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Registration:
    owner: str
    registry: Registry
    clock: Clock
    live: LiveSettings
    levels: Levels
    disks: Callable[[], Awaitable[Mapping[str, DiskLevel]]]
    owed: Callable[[], Mapping[str, Owed]]
    measured: Measured = Measured()
    drain: Drain | None = None
    on_drain: Callable[[Drain | None], None] | None = None
    """Called when that changes: it is kept on this host too. None where nobody keeps it."""
    _wakeup: Wakeup = field(default_factory=Wakeup)

    async def run(self, says: Callable[[], Status]) -> None:
        """Measure and sign for ever, with what ``says`` returns."""
        while True:
            await self.measure()
            await self.sign(says())
            began = current_time()
            await self._wakeup.wait(began + min(SIGN_S, SWEEPS * self.live.current.sweep_s))
            if (early := began + SOONEST_S - current_time()) > 0:
                await Wakeup().wait(current_time() + early)

    def changed(self) -> None:
        """Sign soon: there is another verdict."""
        self._wakeup.call()

    async def measure(self) -> None:
        """Measure what can be; what does not answer stays as it was."""
        queues, disks = self.measured.queues, self.measured.disks
        with move_on_after(LIMIT_S):
            disks = await self.disks()
        try:
            with move_on_after(LIMIT_S):
                queues = await self.levels.levels()
        except DaemonError as exc:
            log.debug("levels_unknown", error=str(exc))
        self.measured = Measured(queues=queues, disks=disks, channels=self.owed())

    async def sign(self, status: Status) -> None:
        """Write the row of this daemon; learn whether it is drained."""
        try:
            with move_on_after(LIMIT_S):
                self._take(await self.registry.sign(self.owner, status, self.clock.now()))
        except DaemonError as exc:
            log.debug("not_signed", error=str(exc))

    async def drained(self) -> str:
        """Return why nothing new may be started, as a sentence; empty if it may.

        Asks each time: whoever drains a daemon is told that nothing starts from then on.
        """
        try:
            with move_on_after(LIMIT_S):
                self._take(await self.registry.drained(self.owner))
        except DaemonError as exc:
            log.debug("drain_unknown", error=str(exc))
        return "" if self.drain is None else why_drained(self.drain)

    def _take(self, drain: Drain | None) -> None:
        if drain == self.drain:
            return
        self.drain = drain
        log.info("drained" if drain else "resumed", by=drain.by if drain else "")
        if self.on_drain is not None:
            self.on_drain(drain)
