"""Brings the results of a run to S3, to a place that holds no other workset's, and says what became of them.

Several recipes may name one folder. Who exports there first leaves a mark in it, by a conditional write, so
that of two at the same time one is second; the second one gets a folder of its own name below it, or is
refused, as the setting says. A place that holds files of the same names and no mark was written by somebody
who leaves none, and counts as held too. Below the workset's own folder nobody else exports, and no mark is
needed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from anyio import to_thread
from botocore.exceptions import ClientError

from daylily_daemon.adapters.aws import error_code, translated
from daylily_daemon.adapters.s3 import S3Objects, pages
from daylily_daemon.adapters.transfer import (
    CopyOptions,
    OnProgress,
    Uploaded,
    collect,
    local_files,
    retrying,
    split_uri,
    upload,
)
from daylily_daemon.domain.document import shown
from daylily_daemon.domain.errors import Permanent
from daylily_daemon.domain.places import Shared
from daylily_daemon.domain.sheet import S3Place
from daylily_daemon.domain.sizes import readable

MARK: Final = ".daylily-results.json"
"""Lies in a folder of S3 and names the workset whose results are there."""
MAX_TOLD: Final = 20
"""Names of files that were left out, in reports."""
_MARK_BYTES: Final = 4096
_TAKEN: Final = frozenset(
    {"PreconditionFailed", "ConditionalRequestConflict", "412", "409", "OperationAborted"}
)
_UNCONDITIONAL: Final = frozenset({"NotImplemented", "501"})
"""What a store answers that knows no conditional writes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    uri: str
    """``s3://bucket/prefix/``, as the recipe says."""
    workset_uri: str = ""
    """The folder of the workset whose results these are; empty for a copy by hand, which leaves no mark."""
    shared: Shared = Shared.FOLDER


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    uri: str
    """Where the results are."""
    uploaded: Uploaded
    warnings: tuple[str, ...]
    """Sentences for people, although nothing went wrong."""

    def report(self) -> dict[str, Any]:
        """Return what the daemon keeps of it: small, whatever the size of the run."""
        done = self.uploaded
        return {
            "files": done.files,
            "bytes": done.size_bytes,
            "unchanged": done.unchanged,
            "results_s3_uri": self.uri,
            "left_out": list(done.left_out[:MAX_TOLD]),
            "left_out_files": len(done.left_out),
            "warnings": list(self.warnings),
        }


async def export(
    client: Any,
    source: Path,
    target: Target,
    *,
    options: CopyOptions,
    progress: OnProgress | None = None,
) -> Exported:
    """Copy every file below ``source`` to the target, or to a folder below it.

    What could not be copied is in the answer: the caller decides what that means. Raises Permanent and
    Transient.
    """
    uri = await _place(client, source, target, options)
    done = await upload(
        client,
        source,
        uri,
        options=options,
        progress=progress,
        skip=lambda name: name == MARK and target.workset_uri != "",
    )
    with local_files(f"Reading {source}"):
        marked = bool(target.workset_uri)
        if marked and await to_thread.run_sync(os.path.lexists, source / MARK):
            forged = f"{MARK} has the name of the mark that the export itself leaves."
            done = replace(done, left_out=(*done.left_out, forged))
    return Exported(uri=uri, uploaded=done, warnings=tuple(_warnings(source, done)))


def left_out_problem(exported: Exported) -> Permanent | None:
    """Return why this export does not count as done; None if everything is safe."""
    left_out = exported.uploaded.left_out
    if not left_out:
        return None
    files = "1 file" if len(left_out) == 1 else f"{len(left_out):,} files"
    more = f" And {len(left_out) - 10:,} more." if len(left_out) > 10 else ""
    return Permanent(
        f"Left out of the export: {files}. {' '.join(left_out[:10])}{more} All else is in {exported.uri}. "
        "Nothing is deleted while this is so. Copy what links lead to, rename, or remove what is named "
        "here, then start the workset again: it goes on with the export."
    )


def _warnings(source: Path, done: Uploaded) -> list[str]:
    told = []
    if not done.files and not done.left_out:
        told.append(f"The run produced no results: there is no file in {source}.")
    if done.gone:
        named = ", ".join(shown(name, 100) for name in done.gone[:5])
        told.append(
            f"{len(done.gone):,} files were removed by somebody before they could be exported: {named}."
        )
    return told


async def _place(client: Any, source: Path, target: Target, options: CopyOptions) -> str:
    """Return where the results may go, marked as this workset's. Raises Permanent if nowhere."""
    bucket, prefix = split_uri(target.uri)
    if not target.workset_uri:
        return f"s3://{bucket}/{prefix}"
    own_bucket, own_prefix = split_uri(target.workset_uri)
    if bucket == own_bucket and prefix.startswith(own_prefix):
        return f"s3://{bucket}/{prefix}"
    with local_files(f"Reading {source}"):
        names = await to_thread.run_sync(_names, source, options.within)
    marking = _Marking(client, target.workset_uri, options)
    workset = own_prefix.rstrip("/").rpartition("/")[2]
    holders = []
    for place in (S3Place(bucket, prefix), S3Place(bucket, f"{prefix}{workset}/")):
        holder = await marking.holder(place, names)
        if not holder:
            return str(place)
        holders.append(f"{place} holds {holder}.")
        if target.shared is Shared.REFUSE:
            break
    raise Permanent(
        f"{' '.join(holders)} They are never written over. Name a place of its own in export_uri, such as "
        f"s3://{bucket}/{prefix}{{workset}}/, or leave that key out; then put daylily.ready again."
    )


def _names(source: Path, within: Sequence[Path]) -> frozenset[str]:
    return frozenset(file.name for file in collect(source, within=within).files)


@dataclass(frozen=True, slots=True)
class _Marking:
    client: Any
    workset_uri: str
    options: CopyOptions

    async def holder(self, place: S3Place, names: frozenset[str]) -> str:
        """Return what ``place`` holds of somebody else; empty if it is marked as ours now."""
        async for attempt in retrying(self.options, lambda: 0):
            with attempt:
                return await self._holder(place, names)
        raise AssertionError("retrying returns or raises")

    async def _holder(self, place: S3Place, names: frozenset[str]) -> str:
        found = await self._marked_by(place)
        if found is not None:
            return "" if found == self.workset_uri else _results_of(found)
        if await self._lies_there(place, names):
            return "files of the same names, of which nothing says whose they are"
        await self._mark(place)
        found = await self._marked_by(place)
        return "" if found == self.workset_uri else _results_of(found or "")

    async def _marked_by(self, place: S3Place) -> str | None:
        """Return the folder of the workset whose mark lies there; None if there is no mark."""
        data = await S3Objects(self.client).read(place.bucket, place.key + MARK, _MARK_BYTES)
        if data is None:
            return None
        try:
            return str(json.loads(data)["workset_uri"])
        except (ValueError, TypeError, KeyError):
            return ""

    async def _lies_there(self, place: S3Place, names: frozenset[str]) -> bool:
        async for page in pages(self.client, place.bucket, place.key):
            for entry in page.get("Contents", ()):
                if entry["Key"].removeprefix(place.key) in names:
                    return True
        return False

    async def _mark(self, place: S3Place) -> None:
        """Write the mark unless there is one; who reads it next sees the first one's."""
        body = json.dumps({"workset_uri": self.workset_uri}, ensure_ascii=False).encode()
        request = {"Bucket": place.bucket, "Key": place.key + MARK, "Body": body}
        async with translated(f"{place}{MARK}"):
            try:
                await self.client.put_object(**request, IfNoneMatch="*")
            except ClientError as exc:
                if error_code(exc) in _UNCONDITIONAL:
                    await self.client.put_object(**request)
                elif error_code(exc) not in _TAKEN:
                    raise


def _results_of(workset_uri: str) -> str:
    if not workset_uri:
        return f"results of somebody whose mark ({MARK}) cannot be read"
    return f"the results of {shown(workset_uri, 300)}"


def told(exported: Exported) -> str:
    """Return what happened, as a sentence."""
    done = exported.uploaded
    if not done.files:
        return f"There was nothing to export to {exported.uri}."
    left_out = f"; {len(done.left_out):,} left out" if done.left_out else ""
    size = f"{done.files} files ({readable(done.size_bytes)})"
    return f"{size} are in {exported.uri}, {done.unchanged} of them were there already{left_out}."
