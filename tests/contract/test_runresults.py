"""Results in S3 are counted as they were exported, and the logs of jobs are stored beside them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from daylily_daemon.adapters.aws import Aws, AwsOptions
from daylily_daemon.adapters.exporting import MARK, Target, export
from daylily_daemon.adapters.runresults import S3Results
from daylily_daemon.adapters.transfer import CopyOptions
from daylily_daemon.domain.errors import Permanent
from daylily_daemon.domain.prune import LOGS, ResultsTally, logs_uri
from daylily_daemon.domain.run import Run
from tests.contract.stores import url_of, wanted
from tests.fakes.folders import MemoryResults
from tests.made import a_run

URI = "s3://{bucket}/shared/results/"


@dataclass
class Bench:
    s3: Any
    bucket: str
    folder: Path

    @property
    def run(self) -> Run:
        return a_run(results_uri=URI.format(bucket=self.bucket))

    def write(self, *names: str, below: str = "results") -> Path:
        for name in names:
            path = self.folder / below / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"0123456789")
        return self.folder / below

    async def export(self, source: Path, workset: str) -> dict[str, Any]:
        target = Target(uri=self.run.results_uri, workset_uri=f"s3://{self.bucket}/w/{workset}/")
        return (await export(self.s3, source, target, options=CopyOptions())).report()

    async def keys(self, prefix: str) -> set[str]:
        found = await self.s3.list_objects_v2(Bucket=self.bucket, Prefix=prefix)
        return {entry["Key"].removeprefix(prefix) for entry in found.get("Contents", ())}


@pytest_asyncio.fixture(params=("moto", "ministack"))
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    bucket = wanted().bucket
    async with Aws(AwsOptions(endpoint_url=str(url_of(request.param, request)))) as aws:
        s3 = await aws.client("s3")
        where = {"LocationConstraint": "us-west-2"}
        await s3.create_bucket(Bucket=bucket, CreateBucketConfiguration=where)
        yield Bench(s3, bucket, tmp_path)


async def test_what_was_exported_is_counted_without_marks_logs_and_results_of_others(
    bench: Bench,
) -> None:
    results = S3Results(bench.s3)
    assert await results.tally(bench.run) == ResultsTally(files=0, size_bytes=0)
    mine = await bench.export(bench.write("a.bam", "deep/b.vcf"), "w1")
    assert (mine["files"], mine["bytes"]) == (2, 20)
    theirs = await bench.export(bench.write("c.bam", below="others"), "w2")
    assert theirs["results_s3_uri"] == f"{bench.run.results_uri}w2/"
    await results.keep_logs(bench.run, str(bench.write("1-run/log", below="jobs")))
    assert MARK in await bench.keys("shared/results/")
    assert await results.tally(bench.run) == ResultsTally(files=2, size_bytes=20)
    await bench.s3.delete_object(Bucket=bench.bucket, Key="shared/results/a.bam")
    assert await results.tally(bench.run) == ResultsTally(files=1, size_bytes=10)


async def test_logs_and_exit_records_of_all_jobs_are_stored_once(bench: Bench) -> None:
    jobs = bench.write(
        *("1-stage/log", "1-stage/exit.json", "1-run/log", "1-run/log.1", "2-run/log"),
        *("1-run/token", "1-run/spec.json"),
        below="jobs",
    )
    results = S3Results(bench.s3)
    for _ in range(2):
        await results.keep_logs(bench.run, str(jobs))
    assert logs_uri(bench.run) == f"{bench.run.results_uri}{LOGS}r1/"
    assert await bench.keys(f"shared/results/{LOGS}r1/") == {
        *("1-stage/log", "1-stage/exit.json", "1-run/log", "1-run/log.1", "2-run/log"),
    }


async def test_a_log_that_cannot_be_stored_is_a_sentence(bench: Bench) -> None:
    jobs = bench.write("1-run/exit.json", below="jobs")
    (jobs / "1-run" / "log").symlink_to("/etc/passwd")
    with pytest.raises(
        Permanent, match=r"could not all be stored: .*1-run/log.*Nothing was removed"
    ):
        await S3Results(bench.s3).keep_logs(bench.run, str(jobs))
    assert await bench.keys(f"shared/results/{LOGS}r1/") == {"1-run/exit.json"}


async def test_a_bucket_that_is_gone_is_no_empty_folder(bench: Bench) -> None:
    gone = a_run(results_uri=f"s3://{bench.bucket}-gone/shared/results/")
    with pytest.raises(Permanent, match=r"NoSuchBucket|bucket"):
        await S3Results(bench.s3).tally(gone)


async def test_the_memory_counts_as_it_was_told() -> None:
    memory = MemoryResults({"s3://b/r/": ResultsTally(files=1, size_bytes=2)})
    assert (await memory.tally(a_run(results_uri="s3://b/r/"))).files == 1
    assert await memory.tally(a_run(results_uri="s3://b/q/")) == ResultsTally(files=0, size_bytes=0)
    await memory.keep_logs(a_run(), "/j")
    assert memory.logs == ["/j"]
