"""What becomes of a mail: a mail server by others, servers that are none, two emulators of SES."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import aiohttp
import anyio
import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session
from anyio.abc import SocketStream
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from daylily_daemon.adapters.aws import Aws, AwsOptions
from daylily_daemon.adapters.notifiers import smtp
from daylily_daemon.adapters.notifiers.ses import SesMail
from daylily_daemon.domain import notice
from daylily_daemon.domain.errors import DaemonError, Impeded, Permanent, Transient
from tests.contract.mail_receivers import (
    HOST,
    RECIPIENTS,
    SENDER,
    PostOffice,
    a_mail_channel,
    certificate,
    cut,
    sent_by,
    serving,
)
from tests.records import FAILED, a_record
from tests.unit.test_mail import text_of

OPS, PI = RECIPIENTS


async def test_a_login_goes_through_starttls_and_all_recipients_get_one_mail() -> None:
    office = PostOffice()
    async with serving(office) as port:
        await a_mail_channel(port).deliver(FAILED)
    assert office.logins == ["PLAIN"]
    (envelope,) = office.envelopes
    assert (envelope.mail_from, envelope.rcpt_tos) == (SENDER, list(RECIPIENTS))
    assert text_of(office.taken[0]) == notice.text(FAILED)


@pytest.mark.reported("E", "logins that only one kind of server understands (authelia#514)")
async def test_a_server_that_knows_login_alone_is_logged_in_to() -> None:
    office = PostOffice()
    async with serving(office, auth_exclude_mechanism=["PLAIN"]) as port:
        await a_mail_channel(port).deliver(FAILED)
    assert office.logins == ["LOGIN"]


async def test_a_relay_without_tls_and_login_is_used_where_the_settings_say_so() -> None:
    office = PostOffice()
    async with serving(office, "none") as port:
        await a_mail_channel(port, security="none", user="", password="").deliver(FAILED)
    assert (len(office.taken), office.logins) == (1, [])


async def test_a_server_without_logins_is_told_from_one_that_refuses_ours() -> None:
    office = PostOffice()
    async with serving(office, "none", auth_exclude_mechanism=["PLAIN", "LOGIN"]) as port:
        with pytest.raises(Impeded, match="no way to log in"):
            await a_mail_channel(port, security="none").deliver(FAILED)
    assert office.senders == []


@pytest.mark.reported("E", "mail sent in clear where TLS was asked for (opencloud#514)")
async def test_a_server_without_starttls_gets_nothing_not_even_the_login() -> None:
    office = PostOffice()
    async with serving(office, "none") as port:
        with pytest.raises(Impeded, match="offers no STARTTLS"):
            await a_mail_channel(port).deliver(FAILED)
    assert (office.senders, office.logins) == ([], [])


@pytest.mark.parametrize("security", ["starttls", "tls"])
@pytest.mark.parametrize("name", ["mail.other.example", "127.0.0.2"])
async def test_a_server_that_cannot_prove_its_name_gets_nothing(security: Any, name: str) -> None:
    office, strange = PostOffice(), certificate(name)
    async with serving(office, security, strange) as port:
        with pytest.raises(Transient, match="prove who it is"):
            await a_mail_channel(port, security=security, tls=strange.client).deliver(FAILED)
        with pytest.raises(Transient, match="prove who it is"):
            await a_mail_channel(port, security=security, tls=None).deliver(FAILED)
    assert (office.senders, office.logins) == ([], [])


async def test_a_wrong_password_waits_for_somebody_to_mend_it_and_is_not_shown() -> None:
    office = PostOffice()
    async with serving(office) as port:
        channel = a_mail_channel(port, password="hUsHhUsH")
        with pytest.raises(Impeded, match=r"535.*smtp_user and smtp_password") as caught:
            await channel.deliver(FAILED)
    assert "hUsHhUsH" not in f"{caught.value!r} {channel!r}"
    assert office.senders == []


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        ("451 4.7.1 greylisted", Transient, "451 4.7.1"),
        ("421 4.3.2 closing", Transient, "421 4.3.2"),
        ("452 4.2.2 mailbox full", Transient, "452 4.2.2"),
        ("550 5.1.1 unknown", Impeded, "550 5.1.1"),
        ("554 relay access denied", Impeded, "554"),
    ],
)
async def test_a_mail_that_no_recipient_may_get_waits(
    answer: str, kind: type[DaemonError], words: str
) -> None:
    last = "550 5.1.1 unknown" if kind is Transient else answer
    office = PostOffice(refusals={OPS: last, PI: answer})
    async with serving(office) as port:
        with pytest.raises(kind, match=f"refuses every recipient.*{words}") as caught:
            await a_mail_channel(port).deliver(FAILED)
    assert type(caught.value) is kind
    assert office.taken == []


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("451 4.3.0 later", Transient),
        ("530 5.7.0 authentication required", Impeded),
        ("550 5.7.1 not yours", Impeded),
        ("553 5.1.8 no such sender", Impeded),
        ("552 5.3.4 too big", Permanent),
        ("550 5.2.3 too long", Permanent),
    ],
)
async def test_an_answer_to_the_sender_is_about_us_unless_it_is_about_the_size(
    answer: str, kind: type[DaemonError]
) -> None:
    office = PostOffice(to_sender=answer)
    async with serving(office) as port:
        with pytest.raises(kind, match=answer[:9]) as caught:
            await a_mail_channel(port).deliver(FAILED)
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("451 4.3.0 later", Transient),
        ("452 too many", Transient),
        ("554 transaction failed", Permanent),
        ("550 5.6.0 malformed", Permanent),
        ("552 5.3.4 too big", Permanent),
        ("550 5.7.1 our rules", Impeded),
        ("554 5.7.0 relaying denied", Impeded),
    ],
)
async def test_an_answer_to_the_mail_itself_is_a_no_unless_it_is_about_rights(
    answer: str, kind: type[DaemonError]
) -> None:
    office = PostOffice(to_data=answer)
    async with serving(office) as port:
        with pytest.raises(kind, match=answer[:3]) as caught:
            await a_mail_channel(port).deliver(FAILED)
    assert type(caught.value) is kind


@pytest.mark.reported(
    "G", "a recipient that was refused counted as told (overseers-desk/courier#62)"
)
async def test_a_recipient_that_is_refused_is_named_and_keeps_the_mail_from_nobody_else() -> None:
    office = PostOffice(refusals={PI: "550 5.1.1 unknown"})
    with capture_logs() as logged:
        async with serving(office) as port:
            await a_mail_channel(port).deliver(FAILED)
    assert [envelope.rcpt_tos for envelope in office.envelopes] == [[OPS]]
    (said,) = [one for one in logged if one["event"] == "mail_recipient_refused"]
    assert (said["recipient"], said["delivery"], said["code"]) == (PI, FAILED.id, "550 5.1.1")


async def test_a_recipient_that_is_refused_for_now_is_told_later_and_the_others_not_again() -> None:
    office = PostOffice(refusals={PI: "450 4.7.1 greylisted"})
    async with serving(office) as port:
        channel = a_mail_channel(port)
        for _ in range(2):
            with pytest.raises(Transient, match=r"1 of 2 recipients for now \(450 4.7.1\)"):
                await channel.deliver(FAILED)
        office.refusals.clear()
        await channel.deliver(FAILED)
        assert [envelope.rcpt_tos for envelope in office.envelopes] == [[OPS], [PI]]
        assert len({str(mail["Message-ID"]) for mail in office.taken}) == 1
        await channel.deliver(a_record(seq=8))
    assert office.envelopes[-1].rcpt_tos == [OPS, PI]


async def test_a_recipient_that_is_always_refused_for_now_is_given_up_and_named() -> None:
    office = PostOffice(refusals={PI: "452 4.2.2 mailbox full"})
    async with serving(office) as port:
        channel = a_mail_channel(port)
        for _ in range(smtp.TRIES - 1):
            with pytest.raises(Transient):
                await channel.deliver(FAILED)
        with capture_logs() as logged:
            await channel.deliver(FAILED)
    assert [one["recipient"] for one in logged if one["event"] == "mail_recipient_refused"] == [PI]
    assert len(office.taken) == 1


async def test_what_is_remembered_of_recipients_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(smtp, "REMEMBERED", 2)
    office = PostOffice(refusals={PI: "450 4.7.1 greylisted"})
    async with serving(office) as port:
        channel = a_mail_channel(port)
        for seq in (1, 2, 3):
            with pytest.raises(Transient):
                await channel.deliver(a_record(seq=seq))
        office.refusals.clear()
        for seq in (1, 3):
            await channel.deliver(a_record(seq=seq))
    assert [envelope.rcpt_tos for envelope in office.envelopes[3:]] == [[OPS, PI], [PI]]


@pytest.mark.reported("A", "a line with a single dot ends the mail (CloudMeet#42)")
async def test_lines_that_begin_with_a_dot_arrive() -> None:
    text = ".\n..\n.\nMAIL FROM:<thief@evil.example>\nRCPT TO:<x@y.example>\nDATA\n.\n"
    office = PostOffice()
    record = a_record(message=text, error_details=text)
    async with serving(office) as port:
        await a_mail_channel(port).deliver(record)
    assert office.senders == [SENDER]
    assert text_of(office.taken[0]) == notice.text(record).rstrip("\n")


async def test_eight_mails_at_once_all_arrive() -> None:
    office = PostOffice()
    async with serving(office) as port:
        channel = a_mail_channel(port)
        async with anyio.create_task_group() as group:
            for seq in range(8):
                group.start_soon(channel.deliver, a_record(seq=seq))
    assert len(office.taken) == 8


@dataclass
class Rude(PostOffice):
    """A server that answers a goodbye as it likes."""

    manner: str = ""

    async def handle_QUIT(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.manner == "silent":
            await self.over.wait()
        if self.manner == "cut":
            cut(server)
        return "554 5.0.0 not yet" if self.manner == "refusing" else "221 2.0.0 Bye"


@pytest.mark.reported("A", "a goodbye that is never answered (aiosmtplib#345)")
@pytest.mark.parametrize("manner", ["silent", "cut", "refusing"])
async def test_a_mail_that_was_taken_is_told_whatever_becomes_of_the_goodbye(manner: str) -> None:
    office = Rude(manner=manner)
    async with serving(office) as port:
        with anyio.fail_after(15):
            await a_mail_channel(port).deliver(FAILED)
    assert len(office.taken) == 1


async def test_while_a_server_is_silent_the_loop_goes_on() -> None:
    async with talking(b"", then="wait") as port, anyio.create_task_group() as group:
        group.start_soon(silent_for_a_second, port)
        with anyio.fail_after(0.9):
            for _ in range(20):
                await anyio.sleep(0.01)


async def silent_for_a_second(port: int) -> None:
    with pytest.raises(Transient, match="did not answer in time"):
        await a_mail_channel(port, timeout_s=1.0).deliver(FAILED)


@asynccontextmanager
async def talking(*answers: bytes, then: str = "close", pause_s: float = 0.0) -> AsyncIterator[int]:
    """Say one thing after another, each but the first when something was heard, and then as told."""
    over = anyio.Event()

    async def talk(stream: SocketStream) -> None:
        async with stream:
            try:
                for number, answer in enumerate(answers):
                    if number:
                        await stream.receive()
                    await anyio.sleep(pause_s)
                    await stream.send(answer)
                while then == "more":
                    await stream.send(answers[-1])
                if then == "wait":
                    await over.wait()
            except (anyio.BrokenResourceError, anyio.EndOfStream):
                return

    async with await anyio.create_tcp_listener(local_host=HOST) as listener:
        port: int = listener.extra(anyio.abc.SocketAttribute.local_port)
        async with anyio.create_task_group() as group:
            group.start_soon(listener.serve, talk)
            yield port
            over.set()
            group.cancel_scope.cancel()


HELLO: Final = b"220 mail.example\r\n"
ABLE: Final = b"250 mail.example\r\n"
GOOD: Final = (HELLO, ABLE, b"250 OK\r\n", b"250 OK\r\n", b"250 OK\r\n", b"354 go on\r\n")
"""Until the mail itself, of a server without TLS."""


async def come_of(port: int, timeout_s: float = 5.0) -> DaemonError | None:
    """Return the error of one mail; anything but none and one of ours is raised."""
    channel = a_mail_channel(port, security="none", user="", password="", timeout_s=timeout_s)
    try:
        await channel.deliver(FAILED)
    except DaemonError as error:
        return error
    return None


@pytest.mark.parametrize(
    ("greeting", "kind"),
    [
        (b"421 4.3.2 too busy\r\n", Transient),
        (b"554 5.7.1 go away\r\n", Impeded),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", Transient),
        (b"SSH-2.0-OpenSSH_9.6\r\n", Transient),
        (b"\x15\x03\x01\x00\x02\x02\x0a", Transient),
        (b"", Transient),
        (b"999 what\r\n", Transient),
        (b"-22 what\r\n", Transient),
        (b"220", Transient),
    ],
)
async def test_a_greeting_that_is_none_is_no_refusal_of_the_mail(
    greeting: bytes, kind: type[DaemonError]
) -> None:
    async with talking(greeting) as port:
        error = await come_of(port)
    assert type(error) is kind
    assert str(error).startswith(f"The mail server {HOST} ")


@pytest.mark.parametrize("answer", [b"220-x\r\n" * 100, b"2" * 65536, b"250-" + b"y" * 9000])
@pytest.mark.parametrize("after", [(), GOOD[:1], GOOD])
async def test_an_answer_without_end_takes_neither_memory_nor_more_than_its_time(
    answer: bytes, after: tuple[bytes, ...]
) -> None:
    async with talking(*after, answer, then="more") as port:
        with anyio.fail_after(20):
            assert isinstance(await come_of(port, 2.0), Transient)


@pytest.mark.parametrize("known", range(len(GOOD) + 1))
async def test_a_server_that_falls_silent_at_any_step_is_left_after_the_timeout(known: int) -> None:
    async with talking(*GOOD[:known] or (b"",), then="wait") as port:
        with anyio.fail_after(20):
            assert "in time" in str(await come_of(port, 0.4))


async def test_a_server_that_is_slow_at_every_step_has_one_time_limit_for_all_of_them() -> None:
    async with talking(*GOOD, b"250 taken\r\n", then="wait", pause_s=0.3) as port:
        assert "in time" in str(await come_of(port, 1.0))


@pytest.mark.parametrize("known", range(len(GOOD) + 1))
async def test_a_server_that_breaks_off_at_any_step_is_asked_again(known: int) -> None:
    async with talking(*GOOD[:known] or (b"",)) as port:
        assert type(await come_of(port)) is Transient


@given(st.lists(st.binary(max_size=40), max_size=8), st.integers(0, len(GOOD)))
@settings(max_examples=40)
def test_whatever_a_server_answers_only_our_errors_leave(said: list[bytes], known: int) -> None:
    async def play() -> None:
        async with talking(*GOOD[:known], *said) as port:
            error = await come_of(port, 0.2)
            assert error is None or len(str(error)) < 500

    anyio.run(play)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 64 + ".example", "127.0.0.1"])
async def test_a_server_that_is_not_there_is_waited_for(host: str) -> None:
    with pytest.raises(Transient, match=r"cannot be reached|impossible name"):
        await a_mail_channel(9, host=host).deliver(FAILED)


# --- Amazon SES --------------------------------------------------------------------------------------


@asynccontextmanager
async def ses_at(url: str, sender: str, verified: str) -> AsyncIterator[SesMail]:
    async with Aws(AwsOptions(endpoint_url=url, max_attempts=1)) as aws:
        client = await aws.client("sesv2")
        for identity in (verified, "lab.example"):
            try:
                await client.create_email_identity(EmailIdentity=identity)
            except client.exceptions.AlreadyExistsException:
                continue
        find = partial(aws.client, "sesv2")
        yield SesMail(find_client=find, sender=sender, recipients=RECIPIENTS)


async def test_ses_sends_the_mail_as_it_is_to_all_recipients(moto_url: str) -> None:
    sender = "daylily@as-it-is.example"
    async with ses_at(moto_url, sender, "as-it-is.example") as channel:
        await channel.deliver(FAILED)
    async with aiohttp.ClientSession() as session:
        (mail,) = await sent_by(session, moto_url, sender)
    assert set(mail["destinations"]) == set(RECIPIENTS)
    assert "Subject: [Daylily] HG002-run7 failed" in mail["raw_data"]
    assert "X-Daylily-Delivery: HG002-run7/7" in mail["raw_data"]


async def test_another_emulator_of_ses_takes_the_mail_too(ministack_url: str) -> None:
    sender = "daylily@another.example"
    async with ses_at(ministack_url, sender, "another.example") as channel:
        await channel.deliver(a_record(message="Größe \N{DNA DOUBLE HELIX}"))
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{ministack_url.rstrip('/')}/_ministack/ses/messages") as reply,
    ):
        told = json.dumps(json.loads(await reply.text()))
    assert sender in told
    assert all(recipient in told for recipient in RECIPIENTS)


@pytest.mark.parametrize("emulator", ["moto_url", "ministack_url"])
async def test_a_sender_that_ses_does_not_know_waits_until_it_is_verified(
    emulator: str, request: pytest.FixtureRequest
) -> None:
    url, sender = request.getfixturevalue(emulator), f"daylily@{emulator[:4]}-later.example"
    async with ses_at(url, sender, "verified.example") as channel:
        with pytest.raises(Impeded, match="Verify the sender's address"):
            await channel.deliver(FAILED)
    async with ses_at(url, sender, sender.partition("@")[2]) as channel:
        await channel.deliver(FAILED)
