"""Sentinels in S3, for readers of the old system: small files beside the input of a workset.

Repeatable: a key is overwritten with the same body, and deleting what is not there changes nothing.
``daylily.ready`` and ``daylily.ignore`` are never written: they are what people trigger us with.
A reader takes ``daylily.error`` before everything else, so a stale one is removed as soon as the
workset is no longer in error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from typing import Final, Protocol

from daylily_daemon.domain import notice
from daylily_daemon.domain.model import Record, RecordType, State
from daylily_daemon.domain.totality import total

IN_PROGRESS: Final = "daylily.in_progress"
COMPLETE: Final = "daylily.complete"
ERROR: Final = "daylily.error"
MESSAGE_LIMIT: Final = 1000

_CHANGES: Final = frozenset({RecordType.STATE_CHANGE, RecordType.ERROR, RecordType.COMPLETION})
"""Other records do not change the state, and so no sentinel."""
_SENTINELS: Final = {
    State.READY: "",
    State.IN_PROGRESS: IN_PROGRESS,
    State.COMPLETE: COMPLETE,
    State.ERROR: ERROR,
    State.IGNORED: "",
    State.RETRYING: "",
    State.FAILED: ERROR,
    State.CANCELED: "",
    State.ARCHIVED: "",
    State.DELETED: "",
}
WRITTEN: Final[Mapping[State, str]] = total("s3_sentinels.WRITTEN", _SENTINELS, tuple(State))
"""The sentinel that a state leaves; empty for those the old system has none for."""
_OUT_OF_ERROR: Final = frozenset({State.READY, State.IN_PROGRESS, State.COMPLETE})


class SentinelStore(Protocol):
    """The two things this channel does with a bucket. Both may raise Transient or Permanent."""

    async def put(self, bucket: str, key: str, body: bytes) -> None: ...

    async def delete(self, bucket: str, key: str) -> None:
        """Return also where there is no such object."""
        ...


@dataclass(frozen=True, slots=True)
class S3Sentinels:
    objects: SentinelStore

    async def deliver(self, record: Record) -> None:
        if record.type not in _CHANGES:
            return
        if name := WRITTEN[record.state]:
            await self.objects.put(record.bucket, record.prefix + name, _body(record, name))
        if record.state in _OUT_OF_ERROR:
            await self.objects.delete(record.bucket, record.prefix + ERROR)


def _body(record: Record, name: str) -> bytes:
    stamp = record.at.astimezone(UTC).strftime("%Y%m%dT%H%M%S")
    if name != ERROR:
        return stamp.encode()
    said = notice.one_line(record.message or record.error_details, MESSAGE_LIMIT)
    return f"{stamp}\t{said}".encode()
