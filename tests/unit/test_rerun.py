"""A rerun has a name of its own, copies first and submits then, and leaves the first workset as it is."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from daylily_daemon.application import rerun
from daylily_daemon.application.errors import Invalid, NoEffect, NotFound
from daylily_daemon.domain.errors import Permanent
from daylily_daemon.domain.model import Command, Priority, State, Submit
from daylily_daemon.domain.workset import Request, Workset
from tests.fakes.store import Table
from tests.made import a_workset
from tests.unit.backends import MemoryQueues, a_backend, played, stored


def _played(
    worksets: Sequence[Workset], text: str, name: str = "", meanwhile: Workset | None = None
) -> tuple[list[Command], list[tuple[Request, str]], Table]:
    """Return what was sent and copied; ``meanwhile`` comes up while files are copied."""
    table, queues, copied = Table(), MemoryQueues(), list[tuple[Request, str]]()

    async def copy(source: Request, uri: str) -> None:
        copied.append((source, uri))
        if meanwhile:
            await stored(table, meanwhile)

    async def play() -> None:
        await stored(table, *worksets)
        backend = a_backend(table, queues)
        wanted = await rerun.rerun_of(backend, text, name)
        await rerun.rerun(backend, wanted, "me", copy)

    try:
        played(play)
    finally:
        SENT[:] = queues.sent
    return queues.sent, copied, table


SENT: list[Command] = []
"""By the last rerun, one that failed too."""


@pytest.mark.parametrize("state", sorted(rerun.COPIED))
def test_the_files_are_copied_and_submitted_for_the_same_customer(state: State) -> None:
    first = a_workset("HG002", state, customer_id="lab", priority=Priority.LOW, bucket="lab")
    (command,), copied, table = _played([first], "HG002", "again")
    assert copied == [(first.request, "s3://lab/worksets/again/")]
    assert command.workset_id == "again"
    assert command.ask == Submit(
        bucket="lab",
        prefix="worksets/again/",
        customer_id="lab",
        priority=Priority.LOW,
        rerun_of="HG002",
    )
    kept = table.worksets[first.id]
    assert (kept.state, kept.request, kept.last_seq) == (state, first.request, first.last_seq)


@pytest.mark.parametrize(
    ("id", "of", "name"),
    [
        ("HG002", "", "HG002-2"),
        ("HG002-2", "HG002", "HG002-3"),
        ("HG002-9", "HG002", "HG002-10"),
        ("run-2026", "", "run-2026-2"),
        ("other-7", "HG002", "other-7-2"),
        ("a.b-1", "a.b", "a.b-2"),
        ("axb-1", "a.b", "axb-1-2"),
    ],
)
def test_a_rerun_without_a_name_gets_the_next_number(id: str, of: str, name: str) -> None:
    assert rerun.next_name(a_workset(id, rerun_of=of)) == name


def test_a_name_that_is_taken_is_refused_before_and_after_the_copy() -> None:
    first, second = a_workset("HG002", State.COMPLETE), a_workset("HG002-2", State.FAILED)
    with pytest.raises(NoEffect, match=r"a workset HG002-2 already; it is failed.*--as"):
        _played([first, second], "HG002")
    assert SENT == []
    with pytest.raises(NoEffect, match="a workset HG002-2 already"):
        _played([first], "HG002", meanwhile=second)
    assert SENT == []


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (State.READY, "it first. Nothing was copied"),
        (State.IN_PROGRESS, "wait for its end"),
        (State.RETRYING, "wait for its end"),
        (State.DELETED, "HG002 is deleted. Nothing was copied"),
    ],
)
def test_what_has_not_ended_or_is_given_up_is_not_run_again(state: State, words: str) -> None:
    with pytest.raises(NoEffect, match=words):
        _played([a_workset("HG002", state)], "HG002")


def test_a_name_that_is_no_id_and_a_workset_that_is_not_there_are_sentences() -> None:
    first = a_workset("x" * 79, State.COMPLETE)
    with pytest.raises(Invalid, match="is no workset id"):
        _played([first], first.id)
    with pytest.raises(Invalid, match="is no workset id"):
        _played([first], first.id, "../x")
    with pytest.raises(NotFound, match="no workset HG003"):
        _played([first], "HG003")


def test_nothing_is_submitted_of_a_copy_that_failed() -> None:
    table, queues = Table(), MemoryQueues()

    async def play() -> None:
        await stored(table, a_workset("HG002", State.FAILED))
        backend = a_backend(table, queues)

        async def fail(source: Request, uri: str) -> None:
            raise Permanent("S3 says no.")

        await rerun.rerun(backend, await rerun.rerun_of(backend, "HG002"), "me", fail)

    with pytest.raises(Permanent, match="S3 says no"):
        played(play)
    assert queues.sent == []
