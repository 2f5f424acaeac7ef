"""From settings to channels: which records they are owed, and what a reload makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daylily_daemon.adapters.host import SystemClock
from daylily_daemon.adapters.notifiers.pagerduty import RESOLVING, PagerDuty
from daylily_daemon.adapters.notifiers.ses import SesMail
from daylily_daemon.adapters.notifiers.smtp import SmtpMail
from daylily_daemon.adapters.s3 import S3Objects
from daylily_daemon.channels import NOTIFIERS, ChannelDeps, Channels
from daylily_daemon.domain.errors import Permanent
from daylily_daemon.domain.model import Priority, RecordType, State
from daylily_daemon.engine.health import Health
from daylily_daemon.in_force import routing_of
from daylily_daemon.settings.keys import LEAVES
from daylily_daemon.settings.model import Settings
from daylily_daemon.settings.sources import Sources, describe, load
from tests.fakes.store import MemoryTrail, Table
from tests.records import a_record
from tests.unit.test_settings import HUSH, from_environment, problem

PAGER: Final = {
    "DAYLILY_NOTIFICATIONS__PAGERDUTY__ENABLED": "true",
    "DAYLILY_NOTIFICATIONS__PAGERDUTY__ROUTING_KEY": HUSH,
}
MAIL: Final = {
    "DAYLILY_NOTIFICATIONS__EMAIL__ENABLED": "true",
    "DAYLILY_NOTIFICATIONS__EMAIL__SENDER": "daylily@lab.example",
    "DAYLILY_NOTIFICATIONS__EMAIL__RECIPIENTS": "ops@lab.example, pi@lab.example",
    "DAYLILY_NOTIFICATIONS__EMAIL__SMTP_HOST": "mail.lab.example",
}


def of_mail(**more: str) -> dict[str, str]:
    return MAIL | {f"DAYLILY_NOTIFICATIONS__EMAIL__{key.upper()}": v for key, v in more.items()}


def filtered(**sets: list[str]) -> Settings:
    names = {f"DAYLILY_NOTIFICATIONS__PAGERDUTY__{k.upper()}": ",".join(v) for k, v in sets.items()}
    return from_environment(**PAGER, **names).settings


def chosen(values: Any) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(sorted(values)), unique=True, max_size=3)


@pytest.mark.reported("G", "a filter that hides the end leaves the alarm open (netdata#18179)")
@given(
    chosen(["state_change", "error", "completion", "lock_timeout"]),
    chosen(State),
    chosen(Priority),
    chosen(["lab-1", "lab-2"]),
    st.builds(
        a_record,
        state=st.sampled_from(sorted(RESOLVING)),
        type=st.sampled_from(RecordType),
        priority=st.sampled_from(Priority),
        customer_id=st.sampled_from(["lab-1", "lab-2", ""]),
    ),
)
def test_no_filter_hides_from_pagerduty_that_a_workset_needs_nobody_any_more(
    event_types: list[str], states: list[str], priorities: list[str], customers: list[str], end: Any
) -> None:
    settings = filtered(
        event_types=event_types, states=states, priorities=priorities, customers=customers
    )
    assert "pagerduty" in routing_of(settings).owed(end)


def test_a_filter_of_pagerduty_says_which_alarms_are_raised() -> None:
    routing = routing_of(filtered(states=["failed"], customers=["lab-1"]))
    assert "pagerduty" in routing.owed(a_record(state=State.FAILED))
    assert "pagerduty" not in routing.owed(a_record(state=State.ERROR))
    assert "pagerduty" not in routing.owed(a_record(customer_id="lab-2"))


def test_the_filters_of_all_other_channels_are_obeyed() -> None:
    every = from_environment(**MAIL, DAYLILY_NOTIFICATIONS__EMAIL__STATES="failed").settings
    complete = a_record(state=State.COMPLETE, type=RecordType.COMPLETION)
    assert "email" not in routing_of(every).owed(complete)
    assert "email" in routing_of(every).owed(a_record(state=State.FAILED))


def deps_with(session: aiohttp.ClientSession) -> ChannelDeps:
    return ChannelDeps(
        http=session,
        objects=S3Objects(None),
        sns=None,
        find_ses=_nobody_asks_for_it,
        trail=MemoryTrail(Table()),
    )


async def test_a_reload_switches_mail_and_pagerduty_on_and_off() -> None:
    async with aiohttp.ClientSession() as session:
        deps = deps_with(session)
        channels = Channels(deps, Settings(), Health(SystemClock()))
        assert channels.current().keys() == {"sns", "s3_sentinels"}
        channels.rebuild(from_environment(**PAGER, **MAIL).settings)
        assert channels.current().keys() == {"sns", "s3_sentinels", "email", "pagerduty"}
        twisted = PAGER | {"DAYLILY_NOTIFICATIONS__PAGERDUTY__ROUTING_KEY": "two words"}
        impossible = from_environment(**twisted).settings
        with pytest.raises(Permanent, match="routing key"):
            channels.rebuild(impossible)
        assert "email" in channels.current()
        channels.rebuild(Settings())
        assert channels.current().keys() == {"sns", "s3_sentinels"}


async def test_a_channel_is_made_as_its_settings_say() -> None:
    async with aiohttp.ClientSession() as session:
        deps = deps_with(session)
        mail = NOTIFIERS["email"](
            from_environment(
                **of_mail(smtp_user="me", smtp_password=HUSH, smtp_security="tls", smtp_port="2465")
            ).settings,
            deps,
        )
        ses = NOTIFIERS["email"](from_environment(**of_mail(via="ses")).settings, deps)
        pager = NOTIFIERS["pagerduty"](
            from_environment(**PAGER, AWS_REGION="eu-west-1").settings, deps
        )
    assert isinstance(mail, SmtpMail)
    server = mail.server
    assert (server.host, server.port, server.security) == ("mail.lab.example", 2465, "tls")
    assert (server.user, server.password) == ("me", HUSH)
    assert mail.recipients == ("ops@lab.example", "pi@lab.example")
    assert isinstance(ses, SesMail)
    assert isinstance(pager, PagerDuty)
    assert (pager.routing_key, pager.region) == (HUSH, "eu-west-1")
    assert pager.url == "https://events.pagerduty.com/v2/enqueue"
    assert HUSH not in f"{mail!r} {pager!r}"


async def _nobody_asks_for_it() -> Any:
    raise AssertionError("a client of SES is made when there is something to tell")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"sender": ""}, "the channel is enabled, but sender has no value"),
        ({"recipients": "", "smtp_host": ""}, "but recipients and smtp_host has no value"),
        ({"sender": "lab"}, "must be a bare address as name@host.example"),
        ({"sender": "a@b.example\nBcc: c@d.example"}, "must be a bare address"),
        ({"sender": "a..b@lab.example"}, "must be a bare address"),
        ({"sender": "Lab <a@lab.example>"}, "must be a bare address"),
        ({"sender": "größe@lab.example"}, "in ASCII"),
        ({"sender": f"{'a' * 65}@lab.example"}, "must be a bare address"),
        ({"recipients": "a@b.example, c"}, "must be a bare address"),
        ({"recipients": ",".join(f"x{n}@b.example" for n in range(51))}, "at most 50"),
        ({"smtp_host": "smtp://mail"}, "must be a host name or an IP address"),
        ({"smtp_host": "two words"}, "must be a host name"),
        ({"smtp_port": "65536"}, "less than or equal to 65535"),
        ({"smtp_security": "ssl"}, "must be 'starttls', 'tls' or 'none'"),
        ({"via": "sendmail"}, "must be 'smtp' or 'ses'"),
        ({"smtp_user": "me"}, "a login takes both smtp_user and smtp_password"),
        ({"smtp_password": HUSH}, "a login takes both smtp_user and smtp_password"),
        (
            {"smtp_security": "none", "smtp_user": "me", "smtp_password": HUSH},
            "the password would be sent for everybody to read",
        ),
    ],
)
def test_what_mail_cannot_be_sent_with_is_said_in_a_sentence(
    given: dict[str, str], said: str
) -> None:
    found = problem(Sources(environment=of_mail(**given)))
    assert said in found
    assert HUSH not in found


@pytest.mark.parametrize(
    "given",
    [
        {"via": "ses", "smtp_host": ""},
        {"smtp_security": "none"},
        {
            "smtp_security": "none",
            "smtp_host": "127.0.0.1",
            "smtp_user": "me",
            "smtp_password": "x",
        },
        {"smtp_host": "fe80::1"},
        {"sender": "o'neil+lab@localhost", "recipients": "a@b"},
        {"enabled": "false", "sender": "", "smtp_user": "me"},
    ],
)
def test_what_mail_can_be_sent_with_is_accepted(given: dict[str, str]) -> None:
    load(Sources(environment=of_mail(**given)))


@pytest.mark.parametrize(
    "url", ["http://events.pagerduty.com/v2/enqueue", "events.pagerduty.com", "https://a@b/", ""]
)
def test_pagerduty_is_spoken_to_under_https(url: str) -> None:
    found = problem(
        Sources(environment=PAGER | {"DAYLILY_NOTIFICATIONS__PAGERDUTY__URL": url or "x"})
    )
    assert "must be a URL that begins with https://" in found


def test_pagerduty_needs_its_key(tmp_path: Path) -> None:
    found = problem(Sources(environment={"DAYLILY_NOTIFICATIONS__PAGERDUTY__ENABLED": "true"}))
    assert "routing_key (or routing_key_file) has no value" in found
    (tmp_path / "key").write_text(f"{HUSH}\n")
    config = tmp_path / "lab.yaml"
    config.write_text("notifications: {pagerduty: {enabled: true, routing_key_file: key}}\n")
    loaded = load(Sources(config=config))
    assert loaded.settings.notifications.pagerduty.routing_key.get_secret_value() == HUSH
    shown = {row.key: row.value_shown for row in describe(loaded)}
    assert shown["notifications.pagerduty.routing_key"] == "set"


def test_all_of_it_can_be_changed_by_a_reload() -> None:
    ours = ("notifications.email.", "notifications.pagerduty.")
    assert not [key for key, leaf in LEAVES.items() if key.startswith(ours) and leaf.restart]
