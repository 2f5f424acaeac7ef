"""Safe YAML: what is read, what is refused, and that every complaint says where."""

from __future__ import annotations

import codecs

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from daylily_daemon.domain.document import (
    MAX_ALIASES,
    MAX_BYTES,
    MAX_DEPTH,
    MAX_NODES,
    BadDocument,
    Document,
    decode_text,
    parse,
    shown,
    unseen,
)
from daylily_daemon.domain.model import Category, Problem
from tests.costs import assert_linear

FILE = "some.yaml"


def refused(data: bytes | str) -> Problem:
    with pytest.raises(BadDocument) as caught:
        parse(data.encode() if isinstance(data, str) else data, FILE)
    problem = caught.value.problem
    assert problem.file == FILE
    assert problem.todo.endswith(".")
    assert str(caught.value) == str(problem)
    return problem


def read(data: bytes) -> Document | Problem:
    try:
        return parse(data, FILE)
    except BadDocument as exc:
        return exc.problem


def value(text: str) -> object:
    return parse(text.encode(), FILE).value


def test_keys_and_values_are_bounded() -> None:
    most = "[" + "x," * (MAX_NODES - 1) + "]"
    assert value(most) == ["x"] * (MAX_NODES - 1)
    assert f"more than {MAX_NODES:,} keys and values" in refused("[" + "x," * MAX_NODES + "]").what


def test_plain_data_comes_out_as_plain_data() -> None:
    assert value("a: 1\nb: [x, -2, 0.5, true, null]\nc: {d: 'e'}\n") == {
        "a": 1,
        "b": ["x", -2, 0.5, True, None],
        "c": {"d": "e"},
    }


@pytest.mark.parametrize(
    "text",
    ["0012", "no", "on", "12:30", "2024-01-01", "1e3", "0x10", "1_000", "+5", ".inf", "9" * 30],
)
def test_what_yaml_versions_read_differently_stays_text(text: str) -> None:
    assert value(f"sample_id: {text}") == {"sample_id": text}


def test_keys_are_always_text() -> None:
    assert value("1: a\ntrue: b\nnull: c\n") == {"1": "a", "true": "b", "null": "c"}


def test_an_empty_file_is_nothing() -> None:
    document = parse(b"# only a comment\n", FILE)
    assert document.value is None
    assert document.line_of("a") is None
    assert document.text_of("a") is None


def test_the_top_level_can_be_asked_to_be_a_mapping() -> None:
    assert parse(b"a: 1", FILE).mapping() == {"a": 1}
    for data, word in ((b"", "empty"), (b"- 1", "not a mapping"), (b"text", "not a mapping")):
        with pytest.raises(BadDocument, match=word) as caught:
            parse(data, FILE).mapping()
        assert caught.value.problem.where == "line 1"


def test_lines_are_those_of_the_keys_counted_from_one() -> None:
    document = parse(b"# c\na:\n  - x: 1\n    y: >\n      folded\nb: 2\n", FILE)
    assert document.line_of("a") == 2
    assert document.line_of("a", 0) == 3
    assert document.line_of("a", 0, "y") == 4
    assert document.line_of("b") == 6
    for absent in (("c",), ("a", 1), ("a", -1), ("b", "x"), ("a", 0, "x", "deeper")):
        assert document.line_of(*absent) is None


def test_a_scalar_can_be_had_as_it_was_written() -> None:
    document = parse(b"a: 1.10\nb: true\nc: [007]\n", FILE)
    assert document.text_of("a") == "1.10"
    assert document.text_of("b") == "true"
    assert document.text_of("c", 0) == "007"
    assert document.text_of("c") is None


def test_a_byte_order_mark_is_no_part_of_the_first_key() -> None:
    assert parse(codecs.BOM_UTF8 + b"a: 1", FILE).value == {"a": 1}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_utf_16_is_named_and_the_way_out_said(encoding: str) -> None:
    problem = refused("dy-r: help\n".encode(encoding))
    assert "UTF-16" in problem.what
    assert "Save it as UTF-8" in problem.todo
    assert problem.where == "line 1"


def test_latin_1_is_found_on_its_line() -> None:
    problem = refused("a: 1\r\nb: 2\r\nnotes: Grüße\r\n".encode("latin-1"))
    assert problem.where == "line 3"
    assert "0xFC" in problem.what
    assert "UTF-8" in problem.todo


def test_a_nul_byte_is_refused_on_its_line() -> None:
    problem = refused(b"a: 1\nnotes: this is long enough\0\n")
    assert problem.where == "line 2"
    assert "NUL" in problem.what


def test_text_problems_of_data_files_are_data_problems() -> None:
    with pytest.raises(BadDocument) as caught:
        decode_text(b"\xff", "x.tsv")
    assert caught.value.problem.category is Category.DATA
    assert refused(b"\xff").category is Category.CONFIGURATION


def test_a_file_over_the_limit_is_refused_unread() -> None:
    assert f"{MAX_BYTES:,}" in refused(b"[" * (MAX_BYTES + 1)).what
    assert value("a: " + "x" * (MAX_BYTES - 3)) == {"a": "x" * (MAX_BYTES - 3)}


def test_the_limit_can_be_set() -> None:
    with pytest.raises(BadDocument, match="at most 10 "):
        parse(b"a: 12345678", FILE, max_bytes=10)


def test_a_key_there_twice_is_refused_with_both_lines() -> None:
    problem = refused("x:\n  a: 1\n  b: 2\n  a: 3\n")
    assert problem.where == "line 4"
    assert "'a' is there twice, on line 2 and line 4" in problem.what


def yaml_bomb(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join(lines)


def test_a_yaml_bomb_is_refused_before_it_goes_off() -> None:
    """Each level would cost nine times the one before."""
    assert_linear(lambda levels: refused(yaml_bomb(levels)), 4, 9)
    problem = refused(yaml_bomb(9))
    assert problem.where == "line 3"
    assert "aliases" in problem.what


def test_ten_aliases_are_allowed_and_eleven_are_not() -> None:
    text = "a: &a x\nb: [{}]"
    assert value(text.format(", ".join(["*a"] * MAX_ALIASES))) == {
        "a": "x",
        "b": ["x"] * MAX_ALIASES,
    }
    assert refused(text.format(", ".join(["*a"] * (MAX_ALIASES + 1)))).where == "line 2"


def test_an_alias_within_what_it_names_is_refused() -> None:
    assert "alias" in refused("a: 1\nb: &b [1, *b]").what
    assert refused("a: 1\nb: &b [1, *b]").where == "line 2"


def test_nesting_ends_at_the_limit() -> None:
    assert value("[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)) is not None
    assert "30 levels" in refused("a: 1\nb: " + "[" * 50_000).what
    assert refused("a: 1\nb: " + "[" * 500 + "]" * 500).where == "line 2"
    assert "30 levels" in refused("".join(" " * i + "a:\n" for i in range(200))).what


@pytest.mark.parametrize(
    "text",
    [
        "a: !!python/object/apply:os.system [id]",
        "a: !!python/name:os.system",
        "a: !!binary aGk=",
        "a: !!set {b}",
        "a: !!timestamp 2001-01-01",
        "a: !own x",
        "a: !!int x",
        "a: !!bool maybe",
        "a: !!float ._",
        "a: !!map [1]",
    ],
)
def test_a_tag_that_is_not_plain_or_does_not_fit_is_refused(text: str) -> None:
    problem = refused("x: 1\n" + text)
    assert problem.where == "line 2"
    assert "tag" in problem.what


@pytest.mark.parametrize(
    ("text", "where", "words"),
    [
        ("a: b: c", "line 1", "mapping values are not allowed"),
        ("a: 1\nb: [1, 2\nc: 3", "line 3", "flow sequence"),
        ("a: 1\n\tb: 2", "line 2", "\\t"),
        ("a: 'open", "line 1", "quoted scalar"),
        ("a: *nobody", "line 1", "undefined alias"),
        ("a: 1\n---\nb: 2", "line 2", "another document"),
        ("a: 1\nb: \x07", "line 2", "U+0007"),
        ('a: 1\nb: "\\UFFFFFFFF"', "line 2", "out of range"),
        ("%YAML " + "9" * 5000 + ".1\n--- a", "line 1", "out of range"),
        ('a: 1\nb: "\\ud83d\\ude00"', "line 2", "surrogate"),
        ('a: 1\n"\\ud800": 1', "line 2", "surrogate"),
        ("a: 1\n<<: {b: 2}", "line 2", "Merge keys"),
        ("a: 1\n? [b]\n: 2", "line 2", "key"),
    ],
)
def test_every_mistake_is_found_on_its_line(text: str, where: str, words: str) -> None:
    problem = refused(text)
    assert problem.where == where
    assert words in problem.what
    assert problem.category is Category.CONFIGURATION


def test_tabs_for_indentation_get_their_own_advice() -> None:
    assert "never tabs" in refused("a:\n\tb: 2").todo


def test_foreign_text_is_shown_on_one_line_and_cut() -> None:
    assert shown("a\nb") == r"'a\nb'"
    assert len(shown("x" * 1000)) == 82


def test_characters_nobody_sees_are_named() -> None:
    assert unseen("a b-c") == ""
    assert unseen("a\u00a0b") == "U+00A0"
    assert unseen("a\u200bb") == "U+200B"
    assert unseen("a\nb") == "U+000A"


SCRAPS = st.lists(
    st.sampled_from(
        [*"abc019:-#&*!|>%@`'\"[]{},?~. \n\t\\", "<<", "!!int ", "\\x", "\\U00110000", "---"]
    )
).map("".join)


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=200), st.text(max_size=200).map(str.encode), SCRAPS.map(str.encode)
    )
)
@example(b"\xfe\xff\x00a")
@example(b'"\\U00110000"')
@example(b"!!int ''")
@example(b"! ''")
def test_any_bytes_are_read_or_refused_and_never_more(data: bytes) -> None:
    outcome = read(data)
    if isinstance(outcome, Problem):
        assert outcome.file == FILE
        assert outcome.where.startswith("line ")
        assert "\n" not in outcome.what
    else:
        assert isinstance(outcome.value, dict | list | str | int | float | None)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4)
    ),
    max_leaves=20,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.text(max_size=9), PLAIN, max_size=4))
def test_what_was_written_with_quotes_is_read_back(data: dict[str, object]) -> None:
    class NoAliases(yaml.SafeDumper):
        def ignore_aliases(self, data: object) -> bool:
            return True

    written = yaml.dump(data, Dumper=NoAliases, default_style='"', allow_unicode=False)
    assert parse(written.encode(), FILE).value == data
