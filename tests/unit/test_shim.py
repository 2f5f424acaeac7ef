"""The shim on its own: its protocol with whoever launches it, and what it writes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daylily_daemon.adapters.runners import shim
from daylily_daemon.domain.model import Ended

PYTHON = [sys.executable, "-IS", "-X", "utf8"]
Launch = Callable[..., "subprocess.CompletedProcess[str]"]


def eventually(condition: Callable[[], bool], within_s: float = 8.0) -> None:
    deadline = time.monotonic() + within_s  # noqa: TID251
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"  # noqa: TID251
        time.sleep(0.01)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """The directory of a job; whatever shim won its token is gone afterwards."""
    path = tmp_path / "job"
    path.mkdir()
    yield path
    if (path / "token").exists() and "pid" in read(path, "token"):
        eventually((path / "exit.json").exists)


@pytest.fixture
def launch(directory: Path) -> Launch:
    def launch(*argv: str, options: tuple[str, ...] = (), **spec: Any) -> Any:
        prepare(directory, *argv, **spec)
        return subprocess.run(
            [*PYTHON, shim.__file__, *options, str(directory)],
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
        )

    return launch


def prepare(directory: Path, *argv: str, **changes: Any) -> None:
    spec = {
        "name": "ws.1.run",
        "argv": argv,
        "environment": {},
        "cwd": str(directory),
        "timeout_s": 20.0,
        "grace_s": 0.2,
        "success_file": "",
        "report_file": "",
        "log_limit_bytes": 100_000,
    }
    (directory / "spec.json").write_text(json.dumps({**spec, **changes}))


def read(directory: Path, name: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((directory / name).read_text())
    return record


def ended(directory: Path) -> dict[str, Any]:
    eventually((directory / "exit.json").exists)
    return read(directory, "exit.json")


def test_the_launch_returns_while_the_command_runs_and_the_record_follows(
    directory: Path, launch: Launch
) -> None:
    assert launch("sh", "-c", "until [ -e go ]; do sleep 0.02; done; exit 3").returncode == 0
    token, running = read(directory, "token"), read(directory, "running.json")
    assert token["state"] == "started"
    assert shim.identity(token["pid"])["start_time"] == token["start_time"]
    assert shim.identity(running["pid"]) == running
    assert not (directory / "exit.json").exists()
    (directory / "go").touch()
    record = ended(directory)
    assert (record["ended"], record["code"], record["name"]) == ("exited", 3, "ws.1.run")
    assert record["shim"]["pid"] == token["pid"]
    assert record["usage"]["cpu_s"] >= 0
    assert 1e6 < record["usage"]["peak_bytes"] < 1e9
    assert record["usage"]["memory_kills"] == 0
    assert record["duration_s"] > 0
    assert record["started_at"] <= record["ended_at"]


def test_a_lost_token_ends_the_shim_before_it_did_anything(directory: Path, launch: Launch) -> None:
    (directory / "token").write_text('{"state": "revoked"}')
    assert launch("touch", str(directory / "ran")).returncode == shim.TOKEN_LOST
    assert sorted(os.listdir(directory)) == ["spec.json", "token"]


def test_of_two_shims_one_runs_the_command(directory: Path, launch: Launch) -> None:
    argv = ("sh", "-c", "echo run >> runs")
    assert [launch(*argv).returncode, launch(*argv).returncode] == [0, shim.TOKEN_LOST]
    ended(directory)
    assert (directory / "runs").read_text() == "run\n"


def test_a_spec_that_cannot_be_read_leaves_the_token_free(directory: Path) -> None:
    for content in (None, "{", "[]", '{"name": "ws.1.run"}'):
        if content is not None:
            (directory / "spec.json").write_text(content)
        for options in ([], ["--foreground"]):
            argv = [*PYTHON, shim.__file__, *options, str(directory)]
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
            assert done.returncode == shim.IO_ERROR
            assert f"The shim of {directory} cannot go on: " in done.stderr
            assert done.stderr in (directory / "log").read_text()
    assert not (directory / "token").exists()


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("exit 0", 0),
        ("exit 3", 3),
        ("exit 75", 75),
        ("kill -USR1 $$", 128 + signal.SIGUSR1),
        ("kill -9 $$", 128 + signal.SIGKILL),
        ("trap 'exit 0' TERM; while :; do sleep 0.02; done", 128 + signal.SIGTERM),
        ("trap 'exit 9' TERM; while :; do sleep 0.02; done", 9),
        ("sleep 60", 128 + signal.SIGTERM),
    ],
)
def test_in_the_foreground_it_ends_as_the_command_did(
    launch: Launch, script: str, code: int
) -> None:
    done = launch("sh", "-c", script, options=("--foreground",), timeout_s=0.5)
    assert done.returncode == code


def test_what_the_command_left_behind_is_named_and_counted(directory: Path, launch: Launch) -> None:
    launch("sh", "-c", "(setsid sleep 60 &); sleep 60 & sleep 60 & exit 0")
    record = ended(directory)
    assert record["left_behind"] == 3
    assert len(record["left_behind_names"]) == 3
    assert all(name.startswith("sleep (") for name in record["left_behind_names"])
    log = (directory / "log").read_text()
    assert "daylily: 3 processes left in the background were ended: sleep (" in log


def test_of_many_that_were_left_behind_some_are_named(directory: Path, launch: Launch) -> None:
    launch("sh", "-c", "for i in $(seq 14); do sleep 60 & done; exit 0")
    record = ended(directory)
    assert (record["left_behind"], len(record["left_behind_names"])) == (14, shim.NAMED)
    assert (directory / "log").read_text().endswith(", ...\n")


@pytest.mark.parametrize("script", ["exit 0", "sleep 0.1 & exit 0", "(sleep 0.1; echo late) &"])
def test_what_ends_by_itself_is_not_called_left_behind(
    directory: Path, launch: Launch, script: str
) -> None:
    launch("sh", "-c", script)
    assert ended(directory)["left_behind"] == 0


def test_the_end_of_what_a_stop_or_a_time_limit_ends_is_no_surprise(
    directory: Path, launch: Launch
) -> None:
    launch("sh", "-c", "sleep 60 & sleep 60", timeout_s=0.2)
    assert ended(directory)["left_behind"] == 0
    assert "left in the background" not in (directory / "log").read_text()


def test_a_job_whose_folder_is_moved_leaves_its_record_there(
    directory: Path, launch: Launch, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    launch(
        "sh", "-c", f"echo one; until [ -e '{go}' ]; do sleep 0.02; done; echo two; exit 3", cwd=""
    )
    moved = directory.rename(tmp_path / "moved")
    go.touch()
    assert ended(moved)["code"] == 3
    assert (moved / "log").read_text() == "one\ntwo\n"
    assert not directory.exists()


def test_the_token_keeps_how_the_end_is_to_be_read(directory: Path, launch: Launch) -> None:
    launch("true", environment={"A": "secret"}, progress_pattern="x", mark="lab/ws.1.run/f")
    stored = read(directory, "token")["spec"]
    ended(directory)
    assert (stored["progress_pattern"], stored["mark"]) == ("x", "lab/ws.1.run/f")
    assert "secret" not in (directory / "token").read_text()


def test_it_runs_as_a_single_file_without_the_package(directory: Path, tmp_path: Path) -> None:
    prepare(directory, "true")
    alone = shutil.copy(shim.__file__, tmp_path / "alone.py")
    subprocess.run([*PYTHON, str(alone), str(directory)], check=True, cwd=tmp_path)
    assert ended(directory)["code"] == 0


def test_it_leaves_the_session_of_its_launcher_and_ignores_a_hangup(
    directory: Path, launch: Launch
) -> None:
    launch("sh", "-c", "until [ -e go ]; do sleep 0.02; done")
    pid, command = read(directory, "token")["pid"], read(directory, "running.json")["pid"]
    assert os.getsid(pid) == pid != os.getsid(0)
    assert os.getsid(command) == command
    assert set(os.listdir(f"/proc/{command}/fd")) == {"0", "1", "2"}
    os.kill(pid, signal.SIGHUP)
    (directory / "go").touch()
    assert ended(directory)["code"] == 0


def test_the_command_gets_default_signals_and_no_word_of_systemd(
    directory: Path, launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/nonexistent")
    for name in ("DAYLILY_SHIM", "DAYLILY_VIEW"):
        monkeypatch.setenv(name, "lab/other.1.run/f")
    script = "env; grep -E 'Sig(Blk|Ign|Cgt)' /proc/self/status; cat"
    launch("sh", "-c", script, mark="lab/ws.1.run/f")
    ended(directory)
    lines = (directory / "log").read_text().splitlines()
    masks = {line[:6]: int(line.split()[1], 16) for line in lines if line.startswith("Sig")}
    of_the_c_library = 1 << 31 | 1 << 32  # signals 32 and 33, which nobody else can set
    assert masks["SigBlk"] == 0
    assert masks["SigIgn"] & ~of_the_c_library == 0
    assert f"DAYLILY_JOB_DIRECTORY={directory}" in lines
    assert "DAYLILY_JOB=lab/ws.1.run/f" in lines
    assert not any(word in line for line in lines for word in ("DAYLILY_SHIM", "DAYLILY_VIEW"))
    assert not any("NOTIFY_SOCKET" in line for line in lines)


def test_in_the_foreground_it_stays_and_tells_systemd_when_the_command_runs(
    directory: Path, launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"daylily-notify-{os.getpid()}"  # no path: that of a test may be too long for a socket
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0{name}")
        listener.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        assert launch("sh", "-c", "exit 4", options=("--foreground",)).returncode == 4
        assert listener.recv(100) == b"READY=1"
    assert read(directory, "exit.json")["code"] == 4


NO_FORK = """
import os, runpy, sys
def fork(): raise OSError(11, "Resource temporarily unavailable")
os.fork = fork
runpy.run_path({path!r}, run_name="__main__")
"""


def test_a_machine_without_room_for_a_process_is_an_outcome(directory: Path) -> None:
    prepare(directory, "true")
    script = NO_FORK.format(path=shim.__file__)
    argv = [*PYTHON, "-c", script, "--foreground", str(directory)]
    done = subprocess.run(argv, check=False, timeout=20)
    assert done.returncode == ended(directory)["code"] == shim.NOT_EXECUTABLE
    assert "cannot fork: Resource temporarily unavailable" in (directory / "log").read_text()


def test_the_record_is_tried_again_until_it_can_be_written(directory: Path, launch: Launch) -> None:
    obstacle = directory / "exit.json.tmp"
    obstacle.mkdir()
    launch("sh", "-c", "exit 5")
    pid = read(directory, "token")["pid"]
    eventually(lambda: shim.stat_fields(pid)[0] == "S" and not shim_children(pid))
    assert not (directory / "exit.json").exists()
    obstacle.rmdir()
    assert ended(directory)["code"] == 5


def shim_children(pid: int) -> list[str]:
    return [name for name in os.listdir("/proc") if name.isdigit() and parent(name) == pid]


def parent(name: str) -> int | None:
    try:
        return int(shim.stat_fields(int(name))[1])
    except OSError:
        return None


def test_a_removed_directory_does_not_keep_the_shim_for_ever(tmp_path: Path) -> None:
    shim.put_record(str(tmp_path / "removed"), {})


@pytest.mark.parametrize(
    ("status", "stopped_as", "out_of_memory", "expected"),
    [
        (0, None, False, ("exited", 0)),
        (3 << 8, None, True, ("exited", 3)),
        (15, None, False, ("signalled", 15)),
        (9, None, False, ("signalled", 9)),
        (9, None, True, ("out_of_memory", None)),
        (137 << 8, None, True, ("out_of_memory", None)),
        (137 << 8, None, False, ("exited", 137)),
        (9, "stopped", True, ("stopped", None)),
        (0, "stopped", False, ("stopped", 0)),
        (15, "timed_out", False, ("timed_out", None)),
    ],
)
def test_how_a_wait_status_is_read(
    status: int, stopped_as: str | None, out_of_memory: bool, expected: tuple[str, int | None]
) -> None:
    assert shim.verdict(status, stopped_as, out_of_memory) == expected
    assert Ended(expected[0])


def test_kills_for_memory_are_counted_per_control_group_or_else_for_the_machine(
    tmp_path: Path,
) -> None:
    (tmp_path / "cgroup").write_text("4:memory:/old\n0::/unit\n")
    (tmp_path / "unit").mkdir()
    where = (str(tmp_path / "cgroup"), str(tmp_path))
    assert shim.oom_counter(*where) == "/proc/vmstat"
    (tmp_path / "unit/memory.events").write_text("low 0\noom 2\noom_kill 2\n")
    assert shim.oom_counter(*where) == str(tmp_path / "unit/memory.events")
    assert shim.oom_kills(shim.oom_counter(*where)) == 2
    assert shim.oom_counter(str(tmp_path / "missing"), str(tmp_path)) == "/proc/vmstat"
    assert shim.oom_kills("/proc/vmstat") is not None
    assert shim.oom_kills(str(tmp_path / "missing")) is None


@pytest.mark.reported("G", "jobs inherit OOMScoreAdjust of the service (nomad#10663)")
@pytest.mark.parametrize(("inherited", "own"), [("-500\n", "0"), ("0\n", "0"), ("300\n", "300")])
def test_a_job_is_not_spared_when_memory_runs_out(tmp_path: Path, inherited: str, own: str) -> None:
    score = tmp_path / "oom_score_adj"
    score.write_text(inherited)
    shim.be_killed_like_others(str(score))
    assert score.read_text().split()[-1] == own


def test_a_log_rotates_between_two_files_and_never_exceeds_its_limit(tmp_path: Path) -> None:
    log = shim.Log(str(tmp_path), 100)
    for number in range(100):
        log.write(f"line {number}\n".encode())
        assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 100
    kept = (tmp_path / "log.1").read_bytes() + (tmp_path / "log").read_bytes()
    assert kept.endswith(b"line 98\nline 99\n")
    assert len(kept) > 50
    assert log.dropped_bytes == 0


def test_what_a_log_cannot_take_is_counted_and_said_where_it_is_missing(tmp_path: Path) -> None:
    log = shim.Log(str(tmp_path / "missing"), 1000)
    log.write(b"12345")
    log.write(b"678")
    (tmp_path / "missing").mkdir()
    log.write(b"later\n")
    log.write(b"end\n")
    assert log.dropped_bytes == 8
    gap = b"\ndaylily: 8 bytes of output could not be written here\n"
    assert (tmp_path / "missing/log").read_bytes() == gap + b"later\nend\n"


def test_the_peak_of_a_group_counts_where_the_job_is_alone_in_it(tmp_path: Path) -> None:
    (tmp_path / "memory.events").write_text("oom_kill 2\n")
    (tmp_path / "memory.peak").write_text("61000000000\n")
    counter = str(tmp_path / "memory.events")
    assert shim.used(counter, alone=True)["peak_bytes"] == 61_000_000_000
    assert shim.used(counter, alone=False)["peak_bytes"] < 10**9
    assert shim.used("/proc/vmstat", alone=True)["peak_bytes"] < 10**9
