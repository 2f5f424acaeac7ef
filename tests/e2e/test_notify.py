"""``notify``: how channels stand, and a test message through the real channel to a real receiver."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from daylily_daemon.domain.model import State
from tests.e2e.harness import PREFIX, Lab, until

SECRET = "vErYsEcReT"


@dataclass
class _Heard:
    url: str
    status: int = 202
    bodies: list[dict[str, Any]] = field(default_factory=list)


@contextmanager
def _receiver() -> Iterator[_Heard]:
    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(heard.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    heard = _Heard(f"http://127.0.0.1:{server.server_port}/{SECRET}")
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield heard
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def hook(lab: Lab) -> Iterator[_Heard]:
    """A webhook that is switched on."""
    with _receiver() as heard:
        secret = lab.folder / "hook"
        secret.write_text(heard.url)
        lab.configure(notifications={"webhook": {"enabled": True, "url_file": str(secret)}})
        yield heard


def _standing(lab: Lab, channel: str) -> dict[str, Any]:
    rows = lab.run_cli("notify", "status", "--json").json
    return next(row for row in rows if row["channel"] == channel)


def test_a_test_message_says_that_it_is_one_and_comes_anew_each_time(
    lab: Lab, hook: _Heard
) -> None:
    for _ in range(2):
        answer = lab.run_cli("notify", "test", "webhook")
        assert (answer.code, answer.stdout[:16]) == (0, "webhook took it:")
        assert SECRET not in answer.words
    first, second = hook.bodies
    assert (first["workset_id"], first["details"]) == ("daylily-daemon-test", {"test": True})
    assert "A test of the channel webhook" in first["message"]
    assert first["delivery_id"] != second["delivery_id"]
    assert lab.load("daylily-daemon-test") is None


@pytest.mark.reported(
    "G", "a test of a receiver that is fine with a wrong password (alertmanager#3086)"
)
@pytest.mark.parametrize(("status", "code"), [(401, 1), (404, 1), (503, 4)])
def test_what_the_receiver_answers_is_what_is_said(
    status: int, code: int, lab: Lab, hook: _Heard
) -> None:
    hook.status = status
    answer = lab.run_cli("notify", "test", "webhook")
    assert (answer.code, answer.stdout) == (code, "")
    assert str(status) in answer.stderr
    assert SECRET not in answer.words


def test_a_channel_that_is_off_or_unknown_is_sent_nothing(lab: Lab) -> None:
    off = lab.run_cli("notify", "test", "slack")
    assert (off.code, "notifications.slack.enabled" in off.stderr) == (1, True)
    unknown = lab.run_cli("notify", "test", "pigeon")
    assert (unknown.code, "sns, s3_sentinels, slack" in unknown.stderr) == (3, True)


def test_an_alarm_is_raised_and_ended(lab: Lab) -> None:
    with _receiver() as heard:
        key = lab.folder / "key"
        key.write_text(SECRET)
        settings = {"enabled": True, "routing_key_file": str(key), "url": heard.url}
        lab.configure(notifications={"pagerduty": settings})
        assert lab.run_cli("notify", "test", "pagerduty").code == 0
    raised, ended = heard.bodies
    assert (raised["event_action"], ended["event_action"]) == ("trigger", "resolve")
    assert raised["dedup_key"] == ended["dedup_key"]
    assert raised["payload"]["severity"] == "warning"


def test_a_sentinel_is_written_and_taken_back(lab: Lab) -> None:
    s3 = lab.aws("s3")
    s3.put_bucket_versioning(Bucket=lab.bucket, VersioningConfiguration={"Status": "Enabled"})
    assert lab.run_cli("notify", "test", "s3_sentinels").code == 0
    assert s3.list_objects_v2(Bucket=lab.bucket).get("Contents", []) == []
    (written,) = s3.list_object_versions(Bucket=lab.bucket)["Versions"]
    assert written["Key"] == f"{PREFIX}daylily-daemon-test/daylily.error"


@pytest.mark.reported("G", "delivery is called good though one of two failed (panther#1684)")
def test_of_several_channels_the_one_that_fails_is_named(lab: Lab, hook: _Heard) -> None:
    hook.status = 403
    answer = lab.run_cli("doctor", "channels", "--send", "--json")
    (one,) = answer.json["checks"]
    (finding,) = one["findings"]
    assert (answer.code, finding["command"]) == (1, "daylily-daemon notify test webhook")
    assert lab.run_cli("notify", "test", "webhook").code == 1
    hook.status = 200
    assert lab.run_cli("doctor", "channels", "--send").code == 0


def test_what_a_channel_is_owed_and_its_trouble_are_shown_until_it_is_back(
    lab: Lab, hook: _Heard
) -> None:
    assert lab.run_cli("notify", "status").code == 0
    hook.status = 503
    lab.drop_sample("told")
    lab.start()
    lab.wait_for("told", State.COMPLETE)
    until(lambda: _standing(lab, "webhook")["failing"] and _standing(lab, "webhook")["owed"])
    standing = _standing(lab, "webhook")
    assert (standing["enabled"], "503" in standing["trouble"]) == (True, True)
    assert standing["oldest_at"]
    assert standing["failures"] > 1
    sentinels = _standing(lab, "s3_sentinels")
    assert (sentinels["failing"], sentinels["owed"]) == (False, 0)
    assert sentinels["good_at"]
    shown = lab.run_cli("notify", "status")
    assert (shown.code, SECRET in shown.words) == (1, False)
    assert lab.run_cli("notify", "test", "webhook").code == 4
    hook.status = 200
    assert lab.run_cli("notify", "test", "webhook").code == 0
    until(lambda: not _standing(lab, "webhook")["failing"])
    assert lab.run_cli("notify", "status").code == 0


def test_the_version_is_told_with_the_formats(lab: Lab) -> None:
    told = lab.run_cli("version", "--json").json
    assert told["formats"]["items"] == {"reads": "up to 3", "writes": "3"}
    shown = lab.run_cli("version").stdout
    assert lab.run_cli("--version").stdout.strip() in shown
    assert told["python"] in shown
