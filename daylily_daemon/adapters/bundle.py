"""A support bundle as a file, and what it is made of: the journal, this host, the program's own words."""

from __future__ import annotations

import ast
import gzip
import hashlib
import io
import json
import os
import platform
import re
import subprocess
import tarfile
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import daylily_daemon
from daylily_daemon.domain.bundle import BundlePart, Packed
from daylily_daemon.domain.errors import Permanent
from daylily_daemon.domain.vocabulary import words_of

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
UNIT: Final = "daylily-daemon.service"
JOURNAL_S: Final = 20.0
LOG_BYTES: Final = 64 * 1024 * 1024
"""Of the end of a log file that is read."""
PACKAGES: Final = ("aiobotocore", "botocore", "aiohttp", "anyio", "pydantic", "structlog", "typer")
_VERSION: Final = re.compile(r"[0-9]+(\.[0-9]+){0,3}")


def packed(parts: Sequence[BundlePart], missing: Sequence[str]) -> list[Packed]:
    """Return the files, the manifest first. ``missing``: sentences about what could not be had."""
    files = [Packed(part.name, part.about, _written(part.content)) for part in parts]
    manifest = {
        "format": FORMAT,
        "files": [
            {
                "name": file.name,
                "about": file.about,
                "bytes": len(file.data),
                "sha256": hashlib.sha256(file.data).hexdigest(),
            }
            for file in files
        ],
        "missing": list(missing),
    }
    return [Packed(MANIFEST, "What is in this bundle.", _written(manifest)), *files]


def _written(content: Any) -> bytes:
    if isinstance(content, tuple):
        return "".join(f"{json.dumps(line)}\n" for line in content).encode()
    return (json.dumps(content, indent=2) + "\n").encode()


def write_bundle(path: Path, files: Sequence[Packed]) -> None:
    """Write a new file that only its owner may read. Raises Permanent; nothing is written over."""
    try:
        fd = os.open(
            path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
    except FileExistsError:
        raise Permanent(f"{path} exists already; name another file.") from None
    except OSError as exc:
        raise Permanent(f"{path} cannot be written: {exc.strerror}. Name another file.") from exc
    try:
        with os.fdopen(fd, "wb") as file:
            os.fchmod(fd, 0o600)
            file.write(_tar(files))
    except OSError as exc:
        os.unlink(path)
        raise Permanent(f"{path} cannot be written: {exc.strerror}. Make room for it.") from exc


def _tar(files: Sequence[Packed]) -> bytes:
    """Return a compressed archive that says nothing of who made it, or when."""
    found = io.BytesIO()
    with tarfile.open(fileobj=found, mode="w") as tar:
        for file in files:
            member = tarfile.TarInfo(f"daylily-support/{file.name}")
            member.size, member.mode = len(file.data), 0o600
            tar.addfile(member, io.BytesIO(file.data))
    return gzip.compress(found.getvalue(), mtime=0)


# --- what it is made of ------------------------------------------------------------------------------


def own_words() -> frozenset[str]:
    """Return every word in the texts of this program, and the names that it is made of."""
    root = Path(daylily_daemon.__file__).parent
    return words_of(text for path in sorted(root.rglob("*.py")) for text in _texts(path))


def _texts(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def log_lines(path: Path | None, lines: int) -> list[str]:
    """Return the last lines of a file, or of the journal of the daemon's unit. Raises Permanent."""
    return _of_file(path, lines) if path else _of_the_journal(lines)


def _of_file(path: Path, lines: int) -> list[str]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_BYTES))
            found = deque(file, maxlen=lines)
    except OSError as exc:
        raise Permanent(f"The log could not be read: {exc.strerror}.") from exc
    return [line.decode(errors="replace").rstrip("\n") for line in found]


def _of_the_journal(lines: int) -> list[str]:
    argv = ("journalctl", "--quiet", "--no-pager", "-o", "cat", "-u", UNIT, "-n", str(lines))
    try:
        done = subprocess.run(argv, capture_output=True, check=False, timeout=JOURNAL_S)
    except (OSError, subprocess.TimeoutExpired):
        raise Permanent("The journal could not be asked; name a file with --log.") from None
    found = done.stdout.decode(errors="replace").splitlines()
    if not found:
        raise Permanent(f"The journal has no line of {UNIT} for this user; name a file with --log.")
    return found[-lines:]


def host_facts(folders: Mapping[str, Path]) -> dict[str, Any]:
    """Return figures of this host; of ``folders`` how much is free, under the names given."""
    return {
        "python": platform.python_version(),
        "kernel": _version_in(platform.release()),
        "architecture": platform.machine() if platform.machine() in _ARCHITECTURES else "",
        "cpus": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "packages": dict(_packages()),
        "tools": {argv[0]: _said_version(argv) for argv in _TOOLS},
        "disks": {name: _disk(folder) for name, folder in folders.items()},
    }


_ARCHITECTURES: Final = frozenset({"x86_64", "aarch64"})
_TOOLS: Final = (("tmux", "-V"), ("systemctl", "--version"))


def _packages() -> Iterator[tuple[str, str]]:
    for name in PACKAGES:
        try:
            yield name, _version_in(version(name))
        except PackageNotFoundError:
            yield name, ""


def _version_in(text: str) -> str:
    found = _VERSION.search(text)
    return found[0] if found else ""


def _said_version(argv: Sequence[str]) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, check=False, timeout=JOURNAL_S)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return _version_in(done.stdout[:200].decode(errors="replace"))


def _disk(folder: Path) -> dict[str, int] | None:
    there = next((p for p in (folder, *folder.parents) if p.exists()), None)
    if there is None:
        return None
    disk = os.statvfs(there)
    return {"free": disk.f_bavail * disk.f_frsize, "size": disk.f_blocks * disk.f_frsize}
