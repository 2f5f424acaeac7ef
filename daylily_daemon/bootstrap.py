"""Where concrete classes meet: settings in, a wired daemon or tool out. The only place that names them."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from daylily_daemon.adapters import provision
from daylily_daemon.adapters.aws import Aws, AwsOptions, OnAnswer, OnCall, options_from, translated
from daylily_daemon.adapters.catalogue import DynamoCatalogue
from daylily_daemon.adapters.deadletters import DeadLetters, Pair
from daylily_daemon.adapters.drops import S3Drops
from daylily_daemon.adapters.dynamodb import DynamoTrail, DynamoWorksets
from daylily_daemon.adapters.envelopes import Origin, read_command, read_event, source_of
from daylily_daemon.adapters.host import RandomIds, Room, StateDir, SystemClock
from daylily_daemon.adapters.http import opened_session
from daylily_daemon.adapters.inputs import S3Inputs
from daylily_daemon.adapters.levels import QueueLevels, WatchedQueue
from daylily_daemon.adapters.metricdata import CloudWatchMetrics
from daylily_daemon.adapters.registry import DynamoRegistry
from daylily_daemon.adapters.s3 import S3Objects
from daylily_daemon.adapters.skew import ClockSkew
from daylily_daemon.adapters.sqs import Decode, QueueConfig, SourceOf, SqsMailbox
from daylily_daemon.adapters.tables import Tables
from daylily_daemon.adapters.turns import DynamoTurns
from daylily_daemon.channels import ChannelDeps, Channels
from daylily_daemon.domain.daemon import Drain
from daylily_daemon.domain.errors import Permanent
from daylily_daemon.domain.model import Record
from daylily_daemon.domain.places import territory
from daylily_daemon.engine.census import Census
from daylily_daemon.engine.counting import Counting
from daylily_daemon.engine.health import Health, guarded
from daylily_daemon.engine.intake import Intake
from daylily_daemon.engine.lease import LeaseConfig
from daylily_daemon.engine.live_settings import EngineSettings, LiveSettings
from daylily_daemon.engine.looks import Looks
from daylily_daemon.engine.outbox import Outbox, OutboxConfig
from daylily_daemon.engine.registration import Registration
from daylily_daemon.engine.shepherd import Shepherd
from daylily_daemon.engine.supervisor import Snapshot, Supervisor
from daylily_daemon.engine.tender import Place
from daylily_daemon.engine.writer import Writer
from daylily_daemon.ports import Clock, MetricStore, Trail
from daylily_daemon.runners import Runners
from daylily_daemon.settings.model import Settings

LOOPBACK_WAIT_S: Final = 1
"""Longest receive on an emulator: some never notice that a group became free during a long poll."""


def daemon_name(settings: Settings) -> str:
    return settings.daemon.name or socket.gethostname()


def aws_of(
    settings: Settings, on_call: OnCall | None = None, on_answer: OnAnswer | None = None
) -> Aws:
    given = AwsOptions(**settings.aws.model_dump())
    return Aws(options_from(os.environ, given), on_call=on_call, on_answer=on_answer)


def tables_of(settings: Settings) -> Tables:
    tables = settings.tables
    return Tables(
        worksets=tables.worksets,
        events=tables.events,
        control=tables.control,
        older_index=tables.state_index,
    )


def origin_of(settings: Settings) -> Origin:
    control = settings.control
    return Origin(bucket=control.bucket, prefix=control.prefix, account_id=control.account_id)


def wanted_of(
    settings: Settings, *, create_bucket: bool = False, drop_old_indexes: bool = False
) -> provision.Wanted:
    queues = settings.queues
    return provision.Wanted(
        bucket=settings.control.bucket,
        prefix=settings.control.prefix,
        tables=tables_of(settings),
        intake_queue=queues.intake,
        commands_queue=queues.commands,
        topic="" if settings.topic.sns_topic_arn else settings.topic.sns_topic_name,
        visibility_s=queues.visibility_s,
        max_receive=queues.max_receive,
        create_bucket=create_bucket,
        drop_old_indexes=drop_old_indexes,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Clients:
    """What the commands of the CLI work with."""

    settings: Settings
    aws: Aws
    worksets: DynamoWorksets
    turns: DynamoTurns
    catalogue: DynamoCatalogue
    trail: DynamoTrail
    objects: S3Objects
    registry: DynamoRegistry
    skew: ClockSkew

    async def mailbox(self, name: str, decode: Decode, *source_of: SourceOf) -> SqsMailbox:
        """Return the queue called ``name``. Raises Permanent if ``init`` has not made it."""
        pair, queues = await self.pair(name), self.settings.queues
        wait_s = min(queues.wait_s, LOOPBACK_WAIT_S) if self._on_loopback() else queues.wait_s
        config = QueueConfig(
            url=pair.url,
            dead_letter_url=pair.dead_url,
            wait_s=wait_s,
            visibility_s=queues.visibility_s,
        )
        return SqsMailbox(await self.aws.client("sqs"), config, decode, *source_of)

    async def pair(self, name: str) -> Pair:
        sqs = await self.aws.client("sqs")
        dead = provision.dead_letter_name(name)
        url, dead_url = await provision.find_queue(sqs, name), await provision.find_queue(sqs, dead)
        if url is None or dead_url is None:
            gone = name if url is None else dead
            raise Permanent(f"The queue {gone} does not exist. Run `daylily-daemon init` first.")
        return Pair(name=name, url=url, dead_url=dead_url)

    async def dead_letters(self) -> DeadLetters:
        """Return what was given up by either queue."""
        queues, origin = self.settings.queues, origin_of(self.settings)
        readers = {queues.intake: read_event, queues.commands: read_command}
        pairs = [
            replace(await self.pair(name), decode=partial(read, origin=origin))
            for name, read in readers.items()
        ]
        wait_s = 0 if self._on_loopback() else 1
        return DeadLetters(await self.aws.client("sqs"), pairs, wait_s=wait_s)

    async def commands(self) -> SqsMailbox:
        decode = partial(read_command, origin=origin_of(self.settings))
        return await self.mailbox(self.settings.queues.commands, decode)

    async def intake(self) -> SqsMailbox:
        decode = partial(read_event, origin=origin_of(self.settings))
        return await self.mailbox(self.settings.queues.intake, decode, source_of)

    async def unanswered(self, name: str) -> int:
        """Return how many messages of a queue wait or are with somebody who has not settled them, roughly."""
        url = (await self.pair(name)).url
        names = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
        sqs = await self.aws.client("sqs")
        async with translated(f"queue {name}"):
            answer = await sqs.get_queue_attributes(QueueUrl=url, AttributeNames=list(names))
        return sum(int(answer.get("Attributes", {}).get(attribute, "0")) for attribute in names)

    def _on_loopback(self) -> bool:
        return "://127.0.0.1" in self.settings.aws.endpoint_url


@asynccontextmanager
async def open_clients(settings: Settings, on_call: OnCall | None = None) -> AsyncIterator[Clients]:
    skew = ClockSkew(SystemClock())
    async with aws_of(settings, on_call, skew.heard) as aws:
        # The store repeats by itself, under the same nonce; the SDK must not do so inside a beat.
        dynamodb = await aws.client("dynamodb", max_attempts=1)
        tables = tables_of(settings)
        yield Clients(
            settings=settings,
            aws=aws,
            worksets=DynamoWorksets(dynamodb, tables),
            turns=DynamoTurns(dynamodb, tables),
            catalogue=DynamoCatalogue(dynamodb, tables),
            trail=DynamoTrail(dynamodb, tables),
            objects=S3Objects(await aws.client("s3")),
            registry=DynamoRegistry(dynamodb, tables.control),
            skew=skew,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Daemon:
    supervisor: Supervisor
    registration: Registration
    skew: ClockSkew
    live: LiveSettings
    channels: Channels
    census: Census
    metric_store: MetricStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """What the process wants to know of the daemon inside it."""

    on_pass: Callable[[Snapshot], None]
    counting: Counting
    on_drain: Callable[[Drain | None], None]


@asynccontextmanager
async def open_daemon(
    clients: Clients, engine_settings: EngineSettings, runners: Runners, owner: str, hooks: Hooks
) -> AsyncIterator[Daemon]:
    """Wire a daemon. Raises Permanent for what ``init`` has not made, Transient if AWS is away."""
    settings = clients.settings
    live = LiveSettings(engine_settings)
    clock = SystemClock()
    health = Health(clock)
    trail = guarded(clients.trail, "trail", health)
    async with opened_session(os.environ) as http:
        deps = ChannelDeps(
            http=http,
            objects=clients.objects,
            # The outbox repeats by itself; a repeat of the SDK would be one that nobody counts.
            sns=await clients.aws.client("sns", max_attempts=1),
            find_ses=partial(clients.aws.client, "sesv2", max_attempts=1),
            trail=trail,
        )
        channels = Channels(deps, settings, health)
        outbox = Outbox(trail, channels.current, clock, live, OutboxConfig(owner=owner))
        outbox.counting = hooks.counting
        census = Census(catalogue=guarded(clients.catalogue, "catalogue", health))

        def on_records(records: tuple[Record, ...]) -> None:
            outbox.take(records)
            census.moved(records)

        writer = Writer(
            worksets=guarded(clients.worksets, "worksets", health),
            clock=clock,
            ids=RandomIds(),
            owner=owner,
            live=live,
            on_records=on_records,
            counting=hooks.counting,
        )
        inner = Inner(writer=writer, live=live, outbox=outbox, trail=trail, health=health)
        supervisor, registration = await _supervisor(clients, runners, inner)
        supervisor.on_pass = hooks.on_pass
        registration.on_drain = hooks.on_drain
        yield Daemon(
            supervisor=supervisor,
            registration=registration,
            skew=clients.skew,
            live=live,
            channels=channels,
            census=census,
            metric_store=guarded(_metric_store(clients, clock), "cloudwatch", health),
        )


def _metric_store(clients: Clients, clock: Clock) -> CloudWatchMetrics:
    """A repeat by the SDK could count twice what the next minute makes up for."""
    return CloudWatchMetrics(partial(clients.aws.client, "cloudwatch", max_attempts=1), clock)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    """The parts of a daemon that others of its parts need."""

    writer: Writer
    live: LiveSettings
    outbox: Outbox
    trail: Trail
    health: Health


async def _supervisor(
    clients: Clients, runners: Runners, inner: Inner
) -> tuple[Supervisor, Registration]:
    settings, state = clients.settings, StateDir(clients.settings.daemon.state_dir)
    live, health = inner.live, inner.health
    by_name = {name: guarded(one, "runner", health) for name, one in runners.by_name.items()}
    room = Room(_folders(settings))
    intake, commands = await clients.intake(), await clients.commands()
    registration = Registration(
        owner=inner.writer.owner,
        registry=guarded(clients.registry, "registry", health),
        clock=inner.writer.clock,
        live=live,
        levels=guarded(await _levels(clients, intake, commands), "levels", health),
        disks=lambda: room.levels(live.current.min_free_bytes),
        owed=inner.outbox.owed,
    )
    supervisor = Supervisor(
        writer=inner.writer,
        turns=guarded(clients.turns, "turns", health),
        live=live,
        lease=lease_of(settings),
        place=Place(
            runner=runners.kind,
            scope=by_name[runners.kind].scope,
            data_dir=str(settings.daemon.data_dir),
            jobs_dir=state.jobs,
            former_scopes=runners.former_scopes,
        ),
        shepherd=Shepherd(runners=by_name, live=live, looks=Looks(live)),
        inputs=guarded(_inputs(clients, live), "inputs", health),
        intake=await _intake(clients, inner, intake, commands),
        outbox=inner.outbox,
        health=health,
        look_for_room=lambda: room.shortage(live.current.min_free_bytes),
        drained=registration.drained,
        release_s=settings.daemon.stop_deadline_s / 4,
        drain_s=settings.daemon.stop_deadline_s / 4,
    )
    return supervisor, registration


def _folders(settings: Settings) -> tuple[Path, Path]:
    return settings.daemon.state_dir, settings.daemon.data_dir


def _inputs(clients: Clients, live: LiveSettings) -> S3Inputs:
    settings, places = clients.settings, clients.settings.places
    return S3Inputs(
        clients.objects,
        lambda: live.current.default_pipeline,
        lambda: live.current.pipelines,
        local_roots=[str(root) for root in settings.inputs.local_roots],
        territory=territory(origin_of(settings), places.inputs, places.exports, _folders(settings)),
    )


async def _intake(
    clients: Clients, inner: Inner, events: SqsMailbox, commands: SqsMailbox
) -> Intake:
    settings, health = clients.settings, inner.health
    s3 = await clients.aws.client("s3")
    drops = S3Drops(s3, origin_of(settings), clients.worksets.announced)
    return Intake(
        events=guarded(events, "intake", health),
        commands=guarded(commands, "commands", health),
        drops=guarded(drops, "drops", health),
        trail=inner.trail,
        writer=inner.writer,
        live=inner.live,
        health=health,
        answer_s=settings.daemon.stop_deadline_s / 4,
        flood=inner.outbox.flood,
    )


async def _levels(clients: Clients, intake: SqsMailbox, commands: SqsMailbox) -> QueueLevels:
    queues = clients.settings.queues
    watched: dict[str, WatchedQueue] = {}
    for name, mailbox in ((queues.intake, intake), (queues.commands, commands)):
        pair = await clients.pair(name)
        dead = provision.dead_letter_name(name)
        watched[name] = WatchedQueue(url=pair.url, mailbox=mailbox, old_s=queues.old_s)
        watched[dead] = WatchedQueue(url=pair.dead_url, mailbox=None)
    sqs = await clients.aws.client("sqs")
    return QueueLevels(sqs=sqs, clock=SystemClock(), queues=watched)


def lease_of(settings: Settings) -> LeaseConfig:
    lease = settings.lease
    return LeaseConfig(ttl_s=lease.ttl_s, margin_s=lease.margin_s, beat_s=lease.beat_s)
