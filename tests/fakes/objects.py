"""A working object store in memory, for tests and for a daemon without AWS."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from anyio.lowlevel import checkpoint

from daylily_daemon.adapters.objects import ObjectInfo
from daylily_daemon.domain.errors import DaemonError

_BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class MemoryObjects:
    """Objects by bucket and key. Written one after another, each a second younger than the last."""

    calls: list[tuple[str, str]] = field(default_factory=list)
    """Method and key (or prefix) of every call, in order."""
    most_at_once: int = 0
    """The most calls that were open at the same time."""
    _stored: dict[tuple[str, str], tuple[ObjectInfo, bytes]] = field(default_factory=dict)
    _refusals: list[tuple[str, str, DaemonError]] = field(default_factory=list)
    _puts: int = 0
    _open: int = 0

    async def put(
        self,
        bucket: str,
        key: str,
        body: bytes,
        *,
        storage_class: str = "STANDARD",
        restored: bool = False,
    ) -> None:
        await self._answer("put", bucket, key)
        self._puts += 1
        etag = hashlib.md5(body, usedforsecurity=False).hexdigest()
        at = _BEGINNING + timedelta(seconds=self._puts)
        info = ObjectInfo(key, len(body), etag, at, storage_class, restored)
        self._stored[bucket, key] = (info, body)

    async def delete(self, bucket: str, key: str) -> None:
        """Remove the object; one that is not there is no error."""
        await self._answer("delete", bucket, key)
        self._stored.pop((bucket, key), None)

    def refuse(self, bucket: str, prefix: str, error: DaemonError) -> None:
        """Answer every later call on keys beginning with ``prefix`` by raising ``error``."""
        self._refusals.append((bucket, prefix, error))

    def allow(self, bucket: str) -> None:
        """Take back what ``refuse`` said of ``bucket``."""
        self._refusals = [refusal for refusal in self._refusals if refusal[0] != bucket]

    async def head(self, bucket: str, key: str) -> ObjectInfo | None:
        await self._answer("head", bucket, key)
        found = self._stored.get((bucket, key))
        return found[0] if found else None

    async def read(self, bucket: str, key: str, max_bytes: int) -> bytes | None:
        await self._answer("read", bucket, key)
        found = self._stored.get((bucket, key))
        return found[1][:max_bytes] if found else None

    async def list(self, bucket: str, prefix: str, at_most: int = 0) -> Sequence[ObjectInfo]:
        await self._answer("list", bucket, prefix)
        within = [
            info
            for (at, key), (info, _) in self._stored.items()
            if at == bucket and key.startswith(prefix)
        ]
        return sorted(within, key=lambda info: info.key)[: at_most or None]

    async def _answer(self, method: str, bucket: str, key: str) -> None:
        self.calls.append((method, key))
        self._open += 1
        self.most_at_once = max(self.most_at_once, self._open)
        try:
            await checkpoint()
        finally:
            self._open -= 1
        for refused, prefix, error in self._refusals:
            if bucket == refused and key.startswith(prefix):
                raise error
