"""What lies at a place that a sheet names: one look for the check and for staging, so that both see the same.

A place is one file or everything below a folder, in S3 or on this host. Whether a workset may use it is
judged before (``domain/places.py``); where a local path leads is known only here, and judged here.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from daylily_daemon.adapters.objects import Denied, NoBucket, ObjectInfo, Objects
from daylily_daemon.adapters.transfer.copying import safe_relative
from daylily_daemon.domain.errors import Permanent, Transient
from daylily_daemon.domain.paths import Fault
from daylily_daemon.domain.pins import Pin
from daylily_daemon.domain.sheet import LocalPlace, S3Place

MAX_FILES: Final = 100_000
"""Files of one folder that a sheet names."""

_ARCHIVED: Final = frozenset({"GLACIER", "DEEP_ARCHIVE", "ARCHIVE_ACCESS", "DEEP_ARCHIVE_ACCESS"})
"""Storage classes that cannot be read before a restore; GLACIER_IR can."""
_ABSENT: Final = frozenset({errno.ENOENT, errno.ENOTDIR})
_UNUSABLE: Final = frozenset({errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP})

JudgePath = Callable[[str], Fault | None]
"""Tells why a path, with all its links followed, may not be used."""


@dataclass(frozen=True, slots=True)
class Found:
    pins: tuple[Pin, ...]
    """Every file, in the order of names."""
    archive: str = ""
    """The storage class, where something must be restored before anybody can read it."""

    @property
    def size_bytes(self) -> int:
        return sum(pin.size_bytes for pin in self.pins)


@dataclass(frozen=True, slots=True)
class UnusableInput:
    """It is there, or may be, and cannot or must not be used."""

    what: str
    todo: str


@dataclass(frozen=True, slots=True)
class Closed:
    """Our role may not look at it, or there is no such bucket: either may be fixed while we wait."""

    what: str
    todo: str


Look = Found | UnusableInput | Closed | None
"""None: nothing is there yet."""


async def look_in_s3(objects: Objects, place: S3Place) -> Look:
    """Look at an object, or at a folder if the key ends with a slash. Raises Transient."""
    try:
        if place.key.endswith("/"):
            return await look_at_listed(
                objects, place, await objects.list(place.bucket, place.key, at_most=MAX_FILES + 1)
            )
        info = await objects.head(place.bucket, place.key)
        return await look_at_listed(objects, place, [info] if info else [])
    except (Denied, NoBucket) as exc:
        what = f"{place} cannot be looked at: there is no such bucket, or the daemon may not read it. {exc}"
        return Closed(
            what, "Correct the path, or let an operator allow the daemon's role to read it"
        )
    except Permanent as exc:
        return UnusableInput(f"{place} cannot be used: {exc}", "Correct the path or the object")


async def look_at_listed(objects: Objects, place: S3Place, found: Sequence[ObjectInfo]) -> Look:
    """Return what these objects, which a listing or a HEAD of ``place`` brought, are as input."""
    files = [info for info in found if not info.key.endswith("/")]
    if len(files) > MAX_FILES:
        return UnusableInput(
            f"{place} holds more than {MAX_FILES:,} files.", "Name smaller folders"
        )
    if not files:
        return None
    for info in files:
        if fault := name_fault(place.bucket, info.key):
            return UnusableInput(*fault)
    archive = await _archive(objects, place.bucket, files)
    return Found(tuple(pin_of(place.bucket, info) for info in files), archive)


async def _archive(objects: Objects, bucket: str, files: Sequence[ObjectInfo]) -> str:
    for info in files:
        if info.storage_class in _ARCHIVED and not info.restored:
            # A listing does not tell whether there is a restored copy.
            now = await objects.head(bucket, info.key)
            if now and now.storage_class in _ARCHIVED and not now.restored:
                return now.storage_class
    return ""


def pin_of(bucket: str, info: ObjectInfo) -> Pin:
    written_ns = int(info.last_modified.timestamp()) * 10**9
    return Pin(f"s3://{bucket}/{info.key}", info.size, info.etag, written_ns)


def name_fault(bucket: str, key: str) -> Fault | None:
    """Return why this object cannot become a file of the same name."""
    try:
        safe_relative(bucket)
        safe_relative(key)
    except Permanent:
        what = (
            f"{S3Place(bucket, key)} cannot become a file: a part of its name is empty, `.`, `..` or longer "
            "than 255 bytes."
        )
        return what, "Copy the object to a plain name"
    return None


def clash(objects: Iterable[tuple[str, str]]) -> str:
    """Return an object, as ``s3://bucket/key``, that would have to be a file and a folder; empty if none."""
    all_of_them = set(objects)
    for bucket, key in all_of_them:
        above = key
        while "/" in above:
            above = above.rpartition("/")[0]
            if (bucket, above) in all_of_them:
                return str(S3Place(bucket, above))
    return ""


def look_on_this_host(place: LocalPlace, judge_path: JudgePath) -> Look:
    """Look at a local file or folder, and at where links lead. Raises Transient if the disk says nothing."""
    path = place.path
    try:
        real = os.path.realpath(path, strict=True)
        if fault := judge_path(real + "/" if path.endswith("/") else real):
            return UnusableInput(*fault)
        status = os.stat(real)
        if stat.S_ISREG(status.st_mode) and not path.endswith("/"):
            return _readable(path) or Found((_local_pin(path, real, status),))
        if stat.S_ISDIR(status.st_mode) and path.endswith("/"):
            return _folder(path, judge_path)
        return UnusableInput(
            f"{path} is no regular file.", "Name a file, or a folder with a slash at its end"
        )
    except OSError as exc:
        if exc.errno in _ABSENT:
            return None
        if exc.errno in _UNUSABLE:
            what = f"{path} cannot be looked at: {exc.strerror}."
            return UnusableInput(what, "Let the daemon's user read it, or correct the path")
        raise Transient(f"{path} could not be looked at: {exc.strerror}.") from exc


def _readable(path: str) -> UnusableInput | None:
    if os.access(path, os.R_OK):
        return None
    what = f"{path} cannot be looked at: {os.strerror(errno.EACCES)}."
    return UnusableInput(what, "Let the daemon's user read it, or correct the path")


def _folder(path: str, judge_path: JudgePath) -> Look:
    pins: list[Pin] = []
    for file in _files_below(path):
        if len(pins) >= MAX_FILES:
            return UnusableInput(
                f"{path} holds more than {MAX_FILES:,} files.", "Name smaller folders"
            )
        real = os.path.realpath(file, strict=True)
        if fault := judge_path(real):
            return UnusableInput(f"{path} holds a link: {fault[0]}", fault[1])
        status = os.stat(real)
        if stat.S_ISREG(status.st_mode):
            if unreadable := _readable(file):
                return unreadable
            pins.append(_local_pin(file, real, status))
        elif not stat.S_ISDIR(status.st_mode):
            return UnusableInput(f"{file} is no regular file.", "Take it out of the folder")
        else:
            return UnusableInput(f"{file} is a link to a folder.", "Name that folder itself")
    return Found(tuple(sorted(pins, key=lambda pin: pin.place))) if pins else None


def _files_below(folder: str) -> Iterator[str]:
    for above, folders, names in os.walk(folder, onerror=_raise):
        linked = [name for name in folders if os.path.islink(os.path.join(above, name))]
        for name in (*names, *linked):
            yield os.path.join(above, name)


def _raise(error: OSError) -> None:
    raise error


def _local_pin(path: str, real: str, status: os.stat_result) -> Pin:
    version = f"{real}:{status.st_ino}:{status.st_mtime_ns}"
    written_ns = max(status.st_mtime_ns, status.st_ctime_ns)
    return Pin(path, status.st_size, version, written_ns, local=True)
