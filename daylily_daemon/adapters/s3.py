"""S3 as a store of small objects."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

from botocore.exceptions import ClientError

from daylily_daemon.adapters.aws import is_missing, translated
from daylily_daemon.adapters.objects import ObjectInfo


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
