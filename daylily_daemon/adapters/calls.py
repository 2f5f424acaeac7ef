"""What a call of AWS came to, for whoever counts calls."""

from __future__ import annotations

from enum import StrEnum
from http import HTTPStatus
from typing import Final, assert_never

from botocore.exceptions import ClientError

from daylily_daemon.adapters.answers import Meaning, error_code, meaning_of
from daylily_daemon.adapters.boundary import LOST_CONNECTION, is_of_credentials
from daylily_daemon.domain.problems import THROTTLED


class CallOutcome(StrEnum):
    OK = "ok"
    """Answered; a definite no about one thing is an answer."""
    THROTTLED = "throttled"
    REFUSED = "refused"
    """Our rights, tables, names or settings are in the way."""
    CREDENTIALS = "credentials"
    UNWELL = "unwell"
    """AWS says that it could not do it this time."""
    SILENT = "silent"
    """No answer, or one that arrived damaged."""


_THROTTLED_STATUS: Final = HTTPStatus.TOO_MANY_REQUESTS


def outcome_of(exc: Exception) -> CallOutcome:
    """Return what kind of end ``exc`` is, of a call by the SDK."""
    if is_of_credentials(exc):
        return CallOutcome.CREDENTIALS
    if isinstance(exc, ClientError):
        return _of_answer(exc)
    return CallOutcome.SILENT if isinstance(exc, LOST_CONNECTION) else CallOutcome.REFUSED


def _of_answer(exc: ClientError) -> CallOutcome:
    code = error_code(exc)
    status = int(exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    words = str(exc.response.get("Error", {}).get("Message", "") or "")
    match meaning_of(exc.operation_name, code, status, words):
        case Meaning.NO:
            return CallOutcome.OK
        case Meaning.OURS:
            return CallOutcome.REFUSED
        case Meaning.AGAIN:
            throttled = status == _THROTTLED_STATUS or THROTTLED.search(code)
            return CallOutcome.THROTTLED if throttled else CallOutcome.UNWELL
        case never:
            assert_never(never)
