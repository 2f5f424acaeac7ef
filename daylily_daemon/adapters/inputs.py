"""Looks at what a lab dropped, before anything of it runs.

One listing of the workset's prefix answers most questions; recipe and sheet are read; input files elsewhere
cost one HEAD each, or one look at the local file system. What is not there may still be on its way
(``Missing``); what is there and cannot be used never will be (``Refused``).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from anyio import CapacityLimiter, create_task_group
from anyio.to_thread import run_sync

from daylily_daemon.adapters.objects import ObjectInfo, Objects
from daylily_daemon.domain.document import MAX_BYTES, shown
from daylily_daemon.domain.errors import Permanent, Transient
from daylily_daemon.domain.model import (
    Accepted,
    Category,
    Inspection,
    Missing,
    Plan,
    Problem,
    Refused,
    Workset,
)
from daylily_daemon.domain.pipeline import Pipeline
from daylily_daemon.domain.recipe import Recipe, read_recipe
from daylily_daemon.domain.sheet import (
    MAX_SHEET_BYTES,
    RECIPE_FILE,
    SHEET_FILE,
    LocalPlace,
    Place,
    S3Place,
    Sheet,
    capped,
    place_of,
    read_sheet,
    sheet_from_samples,
)

AT_ONCE: Final = 32
"""Questions about input files that are open at the same time."""
LOCAL_AT_ONCE: Final = 4
"""Threads that look at local files; a file system that hangs holds up no more than these."""

_ARCHIVED: Final = frozenset(
    {"GLACIER", "DEEP_ARCHIVE", "ARCHIVE_ACCESS", "DEEP_ARCHIVE_ACCESS"}
)
"""Storage classes that cannot be read before a restore; GLACIER_IR can."""
_ABSENT: Final = frozenset({errno.ENOENT, errno.ENOTDIR})
_UNUSABLE: Final = frozenset({errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP})
_AGAIN: Final = "then put daylily.ready again."

T = TypeVar("T")
Listing = Mapping[str, ObjectInfo]


@dataclass(frozen=True, slots=True)
class _Found:
    size_bytes: int
    archived: bool = False


@dataclass(frozen=True, slots=True)
class _Denied:
    """It may be there, but cannot be looked at."""

    reason: str


_Look = _Found | _Denied | None


class _Stop(Exception):  # noqa: N818  (an answer, carried past the steps that follow)
    def __init__(self, inspection: Missing | Refused) -> None:
        super().__init__()
        self.inspection = inspection
