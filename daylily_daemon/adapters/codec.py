"""Worksets, records and commands as stored items and messages, and back.

Attribute names are those of the system this one replaces, with additions. Reading is lenient about what is
missing or more than we know (an item of the old system, of an older or of a newer version of this one) and
strict about what would make a decision wrong. A format grows when an older reader would go wrong.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Any, Final, assert_never, get_args

from pydantic import TypeAdapter, ValidationError

from daylily_daemon.adapters.formats import (
    OLDER_NAMES,
    names_for_readers,
    plan_of_format_1,
    run_of_format_1,
)
from daylily_daemon.domain.errors import Newer, Permanent
from daylily_daemon.domain.model import (
    WORKSET_ID,
    Answer,
    Archive,
    Ask,
    Cancel,
    Category,
    Command,
    CommandEffect,
    Delete,
    HostLost,
    Ignore,
    Priority,
    Problem,
    Record,
    Restore,
    Retry,
    SetPriority,
    State,
    Submit,
    WorksetId,
)
from daylily_daemon.domain.notice import stamp
from daylily_daemon.domain.totality import total
from daylily_daemon.domain.turn import Turn, turn_of
from daylily_daemon.domain.workset import Failure, Lock, Request, Workset

FORMAT: Final = 1
"""Of messages; one of a newer format is refused."""
ITEM_FORMAT: Final = 3
"""Of worksets; one of a newer format is left alone, for daemons that know it."""

HOST_LOST: Final = "host_lost"
_ASKS: Final[Mapping[type[Ask], str]] = {
    Submit: "submit",
    Cancel: "cancel",
    Retry: "retry",
    HostLost: HOST_LOST,
    Ignore: "ignore",
    SetPriority: "set_priority",
    Archive: "archive",
    Restore: "restore",
    Delete: "delete",
}
_KINDS: Final = total("codec.ASKS", _ASKS, get_args(Ask))
ASKS: Final[Mapping[str, type[Ask]]] = {kind: ask for ask, kind in _KINDS.items()}

_COMMAND_TEXTS: Final = {"id": 256, "workset_id": 80, "by": 200}
"""Texts every command has, and how many characters each may have."""
REASON_CHARS: Final = 500
SENTINEL_CHARS: Final = 64
CUSTOMER_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}")

_NAMES: Final = {
    "id": "workset_id",
    "fence": "lock_fence",
    "beat": "lock_beat",
    "history": "state_history",
}
_FLAT: Final = {"request": "", "lock": "lock_", "failure": "error_"}
"""Parts of a workset that are no attribute of their own, and what the names of theirs begin with."""
_FIELDS: Final = {attribute: name for name, attribute in _NAMES.items()}
_ASK_READERS: Final = {kind: TypeAdapter[Any](ask) for kind, ask in ASKS.items()}
_WORKSET: Final = TypeAdapter(Workset)
_RECORD: Final = TypeAdapter(Record)

Item = dict[str, Any]


class Unusable(Permanent):
    """Something stored or sent that cannot be understood; the text says what and where."""


def command_to_dict(command: Command) -> Item:
    kind = _KINDS[type(command.ask)]
    ask = _ASK_READERS[kind].dump_python(command.ask, mode="json", exclude_defaults=True)
    if kind == HOST_LOST:  # the versions before this one know it as a kind of retry
        kind, ask = "retry", {**ask, "host_gone": True}
    return {
        "format": FORMAT,
        "kind": kind,
        "id": command.id,
        "workset_id": command.workset_id,
        "by": command.by,
        "ask": ask,
    }


def command_from_dict(data: object) -> Command:
    """Raises Unusable with a sentence that says what is wrong with the message."""
    if not isinstance(data, dict):
        raise Unusable("The message is not a JSON object.")
    version = data.get("format", 1)
    if not isinstance(version, int) or version > FORMAT:
        raise Unusable(f"The message has format {version}; this daemon knows up to {FORMAT}.")
    kind, asked = _as_known_now(str(data.get("kind")), data.get("ask") or {})
    reader = _ASK_READERS.get(kind)
    if reader is None:
        raise Unusable(
            f"The command {str(data.get('kind'))[:100]!r} is unknown; known are {', '.join(ASKS)}. "
            "If a newer version sent it: upgrade this daemon, then `daylily-daemon dlq replay`."
        )
    for key, most in _COMMAND_TEXTS.items():
        if not isinstance(data.get(key), str) or not data[key]:
            raise Unusable(f"The message has no {key!r}.")
        if len(data[key]) > most:
            raise Unusable(f"The {key!r} of the message is longer than {most} characters.")
    if not WORKSET_ID.fullmatch(data["workset_id"]):
        raise Unusable(f"{data['workset_id']!r} is not a workset id.")
    try:
        ask = reader.validate_python(asked)
    except ValidationError as exc:
        raise Unusable(f"The command {data['kind']} cannot be read: {_first(exc)}") from exc
    return Command(
        id=_plain(data["id"]),
        workset_id=WorksetId(data["workset_id"]),
        by=_plain(data["by"]),
        ask=_bounded(ask),
    )


def _as_known_now(kind: str, ask: object) -> tuple[str, object]:
    """Tell the loss of a host from a retry, whose kind it has in messages and items."""
    if kind != "retry" or not isinstance(ask, dict) or "host_gone" not in ask:
        return kind, ask
    rest = {name: value for name, value in ask.items() if name != "host_gone"}
    return HOST_LOST if ask["host_gone"] is True else kind, rest


def _bounded(ask: Ask) -> Ask:
    """Cut what is told to people only; raises Unusable for a customer that can be none."""
    match ask:
        case Cancel() | Ignore() | Archive() | Delete():
            return replace(ask, reason=_plain(ask.reason))
        case Submit(customer_id=customer) if customer and not CUSTOMER_ID.fullmatch(customer):
            raise Unusable(
                f"{customer[:100]!r} is no customer id: up to 100 letters, digits and the signs . _ @ + - "
                "were expected."
            )
        case Submit(rerun_of=source) if source and not WORKSET_ID.fullmatch(source):
            raise Unusable(
                f"{source[:100]!r}, which it is said to be a rerun of, is not a workset id."
            )
        case Submit(sentinel=sentinel, order=order, problem=problem, dropped_at=at):
            sentinel, order = (_plain(text)[:SENTINEL_CHARS] for text in (sentinel, order))
            at = at.replace(tzinfo=at.tzinfo or UTC) if at else None
            return replace(
                ask, sentinel=sentinel, order=order, problem=_cut(problem), dropped_at=at
            )
        case Retry() | HostLost() | SetPriority() | Restore():
            return ask
        case _:
            assert_never(ask)


def _cut(problem: Problem | None) -> Problem | None:
    """Keep what people read of a problem that a message brings along."""
    if problem is None:
        return None
    return replace(
        problem,
        file=_plain(problem.file),
        where=_plain(problem.where),
        what=_plain(problem.what),
        todo=_plain(problem.todo),
    )


def _plain(text: str) -> str:
    """Return what a table takes: bounded, and without the halves of characters that JSON lets through."""
    return text[:REASON_CHARS].encode("utf-8", "replace").decode("utf-8")


def workset_to_item(ws: Workset) -> Item:
    """Return the attributes that have a value. Empty ones are absent: an index key may not be empty."""
    data = _WORKSET.dump_python(ws, mode="json", exclude_defaults=True)
    run = data.get("run") or {}
    data["metrics"] = run.pop("reports", {})
    for name, prefix in _FLAT.items():
        inner = data.pop(name, None) or {}
        data |= {f"{prefix}{key}": value for key, value in inner.items()}
    data["inbox"] = [command_to_dict(command) for command in ws.inbox]
    data["history"] = [
        {"state": str(t.state), "timestamp": stamp(t.at), "reason": t.reason} for t in ws.history
    ]
    named = {_NAMES.get(name, name): value for name, value in data.items()}
    item = {**names_for_readers(ws), **named}
    return {
        **{name: value for name, value in item.items() if value not in _EMPTY},
        **turn_to_item(turn_of(ws)),
        "bucket": ws.request.bucket,
        "prefix": ws.request.prefix,
        "state": str(ws.state),
        "priority": str(ws.priority),
        "priority_key": ws.priority_key,
        "state_key": ws.state_key,
        "workset_type": ws.request.workset_type,
        "version": ws.version,
        "lock_fence": ws.fence,
        "lock_beat": ws.beat,
        "format": ITEM_FORMAT,
    }


def turn_to_item(turn: Turn | None) -> Item:
    return {"queue": str(turn.queue), "turn": turn.key} if turn else {}


ONCE: Final = "once#"
"""Before the command id, the range key of the row that remembers its answer."""
_EMPTY: Final[tuple[Any, ...]] = (None, "", [], {}, ())


def _attributes() -> frozenset[str]:
    parts = {"request": Request, "lock": Lock, "failure": Failure}
    own = {field.name for field in fields(Workset)} - set(_FLAT)
    flat = {f"{_FLAT[name]}{f.name}" for name, part in parts.items() for f in fields(part)}
    return (
        frozenset(
            _NAMES.get(name, name)
            for name in own | flat | {"metrics", "queue", "turn", "state_key"}
        )
        | OLDER_NAMES
    )


ATTRIBUTES: Final = _attributes() - {"workset_id"}
"""Every attribute of a workset's item that is ours, in this format or in one before."""


def workset_from_item(item: Item) -> Workset:
    """Raises Unusable for an item no decision may be based on."""
    data = {_FIELDS.get(name, name): value for name, value in item.items()}
    version = int(data.get("format", 0))
    if version > ITEM_FORMAT:
        raise Newer(
            f"Workset {data.get('id')} was written by a newer version of this program (format {version}; "
            f"this one knows {ITEM_FORMAT}). Upgrade this daemon; it leaves it alone until then."
        )
    data["inbox"] = tuple(command_from_dict(c) for c in data.get("inbox", ()))
    data["history"] = _history(data.get("history"))
    data.setdefault("created_at", data.get("updated_at", _LONG_AGO))
    data.setdefault("updated_at", data["created_at"])
    if data.get("priority") not in set(Priority):
        data["priority"] = Priority.NORMAL
    if version < 2:
        data |= _as_of_format_2(data)
    if data.get("run"):
        data["run"] = {**data["run"], "reports": data.get("metrics") or {}}
    data |= {"request": dict(data), "lock": _lock(data), "failure": _failure(data)}
    try:
        return _WORKSET.validate_python(data)
    except ValidationError as exc:
        raise Unusable(
            f"The item of workset {data.get('id')!r} cannot be read: {_first(exc)} "
            "Fix the attribute by hand, or restore the item from the audit trail."
        ) from exc


def _as_of_format_2(data: Item) -> Item:
    """Return what items of format 1, and of the old system, say otherwise."""
    times, reports = data.get("timings"), data.get("metrics")
    if times is None:
        times, reports = _apart(reports)
    waits = data.get("state") == State.READY
    return {
        "metrics": reports,
        "plan": plan_of_format_1(data.get("plan")),
        "run": run_of_format_1({**data, "timings": times}),
        "waiting_for": data.get("progress_message", "") if waits else "",
    }


def _lock(data: Item) -> Item | None:
    if not data.get("lock_owner"):
        return None
    acquired = data.get("lock_acquired_at") or data["updated_at"]
    expires = data.get("lock_expires_at") or acquired
    return {"owner": data["lock_owner"], "acquired_at": acquired, "expires_at": expires}


def _failure(data: Item) -> Item | None:
    """Return why it failed; the old system tells no category and no code."""
    if not data.get("error_details"):
        return None
    known = set(Category)
    category = data.get("error_category")
    return {
        "code": data.get("error_code") or "WS-UNK-000",
        "category": category if category in known else Category.PERMANENT,
        "details": data["error_details"],
    }


def _apart(metrics: object) -> tuple[Item, Item]:
    """Tell times from reports in an item of the version before, which kept both in one place."""
    found = metrics if isinstance(metrics, dict) else {}
    times = {
        name: value
        for name, value in found.items()
        if name in _TIMES and isinstance(value, int | float) and not isinstance(value, bool)
    }
    return times, {name: value for name, value in found.items() if name not in times}


_TIMES: Final = frozenset({"stage_s", "run_s", "export_s", "metrics_s", "cleanup_s"})
_LONG_AGO: Final = datetime(2025, 1, 1, tzinfo=UTC)


def _history(lines: object) -> tuple[Item, ...]:
    """Keep what can be read of a history, the old system's too."""
    known = set(State)
    return tuple(
        {"state": line["state"], "at": line["timestamp"], "reason": str(line.get("reason", ""))}
        for line in (lines if isinstance(lines, list) else [])
        if isinstance(line, dict) and line.get("state") in known and line.get("timestamp")
    )


def record_to_item(record: Record) -> Item:
    data = _RECORD.dump_python(record, mode="json", exclude_defaults=True)
    item = {name: value for name, value in data.items() if value not in _EMPTY}
    item["owed"] = set(record.owed)
    item["given_up"] = set(record.given_up)
    if record.owed:
        item["outbox"] = "0"
    return {**item, "seq": sequence(record.seq), "type": str(record.type)}


def record_from_item(item: Item) -> Record:
    data = {**item, "seq": int(item["seq"])}
    try:
        return _RECORD.validate_python(data)
    except ValidationError as exc:
        raise Unusable(
            f"Audit record {item.get('workset_id')}/{item.get('seq')}: {_first(exc)}"
        ) from exc


def answer_to_item(id: WorksetId, answer: Answer) -> Item:
    """Return the row that remembers a command for ever, beside the audit records of its workset."""
    return {
        "workset_id": id,
        "seq": f"{ONCE}{answer.command_id}",
        "effect": str(answer.effect),
        "text": answer.text,
        "at": stamp(answer.at),
    }


def answer_from_item(item: Item) -> Answer:
    """Rows of versions before this one say only that the command was applied."""
    try:
        return Answer(
            command_id=str(item["seq"]).removeprefix(ONCE),
            effect=CommandEffect(item.get("effect", CommandEffect.APPLIED)),
            text=str(item.get("text", "")),
            at=datetime.fromisoformat(str(item.get("at", _LONG_AGO.isoformat()))),
        )
    except (KeyError, ValueError) as exc:
        raise Unusable(f"The answer to command {item.get('seq')} cannot be read: {exc}.") from exc


def sequence(seq: int) -> str:
    """Return the range key of a record: text that sorts as the number does."""
    return f"{seq:012d}"


def _first(exc: ValidationError) -> str:
    error = exc.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in error["loc"])
    return f"{place or 'value'}: {error['msg']}."


# --- DynamoDB's typed values --------------------------------------------------------------------


def typed(value: Any) -> Item:
    """Return a plain value as DynamoDB writes it. Sets are sets of strings."""
    match value:
        case None:
            return {"NULL": True}
        case bool():
            return {"BOOL": value}
        case int() | float():
            return {"N": repr(value)}
        case str():
            return {"S": value}
        case set() | frozenset():
            return {"SS": sorted(value)}
        case dict():
            return {"M": {str(k): typed(v) for k, v in value.items()}}
        case list() | tuple():
            return {"L": [typed(v) for v in value]}
        case _:
            raise TypeError(f"{type(value).__name__} cannot be stored")


def plain(value: Item) -> Any:
    """Return a DynamoDB value as a plain one; numbers become int where they are whole."""
    ((kind, inner),) = value.items()
    match kind:
        case "N":
            return float(inner) if any(c in inner for c in ".eE") else int(inner)
        case "M":
            return {k: plain(v) for k, v in inner.items()}
        case "L":
            return [plain(v) for v in inner]
        case "SS" | "NS" | "BS":
            return set(inner)
        case "NULL":
            return None
        case "S" if len(inner) <= SHARED_CHARS:
            return shared(inner)
        case _:
            return inner


SHARED_CHARS: Final = 100
MOST_SHARED: Final = 4096
_SHARED: Final[dict[str, str]] = {}


def shared(text: str) -> str:
    """Return an equal text that others hold too, where it is one of those that many worksets have.

    Steps, scopes, buckets and owners are the same in thousands of items that are kept at once.
    """
    if len(_SHARED) >= MOST_SHARED:
        _SHARED.clear()
    return _SHARED.setdefault(text, text)


def typed_item(item: Item) -> Item:
    """Type an item, leaving out empty sets, which DynamoDB does not know."""
    return {k: typed(v) for k, v in item.items() if v != set()}


def plain_item(item: Item) -> Item:
    return {k: plain(v) for k, v in item.items()}
