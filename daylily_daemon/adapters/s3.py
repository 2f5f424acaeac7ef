"""S3 as a store of small objects, and the slow look for drops whose event never came."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from botocore.exceptions import ClientError

from daylily_daemon.adapters.aws import is_missing, translated
from daylily_daemon.adapters.envelopes import IGNORE, READY, Origin, submission
from daylily_daemon.adapters.objects import ObjectInfo
from daylily_daemon.domain.model import Command, WorksetId
from daylily_daemon.domain.naming import safe_id, trigger_id

Known = Callable[[Sequence[WorksetId]], Awaitable[frozenset[WorksetId]]]

_ANSWERS: Final = frozenset(
    {"daylily.lock", "daylily.in_progress", "daylily.complete", "daylily.error"}
)
"""What the system before us wrote once it had seen ``daylily.ready``."""
_LOOKS_BEFORE_FORGETTING: Final = 100


class S3Objects:
    """Objects in any bucket the host may use. Every method raises Transient and Permanent."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def head(self, bucket: str, key: str) -> ObjectInfo | None:
        async with translated(f"s3://{bucket}/{key}"):
            try:
                answer = await self._client.head_object(Bucket=bucket, Key=key)
            except ClientError as exc:
                if is_missing(exc):
                    return None
                raise
        info = _info(key, answer["ContentLength"], answer)
        archived = answer.get("ArchiveStatus", info.storage_class)
        restored = 'ongoing-request="false"' in answer.get("Restore", "")
        return replace(info, storage_class=archived, restored=restored)

    async def read(self, bucket: str, key: str, max_bytes: int) -> bytes | None:
        """Return the content, cut after ``max_bytes``; None if there is no such object."""
        async with translated(f"s3://{bucket}/{key}"):
            try:
                answer = await self._client.get_object(Bucket=bucket, Key=key)
            except ClientError as exc:
                if is_missing(exc):
                    return None
                raise
            async with answer["Body"] as body:
                return await _read_up_to(body, max_bytes)

    async def list(self, bucket: str, prefix: str) -> Sequence[ObjectInfo]:
        """Return every object below ``prefix``, at one call per 1000 of them."""
        return [
            _info(entry["Key"], entry["Size"], entry)
            async for page in pages(self._client, bucket, prefix)
            for entry in page.get("Contents", ())
        ]

    async def put(self, bucket: str, key: str, body: bytes) -> None:
        async with translated(f"s3://{bucket}/{key}"):
            await self._client.put_object(Bucket=bucket, Key=key, Body=body)

    async def delete(self, bucket: str, key: str) -> None:
        """Remove the object; one that is not there is no error."""
        async with translated(f"s3://{bucket}/{key}"):
            await self._client.delete_object(Bucket=bucket, Key=key)


class S3Drops:
    """Finds ``daylily.ready`` in folders that have no item: one delimited listing, then a look at each.

    A sentinel of the system before us that is as young as ``daylily.ready`` says that the drop was seen
    then; ``daylily.ignore`` says that nobody wants it. Such folders are remembered, so that a look costs no
    more with every workset that was ever completed, and looked at again after a hundred looks.
    """

    def __init__(self, client: Any, origin: Origin, known: Known) -> None:
        self._client = client
        self._objects = S3Objects(client)
        self._origin = origin
        self._known = known
        self._settled: set[str] = set()
        self._looks = 0

    async def unannounced(self) -> Sequence[Command]:
        self._looks += 1
        if self._looks % _LOOKS_BEFORE_FORGETTING == 0:
            self._settled.clear()
        found = [await self._look(folder) for folder in await self._unknown()]
        return [command for command in found if command]

    async def _unknown(self) -> list[str]:
        origin = self._origin
        folders = {
            entry["Prefix"].removeprefix(origin.prefix).removesuffix("/")
            async for page in pages(self._client, origin.bucket, origin.prefix, delimiter="/")
            for entry in page.get("CommonPrefixes", ())
        }
        named = {folder: safe_id(folder) for folder in sorted(folders - self._settled) if folder}
        known = await self._known(tuple(named.values())) if named else frozenset()
        return [folder for folder, id in named.items() if id not in known]

    async def _look(self, folder: str) -> Command | None:
        start = f"{self._origin.prefix}{folder}/"
        listed = await self._objects.list(self._origin.bucket, start + "daylily.")
        found = {info.key.removeprefix(start): info for info in listed}
        ready = found.get(READY)
        if ready is None:
            return None
        if _was_seen(ready, [found[name] for name in _ANSWERS & found.keys()]) or IGNORE in found:
            self._settled.add(folder)
            return None
        write = await self._write_of(ready)
        if write is None:
            return None
        id = trigger_id(self._origin.bucket, ready.key, write)
        return submission(self._origin, folder, id, "sweep")

    async def _write_of(self, ready: ObjectInfo) -> str | None:
        """Return what tells this write from others: the version id, as in events, if there is one.

        Only events have a sequencer. None if the sentinel was removed meanwhile.
        """
        async with translated(f"s3://{self._origin.bucket}/{ready.key}"):
            try:
                answer = await self._client.head_object(Bucket=self._origin.bucket, Key=ready.key)
            except ClientError as exc:
                if is_missing(exc):
                    return None
                raise
        version = str(answer.get("VersionId", "null"))
        return version if version != "null" else f"{ready.etag}@{ready.last_modified.isoformat()}"


def _was_seen(ready: ObjectInfo, answers: Sequence[ObjectInfo]) -> bool:
    return any(answer.last_modified >= ready.last_modified for answer in answers)


async def pages(
    client: Any, bucket: str, prefix: str, *, delimiter: str = ""
) -> AsyncIterator[dict[str, Any]]:
    """Yield the answers of a listing until it ends. Raises Transient and Permanent."""
    request = {"Bucket": bucket, "Prefix": prefix}
    if delimiter:
        request["Delimiter"] = delimiter
    while True:
        async with translated(f"s3://{bucket}/{prefix}"):
            page = await client.list_objects_v2(**request)
        yield page
        if not page.get("IsTruncated"):
            return
        request["ContinuationToken"] = page["NextContinuationToken"]


async def _read_up_to(body: Any, max_bytes: int) -> bytes:
    content = bytearray()
    while len(content) < max_bytes:
        piece = await body.read(max_bytes - len(content))
        if not piece:
            break
        content += piece
    return bytes(content)


def _info(key: str, size: int, entry: dict[str, Any]) -> ObjectInfo:
    return ObjectInfo(
        key=key,
        size=size,
        etag=str(entry.get("ETag", "")).strip('"'),
        last_modified=entry["LastModified"],
        storage_class=entry.get("StorageClass", "STANDARD"),
    )
