"""PagerDuty, by its Events API v2: an alarm when a workset needs somebody, and its end when it does not.

Once: all events of one workset have one deduplication key, so that a second trigger joins the alert that is
open, and a resolve without an open alert is dropped (PagerDuty's "Send an Alert Event"). A trigger that is
repeated after its alert was resolved opens another: a crash within seconds can do that, and the resolve that
follows it closes it again.

This file says which states trigger and which resolve; all other records are settled without a call. A state
that resolves is told whatever the filter of the channel says: an alarm must not stay open because its end was
not of interest. The event that resolves holds nothing of the workset, not even its name.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import Any, Final
from urllib.parse import quote

import aiohttp

from daylily_daemon.adapters.http import Reply, accept, check_address, check_secret, post_json
from daylily_daemon.domain import notice
from daylily_daemon.domain.errors import Impeded
from daylily_daemon.domain.model import Priority, Record, RecordType, State
from daylily_daemon.domain.totality import total

SUMMARY_LIMIT: Final = 1024
"""Characters PagerDuty takes in a summary."""
FIELD_LIMIT: Final = 255
REASON_LIMIT: Final = 200


class Action(StrEnum):
    """What a state means for the alarm of its workset."""

    TRIGGER = "trigger"
    RESOLVE = "resolve"
    NONE = ""


_ACTIONS: Final = {
    State.READY: Action.NONE,
    State.IN_PROGRESS: Action.NONE,
    State.COMPLETE: Action.RESOLVE,
    State.ERROR: Action.TRIGGER,
    State.IGNORED: Action.RESOLVE,
    State.RETRYING: Action.NONE,
    State.FAILED: Action.TRIGGER,
    State.CANCELED: Action.RESOLVE,
    State.ARCHIVED: Action.RESOLVE,
    State.DELETED: Action.RESOLVE,
}
ACTIONS: Final = total("pagerduty.ACTIONS", _ACTIONS, tuple(State))
"""What is tried again, by itself or by somebody, keeps its alarm until it is complete or taken out."""
RESOLVING: Final = frozenset(state for state, action in ACTIONS.items() if action is Action.RESOLVE)

_CHANGES: Final = frozenset({RecordType.STATE_CHANGE, RecordType.ERROR, RecordType.COMPLETION})
"""Other records tell of a state that was told before."""
_OUR_KEY: Final = re.compile(r"(routing|integration|service)[ _]key", re.IGNORECASE)
"""What PagerDuty says of a wrong key comes under HTTP 400 too, as if it were about the event."""
_CONSOLES: Final = (("cn-", "console.amazonaws.cn"), ("us-gov-", "console.amazonaws-us-gov.com"))


@dataclass(frozen=True, slots=True, kw_only=True)
class PagerDuty:
    session: aiohttp.ClientSession
    routing_key: str = field(repr=False)
    """Integration key of a service; whoever knows it can raise alarms."""
    url: str
    region: str
    """Of the bucket, for the link to it."""
    timeout_s: float = 10.0

    def __post_init__(self) -> None:
        check_address(self.url, "PagerDuty's Events API")
        check_secret(self.routing_key, "The routing key of PagerDuty")

    async def deliver(self, record: Record) -> None:
        action = ACTIONS[record.state] if record.type in _CHANGES else Action.NONE
        if action is Action.NONE:
            return
        event = {"routing_key": self.routing_key, "event_action": action.value}
        event["dedup_key"] = dedup_key(record)
        more = self._alarm(record) if action is Action.TRIGGER else {}
        body = json.dumps(event | more).encode()
        self._judge(await post_json(self.session, self.url, body, {}, self.timeout_s))

    def _alarm(self, record: Record) -> dict[str, Any]:
        href = _console_link(record, self.region)
        links = [{"href": href, "text": "The workset's folder in S3"}] if href else []
        return {"client": "daylily-daemon", "links": links, "payload": _payload(record)}

    def _judge(self, reply: Reply) -> None:
        reason = self._reason(reply) if reply.status == 400 else ""
        if _OUR_KEY.search(reason):
            raise Impeded(
                f"PagerDuty does not know the routing key ({reason}). Copy the integration key of an Events "
                "API v2 integration into the settings; the notice will be sent again."
            )
        accept(reply, "PagerDuty", reason)

    def _reason(self, reply: Reply) -> str:
        """Return the ``errors`` of an answer on one line, without the key they may quote."""
        try:
            answer = json.loads(reply.body)
        except (ValueError, RecursionError):
            return ""
        errors = answer.get("errors") if isinstance(answer, dict) else None
        said = "; ".join(map(str, errors)) if isinstance(errors, list) else ""
        return notice.one_line(said.replace(self.routing_key, "…"), REASON_LIMIT).rstrip(".")


def dedup_key(record: Record) -> str:
    """Return the key of the workset's alarm, which tells nothing of it.

    The bucket keeps worksets of two labs apart; the folder does not count, for a workset may move within it.
    """
    return f"daylily-{sha256(f'{record.bucket}/{record.workset_id}'.encode()).hexdigest()}"


def _place(record: Record) -> str:
    folder = record.prefix or f"{record.workset_id}/"
    return f"s3://{record.bucket}/{folder}"


def _payload(record: Record) -> dict[str, Any]:
    told = {
        "summary": notice.one_line(
            f"{record.workset_id} {record.state}: {record.message}", SUMMARY_LIMIT
        ),
        "timestamp": notice.stamp(record.at),
        "severity": _severity(record),
        "source": notice.one_line(_place(record), FIELD_LIMIT),
        "component": notice.one_line(str(record.details.get("step", "")), FIELD_LIMIT),
        "group": notice.one_line(record.cluster_name, FIELD_LIMIT),
        "class": notice.one_line(str(record.details.get("code", "")), FIELD_LIMIT),
        "custom_details": {**notice.body(record), "what_to_do": notice.next_step(record)},
    }
    return {name: value for name, value in told.items() if value}


def _severity(record: Record) -> str:
    """Return how bad it is: refused input is a warning, a run that failed an error; urgent is one worse."""
    steps = ("warning", "error", "critical")
    worse = (record.state is State.FAILED) + (record.priority is Priority.URGENT)
    return steps[worse]


def _console_link(record: Record, region: str) -> str:
    """Return the page of the workset's folder in the AWS console, empty where it lies nowhere."""
    if not record.bucket:
        return ""
    hosts = (host for prefix, host in _CONSOLES if region.startswith(prefix))
    host = next(hosts, "console.aws.amazon.com")
    return (
        f"https://{host}/s3/buckets/{quote(record.bucket)}?prefix={quote(record.prefix, safe='')}"
    )
