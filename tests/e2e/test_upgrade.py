"""Items that the version before left in the table: they are gone on with, and are of today's format then."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from daylily_daemon.adapters.codec import ITEM_FORMAT, plain_item, typed_item
from daylily_daemon.domain.model import State
from tests.e2e.harness import PREFIX, Lab

GOLDEN = Path(__file__).parent.parent / "golden" / "items-of-format-1.json"
NAME = "HG002-run7"
STEPS = ("stage", "run", "export", "metrics", "cleanup")


def stored(lab: Lab) -> dict[str, Any]:
    answer = lab.aws("dynamodb").get_item(
        TableName=lab.settings["tables"]["worksets"], Key={"workset_id": {"S": NAME}}
    )
    return plain_item(answer["Item"])


def add_older_index(lab: Lab) -> None:
    """Give the table the index that the version before had, whole items in it."""
    keys = [("state", "HASH"), ("priority_key", "RANGE")]
    index = {
        "IndexName": "state-priority-index",
        "KeySchema": [{"AttributeName": name, "KeyType": kind} for name, kind in keys],
        "Projection": {"ProjectionType": "ALL"},
    }
    lab.aws("dynamodb").update_table(
        TableName=lab.settings["tables"]["worksets"],
        AttributeDefinitions=[{"AttributeName": n, "AttributeType": "S"} for n, _ in keys],
        GlobalSecondaryIndexUpdates=[{"Create": index}],
    )


def put(lab: Lab, name: str) -> None:
    """Store an item of format 1, in which somebody else keeps a word of his own."""
    add_older_index(lab)
    item = json.loads(GOLDEN.read_text(encoding="utf-8"))[name]
    item |= {"cost_center": "clinic", "bucket": lab.bucket, "prefix": f"{PREFIX}{NAME}/"}
    lab.upload(lab.sample(NAME), NAME)
    lab.pipeline("daylily-omics", **dict.fromkeys(STEPS, ""))
    lab.configure(pipelines={"default": "daylily-omics"})
    lab.aws("dynamodb").put_item(
        TableName=lab.settings["tables"]["worksets"], Item=typed_item(item)
    )


def test_a_retry_that_the_version_before_made_ready_goes_on_with_the_step_that_failed(
    lab: Lab,
) -> None:
    put(lab, "ready for a retry from the step that failed")
    lab.start()
    lab.wait_for(NAME, State.COMPLETE)
    assert lab.evidence(NAME) == {f"{NAME} 2 {step}": 1 for step in STEPS[1:]}
    item = stored(lab)
    assert item["format"] == ITEM_FORMAT
    assert item["cost_center"] == "clinic", "what others keep stays"
    assert [step["name"] for step in item["run"]["steps"]] == list(STEPS)
    assert {"jobs_dir", "timings", "confirmed"}.isdisjoint(item), "no mixture of formats"


def test_a_run_that_the_version_before_left_on_a_machine_out_of_sight_stays_in_progress(
    lab: Lab,
) -> None:
    put(lab, "in progress and given back")
    lab.start()
    lab.wait_for(lab.drop_sample("other"), State.COMPLETE)
    assert stored(lab)["state"] == State.IN_PROGRESS
    assert stored(lab)["queue"] == "running"
    assert "One on host:i-0abc/00ff picks it up by itself" in lab.run_cli("explain", NAME).words
    assert lab.run_cli("retry", NAME, "--host-gone").code == 0
    lab.wait_for(NAME, State.COMPLETE)
    assert lab.evidence(NAME) == {f"{NAME} 2 {step}": 1 for step in STEPS[1:]}


def test_init_gives_what_the_version_before_left_its_place_in_line_while_daemons_run(
    lab: Lab,
) -> None:
    """Whatever their state: what is complete is listed by customer."""
    put(lab, "ready for a retry from the step that failed")
    done = lab.run_cli("init")
    assert f"give keys of our indexes to {NAME}" in done.stdout
    item = stored(lab)
    assert (item["queue"], item["state_key"].partition("#")[0]) == ("waiting", "ready")
    assert "format" not in item or item["format"] < ITEM_FORMAT
    assert lab.run_cli("init").stdout == "Everything is there already.\n"
    lab.start()
    lab.wait_for(NAME, State.COMPLETE)
