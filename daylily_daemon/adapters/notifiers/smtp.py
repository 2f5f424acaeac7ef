"""E-mail by SMTP, one connection for each notice.

At least once: SMTP knows no delivery id, so a mail whose answer was lost is sent again, as the same message
under the same Message-ID, by which most mail stores drop a repeat and people can tell it from news.

What an answer means (RFC 5321, 4.2.1; RFC 3463 for the codes of three parts): 4yz is "not now". 5yz is a
definite no, which is about us (address, password, rights: 5yz before the message, or X.7.Z) unless it comes
to the message itself. A recipient that is refused keeps the mail from nobody else: it is said in the log, and
one that was refused for now is tried again alone, about twenty minutes long.

Without TLS nothing is sent unless the settings say so: a server that offers no STARTTLS is not trusted with
anything. What a server says besides its codes is not shown.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

import aiosmtplib
import anyio
import structlog
from aiosmtplib import SMTPResponse

from daylily_daemon.adapters.mail import compose
from daylily_daemon.domain.errors import DaemonError, Impeded, Permanent, Transient, Unexpected
from daylily_daemon.domain.model import Record

log = structlog.get_logger()

Security = Literal["starttls", "tls", "none"]
PORTS: Final[Mapping[Security, int]] = {"starttls": 587, "tls": 465, "none": 25}
TRIES: Final = 12
"""Of recipients that are refused for now, while others have the mail: with the outbox's pauses 20 minutes."""
REMEMBERED: Final = 1000
"""Mails of which some recipients are still to be told; of one that is forgotten all are told again."""
_QUIT_S: Final = 2.0
_ENHANCED: Final = re.compile(r"([245]\.\d{1,3}\.\d{1,3})\b", re.ASCII)
_FAILURES: Final[tuple[tuple[type[Exception], type[Transient], str], ...]] = (
    (TimeoutError, Transient, "did not answer in time"),
    (ssl.SSLError, Transient, "could not prove who it is; check its certificate"),
    (aiosmtplib.SMTPServerDisconnected, Transient, "broke the connection off"),
    (aiosmtplib.SMTPConnectError, Transient, "cannot be reached"),
    (OSError, Transient, "broke the connection off"),
    (UnicodeError, Impeded, "has an impossible name; fix it in the settings"),
    (ValueError, Impeded, "cannot be used as the settings say"),
    (aiosmtplib.SMTPException, Transient, "answered with something that is not SMTP"),
    (Exception, Unexpected, "answered with something nobody foresaw"),
)
"""The first row that fits counts. Whatever may fix itself without us is unknown, not refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MailServer:
    """Who takes our mail, and how we talk to it."""

    host: str
    port: int = 0
    """0 takes the usual one of ``security``."""
    security: Security = "starttls"
    user: str = ""
    """Empty: nobody logs in."""
    password: str = field(default="", repr=False)
    tls: ssl.SSLContext | None = None
    """Whom we trust; None takes what Python trusts."""
    timeout_s: float = 30.0
    """Of everything for one notice. Less than the outbox takes a delivery to be ours without asking."""

    def smtp(self) -> aiosmtplib.SMTP:
        return aiosmtplib.SMTP(
            hostname=self.host,
            port=self.port or PORTS[self.security],
            use_tls=self.security == "tls",
            start_tls=False,
            tls_context=self.tls,
            timeout=self.timeout_s,
            local_hostname=_own_name(),
        )


@dataclass(slots=True)
class _Rest:
    """Recipients that were refused for now, while others have the mail."""

    recipients: tuple[str, ...]
    tries: int = 1


@dataclass(slots=True, kw_only=True)
class SmtpMail:
    server: MailServer
    sender: str
    recipients: tuple[str, ...]
    _rests: dict[str, _Rest] = field(default_factory=dict, repr=False)

    async def deliver(self, record: Record) -> None:
        mail = compose(record, self.sender, self.recipients).as_bytes()
        rest = self._rests.get(record.id)
        recipients = rest.recipients if rest else self.recipients
        refused = await self._send(mail, recipients)
        if rest is None and len(refused) == len(recipients):
            raise self._refusal(refused)
        self._note(record.id, refused)

    def _note(self, delivery: str, refused: Mapping[str, SMTPResponse]) -> None:
        """Say who was refused. Raises Transient while it makes sense to try some of them again."""
        rest = self._rests.pop(delivery, None)
        later = tuple(who for who, answer in refused.items() if _is_for_now(answer.code))
        tries = rest.tries + 1 if rest else 1
        for who, answer in refused.items():
            if who not in later or tries >= TRIES:
                told = {"recipient": who, "delivery": delivery, "code": _codes(answer)}
                log.warning("mail_recipient_refused", **told)
        if not later or tries >= TRIES:
            return
        while len(self._rests) >= REMEMBERED:
            del self._rests[next(iter(self._rests))]
        self._rests[delivery] = _Rest(later, tries)
        raise Transient(
            f"The mail server {self.server.host} refuses {len(later)} of {len(self.recipients)} recipients "
            f"for now ({_codes(refused[later[0]])}); they will be told again, the others have the mail."
        )

    async def _send(self, mail: bytes, recipients: tuple[str, ...]) -> Mapping[str, SMTPResponse]:
        """Send it once; return whom the server refused. Raises what that comes to, bounded in time."""
        smtp = self.server.smtp()
        try:
            with anyio.fail_after(self.server.timeout_s):
                return await self._talk(smtp, mail, recipients)
        except DaemonError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever comes of one mail is about that mail
            raise self._meaning(error) from None
        finally:
            smtp.close()

    async def _talk(
        self, smtp: aiosmtplib.SMTP, mail: bytes, recipients: tuple[str, ...]
    ) -> Mapping[str, SMTPResponse]:
        await smtp.connect()
        await self._protect(smtp)
        await self._log_in(smtp)
        try:
            refused, _ = await smtp.sendmail(self.sender, recipients, mail)
        except aiosmtplib.SMTPRecipientsRefused as none:
            return {one.recipient: SMTPResponse(one.code, one.message) for one in none.recipients}
        await _part(smtp)
        return refused

    async def _protect(self, smtp: aiosmtplib.SMTP) -> None:
        await smtp.ehlo()
        if self.server.security != "starttls":
            return
        if not smtp.supports_extension("starttls"):
            raise Impeded(
                f"The mail server {self.server.host} offers no STARTTLS, and nothing is sent without. Set "
                "smtp_security to tls if it speaks TLS from the start, and look at smtp_port."
            )
        await smtp.starttls()
        await smtp.ehlo()

    async def _log_in(self, smtp: aiosmtplib.SMTP) -> None:
        """Log in by PLAIN or LOGIN, both under TLS or to this host alone."""
        user, password = self.server.user, self.server.password
        if not user:
            return
        offered = smtp.supported_auth_methods
        if "plain" in offered:
            await smtp.auth_plain(user, password)
        elif "login" in offered:
            await smtp.auth_login(user, password)
        else:
            raise Impeded(
                f"The mail server {self.server.host} offers no way to log in that is known here (PLAIN or "
                "LOGIN). Leave smtp_user empty, or look at smtp_port and smtp_security."
            )

    def _refusal(self, refused: Mapping[str, SMTPResponse]) -> DaemonError:
        """Return the error of a mail that nobody is to get."""
        for_now = [answer for answer in refused.values() if _is_for_now(answer.code)]
        said = f"The mail server {self.server.host} refuses every recipient"
        if for_now:
            return Transient(f"{said} for now ({_codes(for_now[0])}); the mail will be sent again.")
        codes = _codes(next(iter(refused.values())))
        advice = "Check recipients, and whether this host may send to them."
        return Impeded(f"{said} ({codes}). {advice} The mail will be sent again.")

    def _meaning(self, error: Exception) -> DaemonError:
        host = self.server.host
        if isinstance(error, aiosmtplib.SMTPResponseException) and 400 <= error.code < 600:
            return self._of_answer(error)
        kind, words = next(
            (kind, words)
            for type_, kind, words in _FAILURES
            if isinstance(error, type_) or isinstance(error.__cause__, type_)
        )
        return kind(f"The mail server {host} {words}.")

    def _of_answer(self, error: aiosmtplib.SMTPResponseException) -> DaemonError:
        answer = SMTPResponse(error.code, error.message)
        said = f"The mail server {self.server.host} answered {_codes(answer)}"
        if _is_for_now(error.code):
            return Transient(f"{said}; the mail will be sent again.")
        if isinstance(error, aiosmtplib.SMTPAuthenticationError):
            advice = "Check smtp_user and smtp_password."
        elif isinstance(error, aiosmtplib.SMTPSenderRefused) and not _is_about_size(answer):
            advice = "Check sender, and whether it needs a login (smtp_user)."
        elif isinstance(error, aiosmtplib.SMTPDataError | aiosmtplib.SMTPSenderRefused):
            if not _is_about_rights(answer):
                return Permanent(f"{said} to the mail itself, and takes no such mail.")
            advice = "It has a rule against our mails: ask whoever runs it."
        else:
            advice = "Check smtp_host and smtp_port, and whether this host may send there."
        return Impeded(f"{said}. {advice} The mail will be sent again.")


async def _part(smtp: aiosmtplib.SMTP) -> None:
    """Say goodbye; the mail was taken, whatever becomes of that."""
    with anyio.move_on_after(_QUIT_S):
        try:
            await smtp.quit(timeout=_QUIT_S)
        except (aiosmtplib.SMTPException, OSError):
            return


def _is_for_now(code: int) -> bool:
    return 400 <= code < 500


def _is_about_size(answer: SMTPResponse) -> bool:
    return answer.code == 552 or _enhanced(answer).endswith((".3.4", ".2.3"))


def _is_about_rights(answer: SMTPResponse) -> bool:
    return _enhanced(answer)[2:].startswith("7.") or answer.code in {530, 535, 538}


def _enhanced(answer: SMTPResponse) -> str:
    found = _ENHANCED.match(answer.message.lstrip())
    return found[1] if found else ""


def _codes(answer: SMTPResponse) -> str:
    return " ".join(filter(None, (str(answer.code), _enhanced(answer))))


def _own_name() -> str:
    """Return who we are for EHLO: the host's name if it is a full one, else an address (RFC 5321, 4.1.3).

    Not asked of DNS, which may take its time.
    """
    name = socket.gethostname()
    return name if re.fullmatch(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+", name) else "[127.0.0.1]"
