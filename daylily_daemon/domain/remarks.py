"""What is seen of a run between two events of its life. For people: no decision but one is based on it.

That one is ``confirmed``: the start of a job was seen, and what is missing of it later is no proof.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from daylily_daemon.domain.model import JobName, Progress
from daylily_daemon.domain.run import Run

TROUBLE_CHARS: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Remarks:
    """None leaves a thing as it is known."""

    progress: Progress | None = None
    trouble: str | None = None
    """Why it does not go on; empty once it does."""
    unclear: bool | None = None
    confirmed: JobName | None = None
    limits: tuple[float, float] | None = None
    """How long its current step may take, and its grace, both in seconds: as it was started with."""

    def over(self, older: Remarks) -> Remarks:
        """Return these and of ``older`` what these say nothing of."""
        return Remarks(
            progress=older.progress if self.progress is None else self.progress,
            trouble=older.trouble if self.trouble is None else self.trouble,
            unclear=older.unclear if self.unclear is None else self.unclear,
            confirmed=older.confirmed if self.confirmed is None else self.confirmed,
            limits=older.limits if self.limits is None else self.limits,
        )

    def beyond(self, told: Remarks) -> Remarks:
        """Return what of these is not in ``told``."""
        return Remarks(
            progress=None if self.progress == told.progress else self.progress,
            trouble=None if self.trouble == told.trouble else self.trouble,
            unclear=None if self.unclear == told.unclear else self.unclear,
            confirmed=None if self.confirmed == told.confirmed else self.confirmed,
            limits=None if self.limits == told.limits else self.limits,
        )

    def on(self, run: Run) -> Run:
        """Return the run with these, texts cut."""
        if self == NOTHING:
            return run
        limited = run if self.limits is None else run.limited(*self.limits)
        return replace(
            limited,
            progress=run.progress if self.progress is None else self.progress,
            trouble=run.trouble if self.trouble is None else self.trouble[:TROUBLE_CHARS],
            unclear=run.unclear if self.unclear is None else self.unclear,
            confirmed=run.confirmed if self.confirmed is None else self.confirmed,
        )


NOTHING: Final = Remarks()
"""What a beat carries that is only a sign of life."""
