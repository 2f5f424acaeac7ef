"""Twenty incidents, staged for real: one command names cause and remedy, an alert fires, all is well after.

A remedy that is a command of ours is run as it is printed. What is done outside (new credentials, a clock
that is set, a receiver that is back) the stories do.
"""

from __future__ import annotations

from contextlib import ExitStack, suppress
from pathlib import Path
from time import sleep
from typing import Final

import pytest

from daylily_daemon.domain.model import State
from daylily_daemon.domain.problems import ProblemKind
from tests.e2e import incidents_of_daemons, incidents_of_worksets
from tests.e2e.harness import Lab, until
from tests.e2e.incident import INCIDENTS, Incident, Scene, found
from tests.e2e.troubled_aws import troubled_aws

pytestmark = pytest.mark.timeout(300)

TOLD_IN: Final = (incidents_of_daemons, incidents_of_worksets)
MOST_CALLS: Final = 20
LOOK_S: Final = 2.0
ALERT_WITHIN_S: Final = 90.0
"""How many wait in a state is counted once a minute."""


def test_there_are_twenty() -> None:
    assert sorted(one.number for one in INCIDENTS) == [*range(1, 21)], TOLD_IN
    assert [one.number for one in INCIDENTS if not one.alert] == [13]


@pytest.mark.parametrize("incident", INCIDENTS, ids=lambda incident: incident.name)
def test_an_incident(lab: Lab, tmp_path: Path, incident: Incident) -> None:
    with ExitStack() as outside:
        scene = Scene(lab, tmp_path, outside)
        story = incident.story(scene)
        problem = scene.sees(next(story))
        if incident.alert:
            _wakes_somebody(scene, incident)
        with suppress(StopIteration):
            while True:
                problem = scene.sees(story.send(problem))
        scene.is_well()


def _wakes_somebody(scene: Scene, incident: Incident) -> None:
    def fires() -> bool:
        fired = scene.fires(incident.alert, rising=incident.rising)
        sleep(0 if fired else LOOK_S)  # promtool takes a core
        return fired

    until(fires, ALERT_WITHIN_S, lambda: f"{incident.alert} does not fire.")


# --- and what is no incident ----------------------------------------------------------------------


def test_a_look_costs_few_calls(lab: Lab) -> None:
    """However much is there: each state is counted in one call, and all daemons are in one."""
    lab.start()
    with troubled_aws(lab.url) as aws:
        told = lab.run_cli("status", "--set", f"aws.endpoint_url={aws.url}")
        assert (told.code, 0 < aws.asked <= MOST_CALLS) == (0, True), aws.asked


def test_a_reload_of_nobody_is_refused(lab: Lab) -> None:
    assert lab.start().terminate() == 0
    gone = lab.run_cli("reload")
    assert (gone.code, "No daemon runs here" in gone.words) == (3, True)


def test_a_drained_daemon_starts_nothing_until_it_is_resumed(lab: Lab, tmp_path: Path) -> None:
    lab.pipeline("noting", run=incidents_of_daemons.HELD)
    with ExitStack() as outside:
        scene = Scene(lab, tmp_path, outside)
        daemon = scene.start()
        lab.drop_sample("before")
        lab.wait_started("before", "1 run")
        drained = lab.run_cli("drain", "--reason", "new kernel")
        assert (drained.code, "starts nothing new" in drained.words) == (0, True)
        lab.drop_sample("after")
        lab.wait_until("after", lambda ws: ws.plan)
        problem = scene.sees(
            found("Drained by cli:", "new kernel", "resume", kind=ProblemKind.DRAINING)
        )
        assert "new kernel" in lab.run_cli("explain", "after").words
        assert daemon.terminate() == 0
        scene.start()
        lab.open_gate("before")
        lab.wait_for("before", State.COMPLETE)
        emptied = lab.run_cli("drain", "--until-empty", "--timeout", "50")
        assert emptied.code == 0
        _still_waits(lab, "after")
        assert scene.do(problem).code == 0
        lab.open_gate("after")
        lab.wait_for("after", State.COMPLETE)
        scene.is_well()


def _still_waits(lab: Lab, id: str) -> None:
    ws = lab.load(id)
    assert ws is not None
    assert ws.state is State.READY


def test_a_workset_that_has_to_have_results_fails_without_them(lab: Lab) -> None:
    incidents_of_worksets.exporting(lab, "mkdir -p {results_dir}", results="required")
    lab.start()
    lab.drop_sample("empty")
    ws = lab.wait_for("empty", State.FAILED)
    assert ws.failure is not None
    assert ws.failure.code == "WS-OUT-001"
    assert "retry --from-start" in lab.run_cli("explain", "empty").words
