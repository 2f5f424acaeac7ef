"""Parts of one file at once, both ways, against a store that goes wrong where it is told to."""

from __future__ import annotations

import os
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from daylily_daemon.adapters.transfer import (
    CopyOptions,
    Downloaded,
    Fetch,
    Uploaded,
    download,
    upload,
)
from daylily_daemon.adapters.transfer.checksums import READ_BYTES, Digest
from daylily_daemon.adapters.transfer.downloads import BLOCK_BYTES, LEDGER_FILE
from daylily_daemon.adapters.transfer.partial import PIECE_BYTES, Partial, Torn
from daylily_daemon.domain.errors import Permanent, Transient
from tests.disks import small_disk
from tests.fakes.parts import MemoryS3, Request, refusal

PART = 8 * PIECE_BYTES
SIZE = 6 * PART + 100
PARTS = 7
OPTIONS = CopyOptions(
    jobs=4, tries=3, longest_pause_s=0.01, multipart_bytes=2 * PART, part_bytes=PART
)
STUCK_S = 30


def content(seed: int = 1, size_bytes: int = SIZE) -> bytes:
    return random.Random(seed).randbytes(size_bytes)


def a_store(*, verifiable: bool = True) -> MemoryS3:
    unknown = set() if verifiable else {"reads"}
    return MemoryS3(objects={"reads": content()}, unknown_digest=unknown)


async def fetch(store: MemoryS3, root: Path, **options: Any) -> Downloaded:
    plan = [Fetch("lab", key, root / key) for key in store.objects]
    with anyio.fail_after(STUCK_S):
        return await download(store, plan, root, options=replace(OPTIONS, **options))


async def send(store: MemoryS3, source: Path, **options: Any) -> Uploaded:
    with anyio.fail_after(STUCK_S):
        return await upload(store, source, "s3://lab/out/", options=replace(OPTIONS, **options))


def results(tmp_path: Path) -> Path:
    source = tmp_path / "results"
    source.mkdir()
    (source / "reads").write_bytes(content())
    return source


def ranges(store: MemoryS3) -> list[str]:
    return sorted(request.get("Range", "") for request in store.of("get"))


def all_at_once(wanted: int) -> Callable[[Request], Awaitable[None]]:
    """Let nobody go on before so many are there."""
    arrived: list[Request] = []
    together = anyio.Event()

    async def wait(request: Request) -> None:
        arrived.append(request)
        if len(arrived) == wanted:
            together.set()
        await together.wait()

    return wait


def at_third(act: Callable[[], object]) -> Callable[[Request], Awaitable[None]]:
    seen: list[Request] = []

    async def look(request: Request) -> None:
        seen.append(request)
        if len(seen) == 3:
            act()

    return look


def nth(
    number: int, act: Callable[[Request, dict[str, Any]], None]
) -> Callable[[Request, dict[str, Any]], None]:
    """Meddle with that one of the answers, counted from one."""
    seen: list[Request] = []

    def change(request: Request, answer: dict[str, Any]) -> None:
        seen.append(request)
        if len(seen) == number:
            act(request, answer)

    return change


# Down


async def test_parts_of_one_file_come_at_once(tmp_path: Path) -> None:
    store = replace(a_store(), before_get=all_at_once(OPTIONS.jobs))
    await fetch(store, tmp_path)
    assert (tmp_path / "reads").read_bytes() == content()
    assert store.most_streams == OPTIONS.jobs
    assert len(store.of("get")) == PARTS
    assert {request["IfMatch"] for request in store.of("get")} == {store.etag("reads")}


@pytest.mark.reported(
    "B", "large files take every worker and leave none for their parts (aws-sdk-java#896)"
)
async def test_files_and_their_parts_share_the_connections_and_never_wait_for_each_other(
    tmp_path: Path,
) -> None:
    bodies = {f"{n}": content(n, SIZE if n % 2 else 1000) for n in range(8)}
    store = MemoryS3(objects=dict(bodies))
    await fetch(store, tmp_path, jobs=2)
    assert {key: (tmp_path / key).read_bytes() for key in bodies} == bodies
    assert store.most_streams == 2


async def test_no_more_is_in_memory_than_a_block_for_each_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = a_store()
    put = Partial.put

    def counted(self: Partial, start: int, block: bytes) -> None:
        put(self, start, block)
        store.stored += len(block)

    monkeypatch.setattr(Partial, "put", counted)
    await fetch(store, tmp_path)
    assert store.stored == SIZE
    assert BLOCK_BYTES <= store.most_held <= OPTIONS.jobs * BLOCK_BYTES


@pytest.mark.parametrize("conditional", [True, False])
@pytest.mark.reported("D", "parts of two versions in one file (s3transfer#86, ch-backup#332)")
async def test_an_object_that_is_replaced_between_two_parts_comes_whole_as_it_is_then(
    tmp_path: Path, conditional: bool
) -> None:
    store = replace(a_store(verifiable=False), conditional=conditional)

    store.before_get = at_third(lambda: store.objects.update(reads=content(2)))
    await fetch(store, tmp_path, jobs=1)
    assert (tmp_path / "reads").read_bytes() == content(2)


async def test_an_approved_object_that_is_replaced_between_two_parts_is_refused(
    tmp_path: Path,
) -> None:
    store = a_store()

    store.before_get = at_third(lambda: store.objects.update(reads=content(2)))
    plan = [Fetch("lab", "reads", tmp_path / "reads")]
    with pytest.raises(Permanent, match="changed after it was checked"):
        await download(store, plan, tmp_path, options=OPTIONS, approve=lambda _: None)
    assert not (tmp_path / "reads").exists()


async def test_an_object_that_is_removed_between_two_parts_is_named(tmp_path: Path) -> None:
    store = a_store()

    store.before_get = at_third(store.objects.clear)
    with pytest.raises(Permanent, match="was removed while it was being copied"):
        await fetch(store, tmp_path)


@pytest.mark.reported(
    "D", "the whole file in answer to a range is taken for that range (gopeed#1458, rustup#4710)"
)
async def test_a_whole_object_in_place_of_a_range_is_not_taken(tmp_path: Path) -> None:
    def whole(_: Request, answer: dict[str, Any]) -> None:
        answer["Body"].content = content()
        answer["ContentLength"] = SIZE
        del answer["ContentRange"]

    store = replace(a_store(verifiable=False), change_answer=nth(2, whole))
    await fetch(store, tmp_path)
    assert (tmp_path / "reads").read_bytes() == content()
    store = replace(a_store(verifiable=False), change_answer=whole)
    with pytest.raises(Transient, match="did not answer with the bytes asked for"):
        await fetch(store, tmp_path / "again")
    assert not (tmp_path / "again" / "reads").exists()


async def test_a_whole_object_of_another_length_than_it_had_is_not_taken(tmp_path: Path) -> None:
    def longer(_: Request, answer: dict[str, Any]) -> None:
        answer["Body"].content += b"x"
        answer["ContentLength"] += 1

    store = replace(a_store(verifiable=False), change_answer=longer)
    with pytest.raises(Transient, match="did not answer with the bytes asked for"):
        await fetch(store, tmp_path, part_bytes=2 * SIZE)


@pytest.mark.reported("D", "a range that begins elsewhere than asked is taken (httrack#198)")
async def test_another_range_of_the_same_length_is_not_taken(tmp_path: Path) -> None:
    def shifted(_: Request, answer: dict[str, Any]) -> None:
        answer["Body"].content = content()[:PART]
        answer["ContentRange"] = f"bytes 0-{PART - 1}/{SIZE}"

    store = replace(a_store(verifiable=False), change_answer=nth(2, shifted))
    await fetch(store, tmp_path)
    assert (tmp_path / "reads").read_bytes() == content()
    assert len(store.of("get")) == PARTS + 1


@pytest.mark.reported(
    "D", "a part that ends early leaves zeros in the file (unstructured-ingest#732)"
)
@pytest.mark.reported("D", "a retry goes on one byte off (s3fs#743)")
async def test_a_part_that_ends_early_goes_on_where_it_ended(tmp_path: Path) -> None:
    def short(_: Request, answer: dict[str, Any]) -> None:
        answer["Body"].cut_after = 2 * PIECE_BYTES + 5

    store = replace(a_store(verifiable=False), change_answer=nth(2, short))
    await fetch(store, tmp_path, jobs=1)
    assert (tmp_path / "reads").read_bytes() == content()
    assert f"bytes={PART + 2 * PIECE_BYTES}-{2 * PART - 1}" in ranges(store)
    assert len(store.of("get")) == PARTS + 1


async def test_one_bit_wrong_in_one_part_is_noticed_and_all_comes_again(tmp_path: Path) -> None:
    def flipped(_: Request, answer: dict[str, Any]) -> None:
        body = answer["Body"]
        body.content = bytes([body.content[0] ^ 1]) + body.content[1:]

    store = replace(a_store(), change_answer=nth(3, flipped))
    await fetch(store, tmp_path)
    assert (tmp_path / "reads").read_bytes() == content()
    assert len(store.of("get")) == 2 * PARTS


def size_of(path: Path) -> int:
    return path.stat().st_size


def the_part_in(root: Path) -> Path:
    (part,) = (path for path in root.iterdir() if path.name.endswith((".part", "reads")))
    assert part.name.startswith(".daylily-")
    return part


async def interrupted(store: MemoryS3, root: Path) -> Path:
    """Leave a file of which parts 1, 2 and 4 are there; return where it is."""

    async def third_fails(request: Request) -> None:
        start = int(str(request["Range"]).removeprefix("bytes=").partition("-")[0])
        if start // PART == 2:
            while len(store.of("get")) < 4:
                await anyio.lowlevel.checkpoint()
            raise refusal("SlowDown", "GetObject", 503)

    store.before_get = third_fails
    with pytest.raises(Transient):
        await fetch(store, root, jobs=2, tries=1)
    store.before_get = MemoryS3().before_get
    store.requests.clear()
    store.handed_out = 0
    return the_part_in(root)


@pytest.mark.reported("D", "a file with gaps has the right size and counts as done (rclone#6206)")
async def test_a_copy_with_a_gap_fetches_what_it_lacks_and_nothing_else(tmp_path: Path) -> None:
    store = a_store(verifiable=False)
    part = await interrupted(store, tmp_path)
    assert size_of(part) == 4 * PART
    await fetch(store, tmp_path)
    assert (tmp_path / "reads").read_bytes() == content()
    assert store.handed_out == SIZE - 3 * PART
    assert f"bytes={2 * PART}-{3 * PART - 1}" in ranges(store)
    assert sorted(os.listdir(tmp_path)) == [LEDGER_FILE, "reads"]


def damage(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(bytes([content()[at] ^ 255]))


def overwrite(path: Path, body: bytes | None) -> None:
    path.unlink()
    if body is not None:
        path.write_bytes(body)


@pytest.mark.parametrize("at", [0, PART + 3 * PIECE_BYTES, 4 * PART - 1])
async def test_a_piece_that_the_disk_lost_is_noticed_and_comes_again(
    tmp_path: Path, at: int
) -> None:
    store = a_store(verifiable=False)
    part = await interrupted(store, tmp_path)
    damage(part, at)
    await fetch(store, tmp_path)
    assert (tmp_path / "reads").read_bytes() == content()
    assert store.handed_out == SIZE - 3 * PART + PIECE_BYTES


@pytest.mark.parametrize("marks", [b"", b"\xff" * 9, None])
async def test_without_marks_that_can_be_read_nothing_of_a_partial_file_counts(
    tmp_path: Path, marks: bytes | None
) -> None:
    store = a_store(verifiable=False)
    part = await interrupted(store, tmp_path)
    overwrite(part.with_suffix(".pieces"), marks)
    await fetch(store, tmp_path)
    assert (tmp_path / "reads").read_bytes() == content()
    assert store.handed_out == SIZE


async def test_a_partial_file_that_lost_its_end_is_filled_again(tmp_path: Path) -> None:
    store = a_store(verifiable=False)
    os.truncate(await interrupted(store, tmp_path), PIECE_BYTES)
    await fetch(store, tmp_path)
    assert (tmp_path / "reads").read_bytes() == content()
    assert store.handed_out == SIZE - PIECE_BYTES


def test_a_file_with_a_gap_is_never_finished(tmp_path: Path) -> None:
    partial = Partial(tmp_path / "x.part", 2 * PIECE_BYTES, Digest("md5"))
    partial.put(PIECE_BYTES, content(1, PIECE_BYTES))
    with pytest.raises(Torn):
        partial.finish()
    partial.close()


async def test_a_file_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync
    synced: list[tuple[int, bool]] = []

    def noted(fd: int) -> None:
        fsync(fd)
        synced.append((os.fstat(fd).st_size, (tmp_path / "reads").exists()))

    monkeypatch.setattr(os, "fsync", noted)
    await fetch(a_store(), tmp_path)
    assert synced == [(SIZE, False)]


async def test_a_disk_that_fills_up_meanwhile_is_a_sentence_and_ends_all_parts(
    tmp_path: Path,
) -> None:
    store = a_store()
    with small_disk(tmp_path / "disk") as disk:
        with pytest.raises(Permanent, match=r"No space left on device\. Check space"):
            await fetch(store, disk, free_bytes=lambda _: SIZE)
        assert not (disk / "reads").exists()
    assert store.streams == 0


async def test_progress_over_a_copy_that_goes_on_begins_with_what_is_there(tmp_path: Path) -> None:
    store = a_store()
    await interrupted(store, tmp_path)
    told: list[int] = []
    plan = [Fetch("lab", "reads", tmp_path / "reads")]
    await download(
        store, plan, tmp_path, options=OPTIONS, progress=lambda done, _: told.append(done)
    )
    assert told[0] == 3 * PART
    assert told == sorted(told)
    assert told[-1] == SIZE


# Up


async def test_parts_of_one_file_go_at_once(tmp_path: Path) -> None:
    store = replace(MemoryS3(), before_part=all_at_once(OPTIONS.jobs))
    await send(store, results(tmp_path))
    assert store.objects["out/reads"] == content()
    assert store.most_sending == OPTIONS.jobs
    assert len(store.of("part")) == PARTS


async def test_files_that_go_up_and_their_parts_share_the_connections(tmp_path: Path) -> None:
    source = results(tmp_path)
    for name in "abc":
        (source / name).write_bytes(content(2))
        (source / f"small-{name}").write_bytes(b"x")
    store = MemoryS3()
    await send(store, source, jobs=2)
    assert len(store.objects) == 7
    assert store.most_sending == 2


async def test_what_is_sent_is_read_from_the_disk_and_never_held(tmp_path: Path) -> None:
    store = MemoryS3()
    await send(store, results(tmp_path))
    assert 0 < store.most_read_bytes <= READ_BYTES < PART


@pytest.mark.reported("B", "parts are named in the order in which they ended (s3-stream-upload#33)")
async def test_parts_that_end_in_another_order_are_named_in_theirs(tmp_path: Path) -> None:
    last = anyio.Event()
    store = MemoryS3()

    async def first_waits(request: Request) -> None:
        if request["PartNumber"] == PARTS:
            last.set()
        if request["PartNumber"] == 1:
            await last.wait()

    store.before_part = first_waits
    await send(store, results(tmp_path))
    assert store.objects["out/reads"] == content()


async def test_after_a_part_that_is_refused_no_other_is_begun_and_those_under_way_end(
    tmp_path: Path,
) -> None:
    store = MemoryS3()
    refused = anyio.Event()

    async def second_is_refused(request: Request) -> None:
        if request["PartNumber"] == 2:
            refused.set()
            raise refusal("EntityTooSmall", "UploadPart", 400)
        await refused.wait()
        await anyio.lowlevel.checkpoint()

    store.before_part = second_is_refused
    with pytest.raises(Permanent, match="EntityTooSmall"):
        await send(store, results(tmp_path), jobs=2)
    (unfinished,) = store.uploads.values()
    assert set(unfinished.parts) == {1}
    assert len(store.of("part")) == 2


def shorten(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


async def test_a_file_that_shrinks_between_two_parts_is_left_out(tmp_path: Path) -> None:
    source = results(tmp_path)
    store = MemoryS3()

    async def shrinks(request: Request) -> None:
        if request["PartNumber"] > 1:
            shorten(source / "reads")

    store.before_part = shrinks
    done = await send(store, source, jobs=1)
    assert done.left_out == ("reads is still being written.",)
    assert "out/reads" not in store.objects


async def test_a_part_that_the_disk_does_not_give_leaves_its_file_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = results(tmp_path)
    (source / "other").write_bytes(b"x")
    pread = os.pread

    def broken(fd: int, length: int, offset: int) -> bytes:
        if offset >= 2 * PART:
            raise OSError(5, "Input/output error")
        return pread(fd, length, offset)

    monkeypatch.setattr(os, "pread", broken)
    store = MemoryS3()
    done = await send(store, source)
    assert done.left_out == ("reads cannot be read: Input/output error.",)
    assert store.objects["out/other"] == b"x"
