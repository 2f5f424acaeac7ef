"""One suite for all channels, against receivers that misbehave; then what each one says."""

from __future__ import annotations

import contextlib
import logging
import traceback
from collections.abc import AsyncIterator, Iterator
from typing import TypeVar

import anyio
import pytest

from daylily_daemon.adapters.http import BODY_LIMIT_BYTES
from daylily_daemon.domain.errors import DaemonError, Impeded, Permanent, Transient
from tests.contract.benches import BENCHES, UNKNOWN, benches
from tests.contract.receivers import Bench, Fault
from tests.records import FAILED, a_record

E = TypeVar("E", bound=DaemonError)

PATIENT_S = 20.0
IMPATIENT_S = 0.3


@pytest.fixture
async def bench(request: pytest.FixtureRequest, moto_url: str) -> AsyncIterator[Bench]:
    async with BENCHES[request.param].open(moto_url, PATIENT_S) as opened:
        yield opened


@pytest.fixture
async def impatient(request: pytest.FixtureRequest, moto_url: str) -> AsyncIterator[Bench]:
    async with BENCHES[request.param].open(moto_url, IMPATIENT_S) as opened:
        yield opened


@pytest.fixture(autouse=True)
def nothing_logged_shows_a_secret(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.DEBUG)
    yield
    assert "vErYsEcReT" not in caplog.text


def on(*faults: Fault) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("bench", "fault"), benches(*faults), indirect=["bench"])


async def refused(bench: Bench, kind: type[E]) -> E:
    """Deliver, expect ``kind`` with a text that shows no secret, and return it."""
    with pytest.raises(kind) as caught:
        await bench.channel.deliver(FAILED)
    shown = "".join(traceback.format_exception(caught.value)) + repr(bench.channel)
    assert "vErYsEcReT" not in shown
    assert str(caught.value).endswith(".")
    return caught.value


@pytest.mark.parametrize("bench", BENCHES, indirect=True)
async def test_a_notice_is_told_once(bench: Bench) -> None:
    await bench.channel.deliver(FAILED)
    assert await bench.told() == [FAILED.id]


@on(*UNKNOWN, Fault.LIMITED_UNTIL, Fault.NOT_HTTP)
async def test_a_receiver_in_trouble_is_told_once_when_it_is_well_again(
    bench: Bench, fault: Fault
) -> None:
    bench.next(fault)
    await refused(bench, Transient)
    assert await bench.told() == []
    await bench.channel.deliver(FAILED)
    assert await bench.told() == [FAILED.id]


@on(Fault.LIMITED, Fault.LIMITED_UNTIL, Fault.UNAVAILABLE)
async def test_how_long_a_receiver_asks_to_wait_is_handed_on(bench: Bench, fault: Fault) -> None:
    bench.next(fault)
    asked = {Fault.LIMITED: 7.0, Fault.LIMITED_UNTIL: 120.0, Fault.UNAVAILABLE: 3.0}[fault]
    assert (await refused(bench, Transient)).retry_after_s == asked


@on(Fault.LOST)
async def test_a_notice_whose_answer_was_lost_is_repeated_under_the_same_id(
    bench: Bench, fault: Fault
) -> None:
    bench.next(fault)
    await refused(bench, Transient)
    await bench.channel.deliver(FAILED)
    told = await bench.told()
    assert set(told) == {FAILED.id}
    assert len(told) == (1 if bench.drops_repeats else 2)


@on(Fault.HALF, Fault.GARBAGE, Fault.HUGE)
async def test_an_answer_that_cannot_be_read_counts_by_its_status_where_that_says_all(
    bench: Bench, fault: Fault
) -> None:
    bench.next(fault)
    if bench.status_decides:
        await bench.channel.deliver(FAILED)
    else:
        await refused(bench, Transient)
        await bench.channel.deliver(FAILED)
    assert await bench.told() == [FAILED.id]


@on(Fault.HUGE)
async def test_of_an_endless_answer_only_the_beginning_is_read(bench: Bench, fault: Fault) -> None:
    bench.next(fault)
    with contextlib.suppress(Transient):
        await bench.channel.deliver(FAILED)
    assert bench.receiver is not None
    in_kernel_buffers = 32 * 1024 * 1024
    assert bench.receiver.sent_bytes < BODY_LIMIT_BYTES + in_kernel_buffers


@on(Fault.MOVED)
async def test_a_redirect_is_not_followed_and_waits_for_the_address_to_be_mended(
    bench: Bench, fault: Fault
) -> None:
    bench.next(fault)
    assert "redirect" in str(await refused(bench, Impeded))
    assert bench.receiver is not None
    assert bench.receiver.elsewhere == 0
    assert await bench.told() == []


@on(Fault.REFUSED)
async def test_a_refusal_is_a_definite_no(bench: Bench, fault: Fault) -> None:
    bench.next(fault)
    await refused(bench, Permanent)
    assert await bench.told() == []


@on(Fault.FORBIDDEN, Fault.NOT_FOUND)
async def test_a_wrong_address_or_key_gives_nothing_up_and_is_mended_by_a_reload(
    bench: Bench, fault: Fault
) -> None:
    bench.next(fault)
    await refused(bench, Impeded)
    assert await bench.told() == []
    await bench.channel.deliver(FAILED)
    assert await bench.told() == [FAILED.id]


@pytest.mark.parametrize(("impatient", "fault"), benches(Fault.SILENT), indirect=["impatient"])
async def test_a_receiver_that_never_answers_is_left_after_the_timeout(
    impatient: Bench, fault: Fault
) -> None:
    impatient.next(fault)
    with anyio.fail_after(PATIENT_S):
        await refused(impatient, Transient)


@pytest.mark.parametrize("bench", BENCHES, indirect=True)
async def test_what_a_lab_wrote_breaks_no_channel(bench: Bench) -> None:
    """Markup, mentions, control and half characters, and more of it than any receiver takes."""
    nasty = "<!channel> & <@U1> `*_~ \x00\x1b[31m\r\n\ud800 \N{DNA DOUBLE HELIX} " * 5000
    record = a_record(message=nasty, error_details=nasty, details={nasty: [nasty, float("nan")]})
    await bench.channel.deliver(record)
    assert await bench.told() == [FAILED.id]
