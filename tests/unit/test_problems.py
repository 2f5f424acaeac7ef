"""What is wrong is said with what to do, for as long as it is wrong."""

from __future__ import annotations

import shlex
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from daylily_daemon.application.health import (
    DaemonState,
    HealthVerdict,
    LocalDaemon,
    different_versions,
    judged,
    short_name,
    viewed,
)
from daylily_daemon.application.overview import Overview, Report, verdict_line
from daylily_daemon.cli.app import whole_program
from daylily_daemon.domain.daemon import (
    DiskLevel,
    Drain,
    Life,
    Missed,
    Owed,
    Port,
    Process,
    QueueLevel,
    Registered,
    Reload,
    Sighting,
    Status,
)
from daylily_daemon.domain.errors import Impeded
from daylily_daemon.domain.problems import HealthProblem, ProblemKind, Severity, problems_of

NOW: Final = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
OWNER: Final = "head1/boot-1/3d1219c7aabb"
LONG: Final = NOW - timedelta(minutes=33)


def _failing(code: str, error: str = "", failures: int = 131) -> Port:
    return Port(failing_since=LONG, failures=failures, code=code, error=error, text="It says no.")


ILL: Final[dict[ProblemKind, tuple[Status, str]]] = {
    ProblemKind.REFUSED: (
        Status(ports={"worksets": _failing("impeded", "AccessDeniedException")}),
        "DynamoDB refuses since 2026-03-04 04:33:07 (33 min, 131 times): It says no.",
    ),
    ProblemKind.CREDENTIALS: (
        Status(ports={"intake": _failing("impeded", "credentials")}, active={"a": "", "b": ""}),
        "AWS refuses our credentials since",
    ),
    ProblemKind.THROTTLED: (
        Status(ports={"trail": _failing("transient", "ThrottlingException")}),
        "DynamoDB throttles since",
    ),
    ProblemKind.UNREACHABLE: (
        Status(ports={"drops": _failing("transient")}),
        "S3 does not answer since",
    ),
    ProblemKind.CHANNEL: (
        Status(
            ports={"channel:slack": _failing("transient")},
            channels={"slack": Owed(count=11, oldest_at=NOW - timedelta(hours=2, minutes=5))},
        ),
        "11 notices owed, oldest 2 h. Telling slack fails since",
    ),
    ProblemKind.DEAD_LETTERS: (
        Status(queues={"q-dlq": QueueLevel(waiting=2, is_dead_letters=True)}),
        "2 messages were given up and lie in q-dlq.",
    ),
    ProblemKind.QUEUE_OLD: (
        Status(queues={"q": QueueLevel(waiting=1, in_flight=1, oldest_at=LONG, group="HG002")}),
        "q: 1 waiting, 1 in flight, oldest 33 min: group HG002.",
    ),
    ProblemKind.HELD: (
        Status(held="The disk is full."),
        "Nothing new is started. The disk is full.",
    ),
    ProblemKind.DRAINING: (
        Status(drain=Drain(by="cli:ops", since=LONG, reason="new kernel"), held="Drained."),
        "Drained by cli:ops since 2026-03-04 04:33:07: new kernel. Nothing new is started; 0 run on.",
    ),
    ProblemKind.DISK: (
        Status(disks={"/fsx": DiskLevel(free=1_500_000_000, needed=1_000_000_000)}),
        "/fsx has 1.5 GB left; below 1.0 GB nothing new is started.",
    ),
    ProblemKind.RELOAD_REFUSED: (
        Status(last_reload=Reload(result="refused", at=LONG.isoformat(), problems=("Line 3.",))),
        "The settings on disk are refused since 2026-03-04 04:33:07: Line 3. The old ones are in force.",
    ),
    ProblemKind.EVENTS_MISSED: (
        Status(missed=Missed(count=3, since=LONG)),
        "3 drops were found by listing, not by event, since 2026-03-04 04:33:07.",
    ),
    ProblemKind.CLOCK: (Status(skew_s=61.0), "The clock of this host is 61 s ahead of AWS."),
}
"""A status with one problem each, and how its sentence begins."""


@pytest.mark.parametrize("kind", ILL)
def test_each_problem_is_said_by_itself(kind: ProblemKind) -> None:
    status, words = ILL[kind]
    (problem,) = problems_of(status, NOW)
    assert problem.kind == kind
    assert problem.text.startswith(words)
    assert problem.remedy or problem.command


def test_a_daemon_that_lacks_nothing_has_no_problem() -> None:
    status = Status(
        ports={"worksets": Port(good_at=NOW), "intake": _failing("transient", failures=1)},
        channels={"slack": Owed(count=3, oldest_at=LONG)},
        queues={
            "q": QueueLevel(waiting=5, oldest_at=NOW - timedelta(seconds=299)),
            "dead": QueueLevel(is_dead_letters=True),
        },
        disks={"/fsx": DiskLevel(free=2_000, needed=1_000), "/tmp": DiskLevel(free=1, needed=0)},
        last_reload=Reload(result="applied"),
        missed=Missed(),
        skew_s=-9.9,
    )
    assert problems_of(status, NOW) == ()


def test_one_cause_is_one_problem_however_many_calls_meet_it() -> None:
    refused = {name: _failing("impeded", "credentials") for name in ("worksets", "intake", "drops")}
    (problem,) = problems_of(Status(ports=refused), NOW)
    assert (problem.about, problem.since) == ("AWS", LONG)
    assert "393 times" in problem.text
    later = replace(_failing("impeded"), failing_since=NOW - timedelta(seconds=40))
    (problem,) = problems_of(Status(ports={"trail": later, "worksets": _failing("impeded")}), NOW)
    assert problem.since == LONG


def test_what_needs_somebody_comes_before_what_somebody_should_know() -> None:
    ports = {"channel:slack": _failing("transient")}
    status = Status(ports=ports, skew_s=20.0, missed=Missed(count=1, since=LONG), held="No room.")
    severities = [problem.severity for problem in problems_of(status, NOW)]
    assert severities == [Severity.PROBLEM] * 2 + [Severity.WARNING] * 2


@pytest.mark.parametrize(
    ("skew_s", "severity"),
    [
        (None, None),
        (9.0, None),
        (-10.0, Severity.WARNING),
        (239.0, Severity.WARNING),
        (-240.0, Severity.PROBLEM),
    ],
)
def test_a_clock_is_a_problem_before_aws_refuses_what_it_signs(
    skew_s: float | None, severity: Severity | None
) -> None:
    found = problems_of(Status(skew_s=skew_s), NOW)
    assert [problem.severity for problem in found] == ([severity] if severity else [])


def test_a_problem_keeps_the_time_it_was_seen_first_and_goes_with_its_cause() -> None:
    first = Status(held="No room.").found_wrong(LONG)
    second = first.found_wrong(NOW)
    assert [problem.since for problem in second.problems] == [LONG]
    assert replace(second, held="").found_wrong(NOW).problems == ()


# --- daemons of other hosts ---------------------------------------------------------------------------


def _row(age_s: float, status: Status | None = None, **changes: Any) -> Registered:
    said_at = NOW - timedelta(seconds=age_s)
    usual = Status(owner=OWNER, version="1.0", seen_at=said_at, sweep_s=15, active={"w": "run"})
    return Registered(**{"owner": OWNER, "said_at": said_at, "status": status or usual, **changes})


@pytest.mark.parametrize(
    ("row", "state"),
    [
        (_row(20), DaemonState.RUNNING),
        (_row(299), DaemonState.RUNNING),
        (_row(301), DaemonState.SILENT),
        (_row(20, Status(owner=OWNER, stopped_at=NOW)), DaemonState.STOPPED),
        (_row(900, Status(owner=OWNER, stopped_at=LONG)), DaemonState.STOPPED),
        (_row(20, Status(owner=OWNER)), DaemonState.STARTING),
        (_row(20, Status(owner=OWNER, seen_at=LONG, sweep_s=15)), DaemonState.HANGING),
        (Registered(owner=OWNER, said_at=None, status=None), DaemonState.UNKNOWN),
    ],
)
def test_a_daemon_is_known_by_its_last_word(row: Registered, state: DaemonState) -> None:
    assert viewed(row, NOW).state is state


def test_a_silent_daemon_is_a_problem_if_it_held_something() -> None:
    (problem,) = viewed(_row(18_600), NOW).problems
    assert (problem.kind, problem.severity) == (ProblemKind.SILENT, Severity.PROBLEM)
    assert problem.sentence == "head1/3d1219c7: Silent for 5 h, and held 1 workset."
    assert problem.command == "daylily-daemon daemon gone head1"
    (idle,) = viewed(_row(18_600, Status(owner=OWNER)), NOW).problems
    assert idle.severity is Severity.WARNING


def test_what_a_daemon_says_of_itself_is_told_under_its_name() -> None:
    status = Status(owner=OWNER, seen_at=NOW, sweep_s=15, held="No room.").found_wrong(NOW)
    (problem,) = viewed(_row(20, status), NOW).problems
    assert problem.sentence == "head1/3d1219c7: Nothing new is started. No room."


def test_versions_that_run_beside_each_other_are_said() -> None:
    views = [
        viewed(_row(20, Status(owner=f"{n}", version=v, seen_at=NOW, sweep_s=15)), NOW)
        for n, v in (("a", "1.0"), ("b", "1.1"))
    ]
    (problem,) = different_versions(views)
    assert "1.0" in problem.text
    assert "1.1" in problem.text
    assert different_versions(views[:1]) == ()


@pytest.mark.parametrize(
    ("owner", "name"), [(OWNER, "head1/3d1219c7"), ("lab", "lab"), ("lab/abc", "lab/abc")]
)
def test_a_daemon_has_a_short_name(owner: str, name: str) -> None:
    assert short_name(owner) == name


# --- the verdict --------------------------------------------------------------------------------------


def _report(local: Status, overview: Overview) -> Report:
    here = LocalDaemon(local, HealthVerdict("here", local.found_wrong(NOW).problems), alive=True)
    return Report(now=NOW, local=here, overview=overview)


def test_what_two_daemons_see_is_said_once() -> None:
    ill = Status(owner="a/b/c", ports={"worksets": _failing("transient")})
    other = replace(ill, owner=OWNER, seen_at=NOW, sweep_s=15).found_wrong(NOW)
    overview = Overview(daemons=[viewed(_row(20, other), NOW)])
    assert len(_report(ill, overview).problems) == 1
    assert len(_report(Status(owner="a/b/c"), overview).problems) == 1


def test_what_each_host_has_of_its_own_is_said_of_each() -> None:
    full = Status(held="No room.", queues={"q1": _dead(), "q2": _dead()})
    other = replace(full, owner=OWNER, seen_at=NOW, sweep_s=15).found_wrong(NOW)
    overview = Overview(daemons=[viewed(_row(20, other), NOW)])
    found = _report(replace(full, owner="a/b/c"), overview).problems
    assert sorted((p.kind, p.subject, p.daemon) for p in found) == [
        (ProblemKind.HELD, "", ""),
        (ProblemKind.HELD, "", "head1/3d1219c7"),
        (ProblemKind.DEAD_LETTERS, "q1", ""),
        (ProblemKind.DEAD_LETTERS, "q2", ""),
    ]


def _dead() -> QueueLevel:
    return QueueLevel(waiting=2, is_dead_letters=True)


def test_services_that_fail_for_different_hosts_are_told_apart() -> None:
    here = Status(owner="a/b/c", ports={"worksets": _failing("impeded")})
    there = Status(owner=OWNER, seen_at=NOW, sweep_s=15, ports={"drops": _failing("impeded")})
    overview = Overview(daemons=[viewed(_row(20, there.found_wrong(NOW)), NOW)])
    assert [p.subject for p in _report(here, overview).problems] == ["DynamoDB", "S3"]


def test_a_daemon_elsewhere_that_finishes_no_pass_hangs() -> None:
    (problem,) = viewed(_row(20, Status(owner=OWNER, seen_at=LONG, sweep_s=15)), NOW).problems
    assert (problem.kind, problem.severity) == (ProblemKind.HANGS, Severity.PROBLEM)
    assert problem.sentence.startswith("head1/3d1219c7: It hangs: no pass was finished since")


def test_how_a_daemon_is_drained_the_registry_knows_best() -> None:
    drain = Drain(by="cli:ops", since=LONG)
    drained = Status(owner=OWNER, drain=drain)
    resumed = Overview(daemons=[viewed(_row(20), NOW)])
    assert _report(drained, resumed).problems == ()
    row = _row(20, drain=drain)
    found = _report(Status(owner=OWNER), Overview(daemons=[viewed(row, NOW)])).problems
    assert [problem.kind for problem in found] == [ProblemKind.DRAINING]
    assert [p.kind for p in _report(drained, Overview()).problems] == [ProblemKind.DRAINING]


def test_the_verdict_counts() -> None:
    assert verdict_line(_report(Status(), Overview())) == "well"
    ill = Status(held="No room.", skew_s=20.0)
    assert verdict_line(_report(ill, Overview())) == "NOT WELL  1 problem, 1 warning"
    assert verdict_line(_report(Status(skew_s=20.0), Overview())) == "well  1 warning"
    unknown = Overview(troubles=(Impeded("AWS says no."),))
    assert verdict_line(_report(Status(), unknown)) == "well as far as is known"


# --- every remedy -------------------------------------------------------------------------------------


def _all_problems() -> list[HealthProblem]:
    of_a_daemon = [problem for status, _ in ILL.values() for problem in problems_of(status, NOW)]
    of_here = [
        problem
        for status in (
            None,
            Status(pid=1),
            Status(pid=1, stopped_at=NOW),
            Status(starting=Process(pid=1)),
            Status(pid=1, stopping_at=NOW),
        )
        for life in Life
        for problem in judged(Sighting(now=NOW, status=status, life=life)).verdict.problems
    ]
    return [*of_a_daemon, *of_here, *viewed(_row(18_600), NOW).problems]


OURS: Final = sorted(
    {p.command for p in _all_problems() if p.command.startswith("daylily-daemon ")}
)


@pytest.mark.parametrize("command", OURS)
def test_every_command_that_is_advised_is_one(command: str) -> None:
    _, *words = shlex.split(command)
    found: Any = whole_program()
    while hasattr(found, "commands"):
        name, *words = words
        found = found.commands[name]
    found.make_context(found.name, words)
