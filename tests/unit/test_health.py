"""A daemon is well if it could do its work a moment ago, and not because something has its process number."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from daylily_daemon.adapters import vitals
from daylily_daemon.adapters.host import StateDir
from daylily_daemon.adapters.vitals import StatusUnreadable, StatusWriter
from daylily_daemon.application.health import HealthVerdict, judged, verdict
from daylily_daemon.domain.daemon import Life, Port, Process, Sighting, Status

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


def _status(**changes: Any) -> Status:
    usual: dict[str, Any] = {
        "pid": 4711,
        "start_time": 99,
        "boot_id": "here",
        "owner": "lab/m/1",
        "started_at": NOW - timedelta(hours=3),
        "seen_at": NOW - timedelta(seconds=2),
        "sweep_s": 15,
        "max_worksets": 4,
        "active": {"HG002": "run 40%"},
        "waiting": 3,
    }
    return Status(**{**usual, **changes})


def _judged(
    status: Status | None, life: Life = Life.RUNNING, age_s: float | None = 2.0
) -> HealthVerdict:
    return verdict(Sighting(now=NOW, status=status, life=life, age_s=age_s))


def _port(failures: int, for_s: float) -> Port:
    since = NOW - timedelta(seconds=for_s) if failures else None
    return Port(failing_since=since, failures=failures, code="transient", text="AWS is away.")


def test_a_daemon_that_finishes_its_passes_and_reaches_everything_is_well() -> None:
    found = _judged(_status(ports={"worksets": Port(good_at=NOW)}))
    assert found.healthy
    assert found.text.startswith(
        "lab/m/1: running 1 of 4 worksets, 3 waiting; last seen 2026-03-04 05:06:05"
    )


@pytest.mark.reported(
    "E", "running, although it hangs or is dead (tomcounsell/ai#984, kuna#437, CORE#173)"
)
@pytest.mark.parametrize(
    ("status", "life", "age_s", "words"),
    [
        (None, Life.GONE, None, "No daemon has run"),
        (_status(), Life.GONE, 2.0, "not running; last seen 2026-03-04 05:06:05, and it was not"),
        (_status(), Life.REPLACED, 2.0, "process number 4711 is not its own any more"),
        (_status(stopped_at=NOW), Life.GONE, 2.0, "stopped in order at 2026-03-04 05:06:07"),
        (_status(), Life.STOPPED, 2.0, "kill -CONT 4711"),
        (_status(), Life.RUNNING, 61.0, "It hangs: no pass was finished since 2026-03-04 05:06:05"),
        (_status(), Life.HIDDEN, 61.0, "It hangs"),
        (_status(seen_at=None), Life.RUNNING, None, "since its start"),
        (_status(held="The disk is full."), Life.RUNNING, 2.0, "started. The disk is full."),
        (_status(stopping_at=NOW), Life.RUNNING, 2.0, "It is stopping since"),
        (
            _status(pid=None, starting=Process(pid=5), trouble="AWS is away."),
            Life.RUNNING,
            None,
            "starting since 2026-03-04 02:06:07 UTC: AWS is away.",
        ),
        (_status(starting=Process(pid=5)), Life.GONE, None, "ended while it was starting"),
        (_status(starting=Process(pid=5)), Life.STOPPED, None, "SIGCONT lets it go on"),
        (
            _status(ports={"worksets": _port(3, 4)}),
            Life.RUNNING,
            2.0,
            "DynamoDB does not answer since 2026-03-04 05:06:03 (4 s, 3 times): AWS is away.",
        ),
        (_status(ports={"commands": _port(2, 31)}), Life.RUNNING, 2.0, "SQS does not answer"),
        (
            _status(ports={"channel:slack": _port(9, 7300)}),
            Life.RUNNING,
            2.0,
            "Telling slack fails",
        ),
        (_status(ports={"new": _port(9, 7300)}), Life.RUNNING, 2.0, "new does not answer"),
    ],
)
def test_whatever_keeps_a_daemon_from_its_work_is_said(
    status: Status | None, life: Life, age_s: float | None, words: str
) -> None:
    found = _judged(status, life, age_s)
    assert not found.healthy
    assert words in found.text


@pytest.mark.parametrize("ports", [{"worksets": _port(1, 500)}, {"worksets": _port(2, 5)}, {}])
def test_a_call_that_went_wrong_once_is_no_illness(ports: dict[str, Port]) -> None:
    assert _judged(_status(ports=ports)).healthy


@pytest.mark.parametrize("life", list(Life))
def test_a_daemon_is_alive_while_its_very_process_may_be(life: Life) -> None:
    found = judged(Sighting(now=NOW, status=_status(), life=life, age_s=2.0))
    assert found.alive == (life not in (Life.GONE, Life.REPLACED))
    assert found.holds("HG002", "lab/m/1") == found.alive
    assert not found.holds("HG003", "lab/m/1")
    assert not found.holds("HG002", "lab/m/2")


def test_a_daemon_of_another_container_is_judged_by_its_passes() -> None:
    found = _judged(_status(), Life.HIDDEN)
    assert found.healthy
    assert "cannot be seen from here" in found.text


# --- the process --------------------------------------------------------------------------------------


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def _of(pid: int) -> Process:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return replace(vitals.this_process(), pid=pid, start_time=int(fields[19]))


@pytest.mark.reported(
    "E", "a process number that was given to somebody else counts as alive (prime-agent#1046)"
)
def test_a_process_is_known_by_its_number_its_start_and_its_boot(
    sleeper: subprocess.Popen[bytes],
) -> None:
    process = _of(sleeper.pid)
    assert vitals.life_of(process) is Life.RUNNING
    assert vitals.life_of(replace(process, start_time=1)) is Life.REPLACED
    assert vitals.life_of(replace(process, boot_id="another")) is Life.REPLACED
    assert vitals.life_of(replace(process, pid_namespace="pid:[1]")) is Life.HIDDEN
    assert vitals.life_of(Process(pid=sleeper.pid)) is Life.RUNNING


def test_a_stopped_process_a_zombie_and_none_are_told_apart(
    sleeper: subprocess.Popen[bytes],
) -> None:
    process = _of(sleeper.pid)
    sleeper.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, sleeper.pid, os.WSTOPPED | os.WNOWAIT)
    assert vitals.life_of(process) is Life.STOPPED
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert vitals.life_of(process) is Life.GONE
    sleeper.wait()
    assert vitals.life_of(process) is Life.GONE


# --- the file -----------------------------------------------------------------------------------------


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    state = StateDir(tmp_path)
    assert vitals.read(state) is None
    written = {**asdict(_status()), "from a later version": {"x": 1}}
    state.write_status(json.dumps(written, default=str).encode())
    assert vitals.read(state) == _status()


NO_ZONE = '{"seen_at": "2026-03-04T05:06:07"}'


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"pid": "many"}', '{"ports": 3}', "\x00", NO_ZONE]
)
def test_a_file_that_makes_no_sense_is_a_sentence(tmp_path: Path, text: str) -> None:
    state = StateDir(tmp_path)
    state.status.write_text(text)
    with pytest.raises(StatusUnreadable, match=r"status\.json makes no sense"):
        vitals.read(state)


def test_a_file_that_may_not_be_read_is_no_daemon_that_never_ran(tmp_path: Path) -> None:
    state = StateDir(tmp_path / "state")
    state.status.mkdir(parents=True)
    with pytest.raises(StatusUnreadable, match=r"cannot be read: Is a directory"):
        vitals.read(state)


def test_the_age_of_a_pass_does_not_depend_on_who_set_the_clock() -> None:
    boot_id = vitals.this_process().boot_id
    seen = vitals.monotonic_s() - 5
    status = _status(boot_id=boot_id, seen_monotonic_s=seen, seen_at=NOW - timedelta(days=1))
    assert vitals.age_s(status, NOW) == pytest.approx(5, abs=2)
    other = replace(status, boot_id="another")
    assert vitals.age_s(other, NOW) == pytest.approx(86_400)
    assert vitals.age_s(_status(seen_at=None), NOW) is None


def test_the_last_of_several_states_is_written_and_a_full_disk_is_survived(tmp_path: Path) -> None:
    async def play() -> None:
        writer = StatusWriter(StateDir(tmp_path / "gone"))
        writer.show(Status(owner="a"))
        await writer.flush()
        (tmp_path / "gone").mkdir()
        async with anyio.create_task_group() as tg:
            tg.start_soon(writer.keep)
            writer.show(Status(owner="b"))
            writer.show(Status(owner="c"))
            await anyio.lowlevel.checkpoint()
            tg.cancel_scope.cancel()
        writer.show(Status(owner="d"))
        await writer.flush()

    anyio.run(play)
    assert vitals.read(StateDir(tmp_path / "gone")) == Status(owner="d")


class _StalledStateDir(StateDir):
    """A state directory on a disk that does not answer."""

    def write_status(self, status: object) -> None:
        del status
        subprocess.run([sys.executable, "-c", "import time; time.sleep(0.5)"], check=False)


def test_a_state_directory_that_hangs_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vitals, "WRITE_S", 0.05)

    async def play() -> float:
        writer = StatusWriter(_StalledStateDir(tmp_path))
        writer.show(Status(owner="a"))
        before = anyio.current_time()
        await writer.flush()
        writer.show(Status(owner="b"))
        await writer.flush()
        return anyio.current_time() - before

    assert anyio.run(play) < 0.4


@pytest.mark.parametrize("name", ["started_at", "stopping_at", "stopped_at", "seen_at"])
def test_a_status_takes_no_time_without_a_zone(name: str) -> None:
    with pytest.raises(ValueError, match="no time zone"):
        _status(**{name: NOW.replace(tzinfo=None)})
