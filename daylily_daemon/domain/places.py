"""Where a workset may read and write: one judgement of every place that its recipe or sheet names.

Labs share a bucket and a file system, and whatever the daemon may read or write, a recipe could make it
read or write. So a name is judged by the place it stands for, in every spelling that some program between
here and there might understand it in (``..``, ``//``, ``%2F``, capitals): below the control prefix a workset
has its own folder and no other; folders of the host that belong to the daemon or the system are nobody's;
elsewhere the operator's lists decide, and empty lists allow what the daemon's role allows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Final, Protocol
from urllib.parse import unquote

from daylily_daemon.domain.document import shown
from daylily_daemon.domain.model import Category, Problem, WorksetId
from daylily_daemon.domain.naming import name_problem
from daylily_daemon.domain.paths import Fault, LocalPlace, Place, S3Place

RESULTS: Final = "results/"
"""The one part of its folder below the control prefix that a workset may write into."""
SYSTEM: Final = ("/proc", "/sys", "/dev", "/etc", "/run", "/boot")
"""Folders of the host that are no input, whatever ``inputs.local_roots`` says."""
AGAIN: Final = "then put daylily.ready again."

_HARMLESS: Final = frozenset({"/dev/null", "/dev/stdin", "/dev/stdout", "/dev/stderr"})
_ALIASES: Final = ("-s3alias", "--ol-s3", ".mrap")
"""Ends of names that stand for a bucket without saying for which: access points."""
_DECODED: Final = 3
"""How often a name is taken for an encoded one."""
_URI: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^\s\"',;()\[\]{}]*)")
_PATH: Final = re.compile(r"(?:(?<![\w.~/-])|(?<=^-\w))/[^\s\"',:;=()\[\]{}]+")
_MAY_END: Final = re.compile(r"[\s\"',:;=()\[\]{}]|\Z")
"""What may end a path, and may as well be part of it: a folder may be called ``my data``."""
_READINGS: Final = 8
"""How often a path is taken to go on over one; the first of a text may be all the rest besides."""
_UPWARDS: Final = re.compile(
    r"(?:^|[\s\"',:;=()\[\]{}/])\.\./|/\.\.(?:$|[\s\"',:;=()\[\]{}])|(?:^|=)\.\.$"
)
"""A part of a path that is ``..``; two dots in a sentence are none."""

NOWHERE: Final = S3Place("", "")
"""No place at all."""


class Shared(StrEnum):
    """What happens where a place holds another workset's results."""

    FOLDER = "folder"
    """The results go into a folder of the workset's name below it."""
    REFUSE = "refuse"
    """The export fails, and nothing is written."""


class Use(StrEnum):
    """What a place is named for."""

    FILE = "file"
    """One input; everything below it where its name ends with a slash."""
    PREFIX = "prefix"
    """All inputs whose names begin with it."""
    EXPORT = "export"
    """The folder that results go to."""
    MENTION = "mention"
    """Something else that a pipeline reads for itself: an argument, or a cell that holds a path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Territory:
    """Whose place is whose, for one workset."""

    control: S3Place = NOWHERE
    """Bucket and prefix that worksets are dropped below; the prefix ends with a slash."""
    own: S3Place = NOWHERE
    """The workset's own folder, with a closing slash."""
    inputs: tuple[S3Place, ...] = ()
    """Folders in S3 that inputs may come from besides ``own``; empty: wherever the role may read."""
    exports: tuple[S3Place, ...] = ()
    """Folders in S3 that results may go to; empty: wherever the role may write."""
    local_roots: tuple[str, ...] = ()
    """Folders of this host that inputs may lie in."""
    closed: tuple[str, ...] = ()
    """Folders of this host that hold what belongs to other worksets or to the daemon."""


class Control(Protocol):
    """Whatever knows where worksets are dropped."""

    @property
    def bucket(self) -> str: ...
    @property
    def prefix(self) -> str: ...


def territory(
    control: Control, inputs: Sequence[str], exports: Sequence[str], closed: Sequence[object]
) -> Territory:
    """Return whose places are whose, without an own folder yet; lists are of ``s3://bucket/prefix/``."""
    return Territory(
        control=S3Place(control.bucket, control.prefix),
        inputs=tuple(_folder(uri) for uri in inputs),
        exports=tuple(_folder(uri) for uri in exports),
        closed=tuple(str(folder) for folder in closed),
    )


def _folder(uri: str) -> S3Place:
    """Return bucket and prefix; a bucket alone is all of it."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    return S3Place(bucket, prefix)


def judge(place: Place, use: Use, territory: Territory) -> Fault | None:
    """Return why the workset may not use ``place``; None if it may."""
    if isinstance(place, LocalPlace):
        return _judge_local(place, use, territory)
    return _judge_s3(place, use, territory)


def mentioned(text: str) -> tuple[Place, ...]:
    """Return the absolute paths and S3 addresses in ``text``, an argument or a cell."""
    found: list[Place] = []
    for scheme, rest in _URI.findall(text):
        if scheme.lower() == "file":
            found.append(LocalPlace("/" + rest.lstrip("/")))
        elif scheme.lower() in {"s3", "s3a", "s3n"}:
            bucket, _, key = rest.partition("/")
            found.append(S3Place(bucket, key))
    found.extend(LocalPlace(path) for path in dict.fromkeys(_paths(_URI.sub(_local, text))))
    return tuple(found)


def _local(uri: re.Match[str]) -> str:
    """Return the path that a ``file:`` address begins; of others nothing."""
    return " /" + uri[2].lstrip("/") if uri[1].lower() == "file" else " "


def _paths(text: str) -> Iterator[str]:
    """Yield the absolute paths in ``text``, each in every length that a program may give it."""
    for number, start in enumerate(_PATH.finditer(text)):
        yield start[0]
        ends = _MAY_END.finditer(text, start.end())
        next(ends, None)  # the one that ends the shortest
        for end in islice(ends, _READINGS):
            yield text[start.start() : end.start()].rstrip()
        if number == 0:  # a cell or an argument that holds one path and nothing else
            yield text[start.start() :].strip("\"' \t")


def leads_upwards(text: str) -> bool:
    """Tell whether a part of a path in ``text`` is ``..``: nobody can say from where it starts."""
    return any(_UPWARDS.search(spelling) for spelling in _decoded(text))


def submission_place_problem(
    bucket: str, prefix: str, workset: WorksetId, control: S3Place
) -> Problem | None:
    """Return why ``workset`` cannot be what lies below ``prefix``: it submits its own folder and no other."""
    folder = prefix.removeprefix(control.key).removesuffix("/")
    if bucket == control.bucket and prefix == f"{control.key}{workset}/":
        return None
    inside = bucket == control.bucket and prefix == f"{control.key}{folder}/"
    if inside and "/" not in folder and (problem := name_problem(folder)):
        return problem
    what = f"{shown(f's3://{bucket}/{prefix}', 300)} is not the folder of workset {workset}."
    todo = f"Put the files into s3://{control.bucket}/{control.key}{workset}/ and submit that."
    return Problem(str(workset), "folder", what, todo, Category.CONFIGURATION)


def folder_problem(prefix: str, workset: WorksetId) -> Problem | None:
    """Return why a workset whose files lie below ``prefix`` is not the one of that name; None if it is."""
    folder = prefix.removesuffix("/").rpartition("/")[2]
    if folder == workset:
        return None
    if problem := name_problem(folder):
        return problem
    what = (
        f"{shown(prefix, 300)} is not the folder of workset {workset}, but that of {shown(folder)}."
    )
    todo = f"Submit {shown(folder)} itself, or copy the files into a folder of the name {workset}."
    return Problem(str(workset), "folder", what, todo, Category.CONFIGURATION)


def _judge_s3(place: S3Place, use: Use, territory: Territory) -> Fault | None:
    own, control = territory.own, territory.control
    if place.bucket == own.bucket and all(
        spelling.startswith(own.key) for spelling in _spellings(place.key)
    ):
        return _judge_own(place, use, own)
    if (
        control.bucket
        and _may_be(place.bucket, control.bucket)
        and _touches(place.key, control.key, use)
    ):
        what = f"{place} reaches below s3://{control.bucket}/{control.key} outside this workset's own folder."
        return what, f"Name a place in {own} or outside of the worksets"
    if _may_be(place.bucket, own.bucket) and _touches(place.key, own.key, use):
        what = f"{place} holds or disguises this workset's own folder {own}."
        return what, "Name the place itself, without `..`, `//` and encoded signs"
    return _judge_elsewhere(place, use, territory)


def _judge_own(place: S3Place, use: Use, own: S3Place) -> Fault | None:
    results = own.key + RESULTS
    if use is not Use.EXPORT or all(key.startswith(results) for key in _spellings(place.key)):
        return None
    what = f"{place} is where this workset's own input lies, which results could replace."
    return what, f"Give s3://{own.bucket}/{results} or a folder below it, or leave the key out"


def _judge_elsewhere(place: S3Place, use: Use, territory: Territory) -> Fault | None:
    export = use is Use.EXPORT
    allowed = territory.exports if export else territory.inputs
    if not allowed or any(_is_below(place, folder) for folder in allowed):
        return None
    named = " or ".join(str(folder) for folder in allowed[:5])
    doing = "Results may go" if export else "Inputs may come"
    where = "to" if export else "from"
    what = f"{place} is not open to worksets. {doing} {where} {named}."
    return what, "Use one of those, or ask an operator to open the place (settings `places`)"


def _is_below(place: S3Place, folder: S3Place) -> bool:
    start = folder.key and folder.key.removesuffix("/") + "/"
    return place.bucket == folder.bucket and all(
        spelling.startswith(start) for spelling in _spellings(place.key)
    )


def _may_be(bucket: str, other: str) -> bool:
    return bucket.lower() == other.lower() or bucket.lower().endswith(_ALIASES)


def _touches(key: str, prefix: str, use: Use) -> bool:
    """Tell whether ``key``, in any spelling, is below ``prefix``, or reaches so far that it includes it."""
    wide = use in {Use.PREFIX, Use.EXPORT} or key.endswith("/") or not key
    wanted = prefix.casefold()
    for spelling in (spelling.casefold() for spelling in _spellings(key)):
        if spelling.startswith(wanted) or f"{spelling}/" == wanted:
            return True
        if wide and wanted.startswith(spelling):
            return True
    return False


def _judge_local(place: LocalPlace, use: Use, territory: Territory) -> Fault | None:
    if use is Use.MENTION and place.path in _HARMLESS:
        return None
    wide = use is not Use.FILE or place.path.endswith("/")
    paths = ["/" + spelling for spelling in _spellings(place.path)]
    if use is not Use.MENTION and (fault := _judge_root(place, paths, territory.local_roots)):
        return fault
    for folder in (*territory.closed, *SYSTEM):
        closed = "/" + _flat(folder).rstrip("/") + "/"
        for path in (path.rstrip("/") + "/" for path in paths):
            includes = wide and closed.startswith(path if use is not Use.PREFIX else path[:-1])
            if path.startswith(closed) or (includes and use is not Use.MENTION):
                what = f"{place.path} reaches into {folder}, which is not open to worksets."
                return what, "Copy the file elsewhere, or upload it to S3 and give that address"
    return None


def _judge_root(place: LocalPlace, paths: Sequence[str], roots: tuple[str, ...]) -> Fault | None:
    starts = tuple(f"/{_flat(root)}/".replace("//", "/") for root in roots)
    if all(any(f"{path}/".startswith(start) for start in starts) for path in paths):
        return None
    named = " or ".join(roots)
    what = f"{place.path} is not below {named}, and local input is taken from there alone."
    return what, "Copy it there, or upload it to S3 and give that address"


def _spellings(name: str) -> frozenset[str]:
    """Return ``name`` without a leading slash, as it is and as it may be understood."""
    found = {name.lstrip("/")}
    for decoded in _decoded(name):
        found |= {decoded.lstrip("/"), _flat(decoded)}
    return frozenset(found)


def _decoded(name: str) -> Iterator[str]:
    yield name
    for _ in range(_DECODED):
        decoded = unquote(name)
        if decoded == name:
            return
        yield decoded
        name = decoded


def _flat(name: str) -> str:
    """Return ``name`` without empty parts, ``.`` and ``..``; a closing slash stays."""
    parts: list[str] = []
    for part in name.replace("\\", "/").split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in {"", "."}:
            parts.append(part)
    return "/".join(parts) + ("/" if name.endswith("/") and parts else "")
