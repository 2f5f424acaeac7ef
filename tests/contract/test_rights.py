"""One right of the daemon's role is taken away at a time: no call takes that for a no, and all heal.

ministack enforces IAM when it is told to. It asks for actions that AWS does not have where AWS asks for those
of the single calls (batches of SQS, transactions of DynamoDB); they are given and taken together here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Final

import pytest

from daylily_daemon.adapters.aws import Aws, AwsOptions
from daylily_daemon.adapters.catalogue import DynamoCatalogue
from daylily_daemon.adapters.dynamodb import DynamoTrail, DynamoWorksets
from daylily_daemon.adapters.envelopes import read_command
from daylily_daemon.adapters.host import SystemClock
from daylily_daemon.adapters.metricdata import CloudWatchMetrics
from daylily_daemon.adapters.notifiers.ses import SesMail
from daylily_daemon.adapters.notifiers.sns import Sns
from daylily_daemon.adapters.provision import (
    Provisioner,
    Wanted,
    dead_letter_name,
    find_queue,
    find_topic,
)
from daylily_daemon.adapters.s3 import S3Objects
from daylily_daemon.adapters.sqs import QueueConfig, SqsMailbox
from daylily_daemon.adapters.turns import DynamoTurns
from daylily_daemon.domain.datum import LevelDatum
from daylily_daemon.domain.errors import DaemonError, Impeded
from daylily_daemon.domain.model import Cancel, Command, State, WorksetId
from daylily_daemon.domain.turn import Queue
from daylily_daemon.ports import Change
from tests.contract.mail_receivers import RECIPIENTS, SENDER
from tests.contract.stores import wanted
from tests.contract.test_store import a_record, a_workset, first
from tests.iam import ACTIONS, KEYS, Role
from tests.records import FAILED

NUMBERS: Final = count(1)


@dataclass(frozen=True, kw_only=True)
class Ports:
    """Every call that a running daemon makes of AWS."""

    worksets: DynamoWorksets
    turns: DynamoTurns
    catalogue: DynamoCatalogue
    trail: DynamoTrail
    commands: SqsMailbox
    objects: S3Objects
    sns: Sns
    ses: SesMail
    figures: CloudWatchMetrics
    bucket: str

    async def register(self) -> None:
        ws = a_workset(f"ws-{next(NUMBERS)}")
        await self.worksets.commit(first(ws))

    async def register_with_a_record(self) -> None:
        ws = a_workset(f"ws-{next(NUMBERS)}")
        await self.worksets.commit(first(ws, a_record(ws, 1), once="c1"))

    async def change(self) -> None:
        before = await self.worksets.load(WorksetId("known"))
        assert before is not None
        after = replace(before, waiting_for=f"{next(NUMBERS)}")
        await self.worksets.commit(Change(before=before, after=after, nonce=f"n{next(NUMBERS)}"))

    async def load(self) -> None:
        assert await self.worksets.load(WorksetId("known")) is not None

    async def line_up(self) -> None:
        await self.turns.line_up(Queue.WAITING, limit=9)

    async def load_all(self) -> None:
        assert await self.turns.load_all([WorksetId("known")])

    async def refile(self) -> None:
        known = await self.worksets.load(WorksetId("known"))
        assert known is not None
        await self.turns.refile(known)

    async def find_unfiled(self) -> None:
        await self.turns.unfiled(State.READY)

    async def count(self) -> None:
        await self.catalogue.count(State.READY)

    async def look_up(self) -> None:
        assert await self.worksets.announced([WorksetId("known")])

    async def read_trail(self) -> None:
        await self.trail.read(WorksetId("known"))

    async def find_owed(self) -> None:
        await self.trail.owed()

    async def send(self) -> None:
        n = next(NUMBERS)
        command = Command(id=f"c{n}", workset_id=WorksetId(f"w{n}"), by="test", ask=Cancel())
        await self.commands.send([command])

    async def receive_and_settle(self) -> None:
        await self.commands.settle(await self.commands.receive())

    async def receive_and_park(self) -> None:
        await self.send()
        for delivery in await self.commands.receive():
            await self.commands.park(delivery, "no")

    async def put(self) -> None:
        await self.objects.put(self.bucket, "p/known/x", b"x")

    async def delete(self) -> None:
        await self.objects.delete(self.bucket, "p/known/gone")

    async def read(self) -> None:
        assert await self.objects.read(self.bucket, "p/known/recipe", 10) == b"here"

    async def head(self) -> None:
        assert await self.objects.head(self.bucket, "p/known/recipe") is not None

    async def list_folder(self) -> None:
        assert await self.objects.list(self.bucket, "p/known/")

    async def tell(self) -> None:
        await self.sns.deliver(FAILED)

    async def tell_by_mail(self) -> None:
        await self.ses.deliver(FAILED)

    async def send_figures(self) -> None:
        await self.figures.put([LevelDatum("DaemonUp", 1.0)])

    async def outcomes(self) -> dict[str, DaemonError | None]:
        """Return by call what became of it; anything but an error of ours is raised."""
        found: dict[str, DaemonError | None] = {}
        for call in (
            *(self.register, self.register_with_a_record, self.change, self.load, self.line_up),
            *(self.load_all, self.refile, self.find_unfiled),
            *(self.count, self.look_up, self.read_trail, self.find_owed, self.send),
            *(self.receive_and_settle, self.receive_and_park, self.put, self.delete, self.read),
            *(self.head, self.list_folder, self.tell, self.tell_by_mail),
            self.send_figures,
        ):
            try:
                await call()
                found[call.__name__] = None
            except DaemonError as exc:
                found[call.__name__] = exc
        return found


@dataclass(frozen=True)
class Lab:
    role: Role
    ports: Ports


@pytest.fixture
async def lab(
    guarded_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Lab]:
    keys = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(keys))
    _write(keys, KEYS.format("root", "test", "test"))
    names = wanted()
    async with Aws(AwsOptions(endpoint_url=guarded_url, profile="root")) as root:
        async for step in Provisioner(root, names).missing():
            await step.do()
        iam = await root.client("iam")
        await iam.create_user(UserName="daemon")
        key = (await iam.create_access_key(UserName="daemon"))["AccessKey"]
        root_keys = KEYS.format("root", "test", "test")
        _write(keys, root_keys + KEYS.format("daemon", key["AccessKeyId"], key["SecretAccessKey"]))
        known = a_workset("known")
        await DynamoWorksets(await root.client("dynamodb"), names.tables).commit(first(known))
        await S3Objects(await root.client("s3")).put(names.bucket, "p/known/recipe", b"here")
        await (await root.client("sesv2")).create_email_identity(EmailIdentity="lab.example")
        async with Aws(AwsOptions(endpoint_url=guarded_url, profile="daemon")) as mine:
            yield Lab(Role(iam=iam), await _ports(root, mine, names))


def _write(path: Path, text: str) -> None:
    path.write_text(text)


async def _ports(root: Aws, mine: Aws, names: Wanted) -> Ports:
    sqs, db = await root.client("sqs"), await mine.client("dynamodb", max_attempts=1)
    url = await find_queue(sqs, names.commands_queue)
    dead = await find_queue(sqs, dead_letter_name(names.commands_queue))
    topic = await find_topic(await root.client("sns"), names.topic)
    assert url
    assert dead
    assert topic
    config = QueueConfig(url=url, dead_letter_url=dead, wait_s=0, visibility_s=1)
    return Ports(
        worksets=DynamoWorksets(db, names.tables),
        turns=DynamoTurns(db, names.tables),
        catalogue=DynamoCatalogue(db, names.tables),
        trail=DynamoTrail(db, names.tables),
        commands=SqsMailbox(await mine.client("sqs"), config, read_command),
        objects=S3Objects(await mine.client("s3")),
        sns=Sns(await mine.client("sns"), topic),
        ses=SesMail(
            find_client=partial(mine.client, "sesv2"), sender=SENDER, recipients=RECIPIENTS
        ),
        figures=CloudWatchMetrics(partial(mine.client, "cloudwatch"), SystemClock()),
        bucket=names.bucket,
    )


@pytest.mark.reported(
    "G", "one missing IAM action is taken for a fault of the message or the input"
)
async def test_a_right_that_is_missing_is_nobodys_fault_and_all_heals_when_it_is_given(
    lab: Lab,
) -> None:
    await lab.role.without("")
    assert {name: exc for name, exc in (await lab.ports.outcomes()).items() if exc} == {}
    for action in ACTIONS:
        await lab.role.without(action)
        denied = {name: exc for name, exc in (await lab.ports.outcomes()).items() if exc}
        assert denied, f"nothing needs {action}"
        for name, exc in denied.items():
            assert isinstance(exc, Impeded), (action, name, exc)
        await lab.role.without("")
        left = {name: exc for name, exc in (await lab.ports.outcomes()).items() if exc}
        assert left == {}, action
