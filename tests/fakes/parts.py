"""A client of S3 in memory that knows ranges and uploads in parts, and goes wrong at any of them if told."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any

from anyio.lowlevel import checkpoint
from botocore.exceptions import ClientError

WRITTEN = datetime(2026, 1, 1, tzinfo=UTC)
Request = Mapping[str, Any]


def refusal(code: str, operation: str, status: int) -> ClientError:
    answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, operation)  # type: ignore[arg-type]


@dataclass
class Body:
    """What is streamed, at most ``packet_bytes`` at a time."""

    store: MemoryS3
    content: bytes
    cut_after: int | None = None
    """Ends there as if nothing more were to come."""
    at: int = 0

    async def __aenter__(self) -> Body:
        self.store.streams += 1
        self.store.most_streams = max(self.store.most_streams, self.store.streams)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.store.streams -= 1

    async def read(self, amount: int) -> bytes:
        await checkpoint()
        end = min(self.at + amount, self.at + self.store.packet_bytes)
        data = self.content[: self.cut_after][self.at : end]
        self.at += len(data)
        self.store.hand_out(len(data))
        return data


@dataclass
class Upload:
    key: str
    number: int
    parts: dict[int, tuple[bytes, str]] = field(default_factory=dict)
    """Content and SHA-256 by number."""


async def _nothing(_: Request) -> None:
    return


@dataclass
class MemoryS3:
    """One bucket. ``before_get`` and ``before_part`` are awaited with each request and may raise or wait."""

    objects: dict[str, bytes] = field(default_factory=dict)
    unknown_digest: set[str] = field(default_factory=set)
    """Objects whose ETag is no MD5."""
    conditional: bool = True
    """Whether If-Match is obeyed."""
    packet_bytes: int = 64 * 1024
    before_get: Callable[[Request], Awaitable[None]] = _nothing
    before_part: Callable[[Request], Awaitable[None]] = _nothing
    change_answer: Callable[[Request, dict[str, Any]], None] = lambda _, __: None
    requests: list[tuple[str, Request]] = field(default_factory=list)
    uploads: dict[str, Upload] = field(default_factory=dict)
    handed_out: int = 0
    """Bytes that were read from bodies of answers."""
    stored: int = 0
    """How many of them are where they belong, for who counts that."""
    most_held: int = 0
    """The most bytes that were handed out and not stored."""
    streams: int = 0
    most_streams: int = 0
    sending: int = 0
    most_sending: int = 0
    most_read_bytes: int = 0
    """The most of a part that was taken at once."""
    _numbers: count[int] = field(default_factory=count)

    def of(self, operation: str) -> list[Request]:
        return [request for name, request in self.requests if name == operation]

    def etag(self, key: str) -> str:
        digest = hashlib.md5(self.objects[key], usedforsecurity=False).hexdigest()
        return f'"{digest}-7"' if key in self.unknown_digest else f'"{digest}"'

    def hand_out(self, size_bytes: int) -> None:
        self.handed_out += size_bytes
        self.most_held = max(self.most_held, self.handed_out - self.stored)

    async def head_object(self, **request: Any) -> dict[str, Any]:
        await self._called("head", request)
        key = request["Key"]
        if key not in self.objects:
            raise refusal("404", "HeadObject", 404)
        length = len(self.objects[key])
        return {"ETag": self.etag(key), "ContentLength": length, "LastModified": WRITTEN}

    async def get_object(self, **request: Any) -> dict[str, Any]:
        await self._called("get", request)
        await self.before_get(request)
        key = request["Key"]
        if key not in self.objects:
            raise refusal("NoSuchKey", "GetObject", 404)
        if self.conditional and request.get("IfMatch", self.etag(key)) != self.etag(key):
            raise refusal("PreconditionFailed", "GetObject", 412)
        content = self.objects[key]
        answer: dict[str, Any] = {"ETag": self.etag(key)}
        if asked := request.get("Range"):
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, end = int(first), int(last) + 1 if last else len(content)
            answer["ContentRange"] = f"bytes {start}-{end - 1}/{len(content)}"
            content = content[start:end]
        answer |= {"ContentLength": len(content), "Body": Body(self, content)}
        self.change_answer(request, answer)
        return answer

    async def list_objects_v2(self, **request: Any) -> dict[str, Any]:
        await self._called("list", request)
        found = [key for key in sorted(self.objects) if key.startswith(request["Prefix"])]
        return {"Contents": [{"Key": key, "Size": len(self.objects[key])} for key in found]}

    async def put_object(self, **request: Any) -> dict[str, Any]:
        await self._called("put", request)
        self.objects[request["Key"]] = await self._taken(request["Body"], request)
        return {"ETag": self.etag(request["Key"])}

    async def create_multipart_upload(self, **request: Any) -> dict[str, Any]:
        await self._called("create", request)
        number = next(self._numbers)
        self.uploads[f"upload-{number}"] = Upload(request["Key"], number)
        return {"UploadId": f"upload-{number}"}

    async def upload_part(self, **request: Any) -> dict[str, Any]:
        await self._called("part", request)
        content = await self._taken(request["Body"], request)
        sha256 = request["ChecksumSHA256"]
        self.uploads[request["UploadId"]].parts[request["PartNumber"]] = content, sha256
        return {"ETag": f'"{hash(sha256)}"', "ChecksumSHA256": sha256}

    async def complete_multipart_upload(self, **request: Any) -> dict[str, Any]:
        await self._called("complete", request)
        upload = self.uploads[request["UploadId"]]
        named = [part["PartNumber"] for part in request["MultipartUpload"]["Parts"]]
        if named != sorted(set(named)):
            raise refusal("InvalidPartOrder", "CompleteMultipartUpload", 400)
        if named != sorted(upload.parts):
            raise refusal("InvalidPart", "CompleteMultipartUpload", 400)
        self.objects[upload.key] = b"".join(upload.parts[number][0] for number in named)
        del self.uploads[request["UploadId"]]
        return {}

    async def list_multipart_uploads(self, **request: Any) -> dict[str, Any]:
        await self._called("uploads", request)
        return {
            "Uploads": [
                {
                    "Key": upload.key,
                    "UploadId": id,
                    "Initiated": upload.number,
                    "ChecksumAlgorithm": "SHA256",
                }
                for id, upload in self.uploads.items()
            ]
        }

    async def list_parts(self, **request: Any) -> dict[str, Any]:
        await self._called("parts", request)
        parts = self.uploads[request["UploadId"]].parts
        return {
            "Parts": [
                {"PartNumber": number, "ETag": "", "ChecksumSHA256": sha256}
                for number, (_, sha256) in sorted(parts.items())
            ]
        }

    async def _called(self, operation: str, request: Request) -> None:
        self.requests.append((operation, request))
        await checkpoint()

    async def _taken(self, body: Any, request: Request) -> bytes:
        """Take it block by block, as the SDK does; refuse what is not as its digest says."""
        self.sending += 1
        self.most_sending = max(self.most_sending, self.sending)
        try:
            if "PartNumber" in request:
                await self.before_part(request)
            content = b"".join([piece async for piece in self._read(body)])
        finally:
            self.sending -= 1
        sha256 = b64encode(hashlib.sha256(content).digest()).decode()
        if request.get("ChecksumSHA256", sha256) != sha256:
            raise refusal("BadDigest", "UploadPart", 400)
        return content

    async def _read(self, body: Any) -> AsyncIterator[bytes]:
        async for piece in body:
            self.most_read_bytes = max(self.most_read_bytes, len(piece))
            yield piece
