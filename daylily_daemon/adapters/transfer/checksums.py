"""What S3 knows about the content of an object, and how to compute the same from bytes.

S3 keeps the SHA-256 of an object that was uploaded with one. For one that was uploaded in parts, both
the SHA-256 and the ETag are digests of the parts' digests, so the size of the parts must be known. An
ETag is an MD5 only where the object is not encrypted with a KMS key or a customer's key.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from daylily_daemon.adapters.s3 import head_of

READ_BYTES: Final = 1024 * 1024

_MD5: Final = re.compile(r"[0-9a-f]{32}")


class Readable(Protocol):
    def read(self, amount: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Checksum:
    algorithm: str
    """``sha256`` or ``md5``."""
    digest: bytes
    part_bytes: int | None = None
    """Size of every part but the last; None where ``digest`` is that of the whole content."""


@dataclass(frozen=True, slots=True)
class Remote:
    """An object as it is now."""

    size_bytes: int
    etag: str
    """Without quotes."""
    checksum: Checksum | None
    """None where S3 keeps nothing that can be computed from the bytes."""
    written_ns: int = 0
    """When it was written, by the clock of S3, since 1970."""


async def look(client: Any, bucket: str, key: str) -> Remote | None:
    """Return what S3 holds, None if nothing. Raises Denied, Transient and Permanent."""
    head = await head_of(client, bucket, key, ChecksumMode="ENABLED")
    if head is None:
        return None
    part_bytes = None
    if "-" in head["ETag"]:
        first = await head_of(client, bucket, key, ChecksumMode="ENABLED", PartNumber=1)
        part_bytes = first["ContentLength"] if first else None
    return Remote(
        size_bytes=head["ContentLength"],
        etag=head["ETag"].strip('"'),
        checksum=_checksum_of(head, part_bytes),
        written_ns=int(head["LastModified"].timestamp()) * 10**9,
    )


class Digest:
    """Computes what ``Checksum.digest`` of the bytes fed to it would be."""

    def __init__(self, algorithm: str, part_bytes: int | None = None) -> None:
        self._algorithm = algorithm
        self._part_bytes = part_bytes
        self._whole = self._new()
        self._part = self._new()
        self._in_part = 0

    def update(self, data: bytes | memoryview) -> None:
        if self._part_bytes is None:
            self._whole.update(data)
            return
        view = memoryview(data)
        while view:
            taken = view[: self._part_bytes - self._in_part]
            self._part.update(taken)
            self._in_part += len(taken)
            view = view[len(taken) :]
            if self._in_part == self._part_bytes:
                self._close_part()

    def digest(self) -> bytes:
        """Return the result; nothing may be fed afterwards."""
        if self._part_bytes is not None and self._in_part:
            self._close_part()
        return self._whole.digest()

    def _close_part(self) -> None:
        self._whole.update(self._part.digest())
        self._part, self._in_part = self._new(), 0

    def _new(self) -> hashlib._Hash:
        return hashlib.new(self._algorithm, usedforsecurity=False)


def _checksum_of(head: Mapping[str, Any], part_bytes: int | None) -> Checksum | None:
    """Return the best checksum in the answer to HEAD; None if there is none we can compute.

    ``part_bytes`` is the size of the first part, for an object that was uploaded in parts. Parts that
    cannot all have that size (a copy made of odd pieces) leave nothing to compare with.
    """
    etag, _, parts = str(head["ETag"]).strip('"').partition("-")
    if not parts:
        part_bytes = None
    elif not part_bytes or -(-int(head["ContentLength"]) // part_bytes) != int(parts):
        return None
    if sha256 := head.get("ChecksumSHA256"):
        return Checksum("sha256", base64.b64decode(str(sha256).partition("-")[0]), part_bytes)
    plain = head.get("ServerSideEncryption", "AES256") == "AES256"
    if plain and "SSECustomerAlgorithm" not in head and _MD5.fullmatch(etag):
        return Checksum("md5", bytes.fromhex(etag), part_bytes)
    return None


def digest_of_open(file: Readable, algorithm: str, part_bytes: int | None = None) -> bytes:
    """Return the digest of ``file`` from where it stands to its end."""
    digest = Digest(algorithm, part_bytes)
    while data := file.read(READ_BYTES):
        digest.update(data)
    return digest.digest()
