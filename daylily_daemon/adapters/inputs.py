"""Looks at what a lab dropped, before anything of it runs.

One listing of the workset's prefix answers most questions; recipe and sheet are read; input files elsewhere
cost one HEAD each, or one look at the local file system. What is not there may still be on its way
(``Missing``); what is there and cannot be used never will be (``Refused``).
"""

from __future__ import annotations

import errno
import os
import stat
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile
from typing import Final, TypeVar

from anyio import CapacityLimiter, create_task_group
from anyio.to_thread import run_sync

from daylily_daemon.adapters.envelopes import IGNORE
from daylily_daemon.adapters.objects import ObjectInfo, Objects
from daylily_daemon.domain.document import MAX_BYTES, shown
from daylily_daemon.domain.errors import Permanent, Transient
from daylily_daemon.domain.fit import genome_of, unmet
from daylily_daemon.domain.model import (
    Accepted,
    Category,
    Inspection,
    Missing,
    Plan,
    Problem,
    Refused,
    Unwanted,
    Workset,
)
from daylily_daemon.domain.pipeline import Pipeline
from daylily_daemon.domain.recipe import Recipe, read_recipe
from daylily_daemon.domain.sheet import (
    MAX_SHEET_BYTES,
    RECIPE_FILE,
    SHEET_FILE,
    InputFile,
    LocalPlace,
    Place,
    S3Place,
    Sheet,
    capped,
    place_of,
    read_sheet,
    sheet_from_samples,
)

AT_ONCE: Final = 32
"""Questions about input files that are open at the same time."""
LOCAL_AT_ONCE: Final = 4
"""Threads that look at local files; a file system that hangs holds up no more than these."""
PARSED_AT_ONCE: Final = 1
"""Parsing is work for the CPU, seconds of it for the largest files; leases must beat meanwhile."""

_ARCHIVED: Final = frozenset({"GLACIER", "DEEP_ARCHIVE", "ARCHIVE_ACCESS", "DEEP_ARCHIVE_ACCESS"})
"""Storage classes that cannot be read before a restore; GLACIER_IR can."""
_ABSENT: Final = frozenset({errno.ENOENT, errno.ENOTDIR})
_UNUSABLE: Final = frozenset({errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP})
_AGAIN: Final = "then put daylily.ready again."

T = TypeVar("T", Recipe, Sheet)


@dataclass(frozen=True, slots=True)
class _Drop:
    """The workset's own folder in S3, as listed."""

    bucket: str
    prefix: str
    listing: Mapping[str, ObjectInfo]
    keys: Sequence[str]
    """Of the listing, in order."""

    def holds(self, place: S3Place) -> bool:
        return place.bucket == self.bucket and place.key.startswith(self.prefix)

    def below(self, folder: str) -> Sequence[ObjectInfo]:
        """Return what lies in ``folder``, which ends with a slash, without a look at all the rest."""
        following = (self.keys[i] for i in range(bisect_left(self.keys, folder), len(self.keys)))
        return [
            self.listing[key] for key in takewhile(lambda key: key.startswith(folder), following)
        ]


@dataclass(frozen=True, slots=True)
class _Found:
    size_bytes: int
    archive: str = ""
    """The storage class, where it must be restored before anybody can read it."""


@dataclass(frozen=True, slots=True)
class _Denied:
    """It may be there, but this daemon cannot or must not use it."""

    what: str
    todo: str


_Look = _Found | _Denied | None


class S3Inputs:
    """The port ``Inputs``. Reads only.

    Local files are taken from below ``local_roots`` alone: whatever the daemon can read would else end
    up in the results of whoever names it in a sheet. ``pipelines`` is asked anew at each inspection.
    """

    def __init__(
        self,
        objects: Objects,
        default_pipeline: Callable[[], str],
        pipelines: Callable[[], Mapping[str, Pipeline]],
        *,
        local_roots: Sequence[str] = ("/fsx",),
    ) -> None:
        self._objects = objects
        self._default_pipeline = default_pipeline
        self._pipelines = pipelines
        self._local_roots = tuple(os.path.normpath(root) for root in local_roots)
        self._local_limit = CapacityLimiter(LOCAL_AT_ONCE)
        self._parse_limit = CapacityLimiter(PARSED_AT_ONCE)

    async def inspect(self, workset: Workset) -> Inspection:
        """Read and check recipe, sheet and the existence of every input file. Raises Transient.

        ``daylily.ignore`` outweighs everything else, as it did in the system before this one.
        """
        try:
            listed = await self._objects.list(workset.bucket, workset.prefix)
        except Permanent as exc:
            return Refused((_unreadable(f"s3://{workset.bucket}/{workset.prefix}", exc),))
        drop = _drop(workset, listed)
        if workset.prefix + IGNORE in drop.listing:
            return Unwanted(IGNORE)
        recipe = await self._document(
            drop, RECIPE_FILE, MAX_BYTES, partial(read_recipe, workset=workset.id)
        )
        if isinstance(recipe, Missing):
            return recipe
        sheet = await self._sheet(drop, recipe)
        pipeline = self._pipeline(recipe)
        if (
            isinstance(recipe, Refused)
            or isinstance(sheet, Refused)
            or isinstance(pipeline, Refused)
        ):
            return _together(recipe, pipeline, sheet)
        if isinstance(sheet, Missing):
            return sheet
        if problems := unmet(pipeline, recipe, sheet):
            return Refused(capped(problems))
        return await self._with_files(drop, recipe, sheet, pipeline)

    async def _document(
        self,
        drop: _Drop,
        file: str,
        max_bytes: int,
        read: Callable[[bytes], T | tuple[Problem, ...]],
    ) -> T | Missing | Refused:
        info = drop.listing.get(drop.prefix + file)
        if info and info.size > max_bytes:
            what = f"The file has {info.size:,} bytes; at most {max_bytes:,} are allowed."
            return Refused((Problem(file, "", what, f"Shorten it, {_AGAIN}"),))
        try:
            data = await self._objects.read(drop.bucket, info.key, max_bytes + 1) if info else None
        except Permanent as exc:
            return Refused((_unreadable(file, exc),))
        if data is None:
            what = f"It was not found in s3://{drop.bucket}/{drop.prefix}."
            return Missing((Problem(file, "", what, f"Upload it, {_AGAIN}"),))
        found = await run_sync(read, data, limiter=self._parse_limit)
        return Refused(found) if isinstance(found, tuple) else found

    async def _sheet(self, drop: _Drop, recipe: Recipe | Refused) -> Sheet | Missing | Refused:
        """Return the sheet; without one, the samples of the recipe stand in for it."""
        if (
            isinstance(recipe, Recipe)
            and recipe.samples
            and drop.prefix + SHEET_FILE not in drop.listing
        ):
            return sheet_from_samples(recipe.samples)
        return await self._document(drop, SHEET_FILE, MAX_SHEET_BYTES, read_sheet)

    def _pipeline(self, recipe: Recipe | Refused) -> Pipeline | Refused:
        if isinstance(recipe, Refused):
            return recipe
        name = recipe.pipeline or self._default_pipeline()
        known = self._pipelines()
        return known.get(name) or Refused((_unknown_pipeline(name, known),))

    async def _with_files(
        self, drop: _Drop, recipe: Recipe, sheet: Sheet, pipeline: Pipeline
    ) -> Inspection:
        looks = await self._look_at_all(drop, sheet)
        refused, missing = _judged(drop, sheet, looks)
        if refused:
            return Refused(capped([*refused, *missing]))
        if missing:
            return Missing(capped(missing))
        found = [look.size_bytes for look in looks.values() if isinstance(look, _Found)]
        plan = _plan(drop, recipe, pipeline)
        plan = replace(plan, samples=len(sheet.rows), input_bytes=sum(found))
        return Accepted(plan, recipe.max_retries, recipe.priority)

    async def _look_at_all(self, drop: _Drop, sheet: Sheet) -> Mapping[Place, _Look]:
        """Look once at every place the sheet names, some at a time. Raises Transient."""
        places = dict.fromkeys(_place(drop, file) for row in sheet.rows for file in row.files)
        waiting = iter(places)
        looks: dict[Place, _Look] = {}
        lost: list[Transient] = []

        async def work() -> None:
            try:
                for place in waiting:
                    looks[place] = await self._look(drop, place)
            except Transient as exc:
                lost.append(exc)
                group.cancel_scope.cancel()

        async with create_task_group() as group:
            for _ in range(min(AT_ONCE, len(places))):
                group.start_soon(work)
        if lost:
            raise lost[0]
        return looks

    async def _look(self, drop: _Drop, place: Place) -> _Look:
        if isinstance(place, LocalPlace):
            look = partial(_look_local, place.path, self._local_roots)
            return await run_sync(look, abandon_on_cancel=True, limiter=self._local_limit)
        try:
            if place.key.endswith("/"):
                return await self._look_at_folder(drop, place)
            return await self._look_at_object(drop, place)
        except Permanent as exc:
            what = f"{place} is not there, or this daemon may not look at it: {exc}"
            return _Denied(what, "Allow the daemon's role to read it, or correct the path")

    async def _look_at_object(self, drop: _Drop, place: S3Place) -> _Look:
        info = drop.listing.get(place.key) if drop.holds(place) else None
        if not drop.holds(place) or (info and info.storage_class in _ARCHIVED):
            info = await self._objects.head(place.bucket, place.key)
        if info is None:
            return None
        archived = info.storage_class in _ARCHIVED and not info.restored
        return _Found(info.size, info.storage_class if archived else "")

    async def _look_at_folder(self, drop: _Drop, place: S3Place) -> _Look:
        held = drop.holds(place)
        within = (
            drop.below(place.key) if held else await self._objects.list(place.bucket, place.key)
        )
        return _Found(sum(info.size for info in within)) if within else None


def _drop(workset: Workset, listed: Sequence[ObjectInfo]) -> _Drop:
    listing = {info.key: info for info in listed}
    return _Drop(workset.bucket, workset.prefix, listing, sorted(listing))


def _place(drop: _Drop, file: InputFile) -> Place:
    return place_of(file.path, drop.bucket, drop.prefix)


def _look_local(path: str, roots: Sequence[str]) -> _Look:
    """Look at a local file, and at where links lead. Raises Transient if the disk does not answer."""
    try:
        if not _is_within(path, roots):
            return _outside(path, roots)
        real = os.path.realpath(path, strict=True)
        if not _is_within(real, [os.path.realpath(root) for root in roots]):
            return _outside(path, roots)
        return _measured(path, real)
    except OSError as exc:
        if exc.errno in _ABSENT:
            return None
        if exc.errno in _UNUSABLE:
            what = f"{path} cannot be looked at: {exc.strerror}."
            return _Denied(what, "Let the daemon's user read it, or correct the path")
        raise Transient(f"{path} could not be looked at: {exc.strerror}.") from exc


def _is_within(path: str, roots: Sequence[str]) -> bool:
    return any(os.path.commonpath([root, path]) == root for root in roots)


def _outside(path: str, roots: Sequence[str]) -> _Denied:
    what = f"{path} is not below {' or '.join(roots)}, and local input is taken from there alone."
    return _Denied(what, "Copy it there, or upload it to S3 and give that address")


def _measured(path: str, real: str) -> _Look:
    status = os.stat(real)
    if stat.S_ISREG(status.st_mode):
        return _Found(status.st_size)
    if stat.S_ISDIR(status.st_mode) and path.endswith("/"):
        with os.scandir(real) as entries:
            return _Found(sum(entry.stat().st_size for entry in entries))
    return _Denied(
        f"{path} is no regular file.", "Name a file, or a folder with a slash at its end"
    )


def _judged(
    drop: _Drop, sheet: Sheet, looks: Mapping[Place, _Look]
) -> tuple[list[Problem], list[Problem]]:
    """Return what can never be used, and what may still come; both in the order of the sheet."""
    refused: list[Problem] = []
    missing: list[Problem] = []
    for file in (file for row in sheet.rows for file in row.files):
        place = _place(drop, file)
        look = looks[place]
        if look is None:
            missing.append(_problem(sheet, file, *_missing(place)))
        elif isinstance(look, _Denied):
            problem = _problem(sheet, file, look.what, look.todo)
            refused.append(replace(problem, category=Category.CONFIGURATION))
        elif look.archive:
            what = f"{place} is archived ({look.archive}) and cannot be read."
            refused.append(_problem(sheet, file, what, "Restore it first"))
        elif look.size_bytes == 0:
            what = f"{place} is empty (0 bytes)."
            refused.append(_problem(sheet, file, what, "Upload it once more"))
    return refused, missing


def _missing(place: Place) -> tuple[str, str]:
    if isinstance(place, LocalPlace):
        return f"{place} was not found on this host.", "Copy it there or correct the path"
    hint = "" if "." in place.key.rpartition("/")[2] else " (that of a folder ends with a slash)"
    return f"{place} was not found in S3.", f"Upload it or correct the path{hint}"


def _problem(sheet: Sheet, file: InputFile, what: str, todo: str) -> Problem:
    return Problem(sheet.file, file.where, what, f"{todo}, {_AGAIN}")


def _unreadable(file: str, exc: Permanent) -> Problem:
    what = f"It cannot be read: {exc}"
    todo = f"Allow the daemon's role to read it, {_AGAIN}"
    return Problem(file, "", what, todo, Category.CONFIGURATION)


def _unknown_pipeline(name: str, known: Mapping[str, Pipeline]) -> Problem:
    what = (
        f"The pipeline {shown(name)} is not known; known are {', '.join(sorted(known)) or 'none'}."
    )
    todo = f"Name one of those, or let an operator install it, {_AGAIN}"
    return Problem(RECIPE_FILE, "key pipeline", what, todo, Category.CONFIGURATION)


def _together(*results: object) -> Refused:
    """Return every refusal once, so that a lab can mend everything before it tries again."""
    problems = (one for result in results if isinstance(result, Refused) for one in result.problems)
    return Refused(tuple(dict.fromkeys(problems)))


def _plan(drop: _Drop, recipe: Recipe, pipeline: Pipeline) -> Plan:
    return Plan(
        pipeline=pipeline.name,
        steps=tuple(template.step for template in pipeline.steps),
        run_args=recipe.run_args,
        clone_args=recipe.clone_args,
        workdir_name=recipe.workdir_name,
        export_uri=recipe.export_uri or f"s3://{drop.bucket}/{drop.prefix}results/",
        cluster_name=recipe.cluster_name,
        reference_genome=genome_of(pipeline, recipe.reference_genome) or "",
    )
