"""Brings the input of a workset from S3 to a folder that a pipeline can read.

What the lab sent (recipe, sheet, information) comes as it is. Input files come from whatever bucket the
sheet names, to ``inputs/<bucket>/<key>``; absolute paths stay where they are. ``stage_samples.tsv`` is
written last, with local paths: where it stands, everything it names is there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from anyio import to_thread

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
from daylily_daemon.domain.document import MAX_BYTES
from daylily_daemon.domain.errors import Permanent
from daylily_daemon.domain.model import Problem
from daylily_daemon.domain.naming import safe_id
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
SENT_SHEET: Final = "stage_samples.submitted.tsv"
"""The sheet as the lab sent it."""
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
    options: CopyOptions,
    progress: OnProgress | None = None,
) -> Staged:
    """Stage the workset at ``uri`` in ``dest``; repeating it copies only what is missing.

    Raises Permanent for a sheet or recipe that cannot be used, and Transient.
    """
    bucket, prefix = split_uri(uri)
    sent = await _sent(S3Objects(client), bucket, prefix, options)
    sheet = _sheet(sent, prefix)
    places = _places(sheet, bucket, prefix)
    local = {path: _local(place, dest) for path, place in places.items()}
    done = await download(
        client,
        [
            Fetch(place.bucket, place.key, local[path])
            for path, place in places.items()
            if isinstance(place, S3Place)
        ],
        dest,
        options=options,
        progress=progress,
    )
    text = relocated(sheet, lambda path: str(local[path]))
    with local_files(f"Writing into {dest}"):
        await to_thread.run_sync(_write_all, dest, sent, text)
    return Staged(folder=dest, files=tuple(dict.fromkeys(local.values())), downloaded=done)


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
        path = Path(place.path)
        if not path.is_file():
            raise Permanent(
                f"Missing input files: there is no file {path} on this host. Correct the sheet."
            )
        return path
    return dest / INPUTS_FOLDER / safe_relative(place.bucket) / safe_relative(place.key)


def _refused(problems: tuple[Problem, ...]) -> Permanent:
    return Permanent("\n".join(str(problem) for problem in problems))


def _write_all(dest: Path, sent: Mapping[str, bytes], sheet: str) -> None:
    for name, target, _ in _SENT:
        if name in sent:
            (dest / target).write_bytes(sent[name])
    written = dest / f".{SHEET_FILE}.new"
    written.write_text(sheet, encoding="utf-8")
    os.replace(written, dest / SHEET_FILE)
