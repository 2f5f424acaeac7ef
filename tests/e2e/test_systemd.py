"""The unit as it is shipped, under a real systemd: whatever ends the daemon, jobs run on, and once.

A job lives in the daemon's own control group, which ``KillMode=process`` spares, or in a unit of its own.
They are left out for want of root alone; what else a machine may lack is a failure that says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from daylily_daemon.adapters.own_process import MOST_FILES
from daylily_daemon.domain.model import Ended, State
from daylily_daemon.domain.workset import Workset
from tests.e2e.head_node import SERVICE, HeadNode, Way, installed

pytestmark = pytest.mark.needs_root  # to boot a systemd

NOBODY_LISTENS = "http://127.0.0.1:9"
AS_DAYLILY = ("--reuid=daylily", "--regid=daylily", "--clear-groups")

every_way = pytest.mark.parametrize("node", list(Way), indirect=True)
in_sessions = pytest.mark.parametrize("node", [Way.SESSION], indirect=True)
with_linger = pytest.mark.parametrize("node", [Way.LINGER], indirect=True)
as_root = pytest.mark.parametrize("node", [Way.ROOT], indirect=True)


@pytest.fixture(scope="module")
def node(request: pytest.FixtureRequest, moto_url: str) -> Iterator[HeadNode]:
    with installed(moto_url, request.param) as found:
        yield found


@pytest.fixture
def head(node: HeadNode) -> HeadNode:
    """The head node with its daemon running, however a test before left it."""
    node.systemctl("start", SERVICE)
    return node


# What ends the daemon


def restart(head: HeadNode, name: str) -> None:
    head.systemctl("restart", SERVICE)


def kill(head: HeadNode, name: str) -> None:
    before = head.main_pid
    head.send("SIGKILL")
    head.replaced(before)


def hang(head: HeadNode, name: str) -> None:
    before, timeouts = head.main_pid, head.machine.said().count("Watchdog timeout")
    head.send("SIGSTOP")
    head.replaced(before)
    assert head.machine.said().count("Watchdog timeout") == timeouts + 1


def stop(head: HeadNode, name: str) -> None:
    head.systemctl("stop", SERVICE)
    assert_stopped_in_order(head)
    beats = head.beats(name)
    head.until(lambda: head.beats(name) > beats + 2)
    head.systemctl("start", SERVICE)


def assert_stopped_in_order(head: HeadNode) -> None:
    """Within daemon.stop_deadline_s, that is, past which it ends with 1."""
    assert (head.shows("ActiveState"), head.shows("Result")) == ("inactive", "success")
    assert head.shows("ExecMainStatus") == "0"


def stop_unheard(head: HeadNode, name: str) -> None:
    """As of a daemon that hangs: past TimeoutStopSec systemd kills it, and it alone."""
    head.drop_in("z-stop.conf", "[Service]\nKillSignal=SIGURG\nTimeoutStopSec=1\n")
    head.systemctl("stop", SERVICE)
    assert (head.shows("ActiveState"), head.shows("Result")) == ("failed", "timeout")
    head.drop_in("z-stop.conf", "")
    head.systemctl("start", SERVICE)


def many_signals(head: HeadNode, name: str) -> None:
    before = head.main_pid
    head.machine.run("sh", "-c", f"kill -TERM {before}; kill -HUP {before}; kill -TERM {before}")
    head.replaced(before)


INTERRUPTIONS = {
    "restart": restart,
    "kill": kill,
    "hang": hang,
    "stop": stop,
    "unheard stop": stop_unheard,
    "many signals": many_signals,
}


@pytest.mark.parametrize(
    ("node", "interruption", "code"),
    [
        (Way.SESSION, "restart", 0),
        (Way.SESSION, "kill", 7),
        (Way.SESSION, "hang", 0),
        (Way.SESSION, "stop", 99),
        (Way.SESSION, "unheard stop", 2),
        (Way.SESSION, "many signals", 1),
        (Way.LINGER, "restart", 0),
        (Way.LINGER, "kill", 7),
        (Way.ROOT, "restart", 0),
        (Way.ROOT, "kill", 7),
        (Way.ROOT, "hang", 0),
    ],
    indirect=["node"],
)
def test_a_job_survives_is_adopted_and_runs_once(
    head: HeadNode, interruption: str, code: int
) -> None:
    name = interruption.replace(" ", "-")
    before = head.drop(name)
    daemon, shim = head.main_pid, head.record(name, "token")

    INTERRUPTIONS[interruption](head, name)

    assert head.main_pid not in (0, daemon)
    adopted = head.wait_until(name, lambda ws: ws.fence > before.fence)
    assert (adopted.state, adopted.attempt) == (State.IN_PROGRESS, 1)
    assert adopted.fence == before.fence + 1
    assert head.lab.trail(name)[-1].message.endswith("goes on with it")
    assert head.record(name, "token") == shim
    assert head.proc(shim["pid"], "stat").exists()
    assert f"daylily_{name}-1-run" in head.tmux_sessions()
    head.end(name, code)
    assert_ended(head, name, code)


def assert_ended(head: HeadNode, name: str, code: int) -> Workset:
    """Wait for the end; check that it is the right one and that the job was started once."""
    found = head.wait(name, State.FAILED if code else State.COMPLETE)
    assert head.record(name, "exit.json")["code"] == code
    assert not code or f"ended with exit code {code}" in found.error_details
    assert head.starts(name) == [f"{name} 1 run"]
    return found


@every_way
def test_a_job_that_ends_while_no_daemon_runs_is_noted_once(head: HeadNode) -> None:
    head.drop("alone")
    head.systemctl("stop", SERVICE)
    head.end("alone", 5)
    head.until((head.job_dir("alone") / "exit.json").exists)
    head.systemctl("start", SERVICE)
    assert_ended(head, "alone", 5)
    states = [record.state for record in head.lab.trail("alone")]
    assert (states.count(State.ERROR), states.count(State.FAILED)) == (1, 1)


@every_way
def test_a_cancel_leaves_nothing_of_the_job(head: HeadNode) -> None:
    head.drop("unwanted")
    pids = [head.record("unwanted", file)["pid"] for file in ("token", "running.json")]
    assert head.lab.run_cli("cancel", "unwanted").code == 0
    head.wait("unwanted", State.CANCELED)
    assert head.record("unwanted", "exit.json")["ended"] == Ended.STOPPED
    head.until(lambda: not any(head.proc(pid, "stat").exists() for pid in pids))
    assert head.starts("unwanted") == ["unwanted 1 run"]


# Where jobs live


@every_way
def test_a_job_lives_where_the_settings_put_it(head: HeadNode) -> None:
    head.drop("here")
    daemon, pid = head.main_pid, head.record("here", "running.json")["pid"]
    unit = "daylily-job-here.1.run.service"
    group = SERVICE if head.way is Way.SESSION else unit
    assert head.cgroup(daemon).endswith(f"/system.slice/{SERVICE}")
    assert head.cgroup(pid).endswith(f"/{group}")
    sandboxed = "NoNewPrivs:\t1" in head.proc(pid, "status").read_text()
    assert sandboxed == (head.way in (Way.SESSION, Way.USER))
    head.end("here", 0)
    assert_ended(head, "here", 0)
    head.until(lambda: not head.machine.path(f"/sys/fs/cgroup{head.cgroup(1)}").exists())


@every_way
def test_no_job_inherits_what_spares_the_daemon_when_memory_runs_out(head: HeadNode) -> None:
    head.drop("spared")
    for file in ("token", "running.json"):
        score = head.proc(head.record("spared", file)["pid"], "oom_score_adj").read_text()
        # a manager of a user has a score of its own, and hands on more than that
        assert int(score) >= 0 if head.way is Way.LINGER else int(score) == 0
    head.end("spared", 0)
    assert_ended(head, "spared", 0)


@as_root
def test_a_job_in_its_own_unit_sees_the_true_tmp(head: HeadNode) -> None:
    head.drop("tmp")
    evidence, pid = str(head.lab.notes), head.record("tmp", "running.json")["pid"]
    assert head.proc(pid, f"root{evidence}").exists()
    assert not head.proc(head.main_pid, f"root{evidence}").exists()
    head.end("tmp", 0)
    assert_ended(head, "tmp", 0)


@as_root
def test_a_job_that_proc_hides_from_the_daemon_is_unknown_not_lost(head: HeadNode) -> None:
    head.drop_in("z-hides.conf", "[Service]\nGroup=daylily\nProtectProc=invisible\n")
    head.systemctl("restart", SERVICE)
    head.drop("hidden")
    head.until(lambda: "/proc hides it" in head.journal())
    assert head.wait("hidden", State.IN_PROGRESS).attempt == 1
    head.end("hidden", 3)
    assert_ended(head, "hidden", 3)
    head.drop_in("z-hides.conf", "")
    head.systemctl("restart", SERVICE)


@with_linger
def test_a_start_waits_for_the_manager_of_the_user(head: HeadNode) -> None:
    head.manage_user("stop")
    head.lab.drop_sample("early")
    head.until(lambda: "run `loginctl enable-linger" in head.journal())
    assert head.starts("early") == []
    head.manage_user("start")
    head.until(lambda: head.starts("early"))
    head.end("early", 0)
    assert_ended(head, "early", 0)


# Settings


@in_sessions
def test_a_reload_keeps_the_daemon_and_its_jobs_and_says_what_came_of_it(head: HeadNode) -> None:
    head.drop("reloaded")
    daemon = head.main_pid
    head.until(lambda: head.shows("StatusText").startswith("1 of "))
    for places, result, in_force in ((5, "applied", 5), ("many", "refused", 5), (6, "applied", 6)):
        head.lab.configure(daemon={"max_worksets": places})
        assert head.reload()["result"] == result
        assert head.status()["max_worksets"] == in_force
        assert head.main_pid == daemon
    refused = next(line for line in head.journal().splitlines() if "reload_refused" in line)
    assert "config.yaml" in refused
    assert "daemon.max_worksets" in refused
    assert "started" in head.journal("-p", "info")
    warnings = [
        json.loads(line) for line in head.journal("-p", "warning", f"_PID={daemon}").splitlines()
    ]
    assert "reload_refused" in [line["event"] for line in warnings]
    assert {line["level"] for line in warnings} == {"warning"}
    assert_found_by_its_fields(head, "reloaded")
    head.end("reloaded", 0)
    assert_ended(head, "reloaded", 0)


def assert_found_by_its_fields(head: HeadNode, name: str) -> None:
    """What the journal has of a workset, it has once, with the daemon's unit and the whole line."""
    said = head.machine.says("journalctl", "--no-pager", "-o", "json", f"WORKSET={name}")
    entries = [json.loads(line) for line in said.splitlines()]
    assert {entry["_SYSTEMD_UNIT"] for entry in entries} == {SERVICE}
    assert {entry["_TRANSPORT"] for entry in entries} == {"journal"}
    assert {json.loads(entry["MESSAGE"])["workset"] for entry in entries} == {name}
    claimed = head.journal("DAYLILY_EVENT=claimed", f"WORKSET={name}").splitlines()
    assert len(claimed) == head.journal().count(f'"workset": "{name}", "fence"') == 1


@in_sessions
def test_the_last_word_of_a_daemon_is_found_under_its_unit(head: HeadNode) -> None:
    """The journal looks up the unit of a sender, which may be gone by then."""
    daemon = head.main_pid
    head.systemctl("stop", SERVICE)
    head.until(lambda: head.journal("DAYLILY_EVENT=stopped", f"_PID={daemon}"))


@in_sessions
def test_without_aws_it_is_up_and_says_what_it_waits_for_and_a_stop_meanwhile_is_orderly(
    head: HeadNode,
) -> None:
    head.systemctl("stop", SERVICE)
    environment = head.lab.folder / "environment"
    reachable = environment.read_text()
    environment.write_text(reachable.replace(head.lab.url, NOBODY_LISTENS))
    head.systemctl("start", SERVICE)
    head.until(lambda: NOBODY_LISTENS in head.shows("StatusText"))
    assert head.shows("StatusText").startswith("waiting: ")
    assert head.shows("ActiveState") == "active"
    assert head.shows("NRestarts") == "0"
    head.systemctl("stop", SERVICE)
    assert_stopped_in_order(head)
    environment.write_text(reachable)


@in_sessions
def test_secrets_and_memory_of_the_daemon_are_closed_to_its_user(head: HeadNode) -> None:
    """A job could otherwise read them: it runs as the same user."""
    pid = head.main_pid
    for file in ("environ", "maps", "mem", "fd/0"):
        said = head.machine.says("setpriv", *AS_DAYLILY, "sh", "-c", f"cat /proc/{pid}/{file} 2>&1")
        assert "Permission denied" in said
    assert int(head.shows("LimitNOFILE")) == MOST_FILES


# Ends without a record


def kill_shim_and_command(head: HeadNode, name: str) -> None:
    """As an operator, or a machine short of memory, does: neither can say how it ended."""
    pids = [str(head.record(name, file)["pid"]) for file in ("token", "running.json")]
    head.until((head.job_dir(name) / "group.json").exists)
    head.machine.says("kill", "-9", *pids)  # a unit ends with its shim: one may be gone already


@every_way
def test_a_control_group_proves_that_nothing_of_a_killed_job_is_left(head: HeadNode) -> None:
    head.drop("killed")
    kill_shim_and_command(head, "killed")
    found = head.wait("killed", State.FAILED)
    assert found.failure is not None
    assert found.failure.code == "WS-JOB-001"
    assert head.starts("killed") == ["killed 1 run"]


@in_sessions
def test_a_process_that_nobody_knows_keeps_the_end_unclear(head: HeadNode) -> None:
    head.drop("unclear")
    group = f"/sys/fs/cgroup/system.slice/{SERVICE}/cgroup.procs"
    stray = f"echo $$ > {group}; setsid env -i sleep 321 > /dev/null 2>&1 &"
    head.machine.run("sh", "-c", stray)
    kill_shim_and_command(head, "unclear")
    found = head.wait_until("unclear", lambda ws: ws.unclear)
    assert found.state is State.IN_PROGRESS
    head.machine.run("pkill", "-9", "-f", "sleep 321")
    head.wait("unclear", State.FAILED)


@every_way
def test_a_job_has_the_umask_and_the_open_files_of_the_daemon(head: HeadNode) -> None:
    head.drop("limits")
    daemon, job = head.main_pid, head.record("limits", "running.json")["pid"]

    def shown(pid: int, file: str, name: str) -> str:
        lines = head.proc(pid, file).read_text(encoding="utf-8").splitlines()
        return next(line for line in lines if line.startswith(name))

    for file, name in (("status", "Umask:"), ("limits", "Max open files")):
        assert shown(job, file, name) == shown(daemon, file, name)
    head.end("limits", 0)
    assert_ended(head, "limits", 0)
