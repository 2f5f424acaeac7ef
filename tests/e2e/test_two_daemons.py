"""Two daemons of one head node: one hangs, one leaves, both take; a job is never started twice."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import replace

import pytest

from daylily_daemon.adapters.host import StateDir
from daylily_daemon.domain.model import RecordType, State
from tests.e2e.harness import TINY, Daemon, Lab, until
from tests.e2e.listeners import MailBox, Told, mail_box, webhook

STEPS = ("stage", "run", "export")
GATED = 'while [ ! -e "$gate" ]; do sleep 0.1; done'
STUBBORN = f'trap "" TERM; {GATED}'
EACH_STEP_ONCE = {f"long 1 {step}": 1 for step in STEPS}
FENCED = "claimed by another daemon"


@pytest.fixture
def lab(lab: Lab) -> Lab:
    """Leases of three seconds, looked at twice a second.

    A message that the last poll of a daemon took along when it ended comes again after ten.
    """
    lab.configure(
        queues={"visibility_s": 10},
        lease={"ttl_s": 3, "margin_s": 0.5, "beat_s": 0.5},
        daemon={"sweep_s": 0.5},
    )
    lab.pipeline("noting", stage="", run=GATED, export="")
    lab.pipeline("stubborn", run=STUBBORN)
    return lab


@pytest.fixture
def hook(lab: Lab) -> Iterator[Told]:
    with webhook(lab) as told:
        yield told


@pytest.fixture
def mail(lab: Lab) -> MailBox:
    return mail_box(lab)


def _start(lab: Lab, name: str, *arguments: str) -> Daemon:
    """Start a daemon of that name, with a state directory of its own."""
    state = StateDir(lab.folder / f"state-{name}")
    settings = (f"daemon.name={name}", f"daemon.state_dir={state.path}", *arguments)
    daemon = lab.start(*(word for pair in settings for word in ("--set", pair)), wait=False)
    daemon.state = state
    daemon.wait_up()
    return daemon


def _with_a_run_in_progress(lab: Lab, *arguments: str) -> tuple[Daemon, Daemon]:
    """Return the daemon that holds the workset ``long``, whose step ``run`` waits, and another."""
    owner = _start(lab, "one", *arguments)
    lab.drop_sample("long")
    lab.wait_started("long", "1 run")
    lab.wait_paid("long")
    return owner, _start(lab, "two")


def _take_over(lab: Lab, owner: Daemon) -> None:
    """Stop the owner until the other one has the workset."""
    owner.send(signal.SIGSTOP)
    record = lab.wait_told("long", "takes over; one/")
    assert record.message.startswith("two/")
    assert (record.type, record.state) == (RecordType.LOCK_TIMEOUT, State.IN_PROGRESS)


def _assert_told_once(lab: Lab, workset: str, *tolds: Told) -> None:
    notices = [record.id for record in lab.trail(workset) if record.notify]
    for told in tolds:
        assert told.of(workset) == notices
        assert told.changed() == []


def _assert_dropped(lab: Lab, owner: Daemon) -> None:
    """The daemon that hung noticed, and the store took nothing from it any more."""
    owner.wait_said("lease_lost")
    refused = owner.wait_said("not_released")
    assert FENCED in refused["error"]
    until(lambda: "long" not in owner.status().get("active", {}), why=owner.log_text)


# --- one hangs ---------------------------------------------------------------------------------------


def test_the_job_of_a_daemon_that_hangs_is_adopted_and_ended_by_the_other(
    lab: Lab, hook: Told, mail: MailBox
) -> None:
    owner, other = _with_a_run_in_progress(lab)
    before = lab.wait_until("long", lambda ws: ws.owner)
    _take_over(lab, owner)
    lab.open_gate("long")
    done = lab.wait_for("long", State.COMPLETE)
    assert (done.fence, done.attempt) == (before.fence + 1, 1)
    lab.wait_paid("long")
    trail = lab.trail("long")
    owner.send(signal.SIGCONT)
    _assert_dropped(lab, owner)
    after = lab.load("long")
    assert after is not None
    assert (after.version, after.state, lab.trail("long")) == (done.version, done.state, trail)
    assert lab.evidence() == EACH_STEP_ONCE
    assert lab.exit_codes() == dict.fromkeys(EACH_STEP_ONCE, 0)
    _assert_told_once(lab, "long", hook, mail.empty())
    assert (owner.terminate(), other.terminate()) == (0, 0)


def test_a_daemon_that_hung_lets_the_other_go_on_and_serves_what_comes_next(
    lab: Lab, hook: Told
) -> None:
    owner, other = _with_a_run_in_progress(lab)
    _take_over(lab, owner)
    owner.send(signal.SIGCONT)
    _assert_dropped(lab, owner)
    assert lab.running_jobs() == ["long 1 run"]
    held = lab.load("long")
    assert held is not None
    assert str(held.owner).startswith("two/")
    lab.open_gate("long")
    lab.wait_for("long", State.COMPLETE)
    assert other.terminate() == 0
    lab.open_gate("next")
    lab.wait_for(lab.drop_sample("next"), State.COMPLETE)
    assert set(lab.evidence().values()) == {1}
    assert owner.said("claimed")[-1]["workset"] == "next"
    for workset in ("long", "next"):
        lab.wait_paid(workset)
        _assert_told_once(lab, workset, hook)


def test_a_short_hang_costs_nothing(lab: Lab) -> None:
    lab.configure(lease={"ttl_s": 30})
    owner, other = _with_a_run_in_progress(lab)
    before = lab.wait_until("long", lambda ws: ws.owner)
    owner.send(signal.SIGSTOP)
    seen = other.status()["passes"]
    until(lambda: other.status()["passes"] > seen + 4, why=other.log_text)
    owner.send(signal.SIGCONT)
    lab.open_gate("long")
    done = lab.wait_for("long", State.COMPLETE)
    assert done.fence == before.fence
    assert not owner.said("lease_lost")
    assert lab.evidence() == EACH_STEP_ONCE


# --- a cancel, and whom it reaches -------------------------------------------------------------------


def test_a_cancel_that_the_other_daemon_reads_reaches_the_owner(lab: Lab, hook: Told) -> None:
    """The owner listens at a queue of its own here, so that only the other one can read the cancel."""
    queue = lab.settings["queues"]["commands"]
    lab.configure(queues={"commands": f"only-{queue}"})
    lab.provision()
    lab.configure(queues={"commands": queue}, lease={"ttl_s": 30})
    owner, other = _with_a_run_in_progress(lab, f"queues.commands=only-{queue}")
    before = lab.wait_until("long", lambda ws: ws.owner)
    assert lab.run_cli("cancel", "long", "--reason", "wrong flow cell").code == 0
    canceled = lab.wait_for("long", State.CANCELED)
    assert other.wait_said("command_taken")["asked"] == "cancel"
    assert not owner.said("command_taken")[1:]
    assert not other.said("claimed")
    assert canceled.fence == before.fence
    assert canceled.history[-1].reason.endswith(": wrong flow cell")
    assert lab.running_jobs() == []
    assert lab.evidence() == {"long 1 stage": 1, "long 1 run": 1}
    lab.wait_paid("long")
    _assert_told_once(lab, "long", hook)


def test_a_cancel_of_a_workset_whose_owner_hangs_is_done_by_the_other(lab: Lab) -> None:
    owner, _ = _with_a_run_in_progress(lab)
    _take_over(lab, owner)
    assert lab.run_cli("cancel", "long").code == 0
    canceled = lab.wait_for("long", State.CANCELED)
    owner.send(signal.SIGCONT)
    _assert_dropped(lab, owner)
    assert lab.load("long") == canceled
    assert lab.running_jobs() == []
    assert lab.evidence() == {"long 1 stage": 1, "long 1 run": 1}


def test_a_cancel_in_flight_when_its_daemon_leaves_is_ended_by_the_other(
    lab: Lab, hook: Told
) -> None:
    lab.configure(runner={"grace_s": 10})  # longer than the owner takes to leave
    owner = _start(lab, "one")
    lab.drop_sample("long", replace(TINY, pipeline="stubborn"))
    lab.wait_started("long", "1 run")
    other = _start(lab, "two")
    assert lab.run_cli("cancel", "long").code == 0
    lab.wait_told("long", "is being stopped")
    assert owner.terminate() == 0
    lab.wait_for("long", State.CANCELED)
    assert owner.said("stopped")[-1]["in_time"] is True
    assert [told["workset"] for told in other.said("claimed")] == ["long"]
    assert lab.running_jobs() == []
    assert lab.evidence() == {"long 1 run": 1}
    lab.wait_paid("long")
    _assert_told_once(lab, "long", hook)
    assert other.terminate() == 0


def test_a_cancel_that_comes_while_a_daemon_leaves_is_not_lost(lab: Lab) -> None:
    owner, _ = _with_a_run_in_progress(lab)
    owner.send(signal.SIGTERM)
    assert lab.run_cli("cancel", "long").code == 0
    assert owner.ended() == 0
    lab.wait_for("long", State.CANCELED)
    assert lab.running_jobs() == []
    assert lab.evidence() == {"long 1 stage": 1, "long 1 run": 1}


# --- both take ---------------------------------------------------------------------------------------


def test_two_daemons_share_what_is_dropped_and_nothing_runs_or_is_told_twice(
    lab: Lab, hook: Told, mail: MailBox
) -> None:
    lab.pipeline("noting", stage="", run="sleep 1", export="")
    lab.configure(lease={"ttl_s": 30}, daemon={"max_worksets": 2})
    daemons = [_start(lab, name) for name in ("one", "two")]
    names = [f"both-{n}" for n in range(6)]
    for name in names:
        lab.drop_sample(name)
    for name in names:
        lab.wait_for(name, State.COMPLETE)
        lab.wait_paid(name)
    assert lab.evidence() == {f"{name} 1 {step}": 1 for name in names for step in STEPS}
    claims = [record["workset"] for daemon in daemons for record in daemon.said("claimed")]
    assert sorted(claims) == names
    assert all(daemon.said("claimed") for daemon in daemons)
    mailed = mail.empty()
    for name in names:
        _assert_told_once(lab, name, hook, mailed)
