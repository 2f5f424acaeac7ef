"""What is over is put aside, brought back, given up, or run again under another name."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator

import pytest

from daylily_daemon.cli.sampledata import SampleWorkset
from daylily_daemon.domain.model import State
from tests.arch.repository import ROOT
from tests.e2e.harness import PREFIX, Lab, opened

GATED = 'while [ ! -e "$gate" ]; do sleep 0.1; done'


def _spec(pipeline: str) -> SampleWorkset:
    return SampleWorkset(samples=1, reads=10, read_length=20, pipeline=pipeline)


@pytest.fixture(scope="module")
def attic(moto_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A daemon, a workset that is complete, one that failed, and one that runs."""
    with opened(tmp_path_factory.mktemp("attic"), moto_url) as lab:
        lab.pipeline("damaged", run="echo 'reads.fastq: invalid fastq record in line 7'; exit 3")
        lab.pipeline("gated", stage="", run=GATED)
        lab.provision()
        lab.start()
        lab.wait_for(lab.drop_sample("finished"), State.COMPLETE)
        lab.wait_for(lab.drop_sample("broken", _spec("damaged")), State.FAILED)
        lab.drop_sample("running", _spec("gated"))
        lab.wait_started("running", "1 run")
        yield lab


def _names(lab: Lab, *options: str) -> set[str]:
    return set(lab.run_cli("list", "-o", "name", *options).stdout.split())


def _keys(lab: Lab, workset: str) -> dict[str, str]:
    listed = lab.aws("s3").list_objects_v2(Bucket=lab.bucket, Prefix=f"{PREFIX}{workset}/")
    return {entry["Key"].split("/", 3)[-1]: entry["ETag"] for entry in listed.get("Contents", [])}


def test_what_is_archived_is_out_of_sight_and_comes_back_as_it_was(attic: Lab) -> None:
    evidence = attic.evidence()
    answer = attic.run_cli("archive", "finished", "broken", "--yes", "--wait", "--reason", "old")
    assert answer.code == 0, answer
    assert _names(attic) & {"finished", "broken"} == set()
    assert _names(attic, "--state", "archived") == {"finished", "broken"}
    why = attic.run_cli("explain", "finished").words
    assert "archived by cli:" in why
    assert "`daylily-daemon restore finished` brings it back; it is complete then." in why
    again = attic.run_cli("retry", "broken", "--wait")
    assert (again.code, "it is archived" in again.stderr) == (1, True)
    back = attic.run_cli("restore", "--older", "0s", "--yes", "--wait", "-o", "jsonl")
    states = {one["workset_id"]: one["state"] for one in map(json.loads, back.stdout.splitlines())}
    assert (back.code, states) == (0, {"finished": "complete", "broken": "failed"})
    assert attic.evidence() == evidence, "nothing ran by that"
    again = attic.run_cli("archive", "running", "--wait")
    assert (again.code, "it is in_progress; cancel it first" in again.stderr) == (1, True)


@pytest.mark.parametrize("state", ["finished", "running"])
def test_what_is_not_archived_is_not_deleted(attic: Lab, state: str) -> None:
    answer = attic.run_cli("delete", state, "--wait")
    assert (answer.code, "had no effect: it is" in answer.stderr) == (1, True)


def test_what_is_deleted_keeps_its_name_its_trail_and_its_files(attic: Lab) -> None:
    attic.wait_for(attic.drop_sample("trial"), State.COMPLETE)
    before, records = _keys(attic, "trial"), len(attic.trail("trial"))
    assert attic.run_cli("archive", "trial", "--wait").code == 0
    gone = attic.run_cli("delete", "trial", "--wait", "--reason", "only a trial")
    assert (gone.code, "It is deleted." in gone.stdout) == (0, True)
    for command in ("restore", "retry", "archive", "ignore"):
        assert attic.run_cli(command, "trial", "--wait").code == 1
    assert attic.run_cli("rerun", "trial").code == 1
    words = attic.run_cli("explain", "trial").words
    assert "only a trial. Nothing brings it back" in words
    assert "trial" not in _names(attic)
    assert _keys(attic, "trial") == before
    told = attic.trail("trial")
    assert [record.seq for record in told] == list(range(1, len(told) + 1))
    assert len(told) > records
    attic.put(f"{PREFIX}trial/daylily.ready", b"again")
    attic.wait_told("trial", "submission by s3 had no effect: it is deleted")


# --- rerun --------------------------------------------------------------------------------------------


def test_a_complete_workset_runs_again_under_another_name_and_stays_as_it_is(attic: Lab) -> None:
    stored, before, trail = (
        attic.load("finished"),
        _keys(attic, "finished"),
        attic.trail("finished"),
    )
    plan = attic.run_cli("rerun", "finished", "--dry-run", "-o", "jsonl")
    planned = json.loads(plan.stdout)
    assert (plan.code, planned["workset_id"]) == (0, "finished-2")
    assert _keys(attic, "finished-2") == {}
    answer = attic.run_cli("rerun", "finished", "--wait", "--json")
    assert (answer.code, answer.json["rerun_of"], answer.json["state"]) == (
        0,
        "finished",
        "complete",
    )
    new = attic.load("finished-2")
    assert stored is not None
    assert new is not None
    assert new.request.rerun_of == "finished"
    assert "with the files of finished" in attic.trail("finished-2")[0].message
    assert (attic.load("finished"), attic.trail("finished")) == (stored, trail)
    assert _keys(attic, "finished") == before
    copied = _keys(attic, "finished-2")
    drop = {name: tag for name, tag in before.items() if not name.startswith("daylily.")}
    assert {name: tag for name, tag in copied.items() if name in drop} == drop
    assert planned["files"] == len(drop)
    assert "rerun of" in attic.run_cli("show", "finished-2").stdout


def test_a_rerun_of_what_is_taken_or_has_not_ended_is_a_sentence(attic: Lab) -> None:
    taken = attic.run_cli("rerun", "broken", "--as", "finished")
    assert (taken.code, "There is a workset finished already" in taken.stderr) == (1, True)
    attic.put(f"{PREFIX}being-uploaded/reads.fastq.gz", b"x")
    used = attic.run_cli("rerun", "broken", "--as", "being-uploaded")
    assert (used.code, "Choose another name with --as" in used.stderr) == (1, True)
    assert set(_keys(attic, "being-uploaded")) == {"reads.fastq.gz"}
    early = attic.run_cli("rerun", "running")
    assert (early.code, "wait for its end, or cancel it first" in early.stderr) == (1, True)
    assert attic.run_cli("rerun", "nothing").code == 3
    assert attic.run_cli("rerun", "broken", "--as", "../x").code == 2


def test_a_command_of_a_newer_version_is_parked_with_its_reason_and_not_lost(attic: Lab) -> None:
    """What an older daemon does with ``archive``: it says what it knows, and keeps the message."""
    sqs, name = attic.aws("sqs"), attic.settings["queues"]["commands"]
    url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
    message = {"format": 1, "kind": "tidy", "id": "n1", "workset_id": "broken", "by": "me"}
    sqs.send_message(
        QueueUrl=url,
        MessageBody=json.dumps(message),
        MessageGroupId="broken",
        MessageDeduplicationId="n1",
    )
    assert attic.run_cli("priority", "broken", "low", "--wait").code == 0, "it blocks nobody"
    attic.wait_queued(name.removesuffix(".fifo") + "-dlq.fifo", 1)
    (letter,) = attic.run_cli("dlq", "list", "--json").json
    assert json.loads(letter["body"]) == message
    assert "The command 'tidy' is unknown; known are submit, cancel" in letter["reason"]
    assert "upgrade this daemon, then `daylily-daemon dlq replay`" in letter["reason"]
    assert attic.run_cli("dlq", "drop", letter["id"]).code == 0


def test_every_command_of_the_page_on_what_is_over_runs_as_printed(attic: Lab) -> None:
    attic.wait_for(attic.drop_sample("HG002-run7"), State.COMPLETE)
    page = (ROOT / "docs" / "operations.md").read_text()
    block = page.partition("### What is over\n")[2].partition("```sh\n")[2].partition("```")[0]
    commands = block.splitlines()
    assert len(commands) == 5
    for command in commands:
        answer = attic.run_cli(*shlex.split(command)[1:])
        assert answer.code == 0, (command, answer)
    assert "HG002-run7" in _names(attic, "--state", "deleted")
    assert "HG002-run7b" in _names(attic, "--state", "complete")
