"""Every command as a person or a program uses it: what it says, what it changes, how it ends."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daylily_daemon.cli.sampledata import SampleWorkset
from daylily_daemon.domain.model import Priority, State
from tests.e2e.cut_wire import wire_to
from tests.e2e.harness import PREFIX, PROGRAM, Answer, Lab, opened, until

NOBODY_LISTENS = "http://127.0.0.1:9"
GATED = 'while [ ! -e "$gate" ]; do sleep 0.1; done'
PIPELINES = {
    "gated": {"stage": "", "run": f'echo waiting at the gate; {GATED}; echo "3 is done"'},
    "damaged": {"run": "echo 'reads.fastq: invalid fastq record in line 7'; exit 3"},
    "unlucky": {"run": "echo 'connection reset by peer'; exit 4"},
}


def _spec(pipeline: str, **changes: Any) -> SampleWorkset:
    return SampleWorkset(samples=1, reads=10, read_length=20, pipeline=pipeline, **changes)


@pytest.fixture(scope="module")
def shop(moto_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A daemon with one slot, which is taken, and a workset in each state people meet."""
    with opened(tmp_path_factory.mktemp("shop"), moto_url) as lab:
        lab.configure(
            daemon={"max_worksets": 1}, inputs={"wait_s": 1}, retry={"base_s": 600, "cap_s": 600}
        )
        for name, steps in PIPELINES.items():
            lab.pipeline(name, **steps)
        lab.provision()
        lab.start()
        lab.wait_for(lab.drop_sample("finished"), State.COMPLETE)
        lab.wait_for(lab.drop_sample("broken", _spec("damaged")), State.FAILED)
        lab.wait_for(lab.drop_sample("again", _spec("unlucky")), State.RETRYING)
        lab.wait_for(lab.drop_sample("parked", _spec("", leave_out_a_fastq=True)), State.ERROR)
        lab.drop_sample("running", _spec("gated"))
        lab.wait_started("running", "1 run")
        _waiting(lab, "waiting")
        yield lab


def _waiting(lab: Lab, name: str) -> str:
    """Drop a workset that is accepted and waits for a slot."""
    lab.drop_sample(name)
    lab.wait_until(name, lambda ws: ws.plan)
    return name


# --- looking -----------------------------------------------------------------------------------------


def test_list_shows_worksets_by_state_to_people_and_programs(shop: Lab) -> None:
    table = shop.run_cli("list").stdout
    shown = {line.split()[0]: line.split()[1] for line in table.splitlines()[1:]}
    wanted = {
        "finished": "complete",
        "broken": "failed",
        "again": "retrying",
        "parked": "error",
        "running": "in_progress",
        "waiting": "ready",
    }
    assert wanted.items() <= shown.items()
    only = shop.run_cli("list", "--state", "error", "--json").json
    assert [ws["workset_id"] for ws in only] == ["parked"]
    assert shop.run_cli("list", "--customer", "nobody", "--json").json == []


def test_list_goes_on_where_a_page_ended(shop: Lab) -> None:
    ids, cursor = list[str](), ""
    while cursor or not ids:
        page = shop.run_cli("list", "--json", "--limit", "4", "--cursor", cursor).json
        ids += [ws["workset_id"] for ws in page["items"]]
        cursor = page["next"] or ""
    assert ids == [ws["workset_id"] for ws in shop.run_cli("list", "--json").json]
    first = shop.run_cli("list", "--limit", "1")
    said = first.stderr.split()[-1]
    assert "give the same options and:" in first.stderr
    second = shop.run_cli("list", "--limit", "1", "--cursor", said)
    assert second.stdout.splitlines()[1].split()[0] == ids[1]
    wrong = shop.run_cli("list", "--state", "ready", "--cursor", said)
    assert (wrong.code, "belongs to another list" in wrong.stderr) == (2, True)
    forged = shop.run_cli("list", "--cursor", "x")
    assert (forged.code, "is no cursor" in forged.stderr) == (2, True)


def test_list_takes_priority_age_and_how_an_id_begins(shop: Lab) -> None:
    def ids(*options: str) -> set[str]:
        return {ws["workset_id"] for ws in shop.run_cli("list", "--json", *options).json}

    assert "parked" in ids("--prefix", "par", "--newer-than", "2h", "--priority", "normal")
    assert ids("--prefix", "par", "--older-than", "2h") == set()
    assert ids("--prefix", "par", "--priority", "low") == set()
    wrong = shop.run_cli("list", "--older-than", "soon")
    assert (wrong.code, "is no age" in wrong.stderr) == (2, True)


@pytest.mark.parametrize(
    ("workset", "words"),
    [
        ("finished", "It is complete. Results: s3://"),
        (
            "broken",
            "Code WS-DAT-001, category data. When the cause is fixed: `daylily-daemon retry",
        ),
        (
            "again",
            "UTC. The last try failed: step run: It ended with exit code 4; a connection was",
        ),
        ("parked", "column R2_FQ: s3://"),
        ("running", "It runs, attempt 1, held by lab"),
        ("waiting", "1 of 1 slots are taken"),
    ],
)
def test_explain_says_why_a_workset_is_where_it_is(shop: Lab, workset: str, words: str) -> None:
    answer = shop.run_cli("explain", workset, "--json")
    assert answer.code == 0
    assert words in " ".join(answer.json["why"].split())


def test_show_and_events_tell_the_whole_story(shop: Lab) -> None:
    shown = shop.run_cli("show", "broken")
    assert "WS-DAT-001 (data)" in shown.stdout
    assert "invalid fastq record in line 7" in shown.stdout
    told = shop.run_cli("events", "finished", "--json").json
    assert [record["seq"] for record in told] == list(range(1, len(told) + 1))
    assert [r["state"] for r in told if r.get("notify")] == ["ready", "in_progress", "complete"]
    assert "ready → in_progress" in shop.run_cli("events", "finished").stdout


def test_status_shows_the_daemon_the_states_and_the_queues(shop: Lab) -> None:
    figures = shop.run_cli("status", "--json").json
    assert figures["daemon"]["pid"] == shop.daemons[0].process.pid
    assert figures["worksets"]["error"] == 1
    assert {level["waiting"] for level in figures["queues"].values()} == {0}
    assert [daemon["state"] for daemon in figures["daemons"]] == ["running"]
    assert "running 1 of 1 worksets" in shop.run_cli("status").words


def test_logs_prints_what_the_job_printed(shop: Lab) -> None:
    answer = shop.run_cli("logs", "broken")
    assert (answer.code, answer.stdout) == (0, "reads.fastq: invalid fastq record in line 7\n")
    assert shop.run_cli("logs", "running", "--step", "stage").stdout == ""


def test_logs_shows_what_a_terminal_would_obey_and_raw_has_the_bytes(lab: Lab) -> None:
    lab.pipeline(
        "noting", stage="", run=r"printf '\033[31mred\033[0m\033]0;title\007\n10%%\r20%%\n'"
    )
    lab.start()
    lab.wait_for(lab.drop_sample("loud"), State.COMPLETE)
    shown = lab.run_cli("logs", "loud", "--step", "run")
    assert (shown.code, shown.stdout) == (0, "red\\x1b]0;title\\x07\n10%\n20%\n")
    raw = subprocess.run(
        [*PROGRAM, "logs", "loud", "--step", "run", "--raw"],
        cwd=lab.folder,
        env=lab.environment(),
        capture_output=True,
        check=True,
    ).stdout
    assert raw == b"\x1b[31mred\x1b[0m\x1b]0;title\x07\n10%\r20%\n"


@pytest.mark.reported("E", "a followed log that never ends (podman#6531, moby#36626)")
def test_logs_f_follows_a_job_to_its_end(lab: Lab) -> None:
    lab.pipeline("noting", **PIPELINES["gated"])
    lab.start()
    lab.drop_sample("long")
    lab.wait_started("long", "1 run")
    with subprocess.Popen(
        [*PROGRAM, "logs", "-f", "long"],
        cwd=lab.folder,
        env=lab.environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as following:
        assert following.stdout is not None
        assert following.stdout.readline() == "waiting at the gate\n"
        lab.open_gate("long")
        assert following.stdout.read() == "3 is done\n"
    assert following.returncode == 0


# --- asking ------------------------------------------------------------------------------------------


def test_priority_and_ignore_of_a_waiting_workset(shop: Lab) -> None:
    _waiting(shop, "late")
    assert shop.run_cli("priority", "late", "urgent", "--json").json["kind"] == "set_priority"
    shop.wait_until("late", lambda ws: ws.priority is Priority.URGENT)
    first = shop.run_cli("list", "--state", "ready", "--json").json[0]
    assert first["workset_id"] == "late"
    assert (
        "ignore of late is asked for" in shop.run_cli("ignore", "late", "--reason", "trial").stdout
    )
    shop.wait_for("late", State.IGNORED)
    assert ": trial. `daylily-daemon retry late`" in shop.run_cli("explain", "late").words
    assert not shop.evidence("late")


def test_cancel_stops_a_running_workset_and_retry_runs_it_again(lab: Lab) -> None:
    lab.pipeline("noting", **PIPELINES["gated"])
    lab.start()
    lab.drop_sample("long")
    lab.wait_started("long", "1 run")
    assert lab.run_cli("cancel", "long", "--reason", "wrong flow cell").code == 0
    canceled = lab.wait_for("long", State.CANCELED)
    assert canceled.history[-1].reason.endswith(": wrong flow cell")
    assert lab.running_jobs() == []
    assert "retry long" in lab.run_cli("explain", "long").words
    lab.open_gate("long")
    assert lab.run_cli("retry", "long", "--json").json["kind"] == "retry"
    lab.wait_for("long", State.COMPLETE)
    assert lab.evidence() == {f"long {n} {step}": 1 for n in (1, 2) for step in ("stage", "run")}


def test_submit_of_a_place_in_s3_waits_for_the_end_and_its_exit_code_tells_it(lab: Lab) -> None:
    lab.pipeline("damaged", **PIPELINES["damaged"])
    lab.start()
    lab.upload(lab.sample("good"), "good")
    lab.upload(lab.sample("bad", _spec("damaged")), "bad")
    uri = f"s3://{lab.bucket}/{PREFIX}"
    good = lab.run_cli("submit", f"{uri}good/", "--customer", "lab-7", "--wait", "--json")
    assert (good.code, good.json["state"], good.json["customer_id"]) == (0, "complete", "lab-7")
    bad = lab.run_cli("submit", f"{uri}bad", "--wait")
    assert bad.code == 1
    assert "bad is failed." in bad.words
    assert "invalid fastq record in line 7" in bad.words


def test_submit_of_a_folder_uploads_everything_but_the_sentinels(shop: Lab) -> None:
    folder = shop.sample("local")
    (folder / "daylily.error").touch()
    answer = shop.run_cli(
        "submit", str(folder), "--priority", "low", "--customer", "lab-7", "--json"
    )
    assert answer.json == {"workset_id": "local"}
    ws = shop.wait_until("local", lambda ws: ws.plan)
    assert (ws.priority, ws.request.customer_id) == (Priority.LOW, "lab-7")
    assert [record.by[:4] for record in shop.trail("local")] == ["cli:"]
    listed = shop.aws("s3").list_objects_v2(Bucket=shop.bucket, Prefix=f"{PREFIX}local/")
    names = {Path(entry["Key"]).name for entry in listed["Contents"]}
    assert {"daylily_work.yaml", "stage_samples.tsv"} <= names
    assert not {name for name in names if name.startswith("daylily.")}


# --- refusals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "command", "words"),
    [
        (3, "show nobody", "There is no workset nobody. `daylily-daemon list` shows"),
        (3, "logs waiting", "waiting has not run yet: it is ready."),
        (3, "logs finished --step cleanup", "There is no log of finished"),
        (2, "show ../etc", "'../etc' is no workset id: letters, digits, - and _"),
        (2, "show", "Missing argument"),
        (2, "status --set daemon.sweep", "write it as KEY=VALUE"),
        (2, "status --set daemon.sweeps=3", "There is no setting daemon.sweeps. Did you mean"),
        (
            2,
            "submit s3://elsewhere/x/",
            "is no workset of the control bucket; it must be s3://shop",
        ),
        (2, "submit ./nowhere", "nowhere is neither a folder of this host nor an s3:// address."),
        (2, "status --config nowhere.yaml", "nowhere.yaml: The file cannot be read"),
        (4, f"list --set aws.endpoint_url={NOBODY_LISTENS}", "cannot be reached"),
        (1, "list --set tables.worksets=nobodys-table", "nobodys-table"),
        (1, "stage s3://shop/nothing/ x", "nothing"),
    ],
)
def test_a_refusal_is_a_sentence_and_an_exit_code(
    shop: Lab, code: int, command: str, words: str
) -> None:
    answer = shop.run_cli(*shlex.split(command.replace("//shop", f"//{shop.bucket}")))
    assert answer.code == code, answer
    assert words.replace("//shop", f"//{shop.bucket}") in answer.words


def test_explain_says_so_when_no_daemon_runs(lab: Lab) -> None:
    lab.configure(daemon={"max_worksets": 0})
    daemon = lab.start()
    _waiting(lab, "forgotten")
    assert daemon.terminate() == 0
    assert "No daemon runs on this host" in lab.run_cli("explain", "forgotten").words
    status = lab.run_cli("status")
    assert "not running; last seen" in status.words
    assert "stopped in order at" in status.words
    assert status.code == 1


def test_status_is_good_only_while_the_daemon_is_well(lab: Lab) -> None:
    daemon = lab.start()
    well = lab.run_cli("status")
    assert (well.code, well.words.startswith("well ")) == (0, True)
    away = lab.run_cli("status", "--set", f"aws.endpoint_url={NOBODY_LISTENS}")
    assert away.code == 4
    assert away.words.index("well as far as is known") < away.words.index("cannot be reached")
    daemon.send(signal.SIGSTOP)
    stopped = until(lambda: lab.run_cli("status", "--json"))
    assert (stopped.code, stopped.json["healthy"]) == (1, False)
    assert f"kill -CONT {daemon.process.pid}" in [
        problem["command"] for problem in stopped.json["problems"]
    ]
    daemon.kill()
    killed = lab.run_cli("status")
    assert (killed.code, "not running; last seen" in killed.words) == (1, True)
    assert "not stopped in order" in killed.words
    said = lab.state.read_status() or {}
    lab.state.write_status(json.dumps({**said, "pid": os.getpid()}).encode())
    replaced = lab.run_cli("status", "--set", f"aws.endpoint_url={NOBODY_LISTENS}")
    assert (replaced.code, "is not its own any more" in replaced.words) == (1, True)


def test_a_daemon_that_is_cut_off_from_aws_is_not_well_though_its_process_is(lab: Lab) -> None:
    lab.pipeline("noting", **PIPELINES["gated"])
    with wire_to(lab.url) as wire:
        daemon = lab.start("--set", f"aws.endpoint_url={wire.url}")
        lab.drop_sample("long")
        lab.wait_started("long", "1 run")
        until(lambda: "It runs, attempt 1" in lab.run_cli("explain", "long").words)
        wire.cut()
        told = until(
            lambda: _if_said(lab, "DynamoDB does not answer since"),
            why=lambda: str(lab.run_cli("status")),
        )
        assert told is not None
        assert told.code == 1
        why = lab.run_cli("explain", "long").words
        assert "It runs" not in why
        assert "this daemon is not well" in why or "has not renewed its claim" in why
        wire.join()
        until(lambda: lab.run_cli("status").code == 0, why=lambda: str(lab.run_cli("status")))
        assert "It runs, attempt 1" in lab.run_cli("explain", "long").words
        lab.open_gate("long")
        lab.wait_for("long", State.COMPLETE)
        assert daemon.terminate() == 0


def _if_said(lab: Lab, words: str) -> Answer | None:
    answer = lab.run_cli("status")
    return answer if words in answer.words else None


def test_a_submission_that_no_daemon_has_answered_is_mentioned(lab: Lab) -> None:
    lab.upload(lab.sample("early"), "early")
    lab.run_cli("submit", f"s3://{lab.bucket}/{PREFIX}early/")
    for command in ("show", "explain"):
        answer = lab.run_cli(command, "early")
        assert answer.code == 3
        assert (
            "But no daemon has answered 1 command and 1 S3 event in the queues yet" in answer.words
        )
        assert "No daemon has run with this state directory." in answer.words


def test_ctrl_c_while_waiting_leaves_the_workset_alone(shop: Lab) -> None:
    shop.upload(shop.sample("unhurried"), "unhurried")
    uri = f"s3://{shop.bucket}/{PREFIX}unhurried/"
    with subprocess.Popen(
        [*PROGRAM, "submit", uri, "--wait"],
        cwd=shop.folder,
        env=shop.environment(),
        stderr=subprocess.PIPE,
        text=True,
    ) as waiting:
        shop.wait_until("unhurried", lambda ws: ws.plan)
        waiting.send_signal(2)
        assert waiting.stderr is not None
        assert "Traceback" not in waiting.stderr.read()
    assert waiting.returncode == 130
    ws = shop.load("unhurried")
    assert ws is not None
    assert ws.state is State.READY


def test_check_config_shows_where_each_setting_comes_from(shop: Lab) -> None:
    rows = shop.run_cli("check-config", "--set", "daemon.sweep_s=3", "--json").json
    assert rows["daemon.sweep_s"] == {"value": "3", "origin": "command line"}
    assert rows["aws.endpoint_url"]["origin"] == "environment AWS_ENDPOINT_URL"
    assert rows["control.bucket"]["origin"].startswith(f"{shop.config} line ")
    assert "default" in rows["lease.ttl_s"]["origin"]
