"""``doctor`` on real labs: well, then with one thing wrong at a time, which is the one finding there is.

A command that it prints and that is ours is run as it is printed, and mends what was found.
"""

from __future__ import annotations

import re
import shlex
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from daylily_daemon.adapters.vitals import monotonic_s
from daylily_daemon.domain.daemon import Status
from daylily_daemon.domain.finding import CheckName
from tests.e2e.conftest import MakeLab
from tests.e2e.harness import Answer, Lab, until
from tests.e2e.troubled_aws import TroubledAws, troubled_aws
from tests.iam import KEYS, Role

pytestmark = pytest.mark.timeout(300)

WELL: Final = dict.fromkeys(map(str, CheckName), "ok")
OF_AWS: Final = ("rights", "tables", "bucket", "queues", "channels", "versions")
RUN_BY: Final = (
    *("dynamodb:GetItem", "dynamodb:BatchGetItem", "dynamodb:Query", "dynamodb:PutItem"),
    *("dynamodb:UpdateItem", "sqs:GetQueueUrl", "sqs:GetQueueAttributes", "sqs:ReceiveMessage"),
    *("sqs:SendMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility", "sns:ListTopics"),
    *("sns:Publish", "s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:ListBucket"),
    *("s3:GetBucketNotification", "s3:GetBucketVersioning"),
)
"""What docs/operations.md gives the role."""
ALL_ANSWERED_S: Final = 30.0
"""The limit of a check, and the start of the program on a busy machine."""


def _grades(answer: Answer) -> dict[str, str]:
    return {check["name"]: check["grade"] for check in answer.json["checks"]}


def _examined(lab: Lab, *arguments: str, **environment: str) -> tuple[int, dict[str, str]]:
    answer = lab.run_cli("doctor", "--json", *arguments, **environment)
    assert answer.json["exit_code"] == answer.code
    return answer.code, _grades(answer)


def _finding(lab: Lab, check: str, *arguments: str, **environment: str) -> dict[str, str]:
    """Return the one finding of a check."""
    answer = lab.run_cli("doctor", check, "--json", *arguments, **environment)
    (one,) = answer.json["checks"]
    (finding,) = one["findings"]
    return dict(finding)


def _do(lab: Lab, finding: dict[str, str]) -> Answer:
    """Run the remedy as it is printed."""
    shown = lab.run_cli("doctor", COLUMNS="80").stdout
    assert f"$ {finding['command']}" in [line.strip() for line in shown.splitlines()]
    program, *arguments = shlex.split(finding["command"])
    assert program == "daylily-daemon"
    return lab.run_cli(*arguments)


# --- all is well ----------------------------------------------------------------------------------


@pytest.mark.parametrize("emulator", ["moto", "ministack"])
def test_a_fresh_lab_is_well_and_nothing_of_it_changes(emulator: str, make_lab: MakeLab) -> None:
    lab = make_lab(emulator)
    ear = _ear(lab)
    lab.drop_sample("waits")
    before = _all_there_is(lab, ear)
    answer = lab.run_cli("doctor")
    assert (answer.code, answer.stderr) == (0, "")
    lines = answer.stdout.splitlines()
    assert [line.split()[:3] for line in lines[:-1]] == [
        [str(n), "ok", name] for n, name in enumerate(CheckName, start=1)
    ]
    assert lines[-1] == "Nothing fails."
    assert _all_there_is(lab, ear) == before
    assert not lab.state.path.exists(), "nothing on this host either"


def _ear(lab: Lab) -> str:
    """Make a queue that hears what the topic is told."""
    sqs, sns = lab.aws("sqs"), lab.aws("sns")
    url = str(sqs.create_queue(QueueName=f"ear-{lab.bucket}")["QueueUrl"])
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]
    topic = sns.create_topic(Name=lab.topic)["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn["QueueArn"])
    return url


def _all_there_is(lab: Lab, ear: str) -> dict[str, Any]:
    sqs, s3, bucket = lab.aws("sqs"), lab.aws("s3"), {"Bucket": lab.bucket}
    names = [lab.settings["queues"][name] for name in ("intake", "commands")]
    names += [f"{stem}-dlq{dot}{fifo}" for stem, dot, fifo in (n.partition(".") for n in names)]
    urls = [ear, *[sqs.get_queue_url(QueueName=name)["QueueUrl"] for name in names]]
    listed = [s3.list_object_versions(**bucket), s3.list_multipart_uploads(**bucket)]
    for answer in listed:
        answer.pop("ResponseMetadata")
    scan = lab.aws("dynamodb").scan
    return {
        "items": [scan(TableName=table)["Items"] for table in lab.settings["tables"].values()],
        "objects": listed,
        "messages": [
            sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
            for url in urls
        ],
    }


def test_only_what_is_asked_for_is_checked(lab: Lab) -> None:
    answer = lab.run_cli("doctor", "disks", "clock")
    assert answer.code == 0
    assert [line.split()[2] for line in answer.stdout.splitlines()[:-1]] == ["clock", "disks"]
    answer = lab.run_cli("doctor", "heart")
    assert (answer.code, "'settings', 'credentials'" in answer.words) == (2, True)


@pytest.mark.reported("G", "a doctor differed from itself on its second run (flutter-intellij#695)")
def test_a_second_look_finds_the_same(lab: Lab) -> None:
    assert _examined(lab) == _examined(lab) == (0, WELL)


# --- one thing wrong ------------------------------------------------------------------------------


def test_a_bucket_that_tells_nothing(lab: Lab) -> None:
    s3 = lab.aws("s3")
    s3.put_bucket_notification_configuration(Bucket=lab.bucket, NotificationConfiguration={})
    assert _examined(lab) == (1, WELL | {"bucket": "FAIL"})
    finding = _finding(lab, "bucket")
    assert "sends no event of daylily.ready and daylily.ignore" in finding["text"]
    assert _do(lab, finding).code == 0
    assert _examined(lab) == (0, WELL)


def test_one_of_two_rules_is_missing(lab: Lab) -> None:
    s3 = lab.aws("s3")
    have = s3.get_bucket_notification_configuration(Bucket=lab.bucket)["QueueConfigurations"]
    rules = {"QueueConfigurations": [rule for rule in have if rule["Id"] != "daylily-ignore"]}
    s3.put_bucket_notification_configuration(Bucket=lab.bucket, NotificationConfiguration=rules)
    assert "sends no event of daylily.ignore to" in _finding(lab, "bucket")["text"]


def test_events_that_may_come_another_way_are_a_warning(lab: Lab) -> None:
    topic = lab.aws("sns").create_topic(Name=lab.topic)["TopicArn"]
    rule = {"TopicArn": topic, "Events": ["s3:ObjectCreated:*"]}
    lab.aws("s3").put_bucket_notification_configuration(
        Bucket=lab.bucket, NotificationConfiguration={"TopicConfigurations": [rule]}
    )
    finding = _finding(lab, "bucket")
    assert (finding["grade"], "a topic" in finding["text"]) == ("warn", True)


def test_a_right_that_is_missing(make_lab: MakeLab) -> None:
    lab = make_lab("guarded")
    keys = lab.folder / "credentials"
    iam = lab.aws("iam")
    role = _PlainRole(iam, lab.bucket)
    keys.write_text(KEYS.format("default", *role.keys))
    lab.outside = {k: v for k, v in lab.outside.items() if "ACCESS_KEY" not in k} | {
        "AWS_SHARED_CREDENTIALS_FILE": str(keys)
    }
    role.has(*RUN_BY)
    assert _examined(lab) == (0, WELL)
    role.has(*(action for action in RUN_BY if action != "sns:Publish"))
    assert _examined(lab) == (1, WELL | {"rights": "FAIL"})
    finding = _finding(lab, "rights")
    assert finding["text"] == f"sns:Publish on {lab.topic}: AuthorizationError."
    role.has(*(action for action in RUN_BY if action != "s3:GetBucketNotification"))
    assert _examined(lab) == (4, WELL | {"bucket": "unknown"})
    assert "GetBucketNotificationConfiguration" in _finding(lab, "bucket")["text"]


class _PlainRole:
    def __init__(self, iam: Any, name: str) -> None:
        self._iam, self._name = iam, name
        iam.create_user(UserName=name)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        self.keys = key["AccessKeyId"], key["SecretAccessKey"]

    def has(self, *actions: str) -> None:
        document = Role(iam=None).policy(*actions)
        self._iam.put_user_policy(UserName=self._name, PolicyName="run", PolicyDocument=document)


def test_a_message_in_the_dead_letters(lab: Lab) -> None:
    sqs = lab.aws("sqs")
    name = f"{lab.settings['queues']['intake']}-dlq"
    sqs.send_message(QueueUrl=sqs.get_queue_url(QueueName=name)["QueueUrl"], MessageBody="?")
    assert _examined(lab) == (1, WELL | {"queues": "FAIL"})
    finding = _finding(lab, "queues")
    assert f"1 message was given up and lie in {name}" in finding["text"]
    assert _do(lab, finding).code == 0
    assert lab.run_cli("dlq", "drop", "--all").code == 0
    assert _examined(lab) == (0, WELL)


def test_parts_that_nobody_has_made(empty_lab: Lab) -> None:
    lab = empty_lab
    where = {"CreateBucketConfiguration": {"LocationConstraint": "us-west-2"}}
    lab.aws("s3").create_bucket(Bucket=lab.bucket, **where)
    code, grades = _examined(lab)
    assert code == 1
    failing = {name for name, grade in grades.items() if grade == "FAIL"}
    assert failing == {"tables", "queues", "bucket", "channels"}
    assert lab.settings["tables"]["control"] in _finding(lab, "tables")["text"]
    assert _do(lab, _finding(lab, "tables")).code == 0
    assert _examined(lab) == (0, WELL)


def test_an_index_and_a_redrive_that_are_gone(lab: Lab) -> None:
    table = lab.settings["tables"]["worksets"]
    lab.aws("dynamodb").update_table(
        TableName=table,
        GlobalSecondaryIndexUpdates=[{"Delete": {"IndexName": "customer-index"}}],
    )
    sqs = lab.aws("sqs")
    url = sqs.get_queue_url(QueueName=lab.settings["queues"]["commands"])["QueueUrl"]
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"RedrivePolicy": ""})
    assert _examined(lab) == (1, WELL | {"tables": "FAIL", "queues": "FAIL"})
    assert f"the index customer-index of {table}" in _finding(lab, "tables")["text"]
    assert "give up to" in _finding(lab, "queues")["text"]
    assert _do(lab, _finding(lab, "queues")).code == 0
    assert _examined(lab) == (0, WELL)


def test_what_a_newer_version_wrote_is_said(lab: Lab) -> None:
    item = {"workset_id": {"S": "future"}, "format": {"N": "99"}}
    turn = {"queue": {"S": "waiting"}, "turn": {"S": "ready#x"}}
    lab.aws("dynamodb").put_item(
        TableName=lab.settings["tables"]["worksets"], Item=item | turn | {"state": {"S": "ready"}}
    )
    finding = _finding(lab, "tables")
    assert (finding["grade"], "future" in finding["text"]) == ("warn", True)


# --- clock, credentials, silence ------------------------------------------------------------------


@pytest.fixture
def aws(lab: Lab) -> Iterator[TroubledAws]:
    with troubled_aws(lab.url) as found:
        yield found


def test_a_clock_that_is_off(lab: Lab, aws: TroubledAws) -> None:
    through = ("--set", f"aws.endpoint_url={aws.url}")
    aws.ahead_s = -61
    assert _examined(lab, *through) == (0, WELL | {"clock": "warn"})
    finding = _finding(lab, "clock", *through)
    assert re.search("6[1-3] s ahead of AWS", finding["text"]), (
        "an answer's Date is in whole seconds"
    )
    assert finding["command"] == "chronyc tracking"
    aws.ahead_s = 299
    assert _examined(lab, *through) == (1, WELL | {"clock": "FAIL"})
    aws.recover()
    assert _examined(lab, *through) == (0, WELL)


def test_credentials_that_are_refused_are_one_finding(lab: Lab, aws: TroubledAws) -> None:
    aws.refuse("ExpiredToken", "The security token included in the request is expired")
    code, grades = _examined(lab, "--set", f"aws.endpoint_url={aws.url}")
    assert code == 1
    assert grades == WELL | dict.fromkeys(OF_AWS, "unknown") | {"credentials": "FAIL"}
    assert "Renew" in _finding(lab, "credentials", "--set", f"aws.endpoint_url={aws.url}")["remedy"]


def test_no_credentials_at_all(lab: Lab) -> None:
    lab.outside = {k: v for k, v in lab.outside.items() if "ACCESS_KEY" not in k}
    code, grades = _examined(lab)
    assert code == 1
    of_host = {"settings": "ok", "disks": "ok", "runner": "ok"}
    assert grades == dict.fromkeys(WELL, "unknown") | of_host | {"credentials": "FAIL"}


def test_credentials_say_how_long_they_last(lab: Lab) -> None:
    end = datetime.now(UTC) + timedelta(hours=5)  # noqa: TID251 - what a session says of itself
    text = _finding(lab, "credentials", AWS_CREDENTIAL_EXPIRATION=end.isoformat())["text"]
    assert "5 h left" in text


@contextmanager
def _black_hole() -> Iterator[str]:
    """Yield an address that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.reported(
    "B", "checks that ran for ever where a host did not answer (os1-samantha#163)"
)
def test_an_endpoint_that_never_answers_holds_nothing_up_for_long(lab: Lab) -> None:
    with _black_hole() as url:
        began = monotonic_s()
        code, grades = _examined(lab, "--set", f"aws.endpoint_url={url}")
        assert monotonic_s() - began < ALL_ANSWERED_S
    assert code == 4
    of_host = {"settings": "ok", "disks": "ok", "runner": "ok"}
    assert grades == dict.fromkeys(WELL, "unknown") | of_host


# --- this host ------------------------------------------------------------------------------------


def test_settings_that_make_no_sense_are_the_one_finding(lab: Lab) -> None:
    lab.config.write_text(lab.config.read_text() + "daemon: {sweeps: 3}\n")
    answer = lab.run_cli("doctor", "--json")
    (one,) = answer.json["checks"]
    assert (answer.code, one["name"], one["grade"]) == (1, "settings", "FAIL")
    assert one["findings"][0]["command"] == "daylily-daemon check-config"
    assert lab.run_cli("doctor", "disks", "--json").code == 1


def test_settings_that_the_daemon_has_not_read_yet(lab: Lab) -> None:
    daemon = lab.start()
    assert _examined(lab) == (0, WELL)
    lab.configure(retry={"max_retries": 7}, queues={"wait_s": 3})
    assert _examined(lab) == (0, WELL | {"settings": "warn"})
    finding = _finding(lab, "settings")
    assert "other values of queues.wait_s, retry.max_retries." in finding["text"]
    assert _do(lab, finding).code == 0
    until(lambda: "after a restart only: queues.wait_s" in _finding(lab, "settings")["text"])
    daemon.terminate()
    lab.start()
    assert _examined(lab) == (0, WELL)


def test_a_setting_is_told_by_a_digest_and_a_secret_not_even_so(lab: Lab) -> None:
    secret = lab.folder / "hook"
    secret.write_text("https://hooks.example/vErYsEcReT")
    lab.configure(notifications={"webhook": {"enabled": True, "url_file": str(secret)}})
    daemon = lab.start()
    before = _told(lab)["notifications.webhook.url"]
    assert len(before) == 8
    secret.write_text("https://hooks.example/another")
    daemon.send(signal.SIGHUP)
    daemon.wait_said("reloaded")
    assert _told(lab)["notifications.webhook.url"] == before


def _told(lab: Lab) -> dict[str, str]:
    said = lab.run_cli("status", "--json").json["daemon"]
    assert set(said) == set(Status.__dataclass_fields__)
    return dict(said["settings"])


def test_a_disk_that_is_short(lab: Lab) -> None:
    lab.configure(daemon={"min_free_gb": 900_000})
    assert _examined(lab) == (1, WELL | {"disks": "FAIL"})
    assert "daemon.min_free_gb" in _finding(lab, "disks")["text"]


def test_a_runner_whose_program_is_missing(lab: Lab, tmp_path: Path) -> None:
    lab.configure(runner={"kind": "tmux"})
    assert "tmux 3" in _finding(lab, "runner")["text"]
    assert _examined(lab, PATH=str(tmp_path)) == (1, WELL | {"runner": "FAIL"})
    lab.configure(runner={"kind": "auto"})
    assert _examined(lab, PATH=str(tmp_path)) == (0, WELL)


def test_a_topic_that_is_gone(lab: Lab) -> None:
    sns = lab.aws("sns")
    sns.delete_topic(TopicArn=sns.create_topic(Name=lab.topic)["TopicArn"])
    assert _examined(lab) == (1, WELL | {"channels": "FAIL"})
    assert _do(lab, _finding(lab, "channels")).code == 0
    assert _examined(lab) == (0, WELL)
