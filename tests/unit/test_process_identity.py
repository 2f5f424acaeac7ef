"""A process is meant by boot, pid and start time, and only the kernel's word ends it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace

import anyio
import pytest

from daylily_daemon.adapters.runners import procfs, shim
from daylily_daemon.adapters.runners.procfs import Identity


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "60"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def identity(process: subprocess.Popen[bytes]) -> Identity:
    return Identity.parse(shim.identity(process.pid))


def test_a_zombie_is_not_alive(child: subprocess.Popen[bytes]) -> None:
    known = identity(child)
    assert procfs.is_alive(known)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert shim.stat_fields(child.pid)[0] == "Z"
    assert not procfs.is_alive(known)
    child.wait()
    assert not procfs.is_alive(known)


def test_a_process_that_proc_hides_is_unknown_until_it_ended(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = identity(child)

    def hidden(pid: int) -> list[str]:
        raise FileNotFoundError(pid)

    monkeypatch.setattr(shim, "stat_fields", hidden)
    with pytest.raises(PermissionError, match="hides it"):
        procfs.is_alive(known)
    with pytest.raises(PermissionError, match="hides it"):
        procfs.send(known, signal.SIGKILL)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not procfs.is_alive(known)
    child.wait()
    assert not procfs.is_alive(known)


def test_a_signal_reaches_the_meant_process_alone(child: subprocess.Popen[bytes]) -> None:
    known = identity(child)
    procfs.send(replace(known, start_time=known.start_time + 1), signal.SIGKILL)
    assert child.poll() is None
    procfs.send(known, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    procfs.send(known, signal.SIGKILL)


async def test_the_end_of_somebody_elses_child_is_noticed(child: subprocess.Popen[bytes]) -> None:
    with anyio.move_on_after(0.1) as waiting:
        await procfs.Watch().until_gone(identity(child))
    assert waiting.cancelled_caught
    async with anyio.create_task_group() as group:
        group.start_soon(procfs.Watch().until_gone, identity(child))
        child.kill()
