"""What can be set of the channels: who is told, of what, and how."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import SecretStr, model_validator

from daylily_daemon.domain.model import Priority, RecordType, State
from daylily_daemon.settings.fields import Section, clash, live
from daylily_daemon.settings.types import (
    EventType,
    MailAddress,
    MailHost,
    PostUrl,
    SecretUrl,
    is_this_machine,
)


class ChannelSettings(Section):
    needs: ClassVar[tuple[str, ...]] = ()

    enabled: bool = live(False, "Whether this channel is told.")
    event_types: tuple[EventType, ...] = live(
        (), "Only these event types: state_change, error, completion, lock_timeout; empty for all."
    )
    states: tuple[State, ...] = live((), "Only worksets in these states; empty for all.")
    priorities: tuple[Priority, ...] = live(
        (), "Only these priorities: urgent, normal, low; empty for all."
    )
    customers: tuple[str, ...] = live((), "Only worksets of these customers; empty for all.")

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Self:
        missing = [name for name in self.needs if not getattr(self, name).get_secret_value()]
        if self.enabled and missing:
            names = " and ".join(f"{name} (or {name}_file)" for name in missing)
            raise clash(f"the channel is enabled, but {names} has no value", "enabled", *missing)
        return self


class SnsSettings(ChannelSettings):
    enabled: bool = live(True, "Whether this channel is told.")


class SentinelsSettings(ChannelSettings):
    enabled: bool = live(True, "Whether sentinel files are written for readers of the old system.")


class SlackSettings(ChannelSettings):
    needs: ClassVar[tuple[str, ...]] = ("webhook_url",)

    webhook_url: SecretUrl = live(SecretStr(""), "Address of the incoming webhook (secret).")
    webhook_url_file: str = live("", "File that holds webhook_url.")


class LinearSettings(ChannelSettings):
    needs: ClassVar[tuple[str, ...]] = ("api_key", "team_id")

    event_types: tuple[EventType, ...] = live(
        (RecordType.ERROR, RecordType.COMPLETION),
        "Only these event types: state_change, error, completion, lock_timeout; empty for all.",
    )
    api_key: SecretStr = live(SecretStr(""), "Key of the Linear API (secret).")
    api_key_file: str = live("", "File that holds api_key.")
    team_id: SecretStr = live(SecretStr(""), "Team whose board gets the issues (kept secret).")
    team_id_file: str = live("", "File that holds team_id.")


class WebhookSettings(ChannelSettings):
    needs: ClassVar[tuple[str, ...]] = ("url",)

    url: SecretUrl = live(SecretStr(""), "Address that is posted to (secret).")
    url_file: str = live("", "File that holds url.")
    secret: SecretStr = live(
        SecretStr(""), "Key that signs each delivery (secret); empty signs none."
    )
    secret_file: str = live("", "File that holds secret.")


class EmailSettings(ChannelSettings):
    event_types: tuple[EventType, ...] = live(
        (RecordType.ERROR, RecordType.COMPLETION),
        "Only these event types: state_change, error, completion, lock_timeout; empty for all.",
    )
    via: Literal["smtp", "ses"] = live(
        "smtp", "What sends the mail: smtp (a mail server) or ses (Amazon SES, by the host's role)."
    )
    sender: MailAddress = live("", "Address that mails come from; with SES a verified one.")
    recipients: tuple[MailAddress, ...] = live(
        (), "Addresses that mails go to (at most 50); all of them see each other.", max_length=50
    )
    smtp_host: MailHost = live("", "Name of the mail server; its certificate must be for it.")
    smtp_port: int = live(
        0,
        "Port of the mail server (0 to 65535); 0 takes the usual one of smtp_security: 587, 465 or 25.",
        ge=0,
        le=65535,
    )
    smtp_security: Literal["starttls", "tls", "none"] = live(
        "starttls",
        "starttls (TLS after the greeting, or nothing is sent), tls (from the start) or none.",
    )
    smtp_user: str = live("", "User for the login at the mail server; empty for no login.")
    smtp_password: SecretStr = live(SecretStr(""), "Password for the login (secret).")
    smtp_password_file: str = live("", "File that holds smtp_password.")

    @model_validator(mode="after")
    def _can_send(self) -> Self:
        needed = ("sender", "recipients", *(["smtp_host"] if self.via == "smtp" else []))
        missing = [name for name in needed if not getattr(self, name)]
        if self.enabled and missing:
            names = " and ".join(missing)
            raise clash(f"the channel is enabled, but {names} has no value", "enabled", *missing)
        return self

    @model_validator(mode="after")
    def _logs_in_safely(self) -> Self:
        password = bool(self.smtp_password.get_secret_value())
        if self.enabled and password != bool(self.smtp_user):
            problem = "a login takes both smtp_user and smtp_password (or smtp_password_file)"
            raise clash(problem, "smtp_user", "smtp_password")
        in_clear = self.smtp_security == "none" and not is_this_machine(self.smtp_host)
        if self.enabled and password and in_clear:
            problem = (
                "smtp_security is none, and the password would be sent for everybody to read; set it to "
                "starttls or tls, or log in nowhere"
            )
            raise clash(problem, "smtp_security", "smtp_password")
        return self


class PagerDutySettings(ChannelSettings):
    needs: ClassVar[tuple[str, ...]] = ("routing_key",)

    routing_key: SecretStr = live(
        SecretStr(""), "Integration key of a service's Events API v2 integration (secret)."
    )
    routing_key_file: str = live("", "File that holds routing_key.")
    url: PostUrl = live(
        "https://events.pagerduty.com/v2/enqueue",
        "Address of the Events API; accounts in the EU have https://events.eu.pagerduty.com/v2/enqueue.",
    )


class OtlpSettings(ChannelSettings):
    needs: ClassVar[tuple[str, ...]] = ("url",)

    states: tuple[State, ...] = live(
        (State.COMPLETE, State.FAILED, State.CANCELED),
        "Only runs that end in these states; empty for all.",
    )
    url: SecretUrl = live(
        SecretStr(""),
        "Where a collector takes traces by OTLP over HTTP: https://host/v1/traces (secret).",
    )
    url_file: str = live("", "File that holds url.")
    header: SecretStr = live(
        SecretStr(""), "Header that tells the collector who we are, as name: value (secret)."
    )
    header_file: str = live("", "File that holds header.")


class NotificationsSettings(Section):
    sns: SnsSettings = SnsSettings()
    s3_sentinels: SentinelsSettings = SentinelsSettings()
    slack: SlackSettings = SlackSettings()
    linear: LinearSettings = LinearSettings()
    webhook: WebhookSettings = WebhookSettings()
    email: EmailSettings = EmailSettings()
    pagerduty: PagerDutySettings = PagerDutySettings()
    otlp: OtlpSettings = OtlpSettings()
    give_up_s: float = live(
        86400, "Age at which a notice that its channel never took is given up, in seconds.", gt=0
    )

    @property
    def channels(self) -> dict[str, ChannelSettings]:
        """Every channel by its name, switched on or not."""
        found = ((name, getattr(self, name)) for name in type(self).model_fields)
        return {name: value for name, value in found if isinstance(value, ChannelSettings)}
