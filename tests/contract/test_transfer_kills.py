"""A copy that is killed among parallel parts goes on without moving again what was moved."""

from __future__ import annotations

import itertools
import os
import random
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs

import anyio
import pytest
from aiohttp import web

from daylily_daemon.adapters.aws import Aws, AwsOptions
from daylily_daemon.adapters.transfer import CopyOptions, Fetch, download, upload
from tests.contract.test_transfer import Wire

MIB: Final = 1024 * 1024
PART: Final = 5 * MIB
SIZE: Final = 5 * PART + 7
PASSED: Final = 3
CONNECTIONS: Final = 2
BUCKETS = itertools.count(1)
OPTIONS: Final = CopyOptions(
    jobs=CONNECTIONS, longest_pause_s=0.01, multipart_bytes=PART, part_bytes=PART
)
COPY: Final = f"""
import sys
from pathlib import Path
import anyio
from daylily_daemon.adapters.aws import Aws, AwsOptions
from daylily_daemon.adapters.transfer import CopyOptions, Fetch, download, upload
way, url, bucket, folder = sys.argv[1:]
options = CopyOptions(jobs={CONNECTIONS}, multipart_bytes={PART}, part_bytes={PART})
async def main():
    async with Aws(AwsOptions(endpoint_url=url)) as aws:
        client = await aws.client("s3")
        if way == "up":
            await upload(client, Path(folder), f"s3://{{bucket}}/out/", options=options)
        else:
            plan = [Fetch(bucket, "reads", Path(folder) / "reads")]
            await download(client, plan, Path(folder), options=options)
anyio.run(main)
"""


@dataclass
class Gate(Wire):
    """Lets so many parts pass and holds the next ones for ever, as a network does that went away."""

    passes: int | None = None
    held: int = 0
    all_held: anyio.Event = field(default_factory=anyio.Event)
    gone: anyio.Event = field(default_factory=anyio.Event)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        is_part = "partNumber" in request.query or "Range" in request.headers
        if self.passes is None or request.method == "HEAD" or not is_part:
            return await super().handle(request)
        if self.passes:
            self.passes -= 1
            return await super().handle(request)
        self.held += 1
        if self.held == CONNECTIONS:
            self.all_held.set()
        await self.gone.wait()
        return web.Response(status=503)


@pytest.fixture
async def gate(moto_url: str) -> AsyncIterator[Gate]:
    made = Gate(moto_url)
    app = web.Application(client_max_size=64 * MIB)
    app.router.add_route("*", "/{tail:.*}", made.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    made.gone.set()
    await runner.cleanup()


@pytest.fixture
async def s3(gate: Gate) -> AsyncIterator[Any]:
    async with Aws(AwsOptions(endpoint_url=gate.url, max_attempts=1)) as aws:
        yield await aws.client("s3")


@pytest.fixture
async def bucket(s3: Any) -> str:
    name = f"transfer-kills-{next(BUCKETS)}"
    place = {"LocationConstraint": "us-west-2"}
    await s3.create_bucket(Bucket=name, CreateBucketConfiguration=place)
    return name


def content() -> bytes:
    return random.Random(1).randbytes(SIZE)


async def killed(gate: Gate, way: str, bucket: str, folder: Path) -> None:
    """Kill a copy while it waits for its next parts: those before them were answered, and kept."""
    gate.passes = PASSED
    argv = [sys.executable, "-c", COPY, way, gate.url, bucket, str(folder)]
    async with await anyio.open_process(argv, stdin=None, stdout=None, stderr=None) as process:
        with anyio.fail_after(60):
            await gate.all_held.wait()
        process.kill()
    gate.gone.set()
    gate.passes = None
    gate.seen.clear()


async def test_a_download_that_is_killed_among_its_parts_fetches_the_others_alone(
    s3: Any, bucket: str, gate: Gate, tmp_path: Path
) -> None:
    await s3.put_object(Bucket=bucket, Key="reads", Body=content())
    await killed(gate, "down", bucket, tmp_path)
    assert "reads" not in os.listdir(tmp_path)
    await download(s3, [Fetch(bucket, "reads", tmp_path / "reads")], tmp_path, options=OPTIONS)
    assert (tmp_path / "reads").read_bytes() == content()
    assert sorted(seen.range for seen in gate.of("GET")) == [
        f"bytes={3 * PART}-{4 * PART - 1}",
        f"bytes={4 * PART}-{5 * PART - 1}",
        f"bytes={5 * PART}-",
    ]


async def test_an_upload_that_is_killed_among_its_parts_sends_the_others_alone(
    s3: Any, bucket: str, gate: Gate, tmp_path: Path
) -> None:
    (tmp_path / "reads").write_bytes(content())
    await killed(gate, "up", bucket, tmp_path)
    await upload(s3, tmp_path, f"s3://{bucket}/out/", options=OPTIONS)
    sent = [parse_qs(seen.query)["partNumber"] for seen in gate.of("PUT")]
    assert sorted(sent) == [["4"], ["5"], ["6"]]
    answer = await s3.get_object(Bucket=bucket, Key="out/reads")
    assert await answer["Body"].read() == content()
