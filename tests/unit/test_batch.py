"""The same asked of many: which they are, what it would come to, and an outcome for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daylily_daemon.application import batch
from daylily_daemon.application.backend import Backend
from daylily_daemon.application.batch import Chosen, Question, Unasked
from daylily_daemon.application.errors import NotFound
from daylily_daemon.application.queries import Listing
from daylily_daemon.application.requests import Followed
from daylily_daemon.domain.commands import FITS, apply
from daylily_daemon.domain.errors import Transient
from daylily_daemon.domain.listing import Position, Query
from daylily_daemon.domain.model import (
    Answer,
    Ask,
    Cancel,
    Command,
    CommandEffect,
    Ignore,
    Retry,
    State,
    WorksetId,
)
from daylily_daemon.domain.workset import Workset
from daylily_daemon.ports import READ_ROWS, Page
from tests.fakes.store import MemoryCatalogue, MemoryTrail, Table
from tests.made import NOW, a_workset
from tests.unit.backends import MemoryQueues, a_backend, played, stored


@dataclass
class CountingCatalogue(MemoryCatalogue):
    """Counts the pages that are read."""

    table: Table
    pages: int = 0

    def __post_init__(self) -> None:
        super().__init__(self.table)

    async def page(self, query: Query, *, after: Position | None = None, limit: int) -> Page:
        self.pages += 1
        return await super().page(query, after=after, limit=limit)


def _chosen(worksets: Sequence[Workset], listing: Listing, ask: Ask, limit: int) -> Chosen:
    table = Table()

    async def play() -> Chosen:
        await stored(table, *worksets)
        return await batch.matching(a_backend(table), listing, ask, limit)

    return played(play)


@pytest.mark.parametrize("ask", [Cancel(), Retry(), Ignore()], ids=str)
def test_a_filter_without_a_state_finds_what_the_command_is_for(ask: Ask) -> None:
    worksets = [a_workset(f"w-{state}", state) for state in State]
    found = _chosen(worksets, Listing(), ask, 100)
    assert {ws.state for ws in found.worksets} == FITS[type(ask)]
    assert not found.more


def test_a_filter_with_a_state_finds_just_that_and_no_more_than_its_limit() -> None:
    worksets = [a_workset(f"w{n}", State.COMPLETE) for n in range(5)]
    found = _chosen(worksets, Listing(states=(State.COMPLETE,)), Retry(), 3)
    assert (len(found.worksets), found.more) == (3, True)
    assert not _chosen(worksets, Listing(states=(State.COMPLETE,)), Retry(), 5).more


def test_a_filter_reads_a_bounded_number_of_pages_and_says_that_there_is_more() -> None:
    table = Table()
    aside = [a_workset(f"w{n:05}", State.FAILED, error="no") for n in range(READ_ROWS + 1)]
    catalogue = CountingCatalogue(table)
    backend = replace(a_backend(table), catalogue=catalogue)

    async def play(listing: Listing) -> Chosen:
        return await batch.matching(backend, listing, Retry(), 100)

    async def fill() -> None:
        await stored(table, *aside, a_workset("z", State.CANCELED))

    played(fill)
    found = played(lambda: play(Listing(code="WS-RES-001")))
    assert (found.worksets, found.more) == ([], False)
    assert catalogue.pages == 2
    catalogue.pages = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch, "PAGES", 1)
        assert played(lambda: play(Listing(code="WS-RES-001"))).more
    assert catalogue.pages == 1


def test_an_id_that_is_not_there_is_an_error_before_anything_is_asked() -> None:
    table, queues = Table(), MemoryQueues()

    async def play() -> Chosen:
        await stored(table, a_workset("b"), a_workset("a"))
        return await batch.named(a_backend(table, queues), ["b", "a", "b"])

    assert [ws.id for ws in played(play).worksets] == ["b", "a"]
    with pytest.raises(NotFound, match="There is no workset c"):
        played(lambda: batch.named(a_backend(table, queues), ["a", "c"]))
    assert queues.sent == []


@settings(max_examples=30)
@given(st.sampled_from(State), st.sampled_from([Cancel(), Retry(), Ignore()]))
def test_what_is_foreseen_is_what_a_daemon_decides(state: State, ask: Ask) -> None:
    table, queues = Table(), MemoryQueues()
    ws = a_workset("w", state)

    async def play() -> Followed:
        return batch.foreseen(a_backend(table, queues), ws, Question(ask=ask, by="me"))

    foreseen = played(play)
    decided = apply(ws, foreseen.command, NOW)
    assert (foreseen.answer, foreseen.workset) == (decided.answers[-1], decided.workset)
    assert queues.sent == []


# --- asking each --------------------------------------------------------------------------------------


@dataclass
class PickyQueues(MemoryQueues):
    """Takes no command of one workset."""

    refused: str = ""

    async def send(self, command: Command) -> None:
        if command.workset_id == self.refused:
            raise Transient("SQS is away.")
        await super().send(command)


@dataclass
class Answering(MemoryTrail):
    """Has answered what was asked of some."""

    answered: frozenset[str]
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(Table())

    async def answer_to(self, id: WorksetId, command_id: str) -> Answer | None:
        self.asked.append(id)
        await anyio.sleep(0.05)  # as a call takes
        if id not in self.answered:
            return None
        effect = CommandEffect.APPLIED
        return Answer(command_id=command_id, effect=effect, text="done", at=NOW)


Outcomes = dict[str, Followed | Unasked]


def _asked(backend: Backend, worksets: Sequence[Workset], question: Question) -> Outcomes:
    outcomes: Outcomes = {}

    def told(outcome: Followed | Unasked) -> None:
        assert outcome.command.workset_id not in outcomes
        outcomes[outcome.command.workset_id] = outcome

    played(lambda: batch.ask_each(backend, worksets, question, told))
    return outcomes


WORKSETS = [a_workset(id) for id in "abc"]


@pytest.mark.reported(
    "E", "the first of many that fails ends it (azure-cli#2472, process-compose#199)"
)
def test_one_that_cannot_be_asked_keeps_no_other_from_being_asked() -> None:
    queues = PickyQueues(refused="b")
    outcomes = _asked(a_backend(Table(), queues), WORKSETS, Question(ask=Cancel(), by="me"))
    assert sorted(outcomes) == ["a", "b", "c"]
    lost = outcomes["b"]
    assert isinstance(lost, Unasked)
    assert not lost.sent
    assert sorted(command.workset_id for command in queues.sent) == ["a", "c"]
    assert len({command.id for command in queues.sent}) == 2


def test_each_has_its_own_answer_and_the_time_limit_is_one_for_all() -> None:
    many = [a_workset(f"w{n:03}") for n in range(200)]
    trail = Answering(frozenset(f"w{n:03}" for n in range(199)))
    backend = replace(a_backend(Table()), trail=trail)
    began, ended = list[float](), list[float]()

    async def play() -> Outcomes:
        outcomes: Outcomes = {}
        began.append(backend.clock.now().timestamp())
        question = Question(ask=Ignore(), by="me", wait=True, timeout_s=30.0)
        await batch.ask_each(
            backend, many, question, lambda o: outcomes.update({o.command.workset_id: o})
        )
        ended.append(backend.clock.now().timestamp())
        return outcomes

    outcomes = played(play)
    assert len(outcomes) == 200
    unanswered = [id for id, o in outcomes.items() if isinstance(o, Followed) and not o.answer]
    assert unanswered == ["w199"]
    assert timedelta(seconds=ended[0] - began[0]) <= timedelta(seconds=31)


def test_every_answer_is_looked_for_at_least_once_though_the_time_is_up() -> None:
    many = [a_workset(f"w{n:03}") for n in range(3 * batch.AT_ONCE)]
    trail = Answering(frozenset({many[-1].id}))
    question = Question(ask=Ignore(), by="me", wait=True, timeout_s=0.0)
    outcomes = _asked(replace(a_backend(Table()), trail=trail), many, question)
    assert set(trail.asked) == {ws.id for ws in many}
    last = outcomes[many[-1].id]
    assert isinstance(last, Followed)
    assert last.answer is not None
