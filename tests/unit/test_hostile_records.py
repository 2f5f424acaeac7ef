"""Records of jobs and daemons that somebody has replaced: told in a sentence, and nothing hangs or breaks."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import psutil
import pytest

from daylily_daemon.adapters.host import StateDir
from daylily_daemon.adapters.processes import below
from daylily_daemon.adapters.runners import shim
from daylily_daemon.adapters.runners.jobdir import MOST_BYTES, JobDirectory
from daylily_daemon.adapters.smallfile import contents
from daylily_daemon.adapters.vitals import StatusUnreadable, life_of, read
from daylily_daemon.domain.daemon import Life, Process
from daylily_daemon.domain.errors import Transient

pytestmark = pytest.mark.timeout(20)


def a_token(**changes: Any) -> dict[str, Any]:
    return {"state": "started", **shim.identity(os.getpid()), "spec": {}, **changes}


def a_record(**changes: Any) -> dict[str, Any]:
    known = {"ended": "exited", "code": 0, "success_file_found": None, "duration_s": 1.5}
    return {**known, "shim": shim.identity(os.getpid()), **changes}


@pytest.mark.parametrize("pid", [-1, 0, 2**31, 10**40, float("inf"), float("nan"), "x", None])
def test_a_token_with_the_number_of_no_process_is_unreadable(tmp_path: Path, pid: Any) -> None:
    (tmp_path / "token").write_text(json.dumps(a_token(pid=pid)))
    with pytest.raises(Transient, match="not the record of a job"):
        JobDirectory(str(tmp_path)).has_ended()


@pytest.mark.parametrize(
    "changes",
    [
        {"code": float("inf")},
        {"code": 10**40},
        {"duration_s": float("nan")},
        {"duration_s": 10**400},
        {"duration_s": 1e300},
        {"usage": {"peak_bytes": 10**40}},
        {"left_behind": float("-inf")},
    ],
)
def test_an_exit_record_with_numbers_that_nothing_can_store_is_unreadable(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    (tmp_path / "exit.json").write_text(json.dumps(a_record(**changes)))
    with pytest.raises(Transient, match="not the record of a job"):
        JobDirectory(str(tmp_path)).record()


def test_an_exit_record_with_numbers_of_every_day_is_read(tmp_path: Path) -> None:
    usage = {"cpu_s": 8.4e5, "peak_bytes": 2**40, "memory_kills": 0}
    (tmp_path / "exit.json").write_text(json.dumps(a_record(code=-9, usage=usage)))
    found = JobDirectory(str(tmp_path)).record()
    assert found is not None
    assert found.usage is not None
    assert (found.code, found.duration_s, found.usage.peak_bytes) == (-9, 1.5, 2**40)


def as_pipe(path: Path) -> None:
    os.mkfifo(path)


def as_link_to_a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def as_huge(path: Path) -> None:
    path.touch()
    os.truncate(path, MOST_BYTES + 1)


def as_nested(path: Path) -> None:
    path.write_text("[" * 100_000)


REPLACED = pytest.mark.parametrize("replace", [as_pipe, as_link_to_a_device, as_huge, as_nested])


@REPLACED
@pytest.mark.parametrize("name", ["token", "exit.json", "running.json", "group.json"])
def test_a_record_that_was_replaced_by_something_else_is_unreadable(
    tmp_path: Path, name: str, replace: Callable[[Path], None]
) -> None:
    replace(tmp_path / name)
    job = JobDirectory(str(tmp_path))
    reads = {"token": job.token, "exit.json": job.record, "running.json": job.command}
    with pytest.raises(Transient, match=name):
        reads.get(name, job.group)()


@REPLACED
def test_a_status_file_that_was_replaced_by_something_else_is_unreadable(
    tmp_path: Path, replace: Callable[[Path], None]
) -> None:
    replace(tmp_path / "status.json")
    with pytest.raises(StatusUnreadable, match=r"status\.json"):
        read(StateDir(tmp_path))


def test_a_file_is_read_whole_up_to_its_bound(tmp_path: Path) -> None:
    (tmp_path / "it").write_bytes(b"12345")
    assert contents(tmp_path / "it", 5) == b"12345"
    with pytest.raises(OSError, match="larger than 4 bytes"):
        contents(tmp_path / "it", 4)


@pytest.mark.parametrize("replace", [as_pipe, as_link_to_a_device])
def test_what_is_no_regular_file_is_said_to_be_none(
    tmp_path: Path, replace: Callable[[Path], None]
) -> None:
    replace(tmp_path / "it")
    with pytest.raises(OSError, match="no regular file"):
        contents(tmp_path / "it", 100)


def test_a_status_with_a_number_that_no_process_can_have_is_of_one_that_is_gone() -> None:
    assert life_of(Process(pid=10**20)) is Life.GONE


def processes(*pairs: tuple[int, int]) -> dict[int, list[psutil.Process]]:
    found: dict[int, list[Any]] = {}
    for parent, pid in pairs:
        found.setdefault(parent, []).append(SimpleNamespace(pid=pid))
    return cast("dict[int, list[psutil.Process]]", found)


def test_processes_are_found_however_deep_they_are() -> None:
    chain = processes(*((pid, pid + 1) for pid in range(1, 5_001)), (7, 9_000), (9_999, 10_000))
    assert {p.pid for p in below(1, chain)} == {*range(2, 5_002), 9_000}


def test_numbers_that_close_a_circle_are_seen_once() -> None:
    assert [p.pid for p in below(1, processes((1, 2), (2, 3), (3, 1), (3, 2)))] == [2, 3]
