"""Looks at what a lab dropped, before anything of it runs.

One listing of the workset's prefix answers most questions; recipe and sheet are read; input files elsewhere
cost one HEAD each, or one look at the local file system. What is not there may still be on its way
(``Missing``); what is there and cannot be used never will be (``Refused``). While something is missing, what
was found is remembered, so that the next look asks for the rest alone; what is accepted, and pinned in the
plan, was seen in one look.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import takewhile
from typing import Final, TypeVar

from anyio import CapacityLimiter, create_task_group
from anyio.to_thread import run_sync

from daylily_daemon.adapters.blocking import Disk
from daylily_daemon.adapters.envelopes import IGNORE
from daylily_daemon.adapters.looking import (
    Closed,
    Found,
    Look,
    UnusableInput,
    clash,
    look_at_listed,
    look_in_s3,
    look_on_this_host,
)
from daylily_daemon.adapters.objects import Denied, NoBucket, ObjectInfo, Objects
from daylily_daemon.adapters.remembered import Memory, ReadDocument, Remembered
from daylily_daemon.domain.document import MAX_BYTES, shown
from daylily_daemon.domain.errors import Permanent, Transient
from daylily_daemon.domain.fit import plan_of, unmet
from daylily_daemon.domain.mentions import (
    Mention,
    judge_mentions,
    local_paths,
    mention_problem,
    mentions_in_recipe,
    mentions_in_sheet,
)
from daylily_daemon.domain.model import (
    Accepted,
    Category,
    Inspection,
    Missing,
    Problem,
    Refused,
    Unwanted,
)
from daylily_daemon.domain.paths import Fault
from daylily_daemon.domain.pins import Pin, checked, digest_of
from daylily_daemon.domain.pipeline import Pipeline
from daylily_daemon.domain.places import (
    AGAIN,
    RESULTS,
    Territory,
    Use,
    folder_problem,
    judge,
)
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
    places_of,
    read_sheet,
    sheet_from_samples,
    split_s3,
)
from daylily_daemon.domain.workset import Workset

AT_ONCE: Final = 32
"""Questions about input files that are open at the same time."""
PARSED_AT_ONCE: Final = 1
"""Parsing is work for the CPU, seconds of it for the largest files; leases must beat meanwhile."""

T = TypeVar("T", Recipe, Sheet)


@dataclass(frozen=True, slots=True)
class _DropListing:
    """The workset's own folder in S3, as listed."""

    bucket: str
    prefix: str
    listing: Mapping[str, ObjectInfo]
    keys: Sequence[str]
    """Of the listing, in order."""

    def holds(self, place: Place) -> bool:
        if isinstance(place, LocalPlace):
            return False
        return place.bucket == self.bucket and place.key.startswith(self.prefix)

    def at(self, place: S3Place) -> Sequence[ObjectInfo]:
        """Return the object of that key, or what lies below a key that ends with a slash."""
        if place.key.endswith("/"):
            return self.below(place.key)
        return [self.listing[place.key]] if place.key in self.listing else []

    def below(self, folder: str) -> Sequence[ObjectInfo]:
        """Return what lies in ``folder``, which ends with a slash, without a look at all the rest."""
        following = (self.keys[i] for i in range(bisect_left(self.keys, folder), len(self.keys)))
        return [
            self.listing[key] for key in takewhile(lambda key: key.startswith(folder), following)
        ]


@dataclass(frozen=True, slots=True)
class _Task:
    """One inspection: whose, and what is known of it already."""

    drop: _DropListing
    land: Territory
    memory: Memory


class S3Inputs:
    """The port ``Inputs``. Reads only.

    Every place that a recipe or sheet names is judged by ``territory`` before it is looked at: whatever the
    daemon can read would else end up in the results of whoever names it. ``pipelines`` is asked anew at
    each inspection.
    """

    def __init__(
        self,
        objects: Objects,
        default_pipeline: Callable[[], str],
        pipelines: Callable[[], Mapping[str, Pipeline]],
        *,
        local_roots: Sequence[str],
        territory: Territory | None = None,
    ) -> None:
        self._objects = objects
        self._default_pipeline = default_pipeline
        self._pipelines = pipelines
        roots = tuple(os.path.normpath(root) for root in local_roots)
        self._territory = replace(territory or Territory(), local_roots=roots)
        self._remembered = Remembered()
        self._disks = {root: Disk(f"inputs below {root}") for root in roots}
        self._disk = Disk("local inputs")
        self._parse_limit = CapacityLimiter(PARSED_AT_ONCE)

    async def inspect(self, workset: Workset) -> Inspection:
        """Read and check recipe, sheet and the existence of every input file. Raises Transient.

        ``daylily.ignore`` outweighs everything else, as it did in the system before this one. A folder that
        is closed to us is trouble of ours, and raised.
        """
        memory = self._remembered.of(workset)
        try:
            result = await self._inspected(workset, memory)
        except Transient:
            self._remembered.keep(workset, memory)
            raise
        if isinstance(result, Missing):
            self._remembered.keep(workset, memory)
        else:
            self._remembered.forget(workset)
        return result

    async def _inspected(self, workset: Workset, memory: Memory) -> Inspection:
        try:
            listed = await self._objects.list(workset.request.bucket, workset.request.prefix)
        except NoBucket as exc:
            raise Denied(str(exc)) from exc
        except Permanent as exc:
            return Refused(
                (_unreadable(f"s3://{workset.request.bucket}/{workset.request.prefix}", exc),)
            )
        drop = _drop(workset, listed)
        if workset.request.prefix + IGNORE in drop.listing:
            return Unwanted(IGNORE)
        if problem := folder_problem(workset.request.prefix, workset.id):
            return Refused((problem,))
        own = S3Place(workset.request.bucket, workset.request.prefix)
        return await self._read(_Task(drop, replace(self._territory, own=own), memory), workset)

    async def _read(self, task: _Task, workset: Workset) -> Inspection:
        recipe = await self._document(
            task, RECIPE_FILE, MAX_BYTES, partial(read_recipe, workset=workset.id)
        )
        if isinstance(recipe, Missing):
            return recipe
        sheet = await self._sheet(task, recipe)
        pipeline = self._pipeline(recipe)
        if (
            isinstance(recipe, Refused)
            or isinstance(sheet, Refused)
            or isinstance(pipeline, Refused)
        ):
            return _together(recipe, pipeline, sheet)
        if isinstance(sheet, Missing):
            return sheet
        problems = [*unmet(pipeline, recipe, sheet), *await self._misplaced(task, recipe, sheet)]
        if problems:
            return Refused(capped(problems))
        return await self._with_files(task, recipe, sheet, pipeline)

    async def _document(
        self,
        task: _Task,
        file: str,
        max_bytes: int,
        read: Callable[[bytes], T | tuple[Problem, ...]],
    ) -> T | Missing | Refused:
        drop = task.drop
        info = drop.listing.get(drop.prefix + file)
        if info and info.size > max_bytes:
            what = f"The file has {info.size:,} bytes; at most {max_bytes:,} are allowed."
            return Refused((Problem(file, "", what, f"Shorten it, {AGAIN}"),))
        known = task.memory.documents.get(file)
        if info is None or known is None or known.etag != info.etag:
            try:
                data = (
                    await self._objects.read(drop.bucket, info.key, max_bytes + 1) if info else None
                )
            except Permanent as exc:
                return Refused((_unreadable(file, exc),))
            if data is None or info is None:
                task.memory.documents.pop(file, None)
                what = f"It was not found in s3://{drop.bucket}/{drop.prefix}."
                return Missing((Problem(file, "", what, f"Upload it, {AGAIN}"),))
            known = await run_sync(
                _understood, file, info.etag, data, read, limiter=self._parse_limit
            )
            task.memory.documents[file] = known
        found: T | tuple[Problem, ...] = known.value
        return Refused(found) if isinstance(found, tuple) else found

    async def _sheet(self, task: _Task, recipe: Recipe | Refused) -> Sheet | Missing | Refused:
        """Return the sheet; without one, the samples of the recipe stand in for it."""
        if (
            isinstance(recipe, Recipe)
            and recipe.samples
            and task.drop.prefix + SHEET_FILE not in task.drop.listing
        ):
            task.memory.documents.pop(SHEET_FILE, None)
            return sheet_from_samples(recipe.samples)
        return await self._document(task, SHEET_FILE, MAX_SHEET_BYTES, read_sheet)

    def _pipeline(self, recipe: Recipe | Refused) -> Pipeline | Refused:
        if isinstance(recipe, Refused):
            return recipe
        name = recipe.pipeline or self._default_pipeline()
        known = self._pipelines()
        return known.get(name) or Refused((_unknown_pipeline(name, known),))

    async def _misplaced(self, task: _Task, recipe: Recipe, sheet: Sheet) -> list[Problem]:
        """Return what recipe and sheet may not name, before anything there is looked at."""
        documents = task.memory.documents.values()
        mentions = [
            *mentions_in_recipe(recipe),
            *(mention for document in documents for mention in document.mentions),
        ]
        problems = await run_sync(
            _misplaced, task, recipe, sheet, mentions, limiter=self._parse_limit
        )
        if problems or not any(True for _ in local_paths(mentions)):
            return problems
        lead = partial(_mislead, mentions, task.land)
        return await self._disk.run(lead)

    async def _with_files(
        self, task: _Task, recipe: Recipe, sheet: Sheet, pipeline: Pipeline
    ) -> Inspection:
        places = places_of(sheet, task.drop.bucket, task.drop.prefix)
        known = {place: look for place, look in task.memory.looks.items() if place in places}
        looks = await self._look_at_all(task, sheet, known)
        refused, missing = _judged(task.drop, sheet, looks)
        if not refused and not missing and known:
            # What was found while others were missing may be something else by now.
            task.memory.looks.clear()
            looks = await self._look_at_all(task, sheet, {})
            refused, missing = _judged(task.drop, sheet, looks)
        if refused:
            return Refused(capped([*refused, *missing]))
        if missing:
            return Missing(capped(missing))
        pins = [pin for look in looks.values() if isinstance(look, Found) for pin in look.pins]
        if name := clash(_keys(pins)):
            return Refused((_clashing(sheet, name),))
        plan = plan_of(recipe, pipeline, f"s3://{task.drop.bucket}/{task.drop.prefix}{RESULTS}")
        plan = replace(
            plan,
            samples=len(sheet.rows),
            pin=_pin_of(task.memory, pins),
        )
        return Accepted(plan, recipe.max_retries, recipe.priority)

    async def _look_at_all(
        self, task: _Task, sheet: Sheet, known: Mapping[Place, Found]
    ) -> Mapping[Place, Look]:
        """Look once at every place that is not known yet, some at a time. Raises Transient."""
        places = places_of(sheet, task.drop.bucket, task.drop.prefix)
        looks: dict[Place, Look] = {place: known[place] for place in places if place in known}
        waiting = iter([place for place in places if place not in known])
        lost: list[Transient] = []

        async def work() -> None:
            try:
                for place in waiting:
                    looks[place] = look = await self._look(task, place)
                    if isinstance(look, Found) and not look.archive and not task.drop.holds(place):
                        task.memory.looks[place] = look
            except Transient as exc:
                lost.append(exc)
                group.cancel_scope.cancel()

        async with create_task_group() as group:
            for _ in range(min(AT_ONCE, len(places))):
                group.start_soon(work)
        if lost:
            raise lost[0]
        return looks

    def _disk_of(self, path: str) -> Disk:
        """Return who asks about ``path``: a mount that hangs holds up what lies below it and no more."""
        roots = (root for root in self._disks if path.startswith(f"{root}/"))
        return self._disks.get(next(roots, ""), self._disk)

    async def _look(self, task: _Task, place: Place) -> Look:
        drop = task.drop
        if isinstance(place, LocalPlace):
            look = partial(look_on_this_host, place, partial(_judge_real, place, task.land))
            return await self._disk_of(place.path).run(look)
        if drop.holds(place):
            try:
                return await look_at_listed(self._objects, place, drop.at(place))
            except Permanent as exc:
                return UnusableInput(f"{place} cannot be used: {exc}", "Correct the object")
        found = await look_in_s3(self._objects, place)
        if isinstance(found, Closed) and place.bucket == drop.bucket:
            raise Denied(found.what)
        return found


def _understood(
    file: str, etag: str, data: bytes, read: Callable[[bytes], T | tuple[Problem, ...]]
) -> ReadDocument:
    mentions = mentions_in_sheet(data) if file == SHEET_FILE else ()
    return ReadDocument(etag, digest_of(data), read(data), mentions)


def _drop(workset: Workset, listed: Sequence[ObjectInfo]) -> _DropListing:
    listing = {info.key: info for info in listed}
    return _DropListing(workset.request.bucket, workset.request.prefix, listing, sorted(listing))


def _place(drop: _DropListing, file: InputFile) -> Place:
    return place_of(file.path, drop.bucket, drop.prefix)


def _misplaced(
    task: _Task, recipe: Recipe, sheet: Sheet, mentions: Sequence[Mention]
) -> list[Problem]:
    problems = []
    export = split_s3(recipe.export_uri)
    if export and (fault := judge(export, Use.EXPORT, task.land)):
        where = "key export_uri"
        problems.append(_problem(RECIPE_FILE, where, fault, Category.CONFIGURATION))
    problems += [
        _problem(sheet.file, file.where, fault, Category.CONFIGURATION)
        for file in (file for row in sheet.rows for file in row.files)
        if (fault := judge(_place(task.drop, file), Use.FILE, task.land))
    ]
    return [*problems, *judge_mentions(mentions, task.land)]


def _mislead(mentions: Sequence[Mention], land: Territory) -> list[Problem]:
    """Return which paths in arguments and cells lead, by links, where the workset may not read."""
    real, closed = cache(os.path.realpath), _with_real(land)
    found: dict[Mention, Problem] = {}
    for mention, path in local_paths(mentions):
        if fault := judge(LocalPlace(real(path)), Use.MENTION, closed):
            what = f"{path} leads to {fault[0]}"
            found.setdefault(mention, mention_problem(mention, what, fault[1]))
    return list(found.values())


def _judge_real(place: LocalPlace, land: Territory, real: str) -> Fault | None:
    """Judge where the links of ``place`` lead, in the name that the lab knows."""
    fault = judge(LocalPlace(real), Use.FILE, _with_real(land))
    return (fault[0].replace(real, place.path, 1), fault[1]) if fault else None


def _with_real(land: Territory) -> Territory:
    """Return ``land`` with the folders that its own names lead to."""

    def both(folders: Sequence[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*folders, *(os.path.realpath(one) for one in folders))))

    return replace(land, local_roots=both(land.local_roots), closed=both(land.closed))


def _judged(
    drop: _DropListing, sheet: Sheet, looks: Mapping[Place, Look]
) -> tuple[list[Problem], list[Problem]]:
    """Return what can never be used, and what may still come; both in the order of the sheet."""
    refused: list[Problem] = []
    missing: list[Problem] = []
    for file in (file for row in sheet.rows for file in row.files):
        place = _place(drop, file)
        look = looks[place]
        if look is None:
            missing.append(_problem(sheet.file, file.where, _missing(place)))
        elif isinstance(look, Closed):
            closed = look.what, look.todo
            missing.append(_problem(sheet.file, file.where, closed, Category.CONFIGURATION))
        elif fault := _fault(place, look):
            category = Category.CONFIGURATION if isinstance(look, UnusableInput) else Category.DATA
            refused.append(_problem(sheet.file, file.where, fault, category))
    return refused, missing


def _fault(place: Place, look: Found | UnusableInput) -> Fault | None:
    if isinstance(look, UnusableInput):
        return look.what, look.todo
    if look.archive:
        return f"{place} is archived ({look.archive}) and cannot be read.", "Restore it first"
    return (f"{place} is empty (0 bytes).", "Upload it once more") if not look.size_bytes else None


def _missing(place: Place) -> Fault:
    if isinstance(place, LocalPlace):
        return f"{place} was not found on this host.", "Copy it there or correct the path"
    hint = "" if "." in place.key.rpartition("/")[2] else " (that of a folder ends with a slash)"
    return f"{place} was not found in S3.", f"Upload it or correct the path{hint}"


def _problem(file: str, where: str, fault: Fault, category: Category = Category.DATA) -> Problem:
    what, todo = fault
    return Problem(file, where, what, f"{todo}, {AGAIN}", category)


def _keys(pins: Sequence[Pin]) -> Iterator[tuple[str, str]]:
    for pin in pins:
        if not pin.local:
            bucket, _, key = pin.place.removeprefix("s3://").partition("/")
            yield bucket, key


def _clashing(sheet: Sheet, name: str) -> Problem:
    what = f"{name} is a file, and other files lie below {name}/; on a disk it cannot be both."
    return Problem(sheet.file, "", what, f"Rename one of them, {AGAIN}")


def _pin_of(memory: Memory, pins: Sequence[Pin]) -> str:
    digests = {name: document.digest for name, document in memory.documents.items()}
    return str(checked(digests[RECIPE_FILE], digests.get(SHEET_FILE, ""), pins))


def _unreadable(file: str, exc: Permanent) -> Problem:
    what = f"It cannot be read: {exc}"
    todo = f"Allow the daemon's role to read it, {AGAIN}"
    return Problem(file, "", what, todo, Category.CONFIGURATION)


def _unknown_pipeline(name: str, known: Mapping[str, Pipeline]) -> Problem:
    what = (
        f"The pipeline {shown(name)} is not known; known are {', '.join(sorted(known)) or 'none'}."
    )
    todo = f"Name one of those, or let an operator install it, {AGAIN}"
    return Problem(RECIPE_FILE, "key pipeline", what, todo, Category.CONFIGURATION)


def _together(*results: object) -> Refused:
    """Return every refusal once, so that a lab can fix everything before it tries again."""
    problems = (one for result in results if isinstance(result, Refused) for one in result.problems)
    return Refused(tuple(dict.fromkeys(problems)))
