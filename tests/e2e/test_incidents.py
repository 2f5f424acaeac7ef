"""Incidents, staged for real: ``status`` names cause and remedy, and is well again once that was done.

A remedy that is a command of ours is run as it is printed. What is done outside (new credentials, a clock
that is set, a receiver that is back) the test does.
"""

from __future__ import annotations

import json
import shlex
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Final

import pytest

from daylily_daemon.domain.model import State
from daylily_daemon.domain.problems import ProblemKind
from tests.e2e.harness import PREFIX, Answer, Lab, until
from tests.e2e.troubled_aws import TroubledAws, troubled_aws

pytestmark = pytest.mark.timeout(300)

COLUMNS: Final = "80"
MOST_CALLS: Final = 20


def _problems(lab: Lab) -> dict[str, dict[str, Any]]:
    return {found["kind"]: found for found in lab.run_cli("status", "--json").json["problems"]}


def _named(lab: Lab, kind: ProblemKind) -> dict[str, Any]:
    """Wait until ``status`` names this problem; return it."""
    found = until(lambda: _problems(lab).get(kind), why=lambda: str(lab.run_cli("status")))
    assert found is not None
    return found


def _well_again(lab: Lab) -> None:
    def look() -> Answer | None:
        answer = lab.run_cli("status", "--strict")
        return answer if answer.code == 0 else None

    until(look, why=lambda: str(lab.run_cli("status")))


def _told_to_people(lab: Lab, problem: dict[str, Any], *words: str) -> None:
    """Cause and remedy stand in one command at 80 columns."""
    shown = lab.run_cli("status", COLUMNS=COLUMNS).words
    for word in (*words, problem["command"]):
        assert word in shown, shown


def _do(lab: Lab, problem: dict[str, Any]) -> Answer:
    """Run the remedy as it is printed."""
    program, *arguments = shlex.split(problem["command"])
    assert program == "daylily-daemon"
    return lab.run_cli(*arguments)


# --- AWS ------------------------------------------------------------------------------------------


@pytest.fixture
def aws(lab: Lab) -> Iterator[TroubledAws]:
    with troubled_aws(lab.url) as found:
        yield found


def test_expired_credentials(lab: Lab, aws: TroubledAws) -> None:
    lab.start("--set", f"aws.endpoint_url={aws.url}")
    aws.refuse("ExpiredTokenException", "The security token included in the request is expired")
    problem = _named(lab, ProblemKind.CREDENTIALS)
    _told_to_people(lab, problem, "refuses our credentials since", "Renew the credentials")
    assert lab.run_cli("status", "--quiet").code == 1
    aws.recover()
    _well_again(lab)


def test_a_look_costs_few_calls(lab: Lab, aws: TroubledAws) -> None:
    """However much is there: each state is counted in one call, and all daemons are in one."""
    lab.start()
    told = lab.run_cli("status", "--set", f"aws.endpoint_url={aws.url}")
    assert (told.code, 0 < aws.asked <= MOST_CALLS) == (0, True), aws.asked


def test_throttling_is_told_apart_from_refusal(lab: Lab, aws: TroubledAws) -> None:
    lab.start("--set", f"aws.endpoint_url={aws.url}")
    aws.refuse("ThrottlingException", "Rate exceeded", only="dynamodb")
    problem = _named(lab, ProblemKind.THROTTLED)
    _told_to_people(lab, problem, "DynamoDB throttles since", "raise the quota")
    aws.refuse(
        "AccessDeniedException", "not authorized to perform: dynamodb:Query", only="dynamodb"
    )
    problem = _named(lab, ProblemKind.REFUSED)
    _told_to_people(lab, problem, "DynamoDB refuses since", "Fix what it names")
    aws.recover()
    _well_again(lab)


def test_a_clock_that_is_off(lab: Lab, aws: TroubledAws) -> None:
    aws.ahead_s = -61
    lab.start("--set", f"aws.endpoint_url={aws.url}")
    problem = _named(lab, ProblemKind.CLOCK)
    _told_to_people(lab, problem, " s ahead of AWS", "chronyc tracking")
    assert lab.run_cli("status").code == 0, "a warning"
    assert lab.run_cli("status", "--strict").code == 1
    aws.ahead_s = 299
    until(lambda: "behind AWS" in _named(lab, ProblemKind.CLOCK)["text"])
    assert lab.run_cli("status").code == 1
    aws.recover()
    _well_again(lab)


# --- queues and events ----------------------------------------------------------------------------


def test_a_stuck_group(lab: Lab) -> None:
    """Somebody else has received a command and sits on it: those behind it wait."""
    lab.configure(queues={"old_s": 3})
    lab.drop_sample("stuck")
    daemon = lab.start()
    lab.wait_for("stuck", State.COMPLETE)
    daemon.terminate()
    sqs = lab.aws("sqs")
    url = sqs.get_queue_url(QueueName=lab.settings["queues"]["commands"])["QueueUrl"]
    assert lab.run_cli("priority", "stuck", "low").code == 0
    taken = sqs.receive_message(QueueUrl=url, VisibilityTimeout=1000)["Messages"]
    assert lab.run_cli("priority", "stuck", "urgent").code == 0
    lab.start()
    problem = _named(lab, ProblemKind.QUEUE_OLD)
    _told_to_people(lab, problem, " waiting, 1 in flight, oldest at least")
    assert lab.settings["queues"]["commands"] in problem["text"]
    sqs.delete_message(QueueUrl=url, ReceiptHandle=taken[0]["ReceiptHandle"])
    _well_again(lab)


def test_a_poison_message(lab: Lab) -> None:
    lab.start()
    sqs = lab.aws("sqs")
    url = sqs.get_queue_url(QueueName=lab.settings["queues"]["commands"])["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody="?", MessageGroupId="g", MessageDeduplicationId="d")
    problem = _named(lab, ProblemKind.DEAD_LETTERS)
    _told_to_people(lab, problem, "1 message was given up", "daylily-daemon dlq list")
    assert "It is no JSON" in _do(lab, problem).words or _do(lab, problem).code == 0
    assert lab.run_cli("dlq", "drop", "--all").code == 0
    _well_again(lab)


def test_a_drop_on_a_complete_workset(lab: Lab) -> None:
    """Nothing is wrong with the daemon: ``explain`` says what became of it, and what runs it again."""
    lab.start()
    lab.drop_sample("again")
    lab.wait_for("again", State.COMPLETE)
    lab.put(f"{PREFIX}again/daylily.ready", b"once more")

    def told() -> Answer | None:
        answer = lab.run_cli("explain", "again", COLUMNS=COLUMNS)
        return answer if "submission by s3 had no effect: it is complete" in answer.words else None

    answer = until(told, why=lambda: str(lab.run_cli("events", "again")))
    assert answer is not None
    assert "daylily-daemon rerun again" in answer.words
    assert lab.run_cli("rerun", "again").code == 0
    lab.wait_for("again-2", State.COMPLETE)


def test_a_flood_by_one_customer(lab: Lab) -> None:
    lab.pipeline("noting", run="until [ -e $gate ]; do sleep 0.1; done")
    lab.configure(daemon={"max_per_customer": 1})
    lab.start()
    lab.drop_sample("first")
    lab.wait_started("first", "1 run")
    lab.drop_sample("second")
    lab.wait_until("second", lambda ws: ws.plan)
    answer = lab.run_cli("explain", "second", COLUMNS=COLUMNS)
    assert "place 1 of 1" in answer.words
    assert "daemon.max_per_customer" in answer.words, answer
    for id in ("first", "second"):
        lab.open_gate(id)
        lab.wait_for(id, State.COMPLETE)


def test_a_bucket_that_tells_nothing(lab: Lab) -> None:
    lab.configure(daemon={"reconcile_s": 60})
    s3 = lab.aws("s3")
    s3.put_bucket_notification_configuration(Bucket=lab.bucket, NotificationConfiguration={})
    lab.drop_sample("silent")
    lab.start()
    lab.wait_for("silent", State.COMPLETE)
    problem = _named(lab, ProblemKind.EVENTS_MISSED)
    _told_to_people(lab, problem, "1 drop was found by listing, not by event")
    assert _do(lab, problem).code == 0
    lab.drop_sample("told")
    lab.wait_for("told", State.COMPLETE)
    _well_again(lab)


# --- settings -------------------------------------------------------------------------------------


def test_settings_that_make_no_sense_keep_the_old_ones_in_force(lab: Lab) -> None:
    daemon = lab.start()
    good = lab.config.read_text()
    lab.config.write_text(good + "daemon: {sweeps: 3}\n")
    daemon.send(signal.SIGHUP)
    daemon.wait_said("reload_refused")

    def told() -> Answer | None:
        answer = lab.run_cli("status", COLUMNS=COLUMNS)
        return answer if "The old ones are in force" in answer.words else None

    answer = until(told, why=lambda: str(lab.run_cli("status")))
    assert answer is not None
    assert answer.code == 2
    assert "settings on disk are refused since" in answer.words
    assert "running 0 of 4 worksets" in answer.words, "the local half needs no settings"
    assert lab.run_cli("reload", "--dry-run").code == 2
    lab.config.write_text(good)
    assert lab.run_cli("reload", "--dry-run").code == 0
    assert lab.run_cli("reload", "--wait").code == 0
    _well_again(lab)
    assert daemon.terminate() == 0
    gone = lab.run_cli("reload")
    assert (gone.code, "No daemon runs here" in gone.words) == (3, True)


def test_a_pipeline_that_is_taken_away_while_it_runs(lab: Lab) -> None:
    lab.pipeline("noting", run="until [ -e $gate ]; do sleep 0.1; done", export="")
    daemon = lab.start()
    lab.drop_sample("running")
    lab.wait_started("running", "1 run")
    file = lab.pipelines / "noting.yaml"
    text = file.read_text()
    lab.pipeline("other")
    lab.configure(pipelines={"default": "other"})
    file.unlink()
    daemon.send(signal.SIGHUP)
    problem = _named(lab, ProblemKind.RELOAD_REFUSED)
    _told_to_people(lab, problem, "lacks noting, and running runs noting")
    refused = lab.run_cli("reload", "--wait")
    assert (refused.code, "lacks noting" in refused.words) == (1, True)
    file.write_text(text)
    answer = lab.run_cli("reload", "--wait")
    assert (answer.code, "Changed: pipelines.default" in answer.words) == (0, True)
    _well_again(lab)
    lab.open_gate("running")
    lab.wait_for("running", State.COMPLETE)


# --- this host ------------------------------------------------------------------------------------


def test_a_full_disk(lab: Lab) -> None:
    daemon = lab.start()
    lab.configure(daemon={"min_free_gb": 900_000})
    daemon.send(signal.SIGHUP)
    problem = _named(lab, ProblemKind.HELD)
    _told_to_people(lab, problem, "Nothing new is started", "GB left", "Free some space")
    lab.configure(daemon={"min_free_gb": 0})
    daemon.send(signal.SIGHUP)
    _well_again(lab)


def test_a_head_node_that_will_never_come_back(lab: Lab) -> None:
    lab.pipeline("noting", run="until [ -e $gate ]; do sleep 0.1; done")
    lab.configure(lease={"ttl_s": 20, "beat_s": 5, "margin_s": 5})
    state = lab.folder / "head2"
    other = ("--set", f"daemon.state_dir={state}", "--set", "daemon.name=head2")
    lost = lab.start(*other, "--set", "daemon.machine=i-0123", wait=False)
    lab.drop_sample("orphan")
    lab.wait_started("orphan", "1 run")
    until(lambda: "head2/" in _held_by_the_registry(lab, "orphan"))
    lost.kill()
    lab.start()
    _set_back(lab, "head2/", timedelta(minutes=10))
    problem = _named(lab, ProblemKind.SILENT)
    _told_to_people(lab, problem, "Silent for 10 min, and held 1 workset", "if it is terminated")
    assert lab.run_cli(*shlex.split(problem["command"])[1:], "--yes").code == 0
    lab.open_gate("orphan")
    lab.wait_for("orphan", State.COMPLETE)
    _well_again(lab)


def _held_by_the_registry(lab: Lab, id: str) -> str:
    """Return the daemons that say they hold it."""
    items = lab.aws("dynamodb").scan(TableName=lab.settings["tables"]["control"])["Items"]
    return " ".join(
        i["sk"]["S"] for i in items if id in json.loads(i["said"]["S"]).get("active", {})
    )


def _set_back(lab: Lab, name: str, by: timedelta) -> None:
    """Let the last word of a daemon be as old as it will be when nobody hears of it for so long."""
    db, table = lab.aws("dynamodb"), lab.settings["tables"]["control"]
    (item,) = [i for i in db.scan(TableName=table)["Items"] if i["sk"]["S"].startswith(name)]
    said_at = datetime.fromisoformat(item["said_at"]["S"]) - by
    item["said_at"] = {"S": said_at.isoformat()}
    db.put_item(TableName=table, Item=item)


def test_a_daemon_that_does_nothing(lab: Lab) -> None:
    daemon = lab.start()
    daemon.send(signal.SIGSTOP)
    problem = _named(lab, ProblemKind.STOPPED)
    _told_to_people(lab, problem, "Its process is stopped")
    assert problem["command"] == f"kill -CONT {daemon.process.pid}"
    daemon.send(signal.SIGCONT)
    _well_again(lab)


def test_a_drained_daemon_starts_nothing_until_it_is_resumed(lab: Lab) -> None:
    lab.pipeline("noting", run="until [ -e $gate ]; do sleep 0.1; done")
    daemon = lab.start()
    lab.drop_sample("before")
    lab.wait_started("before", "1 run")
    drained = lab.run_cli("drain", "--reason", "new kernel")
    assert (drained.code, "starts nothing new" in drained.words) == (0, True)
    lab.drop_sample("after")
    lab.wait_until("after", lambda ws: ws.plan)
    problem = _named(lab, ProblemKind.DRAINING)
    _told_to_people(lab, problem, "Drained by cli:", "new kernel", "daylily-daemon resume")
    assert "new kernel" in lab.run_cli("explain", "after").words
    assert daemon.terminate() == 0
    lab.start()
    lab.open_gate("before")
    lab.wait_for("before", State.COMPLETE)
    emptied = lab.run_cli("drain", "--until-empty", "--timeout", "50")
    assert emptied.code == 0
    _still_waits(lab, "after")
    assert _do(lab, problem).code == 0
    lab.open_gate("after")
    lab.wait_for("after", State.COMPLETE)
    _well_again(lab)


def _still_waits(lab: Lab, id: str) -> None:
    ws = lab.load(id)
    assert ws is not None
    assert ws.state is State.READY


# --- channels -------------------------------------------------------------------------------------


@dataclass
class _Receiver:
    url: str
    status: int = 503


@contextmanager
def _receiver() -> Iterator[_Receiver]:
    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(found.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    found = _Receiver(f"http://127.0.0.1:{server.server_port}/hook")
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_channel_that_is_down(lab: Lab, tmp_path: Any) -> None:
    with _receiver() as hook:
        secret = tmp_path / "secret"
        secret.write_text(hook.url)
        lab.configure(notifications={"webhook": {"enabled": True, "url_file": str(secret)}})
        lab.start()
        lab.drop_sample("told")
        lab.wait_for("told", State.COMPLETE)
        problem = _named(lab, ProblemKind.CHANNEL)
        until(lambda: "notices owed" in _named(lab, ProblemKind.CHANNEL)["text"])
        _told_to_people(
            lab, problem, "Telling webhook fails since", "503", "Nothing if webhook is down"
        )
        assert "503" in _do(lab, problem).words
        hook.status = 200
        assert _do(lab, problem).code == 0
        _well_again(lab)
