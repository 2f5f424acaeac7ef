"""Copies from a local folder to S3: parallel, in parts where a file is large, and never what is there.

Every file goes with its SHA-256, so S3 itself refuses what was damaged on the way or changed meanwhile. An
upload in parts that was cut is continued: parts S3 already has, with the same digest, are not sent again.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from anyio import to_thread

from daylily_daemon.adapters.aws import translated
from daylily_daemon.adapters.s3 import pages
from daylily_daemon.adapters.transfer.checksums import (
    base64_sha256,
    digest_of_file,
    file_matches,
    look,
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
    split_uri,
)
from daylily_daemon.domain.errors import Permanent

MAX_PARTS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Upload:
    path: Path
    key: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Uploaded:
    files: int
    size_bytes: int
    unchanged: int
    """Files that S3 had already, with the same content."""
    left_out: tuple[str, ...]
    """What was not uploaded, and why, one sentence each: links out of the folder, sockets."""


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

    ``skip`` is asked for the path of each file below ``source``. Nothing is deleted from S3. Raises
    Permanent, or Transient if S3 could not be reached for long.
    """
    options = options or CopyOptions()
    bucket, prefix = split_uri(uri)
    with local_files(f"Reading {name_of(source)}"):
        found, left_out = await to_thread.run_sync(_files, source, prefix)
    found = [item for item in found if not skip(item.key.removeprefix(prefix))]
    there = {
        entry["Key"]: int(entry["Size"])
        async for page in pages(client, bucket, prefix)
        for entry in page.get("Contents", ())
    }
    meter = Meter([item.size_bytes for item in found], progress, options.on_file)
    run = _Uploads(client, bucket, there, meter, options)
    await run_all(found, run.copy, run.options.jobs)
    return Uploaded(
        files=len(found),
        size_bytes=sum(item.size_bytes for item in found),
        unchanged=run.unchanged,
        left_out=tuple(left_out),
    )


class _Uploads:
    def __init__(
        self, client: Any, bucket: str, there: Mapping[str, int], meter: Meter, options: CopyOptions
    ) -> None:
        self.options = options
        self.unchanged = 0
        self._client = client
        self._bucket = bucket
        self._there = there
        self._meter = meter

    async def copy(self, item: Upload) -> None:
        maybe_there = self._there.get(item.key) == item.size_bytes
        async for attempt in retrying(self.options, lambda: self._meter.position(item)):
            again = attempt.retry_state.attempt_number > 1
            with attempt, local_files(f"Reading {name_of(item.path)}"):
                if (maybe_there or again) and await self._is_there(item):
                    self.unchanged += not again
                elif item.size_bytes >= self.options.multipart_bytes:
                    await self._send_in_parts(item)
                else:
                    await self._send(item)
                self._meter.finish(item, item.size_bytes)

    async def _is_there(self, item: Upload) -> bool:
        remote = await look(self._client, self._bucket, item.key)
        if remote is None or remote.checksum is None or remote.size_bytes != item.size_bytes:
            return False
        return await to_thread.run_sync(file_matches, item.path, remote.checksum)

    async def _send(self, item: Upload) -> None:
        digest = await to_thread.run_sync(digest_of_file, item.path, "sha256")
        file = await to_thread.run_sync(item.path.open, "rb")
        try:
            async with translated(self._uri(item)):
                await self._client.put_object(
                    Bucket=self._bucket,
                    Key=item.key,
                    Body=file,
                    ChecksumAlgorithm="SHA256",
                    ChecksumSHA256=base64.b64encode(digest).decode(),
                )
        finally:
            file.close()

    async def _send_in_parts(self, item: Upload) -> None:
        upload = await self._unfinished(item) or await self._begin(item)
        part_bytes = _part_bytes(item.size_bytes, self.options.part_bytes)
        parts = []
        for number, start in enumerate(range(0, item.size_bytes, part_bytes), start=1):
            data = await to_thread.run_sync(_read_at, item.path, start, part_bytes)
            if len(data) != min(part_bytes, item.size_bytes - start):
                raise Permanent(f"{name_of(item.path)} became shorter meanwhile; export again.")
            parts.append(await self._part(item, upload, number, data))
            self._meter.move(item, start + len(data))
        async with translated(self._uri(item)):
            await self._client.complete_multipart_upload(
                Bucket=self._bucket,
                Key=item.key,
                UploadId=upload.id,
                MultipartUpload={"Parts": parts},
            )

    async def _part(
        self, item: Upload, upload: _Unfinished, number: int, data: bytes
    ) -> dict[str, Any]:
        """Send one part unless S3 has it; return what completing the upload asks of it."""
        sha256 = base64_sha256(data)
        sent = upload.parts.get(number)
        if sent is None or not sent.holds(data, sha256):
            async with translated(self._uri(item)):
                sent = _Part.of(
                    await self._client.upload_part(
                        Bucket=self._bucket,
                        Key=item.key,
                        UploadId=upload.id,
                        PartNumber=number,
                        Body=io.BytesIO(data),
                        ChecksumAlgorithm="SHA256",
                        ChecksumSHA256=sha256,
                    )
                )
        return {"PartNumber": number, "ETag": sent.etag, "ChecksumSHA256": sha256}

    async def _begin(self, item: Upload) -> _Unfinished:
        async with translated(self._uri(item)):
            answer = await self._client.create_multipart_upload(
                Bucket=self._bucket, Key=item.key, ChecksumAlgorithm="SHA256"
            )
        return _Unfinished(answer["UploadId"], {})

    async def _unfinished(self, item: Upload) -> _Unfinished | None:
        """Return the latest upload of this key that was begun and cut; None if there is none."""
        try:
            async with translated(self._uri(item)):
                listed = await self._client.list_multipart_uploads(
                    Bucket=self._bucket, Prefix=item.key
                )
        except Permanent:
            # Looking costs a permission of its own; without it an upload just starts anew.
            return None
        begun = [
            entry
            for entry in listed.get("Uploads", ())
            if entry["Key"] == item.key and entry.get("ChecksumAlgorithm") == "SHA256"
        ]
        if not begun:
            return None
        latest = max(begun, key=lambda entry: entry["Initiated"])["UploadId"]
        return _Unfinished(latest, await self._parts(item, latest))

    async def _parts(self, item: Upload, upload_id: str) -> dict[int, _Part]:
        request = {"Bucket": self._bucket, "Key": item.key, "UploadId": upload_id}
        parts: dict[int, _Part] = {}
        while True:
            async with translated(self._uri(item)):
                page = await self._client.list_parts(**request)
            parts |= {entry["PartNumber"]: _Part.of(entry) for entry in page.get("Parts", ())}
            if not page.get("IsTruncated"):
                return parts
            request["PartNumberMarker"] = page["NextPartNumberMarker"]

    def _uri(self, item: Upload) -> str:
        return f"s3://{self._bucket}/{item.key}"


@dataclass(frozen=True, slots=True)
class _Part:
    etag: str
    sha256: str
    """Empty where the store does not tell it."""

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> _Part:
        return cls(answer["ETag"], answer.get("ChecksumSHA256", ""))

    def holds(self, data: bytes, sha256: str) -> bool:
        if self.sha256:
            return self.sha256 == sha256
        return self.etag.strip('"') == hashlib.md5(data, usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True)
class _Unfinished:
    id: str
    parts: Mapping[int, _Part]


def _part_bytes(size_bytes: int, wanted: int) -> int:
    """Return whole MiB, so that no file needs more than 10,000 parts."""
    needed = -(-size_bytes // MAX_PARTS)
    return max(wanted, -(-needed // MIB) * MIB)


def _read_at(path: Path, start: int, length: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(length)


def _files(source: Path, prefix: str) -> tuple[list[Upload], list[str]]:
    """Return the files below ``source`` in order, and what is left out.

    A link to a file inside the folder counts as the file; one that leads elsewhere is left out, since it may
    lead to a reference genome of many gigabytes, or to what is nobody's business.
    """
    if not source.is_dir():
        raise Permanent(f"There is no folder {name_of(source)}; give the folder of the results.")
    root = source.resolve()
    found: list[Upload] = []
    left_out: list[str] = []
    for folder, subfolders, names in os.walk(root, onerror=_raise):
        links = [name for name in subfolders if (Path(folder) / name).is_symlink()]
        for name in sorted((*names, *links)):
            path = Path(folder) / name
            reason = _unfit(path, root)
            if reason:
                left_out.append(f"{name_of(path.relative_to(root))} {reason}")
            else:
                key = prefix + path.relative_to(root).as_posix()
                found.append(Upload(path, key, path.stat().st_size))
    return sorted(found, key=lambda item: item.key), sorted(left_out)


def _unfit(path: Path, root: Path) -> str:
    if name_of(path) != str(path):
        return "has a name that is not UTF-8, as names in S3 must be."
    if path.is_symlink() and not path.exists():
        return "is a link to what does not exist."
    if path.is_symlink() and not path.resolve().is_relative_to(root):
        return "is a link that leads out of the folder."
    if path.is_symlink() and path.is_dir():
        return "is a link to a folder, whose files are uploaded where they are."
    if not path.is_file():
        return "is neither a file nor a folder."
    return ""


def _raise(error: OSError) -> None:
    raise error
