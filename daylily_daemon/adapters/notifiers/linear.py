"""Linear: one issue for each error and each completion.

Once: the issue's id is derived from the record's, so Linear itself refuses the second try of a notice
whose answer was lost ("conflict on insert of Issue"), and that refusal means delivered.

This file is the one place that leaves out other event types: an issue for every change of state would
bury a team, whatever a filter says. Such a record is settled without a call.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from uuid import NAMESPACE_URL, UUID, uuid5

import aiohttp

from daylily_daemon.adapters.http import Reply, accept, check_address, check_secret, post_json
from daylily_daemon.domain import notice
from daylily_daemon.domain.errors import Impeded, Permanent, Transient
from daylily_daemon.domain.model import Priority, Record, RecordType

ENDPOINT: Final = "https://api.linear.app/graphql"
TITLE_LIMIT: Final = 200
REASON_LIMIT: Final = 200

_FILED: Final = frozenset({RecordType.ERROR, RecordType.COMPLETION})
_CREATE: Final = (
    "mutation DaylilyNotice($input: IssueCreateInput!) "
    "{ issueCreate(input: $input) { success issue { id } } }"
)
_REPEAT: Final = re.compile(r"conflict on insert of issue\b", re.IGNORECASE)
_REFUSED: Final = frozenset({"INPUT_ERROR", "INVALID_INPUT"})
"""Codes of a definite no to this very issue, under whatever HTTP status they come."""
_OURS: Final = frozenset(
    {
        *("AUTHENTICATION_ERROR", "FORBIDDEN", "USER_ERROR", "FEATURE_NOT_ACCESSIBLE"),
        *("GRAPHQL_PARSE_FAILED", "GRAPHQL_VALIDATION_FAILED"),
    }
)
"""Codes that are about our key, our rights or this program, and would come for every issue."""
_OF_THE_TEAM: Final = re.compile(r"\bteam", re.IGNORECASE)
"""The team is a setting of ours too, whatever code it is refused with."""
_BUDGETS: Final = ("Requests", "Endpoint-Requests", "Complexity")
"""Limits Linear counts apart; ``X-RateLimit-<budget>-Reset`` is in milliseconds since 1970."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    session: aiohttp.ClientSession
    api_key: str = field(repr=False)
    team_id: str
    endpoint: str = ENDPOINT
    timeout_s: float = 15.0

    def __post_init__(self) -> None:
        check_address(self.endpoint, "the Linear API")
        check_secret(self.api_key, "The Linear API key")

    async def deliver(self, record: Record) -> None:
        if record.type not in _FILED:
            return
        body = json.dumps({"query": _CREATE, "variables": {"input": self._issue(record)}}).encode()
        headers = {"Authorization": self.api_key}
        reply = await post_json(self.session, self.endpoint, body, headers, self.timeout_s)
        self._judge(reply, issue_id(record))

    def _issue(self, record: Record) -> dict[str, object]:
        return {
            "id": issue_id(record),
            "teamId": self.team_id,
            "title": notice.one_line(
                f"[Daylily] {record.workset_id} - {record.state}", TITLE_LIMIT
            ),
            "description": notice.text(record),
            "priority": _priority(record),
        }

    def _judge(self, reply: Reply, id: str) -> None:
        """Return if the issue exists now. Linear answers refusals with 200 as well as with 4xx."""
        answer = _parsed(reply.body)
        errors = _errors(answer)
        if any(_is_repeat(error, id) for error in errors):
            return
        for error in errors:
            self._raise_known(error, reply)
        if not (errors and reply.status == 400):  # 400 also carries internal errors: no clear no
            accept(reply, "Linear")
        if errors or not _succeeded(answer):
            raise Transient("Linear gave no clear answer; the same issue will be asked for again.")

    def _raise_known(self, error: Mapping[str, Any], reply: Reply) -> None:
        code = _code(error)
        if code == "RATELIMITED":
            raise Transient(
                "Linear takes no more requests for now; the notice will be sent again.",
                retry_after_s=_wait_s(reply),
            )
        if code not in _REFUSED | _OURS:
            return
        said = _said(error).replace(self.api_key, "…")
        reason = notice.one_line(said, REASON_LIMIT)
        text = (
            f"Linear refused the issue ({code}: {reason}). "
            "Check the API key and the team id of this channel in the settings."
        )
        if code in _OURS or _OF_THE_TEAM.search(said):
            raise Impeded(f"{text} The notice will be sent again.")
        raise Permanent(text)


def issue_id(record: Record) -> str:
    """Return the issue's id: the UUIDv5 of the record's, marked as version 4.

    Linear documents its ids as "UUID v4 format", so the version field says 4; the rest is the hash.
    """
    return str(UUID(int=uuid5(NAMESPACE_URL, f"daylily:{record.id}").int, version=4))


def _priority(record: Record) -> int:
    """Linear counts 1 urgent, 2 high, 3 medium."""
    if record.priority is Priority.URGENT:
        return 1
    return 2 if record.type is RecordType.ERROR else 3


def _parsed(body: bytes) -> Mapping[str, Any]:
    """Return the answer, or an empty one where it is not to be read."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _errors(answer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    errors = answer.get("errors")
    return [e for e in errors if isinstance(e, dict)] if isinstance(errors, list) else []


def _extensions(error: Mapping[str, Any]) -> Mapping[str, Any]:
    extensions = error.get("extensions")
    return extensions if isinstance(extensions, dict) else {}


def _code(error: Mapping[str, Any]) -> str:
    """``INPUT_ERROR``; older answers say ``type: "invalid input"`` instead."""
    extensions = _extensions(error)
    return str(extensions.get("code") or extensions.get("type") or "").upper().replace(" ", "_")


def _said(error: Mapping[str, Any]) -> str:
    return f"{error.get('message', '')} {_extensions(error).get('userPresentableMessage', '')}"


def _is_repeat(error: Mapping[str, Any], id: str) -> bool:
    said = _said(error)
    return _REPEAT.search(said) is not None or (id in said and "already exists" in said)


def _succeeded(answer: Mapping[str, Any]) -> bool:
    data = answer.get("data")
    created = data.get("issueCreate") if isinstance(data, dict) else None
    return isinstance(created, dict) and created.get("success") is True


def _wait_s(reply: Reply) -> float | None:
    """Return what ``Retry-After`` says, or the time until every budget that is used up is new."""
    if reply.retry_after_s is not None:
        return reply.retry_after_s
    waits = [_reset_s(reply, name) for name in _BUDGETS if _is_used_up(reply, name)]
    return max((wait for wait in waits if wait is not None), default=None)


def _is_used_up(reply: Reply, budget: str) -> bool:
    return reply.headers.get(f"X-RateLimit-{budget}-Remaining", "").strip() == "0"


def _reset_s(reply: Reply, budget: str) -> float | None:
    text = reply.headers.get(f"X-RateLimit-{budget}-Reset", "").strip()
    if not re.fullmatch(r"[0-9]{1,15}", text):
        return None
    return reply.seconds_until(datetime.fromtimestamp(int(text) / 1000, tz=UTC))
