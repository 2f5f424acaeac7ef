"""Kill, or cut off, before and after every effect of a story; then everything must settle all the same."""

from __future__ import annotations

import os

import pytest

from tests.sim.hunt import pairs_of, quietly
from tests.sim.stories import STORIES, crash_points, play_with_deaths
from tests.sim.wire import Death

pytestmark = pytest.mark.timeout(3600)  # the longest by far is every pair of crash points
PAIRS = int(os.environ.get("PAIRS", "150"))


def failures_of(name: str, deaths: list[frozenset[Death]]) -> list[str]:
    found = []
    with quietly():
        for struck in deaths:
            outcome = play_with_deaths(STORIES[name], struck)
            if outcome.broken:
                words = " ".join(f"--strike {d.at}{'a' if d.after else 'b'}" for d in struck)
                replay = f"python -m tests.sim {name} {words}"
                found.append(f"{outcome.broken[:3]}; replay it: {replay}")
    return found


@pytest.mark.parametrize(
    "name", ["plain", "failing", "canceled", "busy", "deserted", "dropped", "hasty", "put_aside"]
)
def test_killed_before_and_after_every_effect_nothing_is_lost_or_run_twice(name: str) -> None:
    points = crash_points(STORIES[name])
    assert len(points) > 40
    assert failures_of(name, [frozenset([point]) for point in points]) == []


@pytest.mark.parametrize("name", ["failing", "canceled"])
def test_killed_twice_in_one_story_nothing_is_lost_or_run_twice(name: str) -> None:
    assert failures_of(name, pairs_of(crash_points(STORIES[name]), PAIRS)) == []


def test_cut_off_at_every_effect_the_other_daemon_takes_over_and_nothing_runs_twice() -> None:
    points = crash_points(STORIES["shared"], cut_s=200.0)
    assert failures_of("shared", [frozenset([point]) for point in points]) == []


def test_a_quiet_day_tells_everyone_exactly_once() -> None:
    with quietly():
        broken = {name: play_with_deaths(story).broken for name, story in STORIES.items()}
    assert not any(broken.values()), broken
