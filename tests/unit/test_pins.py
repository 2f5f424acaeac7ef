"""What a plan keeps of all that was checked, and what it tells when something differs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daylily_daemon.domain.errors import Permanent
from daylily_daemon.domain.pins import Pin, checked, digest_of_pins, read_pin

S = 10**9
REMOTE = [Pin(f"s3://reads/{number}.fq", 5, f"etag{number}", number * S) for number in range(1, 4)]
LOCAL = Pin("/fsx/a.fq", 5, "/fsx/a.fq:7:9", 100 * S, local=True)
ALL = [*REMOTE, LOCAL]
WANTED = checked("r", "s", ALL)


def test_what_is_as_it_was_checked_differs_in_nothing_whatever_its_order() -> None:
    assert WANTED.differing(ALL) == ""
    assert WANTED.differing([*reversed(ALL), REMOTE[0]]) == ""


def test_what_was_written_after_everything_that_was_checked_is_named() -> None:
    newer = Pin("s3://reads/2.fq", 5, "other", 4 * S)
    assert WANTED.differing([REMOTE[0], newer, REMOTE[2], LOCAL]) == (
        "s3://reads/2.fq was changed after it was checked. Put daylily.ready again, and it is checked anew."
    )
    newer_here = Pin("/fsx/a.fq", 6, "x", 101 * S, local=True)
    assert WANTED.differing([*REMOTE, newer_here]).startswith("/fsx/a.fq was changed")


def test_the_clocks_of_s3_and_of_the_disk_are_not_compared() -> None:
    newer = Pin("s3://reads/2.fq", 5, "other", 50 * S)
    assert WANTED.differing([REMOTE[0], newer, REMOTE[2], LOCAL]).startswith("s3://reads/2.fq")


def test_a_change_that_no_time_tells_is_refused_without_a_name() -> None:
    assert "One of the 3 input files was changed" in WANTED.differing(ALL[1:])
    older = Pin("s3://reads/2.fq", 5, "other", 2 * S)
    assert "One of the 4 input files" in WANTED.differing([REMOTE[0], older, REMOTE[2], LOCAL])


def test_many_changed_files_are_named_in_part() -> None:
    newer = [Pin(f"s3://reads/{number}", 1, "e", 9 * S) for number in range(25)]
    said = WANTED.differing(newer)
    assert said.count("s3://reads/") == 10
    assert "and 15 more was changed" in said


@given(
    st.lists(st.tuples(st.text(max_size=5), st.integers(0, 9), st.text(max_size=3)), max_size=4),
    st.lists(st.tuples(st.text(max_size=5), st.integers(0, 9), st.text(max_size=3)), max_size=4),
)
def test_the_digest_is_equal_for_equal_sets_of_files_alone(
    one: list[tuple[str, int, str]], other: list[tuple[str, int, str]]
) -> None:
    def digest(files: list[tuple[str, int, str]]) -> str:
        return digest_of_pins([Pin(place, size, version, 0) for place, size, version in files])

    def plain(files: list[tuple[str, int, str]]) -> bool:
        return not any("\0" in text or "\n" in text for one in files for text in (one[0], one[2]))

    assert (digest(one) == digest(other)) == (set(one) == set(other)) or not plain([*one, *other])


def test_a_pin_is_read_back_as_it_was_and_any_other_text_is_a_sentence() -> None:
    assert read_pin(str(WANTED)) == WANTED
    assert read_pin("") is None
    for text in ("2" + str(WANTED)[1:], "1.a", "1.a.b.c.x.1", str(WANTED) + ".1"):
        with pytest.raises(Permanent, match=r"cannot be read any more .* checked anew"):
            read_pin(text)
