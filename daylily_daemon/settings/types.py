"""The kinds of values that settings have: what each accepts, and what is said to have been expected."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr

from daylily_daemon.domain.model import RecordType
from daylily_daemon.domain.patterns import BadPattern, compiled

_NOTIFIED: Final = (
    RecordType.STATE_CHANGE,
    RecordType.ERROR,
    RecordType.COMPLETION,
    RecordType.LOCK_TIMEOUT,
)
_ATOM: Final = r"[\w!#$%&'*+/=?^`{|}~-]{1,64}"
_LABEL: Final = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_THIS_MACHINE: Final = {"127.0.0.1", "::1", "localhost"}


def text(pattern: str, expected: str) -> AfterValidator:
    """Return the check of a text: all of it must match ``pattern``; ``expected`` is what people are told."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value, re.ASCII):
            raise ValueError(expected)
        return value

    return AfterValidator(check)


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError("an absolute path")
    return path


def _host_and_scheme(url: str) -> tuple[str, str]:
    try:
        parts = urlsplit(url)
        usable = parts.port != 0 and not re.search(r"\s", url)
    except ValueError:
        usable = False
    return (parts.hostname or "", parts.scheme) if usable else ("", "")


def _endpoint(url: str) -> str:
    host, scheme = _host_and_scheme(url)
    if url and (not host or scheme not in {"http", "https"} or "@" in url):
        raise ValueError("a URL that begins with http:// or https://, without user and password")
    return url


def _secret_url(secret: SecretStr) -> SecretStr:
    host, scheme = _host_and_scheme(secret.get_secret_value())
    secure = scheme == "https" or (scheme == "http" and host in _THIS_MACHINE)
    if secret.get_secret_value() and not (host and secure):
        raise ValueError("a URL that begins with https:// (http:// only on this machine)")
    return secret


def _post_url(url: str) -> str:
    host, scheme = _host_and_scheme(url)
    if not host or "@" in url or not (scheme == "https" or is_this_machine(host)):
        raise ValueError("a URL that begins with https:// (http:// only on this machine)")
    return url


def is_this_machine(host: str) -> bool:
    return host in _THIS_MACHINE


def _compiles(pattern: str) -> str:
    try:
        regex = compiled(pattern)
    except BadPattern as problem:
        raise ValueError(f"a regular expression; this one cannot be used: {problem}") from None
    if regex.search(""):
        raise ValueError("a regular expression that does not match everything; this one does")
    return pattern


def _account(value: object) -> object:
    return str(value) if isinstance(value, int) else value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _notified(value: object) -> object:
    if value not in _NOTIFIED:
        raise ValueError(" or ".join(_NOTIFIED))
    return value


Bucket = Annotated[
    str,
    text(
        r"|[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]",
        "a bucket name: 3 to 63 lower-case letters, digits, dots and hyphens, without s3://",
    ),
]
S3Folder = Annotated[
    str, text(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?", "folders as s3://bucket/prefix/")
]
Prefix = Annotated[str, text(r"[^/].*/", "a prefix that ends with a slash and begins without")]
Region = Annotated[str, text(r"[a-z]{2,}(-[a-z]+)+-\d+", "an AWS region such as us-west-2")]
Account = Annotated[
    str,
    BeforeValidator(_account),
    text(r"|\d{12}", "12 digits, in quotes because of leading zeros"),
]
Table = Annotated[str, text(r"[\w.-]{3,255}", "3 to 255 letters, digits and the signs _ . -")]
Queue = Annotated[str, text(r"[\w-]{1,80}", "1 to 80 letters, digits and the signs _ -")]
FifoQueue = Annotated[str, text(r"[\w-]{1,75}\.fifo", "a queue name that ends with .fifo")]
TopicName = Annotated[str, text(r"[\w-]{1,256}", "1 to 256 letters, digits and the signs _ -")]
TopicArn = Annotated[
    str,
    text(
        r"|arn:aws[\w-]*:sns:[\w-]+:\d{12}:[\w-]+(\.fifo)?", "arn:aws:sns:<region>:<account>:<name>"
    ),
]
Host = Annotated[str, text(r"|\w[\w.-]{0,63}", "letters, digits and the signs _ . -")]
Variable = Annotated[str, text(r"\w+\*?", "names of variables; one that ends with * is a prefix")]
Absolute = Annotated[Path, AfterValidator(_absolute)]
Endpoint = Annotated[str, AfterValidator(_endpoint)]
SecretUrl = Annotated[SecretStr, AfterValidator(_secret_url)]
PostUrl = Annotated[str, AfterValidator(_post_url)]
MailAddress = Annotated[
    str,
    text(
        rf"|(?=.{{3,254}}$){_ATOM}(\.{_ATOM})*@{_LABEL}(\.{_LABEL})*",
        "a bare address as name@host.example, in ASCII (a domain with other letters as xn--...)",
    ),
]
MailHost = Annotated[
    str, text(r"|[\w.:-]{1,253}", "a host name or an IP address, without port and scheme")
]
Regex = Annotated[str, AfterValidator(_compiles)]
EventType = Annotated[RecordType, BeforeValidator(_notified)]
Level = Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)]
UserName = Annotated[
    str, text(r"|[A-Za-z_][\w.-]{0,31}", "the name of a user: letters, digits and _ . -")
]
