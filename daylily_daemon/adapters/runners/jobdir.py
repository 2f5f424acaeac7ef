"""The directory of one job: what the runner writes for the shim, and reads of what the shim wrote.

Everything blocks, and every foreign error leaves as Transient: a file that cannot be read says nothing
about the job.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any, Final

from daylily_daemon.adapters.runners import procfs, shim
from daylily_daemon.adapters.runners.procfs import Identity
from daylily_daemon.adapters.runners.remains import Group
from daylily_daemon.adapters.smallfile import contents
from daylily_daemon.domain.errors import Transient
from daylily_daemon.domain.model import Ended, Job, JobUsage

LAYOUT: Final = 3
"""Parts of a job's folder below the jobs folder: workset, run, attempt and step."""
MOST_BYTES: Final = 8 * 1024 * 1024
"""Of one record: more than arguments and environment of a command can be (a quarter of an 8 MiB stack)."""
DIGITS: Final = 20
"""Of a number in a record: an inode has no more, and DynamoDB takes 38."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What was stored when the job was started: how its end is to be read, whatever pipelines say now."""

    key: str = ""
    """Of the attempt it was started for; empty if an earlier version started it."""
    cwd: str = ""
    success_file: str = ""
    report_file: str = ""
    progress_pattern: str = ""
    grace_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Started:
    """The shim won the token: the command runs, ran, or is about to."""

    shim: Identity
    terms: Terms = Terms()
    machine: str = ""
    """Where; empty if an earlier version started it."""
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Revoked:
    """Somebody else won the token: the command never runs."""


Token = Started | Revoked


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitRecord:
    """What the shim has left about the end of a job."""

    ended: Ended
    code: int | None
    success_file_found: bool | None
    duration_s: float
    boot_id: str
    asked_to_stop: bool
    """A stop was asked for by us, which tells it from one by a machine that goes down."""
    left_behind: int = 0
    left_behind_names: tuple[str, ...] = ()
    dropped_log_bytes: int = 0
    usage: JobUsage | None = None


class JobDirectory:
    """Methods raise Transient where the directory cannot be read or written."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)

    def prepare(self, job: Job, mark: str, machine: str) -> None:
        """Create the directory, private, and write what the shim has to know."""
        with _errors_as_transient(self.path):
            os.makedirs(self.path, 0o700, exist_ok=True)
            origin = {"mark": mark, "machine": machine}
            os.replace(self._draft({**_spec(job), **origin}), self._file("spec.json"))

    def token(self) -> Token | None:
        """Return who has won the token, None while it is free."""
        record = self._read("token")
        if record is None:
            return None
        with self._as_unreadable("token"):
            if record["state"] == "revoked":
                return Revoked()
            stored = record["spec"] if "spec" in record else self._read("spec.json") or {}
            machine, mark = (str(stored.get(name) or "") for name in ("machine", "mark"))
            return Started(Identity.parse(record), _terms(stored, self.path), machine, mark)

    def revoke(self) -> Token:
        """Win the token against the shim if it is still free; return whose it is now. Durable."""
        while (token := self.token()) is None:
            self._try_to_revoke()
        if isinstance(token, Revoked):  # maybe by a try whose sync failed
            with _errors_as_transient(self.path):
                shim.fsync_directory(self.path)
        return token

    def _try_to_revoke(self) -> None:
        """Make the token; the answer of ``link`` counts for nothing, since the token is read afterwards."""
        with _errors_as_transient(self.path):
            os.makedirs(self.path, 0o700, exist_ok=True)
            draft = self._draft({"state": "revoked", "nonce": os.urandom(16).hex()})
            try:
                with suppress(FileExistsError):
                    os.link(draft, self._file("token"))
            finally:
                os.unlink(draft)

    def note_group(self, group: Group | None) -> None:
        """Keep the control group of the shim, by which the end of all it started can be proved."""
        if group is not None and not os.path.exists(self._file("group.json")):
            with suppress(OSError):
                os.replace(self._draft(asdict(group)), self._file("group.json"))

    def group(self) -> Group | None:
        record = self._read("group.json")
        if record is None:
            return None
        with self._as_unreadable("group.json"):
            return Group.parse(record)

    def note_stop(self) -> None:
        """Leave a mark that a stop was asked for; helps only to explain, so a full disk is no error."""
        with suppress(OSError), open(self._file("stop"), "ab"):
            pass

    def command(self) -> Identity | None:
        """Return the identity of the command, None if it was not executed or not noted."""
        record = self._read("running.json")
        if record is None:
            return None
        with self._as_unreadable("running.json"):
            return Identity.parse(record)

    def has_record(self) -> bool:
        return self._read("exit.json") is not None

    def has_ended(self) -> bool:
        """Tell whether the log is complete: recorded, revoked, or the shim that wrote it is gone."""
        token = self.token()
        if token is None:
            return False
        if isinstance(token, Revoked) or self.has_record():
            return True
        with _errors_as_transient("/proc"):
            return token.shim.boot_id != shim.boot_id() or not procfs.is_alive(token.shim)

    def record(self) -> ExitRecord | None:
        """Return what the shim recorded about the end, None while there is no record."""
        record = self._read("exit.json")
        if record is None:
            return None
        with self._as_unreadable("exit.json"):
            found = record["success_file_found"]
            return ExitRecord(
                ended=Ended(record["ended"]),
                code=None if record["code"] is None else int(record["code"]),
                success_file_found=None if found is None else bool(found),
                duration_s=float(record["duration_s"]),
                boot_id=Identity.parse(record["shim"]).boot_id,
                asked_to_stop=os.path.exists(self._file("stop")),
                left_behind=int(record.get("left_behind") or 0),
                left_behind_names=tuple(map(str, record.get("left_behind_names") or ())),
                dropped_log_bytes=int(record.get("dropped_log_bytes") or 0),
                usage=_usage(record.get("usage")),
            )

    def _file(self, name: str) -> str:
        return os.path.join(self.path, name)

    def _draft(self, record: Mapping[str, Any]) -> str:
        """Return the path of a complete, durable file, to be linked or renamed into its place."""
        fd, path = tempfile.mkstemp(dir=self.path, prefix="draft.", suffix=".tmp")
        try:
            with os.fdopen(fd, "w") as file:
                json.dump(record, file)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            os.unlink(path)
            raise
        return path

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            data = contents(self._file(name), MOST_BYTES)
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise _unusable(self._file(name), exc) from exc
        with self._as_unreadable(name):
            return dict(json.loads(data, parse_int=_whole, parse_float=_real, parse_constant=_real))

    @contextmanager
    def _as_unreadable(self, name: str) -> Iterator[None]:
        try:
            yield
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as exc:
            raise Transient(
                f"{self._file(name)} is not the record of a job that it should be ({exc!r}). "
                "Find out what changed it; the job counts as running until it is readable again."
            ) from exc


def _whole(digits: str) -> int:
    if len(digits) > DIGITS:
        raise ValueError("a number of too many digits")
    return int(digits)


def _real(digits: str) -> float:
    number = float(digits)
    if not abs(number) < 10.0**DIGITS:  # NaN, too
        raise ValueError("a number that is none, or too large")
    return number


def root_of(directory: str) -> str:
    """Return the folder of all jobs in which the folder of one lies."""
    return os.path.abspath(os.path.join(directory, *[os.pardir] * LAYOUT))


def moved_to(root: str, directory: str) -> str:
    """Return where a job's folder is if the folder of all jobs is at ``root`` now.

    An item keeps the path of its start; the workset, run, attempt and step at its end stay as they are.
    """
    return os.path.join(root, *os.path.abspath(directory).split(os.sep)[-LAYOUT:])


def lies_in(root: str, directory: str) -> bool:
    return os.path.commonpath([root, os.path.abspath(directory)]) == root


def _spec(job: Job) -> dict[str, Any]:
    return {
        "name": job.name,
        "key": job.key,
        "argv": list(job.argv),
        "environment": dict(job.environment),
        "cwd": job.cwd,
        "timeout_s": job.timeout_s,
        "grace_s": job.grace_s,
        "success_file": job.success_file,
        "report_file": job.report_file,
        "progress_pattern": job.progress_pattern,
        "log_limit_bytes": job.log_limit_bytes,
    }


def _usage(record: Mapping[str, Any] | None) -> JobUsage | None:
    if record is None:
        return None
    cpu_s, peak_bytes, kills = (record.get(n) for n in ("cpu_s", "peak_bytes", "memory_kills"))
    return JobUsage(
        cpu_s=None if cpu_s is None else float(cpu_s),
        peak_bytes=None if peak_bytes is None else int(peak_bytes),
        memory_kills=None if kills is None else int(kills),
    )


def _terms(stored: Mapping[str, Any], directory: str) -> Terms:
    """Raises TypeError or ValueError."""
    return Terms(
        key=str(stored.get("key") or ""),
        cwd=str(stored.get("cwd") or directory),
        success_file=str(stored.get("success_file") or ""),
        report_file=str(stored.get("report_file") or ""),
        progress_pattern=str(stored.get("progress_pattern") or ""),
        grace_s=float(stored.get("grace_s", 30.0)),
    )


@contextmanager
def _errors_as_transient(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise _unusable(path, exc) from exc


def _unusable(path: str, exc: OSError) -> Transient:
    return Transient(
        f"{exc.filename or path} cannot be used: {exc.strerror}. "
        "Check the disk and the permissions of the daemon; it will try again."
    )
