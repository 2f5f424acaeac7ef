"""What a running daemon takes from its settings and from the files they name."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from daylily_daemon.adapters import identity
from daylily_daemon.adapters.notifiers.pagerduty import RESOLVING
from daylily_daemon.adapters.pipelines import load_pipelines
from daylily_daemon.domain.admission import Limits
from daylily_daemon.domain.failures import FailurePattern
from daylily_daemon.domain.lifecycle import Policy
from daylily_daemon.domain.model import State
from daylily_daemon.domain.pipeline import Pipeline
from daylily_daemon.domain.routing import Filter, Routing
from daylily_daemon.engine.live_settings import EngineSettings
from daylily_daemon.settings.model import Settings
from daylily_daemon.settings.notifications import ChannelSettings
from daylily_daemon.settings.sources import shipped

ALWAYS_TOLD: Final[Mapping[str, frozenset[State]]] = {"pagerduty": RESOLVING}
"""States that channels hear of whatever their filters say."""


def pipelines_of(settings: Settings) -> Mapping[str, Pipeline]:
    """Read the pipelines folder. Raises Permanent with every problem in it."""
    folder = Path(settings.pipelines.dir) if settings.pipelines.dir else shipped("pipelines")
    return load_pipelines(folder)


def engine_settings_of(settings: Settings) -> EngineSettings:
    """Return what the running daemon takes from ``settings``. Raises what a pipeline file breaks."""
    daemon = settings.daemon
    return EngineSettings(
        limits=limits_of(settings),
        min_free_bytes=int(daemon.min_free_gb * 1e9),
        sweep_s=daemon.sweep_s,
        reconcile_s=daemon.reconcile_s,
        input_poll_s=settings.inputs.poll_s,
        progress_interval_s=settings.progress.interval_s,
        policy=policy_of(settings),
        pipelines=pipelines_of(settings),
        default_pipeline=settings.pipelines.default,
        values={
            "daylily": (sys.executable, "-P", "-m", "daylily_daemon"),
            "python": sys.executable,
            "region": settings.aws.region,
        },
        environment=job_environment(settings),
        grace_s=settings.runner.grace_s,
        routing=routing_of(settings),
        give_up_s=settings.notifications.give_up_s,
    )


def limits_of(settings: Settings) -> Limits:
    daemon = settings.daemon
    return Limits(
        slots=daemon.max_worksets,
        per_customer=daemon.max_per_customer,
        age_s=daemon.age_s,
        cluster=daemon.cluster or identity.cluster_of_this_host(),
    )


def policy_of(settings: Settings) -> Policy:
    retry = settings.retry
    patterns = tuple(
        FailurePattern(p.pattern, p.code, p.category, p.retry, p.meaning) for p in retry.patterns
    )
    return Policy(
        max_retries=retry.max_retries,
        base_s=retry.base_s,
        cap_s=retry.cap_s,
        input_wait_s=settings.inputs.wait_s,
        patterns=patterns,
        urgent_customers=settings.daemon.urgent_customers,
    )


def job_environment(settings: Settings) -> dict[str, str]:
    """Return what tells a job's AWS tools the same as our own settings."""
    aws = settings.aws
    known = {
        "AWS_REGION": aws.region,
        "AWS_DEFAULT_REGION": aws.region,
        "AWS_PROFILE": aws.profile,
        "AWS_ENDPOINT_URL": aws.endpoint_url,
        "DAYLILY_SHARED_RESULTS": settings.places.shared_results,
    }
    return {name: value for name, value in known.items() if value}


def routing_of(settings: Settings) -> Routing:
    return Routing({name: _filter(name, channel) for name, channel in enabled(settings).items()})


def enabled(settings: Settings) -> dict[str, ChannelSettings]:
    """Return the channels that are switched on."""
    channels = settings.notifications.channels
    return {name: channel for name, channel in channels.items() if channel.enabled}


def _filter(name: str, channel: ChannelSettings) -> Filter:
    return Filter(
        event_types=frozenset(channel.event_types),
        states=frozenset(channel.states),
        priorities=frozenset(channel.priorities),
        customers=frozenset(channel.customers),
        always=ALWAYS_TOLD.get(name, frozenset()),
    )
