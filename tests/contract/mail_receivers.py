"""Receivers of mail: a mail server by others (aiosmtpd) over sockets, and SES as an emulator has it."""

from __future__ import annotations

import asyncio
import email
import json
import ssl
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from email.policy import default as modern
from functools import cache, partial
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import aiohttp
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from anyio import Event
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from daylily_daemon.adapters.mail import DELIVERY
from daylily_daemon.adapters.notifiers.ses import SesMail
from daylily_daemon.adapters.notifiers.smtp import MailServer, Security, SmtpMail
from tests.contract.receivers import NUMBERS, SECRET_WORDS, Bench, Fault, in_front_of

HOST: Final = "127.0.0.1"
USER: Final = "daylily"
PASSWORD: Final = "vErYsEcReT pässword"
SENDER: Final = "daylily@lab.example"
RECIPIENTS: Final = ("ops@lab.example", "pi@lab.example")
SES_REFUSAL: Final = '{"code": "MessageRejected", "message": "The mail holds a virus"}'


@dataclass(frozen=True)
class Certificate:
    """Of a server, signed by itself, and what a client needs to believe it."""

    server: ssl.SSLContext
    client: ssl.SSLContext
    pem: str


@cache
def certificate(host: str = HOST) -> Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    start = datetime(2020, 1, 1, tzinfo=UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=36_500))
        .add_extension(x509.SubjectAlternativeName([_alternative(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = made.public_bytes(pem)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with TemporaryDirectory() as folder:
        path = Path(folder, "both.pem")
        path.write_bytes(private + public)
        server.load_cert_chain(path)
    trusting = ssl.create_default_context(cadata=public.decode())
    return Certificate(server, trusting, public.decode())


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


@dataclass
class PostOffice:
    """What a mail server does with each step, and the mails it took."""

    script: deque[Fault] = field(default_factory=deque)
    refusals: dict[str, str] = field(default_factory=dict)
    """By recipient, what the server answers instead of taking it."""
    to_data: str = ""
    """What the server answers to every mail instead of taking it."""
    to_sender: str = ""
    taken: list[EmailMessage] = field(default_factory=list)
    envelopes: list[Envelope] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)
    """How somebody logged in, each time."""
    senders: list[str] = field(default_factory=list)
    """Of every mail that was begun."""
    over: Event = field(default_factory=Event)

    def due(self, *faults: Fault) -> bool:
        """Return whether the next fault is one of these; it is used up then."""
        if self.script and self.script[0] in faults:
            self.script.popleft()
            return True
        return False

    def log_in(self, server: Any, session: Any, envelope: Any, how: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        good = (data.login, data.password) == (USER.encode(), PASSWORD.encode())
        if self.due(Fault.FORBIDDEN) or not good:
            return AuthResult(success=False, handled=False, message=f"535 5.7.8 {SECRET_WORDS}")
        self.logins.append(how)
        return AuthResult(success=True)

    async def handle_EHLO(
        self, server: SMTP, session: Session, envelope: Envelope, host: str, lines: list[str]
    ) -> list[str]:
        session.host_name = host
        if self.due(Fault.RESET):
            cut(server)
        return lines

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        self.senders.append(address)
        envelope.mail_from = address
        return self.to_sender or "250 2.1.0 OK"

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.script and self.script[0] is Fault.NOT_FOUND:
            if address == RECIPIENTS[-1]:
                self.script.popleft()
            return f"550 5.1.1 {SECRET_WORDS}"
        if address in self.refusals:
            return self.refusals[address]
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.due(Fault.BROKEN):
            return f"451 4.3.0 {SECRET_WORDS}"
        if self.due(Fault.REFUSED):
            return f"554 5.6.0 {SECRET_WORDS}"
        if self.due(Fault.SILENT):
            await self.over.wait()
        if self.to_data:
            return self.to_data
        assert isinstance(envelope.content, bytes)
        self.taken.append(email.message_from_bytes(envelope.content, policy=modern))
        self.envelopes.append(envelope)
        if self.due(Fault.LOST):
            cut(server)
        return "250 2.0.0 OK"


def cut(server: SMTP) -> None:
    assert isinstance(server.transport, asyncio.WriteTransport)
    server.transport.abort()


class StrangeServer(SMTP):
    """aiosmtpd's server, which now and then is none."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self.event_handler.due(Fault.NOT_HTTP):
            assert isinstance(transport, asyncio.WriteTransport)
            transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        super().connection_made(transport)


@asynccontextmanager
async def serving(
    office: PostOffice,
    security: Security = "starttls",
    tls: Certificate | None = None,
    **options: Any,
) -> AsyncIterator[int]:
    """Serve mail, and yield the port. With ``starttls`` nothing is taken without TLS and a login."""
    context = (tls or certificate()).server
    own: dict[str, Any] = {"auth_require_tls": False}
    if security == "starttls":
        own = {"tls_context": context, "require_starttls": True, "auth_required": True}
    loop = asyncio.get_running_loop()
    make = partial(
        StrangeServer,
        office,
        hostname="mail.example",
        authenticator=office.log_in,
        loop=loop,
        **(own | options),
    )
    listening = await loop.create_server(make, HOST, 0, ssl=context if security == "tls" else None)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        office.over.set()
        listening.close()


def a_mail_channel(port: int, **changes: Any) -> SmtpMail:
    values: dict[str, Any] = {
        "host": HOST,
        "port": port,
        "user": USER,
        "password": PASSWORD,
        "tls": certificate().client,
        "timeout_s": 20.0,
    }
    server = MailServer(**(values | changes))
    return SmtpMail(server=server, sender=SENDER, recipients=RECIPIENTS)


def smtp(moto_url: str, timeout_s: float) -> AbstractAsyncContextManager[Bench]:
    return _smtp("starttls", timeout_s)


def smtp_tls(moto_url: str, timeout_s: float) -> AbstractAsyncContextManager[Bench]:
    return _smtp("tls", timeout_s)


@asynccontextmanager
async def _smtp(security: Security, timeout_s: float) -> AsyncIterator[Bench]:
    office = PostOffice()

    async def told() -> list[str]:
        return [str(mail[DELIVERY]) for mail in office.taken]

    async with serving(office, security) as port:
        channel = a_mail_channel(port, security=security, timeout_s=timeout_s)
        yield Bench(channel=channel, told=told, script=office.script, takes_faults=True)


@asynccontextmanager
async def ses(moto_url: str, timeout_s: float) -> AsyncIterator[Bench]:
    async with (
        aiohttp.ClientSession() as session,
        in_front_of(moto_url, timeout_s, SES_REFUSAL) as (receiver, through, past),
    ):
        sender = f"daylily@lab-{next(NUMBERS)}.example"
        await (await past.client("sesv2")).create_email_identity(
            EmailIdentity=sender.partition("@")[2]
        )

        async def told() -> list[str]:
            mails = await sent_by(session, moto_url, sender)
            return [str(_parsed(mail)[DELIVERY]) for mail in mails]

        channel = SesMail(
            find_client=partial(through.client, "sesv2"), sender=sender, recipients=RECIPIENTS
        )
        yield Bench(channel=channel, told=told, receiver=receiver)


async def sent_by(
    session: aiohttp.ClientSession, moto_url: str, sender: str
) -> list[Mapping[str, Any]]:
    """Return what moto's SES holds of ``sender``."""
    async with session.get(f"{moto_url.rstrip('/')}/moto-api/data.json") as reply:
        held = json.loads(await reply.text()).get("ses", {}).get("RawMessage", [])
    return [mail for mail in held if mail["source"] == sender]


def _parsed(mail: Mapping[str, Any]) -> EmailMessage:
    return email.message_from_string(mail["raw_data"], policy=modern)
