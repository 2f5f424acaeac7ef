"""Slack, by an incoming webhook.

At least once: Slack knows no delivery id of ours, so a notice whose answer was lost is posted again.
Each message names its delivery id, by which people can tell a repeat from news.
"""

from __future__ import annotations

import html
import json
import re
from dataclasses import dataclass, field
from typing import Final

import aiohttp

from daylily_daemon.adapters.http import accept, check_address, post_json
from daylily_daemon.domain import notice
from daylily_daemon.domain.errors import Impeded, Transient
from daylily_daemon.domain.model import Record

TEXT_LIMIT: Final = 3000
"""Characters Slack takes in the text of one section, counted after escaping."""

_REASON: Final = re.compile(rb"[a-z_]{1,60}")
"""Slack says why in one word (``no_service``, ``channel_is_archived``); anything else is not shown."""
_OURS: Final = frozenset(
    {
        *("no_service", "no_service_id", "no_active_hooks", "no_team", "team_disabled"),
        *("invalid_token", "token_revoked", "channel_not_found", "channel_is_archived"),
        *("user_not_found", "action_prohibited", "posting_to_general_channel_denied"),
    }
)
"""Words that are about the webhook, which a reload can fix, and not about this message."""
_CUT_ENTITY: Final = re.compile(r"&[a-z]*$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Slack:
    session: aiohttp.ClientSession
    url: str = field(repr=False)
    """The address is the secret: whoever knows it can post."""
    timeout_s: float = 10.0

    def __post_init__(self) -> None:
        check_address(self.url, "the Slack webhook")

    async def deliver(self, record: Record) -> None:
        body = json.dumps(_message(record)).encode()
        reply = await post_json(self.session, self.url, body, {}, self.timeout_s)
        found = _REASON.fullmatch(reply.body.strip())
        reason = found[0].decode() if found else ""
        if reason in _OURS:
            raise Impeded(
                f"Slack answered with HTTP {reply.status} ({reason}). Check the webhook's address in the "
                "settings, and its channel in Slack; the notice will be sent again."
            )
        if reply.status >= 300 and reply.body.lstrip().startswith(b"<"):
            raise Transient(
                f"Not Slack answered but something in between, HTTP {reply.status}, by a page."
            )
        accept(reply, "Slack", reason)


def _message(record: Record) -> dict[str, object]:
    """``text`` is what a phone shows; the section is the message itself."""
    subject = _escaped(notice.subject(record), TEXT_LIMIT)
    told = _escaped(notice.text(record), TEXT_LIMIT - len(f"*{subject}*\n"))
    section = {"type": "mrkdwn", "text": f"*{subject}*\n{told}"}
    return {
        "text": subject,
        "blocks": [{"type": "section", "text": section}],
        "unfurl_links": False,
        "unfurl_media": False,
    }


def _escaped(words: str, limit: int) -> str:
    """Escape what Slack reads as links and mentions; cut so that no escape is cut in two."""
    escaped = html.escape(words, quote=False)
    if len(escaped) <= limit:
        return escaped
    return _CUT_ENTITY.sub("", escaped[: limit - 1]) + "…"
