"""Somebody waits for a time to come or for others to call, whichever is first."""

from __future__ import annotations

from anyio import Event, current_time, move_on_after


class Wakeup:
    """For one who waits. A call that comes while nobody waits ends the next wait."""

    def __init__(self) -> None:
        self._called = Event()

    def call(self) -> None:
        self._called.set()

    async def wait(self, until: float) -> None:
        """Return at ``until``, on the loop's clock, or when called."""
        with move_on_after(max(0.0, until - current_time())):
            await self._called.wait()
        self._called = Event()
