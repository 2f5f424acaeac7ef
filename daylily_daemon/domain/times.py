"""Times as people read them."""

from __future__ import annotations

from datetime import datetime


def when(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}" if at else ""


def span(seconds: float) -> str:
    """Return a length of time in the largest unit that tells it in a word or two."""
    if seconds < 120:
        return f"{max(0.0, seconds):.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} days"


def all_aware(*times: datetime | None) -> None:
    """Raises ValueError for a time without a zone, which nothing can be counted from."""
    if any(at is not None and at.utcoffset() is None for at in times):
        raise ValueError("a time has no time zone")
