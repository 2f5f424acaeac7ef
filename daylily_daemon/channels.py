"""The channels: from the settings of each to what tells people."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import aiohttp

from daylily_daemon.adapters import provision
from daylily_daemon.adapters.host import SystemClock
from daylily_daemon.adapters.http import trust
from daylily_daemon.adapters.notifiers.linear import Linear
from daylily_daemon.adapters.notifiers.otlp import Otlp
from daylily_daemon.adapters.notifiers.pagerduty import PagerDuty
from daylily_daemon.adapters.notifiers.s3_sentinels import S3Sentinels
from daylily_daemon.adapters.notifiers.ses import SesMail
from daylily_daemon.adapters.notifiers.slack import Slack
from daylily_daemon.adapters.notifiers.smtp import MailServer, SmtpMail
from daylily_daemon.adapters.notifiers.sns import NamedTopic, Sns
from daylily_daemon.adapters.notifiers.webhook import Webhook
from daylily_daemon.adapters.s3 import S3Objects
from daylily_daemon.domain.errors import Impeded
from daylily_daemon.domain.totality import total
from daylily_daemon.engine.health import Health, guarded
from daylily_daemon.in_force import enabled
from daylily_daemon.ports import Notifier, Trail
from daylily_daemon.settings.model import Settings
from daylily_daemon.settings.notifications import NotificationsSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelDeps:
    """What channels may need to reach people."""

    http: aiohttp.ClientSession
    objects: S3Objects
    sns: Any
    find_ses: Callable[[], Awaitable[Any]]
    trail: Trail


def _sns(settings: Settings, deps: ChannelDeps) -> Notifier:
    topic = settings.topic
    if topic.sns_topic_arn:
        return Sns(client=deps.sns, topic_arn=topic.sns_topic_arn)
    return NamedTopic(client=deps.sns, find=partial(_topic_arn, deps.sns, topic.sns_topic_name))


def _s3_sentinels(settings: Settings, deps: ChannelDeps) -> Notifier:
    return S3Sentinels(objects=deps.objects)


def _slack(settings: Settings, deps: ChannelDeps) -> Notifier:
    url = settings.notifications.slack.webhook_url.get_secret_value()
    return Slack(session=deps.http, url=url)


def _linear(settings: Settings, deps: ChannelDeps) -> Notifier:
    linear = settings.notifications.linear
    key, team = linear.api_key.get_secret_value(), linear.team_id.get_secret_value()
    return Linear(session=deps.http, api_key=key, team_id=team)


def _webhook(settings: Settings, deps: ChannelDeps) -> Notifier:
    hook = settings.notifications.webhook
    url, secret = hook.url.get_secret_value(), hook.secret.get_secret_value()
    return Webhook(session=deps.http, url=url, secret=secret, clock=SystemClock())


def _email(settings: Settings, deps: ChannelDeps) -> Notifier:
    mail = settings.notifications.email
    if mail.via == "ses":
        return SesMail(find_client=deps.find_ses, sender=mail.sender, recipients=mail.recipients)
    server = MailServer(
        host=mail.smtp_host,
        port=mail.smtp_port,
        security=mail.smtp_security,
        user=mail.smtp_user,
        password=mail.smtp_password.get_secret_value(),
        tls=trust(os.environ),
    )
    return SmtpMail(server=server, sender=mail.sender, recipients=mail.recipients)


def _pagerduty(settings: Settings, deps: ChannelDeps) -> Notifier:
    pager = settings.notifications.pagerduty
    key, region = pager.routing_key.get_secret_value(), settings.aws.region
    return PagerDuty(session=deps.http, routing_key=key, url=pager.url, region=region)


def _otlp(settings: Settings, deps: ChannelDeps) -> Notifier:
    otlp = settings.notifications.otlp
    url, header = otlp.url.get_secret_value(), otlp.header.get_secret_value()
    return Otlp(session=deps.http, url=url, header=header, trail=deps.trail)


_NOTIFIERS: Final[Mapping[str, Callable[[Settings, ChannelDeps], Notifier]]] = {
    "sns": _sns,
    "s3_sentinels": _s3_sentinels,
    "slack": _slack,
    "linear": _linear,
    "webhook": _webhook,
    "email": _email,
    "pagerduty": _pagerduty,
    "otlp": _otlp,
}
NOTIFIERS: Final = total("channels.NOTIFIERS", _NOTIFIERS, list(NotificationsSettings().channels))
"""Every channel, by the name of its section under ``notifications``."""


class Channels:
    """The channels in force, rebuilt by a reload."""

    def __init__(self, deps: ChannelDeps, settings: Settings, health: Health) -> None:
        self._outlets = deps
        self._health = health
        self._built: Mapping[str, Notifier] = {}
        self.rebuild(settings)

    def rebuild(self, settings: Settings) -> None:
        """Raises Permanent for a channel that cannot be built; the old ones stay in force then."""
        self._built = {
            name: guarded(NOTIFIERS[name](settings, self._outlets), f"channel:{name}", self._health)
            for name in enabled(settings)
        }
        self._health.keep_only("channel:", self._built)

    def current(self) -> Mapping[str, Notifier]:
        return self._built


async def _topic_arn(sns: Any, name: str) -> str:
    """Raises Impeded if there is no such topic: notices wait until there is one."""
    arn = await provision.find_topic(sns, name)
    if arn is None:
        raise Impeded(
            f"The topic {name} does not exist. Run `daylily-daemon init`, set topic.sns_topic_arn, or "
            "switch notifications.sns off."
        )
    return arn
