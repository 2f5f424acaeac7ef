"""Whether more comes in than is worked off at once. Meanwhile what can wait gives way, but not for long."""

from __future__ import annotations

from anyio import CancelScope, Event


class Flood:
    """Counts batches of messages that were received and wait for a hand."""

    def __init__(self) -> None:
        self._waiting = 0
        self._over = Event()

    def rise(self) -> None:
        """A batch waits."""
        self._waiting += 1

    def fall(self) -> None:
        """A batch waits no longer."""
        self._waiting -= 1
        if not self._waiting:
            self._over.set()
            self._over = Event()

    async def give_way(self, until: float) -> None:
        """Return once nothing waits, and at ``until``, on the loop's clock, at the latest."""
        with CancelScope(deadline=until):
            while self._waiting:
                await self._over.wait()
