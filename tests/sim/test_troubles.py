"""Each kind of trouble alone, on an otherwise quiet day: what it breaks has no other cause."""

from __future__ import annotations

import random

import pytest

from tests.sim.hunt import quietly
from tests.sim.knobs import CHOICES, Knobs, drawn
from tests.sim.storms import play_seed, play_troubles
from tests.sim.troubles import BY_NAME, DRAWN, KINDS, OFF, Trouble

SEEDS = (1, 2)
TOGETHER = (
    ("delete_by_hand", "drop_again"),
    ("delete_by_hand", "drop_again_unheard"),
    ("lose_a_token", "kill"),
    ("remove_the_pipeline", "kill"),
    ("throttle_everybody", "kill", "unwant_an_input"),
    ("ask_too_much", "replace_the_host"),
    ("lose_a_channel", "kill"),
)
"""Those that broke something once, or would if the other did not happen."""


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in OFF], ids=lambda k: k.__name__)
def test_no_single_kind_of_trouble_breaks_a_promise(kind: Trouble) -> None:
    with quietly():
        broken = {seed: play_troubles([kind], seed).broken[:3] for seed in SEEDS}
    assert not any(broken.values()), broken


@pytest.mark.parametrize("names", TOGETHER, ids="-".join)
def test_no_two_kinds_of_trouble_break_a_promise_together(names: tuple[str, ...]) -> None:
    kinds = [BY_NAME[name] for name in names]
    with quietly():
        broken = {seed: play_troubles(kinds, seed).broken[:3] for seed in SEEDS}
    assert not any(broken.values()), broken


def test_every_kind_is_drawn_and_says_what_it_is() -> None:
    assert len(KINDS) == len(set(KINDS)) >= 40
    assert set(DRAWN) == set(KINDS) - OFF
    assert [kind.__name__ for kind in KINDS if not (kind.__doc__ or "").endswith(".")] == []


def test_every_value_of_every_knob_is_drawn_by_some_seed() -> None:
    found = [drawn(random.Random(f"knobs of {seed}")) for seed in range(500)]
    missing = {
        (name, value)
        for name, values in CHOICES.items()
        for value in values
        if all(getattr(knobs, name) != value for knobs in found)
    }
    assert missing == set()


def test_a_seed_says_which_knobs_and_troubles_it_drew() -> None:
    with quietly():
        outcome = play_seed(3)
    knobs, *troubles = outcome.drawn
    assert knobs == str(drawn(random.Random("knobs of 3"))) != str(Knobs())
    names = {kind.__name__ for kind in KINDS}
    assert troubles
    assert {line.rsplit(" ", 1)[1] for line in troubles} <= names
