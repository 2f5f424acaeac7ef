"""Worksets for tests, made from what a test names; the rest is plain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from daylily_daemon.domain.model import Category, State, WorksetId
from daylily_daemon.domain.run import Run, StepEnd, StepRun
from daylily_daemon.domain.workset import Failure, Lock, Request, Workset

NOW: Final = datetime(2026, 3, 1, tzinfo=UTC)
_REQUEST: Final = {field.name for field in fields(Request)}
STEPS: Final = ("stage", "run", "export", "metrics", "cleanup")


def a_lock(owner: str, now: datetime = NOW) -> Lock:
    return Lock(owner=owner, acquired_at=now, expires_at=now + timedelta(minutes=1))


def a_workset(
    id: str = "w1",
    state: State = State.READY,
    *,
    owner: str | None = None,
    error: str = "",
    now: datetime = NOW,
    **named: Any,
) -> Workset:
    """Return a workset; ``owner`` holds it, ``error`` is why it failed. Fields of its request go there."""
    asked = {name: named.pop(name) for name in _REQUEST & set(named)}
    request = Request(**{"bucket": "b", "prefix": f"p/{id}/", **asked})
    lock = a_lock(owner, now) if owner else None
    failure = (
        Failure(code="WS-UNK-000", category=Category.TRANSIENT, details=error) if error else None
    )
    return Workset(
        id=WorksetId(id),
        state=state,
        **{
            "request": request,
            "lock": lock,
            "failure": failure,
            "created_at": now,
            "updated_at": now,
            **named,
        },
    )


def a_run(
    step: str = "",
    *,
    failed: str = "",
    steps: Sequence[str] = STEPS,
    times: Mapping[str, float] | None = None,
    runner: str = "process",
    scope: str = "host:1",
    jobs_dir: str = "/j/w1/r1",
    **named: Any,
) -> Run:
    """Return the first run at ``step``, or one in which ``failed`` failed, or one that is done."""
    attempt = named.get("attempt", 1)
    made = [
        StepRun(name=name, runner=runner, scope=scope, place=f"{jobs_dir}/{attempt}-{name}")
        for name in steps
    ]
    at = list(steps).index(step or failed) if step or failed else len(made)
    seconds = times or {}
    done = [replace(s, end=StepEnd.DONE, seconds=seconds.get(s.name, 1.0)) for s in made[:at]]
    left = made[at:]
    if failed:
        left[0] = replace(left[0], end=StepEnd.FAILED)
    known = {"id": "r1", "attempt": attempt, "key": "", "folder": "/d/w1/r1", **named}
    return Run(steps=(*done, *left), **known)


def running(id: str = "w1", step: str = "run", owner: str | None = None, **named: Any) -> Workset:
    """Return a workset whose first attempt is at ``step``; ``named`` are fields of its run."""
    run = a_run(step, **{"jobs_dir": f"/j/{id}/r1", "folder": f"/d/{id}/r1", **named})
    return a_workset(id, State.IN_PROGRESS, owner=owner, run=run, attempt=run.attempt)


def asked(ws: Workset, **changes: Any) -> Workset:
    """Return the workset with changes of its request."""
    return replace(ws, request=replace(ws.request, **changes))


def at_run(ws: Workset, **changes: Any) -> Workset:
    """Return the workset with changes of its run."""
    assert ws.run is not None
    return replace(ws, run=replace(ws.run, **changes))
