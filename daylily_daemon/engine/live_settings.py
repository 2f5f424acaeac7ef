"""What operators may change while the daemon runs: one frozen value, swapped whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from daylily_daemon.domain.admission import Limits
from daylily_daemon.domain.lifecycle import Policy
from daylily_daemon.domain.pipeline import Pipeline, Value
from daylily_daemon.domain.routing import Routing


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    limits: Limits
    min_free_bytes: int
    """Room a disk must have before another workset is started on it; 0 does not look."""
    sweep_s: float
    reconcile_s: float
    input_poll_s: float
    progress_interval_s: float
    """Between two looks at a job's progress."""
    policy: Policy
    pipelines: Mapping[str, Pipeline]
    default_pipeline: str
    """Of a recipe that names none."""
    values: Mapping[str, Value]
    """Placeholder values that do not depend on the workset: ``daylily``, ``python``, ``region``."""
    environment: Mapping[str, str]
    """Given to every job."""
    grace_s: float | None
    """Overrides the grace period of the pipelines when set."""
    routing: Routing
    give_up_s: float
    """Age at which a notice that no one takes is given up."""


class LiveSettings:
    """Holds the settings in force. Readers take ``current`` once per decision."""

    def __init__(self, current: EngineSettings) -> None:
        self.current = current
