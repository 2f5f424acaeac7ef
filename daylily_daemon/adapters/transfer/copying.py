"""What downloads and uploads have in common: how many at once, how often, how far, and safe names."""

from __future__ import annotations

import os
import shutil
from collections.abc import Awaitable, Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, TypeVar

import anyio
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception
from tenacity.wait import wait_random_exponential

from daylily_daemon.domain.errors import DaemonError, Permanent, Transient

T = TypeVar("T")

MIB: Final = 1024 * 1024
_TOLD: Final = 10
_TRIES_IF_DAMAGED: Final = 3
LONGEST_ASKED_S: Final = 300.0
"""The longest pause that the other side may ask for."""
_NAME_MAX_BYTES: Final = 255


OnProgress = Callable[[int, int], None]
"""Told how much is done, and of how much: bytes, or files. It must be quick."""


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyOptions:
    jobs: int = 16
    """Connections at once, whatever they copy: files, and parts of files."""
    tries: int | None = 6
    """Tries of one file that bring no new byte, before it is given up; None goes on for ever."""
    longest_pause_s: float = 20.0
    """The pause before another try is random, and grows up to this."""
    multipart_bytes: int = 16 * MIB
    """Files from this size on are uploaded in parts."""
    part_bytes: int = 8 * MIB
    """At least 5 MiB on AWS; grows for uploads of more than 10,000 parts."""
    within: tuple[Path, ...] = ()
    """Folders besides the one that is uploaded into which its links may lead."""
    free_bytes: Callable[[Path], int] = _free_bytes
    on_file: OnProgress | None = None
    """Told before the first and after each file, those that were there already too."""
    on_trouble: Callable[[str], None] | None = None
    """Told each time something has to be tried again, with the reason."""


class Outdated(Transient):
    """Nothing more can be learned from going on with a file: it has to be looked at anew."""


class Damaged(Outdated):
    """What arrived is not what S3 holds."""


class Meter:
    """Counts how far each file is; a file that starts again takes its bytes back."""

    def __init__(
        self, sizes: Sequence[int], progress: OnProgress | None, on_file: OnProgress | None
    ) -> None:
        self._files = len(sizes)
        self._bytes = sum(sizes)
        self._progress = progress
        self._on_file = on_file
        self._at: dict[Hashable, int] = {}
        self._bytes_done = 0
        self._files_done = 0
        if on_file:
            on_file(0, self._files)

    def move(self, file: Hashable, position: int) -> None:
        """Say that ``position`` bytes of ``file`` are copied."""
        self._bytes_done += position - self._at.get(file, 0)
        self._at[file] = position
        if self._progress:
            self._progress(self._bytes_done, self._bytes)

    def add(self, file: Hashable, size_bytes: int) -> None:
        """Say that so many more bytes of ``file`` are copied, wherever in it they are."""
        self.move(file, self.position(file) + size_bytes)

    def finish(self, file: Hashable, size_bytes: int) -> None:
        self.move(file, size_bytes)
        self._files_done += 1
        if self._on_file:
            self._on_file(self._files_done, self._files)

    def position(self, file: Hashable) -> int:
        return self._at.get(file, 0)


def retrying(
    options: CopyOptions, position: Callable[[], int], *, outdated: bool = False
) -> AsyncRetrying:
    """Repeat Transient failures, or the Outdated ones alone; give up after ``tries`` without a new byte."""
    pause = wait_random_exponential(multiplier=0.5, max=options.longest_pause_s)

    def wait_s(state: RetryCallState) -> float:
        failure = state.outcome.exception() if state.outcome else None
        asked_s = failure.retry_after_s if isinstance(failure, Transient) else None
        return max(pause(state), min(asked_s or 0.0, LONGEST_ASKED_S))

    def tell(state: RetryCallState) -> None:
        if options.on_trouble and state.outcome:
            options.on_trouble(str(state.outcome.exception()))

    return AsyncRetrying(
        retry=retry_if_exception(
            lambda exc: isinstance(exc, Transient) and isinstance(exc, Outdated) == outdated
        ),
        stop=_Stuck(options.tries, position),
        wait=wait_s,
        before_sleep=tell,
        sleep=anyio.sleep,
        reraise=True,
    )


class _Stuck:
    """Tells whether to stop: too many tries without a new byte, or too many damaged arrivals."""

    def __init__(self, tries: int | None, position: Callable[[], int]) -> None:
        self._tries = tries
        self._position = position
        self._furthest = 0
        self._fruitless = 0
        self._damaged = 0

    def __call__(self, state: RetryCallState) -> bool:
        failure = state.outcome.exception() if state.outcome else None
        self._damaged += isinstance(failure, Damaged)
        here = self._position()
        self._fruitless = 0 if here > self._furthest else self._fruitless + 1
        self._furthest = max(here, self._furthest)
        stuck = self._tries is not None and self._fruitless >= self._tries
        return stuck or self._damaged >= _TRIES_IF_DAMAGED


async def run_all(items: Sequence[T], work: Callable[[T], Awaitable[None]], jobs: int) -> None:
    """Do ``work`` for every item, ``jobs`` at a time.

    After a definite failure no further item is begun, and those under way are finished. Raises what went
    wrong, up to ten failures in one sentence each: Permanent if one of them is, else Transient.
    """
    failures = await _failures(items, work, jobs, lambda exc: not isinstance(exc, Transient))
    if failures:
        raise _together(failures)


async def run_parts(parts: Sequence[T], work: Callable[[T], Awaitable[None]], jobs: int) -> None:
    """As ``run_all``, for the parts of one file: the first failure of any kind ends it, and is raised."""
    failures = await _failures(parts, work, jobs, lambda _: True)
    if failures:
        raise failures[0]


async def _failures(
    items: Sequence[T],
    work: Callable[[T], Awaitable[None]],
    jobs: int,
    ends: Callable[[Exception], bool],
) -> list[DaemonError | OSError]:
    failures: list[DaemonError | OSError] = []
    queue = iter(items)

    async def take() -> None:
        for item in queue:
            try:
                await work(item)
            except (DaemonError, OSError) as exc:
                failures.append(exc)
            if any(map(ends, failures)):
                return

    async with anyio.create_task_group() as tasks:
        for _ in range(min(jobs, len(items))):
            tasks.start_soon(take)
    return failures


def _together(failures: list[DaemonError | OSError]) -> DaemonError | OSError:
    if len(failures) == 1:
        return failures[0]
    told = " ".join(str(failure) for failure in failures[:_TOLD])
    more = f" And {len(failures) - _TOLD} more failures." if len(failures) > _TOLD else ""
    definite = any(not isinstance(failure, Transient) for failure in failures)
    return Permanent(told + more) if definite else Transient(told + more)


def safe_relative(name: str) -> PurePosixPath:
    """Return a key, or the end of one, as a relative path that cannot leave its folder.

    Raises Permanent for ``..``, ``.``, an absolute or empty name, empty parts, NUL and names no disk takes.
    """
    parts = name.split("/")
    bad = [part for part in parts if part in {"", ".", ".."} or "\0" in part]
    if bad or any(len(os.fsencode(part)) > _NAME_MAX_BYTES for part in parts):
        raise Permanent(
            f"The name {name[:300]!r} cannot be a file here: empty parts, `.` and `..`, a leading or "
            "closing slash, and parts of more than 255 bytes are refused. Rename the object in S3 and "
            "correct whatever names it."
        )
    return PurePosixPath(*parts)


@contextmanager
def local_files(doing: str) -> Iterator[None]:
    """Raise Permanent for what the operating system refuses, a full disk for one."""
    try:
        yield
    except OSError as exc:
        reason = exc.strerror or str(exc)
        raise Permanent(
            f"{doing} failed: {reason}. Check space, permissions and names on this disk."
        ) from exc


def split_uri(uri: str) -> tuple[str, str]:
    """Return bucket and prefix of ``s3://bucket/prefix/``, the prefix with a closing slash."""
    scheme, _, rest = uri.partition("://")
    bucket, _, prefix = rest.partition("/")
    prefix = prefix.rstrip("/")
    if scheme != "s3" or not bucket or not prefix:
        raise Permanent(f"{uri!r} is not a folder in S3; write it as s3://bucket/prefix/.")
    safe_relative(prefix)
    return bucket, f"{prefix}/"


def name_of(path: Path) -> str:
    """Return a path for messages, whatever bytes it is made of."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
