"""Pipelines: ordered step templates, and how one becomes a job.

A template is an argument list; a placeholder is ``{name}``. A value that is a list (``run_args``)
stands alone in its element and becomes as many elements as it has. Values are inserted once and
never looked at again, so nothing a lab writes can turn into a placeholder, an option or shell text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from daylily_daemon.domain.errors import Permanent
from daylily_daemon.domain.model import Job

Value = str | tuple[str, ...]

_PLACEHOLDER: Final = re.compile(r"\{([a-z_]+)\}")

PLACEHOLDERS: Final = frozenset(
    {
        "daylily",  # list: the argument list that runs this program
        "python",  # the interpreter this program runs on
        "workset",
        "customer",
        "bucket",
        "prefix",
        "input_uri",  # s3://bucket/prefix/
        "export_uri",  # s3://bucket/prefix/ ending in a slash
        "stage_dir",
        "work_dir",
        "results_dir",
        "jobs_dir",  # holds one folder per job, named <attempt>-<step>, with its log
        "run_args",  # list
        "clone_args",  # list
        "workdir_name",
        "cluster_name",
        "reference_genome",
        "region",
        "run_id",
        "attempt",
    }
)
"""Every placeholder a template may use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTemplate:
    step: str
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    cwd: str = "{work_dir}"
    timeout_s: float = 86_400.0
    grace_s: float = 30.0
    fatal: bool = True
    """False: a failure is recorded, and the run goes on."""
    success_file: str = ""
    report_file: str = ""
    progress_pattern: str = ""

    @property
    def is_own(self) -> bool:
        """Return whether this program does the step itself."""
        return self.argv[0] == "{daylily}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    name: str
    description: str = ""
    timeout_s: float = 0.0
    """How long the fatal steps of a run may take together, without the time between them; 0: any time."""
    steps: tuple[StepTemplate, ...]
    reference_genomes: tuple[str, ...] = ()
    """Those it runs. Empty: any if a step uses ``{reference_genome}``, and none can be asked for if not."""
    results_required: bool = False
    """Whether an export of no file at all is a failure, so that nothing is complete and empty."""
    obeys: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Columns and keys with a number that it obeys, with the least and the greatest it takes."""

    def template(self, step: str) -> StepTemplate | None:
        return next((t for t in self.steps if t.step == step), None)


def uses(pipeline: Pipeline, placeholder: str) -> bool:
    """Tell whether a step is given the value of a placeholder."""
    wanted = "{" + placeholder + "}"
    return any(
        wanted in text
        for template in pipeline.steps
        for text in (*template.argv, *template.environment.values(), template.cwd)
    )


def time_for(pipeline: Pipeline, template: StepTemplate, spent_s: float) -> float:
    """Return how long a step may take, in seconds, when those before it took ``spent_s``; 1 at least.

    A step that is not fatal has its own limit alone: it measures or clears away what the others left.
    """
    if not (pipeline.timeout_s and template.fatal):
        return template.timeout_s
    return min(template.timeout_s, max(1.0, pipeline.timeout_s - spent_s))


def unknown_placeholders(text: str) -> list[str]:
    """Return the placeholders of ``text`` that no template may use."""
    return [name for name in _PLACEHOLDER.findall(text) if name not in PLACEHOLDERS]


def fill(text: str, values: Mapping[str, Value]) -> str:
    """Insert single values. Raises Permanent for a missing one, or a list where one text is wanted."""

    def one(match: re.Match[str]) -> str:
        value = values.get(match[1])
        if isinstance(value, str):
            return value
        kind = "has no value here" if value is None else "is a list and must stand alone"
        raise Permanent(f"The placeholder {match[0]} in {text!r} {kind}; fix the pipeline file.")

    return _PLACEHOLDER.sub(one, text)


def fill_argv(argv: tuple[str, ...], values: Mapping[str, Value]) -> tuple[str, ...]:
    """Insert values into an argument list; a list value that stands alone is spread."""
    filled: list[str] = []
    for element in argv:
        whole = _PLACEHOLDER.fullmatch(element)
        value = values.get(whole[1]) if whole else None
        if isinstance(value, tuple):
            filled.extend(value)
        else:
            filled.append(fill(element, values))
    return tuple(filled)


def render(template: StepTemplate, values: Mapping[str, Value], found: Job) -> Job:
    """Return ``found`` with what it is to run. Raises Permanent for a template that cannot be filled."""
    return replace(
        found,
        argv=fill_argv(template.argv, values),
        environment={key: fill(text, values) for key, text in template.environment.items()},
        cwd=fill(template.cwd, values),
        timeout_s=template.timeout_s,
        grace_s=template.grace_s,
        success_file=fill(template.success_file, values),
        report_file=fill(template.report_file, values),
        progress_pattern=template.progress_pattern,
    )
