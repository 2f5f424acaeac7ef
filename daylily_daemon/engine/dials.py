"""What operators may change while the daemon runs: one frozen value, swapped whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from daylily_daemon.domain.admission import Limits
from daylily_daemon.domain.lifecycle import Policy
from daylily_daemon.domain.pipeline import Pipeline, Value
from daylily_daemon.domain.routing import Routing


@dataclass(frozen=True, slots=True, kw_only=True)
class Dials:
    limits: Limits = field(default_factory=lambda: Limits(slots=8))
    min_free_bytes: int = 0
    """Room a disk must have before another workset is started on it; 0 does not look."""
    sweep_s: float = 15.0
    reconcile_s: float = 600.0
    input_poll_s: float = 5.0
    look_s: float = 1.0
    """Between two looks at a job's progress."""
    policy: Policy = field(default_factory=Policy)
    pipelines: Mapping[str, Pipeline] = field(default_factory=dict)
    default_pipeline: str = ""
    """Of a recipe that names none."""
    values: Mapping[str, Value] = field(default_factory=dict)
    """Placeholder values that do not depend on the workset: ``daylily``, ``python``, ``region``."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Given to every job."""
    grace_s: float | None = None
    """Overrides the grace period of the pipelines when set."""
    routing: Routing = field(default_factory=Routing)
    give_up_s: float = 86_400.0
    """Age at which a notice that no one takes is given up."""


class Live:
    """Holds the dials in force. Readers take ``now`` once per decision."""

    def __init__(self, dials: Dials) -> None:
        self.now = dials
