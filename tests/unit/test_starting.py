"""What the start waits for, and that only the hopeless ends it."""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable
from pathlib import Path, PosixPath
from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs

from daylily_daemon.adapters.host import StateDir
from daylily_daemon.adapters.identity import this_machine
from daylily_daemon.composition.starting import LONGEST_PAUSE_S, REPEATED_S, Reader, StartPatience
from daylily_daemon.domain.errors import DaemonError, Impeded, Permanent, Transient
from daylily_daemon.settings.sources import Sources
from tests.sim.vclock import BACKEND

HOPELESS = {errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.EINVAL}


class Trouble:
    """Work that fails in a given order, and then succeeds."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.tried_at: list[float] = []

    async def __call__(self) -> str:
        self.tried_at.append(anyio.current_time())
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def in_virtual_time(work: Callable[[], Awaitable[Any]]) -> Any:
    return anyio.run(work, backend_options=BACKEND)


def patient(work: Trouble, *ends: type[DaemonError]) -> tuple[str, list[str], list[Any]]:
    """Return what came of it, the sentences that were told, and the log."""
    told: list[str] = []
    with capture_logs() as logs:
        done = in_virtual_time(lambda: StartPatience(told.append).until_done("AWS", work, ends))
    return done, told, logs


def test_every_kind_of_trouble_is_waited_for() -> None:
    group = ExceptionGroup("several", [Transient("in a group")])
    kinds = [
        Transient("away"),
        Impeded("no right"),
        Permanent("no table"),
        ValueError("odd"),
        group,
    ]
    done, told, _ = patient(Trouble(*kinds))
    assert done == "done"
    assert told[:3] == ["away", "no right", "no table"]
    assert "odd" in told[3]
    assert told[4] == "in a group"


def test_what_no_waiting_mends_ends_it() -> None:
    with pytest.raises(Permanent, match="in use"):
        patient(Trouble(Transient("full"), Permanent("in use")), Permanent)


def test_pauses_grow_up_to_a_limit() -> None:
    work = Trouble(*[Transient("away")] * 20)
    patient(work)
    pauses = [late - early for early, late in zip(work.tried_at, work.tried_at[1:], strict=False)]
    assert pauses[:4] == pytest.approx([1, 2, 4, 8])
    assert max(pauses) == pytest.approx(LONGEST_PAUSE_S)


def test_a_trouble_that_stays_is_logged_now_and_then_and_another_at_once() -> None:
    stays = [Transient("away")] * int(3 * REPEATED_S / LONGEST_PAUSE_S)
    _, told, logs = patient(Trouble(*stays, Transient("other")))
    assert len(told) == len(stays) + 1
    said = [line["error"] for line in logs if line["event"] == "start_waits"]
    assert said[-1] == "other"
    assert 3 <= said.count("away") <= 4


def test_a_pause_ends_when_somebody_asks_for_it() -> None:
    work = Trouble(*[Transient("away")] * 8)

    async def story() -> None:
        patience = StartPatience(lambda _: None)
        async with anyio.create_task_group() as tg:
            tg.start_soon(patience.until_done, "AWS", work)
            await anyio.sleep(50)
            tried = len(work.tried_at)
            patience.again.set()
            await anyio.sleep(0.01)
            assert len(work.tried_at) == tried + 1

    in_virtual_time(story)


# The state directory


class Broken(PosixPath):
    """A folder on a disk that answers everything with one error."""

    code = 0

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        raise OSError(self.code, os.strerror(self.code))


@pytest.mark.parametrize("code", sorted(errno.errorcode))
def test_whatever_a_disk_says_is_a_sentence(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Broken, "code", code)
    state = StateDir(Broken("/srv/state"))
    with pytest.raises(DaemonError) as caught, state.locked("lab", this_machine()):
        pytest.fail("it was taken for locked")
    assert isinstance(caught.value, Permanent if code in HOPELESS else Transient)
    assert "/srv/state" in str(caught.value)
    assert os.strerror(code) in str(caught.value)


def test_a_state_directory_can_be_had_again_after_a_try_that_failed(tmp_path: Path) -> None:
    state, machine = StateDir(tmp_path / "state"), this_machine()
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "identity.json").mkdir()  # the lock is held by then
    with pytest.raises(Transient), state.locked("lab", machine):
        pytest.fail("it was taken for locked")
    (tmp_path / "state" / "identity.json").rmdir()
    with state.locked("lab", machine) as owner:
        assert owner.startswith("lab/")


# The settings


async def test_settings_that_do_not_come_are_trouble_and_leave_no_crowd_behind(
    tmp_path: Path,
) -> None:
    stalled = tmp_path / "lab.yaml"
    os.mkfifo(stalled)
    reader = Reader(Sources(config=stalled), limit_s=0.05)
    for _ in range(3):
        with pytest.raises(Transient, match="does not answer"):
            await reader.read()
    with pytest.raises(Transient, match="2 calls hang there already"):
        await reader.read()
    os.close(os.open(stalled, os.O_RDWR))  # lets those two go
