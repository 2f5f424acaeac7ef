"""Incidents of AWS, its queues, settings and hosts: see ``tests/e2e/incident.py``."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from daylily_daemon.domain.model import State
from daylily_daemon.domain.problems import ProblemKind
from tests.e2e.harness import Lab, until
from tests.e2e.incident import Scene, Story, found, incident

HELD = "until [ -e $gate ]; do sleep 0.1; done"


@incident(1, "QueueOld")
def a_stuck_group(scene: Scene) -> Story:
    """Somebody else has received a command and sits on it: those behind it wait."""
    lab = scene.lab
    lab.configure(queues={"old_s": 3})
    lab.drop_sample("stuck")
    daemon = lab.start()
    lab.wait_for("stuck", State.COMPLETE)
    daemon.terminate()
    sqs, name = lab.aws("sqs"), lab.settings["queues"]["commands"]
    url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
    assert lab.run_cli("priority", "stuck", "low").code == 0
    taken = sqs.receive_message(QueueUrl=url, VisibilityTimeout=1000)["Messages"]
    assert lab.run_cli("priority", "stuck", "urgent").code == 0
    scene.start()
    yield found(
        f"{name}:",
        " waiting, 1 in flight, oldest at least",
        "look for it",
        kind=ProblemKind.QUEUE_OLD,
    )
    sqs.delete_message(QueueUrl=url, ReceiptHandle=taken[0]["ReceiptHandle"])


@incident(2, "DeadLetters")
def a_poison_message(scene: Scene) -> Story:
    lab = scene.lab
    scene.start()
    sqs = lab.aws("sqs")
    url = sqs.get_queue_url(QueueName=lab.settings["queues"]["commands"])["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody="?", MessageGroupId="g", MessageDeduplicationId="d")
    problem = yield found("1 message was given up", kind=ProblemKind.DEAD_LETTERS)
    answer = scene.do(problem)
    assert "is not JSON" in answer.words, answer
    assert lab.run_cli("dlq", "drop", "--all").code == 0


@incident(3, "EventsMissed")
def a_bucket_that_tells_nothing(scene: Scene) -> Story:
    lab = scene.lab
    lab.configure(daemon={"reconcile_s": 60})
    s3 = lab.aws("s3")
    s3.put_bucket_notification_configuration(Bucket=lab.bucket, NotificationConfiguration={})
    lab.drop_sample("silent")
    scene.start()
    lab.wait_for("silent", State.COMPLETE)
    yield found("FAIL", "daylily-daemon init", by="doctor bucket")
    problem = yield found(
        "1 drop was found by listing, not by event", kind=ProblemKind.EVENTS_MISSED
    )
    assert scene.do(problem).code == 0
    lab.drop_sample("told")
    lab.wait_for("told", State.COMPLETE)


@incident(4, "DiskFillingUp")
def a_full_disk(scene: Scene) -> Story:
    lab, daemon = scene.lab, scene.start()
    lab.configure(daemon={"min_free_gb": 900_000})
    daemon.send(signal.SIGHUP)
    yield found("Nothing new is started", "GB left", kind=ProblemKind.HELD)
    lab.configure(daemon={"min_free_gb": 0})
    daemon.send(signal.SIGHUP)


@incident(5, "PortUnreachable")
def expired_credentials(scene: Scene) -> Story:
    aws = scene.troubled()
    scene.through(aws)
    aws.refuse("ExpiredTokenException", "The security token included in the request is expired")
    yield found(
        "refuses our credentials since", "Renew the credentials", kind=ProblemKind.CREDENTIALS
    )
    assert scene.lab.run_cli("status", "--quiet").code == 1
    aws.recover()


@incident(6, "ReloadRefused")
def a_bad_reload(scene: Scene) -> Story:
    lab, daemon = scene.lab, scene.start()
    good = lab.config.read_text()
    lab.config.write_text(good + "daemon: {sweeps: 3}\n")
    daemon.send(signal.SIGHUP)
    daemon.wait_said("reload_refused")
    yield found("The old ones are in force", "settings on disk are refused since")
    answer = lab.run_cli("status")
    assert answer.code == 2
    assert "running 0 of 4 worksets" in answer.words, "the local half needs no settings"
    assert lab.run_cli("reload", "--dry-run").code == 2
    lab.config.write_text(good)
    assert lab.run_cli("reload", "--dry-run").code == 0
    assert lab.run_cli("reload", "--wait").code == 0


@incident(7, "DaemonDown")
def a_head_node_that_will_never_come_back(scene: Scene) -> Story:
    lab = scene.lab
    lab.pipeline("noting", run=HELD)
    lab.configure(lease={"ttl_s": 20, "beat_s": 5, "margin_s": 5})
    state = lab.folder / "head2"
    other = ("--set", f"daemon.state_dir={state}", "--set", "daemon.name=head2")
    lost = scene.start(*other, "--set", "daemon.machine=i-0123", wait=False)
    lab.drop_sample("orphan")
    lab.wait_started("orphan", "1 run")
    until(lambda: "head2/" in _held_by_the_registry(lab, "orphan"))
    lost.kill()
    scene.start()
    _set_back(lab, "head2/", timedelta(minutes=10))
    problem = yield found(
        "Silent for 10 min, and held 1 workset", "if it is terminated", kind=ProblemKind.SILENT
    )
    assert scene.do(problem, "--yes").code == 0
    lab.open_gate("orphan")
    lab.wait_for("orphan", State.COMPLETE)


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


@dataclass
class _Receiver:
    url: str
    status: int = 503


@contextmanager
def _receiver() -> Iterator[_Receiver]:
    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(made.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    made = _Receiver(f"http://127.0.0.1:{server.server_port}/hook")
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@incident(8, "NoticesOwed")
def a_channel_that_is_down(scene: Scene) -> Story:
    lab = scene.lab
    with _receiver() as hook:
        secret = scene.folder / "secret"
        secret.write_text(hook.url)
        lab.configure(notifications={"webhook": {"enabled": True, "url_file": str(secret)}})
        scene.start()
        lab.drop_sample("told")
        lab.wait_for("told", State.COMPLETE)
        problem = yield found(
            "notices owed, oldest",
            "Telling webhook fails since",
            "503",
            "Nothing if webhook is down",
            kind=ProblemKind.CHANNEL,
        )
        assert "503" in scene.do(problem).words
        hook.status = 200
        assert scene.do(problem).code == 0
        scene.is_well()


@incident(11, "Throttled", rising=True)
def throttling(scene: Scene) -> Story:
    aws = scene.troubled()
    scene.through(aws)
    aws.refuse("ThrottlingException", "Rate exceeded", only="dynamodb")
    yield found("DynamoDB throttles since", "raise the quota", kind=ProblemKind.THROTTLED)
    aws.refuse(
        "AccessDeniedException", "not authorized to perform: dynamodb:Query", only="dynamodb"
    )
    yield found("DynamoDB refuses since", "Fix what it names", kind=ProblemKind.REFUSED)
    aws.recover()


@incident(12, "ReloadRefused")
def a_pipeline_that_is_taken_away_while_it_runs(scene: Scene) -> Story:
    lab = scene.lab
    lab.pipeline("noting", run=HELD, export="")
    daemon = scene.start()
    lab.drop_sample("running")
    lab.wait_started("running", "1 run")
    file = lab.pipelines / "noting.yaml"
    text = file.read_text()
    lab.pipeline("other")
    lab.configure(pipelines={"default": "other"})
    file.unlink()
    daemon.send(signal.SIGHUP)
    yield found("lacks noting, and running runs noting", kind=ProblemKind.RELOAD_REFUSED)
    refused = lab.run_cli("reload", "--wait")
    assert (refused.code, "lacks noting" in refused.words) == (1, True)
    file.write_text(text)
    answer = lab.run_cli("reload", "--wait")
    assert (answer.code, "Changed: pipelines.default" in answer.words) == (0, True)
    lab.open_gate("running")
    lab.wait_for("running", State.COMPLETE)


@incident(15, "ClockSkew")
def a_clock_that_is_off(scene: Scene) -> Story:
    lab, aws = scene.lab, scene.troubled()
    aws.ahead_s = -63
    scene.through(aws)
    yield found(" s ahead of AWS", "chronyc tracking", kind=ProblemKind.CLOCK)
    assert lab.run_cli("status").code == 0, "a warning"
    assert lab.run_cli("status", "--strict").code == 1
    aws.ahead_s = 299
    yield found("behind AWS", kind=ProblemKind.CLOCK)
    assert lab.run_cli("status").code == 1
    aws.recover()


@incident(16, "DaemonDown")
def a_daemon_that_does_nothing(scene: Scene) -> Story:
    daemon = scene.start()
    daemon.send(signal.SIGSTOP)
    problem = yield found("Its process is stopped", kind=ProblemKind.STOPPED)
    assert problem["command"] == f"kill -CONT {daemon.process.pid}"
    daemon.send(signal.SIGCONT)


@incident(20, "VersionsDiffer")
def an_upgrade_that_is_half_done(scene: Scene) -> Story:
    lab = scene.lab
    scene.start()
    older = lab.folder / "older" / "daylily_daemon-0.0.9.dist-info"
    older.mkdir(parents=True)
    (older / "METADATA").write_text("Metadata-Version: 2.1\nName: daylily-daemon\nVersion: 0.0.9\n")
    now, lab.outside = lab.outside, {**lab.outside, "PYTHONPATH": str(older.parent)}
    state = ("--set", f"daemon.state_dir={lab.folder / 'head2'}", "--set", "daemon.name=head2")
    daemon = scene.start(*state, wait=False)
    lab.outside = now
    yield found("Daemons of several versions run", "0.0.9", kind=ProblemKind.VERSIONS)
    assert daemon.terminate() == 0
