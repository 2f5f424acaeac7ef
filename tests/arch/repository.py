"""The files of the repository, as the tests of its architecture see them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


NOT_OURS = {".cache", ".venv", "__pycache__", "build", "dist"}
"""Folders that .gitignore names without a pattern."""


@cache
def files() -> tuple[Path, ...]:
    """Return every file that is in git or would be added to it; of an unpacked archive what came with it."""
    names = _by_git() if (ROOT / ".git").exists() else _by_looking()
    return tuple(path for name in sorted(names) if (path := ROOT / name).is_file())


def _by_git() -> list[str]:
    listing = subprocess.run(
        # The owner of a checkout may be another user (a container): reading it is harmless.
        (
            *("git", "-c", "safe.directory=*", "ls-files", "-z"),
            *("--cached", "--others", "--exclude-standard"),
        ),
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return [name for name in listing.split("\0") if name]


def _by_looking() -> Iterator[str]:
    for folder, inside, names in os.walk(ROOT):
        inside[:] = [
            n for n in inside if n not in NOT_OURS and not n.endswith(("_cache", ".egg-info"))
        ]
        yield from (os.path.relpath(os.path.join(folder, name), ROOT) for name in names)


def python_files() -> tuple[Path, ...]:
    return tuple(path for path in files() if path.suffix == ".py")
