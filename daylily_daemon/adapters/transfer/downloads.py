"""Copies from S3 to a local disk: parallel, resumed where they were cut, verified, and never twice.

Files are fetched at once, and so are the parts of one file; all share the same number of connections. A
file appears under its name only when it is whole and verified; until then it is a hidden ``.part`` whose name
holds a digest of the ETag, and every part is asked for on condition of that ETag, so that two versions are
never mixed. What is finished is noted in a ledger beside the files (size, time of change, ETag), which makes
a repeat cost one HEAD a file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from anyio import CapacityLimiter, to_thread
from botocore.exceptions import ClientError

from daylily_daemon.adapters.aws import error_code, is_missing
from daylily_daemon.adapters.s3 import of_place
from daylily_daemon.adapters.transfer.checksums import (
    Digest,
    Remote,
    look,
)
from daylily_daemon.adapters.transfer.copying import (
    CopyOptions,
    Damaged,
    Meter,
    OnProgress,
    Outdated,
    local_files,
    name_of,
    retrying,
    run_all,
    run_parts,
)
from daylily_daemon.adapters.transfer.partial import (
    PIECE_BYTES,
    Partial,
    Stretch,
    Torn,
    held_bytes,
    moved,
    removed,
)
from daylily_daemon.domain.errors import Permanent, Transient
from daylily_daemon.domain.pins import CHANGED, TODO
from daylily_daemon.domain.sizes import readable

__all__ = ("LEDGER_FILE", "PIECE_BYTES", "Downloaded", "Fetch", "Ledger", "download", "not_there")

LEDGER_FILE: Final = ".daylily-staged.jsonl"
BLOCK_BYTES: Final = 4 * PIECE_BYTES
"""Written at once, and the most that a connection holds in memory."""
_TOLD: Final = 20


@dataclass(frozen=True, slots=True)
class Fetch:
    bucket: str
    key: str
    dest: Path

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


Approve = Callable[[Mapping[Fetch, Remote]], None]
"""Shown everything that was found, before anything is copied; raises Permanent for what must not be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Downloaded:
    files: int
    size_bytes: int
    unchanged: int
    """Files that were there already, whole."""
    unverified: int
    """Files of which only the size could be compared."""


async def download(
    client: Any,
    plan: Sequence[Fetch],
    root: Path,
    *,
    options: CopyOptions | None = None,
    progress: OnProgress | None = None,
    approve: Approve | None = None,
) -> Downloaded:
    """Bring every object of ``plan`` to its place below ``root``.

    Everything is looked at before anything is copied: missing objects are all named in one Permanent, and
    so is a disk that is too small. Raises Transient if S3 could not be read for long.

    With ``approve``, exactly the versions that it let through are copied: one that is replaced meanwhile is
    Permanent too. Without, the newer version is copied.
    """
    fetches = _checked(plan, root)
    with local_files(f"Reading what is in {name_of(root)}"):
        ledger = await to_thread.run_sync(Ledger.in_folder, root)
    options = options or CopyOptions()
    run = _Download(client, root, ledger, options)
    sizes = await run.survey(fetches)
    if approve:
        approve(run.remotes)
        run.fixed = True
    run.meter = Meter(sizes, progress, options.on_file)
    await run.copy_all(fetches)
    return Downloaded(
        files=len(fetches),
        size_bytes=sum(sizes),
        unchanged=run.unchanged,
        unverified=run.unverified,
    )


def _checked(plan: Sequence[Fetch], root: Path) -> list[Fetch]:
    wanted: dict[Path, Fetch] = {}
    for fetch in plan:
        inside = fetch.dest.is_relative_to(root) and ".." not in fetch.dest.parts
        if not inside or fetch.dest == root:
            raise Permanent(f"{fetch.uri} would be written outside {name_of(root)}; refused.")
        other = wanted.setdefault(fetch.dest, fetch)
        if other != fetch:
            raise Permanent(f"{fetch.uri} and {other.uri} would become one file; rename one.")
    return list(wanted.values())


class _Download:
    def __init__(self, client: Any, root: Path, ledger: Ledger, options: CopyOptions) -> None:
        self._client = client
        self._root = root
        self._options = options
        self._ledger = ledger
        self._connections = CapacityLimiter(options.jobs)
        self.remotes: dict[Fetch, Remote] = {}
        self.meter = Meter((), None, None)
        self.unchanged = 0
        self.fixed = False

    @property
    def unverified(self) -> int:
        return sum(remote.checksum is None for remote in self.remotes.values())

    async def copy_all(self, fetches: list[Fetch]) -> None:
        await to_thread.run_sync(self._check_space, fetches)
        await run_all(fetches, self._copy, self._options.jobs)

    async def survey(self, fetches: list[Fetch]) -> list[int]:
        """Look at every object; return their sizes in bytes. Raises Permanent naming what is missing."""
        missing: list[str] = []

        async def look_at(fetch: Fetch) -> None:
            if remote := await self._look(fetch):
                self.remotes[fetch] = remote
            else:
                missing.append(fetch.uri)

        await run_all(fetches, look_at, self._options.jobs)
        if missing:
            raise not_there(missing)
        return [self.remotes[fetch].size_bytes for fetch in fetches]

    def _check_space(self, fetches: list[Fetch]) -> None:
        with local_files(f"Looking at {name_of(self._root)}"):
            free = self._options.free_bytes(self._root)
            needed = sum(self._missing_bytes(fetch) for fetch in fetches)
        if needed > free:
            raise Permanent(
                f"No space left on device: {readable(needed)} are needed in {name_of(self._root)}, "
                f"{readable(free)} are free. Remove what is no longer needed, or use a larger disk."
            )

    def _missing_bytes(self, fetch: Fetch) -> int:
        remote = self.remotes[fetch]
        if self._ledger.holds(fetch.dest, remote):
            return 0
        part = _part_of(fetch.dest, remote)
        return remote.size_bytes - held_bytes(part, remote.size_bytes)

    async def _look(self, fetch: Fetch) -> Remote | None:
        async for attempt in retrying(self._options, lambda: 0):
            with attempt:
                return await look(self._client, fetch.bucket, fetch.key)
        raise AssertionError("retrying returns or raises")

    async def _copy(self, fetch: Fetch) -> None:
        remote = self.remotes[fetch]
        tries = retrying(self._options, lambda: self.meter.position(fetch), outdated=True)
        async for attempt in tries:
            with attempt:
                if attempt.retry_state.attempt_number > 1:
                    remote = await self._look_again(fetch)
                with local_files(f"Writing {name_of(fetch.dest)}"):
                    await self._ensure(fetch, remote)
                self.meter.finish(fetch, remote.size_bytes)

    async def _look_again(self, fetch: Fetch) -> Remote:
        remote = await self._look(fetch)
        if remote is None:
            raise Permanent(f"{fetch.uri} was removed while it was being copied.")
        if self.fixed and remote.etag != self.remotes[fetch].etag:
            raise Permanent(f"{fetch.uri} {CHANGED}. {TODO}")
        return remote

    async def _ensure(self, fetch: Fetch, remote: Remote) -> None:
        target = await to_thread.run_sync(self._opened, fetch, remote)
        if target is None:
            self.unchanged += 1
            return
        try:
            await self._fill(fetch, remote, target)
            await to_thread.run_sync(self._finish, fetch, remote, target)
        finally:
            target.close()

    def _opened(self, fetch: Fetch, remote: Remote) -> Partial | None:
        """Return the file to fill; None if it is whole."""
        if self._ledger.holds(fetch.dest, remote):
            return None
        return Partial(_part_of(fetch.dest, remote), remote.size_bytes, Digest(*_computed(remote)))

    def _finish(self, fetch: Fetch, remote: Remote, target: Partial) -> None:
        _verify(fetch, remote, target)
        moved(target.path, fetch.dest)
        self._ledger.add(fetch.dest, remote)

    async def _fill(self, fetch: Fetch, remote: Remote, target: Partial) -> None:
        stretches = await to_thread.run_sync(target.missing, self._options.part_bytes)
        lacking = sum(stretch.end - stretch.start for stretch in stretches)
        self.meter.move(fetch, remote.size_bytes - lacking)

        async def receive(stretch: Stretch) -> None:
            stream = _Stream(fetch, remote, target, stretch.start, stretch.end)
            async for attempt in retrying(self._options, lambda: stream.position):
                with attempt, local_files(f"Writing {name_of(fetch.dest)}"):
                    async with self._connections:
                        await self._receive(stream)

        await run_parts(stretches, receive, self._options.jobs)

    async def _receive(self, stream: _Stream) -> None:
        async with of_place(stream.fetch.uri):
            try:
                answer = await self._client.get_object(**stream.request())
            except ClientError as exc:
                if error_code(exc) == "PreconditionFailed" or is_missing(exc):
                    raise stream.replaced() from exc
                raise
            async with answer["Body"] as body:
                stream.check(answer)
                await self._write(body, stream)

    async def _write(self, body: Any, stream: _Stream) -> None:
        while stream.position < stream.end:
            block = bytearray()
            try:
                await _fill(block, body, min(BLOCK_BYTES, stream.end - stream.position))
            finally:  # whole pieces that a broken connection brought are kept
                if stream.position + len(block) < stream.end:
                    del block[len(block) // PIECE_BYTES * PIECE_BYTES :]
                if block:
                    await self._put(block, stream)

    async def _put(self, block: bytearray, stream: _Stream) -> None:
        try:
            await to_thread.run_sync(stream.target.put, stream.position, block)
        except Torn as exc:
            raise _torn(stream.fetch) from exc
        stream.position += len(block)
        self.meter.add(stream.fetch, len(block))


def not_there(uris: list[str]) -> Permanent:
    named = ", ".join(sorted(uris)[:_TOLD])
    more = f" and {len(uris) - _TOLD} more" if len(uris) > _TOLD else ""
    return Permanent(
        f"Missing input files: {named}{more} cannot be found in S3. Upload what is missing or correct "
        "the sample sheet, then put daylily.ready into the folder again."
    )


@dataclass(slots=True)
class _Stream:
    """One part of a file on its way."""

    fetch: Fetch
    remote: Remote
    target: Partial
    position: int
    """Where in the file the next byte belongs."""
    end: int

    def request(self) -> dict[str, str]:
        asked = {"Bucket": self.fetch.bucket, "Key": self.fetch.key}
        asked["IfMatch"] = f'"{self.remote.etag}"'
        if not self._is_whole:
            last = "" if self.end == self.remote.size_bytes else self.end - 1
            asked["Range"] = f"bytes={self.position}-{last}"
        return asked

    def check(self, answer: Mapping[str, Any]) -> None:
        """Raise Transient unless these are the bytes that were asked for, of the version asked for."""
        if str(answer.get("ETag", "")).strip('"') != self.remote.etag:
            raise self.replaced()
        wanted = f"bytes {self.position}-{self.end - 1}/{self.remote.size_bytes}"
        told = answer.get("ContentRange", "")
        length = self.end - self.position
        if answer["ContentLength"] != length or told != ("" if self._is_whole else wanted):
            raise Transient(f"{self.fetch.uri}: S3 did not answer with the bytes asked for.")

    def replaced(self) -> Outdated:
        return Outdated(f"{self.fetch.uri} was replaced while it was being copied.")

    @property
    def _is_whole(self) -> bool:
        return self.position == 0 and self.end == self.remote.size_bytes


class Ledger:
    """Which files are whole, one JSON line each; lines that a crash has torn are as good as none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, tuple[int, int, str]] = {}

    @classmethod
    def in_folder(cls, root: Path) -> Ledger:
        """Make the folder if need be, and read what is noted there."""
        root.mkdir(parents=True, exist_ok=True)
        ledger = cls(root / LEDGER_FILE)
        if ledger._path.exists():
            for line in ledger._path.read_text("utf-8", "replace").splitlines():
                ledger._learn(line)
        return ledger

    def holds(self, dest: Path, remote: Remote) -> bool:
        """Tell whether ``dest`` is this version of the object and was not touched since."""
        noted = self._known.get(self._name(dest))
        if noted is None or not dest.is_file():
            return False
        return noted == (*_stamp(dest), remote.etag) and noted[0] == remote.size_bytes

    def add(self, dest: Path, remote: Remote) -> None:
        size_bytes, changed_ns = _stamp(dest)
        self._known[self._name(dest)] = (size_bytes, changed_ns, remote.etag)
        line = json.dumps([self._name(dest), size_bytes, changed_ns, remote.etag])
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"\n{line}\n")

    def _learn(self, line: str) -> None:
        try:
            name, size_bytes, changed_ns, etag = json.loads(line)
        except (ValueError, TypeError):
            return
        self._known[str(name)] = (size_bytes, changed_ns, etag)

    def _name(self, dest: Path) -> str:
        return str(dest.relative_to(self._path.parent))


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _part_of(dest: Path, remote: Remote) -> Path:
    name = sha256(os.fsencode(dest.name)).hexdigest()[:16]
    version = sha256(f"{remote.etag} in pieces".encode()).hexdigest()[:16]
    return dest.with_name(f".daylily-{name}-{version}.part")


def _computed(remote: Remote) -> tuple[str, int | None]:
    checksum = remote.checksum
    return (checksum.algorithm, checksum.part_bytes) if checksum else ("md5", None)


def _verify(fetch: Fetch, remote: Remote, target: Partial) -> None:
    """Raise Damaged unless the content is what S3 says it is."""
    try:
        computed = target.finish()
    except Torn as exc:
        raise _torn(fetch) from exc
    checksum = remote.checksum
    if checksum and computed != checksum.digest:
        removed(target.path)
        fault = f"its {checksum.algorithm} is {computed.hex()} in place of {checksum.digest.hex()}"
        raise Damaged(
            f"{fetch.uri} did not arrive as S3 holds it: {fault}. If this goes on, upload it again."
        )


def _torn(fetch: Fetch) -> Damaged:
    return Damaged(
        f"What was received of {fetch.uri} is no longer on the disk as it was written. If this goes on, have "
        "the disk checked."
    )


async def _fill(block: bytearray, body: Any, length: int) -> None:
    """Read up to ``length`` bytes: fewer switches to a thread than with what one packet brings."""
    while len(block) < length:
        data = await body.read(length - len(block))
        if not data:
            raise Transient("S3 ended its answer before the bytes asked for were there.")
        block += data
