"""The one place that makes AWS clients, and the one boundary that their errors pass.

What may mend itself without us is an unknown outcome (``Transient``): throttling, 5xx, lost connections.
What is about our own rights, tables, settings and credentials is ``Impeded``, because those are mended,
expire and come back during a long run. Only what is about the very thing asked for is a definite no
(``Permanent``); the table is in ``answers``. A conditional write that was refused is neither: the store looks
at its ``ClientError`` before it reaches ``translated``.

The SDK runs programs, reads files and asks other services for credentials in the middle of any call, and lets
out whatever goes wrong there. So its clients are wrapped: no other exceptions leave a call than those that
``translated`` knows.
"""

from __future__ import annotations

import os
import re
import ssl
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, assert_never
from urllib.parse import urlsplit

import aiohttp
import anyio
import botocore.exceptions as aws
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from daylily_daemon.adapters.answers import (
    CREDENTIALS,
    Meaning,
    advice_on,
    error_code,
    headers_of,
    is_about_credentials,
    meaning_of,
    shown,
)
from daylily_daemon.adapters.retryafter import asked_wait_s
from daylily_daemon.domain.errors import DaemonError, Impeded, Permanent, Transient

__all__ = (
    "Aws",
    "AwsOptions",
    "OnCall",
    "error_code",
    "is_missing",
    "options_from",
    "translated",
)

OnCall = Callable[[str, str], None]
"""Told (service, operation) once per call, however often the SDK repeats it: ``sqs``, ``SendMessage``."""


RENEW_EVERY_S: Final = 15.0
"""Shortest time between two looks for other credentials than those that were refused."""


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
        self._session = self._fresh_session()
        self._stack = AsyncExitStack()
        self._lock = anyio.Lock()
        self._clients: dict[tuple[str, int], Any] = {}

    def _fresh_session(self) -> AioSession:
        return AioSession(profile=self._options.profile or None)

    async def __aenter__(self) -> Aws:
        await self._stack.__aenter__()
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        self._clients.clear()
        await self._stack.__aexit__(*exc_info)

    async def client(self, service: str, *, max_attempts: int | None = None) -> Any:
        """Return the client of ``s3``, ``dynamodb``, ``sqs``, ``sns``; the same one for equal arguments.

        ``max_attempts=1`` is for callers who repeat by themselves, such as a lease that beats.
        Raises Impeded for what is wrong with profile, region, endpoint or credentials, and Transient.
        """
        key = service, max_attempts or self._options.max_attempts
        async with self._lock:
            if key not in self._clients:
                self._clients[key] = _Client(await self._open(*key), partial(self._reopen, *key))
            return self._clients[key]

    async def _open(self, service: str, max_attempts: int) -> _Opened:
        async with translated(f"the {service} client"), _known_errors():
            try:
                keys = await self._keys()
                own = AsyncExitStack()
                client = await own.enter_async_context(self._made(service, max_attempts))
            except Exception:
                # A session remembers the files it read; whoever mends them must not have to restart us.
                self._session = self._fresh_session()
                raise
        self._stack.push_async_callback(own.aclose)
        if self._on_call:
            client.meta.events.register("before-call", _counting(self._on_call))
        return _Opened(client, keys, own.aclose)

    def _made(self, service: str, max_attempts: int) -> Any:
        options = self._options
        endpoint_url = options.endpoint_urls.get(service) or options.endpoint_url or None
        return self._session.create_client(
            service,
            region_name=options.region,
            endpoint_url=endpoint_url,
            config=_config(options, service, max_attempts, bool(endpoint_url)),
        )

    async def _keys(self) -> Any:
        """Return the credentials there are, None if getting them takes a call that fails for now.

        A client that is made without any would stay so, even once there are some. Raises what the SDK raises.
        """
        found = await self._session.get_credentials()
        if found is None:
            raise aws.NoCredentialsError
        with suppress(Exception):  # the calls that need them say what is wrong
            return await found.get_frozen_credentials()

    async def _reopen(self, service: str, max_attempts: int, old: _Opened) -> _Opened:
        """Return a client with the credentials there are now; ``old`` if those are the same, or none.

        What is under way on ``old`` is cut off; it was sent with credentials that are refused.
        """
        self._session = self._fresh_session()
        async with translated(), _known_errors():
            keys = await self._keys()
        if keys is None or keys == old.keys:
            return old
        new = await self._open(service, max_attempts)
        await old.close()
        return new


@dataclass(frozen=True, slots=True)
class _Opened:
    client: Any
    keys: Any = field(repr=False)
    close: Callable[[], Awaitable[None]]


class _Client:
    """A client of the SDK whose calls raise nothing but what ``translated`` knows.

    The SDK renews credentials that say when they end, and keeps all others for ever. Whoever puts new ones
    into a file must not have to restart us: when some are refused, those there are now are looked for.
    """

    def __init__(self, opened: _Opened, reopen: Callable[[_Opened], Awaitable[_Opened]]) -> None:
        self._opened = opened
        self._reopen = reopen
        self._renew_at = 0.0

    def __getattr__(self, name: str) -> Any:
        inner = self._opened.client
        is_call = name in inner.meta.method_to_api_mapping
        return partial(self._call, name) if is_call else getattr(inner, name)

    async def _call(self, name: str, **request: Any) -> Any:
        try:
            async with _known_errors():
                return await getattr(self._opened.client, name)(**request)
        except (ClientError, BotoCoreError) as exc:
            if _is_of_credentials(exc):
                await self._renew()
            raise

    async def _renew(self) -> None:
        if anyio.current_time() < self._renew_at:
            return
        self._renew_at = anyio.current_time() + RENEW_EVERY_S
        with suppress(DaemonError):
            self._opened = await self._reopen(self._opened)


class _Foreign(BotoCoreError):
    """Something that the SDK neither raised itself nor foresaw."""

    fmt = "{problem}"


@asynccontextmanager
async def _known_errors() -> AsyncIterator[None]:
    try:
        yield
    except (ClientError, BotoCoreError, DaemonError, *_LOST_CONNECTION):
        raise
    except Exception as exc:
        raise _Foreign(problem=f"{type(exc).__name__}: {exc}") from exc


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
_LOST_CONNECTION: Final = (
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
    except (ClientError, BotoCoreError, *_LOST_CONNECTION) as exc:
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
    if _is_of_credentials(exc):
        return _of_credentials(exc)
    if _is_of_certificates(exc):
        return _of_certificates(exc)
    if isinstance(exc, _LOST_CONNECTION):
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


def _is_of_credentials(error: Exception) -> bool:
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
    return _coded(Impeded(text), CREDENTIALS)


def _of_answer(exc: ClientError, what: str) -> DaemonError:
    code, operation = error_code(exc), exc.operation_name
    words = str(exc.response.get("Error", {}).get("Message", "") or "")
    call = f"{operation} of {what}" if what else operation
    told = f"{shown(words).rstrip('.')} ({shown(code, 100)})" if words else shown(code, 100)
    if _is_of_credentials(exc):
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
