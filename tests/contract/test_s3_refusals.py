"""Why S3 refuses a look: an answer to HEAD does not say it, and the first byte does."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError

from daylily_daemon.adapters.looking import Closed, Found, UnusableInput, look_in_s3
from daylily_daemon.adapters.objects import Denied
from daylily_daemon.adapters.s3 import S3Objects
from daylily_daemon.adapters.transfer.checksums import look
from daylily_daemon.domain.errors import Permanent, Transient
from daylily_daemon.domain.paths import S3Place

WRITTEN = datetime(2026, 1, 1, tzinfo=UTC)
PLACE = S3Place("reads", "a.fq")
SSE_C = (
    "The object was stored using a form of Server Side Encryption. The correct parameters must be "
    "provided to retrieve the object."
)


def refusal(code: str, operation: str, status: int, message: str = "") -> ClientError:
    answer = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return ClientError(answer, operation)  # type: ignore[arg-type]


@dataclass
class Refusing:
    """An S3 client that answers HEAD as AWS does: with a status and no reason."""

    status: int
    reason: str = ""
    """Code of the answer to GET; empty lets the object be read."""
    message: str = ""
    calls: list[str] = field(default_factory=list)

    async def head_object(self, **request: Any) -> Mapping[str, Any]:
        self.calls.append("head")
        raise refusal(str(self.status), "HeadObject", self.status)

    async def get_object(self, **request: Any) -> Mapping[str, Any]:
        self.calls.append(f"get {request.get('Range', 'everything')}")
        if self.reason:
            raise refusal(self.reason, "GetObject", self.status, self.message)
        return {
            "Body": io.BytesIO(b"x"),
            "ContentLength": 1,
            "ContentRange": "bytes 0-0/1234",
            "ETag": '"e"',
            "LastModified": WRITTEN,
        }


@pytest.mark.reported("B", "HEAD of an object with a customer's key (boto3#936, boto3#1482)")
async def test_an_object_encrypted_with_a_key_of_its_owner_is_refused_with_that_sentence() -> None:
    client = Refusing(400, "InvalidRequest", SSE_C)
    with pytest.raises(Permanent, match=r"encrypted with a key that only its owner has \(SSE-C\)"):
        await S3Objects(client).head("reads", "a.fq")
    assert client.calls == ["head", "get bytes=0-0"]
    found = await look_in_s3(S3Objects(client), PLACE)
    assert isinstance(found, UnusableInput)
    assert "SSE-C" in found.what


@pytest.mark.parametrize("code", ["ExpiredToken", "InvalidToken", "RequestTimeTooSkewed"])
async def test_credentials_that_expired_are_trouble_of_ours_and_no_missing_file(code: str) -> None:
    for status in (400, 403):
        with pytest.raises(Transient) as trouble:
            await look_in_s3(S3Objects(Refusing(status, code)), PLACE)
        assert not isinstance(trouble.value, Denied)
        assert code in str(trouble.value)


@pytest.mark.parametrize("code", ["AccessDenied", "AllAccessDisabled", "KMS.DisabledException"])
async def test_a_place_that_is_denied_is_told_from_trouble_of_ours(code: str) -> None:
    with pytest.raises(Denied, match=code):
        await S3Objects(Refusing(403, code)).head("reads", "a.fq")
    found = await look_in_s3(S3Objects(Refusing(403, code)), PLACE)
    assert isinstance(found, Closed)
    assert code in found.what


async def test_a_bad_request_without_a_known_reason_ends_the_wait_with_its_code() -> None:
    found = await look_in_s3(S3Objects(Refusing(400, "InvalidArgument", "what")), PLACE)
    assert isinstance(found, UnusableInput)
    assert "InvalidArgument" in found.what


async def test_where_only_head_is_refused_the_first_byte_tells_the_size() -> None:
    found = await look_in_s3(S3Objects(Refusing(400)), PLACE)
    assert isinstance(found, Found)
    assert found.size_bytes == 1234


async def test_an_object_that_is_not_there_after_all_is_missing() -> None:
    assert await look_in_s3(S3Objects(Refusing(403, "NoSuchKey")), PLACE) is None


async def test_transfers_look_in_the_same_way() -> None:
    with pytest.raises(Permanent, match="SSE-C"):
        await look(Refusing(400, "InvalidRequest", SSE_C), "reads", "a.fq")
    with pytest.raises(Denied):
        await look(Refusing(403, "AccessDenied"), "reads", "a.fq")
