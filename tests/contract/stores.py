"""Stores under test: the in-memory one, and the real adapter on every emulator."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import pytest

from daylily_daemon.adapters.aws import Aws, AwsOptions
from daylily_daemon.adapters.catalogue import DynamoCatalogue
from daylily_daemon.adapters.dynamodb import DynamoTrail, DynamoWorksets
from daylily_daemon.adapters.provision import Provisioner, Wanted
from daylily_daemon.adapters.tables import Tables
from daylily_daemon.adapters.turns import DynamoTurns
from daylily_daemon.ports import Catalogue, Trail, Turns, Worksets
from tests.fakes.store import MemoryCatalogue, MemoryTrail, MemoryTurns, MemoryWorksets, Table

STORES: Final = ("memory", "moto", "ministack", "dynamodb_local")


@dataclass(frozen=True)
class Store:
    kind: str
    worksets: Worksets
    trail: Trail
    turns: Turns
    catalogue: Catalogue


def wanted(**changes: str) -> Wanted:
    """Names nobody else uses, so that tests can share an emulator."""
    mine = uuid.uuid4().hex[:10]  # noqa: TID251 - a test has no id source to be given
    return Wanted(
        bucket=changes.get("bucket", f"control-{mine}"),
        prefix="daylily_monitoring/active_worksets/",
        tables=Tables(
            worksets=f"worksets-{mine}",
            events=f"events-{mine}",
            control=f"control-{mine}",
            older_index="by-state",
        ),
        intake_queue=f"intake-{mine}",
        commands_queue=f"commands-{mine}.fifo",
        topic=f"topic-{mine}",
        visibility_s=60,
        max_receive=5,
        create_bucket=True,
    )


@asynccontextmanager
async def opened(kind: str, url: str | None) -> AsyncIterator[Store]:
    if url is None:
        table = Table()
        yield Store(
            kind,
            MemoryWorksets(table),
            MemoryTrail(table),
            MemoryTurns(table),
            MemoryCatalogue(table),
        )
        return
    async with Aws(AwsOptions(endpoint_url=url)) as aws:
        names = wanted()
        async for step in Provisioner(aws, names).tables():
            await step.do()
        client = await aws.client("dynamodb")
        yield Store(
            kind,
            DynamoWorksets(client, names.tables),
            DynamoTrail(client, names.tables),
            DynamoTurns(client, names.tables),
            DynamoCatalogue(client, names.tables),
        )


def url_of(kind: str, request: pytest.FixtureRequest) -> str | None:
    return None if kind == "memory" else str(request.getfixturevalue(f"{kind}_url"))
