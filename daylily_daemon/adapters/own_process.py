"""What the daemon makes of its own process before it does anything else.

Signals wait from the first moment on until somebody obeys them: one that came between the start and the
handlers would end the process (SIGHUP), or end it without a word (SIGTERM).

Secrets do not stay in the environment. What a process was started with is in ``/proc/PID/environ`` for every
process of the same user, the daemon's own jobs too, and deleting a variable changes nothing there. So the
program starts itself again without them, under the same pid, and finds them in a file in memory that it
inherits, reads once and closes. That cannot be read by others either: the process is not dumpable, so that
its files in ``/proc`` belong to root, and nobody but root may trace it or read its memory. What it starts is
as dumpable as ever.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Final, NoReturn

OBEYED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
MOST_FILES: Final = 65_536
"""As many as thousands of runs need. Not more: there are programs, jobs too, that close each possible one."""

_HANDED_OVER: Final = "DAYLILY_SECRETS_FD"
_MEMORY: Final = "daylily-secrets"
_PR_SET_DUMPABLE: Final = 4
_M_ARENA_MAX: Final = -8
"""Each thread takes a heap of its own otherwise, and what is free in one is of no use to the others."""


def names_in_utf8() -> None:
    """Begin again in Python's UTF-8 mode where the locale has another encoding.

    Names in S3 are UTF-8, and so are those on the disks of a cluster, whatever LC_ALL says: read as
    Latin-1 they would get other keys. If the program cannot be executed again, it goes on as it is.
    """
    if sys.flags.utf8_mode or sys.getfilesystemencoding() == "utf-8":
        return
    with suppress(OSError):
        argv = [sys.executable, "-X", "utf8", *sys.orig_argv[1:]]
        os.execve(sys.executable, argv, os.environ)


def first_of_all() -> None:
    """Let signals wait, keep others of this user out of this process, and its threads on one heap."""
    signal.pthread_sigmask(signal.SIG_BLOCK, OBEYED)
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    with suppress(AttributeError):  # of glibc alone
        libc.mallopt(_M_ARENA_MAX, 1)


def obey_again() -> None:
    """Let signals through that have waited; call it once handlers are there."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, OBEYED)


def raise_open_files() -> int:
    """Raise the soft limit of open files to what is good for it; return what it is now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = open_files_wanted(soft, hard)
    if wanted != soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def open_files_wanted(soft: int, hard: int) -> int:
    """Return the soft limit to have under these: no less than before, and else up to ``MOST_FILES``."""
    if soft == resource.RLIM_INFINITY:
        return soft
    most = MOST_FILES if hard == resource.RLIM_INFINITY else min(MOST_FILES, hard)
    return max(soft, most)


def secrets_out_of(names: Iterable[str]) -> dict[str, str]:
    """Return the values of the secret variables ``names``; they are in no environment afterwards.

    Does not return the first time if there are any: the program begins again without them.
    """
    handed_over = _taken_over()
    found = {name: os.environ[name] for name in names if os.environ.get(name)}
    if not found:
        return handed_over
    if not handed_over:
        with suppress(OSError):  # it may not be executed again: then at least no job inherits them
            _begin_again(found)
    for name in found:
        del os.environ[name]
    return found | handed_over


def _begin_again(secrets: dict[str, str]) -> NoReturn:
    fd = os.memfd_create(_MEMORY, 0)  # inherited, as no other descriptor is
    with os.fdopen(os.dup(fd), "wb") as file:
        file.write(json.dumps(secrets).encode())
    kept = {name: value for name, value in os.environ.items() if name not in secrets}
    argv = [sys.executable, *sys.orig_argv[1:]]
    os.execve(sys.executable, argv, kept | {_HANDED_OVER: str(fd)})


def _taken_over() -> dict[str, str]:
    """Read what this program handed over to itself, and close it."""
    fd = os.environ.pop(_HANDED_OVER, "")
    if not fd.isascii() or not fd.isdecimal() or not _is_ours(int(fd)):
        return {}
    with os.fdopen(int(fd), "rb") as file:
        file.seek(0)
        found: dict[str, str] = json.loads(file.read())
    return found


def _is_ours(fd: int) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{fd}").startswith(f"/memfd:{_MEMORY}")
    except OSError:
        return False
