"""Processes of the program as a test sees them: one life of a daemon, the answer of a command."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_result, stop_after_delay, wait_fixed

from daylily_daemon.adapters.host import StateDir

T = TypeVar("T")

STARTED_WITHIN_S: Final = 60.0
ENDED_WITHIN_S: Final = 60.0
"""Longer than any deadline the daemon has of its own."""
SETTLED_WITHIN_S: Final = 90.0


def until(
    condition: Callable[[], T], within_s: float = SETTLED_WITHIN_S, why: Callable[[], str] = str
) -> T:
    """Return what ``condition`` returns once that is true; fail with ``why()`` after ``within_s``."""

    def give_up(state: RetryCallState) -> T:
        last = state.outcome.result() if state.outcome else None
        raise AssertionError(f"Not within {within_s:.0f} s (last: {last!r}). {why()}")

    retrying = Retrying(
        retry=retry_if_result(lambda result: not result),
        stop=stop_after_delay(within_s),
        wait=wait_fixed(0.05),
        retry_error_callback=give_up,
    )
    return retrying(condition)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command said and how it ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)

    @property
    def words(self) -> str:
        """Everything it said on one line, however it was broken into lines for a terminal."""
        return " ".join(f"{self.stdout} {self.stderr}".split())


@dataclass(slots=True)
class Daemon:
    """One life of the daemon process."""

    process: subprocess.Popen[bytes]
    log: Path
    state: StateDir

    @property
    def is_up(self) -> bool:
        status = self.state.read_status()
        return status is not None and status.get("pid") == self.process.pid

    def wait_up(self) -> None:
        def up() -> bool:
            assert self.process.poll() is None, f"The daemon ended.\n{self.log_text()}"
            return self.is_up

        until(up, STARTED_WITHIN_S, self.log_text)

    def status(self) -> dict[str, Any]:
        return self.state.read_status() or {}

    def send(self, signum: signal.Signals) -> None:
        self.process.send_signal(signum)

    def ended(self) -> int:
        """Wait for its end; return the exit code, negative for a signal."""
        try:
            return self.process.wait(timeout=ENDED_WITHIN_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"The daemon did not end.\n{self.log_text()}") from None

    def terminate(self) -> int:
        self.send(signal.SIGTERM)
        return self.ended()

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self.ended()

    def log_text(self) -> str:
        return self.log.read_text(errors="replace")[-6000:]

    def said(self, event: str) -> list[dict[str, Any]]:
        """Return the log events of that name so far."""
        return [line for line in _json_lines(self.log) if line.get("event") == event]

    def wait_said(self, event: str) -> dict[str, Any]:
        """Wait until the log has such an event; return the last one."""
        return until(lambda: self.said(event), why=self.log_text)[-1]


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text(errors="replace").splitlines():
        with suppress(ValueError):  # a line that a kill cut off
            found = json.loads(line)
            if isinstance(found, dict):
                yield found


def processes_of(folder: Path) -> list[str]:
    """Return the command lines of all processes that have to do with ``folder``."""
    named = re.compile(re.escape(os.fsencode(folder)) + rb"(?!\d)")
    return [
        words.replace(b"\0", b" ").decode(errors="replace")
        for pid in _pids()
        if named.search((words := _read(pid, "cmdline")) + b"\0" + _read(pid, "environ"))
    ]


def _pids() -> Iterable[int]:
    return (
        int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()
    )


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:  # it ended meanwhile, or is not ours to look at
        return b""
