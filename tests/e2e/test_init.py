"""``init``: on nothing, on what is there already, and on the tables of the system before this one."""

from __future__ import annotations

from typing import Any

from daylily_daemon.domain.model import State
from tests.e2e.harness import Lab

OLD_INDEX = "state-priority-index"


def _everything(lab: Lab) -> dict[str, list[str]]:
    """Return what there is of this lab in AWS."""
    mine = lab.bucket.removeprefix("lab-")
    sns, sqs = lab.aws("sns"), lab.aws("sqs")
    found = {
        "buckets": [bucket["Name"] for bucket in lab.aws("s3").list_buckets()["Buckets"]],
        "tables": [
            name
            for page in lab.aws("dynamodb").get_paginator("list_tables").paginate()
            for name in page["TableNames"]
        ],
        "queues": sqs.list_queues().get("QueueUrls", []),
        "topics": [
            topic["TopicArn"]
            for page in sns.get_paginator("list_topics").paginate()
            for topic in page["Topics"]
        ],
    }
    return {kind: [name for name in names if mine in name] for kind, names in found.items()}


def _old_table(lab: Lab, *, with_index: bool) -> None:
    """Make a table as the old system did, with two of its items."""
    names = ["workset_id", "state", "priority"] if with_index else ["workset_id"]
    index = {
        "IndexName": OLD_INDEX,
        "KeySchema": [
            {"AttributeName": "state", "KeyType": "HASH"},
            {"AttributeName": "priority", "KeyType": "RANGE"},
        ],
        "Projection": {"ProjectionType": "ALL"},
    }
    table = lab.settings["tables"]["worksets"]
    dynamodb = lab.aws("dynamodb")
    dynamodb.create_table(
        TableName=table,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": n, "AttributeType": "S"} for n in names],
        KeySchema=[{"AttributeName": "workset_id", "KeyType": "HASH"}],
        **({"GlobalSecondaryIndexes": [index]} if with_index else {}),
    )
    for item in (
        _old_item(lab, "old-1", "error", "normal"),
        _old_item(lab, "old-2", "error", "urgent"),
    ):
        dynamodb.put_item(TableName=table, Item=item)


def _old_item(lab: Lab, id: str, state: str, priority: str) -> dict[str, Any]:
    at = {"S": "2025-10-16T11:11:11.123456Z"}
    line = {"state": {"S": state}, "timestamp": at, "reason": {"S": "from the old system"}}
    return {
        "workset_id": {"S": id},
        "state": {"S": state},
        "priority": {"S": priority},
        "workset_type": {"S": "ruo"},
        "bucket": {"S": lab.bucket},
        "prefix": {"S": f"daylily_monitoring/active_worksets/{id}/"},
        "created_at": at,
        "updated_at": at,
        "state_history": {"L": [{"M": line}]},
        "metadata": {"M": {"samples": {"N": "3"}}},
    }


def _indexes(lab: Lab) -> set[str]:
    table = lab.aws("dynamodb").describe_table(TableName=lab.settings["tables"]["worksets"])
    return {index["IndexName"] for index in table["Table"].get("GlobalSecondaryIndexes", [])}


def test_a_dry_run_says_everything_and_changes_nothing(empty_lab: Lab) -> None:
    lab = empty_lab
    answer = lab.run_cli("init", "--dry-run", "--create-bucket")
    assert answer.code == 0, answer
    assert all(line.startswith("would ") for line in answer.stdout.splitlines())
    tables, queues = lab.settings["tables"], lab.settings["queues"]
    for name in (lab.bucket, lab.topic, *tables.values(), *queues.values()):
        assert name in answer.stdout
    assert _everything(lab) == {"buckets": [], "tables": [], "queues": [], "topics": []}


def test_init_makes_everything_and_the_second_time_nothing(empty_lab: Lab) -> None:
    lab = empty_lab
    first = lab.run_cli("init", "--create-bucket", "--json")
    assert first.code == 0, first
    assert len(first.json["steps"]) > 8
    assert {kind: len(names) for kind, names in _everything(lab).items()} == {
        "buckets": 1,
        "tables": 3,
        "queues": 4,
        "topics": 1,
    }
    again = lab.run_cli("init")
    assert (again.code, again.stdout) == (0, "Everything is there already.\n")
    lab.start()
    lab.wait_for(lab.drop_sample("first"), State.COMPLETE)


def test_init_without_the_bucket_says_what_to_do(empty_lab: Lab) -> None:
    answer = empty_lab.run_cli("init")
    assert answer.code == 1
    assert f"The bucket {empty_lab.bucket} does not exist." in answer.words
    assert "--create-bucket" in answer.words
    assert _everything(empty_lab) == {"buckets": [], "tables": [], "queues": [], "topics": []}


def test_an_index_of_the_old_system_is_not_touched_and_its_worksets_are_listed(
    empty_lab: Lab,
) -> None:
    lab = empty_lab
    _old_table(lab, with_index=True)
    completed = lab.run_cli("init", "--create-bucket")
    assert completed.code == 0, completed
    assert OLD_INDEX not in completed.stdout
    assert [ws["workset_id"] for ws in lab.run_cli("list", "--json").json] == ["old-2", "old-1"]
    lab.start()
    lab.wait_for(lab.drop_sample("first"), State.COMPLETE)


def test_the_indexes_of_versions_before_this_one_are_dropped_when_that_is_asked_for(
    empty_lab: Lab,
) -> None:
    lab = empty_lab
    _old_table(lab, with_index=True)
    assert lab.run_cli("init", "--create-bucket").code == 0
    dropped = lab.run_cli("init", "--drop-old-indexes")
    assert f"drop index {OLD_INDEX} of table" in dropped.stdout
    assert _indexes(lab) == {"queue-index", "state-index", "customer-index"}
    again = lab.run_cli("init", "--drop-old-indexes")
    assert again.stdout == "Everything is there already.\n"
    lab.start()
    lab.wait_for(lab.drop_sample("first"), State.COMPLETE)


def test_an_old_table_without_the_index_is_completed_and_its_worksets_run_again(
    empty_lab: Lab,
) -> None:
    lab = empty_lab
    _old_table(lab, with_index=False)
    done = lab.run_cli("init", "--create-bucket")
    assert done.code == 0, done
    assert "give keys of our indexes to 2 items, old-" in done.stdout
    assert lab.run_cli("init").stdout == "Everything is there already.\n"
    lab.start()
    lab.drop_sample("old-1")
    lab.wait_for("old-1", State.COMPLETE)
    reasons = [line.reason for line in lab.wait_for("old-1", State.COMPLETE).history]
    assert reasons[0] == "from the old system"
