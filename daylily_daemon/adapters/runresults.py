"""The results of a run in S3, counted, and the logs of its jobs beside them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from anyio import to_thread

from daylily_daemon.adapters.exporting import MARK
from daylily_daemon.adapters.remaining import kept_files
from daylily_daemon.adapters.s3 import S3Objects
from daylily_daemon.adapters.transfer import LocalFile, local_files, split_uri, upload_files
from daylily_daemon.adapters.transfer.collecting import Stamp
from daylily_daemon.domain.errors import Permanent
from daylily_daemon.domain.prune import LOGS, ResultsTally, logs_uri
from daylily_daemon.domain.run import Run


@dataclass(frozen=True, slots=True)
class S3Results:
    """``RunResults`` in S3. Methods raise Transient, Denied and Permanent."""

    client: Any

    async def tally(self, run: Run) -> ResultsTally:
        """Leaves out marks, logs, and the folders below that hold the results of others."""
        bucket, prefix = split_uri(run.results_uri)
        listed = await S3Objects(self.client).list(bucket, prefix)
        sizes = {info.key.removeprefix(prefix): info.size for info in listed}
        others = tuple(name.removesuffix(MARK) for name in sizes if name.endswith(f"/{MARK}"))
        ours = {
            name: size
            for name, size in sizes.items()
            if name != MARK and not name.startswith((LOGS, *others))
        }
        return ResultsTally(files=len(ours), size_bytes=sum(ours.values()))

    async def keep_logs(self, run: Run, jobs_dir: str) -> None:
        with local_files(f"Reading {jobs_dir}"):
            files = await to_thread.run_sync(_files, jobs_dir, abandon_on_cancel=True)
        sent = await upload_files(self.client, files, logs_uri(run))
        if problems := (*sent.left_out, *(f"{name} is gone." for name in sent.gone)):
            raise Permanent(
                f"The logs of the jobs in {jobs_dir} could not all be stored: {' '.join(problems[:5])} "
                "Nothing was removed."
            )


def _files(jobs_dir: str) -> list[LocalFile]:
    found = []
    for path, name in kept_files(jobs_dir):
        status = os.lstat(path)
        found.append(LocalFile(path=path, name=name, stamp=Stamp.of(status)))
    return found
