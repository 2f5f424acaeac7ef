"""Copies from S3 to a local disk: parallel, resumed where they were cut, verified, and never twice.

A file appears under its name only when it is whole and verified; until then it is a hidden ``.part`` whose
name holds a digest of the ETag, so that bytes of another version are never continued. What is finished is
noted in a ledger beside the files (size, time of change, ETag), which makes a repeat cost one HEAD a file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, Final

from anyio import to_thread
from botocore.exceptions import ClientError

from daylily_daemon.adapters.aws import error_code
from daylily_daemon.adapters.s3 import of_place
from daylily_daemon.adapters.transfer.checksums import (
    Digest,
    Remote,
    feed,
    look,
)
from daylily_daemon.adapters.transfer.copying import (
    CopyOptions,
    Damaged,
    Meter,
    OnProgress,
    local_files,
    name_of,
    readable,
    retrying,
    run_all,
)
from daylily_daemon.domain.errors import Permanent, Transient
from daylily_daemon.domain.pins import CHANGED, TODO

LEDGER_FILE: Final = ".daylily-staged.jsonl"
PIECE_BYTES: Final = 256 * 1024
"""Written at once; what a cut connection had brought beyond the last whole piece comes again."""
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
            async for attempt in retrying(self._options, lambda: 0):
                with attempt:
                    remote = await look(self._client, fetch.bucket, fetch.key)
            if remote:
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
        return remote.size_bytes - (part.stat().st_size if part.exists() else 0)

    async def _copy(self, fetch: Fetch) -> None:
        remote: Remote | None = self.remotes[fetch]
        async for attempt in retrying(self._options, lambda: self.meter.position(fetch)):
            with attempt:
                if attempt.retry_state.attempt_number > 1:
                    remote = await look(self._client, fetch.bucket, fetch.key)
                if remote is None:
                    raise Permanent(f"{fetch.uri} was removed while it was being copied.")
                if self.fixed and remote.etag != self.remotes[fetch].etag:
                    raise Permanent(f"{fetch.uri} {CHANGED}. {TODO}")
                with local_files(f"Writing {name_of(fetch.dest)}"):
                    await self._ensure(fetch, remote)
                self.meter.finish(fetch, remote.size_bytes)

    async def _ensure(self, fetch: Fetch, remote: Remote) -> None:
        if await to_thread.run_sync(self._ledger.holds, fetch.dest, remote):
            self.unchanged += 1
            return
        part = _part_of(fetch.dest, remote)
        digest = Digest(*_computed(remote))
        have = await to_thread.run_sync(_resume, part, digest)
        if have < remote.size_bytes:
            await self._receive(fetch, remote, _Open(part, have, digest))
        await to_thread.run_sync(_finish, fetch, remote, part, digest)
        await to_thread.run_sync(self._ledger.add, fetch.dest, remote)

    async def _receive(self, fetch: Fetch, remote: Remote, target: _Open) -> None:
        request = {"Bucket": fetch.bucket, "Key": fetch.key, "IfMatch": f'"{remote.etag}"'}
        if target.position:
            request["Range"] = f"bytes={target.position}-"
        async with of_place(fetch.uri):
            try:
                answer = await self._client.get_object(**request)
            except ClientError as exc:
                if error_code(exc) == "PreconditionFailed":
                    raise Transient(f"{fetch.uri} was replaced while it was being copied.") from exc
                raise
            async with answer["Body"] as body:
                if answer["ContentLength"] != remote.size_bytes - target.position:
                    raise Transient(f"{fetch.uri}: S3 did not answer with the bytes asked for.")
                await self._write(fetch, body, target)

    async def _write(self, fetch: Fetch, body: Any, target: _Open) -> None:
        file = await to_thread.run_sync(target.part.open, "ab")
        try:
            while piece := await _piece(body):
                await to_thread.run_sync(_append, file, piece, target.digest)
                target.position += len(piece)
                self.meter.move(fetch, target.position)
            await to_thread.run_sync(_sync, file)
        finally:
            file.close()


def not_there(uris: list[str]) -> Permanent:
    named = ", ".join(sorted(uris)[:_TOLD])
    more = f" and {len(uris) - _TOLD} more" if len(uris) > _TOLD else ""
    return Permanent(
        f"Missing input files: {named}{more} cannot be found in S3. Upload what is missing or correct "
        "the sample sheet, then put daylily.ready into the folder again."
    )


@dataclass(slots=True)
class _Open:
    """A partial file that is being continued."""

    part: Path
    position: int
    digest: Digest


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
    version = sha256(remote.etag.encode()).hexdigest()[:16]
    return dest.with_name(f".daylily-{name}-{version}.part")


def _computed(remote: Remote) -> tuple[str, int | None]:
    checksum = remote.checksum
    return (checksum.algorithm, checksum.part_bytes) if checksum else ("md5", None)


def _resume(part: Path, digest: Digest) -> int:
    part.parent.mkdir(parents=True, exist_ok=True)
    return feed(part, digest) if part.exists() else 0


def _append(file: BinaryIO, piece: bytes, digest: Digest) -> None:
    digest.update(piece)
    file.write(piece)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _finish(fetch: Fetch, remote: Remote, part: Path, digest: Digest) -> None:
    if remote.size_bytes == 0:
        part.touch()
    fault = _fault(remote, part, digest)
    if fault:
        part.unlink(missing_ok=True)
        raise Damaged(
            f"{fetch.uri} did not arrive as S3 holds it: {fault}. If this goes on, upload it again."
        )
    part.replace(fetch.dest)


def _fault(remote: Remote, part: Path, digest: Digest) -> str:
    size_bytes = part.stat().st_size
    if size_bytes != remote.size_bytes:
        return f"{size_bytes:,} bytes in place of {remote.size_bytes:,}"
    checksum = remote.checksum
    computed = digest.digest()
    if checksum and computed != checksum.digest:
        return f"its {checksum.algorithm} is {computed.hex()} in place of {checksum.digest.hex()}"
    return ""


async def _piece(body: Any) -> bytes:
    """Return a full piece, or the end: fewer switches to a thread than with what one packet brings."""
    piece = bytearray()
    while len(piece) < PIECE_BYTES:
        data = await body.read(PIECE_BYTES - len(piece))
        if not data:
            break
        piece += data
    return bytes(piece)
