"""Of everything a support bundle takes what is listed, and of sentences our own words."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic.fields import FieldInfo

from daylily_daemon.adapters.bundle import log_lines, own_words, packed, write_bundle
from daylily_daemon.application.bundling import Allowed
from daylily_daemon.application.examining import Examined
from daylily_daemon.composition.bundling import may_be_told
from daylily_daemon.domain.bundle import BundlePart
from daylily_daemon.domain.daemon import (
    DiskLevel,
    Drain,
    Missed,
    Owed,
    Port,
    QueueLevel,
    Reload,
    Status,
)
from daylily_daemon.domain.errors import Permanent
from daylily_daemon.domain.finding import CheckName, CheckResult, Grade
from daylily_daemon.domain.model import Category, Plan, State, Transition
from daylily_daemon.domain.problems import HealthProblem, ProblemKind
from daylily_daemon.domain.vocabulary import MASK, in_own_words, words_of
from daylily_daemon.domain.workset import Failure, Lock
from daylily_daemon.settings.keys import LEAVES, Leaf, variable
from daylily_daemon.settings.sources import BadSettings
from tests.made import NOW, a_run, a_workset
from tests.unit.test_settings import from_environment

HUSH: Final = "Zx9-hush/Q2"
WORDS: Final = own_words()
WRONG: Final = (
    f"DynamoDB refuses {HUSH} since 02:14 (33 min, 131 times): https://u:{HUSH}@h/?k={HUSH}"
)


@pytest.fixture
def allowed() -> Allowed:
    return Allowed(WORDS, frozenset({"w1"}))


# --- sentences ----------------------------------------------------------------------------------------


def test_a_sentence_keeps_our_words_times_and_short_numbers() -> None:
    said = in_own_words(WRONG, WORDS)
    assert said == f"DynamoDB refuses {MASK} since 02:14 (33 min, 131 times): {MASK}"
    assert in_own_words("on 2026-11-26 for 12.5 % of 1234567", WORDS).endswith(MASK)


@given(st.text())
def test_nothing_but_our_words_and_numbers_is_kept(text: str) -> None:
    words = words_of(["It is full."])
    kept = set(in_own_words(text, words).replace(MASK, " ").split())
    strange = {word.strip("()[]<>{}\"'`.,;:!?") for word in kept} - words - {""}
    assert all(set(word) <= set("0123456789.:+-%") for word in strange)


@given(st.text(alphabet="abcdefgh0123456789-_/@=+", min_size=7, max_size=60))
def test_what_looks_like_a_key_is_masked(key: str) -> None:
    said = in_own_words(f"It is {key}.", words_of(["It is"]))
    assert key not in said or not any(char.isalpha() for char in key)


def test_the_words_are_those_of_this_program() -> None:
    assert {"DynamoDB", "command_taken", "in_progress", "ExpiredToken"} <= WORDS
    assert HUSH not in WORDS


# --- what is listed -----------------------------------------------------------------------------------


def _everything_hushed() -> Status:
    return Status(
        pid=1,
        version="0.1.0",
        owner=HUSH,
        host=HUSH,
        boot_id=HUSH,
        cluster=HUSH,
        trouble=WRONG,
        held=WRONG,
        started_at=NOW,
        seen_at=NOW,
        active={HUSH: HUSH},
        customers={HUSH: HUSH},
        ports={
            "worksets": Port(failing_since=NOW, error=HUSH, code=HUSH, text=WRONG),
            HUSH: Port(),
        },
        last_reload=Reload(result="refused", problems=(WRONG,), changed=(HUSH,)),
        channels={"slack": Owed(count=2), HUSH: Owed()},
        queues={HUSH: QueueLevel(waiting=3, group=HUSH)},
        disks={f"/{HUSH}": DiskLevel(free=1, needed=2)},
        missed=Missed(count=1, since=NOW),
        drain=Drain(by=HUSH, since=NOW, reason=HUSH),
        settings={HUSH: HUSH},
        problems=(
            HealthProblem(
                kind=ProblemKind.REFUSED,
                about=HUSH,
                subject=HUSH,
                daemon=HUSH,
                text=WRONG,
                remedy=WRONG,
                command=HUSH,
            ),
            HealthProblem(kind=HUSH, about="AWS", text=HUSH),
        ),
    )


def test_a_status_keeps_figures_and_kinds_and_no_name_of_anybody(allowed: Allowed) -> None:
    hushed = _everything_hushed()
    unset = {f.name for f in fields(Status) if getattr(hushed, f.name) == f.default}
    assert not unset & {"owner", "host", "held", "trouble", "cluster", "drain"}
    told = allowed.status(hushed)
    assert HUSH not in json.dumps(told)
    assert told["ports"]["worksets"]["text"].startswith("DynamoDB refuses … since 02:14")
    assert told["problems"][0]["kind"] == "port-refused"
    assert told["version"] == "0.1.0"
    assert (told["running"], told["queues"][0]["waiting"]) == (1, 3)


def test_an_item_keeps_how_it_went_and_nothing_of_what_a_lab_wrote(allowed: Allowed) -> None:
    plan = Plan(
        pipeline=HUSH,
        steps=(HUSH,),
        export_uri=f"s3://{HUSH}/x/",
        run_args=(HUSH,),
        clone_args=(HUSH,),
        workdir_name=HUSH,
        pin=HUSH,
    )
    ws = replace(
        a_workset(
            "w1",
            State.FAILED,
            customer_id=HUSH,
            metadata={HUSH: HUSH},
            bucket=HUSH,
            prefix=HUSH,
            sentinel=HUSH,
            plan=plan,
            run=a_run(
                failed="run",
                folder=f"/{HUSH}",
                jobs_dir=f"/{HUSH}",
                scope=HUSH,
                key=HUSH,
                results_uri=f"s3://{HUSH}/",
                trouble=WRONG,
                reports={HUSH: HUSH, "files": HUSH},
            ),
        ),
        waiting_for=WRONG,
        warnings=(WRONG,),
        lock=Lock(owner=HUSH, acquired_at=NOW, expires_at=NOW),
        failure=Failure(code="WS-RES-001", category=Category.RESOURCE, details=WRONG),
        history=(Transition(state=State.FAILED, at=NOW, reason=WRONG),),
        seen_commands=(HUSH,),
        retry_after=NOW + timedelta(minutes=1),
    )
    told = allowed.item(ws)
    assert HUSH not in json.dumps(told)
    assert (told["workset"], told["state"], told["error_code"]) == ("w1", "failed", "WS-RES-001")
    assert told["run"]["steps"][1]["end"] == "failed"
    assert "refuses" in told["error_details"]


def test_a_finding_keeps_its_grade_and_our_words(allowed: Allowed) -> None:
    finding = CheckResult(grade=Grade.FAIL, text=WRONG, remedy=WRONG, command=HUSH)
    told = allowed.check(Examined(CheckName.BUCKET, [finding]))
    assert HUSH not in json.dumps(told)
    assert (told["name"], told["grade"]) == ("bucket", "FAIL")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (
            {"event": "command_taken", "level": "info", "workset": "w1", "attempt": 2},
            {"event": "command_taken", "level": "info", "workset": "w1", "attempt": 2},
        ),
        ({"event": HUSH, "level": HUSH, "timestamp": HUSH}, {"event": MASK}),
        ({"event": "left", "workset": HUSH}, {"event": "left", "workset": "workset 1"}),
        ({"event": "left", "attempt": HUSH, "url": HUSH, HUSH: "left"}, {"event": "left"}),
        ({"event": "left", "state": {"a": HUSH}, "error": [HUSH]}, {"event": "left"}),
        (
            {"event": "left", "timestamp": "2026-11-26T06:42:13.115794Z"},
            {"event": "left", "timestamp": "2026-11-26T06:42:13.115794+00:00"},
        ),
        (f"DynamoDB {HUSH}", {"text": f"DynamoDB {MASK}"}),
        ([HUSH], {"text": MASK}),
        ("", {"text": ""}),
    ],
)
def test_of_a_log_line_only_listed_fields_are_kept(
    allowed: Allowed, line: Any, told: dict[str, Any]
) -> None:
    text = line if isinstance(line, str) else json.dumps(line)
    assert allowed.log([text]) == (told,)
    if isinstance(line, dict):
        assert allowed.line(f"<4>{text}") == told


def test_worksets_that_were_not_asked_for_are_told_apart_by_numbers(allowed: Allowed) -> None:
    lines = [json.dumps({"workset": id}) for id in ("a", "b", "a", "w1")]
    assert [line["workset"] for line in allowed.log(lines)] == [
        "workset 1",
        "workset 2",
        "workset 1",
        "w1",
    ]


@given(st.text() | st.recursive(st.text(), lambda v: st.dictionaries(st.text(), v)).map(json.dumps))
def test_any_line_is_told_or_left_out(line: str) -> None:
    json.dumps(Allowed(frozenset()).line(line))


# --- settings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [key for key, leaf in LEAVES.items() if may_be_told(leaf)])
def test_a_setting_whose_value_is_told_takes_no_text(key: str) -> None:
    with pytest.raises(BadSettings):
        from_environment(**{variable(key): HUSH})


def test_secrets_names_and_addresses_are_not_among_the_values_that_are_told() -> None:
    told = {key for key, leaf in LEAVES.items() if may_be_told(leaf)}
    assert {"daemon.sweep_s", "runner.kind", "log.level", "notifications.slack.enabled"} <= told
    assert not told & {key for key, leaf in LEAVES.items() if leaf.secret}
    assert not told & {"control.bucket", "daemon.state_dir", "aws.endpoint_url", "daemon.name"}


def test_a_setting_that_may_be_a_text_too_is_not_told() -> None:
    for kind, told in ((int, True), (int | None, True), (int | str, False), (Path, False)):
        assert may_be_told(Leaf("daemon.x", FieldInfo(annotation=kind, default=0))) is told  # type: ignore[arg-type]
    assert not may_be_told(Leaf("new_section.x", FieldInfo(annotation=int, default=0)))


# --- the file -----------------------------------------------------------------------------------------


def test_a_bundle_is_a_file_for_its_owner_with_a_manifest_that_fits(tmp_path: Path) -> None:
    parts = [
        BundlePart(name="a.json", about="One.", content={"x": 1}),
        BundlePart(name="worksets/1.json", about="Two.", content=({"y": 1}, {"y": 2})),
    ]
    files, path = packed(parts, ["Something."]), tmp_path / "b.tar.gz"
    write_bundle(path, files)
    assert path.stat().st_mode & 0o777 == 0o600
    with tarfile.open(path) as tar:
        names = [member.name for member in tar]
        manifest = json.load(tar.extractfile("daylily-support/manifest.json") or io.BytesIO())
        assert {(m.mode, m.uid, m.uname, m.mtime) for m in tar} == {(0o600, 0, "", 0)}
    assert names == [f"daylily-support/{file.name}" for file in files]
    assert [one["name"] for one in manifest["files"]] == ["a.json", "worksets/1.json"]
    assert manifest["missing"] == ["Something."]
    with pytest.raises(Permanent, match="exists already"):
        write_bundle(path, files)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nowhere")
    with pytest.raises(Permanent):
        write_bundle(link, files)
    with pytest.raises(Permanent, match="cannot be written"):
        write_bundle(tmp_path / "no" / "folder", files)


def test_the_last_lines_of_a_log_are_read(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"one\ntwo\n\xff\n")
    assert log_lines(log, 2) == ["two", "\ufffd"]
    with pytest.raises(Permanent, match="could not be read"):
        log_lines(tmp_path, 2)
