"""A story of the wire: what is staged past the proxy, told through it, and judged past it again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final

from daylily_daemon.adapters.aws import Aws
from daylily_daemon.adapters.catalogue import DynamoCatalogue
from daylily_daemon.adapters.dynamodb import DynamoTrail, DynamoWorksets
from daylily_daemon.adapters.envelopes import read_command
from daylily_daemon.adapters.provision import Wanted
from daylily_daemon.adapters.s3 import S3Objects
from daylily_daemon.adapters.setupsteps import Step
from daylily_daemon.adapters.sqs import QueueConfig, SqsMailbox
from daylily_daemon.adapters.turns import DynamoTurns
from tests.contract.fault_proxy import Call, FaultProxy

EMULATORS: Final = ("ministack", "moto")
_NUMBERS: Final = count(1)


class Side:
    """The adapters of one daemon: those through the proxy, or those past it."""

    def __init__(self, aws: Aws, clients: dict[str, Any], names: Wanted) -> None:
        self.aws = aws
        self._clients = clients
        self.db, self.s3 = clients["dynamodb"], clients["s3"]
        self.sqs, self.sns = clients["sqs"], clients["sns"]
        self.worksets = DynamoWorksets(self.db, names.tables)
        self.turns = DynamoTurns(self.db, names.tables)
        self.catalogue = DynamoCatalogue(self.db, names.tables)
        self.trail = DynamoTrail(self.db, names.tables)
        self.objects = S3Objects(self.s3)

    def with_tables(self, names: Wanted) -> Side:
        return Side(self.aws, self._clients, names)

    def mailbox(self, url: str, dead_url: str, *, wait_s: int = 0) -> SqsMailbox:
        config = QueueConfig(url=url, dead_letter_url=dead_url, wait_s=wait_s, visibility_s=1)
        return SqsMailbox(self.sqs, config, read_command)


@dataclass(frozen=True, kw_only=True)
class World:
    kind: str
    """Which emulator."""
    tries: int
    """Of one call, by the SDK."""
    proxy: FaultProxy
    through: Side
    past: Side
    bucket: str
    scratch: Path

    def name(self, what: str) -> str:
        return f"{what}-{self.scratch.name}-{next(_NUMBERS)}"


@dataclass(frozen=True, kw_only=True)
class Play:
    act: Callable[[], Awaitable[Any]]
    """What is repeated under the same name until it is answered."""
    judge: Callable[[Any], Awaitable[None]]
    """Look, past the proxy, at the world and at the last answer."""


@dataclass(frozen=True, kw_only=True)
class Story:
    tell: Callable[[World], Awaitable[Play]]
    calls: tuple[Call, ...]
    repeats_itself: bool = False
    """A copy repeats what failed; a refusal need not reach the caller."""
    emulators: tuple[str, ...] = EMULATORS

    @property
    def name(self) -> str:
        return self.tell.__name__.replace("_", " ")


def reading(act: Callable[[], Awaitable[Any]], expected: Any) -> Play:
    async def judge(answer: Any) -> None:
        assert answer == expected

    return Play(act=act, judge=judge)


async def done(steps: AsyncIterator[Step]) -> list[str]:
    """Do what is missing and return what it was."""
    did = []
    async for step in steps:
        await step.do()
        did.append(step.what)
    return did


def story(tell: Callable[[World], Awaitable[Play]], calls: str, **more: Any) -> Story:
    return Story(tell=tell, calls=tuple(Call(*c.split(".")) for c in calls.split()), **more)
