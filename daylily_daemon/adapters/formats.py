"""The run as the item has it: in the names that readers of the old system know, and in those of format 1.

Since format 2 a run is one attribute, ``run``; since format 3 an item has its turn. What stands beside it
under older names is there for readers and is never read back. Items of format 1, in which a run was spread
over the item, become runs here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from daylily_daemon.domain.model import State
from daylily_daemon.domain.run import StepEnd
from daylily_daemon.domain.workset import Workset

Item = dict[str, Any]

_OLD_NAMES: Final[Mapping[str, tuple[str, str]]] = {
    "stage": ("staging", "staging_failed"),
    "run": ("pipeline_running", "pipeline_failed"),
    "export": ("exporting", "export_failed"),
    "metrics": ("collecting_metrics", "metrics_failed"),
    "cleanup": ("cleanup_headnode", "cleanup_failed"),
}
_FIRST_FORMAT_STEPS: Final = ("stage", "run", "export", "metrics", "cleanup")


OLDER_NAMES: Final = frozenset(
    {
        *("cluster_name", "results_s3_uri", "progress_step", "progress_message"),
        *(
            "progress_fraction",
            "run_id",
            "run_dir",
            "runner",
            "runner_scope",
            "step",
            "failed_step",
        ),
        *("jobs_dir", "timings", "step_started_at", "run_started_at"),
        *("stopping", "trouble", "unclear", "confirmed"),
    }
)
"""Attributes of format 1 that are none of a workset now: derived for readers, or gone."""


def names_for_readers(ws: Workset) -> Item:
    """Return what the old system's readers look for, as far as there is anything to say."""
    run, step = ws.run, ws.step
    item: Item = {
        "cluster_name": ws.cluster_name,
        "results_s3_uri": ws.results_uri,
        "progress_step": _progress_step(ws),
        "progress_message": ws.waiting_for if ws.state is State.READY else "",
    }
    if run is not None:
        item |= {"run_id": run.id, "run_dir": run.folder}
        item["failed_step"] = run.failed.name if run.failed else ""
        if run.latest:
            item |= {"runner": run.latest.runner, "runner_scope": run.latest.scope}
    if run is not None and step is not None:
        stopping = f"stopping: {run.stopping}" if run.stopping else ""
        item["step"] = step.name
        item["progress_message"] = stopping or run.progress.message
        item["progress_fraction"] = run.progress.fraction
    if ws.state is State.COMPLETE:
        item["progress_fraction"] = 1.0
    return item


def _progress_step(ws: Workset) -> str:
    if ws.state is State.COMPLETE:
        return "finalizing"
    if ws.step is not None:
        return _OLD_NAMES.get(ws.step.name, (f"{ws.step.name}_running", ""))[0]
    failed = ws.run.failed if ws.run else None
    return _OLD_NAMES.get(failed.name, ("", f"{failed.name}_failed"))[1] if failed else ""


def plan_of_format_1(plan: object) -> object:
    """Return the plan with what it did not say then: all steps but ``run`` were this program's own."""
    if not isinstance(plan, dict):
        return plan
    own = [step for step in plan.get("steps") or () if step != "run"]
    return {**plan, "own": own}


def run_of_format_1(item: Item) -> Item | None:
    """Return the run that an item of format 1 tells of, None if it tells of none."""
    if not item.get("run_id") or not item.get("attempt"):
        return None
    progress = {
        "fraction": item.get("progress_fraction"),
        "message": item.get("progress_message", ""),
    }
    told = {
        name: item[name]
        for name in ("stopping", "trouble", "unclear", "confirmed")
        if item.get(name)
    }
    return {
        **told,
        "id": item["run_id"],
        "attempt": item["attempt"],
        "key": "",
        "folder": item.get("run_dir", ""),
        "steps": list(_steps_of_format_1(item)),
        "started_at": item.get("run_started_at"),
        "progress": progress if item.get("step") else {"fraction": None, "message": ""},
        "results_uri": item.get("results_s3_uri", ""),
    }


def _steps_of_format_1(item: Item) -> Iterator[Item]:
    plan, times = item.get("plan") or {}, item.get("timings") or {}
    failed, current = item.get("failed_step") or "", item.get("step") or ""
    known = [step for step in _FIRST_FORMAT_STEPS if f"{step}_s" in times or step == failed]
    names = plan.get("steps") or known
    at = next((names.index(name) for name in (current, failed) if name in names), len(names))
    if not current and not failed and item.get("state") != State.COMPLETE:
        at = next((i for i, name in enumerate(names) if f"{name}_s" not in times), len(names))
    for place, name in enumerate(names):
        step = {
            "name": name,
            "fatal": name not in (plan.get("optional") or ()),
            "runner": item.get("runner", ""),
            "scope": item.get("runner_scope", ""),
            "place": f"{item.get('jobs_dir', '')}/{item['attempt']}-{name}",
            "seconds": times.get(f"{name}_s"),
        }
        if place < at:
            step["end"] = StepEnd.DONE
        elif place == at and name == current:
            step["started_at"] = item.get("step_started_at")
        elif place == at:
            step["end"] = StepEnd.FAILED if name == failed else StepEnd.STOPPED
        yield step
