"""Brings the input of a workset from S3 to a folder that a pipeline can read.

What the lab sent (recipe, sheet, information) comes as it is. Input files come from whatever bucket the
sheet names, to ``inputs/<bucket>/<key>``; absolute paths stay where they are. ``stage_samples.tsv`` is
written last, with local paths: where it stands, everything it names is there.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from anyio import to_thread

from daylily_daemon.adapters.looking import Closed, Found, Look, look_in_s3, look_on_this_host
from daylily_daemon.adapters.objects import Denied
from daylily_daemon.adapters.reports import SENT_SHEET
from daylily_daemon.adapters.s3 import S3Objects
from daylily_daemon.adapters.transfer import (
    CopyOptions,
    Downloaded,
    Fetch,
    OnProgress,
    download,
    local_files,
    retrying,
    safe_relative,
    split_uri,
)
from daylily_daemon.adapters.transfer.checksums import Remote
from daylily_daemon.adapters.transfer.downloads import not_there
from daylily_daemon.domain.document import MAX_BYTES
from daylily_daemon.domain.errors import Permanent
from daylily_daemon.domain.model import Problem
from daylily_daemon.domain.naming import safe_id
from daylily_daemon.domain.pins import CHANGED, TODO, Checked, Pin, digest_of, read_pin
from daylily_daemon.domain.recipe import read_recipe
from daylily_daemon.domain.sheet import (
    MAX_SHEET_BYTES,
    RECIPE_FILE,
    SHEET_FILE,
    LocalPlace,
    Place,
    S3Place,
    place_of,
    read_sheet,
    relocated,
    text_from_samples,
)

INFO_FILE: Final = "daylily_info.yaml"
INPUTS_FOLDER: Final = "inputs"

_SENT: Final = (
    (RECIPE_FILE, RECIPE_FILE, MAX_BYTES),
    (INFO_FILE, INFO_FILE, MAX_BYTES),
    (SHEET_FILE, SENT_SHEET, MAX_SHEET_BYTES),
)
"""Object, file it becomes, and the most that is read of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    folder: Path
    files: tuple[Path, ...]
    """Every input file, in the order of the sheet; those left where they were too."""
    downloaded: Downloaded


async def stage(
    client: Any,
    uri: str,
    dest: Path,
    *,
    pin: str = "",
    options: CopyOptions,
    progress: OnProgress | None = None,
) -> Staged:
    """Stage the workset at ``uri`` in ``dest``; repeating it copies only what is missing.

    ``pin`` is what the plan says was checked: anything else is refused. Raises Permanent for a sheet or
    recipe that cannot be used, and Transient.
    """
    bucket, prefix = split_uri(uri)
    wanted = read_pin(pin)
    objects = S3Objects(client)
    sent = await _sent(objects, bucket, prefix, options)
    if wanted:
        _check_documents(sent, wanted)
    text = _sheet(sent, prefix)
    places = _places(text, bucket, prefix)
    found = await _Finding(objects, options).all(places.values())

    def approve(remotes: Mapping[Fetch, Remote]) -> None:
        fetched = [
            Pin(fetch.uri, remote.size_bytes, remote.etag, remote.written_ns)
            for fetch, remote in remotes.items()
        ]
        if wanted and (fault := wanted.differing([*fetched, *found.local])):
            raise Permanent(fault)

    fetches = [Fetch(place.bucket, place.key, _local(place, dest)) for place in found.objects]
    done = await download(
        client,
        fetches,
        dest,
        options=options,
        progress=progress,
        approve=approve if wanted else None,
    )
    local = {path: _local(place, dest) for path, place in places.items()}
    relocated_text = relocated(text, lambda path: _as_named(path, local[path]))
    with local_files(f"Writing into {dest}"):
        await to_thread.run_sync(_write_all, dest, sent, relocated_text)
    files = (*(fetch.dest for fetch in fetches), *(Path(pin.place) for pin in found.local))
    return Staged(folder=dest, files=tuple(dict.fromkeys(files)), downloaded=done)


def _check_documents(sent: Mapping[str, bytes], wanted: Checked) -> None:
    """Raise Permanent unless recipe and sheet are those that were checked."""
    pinned = ((RECIPE_FILE, wanted.recipe), (SHEET_FILE, wanted.sheet))
    for name, digest in pinned:
        if (digest_of(sent[name]) if name in sent else "") != digest:
            raise Permanent(f"{name} {CHANGED}. {TODO}")


def _as_named(path: str, local: Path) -> str:
    """A folder keeps the slash at its end."""
    return f"{local}/" if path.endswith("/") else str(local)


@dataclass(slots=True)
class _Finding:
    """What the places of a sheet stand for: objects to fetch, and local files that stay where they are."""

    store: S3Objects
    options: CopyOptions
    objects: list[S3Place] = field(default_factory=list)
    local: list[Pin] = field(default_factory=list)

    async def all(self, places: Iterable[Place]) -> _Finding:
        missing: list[Place] = []
        for place in dict.fromkeys(places):
            look = await self._look(place)
            if look is None:
                missing.append(place)
            elif isinstance(look, Found):
                self._take(place, look)
            else:
                raise Permanent(f"{look.what} {look.todo}.")
        if missing:
            raise _missing(missing)
        self.objects = list(dict.fromkeys(self.objects))
        self.local = list(dict.fromkeys(self.local))
        return self

    def _take(self, place: Place, found: Found) -> None:
        if isinstance(place, LocalPlace):
            self.local.extend(found.pins)
            return
        keys = (pin.place.removeprefix(f"s3://{place.bucket}/") for pin in found.pins)
        self.objects.extend(S3Place(place.bucket, key) for key in keys)

    async def _look(self, place: Place) -> Look:
        """Objects are looked at where they are fetched, all at once; here only what a folder holds."""
        if isinstance(place, S3Place) and not place.key.endswith("/"):
            safe_relative(place.key)
            return Found((Pin(str(place), 0, "", 0),))
        async for attempt in retrying(self.options, lambda: 0):
            with attempt:
                if isinstance(place, LocalPlace):
                    look = partial(look_on_this_host, place, lambda _: None)
                    return await to_thread.run_sync(look)
                found = await look_in_s3(self.store, place)
                if isinstance(found, Closed):
                    raise Denied(found.what)
                return found
        raise AssertionError("retrying returns or raises")


async def _sent(
    objects: S3Objects, bucket: str, prefix: str, options: CopyOptions
) -> dict[str, bytes]:
    """Return what there is of the small files; one byte too many tells that a limit was passed."""
    sent: dict[str, bytes] = {}
    for name, _, limit in _SENT:
        async for attempt in retrying(options, lambda: 0):
            with attempt:
                data = await objects.read(bucket, prefix + name, limit + 1)
        if data is not None:
            sent[name] = data
    if RECIPE_FILE not in sent:
        raise Permanent(f"There is no s3://{bucket}/{prefix}{RECIPE_FILE}; upload it first.")
    return sent


def _sheet(sent: Mapping[str, bytes], prefix: str) -> bytes:
    if SHEET_FILE in sent:
        return sent[SHEET_FILE]
    recipe = read_recipe(sent[RECIPE_FILE], safe_id(prefix.rstrip("/").rpartition("/")[2]))
    if isinstance(recipe, tuple):
        raise _refused(recipe)
    if not recipe.samples:
        raise Permanent(f"There is neither a {SHEET_FILE} nor samples in {RECIPE_FILE}; add one.")
    return text_from_samples(recipe.samples).encode()


def _places(sheet: bytes, bucket: str, prefix: str) -> dict[str, Place]:
    read = read_sheet(sheet)
    if isinstance(read, tuple):
        raise _refused(read)
    paths = (file.path for row in read.rows for file in row.files)
    return {path: place_of(path, bucket, prefix) for path in paths}


def _local(place: Place, dest: Path) -> Path:
    if isinstance(place, LocalPlace):
        return Path(place.path)
    key = safe_relative(place.key.removesuffix("/"))
    return dest / INPUTS_FOLDER / safe_relative(place.bucket) / key


def _missing(places: Sequence[Place]) -> Permanent:
    local = [place.path for place in places if isinstance(place, LocalPlace)]
    if not local:
        return not_there([str(place) for place in places])
    more = f" and {len(local) - 10:,} more" if len(local) > 10 else ""
    return Permanent(
        f"Missing input files: there is no file {', '.join(local[:10])}{more} on this host. Correct the "
        "sheet."
    )


def _refused(problems: tuple[Problem, ...]) -> Permanent:
    return Permanent("\n".join(str(problem) for problem in problems))


def _write_all(dest: Path, sent: Mapping[str, bytes], sheet: str) -> None:
    for name, target, _ in _SENT:
        if name in sent:
            (dest / target).write_bytes(sent[name])
    written = dest / f".{SHEET_FILE}.new"
    written.write_text(sheet, encoding="utf-8")
    os.replace(written, dest / SHEET_FILE)
