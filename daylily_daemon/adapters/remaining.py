"""What runs have left on this host, and its removal.

A folder is reached name by name from the configured one, by descriptors and without following a link, so
that whatever jobs put there leads nowhere else. It is moved into a folder of the daemon first and removed
there: nobody meets half of a run, and a removal that was cut is gone on with by the next.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from anyio import to_thread

from daylily_daemon.adapters.identity import Machine, known_again
from daylily_daemon.adapters.runners import procfs
from daylily_daemon.adapters.runners.jobdir import JobDirectory, Revoked, Started
from daylily_daemon.adapters.runners.process import scope_of
from daylily_daemon.adapters.runners.remains import KnownJob, survivors
from daylily_daemon.adapters.runners.shim import boot_id
from daylily_daemon.domain.errors import Permanent, Transient
from daylily_daemon.domain.model import WORKSET_ID, WorksetId
from daylily_daemon.domain.printable import one_line
from daylily_daemon.domain.prune import JobLeft, RunFolder, RunRemains
from daylily_daemon.domain.run import Run
from daylily_daemon.domain.sheet import SHEET_FILE

UNFINISHED_FILE: Final = ".daylily-export-unfinished"
"""Lies beside the results from the beginning of an export to the end of one that left nothing out."""
TRASH: Final = ".daylily-pruned"
"""Holds what is being removed; no workset can be called so."""
RUN_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,79}")
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
SHEET_BYTES: Final = 16 * 1024 * 1024
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")

T = TypeVar("T")


def mount_points() -> Sequence[str]:
    """Return where something is mounted in this mount namespace, bind mounts too (proc(5), mountinfo)."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        fields = [line.split(" ")[4] for line in file]
    return [_ESCAPED.sub(lambda found: chr(int(found[1], 8)), one) for one in fields]


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFolders:
    """``RunFolders`` of this host. Every method raises Permanent where a folder cannot be read."""

    data_dir: str
    jobs_dir: str
    """The folder of all jobs."""
    machine: Machine
    installation: str
    """As processes are marked with: the table."""
    mounts: Callable[[], Sequence[str]] = mount_points

    async def worksets(self) -> Sequence[WorksetId]:
        return await _in_thread(self._worksets)

    async def look(self, id: WorksetId, run: Run) -> RunRemains:
        return await _in_thread(partial(self._look, id, run))

    async def remove(self, folder: RunFolder) -> None:
        await _in_thread(partial(self._remove, folder))

    async def clear(self) -> int:
        return await _in_thread(lambda: sum(_clear(root) for root in self._roots))

    @property
    def _roots(self) -> tuple[str, str]:
        """Return the folders of data and of jobs as they are, whatever links an operator has made to them."""
        return os.path.realpath(self.data_dir), os.path.realpath(self.jobs_dir)

    def _worksets(self) -> list[WorksetId]:
        names = {name for root in self._roots for name in _folders(root)}
        return [WorksetId(name) for name in sorted(names) if WORKSET_ID.fullmatch(name)]

    def _look(self, id: WorksetId, run: Run) -> RunRemains:
        home = known_again(self.jobs_dir, self.machine)
        remains = RunRemains(
            data_dir=os.path.join(self.data_dir, id, run.id), scope=scope_of(home) if home else ""
        )
        if not RUN_ID.fullmatch(run.id):  # then nothing is called so
            return remains
        mounts = self.mounts()
        data, records = (_looked_at(root, (id, run.id), mounts) for root in self._roots)
        remains = replace(remains, data=data, records=records)
        if any(folder.obstacle for folder in remains.folders):
            return remains
        folders = tuple(os.path.join(root, id, run.id) for root in self._roots)
        return replace(
            remains,
            jobs={name: self._job(folders[1], name, run) for name in _names(folders[1])},
            processes=tuple(self._processes(id, run, folders)),
            unfinished_export=os.path.lexists(os.path.join(folders[0], "work", UNFINISHED_FILE)),
            named_by=tuple(self._named_by(id, folders[0])),
        )

    # --- jobs and processes ---

    def _job(self, folder: str, name: str, run: Run) -> JobLeft:
        try:
            return self._left_of(JobDirectory(os.path.join(folder, name)), name, run)
        except (Transient, OSError):
            return JobLeft.UNKNOWN

    def _left_of(self, files: JobDirectory, name: str, run: Run) -> JobLeft:
        if os.path.islink(files.path):
            return JobLeft.UNKNOWN
        token = files.token()
        if token is None:
            return JobLeft.FREE
        if isinstance(token, Revoked):
            return JobLeft.REVOKED
        is_of_this_attempt = name.startswith(f"{run.attempt}-")
        if is_of_this_attempt and run.key and token.terms.key not in ("", run.key):
            return JobLeft.UNKNOWN
        if _runs(token):
            return JobLeft.RUNS
        restarted = self.machine.was_restarted_since(token.machine, token.shim.boot_id)
        return JobLeft.ENDED if files.record() or restarted else JobLeft.UNKNOWN

    def _processes(self, id: WorksetId, run: Run, folders: Sequence[str]) -> Iterator[str]:
        installation = self.installation.replace("/", "_")
        places = frozenset(step.place for step in run.steps)
        for one in survivors(KnownJob(f"{installation}/{id}.{run.attempt}.any/any", places)):
            yield f"process {one.process.pid} of job {one.job}"
        for pid in (name for name in os.listdir("/proc") if name.isdigit()):
            if int(pid) != os.getpid() and _uses(pid, folders):
                yield f"process {pid}"

    # --- other worksets ---

    def _named_by(self, id: WorksetId, folder: str) -> Iterator[WorksetId]:
        """Yield the other worksets whose staged sheets name something in ``folder``."""
        root = self._roots[0]
        wanted = {
            os.fsencode(f"{path}/")
            for path in (folder, os.path.join(self.data_dir, *folder.split(os.sep)[-2:]))
        }
        for other in _names(root):
            if other == id or not WORKSET_ID.fullmatch(other):
                continue
            for run in _names(os.path.join(root, other)):
                sheet = _content(os.path.join(root, other, run, "stage", SHEET_FILE))
                if any(path in sheet for path in wanted):
                    yield WorksetId(other)

    # --- removal ---

    def _remove(self, folder: RunFolder) -> None:
        root, names = self._apart(folder.path)
        with _in_words(folder.path):
            if aside := _move_aside(root, names, folder):
                _emptied(root, aside)
            with suppress(OSError), _opened(root, ()) as top:
                os.rmdir(names[0], dir_fd=top)  # of the workset, if this was its last run here

    def _apart(self, path: str) -> tuple[str, tuple[str, str]]:
        """Return the configured folder that ``path`` lies in, and the names below it."""
        above, run = os.path.split(path)
        root, workset = os.path.split(above)
        if root not in self._roots or not WORKSET_ID.fullmatch(workset):
            raise Permanent(f"{path} is no folder of a run; nothing of it was removed.")
        return root, (workset, run)


async def _in_thread(work: Callable[[], T]) -> T:
    return await to_thread.run_sync(work, abandon_on_cancel=True)


@contextmanager
def _in_words(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise Permanent(
            f"{path} could not be removed: {exc.filename or path}: {exc.strerror}. What is left goes with "
            "the next `daylily-daemon prune`; run it as the daemon's user or as root."
        ) from exc


# --- a folder, name by name --------------------------------------------------------------------------


@contextmanager
def _opened(root: str, names: Sequence[str]) -> Iterator[int]:
    """Yield a descriptor of the folder ``names`` below ``root``. Raises OSError for a link on the way too."""
    fd = os.open(root, _FOLDER)
    try:
        for name in names:
            below = os.open(name, _FOLDER, dir_fd=fd)
            os.close(fd)
            fd = below
        yield fd
    finally:
        os.close(fd)


def _names(folder: str) -> list[str]:
    """Return what lies in a folder, in order; nothing where there is none. Raises Permanent."""
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as exc:
        raise Permanent(
            f"{folder} cannot be read: {exc.strerror}. Run this as the daemon's user or as root."
        ) from exc


def _folders(root: str) -> list[str]:
    """Return the names of folders, and of links, which may lead to one."""
    return [name for name in _names(root) if not os.path.isfile(os.path.join(root, name))]


def _looked_at(root: str, names: tuple[str, str], mounts: Sequence[str]) -> RunFolder | None:
    """Return what there is to say of a folder; None if there is none."""
    path = os.path.join(root, *names)
    if obstacle := _on_the_way(root, names) or _mounted(root, path, mounts):
        return RunFolder(path=path, obstacle=obstacle)
    try:
        with _opened(root, names) as fd:
            status = os.fstat(fd)
            size_bytes, obstacle = _walked(fd)
    except FileNotFoundError:
        return None
    except OSError as exc:
        return RunFolder(path=path, obstacle=f"cannot be read: {exc.strerror}")
    identity = status.st_dev, status.st_ino
    return RunFolder(path=path, size_bytes=size_bytes, identity=identity, obstacle=obstacle)


def _on_the_way(root: str, names: tuple[str, str]) -> str:
    """Return that one of the folders is a link, or no folder at all."""
    for n in range(1, len(names) + 1):
        try:
            mode = os.lstat(os.path.join(root, *names[:n])).st_mode
        except FileNotFoundError:
            return ""
        except OSError as exc:
            return f"cannot be looked at: {exc.strerror}"
        what = f"is behind {names[0]}, which" if n < len(names) else "itself"
        if stat.S_ISLNK(mode):
            return f"{what} is a symbolic link"
        if not stat.S_ISDIR(mode):
            return f"{what} is no folder"
    return ""


def _mounted(root: str, path: str, mounts: Sequence[str]) -> str:
    inside = (one for one in mounts if one.startswith(f"{root}/"))
    found = next(
        (m for m in inside if f"{path}/".startswith(f"{m}/") or m.startswith(f"{path}/")), ""
    )
    return f"has something mounted at {found}" if found else ""


def _walked(top: int) -> tuple[int, str]:
    """Return what a folder takes of the disk, in bytes, and what in it keeps it from being removed."""
    size_bytes, linked = 0, set[tuple[int, int]]()
    errors: list[OSError] = []
    walk = os.fwalk(".", dir_fd=top, follow_symlinks=False, onerror=errors.append)
    for place, folders, files, fd in walk:
        here = os.fstat(fd)
        if (folders or files) and not os.access(
            ".", os.W_OK | os.X_OK, dir_fd=fd, effective_ids=True
        ):
            return size_bytes, f"has {one_line(place)}, in which this user may not remove anything"
        size_bytes += here.st_blocks * 512
        for name in files:
            size_bytes += _taken(name, fd, linked)
    if errors:
        return size_bytes, f"has {one_line(str(errors[0].filename))}: {errors[0].strerror}"
    return size_bytes, ""


def _taken(name: str, fd: int, linked: set[tuple[int, int]]) -> int:
    """Return what a file takes; one with several names counts once."""
    try:
        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return 0
    known = status.st_dev, status.st_ino
    if status.st_nlink > 1 and known in linked:
        return 0
    linked.add(known)
    return status.st_blocks * 512


# --- what uses it ------------------------------------------------------------------------------------


def _runs(token: Started) -> bool:
    shim = token.shim
    if shim.boot_id != boot_id():
        return False
    return not shim.in_sight or procfs.is_alive(shim)


def _uses(pid: str, folders: Sequence[str]) -> bool:
    """Tell whether a process works in one of ``folders`` or has a file of them open, as far as we may see."""
    return any(f"{target}/".startswith(f"{folder}/") for target in _held(pid) for folder in folders)


def _held(pid: str) -> Iterator[str]:
    with suppress(OSError):
        yield os.readlink(f"/proc/{pid}/cwd")
    with suppress(OSError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                yield os.readlink(f"/proc/{pid}/fd/{fd}")


def _content(path: str) -> bytes:
    """Return the beginning of a regular file; nothing of anything else."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return b""
    with os.fdopen(fd, "rb") as file:
        is_file = stat.S_ISREG(os.fstat(fd).st_mode)
        return file.read(SHEET_BYTES) if is_file else b""


# --- removal -----------------------------------------------------------------------------------------


def _move_aside(root: str, names: tuple[str, str], folder: RunFolder) -> str:
    """Move a folder to where only removals are; return its name there. Raises OSError and Permanent.

    A disk may be too full for that, which is when it matters most: then it is removed where it is, and the
    answer is empty. The records of a run go after its data, so that it is known again if that is cut.
    """
    workset, run = names
    aside = f"{workset}.{run}.{secrets.token_hex(4)}"
    with _opened(root, (workset,)) as above:
        status = os.stat(run, dir_fd=above, follow_symlinks=False)
        if (status.st_dev, status.st_ino) != folder.identity:
            raise Permanent(
                f"{folder.path} is not the folder any more that was looked at; it stays."
            )
        try:
            with _trash(root) as trash:
                os.rename(run, aside, src_dir_fd=above, dst_dir_fd=trash)
        except OSError as exc:
            if exc.errno not in _NO_ROOM:
                raise
            shutil.rmtree(run, dir_fd=above)
            return ""
    return aside


@contextmanager
def _trash(root: str) -> Iterator[int]:
    with _opened(root, ()) as top, suppress(FileExistsError):
        os.mkdir(TRASH, 0o700, dir_fd=top)
    with _opened(root, (TRASH,)) as fd:
        yield fd


def _emptied(root: str, aside: str) -> None:
    with _opened(root, (TRASH,)) as trash:
        shutil.rmtree(aside, dir_fd=trash)


def _clear(root: str) -> int:
    """Remove what lies where only removals are."""
    left = _names(os.path.join(root, TRASH))
    for aside in left:
        with _in_words(os.path.join(root, TRASH, aside)):
            _emptied(root, aside)
    return len(left)


def kept_files(jobs_dir: str) -> Iterator[tuple[Path, str]]:
    """Yield logs and exit records of all jobs in ``jobs_dir``, each with its name below it."""
    for job in _names(jobs_dir):
        for name in ("log.1", "log", "exit.json"):
            path = Path(jobs_dir, job, name)
            if os.path.lexists(path):
                yield path, f"{job}/{name}"
