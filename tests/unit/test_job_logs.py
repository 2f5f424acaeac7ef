"""Reading logs: progress, the last lines, and rotation while reading."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from daylily_daemon.adapters.runners.logs import (
    LOOK_BYTES,
    WINDOW_BYTES,
    Cursor,
    ProgressReader,
    clean,
    tail,
)
from daylily_daemon.domain.model import Progress
from daylily_daemon.domain.run import NOTHING_YET

PERCENT = r"(?P<percent>[\d.]+)%"
STEPS = r"(?P<done>\S+) of (?P<total>\S+) steps"


def seen(progress: ProgressReader) -> Progress | None:
    """Return what the lines say, without the time of the last one."""
    found = progress.read()
    told = found and replace(found, output_at=None)
    return None if told == NOTHING_YET else told


def reader(directory: Path, pattern: str) -> ProgressReader:
    return ProgressReader(str(directory), pattern)


def append(directory: Path, data: bytes) -> None:
    with (directory / "log").open("ab") as file:
        file.write(data)


def rotate(directory: Path) -> None:
    (directory / "log").replace(directory / "log.1")


@pytest.mark.parametrize(
    ("pattern", "line", "expected"),
    [
        (PERCENT, "now 25% done", Progress(0.25, "now 25% done")),
        (PERCENT, "now 250% done", Progress(1.0, "now 250% done")),
        (PERCENT, "now ...% done", Progress(None, "now ...% done")),
        (STEPS, "1 of 8 steps", Progress(0.125, "1 of 8 steps")),
        (STEPS, "1 of 0 steps", Progress(None, "1 of 0 steps")),
        (STEPS, "nan of 1 steps", Progress(None, "nan of 1 steps")),
        ("Rule .*", "Rule align", Progress(None, "Rule align")),
        (STEPS, "nothing of the kind", None),
        ("", "1 of 8 steps", None),
        ("(", "1 of 8 steps", None),
    ],
)
def test_progress_is_a_fraction_and_the_line_it_was_found_in(
    tmp_path: Path, pattern: str, line: str, expected: Progress | None
) -> None:
    append(tmp_path, f"{line}\n".encode())
    assert seen(reader(tmp_path, pattern)) == expected


def test_the_last_matching_line_counts_and_is_remembered(tmp_path: Path) -> None:
    progress = reader(tmp_path, STEPS)
    assert seen(progress) is None
    append(tmp_path, b"1 of 4 steps\n2 of 4 steps\nchatter\n")
    assert seen(progress) == Progress(0.5, "2 of 4 steps")
    append(tmp_path, b"more chatter\n")
    assert seen(progress) == Progress(0.5, "2 of 4 steps")


def test_a_line_that_is_still_being_written_is_not_read_by_halves(tmp_path: Path) -> None:
    progress = reader(tmp_path, STEPS)
    append(tmp_path, b"1 of 4")
    assert seen(progress) is None
    append(tmp_path, b"0 steps\n")
    assert seen(progress) == Progress(0.025, "1 of 40 steps")


def test_a_bar_drawn_with_carriage_returns_is_read_like_lines(tmp_path: Path) -> None:
    append(tmp_path, b"10%\r20%\r30%\r4")
    assert seen(reader(tmp_path, PERCENT)) == Progress(0.3, "30%")


def test_a_message_is_short_and_free_of_control_characters(tmp_path: Path) -> None:
    raw = "\x1b[1;32m50%\x1b[0m \x07\x1b]0;title\x07f\u00fcr \u2029\u202e" + "x" * 500
    append(tmp_path, raw.encode() + b"\xff\n")
    progress = reader(tmp_path, PERCENT).read()
    assert progress is not None
    assert progress.message == ("50% für " + "x" * 500)[:200]


def test_progress_is_found_in_a_log_that_says_much_else(tmp_path: Path) -> None:
    progress = reader(tmp_path, STEPS)
    for number in range(1, 20):
        append(tmp_path, f"{number} of 20 steps\n".encode() + b"chatter of a tool\n" * 20_000)
        assert seen(progress) == Progress(number / 20, f"{number} of 20 steps")


def test_a_line_across_the_pieces_that_are_read_is_read_whole(tmp_path: Path) -> None:
    for missing in range(1, 12):
        append(tmp_path, b"y" * (WINDOW_BYTES - missing) + b"\n3 of 4 steps\n")
        append(tmp_path, b"z" * (WINDOW_BYTES - 14 + missing - 1))
        assert seen(reader(tmp_path, STEPS)) == Progress(0.75, "3 of 4 steps")
        rotate(tmp_path)


def test_only_the_end_of_a_very_long_log_is_read_and_no_cut_line(tmp_path: Path) -> None:
    line = b"15 of 20 steps\n"
    append(tmp_path, b"1 of 20 steps\n" + b"x" * LOOK_BYTES)
    progress = reader(tmp_path, STEPS)
    append(tmp_path, b"\n")
    assert seen(progress) is None
    append(tmp_path, line + b"y" * (LOOK_BYTES - len(line) + 1))
    assert seen(progress) is None, "the first byte of that line was skipped"
    append(tmp_path, b"\n16 of 20 steps\n")
    assert seen(progress) == Progress(0.8, "16 of 20 steps")


def test_progress_goes_on_after_the_log_was_rotated(tmp_path: Path) -> None:
    progress = reader(tmp_path, STEPS)
    append(tmp_path, b"1 of 4 steps\n")
    progress.read()
    append(tmp_path, b"2 of 4 steps\n")
    rotate(tmp_path)
    assert seen(progress) == Progress(0.5, "2 of 4 steps")
    append(tmp_path, b"3 of 4 steps\n")
    assert seen(progress) == Progress(0.75, "3 of 4 steps")


def test_a_cursor_reads_everything_once_across_rotation(tmp_path: Path) -> None:
    cursor = Cursor(str(tmp_path))
    assert cursor.read() == b""
    append(tmp_path, b"one ")
    assert cursor.read() == b"one "
    append(tmp_path, b"two ")
    rotate(tmp_path)
    append(tmp_path, b"three")
    assert [cursor.read(), cursor.read(), cursor.read()] == [b"two ", b"three", b""]


def test_the_last_lines_reach_back_into_the_rotated_piece(tmp_path: Path) -> None:
    assert tail(str(tmp_path), 5) == b""
    append(tmp_path, b"1\n2\n3\n")
    rotate(tmp_path)
    append(tmp_path, b"4\n5")
    assert tail(str(tmp_path), 3) == b"3\n4\n5"
    assert tail(str(tmp_path), 0) == b""


def test_cleaning_keeps_lines_and_tabs() -> None:
    assert clean(b"a\tb\r\nc\rd\n\x00\x1b[31me\x1b[0m") == "a\tb\nc\nd\ne"


def test_when_a_log_was_last_written_to_is_known_across_a_rotation(tmp_path: Path) -> None:
    progress = reader(tmp_path, STEPS)
    assert progress.read() is None
    append(tmp_path, b"a line\n")
    os.utime(tmp_path / "log", (1_700_000_000.9, 1_700_000_000.9))
    at = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    assert progress.read() == Progress(None, "", at)
    rotate(tmp_path)
    assert progress.read() == Progress(None, "", at)
