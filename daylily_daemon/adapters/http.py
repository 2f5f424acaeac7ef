"""One POST of JSON, and what every answer or failure of it means: the table all HTTP channels share.

The status decides, not the body: a receiver that answered 2xx has the notice even if the rest of its
answer is lost, and asking again would only tell people twice. No answer at all is an unknown outcome. A no
is definite only where it is about this very notice; a wrong address, key or right is ours, to be fixed.

Whatever a receiver sends, in its status line, headers or body, nothing leaves here but these three.

Addresses and headers may be secrets (a Slack webhook is nothing but its address). So no text here
names more than the host, and foreign exceptions, which quote addresses, are dropped, not chained.
"""

from __future__ import annotations

import contextlib
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import structlog

from daylily_daemon.adapters.retryafter import asked_wait_s, seconds_until
from daylily_daemon.domain.errors import DaemonError, Impeded, Permanent, Transient, Unexpected

log = structlog.get_logger()

BODY_LIMIT_BYTES: Final = 64 * 1024
_PRINTABLE: Final = re.compile(r"[\x21-\x7e]+")
_HEADERS: Final = {"Content-Type": "application/json", "Accept-Encoding": "identity"}

_FAILURES: Final[tuple[tuple[type[Exception], type[Transient], str], ...]] = (
    (aiohttp.InvalidURL, Impeded, "has an impossible address; fix it in the settings"),
    (UnicodeError, Impeded, "has an impossible name; fix it in the settings"),
    (TimeoutError, Transient, "did not answer in time"),
    (aiohttp.ClientProxyConnectionError, Transient, "cannot be reached through the proxy"),
    (aiohttp.ClientHttpProxyError, Transient, "cannot be reached: the proxy refuses"),
    (aiohttp.ClientSSLError, Transient, "could not prove who it is; check its certificate"),
    (aiohttp.ClientConnectorError, Transient, "cannot be reached"),
    (aiohttp.ClientResponseError, Transient, "answered with something that is not HTTP"),
    (aiohttp.ClientError, Transient, "broke the connection off before it had answered"),
    (OSError, Transient, "broke the connection off before it had answered"),
    (Exception, Unexpected, "answered with something nobody foresaw"),
)
"""The first row that fits counts. Whatever may fix itself without us is unknown, not refused."""

_OF_THIS_NOTICE: Final = frozenset({400, 409, 413, 414, 422, 431})
"""A no that would be the same whatever we fix: the body is not what the receiver takes."""

_ADVICE: Final = {
    401: "Check the secret of this channel in the settings.",
    403: "Check the secret of this channel, and what it may do there.",
    404: "Check the address of this channel in the settings.",
    410: "The receiver is gone for good: give the channel a new address, or remove it.",
    413: "The receiver takes only smaller notices; raise its limit.",
}
_OTHER_ADVICE: Final = "Check what the receiver at this address accepts."


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    """Case does not matter in a look-up."""
    body: bytes = field(default=b"", repr=False)
    """The beginning, at most 64 KiB; shorter where the rest was lost."""

    @property
    def retry_after_s(self) -> float | None:
        """What ``Retry-After`` asks for, given in seconds or as a date; None if it says nothing."""
        return asked_wait_s(self.headers.get("Retry-After", ""), self.headers.get("Date", ""))

    def seconds_until(self, at: datetime) -> float | None:
        """Return how long it is until ``at`` by the receiver's own clock, 0 if past, None if it told none."""
        return seconds_until(at, self.headers.get("Date", ""))


def opened_session(environ: Mapping[str, str]) -> aiohttp.ClientSession:
    """Return a session for the channels, which believes whom ``trust`` names."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust(environ)))


def trust(environ: Mapping[str, str]) -> ssl.SSLContext:
    """Return what the system trusts, and the bundle that the AWS tools are given.

    A bundle that cannot be read is left out with a warning: its receivers then cannot prove who they are.
    """
    trusted = ssl.create_default_context()
    if bundle := environ.get("AWS_CA_BUNDLE") or environ.get("REQUESTS_CA_BUNDLE"):
        try:
            trusted.load_verify_locations(bundle)
        except OSError as exc:
            log.warning("ca_bundle_unreadable", file=bundle, error=str(exc))
    return trusted


def proxy_of(url: str) -> str | None:
    """Return the proxy that HTTPS_PROXY, HTTP_PROXY and NO_PROXY name for ``url``, as the AWS tools do.

    aiohttp could read them by itself; it would read ~/.netrc too, and send what is there to receivers.
    """
    scheme, host = _split(url) or ("", "")
    if not host or _is_loopback(host) or proxy_bypass(urlsplit(url).netloc):
        return None
    return getproxies().get(scheme)


async def post_json(
    session: aiohttp.ClientSession,
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    timeout_s: float,
) -> Reply:
    """Send ``body`` once and return the answer, whatever its status; redirects are not followed.

    Raises Transient where no answer came (the notice may have arrived all the same), and Impeded where
    ``url`` is no address at all.
    """
    try:
        async with session.post(
            url,
            data=body,
            headers={**_HEADERS, **headers},
            timeout=aiohttp.ClientTimeout(total=timeout_s),
            proxy=proxy_of(url),
            allow_redirects=False,
            auto_decompress=False,
        ) as response:
            return Reply(response.status, response.headers, await _beginning(response))
    except Exception as error:  # noqa: BLE001 - whatever comes of one answer is about that answer
        raise _translated(error, url) from None


def accept(reply: Reply, who: str, reason: str = "") -> None:
    """Return if ``reply`` says that the notice arrived (2xx).

    Raises Permanent for what is wrong with this very notice (400, 413, 422 ...), Impeded for what is wrong
    with our address or secret, and Transient with what ``Retry-After`` asks for (408, 425, 429, 5xx).
    ``who`` begins the sentence; ``reason`` is a word of the receiver that is safe to show.
    """
    if 200 <= reply.status < 300:
        return
    said = f"{who} answered with HTTP {reply.status}" + (f" ({reason})" if reason else "")
    if reply.status in {408, 425, 429} or reply.status >= 500:
        raise Transient(
            f"{said}; the notice will be sent again.", retry_after_s=reply.retry_after_s
        )
    if reply.status < 400:
        raise Impeded(f"{said}, a redirect; put the final address into the settings.")
    advice = _ADVICE.get(reply.status, _OTHER_ADVICE)
    if reply.status in _OF_THIS_NOTICE:
        raise Permanent(f"{said}. {advice}")
    raise Impeded(f"{said}. {advice} The notice will be sent again.")


def check_address(url: str, what: str) -> None:
    """Raises Permanent unless ``url`` is https, or http to this machine itself."""
    parts = _split(url)
    if parts is None or not parts[1] or not _PRINTABLE.fullmatch(url):
        raise Permanent(f"The address of {what} is no URL; write it as https://host/path.")
    scheme, host = parts
    if scheme != "https" and not (scheme == "http" and _is_loopback(host)):
        raise Permanent(
            f"The address of {what} begins with {scheme}://; it must be https://, because what is "
            "sent there must not be read or changed on its way."
        )


def check_secret(secret: str, what: str) -> None:
    """Raises Permanent unless ``secret`` is one word of printable ASCII, which any header can carry."""
    if not _PRINTABLE.fullmatch(secret):
        raise Permanent(
            f"{what} is empty or holds a space, a line break or a special character; "
            "copy it again without what surrounds it."
        )


def host_of(url: str) -> str:
    """Return the one part of an address that may be shown."""
    parts = _split(url)
    return parts[1] if parts and parts[1] else "an unreadable address"


async def _beginning(response: aiohttp.ClientResponse) -> bytes:
    """Return what can be had of the body; a loss is no error, the status has come already."""
    body = bytearray()
    with contextlib.suppress(Exception):
        async for chunk in response.content.iter_chunked(BODY_LIMIT_BYTES):
            body += chunk
            if len(body) >= BODY_LIMIT_BYTES:
                break
    return bytes(body[:BODY_LIMIT_BYTES])


def _translated(error: Exception, url: str) -> DaemonError:
    kind, words = next(
        (kind, words) for type_, kind, words in _FAILURES if isinstance(error, type_)
    )
    return kind(f"The receiver at {host_of(url)} {words}.")


def _split(url: str) -> tuple[str, str] | None:
    """Return scheme and host, None where one cannot tell."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises where it is no number a port can have
    except ValueError:
        return None
    return parts.scheme, parts.hostname or ""


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
