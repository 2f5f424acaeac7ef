"""Downloads and uploads against moto over HTTP, through a wire that can be cut and can flip bits."""

from __future__ import annotations

import io
import itertools
import os
import random
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from daylily_daemon.adapters.aws import Aws, AwsOptions
from daylily_daemon.adapters.transfer import (
    CopyOptions,
    Downloaded,
    Fetch,
    download,
    downloads,
    safe_relative,
    upload,
    uploads,
)
from daylily_daemon.domain.errors import Permanent, Transient
from tests import emulators

MIB = 1024 * 1024
BUCKETS = itertools.count(1)
FAST = CopyOptions(longest_pause_s=0.01, multipart_bytes=6 * MIB, part_bytes=5 * MIB)


@dataclass
class Seen:
    method: str
    path: str
    query: str
    range: str
    if_match: str


@dataclass
class Wire:
    """Passes requests on to an emulator, and damages the answers to GET as it was told to."""

    upstream: str
    url: str = ""
    cuts: list[int] = field(default_factory=list)
    """The next answers break off after so many bytes."""
    flips: int = 0
    """So many of the next answers have one bit wrong."""
    stop_uploads_after_part: int | None = None
    seen: list[Seen] = field(default_factory=list)

    def of(self, method: str) -> list[Seen]:
        return [seen for seen in self.seen if seen.method == method]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        told = [request.headers.get(name, "") for name in ("Range", "If-Match")]
        seen = Seen(request.method, request.path, request.query_string, *told)
        self.seen.append(seen)
        part = request.query.get("partNumber")
        stop = self.stop_uploads_after_part
        if seen.method == "PUT" and part and stop is not None and int(part) > stop:
            await request.read()
            return web.Response(status=400, text="<Error><Code>EntityTooSmall</Code></Error>")
        return await self._forward(request)

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {k: v for k, v in request.headers.items() if k not in {"Host", "Content-Length"}}
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.request(
                request.method,
                URL(self.upstream + request.raw_path, encoded=True),
                headers=headers,
                data=io.BytesIO(body),
                skip_auto_headers={"Content-Type"},
            ) as answer,
        ):
            return await self._answer(request, answer, await answer.read())

    async def _answer(
        self, request: web.Request, answer: aiohttp.ClientResponse, content: bytes
    ) -> web.StreamResponse:
        is_object = request.method == "GET" and "list-type" not in request.query
        if is_object and self.flips:
            self.flips -= 1
            content = bytes([content[0] ^ 1]) + content[1:]
        response = web.StreamResponse(status=answer.status)
        for name, value in answer.headers.items():
            if name not in {"Connection", "Transfer-Encoding", "Server", "Date"}:
                response.headers[name] = value
        await response.prepare(request)
        cut = self.cuts.pop(0) if is_object and self.cuts else None
        await response.write(content[:cut])
        if cut is not None and request.transport:
            request.transport.close()
        await response.write_eof()
        return response


@pytest.fixture(scope="session")
def transfer_moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with emulators.running(emulators.moto, tmp_path_factory.mktemp("transfer_moto")) as url:
        yield url


@pytest.fixture
async def wire(transfer_moto: str) -> AsyncIterator[Wire]:
    made = Wire(transfer_moto)
    app = web.Application(client_max_size=64 * MIB)
    app.router.add_route("*", "/{tail:.*}", made.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


@pytest.fixture
async def s3(wire: Wire) -> AsyncIterator[Any]:
    async with Aws(AwsOptions(endpoint_url=wire.url, max_attempts=1)) as aws:
        yield await aws.client("s3")


@pytest.fixture
async def bucket(s3: Any) -> str:
    name = f"transfer-{next(BUCKETS)}"
    await s3.create_bucket(
        Bucket=name, CreateBucketConfiguration={"LocationConstraint": "us-west-2"}
    )
    return name


def content(size_bytes: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size_bytes)


async def put(s3: Any, bucket: str, key: str, body: bytes, **options: Any) -> None:
    await s3.put_object(Bucket=bucket, Key=key, Body=body, **options)


async def fetch(s3: Any, root: Path, *fetches: Fetch, **options: Any) -> Downloaded:
    return await download(s3, fetches, root, options=FAST, **options)


def hidden(root: Path) -> list[Path]:
    return sorted(root.rglob(".daylily-*.part"))


async def test_objects_arrive_whole_with_unicode_and_spaces_in_their_keys(
    s3: Any, bucket: str, tmp_path: Path
) -> None:
    keys = ["plain.txt", "with space/a b+c.txt", "größe/日本.fastq.gz", "percent%20/100%.txt"]
    for number, key in enumerate(keys):
        await put(s3, bucket, key, content(1000 + number, number))
    done = await fetch(s3, tmp_path, *(Fetch(bucket, key, tmp_path / key) for key in keys))
    assert [(tmp_path / key).read_bytes() for key in keys] == [
        content(1000 + number, number) for number in range(4)
    ]
    assert (done.files, done.size_bytes, done.unchanged, done.unverified) == (4, 4006, 0, 0)
    assert hidden(tmp_path) == []


async def test_an_empty_object_becomes_an_empty_file(s3: Any, bucket: str, tmp_path: Path) -> None:
    await put(s3, bucket, "empty", b"")
    await fetch(s3, tmp_path, Fetch(bucket, "empty", tmp_path / "empty"))
    assert (tmp_path / "empty").read_bytes() == b""


async def test_a_download_that_was_cut_goes_on_where_it_stopped(
    s3: Any, bucket: str, wire: Wire, tmp_path: Path
) -> None:
    body = content(3 * MIB)
    await put(s3, bucket, "reads.fastq.gz", body)
    wire.cuts = [2 * MIB + 100]
    await fetch(s3, tmp_path, Fetch(bucket, "reads.fastq.gz", tmp_path / "reads.fastq.gz"))
    assert (tmp_path / "reads.fastq.gz").read_bytes() == body
    ranges = [seen.range for seen in wire.of("GET")]
    assert ranges[0] == ""
    assert ranges[1].startswith("bytes=")
    assert int(ranges[1].removeprefix("bytes=").removesuffix("-")) >= 1 * MIB
    version = (await s3.head_object(Bucket=bucket, Key="reads.fastq.gz"))["ETag"]
    assert [seen.if_match for seen in wire.of("GET")] == [version, version], "of one version alone"


async def test_many_cuts_are_no_reason_to_give_up_while_bytes_still_arrive(
    s3: Any, bucket: str, wire: Wire, tmp_path: Path
) -> None:
    body = content(8 * MIB)
    await put(s3, bucket, "reads", body)
    wire.cuts = [MIB] * 7
    options = CopyOptions(tries=2, longest_pause_s=0.01)
    await download(s3, [Fetch(bucket, "reads", tmp_path / "reads")], tmp_path, options=options)
    assert (tmp_path / "reads").read_bytes() == body
    assert wire.cuts == []


async def test_what_an_ended_process_left_behind_is_continued(
    s3: Any, bucket: str, wire: Wire, tmp_path: Path
) -> None:
    body = content(2 * MIB)
    await put(s3, bucket, "reads", body)
    wire.cuts = [MIB, 0]
    wanted = Fetch(bucket, "reads", tmp_path / "reads")
    with pytest.raises(Transient):
        await download(s3, [wanted], tmp_path, options=CopyOptions(tries=1, longest_pause_s=0.01))
    assert not (tmp_path / "reads").exists()
    assert len(hidden(tmp_path)) == 1
    wire.cuts, wire.seen = [], []
    await fetch(s3, tmp_path, wanted)
    assert (tmp_path / "reads").read_bytes() == body
    assert [seen.range != "" for seen in wire.of("GET")] == [True]


async def test_bytes_of_a_replaced_object_are_not_continued(
    s3: Any, bucket: str, wire: Wire, tmp_path: Path
) -> None:
    wanted = Fetch(bucket, "reads", tmp_path / "reads")
    await put(s3, bucket, "reads", content(2 * MIB, 1))
    wire.cuts = [MIB, 0]
    with pytest.raises(Transient):
        await download(s3, [wanted], tmp_path, options=CopyOptions(tries=1, longest_pause_s=0.01))
    await put(s3, bucket, "reads", content(2 * MIB, 2))
    wire.cuts, wire.seen = [], []
    await fetch(s3, tmp_path, wanted)
    assert (tmp_path / "reads").read_bytes() == content(2 * MIB, 2)
    assert [seen.range for seen in wire.of("GET")] == [""]


async def test_a_file_has_its_name_only_once_the_disk_has_its_bytes(
    s3: Any, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dest, synced = tmp_path / "reads", list[tuple[int, bool]]()
    seen = lambda fd: synced.append((os.fstat(fd).st_size, dest.exists()))  # noqa: E731
    monkeypatch.setattr(os, "fsync", seen)
    await put(s3, bucket, "reads", content(1000))
    await fetch(s3, tmp_path, Fetch(bucket, "reads", dest))
    assert synced == [(1000, False)]


async def test_an_object_damaged_on_the_way_is_fetched_again(
    s3: Any, bucket: str, wire: Wire, tmp_path: Path
) -> None:
    await put(s3, bucket, "reads", content(10_000), ChecksumAlgorithm="SHA256")
    wire.flips = 1
    await fetch(s3, tmp_path, Fetch(bucket, "reads", tmp_path / "reads"))
    assert (tmp_path / "reads").read_bytes() == content(10_000)


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
async def test_an_object_that_always_arrives_damaged_is_refused_with_both_digests(
    s3: Any, bucket: str, wire: Wire, tmp_path: Path, algorithm: str
) -> None:
    options = {"ChecksumAlgorithm": "SHA256"} if algorithm == "sha256" else {}
    await put(s3, bucket, "reads", content(10_000), **options)
    wire.flips = 99
    with pytest.raises(Transient, match=f"did not arrive as S3 holds it: its {algorithm} is"):
        await fetch(s3, tmp_path, Fetch(bucket, "reads", tmp_path / "reads"))
    assert not (tmp_path / "reads").exists()
    assert hidden(tmp_path) == []
    assert len(wire.of("GET")) == 3


async def test_an_object_in_parts_that_arrives_damaged_is_noticed_too(
    s3: Any, bucket: str, wire: Wire, tmp_path: Path
) -> None:
    source = tmp_path / "results"
    source.mkdir()
    (source / "large").write_bytes(content(7 * MIB))
    await upload(s3, source, f"s3://{bucket}/out/", options=FAST)
    wire.flips = 99
    with pytest.raises(Transient, match="its sha256 is"):
        await fetch(s3, tmp_path, Fetch(bucket, "out/large", tmp_path / "large"))


async def test_a_complete_file_is_not_fetched_again_and_a_touched_one_is(
    s3: Any, bucket: str, wire: Wire, tmp_path: Path
) -> None:
    await put(s3, bucket, "a", b"aaaa")
    await put(s3, bucket, "b", b"bbbb")
    wanted = [Fetch(bucket, key, tmp_path / key) for key in "ab"]
    await fetch(s3, tmp_path, *wanted)
    (tmp_path / "b").write_bytes(b"xxxx")
    os.utime(tmp_path / "b", ns=(1, 1))
    wire.seen = []
    done = await fetch(s3, tmp_path, *wanted)
    assert done.unchanged == 1
    assert [seen.path for seen in wire.of("GET")] == [f"/{bucket}/b"]
    assert (tmp_path / "b").read_bytes() == b"bbbb"


async def test_a_ledger_torn_by_a_crash_costs_a_download_and_nothing_else(
    s3: Any, bucket: str, tmp_path: Path
) -> None:
    await put(s3, bucket, "a", b"aaaa")
    (tmp_path / downloads.LEDGER_FILE).write_bytes(b'["a", 4, 12\xff')
    wanted = Fetch(bucket, "a", tmp_path / "a")
    await fetch(s3, tmp_path, wanted)
    assert (await fetch(s3, tmp_path, wanted)).unchanged == 1


async def test_all_missing_objects_are_named_before_anything_is_copied(
    s3: Any, bucket: str, wire: Wire, tmp_path: Path
) -> None:
    await put(s3, bucket, "there", b"x")
    wanted = [Fetch(bucket, key, tmp_path / key) for key in ("there", "gone1", "gone2")]
    with pytest.raises(Permanent, match=r"Missing input files: .*gone1, .*gone2 cannot be found"):
        await fetch(s3, tmp_path, *wanted)
    assert wire.of("GET") == []


async def test_a_disk_that_is_too_small_is_noticed_before_anything_is_copied(
    s3: Any, bucket: str, wire: Wire, tmp_path: Path
) -> None:
    await put(s3, bucket, "big", b"x" * 2000)
    wanted = Fetch(bucket, "big", tmp_path / "big")
    small = CopyOptions(free_bytes=lambda _: 1500)
    with pytest.raises(
        Permanent, match=r"No space left on device: 2\.0 kB are needed in .*, 1\.5 kB are free"
    ):
        await download(s3, [wanted], tmp_path, options=small)
    assert wire.of("GET") == []


async def test_what_is_there_already_needs_no_space(
    s3: Any, bucket: str, wire: Wire, tmp_path: Path
) -> None:
    await put(s3, bucket, "reads", content(2 * MIB))
    wanted = Fetch(bucket, "reads", tmp_path / "reads")
    wire.cuts = [MIB, 0]
    with pytest.raises(Transient):
        await download(s3, [wanted], tmp_path, options=CopyOptions(tries=1))
    enough_for_the_rest = CopyOptions(free_bytes=lambda _: 2 * MIB - downloads.PIECE_BYTES)
    await download(s3, [wanted], tmp_path, options=enough_for_the_rest)
    await download(s3, [wanted], tmp_path, options=CopyOptions(free_bytes=lambda _: 0))


@pytest.mark.parametrize(
    "name", ["../x", "a/../x", "/etc/passwd", "a//b", "", ".", "a/./b", "a/", "x\0y", "n" * 256]
)
def test_names_that_could_leave_the_folder_are_refused(name: str) -> None:
    with pytest.raises(Permanent, match="cannot be a file here"):
        safe_relative(name)


async def test_a_destination_outside_the_folder_is_refused_without_a_call(
    s3: Any, wire: Wire, tmp_path: Path
) -> None:
    for dest in (tmp_path / "stage" / ".." / "x", tmp_path / "x", tmp_path / "stage"):
        with pytest.raises(Permanent, match="outside"):
            await fetch(s3, tmp_path / "stage", Fetch("bucket", "key", dest))
    assert wire.seen == []


async def test_two_objects_for_one_file_are_refused(s3: Any, tmp_path: Path) -> None:
    one, other = (Fetch("bucket", key, tmp_path / "same") for key in ("one", "other"))
    with pytest.raises(Permanent, match="would become one file"):
        await fetch(s3, tmp_path, one, other)


async def test_progress_only_grows_and_ends_with_everything_done(
    s3: Any, bucket: str, tmp_path: Path
) -> None:
    for key in "abc":
        await put(s3, bucket, key, content(MIB))
    told: list[tuple[int, int]] = []
    files: list[tuple[int, int]] = []
    wanted = [Fetch(bucket, key, tmp_path / key) for key in "abc"]
    options = replace(FAST, on_file=lambda *now: files.append(now))
    await download(s3, wanted, tmp_path, options=options, progress=lambda *now: told.append(now))
    assert told == sorted(told)
    assert told[-1] == (3 * MIB, 3 * MIB)
    assert files == [(0, 3), (1, 3), (2, 3), (3, 3)]


async def test_an_endpoint_nobody_listens_at_is_a_sentence_that_names_it(tmp_path: Path) -> None:
    async with Aws(AwsOptions(endpoint_url="http://127.0.0.1:1", max_attempts=1)) as aws:
        client = await aws.client("s3")
        with pytest.raises(
            Transient, match=r"The AWS endpoint http://127\.0\.0\.1:1 cannot be reached"
        ):
            await download(
                client,
                [Fetch("bucket", "key", tmp_path / "x")],
                tmp_path,
                options=CopyOptions(tries=1),
            )


async def test_a_folder_goes_up_and_comes_back_the_same(
    s3: Any, bucket: str, tmp_path: Path
) -> None:
    source = tmp_path / "results"
    files = {
        "summary.tsv": b"x\n",
        "empty": b"",
        "bäm/a b+c.bam": content(7 * MIB),
        "deep/er/x": b"1",
    }
    for name, body in files.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(body)
    done = await upload(s3, source, f"s3://{bucket}/out/results/", options=FAST)
    assert (done.files, done.unchanged, done.left_out) == (4, 0, ())
    back = tmp_path / "back"
    fetched = await fetch(
        s3, back, *(Fetch(bucket, f"out/results/{name}", back / name) for name in files)
    )
    assert {name: (back / name).read_bytes() for name in files} == files
    assert fetched.unverified == 0


async def test_what_s3_has_already_is_not_sent_again(
    s3: Any, bucket: str, wire: Wire, tmp_path: Path
) -> None:
    (tmp_path / "small").write_bytes(b"same")
    (tmp_path / "changed").write_bytes(b"one")
    (tmp_path / "large").write_bytes(content(7 * MIB))
    await upload(s3, tmp_path, f"s3://{bucket}/out/", options=FAST)
    (tmp_path / "changed").write_bytes(b"two")
    wire.seen = []
    done = await upload(s3, tmp_path, f"s3://{bucket}/out/", options=FAST)
    assert done.unchanged == 2
    assert [seen.path for seen in wire.of("PUT")] == [f"/{bucket}/out/changed"]
    assert wire.of("POST") == []


async def test_an_upload_in_parts_that_was_cut_sends_only_the_rest(
    s3: Any, bucket: str, wire: Wire, tmp_path: Path
) -> None:
    source = tmp_path / "results"
    source.mkdir()
    (source / "large.bam").write_bytes(content(16 * MIB))
    wire.stop_uploads_after_part = 2
    with pytest.raises(Permanent, match="EntityTooSmall"):
        await upload(s3, source, f"s3://{bucket}/out/", options=FAST)
    wire.stop_uploads_after_part, wire.seen = None, []
    await upload(s3, source, f"s3://{bucket}/out/", options=FAST)
    sent = [seen.query for seen in wire.of("PUT")]
    assert ["partNumber=3" in query or "partNumber=4" in query for query in sent] == [True, True]
    await fetch(s3, tmp_path, Fetch(bucket, "out/large.bam", tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == content(16 * MIB)


async def test_parts_that_an_earlier_upload_of_other_bytes_has_left_are_sent_again(
    s3: Any, bucket: str, wire: Wire, tmp_path: Path
) -> None:
    source = tmp_path / "results"
    source.mkdir()
    (source / "large.bam").write_bytes(content(16 * MIB, 1))
    wire.stop_uploads_after_part = 2
    with pytest.raises(Permanent, match="EntityTooSmall"):
        await upload(s3, source, f"s3://{bucket}/out/", options=FAST)
    changed = content(5 * MIB, 1) + content(11 * MIB, 2)
    (source / "large.bam").write_bytes(changed)
    wire.stop_uploads_after_part, wire.seen = None, []
    await upload(s3, source, f"s3://{bucket}/out/", options=FAST)
    assert len(wire.of("PUT")) == 3, "the first part is what it was"
    await fetch(s3, tmp_path, Fetch(bucket, "out/large.bam", tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == changed


async def test_links_that_lead_out_of_the_folder_are_left_out_and_named(
    s3: Any, bucket: str, tmp_path: Path
) -> None:
    source = tmp_path / "results"
    source.mkdir()
    (tmp_path / "secret").write_bytes(b"secret")
    (source / "real").write_bytes(b"real")
    (source / "alias").symlink_to("real")
    (source / "out").symlink_to(tmp_path / "secret")
    (source / "up").symlink_to(tmp_path)
    (source / "broken").symlink_to("nothing")
    done = await upload(s3, source, f"s3://{bucket}/out/", options=FAST)
    assert done.files == 2
    assert [line.split(" ", 1)[0] for line in done.left_out] == ["broken", "out", "up"]


async def test_a_bucket_that_does_not_exist_is_a_sentence(s3: Any, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x")
    with pytest.raises(Permanent, match=r"NoSuchBucket.*Create the bucket, or correct its name"):
        await upload(s3, tmp_path, "s3://no-such-bucket-here/out/", options=FAST)


def test_a_file_of_any_size_fits_into_ten_thousand_parts() -> None:
    for size_bytes in (1, 16 * MIB * uploads.MAX_PARTS, 5 * MIB * MIB):
        part_bytes = uploads._part_bytes(size_bytes, 16 * MIB)
        assert -(-size_bytes // part_bytes) <= uploads.MAX_PARTS
        assert part_bytes % MIB == 0
