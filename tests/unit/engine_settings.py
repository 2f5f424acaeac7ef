"""What a daemon under test is set to; a test names what it depends on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from daylily_daemon.domain.admission import Limits
from daylily_daemon.domain.lifecycle import Policy
from daylily_daemon.domain.routing import Routing
from daylily_daemon.engine.lease import LeaseConfig
from daylily_daemon.engine.live_settings import EngineSettings

_LIMITS: Final = Limits(slots=8, per_customer=0, age_s=36 * 3600.0, cluster="")
_POLICY: Final = Policy(
    max_retries=2,
    base_s=60.0,
    cap_s=3600.0,
    input_wait_s=120.0,
    patterns=(),
    urgent_customers=("*",),
)
_SETTINGS: Final = EngineSettings(
    limits=_LIMITS,
    min_free_bytes=0,
    sweep_s=15.0,
    reconcile_s=600.0,
    input_poll_s=5.0,
    progress_interval_s=1.0,
    policy=_POLICY,
    pipelines={},
    default_pipeline="",
    values={},
    environment={},
    grace_s=None,
    routing=Routing(),
    give_up_s=86_400.0,
)


def some_limits(**changes: Any) -> Limits:
    return replace(_LIMITS, **changes)


def a_policy(**changes: Any) -> Policy:
    return replace(_POLICY, **changes)


def some_engine_settings(**changes: Any) -> EngineSettings:
    return replace(_SETTINGS, **changes)


def a_lease() -> LeaseConfig:
    return LeaseConfig(ttl_s=60.0, margin_s=10.0, beat_s=15.0)
