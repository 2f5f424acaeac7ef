"""What S3 says of the triggers that lie there: the truth behind events that repeat, come late, or never.

An event and a listing that see the same ``daylily.ready`` must ask under the same id, or one drop is
submitted twice. Their own words differ (only events have a sequencer, only HEAD tells the version of what is
there now), so both doors ask S3: the id comes from the version where the bucket has versions, else from ETag
and LastModified.

The listing finds what nobody answered: folders without an item, and triggers that were written again since
the last one that the item answered.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Final

from botocore.exceptions import ClientError

from daylily_daemon.adapters.aws import is_missing, translated
from daylily_daemon.adapters.envelopes import IGNORE, READY, Origin, submission
from daylily_daemon.adapters.objects import ObjectInfo
from daylily_daemon.adapters.s3 import S3Objects, pages
from daylily_daemon.domain.model import Command, Submit, WorksetId
from daylily_daemon.domain.naming import safe_id, trigger_id
from daylily_daemon.ports import Announced

Known = Callable[[Sequence[WorksetId]], Awaitable[Mapping[WorksetId, Announced]]]

_ANSWERS: Final = frozenset(
    {"daylily.lock", "daylily.in_progress", "daylily.complete", "daylily.error"}
)
"""What the system before us wrote once it had seen ``daylily.ready``."""
_REVISITED: Final = 200
"""Folders found settled that one look visits again, those first that were not visited for longest."""
SKEW: Final = timedelta(minutes=5)
"""How far the clock of a host may be from that of S3."""


@dataclass(frozen=True, slots=True)
class _Trigger:
    ready: ObjectInfo
    seen: bool
    """Whether the system before us answered it: its sentinels are as young as the trigger."""
    unwanted: bool
    """Whether ``daylily.ignore`` lies beside it."""


@dataclass(frozen=True, slots=True)
class _Sentinel:
    id: str
    has_version: bool
    written_at: datetime


class S3Drops:
    """One delimited listing of the control prefix, then a look at each folder that may hold news.

    Folders whose trigger was found answered or unwanted are settled. They are visited again in turn, so that
    a look costs no more with every workset that was ever completed.
    """

    def __init__(self, client: Any, origin: Origin, known: Known) -> None:
        self._client = client
        self._objects = S3Objects(client)
        self._origin = origin
        self._known = known
        self._settled: dict[str, ObjectInfo | None] = {}

    async def as_it_is(self, command: Command) -> Command:
        ask = command.ask
        found = await self._sentinel(ask.prefix + READY) if isinstance(ask, Submit) else None
        return self._answering(command, found) if found else command

    def _answering(self, command: Command, found: _Sentinel) -> Command:
        """Return a submission as one that answers the trigger that was found."""
        ask = command.ask
        if not isinstance(ask, Submit):
            return command
        # Without versions two writes of one second look the same: only their events tell them apart.
        order = "" if found.has_version else ask.order
        key, written = ask.prefix + READY, f"{found.id}#{order}"
        id = trigger_id(self._origin.bucket, key, written) if order else found.id
        ask = replace(ask, sentinel=found.id, order=order, dropped_at=found.written_at)
        return replace(command, id=id, ask=ask)

    async def unannounced(self) -> Sequence[Command]:
        triggers = {folder: trigger async for folder, trigger in self._news()}
        ids = {folder: safe_id(folder) for folder in triggers}
        known = await self._known(tuple(ids.values())) if ids else {}
        found = [
            await self._unanswered(folder, trigger, known.get(ids[folder]))
            for folder, trigger in sorted(triggers.items())
        ]
        return [command for command in found if command]

    async def _news(self) -> AsyncIterator[tuple[str, _Trigger]]:
        """Yield folders whose trigger is not the one that was last found settled."""
        origin, again = self._origin, frozenset(islice(self._settled, _REVISITED))
        async for page in pages(self._client, origin.bucket, origin.prefix, delimiter="/"):
            for entry in page.get("CommonPrefixes", ()):
                folder = entry["Prefix"].removeprefix(origin.prefix).removesuffix("/")
                if not folder or (folder in self._settled and folder not in again):
                    continue
                trigger = await self._trigger(folder)
                known = self._settled.pop(folder, None)
                if trigger is None or trigger.ready == known:
                    self._settled[folder] = trigger.ready if trigger else None
                else:
                    yield folder, trigger

    async def _trigger(self, folder: str) -> _Trigger | None:
        start = f"{self._origin.prefix}{folder}/"
        listed = await self._objects.list(self._origin.bucket, start + "daylily.")
        found = {info.key.removeprefix(start): info for info in listed}
        ready = found.get(READY)
        if ready is None:
            return None
        answers = (found[name] for name in _ANSWERS & found.keys())
        seen = any(answer.last_modified >= ready.last_modified for answer in answers)
        return _Trigger(ready, seen, IGNORE in found)

    async def _unanswered(
        self, folder: str, trigger: _Trigger, known: Announced | None
    ) -> Command | None:
        found = await self._sentinel(trigger.ready.key)
        if found is None:
            return None
        answered = _answered(known, found.id, trigger.ready) if known else trigger.seen
        if answered or trigger.unwanted:
            self._settled[folder] = trigger.ready
            return None
        return self._answering(submission(self._origin, folder, found.id, "sweep"), found)

    async def _sentinel(self, key: str) -> _Sentinel | None:
        """Return which trigger lies there now; None if there is none."""
        bucket = self._origin.bucket
        async with translated(f"s3://{bucket}/{key}"):
            try:
                answer = await self._client.head_object(Bucket=bucket, Key=key)
            except ClientError as exc:
                if is_missing(exc):
                    return None
                raise
        version = str(answer.get("VersionId", "null"))
        etag, at = str(answer.get("ETag", "")).strip('"'), answer["LastModified"]
        if version != "null":
            return _Sentinel(trigger_id(bucket, key, version), has_version=True, written_at=at)
        id = trigger_id(bucket, key, f"{etag}@{at.isoformat()}")
        return _Sentinel(id, has_version=False, written_at=at)


def _answered(known: Announced, sentinel: str, ready: ObjectInfo) -> bool:
    """Tell whether the item answered this very trigger.

    Items of the version before do not say which one they answered: there, one that lay there when the
    workset was last submitted counts as answered.
    """
    if known.sentinel:
        return known.sentinel == sentinel
    return known.submitted_at is None or ready.last_modified <= known.submitted_at + SKEW
