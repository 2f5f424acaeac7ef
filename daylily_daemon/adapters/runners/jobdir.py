"""The directory of one job: what the runner writes for the shim, and reads of what the shim wrote.

Everything blocks, and every foreign error leaves as Transient: a file that cannot be read says nothing
about the job.
"""

from __future__ import annotations

import json
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

from daylily_daemon.adapters.runners import procfs, shim
from daylily_daemon.adapters.runners.procfs import Identity
from daylily_daemon.domain.errors import Transient
from daylily_daemon.domain.model import Ended, Job, Outcome

REPORT_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Started:
    """The shim won the token: the command runs, ran, or is about to."""

    shim: Identity


@dataclass(frozen=True, slots=True)
class Revoked:
    """Somebody else won the token: the command never runs."""


Token = Started | Revoked


class JobDirectory:
    """Methods raise Transient where the directory cannot be read or written."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)

    def prepare(self, job: Job) -> None:
        """Create the directory, private, and write what the shim has to know."""
        with _errors_as_transient(self.path):
            os.makedirs(self.path, 0o700, exist_ok=True)
            os.replace(self._draft(_spec(job)), self._file("spec.json"))

    def token(self) -> Token | None:
        """Return who has won the token, None while it is free."""
        record = self._read("token")
        if record is None:
            return None
        with self._as_unreadable("token"):
            return Revoked() if record["state"] == "revoked" else Started(Identity.parse(record))

    def revoke(self) -> Token:
        """Win the token against the shim if it is still free; return whose it is now. Durable."""
        while (token := self.token()) is None:
            with _errors_as_transient(self.path):
                os.makedirs(self.path, 0o700, exist_ok=True)
                draft = self._draft({"state": "revoked"})
                try:
                    os.link(draft, self._file("token"))
                    shim.fsync_directory(self.path)
                except FileExistsError:
                    continue
                finally:
                    os.unlink(draft)
        return token

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

    def outcome(self, job: Job, boot_id: str, tail: str) -> Outcome | None:
        """Return what the shim recorded, None while there is no record.

        A machine that goes down politely asks every shim to stop. Who looks at that after the restart
        learns that the host was lost, unless a stop had been asked for by us.
        """
        record = self._read("exit.json")
        if record is None:
            return None
        with self._as_unreadable("exit.json"):
            ended = Ended(record["ended"])
            rebooted = Identity.parse(record["shim"]).boot_id != boot_id
            if ended is Ended.STOPPED and rebooted and not os.path.exists(self._file("stop")):
                return Outcome(ended=Ended.HOST_LOST, tail=tail)
            return Outcome(
                ended=ended,
                code=record["code"],
                success_file_found=record["success_file_found"],
                tail=tail,
                report=_report(job),
                duration_s=float(record["duration_s"]),
            )

    def survivors(self) -> list[Identity]:
        with _errors_as_transient("/proc"):
            return procfs.survivors(self.path, self.command())

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
            with open(self._file(name), encoding="utf-8") as file, self._as_unreadable(name):
                return dict(json.load(file))
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise _unusable(self._file(name), exc) from exc

    @contextmanager
    def _as_unreadable(self, name: str) -> Iterator[None]:
        try:
            yield
        except (KeyError, TypeError, ValueError) as exc:
            raise Transient(
                f"{self._file(name)} is not the record of a job that it should be ({exc!r}). "
                "Find out what changed it; the job counts as running until it is readable again."
            ) from exc


def cwd_of(job: Job) -> str:
    return job.cwd or job.directory


def _spec(job: Job) -> dict[str, Any]:
    return {
        "name": job.name,
        "argv": list(job.argv),
        "environment": dict(job.environment),
        "cwd": cwd_of(job),
        "timeout_s": job.timeout_s,
        "grace_s": job.grace_s,
        "success_file": job.success_file,
        "report_file": job.report_file,
        "log_limit_bytes": job.log_limit_bytes,
    }


def _report(job: Job) -> Mapping[str, Any]:
    """Return the job's report; an unusable one is no report, and never an error of the run."""
    if not job.report_file:
        return {}
    path = os.path.join(cwd_of(job), job.report_file)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return {}
        with open(path, "rb") as file:
            data = file.read(REPORT_BYTES + 1)
        report = json.loads(data, parse_constant=_refuse) if len(data) <= REPORT_BYTES else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return report if isinstance(report, dict) else {}


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


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
