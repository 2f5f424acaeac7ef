"""A message that a daemon gave up is put right by the command line, and the daemon obeys it."""

from __future__ import annotations

import json
import os
import pty
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from daylily_daemon.domain.model import State
from tests.e2e.harness import Lab
from tests.e2e.processes import until
from tests.e2e.test_cli_examples import EXAMPLES


def _letter(lab: Lab, kind: str, **ask: str) -> dict[str, Any]:
    """Have a daemon give up a command about a workset that is complete."""
    lab.start()
    lab.drop_sample("HG002-run7")
    lab.wait_for("HG002-run7", State.COMPLETE)
    sqs, name = lab.aws("sqs"), lab.settings["queues"]["commands"]
    message = {"kind": kind, "id": "n1", "workset_id": "HG002-run7", "by": "me", "ask": ask}
    sqs.send_message(
        QueueUrl=sqs.get_queue_url(QueueName=name)["QueueUrl"],
        MessageBody=json.dumps(message),
        MessageGroupId="HG002-run7",
        MessageDeduplicationId="n1",
    )
    lab.wait_queued(name.removesuffix(".fifo") + "-dlq.fifo", 1)
    (found,) = lab.run_cli("dlq", "list", "--json").json
    return dict(found)


def test_a_mended_message_is_obeyed_and_no_dead_letter_is_left(lab: Lab, tmp_path: Path) -> None:
    letter = _letter(lab, "tidy")
    shown = lab.run_cli("dlq", "show", "1", "--json").json
    assert shown["id"] == letter["id"]
    for number in (
        2,
        9,
        int(letter["id"][0]) if letter["id"][0] in "23456789" else 3,
    ):  # also how the id begins
        missing = lab.run_cli("dlq", "show", str(number))
        assert (missing.code, f"no message {number}" in missing.stderr) == (3, True)
    refused = lab.run_cli("dlq", "mend", letter["id"], "--set", "kind=sweep")
    assert (refused.code, "The command 'sweep' is unknown" in refused.stderr) == (1, True), refused
    unchanged = lab.run_cli("dlq", "mend", letter["id"], "--set", "kind=tidy")
    assert (unchanged.code, "dlq replay" in unchanged.stderr) == (1, True)
    for wrong in ((), ("--edit", "--set", "kind=x"), ("--edit",), ("--body", "no-such-file")):
        assert lab.run_cli("dlq", "mend", letter["id"], *wrong).code == 2, wrong
    odd = tmp_path / "odd.json"
    odd.write_bytes(b"\xff\xfe")
    assert lab.run_cli("dlq", "mend", letter["id"], "--body", str(odd)).code == 2
    planned = lab.run_cli("dlq", "mend", letter["id"], "--set", "kind=archive", "--dry-run")
    assert "It would ask for archive of HG002-run7. Nothing was sent" in planned.words
    assert len(lab.run_cli("dlq", "list", "--json").json) == 1
    sent = lab.run_cli("dlq", "mend", letter["id"][:8], "--set", "kind=archive")
    assert sent.code == 0, sent
    assert "archive of HG002-run7. The old message is gone." in sent.words
    lab.wait_for("HG002-run7", State.ARCHIVED)
    assert lab.run_cli("dlq", "list", "--json").json == []


def test_the_example_of_the_help_mends_a_priority(lab: Lab) -> None:
    letter = _letter(lab, "set_priority", priority="soon")
    assert "cannot be read" in letter["reason"]
    words = shlex.split(EXAMPLES["dlq mend"].replace("3f2a91c0", letter["id"]))[1:]
    answer = lab.run_cli(*words)
    assert answer.code == 0, answer
    lab.wait_told("HG002-run7", "priority")


def test_a_message_is_mended_in_an_editor(lab: Lab) -> None:
    letter = _letter(lab, "tidy")
    editor = lab.folder / "editor.sh"
    editor.write_text('#!/bin/sh\nsed -i s/tidy/archive/ "$1"\n')
    editor.chmod(0o755)
    ours, theirs = pty.openpty()
    argv = [sys.executable, "-m", "daylily_daemon", "dlq", "mend", letter["id"], "--edit"]
    with subprocess.Popen(
        argv,
        env=lab.environment() | {"EDITOR": str(editor), "VISUAL": ""},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        until(lambda: process.poll() is not None)
    os.close(ours)
    assert process.returncode == 0
    lab.wait_for("HG002-run7", State.ARCHIVED)
