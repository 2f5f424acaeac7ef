"""What of a long log reaches whoever has to say why its job failed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from daylily_daemon.adapters.runners.logs import clean
from daylily_daemon.adapters.runners.telling import (
    AROUND_BYTES,
    END_BYTES,
    MOST_FAILURES,
    telling,
    with_rule_logs,
)
from daylily_daemon.domain.failures import classify
from daylily_daemon.domain.model import Ended, Outcome

RECORDED = Path(__file__).parent.parent / "data" / "workflow"
CHATTER = b"1 of 5 steps (20%) done\n" * 40_000


def of(folder: Path, text: bytes) -> bytes:
    (folder / "log").write_bytes(text)
    return telling(str(folder))


@pytest.mark.reported("D", "errors far above the end of a keep-going run (snakemake#3529)")
@pytest.mark.parametrize("version", [7, 8, 9])
def test_a_rule_that_failed_a_million_bytes_before_the_end_is_named(
    tmp_path: Path, version: int
) -> None:
    recorded = (RECORDED / f"show-failed-logs.snakemake{version}.log").read_bytes()
    tail = clean(of(tmp_path, CHATTER + recorded + CHATTER))
    failure = classify(Outcome(ended=Ended.EXITED, code=1, tail=tail))
    assert failure.code == "WS-RES-002"
    assert "rule sort_bam (sample=HG002) failed" in failure.message
    assert "logs/bwa/HG002.sort.log" in failure.message


def test_a_failure_that_moved_to_the_rotated_piece_is_found_too(tmp_path: Path) -> None:
    (tmp_path / "log.1").write_bytes(b"Error in rule x:\n" + CHATTER)
    assert of(tmp_path, CHATTER).startswith(b"Error in rule x:\n")


def test_what_is_kept_is_bounded_however_often_something_failed(tmp_path: Path) -> None:
    kept = of(tmp_path, b"Error in rule x:\n" * 100_000)
    assert len(kept) <= END_BYTES + MOST_FAILURES * (2 * AROUND_BYTES + 1)


@pytest.mark.parametrize("size", [0, 1, END_BYTES - 9, END_BYTES, END_BYTES + 9, 3 * END_BYTES])
def test_a_log_without_failures_is_its_end_and_nothing_twice(tmp_path: Path, size: int) -> None:
    text = bytes(65 + n % 26 for n in range(size))
    assert of(tmp_path, text) == text[-END_BYTES:] if size else of(tmp_path, text) == b""


@pytest.mark.parametrize("gap", range(0, 3 * AROUND_BYTES, 1_000))
def test_what_lies_near_the_end_is_not_kept_twice(tmp_path: Path, gap: int) -> None:
    text = b"Error in rule x:\n" + b"-" * (END_BYTES - 9 + gap)
    kept = of(tmp_path, text)
    assert kept.count(b"Error in rule x:") == 1
    assert len(kept) <= len(text) + 1


def test_no_log_tells_nothing(tmp_path: Path) -> None:
    assert telling(str(tmp_path)) == b""


def failed_at(folder: Path, version: int = 9) -> str:
    recorded = (RECORDED / f"sort.snakemake{version}.log").read_text(encoding="utf-8")
    tail = with_rule_logs(recorded, str(folder))
    return classify(Outcome(ended=Ended.EXITED, code=1, tail=tail)).code


@pytest.fixture
def rule_log(tmp_path: Path) -> Path:
    path = tmp_path / "run" / "logs" / "bwa" / "HG002.sort.log"
    path.parent.mkdir(parents=True)
    return path


@pytest.mark.reported("D", "a reason that stands in the log of the rule alone (snakemake#2709)")
@pytest.mark.parametrize("version", [7, 8, 9])
def test_what_a_failed_rule_wrote_into_its_own_log_is_found(
    tmp_path: Path, rule_log: Path, version: int
) -> None:
    rule_log.write_bytes(b"x" * 9_000 + b"\nsort: No space left on device\n=====\n\xff\x1b[0m\n")
    assert failed_at(tmp_path / "run", version) == "WS-RES-002"


def test_a_log_outside_the_folder_of_the_run_is_not_read(tmp_path: Path, rule_log: Path) -> None:
    outside = tmp_path / "outside.log"
    outside.write_text("sort: No space left on device\n")
    rule_log.symlink_to(outside)
    assert failed_at(tmp_path / "run") == "WS-UNK-000"
    text = "Building DAG of jobs...\nError in rule x:\n    log: ../outside.log, /etc/passwd\n"
    assert with_rule_logs(text, str(tmp_path / "run")) == text


def test_what_is_no_file_is_not_waited_for(tmp_path: Path, rule_log: Path) -> None:
    os.mkfifo(rule_log)
    assert failed_at(tmp_path / "run") == "WS-UNK-000"
    rule_log.unlink()
    rule_log.mkdir()
    assert failed_at(tmp_path / "run") == "WS-UNK-000"


def test_a_log_that_is_shown_already_is_not_shown_again(tmp_path: Path, rule_log: Path) -> None:
    rule_log.write_text("anything\n")
    recorded = (RECORDED / "show-failed-logs.snakemake9.log").read_text(encoding="utf-8")
    assert with_rule_logs(recorded, str(tmp_path / "run")) == recorded
