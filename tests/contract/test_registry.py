"""What every registry of daemons must do, whoever wrote the other end of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio

from daylily_daemon.adapters.aws import Aws, AwsOptions
from daylily_daemon.adapters.codec import typed
from daylily_daemon.adapters.provision import Provisioner
from daylily_daemon.adapters.registry import LARGEST_CHARS, DynamoRegistry
from daylily_daemon.domain.daemon import Drain, Port, Registered, Status
from daylily_daemon.domain.errors import Impeded
from daylily_daemon.domain.problems import HealthProblem, ProblemKind, Severity
from daylily_daemon.ports import Registry
from tests.contract.stores import STORES, url_of, wanted
from tests.fakes.registry import MemoryRegistry

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
HEAD1, HEAD2 = "head1/0123/aa", "head2/4567/bb"
STATUS = Status(
    owner=HEAD1,
    version="1.2.3",
    started_at=NOW - timedelta(hours=3),
    active={"HG002": "run 40%"},
    ports={"worksets": Port(good_at=NOW)},
    problems=(
        HealthProblem(
            kind=ProblemKind.CLOCK, about="clock", text="It is off.", severity=Severity.WARNING
        ),
    ),
)
DRAIN = Drain(by="cli:ops@head1", since=NOW, reason="a new kernel, µ")


@pytest_asyncio.fixture(params=STORES)
async def registry(request: pytest.FixtureRequest) -> AsyncIterator[Registry]:
    url = url_of(request.param, request)
    if url is None:
        yield MemoryRegistry()
        return
    async with Aws(AwsOptions(endpoint_url=url)) as aws:
        names = wanted()
        async for step in Provisioner(aws, names).tables():
            await step.do()
        yield DynamoRegistry(await aws.client("dynamodb"), names.tables.control)


async def test_what_a_daemon_says_is_read_back_whole_by_all(registry: Registry) -> None:
    assert await registry.daemons() == []
    assert await registry.sign(HEAD1, STATUS, NOW) is None
    await registry.sign(HEAD2, Status(owner=HEAD2), NOW)
    assert await registry.daemons() == [
        Registered(owner=HEAD1, said_at=NOW, status=STATUS),
        Registered(owner=HEAD2, said_at=NOW, status=Status(owner=HEAD2)),
    ]


async def test_the_last_word_counts(registry: Registry) -> None:
    await registry.sign(HEAD1, STATUS, NOW)
    later = NOW + timedelta(minutes=1)
    await registry.sign(HEAD1, Status(owner=HEAD1), later)
    (row,) = await registry.daemons()
    assert (row.said_at, row.status) == (later, Status(owner=HEAD1))


async def test_a_drain_is_told_to_its_daemon_alone_until_it_is_taken_back(
    registry: Registry,
) -> None:
    await registry.sign(HEAD1, STATUS, NOW)
    await registry.drain(HEAD1, DRAIN)
    assert await registry.drained(HEAD1) == DRAIN
    assert await registry.sign(HEAD1, STATUS, NOW) == DRAIN
    assert await registry.sign(HEAD2, STATUS, NOW) is None
    assert [row.drain for row in await registry.daemons()] == [DRAIN, None]
    await registry.drain(HEAD1, None)
    assert await registry.drained(HEAD1) is None


async def test_a_daemon_can_be_drained_before_it_ever_said_a_word(registry: Registry) -> None:
    await registry.drain(HEAD1, DRAIN)
    assert await registry.daemons() == [
        Registered(owner=HEAD1, said_at=None, status=None, drain=DRAIN)
    ]


async def test_a_daemon_that_is_struck_off_is_left_out_until_it_signs_again(
    registry: Registry,
) -> None:
    await registry.sign(HEAD1, STATUS, NOW)
    await registry.sign(HEAD2, Status(owner=HEAD2), NOW)
    await registry.strike(HEAD1)
    assert [row.owner for row in await registry.daemons()] == [HEAD2]
    await registry.sign(HEAD1, STATUS, NOW)
    assert [row.owner for row in await registry.daemons()] == [HEAD1, HEAD2]


async def test_a_status_that_is_too_large_is_shortened(registry: Registry) -> None:
    many = Status(owner=HEAD1, active={f"w{n}": "x" * 1000 for n in range(LARGEST_CHARS // 1000)})
    await registry.sign(HEAD1, many, NOW)
    (row,) = await registry.daemons()
    assert row.status is not None
    assert row.status.owner == HEAD1
    assert row.status.active.keys() == many.active.keys(), "what it holds must be known"


@pytest.mark.parametrize("said", ["", "{", '{"pid": "many"}', "[]"])
async def test_a_row_that_cannot_be_read_is_a_daemon_all_the_same(moto_url: str, said: str) -> None:
    async with Aws(AwsOptions(endpoint_url=moto_url)) as aws:
        names = wanted()
        async for step in Provisioner(aws, names).tables():
            await step.do()
        client = await aws.client("dynamodb")
        item = {"pk": "daemon", "sk": HEAD1, "said": said, "said_at": "soon", "drain": "what?"}
        await client.put_item(
            TableName=names.tables.control, Item={k: typed(v) for k, v in item.items()}
        )
        registry = DynamoRegistry(client, names.tables.control)
        (row,) = await registry.daemons()
        assert (row.owner, row.said_at, row.status) == (HEAD1, None, None)
        assert row.drain is not None, "somebody wanted it drained"


async def test_a_table_that_nobody_made_is_said(moto_url: str) -> None:
    async with Aws(AwsOptions(endpoint_url=moto_url)) as aws:
        registry = DynamoRegistry(await aws.client("dynamodb"), "nobodys-table")
        with pytest.raises(Impeded, match="daylily-daemon init"):
            await registry.sign(HEAD1, STATUS, NOW)
