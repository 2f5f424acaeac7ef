"""The checks of ``doctor``, made of AWS, of this host and of its settings; and a test of one channel."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version as installed_version
from typing import Final

from daylily_daemon.adapters import provision
from daylily_daemon.adapters.aws import translated
from daylily_daemon.adapters.blocking import Disk
from daylily_daemon.adapters.codec import ITEM_FORMAT
from daylily_daemon.adapters.envelopes import IGNORE, READY
from daylily_daemon.adapters.host import Room, SystemClock
from daylily_daemon.adapters.http import opened_session
from daylily_daemon.adapters.notification import rule_of, untold
from daylily_daemon.adapters.provision import Provisioner
from daylily_daemon.adapters.rights import Needs, judged_rights
from daylily_daemon.adapters.runners.usable import HowJobsRun, judged_runner
from daylily_daemon.adapters.skew import FEWEST
from daylily_daemon.adapters.tablecheck import judged_tables
from daylily_daemon.adapters.whoami import judged_credentials, refused
from daylily_daemon.application.errors import NotFound
from daylily_daemon.application.examining import (
    INIT,
    Check,
    judged_clock,
    judged_disks,
    judged_queues,
    judged_settings,
    judged_versions,
    unreadable,
)
from daylily_daemon.application.health import judged, viewed
from daylily_daemon.application.telling import found_of_test, place_of_test, send_test
from daylily_daemon.bootstrap import Clients, open_clients, tables_of, wanted_of
from daylily_daemon.channels import NOTIFIERS, ChannelDeps
from daylily_daemon.composition.backend import backend_of
from daylily_daemon.composition.host import daemon_here
from daylily_daemon.domain.errors import CREDENTIALS, DaemonError, Permanent
from daylily_daemon.domain.finding import CheckName, CheckResult, Grade, ok
from daylily_daemon.domain.model import Record
from daylily_daemon.domain.paths import S3Place, split_s3
from daylily_daemon.in_force import enabled
from daylily_daemon.ports import Notifier
from daylily_daemon.runners import isolation_of, run_as_of, runner_kind
from daylily_daemon.settings.model import Settings
from daylily_daemon.settings.sources import BadSettings, Loaded, Sources, digests, load

Findings = Sequence[CheckResult]
LOOK_S: Final = 5.0
"""Longest wait for a disk of this host."""


def checks_without_settings(trouble: str) -> Sequence[Check]:
    async def look() -> Findings:
        return [unreadable(trouble)]

    return [Check(CheckName.SETTINGS, look)]


@asynccontextmanager
async def open_checks(where: Sources, by: str, *, send: bool) -> AsyncIterator[Sequence[Check]]:
    """Yield all checks; of settings that cannot be read the one that says so. Raises nothing of its own."""
    try:
        found = load(where)
    except BadSettings as bad:
        yield checks_without_settings(str(bad))
        return
    async with AsyncExitStack() as stack:
        try:
            asked = ReachableAws(
                await stack.enter_async_context(open_clients(found.settings)), None
            )
        except DaemonError as exc:
            asked = ReachableAws(None, exc)
        yield _all(found, where, asked, by, send=send)


@dataclass(frozen=True, slots=True)
class ReachableAws:
    """AWS, or why it cannot be asked."""

    clients: Clients | None
    why_not: DaemonError | None

    def aws(self) -> Clients:
        if self.clients is None:
            raise self.why_not or Permanent("AWS was not asked.")
        return self.clients


def _all(
    found: Loaded, where: Sources, asked: ReachableAws, by: str, *, send: bool
) -> Sequence[Check]:
    settings = found.settings
    of_aws: Mapping[CheckName, Callable[[Clients], Awaitable[Findings]]] = {
        CheckName.RIGHTS: _rights,
        CheckName.TABLES: _tables,
        CheckName.BUCKET: _bucket,
        CheckName.QUEUES: _queues,
        CheckName.CLOCK: _clock,
        CheckName.CHANNELS: partial(_channels, by=by, send=send),
        CheckName.VERSIONS: _versions,
    }
    of_host: Mapping[CheckName, Callable[[], Awaitable[Findings]]] = {
        CheckName.SETTINGS: partial(_settings, where, settings),
        CheckName.CREDENTIALS: partial(_credentials, asked),
        CheckName.DISKS: partial(_disks, settings),
        CheckName.RUNNER: partial(_runner, settings),
    }

    async def ask(look: Callable[[Clients], Awaitable[Findings]]) -> Findings:
        return await look(asked.aws())

    looks: dict[CheckName, Callable[[], Awaitable[Findings]]] = {
        **of_host,
        **{name: partial(ask, look) for name, look in of_aws.items()},
    }
    return [Check(name, looks[name]) for name in CheckName]


async def _versions(clients: Clients) -> Findings:
    now = SystemClock().now()
    daemons = [viewed(row, now) for row in await clients.registry.daemons()]
    return judged_versions(installed_version("daylily-daemon"), ITEM_FORMAT, daemons)


# --- this host ------------------------------------------------------------------------------------


async def _settings(where: Sources, settings: Settings) -> Findings:
    see = partial(daemon_here, settings.daemon.state_dir)
    seen = await Disk("state directory", limit_s=LOOK_S).run(see)
    file = str(where.config) if where.config else "The defaults and the environment"
    return judged_settings(file, digests(settings), judged(seen))


async def _disks(settings: Settings) -> Findings:
    room, least = Room((settings.daemon.state_dir, settings.daemon.data_dir)), settings.daemon
    min_free = int(least.min_free_gb * 1e9)
    return await judged_disks(
        SystemClock(), partial(room.levels, min_free), partial(room.shortage, min_free)
    )


async def _runner(settings: Settings) -> Findings:
    how = HowJobsRun(
        kind=runner_kind(settings, os.environ),
        isolation=isolation_of(settings, os.environ),
        is_asked=settings.runner.isolation != "auto",
        run_as=run_as_of(settings),
    )
    look = partial(judged_runner, how, os.environ)
    return await Disk("programs of the runner", limit_s=2 * LOOK_S).run(look)


# --- AWS ------------------------------------------------------------------------------------------


async def _credentials(asked: ReachableAws) -> Findings:
    if asked.why_not is not None and asked.why_not.code == CREDENTIALS:
        return [refused(asked.why_not)]
    return await judged_credentials(asked.aws().aws, SystemClock().now())


async def _rights(clients: Clients) -> Findings:
    settings, on = clients.settings, enabled(clients.settings)
    email, places = settings.notifications.email, settings.places
    topic_arn, finds = await _topic(clients) if "sns" in on else ("", False)
    needs = Needs(
        tables=tables_of(settings),
        queues=(settings.queues.intake, settings.queues.commands),
        bucket=settings.control.bucket,
        prefix=settings.control.prefix,
        inputs=_places(places.inputs),
        exports=_places(places.exports),
        writes_sentinels="s3_sentinels" in on,
        topic_arn=topic_arn,
        finds_topic=finds,
        sends_figures=settings.cloudwatch.enabled,
        mail_from=email.sender if "email" in on and email.via == "ses" else "",
    )
    return await judged_rights(clients.aws, needs)


def _places(uris: Sequence[str]) -> Sequence[S3Place]:
    return [place for uri in uris if (place := split_s3(uri))]


async def _topic(clients: Clients) -> tuple[str, bool]:
    """Return the ARN, empty if there is none or it cannot be looked for, and whether it has to be found."""
    topic = clients.settings.topic
    if topic.sns_topic_arn:
        return topic.sns_topic_arn, False
    with suppress(DaemonError):
        sns = await clients.aws.client("sns")
        return await provision.find_topic(sns, topic.sns_topic_name) or "", True
    return "", True


async def _tables(clients: Clients) -> Findings:
    db = await clients.aws.client("dynamodb")
    return await judged_tables(db, clients.turns, tables_of(clients.settings))


async def _bucket(clients: Clients) -> Findings:
    """Whether the intake queue hears of both triggers."""
    wanted, aws = wanted_of(clients.settings), clients.aws
    name = f"s3://{wanted.bucket}/{wanted.prefix}"
    sqs = await aws.client("sqs")
    url = await provision.find_queue(sqs, wanted.intake_queue)
    if url is None:
        return [_no_queue(wanted.intake_queue)]
    arn = await provision.queue_arn(sqs, url)
    s3 = await aws.client("s3")
    async with translated(f"bucket {wanted.bucket}"):
        have = await s3.get_bucket_notification_configuration(Bucket=wanted.bucket)
    ours = [rule_of(wanted.prefix, arn, trigger) for trigger in (READY, IGNORE)]
    silent = untold(have.get("QueueConfigurations", []), ours)
    if not silent:
        return [ok(f"{name} sends events of {READY} and {IGNORE} to {wanted.intake_queue}.")]
    triggers = " and ".join(t for t in (READY, IGNORE) if t.replace(".", "-") in silent)
    text = f"{name} sends no event of {triggers} to {wanted.intake_queue}."
    if "EventBridgeConfiguration" in have or have.get("TopicConfigurations"):
        more = (
            "It tells EventBridge or a topic; whether that reaches the queue is not seen from here."
        )
        return [CheckResult(grade=Grade.WARN, text=f"{text} {more}")]
    remedy = (
        "Drops are found by listing meanwhile, which is late. With the rights to set up the bucket"
    )
    return [CheckResult(grade=Grade.FAIL, text=text, remedy=remedy, command=INIT)]


def _no_queue(name: str) -> CheckResult:
    text = f"There is no queue {name} to send events to: see the check of the queues."
    return CheckResult(grade=Grade.FAIL, text=text, command=INIT)


async def _queues(clients: Clients) -> Findings:
    parts = Provisioner(clients.aws, wanted_of(clients.settings)).queues()
    return await judged_queues(backend_of(clients), parts)


async def _clock(clients: Clients) -> Findings:
    return await judged_clock(SystemClock(), partial(_skew, clients))


async def _skew(clients: Clients) -> float | None:
    """A refusal has a date, too."""
    sqs = await clients.aws.client("sqs")
    for _ in range(FEWEST):
        with suppress(DaemonError):
            await provision.find_queue(sqs, clients.settings.queues.intake)
    return clients.skew.seconds()


# --- channels -------------------------------------------------------------------------------------


async def _channels(clients: Clients, *, by: str, send: bool) -> Findings:
    settings, found = clients.settings, list[CheckResult]()
    async with _channel_deps(clients) as deps:
        for name in enabled(settings):
            found.append(await _channel(name, settings, deps, by, send=send))
        if "sns" in enabled(settings) and not settings.topic.sns_topic_arn and not send:
            found += await _missing_topic(clients)
    wrong = [one for one in found if one.grade is not Grade.OK]
    if wrong or send:
        return wrong or found
    names = ", ".join(enabled(settings)) or "none is switched on"
    return [ok(f"{names}. Nothing was sent; `doctor --send` sends each a test message.")]


async def _channel(
    name: str, settings: Settings, deps: ChannelDeps, by: str, *, send: bool
) -> CheckResult:
    try:
        notifier = NOTIFIERS[name](settings, deps)
    except DaemonError as exc:
        return CheckResult(grade=Grade.FAIL, text=str(exc), remedy=f"Correct notifications.{name}")
    return await found_of_test(notifier, name, by, _place(settings)) if send else ok(name)


async def _missing_topic(clients: Clients) -> Findings:
    name = clients.settings.topic.sns_topic_name
    sns = await clients.aws.client("sns")
    if await provision.find_topic(sns, name) is not None:
        return []
    text = f"The topic {name} does not exist; notices wait for it."
    remedy = "Switch notifications.sns off, or make it"
    return [CheckResult(grade=Grade.FAIL, text=text, remedy=remedy, command=INIT)]


def _place(settings: Settings) -> Record:
    control = settings.control
    return place_of_test(control.bucket, control.prefix, SystemClock().now())


@asynccontextmanager
async def _channel_deps(clients: Clients) -> AsyncIterator[ChannelDeps]:
    async with opened_session(os.environ) as http:
        yield ChannelDeps(
            http=http,
            objects=clients.objects,
            sns=await clients.aws.client("sns", max_attempts=1),
            find_ses=partial(clients.aws.client, "sesv2", max_attempts=1),
            trail=clients.trail,
        )


async def tested(settings: Settings, channel: str, by: str) -> str:
    """Send a test message through a channel; return what came of it. Raises NotFound, and what it raises."""
    if channel not in NOTIFIERS:
        known = ", ".join(NOTIFIERS)
        raise NotFound(f"There is no channel {channel[:100]!r}. There are: {known}.")
    if channel not in enabled(settings):
        raise Permanent(
            f"Nothing was sent: {channel} is switched off. Set notifications.{channel}.enabled to true first."
        )
    async with open_clients(settings) as clients, _channel_deps(clients) as deps:
        notifier: Notifier = NOTIFIERS[channel](settings, deps)
        return await send_test(notifier, channel, by, _place(settings))


def switched_on(settings: Settings) -> Mapping[str, bool]:
    """Return every channel, and whether it is told."""
    return {name: name in enabled(settings) for name in NOTIFIERS}
