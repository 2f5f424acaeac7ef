"""S3 as a store of small objects."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final

from botocore.exceptions import ClientError

from daylily_daemon.adapters.aws import error_code, is_missing, translated
from daylily_daemon.adapters.objects import Denied, NoBucket, ObjectInfo
from daylily_daemon.domain.errors import Permanent, Transient

_DENIED: Final = frozenset(
    {
        *("AccessDenied", "AccessDeniedException", "403", "AllAccessDisabled", "AccountProblem"),
        *("KMS.AccessDeniedException", "KMS.DisabledException", "KMS.NotFoundException"),
        "KMS.KMSInvalidStateException",
    }
)
_UNTOLD: Final = frozenset({"400", "403"})
"""An answer to HEAD has no body: the reason behind these has to be asked for with a GET."""
_SSE_C: Final = "stored using a form of Server Side Encryption"


@asynccontextmanager
async def of_place(what: str) -> AsyncIterator[None]:
    """As ``translated``, but tell with Denied or NoBucket that just this place is closed to us."""
    try:
        async with translated(what):
            yield
    except (Permanent, Transient) as exc:
        cause = exc.__cause__
        if isinstance(cause, ClientError) and error_code(cause) in _DENIED:
            raise Denied(str(exc)) from cause
        if isinstance(cause, ClientError) and error_code(cause) == "NoSuchBucket":
            raise NoBucket(str(exc)) from cause
        raise


async def head_of(client: Any, bucket: str, key: str, **request: Any) -> dict[str, Any] | None:
    """Return the answer to HEAD, None if there is no such object. Raises Denied, Permanent and Transient.

    Where HEAD does not say why it was refused, the first byte is asked for, and that answer counts.
    """
    async with of_place(f"s3://{bucket}/{key}"):
        try:
            return dict(await client.head_object(Bucket=bucket, Key=key, **request))
        except ClientError as exc:
            if is_missing(exc):
                return None
            if error_code(exc) not in _UNTOLD:
                raise
        return await _by_first_byte(client, bucket, key)


async def _by_first_byte(client: Any, bucket: str, key: str) -> dict[str, Any] | None:
    """Return what HEAD would have answered. Raises the ClientError that says why it did not."""
    try:
        answer = await client.get_object(Bucket=bucket, Key=key, Range="bytes=0-0")
    except ClientError as exc:
        if is_missing(exc):
            return None
        if _SSE_C in str(exc):
            raise Permanent(
                f"s3://{bucket}/{key} is encrypted with a key that only its owner has (SSE-C). Copy it "
                "without one, or with a KMS key that the daemon's role may use."
            ) from exc
        raise
    answer["Body"].close()
    size = str(answer.get("ContentRange", "")).rpartition("/")[2]
    return {**answer, "ContentLength": int(size) if size.isdecimal() else answer["ContentLength"]}


class S3Objects:
    """Objects in any bucket the host may use. Every method raises Transient, Denied and Permanent."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def head(self, bucket: str, key: str) -> ObjectInfo | None:
        answer = await head_of(self._client, bucket, key)
        if answer is None:
            return None
        info = _info(key, answer["ContentLength"], answer)
        archived = answer.get("ArchiveStatus", info.storage_class)
        restored = 'ongoing-request="false"' in answer.get("Restore", "")
        return replace(info, storage_class=archived, restored=restored)

    async def read(self, bucket: str, key: str, max_bytes: int) -> bytes | None:
        """Return the content, cut after ``max_bytes``; None if there is no such object."""
        async with of_place(f"s3://{bucket}/{key}"):
            try:
                answer = await self._client.get_object(Bucket=bucket, Key=key)
            except ClientError as exc:
                if is_missing(exc):
                    return None
                raise
            async with answer["Body"] as body:
                return await _read_up_to(body, max_bytes)

    async def list(self, bucket: str, prefix: str, at_most: int = 0) -> Sequence[ObjectInfo]:
        """Return every object below ``prefix``, at one call per 1000 of them, or ``at_most`` of them."""
        found: list[ObjectInfo] = []
        async for page in pages(self._client, bucket, prefix):
            found += [
                _info(entry["Key"], entry["Size"], entry) for entry in page.get("Contents", ())
            ]
            if 0 < at_most <= len(found):
                return found[:at_most]
        return found

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
        async with of_place(f"s3://{bucket}/{prefix}"):
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
