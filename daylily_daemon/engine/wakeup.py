"""Somebody waits for a time to come or for others to call, whichever is first."""

from __future__ import annotations

import math

from anyio import CancelScope, Event


class Wakeup:
    """For one who waits. A call that comes while nobody waits ends the next wait."""

    def __init__(self) -> None:
        self._called = Event()

    def call(self) -> None:
        self._called.set()

    async def wait(self, until: float = math.inf) -> None:
        """Return at ``until``, on the loop's clock, or when called."""
        with CancelScope(deadline=until):
            await self._called.wait()
        self._called = Event()
