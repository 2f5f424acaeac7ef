"""Two hundred quiet hours raise no problem that lasts, and wake nobody; an hour without AWS does."""

from __future__ import annotations

import pytest

from daylily_daemon.domain.model import State
from tests.sim.hunt import quietly
from tests.sim.quiet import cut_off, quiet_hours

HOURS = 200.0


@pytest.mark.timeout(1800)
def test_lost_answers_and_slow_calls_raise_no_problem_that_lasts_and_wake_nobody() -> None:
    with quietly():
        watch, sim = quiet_hours(HOURS)
    assert watch.lasting == set()
    assert watch.pages == set()
    states = [ws.state for ws in sim.world.table.worksets.values()]
    assert len(states) >= HOURS / 4
    assert states.count(State.COMPLETE) >= len(states) - 4, "the last ones still run"
    assert not {State.FAILED, State.ERROR}.intersection(states)


def test_the_same_watch_sees_a_daemon_that_is_cut_off() -> None:
    with quietly():
        watch, _ = quiet_hours(1.0, weather=cut_off())
    assert watch.lasting
    assert watch.pages
