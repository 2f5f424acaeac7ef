"""What arrives on the intake queue, as commands.

Understood are S3 notifications, the same inside SNS (raw delivery or not), EventBridge events and
``s3:TestEvent``. Keys of S3 notifications are URL-encoded, with ``+`` for a space, and decoded once;
EventBridge keys are not encoded. Events are at least once and unordered; an id made of bucket, key and
version makes a repeat harmless.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote_plus

from daylily_daemon.adapters.codec import Item, Unusable, command_from_dict
from daylily_daemon.domain.model import (
    WORKSET_ID,
    Ask,
    Command,
    Ignore,
    Submit,
    WorksetId,
)
from daylily_daemon.domain.naming import name_problem, safe_id, trigger_id, workset_of_key
from daylily_daemon.domain.places import submission_place_problem
from daylily_daemon.domain.sheet import S3Place
from daylily_daemon.ports import EventSource, Unreadable

READY: Final = "daylily.ready"
IGNORE: Final = "daylily.ignore"
_NESTING: Final = 3
"""SNS in SQS is one envelope; more than a few are nobody's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What we listen to; anything else is not for us, whatever a queue policy lets through."""

    bucket: str
    prefix: str
    """Ends with a slash."""
    account_id: str = ""
    """Empty accepts every account."""


@dataclass(frozen=True, slots=True)
class _Object:
    bucket: str
    key: str
    discriminator: str
    order: str
    """Grows with each write of the same key."""
    account_id: str


def read_command(body: str, origin: Origin | None = None) -> tuple[Command, ...] | Unreadable:
    """Return the command of a message of the FIFO queue; whoever sent it, it names its own folder alone."""
    try:
        command = command_from_dict(_json(body))
    except Unusable as exc:
        return Unreadable(str(exc))
    fault = _place_fault(command, origin) if origin else ""
    return Unreadable(fault) if fault else (command,)


def _place_fault(command: Command, origin: Origin) -> str:
    """Return why a submission may not name the place it names; empty if it may.

    A folder whose name is no id is submitted under a safe one, with that problem.
    """
    ask = command.ask
    if not isinstance(ask, Submit):
        return ""
    control = S3Place(origin.bucket, origin.prefix)
    problem = submission_place_problem(ask.bucket, ask.prefix, command.workset_id, control)
    folder = ask.prefix.removeprefix(origin.prefix).removesuffix("/")
    if problem is None or (ask.problem and safe_id(folder) == command.workset_id):
        return ""
    return str(problem)


def read_event(body: str, origin: Origin) -> tuple[Command, ...] | Unreadable:
    """Return what an S3 event asks for; nothing where it is none of our business."""
    try:
        objects = list(_created(_json(body), _NESTING))
    except Unusable as exc:
        return Unreadable(str(exc))
    commands = (_command(o, origin) for o in objects if _ours(o, origin))
    return tuple(c for c in commands if c is not None)


def source_of(body: str) -> EventSource:
    """Return which envelope a message of the intake queue came in. Raises nothing."""
    try:
        data = _json(body)
    except Unusable:
        return EventSource.UNKNOWN
    match data:
        case {"Records": list()} | {"Event": "s3:TestEvent"}:
            return EventSource.S3
        case {"Type": "Notification"}:
            return EventSource.SNS
        case {"source": "aws.s3"}:
            return EventSource.EVENTBRIDGE
        case _:
            return EventSource.UNKNOWN


def submission(origin: Origin, folder: str, id: str, by: str, *, order: str = "") -> Command:
    """Return the submission of the folder of that name under the control prefix.

    A name that is no workset id is submitted under a safe one, to be parked where it can be seen.
    """
    ask = Submit(
        bucket=origin.bucket,
        prefix=f"{origin.prefix}{folder}/",
        problem=name_problem(folder),
        order=order,
    )
    return Command(id=id, workset_id=_id_of(folder), by=by, ask=ask)


def _command(found: _Object, origin: Origin) -> Command | None:
    place = workset_of_key(origin.prefix, found.key)
    if place is None:
        return None
    folder, name = place
    id = trigger_id(found.bucket, found.key, found.discriminator)
    if name == READY:
        return submission(origin, folder, id, "s3", order=found.order)
    if name != IGNORE:
        return None
    ask: Ask = Ignore(reason="daylily.ignore was put into its folder")
    return Command(id=id, workset_id=_id_of(folder), by="s3", ask=ask)


def _id_of(folder: str) -> WorksetId:
    return WorksetId(folder if WORKSET_ID.fullmatch(folder) else safe_id(folder))


def _ours(found: _Object, origin: Origin) -> bool:
    right_account = not origin.account_id or found.account_id in ("", origin.account_id)
    return found.bucket == origin.bucket and right_account


def _created(data: Any, nesting: int) -> Iterator[_Object]:
    if not isinstance(data, dict):
        raise Unusable("The message is not a JSON object.")
    if data.get("Event") == "s3:TestEvent":
        return
    if isinstance(data.get("Records"), list):
        for record in data["Records"]:
            yield from _of_notification(record)
    elif data.get("Type") == "Notification" and nesting:
        yield from _created(_json(str(data.get("Message"))), nesting - 1)
    elif data.get("source") == "aws.s3" and isinstance(data.get("detail"), dict):
        yield from _of_eventbridge(data)
    else:
        known = "an S3 notification, an SNS or an EventBridge envelope"
        raise Unusable(f"The message is not {known}; its keys are {sorted(map(str, data))[:10]}.")


def _of_notification(record: Any) -> Iterator[_Object]:
    try:
        if record.get("eventSource") != "aws:s3" or "ObjectCreated" not in record["eventName"]:
            return
        bucket, found = record["s3"]["bucket"], record["s3"]["object"]
        discriminator = (
            found.get("versionId") or f"{found.get('eTag', '')}@{record.get('eventTime', '')}"
        )
        key = unquote_plus(str(found["key"]), errors="strict")
        order = _order(found.get("sequencer"), record.get("eventTime"))
        yield _Object(str(bucket["name"]), key, str(discriminator), order, "")
    except (KeyError, TypeError, AttributeError, UnicodeDecodeError) as exc:
        raise Unusable(f"An S3 record lacks what it must have: {exc!r}.") from exc


def _of_eventbridge(data: Item) -> Iterator[_Object]:
    if data.get("detail-type") != "Object Created":
        return
    try:
        bucket, found = data["detail"]["bucket"], data["detail"]["object"]
        discriminator = found.get("version-id") or f"{found.get('etag', '')}@{data.get('time', '')}"
        account = str(data.get("account", ""))
        order = _order(found.get("sequencer"), data.get("time"))
        yield _Object(str(bucket["name"]), str(found["key"]), str(discriminator), order, account)
    except (KeyError, TypeError, AttributeError) as exc:
        raise Unusable(f"An EventBridge event lacks what it must have: {exc!r}.") from exc


def _order(sequencer: object, at: object) -> str:
    """Return what sorts the writes of one key: the sequencer as S3 wants it compared, else the time."""
    if isinstance(sequencer, str) and sequencer:
        return f"{sequencer.lower():0<32}"[:64]
    return at[:64] if isinstance(at, str) else ""


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise Unusable(f"The message is not JSON: {exc}.") from exc
