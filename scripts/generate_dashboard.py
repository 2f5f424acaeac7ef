"""Writes deploy/grafana/daylily.json, the dashboard of all daemons of a lab.

Usage: generate_dashboard.py [--check] [FILE]. With --check nothing is written, and the exit code is 1 if the
file is stale. A panel answers one question that an operator asks; its title is that question.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from grafana_foundation_sdk.builders import common, dashboard, prometheus, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement
from grafana_foundation_sdk.models.dashboard import DataSourceRef, VariableRefresh, VariableSort

FILE: Final = Path(__file__).resolve().parent.parent / "deploy" / "grafana" / "daylily.json"
SOURCE: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")
HERE: Final = '{instance=~"$instance"}'
"""Of what each daemon tells of itself; what all tell alike is taken once, by max."""
SECONDS, BYTES, PER_SECOND, NUMBER = "s", "bytes", "ops", "short"


@dataclass(frozen=True, slots=True)
class Line:
    """Series of one expression, and what each is called."""

    expr: str
    legend: str


@dataclass(frozen=True, slots=True)
class Question:
    title: str
    unit: str
    lines: tuple[Line, ...]
    more: str = ""


def quantile(share: float, metric: str, by: str, window: str) -> Line:
    """Few things end in an hour: a rate over less would be a gap most of the time."""
    rate = f"sum by (le, {by}) (rate({metric}_bucket{HERE}[{window}]))"
    return Line(f"histogram_quantile({share}, {rate})", f"{{{{{by}}}}}, {share:.0%} within")


QUESTIONS: Final = (
    Question(
        "What is wrong?",
        NUMBER,
        (
            Line(
                f"sum by (instance, kind) (daylily_problems{HERE}) > 0", "{{kind}} on {{instance}}"
            ),
        ),
        "What `daylily-daemon status` names, warnings too.",
    ),
    Question(
        "How many worksets are in which state?",
        NUMBER,
        (Line("max by (state) (daylily_worksets)", "{{state}}"),),
        "Stored states of all worksets; 1000 stands for more.",
    ),
    Question(
        "Are slots free?",
        NUMBER,
        (
            Line(f"daylily_slots_used{HERE}", "used on {{instance}}"),
            Line(f"daylily_slots{HERE}", "slots of {{instance}}"),
            Line(f"daylily_draining{HERE} > 0", "{{instance}} is drained"),
        ),
    ),
    Question(
        "How long do worksets wait for their start?",
        SECONDS,
        (
            quantile(0.5, "daylily_wait_seconds", "priority", "6h"),
            quantile(0.95, "daylily_wait_seconds", "priority", "6h"),
        ),
    ),
    Question(
        "How do they end?",
        NUMBER,
        (
            Line(
                f"sum by (outcome, code) (increase(daylily_worksets_ended_total{HERE}[6h])) > 0",
                "{{outcome}} {{code}}",
            ),
        ),
        "Within six hours. `daylily-daemon list --state failed` names them.",
    ),
    Question(
        "How long do the steps take?",
        SECONDS,
        (
            quantile(0.5, "daylily_step_seconds", "step", "1d"),
            quantile(0.95, "daylily_step_seconds", "step", "1d"),
        ),
    ),
    Question(
        "Is a job quiet, or does it not stop?",
        SECONDS,
        (
            Line(f"daylily_job_quietest_seconds{HERE}", "quiet on {{instance}}"),
            Line(f"daylily_job_overdue_seconds{HERE} > 0", "overdue on {{instance}}"),
        ),
    ),
    Question(
        "How old is what waits in the queues?",
        SECONDS,
        (Line("max by (queue) (daylily_queue_oldest_message_age_seconds)", "{{queue}}"),),
    ),
    Question(
        "How much lies in the queues?",
        NUMBER,
        (
            Line("max by (queue) (daylily_queue_messages)", "{{queue}}"),
            Line("max by (queue) (daylily_queue_in_flight) > 0", "{{queue}}, in flight"),
        ),
        "Whatever lies in a queue of dead letters was given up: `daylily-daemon dlq list`.",
    ),
    Question(
        "Which calls fail, and for how long?",
        SECONDS,
        (
            Line(
                f"max by (instance, port) (daylily_port_failing_seconds{HERE}) > 0",
                "{{port}} on {{instance}}",
            ),
        ),
    ),
    Question(
        "What becomes of the calls of AWS?",
        PER_SECOND,
        (
            Line(
                f"sum by (service, outcome) (rate(daylily_aws_calls_total{HERE}[5m])) > 0",
                "{{service}} {{outcome}}",
            ),
        ),
    ),
    Question(
        "Who is not told yet, and since when?",
        SECONDS,
        (
            Line(
                "max by (channel) (daylily_notice_oldest_owed_age_seconds) > 0",
                "{{channel}}, oldest notice",
            ),
        ),
    ),
    Question(
        "How many notices are owed?",
        NUMBER,
        (Line(f"sum by (channel) (daylily_notices_owed{HERE})", "{{channel}}"),),
    ),
    Question(
        "Is there room on the disks?",
        BYTES,
        (
            Line(f"daylily_disk_free_bytes{HERE}", "{{folder}} on {{instance}}"),
            Line(f"daylily_disk_required_bytes{HERE}", "needed in {{folder}} on {{instance}}"),
        ),
    ),
    Question(
        "Does every daemon finish its passes?",
        SECONDS,
        (Line(f"time() - daylily_last_pass_timestamp_seconds{HERE}", "last pass of {{instance}}"),),
    ),
)


def panel(question: Question) -> timeseries.Panel:
    legend = common.VizLegendOptions()
    legend.display_mode(LegendDisplayMode.TABLE).placement(LegendPlacement.RIGHT).calcs(["last"])
    legend.show_legend(True)
    made = timeseries.Panel().title(question.title).description(question.more)
    made.unit(question.unit).min(0).datasource(SOURCE).span(12).height(8).legend(legend)
    for number, line in enumerate(question.lines):
        target = prometheus.Dataquery().expr(line.expr).legend_format(line.legend).range()
        made.with_target(target.ref_id(chr(ord("A") + number)).datasource(SOURCE))
    return made


def board() -> dashboard.Dashboard:
    source = dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
    instance = dashboard.QueryVariable("instance").label("Daemon").datasource(SOURCE)
    instance.query("label_values(daylily_build_info, instance)").multi(True).include_all(True)
    instance.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).sort(VariableSort.ALPHABETICAL_ASC)
    made = dashboard.Dashboard("Daylily worksets").uid("daylily-worksets").tags(["daylily"])
    made.time("now-24h", "now").refresh("1m").timezone("browser").readonly()
    made.with_variable(source).with_variable(instance)
    for question in QUESTIONS:
        made.with_panel(panel(question))
    return made


def text() -> str:
    return f"{JSONEncoder(sort_keys=True, indent=1).encode(board().build())}\n"


def main(arguments: Sequence[str]) -> int:
    files = [Path(argument) for argument in arguments if argument != "--check"]
    file, made = files[0] if files else FILE, text()
    if "--check" in arguments:
        fresh: Any = file.exists() and file.read_text(encoding="utf-8") == made
        sys.stderr.write("" if fresh else f"{file.name} is stale: run `make docs`.\n")
        return 0 if fresh else 1
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
