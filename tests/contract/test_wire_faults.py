"""Every AWS call the program makes, with every way a wire can break it.

Whatever happened, the adapter succeeds or raises Transient; never Permanent, never an error of the SDK, never
somebody else's conflict. The same call repeated until it is answered leaves the world as if it had happened
once. Each case is played with one try a call, as the store and the outbox have it, and with the SDK's own
blind retry, which makes a second request of a write that was applied.
"""

from __future__ import annotations

import ast
import json
import re
import sys
import traceback
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio
from anyio import CapacityLimiter, create_task_group, fail_after
from botocore import xform_name
from botocore.exceptions import BotoCoreError, ClientError
from botocore.session import Session

from daylily_daemon.adapters.aws import Aws, AwsOptions
from daylily_daemon.adapters.provision import Provisioner, Wanted
from daylily_daemon.domain.errors import DaemonError, Transient
from tests.arch.repository import ROOT
from tests.contract.fault_proxy import CASE, Call, Fault, FaultProxy, Order
from tests.contract.stores import wanted
from tests.contract.wire_stories import CALLS, STORIES, cases
from tests.contract.wire_world import EMULATORS, Play, Side, Story, World, done
from tests.emulators import CACHE

TRIES: Final = {"once": 1, "sdk-retry": 3}
SERVICES: Final = ("dynamodb", "sqs", "s3", "sns")
AT_ONCE: Final = 16
LASTING: Final = 10**6
"""Credentials stay expired until somebody renews them."""
PROBES: Final = frozenset({Call("s3", "GetBucketVersioning")})
"""What ``doctor`` alone asks, once: a fault is its finding."""
REFUSED: Final = frozenset({Fault.THROTTLE, Fault.BROKEN, Fault.EXPIRED})
FINDINGS: Final = (AssertionError, DaemonError, ClientError, BotoCoreError, TimeoutError)
PACKAGE: Final = ROOT / "daylily_daemon"
DEMO: Final = PACKAGE / "cli" / "demonstration.py"
"""Also plays the part of the world around the daemon, on an emulator of its own."""
FIGURES: Final = CACHE / "figures" / "wire.json"
PLAYS: Final = tuple(
    (emulator, tries, fault)
    for emulator in EMULATORS
    for tries in TRIES
    for fault in Fault
    if (tries, fault) != ("sdk-retry", Fault.EXPIRED)
)
"""The SDK repeats nothing for credentials that are not accepted: that one would be played twice."""
_CASE: Final[ContextVar[str]] = ContextVar("case", default="")
_NUMBERS: Final = count(1)


@dataclass
class Figures:
    """What became of the cases, for the table that ``-s`` shows."""

    seen: Counter[tuple[str, Fault, bool]] = field(default_factory=Counter)

    def add(self, call: Call, fault: Fault, *, answered: bool) -> None:
        self.seen[str(call), fault, answered] += 1

    def lines(self) -> Iterator[str]:
        yield f"{'answered / repeated by the caller':45}" + "".join(f"{f:>14}" for f in Fault)
        for name in sorted({name for name, _, _ in self.seen}):
            cells = [(self.seen[name, f, True], self.seen[name, f, False]) for f in Fault]
            yield f"{name:45}" + "".join(f"{f'{yes} / {no}':>14}" for yes, no in cells)
        sizes = ", ".join(f"{number} {what}" for what, number in self.sizes.items())
        yield f"figures: {sizes}, {len(STORIES)} stories"

    @property
    def sizes(self) -> dict[str, int]:
        calls, faults = {name for name, _, _ in self.seen}, {fault for _, fault, _ in self.seen}
        return {"calls": len(calls), "faults": len(faults), "cases": self.seen.total()}

    @property
    def are_all(self) -> bool:
        """False of a run that left cases out or found something."""
        return self.seen.total() == sum(len(cases(emulator)) for emulator, _, _ in PLAYS)


@pytest.fixture(scope="module")
def figures() -> Iterator[Figures]:
    found = Figures()
    yield found
    sys.stdout.write("\n" + "\n".join(found.lines()) + "\n")
    if found.are_all:
        FIGURES.parent.mkdir(parents=True, exist_ok=True)
        FIGURES.write_text(json.dumps(found.sizes) + "\n")


def _name_the_case(request: Any, **_: Any) -> None:
    request.headers[CASE] = _CASE.get()


@asynccontextmanager
async def _side(url: str, tries: int, names: Wanted) -> AsyncIterator[Side]:
    options = AwsOptions(
        endpoint_url=url, max_attempts=tries, read_timeout_s=0.5, long_poll_timeout_s=1.5
    )
    async with Aws(options) as aws:
        clients = {service: await aws.client(service) for service in SERVICES}
        for client in clients.values():
            client.meta.events.register("before-sign", _name_the_case)
        yield Side(aws, clients, names)


@asynccontextmanager
async def _world(kind: str, url: str, tries: int, scratch: Path) -> AsyncIterator[World]:
    names = wanted()
    proxy = FaultProxy(url)
    async with (
        proxy.serving() as proxied,
        _side(proxied, tries, names) as through,
        Aws(AwsOptions(endpoint_url=url)) as aws,
    ):
        clients = {service: await aws.client(service) for service in SERVICES}
        past = Side(aws, clients, names)
        await done(Provisioner(aws, names).bucket())
        await done(Provisioner(aws, names).tables())
        yield World(
            kind=kind,
            tries=tries,
            proxy=proxy,
            through=through,
            past=past,
            bucket=names.bucket,
            scratch=scratch,
        )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    kind, tries = request.param
    url, scratch = request.getfixturevalue(f"{kind}_url"), tmp_path_factory.mktemp("wire")
    async with _world(kind, url, TRIES[tries], scratch) as opened:
        yield opened


async def _until_answered(play: Play, order: Order) -> tuple[bool, Any]:
    """Return whether the try that met the fault was answered all the same, and the last answer."""
    while True:
        met_before = order.happened > 0
        try:
            answer = await play.act()
        except Transient:
            if order.happened:
                order.times = 0
        else:
            assert order.happened, "the fault never happened"
            return not met_before, answer


async def _played(world: World, story: Story, call: Call, fault: Fault) -> bool:
    """Play one case; return whether the call was answered in spite of the fault."""
    _CASE.set(f"{story.tell.__name__}-{next(_NUMBERS)}")
    play = await story.tell(world)
    times = LASTING if fault is Fault.EXPIRED else 1
    order = Order(fault=fault, call=call, case=_CASE.get(), times=times)
    world.proxy.orders.append(order)
    with fail_after(30):
        in_spite, answer = await _until_answered(play, order)
    world.proxy.orders.remove(order)
    await play.judge(answer)
    if fault in REFUSED and world.tries == 1 and not story.repeats_itself:
        assert not in_spite, "a refusal was taken for an answer"
    return in_spite


def _where(exc: Exception) -> str:
    return "".join(traceback.format_exception(exc)[-2:])


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("world", "fault"),
    [pytest.param((play[0], play[1]), play[2], id="-".join(play)) for play in PLAYS],
    indirect=["world"],
    scope="module",
)
async def test_a_broken_wire_changes_nothing_but_the_time_it_takes(
    world: World, fault: Fault, figures: Figures
) -> None:
    limit, found = CapacityLimiter(AT_ONCE), list[str]()

    async def case(story: Story, call: Call) -> None:
        async with limit:
            try:
                answered = await _played(world, story, call, fault)
            except FINDINGS as exc:
                found.append(f"{story.name}, {fault} at {call}: {_where(exc)}")
            else:
                figures.add(call, fault, answered=answered)

    async with create_task_group() as tasks:
        for story, call in cases(world.kind):
            tasks.start_soon(case, story, call)
    assert not found, "\n".join(["", *found])


def _attributes_of_the_package() -> Iterator[ast.Attribute]:
    for path in PACKAGE.rglob("*.py"):
        if path != DEMO:
            tree = ast.parse(path.read_text())
            yield from (node for node in ast.walk(tree) if isinstance(node, ast.Attribute))


def test_every_call_the_program_makes_has_a_story_and_no_other() -> None:
    """By name: whatever is named as a call of a client is taken for one."""
    known = defaultdict(set)
    for service in SERVICES:
        for operation in Session().get_service_model(service).operation_names:
            known[xform_name(operation)].add(Call(service, operation))
    names = {node.attr for node in _attributes_of_the_package()}
    assert not names & {"get_paginator", "get_waiter"}, "their calls are not seen here"
    assert {call for name in names for call in known.get(name, ())} == CALLS | PROBES


def test_the_program_asks_for_no_service_that_is_not_looked_at_here() -> None:
    sources = (path.read_text() for path in PACKAGE.rglob("*.py"))
    asked = {name for text in sources for name in re.findall(r"\.client\(\s*\"(\w+)\"", text)}
    assert asked == {*SERVICES, "sts"}, "doctor alone asks who we are"
