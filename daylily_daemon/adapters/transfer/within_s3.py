"""The files of a drop copied to another folder of S3, by S3 itself: none of them goes through this host.

A drop is what a lab put there: no sentinel (``daylily.…``) and nothing below ``results/``. What is copied is
what was listed: an object that is replaced meanwhile ends it. A copy that was cut is gone on with by the same
call; a note in the new folder says whose copy it is. Tags are left behind: to read them takes a right of its
own, and S3 does not copy them with large objects anyway.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final

from botocore.exceptions import ClientError

from daylily_daemon.adapters.aws import error_code, translated
from daylily_daemon.adapters.objects import ObjectInfo
from daylily_daemon.adapters.s3 import S3Objects
from daylily_daemon.adapters.transfer.copying import (
    MIB,
    CopyOptions,
    Meter,
    OnProgress,
    retrying,
    run_all,
    run_parts,
)
from daylily_daemon.domain.errors import DaemonError, Permanent
from daylily_daemon.domain.places import RESULTS
from daylily_daemon.domain.sheet import RECIPE_FILE, S3Place

NOTE: Final = "daylily.rerun"
"""Says in the new folder from where it is copied."""
NOTE_BYTES: Final = 2000
_SENTINELS: Final = "daylily."
_REPLACED: Final = frozenset({"PreconditionFailed", "412", "ConditionalRequestConflict"})


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyLimits:
    """What S3 does in one call (API reference of CopyObject and UploadPartCopy)."""

    largest_bytes: int = 5 * 1024 * MIB
    """Of an object that is copied at once."""
    part_bytes: int = 1024 * MIB
    """5 MiB to 5 GiB; an object of 50 TB has 10,000 parts of 5 GiB."""


class PlaceTaken(Permanent):
    """Something lies in the folder that is copied to, and it is not the beginning of this copy."""


async def drop_at(client: Any, place: S3Place) -> Sequence[ObjectInfo]:
    """Return the files of a drop. Raises Permanent where there is no recipe, as in ``Objects``."""
    listed = await S3Objects(client).list(place.bucket, place.key)
    files = [info for info in listed if _is_of_the_drop(info.key.removeprefix(place.key))]
    if not any(info.key == place.key + RECIPE_FILE for info in files):
        raise Permanent(
            f"There is no {RECIPE_FILE} in s3://{place.bucket}/{place.key}: nothing there can be run again."
        )
    return files


def _is_of_the_drop(name: str) -> bool:
    is_sentinel = name.startswith(_SENTINELS) and "/" not in name
    return not is_sentinel and not name.startswith(RESULTS) and not name.endswith("/")


async def copy_drop(
    client: Any,
    source: S3Place,
    target: S3Place,
    *,
    options: CopyOptions | None = None,
    limits: CopyLimits | None = None,
    progress: OnProgress | None = None,
) -> Sequence[ObjectInfo]:
    """Copy the drop at ``source`` to ``target``; return its files. Both keys end with a slash.

    Raises PlaceTaken, Permanent where a file was replaced meanwhile or cannot be read, and Transient if S3
    could not be reached for long.
    """
    options = options or CopyOptions()
    files = await drop_at(client, source)
    copies = _Copies(client, source, target, options, limits or CopyLimits())
    await copies.begin()
    copies.meter = Meter([info.size for info in files], progress, None)
    await run_all(files, copies.copy, options.jobs)
    return files


class _Copies:
    def __init__(
        self,
        client: Any,
        source: S3Place,
        target: S3Place,
        options: CopyOptions,
        limits: CopyLimits,
    ) -> None:
        self._client = client
        self._source = source
        self._target = target
        self._options = options
        self._limits = limits
        self._there: dict[str, ObjectInfo] = {}
        self.meter = Meter((), None, None)

    async def begin(self) -> None:
        """Make sure that the new folder is ours, and learn what was copied before. Raises PlaceTaken."""
        objects, place = S3Objects(self._client), self._target
        mine = f"s3://{self._source.bucket}/{self._source.key}".encode()
        listed = await objects.list(place.bucket, place.key)
        self._there = {info.key.removeprefix(place.key): info for info in listed}
        if not self._there:
            await self._note(mine)
        if await objects.read(place.bucket, place.key + NOTE, NOTE_BYTES) != mine:
            raise PlaceTaken(
                f"There are files in s3://{place.bucket}/{place.key} already, and they are no copy of this "
                "workset. Choose another name with --as."
            )

    async def _note(self, mine: bytes) -> None:
        """Write whose copy it is, unless somebody was faster."""
        place = self._target
        try:
            async with translated(f"s3://{place.bucket}/{place.key}{NOTE}"):
                await self._client.put_object(
                    Bucket=place.bucket, Key=place.key + NOTE, Body=mine, IfNoneMatch="*"
                )
        except DaemonError as exc:
            if not _is_replaced(exc):
                raise

    async def copy(self, info: ObjectInfo) -> None:
        name = info.key.removeprefix(self._source.key)
        there = self._there.get(name)
        if there is None or (there.size, there.etag) != (info.size, info.etag):
            async for attempt in retrying(self._options, lambda: self.meter.position(name)):
                with attempt:
                    await self._copied(info, self._target.key + name, name)
        self.meter.finish(name, info.size)

    async def _copied(self, info: ObjectInfo, key: str, name: str) -> None:
        try:
            if info.size > self._limits.largest_bytes:
                await self._in_parts(info, key, name)
                return
            async with self._told(info):
                await self._client.copy_object(
                    **self._from(info), **self._to(key), TaggingDirective="REPLACE"
                )
        except DaemonError as exc:
            if not _is_replaced(exc):
                raise
            raise Permanent(
                f"s3://{self._source.bucket}/{info.key} was replaced or removed while it was copied. Ask "
                "again when nobody writes there."
            ) from exc

    async def _in_parts(self, info: ObjectInfo, key: str, name: str) -> None:
        """Copy a large object. Parts of a copy that was cut are removed by a rule of the bucket."""
        async with self._told(info):
            made = await self._client.create_multipart_upload(**self._to(key))
        await self._parts(info, {**self._to(key), "UploadId": made["UploadId"]}, name)

    async def _parts(self, info: ObjectInfo, upload: dict[str, Any], name: str) -> None:
        size = max(self._limits.part_bytes, -(-info.size // 10_000))
        numbers = range(1, -(-info.size // size) + 1)
        parts: dict[int, dict[str, Any]] = {}
        self.meter.move(name, 0)

        async def copy(number: int) -> None:
            first, last = (number - 1) * size, min(number * size, info.size) - 1
            span = {"PartNumber": number, "CopySourceRange": f"bytes={first}-{last}"}
            async with self._told(info):
                answer = await self._client.upload_part_copy(**self._from(info), **upload, **span)
            parts[number] = {"PartNumber": number, "ETag": answer["CopyPartResult"]["ETag"]}
            self.meter.add(name, last + 1 - first)

        await run_parts(numbers, copy, self._options.jobs)
        done = {"Parts": [parts[number] for number in numbers]}
        async with self._told(info):
            await self._client.complete_multipart_upload(**upload, MultipartUpload=done)

    def _told(self, info: ObjectInfo) -> AbstractAsyncContextManager[None]:
        return translated(f"s3://{self._source.bucket}/{info.key}")

    def _from(self, info: ObjectInfo) -> dict[str, Any]:
        source = {"Bucket": self._source.bucket, "Key": info.key}
        return {"CopySource": source, "CopySourceIfMatch": info.etag}

    def _to(self, key: str) -> dict[str, Any]:
        return {"Bucket": self._target.bucket, "Key": key}


def _is_replaced(exc: DaemonError) -> bool:
    cause = exc.__cause__
    return isinstance(cause, ClientError) and error_code(cause) in _REPLACED | {"NoSuchKey", "404"}
