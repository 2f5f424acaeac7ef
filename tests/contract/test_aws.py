"""What an error of AWS means, and how clients are made."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from anyio import move_on_after
from botocore import exceptions as aws
from botocore.exceptions import ClientError

from daylily_daemon.adapters.aws import Aws, AwsOptions, options_from, translated
from daylily_daemon.domain.errors import CREDENTIALS, DaemonError, Impeded, Permanent, Transient
from tests.contract.scripted_aws import Says, ScriptedAws, ok, raw, refused, scripted


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


async def _healed(opened: Aws) -> None:
    """Credentials that do not come anew are noticed to be bad by one more call."""
    with suppress(Impeded):
        await _asked(opened)
    await _asked(opened)


async def _asked(opened: Aws) -> None:
    async with translated("the table x"):
        await (await opened.client("dynamodb")).list_tables()


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
        answer("BadDigest"),
        aws.EndpointConnectionError(endpoint_url="https://s3.amazonaws.com/lab/key?X-Amz-Sig=1"),
        aws.EndpointConnectionError(endpoint_url="https://[::1/"),
        aws.EndpointConnectionError(endpoint_url="https://user:Sig@s3.amazonaws.com/"),
        aws.ConnectTimeoutError(endpoint_url="https://s3.amazonaws.com/"),
        aws.ReadTimeoutError(endpoint_url="https://s3.amazonaws.com/"),
        aws.ConnectionClosedError(endpoint_url="https://s3.amazonaws.com/"),
        aws.ResponseStreamingError(error="cut"),
        aws.IncompleteReadError(actual_bytes=1, expected_bytes=2),
        aiohttp.ClientPayloadError("cut"),
        aiohttp.ServerDisconnectedError(),
        TimeoutError(),
        ConnectionResetError(),
    ],
)
async def test_what_may_mend_itself_is_unknown_and_repeated(exc: Exception) -> None:
    meant = await meaning(exc)
    assert type(meant) is Transient
    assert "Sig" not in str(meant)


@pytest.mark.parametrize(
    ("exc", "told"),
    [
        (answer("NoSuchBucket", 404), "Create the bucket, or correct its name."),
        (answer("InvalidObjectState", 403), "restore it from Glacier"),
        (answer("ValidationException"), "do not fit"),
        (
            aws.ParamValidationError(report="Invalid bucket name"),
            "No place in AWS can have this name",
        ),
    ],
)
async def test_a_definite_no_is_a_sentence_that_says_what_to_do(exc: Exception, told: str) -> None:
    meant = await meaning(exc)
    assert isinstance(meant, Permanent)
    assert told in str(meant)


@pytest.mark.parametrize(
    ("exc", "told"),
    [
        (
            answer("AccessDenied", 403),
            "refused PutObject of s3://lab/key: No (AccessDenied). Allow",
        ),
        (answer("403", 403), "Allow it in the IAM policy"),
        (answer("ResourceNotFoundException"), "Run `daylily-daemon init`"),
        (answer("KMS.DisabledException"), "Look at the KMS key"),
        (answer("SomethingNew"), "It will be tried again"),
        (aws.ProfileNotFound(profile="lab"), "Check region, profile and endpoint"),
        (aws.NoRegionError(), "Check region, profile and endpoint"),
        (aws.NoCredentialsError(), "no usable AWS credentials"),
        (aws.PartialCredentialsError(provider="env", cred_var="x"), "no usable AWS credentials"),
        (aws.CredentialRetrievalError(provider="iam", error_msg="x"), "no usable AWS credentials"),
        (answer("ExpiredToken"), "credentials and the clock"),
        (answer("InvalidClientTokenId", 403), "credentials and the clock"),
        (answer("RequestTimeTooSkewed", 403), "credentials and the clock"),
    ],
)
async def test_what_is_our_own_trouble_is_nobodys_fault_and_says_what_to_do(
    exc: Exception, told: str
) -> None:
    meant = await meaning(exc)
    assert isinstance(meant, Impeded)
    assert told in str(meant)


async def test_callers_see_the_code_of_a_refusal() -> None:
    assert (await meaning(answer("NoSuchBucket", 404))).code == "NoSuchBucket"
    assert (await meaning(answer("AccessDenied", 403))).code == "AccessDenied"
    assert (await meaning(answer("ExpiredToken", 403))).code == CREDENTIALS


async def test_a_page_full_of_words_is_cut_and_shown_on_one_line() -> None:
    meant = await meaning(answer("AccessDenied", 403, "<html>\x1b[31m\n" + "x" * 100_000))
    assert len(str(meant)) < 1000
    assert "\x1b" not in str(meant)
    assert "\n" not in str(meant)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("7", 7),
        ("99999999999999999999", 3600),
        ("9" * 5000, None),
        ("\u0661\u0662", None),
        ("\u00b2", None),
        ("-7", None),
        ("1e400", None),
        ("Sun, 01 Mar 99999999999999999999 12:00:00 GMT", None),
        ("Sun, 01 Mar 2026 12:00:09 GMT", 9),
    ],
)
@pytest.mark.reported("B", "a Retry-After beyond what a clock can hold (atlassian-python-api#1593)")
async def test_retry_after_is_passed_on_and_bounded(asked: str, expected: float | None) -> None:
    date = "Sun, 01 Mar 2026 12:00:00 GMT"
    meant = await meaning(answer("SlowDown", 503, **{"retry-after": asked, "date": date}))
    assert isinstance(meant, Transient)
    assert meant.retry_after_s == expected


async def test_our_own_errors_and_those_of_the_program_pass_unchanged() -> None:
    for exc in (Permanent("ours"), ValueError("a bug"), FileNotFoundError("local")):
        with pytest.raises(type(exc)):
            async with translated():
                raise exc


async def test_one_client_is_made_for_equal_wishes_and_calls_are_counted(moto_url: str) -> None:
    calls: list[tuple[Any, ...]] = []
    options = AwsOptions(endpoint_url=moto_url)
    async with Aws(options, on_call=lambda *call: calls.append(call)) as opened:
        s3, sqs = await opened.client("s3"), await opened.client("sqs")
        assert await opened.client("s3") is s3
        assert await opened.client("s3", max_attempts=1) is not s3
        await s3.list_buckets()
        await sqs.list_queues()
    ended = [("s3", "ListBuckets", "ok"), ("sqs", "ListQueues", "ok")]
    assert [call[:3] for call in calls] == ended
    assert all(0 < seconds < 60 for *_, seconds in calls)


@pytest.mark.parametrize(
    ("says", "outcome"),
    [
        (ok(TableNames=[]), "ok"),
        (refused("ConditionalCheckFailedException"), "ok"),
        (refused("ProvisionedThroughputExceededException"), "throttled"),
        (refused("ThrottlingException"), "throttled"),
        (refused("RequestLimitExceeded"), "throttled"),
        (raw(429, b"{}"), "throttled"),
        (refused("AccessDeniedException"), "refused"),
        (refused("ResourceNotFoundException"), "refused"),
        (refused("ExpiredTokenException"), "credentials"),
        (refused("UnrecognizedClientException"), "credentials"),
        (refused("InternalServerError", 500), "unwell"),
        (raw(503, b"{}"), "unwell"),
        (raw(200, b"{", cut=True), "silent"),
    ],
)
async def test_a_call_is_counted_by_what_it_came_to(says: Says, outcome: str) -> None:
    calls: list[tuple[Any, ...]] = []
    script = ScriptedAws()
    script.say("*", says)
    async with script.serving() as url:
        options = AwsOptions(endpoint_url=url, max_attempts=2)
        async with Aws(options, on_call=lambda *call: calls.append(call[:3])) as opened:
            client = await opened.client("dynamodb")
            with suppress(DaemonError):
                async with translated():
                    await client.list_tables()
    assert calls == [("dynamodb", "ListTables", outcome)], "once, however often it was repeated"


async def test_a_call_that_is_given_up_is_not_counted() -> None:
    calls: list[tuple[Any, ...]] = []
    with silent_server() as url:
        opened = Aws(AwsOptions(endpoint_url=url), on_call=lambda *call: calls.append(call))
        async with opened:
            with move_on_after(0.3):
                await (await opened.client("dynamodb")).list_tables()
    assert calls == []


async def test_silence_is_counted_as_such() -> None:
    calls: list[tuple[Any, ...]] = []
    with silent_server() as url:
        options = AwsOptions(endpoint_url=url, read_timeout_s=0.2, max_attempts=1)
        async with Aws(options, on_call=lambda *call: calls.append(call)) as opened:
            with pytest.raises(Transient):
                async with translated():
                    await (await opened.client("dynamodb")).list_tables()
    assert [call[:3] for call in calls] == [("dynamodb", "ListTables", "silent")]


@contextmanager
def silent_server() -> Iterator[str]:
    """Take connections and say nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


async def test_a_queue_client_outlasts_a_long_poll(moto_url: str) -> None:
    async with Aws(AwsOptions(endpoint_url=moto_url)) as opened:
        sqs, sns = await opened.client("sqs"), await opened.client("sns")
    assert sqs.meta.config.read_timeout > 20
    assert sns.meta.config.read_timeout == 10


async def test_an_unknown_profile_is_a_sentence() -> None:
    async with Aws(AwsOptions(profile="no-such-profile")) as opened:
        with pytest.raises(Impeded, match="no-such-profile"):
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


NO_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
GOOD_KEYS = '{"Version": 1, "AccessKeyId": "a", "SecretAccessKey": "b"}'


@pytest.fixture
def aws_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file ~/.aws/config of a host without other credentials."""
    for name in NO_KEYS:
        monkeypatch.delenv(name)
    path = tmp_path / "config"
    monkeypatch.setenv("AWS_CONFIG_FILE", str(path))
    return path


@pytest.mark.parametrize(
    "line",
    [
        "credential_process = echo garbage",
        "credential_process = true",
        "credential_process = echo []",
        "credential_process = echo 1",
        "credential_process = printf '\\377\\376'",
        "credential_process = sh -c \"printf '\\377' >&2; exit 1\"",
        "credential_process = /no/such/program",
        "credential_process = /etc/passwd",
        "credential_process = echo 'x",
        "credential_process = false",
        "credential_process = echo '{\"Version\": 2}'",
        'credential_process = echo \'{"Version": 1, "AccessKeyId": 1, "SecretAccessKey": 2}\'',
        f'credential_process = echo \'{GOOD_KEYS[:-1]}, "Expiration": "garbage"}}\'',
        f'credential_process = echo \'{GOOD_KEYS[:-1]}, "Expiration": "2001-01-01T00:00:00Z"}}\'',
        "role_arn = arn:aws:iam::1:role/x\nsource_profile = default",
        "role_arn = arn:aws:iam::1:role/x\nsource_profile = nobody",
        "role_arn = arn:aws:iam::1:role/x\nweb_identity_token_file = /no/file",
        "sso_start_url = https://x\nsso_region = us-east-1\nsso_account_id = 1\nsso_role_name = x",
        "no [ini at all",
        "\x00",
    ],
)
@pytest.mark.reported("B", "a credential_process that prints garbage (botocore#2779)")
async def test_whatever_breaks_where_credentials_come_from_is_trouble_of_ours_and_can_be_mended(
    aws_config: Path, moto_url: str, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    monkeypatch.setattr("daylily_daemon.adapters.aws.RENEW_EVERY_S", 0.0)
    _write(aws_config, line)
    async with Aws(AwsOptions(endpoint_url=moto_url)) as opened:
        with pytest.raises(Impeded, match="credentials") as raised:
            await _asked(opened)
        assert raised.value.code == CREDENTIALS
        _write(aws_config, f"credential_process = echo '{GOOD_KEYS}'")
        await _healed(opened)


def _write(path: Path, line: str) -> None:
    path.write_text(f"[default]\n{line}\n")


@pytest.mark.parametrize("bundle", ["/no/such.pem", "/etc", "/dev/null"])
async def test_a_bundle_of_certificates_that_is_none_is_named(
    monkeypatch: pytest.MonkeyPatch, bundle: str
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", bundle)
    async with Aws(AwsOptions(endpoint_url="http://127.0.0.1:9", max_attempts=1)) as opened:
        with pytest.raises(Impeded, match=f"AWS_CA_BUNDLE.*{bundle}"):
            async with translated("the table x"):
                await (await opened.client("dynamodb")).list_tables()


async def test_keys_that_somebody_replaced_are_found_without_a_restart(
    aws_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daylily_daemon.adapters.aws.RENEW_EVERY_S", 0.0)
    keys = "aws_access_key_id = {}\naws_secret_access_key = s"
    _write(aws_config, keys.format("OLD"))
    async with scripted() as (script, opened):
        script.say("ListTables", refused("ExpiredTokenException"), ok(TableNames=[]))
        db = await opened.client("dynamodb")
        _write(aws_config, keys.format("NEW"))
        with pytest.raises(Impeded):
            async with translated():
                await db.list_tables()
        await db.list_tables()
    assert "OLD/" in script.signed[0]
    assert "NEW/" in script.signed[-1]


MANY = {
    "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
    "AWS_ENDPOINT_URL_DYNAMODB": "http://127.0.0.1:2",
    "AWS_ENDPOINT_URL_SQS": "",
}


def test_a_services_own_endpoint_outweighs_the_general_one_also_from_settings() -> None:
    given = AwsOptions(region="eu-west-1", endpoint_url="http://127.0.0.1:3")
    found = options_from(MANY, given)
    assert (found.region, found.endpoint_url) == ("eu-west-1", "http://127.0.0.1:3")
    assert found.endpoint_urls == {"dynamodb": "http://127.0.0.1:2"}


def test_configured_endpoints_can_be_switched_off_and_settings_stay() -> None:
    off = MANY | {"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "TRUE"}
    found = options_from(off)
    assert (found.endpoint_url, found.endpoint_urls) == ("", {})
    from_variable = AwsOptions(endpoint_url="http://127.0.0.1:1")
    assert options_from(off, from_variable).endpoint_url == ""
    from_settings = AwsOptions(endpoint_url="http://127.0.0.1:3")
    assert options_from(off, from_settings).endpoint_url == "http://127.0.0.1:3"


PROFILES = """
[default]
region = eu-west-2
services = lab
endpoint_url = http://127.0.0.1:4
[profile other]
region = eu-west-3
[services lab]
dynamodb =
  endpoint_url = http://127.0.0.1:5
"""


async def test_endpoints_of_a_profile_are_obeyed_as_by_other_tools(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _config(tmp_path / "config", PROFILES)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    async with Aws(options_from({})) as opened:
        db, sqs = await opened.client("dynamodb"), await opened.client("sqs")
        assert db.meta.endpoint_url == "http://127.0.0.1:5"
        assert sqs.meta.endpoint_url == "http://127.0.0.1:4"
    monkeypatch.setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")
    async with Aws(options_from({})) as opened:
        db = await opened.client("dynamodb")
        assert "amazonaws.com" in db.meta.endpoint_url


def _config(path: Path, text: str) -> None:
    path.write_text(text)


@pytest.mark.parametrize(
    ("variables", "region"),
    [
        ({}, "eu-west-2"),
        ({"AWS_PROFILE": "other"}, "eu-west-3"),
        ({"AWS_PROFILE": "nobody"}, "us-west-2"),
        ({"AWS_DEFAULT_REGION": "us-east-1"}, "us-east-1"),
        ({"AWS_CONFIG_FILE": "/no/such/file"}, "us-west-2"),
        ({"AWS_CONFIG_FILE": "/"}, "us-west-2"),
    ],
)
def test_the_region_of_the_profile_counts_where_no_variable_gives_one(
    tmp_path: Path, variables: dict[str, str], region: str
) -> None:
    _config(tmp_path / "config", PROFILES)
    found = options_from({"AWS_CONFIG_FILE": str(tmp_path / "config")} | variables)
    assert found.region == region
