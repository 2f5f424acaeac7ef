"""Storms: kills, cuts, pauses, lost and late requests, lost answers, stale indexes, skewed clocks."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.sim.hunt import quietly
from tests.sim.stories import STORIES, crash_points, play_with_deaths
from tests.sim.storms import play_seed
from tests.sim.wire import Death

SEEDS = int(os.environ.get("SEEDS", "2500"))
BLOCK = 20
EVERY_NTH_TWICE = 10
POINTS = {name: len(crash_points(STORIES[name])) // 2 for name in ("failing", "canceled")}


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_after_any_storm_everything_settles_and_nothing_ran_twice(first: int) -> None:
    found = {}
    with quietly():
        for seed in range(first, min(first + BLOCK, SEEDS)):
            outcome = play_seed(seed)
            if outcome.broken:
                found[seed] = (outcome.broken[:3], f"replay it: python -m tests.sim --seed {seed}")
    assert found == {}


@pytest.mark.parametrize("seed", range(0, min(SEEDS, 40), EVERY_NTH_TWICE))
def test_the_same_seed_tells_the_same_story(seed: int) -> None:
    with quietly():
        one, two = play_seed(seed), play_seed(seed)
    assert one.history == two.history
    assert one.effects == two.effects
    assert one.virtual_s == two.virtual_s


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.sampled_from(sorted(POINTS)),
    strikes=st.lists(
        st.tuples(st.integers(0, 80), st.booleans(), st.sampled_from([0.0, 20.0, 200.0])),
        max_size=5,
    ),
)
def test_no_combination_of_strikes_breaks_a_promise(
    name: str, strikes: list[tuple[int, bool, float]]
) -> None:
    struck = frozenset(Death(at % POINTS[name], after, cut_s) for at, after, cut_s in strikes)
    with quietly():
        assert play_with_deaths(STORIES[name], struck).broken == []
