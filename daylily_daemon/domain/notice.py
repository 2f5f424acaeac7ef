"""What a notice says: subject, text for people, and a JSON body for programs.

Messages, error details and details may come from a lab's files or a job's log. They are made harmless
here, once for all channels: no control characters, no half characters, nothing JSON cannot say, and a
bounded length. What a channel's own format treats specially is that channel's business.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from math import isfinite
from typing import Any, Final, assert_never

from daylily_daemon.domain.model import Record, RecordType, State, WorksetId

SUBJECT_LIMIT: Final = 100
"""Characters SNS takes in a subject."""
MESSAGE_LIMIT: Final = 2000
EXCERPT_LIMIT: Final = 4000
DETAILS_LIMIT: Final = 100_000
"""Characters of details handed to programs."""
DEPTH_LIMIT: Final = 16
TEST_ID: Final = WorksetId("daylily-daemon-test")
"""What the messages of a test are about; no workset of that name is told of otherwise."""

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""Everything but tab and newline; half of a surrogate pair cannot be encoded at all."""
_NOT_IN_SUBJECT: Final = re.compile(r"[^\x20-\x7e]")


def subject(record: Record) -> str:
    """Return one line of at most 100 printable ASCII characters, as SNS demands of a subject."""
    kind = record.type.replace("_", " ").title()
    return _NOT_IN_SUBJECT.sub("?", f"Daylily Workset {kind}: {record.workset_id}")[:SUBJECT_LIMIT]


def next_step(record: Record) -> str:
    """Return what the reader should do now."""
    id = record.workset_id
    if id == TEST_ID:
        return "Nothing: this is a test. Whoever asked for it sees that it was taken."
    if record.type is RecordType.LOCK_TIMEOUT:
        return (
            "Look at the daemon that held it. Another daemon takes over where it can see the job; "
            f"`daylily-daemon explain {id}` says what is going on."
        )
    return _to_do(record.state, id)


def _to_do(state: State, id: WorksetId) -> str:
    match state:
        case State.READY:
            why = f"`daylily-daemon explain {id}` says what it waits for."
            return f"Nothing. It starts as soon as there is room; {why}"
        case State.IN_PROGRESS:
            return f"Nothing. Watch it with `daylily-daemon logs -f {id}`."
        case State.COMPLETE:
            return f"Fetch the results; `daylily-daemon show {id}` says where they are."
        case State.ERROR:
            again = f"upload it again or run `daylily-daemon retry {id}`."
            return f"Fix what the message names, then {again}"
        case State.RETRYING:
            return f"Nothing. It starts again by itself; `daylily-daemon show {id}` says when."
        case State.FAILED:
            again = f"run `daylily-daemon retry {id}`."
            return f"Read `daylily-daemon logs {id}`, fix the cause, then {again}"
        case State.CANCELED | State.IGNORED:
            who = f"`daylily-daemon events {id}` says who asked for it."
            return f"Nothing, if this was meant. {who}"
        case State.ARCHIVED:
            return "Nothing. Its record is kept."
        case State.DELETED:
            return f"Nothing. Its audit trail is kept: `daylily-daemon events {id}`."
        case _:
            assert_never(state)


def text(record: Record) -> str:
    """Return the notice for people: what happened, what to do next, then the evidence.

    At most about 12,000 characters; of long error details the end is kept, where a log says why.
    """
    parts = [
        "\n".join(f"{name}: {value}" for name, value in _facts(record)),
        _head(clean(record.message), MESSAGE_LIMIT),
        f"What to do next: {next_step(record)}",
    ]
    if record.error_details:
        parts.append(f"Error details:\n{_tail(clean(record.error_details), EXCERPT_LIMIT)}")
    if record.details:
        listing = json.dumps(plain(record.details), indent=2, ensure_ascii=False)
        parts.append(f"Details:\n{_head(listing, EXCERPT_LIMIT)}")
    return "\n\n".join(part for part in parts if part)


def body(record: Record) -> dict[str, Any]:
    """Return the notice for programs; ``json.dumps`` takes it as it is.

    Details too long to be told become ``{"excerpt": <their beginning>}``.
    """
    return {
        "workset_id": str(record.workset_id),
        "event_type": str(record.type),
        "state": str(record.state),
        "message": _head(clean(record.message), MESSAGE_LIMIT),
        "details": _details(record),
        "priority": str(record.priority),
        "cluster_name": clean(record.cluster_name),
        "error_details": _tail(clean(record.error_details), EXCERPT_LIMIT),
        "at": stamp(record.at),
        "seq": record.seq,
        "delivery_id": record.id,
    }


def clean(words: str) -> str:
    """Return ``words`` without control characters and half characters; newlines and tabs stay."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", words.replace("\r\n", "\n"))


def one_line(words: str, limit: int) -> str:
    """Return ``words`` as one line of at most ``limit`` characters."""
    return _head(" ".join(clean(words).split()), limit)


def plain(value: Any, depth: int = 0) -> Any:
    """Return ``value`` in terms JSON has; what it has no word for becomes text."""
    match value:
        case None | bool() | int():
            return value
        case float() if isfinite(value):
            return value
        case Decimal() if value.is_finite():
            return _number(value)
        case datetime():
            return stamp(value)
        case Mapping() if depth < DEPTH_LIMIT:
            return {clean(str(key)): plain(inner, depth + 1) for key, inner in value.items()}
        case list() | tuple() | set() | frozenset() if depth < DEPTH_LIMIT:
            return [plain(inner, depth + 1) for inner in value]
        case Mapping() | list() | tuple() | set() | frozenset():
            return "(nested too deeply to be shown)"
        case _:
            return clean(str(value))


def _number(value: Decimal) -> int | float | str:
    if abs(value) < 2**63 and value == int(value):
        return int(value)
    nearest = float(value)
    return nearest if isfinite(nearest) else str(value)


def _details(record: Record) -> Any:
    details = plain(record.details)
    listing = json.dumps(details)
    return details if len(listing) <= DETAILS_LIMIT else {"excerpt": _head(listing, EXCERPT_LIMIT)}


def _facts(record: Record) -> list[tuple[str, str]]:
    before = f" (before: {record.previous})" if record.previous else ""
    facts = [
        ("Workset", str(record.workset_id)),
        ("Event", str(record.type)),
        ("State", f"{record.state}{before}"),
        ("Priority", str(record.priority)),
        ("Customer", record.customer_id),
        ("Cluster", record.cluster_name),
        ("At", stamp(record.at)),
        ("Delivery", record.id),
    ]
    return [(name, one_line(value, EXCERPT_LIMIT)) for name, value in facts if value]


def stamp(at: datetime) -> str:
    """Return a time as notices, items and answers have it: ISO-8601, UTC, with ``Z``."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _head(words: str, limit: int) -> str:
    return words if len(words) <= limit else words[: limit - 1] + "…"


def _tail(words: str, limit: int) -> str:
    return words if len(words) <= limit else "…" + words[1 - limit :]
