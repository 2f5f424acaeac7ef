"""Patterns over logs: what they match, what is refused, and that no text makes one slow."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daylily_daemon.domain.failures import KNOWN
from daylily_daemon.domain.patterns import MAX_CHARS, BadPattern, Regex, compiled, search
from daylily_daemon.settings.sources import BadSettings, Sources, load
from tests.costs import assert_linear

BUILT_IN = [compiled(entry.pattern, ignore_case=True) for entry in KNOWN]
WORDS = (
    "s3",
    "amazonaws",
    "fastq",
    "reference",
    "bwa",
    "gatk",
    "no such file or directory",
    "java",
    " ",
)
BLOW_UPS = ("(x+x+)+y", "(a|aa)+$", "(.*)*=", "(?:(s3)+)+Q", r"(\w+\s?)+!", ".*.*.*.*=")


def search_for(regex: Regex, word: str) -> Callable[[int], object]:
    return lambda length: regex.search(word * (length // len(word)))


@pytest.mark.reported(
    "B", "a pattern that goes back without end on `s3s3s3…` (cloudflare#2019-07-02)"
)
@pytest.mark.parametrize("word", [*WORDS, "x", "a", "é", "\n"])
def test_eight_times_the_log_takes_about_eight_times_as_long(word: str) -> None:
    for regex in (*BUILT_IN, *(compiled(pattern) for pattern in BLOW_UPS)):
        assert_linear(search_for(regex, word), 8_192, 65_536)


@given(
    words=st.lists(
        st.sampled_from((*WORDS, "timeout", "x" * 40, "error", "\n")), min_size=1, max_size=9
    )
)
@settings(max_examples=20)
def test_no_log_made_of_telling_words_is_slow_to_search(words: list[str]) -> None:
    def search_all(length: int) -> None:
        text = "".join(words) * (length // len("".join(words)))
        for regex in BUILT_IN:
            regex.search(text)

    assert_linear(search_all, 8_192, 65_536)


def test_groups_have_names_and_a_match_has_a_place() -> None:
    regex = compiled(r"(?P<done>\d+) of (?P<total>\d+)(?P<rest>!)?")
    assert regex.names == {"done", "total", "rest"}
    found = regex.search("ähm: 3 of 12 steps")
    assert found is not None
    assert (found.start, found.groups) == (5, {"done": "3", "total": "12", "rest": None})
    assert regex.search("nothing") is None


def test_case_counts_unless_it_is_to_be_ignored() -> None:
    assert not search("oom", "OOM")
    assert search("oom", "OOM", ignore_case=True)
    assert not search("(?-i)OOM", "oom", ignore_case=True)


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("error(?=s)", "looks ahead"),
        ("error(?!s)", "looks ahead"),
        ("(?<!no )error", "looks behind"),
        (r"(a+)\1", "refers back to a group"),
        (r"end\Z", "where `$` was expected"),
        (r"a: (?=b: c)", "it looks ahead. The syntax is that of RE2: no looking ahead"),
        (r"(a)\2: \1", "it refers back to a group. The syntax"),
        (r"\C\y", "invalid escape sequence: \\y. The syntax is that of RE2"),
        ("((", "missing )"),
        ("[z-a]", "z-a"),
        ("*", "repetition"),
        (r"\d++", "repetition"),
        ("x{1001}", "repetition"),
        ("x" * (MAX_CHARS + 1), "1,001 characters; 1,000 are the most"),
        (r"(\w{1,200}\s?){1,5}z", "too large"),
        ("\\p{Greek}{1,900}", "too large"),
        ("\ud800", "no character of Unicode"),
    ],
)  # fmt: skip
def test_what_cannot_be_matched_in_linear_time_is_refused_with_the_reason(
    pattern: str, told: str
) -> None:
    with pytest.raises(BadPattern) as refused:
        compiled(pattern)
    assert told in str(refused.value)


@given(pattern=st.text(max_size=40), text=st.text(max_size=200))
def test_any_pattern_is_usable_or_refused(pattern: str, text: str) -> None:
    with suppress(BadPattern):
        compiled(pattern).search(text)


def test_text_that_is_no_unicode_is_searched_all_the_same() -> None:
    found = search("b", "a\udc80b")
    assert found is not None
    assert found.start == 2


def test_a_pattern_that_could_take_long_or_matches_everything_is_refused() -> None:
    for pattern, told in {
        "error(?!s)": "it looks ahead. The syntax is that of RE2",
        "(x{900}){900}": "repetition",
        "x*": "does not match everything",
    }.items():
        one = f'[{{pattern: "{pattern}", code: L-1, category: data, retry: false}}]'
        with pytest.raises(BadSettings) as refused:
            load(Sources(environment={"DAYLILY_RETRY__PATTERNS": one}))
        assert told in str(refused.value)
