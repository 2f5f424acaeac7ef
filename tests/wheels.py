"""The wheel as it is built from what is in git, and from nothing else that lies in this checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.arch.repository import ROOT, files

LINKED: Final = "daylily_daemon/_config"
LONGEST_S: Final = 300.0


def export(target: Path) -> Path:
    """Copy the repository to the new folder ``target``, links as links; return it."""
    for path in files():
        copy = target / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy, follow_symlinks=False)
    (target / LINKED).symlink_to(os.readlink(ROOT / LINKED))
    return target


def build(source: Path, dist: Path, environ: Mapping[str, str]) -> Path:
    """Build the wheel of ``source`` into ``dist`` with the locked setuptools; return its path."""
    options = ("--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation")
    argv = (sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", str(dist), str(source))
    done = subprocess.run(
        argv, env=environ, capture_output=True, text=True, check=False, timeout=LONGEST_S
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = dist.glob("*.whl")
    return wheel
