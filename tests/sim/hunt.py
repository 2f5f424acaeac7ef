"""Which driver catches which mutant: the evidence behind docs/reliability.md."""

from __future__ import annotations

import gc
import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import combinations

import structlog

from tests.sim.mutants import Mutant
from tests.sim.stories import STORIES, crash_points, play_with_deaths
from tests.sim.storms import STORM, play_seed, play_troubles
from tests.sim.troubles import BY_NAME
from tests.sim.wire import Death


@contextmanager
def quietly() -> Iterator[None]:
    """Logs of a hundred thousand calls help nobody, nor does a search for garbage in all there was before."""
    before, thresholds = structlog.get_config(), gc.get_threshold()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    gc.freeze()
    gc.set_threshold(10_000, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()
        structlog.configure(**before)


def by_no_fault(mutant: Mutant) -> str:
    """Return what breaks without any fault at all."""
    for story in STORIES.values():
        outcome = play_with_deaths(story.with_bug(mutant.plant))
        if outcome.broken:
            return f"{story.name}: {outcome.broken[0]}"
    return ""


def by_crash_points(mutant: Mutant) -> str:
    """Return the first crash point that shows ``mutant``."""
    for name in ("deserted", "canceled", "failing"):
        story = STORIES[name].with_bug(mutant.plant)
        for death in crash_points(story):
            outcome = play_with_deaths(story, frozenset([death]))
            if outcome.broken:
                return f"{name}, {_when(death)}: {outcome.broken[0]}"
    return ""


def by_cuts(mutant: Mutant, cut_s: float = 200.0) -> str:
    """Return the first effect at which being cut off for a while shows ``mutant``."""
    story = STORIES["shared"].with_bug(mutant.plant)
    for death in crash_points(story, cut_s):
        outcome = play_with_deaths(story, frozenset([death]))
        if outcome.broken:
            return f"shared, cut off {_when(death)[7:]}: {outcome.broken[0]}"
    return ""


def by_seeds(mutant: Mutant, seeds: int = 75) -> str:
    """Return the first seed that shows ``mutant``."""
    story = replace(STORM, patches=mutant.plant)
    for seed in range(seeds):
        outcome = play_seed(seed, story)
        if outcome.broken:
            return f"seed {seed}: {outcome.broken[0]}"
    return ""


def by_troubles(mutant: Mutant, seeds: int = 8) -> str:
    """Return the first seed with which the troubles that should show ``mutant`` do."""
    kinds = [BY_NAME[name] for name in mutant.shown_by]
    story = replace(STORM, patches=mutant.plant)
    for seed in range(1, seeds + 1) if kinds else ():
        outcome = play_troubles(kinds, seed, story)
        if outcome.broken:
            return f"seed {seed}: {outcome.broken[0]}"
    return ""


def pairs_of(points: list[Death], count: int, seed: int = 1) -> list[frozenset[Death]]:
    """Return ``count`` different pairs of crash points, spread over all of them, or all there are."""
    pairs = [frozenset(pair) for pair in combinations(points, 2)]
    return random.Random(seed).sample(pairs, min(count, len(pairs)))


def _when(death: Death) -> str:
    return f"killed {'after' if death.after else 'before'} effect {death.at}"


DRIVERS = {
    "no fault": by_no_fault,
    "its trouble alone": by_troubles,
    "cut off at every effect": by_cuts,
    "killed at every effect": by_crash_points,
    "seeds": by_seeds,
}


def caught(mutant: Mutant) -> str:
    """Return the first evidence any driver finds, the likeliest driver first; empty if it lives."""
    likeliest = {"its trouble alone": by_troubles} if mutant.shown_by else {}
    for name, driver in {**likeliest, **DRIVERS}.items():
        if evidence := driver(mutant):
            return f"{name}: {evidence}"
    return ""
