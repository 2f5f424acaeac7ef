"""``runner.user`` under a real systemd: what a job of another user can reach, and what it cannot."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from daylily_daemon.domain.model import State
from tests.e2e.head_node import ETC, JOBS_USER, ROOT, SERVICE, STATE_DIR, HeadNode, Way, installed

pytestmark = pytest.mark.needs_root  # to boot a systemd

SPY = """
cd "$(dirname "$2")"
. ./peer
try() { name=$1; shift; if out=$("$@" 2>&1); then echo "$name: yes $out"; else echo "$name: no $out"; fi; }
say() { echo "$1" > "$2"; }
try user id -un
try own say mine ./mine
try own-run say mine "$DAYLILY_RUN_DIR/work/mine"
try tmp say mine /tmp/mine
try outside say mine /srv/open/mine
try group say mine ./shared/mine
try data ls "$(dirname "$(dirname "$DAYLILY_RUN_DIR")")"
try peer-run say forged "$peer_run/work/forged"
try peer-view say forged "/proc/$peer_pid/root$peer_run/work/forged"
try peer-cwd say forged "/proc/$peer_pid/cwd/forged"
try peer-variables cat "/proc/$peer_pid/environ"
try peer-record say forged "$peer_record/exit.json"
try peer-record-view say forged "/proc/$peer_pid/root$peer_record/exit.json"
try own-record ls "$DAYLILY_JOB_DIRECTORY"
try shim kill -9 "$PPID"
try secret cat ./secret
try daemon-variables cat "/proc/$daemon_pid/environ"
try become-root nsenter -t 1 -m true
try new-rights grep -q 'NoNewPrivs:.1' /proc/self/status
"""
ALLOWED = {"user", "group", "own", "own-run", "tmp", "data", "new-rights"}


@pytest.fixture(scope="module")
def head(moto_url: str) -> Iterator[HeadNode]:
    with installed(moto_url, Way.USER) as found:
        shutil.copy(ROOT / "config" / "pipelines" / "demo.yaml", found.lab.pipelines)
        found.lab.pipeline("spy", run=SPY)
        found.machine.run("groupadd", "lab")
        found.machine.run("usermod", "--append", "--groups", "lab", JOBS_USER)
        found.machine.run("install", "-d", "-m", "777", "/srv/open")
        found.machine.run("install", "-d", "-m", "070", "-g", "lab", f"{found.lab.folder}/shared")
        yield found


def set_pipeline(head: HeadNode, name: str) -> None:
    head.lab.configure(pipelines={"dir": f"{ETC}/pipelines", "default": name})
    assert head.reload()["result"] == "applied"


@pytest.mark.reported(
    "C", "apps of one user reach each other's data (cloud-in-a-bottle/cloud-in-a-bottle#19)"
)
def test_a_job_reaches_its_own_run_and_nothing_of_the_daemon_or_of_others(head: HeadNode) -> None:
    peer = head.drop("peer")
    assert peer.run is not None
    secret = head.lab.folder / "secret"
    secret.write_text("s3cret")
    secret.chmod(0o600)
    known = {
        "peer_run": peer.run.folder,
        "peer_pid": head.record("peer", "running.json")["pid"],
        "peer_record": f"{STATE_DIR}/jobs/peer/r1/1-run",
        "daemon_pid": head.main_pid,
    }
    (head.lab.folder / "peer").write_text("".join(f"{k}={v}\n" for k, v in known.items()))
    set_pipeline(head, "spy")
    head.lab.drop_sample("spy")
    head.wait("spy", State.COMPLETE)
    said = dict(line.split(": ", 1) for line in log_of(head, "spy", "run").splitlines())
    assert {name for name, text in said.items() if text.startswith("yes")} == ALLOWED, said
    assert said["user"] == f"yes {JOBS_USER}"
    assert said["data"] == "yes spy"
    assert not head.machine.path("/tmp/mine").exists()
    set_pipeline(head, "held")
    head.end("peer", 0)
    head.wait("peer", State.COMPLETE)


def log_of(head: HeadNode, name: str, step: str) -> str:
    log = head.machine.path(f"{STATE_DIR}/jobs/{name}/r1/1-{step}/log")
    return log.read_text(encoding="utf-8")


def test_a_whole_run_stages_runs_exports_and_cleans_up_as_the_user(head: HeadNode) -> None:
    set_pipeline(head, "demo")
    head.lab.drop_sample("whole")
    found = head.wait("whole", State.COMPLETE)
    assert found.warnings == ()
    assert found.run is not None
    assert head.machine.says("stat", "-c", "%U", f"{found.run.folder}/work/results") == JOBS_USER
    assert not head.machine.path(f"{found.run.folder}/stage").exists()
    set_pipeline(head, "held")


def test_a_user_that_is_not_there_is_waited_for_and_named(head: HeadNode) -> None:
    head.systemctl("stop", SERVICE)
    head.machine.run("usermod", "--login", "away", JOBS_USER)
    head.systemctl("start", SERVICE)
    head.until(lambda: f"There is no user {JOBS_USER}" in head.shows("StatusText"))
    head.machine.run("usermod", "--login", JOBS_USER, "away")
    head.until(lambda: head.shows("StatusText").startswith("0 of "))


def test_a_daemon_without_the_drop_in_says_what_it_needs(head: HeadNode) -> None:
    head.drop_in("z-less.conf", "[Service]\nCapabilityBoundingSet=\n")
    head.systemctl("restart", SERVICE)
    head.until(lambda: "needs the rights CAP_CHOWN" in head.shows("StatusText"))
    head.drop_in("z-less.conf", "")
    head.systemctl("restart", SERVICE)


def test_a_folder_that_the_user_cannot_enter_is_named_and_no_workset_fails_for_it(
    head: HeadNode,
) -> None:
    head.machine.run("chmod", "700", "/fsx/data")
    head.lab.drop_sample("closed")
    head.until(lambda: "cannot enter the folder /fsx/data" in head.journal())
    assert head.wait("closed", State.IN_PROGRESS).attempt == 1
    head.machine.run("chmod", "711", "/fsx/data")
    head.until(lambda: head.starts("closed"))
    head.end("closed", 0)
    head.wait("closed", State.COMPLETE)
