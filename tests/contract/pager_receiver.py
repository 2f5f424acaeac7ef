"""PagerDuty's Events API v2 as published: its schema, its limits, and what becomes of the alerts.

Schema: ``reference/events-v2/openapiv3.json`` of PagerDuty/api-schema; limits and deduplication: "Events API
v2 Overview" and "Send an Alert Event" of PagerDuty/developer-docs. Stricter in one thing: a field that is not
documented is refused here.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
import jsonschema
from aiohttp import web

from daylily_daemon.adapters.notifiers.pagerduty import PagerDuty
from tests.contract.receivers import Bench, Heard, Receiver

ROUTING_KEY: Final = "vErYsEcReTvErYsEcReTvErYsEcReT12"
PATH: Final = "/v2/enqueue"
SIZE_LIMIT_BYTES: Final = 512 * 1024
_TEXT: Final = {"type": "string"}
_URL: Final = {"type": "string", "pattern": "^https://[^ ]+$"}
_LINK: Final = {
    "type": "object",
    "properties": {"href": _URL, "text": _TEXT},
    "required": ["href"],
    "additionalProperties": False,
}
_PAYLOAD: Final = {
    "type": "object",
    "properties": {
        "summary": {"type": "string", "minLength": 1, "maxLength": 1024},
        "timestamp": {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$"},
        "severity": {"enum": ["critical", "warning", "error", "info"]},
        "source": {"type": "string", "minLength": 1},
        "component": _TEXT,
        "group": _TEXT,
        "class": _TEXT,
        "custom_details": {"type": "object"},
    },
    "required": ["summary", "severity", "source"],
    "additionalProperties": False,
}
SCHEMA: Final = {
    "type": "object",
    "properties": {
        "payload": _PAYLOAD,
        "routing_key": {"type": "string", "pattern": "^[A-Za-z0-9]{32}$"},
        "event_action": {"enum": ["trigger", "acknowledge", "resolve"]},
        "dedup_key": {"type": "string", "minLength": 1, "maxLength": 255},
        "client": _TEXT,
        "client_url": _URL,
        "links": {"type": "array", "items": _LINK},
        "images": {"type": "array"},
    },
    "required": ["routing_key", "event_action"],
    "additionalProperties": False,
    "if": {"properties": {"event_action": {"const": "trigger"}}},
    "then": {"required": ["payload"]},
    "else": {"required": ["dedup_key"]},
}


@dataclass
class Alert:
    key: str
    deliveries: list[str]
    open: bool = True


@dataclass
class Pager:
    """A service of PagerDuty, and the alerts on it."""

    alerts: list[Alert] = field(default_factory=list)

    async def answer(self, heard: Heard) -> web.Response:
        if heard.path != PATH:
            return web.Response(status=404)
        if problem := _problem(heard):
            refused = {"status": "invalid event", "message": "Event object is invalid"}
            return web.json_response(refused | {"errors": [problem]}, status=400)
        event = heard.json
        self._take(event["event_action"], event["dedup_key"], event.get("payload", {}))
        done = {"status": "success", "message": "Event processed", "dedup_key": event["dedup_key"]}
        return web.json_response(done, status=202)

    def _take(self, action: str, key: str, payload: Any) -> None:
        known = next((a for a in self.alerts if a.key == key and a.open), None)
        if action == "resolve" and known:
            known.open = False
        elif action == "trigger":
            delivery = payload["custom_details"]["delivery_id"]
            if known:
                known.deliveries.append(delivery)
            else:
                self.alerts.append(Alert(key, [delivery]))


def _problem(heard: Heard) -> str:
    if len(heard.body) > SIZE_LIMIT_BYTES:
        return "Event is too large"
    try:
        event = json.loads(heard.body)
        jsonschema.validate(event, SCHEMA)
    except (ValueError, jsonschema.ValidationError) as exc:
        return str(exc).splitlines()[0]
    return "" if event["routing_key"] == ROUTING_KEY else "Invalid routing key"


def a_pager(url: str, session: aiohttp.ClientSession, timeout_s: float = 20.0) -> PagerDuty:
    return PagerDuty(
        session=session, routing_key=ROUTING_KEY, url=url, region="us-west-2", timeout_s=timeout_s
    )


@asynccontextmanager
async def pagerduty(moto_url: str, timeout_s: float) -> AsyncIterator[Bench]:
    pager = Pager()

    async def told() -> list[str]:
        return [alert.deliveries[0] for alert in pager.alerts]

    receiver = Receiver(pager.answer)
    async with receiver.serving() as url, aiohttp.ClientSession() as session:
        channel = a_pager(str(url.with_path(PATH)), session, timeout_s)
        yield Bench(channel=channel, told=told, receiver=receiver, drops_repeats=True)
