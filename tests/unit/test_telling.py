"""What of a long log reaches whoever has to say why its job failed."""

from __future__ import annotations

from pathlib import Path

import pytest

from daylily_daemon.adapters.runners.logs import clean
from daylily_daemon.adapters.runners.telling import (
    AROUND_BYTES,
    END_BYTES,
    MOST_FAILURES,
    telling,
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
