"""Removing the folders of runs that are complete: which, and that nothing changed before they go."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from daylily_daemon.application.backend import Backend
from daylily_daemon.domain.model import State, WorksetId
from daylily_daemon.domain.prune import (
    OVER,
    Evidence,
    PruneVerdict,
    ResultsTally,
    RunFolder,
    RunRemains,
    why_kept,
)
from daylily_daemon.domain.run import Run
from daylily_daemon.domain.workset import Workset
from daylily_daemon.ports import LOADED

CHANGED: Final = "it was changed meanwhile"
_TO_COME: Final = frozenset({State.READY, State.IN_PROGRESS, State.RETRYING})
"""States of worksets that nobody expects to be pruned: they are no rows of a preview."""


class RunFolders(Protocol):
    """What runs have left on this host. May hang, as disks do."""

    async def worksets(self) -> Sequence[WorksetId]:
        """Return the names of all worksets that have folders here, in order."""
        ...

    async def look(self, id: WorksetId, run: Run) -> RunRemains:
        """Return what this run has left. Changes nothing, and follows no link below the folders of runs."""
        ...

    async def remove(self, folder: RunFolder) -> None:
        """Remove a folder, at once for whoever looks, if it is still the one that was looked at.

        Raises Permanent where it is not, and where not all of it could be removed.
        """
        ...

    async def clear(self) -> int:
        """Remove what removals that were cut have left; return how many folders. Raises Permanent."""
        ...


class RunResults(Protocol):
    """What of a run is in S3."""

    async def tally(self, run: Run) -> ResultsTally:
        """Return how many files its results are there. Logs that were kept are not counted."""
        ...

    async def keep_logs(self, run: Run, jobs_dir: str) -> None:
        """Store logs and exit records of the jobs in ``jobs_dir`` beside the results.

        A second time it sends only what is not there. Raises Permanent where one of them could not be.
        """
        ...


@dataclass(frozen=True, slots=True)
class Pruning:
    """What pruning works with."""

    backend: Backend
    folders: RunFolders
    results: RunResults
    older_s: float
    """For how long a workset must be complete."""

    async def preview(self) -> AsyncIterator[PruneVerdict]:
        """Yield what would become of the folders on this host, of what ended so long ago. Changes nothing.

        Worksets that are still to run, or that ended later, are left out.
        """
        ids = await self.folders.worksets()
        for first in range(0, len(ids), LOADED):
            some = ids[first : first + LOADED]
            items = {ws.id: ws for ws in await self.backend.turns.load_all(some)}
            for id in some:
                if self._is_of_interest(items.get(id)):
                    yield await self._verdict(id, items.get(id))

    def _is_of_interest(self, ws: Workset | None) -> bool:
        if ws is None:
            return True
        age_s = (self.backend.clock.now() - ws.state_since).total_seconds()
        return ws.state not in _TO_COME and age_s >= self.older_s

    async def prune(self, seen: PruneVerdict) -> PruneVerdict:
        """Remove what ``seen`` lets go if everything is still so; return what became of it.

        The logs of the jobs are stored beside the results first. Raises Permanent and Transient; what is
        removed then is removed, and the next time goes on.
        """
        before, remains = seen.evidence.ws, seen.evidence.remains
        if seen.kept or before is None or before.run is None or remains is None:
            return seen
        if remains.records:
            await self.results.keep_logs(before.run, remains.records.path)
        again = await self._verdict(before.id, await self._item(before.id))
        if again.kept:
            return again
        if _identities(again) != _identities(seen) or await self._item(before.id) != before:
            return replace(again, kept=CHANGED)
        for folder in again.folders:
            await self.folders.remove(folder)
        return replace(again, removed=True)

    async def _item(self, id: WorksetId) -> Workset | None:
        return await self.backend.worksets.load(id)

    async def _verdict(self, id: WorksetId, ws: Workset | None) -> PruneVerdict:
        """Look at the item, then at the disk, then at S3, no further than to the first no."""
        found = Evidence(id=id, ws=ws)
        if (kept := why_kept(found)) or ws is None or ws.run is None:
            return PruneVerdict(evidence=found, kept=kept)
        remains = await self.folders.look(id, ws.run)
        needed_by = await self._not_over(remains.named_by)
        found = replace(found, remains=remains, needed_by=needed_by)
        if kept := why_kept(found):
            return PruneVerdict(evidence=found, kept=kept)
        found = replace(found, in_s3=await self.results.tally(ws.run))
        return PruneVerdict(evidence=found, kept=why_kept(found))

    async def _not_over(self, ids: Sequence[WorksetId]) -> tuple[WorksetId, ...]:
        """Return those that may still read their input; one whose item cannot be read may."""
        known = {ws.id: ws for ws in await self.backend.turns.load_all(ids[:LOADED])} if ids else {}
        return tuple(id for id in ids if id not in known or known[id].state not in OVER)


def _identities(verdict: PruneVerdict) -> list[tuple[str, tuple[int, int]]]:
    return [(folder.path, folder.identity) for folder in verdict.folders]
