"""What a queue's policy says about the events of a bucket, and that nobody's policy is ever weakened."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daylily_daemon.adapters.queuepolicy import (
    PolicyVerdict,
    Sender,
    allowing,
    judged,
    left_alone,
    read_policy,
)
from daylily_daemon.domain.errors import Permanent

QUEUE: Final = "arn:aws:sqs:us-west-2:123456789012:daylily-intake"
BUCKET: Final = "arn:aws:s3:::lab"
US: Final = Sender("lab", QUEUE)
GRANT: Final[dict[str, Any]] = {
    "Sid": "theirs",
    "Effect": "Allow",
    "Principal": {"Service": "s3.amazonaws.com"},
    "Action": "sqs:SendMessage",
    "Resource": QUEUE,
}


def verdict(*statements: dict[str, Any]) -> PolicyVerdict:
    policy = {"Version": "2012-10-17", "Statement": list(statements)}
    return judged(read_policy(json.dumps(policy), "q"), US).verdict


def where(**conditions: Any) -> dict[str, Any]:
    return {**GRANT, "Condition": conditions}


SUFFICIENT: Final = (
    GRANT,
    where(ArnEquals={"aws:SourceArn": BUCKET}),
    where(ArnLike={"aws:SourceArn": "arn:aws:s3:*:*:lab"}),
    where(ArnLike={"AWS:SourceArn": ["arn:aws:s3:::other", BUCKET]}),
    where(StringLike={"aws:SourceArn": "arn:aws:s3:::l?b"}),
    where(
        ArnEquals={"aws:SourceArn": BUCKET},
        StringEquals={"aws:SourceAccount": "123456789012"},
        Bool={"aws:SecureTransport": "true"},
    ),
    where(Bool={"aws:SecureTransport": True}),
    where(StringNotEquals={"aws:SourceArn": "arn:aws:s3:::other"}),
    {**GRANT, "Principal": "*"},
    {**GRANT, "Principal": {"AWS": "*"}},
    {**GRANT, "Principal": {"AWS": ["arn:aws:iam::1:root", "*"]}},
    {**GRANT, "Principal": {"Service": ["sns.amazonaws.com", "s3.amazonaws.com"]}},
    {**GRANT, "Action": ["SQS:SendMessage", "sqs:GetQueueUrl"]},
    {**GRANT, "Action": "sqs:Send*"},
    {**GRANT, "Action": "*", "Resource": "*"},
    {**GRANT, "Resource": "arn:aws:sqs:*:123456789012:daylily-*"},
)
NOTHING: Final = (
    {**GRANT, "Principal": {"AWS": "arn:aws:iam::1:root"}},
    {**GRANT, "Principal": "arn:aws:iam::1:root"},
    {**GRANT, "Action": "sqs:ReceiveMessage"},
    {**GRANT, "Resource": "arn:aws:sqs:us-west-2:123456789012:another"},
    {**GRANT, "Resource": []},
    where(ArnEquals={"aws:SourceArn": "arn:aws:s3:::other"}),
    where(StringEquals={"aws:SourceArn": "arn:aws:s3:*:*:lab"}),
    where(Bool={"aws:SecureTransport": "false"}),
)
UNCLEAR: Final = (
    where(StringEquals={"aws:SourceAccount": "999999999999"}),
    where(IpAddress={"aws:SourceIp": "10.0.0.0/8"}),
    where(StringEquals={"aws:PrincipalOrgID": "o-1"}),
    where(DateGreaterThan={"aws:CurrentTime": "2030-01-01T00:00:00Z"}),
    {**GRANT, "Condition": "nonsense"},
    {**GRANT, "Condition": {"ArnEquals": "nonsense"}},
    {key: value for key, value in GRANT.items() if key != "Principal"}
    | {"NotPrincipal": {"AWS": "1"}},
    {key: value for key, value in GRANT.items() if key != "Action"} | {"NotAction": "sqs:Receive*"},
    {key: value for key, value in GRANT.items() if key != "Resource"} | {"NotResource": "x"},
)


@pytest.mark.parametrize("statement", SUFFICIENT)
@pytest.mark.parametrize("in_a_list", [True, False])
def test_what_suffices_is_enough_however_strict_or_written(
    statement: dict[str, Any], in_a_list: bool
) -> None:
    text = json.dumps({"Statement": [statement] if in_a_list else statement})
    assert judged(read_policy(text, "q"), US).verdict is PolicyVerdict.SENDS


@pytest.mark.parametrize("statement", NOTHING)
def test_what_is_for_others_says_nothing_of_us(statement: dict[str, Any]) -> None:
    assert verdict(statement) is PolicyVerdict.NOTHING


@pytest.mark.parametrize("statement", UNCLEAR)
def test_what_cannot_be_told_is_not_taken_for_a_yes_or_a_no(statement: dict[str, Any]) -> None:
    assert verdict(statement) is PolicyVerdict.UNCLEAR
    assert verdict(statement, GRANT) is PolicyVerdict.SENDS


def test_a_deny_outweighs_all_if_it_is_for_us() -> None:
    deny = {**GRANT, "Effect": "Deny", "Sid": "no"}
    tls_only = {**deny, "Principal": "*", "Condition": {"Bool": {"aws:SecureTransport": "false"}}}
    unknown = {**deny, "Condition": {"StringEquals": {"aws:PrincipalOrgID": "o-1"}}}
    others = {
        **deny,
        "Principal": "*",
        "Condition": {"ArnNotLike": {"aws:SourceArn": "arn:aws:s3:*:*:lab"}},
    }
    assert verdict(GRANT, deny) is PolicyVerdict.DENIED
    assert verdict(GRANT, tls_only) is PolicyVerdict.SENDS
    assert verdict(GRANT, others) is PolicyVerdict.SENDS
    assert verdict(GRANT, unknown) is PolicyVerdict.UNCLEAR
    found = judged({"Statement": [GRANT, deny]}, US)
    assert "its statement no denies events of s3://lab" in left_alone(found, US, "daylily-intake")


@pytest.mark.parametrize(
    "text",
    [
        *("{", "[]", "7", '"x"', "null", "[" * 50_000),
        *('{"Statement": 7}', '{"Statement": ["x"]}', '{"Statement": null}'),
    ],
)
def test_a_policy_that_is_none_is_a_sentence(text: str) -> None:
    with pytest.raises(Permanent, match="policy of the queue intake cannot be read: expected JSON"):
        read_policy(text, "intake")


@pytest.mark.parametrize("text", ["", "{}", '{"Statement": []}'])
def test_no_policy_is_an_empty_one(text: str) -> None:
    policy = allowing(read_policy(text, "q"), US)
    assert judged(policy, US).verdict is PolicyVerdict.SENDS
    assert judged(policy, Sender("other", QUEUE)).verdict is PolicyVerdict.NOTHING


def test_a_name_that_is_taken_is_not_taken_over() -> None:
    old = {**GRANT, "Sid": "daylily-lab", "Resource": "arn:aws:sqs:us-west-2:1:elsewhere"}
    policy = allowing(read_policy(json.dumps({"Id": "x", "Statement": old}), "q"), US)
    assert policy["Id"] == "x"
    assert policy["Statement"][0] == old
    assert policy["Statement"][1]["Sid"] == "daylily-lab1"


def test_the_bucket_of_another_partition_is_named_so() -> None:
    china = Sender("lab", "arn:aws-cn:sqs:cn-north-1:123456789012:q")
    (statement,) = allowing(read_policy("", "q"), china)["Statement"]
    assert statement["Condition"] == {"ArnEquals": {"aws:SourceArn": "arn:aws-cn:s3:::lab"}}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3)
    ),
    max_leaves=8,
)
KEYS = st.sampled_from(["Sid", "Effect", "Principal", "Action", "Resource", "Condition"])
VALUES = JSON | st.sampled_from(list(GRANT.values())) | st.just("Deny")


@given(st.lists(st.dictionaries(KEYS, VALUES), max_size=3))
def test_any_policy_is_judged_and_completed_without_losing_anything(
    statements: list[dict[str, Any]],
) -> None:
    policy = read_policy(json.dumps({"Statement": statements}), "q")
    judged(policy, US)
    completed = allowing(policy, US)
    assert completed["Statement"][:-1] == policy["Statement"]
