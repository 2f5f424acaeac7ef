"""A simulation that lets a planted bug live is a defect."""

from __future__ import annotations

import pytest

from tests.sim.hunt import caught, quietly
from tests.sim.mutants import MUTANTS, Mutant


def test_there_are_enough_mutants() -> None:
    assert len(MUTANTS) >= 20
    assert len({m.name for m in MUTANTS}) == len(MUTANTS)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_every_mutant_is_caught(mutant: Mutant) -> None:
    with quietly():
        assert caught(mutant), f"{mutant.name} lives: {mutant.bug}"
