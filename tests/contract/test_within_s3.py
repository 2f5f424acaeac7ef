"""A drop copied by S3 itself, against two emulators: whole, unmixed, and gone on with where it was cut."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Mapping
from itertools import count
from typing import Any

import pytest

from daylily_daemon.adapters.aws import Aws, AwsOptions
from daylily_daemon.adapters.transfer.copying import MIB, CopyOptions
from daylily_daemon.adapters.transfer.within_s3 import (
    NOTE,
    CopyLimits,
    PlaceTaken,
    copy_drop,
    drop_at,
)
from daylily_daemon.domain.errors import Permanent
from daylily_daemon.domain.sheet import S3Place

NUMBERS = count(1)
FAST = CopyOptions(longest_pause_s=0.01, tries=2)
SMALL = CopyLimits(largest_bytes=6 * MIB, part_bytes=5 * MIB)
DROP = {
    "daylily_work.yaml": b"recipe",
    "daylily_info.yaml": b"info",
    "stage_samples.tsv": b"sheet",
    "fastq/a b+é.fastq.gz": b"reads",
    "fastq/daylily.ready": b"an input of that name",
}
OTHER = {
    "daylily.ready": b"",
    "daylily.complete": b"20260304",
    "results/report.html": b"old",
    "results/deep/daylily_work.yaml": b"old",
}


@pytest.fixture(params=["moto", "ministack"])
async def s3(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    url = request.getfixturevalue(f"{request.param}_url")
    async with Aws(AwsOptions(endpoint_url=url, max_attempts=1)) as aws:
        yield await aws.client("s3")


@pytest.fixture
async def bucket(s3: Any) -> str:
    name = f"within-{next(NUMBERS)}-{random.randbytes(3).hex()}"
    where = {"LocationConstraint": "us-west-2"}
    await s3.create_bucket(Bucket=name, CreateBucketConfiguration=where)
    return name


async def _put(s3: Any, bucket: str, prefix: str, files: Mapping[str, bytes]) -> S3Place:
    for name, body in files.items():
        await s3.put_object(Bucket=bucket, Key=prefix + name, Body=body)
    return S3Place(bucket, prefix)


async def _stored(s3: Any, place: S3Place) -> dict[str, bytes]:
    listed = await s3.list_objects_v2(Bucket=place.bucket, Prefix=place.key)
    found = {}
    for entry in listed.get("Contents", []):
        answer = await s3.get_object(Bucket=place.bucket, Key=entry["Key"])
        found[entry["Key"].removeprefix(place.key)] = await answer["Body"].read()
    return found


async def test_a_drop_is_copied_whole_without_results_and_sentinels(s3: Any, bucket: str) -> None:
    source = await _put(s3, bucket, "w/HG002/", DROP | OTHER)
    await _put(s3, bucket, "w/HG002-2x/", {"daylily_work.yaml": b"another workset"})
    target = S3Place(bucket, "w/HG002-2/")
    told: list[tuple[int, int]] = []
    await copy_drop(s3, source, target, options=FAST, progress=lambda *at: told.append(at))
    found = await _stored(s3, target)
    assert found.pop(NOTE) == f"s3://{bucket}/w/HG002/".encode()
    assert found == DROP
    assert await _stored(s3, source) == DROP | OTHER
    size = sum(map(len, DROP.values()))
    assert told[-1] == (size, size)


@pytest.mark.reported("D", "an object above 5 GB cannot be copied (rclone#2375, boto3#1715)")
async def test_a_large_object_is_copied_in_parts(s3: Any, bucket: str) -> None:
    large = random.Random(1).randbytes(11 * MIB + 3)
    source = await _put(s3, bucket, "w/a/", {**DROP, "large.bam": large})
    target = S3Place(bucket, "w/b/")
    await copy_drop(s3, source, target, options=FAST, limits=SMALL)
    assert (await _stored(s3, target))["large.bam"] == large
    left = await s3.list_multipart_uploads(Bucket=bucket)
    assert left.get("Uploads", []) == []


async def test_a_folder_with_anything_in_it_is_taken(s3: Any, bucket: str) -> None:
    source = await _put(s3, bucket, "w/a/", DROP)
    other = await _put(s3, bucket, "w/c/", DROP)
    for name, files in (("w/b1/", {"x": b"1"}), ("w/b2/", {"daylily.ready": b""})):
        target = await _put(s3, bucket, name, files)
        with pytest.raises(PlaceTaken, match="Choose another name with --as"):
            await copy_drop(s3, source, target, options=FAST)
        assert await _stored(s3, target) == files
    mine = S3Place(bucket, "w/b3/")
    await copy_drop(s3, other, mine, options=FAST)
    with pytest.raises(PlaceTaken):
        await copy_drop(s3, source, mine, options=FAST)


async def test_a_copy_that_was_cut_is_gone_on_with_and_what_is_there_is_not_copied_again(
    s3: Any, bucket: str
) -> None:
    source = await _put(s3, bucket, "w/a/", DROP)
    note = {NOTE: f"s3://{bucket}/w/a/".encode()}
    half = {"stage_samples.tsv": b"sheet", "daylily_info.yaml": b"older"}
    target = await _put(s3, bucket, "w/b/", note | half)
    before = await s3.head_object(Bucket=bucket, Key="w/b/stage_samples.tsv")
    await copy_drop(s3, source, target, options=FAST)
    assert await _stored(s3, target) == DROP | note
    after = await s3.head_object(Bucket=bucket, Key="w/b/stage_samples.tsv")
    assert after["LastModified"] == before["LastModified"]


@pytest.mark.parametrize("s3", ["ministack"], indirect=True)  # moto copies whatever lies there
async def test_what_is_replaced_while_it_is_copied_ends_the_copy(s3: Any, bucket: str) -> None:
    source = await _put(s3, bucket, "w/a/", DROP)

    class Replacing:
        """Somebody uploads the sheet anew right after the listing."""

        def __getattr__(self, name: str) -> Any:
            return getattr(s3, name)

        async def copy_object(self, **request: Any) -> Any:
            await s3.put_object(Bucket=bucket, Key="w/a/stage_samples.tsv", Body=b"another")
            return await s3.copy_object(**request)

    with pytest.raises(Permanent, match=r"stage_samples\.tsv was replaced or removed"):
        await copy_drop(Replacing(), source, S3Place(bucket, "w/b/"), options=FAST)


async def test_what_has_no_recipe_is_no_drop(s3: Any, bucket: str) -> None:
    place = await _put(s3, bucket, "w/a/", OTHER)
    with pytest.raises(Permanent, match=r"There is no daylily_work\.yaml"):
        await drop_at(s3, place)
    assert len(await drop_at(s3, await _put(s3, bucket, "w/a/", DROP))) == len(DROP)
