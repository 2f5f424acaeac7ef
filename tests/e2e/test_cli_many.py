"""One question to many worksets: who is meant is shown, somebody agrees, and each has its own answer."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from collections.abc import Iterator

import pytest

from daylily_daemon.cli.sampledata import SampleWorkset
from daylily_daemon.domain.model import Priority, State
from tests.arch.repository import ROOT
from tests.e2e.harness import PROGRAM, Answer, Lab, opened

IDS = ("heap-1", "heap-2", "heap-3")


def _spec(pipeline: str) -> SampleWorkset:
    return SampleWorkset(samples=1, reads=10, read_length=20, pipeline=pipeline)


@pytest.fixture(scope="module")
def heap(moto_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A daemon, three worksets that failed for one reason, and one that is complete."""
    with opened(tmp_path_factory.mktemp("heap"), moto_url) as lab:
        lab.pipeline("damaged", run="echo 'reads.fastq: invalid fastq record in line 7'; exit 3")
        lab.provision()
        lab.start()
        for id in IDS:
            lab.drop_sample(id, _spec("damaged"))
        lab.wait_for(lab.drop_sample("finished"), State.COMPLETE)
        for id in IDS:
            lab.wait_for(id, State.FAILED)
        yield lab


def _states(lab: Lab) -> list[State]:
    found = [lab.load(id) for id in IDS]
    return [ws.state for ws in found if ws]


def _at_a_terminal(lab: Lab, answer: str, *arguments: str) -> Answer:
    """Run a command whose stdin and stderr are a terminal, at which somebody types ``answer``."""
    master, slave = pty.openpty()
    os.write(master, answer.encode())
    with os.fdopen(slave, "w") as terminal:
        done = subprocess.run(
            [*PROGRAM, *arguments],
            cwd=lab.folder,
            env=lab.environment(),
            stdin=terminal,
            stderr=terminal,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
    said = os.read(master, 100_000).decode()
    os.close(master)
    return Answer(done.returncode, done.stdout, said)


@pytest.mark.reported("E", "without a terminal it just goes on (pharos-cluster#702, ockam#5041)")
@pytest.mark.reported("E", "without a terminal it waits for an answer for ever (brev-cli#388)")
@pytest.mark.parametrize("arguments", ["heap-1 heap-2", "--state failed", "--code WS-DAT-001"])
def test_without_a_terminal_many_are_asked_only_with_yes(heap: Lab, arguments: str) -> None:
    answer = heap.run_cli("ignore", *arguments.split())
    assert (answer.code, "agree to it with --yes" in answer.stderr) == (2, True)
    assert _states(heap) == [State.FAILED] * 3


def test_ids_and_a_filter_or_neither_are_no_question(heap: Lab) -> None:
    for arguments in ([], ["heap-1", "--state", "failed"], ["heap-1", "--older", "soon", "--yes"]):
        answer = heap.run_cli("ignore", *arguments)
        assert answer.code == 2, answer
    both = heap.run_cli("ignore", "heap-1", "--json", "-o", "name")
    assert (both.code, "give one of them" in both.stderr) == (2, True)
    gone = heap.run_cli("ignore", "heap-1", "never-seen", "--yes")
    assert (gone.code, "There is no workset never-seen" in gone.stderr) == (3, True)
    assert _states(heap) == [State.FAILED] * 3


def test_a_dry_run_shows_what_would_become_of_each_and_asks_nothing(heap: Lab) -> None:
    answer = heap.run_cli("retry", "heap-1", "finished", "--dry-run")
    assert answer.code == 1
    lines = answer.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == ["heap-1", "finished"]
    assert "would be so: retry asked for by cli:" in lines[0]
    assert "had no effect: it is complete" in lines[1]
    assert "1 of 2 would be done." in answer.stderr
    found = heap.run_cli("retry", "--state", "failed", "--dry-run", "-o", "jsonl")
    objects = [json.loads(line) for line in found.stdout.splitlines()]
    assert (found.code, sorted(one["workset_id"] for one in objects)) == (0, list(IDS))
    assert all(one["dry_run"] and one["effect"] == "applied" for one in objects)
    alone = heap.run_cli("ignore", "finished", "--dry-run", "--json")
    assert (alone.code, alone.json["effect"]) == (1, "none")
    assert _states(heap) == [State.FAILED] * 3
    assert not any("ignore" in record.message for record in heap.trail("finished"))


@pytest.mark.reported("E", "a prompt gets into what is piped on (gh-search#71)")
def test_at_a_terminal_the_rows_are_shown_and_only_a_yes_is_a_yes(heap: Lab) -> None:
    for answer in ("n\n", "\n", "yeah\n", "\x04"):
        no = _at_a_terminal(heap, answer, "ignore", "--code", "WS-DAT-001")
        assert (no.code, no.stdout) == (1, "")
        assert "WORKSET" in no.stderr
        assert all(id in no.stderr for id in IDS)
        assert "Ignore these 3 worksets? [y/N]" in no.stderr
        assert "Nothing was asked." in no.stderr
    assert _states(heap) == [State.FAILED] * 3
    yes = _at_a_terminal(heap, "y\n", "ignore", *IDS, "--wait", "-o", "name")
    assert (yes.code, sorted(yes.stdout.split())) == (0, list(IDS))
    assert _states(heap) == [State.IGNORED] * 3
    again = heap.run_cli("retry", "--state", "ignored", "--pipeline", "none", "--yes")
    assert (again.code, len(again.stdout.splitlines())) == (0, 0)
    back = heap.run_cli("retry", "--state", "ignored", "--yes", "--wait")
    assert (back.code, len(back.stdout.splitlines())) == (0, 3), back
    assert "3 of 3 done." in back.stderr
    for id in IDS:
        heap.wait_for(id, State.FAILED)


def test_each_has_an_outcome_and_the_exit_code_is_0_only_if_all_were_done(heap: Lab) -> None:
    mixed = heap.run_cli("priority", "heap-1", "heap-2", "low", "--wait", "--yes", "--json")
    assert (mixed.code, [one["effect"] for one in mixed.json]) == (0, ["applied"] * 2)
    for id in ("heap-1", "heap-2"):
        ws = heap.load(id)
        assert ws is not None
        assert ws.priority is Priority.LOW
    partly = heap.run_cli("ignore", "finished", "heap-3", "--wait", "--yes")
    assert partly.code == 1
    said = dict(line.split(": ", 1) for line in partly.stdout.splitlines())
    assert "had no effect: it is complete" in said["finished"]
    assert said["heap-3"].endswith("It is ignored.")
    assert "1 of 2 done." in partly.stderr
    assert heap.run_cli("retry", "heap-3", "--wait").code == 0
    heap.wait_for("heap-3", State.FAILED)


def test_list_and_the_asking_commands_find_the_same_by_the_same_filters(heap: Lab) -> None:
    for options in (
        ("--code", "WS-DAT-001"),
        ("--state", "failed", "--since", "12h"),
        ("--state", "failed", "--older", "12h"),
        ("--state", "failed", "--customer", "nobody"),
        ("--state", "failed", "--pipeline", "damaged", "--host", "nowhere"),
        ("--state", "failed", "--pipeline", "damaged"),
    ):
        listed = heap.run_cli("list", "-o", "name", *options)
        asked = heap.run_cli("retry", "--dry-run", "-o", "name", *options)
        assert (listed.code, asked.code) == (0, 0)
        assert sorted(listed.stdout.split()) == sorted(asked.stdout.split())
    assert sorted(heap.run_cli("list", "--code", "WS-DAT-001", "-o", "name").stdout.split()) == [
        *IDS
    ]


def test_every_command_of_the_page_on_asking_of_many_runs_as_printed(heap: Lab) -> None:
    for id in ("HG002-run7", "HG002-test"):
        heap.drop_sample(id, _spec("damaged"))
        heap.wait_for(id, State.FAILED)
    page = (ROOT / "docs" / "operations.md").read_text()
    block = page.partition("### Asking of many\n")[2].partition("```sh\n")[2].partition("```")[0]
    commands = block.splitlines()
    assert len(commands) == 5
    for command in commands:
        answer = heap.run_cli(*command.split()[1:])
        assert answer.code == 0, (command, answer)
    for id in ("HG002-run7", "HG002-test"):
        heap.wait_for(id, State.IGNORED)
    for id in IDS:
        heap.wait_for(id, State.FAILED)


def test_what_no_daemon_has_answered_is_4_though_others_were(heap: Lab) -> None:
    """Last: it ends the daemon."""
    assert heap.daemons[0].terminate() == 0
    answer = heap.run_cli("ignore", *IDS, "--yes", "--wait", "--timeout", "1", "-o", "jsonl")
    assert answer.code == 4
    objects = [json.loads(line) for line in answer.stdout.splitlines()]
    assert [one["effect"] for one in objects] == [None] * 3
    first = heap.run_cli("list", "--state", "failed", "--limit", "2", "-o", "name")
    assert len(first.stdout.split()) == 2
    limited = heap.run_cli("retry", "--state", "failed", "--limit", "2", "--dry-run")
    assert (len(limited.stdout.splitlines()), "there may be more" in limited.stderr) == (2, True)
