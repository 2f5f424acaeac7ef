"""Ids of worksets for a shell that completes one: from a file that a process beside it keeps young.

A completion may take 0.3 s in all, and the SDK alone takes longer to be imported. So a completion that
finds the file missing or old has it made anew, waits a moment, and offers what there is; at the next one it
is there. Whatever fails, nothing is offered and nothing is said.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from daylily_daemon.domain.model import WORKSET_ID

YOUNG_S: Final = 30.0
"""Age up to which the file is taken as it is."""
LIMIT_S: Final = 0.3
"""From the start of the program; where that and its import took as long, nothing is waited for."""
LOOK_S: Final = 0.02
MADE_WITHIN_S: Final = 10.0
MOST: Final = 1000
_TOLD_BY: Final = ("DAYLILY_CONFIG", "AWS_PROFILE", "AWS_REGION", "AWS_ENDPOINT_URL")


def ids_for(context: Any, incomplete: str) -> list[str]:
    """Return the ids that begin so, but those that are given already."""
    try:
        given = set(context.params.get("ids") or ())
        found = _known(context.params.get("config"))
    except (OSError, ValueError):
        return []
    return [id for id in found if id.startswith(incomplete) and id not in given]


def _known(config: object) -> list[str]:
    environ = {**os.environ, **({"DAYLILY_CONFIG": str(config)} if config else {})}
    environ = {k: v for k, v in environ.items() if not k.startswith("_DAYLILY_DAEMON_COMPLETE")}
    file = _file(environ)
    if not _is_young(file, YOUNG_S):
        _make(file, environ)
        while not _is_young(file, YOUNG_S) and _runs_for_s() < LIMIT_S:
            time.sleep(LOOK_S)
    words = file.read_text(encoding="ascii").split() if file.exists() else []
    return [word for word in words if WORKSET_ID.fullmatch(word)]


def _runs_for_s() -> float:
    """Return for how long this process has been there: proc(5), the 22nd field of its ``stat``."""
    fields = (
        Path("/proc/self/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2]
    )
    started_s = int(fields.split()[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started_s


def _file(environ: dict[str, str]) -> Path:
    """Return the file of these settings, in a folder of this user alone."""
    cache = Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "daylily-daemon"
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    told = "\0".join(environ.get(name, "") for name in _TOLD_BY)
    return cache / f"ids-{hashlib.sha256(told.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}"


def _is_young(file: Path, most_s: float) -> bool:
    with suppress(FileNotFoundError):
        return time.time() - file.stat().st_mtime < most_s  # noqa: TID251  as the disk tells time
    return False


def _make(file: Path, environ: dict[str, str]) -> None:
    """Have the file made by a process of its own, unless one is at it."""
    mark = file.with_suffix(".asked")
    if _is_young(mark, MADE_WITHIN_S):
        return
    mark.touch(mode=0o600)
    subprocess.Popen(
        [sys.executable, "-m", "daylily_daemon.cli.ids", str(file)],
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def main(file: Path) -> None:
    """Write the ids of what ``list`` shows; leave the file as it is where that fails."""
    os.nice(10)
    command = (sys.executable, "-m", "daylily_daemon", "list", "-o", "name", "--limit", str(MOST))
    listed = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=MADE_WITHIN_S
    )
    new = file.with_suffix(f".{os.getpid()}")
    new.touch(mode=0o600)
    new.write_text(listed.stdout, encoding="ascii")
    new.replace(file)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
