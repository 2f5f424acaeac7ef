"""Cursors: a place in a list as text, which only the list it came of takes back.

The text is not secret and not signed: whoever makes one up gets no further than to another place in a list
that they may ask for anyway. What it says is checked all the same, so that a mistake is told as one.
"""

from __future__ import annotations

import binascii
import hashlib
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from daylily_daemon.application.errors import Invalid
from daylily_daemon.domain.listing import Position

MOST_CHARS: Final = 1000
_VERSION: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CursorPlace:
    asked_at: datetime
    """When the first page was asked for: ages count from then on all pages."""
    position: Position


def written(place: CursorPlace, question: str) -> str:
    """Return ``place`` as text that belongs to ``question``."""
    at = place.position
    body = [_VERSION, place.asked_at.isoformat(), at.span, at.key, at.id, _digest(question)]
    text = json.dumps([*body, _digest(json.dumps(body))], separators=(",", ":"))
    return urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read(text: str, question: str) -> CursorPlace:
    """Raises Invalid for what is no cursor, is of another version, or of another question."""
    *body, proof = _decoded(text)
    if len(body) != 6 or proof != _digest(json.dumps(body)) or body[0] != _VERSION:
        raise _no_cursor(text)
    _, asked_at, span, key, id, asked = body
    if asked != _digest(question):
        raise Invalid(
            "This cursor belongs to another list. Give it with the same options as the page it came from, "
            "or leave it out to begin anew."
        )
    try:
        at, position = datetime.fromisoformat(asked_at), Position(int(span), str(key), str(id))
    except (TypeError, ValueError) as exc:
        raise _no_cursor(text) from exc
    if at.utcoffset() is None:
        raise _no_cursor(text)
    return CursorPlace(asked_at=at, position=position)


def _decoded(text: str) -> list[Any]:
    if not 0 < len(text) <= MOST_CHARS:
        raise _no_cursor(text)
    try:
        raw = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
        found = json.loads(raw)
    except (binascii.Error, ValueError, RecursionError) as exc:
        raise _no_cursor(text) from exc
    if not isinstance(found, list) or not found:
        raise _no_cursor(text)
    return found


def _no_cursor(text: str) -> Invalid:
    shown = text if len(text) <= 60 else f"{text[:60]}..."
    return Invalid(
        f"{shown!r} is no cursor of a list. Give the one that the page before ended with, whole, or leave it "
        "out to begin anew."
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
