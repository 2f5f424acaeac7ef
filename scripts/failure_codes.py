"""The table of failure codes: asked of the functions that give them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from daylily_daemon.domain.decision import Decision, refuse
from daylily_daemon.domain.events import JobExited, JobRefused
from daylily_daemon.domain.failures import KNOWN, classify
from daylily_daemon.domain.lifecycle import decide
from daylily_daemon.domain.model import (
    Category,
    Ended,
    Outcome,
    Problem,
    State,
)
from daylily_daemon.domain.workset import Failure, Workset
from daylily_daemon.in_force import policy_of
from daylily_daemon.settings.model import Settings

HEADING: Final = ("code", "what happened", "category", "tried again")
Cause = tuple[str, str, Category, str]
"""Code, what happened, category, whether it is tried again."""
InState = Callable[[State], Workset]


def rows(in_state: InState) -> list[list[str]]:
    """Return one row a code, sorted; ``in_state`` makes an example of a workset."""
    by_code: dict[str, list[str]] = {}
    causes = [*_of_jobs(), *_of_input(in_state), _of_the_daemon(in_state), _of_results(in_state)]
    for code, why, category, retry in sorted(causes, key=lambda cause: cause[0]):
        row = by_code.setdefault(code, [code, "", str(category), retry])
        if why not in row[1]:
            row[1] += f", or: {why}" if row[1] else why
    return list(by_code.values())


def _of_jobs() -> Iterator[Cause]:
    for known in KNOWN:
        again = _again(known.retry, ours=known.ours)
        yield known.code, f"log: {known.meaning}", known.category, again
    for ended in (ended for ended in Ended if ended not in (Ended.EXITED, Ended.SIGNALLED)):
        failure = classify(Outcome(ended=ended))
        why = f"job: {failure.message.removeprefix('It ').rstrip('.')}"
        yield failure.code, why, failure.category, _again(failure.retry)
    unknown = classify(Outcome(ended=Ended.EXITED, code=1))
    why = "job: failed, and no pattern knows why"
    yield unknown.code, why, unknown.category, _again(unknown.retry)


def _of_input(in_state: InState) -> Iterator[Cause]:
    for category, why in _REFUSALS.items():
        problem = Problem("file", "", "", "", category)
        ws = refuse(Decision(in_state(State.READY)), (problem,), in_state(State.READY).created_at)
        yield _failure_of(ws.workset).code, why, category, _again(retry=False)


def _of_the_daemon(in_state: InState) -> Cause:
    ws = in_state(State.IN_PROGRESS)
    assert ws.job
    refused = decide(ws, JobRefused(ws.job, ""), policy_of(Settings()), ws.created_at).workset
    why = "job: cannot be started, its pipeline or runner is not set up on this daemon"
    again = _again(refused.state is State.RETRYING)
    return _failure_of(refused).code, why, Category.CONFIGURATION, again


def _of_results(in_state: InState) -> Cause:
    ws = in_state(State.IN_PROGRESS)
    assert ws.job
    assert ws.plan
    strict = replace(ws, plan=replace(ws.plan, results_required=True))
    empty = Outcome(ended=Ended.EXITED, code=0, report={"results_s3_uri": "s3://b/r/", "files": 0})
    end = JobExited(ws.job, empty, fatal=True)
    failed = _failure_of(decide(strict, end, policy_of(Settings()), ws.created_at).workset)
    why = "results: no file was exported, and the pipeline says `results: required`"
    return failed.code, why, failed.category, _again(retry=False)


def _failure_of(ws: Workset) -> Failure:
    assert ws.failure is not None
    return ws.failure


def _again(retry: bool, *, ours: bool = False) -> str:
    if not retry:
        return "no"
    return "yes; a step of this program uses up no try: ours to fix" if ours else "yes"


_REFUSALS: Final = {
    Category.DATA: "input: refused for its data",
    Category.CONFIGURATION: "input: refused for its recipe, its access rights or its name",
}
