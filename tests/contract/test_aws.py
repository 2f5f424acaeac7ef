"""What an error of AWS means, and how clients are made."""

from __future__ import annotations

import aiohttp
import pytest
from botocore import exceptions as aws
from botocore.exceptions import ClientError

from daylily_daemon.adapters.aws import Aws, AwsOptions, options_from, translated
from daylily_daemon.domain.errors import DaemonError, Permanent, Transient


def answer(code: str, status: int = 400, message: str = "No", **headers: str) -> ClientError:
    return ClientError(
        {
            "Error": {"Code": code, "Message": message},
            "ResponseMetadata": {
                "HTTPStatusCode": status,
                "HTTPHeaders": headers,
                "RequestId": "",
                "HostId": "",
                "RetryAttempts": 0,
            },
        },
        "PutObject",
    )


async def meaning(exc: BaseException) -> DaemonError:
    with pytest.raises(DaemonError) as raised:
        async with translated("s3://lab/key"):
            raise exc
    return raised.value


@pytest.mark.parametrize(
    "exc",
    [
        answer("SlowDown", 503),
        answer("ThrottlingException"),
        answer("Whatever", 500),
        answer("Whatever", 429),
        answer("RequestTimeout"),
        answer("ExpiredToken"),
        answer("InvalidClientTokenId", 403),
        answer("RequestTimeTooSkewed", 403),
        answer("BadDigest"),
        aws.EndpointConnectionError(endpoint_url="https://s3.amazonaws.com/lab/key?X-Amz-Sig=1"),
        aws.ConnectTimeoutError(endpoint_url="https://s3.amazonaws.com/"),
        aws.ReadTimeoutError(endpoint_url="https://s3.amazonaws.com/"),
        aws.ConnectionClosedError(endpoint_url="https://s3.amazonaws.com/"),
        aws.ResponseStreamingError(error="cut"),
        aws.IncompleteReadError(actual_bytes=1, expected_bytes=2),
        aws.NoCredentialsError(),
        aws.PartialCredentialsError(provider="env", cred_var="x"),
        aws.CredentialRetrievalError(provider="iam", error_msg="x"),
        aiohttp.ClientPayloadError("cut"),
        aiohttp.ServerDisconnectedError(),
        TimeoutError(),
        ConnectionResetError(),
    ],
)
async def test_what_may_mend_itself_is_unknown_and_repeated(exc: Exception) -> None:
    meant = await meaning(exc)
    assert isinstance(meant, Transient)
    assert "Sig" not in str(meant)


@pytest.mark.parametrize(
    ("exc", "told"),
    [
        (
            answer("AccessDenied", 403),
            "refused PutObject of s3://lab/key: No (AccessDenied). Allow",
        ),
        (answer("403", 403), "Allow it in the IAM policy"),
        (answer("NoSuchBucket", 404), "Create the bucket, or correct its name."),
        (answer("ResourceNotFoundException"), "Run `daylily-daemon init`"),
        (answer("InvalidObjectState", 403), "restore it from Glacier"),
        (answer("ValidationException"), "do not fit"),
        (answer("SomethingNew"), "will be refused again"),
        (aws.ProfileNotFound(profile="lab"), "Check region, profile and endpoint"),
        (aws.NoRegionError(), "Check region, profile and endpoint"),
    ],
)
async def test_a_definite_no_is_a_sentence_that_says_what_to_do(exc: Exception, told: str) -> None:
    meant = await meaning(exc)
    assert isinstance(meant, Permanent)
    assert told in str(meant)


async def test_retry_after_is_passed_on() -> None:
    meant = await meaning(answer("SlowDown", 503, **{"retry-after": "7"}))
    assert isinstance(meant, Transient)
    assert meant.retry_after_s == 7


async def test_our_own_errors_and_those_of_the_program_pass_unchanged() -> None:
    for exc in (Permanent("ours"), ValueError("a bug"), FileNotFoundError("local")):
        with pytest.raises(type(exc)):
            async with translated():
                raise exc


async def test_one_client_is_made_for_equal_wishes_and_calls_are_counted(moto_url: str) -> None:
    calls: list[tuple[str, str]] = []
    options = AwsOptions(endpoint_url=moto_url)
    async with Aws(options, on_call=lambda *call: calls.append(call)) as opened:
        s3, sqs = await opened.client("s3"), await opened.client("sqs")
        assert await opened.client("s3") is s3
        assert await opened.client("s3", max_attempts=1) is not s3
        await s3.list_buckets()
        await sqs.list_queues()
    assert calls == [("s3", "ListBuckets"), ("sqs", "ListQueues")]


async def test_a_queue_client_outlasts_a_long_poll(moto_url: str) -> None:
    async with Aws(AwsOptions(endpoint_url=moto_url)) as opened:
        sqs, sns = await opened.client("sqs"), await opened.client("sns")
    assert sqs.meta.config.read_timeout > 20
    assert sns.meta.config.read_timeout == 10


async def test_an_unknown_profile_is_a_sentence() -> None:
    async with Aws(AwsOptions(profile="no-such-profile")) as opened:
        with pytest.raises(Permanent, match="no-such-profile"):
            await opened.client("s3")


def test_options_come_from_the_variables_other_tools_obey() -> None:
    assert options_from({}) == AwsOptions()
    found = options_from(
        {
            "AWS_REGION": "eu-west-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_PROFILE": "lab",
            "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
            "AWS_ENDPOINT_URL_DYNAMODB": "http://127.0.0.1:2",
        }
    )
    assert (found.region, found.profile) == ("eu-west-1", "lab")
    assert found.endpoint_url == "http://127.0.0.1:1"
    assert found.endpoint_urls == {"dynamodb": "http://127.0.0.1:2"}
