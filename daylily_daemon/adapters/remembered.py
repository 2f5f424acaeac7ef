"""What was found of a workset that still waits for files, so that the next look asks only for the rest."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from daylily_daemon.adapters.looking import Found
from daylily_daemon.domain.mentions import Mention
from daylily_daemon.domain.model import WorksetId
from daylily_daemon.domain.sheet import Place
from daylily_daemon.domain.workset import Workset

MAX_REMEMBERED: Final = 200_000
"""Files of all waiting worksets together."""


@dataclass(frozen=True, slots=True)
class ReadDocument:
    """A recipe or sheet as it was read."""

    etag: str
    """As the listing told it before it was read."""
    digest: str
    value: Any
    mentions: tuple[Mention, ...]


@dataclass(slots=True)
class Memory:
    """Of one submission of one workset."""

    documents: dict[str, ReadDocument] = field(default_factory=dict)
    looks: dict[Place, Found] = field(default_factory=dict)

    @property
    def files(self) -> int:
        return sum(len(look.pins) for look in self.looks.values())


_Key = tuple[WorksetId, datetime]


class Remembered:
    """The memories of the worksets that were looked at last."""

    def __init__(self, limit: int = MAX_REMEMBERED) -> None:
        self._limit = limit
        self._memories: OrderedDict[_Key, Memory] = OrderedDict()

    def of(self, ws: Workset) -> Memory:
        """Return what is remembered since the last submission; an empty memory if nothing is."""
        return self._memories.get(_key(ws), Memory())

    def keep(self, ws: Workset, memory: Memory) -> None:
        """Remember it until it is forgotten, or until others need the room."""
        self._memories[_key(ws)] = memory
        self._memories.move_to_end(_key(ws))
        while self._memories and sum(one.files for one in self._memories.values()) > self._limit:
            self._memories.popitem(last=False)

    def forget(self, ws: Workset) -> None:
        self._memories.pop(_key(ws), None)


def _key(ws: Workset) -> _Key:
    return ws.id, ws.request.submitted_at or ws.created_at
