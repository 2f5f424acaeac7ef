"""The body of a message that was given up, put right."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from daylily_daemon.application.errors import Invalid

LARGEST_BYTES: Final = 1024 * 1024
"""Of a message (SQS quotas)."""


def with_values(body: str, assignments: Sequence[str]) -> str:
    """Return the message with ``path=value`` each; paths are as ``ask.priority``, ``Records.0.s3.key``.

    A value is JSON where it reads as such, else text. All but the last part of a path must be there. Raises
    Invalid.
    """
    try:
        message = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise Invalid(
            f"The message is not JSON ({exc}); write it anew with --edit or --body."
        ) from exc
    for assignment in assignments:
        path, equals, value = assignment.partition("=")
        if not equals or not path:
            raise Invalid(
                f"--set {assignment}: write it as PATH=VALUE, for example ask.priority=urgent."
            )
        _put(message, path, _value(value))
    return _json(message)


def checked(body: str) -> str:
    """Return a body that somebody wrote, without the line end that editors add. Raises Invalid."""
    body = body.removesuffix("\n")
    if not body.strip():
        raise Invalid(
            "The new message is empty. To be rid of the old one: `daylily-daemon dlq drop`."
        )
    if len(body.encode("utf-8", "replace")) > LARGEST_BYTES:
        raise Invalid(
            f"The new message is larger than {LARGEST_BYTES:,} bytes, which no queue takes."
        )
    return body


def laid_out(body: str) -> str:
    """Return a message as people edit it: JSON in lines, anything else as it is."""
    try:
        return _json(json.loads(body), indent=2) + "\n"
    except (ValueError, RecursionError):
        return body


def _json(value: Any, indent: int | None = None) -> str:
    """Return JSON that can be sent: half a character, which JSON can name, stays an escape."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    if any("\ud800" <= char <= "\udfff" for char in text):
        return json.dumps(value, indent=indent)
    return text


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _put(message: Any, path: str, value: Any) -> None:
    *above, last = path.split(".")
    place = message
    for part in above:
        place = _inside(place, part, path)
    if isinstance(place, dict):
        place[last] = value
    elif isinstance(place, list):
        _inside(place, last, path)
        place[int(last)] = value
    else:
        raise Invalid(
            f"--set {path}: there is nothing in the message that {last} could be a part of."
        )


def _inside(place: Any, part: str, path: str) -> Any:
    if isinstance(place, dict) and part in place:
        return place[part]
    if isinstance(place, list) and part.isdecimal() and int(part) < len(place):
        return place[int(part)]
    if isinstance(place, dict):
        there = f"it has {', '.join(sorted(place)[:20])}" if place else "it has none"
    else:
        there = f"it is a list of {len(place)}" if isinstance(place, list) else "it has no parts"
    raise Invalid(f"--set {path}: the message has no {part} there; {there}.")
