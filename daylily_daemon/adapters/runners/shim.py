"""The process between the daemon and a job: ``python -IS shim.py [--foreground] JOBDIR``.

It runs one command and is the only witness of how that ended, so it outlives the daemon and imports
nothing but the standard library: an upgrade of the package cannot pull the ground from under it.

**The token decides.** ``JOBDIR/token`` is made by ``link()`` of a complete file, so exactly one party
creates it and nobody ever reads half of it. The shim creates it as ``started`` before it runs
anything, or ends with 75 having done nothing. Who gives up an attempt creates it as ``revoked``.

**The record is never lost.** ``exit.json`` appears by rename after fsync, once nothing of the job runs
any more. Room for it is taken at the start, and what fails is tried again. A log that cannot be written
costs lines, not the job, and says where some are missing.

**The whole tree is the job.** The shim is the reaper of every descendant, also of those that left
session and process group. When the command has ended, what it left behind is ended too.

Without ``--foreground`` the shim detaches: the caller gets 0 once the token was won and the command
was executed (or refused by the kernel, its outcome then: 126 or 127 as from a shell), 75 when the token
was lost. With it the shim stays what systemd started, its main process, and says ``READY=1`` instead.
Files: ``spec.json`` is read; ``token``, ``running.json``, ``log``, ``log.1`` and ``exit.json`` are written.
What may fail for want of descriptors comes before the token, where failing is harmless.
"""

import ctypes
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NoReturn

TOKEN_LOST: Final = 75
"""EX_TEMPFAIL; the command was not run and never will be by this shim."""
IO_ERROR: Final = 74
NOT_FOUND: Final = 127
NOT_EXECUTABLE: Final = 126
COOKIE: Final = "DAYLILY_JOB_DIRECTORY"
"""Set for the command and so for all its descendants: tells whose they are when the shim is gone."""
LINGER_S: Final = 0.5
"""What the command left behind may end by itself for so long: a ``tee`` that still flushes."""
KILL_AGAIN_S: Final = 0.05
LOOK_AGAIN_S: Final = 60.0  # should a wake-up ever be lost
RETRY_RECORD_S: Final = 1.0
GAP: Final = b"\ndaylily: %d bytes of output could not be written here\n"
PIPE_READS: Final = 32  # of 64 KiB each: more than any pipe can hold
PR_SET_CHILD_SUBREAPER: Final = 36
IGNORED: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ)

Record = dict[str, Any]
Announce = Callable[[int], None]


def boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def stat_fields(pid: int) -> list[str]:
    """Return ``/proc/PID/stat`` from the state on; the name before it may hold any character."""
    with open(f"/proc/{pid}/stat", errors="replace") as file:
        return file.read().rpartition(")")[2].split()


def identity(pid: int) -> Record:
    return {"boot_id": boot_id(), "pid": pid, "start_time": int(stat_fields(pid)[19])}


def wall_time() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def write_whole(path: str, record: Record) -> None:
    """Write and fsync a private file; one that is there keeps its room on the disk meanwhile."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as file:
        json.dump(record, file)
        file.truncate()
        os.fsync(file.fileno())


def fsync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def win_token(directory: str, shim: Record) -> bool:
    """Return whether this shim is the one that may run the command."""
    draft = os.path.join(directory, f"token.{shim['pid']}.tmp")
    try:
        write_whole(draft, {"state": "started", **shim, "at": wall_time()})
        os.link(draft, os.path.join(directory, "token"))
    except FileExistsError:
        return False
    finally:
        with suppress(OSError):
            os.unlink(draft)
    with suppress(OSError):  # it is won: an error now must not keep the command from running
        fsync_directory(directory)
    return True


def oom_counter(cgroup_file: str = "/proc/self/cgroup", root: str = "/sys/fs/cgroup") -> str:
    """Return the file that counts kills for memory: of this cgroup, or else of the machine."""
    with suppress(OSError), open(cgroup_file) as file:
        path = next((line[3:].strip() for line in file if line.startswith("0::")), "")
        if os.path.exists(f"{root}{path}/memory.events"):
            return f"{root}{path}/memory.events"
    return "/proc/vmstat"


def oom_kills(counter: str) -> int | None:
    """Return how many processes the kernel has killed for memory, None if unknown."""
    with suppress(OSError, ValueError, KeyError), open(counter) as file:
        return int(dict(line.split() for line in file)["oom_kill"])
    return None


def be_killed_like_others(path: str = "/proc/self/oom_score_adj") -> None:
    """Give up what spares the daemon when memory runs out: it must not spare the job too."""
    with suppress(OSError, ValueError), open(path, "r+") as file:
        if int(file.read()) < 0:
            file.write("0\n")


def verdict(status: int, stopped_as: str | None, out_of_memory: bool) -> tuple[str, int | None]:
    """Return ``ended`` (a value of ``domain.model.Ended``) and ``code`` for a wait status."""
    code = os.waitstatus_to_exitcode(status)
    if stopped_as is not None:
        return stopped_as, code if code >= 0 else None
    # a shell whose child was killed says 128 + 9, which counts like the kill itself
    if out_of_memory and code in (-signal.SIGKILL, 128 + signal.SIGKILL):
        return "out_of_memory", None
    return ("signalled", -code) if code < 0 else ("exited", code)


def descendants() -> list[int]:
    """Return every process below this one, parents first."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError):  # it ended meanwhile
                children.setdefault(int(stat_fields(int(name))[1]), []).append(int(name))
    found = list(children.get(os.getpid(), ()))
    for pid in found:
        found.extend(children.get(pid, ()))
    return found


def signal_tree(*signals: int) -> None:
    with suppress(OSError):  # where /proc cannot be read now, the next round ends them
        for pid in descendants():
            for signum in signals:
                with suppress(OSError):  # it ended meanwhile, or became another user's
                    os.kill(pid, signum)


class Log:
    """A log of at most ``limit_bytes`` in two files. Never raises: what cannot be written is counted."""

    def __init__(self, directory: str, limit_bytes: int) -> None:
        self.path = os.path.join(directory, "log")
        self.half_bytes = max(limit_bytes // 2, 1)
        self.dropped_bytes = self.gap_bytes = 0
        self.fd: int | None = None
        self.size_bytes = 0

    def write(self, data: bytes) -> None:
        if self.gap_bytes and not self._append(GAP % self.gap_bytes):
            self.gap_bytes = 0
        missing_bytes = self._append(data)
        self.gap_bytes += missing_bytes
        self.dropped_bytes += missing_bytes

    def _append(self, data: bytes) -> int:
        """Return how many of the bytes could not be written."""
        with suppress(OSError):
            while data:
                data = data[self._write_some(data) :]
        return len(data)

    def _write_some(self, data: bytes) -> int:
        if self.fd is not None and self.size_bytes >= self.half_bytes:
            self._rotate(self.fd)
        written = os.write(self.open(), data[: self.half_bytes - self.size_bytes])
        self.size_bytes += written
        return written

    def open(self) -> int:
        if self.fd is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self.fd = os.open(self.path, flags, 0o600)
        return self.fd

    def _rotate(self, fd: int) -> None:
        os.replace(self.path, f"{self.path}.1")
        self.fd = None
        self.size_bytes = 0
        os.close(fd)


class Signals:
    """SIGTERM as a flag and SIGCHLD as a wake-up, both readable from ``fd``."""

    def __init__(self) -> None:
        self.stop_requested = False
        self.fd, wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        for signum in IGNORED:
            signal.signal(signum, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._request_stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def _request_stop(self, *_: object) -> None:
        self.stop_requested = True


def become_command(spec: Record, gate: int, output: int, failure: int) -> NoReturn:
    """Turn this forked child into the command, or write to ``failure`` why that cannot be."""
    code = if_missing = NOT_EXECUTABLE
    what = f"cannot enter the directory {spec['cwd']}"
    try:
        if not os.read(gate, 1):  # the shim died before running.json was there
            os._exit(code)
        detach_from_shim(output)
        os.makedirs(spec["cwd"], exist_ok=True)
        os.chdir(spec["cwd"])
        what, if_missing = f"cannot run {spec['argv'][0]}", NOT_FOUND
        os.execvpe(spec["argv"][0], spec["argv"], command_environment(spec))
    except (OSError, ValueError) as exc:
        code = if_missing if isinstance(exc, FileNotFoundError) else NOT_EXECUTABLE
        reason = exc.strerror if isinstance(exc, OSError) else str(exc)
        os.write(failure, f"daylily: {what}: {reason}\n".encode(errors="replace"))
    finally:
        os._exit(code)


def detach_from_shim(output: int) -> None:
    """Leave the shim's session, streams and signal dispositions."""
    os.setsid()
    for signum in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(signum, signal.SIG_DFL)  # a shell may have had us started with some ignored
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.dup2(output, 1)
    os.dup2(output, 2)


def command_environment(spec: Record) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"}
    return {**kept, **spec["environment"], COOKIE: spec["directory"]}


class Run:
    """One command and everything below it, from the fork to the last descendant."""

    def __init__(self, spec: Record, signals: Signals) -> None:
        self.spec = spec
        self.signals = signals
        self.shim = identity(os.getpid())
        self.pipes = [os.pipe2(os.O_CLOEXEC) for _ in range(3)]
        self.log = Log(spec["directory"], spec["log_limit_bytes"])
        self.output: int | None = None
        self.pid = 0
        self.status: int | None = None
        self.stopped_as: str | None = None
        self.kill_at: float | None = None
        self.linger_until = 0.0
        self.oom_counter = oom_counter()
        self.oom_kills_before = oom_kills(self.oom_counter)
        self.childless = self.out_of_memory = False
        self.started_at = self.ended_at = wall_time()
        self.started = self.ended = time.monotonic()  # noqa: TID251  no event loop here

    def start(self) -> None:
        """Fork the command; return once it was executed, or its failure is in the log."""
        (gate, open_gate), (self.output, output), (failure, report_failure) = self.pipes
        with suppress(OSError):  # so that whoever looks finds a log, be it empty
            self.log.open()
        self.pid = self._fork()
        if self.pid == 0:
            os.close(open_gate)
            become_command(self.spec, gate, output, report_failure)
        for fd in (output, report_failure):
            os.close(fd)
        self._note_running()
        os.write(open_gate, b"!")
        self.log.write(os.read(failure, 4096))
        for fd in (gate, open_gate, failure):
            os.close(fd)

    def _fork(self) -> int:
        """Return as ``os.fork`` does, or -1 where the machine has no room for another process."""
        try:
            return os.fork()
        except OSError as exc:
            self.log.write(f"daylily: cannot fork: {exc.strerror}\n".encode())
            return -1

    def _note_running(self) -> None:
        path = os.path.join(self.spec["directory"], "running.json")
        try:  # not durable: it is about this boot only; and COOKIE says the same where it is missing
            with open(f"{path}.tmp", "w") as file:
                json.dump(identity(self.pid), file)
            os.replace(f"{path}.tmp", path)
        except OSError as exc:
            self.log.write(f"daylily: cannot write {path}: {exc.strerror}\n".encode())

    def supervise(self) -> None:
        """Return once nothing of the job runs any more."""
        while not self.childless:
            self._wait_for_something()
            self._reap()
            self._advance(time.monotonic())  # noqa: TID251
        for _ in range(PIPE_READS):
            if not self._drain():
                break
        self.log.write(b"")  # what is missing at its end

    def _wait_for_something(self) -> None:
        poll = select.poll()
        poll.register(self.signals.fd, select.POLLIN)
        if self.output is not None:
            poll.register(self.output, select.POLLIN)
        wait_s = self._deadline() - time.monotonic()  # noqa: TID251
        for fd, _ in poll.poll(min(max(wait_s, 0.0), LOOK_AGAIN_S) * 1000 + 1):
            if fd == self.signals.fd:
                os.read(self.signals.fd, 4096)
            else:
                self._drain()

    def _deadline(self) -> float:
        if self.kill_at is not None:
            return self.kill_at
        if self.status is not None:
            return self.linger_until
        return self.started + float(self.spec["timeout_s"])

    def _drain(self) -> bool:
        """Move one piece of output into the log; return whether there may be more right now."""
        if self.output is None or not select.select([self.output], [], [], 0)[0]:
            return False
        data = os.read(self.output, 65536)
        if not data:
            os.close(self.output)
            self.output = None
        self.log.write(data)
        return bool(data)

    def _reap(self) -> None:
        try:
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                if found[0] == self.pid:
                    self._note_end(found[1])
        except ChildProcessError:
            self.childless = True

    def _note_end(self, status: int) -> None:
        self.status = status
        self.ended_at, self.ended = wall_time(), time.monotonic()  # noqa: TID251
        self.linger_until = self.ended + LINGER_S
        before, now = self.oom_kills_before, oom_kills(self.oom_counter)
        self.out_of_memory = before is not None and now is not None and now > before

    def _advance(self, now: float) -> None:
        if self.childless:
            return
        if self.kill_at is not None:
            if now >= self.kill_at:
                signal_tree(signal.SIGKILL)
                self.kill_at = now + KILL_AGAIN_S
        elif self.signals.stop_requested:
            self._ask_to_end("stopped", now)
        elif now >= self._deadline():
            self._ask_to_end("timed_out", now)

    def _ask_to_end(self, reason: str, now: float) -> None:
        """TERM now and KILL after the grace period; ``reason`` counts only while the command runs."""
        if self.status is None:
            self.stopped_as = reason
        self.kill_at = now + float(self.spec["grace_s"])
        signal_tree(signal.SIGTERM, signal.SIGCONT)

    def record(self) -> Record:
        spec = self.spec
        success_file = spec["success_file"]
        found = os.path.exists(os.path.join(spec["cwd"], success_file)) if success_file else None
        status = NOT_EXECUTABLE << 8 if self.status is None else self.status
        ended, code = verdict(status, self.stopped_as, self.out_of_memory)
        return {
            "name": spec["name"],
            "ended": ended,
            "code": code,
            "success_file_found": found,
            "started_at": self.started_at,
            "ended_at": self.ended_at,
            "duration_s": round(self.ended - self.started, 3),
            "dropped_log_bytes": self.log.dropped_bytes,
            "command_pid": self.pid,
            "shim": self.shim,
        }


def reserve_record(directory: str) -> None:
    """Take the room that the record will need: until the job ends, its output may fill the disk."""
    with suppress(OSError):
        write_whole(os.path.join(directory, "exit.json.tmp"), {"room": " " * 4096})


def put_record(directory: str, record: Record) -> None:
    """Write ``exit.json``, however long it takes; give up only where the directory was removed."""
    path = os.path.join(directory, "exit.json")
    while True:
        try:
            write_whole(f"{path}.tmp", record)
            os.replace(f"{path}.tmp", path)
            return fsync_directory(directory)
        except OSError as exc:
            if isinstance(exc, FileNotFoundError) and not os.path.isdir(directory):
                return None
            time.sleep(RETRY_RECORD_S)


def serve(spec: Record, announce: Announce) -> int:
    """Be the shim of one job; the return value is the exit code of this process."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    be_killed_like_others()
    run = Run(spec, Signals())
    if not win_token(spec["directory"], run.shim):
        announce(TOKEN_LOST)
        return TOKEN_LOST
    reserve_record(spec["directory"])
    run.start()
    announce(0)
    run.supervise()
    put_record(spec["directory"], run.record())
    return 0


def notify_systemd(code: int) -> None:
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address and not code:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, suppress(OSError):
            notify.sendto(b"READY=1", "\0" + address[1:] if address[0] == "@" else address)


def keep_only(*kept: int) -> None:
    """Close every inherited descriptor but these; the streams among the rest become /dev/null."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in {0, 1, 2}.difference(kept):
        os.dup2(null, fd)
        os.set_inheritable(fd, True)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in kept:
            with suppress(OSError):  # the descriptor of the listing itself
                os.close(int(name))


def detach(spec: Record) -> int:
    """Serve in a child that is a session of its own; return what that child announces."""
    answer, tell = os.pipe2(os.O_CLOEXEC)
    if os.fork():
        os.close(tell)
        told = os.read(answer, 1)
        return told[0] if told else IO_ERROR
    os.setsid()
    keep_only(2, tell)

    def announce(code: int) -> None:
        with suppress(OSError):  # a caller that gave up reads no answer; the job goes on
            os.write(tell, bytes([code]))
        os.close(tell)
        os.dup2(0, 2)  # the caller waits for the end of its stderr

    return serve(spec, announce)


def main(arguments: list[str]) -> int:
    directory = os.path.abspath(arguments[-1])
    try:
        with open(os.path.join(directory, "spec.json")) as file:
            spec: Record = {**json.load(file), "directory": directory}
        os.chdir("/")
        if arguments[0] != "--foreground":
            return detach(spec)
        keep_only(1, 2)
        return serve(spec, notify_systemd)
    except (OSError, ValueError) as exc:
        sys.stderr.write(f"The shim of {directory} cannot go on: {exc}\n")
        return IO_ERROR


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
