"""How long the other side asks us to wait: the one reader of ``Retry-After``, which believes no number.

Whoever answers may write anything there: a year of twenty digits, a negative time, digits of another script.
Nothing is raised, and nobody makes us wait for longer than an hour.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

LIMIT_S: Final = 3600.0
"""However long the other side asks us to wait, look again after an hour."""

_SECONDS: Final = re.compile(r"0*([0-9]{1,12})(?:\.[0-9]{0,9})?")
_MANY: Final = re.compile(r"[0-9]{13,4000}(?:\.[0-9]{0,9})?")
_DATE_LIMIT: Final = 100
"""Characters of a date, more than any format has."""


def asked_wait_s(asked: str, now: str) -> float | None:
    """Return what ``asked`` says, in seconds (0 to LIMIT_S), None if it says nothing.

    A date is read by the other side's own clock, ``now`` (its ``Date`` header): ours need not agree.
    """
    asked = asked.strip()
    if found := _SECONDS.fullmatch(asked):
        return min(float(found[1]), LIMIT_S)
    if _MANY.fullmatch(asked):
        return LIMIT_S
    at = http_date(asked)
    return seconds_until(at, now) if at else None


def seconds_until(at: datetime, now: str) -> float | None:
    """Return how long it is from the date ``now`` until ``at``, 0 if past; None if ``now`` is no date."""
    seen = http_date(now)
    if seen is None:
        return None
    return min(max((at - seen).total_seconds(), 0.0), LIMIT_S)


def http_date(words: str) -> datetime | None:
    """Return the date ``words`` are, aware; None if they are none that there can be."""
    if not words or len(words) > _DATE_LIMIT:
        return None
    try:
        at = parsedate_to_datetime(words)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
