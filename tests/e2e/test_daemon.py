"""The daemon as a process: how it ends, comes back and reloads. How it starts is in test_start."""

from __future__ import annotations

import re
import shlex
import signal

import pytest

from daylily_daemon.domain.model import State
from daylily_daemon.domain.workset import Workset
from tests.e2e.harness import Daemon, Lab, until

BOTH_RUNNERS = pytest.mark.parametrize("runner", ["process", "tmux"])
GATED = {"stage": "", "run": 'while [ ! -e "$gate" ]; do sleep 0.1; done', "export": ""}
EACH_STEP_ONCE = {f"long 1 {step}": 1 for step in GATED}


def _with_a_run_in_progress(lab: Lab, runner: str) -> Daemon:
    """Start a daemon and a workset whose step ``run`` lasts until its gate is opened."""
    lab.configure(runner={"kind": runner})
    lab.pipeline("noting", **GATED)
    daemon = lab.start()
    lab.drop_sample("long")
    lab.wait_started("long", "1 run")
    return daemon


def _adopted(ws: Workset) -> bool:
    return ws.state is State.IN_PROGRESS and ws.owner is not None


# --- its end, and the next start ---------------------------------------------------------------------


@BOTH_RUNNERS
def test_sigterm_lets_the_run_go_on_and_the_next_start_picks_it_up(lab: Lab, runner: str) -> None:
    daemon = _with_a_run_in_progress(lab, runner)
    assert daemon.terminate() == 0
    assert daemon.said("stopped")[-1]["in_time"] is True
    alone = lab.load("long")
    assert alone is not None
    assert (alone.state, alone.owner, alone.job) == (State.IN_PROGRESS, None, "long.1.run")
    assert lab.running_jobs() == ["long 1 run"]
    lab.start()
    lab.wait_until("long", _adopted)
    lab.open_gate("long")
    lab.wait_for("long", State.COMPLETE)
    assert lab.evidence() == EACH_STEP_ONCE
    assert set(lab.exit_codes().values()) == {0}


@BOTH_RUNNERS
def test_a_run_outlives_kill_9_and_the_next_start_takes_its_lease_back(
    lab: Lab, runner: str
) -> None:
    daemon = _with_a_run_in_progress(lab, runner)
    daemon.kill()
    held = lab.load("long")
    assert held is not None
    assert held.owner is not None
    assert lab.running_jobs() == ["long 1 run"]
    lab.start()
    back = lab.wait_told("long", "is back and goes on with it")
    assert back.state is State.IN_PROGRESS
    lab.open_gate("long")
    lab.wait_for("long", State.COMPLETE)
    assert lab.evidence() == EACH_STEP_ONCE
    assert set(lab.exit_codes().values()) == {0}


def test_a_run_that_ended_while_no_daemon_was_there_is_settled_by_the_next_start(lab: Lab) -> None:
    _with_a_run_in_progress(lab, "process").kill()
    lab.open_gate("long")
    until(lambda: not lab.running_jobs())
    lab.start()
    lab.wait_for("long", State.COMPLETE)
    assert lab.evidence() == EACH_STEP_ONCE


def test_a_run_on_a_machine_that_is_gone_waits_for_somebody_who_knows_it(lab: Lab) -> None:
    """The machine is made up: its job has ended before the daemon comes that cannot see it."""
    daemon = _with_a_run_in_progress(lab, "process")
    assert daemon.terminate() == 0
    lab.open_gate("long")
    until(lambda: lab.running_jobs() == [])
    lab.aws("dynamodb").update_item(
        TableName=lab.settings["tables"]["worksets"],
        Key={"workset_id": {"S": "long"}},
        UpdateExpression="SET #run.steps[1].#scope = :s",
        ExpressionAttributeNames={"#run": "run", "#scope": "scope"},
        ExpressionAttributeValues={":s": {"S": "host:terminated"}},
    )
    lab.start()
    lab.open_gate("other")
    lab.wait_for(lab.drop_sample("other"), State.COMPLETE)
    why = lab.run_cli("explain", "long").words
    assert "One on host:terminated picks it up by itself" in why
    assert "`daylily-daemon retry long --host-gone`" in why
    assert lab.run_cli("retry", "long", "--host-gone").code == 0
    lab.wait_for("long", State.COMPLETE)
    assert lab.evidence("long") == {"long 1 stage": 1, "long 1 run": 1} | {
        f"long 2 {step}": 1 for step in ("run", "export")
    }
    told = " ".join(record.message for record in lab.trail("long"))
    assert "vouches that host:terminated no longer exists" in told


def test_a_second_sigterm_changes_nothing(lab: Lab) -> None:
    daemon = _with_a_run_in_progress(lab, "process")
    daemon.send(signal.SIGTERM)
    daemon.wait_said("stopping")
    daemon.send(signal.SIGTERM)
    daemon.send(signal.SIGHUP)
    assert daemon.ended() == 0
    assert lab.running_jobs() == ["long 1 run"]
    alone = lab.load("long")
    assert alone is not None
    assert alone.owner is None


def test_the_tmux_command_that_show_prints_names_a_session_that_is_there(lab: Lab) -> None:
    _with_a_run_in_progress(lab, "tmux")
    shown = lab.run_cli("show", "long", COLUMNS="80")
    found = re.search(r"^watch it: (tmux .*)$", shown.stdout, re.MULTILINE)
    assert found, shown.stdout
    command = shlex.split(found[1])
    assert command[:3] == ["tmux", "-S", lab.state.tmux_socket]
    assert command[3:5] == ["attach", "-t"]
    assert lab.tmux("has-session", "-t", command[5]).returncode == 0
    assert lab.tmux("has-session", "-t", command[5][:-1]).returncode == 1
    lab.open_gate("long")
    lab.wait_for("long", State.COMPLETE)
    assert "watch it" not in lab.run_cli("show", "long").stdout


# --- reload ------------------------------------------------------------------------------------------


def test_sighup_applies_new_settings_and_a_new_pipeline(lab: Lab) -> None:
    lab.configure(daemon={"max_worksets": 0})
    daemon = lab.start()
    lab.drop_sample("patient")
    lab.wait_until("patient", lambda ws: ws.plan)
    assert not lab.evidence()
    lab.configure(daemon={"max_worksets": 3}, pipelines={"default": "later"})
    lab.pipeline("later", run="")
    daemon.send(signal.SIGHUP)
    told = daemon.wait_said("reloaded")
    assert set(told["changed"]) == {"daemon.max_worksets", "pipelines.default"}
    lab.wait_for("patient", State.COMPLETE)
    lab.wait_for(lab.drop_sample("second"), State.COMPLETE)
    assert lab.evidence("second") == {"second 1 run": 1}
    words = lab.run_cli("status").words
    assert "last reload applied" in words
    assert "daemon.max_worksets, pipelines.default" in words
    assert daemon.terminate() == 0


def test_a_host_short_of_disk_says_so_and_starts_what_waits_once_there_is_room(lab: Lab) -> None:
    lab.configure(daemon={"min_free_gb": 1_000_000})
    daemon = lab.start()
    lab.drop_sample("patient")
    lab.wait_until("patient", lambda ws: ws.plan)
    assert "daemon.min_free_gb" in daemon.wait_said("admission_held")["reason"]
    assert "Free some space" in lab.run_cli("explain", "patient").words
    assert "Free some space" in lab.run_cli("status").words
    lab.configure(daemon={"min_free_gb": 0})
    daemon.send(signal.SIGHUP)
    lab.wait_for("patient", State.COMPLETE)
    assert daemon.said("admission_resumed")
    assert daemon.terminate() == 0


def test_sighup_with_a_broken_file_keeps_the_old_settings_and_says_why(lab: Lab) -> None:
    daemon = lab.start()
    lab.config.write_text("daemon:\n  max_worksets: many\n  sweeps: 3\n", encoding="utf-8")
    daemon.send(signal.SIGHUP)
    problems = " ".join(daemon.wait_said("reload_refused")["problems"])
    assert f"{lab.config}, line 2: daemon.max_worksets is 'many'" in problems
    assert f"{lab.config}, line 3: There is no setting daemon.sweeps" in problems
    checked = lab.run_cli("check-config")
    assert (checked.code, "nothing was changed" in checked.stderr) == (2, True)
    lab.configure()
    words = lab.run_cli("status").words
    assert f"last reload refused at {daemon.status()['last_reload']['at']}: {lab.config}" in words
    lab.wait_for(lab.drop_sample("still"), State.COMPLETE)
    assert daemon.terminate() == 0


def test_sighup_with_a_broken_pipeline_keeps_the_old_pipelines(lab: Lab) -> None:
    daemon = lab.start()
    file = lab.pipelines / "broken.yaml"
    file.write_text("steps:\n  - step: run\n    argv: ['{nobody}']\n", encoding="utf-8")
    daemon.send(signal.SIGHUP)
    (problem,) = daemon.wait_said("reload_refused")["problems"]
    assert problem.startswith(f"{file}, line 3, key steps[0].argv[0]: The placeholder {{nobody}}")
    lab.wait_for(lab.drop_sample("still"), State.COMPLETE)
    file.unlink()
    daemon.send(signal.SIGHUP)
    daemon.wait_said("reloaded")
    assert daemon.terminate() == 0


@pytest.mark.reported(
    "E", "a reload that leaves out a setting without a word (e2guardian#350, supervisor#441)"
)
def test_sighup_names_the_settings_that_need_a_restart_until_there_was_one(lab: Lab) -> None:
    daemon = lab.start()
    lab.configure(queues={"visibility_s": 90}, daemon={"max_worksets": 5})
    daemon.send(signal.SIGHUP)
    assert daemon.wait_said("restart_needed")["settings"] == ["queues.visibility_s"]
    assert "needs a restart queues.visibility_s" in lab.run_cli("status").words
    daemon.send(signal.SIGHUP)
    until(lambda: len(daemon.said("reloaded")) == 2, why=daemon.log_text)
    until(lambda: daemon.status()["last_reload"]["changed"] == [], why=daemon.log_text)
    until(lambda: len(daemon.said("restart_needed")) == 2, why=daemon.log_text)
    lab.configure(queues={"visibility_s": 60})
    daemon.send(signal.SIGHUP)
    until(lambda: len(daemon.said("reloaded")) == 3, why=daemon.log_text)
    until(lambda: daemon.status()["last_reload"]["needs_restart"] == [], why=daemon.log_text)
