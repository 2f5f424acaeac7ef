"""The help of every command, its examples run as they are printed, and the dead letters."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

from daylily_daemon.cli.app import whole_program
from daylily_daemon.domain.model import Priority, State
from tests.e2e.harness import PREFIX, Lab
from tests.e2e.keeper import kept_running

ELSEWHERE = {"run", "demo", "dlq show", "dlq replay", "dlq drop", "dlq mend"}
"""Examples run elsewhere: every test starts ``run``, test_demo runs ``demo``, dead letters are below."""


def _examples(group: Any, before: str = "") -> Iterator[tuple[str, str]]:
    """Yield each command and the example in its help."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _examples(command, f"{before}{name} ")
        else:
            yield before + name, (command.help or "").partition("Example: ")[2].strip()


EXAMPLES = dict(_examples(whole_program()))


def test_each_command_has_an_example_and_a_line_in_the_help(empty_lab: Lab) -> None:
    assert {n: e for n, e in EXAMPLES.items() if not e.startswith(f"daylily-daemon {n}")} == {}
    told = empty_lab.run_cli("--help")
    assert told.code == 0
    assert "0 good, 1 failed, 2 usage or configuration, 3 not found, 4 not reachable" in told.words
    names = {name.split()[0] for name in EXAMPLES}
    assert [name for name in sorted(names) if f"\n  {name} " not in told.stdout] == []


def test_every_example_of_the_help_works(lab: Lab) -> None:
    """As printed, but for places that are not this machine's: ``/fsx`` and the bucket ``lab``."""
    with kept_running(lab):
        lab.sample("HG002-run7").rename(lab.folder / "HG002-run7")
        lab.drop_sample("HG002-test")
        lab.wait_for("HG002-test", State.COMPLETE)
        (lab.folder / "fsx" / "work" / "HG002-run7" / "results").mkdir(parents=True)
        for name, example in EXAMPLES.items():
            if name not in ELSEWHERE:
                here = example.replace("s3://lab/", f"s3://{lab.bucket}/")
                words = shlex.split(here.replace("/fsx/", f"{lab.folder}/fsx/"))
                answer = lab.run_cli(*words[1:])
                assert answer.code == 0, (example, answer)
    run7 = lab.load("HG002-run7")
    assert run7 is not None
    assert (run7.state, run7.priority) == (State.COMPLETE, Priority.URGENT)
    assert lab.aws("s3").head_object(Bucket=lab.bucket, Key=f"{PREFIX}HG002-run7/daylily_work.yaml")
    assert (lab.folder / "fsx" / "stage" / "x" / "stage_samples.tsv").exists()
    assert (lab.folder / "fsx" / "work" / "x" / "metrics.json").exists()


def test_a_message_that_nobody_can_read_is_kept_shown_replayed_and_dropped(lab: Lab) -> None:
    sqs = lab.aws("sqs")
    url = sqs.get_queue_url(QueueName=lab.settings["queues"]["intake"])["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody="not JSON at all")
    lab.start()
    first = _dead_letter(lab)
    assert first["body"] == "not JSON at all"
    assert "The message is not JSON" in first["reason"]
    for command, id in (("show", first["id"]), ("replay", first["id"][:8])):
        answer = lab.run_cli(*EXAMPLES[f"dlq {command}"].replace("3f2a91c0", id).split()[1:])
        assert answer.code == 0, answer
    assert lab.run_cli("dlq", "drop", _dead_letter(lab)["id"]).code == 0
    assert lab.run_cli("dlq", "list", "--json").json == []


def _dead_letter(lab: Lab) -> dict[str, str]:
    """Wait until the daemon has parked the one message there is."""
    name = f"{lab.settings['queues']['intake']}-dlq"
    lab.wait_queued(name, 1)
    (found,) = lab.run_cli("dlq", "list", "--json").json
    return dict(found)
