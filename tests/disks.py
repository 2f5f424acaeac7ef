"""Disks of the tests' own: small ones that can be filled up."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

DISK_BYTES: Final = 64 * 1024


@contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    """Yield the way to a small file system in mounts of their own, which end with who holds them."""
    place.mkdir()
    options = () if os.geteuid() == 0 else ("--map-root-user",)
    mount = f"mount -t tmpfs -o size={DISK_BYTES} tmpfs {place} && echo mounted && exec cat"
    argv = ("unshare", *options, "--mount", "--propagation", "private", "--", "sh", "-c", mount)
    with subprocess.Popen(
        ("setpriv", "--pdeathsig", "KILL", "--", *argv),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        said = holder.stdout.readline()
        if said != b"mounted\n":
            pytest.skip(f"this machine lets nobody mount a file system: {said.decode()}")
        yield Path(f"/proc/{holder.pid}/root{place}")
        holder.stdin.close()


def fill_up(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return
