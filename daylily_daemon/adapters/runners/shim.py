"""The process between the daemon and a job: ``python -IS shim.py [--foreground] JOBDIR``.

The only witness of how a command ended, so it outlives the daemon and imports nothing but the standard
library: no upgrade pulls the ground from under it. It holds its directory, wherever that is moved.

**The token decides.** ``JOBDIR/token`` is made by ``link()`` of a complete file, so one party alone creates
it: the shim as ``started``, or it ends having done nothing; who gives up an attempt as ``revoked``. Its nonce
says whose it is, not the answer of ``link()``. It keeps what of the spec tells how to read the end.
**The record is never lost.** ``exit.json`` appears by rename after fsync, once nothing of the job runs.
Room for it is taken at the start, and what fails is tried again. An unwritable log costs lines, not the job.
**The whole tree is the job.** The shim reaps every descendant, also those that left session and process
group. What the command has left behind when it ends is ended too, and named.

The caller gets 0 once the command was executed (or refused by the kernel), 75 when the token was lost, 74
when something kept the shim from starting. With ``--foreground`` it gets READY=1, and how the command ended.
"""

import ctypes
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NoReturn

IO_ERROR, TOKEN_LOST = 74, 75  # EX_IOERR, EX_TEMPFAIL
NOT_EXECUTABLE, NOT_FOUND = 126, 127
MARK: Final = "DAYLILY_JOB"  # of all descendants: tells whose they are when the shim is gone
PLACE: Final = "DAYLILY_JOB_DIRECTORY"  # as it was at the start; the mark of earlier versions
SHIM_MARK: Final = "DAYLILY_SHIM"  # of the shim alone, set by the launcher
VIEW_MARK: Final = "DAYLILY_VIEW"  # of what shows logs to people, never of a job
OURS: Final = (MARK, SHIM_MARK, VIEW_MARK, "NOTIFY_SOCKET")
NEEDED: Final = ("name", "argv", "environment", "cwd", "timeout_s", "grace_s", "log_limit_bytes")
NOT_KEPT: Final = ("argv", "environment", "directory")  # of the spec, in the token
NAMED: Final = 10
LINGER_S: Final = 0.5  # what was left behind may end by itself: a ``tee`` that still flushes
KILL_AGAIN_S: Final = 0.05
LOOK_AGAIN_S: Final = 60.0  # should a wake-up ever be lost
RETRY_RECORD_S: Final = 1.0
GAP: Final = b"\ndaylily: %d bytes of output could not be written here\n"
PIPE_READS: Final = 32  # of 64 KiB each: more than any pipe can hold
IGNORED: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ)

Record = dict[str, Any]


def boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def stat_fields(pid: int) -> list[str]:
    """Return ``/proc/PID/stat`` from the state on; the name before it may hold any character."""
    with open(f"/proc/{pid}/stat", errors="replace") as file:
        return file.read().rpartition(")")[2].split()


def identity(pid: int) -> Record:
    known = {"boot_id": boot_id(), "pid": pid, "start_time": int(stat_fields(pid)[19])}
    return {**known, "pid_ns": os.readlink("/proc/self/ns/pid")}


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


def win_token(spec: Record, shim: Record) -> bool:
    """Return whether this shim is the one that may run the command."""
    path, nonce = os.path.join(spec["directory"], "token"), os.urandom(16).hex()
    draft = f"{path}.{nonce}.tmp"
    kept = {"nonce": nonce, "spec": {name: spec[name] for name in spec if name not in NOT_KEPT}}
    try:
        write_whole(draft, {"state": "started", **shim, "at": wall_time(), **kept})
        os.link(draft, path)
    except OSError as exc:
        with suppress(OSError, ValueError), open(path) as file:
            if nonce in file.read():
                return True
        if isinstance(exc, FileExistsError):
            return False
        raise
    finally:
        with suppress(OSError):
            os.unlink(draft)
    with suppress(OSError):  # it is won: an error now must not keep the command from running
        fsync_directory(spec["directory"])
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


def used(counter: str, alone: bool) -> Record:
    """Return what the descendants that ended used; the peak of the largest where no cgroup is theirs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = {
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_bytes": usage.ru_maxrss * 1024,
    }
    with suppress(OSError, ValueError), open(counter.replace("events", "peak") * alone) as file:
        found["peak_bytes"] = int(file.read())
    return found


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
    if out_of_memory and code in (-signal.SIGKILL, 128 + signal.SIGKILL):  # that from a shell
        return "out_of_memory", None
    return ("signalled", -code) if code < 0 else ("exited", code)


def descendants() -> list[int]:
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError):  # it ended meanwhile
                children.setdefault(int(stat_fields(int(name))[1]), []).append(int(name))
    found = list(children.get(os.getpid(), ()))
    for pid in found:
        found.extend(children.get(pid, ()))
    return found


def described(pid: int) -> str:
    """Return name and number of a process, empty once it has ended."""
    with suppress(OSError), open(f"/proc/{pid}/comm", errors="replace") as file:
        name = "".join(c if "!" <= c <= "~" else "?" for c in file.read().rstrip("\n"))
        return "" if stat_fields(pid)[0] in "ZX" else f"{name} ({pid})"
    return ""


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
                if self.fd is not None and self.size_bytes >= self.half_bytes:
                    os.replace(self.path, f"{self.path}.1")
                    os.close(self.fd)
                    self.fd, self.size_bytes = None, 0
                written = os.write(self.open(), data[: self.half_bytes - self.size_bytes])
                self.size_bytes += written
                data = data[written:]
        return len(data)

    def open(self) -> int:
        if self.fd is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self.fd = os.open(self.path, flags, 0o600)
        return self.fd


class Signals:
    """SIGTERM as a flag and SIGCHLD as a wake-up, both readable from ``fd``."""

    def __init__(self) -> None:
        self.stop_requested = False
        self.fd, wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        for signum in IGNORED:
            signal.signal(signum, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "stop_requested", True))
        signal.signal(signal.SIGCHLD, lambda *_: None)


def become_command(spec: Record, gate: int, output: int, failure: int) -> NoReturn:
    """Turn this forked child into the command, or write to ``failure`` why that cannot be."""
    code = if_missing = NOT_EXECUTABLE
    what = f"cannot enter the directory {spec['cwd']}"
    try:
        if not os.read(gate, 1):  # the shim died before running.json was there
            os._exit(code)
        os.setsid()  # and leave the signals and the streams of the shim, too
        for signum in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(signum, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.dup2(output, 1)
        os.dup2(output, 2)
        if spec["cwd"]:
            os.makedirs(spec["cwd"], exist_ok=True)
        os.chdir(spec["cwd"] or spec["directory"])
        what, if_missing = f"cannot run {spec['argv'][0]}", NOT_FOUND
        kept = {name: value for name, value in os.environ.items() if name not in OURS}
        marks = {PLACE: spec["path"], MARK: spec.get("mark", "")}
        os.execvpe(spec["argv"][0], spec["argv"], {**kept, **spec["environment"], **marks})
    except (OSError, ValueError) as exc:
        code = if_missing if isinstance(exc, FileNotFoundError) else NOT_EXECUTABLE
        reason = exc.strerror if isinstance(exc, OSError) else str(exc)
        os.write(failure, f"daylily: {what}: {reason}\n".encode(errors="replace"))
    finally:
        os._exit(code)


class Supervised:
    """One command and everything below it, from the fork to the last descendant."""

    def __init__(self, spec: Record, signals: Signals) -> None:
        self.spec, self.signals = spec, signals
        self.shim = identity(os.getpid())
        self.pipes = [os.pipe2(os.O_CLOEXEC) for _ in range(3)]
        self.log = Log(spec["directory"], spec["log_limit_bytes"])
        self.output: int | None = None
        self.pid, self.childless = 0, False
        self.status: int | None = None
        self.stopped_as: str | None = None
        self.kill_at: float | None = None
        self.oom_counter = oom_counter()
        self.oom_kills_before = oom_kills(self.oom_counter)
        self.memory_kills: int | None = None
        self.left_behind: list[str] = []
        self.started_at = self.ended_at = wall_time()
        self.started = self.ended = time.monotonic()  # noqa: TID251  no event loop here

    def start(self) -> None:
        """Fork the command; return once it was executed, or its failure is in the log."""
        (gate, open_gate), (self.output, output), (failure, report_failure) = self.pipes
        with suppress(OSError):  # so that whoever looks finds a log, be it empty
            self.log.open()
        try:
            self.pid = os.fork()
        except OSError as exc:  # no room for another process
            self.pid = -1
            self.log.write(f"daylily: cannot fork: {exc.strerror}\n".encode())
        if self.pid == 0:
            os.close(open_gate)
            become_command(self.spec, gate, output, report_failure)
        os.close(output)
        os.close(report_failure)
        running = os.path.join(self.spec["directory"], "running.json")
        with suppress(OSError):  # MARK says the same where it is missing
            write_whole(f"{running}.tmp", identity(self.pid))
            os.replace(f"{running}.tmp", running)
        with suppress(BrokenPipeError):  # it was killed meanwhile, and its end will be reaped
            os.write(open_gate, b"!")
        self.log.write(os.read(failure, 4096))
        for fd in (gate, open_gate, failure):
            os.close(fd)

    def supervise(self) -> None:
        """Return once nothing of the job runs any more."""
        while not self.childless:
            self._wait_for_something()
            self._reap()
            if not self.childless:
                self._advance(time.monotonic())  # noqa: TID251
        for _ in range(PIPE_READS):
            if not self._drain():
                break
        self.log.write(b"")  # what is missing at its end

    def _wait_for_something(self) -> None:
        wait_s = min(self._deadline() - time.monotonic(), LOOK_AGAIN_S)  # noqa: TID251
        heard = [fd for fd in (self.signals.fd, self.output) if fd is not None]
        ready = select.select(heard, [], [], max(wait_s, 0.0) + 0.001)[0]
        if self.signals.fd in ready:
            os.read(self.signals.fd, 4096)
        if self.output in ready:
            self._drain()

    def _deadline(self) -> float:
        if self.kill_at is not None:
            return self.kill_at
        if self.status is not None:
            return self.ended + LINGER_S
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
                    self.status = found[1]
                    self.ended_at, self.ended = wall_time(), time.monotonic()  # noqa: TID251
                    before, now = self.oom_kills_before, oom_kills(self.oom_counter)
                    self.memory_kills = None if before is None or now is None else now - before
        except ChildProcessError:
            self.childless = True

    def _advance(self, now: float) -> None:
        if self.kill_at is not None:
            if now >= self.kill_at:
                signal_tree(signal.SIGKILL)
                self.kill_at = now + KILL_AGAIN_S
        elif self.signals.stop_requested:
            self._ask_to_end("stopped", now)
        elif now >= self._deadline():
            self._ask_to_end("timed_out", now)

    def _ask_to_end(self, reason: str, now: float) -> None:
        if self.status is None:
            self.stopped_as = reason
        else:
            self._note_left_behind()
        self.kill_at = now + float(self.spec["grace_s"])
        signal_tree(signal.SIGTERM, signal.SIGCONT)

    def _note_left_behind(self) -> None:
        with suppress(OSError):
            self.left_behind = [text for text in map(described, descendants()) if text]
        if self.left_behind:
            names = ", ".join(self.left_behind[:NAMED]) + ", ..." * (len(self.left_behind) > NAMED)
            said = f"{len(self.left_behind)} processes left in the background were ended"
            self.log.write(f"daylily: {said}: {names}\n".encode())

    def record(self) -> Record:
        spec, success_file = self.spec, self.spec.get("success_file")
        place = os.path.join(spec["cwd"] or spec["directory"], success_file or "")  # it may hang
        status = NOT_EXECUTABLE << 8 if self.status is None else self.status
        ended, code = verdict(status, self.stopped_as, bool(self.memory_kills))
        usage = used(self.oom_counter, spec.get("alone", False))
        return {
            "name": spec["name"],
            "ended": ended,
            "code": code,
            "success_file_found": os.path.exists(place) if success_file else None,
            "started_at": self.started_at,
            "ended_at": self.ended_at,
            "duration_s": round(self.ended - self.started, 3),
            "dropped_log_bytes": self.log.dropped_bytes,
            "usage": {**usage, "memory_kills": self.memory_kills},
            "left_behind": len(self.left_behind),
            "left_behind_names": self.left_behind[:NAMED],
            "shim": self.shim,
        }


def put_record(directory: str, record: Record) -> None:
    """Write ``exit.json``, however long it takes; give up only where the directory was removed."""
    path = os.path.join(directory, "exit.json")
    while True:
        try:
            write_whole(f"{path}.tmp", record)
            os.replace(f"{path}.tmp", path)
            return fsync_directory(directory)
        except OSError as exc:
            there = os.path.isdir(directory) and os.stat(directory).st_nlink  # 0: removed, but held
            if isinstance(exc, FileNotFoundError) and not there:
                return None
            time.sleep(RETRY_RECORD_S)


def serve(spec: Record, announce: Callable[[int], None]) -> int:
    """Be the shim of one job; return the exit code of this process."""
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    be_killed_like_others()
    run = Supervised(spec, Signals())
    if not win_token(spec, run.shim):
        announce(TOKEN_LOST)
        return TOKEN_LOST
    with suppress(OSError):  # room for the record: until the job ends, its output may fill the disk
        write_whole(f"{spec['directory']}/exit.json.tmp", {"room": " " * 4096})
    run.start()
    announce(0)
    run.supervise()
    record = run.record()
    put_record(spec["directory"], record)
    code = int(record["code"] or 0)
    return {"exited": code, "signalled": 128 + code}.get(record["ended"], code or 143)


def notify_systemd(code: int) -> None:
    if (address := os.environ.get("NOTIFY_SOCKET", "")) and not code:
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


def detach(spec: Record, directory: int) -> int:
    """Serve in a child that is a session of its own; return what that child announces."""
    answer, tell = os.pipe2(os.O_CLOEXEC)
    if os.fork():
        os.close(tell)
        return (os.read(answer, 1) or bytes([IO_ERROR]))[0]
    os.setsid()
    keep_only(2, tell, directory)

    def announce(code: int) -> None:
        with suppress(OSError):  # a caller that gave up reads no answer; the job goes on
            os.write(tell, bytes([code]))
        os.close(tell)
        os.dup2(0, 2)  # the caller waits for the end of its stderr

    return serve(spec, announce)


def main(arguments: list[str]) -> int:
    path = os.path.abspath(arguments[-1])
    try:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        held = f"/proc/self/fd/{directory}"  # good wherever it is moved
        with open(f"{held}/spec.json") as file:
            alone = arguments[0] == "--foreground"  # in a unit, and a cgroup, of its own
            spec: Record = {**json.load(file), "path": path, "directory": held, "alone": alone}
        if missing := [name for name in NEEDED if name not in spec]:
            raise ValueError(f"spec.json lacks {', '.join(missing)}")  # noqa: TRY301
        os.chdir("/")
        if not alone:
            return detach(spec, directory)
        keep_only(1, 2, directory)
        return serve(spec, notify_systemd)
    except (OSError, TypeError, ValueError) as exc:
        for place in (sys.stderr.fileno(), f"{path}/log"):
            with suppress(OSError), open(place, "a", closefd=isinstance(place, str)) as file:
                file.write(f"daylily: The shim of {path} cannot go on: {exc}\n")
        return IO_ERROR


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
