"""A notice as an e-mail: the message itself, however it is sent.

Plain text, and 7-bit on the wire whatever is in it, so that every server takes it. The headers say what it is
(RFC 3834: no autoresponder answers), to which workset it belongs (RFC 5322, 3.6.4: all of one workset are one
thread) and which delivery it is: a notice that is sent again is the same message under the same Message-ID.
"""

from __future__ import annotations

from datetime import UTC
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from hashlib import sha256
from typing import Final

from daylily_daemon.domain import notice
from daylily_daemon.domain.model import Record

DELIVERY: Final = "X-Daylily-Delivery"
SUBJECT_LIMIT: Final = 200
"""Characters; mail programs show about 70 of them."""

_LINE_LIMIT: Final = 998
"""Characters of a line (RFC 5322, 2.1.1). Where the email package folds shorter, it spoils long ids."""
_POLICY: Final = SMTP.clone(max_line_length=_LINE_LIMIT, cte_type="7bit", raise_on_defect=True)


def compose(record: Record, sender: str, recipients: tuple[str, ...]) -> EmailMessage:
    """Return the message. ``sender`` and ``recipients`` are bare ASCII addresses, as the settings check."""
    host = sender.rpartition("@")[2]
    thread = _thread_id(record, host)
    mail = EmailMessage(_POLICY)
    mail["From"] = Address(display_name="Daylily", addr_spec=sender)
    mail["To"] = tuple(Address(addr_spec=one) for one in recipients)
    mail["Subject"] = _subject(record)
    mail["Date"] = format_datetime(record.at.astimezone(UTC))
    mail["Message-ID"] = _message_id(record, host)
    mail["In-Reply-To"] = thread
    mail["References"] = thread
    mail["Auto-Submitted"] = "auto-generated"
    mail["X-Auto-Response-Suppress"] = "All"
    mail[DELIVERY] = record.id
    mail.set_content(notice.text(record))
    return mail


def _subject(record: Record) -> str:
    """Return workset and state first, then why: a list of mails is read by its first words."""
    what = record.state.replace("_", " ")
    told = f"[Daylily] {record.workset_id} {what}: {record.message}".removesuffix(": ")
    return notice.one_line(told, SUBJECT_LIMIT)


def _message_id(record: Record, host: str) -> str:
    """Return the id of this delivery. Its time keeps it apart from that of a workset made anew."""
    stamp = record.at.astimezone(UTC).strftime("%Y%m%dT%H%M%S")
    return f"<{record.workset_id}.{record.seq}.{stamp}@{host}>"


def _thread_id(record: Record, host: str) -> str:
    """Return the id of a message that nobody sent, and to which all of one workset refer."""
    bucket = sha256(record.bucket.encode()).hexdigest()[:12]
    return f"<{record.workset_id}.{bucket}@{host}>"
