"""Why a job failed: what its end and the end of its log say."""

from __future__ import annotations

import pytest

from daylily_daemon.domain.failures import Failure, classify
from daylily_daemon.domain.model import Ended, Outcome


def failure(tail: str) -> Failure:
    return classify(Outcome(ended=Ended.EXITED, code=1, tail=tail))


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("An error occurred (AccessDenied) when calling the PutObject operation", "WS-AWS-002"),
        ("User: arn:aws:sts::1:x is not authorized to perform: s3:ListBucket", "WS-AWS-002"),
        ("An error occurred (ExpiredToken) when calling the GetObject operation", "WS-AWS-003"),
        ("Unable to locate credentials. You can configure credentials", "WS-AWS-003"),
        ("The security token included in the request is invalid", "WS-AWS-003"),
        ("(AccessDenied): The security token included in the request is expired", "WS-AWS-003"),
    ],
)
def test_our_own_missing_rights_and_credentials_are_no_fault_of_the_workset(
    line: str, code: str
) -> None:
    found = failure(f"copying\n{line}\n")
    assert (found.code, found.ours, found.retry) == (code, True, True)
    assert line in found.message


def test_a_failure_of_the_data_is_not_ours() -> None:
    assert not failure("Error: invalid FASTQ").ours
    assert not failure("who knows").ours
