"""How far the clock of this host is off that of AWS, by the dates of its answers."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from statistics import median
from typing import Any, Final

from daylily_daemon.ports import Clock

ANSWERS: Final = 15
"""Of which the middle one counts: an answer that waited in a buffer says nothing."""
FEWEST: Final = 3


@dataclass(slots=True)
class ClockSkew:
    clock: Clock
    _seconds: deque[float] = field(default_factory=lambda: deque(maxlen=ANSWERS))

    def heard(self, headers: Mapping[str, Any]) -> None:
        """Take the ``Date`` of an answer, which has whole seconds; one that cannot be read is left out."""
        try:
            at = parsedate_to_datetime(str(headers.get("date", "")))
        except ValueError:
            return
        if at.utcoffset() is not None:
            self._seconds.append((self.clock.now() - at).total_seconds() - 0.5)

    def seconds(self) -> float | None:
        """Return our time minus theirs, in seconds; None until a few answers came."""
        return round(median(self._seconds), 1) if len(self._seconds) >= FEWEST else None
