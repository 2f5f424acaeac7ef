"""Every AWS call the program makes, with every way a wire can break it.

Whatever happened, the adapter succeeds or raises Transient; never Permanent, never an error of the SDK, never
somebody else's conflict. The same call repeated until it is answered leaves the world as if it had happened
once. Each case is played with one try a call, as the store and the outbox have it, and with the SDK's own
blind retry, which makes a second request of a write that was applied.
"""

from __future__ import annotations

import sys
import traceback
from collections import Counter
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

from daylily_daemon.adapters.aws import Aws, AwsOptions, OnCall
from daylily_daemon.adapters.provision import Provisioner, Wanted
from daylily_daemon.domain.errors import Transient
from tests.contract.fault_proxy import CASE, Call, Fault, FaultProxy, Order
from tests.contract.stores import wanted
from tests.contract.wire_stories import STORIES, Play, Side, Story, World, cases, done

EMULATORS: Final = ("ministack", "moto")
TRIES: Final = {"once": 1, "sdk-retry": 3}
SERVICES: Final = ("dynamodb", "sqs", "s3", "sns")
AT_ONCE: Final = 16
LASTING: Final = 10**6
"""Credentials stay expired until somebody renews them."""
REFUSED: Final = frozenset({Fault.THROTTLE, Fault.BROKEN, Fault.EXPIRED})
_CASE: Final[ContextVar[str]] = ContextVar("case", default="")
_NUMBERS: Final = count(1)

pytestmark = pytest.mark.asyncio(loop_scope="module")


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
        calls, total = len({name for name, _, _ in self.seen}), self.seen.total()
        yield f"{calls} calls, {len(STORIES)} stories, {len(Fault)} faults: {total} cases"


@pytest.fixture(scope="module")
def figures() -> Iterator[Figures]:
    found = Figures()
    yield found
    sys.stdout.write("\n" + "\n".join(found.lines()) + "\n")


def _name_the_case(request: Any, **_: Any) -> None:
    request.headers[CASE] = _CASE.get()


@asynccontextmanager
async def _side(url: str, tries: int, names: Wanted, on_call: OnCall) -> AsyncIterator[Side]:
    options = AwsOptions(
        endpoint_url=url, max_attempts=tries, read_timeout_s=0.5, long_poll_timeout_s=1.5
    )
    async with Aws(options, on_call=on_call) as aws:
        clients = {service: await aws.client(service) for service in SERVICES}
        for client in clients.values():
            client.meta.events.register("before-sign", _name_the_case)
        yield Side(aws, clients, names)


@asynccontextmanager
async def _world(
    kind: str, url: str, tries: int, scratch: Path, seen: list[Call]
) -> AsyncIterator[World]:
    names = wanted()
    proxy = FaultProxy(url)

    def on_call(service: str, operation: str) -> None:
        seen.append(Call(service, operation))

    async with (
        proxy.serving() as proxied,
        _side(proxied, tries, names, on_call) as through,
        Aws(AwsOptions(endpoint_url=url)) as aws,
    ):
        clients = {service: await aws.client(service) for service in SERVICES}
        past = Side(aws, clients, names)
        await done(Provisioner(aws, names).bucket())
        await done(Provisioner(aws, names).tables())
        yield World(
            kind=kind,
            proxy=proxy,
            through=through,
            past=past,
            bucket=names.bucket,
            scratch=scratch,
        )


@pytest.fixture(scope="module")
def seen() -> list[Call]:
    return []


@pytest_asyncio.fixture(
    scope="module",
    loop_scope="module",
    params=[(emulator, tries) for emulator in EMULATORS for tries in TRIES],
    ids="-".join,
)
async def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, seen: list[Call]
) -> AsyncIterator[World]:
    kind, tries = request.param
    url, scratch = request.getfixturevalue(f"{kind}_url"), tmp_path_factory.mktemp("wire")
    async with _world(kind, url, TRIES[tries], scratch, seen) as opened:
        yield opened


async def _answered(play: Play) -> tuple[bool, Any]:
    try:
        return True, await play.act()
    except Transient:
        return False, None


async def _played(world: World, story: Story, call: Call, fault: Fault) -> bool:
    """Play one case; return whether the call was answered in spite of the fault."""
    _CASE.set(f"{story.tell.__name__}-{next(_NUMBERS)}")
    play = await story.tell(world)
    times = LASTING if fault is Fault.EXPIRED else 1
    order = Order(fault=fault, call=call, case=_CASE.get(), times=times)
    world.proxy.orders.append(order)
    with fail_after(30):
        while not order.happened:
            in_spite, _ = await _answered(play)
            assert order.happened or not in_spite, "the fault never happened"
        world.proxy.orders.remove(order)
        answered, answer = await _answered(play)
        while not answered:
            answered, answer = await _answered(play)
    await play.judge(answer)
    return in_spite


def _where(exc: Exception) -> str:
    return "".join(traceback.format_exception(exc)[-2:])


@pytest.mark.parametrize("fault", Fault)
async def test_a_broken_wire_changes_nothing_but_the_time_it_takes(
    world: World, fault: Fault, figures: Figures
) -> None:
    limit, found = CapacityLimiter(AT_ONCE), list[str]()

    async def case(story: Story, call: Call) -> None:
        async with limit:
            try:
                answered = await _played(world, story, call, fault)
            except Exception as exc:  # noqa: BLE001 - whatever it is, it is the finding
                found.append(f"{story.name}, {fault} at {call}: {_where(exc)}")
            else:
                figures.add(call, fault, answered=answered)

    async with create_task_group() as tasks:
        for story, call in cases(world.kind):
            tasks.start_soon(case, story, call)
    assert not found, "\n".join(["", *found])
