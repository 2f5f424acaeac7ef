"""File-system calls that may never return.

A mount that stalls keeps a call for minutes or for ever, and no signal ends it. So each call has a thread to
itself, which nobody waits for longer than a limit: what is late counts as not answered. Threads that hang
are counted, and beyond a few nobody is sent after them; the others make the next calls. They are daemon
threads, so that the process can end while they hang (a worker thread of anyio would be waited for).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Final, TypeVar

import anyio

from daylily_daemon.domain.errors import Transient

LIMIT_S: Final = 20.0
HANGING: Final = 16
"""Calls left hanging at once; a disk that keeps so many keeps the next one too."""
AT_ONCE: Final = 16
KEPT: Final = 4
"""Threads that wait for the next call."""

T = TypeVar("T")


class _Call:
    """One call in its thread. ``settle`` tells, once and for both sides, which of them was first."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._work = work
        self._lock = threading.Lock()
        self._settled_by = ""
        self.value: object = None
        self.error: BaseException | None = None

    def settle(self, side: str) -> bool:
        """Return whether ``side`` came first: ``done``, or ``left`` by who waited."""
        with self._lock:
            if self._settled_by:
                return False
            self._settled_by = side
            return True

    def run(self) -> None:
        try:
            self.value = self._work()
        except BaseException as exc:  # noqa: BLE001 - carried over to who waits for it
            self.error = exc


class _Worker(threading.Thread):
    """Makes one call after another; starting a thread for each costs more than most calls."""

    def __init__(self, name: str) -> None:
        super().__init__(daemon=True, name=name)
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self.start()

    def give(self, call: Callable[[], None] | None) -> None:
        """Make this call next; None ends the thread."""
        self._calls.put(call)

    def run(self) -> None:
        while (call := self._calls.get()) is not None:
            call()


class Disk:
    """Makes blocking calls about one kind of folder, named ``what`` for people; ``on`` is what it is on.

    Calls that hang are in the way of others of the same object alone.
    """

    def __init__(
        self,
        what: str,
        *,
        on: str = "disk of the ",
        limit_s: float = LIMIT_S,
        hanging: int = HANGING,
    ) -> None:
        self._what = f"{on}{what}"
        self._limit_s = limit_s
        self._most_hanging = hanging
        self._hanging = 0
        self._limiter = anyio.CapacityLimiter(AT_ONCE)
        self._idle: list[_Worker] = []

    @property
    def hanging(self) -> int:
        """How many calls nobody waits for any more have not returned yet."""
        return self._hanging

    async def run(self, work: Callable[[], T]) -> T:
        """Return what ``work`` returns. Raises what it raises, and Transient where that takes too long.

        Cancelling it leaves the call to itself.
        """
        if self._hanging >= self._most_hanging:
            raise Transient(self._sentence(f"{self._hanging} calls hang there already"))
        try:
            with anyio.fail_after(self._limit_s):
                async with self._limiter:
                    return await self._in_thread(work)
        except TimeoutError as exc:
            raise Transient(self._sentence(f"no answer within {self._limit_s:g} seconds")) from exc

    async def _in_thread(self, work: Callable[[], T]) -> T:
        call, done, loop = _Call(work), anyio.Event(), asyncio.get_running_loop()
        worker = self._idle.pop() if self._idle else _Worker(self._what)

        def back(*, hung: bool) -> None:
            self._hanging -= hung
            self._keep(worker)
            done.set()

        def body() -> None:
            call.run()
            hung = not call.settle("done")
            with suppress(RuntimeError):  # the loop has ended: nobody is there to be told
                loop.call_soon_threadsafe(partial(back, hung=hung))

        worker.give(body)
        try:
            await done.wait()
        finally:
            if call.settle("left"):
                self._hanging += 1
        if call.error is not None:
            raise call.error
        return call.value  # type: ignore[return-value]

    def _keep(self, worker: _Worker) -> None:
        if len(self._idle) < KEPT:
            self._idle.append(worker)
        else:
            worker.give(None)

    def _sentence(self, why: str) -> str:
        return (
            f"The {self._what} does not answer ({why}). Is its mount stalled? It is asked again, "
            "and nothing is concluded from it."
        )
