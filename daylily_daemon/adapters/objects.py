"""What adapters need from an object store: three reads, on S3 or in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from daylily_daemon.domain.errors import Impeded, Permanent


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    key: str
    size: int
    """Bytes."""
    etag: str
    """Without the quotes S3 puts around it."""
    last_modified: datetime
    storage_class: str = "STANDARD"
    """As S3 names it; ``head`` puts the ArchiveStatus of intelligent tiering here where there is one."""
    restored: bool = False
    """A readable copy of an archived object exists; only ``head`` knows it (the Restore header)."""


class NoBucket(Permanent):
    """There is no bucket of that name."""


class Denied(Impeded):
    """This object or bucket is denied to us; nothing else is wrong.

    About our own folder that is trouble of ours, as any Impeded. About a place that a lab named it may as
    well be the lab's mistake.
    """


class Objects(Protocol):
    """Every method may raise Transient, Denied, or Permanent where the answer is a definite no."""

    async def head(self, bucket: str, key: str) -> ObjectInfo | None:
        """Return what is known of one object, None if there is none."""
        ...

    async def read(self, bucket: str, key: str, max_bytes: int) -> bytes | None:
        """Return the content, cut after ``max_bytes``; None if there is no such object."""
        ...

    async def list(self, bucket: str, prefix: str, at_most: int = 0) -> Sequence[ObjectInfo]:
        """Return every object whose key begins with ``prefix``, in the order of keys.

        With ``at_most`` the listing ends with the page that reaches it; else it goes through all pages.
        """
        ...
