"""Copies from local folders to S3: parallel, in parts where a file is large, and never what is there.

Files go at once, and so do the parts of one file; all share the same number of connections. Every file goes
with its SHA-256, so S3 itself refuses what was damaged on the way. A file that is written to meanwhile is
noticed by its stamp and sent again; one that does not come to rest counts as left out. An upload in parts
that was cut is continued: parts S3 already has, with the same digest, are not sent again.
"""

from __future__ import annotations

import base64
import os
import stat
from collections.abc import AsyncIterator, Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Final

from anyio import CapacityLimiter, to_thread

from daylily_daemon.adapters.aws import translated
from daylily_daemon.adapters.s3 import pages
from daylily_daemon.adapters.transfer.checksums import (
    READ_BYTES,
    Checksum,
    digest_of_open,
    look,
)
from daylily_daemon.adapters.transfer.collecting import (
    Collected,
    LocalFile,
    Stamp,
    collect,
    printable,
)
from daylily_daemon.adapters.transfer.copying import (
    MIB,
    CopyOptions,
    Meter,
    OnProgress,
    local_files,
    name_of,
    retrying,
    run_all,
    run_parts,
    split_uri,
)
from daylily_daemon.domain.errors import DaemonError, Impeded, Permanent
from daylily_daemon.domain.sheet import S3Place

MAX_PARTS: Final = 10_000
ROUNDS: Final = 3
"""Times that a folder is looked through for what came or changed meanwhile, and tries of a changing file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Uploaded:
    files: int
    size_bytes: int
    unchanged: int
    """Files that S3 had already, with the same content."""
    left_out: tuple[str, ...] = ()
    """What was not uploaded and still lies there, and why, one sentence each."""
    gone: tuple[str, ...] = ()
    """Names of files that somebody removed before they could be uploaded."""


async def upload(
    client: Any,
    source: Path,
    uri: str,
    *,
    options: CopyOptions | None = None,
    progress: OnProgress | None = None,
    skip: Callable[[str], bool] = lambda _: False,
) -> Uploaded:
    """Copy every file below ``source`` to ``uri``, ``s3://bucket/prefix/``.

    Links are followed into ``source`` and ``options.within``. ``skip`` is asked for each name. Nothing is
    deleted from S3. The folder is looked through again until nothing in it is new. Raises Permanent, and
    Transient if S3 could not be reached for long.
    """
    options = options or CopyOptions()
    run = await _begun(client, uri, options)
    for number in range(ROUNDS + 1):
        found = await _collected(source, options.within, run.prefix)
        new = [file for file in found.files if run.is_new(file) and not skip(file.name)]
        if not new or number == ROUNDS:
            break
        await run.all(new, *((progress, options.on_file) if number == 0 else (None, None)))
    restless = [f"{printable(file.name)} is still being written." for file in new]
    run.forget_all_but({file.name for file in found.files})
    return run.done((*found.left_out, *restless))


async def upload_files(
    client: Any,
    files: Sequence[LocalFile],
    uri: str,
    *,
    options: CopyOptions | None = None,
    progress: OnProgress | None = None,
) -> Uploaded:
    """Copy these files to ``uri`` and their names. Raises Permanent and Transient."""
    options = options or CopyOptions()
    run = await _begun(client, uri, options)
    await run.all(files, progress, options.on_file)
    return run.done(())


async def _collected(source: Path, within: Sequence[Path], prefix: str) -> Collected:
    with local_files(f"Reading {name_of(source)}"):
        return await to_thread.run_sync(
            lambda: collect(source, within=within, key_bytes=len(prefix.encode()))
        )


async def _begun(client: Any, uri: str, options: CopyOptions) -> _Uploads:
    bucket, prefix = split_uri(uri)
    async for attempt in retrying(options, lambda: 0):
        with attempt:
            there = {
                entry["Key"]: int(entry["Size"])
                async for page in pages(client, bucket, prefix)
                for entry in page.get("Contents", ())
            }
    return _Uploads(client, S3Place(bucket, prefix), there, options)


class _Changed(DaemonError):
    """A file is not what it was when it was looked at."""


@dataclass(frozen=True, slots=True)
class _UploadSource:
    """An open file and what it was at that moment."""

    item: LocalFile
    key: str
    file: BinaryIO

    @property
    def size_bytes(self) -> int:
        return self.item.stamp.size_bytes

    def check(self) -> None:
        """Raise _Changed if it was written to, or another file lies there now."""
        there = os.stat(self.item.path, follow_symlinks=False)
        if not Stamp.of(os.fstat(self.file.fileno())) == self.item.stamp == Stamp.of(there):
            raise _Changed(self.item.name)


class _Slice:
    """Part of a file, read from the disk as often as the SDK wants it; nothing of it is kept in memory.

    The SDK measures it, and reads it where it signs bodies; what goes to S3 is taken block by block from an
    iteration, with a hundredth of the switches to a thread that aiohttp makes for a file.
    """

    def __init__(self, source: _UploadSource, start: int, length: int) -> None:
        self.source = source
        self._start = start
        self._length = length
        self._at = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._length)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, amount: int = -1) -> bytes:
        """Raises _Changed where the file has become too short."""
        left = self._length - self._at
        wanted = left if amount < 0 else min(amount, left)
        data = os.pread(self.source.file.fileno(), wanted, self._start + self._at)
        if wanted and not data:
            raise _Changed(self.source.item.name)
        self._at += len(data)
        return data

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while data := await to_thread.run_sync(self.read, READ_BYTES):
            yield data

    def digest(self, algorithm: str) -> bytes:
        self.seek(0)
        found = digest_of_open(self, algorithm)
        self.seek(0)
        return found


class _Uploads:
    def __init__(
        self, client: Any, place: S3Place, there: Mapping[str, int], options: CopyOptions
    ) -> None:
        self.prefix = place.key
        self._options = options
        self._client = client
        self._bucket = place.bucket
        self._there = there
        self._connections = CapacityLimiter(options.jobs)
        self._meter = Meter((), None, None)
        self._unchanged = 0
        self._seen: dict[str, Stamp] = {}
        self._sent: dict[str, int] = {}
        self._left_out: dict[str, str] = {}
        self._gone: set[str] = set()

    def is_new(self, file: LocalFile) -> bool:
        return self._seen.get(file.name) != file.stamp

    def forget_all_but(self, names: Set[str]) -> None:
        """Leave what became of other names to whoever looked at them later."""
        self._left_out = {k: reason for k, reason in self._left_out.items() if k in names}

    def done(self, left_out: Sequence[str]) -> Uploaded:
        return Uploaded(
            files=len(self._sent),
            size_bytes=sum(self._sent.values()),
            unchanged=self._unchanged,
            left_out=tuple(sorted({*left_out, *self._left_out.values()})),
            gone=tuple(sorted(self._gone - self._sent.keys())),
        )

    async def all(
        self, files: Sequence[LocalFile], progress: OnProgress | None, on_file: OnProgress | None
    ) -> None:
        self._meter = Meter([file.stamp.size_bytes for file in files], progress, on_file)
        await run_all(files, self._copy, self._options.jobs)

    async def _copy(self, item: LocalFile) -> None:
        self._left_out.pop(item.name, None)
        try:
            await self._copy_at_rest(item)
        except FileNotFoundError:
            self._gone.add(item.name)
        except _Changed:
            self._left_out[item.name] = f"{printable(item.name)} is still being written."
        except OSError as exc:
            reason = f"cannot be read: {exc.strerror or exc}."
            self._left_out[item.name] = f"{printable(item.name)} {reason}"

    async def _copy_at_rest(self, item: LocalFile) -> None:
        for number in range(ROUNDS):
            self._seen[item.name] = item.stamp
            try:
                await self._copy_as_it_is(item)
            except _Changed:
                if number == ROUNDS - 1:
                    raise
                item = await to_thread.run_sync(_looked_at_again, item)
            else:
                self._sent[item.name] = item.stamp.size_bytes
                self._meter.finish(item.name, item.stamp.size_bytes)
                return

    async def _copy_as_it_is(self, item: LocalFile) -> None:
        """Raises _Changed, and OSError for a file that cannot be read."""
        key = self.prefix + item.name
        maybe_there = self._there.get(key) == item.stamp.size_bytes
        async for attempt in retrying(self._options, lambda: self._meter.position(item.name)):
            again = attempt.retry_state.attempt_number > 1
            with attempt:
                file = await to_thread.run_sync(_opened, item)
                try:
                    await self._ensure(
                        _UploadSource(item, key, file), maybe_there or again, not again
                    )
                finally:
                    file.close()

    async def _ensure(self, source: _UploadSource, maybe_there: bool, first: bool) -> None:
        source.check()
        if maybe_there and await self._is_there(source):
            self._unchanged += first
        elif source.size_bytes >= self._options.multipart_bytes:
            await self._send_in_parts(source)
        else:
            await self._send(source)
        source.check()

    async def _is_there(self, source: _UploadSource) -> bool:
        remote = await look(self._client, self._bucket, source.key)
        if remote is None or remote.checksum is None or remote.size_bytes != source.size_bytes:
            return False
        return await to_thread.run_sync(_matches, source.file, remote.checksum)

    async def _send(self, source: _UploadSource) -> None:
        body = _Slice(source, 0, source.size_bytes)
        digest = await to_thread.run_sync(body.digest, "sha256")
        async with self._connections, translated(self._uri(source)):
            await self._client.put_object(
                Bucket=self._bucket,
                Key=source.key,
                Body=body,
                ChecksumAlgorithm="SHA256",
                ChecksumSHA256=_base64(digest),
            )

    async def _send_in_parts(self, source: _UploadSource) -> None:
        upload = await self._unfinished(source) or await self._begin(source)
        part_bytes = _part_bytes(source.size_bytes, self._options.part_bytes)
        self._meter.move(source.item.name, 0)
        parts: dict[int, dict[str, Any]] = {}

        async def send(number: int) -> None:
            start = (number - 1) * part_bytes
            length = min(part_bytes, source.size_bytes - start)
            async with self._connections:
                parts[number] = await self._part(upload, number, _Slice(source, start, length))
            self._meter.add(source.item.name, length)

        numbers = range(1, -(-source.size_bytes // part_bytes) + 1)
        await run_parts(numbers, send, self._options.jobs)
        source.check()
        async with translated(self._uri(source)):
            await self._client.complete_multipart_upload(
                Bucket=self._bucket,
                Key=source.key,
                UploadId=upload.id,
                MultipartUpload={"Parts": [parts[number] for number in numbers]},
            )

    async def _part(self, upload: _Unfinished, number: int, part: _Slice) -> dict[str, Any]:
        """Send one part unless S3 has it; return what completing the upload asks of it."""
        source = part.source
        sha256 = _base64(await to_thread.run_sync(part.digest, "sha256"))
        sent = upload.parts.get(number)
        if sent is None or not await to_thread.run_sync(sent.holds, part, sha256):
            async with translated(self._uri(source)):
                sent = _Part.of(
                    await self._client.upload_part(
                        Bucket=self._bucket,
                        Key=source.key,
                        UploadId=upload.id,
                        PartNumber=number,
                        Body=part,
                        ChecksumAlgorithm="SHA256",
                        ChecksumSHA256=sha256,
                    )
                )
        return {"PartNumber": number, "ETag": sent.etag, "ChecksumSHA256": sha256}

    async def _begin(self, source: _UploadSource) -> _Unfinished:
        async with translated(self._uri(source)):
            answer = await self._client.create_multipart_upload(
                Bucket=self._bucket, Key=source.key, ChecksumAlgorithm="SHA256"
            )
        return _Unfinished(answer["UploadId"], {})

    async def _unfinished(self, source: _UploadSource) -> _Unfinished | None:
        """Return the latest upload of this key that was begun and cut; None if there is none."""
        try:
            async with translated(self._uri(source)):
                listed = await self._client.list_multipart_uploads(
                    Bucket=self._bucket, Prefix=source.key
                )
        except (Impeded, Permanent):
            # Looking costs a permission of its own; without it an upload just starts anew.
            return None
        begun = [
            entry
            for entry in listed.get("Uploads", ())
            if entry["Key"] == source.key and entry.get("ChecksumAlgorithm") == "SHA256"
        ]
        if not begun:
            return None
        latest = max(begun, key=lambda entry: entry["Initiated"])["UploadId"]
        return _Unfinished(latest, await self._parts(source, latest))

    async def _parts(self, source: _UploadSource, upload_id: str) -> dict[int, _Part]:
        request = {"Bucket": self._bucket, "Key": source.key, "UploadId": upload_id}
        parts: dict[int, _Part] = {}
        while True:
            async with translated(self._uri(source)):
                page = await self._client.list_parts(**request)
            parts |= {entry["PartNumber"]: _Part.of(entry) for entry in page.get("Parts", ())}
            if not page.get("IsTruncated"):
                return parts
            request["PartNumberMarker"] = page["NextPartNumberMarker"]

    def _uri(self, source: _UploadSource) -> str:
        return f"s3://{self._bucket}/{source.key}"


@dataclass(frozen=True, slots=True)
class _Part:
    etag: str
    sha256: str
    """Empty where the store does not tell it."""

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> _Part:
        return cls(answer["ETag"], answer.get("ChecksumSHA256", ""))

    def holds(self, part: _Slice, sha256: str) -> bool:
        if self.sha256:
            return self.sha256 == sha256
        return self.etag.strip('"') == part.digest("md5").hex()


@dataclass(frozen=True, slots=True)
class _Unfinished:
    id: str
    parts: Mapping[int, _Part]


def _part_bytes(size_bytes: int, wanted: int) -> int:
    """Return whole MiB, so that no file needs more than 10,000 parts."""
    needed = -(-size_bytes // MAX_PARTS)
    return max(wanted, -(-needed // MIB) * MIB)


def _base64(digest: bytes) -> str:
    """Return a digest the way S3's headers carry it."""
    return base64.b64encode(digest).decode()


def _opened(item: LocalFile) -> BinaryIO:
    """Open exactly what was looked at: never through a link, and never waiting for a writer."""
    fd = os.open(item.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise _Changed(item.name)
    return os.fdopen(fd, "rb")


def _looked_at_again(item: LocalFile) -> LocalFile:
    return replace(item, stamp=Stamp.of(os.stat(item.path, follow_symlinks=False)))


def _matches(file: BinaryIO, checksum: Checksum) -> bool:
    file.seek(0)
    return digest_of_open(file, checksum.algorithm, checksum.part_bytes) == checksum.digest
