"""The one place that makes AWS clients, from the settings that other AWS tools obey too."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any, Final

import anyio
import botocore.exceptions as aws
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.configloader import load_config
from botocore.exceptions import BotoCoreError, ClientError

from daylily_daemon.adapters.answers import error_code
from daylily_daemon.adapters.boundary import (
    is_missing,
    is_of_credentials,
    known_errors,
    translated,
    undamaged,
)
from daylily_daemon.adapters.calls import CallOutcome, outcome_of
from daylily_daemon.adapters.sdkdata import LeanFiles
from daylily_daemon.domain.errors import DaemonError

__all__ = (
    "Aws",
    "AwsOptions",
    "OnAnswer",
    "OnCall",
    "config_file",
    "error_code",
    "is_missing",
    "options_from",
    "profile_region",
    "translated",
)

OnCall = Callable[[str, str, CallOutcome, float], None]
"""Told service, operation (``sqs``, ``SendMessage``), outcome and seconds of each call that has ended,
however often the SDK repeated it. One that was cancelled has no outcome, and is not told."""

OnAnswer = Callable[[Mapping[str, Any]], None]
"""Told the headers of each answer, by names in lower case."""

DEFAULT_REGION: Final = "us-west-2"
"""Where neither a setting nor the profile names one."""
RENEW_EVERY_S: Final = 15.0
"""Shortest time between two looks for other credentials than those that were refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsOptions:
    """How to reach AWS. Services in ``endpoint_urls`` go there instead of to ``endpoint_url``."""

    region: str = DEFAULT_REGION
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
    sign_bodies: bool = True
    """Without, what goes to S3 is hashed once less: its digest in the headers is signed in its place."""
    parameter_validation: bool = False
    """Checks our own arguments; switched off it saves a tenth of the CPU of a call."""


def options_from(environ: Mapping[str, str], given: AwsOptions | None = None) -> AwsOptions:
    """Return what ``given`` says and the variables that other AWS tools obey.

    A service's own AWS_ENDPOINT_URL_… outweighs the general endpoint. Where neither names one, the SDK obeys
    the profile, ``services`` sections too; AWS_IGNORE_CONFIGURED_ENDPOINT_URLS switches off all but settings.
    """
    given = given or _from_variables(environ)
    if environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").strip().lower() == "true":
        configured = given.endpoint_url == environ.get("AWS_ENDPOINT_URL", "")
        return replace(given, endpoint_url="" if configured else given.endpoint_url)
    prefix = "AWS_ENDPOINT_URL_"
    urls = {
        name.removeprefix(prefix).lower(): url
        for name, url in environ.items()
        if name.startswith(prefix) and url
    }
    return replace(given, endpoint_urls=urls)


def _from_variables(environ: Mapping[str, str]) -> AwsOptions:
    profile = environ.get("AWS_PROFILE", "")
    region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
    return AwsOptions(
        region=region or profile_region(environ, profile) or DEFAULT_REGION,
        profile=profile,
        endpoint_url=environ.get("AWS_ENDPOINT_URL", ""),
    )


def config_file(environ: Mapping[str, str]) -> str:
    """Return where the AWS tools' configuration lies, empty if there is no telling."""
    home = environ.get("HOME", "")
    return environ.get("AWS_CONFIG_FILE") or (f"{home}/.aws/config" if home else "")


def profile_region(environ: Mapping[str, str], profile: str) -> str:
    """Return the region of ``profile`` (empty for the default one), empty if it has none."""
    path = config_file(environ)
    try:
        profiles = load_config(path)["profiles"] if path else {}
    except (BotoCoreError, OSError, ValueError):
        return ""  # whoever needs the file says what is wrong with it
    return str(profiles.get(profile or "default", {}).get("region", ""))


class Aws:
    """Clients made when first asked for, and closed together."""

    def __init__(
        self,
        options: AwsOptions,
        *,
        on_call: OnCall | None = None,
        on_answer: OnAnswer | None = None,
    ) -> None:
        self._options = options
        self._on_call = on_call
        self._on_answer = on_answer
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
                opened, reopen = await self._open(*key), partial(self._reopen, *key)
                told = partial(self._on_call, service) if self._on_call else None
                self._clients[key] = _Client(opened, reopen, told)
            return self._clients[key]

    async def _open(self, service: str, max_attempts: int) -> _Opened:
        async with translated(f"the {service} client"), known_errors():
            try:
                keys = await self._keys()
                own = AsyncExitStack()
                client = await own.enter_async_context(self._made(service, max_attempts))
            except Exception:
                # A session remembers the files it read; whoever fixes them must not have to restart us.
                self._session = self._fresh_session()
                raise
        self._stack.push_async_callback(own.aclose)
        client.meta.events.register("before-parse", undamaged)
        if self._on_answer:
            client.meta.events.register("after-call", _listening(self._on_answer))
        return _Opened(client, keys, own.aclose)

    def _made(self, service: str, max_attempts: int) -> Any:
        options = self._options
        endpoint_url = options.endpoint_urls.get(service) or options.endpoint_url or None
        self._session.get_component("data_loader").file_loader = LeanFiles()
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

    async def credentials_end_at(self) -> datetime | None:
        """Return when those there are end, None if they do not or say nothing. Raises as ``client``."""
        async with translated(), known_errors():
            found = await self._session.get_credentials()
        return getattr(found, "_expiry_time", None)

    async def _reopen(self, service: str, max_attempts: int, old: _Opened) -> _Opened:
        """Return a client with the credentials there are now; ``old`` if those are the same, or none.

        What is under way on ``old`` is cut off; it was sent with credentials that are refused.
        """
        self._session = self._fresh_session()
        async with translated(), known_errors():
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

    def __init__(
        self,
        opened: _Opened,
        reopen: Callable[[_Opened], Awaitable[_Opened]],
        told: Callable[[str, CallOutcome, float], None] | None,
    ) -> None:
        self._opened = opened
        self._reopen = reopen
        self._told = told
        self._renew_at = 0.0

    def __getattr__(self, name: str) -> Any:
        inner = self._opened.client
        is_call = name in inner.meta.method_to_api_mapping
        return partial(self._call, name) if is_call else getattr(inner, name)

    async def _call(self, name: str, **request: Any) -> Any:
        began = anyio.current_time()
        try:
            async with known_errors():
                answer = await getattr(self._opened.client, name)(**request)
        except Exception as exc:
            self._tell(name, outcome_of(exc), began)
            if isinstance(exc, (ClientError, BotoCoreError)) and is_of_credentials(exc):
                await self._renew()
            raise
        self._tell(name, CallOutcome.OK, began)
        return answer

    def _tell(self, name: str, outcome: CallOutcome, began: float) -> None:
        if self._told:
            operation = self._opened.client.meta.method_to_api_mapping[name]
            self._told(operation, outcome, anyio.current_time() - began)

    async def _renew(self) -> None:
        if anyio.current_time() < self._renew_at:
            return
        self._renew_at = anyio.current_time() + RENEW_EVERY_S
        with suppress(DaemonError):
            self._opened = await self._reopen(self._opened)


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
        # In place of all that the SDK tells of this machine, which it would put together for each call.
        user_agent="daylily-daemon",
        # What a transfer reads is verified by the transfer itself, over resumed pieces too.
        response_checksum_validation="when_required",
        # Otherwise as the profile says.
        s3={
            **({"addressing_style": "path"} if elsewhere else {}),
            **({} if options.sign_bodies else {"payload_signing_enabled": False}),
        },
    )


def _listening(on_answer: OnAnswer) -> Callable[..., None]:
    def after_call(parsed: Mapping[str, Any], **_: Any) -> None:
        on_answer(parsed.get("ResponseMetadata", {}).get("HTTPHeaders", {}))

    return after_call
