"""The files of the repository, as the tests of its architecture see them."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@cache
def files() -> tuple[Path, ...]:
    """Return every file that is in git or would be added to it."""
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
    names = (name for name in listing.split("\0") if name)
    return tuple(path for name in sorted(names) if (path := ROOT / name).is_file())


def python_files() -> tuple[Path, ...]:
    return tuple(path for path in files() if path.suffix == ".py")
