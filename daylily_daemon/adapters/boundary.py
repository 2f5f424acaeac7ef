"""The boundary that no error of the SDK passes: only ``Transient``, ``Impeded`` and ``Permanent`` leave it.

The SDK runs programs, reads files and asks other services for credentials in the middle of any call, and lets
out whatever goes wrong there; and it reads nothing out of an answer that AWS did not write, as if nothing
were there. Both are caught at the client (``known_errors``, ``undamaged``); ``translated`` says what an error
means.
"""

from __future__ import annotations

import json
import os
import re
import ssl
import traceback
import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, assert_never
from urllib.parse import urlsplit

import aiohttp
import botocore.exceptions as aws
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from daylily_daemon.adapters.answers import (
    Meaning,
    advice_on,
    error_code,
    headers_of,
    is_about_credentials,
    meaning_of,
    shown,
)
from daylily_daemon.adapters.headnode import credentials_advice
from daylily_daemon.adapters.retryafter import asked_wait_s
from daylily_daemon.domain.errors import CREDENTIALS, DaemonError, Impeded, Permanent, Transient


class _Foreign(BotoCoreError):
    """Something that the SDK neither raised itself nor foresaw."""

    fmt = "{problem}"


@asynccontextmanager
async def known_errors() -> AsyncIterator[None]:
    try:
        yield
    except (ClientError, BotoCoreError, DaemonError, *LOST_CONNECTION):
        raise
    except Exception as exc:
        raise _Foreign(problem=f"{type(exc).__name__}: {exc}") from exc


_PAGE: Final = re.compile(rb"\s*(<!doctype html|<html)", re.IGNORECASE)
_IN_JSON: Final = frozenset({"dynamodb", "sqs"})


def undamaged(operation_model: Any, response_dict: Mapping[str, Any], **_: Any) -> None:
    """Raise for a 200 that AWS did not write: the SDK reads nothing out of it, as if nothing were there."""
    body = response_dict.get("body")
    if response_dict.get("status_code", 0) >= 300 or not isinstance(body, bytes):
        return
    service = operation_model.service_model.service_name
    broken = service in _IN_JSON and not _is_object(body, service)
    if _PAGE.match(body) or broken or not _has_its_sum(body, response_dict.get("headers") or {}):
        raise ResponseParserError(f"{operation_model.name} was answered with something else.")


def _has_its_sum(body: bytes, headers: Mapping[str, str]) -> bool:
    """DynamoDB sends the CRC-32 of what it answers, of the packed bytes if it packs them."""
    told = str(headers.get("x-amz-crc32", ""))
    if not re.fullmatch("[0-9]{1,10}", told) or headers.get("content-encoding"):
        return True
    return zlib.crc32(body) == int(told)


def _is_object(body: bytes, service: str) -> bool:
    """SQS may leave an answer empty; DynamoDB says ``{}``, and nothing would mean that no item is there."""
    if not body:
        return service != "dynamodb"
    try:
        return isinstance(json.loads(body), dict)
    except (ValueError, RecursionError):
        return False


_LOST_CREDENTIALS: Final = (
    aws.NoCredentialsError,
    aws.PartialCredentialsError,
    aws.CredentialRetrievalError,
    aws.MetadataRetrievalError,
    aws.TokenRetrievalError,
    aws.NoAuthTokenError,
    aws.UnknownCredentialError,
    aws.UnknownTokenProviderError,
    aws.RefreshWithMFAUnsupportedError,
    aws.SSOError,
    aws.LoginError,
)
_CREDENTIAL_MODULES: Final = re.compile(r"(aio)?botocore\.(credentials|tokens|signers|auth)")
LOST_CONNECTION: Final = (
    aws.ConnectionError,
    aws.HTTPClientError,
    aws.IncompleteReadError,
    aws.FlexibleChecksumError,
    aws.ChecksumError,
    aws.CapacityNotAvailableError,
    ResponseParserError,
    aiohttp.ClientError,
    TimeoutError,
    ConnectionError,
)
_SILENCE: Final[tuple[tuple[tuple[type[Exception], ...], str], ...]] = (
    ((aws.ConnectTimeoutError, aws.ReadTimeoutError, TimeoutError), "did not answer in time"),
    ((aws.ProxyConnectionError,), "cannot be reached through the proxy"),
    (
        (aws.HTTPClientError, aws.IncompleteReadError, aiohttp.ClientPayloadError),
        "broke the connection off",
    ),
    (
        (aws.FlexibleChecksumError, aws.ChecksumError, ResponseParserError),
        "gave a damaged answer",
    ),
)
_UNREACHABLE: Final = "cannot be reached"
_OF_A_NAME: Final = (
    aws.ParamValidationError,
    aws.InvalidDNSNameError,
    aws.InvalidHostLabelError,
    aws.UnsupportedS3ArnError,
    aws.UnsupportedS3AccesspointConfigurationError,
    aws.UnsupportedOutpostResourceError,
    aws.EndpointResolutionError,
)
"""The SDK refuses to ask: no bucket can have that name."""


@asynccontextmanager
async def translated(what: str = "") -> AsyncIterator[None]:
    """Let no error of the SDK out: raise Transient, Impeded or Permanent in its place. Also a decorator.

    ``what`` names the object of the call for the message: ``s3://bucket/key``, ``the table x``. The error's
    ``code`` is AWS's, or ``credentials``.
    """
    try:
        yield
    except DaemonError:
        raise
    except (ClientError, BotoCoreError, *LOST_CONNECTION) as exc:
        raise _ours(exc, what) from exc


def is_missing(exc: ClientError) -> bool:
    """Tell whether an S3 object is not there (a missing bucket looks the same to HEAD).

    S3 itself says 404 without a code to HEAD only; to anything else it is the word of some proxy.
    """
    code = error_code(exc)
    return code == "NoSuchKey" or (code == "404" and exc.operation_name.startswith("Head"))


def _ours(exc: Exception, what: str) -> DaemonError:
    if isinstance(exc, ClientError):
        return _of_answer(exc, what)
    if is_of_credentials(exc):
        return _of_credentials(exc)
    if _is_of_certificates(exc):
        return _of_certificates(exc)
    if isinstance(exc, LOST_CONNECTION):
        return _of_silence(exc, what)
    named = f" ({what})" if what else ""
    said = f"{shown(exc).rstrip('.')}."
    if isinstance(exc, _OF_A_NAME):
        return _coded(
            Permanent(f"No place in AWS can have this name{named}: {said} Correct it."),
            "InvalidBucketName",
        )
    return _coded(
        Impeded(f"The AWS settings do not work{named}: {said} Check region, profile and endpoint."),
        type(exc).__name__,
    )


def _coded(error: DaemonError, code: str) -> DaemonError:
    error.code = code
    return error


def is_of_credentials(error: Exception) -> bool:
    """Tell whether ``error`` is about credentials, or came up when the SDK got some, within any call."""
    if isinstance(error, _LOST_CREDENTIALS):
        return True
    if isinstance(error, ClientError) and is_about_credentials(
        error.operation_name, error_code(error)
    ):
        return True
    exc: BaseException | None = error
    while exc is not None:
        frames = traceback.walk_tb(exc.__traceback__)
        if any(_CREDENTIAL_MODULES.fullmatch(f.f_globals.get("__name__", "")) for f, _ in frames):
            return True
        exc = exc.__cause__
    return False


def _of_credentials(exc: Exception) -> DaemonError:
    told = shown(exc).rstrip(".")
    text = (
        f"There are no usable AWS credentials on this host ({told}). Check the role of the host, "
        "or AWS_PROFILE, the files in ~/.aws and the program they name."
    )
    return _coded(Impeded(f"{text} {credentials_advice()}".rstrip()), CREDENTIALS)


def _of_answer(exc: ClientError, what: str) -> DaemonError:
    code, operation = error_code(exc), exc.operation_name
    words = str(exc.response.get("Error", {}).get("Message", "") or "")
    call = f"{operation} of {what}" if what else operation
    told = f"{shown(words).rstrip('.')} ({shown(code, 100)})" if words else shown(code, 100)
    if is_of_credentials(exc):
        advice = "Check the credentials and the clock of this host."
        text = f"AWS did not accept our credentials for {call}: {told}. {advice}"
        return _coded(Impeded(text), CREDENTIALS)
    status = _status(exc)
    match meaning_of(operation, code, status, words):
        case Meaning.AGAIN:
            how = "could not answer" if status >= 500 else "asked for fewer requests at"
            text = f"AWS {how} {call}: {told}. It will be tried again."
            error: DaemonError = Transient(text, retry_after_s=_retry_after_s(exc))
        case Meaning.OURS:
            text = f"AWS refused {call}: {told}. {advice_on(code)} It will be tried again."
            error = Impeded(text, retry_after_s=_retry_after_s(exc))
        case Meaning.NO:
            error = Permanent(f"AWS refused {call}: {told}. {advice_on(code)}")
        case never:
            assert_never(never)
    return _coded(error, code)


def _of_silence(exc: BaseException, what: str) -> Transient:
    """Name the endpoint by scheme and host only: the rest of a URL may carry a signature."""
    where = _endpoint_of(exc)
    problem = next((text for types, text in _SILENCE if isinstance(exc, types)), _UNREACHABLE)
    about = f" (for {what})" if what else ""
    advice = "Check the network and AWS_ENDPOINT_URL; it will be tried again."
    return Transient(f"{where} {problem}{about}: {type(exc).__name__}. {advice}")


def _endpoint_of(exc: BaseException) -> str:
    try:
        parts = urlsplit(str(getattr(exc, "kwargs", {}).get("endpoint_url", "")))
    except ValueError:
        return "AWS"
    host = parts.netloc.rpartition("@")[2]
    return f"The AWS endpoint {parts.scheme}://{host}" if host else "AWS"


def _is_of_certificates(exc: BaseException | None) -> bool:
    """Tell whether the certificates to check AWS by could not be read, or the check failed."""
    while exc is not None:
        if isinstance(exc, (aws.SSLError, aiohttp.ClientSSLError, ssl.SSLError)):
            return True
        if isinstance(exc, OSError) and _comes_from_ssl(exc):
            return True
        exc = exc.__cause__ or exc.__context__
    return False


def _comes_from_ssl(exc: OSError) -> bool:
    names = (f.f_code.co_name for f, _ in traceback.walk_tb(exc.__traceback__))
    return exc.errno is not None and any("ssl" in name or "cert" in name for name in names)


def _of_certificates(exc: Exception) -> DaemonError:
    bundle = os.environ.get("AWS_CA_BUNDLE") or os.environ.get("REQUESTS_CA_BUNDLE")
    where = f" ({shown(bundle, 200)})" if bundle else ""
    text = (
        f"The certificate of AWS could not be checked: {shown(exc).rstrip('.')}. Check that the file of "
        f"AWS_CA_BUNDLE, or ca_bundle in ~/.aws/config{where}, is there and holds the certificates of "
        "whoever answers, a proxy in between too; it will be tried again."
    )
    return _coded(Impeded(text), "certificates")


def _status(exc: ClientError) -> int:
    return int(exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _retry_after_s(exc: ClientError) -> float | None:
    """AWS says it in seconds or as a date; SQS says in words that a name is taken for a minute."""
    if "DeletedRecently" in error_code(exc):
        return 60.0
    headers = headers_of(exc)
    return asked_wait_s(headers.get("retry-after", ""), headers.get("date", ""))
