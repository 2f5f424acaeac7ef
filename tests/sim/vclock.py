"""An asyncio loop whose clock jumps to the next timer as soon as nothing can run.

Nothing in a story comes through a descriptor or from another thread, so this loop asks the system nothing.
There are calls that can be made now, in their order, and a heap of what waits for its time. A good part of
what a simulated hour costs is paid here, so the loop is written for speed: no selector, no handles that
compare each other, no copy of a context for a callback that sets nothing in it, and a sleep is one future
in the heap. And while it runs, what anyio asks at every step (which library, which loop, which task?) has
one answer: the interpreter's own way to it makes a system call.
"""

from __future__ import annotations

import asyncio
import math
import sys
from asyncio import Future
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager
from contextvars import Context
from functools import partial
from heapq import heappop, heappush
from types import coroutine
from typing import Any

from anyio._backends import _asyncio as backend
from anyio._core import _eventloop as core

from tests.sim.planting import put


class Stuck(AssertionError):
    """Nothing can run and no timer is set: the story would wait for ever."""


class Call(list[Any]):
    """Stands in for ``asyncio.Handle``: callback, arguments, context. Made by C code, as a list is."""

    __slots__ = ()

    def cancel(self) -> None:
        self[0] = None

    def cancelled(self) -> bool:
        return self[0] is None


class VirtualLoop(asyncio.BaseEventLoop):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self._calls: deque[Call] = deque()
        self._timers: list[tuple[float, int, Call | Future[None]]] = []
        self._set = 0
        self.states: dict[Any, Any] = {}
        """What anyio knows of each task; it removes a task that is done."""

    def time(self) -> float:
        return self.now

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> Call:
        call = Call((callback, args, context))
        self._calls.append(call)
        return call

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> Call:
        call = Call((callback, args, context))
        if when < math.inf:
            self._set += 1
            heappush(self._timers, (when, self._set, call))
        return call

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> Call:
        return self.call_at(self.now + delay, callback, *args, context=context)

    def sleep(self, delay_s: float) -> Awaitable[None]:
        """Let other calls be made, and time pass where ``delay_s`` is more than nothing."""
        if delay_s <= 0:
            return _one_turn()
        sleeper: Future[None] = Future(loop=self)
        if delay_s < math.inf:
            self._set += 1
            heappush(self._timers, (self.now + delay_s, self._set, sleeper))
        return sleeper

    def run_forever(self) -> None:
        with _known_to_anyio(self):
            super().run_forever()

    def _run_once(self) -> None:
        """Make calls until told to stop; where there are none, go to the time of the next."""
        calls = self._calls
        popleft = calls.popleft
        try:
            while not self._stopping:  # type: ignore[attr-defined]
                if not calls:
                    self._go_on()
                for _ in range(len(calls)):
                    callback, args, context = popleft()
                    if context is not None and callback is not None:
                        context.run(callback, *args)
                    elif callback is not None:
                        callback(*args)
        except (Stuck, SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:  # noqa: BLE001 - as asyncio.Handle does
            self.call_exception_handler({"message": "a callback failed", "exception": exc})

    def _go_on(self) -> None:
        """Let time pass until the next timer, and do what is set for that moment."""
        timers, due = self._timers, False
        while timers and not (due and timers[0][0] > self.now):
            when, _, what = heappop(timers)
            if type(what) is Call:
                if what[0] is None:
                    continue
                self._calls.append(what)
            elif what.done():  # type: ignore[union-attr]
                continue
            else:
                what.set_result(None)  # type: ignore[union-attr]
            due = True
            self.now = max(self.now, when)
        if not due:
            raise Stuck(f"at {self.now:.3f} s")


@coroutine
def _one_turn() -> Generator[None]:
    yield


_current_task: Callable[[VirtualLoop], Any] = asyncio.current_task
if sys.version_info < (3, 12):  # where it is a function of Python around this look into a dict
    _current_task = asyncio.tasks._current_tasks.get  # type: ignore[attr-defined]


def running() -> VirtualLoop:
    """Return the loop of the story that is being played."""
    loop = asyncio.get_running_loop()
    if not isinstance(loop, VirtualLoop):
        raise TypeError("only a story on a virtual clock has such a loop")
    return loop


@contextmanager
def _known_to_anyio(loop: VirtualLoop) -> Iterator[None]:
    """Let anyio know of ``loop`` without asking the interpreter; what it does with it stays its own."""
    known = type(
        "Known", (backend.AsyncIOBackend,), {"current_time": loop.time, "sleep": loop.sleep}
    )
    with put(
        (core, "current_async_library", lambda: "asyncio"),
        (core, "get_async_backend", lambda _=None: known),
        (backend, "get_running_loop", lambda: loop),
        (backend, "current_task", partial(_current_task, loop)),
        (backend, "_task_states", loop.states),
        (backend, "sleep", loop.sleep),
    ):
        yield


BACKEND: dict[str, Any] = {"loop_factory": VirtualLoop}
"""For ``anyio.run(..., backend_options=BACKEND)``."""
