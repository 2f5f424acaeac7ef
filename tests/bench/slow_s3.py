"""A store that speaks as much of S3 as copies need, in memory, each connection held to a rate.

It is there to be cheap: an emulator that takes more of a core than the programs in front of it would be what
is measured. It believes what it is told: signatures and digests are not checked, what is uploaded is counted
and thrown away.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import monotonic  # noqa: TID251 - what is measured
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

CHUNK_BYTES: Final = 256 * 1024
_DATE: Final = "Wed, 01 Jan 2025 00:00:00 GMT"
_PLAIN: Final = {"Last-Modified": _DATE, "Accept-Ranges": "bytes"}


@dataclass(slots=True)
class Pace:
    """Holds one connection to ``rate`` bytes a second; a pause is never made up for afterwards."""

    rate: float
    due: float = 0.0

    async def spend(self, size_bytes: int) -> None:
        now = monotonic()
        self.due = max(self.due, now) + size_bytes / self.rate
        if self.due - now > 0.002:
            await asyncio.sleep(self.due - now)


@dataclass(frozen=True, slots=True)
class Ask:
    method: str
    bucket: str
    key: str
    query: Mapping[str, str]
    headers: Mapping[str, str]

    @property
    def length(self) -> int:
        return int(self.headers.get("content-length", "0"))

    @property
    def sent_bytes(self) -> int:
        """Size of the content, without what frames it."""
        return int(self.headers.get("x-amz-decoded-content-length", self.length))


@dataclass(slots=True)
class Answer:
    status: str = "200 OK"
    body: memoryview = field(default_factory=lambda: memoryview(b""))
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None
    """Where it is not that of the body: the answer to HEAD."""


@dataclass(slots=True)
class Held:
    size_bytes: int
    etag: str
    body: bytes = b""


@dataclass(slots=True)
class Store:
    rate: float
    held: dict[str, Held] = field(default_factory=dict)
    parts: dict[str, dict[int, int]] = field(default_factory=dict)
    open_now: int = 0
    most_open: int = 0
    requests: int = 0
    _ids: itertools.count[int] = field(default_factory=itertools.count)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        down, up = Pace(self.rate), Pace(self.rate)
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)
        try:
            while ask := await _ask(reader):
                self.requests += 1
                if ask.headers.get("expect", "").lower() == "100-continue":
                    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                body = await _taken(reader, ask, up)
                await _send(writer, self.answer(ask, body), down)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open_now -= 1
            writer.close()

    def answer(self, ask: Ask, small: bytes) -> Answer:
        if ask.bucket == "_seed":
            return self._seed(ask)
        if ask.bucket == "_figures":
            return self._figures()
        if ask.bucket == "_forget":
            self.held = {k: v for k, v in self.held.items() if f"/{ask.key}" not in k}
            return Answer()
        match ask.method:
            case "PUT":
                return self._put(ask)
            case "POST":
                return self._post(ask, small)
            case "GET" | "HEAD" if ask.key:
                return self._get(ask)
            case _:
                return self._list(ask)

    def _seed(self, ask: Ask) -> Answer:
        size_bytes = int(ask.query["size"])
        body = (hashlib.sha256(ask.key.encode()).digest() * (size_bytes // 32 + 1))[:size_bytes]
        etag = hashlib.md5(body, usedforsecurity=False).hexdigest()
        self.held[ask.key] = Held(size_bytes, etag, body)
        return Answer()

    def _figures(self) -> Answer:
        told = {"most_open": self.most_open, "requests": self.requests}
        self.most_open, self.requests = self.open_now, 0
        return Answer(body=memoryview(json.dumps(told).encode()))

    def _put(self, ask: Ask) -> Answer:
        etag = f"{next(self._ids):032x}"
        if upload := ask.query.get("uploadId"):
            self.parts[upload][int(ask.query["partNumber"])] = ask.sent_bytes
        elif ask.key:
            self.held[f"{ask.bucket}/{ask.key}"] = Held(ask.sent_bytes, etag)
        sums = {k: v for k, v in ask.headers.items() if k.startswith("x-amz-checksum-")}
        return Answer(headers={"ETag": f'"{etag}"', **sums})

    def _post(self, ask: Ask, small: bytes) -> Answer:
        upload = ask.query.get("uploadId", "")
        place = f"<Bucket>{ask.bucket}</Bucket><Key>{ask.key}</Key>"
        if not upload:
            upload = f"upload-{next(self._ids)}"
            self.parts[upload] = {}
            return _xml("InitiateMultipartUploadResult", f"{place}<UploadId>{upload}</UploadId>")
        sizes = self.parts.pop(upload)
        if small.count(b"<PartNumber>") != len(sizes):
            return Answer("400 Bad Request")
        etag = f"{next(self._ids):032x}-{len(sizes)}"
        self.held[f"{ask.bucket}/{ask.key}"] = Held(sum(sizes.values()), etag)
        return _xml("CompleteMultipartUploadResult", f'{place}<ETag>"{etag}"</ETag>')

    def _get(self, ask: Ask) -> Answer:
        held = self.held.get(f"{ask.bucket}/{ask.key}")
        if held is None:
            return Answer("404 Not Found")
        headers = {**_PLAIN, "ETag": f'"{held.etag}"', "Content-Type": "binary/octet-stream"}
        if ask.method == "HEAD":
            return Answer(headers=headers, length=held.size_bytes)
        asked = ask.headers.get("range")
        if not asked:
            return Answer(body=memoryview(held.body), headers=headers)
        first, _, last = asked.removeprefix("bytes=").partition("-")
        start, end = int(first), min(int(last or held.size_bytes), held.size_bytes - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{held.size_bytes}"
        return Answer("206 Partial Content", memoryview(held.body)[start : end + 1], headers)

    def _list(self, ask: Ask) -> Answer:
        if "uploads" in ask.query:
            return _xml("ListMultipartUploadsResult", "")
        start = f"{ask.bucket}/{ask.query.get('prefix', '')}"
        entries = "".join(
            f'<Contents><Key>{name.partition("/")[2]}</Key><Size>{held.size_bytes}</Size><ETag>"{held.etag}"'
            "</ETag><LastModified>2025-01-01T00:00:00.000Z</LastModified></Contents>"
            for name, held in sorted(self.held.items())
            if name.startswith(start)
        )
        return _xml("ListBucketResult", f"<IsTruncated>false</IsTruncated>{entries}")


def _xml(root: str, content: str) -> Answer:
    text = f'<{root} xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{content}</{root}>'
    return Answer(body=memoryview(text.encode()), headers={"Content-Type": "application/xml"})


async def _ask(reader: asyncio.StreamReader) -> Ask | None:
    """Return the next request without its body, None at the end of the connection."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.rstrip().split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (s.partition(":") for s in lines)}
    url = urlsplit(target)
    bucket, _, key = unquote(url.path).lstrip("/").partition("/")
    query = {k: v[0] for k, v in parse_qs(url.query, keep_blank_values=True).items()}
    return Ask(method, bucket, key, query, headers)


async def _taken(reader: asyncio.StreamReader, ask: Ask, pace: Pace) -> bytes:
    """Read the body at the rate of the connection; return it if it is small."""
    left, kept = ask.length, b""
    while left:
        data = await reader.read(min(left, CHUNK_BYTES))
        if not data:
            raise ConnectionResetError
        left -= len(data)
        if ask.method == "POST":
            kept += data
        await pace.spend(len(data))
    return kept


async def _send(writer: asyncio.StreamWriter, answer: Answer, pace: Pace) -> None:
    length = len(answer.body) if answer.length is None else answer.length
    headers = {**answer.headers, "Content-Length": str(length), "x-amz-request-id": "0"}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    writer.write(f"HTTP/1.1 {answer.status}\r\n{lines}\r\n".encode())
    for start in range(0, len(answer.body), CHUNK_BYTES):
        chunk = answer.body[start : start + CHUNK_BYTES]
        await pace.spend(len(chunk))
        writer.write(chunk)
        await writer.drain()
    await writer.drain()


async def _run(port: int, rate: float) -> None:
    server = await asyncio.start_server(Store(rate).serve, "127.0.0.1", port, limit=CHUNK_BYTES)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("rate", type=float, help="bytes a second of each connection")
    given = parser.parse_args()
    asyncio.run(_run(given.port, given.rate))
