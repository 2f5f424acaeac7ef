"""Jobs as detached processes of this machine, each under a shim of its own.

``ensure`` launches the shim and then believes nothing but the token: whatever the launcher said, did not
say, or was too slow to say. That there is no token lets a job start only in the folder the run was begun
with, on its machine, if its start was never seen, and if nothing of its workset runs here; else it is
unclear, and nothing is started. ``wait`` believes nothing but the shim's record. Without one it waits while
anything of the job is seen, and then reports it lost only on proof that nothing is left (``remains.py``);
else it says that it is unclear. What runs is read by the terms that were stored when it was started, not by
today's job.

Two ways to launch. ``session``: the shim detaches into a session of its own and survives everything
that does not kill by control group. ``systemd``: a transient unit, which survives the daemon's unit and
escapes its sandbox and limits. There the shim stays the process that systemd started (a double fork
would leave systemd guessing its main process) and says READY once the command runs, so the answer of
``systemd-run`` is as definite as that of the detaching shim. ``KillMode=mixed``: a stop of the unit, or of
the machine, asks the shim alone, which ends the tree in order and records it; what outlives the shim is
killed with the unit. The umask and the limit of open files are the daemon's in both.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final, Never, TypeVar

import anyio

from daylily_daemon.adapters.blocking import Disk
from daylily_daemon.adapters.identity import Folder, known_again
from daylily_daemon.adapters.runners import procfs, remains
from daylily_daemon.adapters.runners.account import RunAs
from daylily_daemon.adapters.runners.jobdir import (
    JobDirectory,
    Revoked,
    Started,
    Token,
    lies_in,
    moved_to,
    root_of,
)
from daylily_daemon.adapters.runners.launch import Isolation, Launch, advice, run_launcher
from daylily_daemon.adapters.runners.logs import ProgressReader, clean, follow, tail
from daylily_daemon.adapters.runners.procfs import Identity
from daylily_daemon.adapters.runners.report import UnusableError, read_report
from daylily_daemon.adapters.runners.telling import telling, warnings_of, with_rule_logs
from daylily_daemon.domain.errors import Permanent, Transient, Unclear
from daylily_daemon.domain.model import Ended, Job, JobName, Outcome, Progress

__all__ = ["Isolation", "ProcessRunner", "follow", "tail"]

RECORD_POLL_S: Final = 0.1
KILL_AGAIN_S: Final = 0.1
LAUNCHED_WITHIN_S: Final = 35.0
QUIET_WITHIN_S: Final = 5.0
"""In which the shim of the step before has ended, or one that is being started has won its token."""
PROOFS: Final = 3
"""Looks in a row, because processes are read one after the other while they fork."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _JobPlace:
    """One job, where its folder is, and by what its processes are known."""

    job: Job
    home: Folder
    files: JobDirectory
    known: remains.KnownJob

    @property
    def scope(self) -> str:
        return scope_of(self.home)


class ProcessRunner:
    def __init__(
        self,
        home: Folder,
        *,
        base_environment: Mapping[str, str],
        isolation: Isolation = Isolation.SESSION,
        run_as: RunAs | None = None,
        installation: str = "",
        late_record_s: float = 3.0,
    ) -> None:
        """``base_environment`` is what jobs get of the daemon's; it must hold no secrets.

        ``home`` holds the folders of all jobs. ``installation``: what tells worksets of the same id on one
        machine apart (the table); empty counts the jobs of this folder alone.
        ``late_record_s``: how long the record of a shim that is gone may take to become visible.
        """
        self._home = home
        self._base_environment = dict(base_environment)
        self._isolation = isolation
        self._run_as = run_as
        self._installation = (installation or home.id).replace("/", "_")
        self._late_record_s = late_record_s
        self._disk = Disk("job folders")
        self._data = Disk("runs' data")
        self._kernel = Disk("list of processes", on="")
        self._launcher = Disk("launcher of jobs", on="", limit_s=LAUNCHED_WITHIN_S)
        self._watch = procfs.Watch()
        self._readers: dict[JobName, ProgressReader] = {}

    @property
    def scope(self) -> str:
        return scope_of(self._home)

    async def look(self, job: Job) -> None:
        """Return if ``job`` can be tended here. Raises Transient, saying why, if not.

        That is so in our own folder, and in one of another daemon of this machine, where that daemon left
        it. Of the scope of earlier versions, a machine id that images copy, only where the token lies in our
        folder and is one of this boot.
        """
        place = await self._place(job)
        token = await self._disk.run(place.files.token)
        former = job.scope == f"host:{self._home.machine.host_id}"
        ours = former and lies_in(place.home.path, job.directory)
        this_boot = isinstance(token, Started) and token.shim.boot_id == place.home.machine.boot_id
        if not (ours and this_boot):
            await self._check_folder(place)

    async def _check_folder(self, place: _JobPlace) -> None:
        """Raises Unclear unless what is not found in the folder of ``place`` never was there."""
        scope = place.job.scope
        if scope not in ("", place.scope):
            self._unclear(place, f"it was begun in {scope}, which cannot be found on this machine")
        await self._disk.run(place.home.verify)

    async def ensure(self, job: Job) -> None:
        """Start ``job`` unless it was ever started.

        Raises Permanent once it was revoked, and where it names no command (it is revoked then); Unclear
        where it cannot be told that it never ran, or that nothing else of its workset runs.
        """
        place = await self._place(job)
        if not await self._was_started(place):
            await self._start(place)
        await self._note_group(place)

    async def wait(self, job: Job) -> Outcome:
        """Wait until ``job`` has ended for certain. Cancelling it leaves the job alone.

        Raises Unclear where its shim is gone without a record and nothing proves that all of it is gone.
        """
        place = await self._place(job)
        match await self._token(place):
            case None:
                await self._check_folder(place)
                raise Transient(f"Job {job.name} was never started; start it, or revoke it.")
            case Revoked():
                return Outcome(ended=Ended.STOPPED)
            case Started() as token:
                outcome = await self._end_of(place, token)
                self._readers.pop(job.name, None)
                return outcome

    async def progress(self, job: Job) -> Progress | None:
        reader = self._readers.get(job.name)
        if reader is None:
            files = (await self._place(job)).files
            token = await self._disk.run(files.token)
            if not isinstance(token, Started):
                return None
            reader = ProgressReader(files.path, token.terms.progress_pattern, job.name)
            self._readers[job.name] = reader
        try:
            return await self._disk.run(reader.read)
        except OSError as exc:
            raise Transient(f"The log of job {job.name} cannot be read: {exc}.") from exc

    async def stop(self, job: Job) -> None:
        """Revoke the token, or else end the job; return once nothing of it runs.

        Raises Unclear where nothing proves that.
        """
        place = await self._place(job)
        if await self._token(place) is None:
            await self._check_folder(place)
        match await self._disk.run(place.files.revoke):
            case Revoked():
                left = await self._seen(place)
                if any(found.job == job.name and not found.is_shim for found in left):
                    raise self._never_started(left)
            case Started() as token:
                if not self._is_over(place, token):
                    await self._disk.run(place.files.note_stop)
                    await self._end(place, token)

    async def running(self, job: Job) -> tuple[str, Identity | None]:
        """Return where the job's folder is now, and the shim while it runs."""
        files = (await self._place(job)).files
        token = await self._disk.run(files.token)
        alive = isinstance(token, Started) and token.shim.in_sight and _is_alive(token.shim)
        return files.path, token.shim if isinstance(token, Started) and alive else None

    async def _place(self, job: Job) -> _JobPlace:
        return await self._disk.run(partial(self._found, job))

    def _found(self, job: Job) -> _JobPlace:
        """Return where the job is: where its run was begun if that folder is still there, else in ours."""
        home, directory = self._home, os.path.abspath(job.directory)
        if not lies_in(home.path, directory):
            other = None
            if job.scope not in ("", self.scope):
                other = known_again(root_of(directory), home.machine)
            if other is not None and scope_of(other) == job.scope:
                home = other
            else:
                directory = moved_to(home.path, directory)
        mark = f"{self._installation}/{job.name}/{home.id}"
        places = frozenset({directory, os.path.abspath(job.directory)})
        return _JobPlace(job, home, JobDirectory(directory), remains.KnownJob(mark, places))

    # Starting

    async def _token(self, place: _JobPlace) -> Token | None:
        """Return who has the token. Raises Unclear where a start that was seen left none."""
        token, job = await self._disk.run(place.files.token), place.job
        if job.confirmed and not isinstance(token, Started):
            raise Unclear(
                f"The start of job {job.name} was seen, but its token is gone from {place.files.path}: was "
                "the folder removed, or an older copy put in its place? It may still run, so nothing is "
                f"started. {_vouch(job)}"
            )
        if isinstance(token, Started) and job.key and token.terms.key not in ("", job.key):
            raise Unclear(
                f"The token of job {job.name} in {place.files.path} was left by another attempt of "
                "this name: was the item put back to an older state? What that attempt did is not what "
                f"is asked for now, so nothing is started. {_vouch(job)}"
            )
        return token

    async def _was_started(self, place: _JobPlace) -> bool:
        token = await self._token(place)
        if isinstance(token, Revoked):
            raise Permanent(
                f"Job {place.job.name} was revoked before it started; it will never run."
            )
        return token is not None

    async def _start(self, place: _JobPlace) -> None:
        job = place.job
        await self._check_folder(place)
        if not job.argv:
            await self._give_up(place)
        elif await self._is_quiet(place):
            if self._run_as is not None:
                job = await self._data.run(partial(self._run_as.given, job))
            prepare = partial(place.files.prepare, job, place.known.mark, self._home.machine.id)
            await self._disk.run(prepare)
            said = await self._launch(place)
            if not await self._was_started(place):
                raise Transient(f"The start of job {job.name} was not confirmed: {said}")

    async def _give_up(self, place: _JobPlace) -> None:
        if isinstance(await self._disk.run(place.files.revoke), Revoked):
            name = place.job.name
            raise Permanent(f"Job {name} names no command; fix the step's configuration.")

    async def _is_quiet(self, place: _JobPlace) -> bool:
        """Return whether the job may be started now, False if it was meanwhile.

        Raises Unclear while anything of its workset runs on this machine.
        """
        left = await self._seen(place)
        with anyio.move_on_after(QUIET_WITHIN_S):
            while left:
                await anyio.sleep(RECORD_POLL_S)
                if await self._was_started(place):
                    return False
                left = await self._seen(place)
        if left:
            raise self._never_started(left)
        return not await self._was_started(place)

    def _never_started(self, left: Sequence[remains.Survivor]) -> Unclear:
        first = left[0]
        return Unclear(
            f"Process {first.process.pid} of job {first.job} runs on this machine, so nothing else of its "
            "workset is started. Is it left from an earlier attempt, or was the jobs folder put back to an "
            f"older state? It is waited for; if it is of no use, end it: kill {first.process.pid}"
        )

    async def _seen(self, place: _JobPlace) -> list[remains.Survivor]:
        return await self._look(partial(remains.survivors, place.known))

    async def _launch(self, place: _JobPlace) -> str:
        """Run the launcher; return what it said for people. Its answer proves nothing."""
        job, directory, run_as = place.job, place.files.path, self._run_as
        properties = tuple(run_as.properties(job, directory)) if run_as else ()
        variables = tuple(self._base_environment)
        launch = Launch(job, directory, place.known.mark, variables, properties)
        argv = launch.argv(self._isolation)
        environment = launch.environment(self._base_environment, self._isolation)
        try:
            code, said = await self._launcher.run(partial(run_launcher, argv, environment))
        except subprocess.TimeoutExpired:
            return f"{argv[0]} gave no answer in time."
        except OSError as exc:
            return f"{argv[0]} cannot be run: {exc.strerror}."
        said = said or (await self._tail(place))[-500:].strip()
        return f"{argv[0]} ended with {code}. {said}{advice(self._isolation)}"

    # The end

    async def _end_of(self, place: _JobPlace, token: Started) -> Outcome:
        await self._note_group(place)
        while True:
            if outcome := await self._recorded(place, token):
                return outcome
            if self._is_over(place, token):
                return Outcome(ended=Ended.HOST_LOST, tail=await self._tail(place))
            if not _is_alive(token.shim):
                return await self._end_without_shim(place, token)
            await self._watch.until_gone(token.shim)

    def _is_over(self, place: _JobPlace, token: Started) -> bool:
        """Return whether the machine was restarted since the start. Raises Unclear if that cannot be told."""
        here = self._home.machine
        if token.shim.boot_id == here.boot_id:
            if not token.shim.in_sight:
                self._unclear(place, "its processes have numbers of their own (another container)")
            return False
        if not here.was_restarted_since(token.machine, token.shim.boot_id):
            self._unclear(
                place, "it was started on another machine, or before a restart of this one"
            )
        return True

    def _unclear(self, place: _JobPlace, why: str) -> Never:
        raise Unclear(
            f"Whether job {place.job.name} runs cannot be told: {why}. {_vouch(place.job)}"
        )

    async def _end_without_shim(self, place: _JobPlace, token: Started) -> Outcome:
        with anyio.move_on_after(self._late_record_s):
            while True:
                if outcome := await self._recorded(place, token):
                    return outcome
                await anyio.sleep(RECORD_POLL_S)
        left = await self._members(place, token)
        while left:
            await anyio.sleep(procfs.POLL_S)
            left = await self._members(place, token)
        if not await self._is_proved_gone(place, token):
            raise self._without_proof(place, token)
        return Outcome(ended=Ended.LOST, tail=await self._tail(place))

    def _without_proof(self, place: _JobPlace, token: Started) -> Unclear:
        return Unclear(
            f"How job {place.job.name} ended is not known: its shim (process {token.shim.pid}) was killed "
            "and left no record. Nothing of it is seen on this machine, but a process that left its session "
            "and emptied its environment (`setsid env -i`, as containers do) cannot be seen from here. "
            f"{_vouch(place.job)}"
        )

    async def _is_proved_gone(self, place: _JobPlace, token: Started) -> bool:
        group = await self._disk.run(place.files.group)
        if group is None:
            return False
        known = remains.KnownJob(token.mark or place.known.mark, place.known.places)
        for _ in range(PROOFS):
            try:
                if not await self._kernel.run(partial(remains.are_proved_gone, known, group)):
                    return False
            except OSError:  # a process that is hidden proves nothing
                return False
            await anyio.sleep(RECORD_POLL_S)
        return True

    async def _members(self, place: _JobPlace, token: Started) -> list[Identity]:
        command = await self._disk.run(place.files.command)
        group = await self._disk.run(place.files.group)
        known = remains.KnownJob(token.mark or place.known.mark, place.known.places, command)
        return await self._look(partial(remains.members, known, group))

    async def _note_group(self, place: _JobPlace) -> None:
        """Keep the group of a job that runs, once: when it has ended it is too late."""
        await self._disk.run(partial(_note_group, place.files))

    async def _recorded(self, place: _JobPlace, token: Started) -> Outcome | None:
        record = await self._disk.run(place.files.record)
        if record is None:
            return None
        found = await self._tail(place)
        tail = await self._data.run(partial(with_rule_logs, found, token.terms.cwd))
        rebooted = record.boot_id != self._home.machine.boot_id
        if record.ended is Ended.STOPPED and rebooted and not record.asked_to_stop:
            # A machine that goes down politely asks every shim to stop.
            return Outcome(ended=Ended.HOST_LOST, tail=tail)
        report, trouble = await self._report(token)
        return Outcome(
            ended=record.ended,
            code=record.code,
            success_file_found=record.success_file_found,
            tail=tail,
            report=report,
            duration_s=record.duration_s,
            usage=record.usage,
            warnings=(*warnings_of(record), *trouble),
        )

    async def _report(self, token: Started) -> tuple[Mapping[str, object], tuple[str, ...]]:
        name = token.terms.report_file
        if not name:
            return {}, ()
        try:
            path = os.path.join(token.terms.cwd, name)
            return await self._data.run(partial(read_report, path)), ()
        except UnusableError as exc:
            return {}, (f"Its report {clean(name.encode())} was left out: {exc}.",)

    async def _tail(self, place: _JobPlace) -> str:
        return await self._disk.run(partial(_tail, place.files.path))

    # Stopping

    async def _end(self, place: _JobPlace, token: Started) -> None:
        _send([token.shim], signal.SIGTERM, signal.SIGCONT)
        while _is_alive(token.shim) and not await self._disk.run(place.files.has_record):
            with anyio.move_on_after(procfs.POLL_S):
                await self._watch.until_gone(token.shim)
        if await self._disk.run(place.files.has_record):
            return
        await self._end_members(place, token)
        if not await self._is_proved_gone(place, token):
            raise self._without_proof(place, token)

    async def _end_members(self, place: _JobPlace, token: Started) -> None:
        """End what a shim left behind that was killed: politely, then hard until nothing runs."""
        left = await self._members(place, token)
        _send(left, signal.SIGTERM, signal.SIGCONT)
        with anyio.move_on_after(token.terms.grace_s):
            while left:
                await anyio.sleep(KILL_AGAIN_S)
                left = await self._members(place, token)
        while left := await self._members(place, token):
            _send(left, signal.SIGKILL)
            await anyio.sleep(KILL_AGAIN_S)

    async def _look(self, look: Callable[[], T]) -> T:
        try:
            return await self._kernel.run(look)
        except OSError as exc:
            raise Transient(f"The processes of this machine cannot be looked at: {exc}.") from exc


def scope_of(home: Folder) -> str:
    """Return who can see the jobs of this folder: whoever has it, on its machine."""
    return f"host:{home.machine.id}/{home.id}"


def _vouch(job: Job) -> str:
    workset = job.name.split(".", maxsplit=1)[0]
    return (
        "It counts as running. When you know that nothing of it runs any more, say so: "
        f"`daylily-daemon retry {workset} --host-gone`."
    )


def _note_group(files: JobDirectory) -> None:
    token = files.token()
    if isinstance(token, Started) and token.shim.in_sight and files.group() is None:
        with suppress(OSError):
            files.note_group(remains.group_of(token.shim))


def _is_alive(process: Identity) -> bool:
    try:
        return procfs.is_alive(process)
    except OSError as exc:
        raise Transient(f"Process {process.pid} cannot be looked at: {exc.strerror}.") from exc


def _send(processes: Sequence[Identity], *signals: int) -> None:
    for process in processes:
        try:
            procfs.send(process, *signals)
        except OSError as exc:
            raise Transient(f"Process {process.pid} cannot be signalled: {exc.strerror}.") from exc


def _tail(directory: str) -> str:
    """Return what of the log tells why; a log that cannot be read must not hide how a job ended."""
    try:
        return clean(telling(directory))
    except OSError:
        return ""
