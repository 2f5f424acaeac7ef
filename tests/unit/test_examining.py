"""``doctor`` in parts: each check alone, and what is concluded from what was seen."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

import anyio
import pytest

from daylily_daemon.adapters.whoami import named
from daylily_daemon.application.examining import (
    LIMIT_S,
    TEXT_CHARS,
    Check,
    examined,
    judged_clock,
    judged_disks,
    judged_queues,
    judged_settings,
    lacking,
)
from daylily_daemon.application.health import HealthVerdict, LocalDaemon
from daylily_daemon.domain.daemon import DiskLevel, QueueLevel, Reload, Status
from daylily_daemon.domain.errors import CREDENTIALS, Impeded, Transient
from daylily_daemon.domain.finding import CheckName, CheckResult, Grade, ok, worst
from tests.fakes.registry import MemoryRegistry
from tests.fakes.store import LoopClock, Table
from tests.made import NOW
from tests.unit.backends import MemoryQueues, a_backend, played

BAD: Final = CheckResult(grade=Grade.FAIL, text="It is broken.")
WARNED: Final = CheckResult(grade=Grade.WARN, text="It may break.")


def _check(name: CheckName, *findings: CheckResult, takes_s: float = 0.0) -> Check:
    async def look() -> Sequence[CheckResult]:
        await anyio.sleep(takes_s)
        return findings

    return Check(name, look)


def _raising(name: CheckName, error: Exception) -> Check:
    async def look() -> Sequence[CheckResult]:
        raise error

    return Check(name, look)


def _grades(*checks: Check) -> list[Grade]:
    async def work() -> list[Grade]:
        return [one.grade for one in await examined(checks)]

    return played(work)


def test_a_check_that_breaks_is_unknown_and_takes_no_other_along() -> None:
    refused = Impeded("AWS refused.")
    refused.code = CREDENTIALS
    checks = (
        _raising(CheckName.SETTINGS, KeyError("secret")),
        _raising(CheckName.TABLES, ExceptionGroup("two", [Transient("AWS is away.")])),
        _raising(CheckName.QUEUES, refused),
        _check(CheckName.CLOCK, ok("Well.")),
    )

    async def work() -> list[str]:
        return [one.findings[0].text for one in await examined(checks)]

    assert _grades(*checks) == [Grade.UNKNOWN] * 3 + [Grade.OK]
    texts = played(work)
    assert texts[0].startswith("The check broke (KeyError: 'secret')")
    assert texts[1:] == [
        "AWS is away.",
        "AWS cannot be asked without credentials: see the check of those.",
        "Well.",
    ]


def test_a_check_that_takes_too_long_is_unknown_and_the_others_do_not_wait_for_it() -> None:
    async def work() -> tuple[list[Grade], float]:
        began = anyio.current_time()
        checks = (
            _check(CheckName.TABLES, ok("Never."), takes_s=10_000.0),
            _check(CheckName.QUEUES, ok("Late."), takes_s=LIMIT_S - 1),
            _check(CheckName.CLOCK, BAD, takes_s=LIMIT_S - 1),
        )
        return [one.grade for one in await examined(checks)], anyio.current_time() - began

    grades, took_s = played(work)
    assert grades == [Grade.UNKNOWN, Grade.OK, Grade.FAIL]
    assert took_s == pytest.approx(LIMIT_S)


def test_the_worst_that_was_found_is_told_first() -> None:
    async def work() -> list[Grade]:
        (one,) = await examined([_check(CheckName.TABLES, ok("a"), WARNED, BAD)])
        return [finding.grade for finding in one.findings]

    assert played(work) == [Grade.FAIL, Grade.WARN, Grade.OK]
    assert worst([]) is Grade.OK
    assert worst([WARNED, CheckResult(grade=Grade.UNKNOWN, text="?")]) is Grade.UNKNOWN


def test_what_another_side_says_is_bounded() -> None:
    async def work() -> str:
        (one,) = await examined([_raising(CheckName.TABLES, Transient("x" * 100_000))])
        return one.findings[0].text

    assert len(played(work)) == TEXT_CHARS


# --- settings -------------------------------------------------------------------------------------


def _local(alive: bool = True, **changes: object) -> LocalDaemon:
    status = replace(Status(pid=1, settings={"a.b": "1", "c.d": "2"}), **changes)  # type: ignore[arg-type]
    return LocalDaemon(status, HealthVerdict(""), alive=alive)


@pytest.mark.parametrize(
    ("here", "local", "words"),
    [
        ({"a.b": "1", "c.d": "2"}, _local(), "lab.yaml, as the daemon has it."),
        ({"a.b": "1"}, _local(), "The daemon has other values of c.d."),
        ({"a.b": "3", "c.d": "2", "e.f": "4"}, _local(), "other values of a.b, e.f."),
        ({"a.b": "3"}, _local(settings={}), "lab.yaml, as the daemon has it."),
        ({"a.b": "3"}, _local(alive=False), "no daemon runs here"),
        ({}, LocalDaemon(None, HealthVerdict("")), "no daemon runs here"),
    ],
)
def test_the_settings_are_compared_with_those_the_daemon_has(
    here: dict[str, str], local: LocalDaemon, words: str
) -> None:
    (finding,) = judged_settings("lab.yaml", here, local)
    assert words in finding.text
    assert (finding.grade is Grade.WARN) == ("other values" in words)


def test_a_reload_that_was_refused_and_one_that_waits_for_a_restart_are_warnings() -> None:
    here = {"a.b": "1", "c.d": "2"}
    refused = _local(last_reload=Reload(result="refused", at=NOW.isoformat()))
    (finding,) = judged_settings("f", here, refused)
    assert (finding.grade, finding.command) == (Grade.WARN, "daylily-daemon reload --wait")
    waiting = _local(last_reload=Reload(result="applied", needs_restart=("aws.region",)))
    (finding,) = judged_settings("f", here, waiting)
    assert (finding.grade, finding.command) == (Grade.WARN, "systemctl restart daylily-daemon")
    assert "aws.region" in finding.text


# --- queues, clock, disks -------------------------------------------------------------------------


@dataclass(frozen=True)
class _Part:
    what: str
    is_left_alone: bool = False


async def _parts(*parts: _Part) -> AsyncIterator[_Part]:
    for part in parts:
        yield part


def test_what_init_would_make_is_one_finding_and_what_it_leaves_alone_another() -> None:
    async def work() -> Sequence[CheckResult]:
        made = _Part("create queue a"), _Part("create queue b")
        return await lacking(_parts(*made, _Part("leave the policy alone", is_left_alone=True)))

    missing, left = played(work)
    assert (missing.grade, missing.command) == (Grade.FAIL, "daylily-daemon init")
    assert "create queue a; create queue b" in missing.text
    assert (left.grade, left.text) == (Grade.WARN, "Leave the policy alone.")


@dataclass
class _Levels(MemoryQueues):
    levels: tuple[tuple[str, QueueLevel], ...] = ()

    async def depths(self) -> dict[str, QueueLevel]:
        return dict(self.levels)


def _of_queues(*levels: tuple[str, QueueLevel]) -> Sequence[CheckResult]:
    async def work() -> Sequence[CheckResult]:
        registry = MemoryRegistry()
        old = QueueLevel(waiting=1, oldest_at=NOW - timedelta(minutes=20), old_s=300)
        await registry.sign("head1/m/1", Status(owner="head1/m/1", queues={"old": old}), NOW)
        backend = a_backend(Table(), _Levels(levels=levels), registry=registry)
        return await judged_queues(backend, _parts())

    return played(work)


def test_dead_letters_and_old_messages_fail_and_few_young_ones_do_not() -> None:
    (finding,) = _of_queues(("q", QueueLevel(waiting=3, in_flight=1)))
    assert finding == ok("1 with their dead-letter queues, which are empty; 4 wait.")
    (finding,) = _of_queues(("q-dlq", QueueLevel(waiting=2, is_dead_letters=True)))
    assert (finding.grade, finding.command) == (Grade.FAIL, "daylily-daemon dlq list")
    (finding,) = _of_queues(("old", QueueLevel(waiting=1)))
    assert (finding.grade, "oldest 20 min" in finding.text) == (Grade.FAIL, True)


@pytest.mark.parametrize(
    ("skew_s", "grade", "words"),
    [
        (None, Grade.UNKNOWN, "did not say"),
        (0.3, Grade.OK, "0.3 s ahead of AWS."),
        (-9.9, Grade.OK, "9.9 s behind AWS."),
        (61.0, Grade.WARN, "61 s ahead of AWS"),
        (-299.0, Grade.FAIL, "behind AWS"),
    ],
)
def test_a_clock_is_judged_as_status_judges_it(
    skew_s: float | None, grade: Grade, words: str
) -> None:
    async def skew() -> float | None:
        return skew_s

    async def work() -> Sequence[CheckResult]:
        return await judged_clock(LoopClock(NOW), skew)

    (finding,) = played(work)
    assert (finding.grade, words in finding.text) == (grade, True)


@pytest.mark.parametrize(
    ("free", "needed", "short", "grade"),
    [
        (50, 10, "", Grade.OK),
        (15, 10, "", Grade.WARN),
        (5, 10, "The disk of /fsx has 5 GB left.", Grade.FAIL),
        (5, 0, "", Grade.OK),
    ],
)
def test_a_disk_is_judged_as_status_judges_it(
    free: int, needed: int, short: str, grade: Grade
) -> None:
    async def levels() -> dict[str, DiskLevel]:
        return {"/fsx": DiskLevel(free=free * 10**9, needed=needed * 10**9)}

    async def shortage() -> str:
        return short

    async def work() -> Sequence[CheckResult]:
        return await judged_disks(LoopClock(NOW), levels, shortage)

    (finding,) = played(work)
    assert finding.grade is grade
    assert (f"{free}.0 GB left" in finding.text) == (grade is not Grade.FAIL)


@pytest.mark.parametrize(
    ("arn", "words"),
    [
        ("arn:aws:sts::1:assumed-role/lab-head/i-0123", "role lab-head of account 1"),
        ("arn:aws:iam::1:user/ops/anna", "user ops/anna of account 1"),
        ("arn:aws:iam::1:root", "root of account 1"),
        ("", "somebody of account 1"),
    ],
)
def test_who_we_are_is_said_as_people_know_it(arn: str, words: str) -> None:
    assert named({"Arn": arn, "Account": "1"}) == words
