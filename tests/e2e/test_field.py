"""The world as it is not assumed: cloned hosts, moved folders, disks that hang or break, strays, lost files.

Each ends with one run, or with none and the reason why.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from daylily_daemon.adapters.host import StateDir
from daylily_daemon.domain.model import State
from tests.e2e.harness import PROGRAM, Lab, until

HELD_RUN = 'while ! [ -e "$gate" ]; do sleep 0.1; done'
OTHER_BOOT = "11111111-2222-4333-8444-555555555555"


def lab_with_a_held_run(lab: Lab) -> str:
    lab.pipeline("noting", stage="", run=HELD_RUN, export="")
    lab.pipeline("other", run="")
    return lab.drop_sample("HG002")


@pytest.mark.reported(
    "A", "a pipeline file removed during a run, then a restart, on real processes"
)
def test_a_run_whose_pipeline_file_was_removed_is_adopted_and_not_started_again(lab: Lab) -> None:
    id = lab_with_a_held_run(lab)
    daemon = lab.start()
    lab.wait_started(id, "1 run")
    daemon.terminate()
    (lab.pipelines / "noting.yaml").rename(lab.folder / "noting.yaml")
    lab.configure(pipelines={"default": "other"})
    daemon = lab.start()
    ws = lab.wait_until(id, lambda ws: ws.owner is not None)
    assert ws.state is State.IN_PROGRESS
    lab.open_gate(id)
    failed = lab.wait_for(id, State.FAILED)
    assert "no step export any more" in failed.error_details
    assert lab.evidence(id) == {f"{id} 1 stage": 1, f"{id} 1 run": 1}
    (lab.folder / "noting.yaml").rename(lab.pipelines / "noting.yaml")
    lab.configure(pipelines={"default": "noting"})
    daemon.send(signal.SIGHUP)
    daemon.wait_said("reloaded")
    assert lab.run_cli("retry", id).code == 0
    lab.wait_for(id, State.COMPLETE)
    assert lab.evidence(id)[f"{id} 1 run"] == 1
    assert f"{id} 2 run" not in lab.evidence(id)


@pytest.mark.reported("A", "a moved state directory (fleet#1346), on real processes")
def test_a_moved_state_directory_brings_its_running_job_along(lab: Lab) -> None:
    id = lab_with_a_held_run(lab)
    daemon = lab.start()
    lab.wait_started(id, "1 run")
    daemon.terminate()
    moved = lab.state.path.rename(lab.folder / "state-moved")
    lab.state = StateDir(moved)
    lab.configure(daemon={"state_dir": str(moved)})
    lab.start()
    lab.wait_until(id, lambda ws: ws.owner is not None)
    lab.open_gate(id)
    lab.wait_for(id, State.COMPLETE)
    assert set(lab.evidence(id).values()) == {1}


def another_host(lab: Lab, state_dir: Path) -> None:
    """Let the lab's next daemon run on a clone: same machine id, another boot, other processes."""
    boot = lab.folder / "boot_id"
    boot.write_text(OTHER_BOOT + "\n", encoding="ascii")
    bind = 'mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"'
    lab.program = (
        *("unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"),
        *("sh", "-c", bind, str(boot), *PROGRAM),
    )
    lab.configure(daemon={"state_dir": str(state_dir), "name": "clone"})


@pytest.mark.needs_root
@pytest.mark.reported("A", "a second head node from the same image adopts a run (nomad#632)")
@pytest.mark.parametrize("copied", [False, True], ids=["its own folder", "a copied folder"])
def test_a_clone_of_the_host_neither_starts_nor_ends_what_runs_on_the_first(
    lab: Lab, copied: bool
) -> None:
    id = lab_with_a_held_run(lab)
    daemon = lab.start()
    lab.wait_started(id, "1 run")
    daemon.terminate()
    first, theirs = lab.program, lab.folder / "state-clone"
    if copied:
        subprocess.run(["cp", "-a", str(lab.state.path), str(theirs)], check=True)
    another_host(lab, theirs)
    clone = lab.start(wait=False)
    clone.wait_said("started")
    lab.drop_sample("HG003")
    lab.wait_started("HG003", "1 run")
    ws = lab.load(id)
    assert ws is not None
    assert (ws.state, ws.attempt, ws.owner) == (State.IN_PROGRESS, 1, None)
    said = lab.run_cli("explain", id).words
    assert "--host-gone" in said
    lab.open_gate("HG003")
    lab.wait_for("HG003", State.COMPLETE)
    for child in (
        Path(f"/proc/{clone.process.pid}/task/{clone.process.pid}/children").read_text().split()
    ):
        os.kill(int(child), signal.SIGTERM)
    clone.ended()
    lab.program = first
    lab.configure(daemon={"state_dir": str(lab.state.path), "name": "lab"})
    lab.start()
    lab.open_gate(id)
    lab.wait_for(id, State.COMPLETE)
    assert set(lab.evidence(id).values()) == {1}


STRAY = """setsid env -i sh -c 'while ! [ -e "$0" ]; do sleep 0.1; done' "$gate" &
echo "$!" > "$gate.stray"; echo "$$" > "$gate.command"; [ "$attempt" = 1 ] || exit 0; exec sleep 600"""


@pytest.mark.reported("A", "a child without environment outlives its killed shim (nextflow#172)")
def test_a_stray_that_nobody_can_see_is_never_joined_by_a_second_run(lab: Lab) -> None:
    lab.pipeline("noting", stage="", run=STRAY, export="")
    id = lab.drop_sample("HG002")
    lab.start()
    lab.wait_started(id, "1 run")
    gate = lab.folder / "gates" / id
    command = int(until(lambda: _text(gate.with_suffix(".command"))))
    shim = int(Path(f"/proc/{command}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(shim, signal.SIGKILL)
    os.kill(command, signal.SIGKILL)
    ws = lab.wait_until(id, lambda ws: ws.unclear)
    assert ws.state is State.IN_PROGRESS
    assert "--host-gone" in lab.run_cli("explain", id).words
    assert f"{id} 2 run" not in lab.evidence(id)
    lab.open_gate(id)
    assert lab.run_cli("retry", id, "--host-gone").code == 0
    lab.wait_for(id, State.COMPLETE)
    assert lab.evidence(id) == {
        f"{id} 1 stage": 1,
        f"{id} 1 run": 1,
        f"{id} 2 run": 1,
        f"{id} 2 export": 1,
    }


def _text(path: Path) -> str:
    return path.read_text(encoding="ascii").strip() if path.exists() else ""


@dataclass(frozen=True)
class Fuse:
    """A folder behind a file system of its own, which can hang, recover, and break."""

    folder: Path
    process: int

    def hang(self) -> None:
        os.kill(self.process, signal.SIGSTOP)

    def recover(self) -> None:
        os.kill(self.process, signal.SIGCONT)

    def crash(self) -> None:
        os.kill(self.process, signal.SIGKILL)


@contextmanager
def fuse(folder: Path) -> Iterator[Fuse]:
    behind = folder.with_name(f"{folder.name}-behind")
    for path in (behind, folder):
        path.mkdir(exist_ok=True)
    server = subprocess.Popen(["bindfs", "-f", str(behind), str(folder)])
    try:
        until(lambda: os.path.ismount(folder))
        yield Fuse(folder, server.pid)
    finally:
        server.send_signal(signal.SIGCONT)
        server.kill()
        server.wait()
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


@pytest.mark.needs_root
@pytest.mark.reported("B", "a stalled mount of the data freezes the daemon")
def test_a_data_folder_that_hangs_holds_new_runs_with_a_sentence_and_freezes_nothing(
    lab: Lab,
) -> None:
    with fuse(lab.folder / "data") as disk:
        daemon = lab.start()
        disk.hang()
        id = lab.drop_sample("HG002")
        until(lambda: "does not answer" in str(daemon.status().get("held")), within_s=60)
        assert lab.wait_for(id, State.READY).attempt == 0
        assert "does not answer" in lab.run_cli("explain", id).words
        daemon.terminate()
        daemon = lab.start()
        until(lambda: "does not answer" in str(daemon.status().get("held")), within_s=60)
        disk.recover()
        lab.wait_for(id, State.COMPLETE)
        daemon.terminate()


@pytest.mark.needs_root
@pytest.mark.reported("B", "a broken mount of the data ends the daemon with a traceback")
def test_a_data_folder_that_breaks_holds_new_runs_with_a_sentence_until_it_is_mended(
    lab: Lab,
) -> None:
    folder = lab.folder / "data"
    with fuse(folder) as disk:
        daemon = lab.start()
        disk.crash()
        id = lab.drop_sample("HG002")
        until(lambda: "cannot be used" in str(daemon.status().get("held")), within_s=60)
        assert lab.wait_for(id, State.READY).attempt == 0
    until(lambda: not os.path.ismount(folder))
    lab.wait_for(id, State.COMPLETE)
    daemon.terminate()
    shutil.rmtree(folder)
