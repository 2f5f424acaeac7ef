"""What the processes of a job do, as seen on its machine at one moment."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from daylily_daemon.domain.sizes import readable

NAMED: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    names: tuple[str, ...]
    """Of its processes, ``bwa (4711)``; what has most memory first."""
    cpus: float
    """Processors in use, 0.0 for none."""
    memory_bytes: int
    """Resident, of all of them; what they share counts for each."""

    @property
    def text(self) -> str:
        """Return a sentence for people."""
        if not self.names:
            return "None of its processes is seen on this host."
        many = "1 process" if len(self.names) == 1 else f"{len(self.names)} processes"
        more = ", ..." if len(self.names) > NAMED else ""
        named = ", ".join(self.names[:NAMED])
        memory = readable(self.memory_bytes)
        return f"Its job has {many}, {self.cpus:.1f} CPUs in use, {memory}: {named}{more}."


class By(StrEnum):
    """In which order what runs is shown, the most of it first."""

    QUIET = "quiet"
    CPU = "cpu"
    MEMORY = "memory"
    AGE = "age"
