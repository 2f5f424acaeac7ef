"""The alert rules, played by promtool: each fires when it should and not before; each names what to do."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from daylily_daemon.cli.app import whole_program
from daylily_daemon.domain.problems import ProblemKind
from tests.arch.repository import ROOT
from tests.arch.test_docs import fault
from tests.promql import unknown_names
from tests.promtool import promtool

FILE: Final = ROOT / "deploy" / "prometheus" / "daylily.rules.yml"
RULES: Final[Mapping[str, Any]] = {
    rule["alert"]: rule for rule in yaml.safe_load(FILE.read_text())["groups"][0]["rules"]
}
INCIDENTS: Final = {
    "a group of the queue is stuck": "DaylilyQueueOld",
    "a message that nobody can read": "DaylilyDeadLetters",
    "the bucket tells of no drops": "DaylilyEventsMissed",
    "a disk is full": "DaylilyDiskFillingUp",
    "credentials are out of date": "DaylilyPortUnreachable",
    "a reload that is refused": "DaylilyReloadRefused",
    "the head node is lost": "DaylilyDaemonDown",
    "a channel is down": "DaylilyNoticesOwed",
    "a job is quiet": "DaylilyJobQuiet",
    "jobs run out of memory": "DaylilyFailing",
    "AWS throttles": "DaylilyThrottled",
    "one customer floods": "DaylilySlotsFull",
    "the clock is off": "DaylilyClockSkew",
    "the daemon hangs": "DaylilyDaemonStalled",
    "slots are stuck": "DaylilySlotsFull",
    "a job does not end when told to": "DaylilyStopOverdue",
    "complete without results": "DaylilyEmptyResults",
    "an upgrade that is half done": "DaylilyVersionsDiffer",
}
BY_PROBLEM: Final[Mapping[ProblemKind, str]] = {
    ProblemKind.NOT_RUNNING: "DaylilyDaemonDown",
    ProblemKind.STOPPED: "DaylilyDaemonDown",
    ProblemKind.HANGS: "DaylilyDaemonStalled",
    ProblemKind.SILENT: "DaylilyDaemonDown",
    ProblemKind.STARTING: "DaylilyDaemonNotStarted",
    ProblemKind.STOPPING: "DaylilyDaemonDown",
    ProblemKind.UNREADABLE: "DaylilyDaemonDown",
    ProblemKind.SETTINGS: "DaylilyReloadRefused",
    ProblemKind.VERSIONS: "DaylilyVersionsDiffer",
    ProblemKind.REFUSED: "DaylilyPortUnreachable",
    ProblemKind.CREDENTIALS: "DaylilyPortUnreachable",
    ProblemKind.THROTTLED: "DaylilyThrottled",
    ProblemKind.UNREACHABLE: "DaylilyPortUnreachable",
    ProblemKind.CHANNEL: "DaylilyNoticesOwed",
    ProblemKind.DEAD_LETTERS: "DaylilyDeadLetters",
    ProblemKind.QUEUE_OLD: "DaylilyQueueOld",
    ProblemKind.HELD: "DaylilyStartsNothing",
    ProblemKind.DRAINING: "DaylilyDrainForgotten",
    ProblemKind.DISK: "DaylilyDiskFillingUp",
    ProblemKind.RELOAD_REFUSED: "DaylilyReloadRefused",
    ProblemKind.EVENTS_MISSED: "DaylilyEventsMissed",
    ProblemKind.CLOCK: "DaylilyClockSkew",
    ProblemKind.JOB_QUIET: "DaylilyJobQuiet",
    ProblemKind.JOB_OVERDUE: "DaylilyStopOverdue",
}

HOST: Final = {"instance": "head1"}
UP: Final = {"job": "daylily-daemon", **HOST}


def one(name: str, values: str, **labels: str) -> dict[str, str]:
    """Return a series of one host, with a value a minute."""
    inner = ",".join(f'{label}="{value}"' for label, value in {**HOST, **labels}.items())
    return {"series": f"{name}{{{inner}}}", "values": values}


@dataclass(frozen=True, kw_only=True)
class Played:
    alert: str
    series: tuple[dict[str, str], ...]
    calm: str
    """When it must not have fired."""
    fires: str
    """When it must have; empty where it must never."""
    labels: Mapping[str, str] | None = None
    summary: str = ""


def played(alert: str, *series: dict[str, str], calm: str, fires: str = "", **more: Any) -> Played:
    return Played(alert=f"Daylily{alert}", series=series, calm=calm, fires=fires, **more)


def port(name: str, values: str) -> dict[str, str]:
    return one("daylily_port_failing_seconds", values, port=name)


def waits(ready: str, used: str, draining: str = "0x500") -> tuple[dict[str, str], ...]:
    return (
        one("daylily_worksets", ready, state="ready"),
        one("daylily_slots_used", used),
        one("daylily_slots", "8x500"),
        one("daylily_draining", draining),
    )


def version(host: str, values: str, version: str) -> dict[str, str]:
    return one("daylily_build_info", values, instance=host, version=version, format="3")


PLAYED: Final = (
    played(
        "DaemonDown", one("up", "1 1 0x10", job="daylily-daemon"), calm="4m", fires="6m",
        labels=UP, summary="The daemon does not answer.",
    ),
    played(
        "DaemonDown", one("up", "1x10", job="another"), calm="2m", fires="5m",
        labels={"job": "daylily-daemon"}, summary="The daemon does not answer.",
    ),
    played(
        "DaemonStalled", one("daylily_last_pass_timestamp_seconds", "0 60 120 120x10"), calm="4m",
        fires="7m", summary="No pass over the worksets for 5m 0s on head1.",
    ),
    played(
        "DaemonNotStarted", version("head1", "1x20", "1"), calm="9m", fires="11m",
        labels={**HOST, "version": "1", "format": "3"},
        summary="The daemon on head1 waits for something that its start needs.",
    ),
    played(
        "DaemonNotStarted", version("head1", "1x20", "1"),
        one("daylily_last_pass_timestamp_seconds", "0+60x20"), calm="20m",
    ),
    played(
        "PortUnreachable", port("worksets", "0 60+60x20"), calm="5m", fires="6m",
        labels={**HOST, "port": "worksets"}, summary="Calls of worksets fail for 6m 0s.",
    ),
    played("PortUnreachable", port("channel:slack", "0+60x20"), calm="20m"),
    played("PortUnreachable", port("cloudwatch", "0+60x20"), calm="20m"),
    played(
        "Throttled",
        one("daylily_aws_calls_total", "0x15 12+12x60", service="dynamodb", operation="Query",
            outcome="throttled"),
        calm="30m", fires="50m", labels={**HOST, "service": "dynamodb"},
        summary="dynamodb throttles.",
    ),
    played(
        "Throttled",
        one("daylily_aws_calls_total", "0+900x60", service="s3", operation="GetObject",
            outcome="ok"),
        calm="60m",
    ),
    played(
        "VersionsDiffer", version("head1", "1x3000", "1"), version("head2", "1x9 1x3000", "2"),
        calm="23h", fires="25h", labels={},
        summary="Daemons of 2 versions share the tables for a day.",
    ),
    played(
        "VersionsDiffer", version("head1", "1x3000", "1"), version("head2", "1x3000", "1"),
        calm="25h",
    ),
    played(
        "ReloadRefused", one("daylily_config_last_reload_successful", "1x3 0x20"), calm="7m",
        fires="10m",
        summary="The settings on disk were refused; the old ones are in force.",
    ),
    played(
        "QueueOld", one("daylily_queue_oldest_message_age_seconds", "0+60x20", queue="q.fifo"),
        calm="7m", fires="9m", labels={**HOST, "queue": "q.fifo"},
        summary="The oldest message of q.fifo has waited 9m 0s.",
    ),
    played(
        "DeadLetters", one("daylily_queue_messages", "0 0 2x3", queue="q-dlq.fifo"),
        one("daylily_queue_messages", "5x5", queue="q"), calm="1m", fires="3m",
        labels={**HOST, "queue": "q-dlq.fifo"},
        summary="2 messages were given up in q-dlq.fifo.",
    ),
    played(
        "EventsMissed", one("daylily_problems", "0 1x30", kind="events-missed"),
        one("daylily_problems", "1x30", kind="draining"), calm="9m", fires="12m",
        labels={**HOST, "kind": "events-missed"},
        summary="Drops were found by listing, not by event; they start late.",
    ),
    played(
        "SlotsFull", *waits("3x500", "8x500"), calm="5h", fires="6h1m",
        summary="All slots were taken for six hours while worksets wait.",
    ),
    played("SlotsFull", *waits("0x500", "8x500"), calm="7h"),
    played("SlotsFull", *waits("3x500", "7x500"), calm="7h"),
    played(
        "Waiting", *waits("3x500", "7x500"), calm="59m", fires="61m",
        labels={**HOST, "state": "ready"},
        summary="Worksets wait although slots are free; explain tells of each why.",
    ),
    played("Waiting", *waits("3x500", "8x500"), calm="2h"),
    played("Waiting", *waits("3x500", "7x500", draining="1x500"), calm="2h"),
    played(
        "StartsNothing", one("daylily_problems", "0 1x30", kind="admission-held"), calm="9m",
        fires="12m", labels={**HOST, "kind": "admission-held"},
        summary="Nothing new is started on head1.",
    ),
    played(
        "DrainForgotten", one("daylily_draining", "0x5 1x2000"), calm="24h", fires="25h",
        summary="head1 is drained for a day.",
    ),
    played(
        "JobQuiet", one("daylily_job_quietest_seconds", "0+60x300"), calm="240m", fires="241m",
        summary="A job has written nothing for 4h 1m 0s.",
    ),
    played(
        "StopOverdue", one("daylily_job_overdue_seconds", "0+60x20"), calm="10m", fires="11m",
        summary="A job goes on 11m 0s after it should have ended.",
    ),
    played(
        "Failing",
        one("daylily_worksets_ended_total", "0x9 1x4 2x4 3x4 4x90", outcome="failed",
            code="WS-RES-001"),
        one("daylily_worksets_ended_total", "0+1x99", outcome="complete", code=""),
        one("daylily_worksets_ended_total", "0x9 2x90", outcome="failed", code="WS-DAT-001"),
        calm="15m", fires="60m", labels={"code": "WS-RES-001"},
        summary="4 worksets failed with WS-RES-001 within an hour.",
    ),
    played(
        "EmptyResults", one("daylily_worksets_without_results_total", "0x5 1x20"), calm="5m",
        fires="7m", summary="A workset is complete and has no file of results.",
    ),
    played(
        "NoticesOwed",
        one("daylily_notice_oldest_owed_age_seconds", "0+60x80", channel="slack"), calm="60m",
        fires="61m", labels={**HOST, "channel": "slack"},
        summary="slack is owed notices for 1h 1m 0s.",
    ),
    played(
        "NoticesGivenUp",
        one("daylily_notices_total", "0x5 1x20", channel="sns", outcome="given_up"),
        one("daylily_notices_total", "0+1x25", channel="slack", outcome="delayed"),
        calm="5m", fires="7m", labels={**HOST, "channel": "sns", "outcome": "given_up"},
        summary="sns was not told of something, and will not be.",
    ),
    played(
        "ClockSkew", one("daylily_clock_skew_seconds", "-10x5 -61x20"), calm="10m", fires="12m",
        summary="The clock is 1m 1s off AWS's.",
    ),
    played(
        "DiskFillingUp", one("daylily_disk_free_bytes", "3000000000x5 1536000000x30", folder="/fsx"),
        one("daylily_disk_required_bytes", "1000000000x40", folder="/fsx"), calm="15m",
        fires="17m", labels={**HOST, "folder": "/fsx"}, summary="/fsx has 1.431GiB left.",
    ),
)  # fmt: skip


def expected(case: Played) -> list[dict[str, Any]]:
    rule = RULES[case.alert]
    labels = HOST if case.labels is None else case.labels
    annotations = {"summary": case.summary, "runbook": rule["annotations"]["runbook"]}
    return [{"exp_labels": {**rule["labels"], **labels}, "exp_annotations": annotations}]


def as_test(case: Played) -> dict[str, Any]:
    moments: list[tuple[str, list[dict[str, Any]]]] = [(case.calm, [])]
    if case.fires:
        moments.append((case.fires, expected(case)))
    return {
        "interval": "1m",
        "input_series": list(case.series),
        "alert_rule_test": [
            {"eval_time": at, "alertname": case.alert, "exp_alerts": alerts}
            for at, alerts in moments
        ],
    }


@pytest.mark.parametrize("case", PLAYED, ids=lambda case: case.alert)
def test_an_alert_fires_when_it_should_and_not_before(case: Played, tmp_path: Path) -> None:
    test = {"rule_files": [str(FILE)], "evaluation_interval": "1m", "tests": [as_test(case)]}
    file = tmp_path / "test.yml"
    file.write_text(yaml.safe_dump(test))
    said = subprocess.run(
        [promtool(), "test", "rules", file], capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stdout + said.stderr


def test_promtool_takes_the_rules() -> None:
    said = subprocess.run(
        [promtool(), "check", "rules", FILE], capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stderr
    assert f"{len(RULES)} rules found" in said.stdout


def test_each_rule_is_played_to_fire() -> None:
    assert {case.alert for case in PLAYED if case.fires} == RULES.keys()


def test_each_incident_and_each_kind_of_problem_has_a_rule() -> None:
    assert set(INCIDENTS.values()) | set(BY_PROBLEM.values()) <= RULES.keys()
    assert BY_PROBLEM.keys() == set(ProblemKind)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_each_rule_names_one_command_that_the_program_takes(rule: Mapping[str, Any]) -> None:
    words = shlex.split(rule["annotations"]["runbook"])
    assert words[0] == "daylily-daemon"
    assert len(words) > 1
    assert fault(words) == ""
    command: Any = whole_program()
    while hasattr(command, "commands"):
        command = command.commands[words[1]]
        del words[1]
    command.make_context(command.name, words[1:])  # raises for an argument that is missing
    assert rule["labels"]["severity"] in ("page", "ticket")


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_each_name_in_a_rule_is_that_of_a_figure(rule: Mapping[str, Any]) -> None:
    assert unknown_names(rule["expr"]) == set()


def test_a_name_that_is_none_is_found() -> None:
    assert unknown_names("daylily_slots_usd > 1") == {"daylily_slots_usd"}
    assert unknown_names('daylily_worksets{status="ready"}') == {"status"}
    assert unknown_names('daylily_step_seconds_count{code="x"}') == {"code"}
    assert unknown_names("sum by (instance, cause) (daylily_slots)") == {"cause"}
    assert unknown_names("rate(daylily_pass_seconds_bucket[5m])") == set()
