"""An asyncio loop whose clock jumps to the next timer as soon as nothing can run."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any


class Stuck(AssertionError):
    """Nothing can run and no timer is set: the story would wait for ever."""


class _Selector(selectors.SelectSelector):
    """Nothing in a story comes through a descriptor: the system is asked only when time stands still."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[tuple[Any, int]]:
        if timeout == 0:
            return []
        if timeout is None:
            if ready := super().select(0):
                return ready
            raise Stuck(f"at {self.loop.time():.3f} s")
        self.loop.now += max(timeout, 1e-9)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.now = 0.0
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now


BACKEND: dict[str, Any] = {"loop_factory": VirtualLoop}
"""For ``anyio.run(..., backend_options=BACKEND)``."""
