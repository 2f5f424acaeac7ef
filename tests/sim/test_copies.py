"""A copy made by the short way is the copy that ``dataclasses.replace`` makes, and errors are the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from daylily_daemon.domain import lifecycle
from daylily_daemon.domain.model import Record, State
from daylily_daemon.domain.workset import Workset
from tests.sim import copies, stories
from tests.sim.hunt import quietly
from tests.sim.planting import put


def _values() -> list[Any]:
    """Return every kind of value that a story leaves in its table."""
    found: list[Any] = []
    original = stories.outcome_of

    def keep(sim: Any, **fields: Any) -> Any:
        table = sim.world.table
        found.extend(table.worksets.values())
        found.extend(row for rows in table.records.values() for row in rows)
        return original(sim, **fields)

    with quietly(), put((stories, "outcome_of", keep)):
        stories.play_with_deaths(stories.STORIES["failing"])
    return found


def test_a_copy_equals_that_of_the_original_in_every_field() -> None:
    values = _values()
    assert {type(value) for value in values} == {Workset, Record}
    for value in values:
        for each in dataclasses.fields(value):
            same = {each.name: getattr(value, each.name)}
            assert copies.replace(value, **same) == dataclasses.replace(value, **same) == value
    changed = copies.replace(values[0], state=State.CANCELED, version=77)
    assert changed == dataclasses.replace(values[0], state=State.CANCELED, version=77)
    assert values[0].version != 77


@pytest.mark.parametrize("make", [copies.replace, dataclasses.replace])
def test_a_field_that_does_not_exist_is_refused(make: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'nonsense'"):
        make(_values()[0], nonsense=1)


@dataclass(frozen=True, slots=True)
class Derived:
    n: int
    twice: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "twice", 2 * self.n)


@dataclass
class Loose:
    n: int


@pytest.mark.parametrize("value", [Derived(1), Loose(1)])
def test_what_is_more_than_its_slots_is_made_by_its_constructor(value: Any) -> None:
    assert copies.replace(value, n=5) == type(value)(5)


def test_the_program_makes_its_copies_so_only_while_a_story_is_played() -> None:
    assert lifecycle.replace is dataclasses.replace  # type: ignore[attr-defined]
    with copies.quick():
        assert lifecycle.replace is copies.replace  # type: ignore[attr-defined]
    assert lifecycle.replace is dataclasses.replace  # type: ignore[attr-defined]
