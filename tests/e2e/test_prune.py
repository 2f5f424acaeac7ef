"""Old folders of complete worksets go, by the real program, and everything else stays and says why."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from daylily_daemon.adapters.runners import procfs
from daylily_daemon.adapters.runners.jobdir import JobDirectory, Started
from daylily_daemon.cli.sampledata import SampleWorkset
from daylily_daemon.domain.model import State
from tests.arch.repository import ROOT
from tests.e2e.harness import PREFIX, Lab, opened, until

COUNTING = SampleWorkset(samples=1, reads=10, read_length=20, pipeline="counting")


@pytest.fixture
def lab(moto_url: str, tmp_path: Path) -> Iterator[Lab]:
    """A daemon that really exports, and two worksets that are complete."""
    with opened(tmp_path, moto_url) as made:
        shutil.copy(ROOT / "config" / "pipelines" / "demo.yaml", made.pipelines / "counting.yaml")
        made.pipeline("gated", stage="", run='while [ ! -e "$gate" ]; do sleep 0.1; done')
        made.provision()
        made.start()
        for name in ("HG001-run1", "HG001-run2"):
            made.drop_sample(name, COUNTING)
        for name in ("HG001-run1", "HG001-run2"):
            made.wait_until(name, lambda ws: ws.state is State.COMPLETE and not ws.lock)
        until(lambda: not any(map(_is_alive, made.job_folders())))
        yield made


def _is_alive(folder: Path) -> bool:
    """A shim ends a moment after it has left its record."""
    token = JobDirectory(str(folder)).token()
    return isinstance(token, Started) and procfs.is_alive(token.shim)


def _folders(lab: Lab, workset: str) -> list[Path]:
    both = (lab.folder / "data" / workset, Path(lab.state.jobs) / workset)
    return [folder for folder in both if folder.exists()]


def _results(lab: Lab, workset: str) -> dict[str, str]:
    listed = lab.aws("s3").list_objects_v2(Bucket=lab.bucket, Prefix=f"{PREFIX}{workset}/results/")
    return {entry["Key"].split("/results/")[1]: entry["Key"] for entry in listed["Contents"]}


def test_what_may_go_goes_and_what_lost_its_results_stays(lab: Lab) -> None:
    for key in _results(lab, "HG001-run2").values():
        lab.aws("s3").delete_object(Bucket=lab.bucket, Key=key)
    log = next(Path(lab.state.jobs).glob("HG001-run1/r1/1-run/log")).read_bytes()

    young = lab.run_cli("prune", "--older", "30d", "--dry-run")
    assert (young.code, "No workset that ended so long ago" in young.words) == (0, True)

    preview = lab.run_cli("prune", "--older", "0s", "--dry-run")
    assert preview.code == 0, preview
    assert preview.stdout.splitlines()[0].split() == ["WORKSET", "STATE", "ENDED", "FOLDER", "SIZE"]
    assert f"{lab.folder}/data/HG001-run1/r1" in preview.stdout
    assert f"{lab.state.jobs}/HG001-run1/r1" in preview.stdout
    assert "kept: its results are not in S3 any more" in preview.stdout
    assert "1 of 2 may go, " in preview.stdout
    assert "Nothing was removed (--dry-run)." in preview.stdout
    assert len(_folders(lab, "HG001-run1")) == 2

    unasked = lab.run_cli("prune", "--older", "0s")
    assert (unasked.code, "agree with --yes" in unasked.stderr) == (2, True)

    done = lab.run_cli("prune", "--older", "0s", "--yes")
    assert (done.code, "1 of 2 removed, " in done.stdout) == (0, True), done
    assert _folders(lab, "HG001-run1") == []
    assert len(_folders(lab, "HG001-run2")) == 2
    stored = _results(lab, "HG001-run1")
    assert lab.get(stored[".daylily-logs/r1/1-run/log"]) == log
    exit_record = lab.get(stored[".daylily-logs/r1/1-export/exit.json"])
    assert exit_record
    assert json.loads(exit_record)["code"] == 0
    told = lab.run_cli("logs", "HG001-run1", "--step", "run", "--raw")
    assert (told.code, told.stdout) == (0, log.decode()), "from where it was kept"
    lab.put(f"{stored['.daylily-logs/r1/1-run/log']}.1", b"what was rotated\n")
    both = lab.run_cli("logs", "HG001-run1", "--step", "run", "--raw").stdout
    assert both == f"what was rotated\n{log.decode()}"
    assert lab.run_cli("logs", "HG001-run1").code == 0
    assert lab.run_cli("logs", "HG001-run1", "--step", "none").code == 3

    again = lab.run_cli("prune", "--older", "0s", "--yes", "--json")
    assert [(one["workset_id"], one["removed"]) for one in again.json] == [("HG001-run2", False)]
    assert lab.run_cli("status", "--quiet").code == 0


def test_a_job_that_is_not_known_to_have_ended_keeps_its_folder(lab: Lab) -> None:
    (Path(lab.state.jobs) / "HG001-run1" / "r1" / "1-run" / "token").unlink()
    shutil.rmtree(Path(lab.state.jobs) / "HG001-run2" / "r1" / "1-stage")
    rows = lab.run_cli("prune", "--older", "0s", "--yes", "-o", "jsonl").stdout.splitlines()
    kept = {one["workset_id"]: one["kept"] for one in map(json.loads, rows)}
    assert kept == {
        "HG001-run1": "the token of its job 1-run is free: it may still start",
        "HG001-run2": "nothing proves that its job 1-stage has ended",
    }
    assert len(_folders(lab, "HG001-run1")) == len(_folders(lab, "HG001-run2")) == 2


def test_what_a_look_promised_is_looked_at_again_and_one_that_fails_keeps_no_other(
    lab: Lab,
) -> None:
    inside = lab.folder / "data" / "HG001-run1" / "r1" / "elsewhere"
    inside.parent.rename(lab.folder / "moved")
    inside.parent.symlink_to(lab.folder / "moved")
    done = lab.run_cli("prune", "--older", "0s", "--yes")
    assert "itself is a symbolic link" in done.words
    assert "1 of 2 removed" in done.stdout
    assert (lab.folder / "moved" / "work").exists()
    assert _folders(lab, "HG001-run2") == []


def test_a_workset_that_runs_and_folders_of_nobody_stay(lab: Lab) -> None:
    lab.drop_sample("running", SampleWorkset(samples=1, reads=10, read_length=20, pipeline="gated"))
    lab.wait_started("running", "1 run")
    (lab.folder / "data" / "scratch").mkdir()
    rows = lab.run_cli("prune", "--older", "0s", "--dry-run", "--json").json
    kept = {one["workset_id"]: one["kept"] for one in rows}
    assert kept == {
        "HG001-run1": "",
        "HG001-run2": "",
        "scratch": "no workset of this name can be read from the table",
    }
    lab.open_gate("running")
    lab.wait_for("running", State.COMPLETE)


def test_another_host_removes_nothing_of_it(lab: Lab) -> None:
    other = ("--set", f"daemon.state_dir={lab.folder / 'head2'}")
    shutil.copytree(lab.state.path / "jobs", lab.folder / "head2" / "jobs")
    rows = lab.run_cli("prune", "--older", "0s", "--yes", "--json", *other).json
    assert {one["removed"] for one in rows} == {False}
    assert all("does not know its folder of jobs again" in one["kept"] for one in rows)
    assert len(_folders(lab, "HG001-run1")) == 2
