"""Whether a queue's policy lets S3, on behalf of one bucket, send to it.

Somebody may have written a stricter policy than ours: what suffices is left alone, and where that cannot be
told, theirs stays too. Statements are judged in three values, yes, no and unknown, because a condition that
we do not know may hold or not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Any, Final

from daylily_daemon.domain.errors import Permanent

Known = bool | None
"""None: unknown."""

_SERVICE: Final = "s3.amazonaws.com"
_ACTION: Final = "sqs:SendMessage"


class PolicyVerdict(StrEnum):
    SENDS = auto()
    DENIED = auto()
    UNCLEAR = auto()
    NOTHING = auto()
    """Nothing is said about it, which means no."""


@dataclass(frozen=True, slots=True)
class Sender:
    """A bucket that wants to send to a queue of this ARN."""

    bucket: str
    queue_arn: str

    @property
    def arn(self) -> str:
        return f"arn:{self.queue_arn.split(':')[1]}:s3:::{self.bucket}"

    @property
    def account(self) -> str:
        """The queue's; a bucket of another one has to be allowed by hand."""
        return self.queue_arn.split(":")[4]


@dataclass(frozen=True, slots=True)
class Judgement:
    verdict: PolicyVerdict
    sid: str = ""
    """Of the statement that decided."""


def read_policy(text: str, queue: str) -> dict[str, Any]:
    """Return the policy with its statements in a list. Raises Permanent for what is no policy."""
    try:
        policy = json.loads(text or "{}")
    except (ValueError, RecursionError):
        policy = None
    statements = policy.get("Statement", []) if isinstance(policy, dict) else None
    if isinstance(statements, dict):
        statements = [statements]
    if not isinstance(statements, list) or not all(isinstance(s, dict) for s in statements):
        raise Permanent(
            f"The policy of the queue {queue} cannot be read: expected JSON with a Statement that is an "
            "object or a list of them. Fix it in the SQS console, then run init again."
        )
    return {"Version": "2012-10-17", **(policy or {}), "Statement": statements}


def judged(policy: Mapping[str, Any], sender: Sender) -> Judgement:
    """Return what ``policy`` says about ``sender``; a Deny outweighs every Allow, as in AWS."""
    statements = policy["Statement"]
    denies = [(_applies(s, sender), s) for s in statements if s.get("Effect") == "Deny"]
    allows = [(_applies(s, sender), s) for s in statements if s.get("Effect") == "Allow"]
    rows = (
        (PolicyVerdict.DENIED, [s for known, s in denies if known]),
        (PolicyVerdict.UNCLEAR, [s for known, s in denies if known is None]),
        (PolicyVerdict.SENDS, [s for known, s in allows if known]),
        (PolicyVerdict.UNCLEAR, [s for known, s in allows if known is None]),
    )
    for verdict, found in rows:
        if found:
            return Judgement(verdict, str(found[0].get("Sid", "without a Sid"))[:100])
    return Judgement(PolicyVerdict.NOTHING)


def left_alone(found: Judgement, sender: Sender, queue: str) -> str:
    """Return what is said about a policy of somebody else's, which is never changed."""
    denies = found.verdict is PolicyVerdict.DENIED
    says = "denies" if denies else "may or may not allow (its conditions are not known here)"
    return (
        f"leave the policy of {queue} alone: its statement {found.sid} {says} events of "
        f"s3://{sender.bucket}; if none arrive, fix it by hand"
    )


def allowing(policy: Mapping[str, Any], sender: Sender) -> dict[str, Any]:
    """Return ``policy`` with one statement more, which lets ``sender`` send; all others stay as they are."""
    taken = {str(statement.get("Sid")) for statement in policy["Statement"]}
    names = (f"daylily-{sender.bucket}{n or ''}" for n in range(len(taken) + 1))
    statement = {
        "Sid": next(name for name in names if name not in taken),
        "Effect": "Allow",
        "Principal": {"Service": _SERVICE},
        "Action": _ACTION,
        "Resource": sender.queue_arn,
        "Condition": {"ArnEquals": {"aws:SourceArn": sender.arn}},
    }
    return {**policy, "Statement": [*policy["Statement"], statement]}


def _applies(statement: Mapping[str, Any], sender: Sender) -> Known:
    return _all(
        (
            _principal(statement),
            _named(statement, "Action", _ACTION.lower(), str.lower),
            _named(statement, "Resource", sender.queue_arn, str),
            _conditions(statement.get("Condition") or {}, sender),
        )
    )


def _all(parts: Iterable[Known]) -> Known:
    known = list(parts)
    if False in known:
        return False
    return None if None in known else True


def _principal(statement: Mapping[str, Any]) -> Known:
    if "Principal" not in statement:
        return None
    found = statement["Principal"]
    if isinstance(found, str):
        return found == "*"
    if not isinstance(found, dict):
        return None
    services = _texts(found.get("Service", []))
    return "*" in _texts(found.get("AWS", [])) or _SERVICE in services or "*" in services


def _named(
    statement: Mapping[str, Any], key: str, wanted: str, fold: Callable[[str], str]
) -> Known:
    if key not in statement:
        return None  # NotAction, NotResource
    return any(_matches(fold(pattern), wanted) for pattern in _texts(statement[key]))


def _conditions(conditions: object, sender: Sender) -> Known:
    if not isinstance(conditions, dict):
        return None
    return _all(
        _condition(str(operator), str(key), _texts(values), sender)
        for operator, keys in conditions.items()
        for key, values in (keys.items() if isinstance(keys, dict) else [("?", [])])
    )


_OPERATOR: Final = re.compile(r"(Arn|String)(Not)?(Equals|Like)(?:IgnoreCase)?(?:IfExists)?")


def _condition(operator: str, key: str, values: list[str], sender: Sender) -> Known:
    actual = {
        "aws:sourcearn": sender.arn,
        "aws:sourceaccount": sender.account,
        "aws:securetransport": "true",
    }.get(key.lower())
    if actual is None:
        return None
    if operator.removesuffix("IfExists") == "Bool":
        return actual in [value.lower() for value in values]
    found = _OPERATOR.fullmatch(operator)
    if found is None:
        return None
    literal = (found[1], found[3]) == ("String", "Equals")
    same = any(actual == value if literal else _matches(value, actual) for value in values)
    if key.lower() == "aws:sourceaccount" and not same:
        return None  # whose the bucket is, only its owner knows
    return same != bool(found[2])


def _matches(pattern: str, text: str) -> bool:
    parts = (re.escape(c) if c not in "*?" else {"*": ".*", "?": "."}[c] for c in pattern[:2048])
    return re.fullmatch("".join(parts), text, re.DOTALL) is not None


def _texts(values: object) -> list[str]:
    if isinstance(values, list):
        return [str(value) for value in values]
    return [str(values).lower() if isinstance(values, bool) else str(values)]
