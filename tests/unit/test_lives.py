"""What every event makes of a workset, in every field: see ``tests/unit/lives.py``."""

from __future__ import annotations

import pytest

from daylily_daemon.domain.model import State
from tests.unit import lives

TOLD = dict(part.split("\n", 1) for part in lives.GOLDEN.read_text().strip().split("\n\n"))


@pytest.mark.parametrize("life", lives.LIVES, ids=lambda life: life.__name__)
def test_a_life_is_as_it_is_told(life: lives.Story) -> None:
    assert "\n".join(life().lines) == TOLD[f"== {life.__name__}"]


@pytest.mark.parametrize("state", State)
def test_every_command_makes_of_a_workset_what_is_told(state: State) -> None:
    assert "\n".join(lives.every_command(state).lines) == TOLD[f"== every command, {state}"]


def test_the_lives_that_are_told_are_those_that_are_lived() -> None:
    assert lives.told() == lives.GOLDEN.read_text()
