"""Any receiver that takes a POST of JSON, signed where a secret is set.

At least once: a notice whose answer was lost is sent again under the same ``X-Daylily-Delivery``, by
which the receiver drops repeats. The signature covers the time of sending, so a recorded request is
worth nothing later; ``docs/adding-a-channel.md`` shows a receiver's side.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import aiohttp

from daylily_daemon.adapters.http import accept, check_address, check_secret, host_of, post_json
from daylily_daemon.domain import notice
from daylily_daemon.domain.model import Record
from daylily_daemon.ports import Clock

SIGNATURE: Final = "X-Daylily-Signature"
DELIVERY: Final = "X-Daylily-Delivery"

_SIGNATURE: Final = re.compile(r"t=([0-9]{1,12}),v1=([0-9a-f]{64})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    session: aiohttp.ClientSession
    url: str = field(repr=False)
    secret: str = field(repr=False)
    """Shared with the receiver; signs, and is never sent. Empty: nothing is signed."""
    clock: Clock
    timeout_s: float = 10.0

    def __post_init__(self) -> None:
        check_address(self.url, "the webhook")
        if self.secret:
            check_secret(self.secret, "The secret of the webhook")

    async def deliver(self, record: Record) -> None:
        body = json.dumps(notice.body(record)).encode()
        headers = {DELIVERY: record.id}
        if self.secret:
            headers[SIGNATURE] = _sign(self.secret, int(self.clock.now().timestamp()), body)
        reply = await post_json(self.session, self.url, body, headers, self.timeout_s)
        accept(reply, f"The webhook at {host_of(self.url)}")


def verify(
    secret: str, signature: str, body: bytes, now: datetime, tolerance_s: float = 300.0
) -> bool:
    """Return whether ``body`` was signed with ``secret`` within ``tolerance_s`` of ``now``."""
    found = _SIGNATURE.fullmatch(signature)
    if found is None or abs(now.timestamp() - int(found[1])) > tolerance_s:
        return False
    return hmac.compare_digest(_sign(secret, int(found[1]), body), signature)


def _sign(secret: str, at_s: int, body: bytes) -> str:
    digest = hmac.new(secret.encode(), b"%d." % at_s + body, hashlib.sha256).hexdigest()
    return f"t={at_s},v1={digest}"
