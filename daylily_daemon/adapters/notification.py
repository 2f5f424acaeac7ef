"""The rules by which a bucket tells the intake queue of triggers, as S3 writes them."""

from __future__ import annotations

import json
from collections.abc import Sequence

from daylily_daemon.adapters.codec import Item


def rule_of(prefix: str, arn: str, name: str) -> Item:
    return {
        "Id": name.replace(".", "-"),
        "QueueArn": arn,
        "Events": ["s3:ObjectCreated:*"],
        "Filter": {
            "Key": {
                "FilterRules": [
                    {"Name": "prefix", "Value": prefix},
                    {"Name": "suffix", "Value": name},
                ]
            }
        },
    }


def comparable(rule: Item) -> str:
    """S3 answers ``Prefix`` where ``prefix`` was put, and in any order."""
    filters = rule.get("Filter", {}).get("Key", {}).get("FilterRules", [])
    pairs = sorted((str(f["Name"]).lower(), f["Value"]) for f in filters)
    return json.dumps([rule.get("Id"), rule["QueueArn"], sorted(rule["Events"]), pairs])


def untold(rules: Sequence[Item], ours: Sequence[Item]) -> list[str]:
    """Return the ids of those of ``ours`` that are not among the rules of a bucket."""
    there = set(map(comparable, rules))
    return [rule["Id"] for rule in ours if comparable(rule) not in there]
