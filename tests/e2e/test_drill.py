"""``drill``: a daemon that is killed on purpose, and the runs that have to go on."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from daylily_daemon.domain.model import State
from tests.e2e.harness import Lab, until
from tests.e2e.incidents_of_daemons import HELD
from tests.e2e.keeper import kept_running

pytestmark = pytest.mark.timeout(300)


def test_a_daemon_that_is_killed_on_purpose_loses_no_run(lab: Lab) -> None:
    lab.pipeline("noting", run=HELD)
    with kept_running(lab):
        for id in ("one", "two"):
            lab.drop_sample(id)
            lab.wait_started(id, "1 run")
        refused = lab.run_cli("drill")
        assert (refused.code, "holds 2 worksets" in refused.words) == (2, True)
        drilled = lab.run_cli("drill", "--yes", "--json")
        assert drilled.code == 0, drilled
        assert drilled.json["good"] is True
        assert 0 < drilled.json["back_s"] < 90
        fates = {run["workset_id"]: (run["step"], run["fate"]) for run in drilled.json["runs"]}
        assert fates == dict.fromkeys(("one", "two"), ("run", "went on"))
        for id in ("one", "two"):
            lab.open_gate(id)
            lab.wait_for(id, State.COMPLETE)
        assert set(lab.evidence().values()) == {1}
        assert "every run went on" in lab.run_cli("drill", "--yes").words, "of none, too"


def test_where_nobody_starts_the_next_daemon_that_is_said(lab: Lab) -> None:
    lab.pipeline("noting", run=HELD)
    lab.start()
    lab.drop_sample("one")
    lab.wait_started("one", "1 run")
    drilled = lab.run_cli("drill", "--yes", "--timeout", "3")
    assert drilled.code == 4
    assert "one run not taken up" in drilled.words
    assert "systemctl start daylily-daemon" in drilled.words
    assert lab.running_jobs() == ["one 1 run"]
    assert lab.run_cli("drill", "--yes").code == 3, "there is none to kill"
    lab.start()
    lab.open_gate("one")
    lab.wait_for("one", State.COMPLETE)


def test_a_run_that_failed_meanwhile_did_not_go_on(lab: Lab) -> None:
    lab.pipeline("noting", run=f'[ "$attempt" = 1 ] && {{ {HELD}; exit 1; }}; sleep 1000')
    daemon = lab.start()
    lab.drop_sample("one")
    lab.wait_started("one", "1 run")

    def fail_and_go_on() -> None:
        daemon.process.wait()
        lab.open_gate("one")
        until(lambda: not lab.running_jobs())
        lab.start(wait=False)

    with ThreadPoolExecutor() as pool:
        beside = pool.submit(fail_and_go_on)
        drilled = lab.run_cli("drill", "--yes", "--json")
        beside.result()
    assert [run["fate"] for run in drilled.json["runs"]] == ["did not go on"]
    assert drilled.code == 1
    lab.wait_started("one", "2 run")
    assert lab.run_cli("cancel", "one", "--wait").code == 0
