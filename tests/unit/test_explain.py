"""What ``explain`` says follows from what is known: it never says that something runs which may not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from daylily_daemon.application.explaining import View, why
from daylily_daemon.application.health import NEVER_RAN, HealthVerdict, LocalDaemon, viewed
from daylily_daemon.domain.daemon import Registered, Status
from daylily_daemon.domain.model import (
    Category,
    Plan,
    Priority,
    Progress,
    Record,
    RecordType,
    State,
    Transition,
)
from daylily_daemon.domain.problems import HealthProblem, ProblemKind
from daylily_daemon.domain.workset import Failure, Lock, Workset
from tests.made import STEPS, a_run, a_workset
from tests.unit.engine_settings import some_limits

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
ME = "lab/m1/d1"
WELL = HealthVerdict("well")
ILL = HealthVerdict(
    "lab/m1/d1: running",
    (
        HealthProblem(
            kind=ProblemKind.HANGS, about="daemon", text="It hangs: no pass was finished."
        ),
    ),
)
PLAN = Plan(pipeline="demo", steps=STEPS)


def _workset(id: str = "HG002", **changes: Any) -> Workset:
    dropped = NOW - timedelta(hours=1)
    usual: dict[str, Any] = {"submitted_at": dropped, "plan": PLAN, "now": dropped}
    return a_workset(id, **{**usual, **changes})


def _running(
    id: str = "HG002", owner: str | None = ME, left_s: float = 40, customer: str = "", **run: Any
) -> Workset:
    """Return one whose claim holds ``left_s`` seconds more; ``run`` are fields of its run."""
    expires_at = NOW + timedelta(seconds=left_s)
    return _workset(
        id,
        state=State.IN_PROGRESS,
        attempt=2,
        customer_id=customer,
        lock=owner and Lock(owner=owner, acquired_at=NOW, expires_at=expires_at),
        run=a_run("run", attempt=2, scope="host:m1/d1", **run),
    )


def _daemon(
    *active: str, verdict: HealthVerdict = WELL, alive: bool = True, **changes: Any
) -> LocalDaemon:
    fields: dict[str, Any] = {"pid": 1, "owner": ME, "max_worksets": 8}
    status = Status(**{**fields, "active": dict.fromkeys(active, ""), **changes})
    return LocalDaemon(status, verdict, alive)


NOBODY = LocalDaemon(None, NEVER_RAN)


def _why(
    ws: Workset,
    daemon: LocalDaemon,
    waiting: Sequence[Workset] = (),
    running: Sequence[Workset] = (),
) -> str:
    limits = some_limits(slots=1, per_customer=1)
    view = View(
        now=NOW,
        daemon=daemon,
        limits=limits,
        waiting=waiting,
        runs={r.id: r.request.customer_id for r in running},
    )
    return "\n".join(why(ws, view))


# --- in progress --------------------------------------------------------------------------------------


def test_it_runs_only_where_a_daemon_that_is_well_holds_it() -> None:
    said = _why(_running(), _daemon("HG002"))
    assert said == "It runs, attempt 2, held by lab/m1/d1: run."


@pytest.mark.parametrize(
    ("changes", "daemon", "words"),
    [
        ({}, _daemon("HG002", verdict=ILL), "this daemon is not well"),
        ({}, _daemon("other"), "Whether lab/m1/d1 is well"),
        ({}, _daemon("HG002", alive=False, verdict=ILL), "held by lab/m1/d1 until"),
        (
            {"owner": "two/m2/d2"},
            _daemon("HG002"),
            "held by two/m2/d2 until 2026-03-04 05:06:47",
        ),
        ({}, NOBODY, "status` tells on its host"),
        (
            {"left_s": -120},
            NOBODY,
            "has not renewed its claim since 2026-03-04 05:04:07 UTC",
        ),
        (
            {"left_s": -120},
            _daemon("HG002"),
            "this daemon is not well",
        ),
        ({"left_s": -120}, NOBODY, "retry HG002 --host-gone"),
        ({"owner": None}, NOBODY, "No daemon holds it now"),
        ({"owner": None}, NOBODY, "retry HG002 --host-gone"),
        ({"trouble": "Its job cannot be started: no room."}, _daemon("HG002"), "no room"),
        (
            {"trouble": "Its folder cannot be read.", "unclear": True},
            _daemon("HG002"),
            "--host-gone",
        ),
    ],
)
def test_it_is_never_said_to_run_where_that_is_not_known(
    changes: dict[str, Any], daemon: LocalDaemon, words: str
) -> None:
    said = _why(_running(**changes), daemon)
    assert "It runs" not in said
    assert words in said


# --- waiting ------------------------------------------------------------------------------------------


def test_an_idle_daemon_has_no_slot_taken_whatever_runs_elsewhere() -> None:
    elsewhere = [_running(f"far-{n}", "two/m2/d2") for n in range(8)]
    ws = _workset()
    said = _why(ws, _daemon(), waiting=[ws], running=elsewhere)
    assert said == "It waits at place 1 of 1. A slot is free and it is next."


def test_the_slots_are_those_the_daemon_said_it_has_given() -> None:
    ws = _workset()
    first = _workset("first", submitted_at=NOW - timedelta(hours=2))
    said = _why(ws, _daemon("a", "b", max_worksets=2), waiting=[ws, first])
    assert said.startswith("It waits at place 2 of 2. ")
    assert "slots are taken" in said


def test_what_the_daemon_counts_with_is_what_it_says_and_not_what_is_configured_here() -> None:
    ws = _workset(plan=replace(PLAN, cluster_name="east"))
    assert "is on cluster west" in _why(ws, _daemon(cluster="west"), waiting=[ws])
    assert "A slot is free" in _why(ws, _daemon(cluster="east"), waiting=[ws])
    low = _workset(priority=Priority.LOW, submitted_at=NOW - timedelta(hours=2))
    late = _workset("late", submitted_at=NOW - timedelta(minutes=1))
    assert "place 1 of 2" in _why(low, _daemon(age_s=3600.0), waiting=[low, late])
    assert "place 2 of 2" in _why(low, _daemon(age_s=9000.0), waiting=[low, late])


def test_only_what_could_start_has_a_place_in_the_line() -> None:
    ws = _workset()
    unchecked = _workset("unchecked", plan=None, submitted_at=NOW - timedelta(hours=9))
    assert "place 1 of 1" in _why(ws, _daemon(), waiting=[unchecked, ws])


def test_a_workset_that_nobody_can_start_waits_for_a_daemon_and_has_no_place() -> None:
    said = _why(_workset(), NOBODY, waiting=[_workset()])
    assert said.startswith(
        "It is ready to start, and waits for a daemon.\nNo daemon runs on this host"
    )
    assert "place" not in said


def test_a_daemon_that_is_not_well_is_the_first_thing_to_mend() -> None:
    said = _why(_workset(), _daemon(verdict=ILL), waiting=[_workset()])
    assert "It hangs: no pass was finished." in said


def test_the_limit_of_a_customer_counts_what_runs_on_every_host() -> None:
    elsewhere = [_running("far", "two/m2/d2", customer="lab-7")]
    ws = _workset(customer_id="lab-7")
    said = _why(ws, _daemon(max_per_customer=1), waiting=[ws], running=elsewhere)
    assert (
        "Customer lab-7 already takes 1 slot, and the limit is 1 (daemon.max_per_customer)." in said
    )
    free = _why(ws, _daemon(max_per_customer=2), waiting=[ws], running=elsewhere)
    assert "A slot is free" in free


def test_what_holds_the_daemon_back_holds_the_workset_back() -> None:
    said = _why(_workset(), _daemon(held="The disk is full."), waiting=[_workset()])
    assert "The disk is full." in said


def test_a_retry_that_is_not_due_says_when_and_what_failed() -> None:
    ws = _workset(state=State.RETRYING, retry_after=NOW + timedelta(minutes=1), error="It broke.")
    said = _why(ws, _daemon(), waiting=[ws])
    assert said == "It is tried again at 2026-03-04 05:07:07 UTC.\nThe last try failed: It broke."


# --- at rest ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"state": State.COMPLETE, "run": a_run(results_uri="s3://b/r/")}, "Results: s3://b/r/"),
        ({"state": State.COMPLETE}, "Results: none were exported"),
        (
            {
                "state": State.ERROR,
                "failure": Failure(
                    code="WS-DAT-001", category=Category.DATA, details="R1 is missing."
                ),
            },
            "R1 is missing.\nCode WS-DAT-001, category data.\nWhen the cause is fixed: ",
        ),
        ({"state": State.FAILED}, "nothing was written down about why"),
        (
            {
                "state": State.IGNORED,
                "history": (Transition(state=State.IGNORED, at=NOW, reason="ignored by cli:a@b"),),
            },
            "It was ignored by cli:a@b. `daylily-daemon retry HG002` makes",
        ),
        ({"state": State.ARCHIVED}, "brings it back; it is ignored then."),
        (
            {"state": State.DELETED},
            "Nothing brings it back; its trail and its files in S3 are kept",
        ),
        ({"state": State.COMPLETE, "warnings": ("Something was left behind.",)}, "left behind"),
    ],
)
def test_a_workset_at_rest_says_why_and_what_to_do(changes: dict[str, Any], words: str) -> None:
    assert words in _why(_workset(**changes), NOBODY)


# --- what others know ---------------------------------------------------------------------------------


def _view(**changes: Any) -> View:
    return View(now=NOW, daemon=NOBODY, limits=some_limits(), **changes)


def test_how_a_holder_on_another_host_is_the_registry_tells() -> None:
    silent = Registered(
        owner="two/m2/d2aabbccdd",
        said_at=NOW - timedelta(hours=5),
        status=Status(owner="two/m2/d2aabbccdd", active={"HG002": "run"}),
    )
    ws = _running(owner="two/m2/d2aabbccdd")
    said = "\n".join(why(ws, _view(holder=viewed(silent, NOW))))
    assert "two/d2aabbcc is silent, and was heard of 5 h ago. It says:" in said
    assert "held 1 workset" in said
    fine = replace(silent, said_at=NOW, status=Status(seen_at=NOW, sweep_s=15))
    assert "is running, and was heard of 0 s ago." in "\n".join(
        why(ws, _view(holder=viewed(fine, NOW)))
    )


def test_what_happened_last_ends_an_explanation() -> None:
    ws = _workset(state=State.COMPLETE)
    refused = Record(
        workset_id=ws.id,
        seq=7,
        at=NOW,
        type=RecordType.COMMAND,
        state=ws.state,
        message="daylily.ready came again and was not taken: it is complete.",
    )
    *_, head, last = why(ws, _view(events=[refused]))
    assert head == "What happened last:"
    assert last == f"  2026-03-04 05:06:07  {refused.message}"
    assert "daylily-daemon rerun HG002" in "\n".join(why(ws, _view()))


# --- its job --------------------------------------------------------------------------------------

HOURS = timedelta(hours=1)


def _at_run(**changes: Any) -> Workset:
    ws = _running(**changes)
    assert ws.run is not None
    begun: Any = {"started_at": NOW - 19 * HOURS, "limit_s": 24 * 3600.0, "grace_s": 30.0}
    steps = tuple(replace(s, **begun) if s.end is None else s for s in ws.run.steps)
    return replace(ws, run=replace(ws.run, steps=steps))


def test_of_a_job_it_says_since_when_and_until_when_it_may_run() -> None:
    told = _why(_at_run(), _daemon("HG002"))
    assert "Step run (2 of 5) runs for 19 h 00, of at most 24 h 00." in told
    assert "hang" not in told


def test_a_job_that_is_quiet_for_hours_may_hang() -> None:
    quiet = Progress(None, "", NOW - timedelta(hours=4, minutes=51))
    told = _why(_at_run(progress=quiet), _daemon("HG002"))
    assert "Its log: quiet 4 h 51, last written to 2026-03-04 00:15:07 UTC." in told
    assert "`daylily-daemon cancel HG002 --wait`" in told
    short = Progress(None, "", NOW - timedelta(minutes=3))
    told = _why(_at_run(progress=short), _daemon("HG002"))
    assert "quiet 3 min" in told
    assert "hang" not in told


@pytest.mark.parametrize(
    ("since_s", "said"),
    [
        (10, "the rest of it is killed at 2026-03-04 05:06:27"),
        (100, "has been killed since 2026-03-04 05:04:57: what still runs waits for the kernel"),
    ],
)
def test_a_job_that_is_being_stopped_says_since_when_and_what_comes_next(
    since_s: int, said: str
) -> None:
    stopping = {"stopping": "canceled", "stopping_at": NOW - timedelta(seconds=since_s)}
    told = _why(_at_run(**stopping), _daemon("HG002"))
    assert said in told
    assert "may hang" not in told


def test_complete_and_empty_is_told_apart_from_complete() -> None:
    done = _workset(state=State.COMPLETE, run=a_run(results_uri="s3://b/r/", results_files=0))
    assert "has no results: 0 files" in _why(done, NOBODY)
    done = replace(done, run=a_run(results_uri="s3://b/r/", results_files=3, results_bytes=2500))
    assert "It is complete. Results: s3://b/r/ (3 files, 2.5 kB)" in _why(done, NOBODY)
    untold = replace(done, run=a_run(results_uri="s3://b/r/"))
    assert "It is complete. Results: s3://b/r/\n" in _why(untold, NOBODY)
