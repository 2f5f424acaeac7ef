"""Items and messages come back as they went, and old items can still be read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daylily_daemon.adapters import codec
from daylily_daemon.adapters.codec import (
    ATTRIBUTES,
    ITEM_FORMAT,
    Unusable,
    command_from_dict,
    command_to_dict,
    plain_item,
    record_from_item,
    record_to_item,
    typed_item,
    workset_from_item,
    workset_to_item,
)
from daylily_daemon.domain.errors import Newer
from daylily_daemon.domain.model import (
    Archive,
    Ask,
    Cancel,
    Category,
    Command,
    Delete,
    Fence,
    HostLost,
    Ignore,
    Plan,
    Priority,
    Problem,
    Progress,
    Record,
    RecordType,
    Restore,
    Retry,
    SetPriority,
    State,
    Submit,
    Transition,
    WorksetId,
)
from daylily_daemon.domain.run import Run, StepEnd, StepRun
from daylily_daemon.domain.workset import Failure, Lock, Request, Workset
from tests.made import a_run, a_workset

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
times = st.timedeltas(timedelta(0), timedelta(days=400)).map(lambda d: NOW + d)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**15), 10**15) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
mappings = st.dictionaries(texts, json_values, max_size=3)
asks = st.one_of(
    st.builds(Submit, bucket=texts, prefix=texts),
    st.builds(Cancel, reason=texts),
    st.builds(Retry, from_start=st.booleans()),
    st.builds(HostLost, from_start=st.booleans()),
    st.builds(Archive, reason=texts),
    st.just(Restore()),
    st.builds(Delete, reason=texts),
    st.builds(Ignore, reason=texts),
    st.builds(SetPriority, priority=st.sampled_from(Priority)),
)
commands = st.builds(
    Command,
    id=texts.filter(bool),
    workset_id=st.just(WorksetId("HG002")),
    by=texts.filter(bool),
    ask=asks,
)
steps = st.builds(
    StepRun,
    name=st.sampled_from(["stage", "run", "verify"]),
    fatal=st.booleans(),
    place=texts,
    started_at=st.none() | times,
    seconds=st.none() | st.floats(0, 1e6),
    end=st.none() | st.sampled_from(StepEnd),
)
runs = st.builds(
    Run,
    id=st.just("r1"),
    attempt=st.integers(1, 99),
    key=texts,
    folder=texts,
    steps=st.lists(steps, max_size=3).map(tuple),
    stopping=texts,
    progress=st.builds(Progress, fraction=st.none() | st.floats(0, 1), message=texts),
    reports=mappings,
)
worksets = st.builds(
    Workset,
    id=st.just(WorksetId("HG002")),
    request=st.builds(Request, bucket=texts, prefix=texts, customer_id=texts, metadata=mappings),
    created_at=times,
    updated_at=times,
    priority=st.sampled_from(Priority),
    state=st.sampled_from(State),
    plan=st.none()
    | st.builds(
        Plan,
        pipeline=texts,
        steps=st.just(("run",)),
        cluster_name=texts,
        run_args=st.lists(texts, max_size=3).map(tuple),
    ),
    lock=st.none() | st.builds(Lock, owner=texts.filter(bool), acquired_at=times, expires_at=times),
    fence=st.integers(0, 10**9).map(Fence),
    run=st.none() | runs,
    failure=st.none()
    | st.builds(
        Failure,
        code=texts.filter(bool),
        category=st.sampled_from(Category),
        details=texts.filter(bool),
    ),
    inbox=st.lists(commands, max_size=2).map(tuple),
    seen_commands=st.lists(texts, max_size=2).map(tuple),
    retry_after=st.none() | times,
    history=st.lists(
        st.builds(Transition, state=st.sampled_from(State), at=times, reason=texts), max_size=3
    ).map(tuple),
)


@given(worksets)
def test_a_workset_survives_its_item(ws: Workset) -> None:
    assert workset_from_item(plain_item(typed_item(workset_to_item(ws)))) == ws


@given(worksets)
def test_every_attribute_is_always_there_or_known_as_one_to_take_away(ws: Workset) -> None:
    assert set(workset_to_item(ws)) - ALWAYS <= ATTRIBUTES


@given(
    st.builds(
        Record,
        workset_id=st.just(WorksetId("HG002")),
        seq=st.integers(1, 10**6),
        at=times,
        type=st.sampled_from(RecordType),
        state=st.sampled_from(State),
        previous=st.none() | st.sampled_from(State),
        message=texts,
        details=mappings,
        notify=st.booleans(),
        owed=st.sets(texts.filter(bool), max_size=3).map(frozenset),
        given_up=st.sets(texts.filter(bool), max_size=3).map(frozenset),
    )
)
def test_a_record_survives_its_item(record: Record) -> None:
    assert record_from_item(plain_item(typed_item(record_to_item(record)))) == record


def test_times_are_written_in_utc_with_z() -> None:
    ws = a_workset(now=NOW)
    assert workset_to_item(ws)["created_at"] == "2026-03-01T12:00:00Z"


OLD: dict[str, Any] = {
    "workset_id": "old-1",
    "state": "ready",
    "priority": "normal",
    "bucket": "control",
    "prefix": "daylily_monitoring/active_worksets/old-1/",
    "created_at": "2025-10-16T11:11:11Z",
    "updated_at": "2025-10-16T11:11:11Z",
    "state_history": [
        {"state": "ready", "timestamp": "2025-10-16T11:11:11Z", "reason": "Initial registration"},
        {"state": "locked", "timestamp": "2025-10-16T11:11:12Z", "reason": "lock"},
    ],
    "metadata": {"samples": [{"id": 1}]},
    "estimated_cost_usd": 12.5,
}


def test_an_item_of_the_old_system_can_be_read() -> None:
    ws = workset_from_item(OLD)
    assert (ws.state, ws.version, ws.fence, ws.plan) == (State.READY, 0, 0, None)
    assert [t.state for t in ws.history] == [State.READY]


def test_what_we_do_not_know_is_left_alone() -> None:
    ws = workset_from_item({**OLD, "added_by_a_newer_minor_version": {"x": 1}})
    changed = workset_to_item(replace(ws, state=State.IGNORED))
    assert "added_by_a_newer_minor_version" not in changed
    assert "estimated_cost_usd" not in changed


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"state": "exploded"}, "state"),
        ({"version": "many"}, "version"),
        ({"inbox": [{"kind": "nonsense"}]}, "unknown"),
    ],
)
def test_an_item_no_decision_may_be_based_on_says_why(change: dict[str, Any], told: str) -> None:
    with pytest.raises(Unusable, match=told):
        workset_from_item({**OLD, **change})


def test_an_item_of_a_newer_version_is_no_fault_of_the_item() -> None:
    with pytest.raises(Newer, match="Upgrade this daemon"):
        workset_from_item({**OLD, "format": ITEM_FORMAT + 1})


GOLDEN = Path(__file__).parent.parent / "golden" / "items-of-format-1.json"
FORMAT_1: dict[str, dict[str, Any]] = json.loads(GOLDEN.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", FORMAT_1)
def test_an_item_of_format_1_is_read_and_says_the_same_to_old_readers(name: str) -> None:
    item = FORMAT_1[name]
    written = workset_to_item(workset_from_item(item))
    assert workset_from_item(written) == workset_from_item(item)
    told = {key: item[key] for key in set(item) & set(written) - {"format", "plan"}}
    assert {key: written[key] for key in told} == told
    lost = set(item) - set(written) - OF_FORMAT_1_ALONE
    assert lost == set()


OF_FORMAT_1_ALONE = {
    *("jobs_dir", "timings", "step_started_at", "run_started_at"),
    *("confirmed", "stopping", "trouble", "unclear", "progress_fraction"),
}
"""Attributes that a run keeps now. The old system had none of them but ``progress_fraction``, which says
nothing of a run that has ended."""


@pytest.mark.parametrize("name", FORMAT_1)
def test_every_attribute_of_format_1_is_one_that_a_write_may_take_away(name: str) -> None:
    """What is not known as ours stays when it is over, and tells readers of a run that is gone."""
    item = FORMAT_1[name]
    assert set(workset_to_item(workset_from_item(item))) >= ALWAYS
    assert set(item) - ALWAYS <= ATTRIBUTES


ALWAYS = {"workset_id", "format", "priority_key"}
"""Attributes that no write leaves out."""


@pytest.mark.parametrize(
    ("run", "told"),
    [
        (a_run("export"), ("export", "slurm", "cluster")),
        (a_run(failed="run"), ("", "process", "host:1")),
        (a_run(), ("", "slurm", "cluster")),
    ],
)
def test_readers_are_told_of_the_step_that_runs_or_else_of_the_last(
    run: Run, told: tuple[str, str, str]
) -> None:
    later = [replace(step, runner="slurm", scope="cluster") for step in run.steps[2:]]
    state = State.IN_PROGRESS if run.current else State.FAILED
    ws = a_workset(state=state, run=replace(run, steps=(*run.steps[:2], *later)))
    item = workset_to_item(ws)
    assert tuple(item.get(name, "") for name in ("step", "runner", "runner_scope")) == told


def test_a_run_in_progress_that_format_1_tells_of_goes_on_where_it_is() -> None:
    ws = workset_from_item(FORMAT_1["in progress at its second step"])
    assert ws.run is not None
    assert ws.step is not None
    assert ws.job == "HG002-run7.1.run"
    assert ws.step.place == "/var/lib/daylily-daemon/jobs/HG002-run7/r1/1-run"
    assert (ws.step.runner, ws.step.scope) == ("tmux", "host:i-0abc/00ff")
    assert (ws.run.confirmed, ws.run.spent_s, ws.run.key) == (ws.job, 12.5, "")
    assert [step.end for step in ws.run.steps] == [StepEnd.DONE, None, None, None, None]
    assert [step.fatal for step in ws.run.steps] == [True, True, True, False, False]
    assert ws.run.reports == {"staged": 3}
    assert ws.plan is not None
    assert ws.plan.own == ("stage", "export", "metrics", "cleanup")


@pytest.mark.parametrize(
    ("name", "failed"),
    [
        ("waiting for its next try", "run"),
        ("failed", "run"),
        ("ready for a retry from the step that failed", "run"),
        ("complete", ""),
    ],
)
def test_what_format_1_tells_of_a_failed_step_is_where_the_next_attempt_begins(
    name: str, failed: str
) -> None:
    ws = workset_from_item(FORMAT_1[name])
    assert ws.run is not None
    assert (ws.run.failed.name if ws.run.failed else "") == failed
    assert ws.step is None


def test_a_workset_that_a_version_before_was_stopping_is_still_being_stopped() -> None:
    ws = workset_from_item(FORMAT_1["in progress and being stopped"])
    assert ws.run is not None
    assert ws.run.stopping == "canceled by cli:ann@head: wrong flow cell"
    assert workset_from_item(FORMAT_1["in progress and unclear"]).unclear
    assert workset_from_item(FORMAT_1["in progress and given back"]).lock is None


def test_times_that_a_version_before_kept_among_the_reports_are_told_apart() -> None:
    metrics = {"stage_s": 1.5, "run_s": "odd", "reads": 7}
    ws = workset_from_item({**OLD, "run_id": "r1", "attempt": 1, "metrics": metrics})
    assert ws.run is not None
    assert [(step.name, step.seconds) for step in ws.run.steps] == [("stage", 1.5)]
    assert ws.run.reports == {"run_s": "odd", "reads": 7}


@pytest.mark.reported("B", "a command with a text of 150,000 characters breaks whoever stores it")
def test_texts_that_a_command_brings_along_are_bounded() -> None:
    long = "x" * 150_000
    problem = Problem(long, long, long, long)
    asks: list[Ask] = [
        Cancel(reason=long),
        Ignore(reason=long),
        Submit(bucket="b", prefix="p/", sentinel=long, problem=problem),
    ]
    for ask in asks:
        command = Command(id="c", workset_id=WorksetId("w"), by="me", ask=ask)
        assert len(json.dumps(command_to_dict(command_from_dict(command_to_dict(command))))) < 3000
    for change in ({"by": long}, {"id": long}):
        with pytest.raises(Unusable, match="longer than"):
            command_from_dict({**command_to_dict(command), **change})
    half = Command(id="c", workset_id=WorksetId("w"), by="me", ask=Cancel(reason="a\ud800b"))
    assert command_from_dict(command_to_dict(half)).ask == Cancel(reason="a?b")
    theirs = Command(
        id="c",
        workset_id=WorksetId("w"),
        by="me",
        ask=Submit(bucket="b", prefix="p/", customer_id="a/b"),
    )
    with pytest.raises(Unusable, match="no customer id"):
        command_from_dict(command_to_dict(theirs))


SENT: Mapping[Ask, tuple[str, dict[str, object]]] = {
    Submit(bucket="b", prefix="p/w1/", customer_id="lab", rerun_of="w0"): (
        "submit",
        {"bucket": "b", "prefix": "p/w1/", "customer_id": "lab", "rerun_of": "w0"},
    ),
    Cancel(reason="why"): ("cancel", {"reason": "why"}),
    Retry(): ("retry", {}),
    HostLost(): ("retry", {"host_gone": True}),
    Ignore(): ("ignore", {}),
    SetPriority(priority=Priority.LOW): ("set_priority", {"priority": "low"}),
    Archive(reason="old"): ("archive", {"reason": "old"}),
    Archive(): ("archive", {}),
    Restore(): ("restore", {}),
    Delete(reason="a test"): ("delete", {"reason": "a test"}),
}
"""What lies in the queue, for ever: daemons of other versions read it."""


@pytest.mark.parametrize(("ask", "sent"), SENT.items(), ids=repr)
def test_a_command_is_sent_as_other_versions_read_it(
    ask: Ask, sent: tuple[str, dict[str, object]]
) -> None:
    kind, asked = sent
    command = Command(id="c", workset_id=WorksetId("w1"), by="me", ask=ask)
    message = {"format": 1, "kind": kind, "id": "c", "workset_id": "w1", "by": "me", "ask": asked}
    assert command_to_dict(command) == message
    assert command_from_dict(message) == command


def test_every_command_there_is_has_a_message_that_is_told_above() -> None:
    assert {type(ask) for ask in SENT} == set(get_args(Ask))


@pytest.mark.parametrize("ask", [Archive(), Restore(), Delete()], ids=repr)
def test_a_daemon_that_does_not_know_a_command_says_so_and_what_to_do(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one of the version before does, which knows the first six."""
    command = Command(id="c", workset_id=WorksetId("w1"), by="me", ask=ask)
    message = command_to_dict(command)
    known = {kind: reader for kind, reader in codec._ASK_READERS.items() if kind in OLDER}
    monkeypatch.setattr(codec, "_ASK_READERS", known)
    with pytest.raises(Unusable, match=f"{message['kind']}' is unknown.*upgrade this daemon"):
        command_from_dict(message)


OLDER = ("submit", "cancel", "retry", "host_lost", "ignore", "set_priority")


@pytest.mark.parametrize("source", ["../x", "a b", "x" * 81])
def test_a_rerun_of_what_can_be_no_workset_is_refused(source: str) -> None:
    ask = Submit(bucket="b", prefix="p/w1/", rerun_of=source)
    with pytest.raises(Unusable, match="rerun of"):
        command_from_dict(
            command_to_dict(Command(id="c", workset_id=WorksetId("w1"), by="me", ask=ask))
        )


def test_the_time_of_a_drop_is_one_that_can_be_compared() -> None:
    told = Submit(bucket="b", prefix="p/", dropped_at=datetime(2026, 1, 1))  # noqa: DTZ001
    command = Command(id="c", workset_id=WorksetId("w"), by="me", ask=told)
    read = command_from_dict(command_to_dict(command)).ask
    assert read == replace(told, dropped_at=datetime(2026, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    ("ask", "stored"),
    [
        (HostLost(), {"host_gone": True}),
        (HostLost(from_start=True), {"host_gone": True, "from_start": True}),
        (Retry(from_start=True), {"from_start": True}),
    ],
)
def test_the_loss_of_a_host_is_a_retry_to_the_versions_before(
    ask: Ask, stored: dict[str, object]
) -> None:
    command = Command(id="c", workset_id=WorksetId("w1"), by="me", ask=ask)
    message = command_to_dict(command)
    assert (message["kind"], message["ask"]) == ("retry", stored)
    assert command_from_dict(message) == command


def test_a_retry_of_the_versions_before_says_that_no_host_is_lost() -> None:
    message = {
        "kind": "retry",
        "id": "c",
        "workset_id": "w1",
        "by": "me",
        "ask": {"host_gone": False},
    }
    assert command_from_dict(message).ask == Retry()
