"""Which files a folder holds for a copy to S3, and what of it cannot go, by name and reason.

Whoever deletes a folder after its copy relies on this list: what is neither a file in it nor named as left
out would be lost. So nothing is passed over: links are followed as far as they lead into folders that
belong to the same run, and everything else that cannot be copied is said.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from daylily_daemon.adapters.transfer.copying import name_of
from daylily_daemon.domain.errors import Permanent
from daylily_daemon.domain.printable import one_line

MAX_KEY_BYTES: Final = 1024
"""Of a key in S3, in UTF-8."""
MAX_ENTRIES: Final = 1_000_000
"""Files and folders of one copy; links to folders can multiply what there is."""

_NOT_IN_XML: Final = frozenset({"\ufffe", "\uffff"})


@dataclass(frozen=True, slots=True)
class Stamp:
    """What a file was when it was looked at; another one means that it was written to, or replaced."""

    device: int
    inode: int
    size_bytes: int
    changed_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


@dataclass(frozen=True, slots=True)
class LocalFile:
    path: Path
    """Where its bytes are, without a link on the way."""
    name: str
    """Below the folder, with slashes: the end of its key."""
    stamp: Stamp


@dataclass(frozen=True, slots=True)
class Collected:
    files: tuple[LocalFile, ...]
    left_out: tuple[str, ...]
    """What cannot be copied and why, one sentence each, in the order of names."""


def collect(source: Path, *, within: Sequence[Path] = (), key_bytes: int = 0) -> Collected:
    """Return every file below ``source`` in the order of names, and what is left out.

    Links are followed into ``source`` and ``within``. ``key_bytes`` are those that stand before the name in
    the key. Raises Permanent if there is no such folder or too much in it, and OSError if it cannot be read.
    """
    if not source.is_dir():
        raise Permanent(f"There is no folder {name_of(source)}; give the folder of the results.")
    root = source.resolve()
    walk = _FolderWalk(root, (root, *(folder.resolve() for folder in within)), key_bytes)
    walk.all()
    return Collected(
        files=tuple(sorted(walk.files, key=lambda file: file.name)),
        left_out=tuple(sorted(walk.left_out)),
    )


@dataclass(frozen=True, slots=True)
class _OpenFolder:
    path: Path
    name: str
    """Empty for the first one, else with a closing slash."""
    above: frozenset[tuple[int, int]]
    """Device and inode of the folders on the way, itself included: one of them again is a loop."""


@dataclass(slots=True)
class _FolderWalk:
    root: Path
    within: Sequence[Path]
    key_bytes: int
    files: list[LocalFile] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    entries: int = 0

    def all(self) -> None:
        status = self.root.stat()
        waiting = [_OpenFolder(self.root, "", frozenset({(status.st_dev, status.st_ino)}))]
        while waiting:
            folder = waiting.pop()
            try:
                found = sorted(os.scandir(folder.path), key=lambda entry: entry.name)
            except OSError as exc:
                if not folder.name:
                    raise
                self._leave(folder.name, f"cannot be read: {exc.strerror}.")
                continue
            waiting.extend(self._look(folder, found))

    def _look(
        self, folder: _OpenFolder, found: Sequence[os.DirEntry[str]]
    ) -> Iterator[_OpenFolder]:
        for entry in found:
            self.entries += 1
            if self.entries > MAX_ENTRIES:
                raise Permanent(
                    f"There are more than {MAX_ENTRIES:,} files and folders in {name_of(self.root)}, links "
                    "to folders counted each time. Pack small files into archives, or remove such links."
                )
            name = folder.name + entry.name
            try:
                if reason := unfit_name(name, self.key_bytes) or self._leads_out(entry):
                    self._leave(name, reason)
                elif below := self._take(folder, entry, name):
                    yield below
            except OSError as exc:
                self._leave(name, f"cannot be looked at: {exc.strerror}.")

    def _take(self, folder: _OpenFolder, entry: os.DirEntry[str], name: str) -> _OpenFolder | None:
        path = Path(os.path.realpath(entry.path)) if entry.is_symlink() else Path(entry.path)
        status = path.stat(follow_symlinks=False)
        if stat.S_ISREG(status.st_mode):
            self.files.append(LocalFile(path, name, Stamp.of(status)))
            return None
        if not stat.S_ISDIR(status.st_mode):
            self._leave(name, "is neither a file nor a folder.")
            return None
        identity = status.st_dev, status.st_ino
        if identity not in folder.above:
            return _OpenFolder(path, f"{name}/", folder.above | {identity})
        if not path.is_relative_to(self.root):
            self._leave(name, "is a link to a folder that it lies in.")
        return None

    def _leads_out(self, entry: os.DirEntry[str]) -> str:
        if not entry.is_symlink():
            return ""
        try:
            target = Path(os.path.realpath(entry.path, strict=True))
        except FileNotFoundError:
            return "is a link to what does not exist."
        except OSError as exc:
            return f"is a link that cannot be followed: {exc.strerror}."
        if any(target.is_relative_to(folder) for folder in self.within):
            return ""
        return f"is a link that leads out of the folders of the run, to {name_of(target)}."

    def _leave(self, name: str, reason: str) -> None:
        said = name_of(Path(name)) + ("/" if name.endswith("/") else "")
        self.left_out.append(f"{printable(said)} {reason}")


def unfit_name(name: str, key_bytes: int) -> str:
    """Return why S3 takes no key that ends with ``name``, as the end of a sentence; empty if it does."""
    try:
        length = key_bytes + len(name.encode())
    except UnicodeEncodeError:
        return "has a name that is not UTF-8, as names in S3 must be."
    if any(unicodedata.category(sign) == "Cc" or sign in _NOT_IN_XML for sign in name):
        return "has a control character in its name, which S3 cannot list."
    if length > MAX_KEY_BYTES:
        return f"would have a key of {length:,} bytes; S3 takes at most {MAX_KEY_BYTES:,}."
    return ""


def printable(text: str) -> str:
    """Return ``text`` on one line, its middle cut if it is long, for messages."""
    said = one_line(text)
    return said if len(said) <= 300 else f"{said[:150]} … {said[-140:]}"
