"""Every AWS call the program makes, as stories that can be cut short at any of their calls.

A story is staged past the proxy, told through it, and judged past it again: whatever the wire did, once the
same call was answered, the world must be as if it had happened exactly once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any, Final

import pytest

from daylily_daemon.adapters.drops import S3Drops
from daylily_daemon.adapters.envelopes import READY, Origin, submission
from daylily_daemon.adapters.provision import Provisioner, Wanted
from daylily_daemon.adapters.setupsteps import Step
from daylily_daemon.adapters.transfer import CopyOptions, Fetch, download, upload
from daylily_daemon.adapters.transfer.within_s3 import CopyLimits, copy_drop
from daylily_daemon.domain.errors import AlreadyDone
from daylily_daemon.domain.listing import Query
from daylily_daemon.domain.model import Answer, CommandEffect, State, WorksetId
from daylily_daemon.domain.paths import S3Place
from daylily_daemon.domain.sheet import RECIPE_FILE
from daylily_daemon.domain.turn import turn_of
from daylily_daemon.domain.workset import Workset
from daylily_daemon.ports import Announced, Change
from tests.contract.fault_proxy import Call
from tests.contract.stores import wanted
from tests.contract.test_store import a_record, a_workset, first, then
from tests.contract.wire_queue_stories import QUEUE_STORIES
from tests.contract.wire_world import Play, Story, World, done, reading, story
from tests.made import a_lock

_COPYING: Final = CopyOptions(tries=3, longest_pause_s=0.01, multipart_bytes=1)
CONTENT: Final = b"ACGT\n" * 1000

# --- DynamoDB ------------------------------------------------------------------------------------


async def _stored(world: World, *records: int, **changes: object) -> Workset:
    ws = a_workset(world.name("ws"), **changes)
    owing = [a_record(ws, seq, ("sns", "slack")) for seq in records]
    return await world.past.worksets.commit(first(ws, *owing))


async def _alone(world: World) -> World:
    """Return the world with tables of its own where an emulator needs them.

    When moto cancels a transaction, it undoes all that others wrote meanwhile to the tables of it.
    """
    if world.kind != "moto":
        return world
    names = wanted()
    await done(Provisioner(world.past.aws, names).tables())
    through, past = world.through.with_tables(names), world.past.with_tables(names)
    return replace(world, through=through, past=past)


def _committing(world: World, change: Change, *, seqs: list[int]) -> Play:
    """The change is in the store once: version one higher, records as numbered, and nothing else."""
    version = (change.before.version if change.before else 0) + 1
    wanted_now = replace(change.after, version=version)

    async def judge(answer: Workset) -> None:
        assert answer == wanted_now
        assert await world.past.worksets.load(change.after.id) == wanted_now
        assert [r.seq for r in await world.past.trail.read(change.after.id)] == seqs
        if change.once:
            late = replace(then(wanted_now, "late", a_record(wanted_now, 99)), once=change.once)
            with pytest.raises(AlreadyDone):
                await world.past.worksets.commit(late)

    return Play(act=lambda: world.through.worksets.commit(change), judge=judge)


async def loading_a_workset(world: World) -> Play:
    ws = await _stored(world)
    return reading(lambda: world.through.worksets.load(ws.id), ws)


async def registering_a_workset(world: World) -> Play:
    return _committing(world, first(a_workset(world.name("ws"))), seqs=[])


async def a_beat(world: World) -> Play:
    ws = await _stored(world, owner="a")
    return _committing(world, then(ws, "n2", beat=1), seqs=[])


async def a_submission(world: World) -> Play:
    world = await _alone(world)
    ws = a_workset(world.name("ws"))
    return _committing(world, first(ws, a_record(ws, 1), once="drop-1"), seqs=[1])


async def a_transition_with_records(world: World) -> Play:
    world = await _alone(world)
    ws = await _stored(world, 1)
    records = (a_record(ws, 2), a_record(ws, 3))
    change = then(ws, "n2", *records, state=State.IN_PROGRESS, lock=a_lock("a"))
    return _committing(world, change, seqs=[1, 2, 3])


async def a_command_for_a_known_workset(world: World) -> Play:
    world = await _alone(world)
    ws = await _stored(world, 1)
    change = replace(then(ws, "n2", a_record(ws, 2), waiting_for="x"), once="drop-2")
    return _committing(world, change, seqs=[1, 2])


async def lining_up(world: World) -> Play:
    ws = await _stored(world, customer_id=world.name("lab"))
    turn = turn_of(ws)
    assert turn
    before = f"{turn.line}|"
    assert await world.past.turns.line_up(turn.queue, after=before, limit=1) == [turn]
    return reading(lambda: world.through.turns.line_up(turn.queue, after=before, limit=1), [turn])


async def loading_what_stands_in_line(world: World) -> Play:
    ws = await _stored(world)
    return reading(lambda: world.through.turns.load_all([ws.id, WorksetId("none")]), [ws])


async def paging_through_a_state(world: World) -> Play:
    ws = await _stored(world, state=State.CANCELED)
    query = Query(states=(State.CANCELED,), prefix=ws.id)
    found = await world.past.catalogue.page(query, limit=9)
    assert (found.worksets, found.after) == ((ws,), None)
    return reading(lambda: world.through.catalogue.page(query, limit=9), found)


async def counting_a_state(world: World) -> Play:
    await _stored(world, state=State.ARCHIVED)
    there = await world.past.catalogue.count(State.ARCHIVED)
    assert there.found >= 1
    return reading(lambda: world.through.catalogue.count(State.ARCHIVED), there)


async def asking_which_are_known(world: World) -> Play:
    ws = await _stored(world)
    asked = [ws.id, WorksetId(world.name("absent"))]
    request = ws.request
    expected = {ws.id: Announced(sentinel=request.sentinel, submitted_at=request.submitted_at)}
    return reading(lambda: world.through.worksets.announced(asked), expected)


async def reading_the_trail(world: World) -> Play:
    ws = await _stored(world, 1, 2)
    records = await world.past.trail.read(ws.id)
    assert len(records) == 2
    return reading(lambda: world.through.trail.read(ws.id), records)


async def finding_what_is_owed(world: World) -> Play:
    ws = await _stored(world, 1)

    async def owed_here() -> list[int]:
        page = await world.through.trail.owed(limit=1000)
        return [r.seq for r in page.records if r.workset_id == ws.id]

    return reading(owed_here, [1])


async def settling_a_notice(world: World) -> Play:
    ws = await _stored(world, 1)
    (record,) = await world.past.trail.read(ws.id)
    told, given_up = frozenset({"sns"}), frozenset({"slack"})
    settled = replace(record, owed=frozenset(), given_up=given_up)

    async def judge(answer: Any) -> None:
        assert answer == settled
        assert await world.past.trail.read(ws.id) == [settled]

    return Play(act=lambda: world.through.trail.settle(record, told, given_up), judge=judge)


async def taking_over_a_notice(world: World) -> Play:
    ws = await _stored(world, 1)
    (record,) = await world.past.trail.read(ws.id)
    ours = replace(record, teller="daemon-b")

    async def judge(answer: Any) -> None:
        assert answer == ours
        assert await world.past.trail.read(ws.id) == [ours]
        assert await world.past.trail.take_over(record, "daemon-c") is None

    return Play(act=lambda: world.through.trail.take_over(record, "daemon-b"), judge=judge)


# --- S3 ------------------------------------------------------------------------------------------


async def _object(world: World, name: str = "object") -> str:
    key = f"{world.name('work')}/{name}"
    await world.past.objects.put(world.bucket, key, CONTENT)
    return key


async def looking_at_an_object(world: World) -> Play:
    key = await _object(world)
    info = await world.past.objects.head(world.bucket, key)
    assert info
    return reading(lambda: world.through.objects.head(world.bucket, key), info)


async def reading_an_object(world: World) -> Play:
    key = await _object(world)
    return reading(lambda: world.through.objects.read(world.bucket, key, 9999), CONTENT)


async def listing_objects(world: World) -> Play:
    key = await _object(world)
    found = await world.past.objects.list(world.bucket, key)
    assert [info.key for info in found] == [key]
    return reading(lambda: world.through.objects.list(world.bucket, key), found)


async def writing_an_object(world: World) -> Play:
    key = f"{world.name('work')}/daylily.error"

    async def judge(_: Any) -> None:
        assert await world.past.objects.read(world.bucket, key, 9999) == CONTENT

    return Play(act=lambda: world.through.objects.put(world.bucket, key, CONTENT), judge=judge)


async def removing_an_object(world: World) -> Play:
    key = await _object(world)

    async def judge(_: Any) -> None:
        assert await world.past.objects.head(world.bucket, key) is None

    return Play(act=lambda: world.through.objects.delete(world.bucket, key), judge=judge)


async def answering_a_command(world: World) -> Play:
    ws = await _stored(world)
    said = Answer(command_id="c1", effect=CommandEffect.NONE, text="so", at=ws.created_at)

    async def judge(_: Any) -> None:
        assert await world.past.trail.answer_to(ws.id, "c1") == said

    return Play(act=lambda: world.through.trail.answer(ws.id, said), judge=judge)


async def reading_an_answer(world: World) -> Play:
    ws = await _stored(world)
    said = Answer(command_id="c1", effect=CommandEffect.APPLIED, text="so", at=ws.created_at)
    await world.past.trail.answer(ws.id, said)
    return reading(lambda: world.through.trail.answer_to(ws.id, "c1"), said)


async def asking_which_trigger_lies_there(world: World) -> Play:
    prefix = world.name("drops") + "/"
    await world.past.objects.put(world.bucket, f"{prefix}HG002/{READY}", b"")
    origin = Origin(bucket=world.bucket, prefix=prefix)
    event = submission(origin, "HG002", "id-of-an-event", "s3")
    expected = await S3Drops(world.past.s3, origin, world.past.worksets.announced).as_it_is(event)
    drops = S3Drops(world.through.s3, origin, world.through.worksets.announced)
    return reading(lambda: drops.as_it_is(event), expected)


async def finding_a_drop(world: World) -> Play:
    """Twice the same command id, whatever happened in between."""
    prefix = world.name("drops") + "/"
    await world.past.objects.put(world.bucket, f"{prefix}HG002/{READY}", b"")
    origin = Origin(bucket=world.bucket, prefix=prefix)
    expected = await S3Drops(world.past.s3, origin, world.past.worksets.announced).unannounced()
    assert [command.workset_id for command in expected] == ["HG002"]
    drops = S3Drops(world.through.s3, origin, world.through.worksets.announced)
    return reading(drops.unannounced, expected)


def _uploading(world: World, prefix: str, options: CopyOptions) -> Play:
    source = world.scratch / world.name("results")
    source.mkdir()
    (source / "file").write_bytes(CONTENT)
    uri = f"s3://{world.bucket}/{prefix}/"

    async def judge(_: Any) -> None:
        assert await world.past.objects.read(world.bucket, f"{prefix}/file", 9999) == CONTENT

    return Play(
        act=lambda: upload(world.through.s3, source, uri, options=options),
        judge=judge,
    )


async def uploading_a_file(world: World) -> Play:
    return _uploading(world, world.name("out"), replace(_COPYING, multipart_bytes=10**6))


async def uploading_in_parts(world: World) -> Play:
    return _uploading(world, world.name("out"), _COPYING)


async def continuing_an_upload(world: World) -> Play:
    prefix = world.name("out")
    await world.past.s3.create_multipart_upload(
        Bucket=world.bucket, Key=f"{prefix}/file", ChecksumAlgorithm="SHA256"
    )
    return _uploading(world, prefix, _COPYING)


async def downloading_a_file(world: World) -> Play:
    key, root = await _object(world), world.scratch / world.name("in")
    plan = [Fetch(world.bucket, key, root / "file")]

    async def judge(_: Any) -> None:
        assert (root / "file").read_bytes() == CONTENT
        assert sorted(path.name for path in root.iterdir()) == [".daylily-staged.jsonl", "file"]

    return Play(
        act=lambda: download(world.through.s3, plan, root, options=_COPYING),
        judge=judge,
    )


async def copying_a_drop(world: World) -> Play:
    return await _copying(world, CopyLimits())


async def copying_a_large_drop(world: World) -> Play:
    return await _copying(world, CopyLimits(largest_bytes=1))


async def _copying(world: World, limits: CopyLimits) -> Play:
    source, target = (f"{world.name(name)}/" for name in ("first", "second"))
    await world.past.objects.put(world.bucket, source + RECIPE_FILE, CONTENT)

    async def judge(_: Any) -> None:
        assert await world.past.objects.read(world.bucket, target + RECIPE_FILE, 10**6) == CONTENT

    places = S3Place(world.bucket, source), S3Place(world.bucket, target)
    return Play(
        act=lambda: copy_drop(world.through.s3, *places, options=_COPYING, limits=limits),
        judge=judge,
    )


# --- init ----------------------------------------------------------------------------------------


Part = Callable[[Provisioner], AsyncIterator[Step]]


def _making(world: World, names: Wanted, part: Part) -> Play:
    """Init repeated until it is answered leaves nothing to do."""

    async def judge(_: Any) -> None:
        assert [step.what async for step in part(Provisioner(world.past.aws, names))] == []

    return Play(act=lambda: done(part(Provisioner(world.through.aws, names))), judge=judge)


async def making_the_bucket(world: World) -> Play:
    return _making(world, wanted(), Provisioner.bucket)


async def making_the_tables(world: World) -> Play:
    return _making(world, wanted(), Provisioner.tables)


async def completing_an_old_table(world: World) -> Play:
    names = wanted()
    table = names.tables.worksets
    await _old_table(world.past.db, table)
    await _old_item(world.past.db, table)
    return _making(world, names, Provisioner.tables)


async def making_the_queues(world: World) -> Play:
    return _making(world, wanted(), Provisioner.queues)


async def making_the_topic(world: World) -> Play:
    return _making(world, wanted(), Provisioner.topic)


async def making_the_notification(world: World) -> Play:
    names = wanted()
    await done(Provisioner(world.past.aws, names).bucket())
    await world.past.sqs.create_queue(QueueName=names.intake_queue)
    return _making(world, names, Provisioner.notification)


async def _old_table(db: Any, name: str) -> None:
    """Make the table as the system before this one did, without any index."""
    await db.create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "workset_id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "workset_id", "KeyType": "HASH"}],
    )


async def _old_item(db: Any, table: str) -> None:
    values = {
        "workset_id": "old",
        "bucket": "lab",
        "prefix": "p/old/",
        "state": "ready",
        "priority": "urgent",
        "created_at": "2025-11-01T10:00:00Z",
        "updated_at": "2025-11-01T10:00:00Z",
    }
    await db.put_item(TableName=table, Item={name: {"S": text} for name, text in values.items()})


# --- which story is cut short at which of its calls ----------------------------------------------


STORIES: Final[tuple[Story, ...]] = (
    *QUEUE_STORIES,
    story(loading_a_workset, "dynamodb.GetItem"),
    story(registering_a_workset, "dynamodb.PutItem"),
    story(a_beat, "dynamodb.UpdateItem"),
    story(a_submission, "dynamodb.TransactWriteItems"),
    story(a_transition_with_records, "dynamodb.TransactWriteItems"),
    story(a_command_for_a_known_workset, "dynamodb.TransactWriteItems"),
    story(lining_up, "dynamodb.Query"),
    story(loading_what_stands_in_line, "dynamodb.BatchGetItem"),
    story(paging_through_a_state, "dynamodb.Query dynamodb.BatchGetItem"),
    story(counting_a_state, "dynamodb.Query"),
    story(asking_which_are_known, "dynamodb.BatchGetItem"),
    story(reading_the_trail, "dynamodb.Query"),
    story(finding_what_is_owed, "dynamodb.Query"),
    story(answering_a_command, "dynamodb.PutItem"),
    story(reading_an_answer, "dynamodb.GetItem"),
    story(asking_which_trigger_lies_there, "s3.HeadObject"),
    story(settling_a_notice, "dynamodb.UpdateItem"),
    story(taking_over_a_notice, "dynamodb.UpdateItem"),
    # What HEAD does not tell is asked by a GET, whose answer counts.
    story(looking_at_an_object, "s3.HeadObject", repeats_itself=True),
    story(reading_an_object, "s3.GetObject"),
    story(listing_objects, "s3.ListObjectsV2"),
    story(writing_an_object, "s3.PutObject"),
    story(removing_an_object, "s3.DeleteObject"),
    story(finding_a_drop, "s3.ListObjectsV2 dynamodb.BatchGetItem s3.HeadObject"),
    story(uploading_a_file, "s3.ListObjectsV2 s3.PutObject", repeats_itself=True),
    story(
        uploading_in_parts,
        "s3.ListMultipartUploads s3.CreateMultipartUpload s3.UploadPart s3.CompleteMultipartUpload",
        repeats_itself=True,
    ),
    # ministack does not tell the algorithm of an upload that was begun, so it is never continued there.
    story(
        continuing_an_upload,
        "s3.ListParts",
        repeats_itself=True,
        emulators=("moto",),
    ),
    story(downloading_a_file, "s3.HeadObject s3.GetObject", repeats_itself=True),
    story(making_the_bucket, "s3.HeadBucket s3.CreateBucket"),
    story(copying_a_drop, "s3.CopyObject", repeats_itself=True),
    story(copying_a_large_drop, "s3.UploadPartCopy", repeats_itself=True),
    story(
        making_the_tables,
        "dynamodb.DescribeTable dynamodb.CreateTable dynamodb.Scan "
        "dynamodb.DescribeTimeToLive dynamodb.UpdateTimeToLive",
    ),
    story(completing_an_old_table, "dynamodb.UpdateTable dynamodb.UpdateItem"),
    story(making_the_queues, "sqs.CreateQueue sqs.SetQueueAttributes"),
    story(making_the_topic, "sns.ListTopics sns.CreateTopic"),
    story(
        making_the_notification,
        "sqs.GetQueueUrl sqs.GetQueueAttributes "
        "s3.GetBucketNotificationConfiguration s3.PutBucketNotificationConfiguration",
    ),
)
CALLS: Final = frozenset(call for story in STORIES for call in story.calls)


def cases(kind: str) -> list[tuple[Story, Call]]:
    """Return every story an emulator can tell, with each of its calls that is cut short."""
    return [(s, call) for s in STORIES if kind in s.emulators for call in s.calls]
