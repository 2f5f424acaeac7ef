"""A process is meant by boot, pid and start time, and only the kernel's word ends it."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace

import anyio
import pytest

from daylily_daemon.adapters.runners import procfs, remains, shim
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


JOB = remains.KnownJob("lab/ws.1.run/f")


@pytest.fixture
def orphan() -> Iterator[tuple[Identity, int]]:
    """The leader of a session that has ended and was reaped, and a member that lives on."""
    script = "env -i sleep 60 > /dev/null & echo $!"
    leader = subprocess.Popen(
        ["sh", "-c", f"read go; {script}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    known = identity(leader)
    said, _ = leader.communicate(b"go\n")
    yield known, int(said)
    os.kill(int(said), signal.SIGKILL)


def test_a_session_that_is_in_use_is_alive_whatever_became_of_its_leader(
    orphan: tuple[Identity, int],
) -> None:
    leader, member = orphan
    assert not os.path.exists(f"/proc/{leader.pid}")
    assert [p.pid for p in remains.members(replace(JOB, command=leader))] == [member]
    assert remains.members(JOB) == []


def test_the_session_of_a_leader_with_another_start_time_is_somebody_elses(
    child: subprocess.Popen[bytes],
) -> None:
    known = identity(child)
    assert remains.members(replace(JOB, command=known)) == [known]
    reused = replace(known, start_time=known.start_time - 1)
    assert remains.members(replace(JOB, command=reused)) == []


def test_a_control_group_proves_nothing_in_another_namespace() -> None:
    here = procfs.namespace("cgroup")
    assert remains.are_proved_gone(JOB, remains.Group("/no/such/group", 1, here))
    assert not remains.are_proved_gone(JOB, remains.Group("/no/such/group", 1, "cgroup:[1]"))


def test_children_count_as_the_daemons_only_where_it_gets_no_orphans() -> None:
    set_reaper = ctypes.CDLL(None).prctl
    assert remains._is_us(os.getpid())
    assert not remains._is_us(os.getppid())
    set_reaper(36, 1, 0, 0, 0)
    try:
        assert not remains._is_us(os.getpid())
    finally:
        set_reaper(36, 0, 0, 0, 0)


async def test_a_watch_gives_its_descriptors_back(child: subprocess.Popen[bytes]) -> None:
    watch = procfs.Watch(descriptors=1, poll_s=60)
    with anyio.move_on_after(0.05):
        await watch.until_gone(identity(child))
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(watch.until_gone, identity(child))
            await anyio.sleep(0.05)
            child.kill()
