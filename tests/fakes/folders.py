"""What runs leave on a host and in S3, in memory; they pass the contract tests of the real ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from daylily_daemon.domain.errors import Permanent
from daylily_daemon.domain.model import WorksetId
from daylily_daemon.domain.prune import ResultsTally, RunFolder, RunRemains
from daylily_daemon.domain.run import Run


@dataclass(slots=True)
class MemoryFolders:
    data_dir: str
    jobs_dir: str
    scope: str
    left: dict[tuple[WorksetId, str], RunRemains] = field(default_factory=dict)
    """By workset and run."""
    cut: int = 0
    """Removals that were cut."""
    removed: list[str] = field(default_factory=list)

    async def worksets(self) -> Sequence[WorksetId]:
        return sorted({id for id, _ in self.left})

    async def look(self, id: WorksetId, run: Run) -> RunRemains:
        nothing = RunRemains(data_dir=f"{self.data_dir}/{id}/{run.id}", scope=self.scope)
        return self.left.get((id, run.id), nothing)

    async def remove(self, folder: RunFolder) -> None:
        for key, remains in self.left.items():
            if folder in remains.folders:
                self._take(key, remains, folder)
                return
        raise Permanent(f"{folder.path} is not the folder any more that was looked at; it stays.")

    def _take(self, key: tuple[WorksetId, str], remains: RunRemains, folder: RunFolder) -> None:
        is_data = folder == remains.data
        rest = replace(remains, data=None) if is_data else replace(remains, records=None)
        self.left[key] = rest
        self.removed.append(folder.path)
        if not self.left[key].folders:
            del self.left[key]

    async def clear(self) -> int:
        cut, self.cut = self.cut, 0
        return cut


@dataclass(slots=True)
class MemoryResults:
    tallies: dict[str, ResultsTally] = field(default_factory=dict)
    """By the address of the results."""
    logs: list[str] = field(default_factory=list)
    """Folders of jobs whose logs were kept."""

    async def tally(self, run: Run) -> ResultsTally:
        return self.tallies.get(run.results_uri, ResultsTally(files=0, size_bytes=0))

    async def keep_logs(self, run: Run, jobs_dir: str) -> None:
        self.logs.append(jobs_dir)
