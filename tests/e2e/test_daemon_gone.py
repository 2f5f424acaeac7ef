"""A head node is gone for good: what its daemon held is found by its name, shown, and run again elsewhere."""

from __future__ import annotations

from dataclasses import replace

from daylily_daemon.adapters.codec import typed_item, workset_to_item
from daylily_daemon.domain.model import State
from tests import made
from tests.arch.repository import ROOT
from tests.e2e.harness import PREFIX, Lab


def _left_by(lab: Lab, id: str, owner: str | None, scope: str) -> None:
    """Store a workset whose job ran on a machine that nobody reaches."""
    ws = made.running(id, owner=owner, scope=scope, steps=("stage", "run", "export"))
    ws = made.asked(ws, bucket=lab.bucket, prefix=f"{PREFIX}{id}/")
    item = workset_to_item(replace(ws, last_seq=0, version=1))
    lab.upload(lab.sample(id), id)
    lab.aws("dynamodb").put_item(
        TableName=lab.settings["tables"]["worksets"], Item=typed_item(item)
    )


def test_what_a_daemon_that_is_gone_held_is_run_again_elsewhere(lab: Lab) -> None:
    lab.configure(lease={"ttl_s": 12, "margin_s": 2, "beat_s": 3})
    _left_by(lab, "one", "head2/i-0abc/f1", "host:i-0abc/00ff")
    _left_by(lab, "two", "head2/i-0abc/f1", "host:i-0abc/00ff")
    _left_by(lab, "other", "head22/i-0def/f1", "host:i-0def/00ff")
    _left_by(lab, "given-back", None, "host:i-0abc/00ff")
    lab.start()
    found = lab.run_cli("daemon", "gone", "head2", "--dry-run", "-o", "name")
    assert lab.run_cli("list", "--host", "head2", "-o", "name").stdout.split() == ["one", "two"]
    assert sorted(found.stdout.split()) == ["one", "two"]
    assert all(ws and ws.inbox == () for ws in (lab.load("one"), lab.load("two")))
    unsure = lab.run_cli("daemon", "gone", "head2")
    assert (unsure.code, "agree to it with --yes" in unsure.stderr) == (2, True)
    asked = lab.run_cli("daemon", "gone", "head2", "--yes")
    assert sorted(line.split(":")[0] for line in asked.stdout.splitlines()) == ["one", "two"]
    assert "daylily-daemon daemon gone i-0abc" in lab.run_cli("explain", "given-back").words
    assert lab.run_cli("daemon", "gone", "i-0abc", "--yes").code == 0
    for id in ("one", "two", "given-back"):
        ws = lab.wait_for(id, State.COMPLETE)
        assert ws.attempt == 2
    other = lab.load("other")
    assert other is not None
    assert (other.state, other.inbox) == (State.IN_PROGRESS, ())
    nobody = lab.run_cli("daemon", "gone", "nobody", "--yes")
    assert (nobody.code, "no such worksets" in nobody.stderr) == (0, True)


def test_the_commands_of_the_page_on_daemons_that_are_gone_run_as_printed(lab: Lab) -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    commands = [line for line in page.splitlines() if line.startswith("daylily-daemon daemon gone")]
    assert len(commands) == 2
    for command in commands:
        assert lab.run_cli(*command.split()[1:]).code == 0
