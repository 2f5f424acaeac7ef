"""What of a local folder belongs to the workset in it: three documents, and what the sheet names.

Nothing else goes up, whatever lies beside it: keys, hidden files, an old run. What is named and cannot go
is an error that says so; what is named and is not in the folder may be in S3 already, and is told.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from daylily_daemon.adapters.transfer.collecting import (
    LocalFile,
    Stamp,
    collect,
    printable,
    unfit_name,
)
from daylily_daemon.adapters.transfer.copying import local_files, name_of
from daylily_daemon.domain.document import MAX_BYTES
from daylily_daemon.domain.errors import Permanent
from daylily_daemon.domain.model import Problem, WorksetId
from daylily_daemon.domain.recipe import read_recipe
from daylily_daemon.domain.sheet import (
    MAX_SHEET_BYTES,
    RECIPE_FILE,
    SHEET_FILE,
    InputFile,
    S3Place,
    Sheet,
    capped,
    place_of,
    read_sheet,
    sheet_from_samples,
)

INFO_FILE: Final = "daylily_info.yaml"
_KEYS: Final = frozenset({".aws", ".ssh", ".gnupg", ".netrc", ".git"})
"""Names that no input has, on the way to it or to what it links to."""
_HERE: Final = S3Place("here", "")


@dataclass(frozen=True, slots=True)
class LocalDrop:
    """What of a folder goes to S3."""

    files: tuple[LocalFile, ...]
    """Each once: the inputs in the order of the sheet, then the documents."""
    absent: tuple[str, ...]
    """What the sheet names relative to the folder and is not in it, one sentence each."""


def files_to_submit(folder: Path, workset: WorksetId) -> LocalDrop:
    """Return the files of ``folder`` that make up ``workset``.

    Links are followed: the lab means the file. Raises Permanent with every problem of recipe and sheet, and
    with every file they name that is there and cannot be uploaded.
    """
    with local_files(f"Reading {name_of(folder)}"):
        return _Drop(folder).read(workset)


@dataclass(slots=True)
class _Drop:
    folder: Path

    def read(self, workset: WorksetId) -> LocalDrop:
        sheet = self._sheet(workset)
        named = [file for row in sheet.rows for file in row.files]
        found: dict[str, LocalFile] = {}
        absent: dict[str, None] = {}
        problems: list[Problem] = []
        for file in named:
            place = place_of(file.path, _HERE.bucket, _HERE.key)
            if not isinstance(place, S3Place) or place.bucket != _HERE.bucket or "://" in file.path:
                continue
            try:
                files = list(self._files(place.key))
            except _Unfit as exc:
                problems.append(_problem(sheet, file, str(exc)))
                continue
            found |= {one.name: one for one in files}
            if not files:
                absent[
                    f"{sheet.file}, {file.where}: {printable(file.path)} is not in the folder."
                ] = None
        if problems:
            raise Permanent("\n".join(str(problem) for problem in capped(problems)))
        documents = {name: self._file(name) for name in (RECIPE_FILE, INFO_FILE, SHEET_FILE)}
        found |= {name: file for name, file in documents.items() if file}
        return LocalDrop(tuple(found.values()), tuple(absent))

    def _sheet(self, workset: WorksetId) -> Sheet:
        recipe = read_recipe(self._text(RECIPE_FILE, MAX_BYTES), workset)
        text = self._text(SHEET_FILE, MAX_SHEET_BYTES) if self._has(SHEET_FILE) else None
        sheet = read_sheet(text) if text is not None else None
        problems = [
            *(recipe if isinstance(recipe, tuple) else ()),
            *(sheet if isinstance(sheet, tuple) else ()),
        ]
        if problems or isinstance(recipe, tuple) or isinstance(sheet, tuple):
            raise Permanent("\n".join(str(problem) for problem in capped(problems)))
        if sheet is None and not recipe.samples:
            raise Permanent(
                f"There is neither a {SHEET_FILE} nor samples in {RECIPE_FILE} in {name_of(self.folder)}; "
                "add one."
            )
        return sheet or sheet_from_samples(recipe.samples)

    def _has(self, name: str) -> bool:
        return os.path.lexists(self.folder / name)

    def _text(self, name: str, limit: int) -> bytes:
        """Return the document, one byte more than is allowed at most."""
        if not self._has(name):
            raise Permanent(
                f"There is no {name} in {name_of(self.folder)}; a workset has a {RECIPE_FILE}, and a "
                f"{SHEET_FILE} unless the recipe lists samples."
            )
        file = self._file(name)
        if file is None:
            raise Permanent(f"{name_of(self.folder / name)} is a link to what does not exist.")
        with file.path.open("rb") as opened:
            return opened.read(limit + 1)

    def _files(self, name: str) -> Iterator[LocalFile]:
        """Yield the file of that name, or all that lie in it if it ends with a slash. Raises _Unfit."""
        if not name.endswith("/"):
            if file := self._file(name):
                yield file
            return
        folder = self.folder / name
        if not folder.is_dir():
            return
        self._check(name, folder)
        collected = collect(folder, within=(Path("/"),), key_bytes=len(name.encode()))
        if collected.left_out:
            raise _Unfit(f"{name}{collected.left_out[0]}")
        for file in collected.files:
            self._check(name + file.name, file.path)
            yield LocalFile(file.path, name + file.name, file.stamp)

    def _file(self, name: str) -> LocalFile | None:
        """Return the file of that name; None if there is none. Raises _Unfit for what cannot be uploaded."""
        path = self.folder / name
        if not os.path.lexists(path):
            return None
        if not path.exists():
            raise _Unfit(f"{printable(name)} is a link to what does not exist.")
        self._check(name, path)
        if not path.is_file():
            raise _Unfit(f"{printable(name)} is no regular file.")
        if not os.access(path, os.R_OK):
            raise _Unfit(f"{printable(name)} cannot be read: permission denied.")
        real = path.resolve()
        return LocalFile(real, name, Stamp.of(real.stat()))

    def _check(self, name: str, path: Path) -> None:
        if reason := unfit_name(name, 0):
            raise _Unfit(f"{printable(name)} {reason}")
        if _KEYS & {*Path(name).parts, *path.resolve().parts}:
            raise _Unfit(f"{printable(name)} is, or leads to, what belongs to keys and settings.")


class _Unfit(Permanent):
    """A file that is named and cannot be uploaded."""


def _problem(sheet: Sheet, file: InputFile, what: str) -> Problem:
    return Problem(sheet.file, file.where, what, "Name a file of the folder, then submit it again.")
