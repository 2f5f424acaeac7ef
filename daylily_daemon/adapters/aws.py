"""The one place that makes AWS clients, and the one table of what their errors mean.

An error that may mend itself without us is an unknown outcome (``Transient``): throttling, 5xx, lost
connections, and everything about credentials, because those expire and come back during a long run.
The rest is a definite no (``Permanent``) with a sentence that says what to do. A conditional write that
was refused is neither: the store looks at its ``ClientError`` before it reaches ``translated``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import anyio
import botocore.exceptions as aws
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from daylily_daemon.domain.errors import DaemonError, Permanent, Transient

OnCall = Callable[[str, str], None]
"""Told (service, operation) once per call, however often the SDK repeats it: ``sqs``, ``SendMessage``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsOptions:
    """How to reach AWS. Services in ``endpoint_urls`` go there instead of to ``endpoint_url``."""

    region: str = "us-west-2"
    profile: str = ""
    endpoint_url: str = ""
    endpoint_urls: Mapping[str, str] = field(default_factory=dict)
    connect_timeout_s: float = 3.0
    read_timeout_s: float = 10.0
    long_poll_timeout_s: float = 30.0
    """Of SQS, which answers an empty long poll after up to 20 s; a shorter time would cut it off."""
    max_attempts: int = 3
    """Tries of one call, the first included."""
    pool_size: int = 32
    parameter_validation: bool = False
    """Checks our own arguments; switched off it saves a tenth of the CPU of a call."""


def options_from(environ: Mapping[str, str]) -> AwsOptions:
    """Read the variables that other AWS tools obey too; what is unset keeps its default."""
    prefix = "AWS_ENDPOINT_URL_"
    default = AwsOptions()
    return AwsOptions(
        region=environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or default.region,
        profile=environ.get("AWS_PROFILE", ""),
        endpoint_url=environ.get("AWS_ENDPOINT_URL", ""),
        endpoint_urls={
            name.removeprefix(prefix).lower(): url
            for name, url in environ.items()
            if name.startswith(prefix) and url
        },
    )


class Aws:
    """Clients made when first asked for, and closed together."""

    def __init__(self, options: AwsOptions, *, on_call: OnCall | None = None) -> None:
        self._options = options
        self._on_call = on_call
        self._session = AioSession(profile=options.profile or None)
        self._stack = AsyncExitStack()
        self._lock = anyio.Lock()
        self._clients: dict[tuple[str, int], Any] = {}

    async def __aenter__(self) -> Aws:
        await self._stack.__aenter__()
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        self._clients.clear()
        await self._stack.__aexit__(*exc_info)

    async def client(self, service: str, *, max_attempts: int | None = None) -> Any:
        """Return the client of ``s3``, ``dynamodb``, ``sqs``, ``sns``; the same one for equal arguments.

        ``max_attempts=1`` is for callers who repeat by themselves, such as a lease that beats.
        Raises Transient or Permanent (an unknown profile, an impossible endpoint).
        """
        key = service, max_attempts or self._options.max_attempts
        async with self._lock:
            if key not in self._clients:
                self._clients[key] = await self._open(*key)
            return self._clients[key]

    async def _open(self, service: str, max_attempts: int) -> Any:
        options = self._options
        endpoint_url = options.endpoint_urls.get(service) or options.endpoint_url or None
        async with translated(f"the {service} client"):
            client = await self._stack.enter_async_context(
                self._session.create_client(
                    service,
                    region_name=options.region,
                    endpoint_url=endpoint_url,
                    config=_config(options, service, max_attempts, bool(endpoint_url)),
                )
            )
        if self._on_call:
            client.meta.events.register("before-call", _counting(self._on_call))
        return client


def _config(options: AwsOptions, service: str, max_attempts: int, elsewhere: bool) -> AioConfig:
    read_timeout_s = options.read_timeout_s
    if service == "sqs":
        read_timeout_s = max(read_timeout_s, options.long_poll_timeout_s)
    return AioConfig(
        connect_timeout=options.connect_timeout_s,
        read_timeout=read_timeout_s,
        max_pool_connections=options.pool_size,
        retries={"mode": "standard", "total_max_attempts": max_attempts},
        parameter_validation=options.parameter_validation,
        tcp_keepalive=True,
        user_agent_extra="daylily-daemon",
        # What a transfer reads is verified by the transfer itself, over resumed pieces too.
        response_checksum_validation="when_required",
        s3={"addressing_style": "path" if elsewhere else "auto"},
    )


def _counting(on_call: OnCall) -> Callable[..., None]:
    def before_call(model: Any, **_: Any) -> None:
        on_call(model.service_model.service_name, model.name)

    return before_call


_THROTTLED: Final = frozenset(
    {
        *("Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled"),
        *(
            "RequestThrottledException",
            "TooManyRequestsException",
            "TransactionInProgressException",
        ),
        *(
            "ProvisionedThroughputExceededException",
            "RequestLimitExceeded",
            "BandwidthLimitExceeded",
        ),
        *("LimitExceededException", "SlowDown", "PriorRequestNotComplete", "EC2ThrottledException"),
        *("KMS.ThrottlingException", "KMSThrottlingException", "KmsThrottled", "429"),
    }
)
_UNWELL: Final = frozenset(
    {
        *("InternalError", "InternalServerError", "InternalFailure", "ServiceUnavailable"),
        *("ServiceUnavailableException", "RequestTimeout", "RequestTimeoutException", "503", "500"),
        *(
            "OperationAborted",
            "ConditionalRequestConflict",
            "BadDigest",
            "XAmzContentSHA256Mismatch",
        ),
        *("TransactionConflictException", "IncompleteBody", "NoSuchUpload"),
    }
)
_CREDENTIALS: Final = frozenset(
    {
        *("ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"),
        *("InvalidToken", "InvalidClientTokenId", "UnrecognizedClientException", "AuthFailure"),
        *("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidSignatureException"),
        *("MissingAuthenticationToken", "MissingAuthenticationTokenException"),
        *("RequestTimeTooSkewed", "IncompleteSignature", "InvalidSignature"),
        # An answer to HEAD has no body: all that is left of ExpiredToken is its status.
        "400",
    }
)

_ALLOW: Final = (
    "Allow it in the IAM policy of this host's role (and in the bucket's or key's policy)."
)
_INIT: Final = "Run `daylily-daemon init`, or correct the name and the region in the settings."
_ADVICE: Final[Mapping[str, str]] = {
    **dict.fromkeys(("AccessDenied", "AccessDeniedException", "403", "AllAccessDisabled"), _ALLOW),
    **dict.fromkeys(("AuthorizationError", "AuthorizationErrorException"), _ALLOW),
    **dict.fromkeys(("KMS.AccessDeniedException", "KMS.DisabledException"), _ALLOW),
    "NoSuchBucket": "Create the bucket, or correct its name.",
    **dict.fromkeys(("NoSuchKey", "404"), "Upload the object, or correct its name."),
    "InvalidObjectState": "The object is archived: restore it from Glacier, then try again.",
    "InvalidBucketName": "Correct the name of the bucket.",
    **dict.fromkeys(
        ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"),
        "The bucket is in another region: correct the region in the settings.",
    ),
    **dict.fromkeys(("ResourceNotFoundException", "NotFound", "NotFoundException"), _INIT),
    **dict.fromkeys(
        ("AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist", "NonExistentQueue"), _INIT
    ),
    **dict.fromkeys(
        ("ValidationException", "InvalidParameterValue", "InvalidParameter", "MissingParameter"),
        "Its arguments do not fit: compare the settings with what `daylily-daemon init` made.",
    ),
}
_OTHER_ADVICE: Final = (
    "The same call will be refused again; look the code up in the AWS documentation."
)

_LOST_CREDENTIALS: Final = (
    aws.NoCredentialsError,
    aws.PartialCredentialsError,
    aws.CredentialRetrievalError,
    aws.MetadataRetrievalError,
    aws.TokenRetrievalError,
    aws.NoAuthTokenError,
    aws.SSOError,
    aws.LoginError,
)
_LOST_CONNECTION: Final = (
    aws.ConnectionError,
    aws.HTTPClientError,
    aws.IncompleteReadError,
    aws.FlexibleChecksumError,
    ResponseParserError,
    aiohttp.ClientError,
    TimeoutError,
    ConnectionError,
)
_SILENCE: Final[tuple[tuple[tuple[type[Exception], ...], str], ...]] = (
    ((aws.ConnectTimeoutError, aws.ReadTimeoutError, TimeoutError), "did not answer in time"),
    (
        (aws.HTTPClientError, aws.IncompleteReadError, aiohttp.ClientPayloadError),
        "broke the connection off",
    ),
    ((aws.FlexibleChecksumError, ResponseParserError), "gave a damaged answer"),
)
_UNREACHABLE: Final = "cannot be reached"


@asynccontextmanager
async def translated(what: str = "") -> AsyncIterator[None]:
    """Let no error of the SDK out: raise Transient or Permanent in its place. Also a decorator.

    ``what`` names the object of the call for the message: ``s3://bucket/key``, ``the table x``.
    """
    try:
        yield
    except ClientError as exc:
        raise _of_answer(exc, what) from exc
    except _LOST_CREDENTIALS as exc:
        raise Transient(
            f"There are no usable AWS credentials on this host ({exc}). Check the role of the host, "
            "or AWS_PROFILE and the files in ~/.aws."
        ) from exc
    except _LOST_CONNECTION as exc:
        raise _of_silence(exc, what) from exc
    except BotoCoreError as exc:
        named = f" ({what})" if what else ""
        raise Permanent(
            f"The AWS settings do not work{named}: {exc} Check region, profile and endpoint."
        ) from exc


def error_code(exc: ClientError) -> str:
    """Return the code in AWS's answer, ``NoSuchKey``; HEAD has only the status, ``404``."""
    return exc.response.get("Error", {}).get("Code", "") or "unknown"


def is_missing(exc: ClientError) -> bool:
    """Tell whether an S3 object is not there (a missing bucket looks the same to HEAD)."""
    return error_code(exc) in {"404", "NoSuchKey"}


def _of_answer(exc: ClientError, what: str) -> DaemonError:
    code, message = error_code(exc), exc.response.get("Error", {}).get("Message", "")
    call = f"{exc.operation_name} of {what}" if what else exc.operation_name
    told = f"{message.rstrip('.')} ({code})" if message else code
    if code in _CREDENTIALS:
        advice = "Check the credentials and the clock of this host."
        return Transient(f"AWS did not accept our credentials for {call}: {told}. {advice}")
    if code in _THROTTLED or _status(exc) == 429:
        text = f"AWS asked for fewer requests at {call}: {told}. It will be tried again."
        return Transient(text, retry_after_s=_retry_after_s(exc))
    if code in _UNWELL or _status(exc) >= 500:
        text = f"AWS could not answer {call}: {told}. It will be tried again."
        return Transient(text, retry_after_s=_retry_after_s(exc))
    return Permanent(f"AWS refused {call}: {told}. {_ADVICE.get(code, _OTHER_ADVICE)}")


def _of_silence(exc: BaseException, what: str) -> Transient:
    """Name the endpoint by scheme and host only: the rest of a URL may carry a signature."""
    parts = urlsplit(str(getattr(exc, "kwargs", {}).get("endpoint_url", "")))
    where = f"The AWS endpoint {parts.scheme}://{parts.netloc}" if parts.netloc else "AWS"
    problem = next((text for types, text in _SILENCE if isinstance(exc, types)), _UNREACHABLE)
    about = f" (for {what})" if what else ""
    advice = "Check the network and AWS_ENDPOINT_URL; it will be tried again."
    return Transient(f"{where} {problem}{about}: {type(exc).__name__}. {advice}")


def _status(exc: ClientError) -> int:
    return int(exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _retry_after_s(exc: ClientError) -> float | None:
    headers = exc.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    asked = headers.get("retry-after", "")
    return float(asked) if asked.isdecimal() else None
