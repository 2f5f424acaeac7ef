"""The loop that stories are played on keeps what asyncio and anyio promise, and its time passes by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio._backends import _asyncio as backend
from anyio._core import _eventloop as core

from tests.sim.vclock import BACKEND, Stuck, VirtualLoop, running

HOUR_S = 3600.0


def play(story: Callable[[], Awaitable[Any]]) -> Any:
    return anyio.run(story, backend_options=BACKEND)


def test_hours_pass_at_once_and_exactly() -> None:
    async def story() -> float:
        await anyio.sleep(HOUR_S)
        return anyio.current_time()

    assert play(story) == HOUR_S


def test_sleepers_wake_in_the_order_of_their_times_and_then_of_their_coming() -> None:
    woken: list[str] = []

    async def sleeper(name: str, delay_s: float) -> None:
        await anyio.sleep(delay_s)
        woken.append(name)

    async def story() -> None:
        async with anyio.create_task_group() as tg:
            for name, delay_s in (("late", 3.0), ("a", 1.0), ("b", 1.0), ("now", 0.0)):
                tg.start_soon(sleeper, name, delay_s)

    play(story)
    assert woken == ["now", "a", "b", "late"]


def test_a_sleep_of_nothing_lets_others_run_and_no_time_pass() -> None:
    async def story() -> float:
        ran: list[bool] = []
        asyncio.get_running_loop().call_soon(ran.append, True)
        await anyio.lowlevel.checkpoint()
        assert ran
        return anyio.current_time()

    assert play(story) == 0.0


def test_a_deadline_ends_a_sleep_at_its_time_and_the_sleep_is_forgotten() -> None:
    async def story() -> list[float]:
        with anyio.move_on_after(5.0) as scope:
            await anyio.sleep(HOUR_S)
        ended = [anyio.current_time()]
        assert scope.cancelled_caught
        with pytest.raises(TimeoutError), anyio.fail_after(2.0):
            await anyio.sleep_forever()
        return [*ended, anyio.current_time()]

    assert play(story) == [5.0, 7.0]


def test_a_timer_that_was_cancelled_takes_no_time() -> None:
    async def story() -> float:
        loop = asyncio.get_running_loop()
        loop.call_later(1.0, loop.stop).cancel()
        await anyio.sleep(2.0)
        return anyio.current_time()

    assert play(story) == 2.0


@pytest.mark.parametrize("wait", [anyio.sleep_forever, lambda: anyio.Event().wait()])
def test_a_story_that_would_wait_for_ever_is_stuck(wait: Callable[[], Awaitable[None]]) -> None:
    async def story() -> None:
        await anyio.sleep(1.5)
        await wait()

    with pytest.raises(Stuck, match=r"at 1\.500 s"):
        play(story)


def test_a_callback_that_fails_is_reported_and_stops_nothing() -> None:
    told: list[BaseException] = []

    def fail() -> None:
        raise ValueError("boom")

    async def story() -> float:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
        loop.call_soon(fail)
        loop.call_later(1.0, fail)
        await anyio.sleep(2.0)
        return anyio.current_time()

    assert play(story) == 2.0
    assert [str(error) for error in told] == ["boom", "boom"]


def test_anyio_is_as_it_was_once_a_story_is_over() -> None:
    names = [
        *((core, name) for name in ("current_async_library", "get_async_backend")),
        *((backend, name) for name in ("get_running_loop", "current_task", "sleep")),
    ]
    before = [getattr(owner, name) for owner, name in names]

    async def story() -> bool:
        return isinstance(running(), VirtualLoop)

    assert play(story)
    assert [getattr(owner, name) for owner, name in names] == before


def test_another_loop_is_not_taken_for_one_on_a_virtual_clock() -> None:
    async def story() -> None:
        with pytest.raises(TypeError, match="virtual clock"):
            running()

    anyio.run(story)
