"""Small objects and the look for missed drops, against moto with pages of three."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from daylily_daemon.adapters.aws import Aws, AwsOptions
from daylily_daemon.adapters.drops import S3Drops
from daylily_daemon.adapters.envelopes import Origin, submission
from daylily_daemon.adapters.s3 import S3Objects
from daylily_daemon.domain.errors import Permanent
from daylily_daemon.domain.model import Command, Submit, WorksetId
from daylily_daemon.domain.naming import trigger_id
from daylily_daemon.ports import Announced
from tests import emulators

BUCKETS = itertools.count(1)
PREFIX = "daylily_monitoring/active_worksets/"


def _small_pages(port: int) -> emulators.Launch:
    return replace(emulators.moto(port), environ={"MOTO_S3_DEFAULT_MAX_KEYS": "3"})


@pytest.fixture(scope="session")
def paging_moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with emulators.running(_small_pages, tmp_path_factory.mktemp("paging_moto")) as url:
        yield url


@dataclass
class Store:
    client: Any
    bucket: str
    calls: list[str]
    objects: S3Objects = field(init=False)

    def __post_init__(self) -> None:
        self.objects = S3Objects(self.client)

    async def drop(self, folder: str, *names: str) -> None:
        for name in names:
            await self.objects.put(self.bucket, f"{PREFIX}{folder}/{name}", b"20251016T111111")

    def drops(self, **known: Announced) -> S3Drops:
        """``known``: what the items of these worksets say."""

        async def those_known(ids: Sequence[WorksetId]) -> Mapping[WorksetId, Announced]:
            return {id: known[id] for id in ids if id in known}

        return S3Drops(self.client, Origin(bucket=self.bucket, prefix=PREFIX), those_known)


@pytest.fixture
async def store(paging_moto: str) -> AsyncIterator[Store]:
    calls: list[str] = []
    options = AwsOptions(endpoint_url=paging_moto)
    async with Aws(options, on_call=lambda _, operation, *end: calls.append(operation)) as aws:
        client = await aws.client("s3")
        bucket = f"s3-{next(BUCKETS)}"
        await client.create_bucket(
            Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "us-west-2"}
        )
        calls.clear()
        yield Store(client, bucket, calls)


OLD = Announced(sentinel="", submitted_at=None)


def drops_origin(store: Store) -> Origin:
    return Origin(bucket=store.bucket, prefix=PREFIX)


def folders(commands: Sequence[Command]) -> list[str]:
    return [command.workset_id for command in commands]


async def test_what_was_put_is_found_read_listed_and_deleted(store: Store) -> None:
    objects, bucket = store.objects, store.bucket
    for key in ("a/ü b+c", "a/2", "a/3", "a/4", "b/1"):
        await objects.put(bucket, key, b"12345")
    head = await objects.head(bucket, "a/ü b+c")
    assert head is not None
    assert (head.key, head.size, head.storage_class, head.restored) == (
        "a/ü b+c", 5, "STANDARD", False
    )  # fmt: skip
    assert head.etag == "827ccb0eea8a706c4c34a16891f84e7b"
    assert [info.key for info in await objects.list(bucket, "a/")] == [
        "a/2", "a/3", "a/4", "a/ü b+c"
    ]  # fmt: skip
    assert await objects.read(bucket, "a/2", 3) == b"123"
    assert await objects.read(bucket, "a/2", 99) == b"12345"
    await objects.delete(bucket, "a/2")
    await objects.delete(bucket, "a/2")
    assert await objects.head(bucket, "a/2") is None
    assert await objects.read(bucket, "a/2", 9) is None


async def test_a_bucket_that_does_not_exist_is_a_sentence_that_names_it(store: Store) -> None:
    with pytest.raises(
        Permanent, match=r"ListObjectsV2 of s3://no-such-bucket/x.*Create the bucket"
    ):
        await store.objects.list("no-such-bucket", "x")


async def test_an_archived_object_tells_its_class_and_whether_it_was_restored(store: Store) -> None:
    await store.client.put_object(
        Bucket=store.bucket, Key="cold", Body=b"x", StorageClass="GLACIER"
    )
    cold = await store.objects.head(store.bucket, "cold")
    assert cold is not None
    assert (cold.storage_class, cold.restored) == ("GLACIER", False)
    await store.client.restore_object(Bucket=store.bucket, Key="cold", RestoreRequest={"Days": 1})
    restored = await store.objects.head(store.bucket, "cold")
    assert restored is not None
    assert restored.restored


async def test_only_folders_with_a_trigger_and_without_an_item_are_announced(store: Store) -> None:
    for folder in ("new1", "new2", "known", "other", "zz1", "zz2", "zz3"):
        await store.drop(folder, "daylily_work.yaml")
    for folder in ("new1", "new2", "known"):
        await store.drop(folder, "daylily.ready")
    await store.objects.put(store.bucket, f"{PREFIX}daylily.ready", b"")
    await store.drop("other/sample_data", "daylily.ready")
    commands = await store.drops(known=OLD).unannounced()
    assert folders(commands) == ["new1", "new2"]
    ask = commands[0].ask
    assert isinstance(ask, Submit)
    assert (commands[0].by, ask.bucket, ask.prefix) == ("sweep", store.bucket, f"{PREFIX}new1/")


async def test_a_drop_is_announced_under_the_same_id_every_time(store: Store) -> None:
    await store.drop("new", "daylily.ready")
    drops = store.drops()
    first, second = await drops.unannounced(), await drops.unannounced()
    assert [c.id for c in first] == [c.id for c in second]


async def test_in_a_bucket_with_versions_the_id_is_that_of_the_event(store: Store) -> None:
    await store.client.put_bucket_versioning(
        Bucket=store.bucket, VersioningConfiguration={"Status": "Enabled"}
    )
    key = f"{PREFIX}new/daylily.ready"
    put = await store.client.put_object(Bucket=store.bucket, Key=key, Body=b"")
    (command,) = await store.drops().unannounced()
    assert command.id == trigger_id(store.bucket, key, put["VersionId"])


async def test_an_event_and_the_listing_ask_under_the_same_id(store: Store) -> None:
    await store.drop("new", "daylily.ready")
    drops = store.drops()
    (listed,) = await drops.unannounced()
    event = submission(drops_origin(store), "new", "id-of-an-event", "s3")
    seen = await drops.as_it_is(event)
    assert (seen.id, seen.ask) == (listed.id, listed.ask)
    assert isinstance(seen.ask, Submit)
    assert seen.ask.sentinel == seen.id
    head = await store.client.head_object(
        Bucket=store.bucket, Key=f"{seen.ask.prefix}daylily.ready"
    )
    assert seen.ask.dropped_at == head["LastModified"]


async def test_events_of_one_second_are_told_apart_where_the_bucket_has_no_versions(
    store: Store,
) -> None:
    await store.drop("new", "daylily.ready")
    drops, origin = store.drops(), drops_origin(store)
    seen = [
        await drops.as_it_is(submission(origin, "new", "e", "s3", order=order))
        for order in ("05", "05", "06")
    ]
    assert seen[0] == seen[1]
    assert seen[0].id != seen[2].id
    sentinels = {c.ask.sentinel for c in seen if isinstance(c.ask, Submit)}
    assert len(sentinels) == 1
    await store.client.put_bucket_versioning(
        Bucket=store.bucket, VersioningConfiguration={"Status": "Enabled"}
    )
    await store.drop("new", "daylily.ready")
    versioned = await drops.as_it_is(submission(origin, "new", "e", "s3", order="07"))
    assert isinstance(versioned.ask, Submit)
    assert (versioned.id, versioned.ask.order) == (versioned.ask.sentinel, "")


async def test_an_event_whose_trigger_is_gone_keeps_its_own_id(store: Store) -> None:
    event = submission(drops_origin(store), "gone", "id-of-an-event", "s3")
    assert await store.drops().as_it_is(event) == event


@pytest.mark.reported("A", "a trigger put again whose event was lost")
async def test_a_trigger_that_was_put_again_is_found_though_its_event_was_lost(
    store: Store,
) -> None:
    await store.drop("again", "daylily.ready")
    (first,) = await store.drops().unannounced()
    answered = Announced(sentinel=first.id, submitted_at=None)
    drops = store.drops(again=answered)
    assert await drops.unannounced() == []
    await store.objects.put(store.bucket, f"{PREFIX}again/daylily.ready", b"20251017T000000")
    (second,) = await drops.unannounced()
    assert second.id != first.id


async def test_what_a_version_before_answered_is_not_submitted_again(store: Store) -> None:
    await store.drop("old", "daylily.ready")
    now = datetime.now(UTC)  # noqa: TID251 - S3 stamps objects by the same clock
    before, after = now - timedelta(hours=1), now + timedelta(hours=1)
    assert await store.drops(old=Announced(sentinel="", submitted_at=after)).unannounced() == []
    again = store.drops(old=Announced(sentinel="", submitted_at=before))
    assert folders(await again.unannounced()) == ["old"]


async def test_a_look_visits_a_bounded_number_of_settled_folders_in_turn(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daylily_daemon.adapters.drops._REVISITED", 2)
    for n in range(5):
        await store.drop(f"w{n}", "daylily.ready", "daylily.complete")
    drops = store.drops()
    assert await drops.unannounced() == []
    store.calls.clear()
    for _ in range(3):
        assert await drops.unannounced() == []
    assert store.calls.count("ListObjectsV2") == 3 * (2 + 2), "two pages of folders, two folders"
    await store.objects.delete(store.bucket, f"{PREFIX}w4/daylily.complete")
    await store.objects.put(store.bucket, f"{PREFIX}w4/daylily.ready", b"again")
    found = [await drops.unannounced() for _ in range(3)]
    assert [folders(commands) for commands in found].count(["w4"]) >= 1


async def test_folders_the_old_system_has_answered_are_left_alone(store: Store) -> None:
    for name in ("lock", "in_progress", "complete", "error"):
        await store.drop(f"old-{name}", "daylily.ready", f"daylily.{name}")
    await store.drop("old-ignored", "daylily.ignore", "daylily.ready")
    drops = store.drops()
    assert await drops.unannounced() == []
    assert await drops.unannounced() == []


async def test_a_folder_whose_name_is_no_id_is_announced_to_be_parked(store: Store) -> None:
    await store.drop("blood panel #3", "daylily.ready")
    (command,) = await store.drops().unannounced()
    assert command.workset_id.startswith("blood-panel-3-")
    assert isinstance(command.ask, Submit)
    assert command.ask.problem is not None


async def test_an_empty_prefix_costs_one_call(store: Store) -> None:
    assert await store.drops().unannounced() == []
    assert store.calls == ["ListObjectsV2"]
