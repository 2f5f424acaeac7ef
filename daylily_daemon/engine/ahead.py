"""Reads a queue ahead of those who work it off, and hands them its newest and its oldest messages in turn.

In a flood the drop that matters may lie behind thousands, and nobody knows which it is before its recipe is
read. So the messages behind are fetched as soon as there are hands for those in front: nobody waits for ever,
and one that comes last is not the last to be looked at. What shares a workset keeps its order all the same:
of one group a FIFO queue gives out nothing while something of it is in flight.

What waits here is hidden from others. So a queue is read ahead only while its messages find their answers.
With trouble of ours that lasts, and at the end, all that waits is given back; not earlier, because SQS counts
every receive.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import structlog
from anyio import (
    CancelScope,
    Event,
    create_task_group,
    current_time,
    get_cancelled_exc_class,
    sleep,
)
from anyio.lowlevel import checkpoint

from daylily_daemon.domain.errors import DaemonError
from daylily_daemon.engine.boundary import for_ever, foreign_as_unexpected
from daylily_daemon.engine.flood import Flood
from daylily_daemon.ports import Delivery, Mailbox

log = structlog.get_logger()

HANDS: Final = 4
"""Batches of one queue that are in hand at once: trouble of a few messages does not keep the others."""
AHEAD: Final = 200
"""Batches of one queue that are in hand or wait for it: about as many worksets as a backlog remembers."""
READERS: Final = 4
"""Receives of one queue at once, while more is there than there are hands; one else."""
HIDDEN_S: Final = 120
"""How long messages stay hidden after a try, or while they wait; longer than a pause and a try together."""
KEPT_AFTER_S: Final = 8.0
"""What has waited for so long is hidden anew; shorter than any queue hides what it gave out."""
_LOOK_S: Final = 1.0


@dataclass(slots=True, eq=False)
class Hand:
    """Messages in hand, or waiting for one, and where they came from."""

    ahead: Ahead
    deliveries: Sequence[Delivery]
    keep_at: float
    """When they are to be hidden anew if they still wait, on the loop's clock."""

    async def hide(self, hidden_s: int) -> None:
        """Hide the messages for so long from now on; nobody else takes them meanwhile."""
        try:
            with foreign_as_unexpected("keeping messages"):
                await self.ahead.mailbox.keep(self.deliveries, hidden_s)
        except DaemonError as exc:
            log.info("messages_not_kept", error=str(exc))

    async def give_back(self) -> None:
        """Let whoever comes next have them at once; takes a second at most."""
        with CancelScope(shield=True, deadline=current_time() + 1.0):
            await self.hide(0)


Take = Callable[[Hand], Awaitable[None]]


@dataclass(slots=True, eq=False)
class Ahead:
    """The messages of one queue between its reading and their hands."""

    mailbox: Mailbox
    flood: Flood
    _waiting: deque[Hand] = field(default_factory=deque)
    _busy: int = 0
    _goes_well: bool = False
    """Whether what was taken last found its answers."""
    _newest: bool = False
    _changed: Event = field(default_factory=Event)

    async def listen(self, what: str, take: Take, pause_s: float) -> None:
        """Receive until cancelled, and ``take`` up to ``HANDS`` batches at the same time."""
        async with create_task_group() as tg:
            tg.start_soon(self._keep)
            for _ in range(HANDS):
                tg.start_soon(for_ever, what, partial(self._work, take), pause_s)
            for at_least in (0, *[HANDS + 1] * (READERS - 1)):
                tg.start_soon(for_ever, what, partial(self._read, at_least), pause_s)

    async def _read(self, at_least: int) -> None:
        """Receive one batch once there is room for it, and ``at_least`` so many are in hand or wait."""
        while not at_least <= self._busy + len(self._waiting) < self._room:
            await self._changed.wait()
        if deliveries := await self.mailbox.receive():
            self._waiting.append(Hand(self, deliveries, current_time() + KEPT_AFTER_S))
            self.flood.rise()
            self._change()

    @property
    def _room(self) -> int:
        return AHEAD if self._goes_well else HANDS

    async def _work(self, take: Take) -> None:
        await checkpoint()
        while not self._waiting:
            await self._changed.wait()
        self._newest = not self._newest
        hand = self._waiting.pop() if self._newest else self._waiting.popleft()
        self.flood.fall()
        self._busy += 1
        try:
            await take(hand)
            self._goes_well = True
        finally:
            self._busy -= 1
            self._change()

    def _change(self) -> None:
        self._changed.set()
        self._changed = Event()

    async def _keep(self) -> None:
        """Keep what waits hidden; at the end give it back."""
        try:
            while True:
                await (sleep(_LOOK_S) if self._waiting else self._changed.wait())
                await self._hide_due()
        except get_cancelled_exc_class():
            await self.give_back()
            raise

    async def _hide_due(self) -> None:
        now = current_time()
        async with create_task_group() as tg:
            for hand in [hand for hand in self._waiting if hand.keep_at <= now]:
                hand.keep_at = now + HIDDEN_S / 2
                tg.start_soon(hand.hide, HIDDEN_S)

    def hold(self) -> None:
        """Read no further ahead until something finds its answer again."""
        self._goes_well = False

    async def give_back(self) -> None:
        """Let others have what waits; takes a second at most."""
        left = [self._waiting.popleft() for _ in range(len(self._waiting))]
        with CancelScope(shield=True):
            async with create_task_group() as tg:
                for hand in left:
                    self.flood.fall()
                    tg.start_soon(hand.give_back)
