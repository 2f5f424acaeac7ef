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
from daylily_daemon.domain.model import Record

TEXT_LIMIT: Final = 3000
"""Characters Slack takes in the text of one section, counted after escaping."""

_REASON: Final = re.compile(rb"[a-z_]{1,60}")
"""Slack says why in one word (``no_service``, ``channel_is_archived``); anything else is not shown."""
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
        reason = _REASON.fullmatch(reply.body.strip())
        accept(reply, "Slack", reason[0].decode() if reason else "")


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
