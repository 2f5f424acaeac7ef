"""E-mail by Amazon SES, with the role of the host.

At least once: SES knows no delivery id, and puts a Message-ID of its own into every mail. A repeat is known
by the header ``X-Daylily-Delivery``, and by the line "Delivery" in its text.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from daylily_daemon.adapters.aws import translated
from daylily_daemon.adapters.mail import compose
from daylily_daemon.domain.model import Record


class MailSender(Protocol):
    """The one call this channel makes of an SES client (``sesv2``)."""

    async def send_email(self, **request: Any) -> Any: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SesMail:
    find_client: Callable[[], Awaitable[MailSender]]
    """Asked when there is something to tell: no client of SES is made where nobody is to get mail."""
    sender: str
    recipients: tuple[str, ...]

    async def deliver(self, record: Record) -> None:
        mail = compose(record, self.sender, self.recipients).as_bytes()
        client = await self.find_client()
        async with translated(f"a mail from {self.sender}"):
            await client.send_email(
                FromEmailAddress=self.sender,
                Destination={"ToAddresses": list(self.recipients)},
                Content={"Raw": {"Data": mail}},
            )
