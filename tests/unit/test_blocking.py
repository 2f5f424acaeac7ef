"""A call into a file system that stalls is left behind, and counted."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

import anyio
import pytest

from daylily_daemon.adapters.blocking import AT_ONCE, KEPT, Disk
from daylily_daemon.domain.errors import Transient


def stalled(gate: threading.Event) -> str:
    gate.wait()
    return "at last"


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(5):
        while not condition():
            await anyio.lowlevel.checkpoint()


async def test_an_answer_and_an_error_come_back_as_they_are() -> None:
    disk = Disk("job folders")
    assert await disk.run(lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        await disk.run(lambda: 1 // 0)
    assert disk.hanging == 0


async def test_a_call_that_hangs_is_an_unknown_answer_in_bounded_time() -> None:
    disk, gate = Disk("job folders", limit_s=0.05), threading.Event()
    with pytest.raises(Transient, match="disk of the job folders does not answer"):
        await disk.run(partial(stalled, gate))
    assert disk.hanging == 1
    assert await disk.run(lambda: "others go on") == "others go on"
    gate.set()
    await until(lambda: disk.hanging == 0)


async def test_a_disk_that_keeps_everybody_is_not_asked_without_end() -> None:
    disk, gate = Disk("job folders", limit_s=0.05, hanging=2), threading.Event()
    for _ in range(4):
        with pytest.raises(Transient):
            await disk.run(partial(stalled, gate))
    assert disk.hanging == 2
    with pytest.raises(Transient, match="2 calls hang there already"):
        await disk.run(lambda: 1)
    gate.set()
    await until(lambda: disk.hanging == 0)
    assert await disk.run(lambda: 1) == 1


async def test_giving_up_a_call_leaves_it_to_itself() -> None:
    disk, gate = Disk("job folders"), threading.Event()
    with anyio.move_on_after(0.05) as waiting:
        await disk.run(partial(stalled, gate))
    assert waiting.cancelled_caught
    assert disk.hanging == 1
    gate.set()
    await until(lambda: disk.hanging == 0)


async def test_one_thread_makes_one_call_after_another_and_a_few_are_kept() -> None:
    disk, gate = Disk("kept threads"), threading.Event()
    names = {await disk.run(threading.get_ident) for _ in range(5)}
    assert len(names) == 1
    async with anyio.create_task_group() as tg:
        for _ in range(AT_ONCE):
            tg.start_soon(disk.run, partial(stalled, gate))
        await until(lambda: threads_of("kept threads") == AT_ONCE)
        gate.set()
    await until(lambda: threads_of("kept threads") == KEPT)


async def test_a_thread_that_came_back_from_a_hanging_call_makes_the_next_one() -> None:
    disk, gate = Disk("slow folder", limit_s=0.05), threading.Event()
    with pytest.raises(Transient):
        await disk.run(partial(stalled, gate))
    gate.set()
    await until(lambda: disk.hanging == 0)
    assert await disk.run(lambda: 1) == 1
    assert threads_of("slow folder") == 1


def threads_of(what: str) -> int:
    return sum(thread.name.endswith(what) for thread in threading.enumerate())
