"""promtool of Debian's package prometheus: the one on this machine, else unpacked into the cache.

The package is not installed, because it would start a server. ``python -m tests.promtool`` fetches it ahead
of the tests.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.emulators import CACHE, EmulatorError

HOME: Final = CACHE / "promtool"
FETCHED_WITHIN_S: Final = 600


def promtool() -> Path:
    """Return the program. Raises EmulatorError, which says what to do, if it cannot be had."""
    if installed := shutil.which("promtool"):
        return Path(installed)
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "promtool.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (HOME / "promtool").exists():
            _fetch()
    return HOME / "promtool"


def _fetch() -> None:
    download = CACHE / "promtool-download"
    shutil.rmtree(download, ignore_errors=True)
    download.mkdir()
    try:
        if not _fetched(download) and os.geteuid() == 0:
            _run("apt-get", "update", "-qq", cwd=download)
            _fetched(download)
        (package,) = download.glob("prometheus_*.deb")
        _run("dpkg-deb", "-x", str(package), "unpacked", cwd=download)
        HOME.mkdir(exist_ok=True)
        os.replace(download / "unpacked" / "usr" / "bin" / "promtool", HOME / "promtool")
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise EmulatorError(
            f"promtool, which checks the alert rules, cannot be had ({error}). Install Debian's package "
            "prometheus, or put promtool into a folder of PATH."
        ) from error
    finally:
        shutil.rmtree(download, ignore_errors=True)


def _fetched(folder: Path) -> bool:
    done = _run("apt-get", "-q", "download", "prometheus", cwd=folder, check=False)
    return done.returncode == 0


def _run(*argv: str, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(argv, cwd=cwd, check=check, capture_output=True, timeout=FETCHED_WITHIN_S)


if __name__ == "__main__":
    try:
        promtool()
    except EmulatorError as problem:
        sys.exit(str(problem))
