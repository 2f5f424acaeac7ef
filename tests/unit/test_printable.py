"""Whatever comes from outside, nothing that a terminal obeys is printed, and nothing is hidden."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from daylily_daemon.domain import printable
from daylily_daemon.domain.printable import LogText

HOSTILE = {
    "a colour": "\x1b[31mred",
    "a title": "\x1b]0;owned\x07",
    "a link": "\x1b]8;;https://example.org\x1b\\here\x1b]8;;\x1b\\",
    "the clipboard": "\x1b]52;c;cm0gLXJm\x07",
    "a device string": "\x1bP+q544e\x1b\\",
    "an application string": "\x1b_hidden\x1b\\",
    "eight-bit CSI": "\x9b31m",
    "eight-bit OSC": "\x9d0;owned\x9c",
    "a reset": "\x1bc",
    "a bell": "ring\x07",
    "backspaces": "rm\x08\x08ls",
    "a carriage return": "failed\rcomplete",
    "a line end": "one\ntwo",
    "a line separator": "one\u2028two\u2029three",
    "next line": "one\x85two",
    "form feed and vertical tab": "a\x0cb\x0bc",
    "delete": "a\x7fb",
    "right-to-left override": "gnp\u202etxt.exe\u202c",
    "isolates": "\u2066a\u2069",
    "marks of direction": "\u200ea\u200f\u061c",
    "zero width": "a\u200bb\u200cc\u200dd\ufeff",
    "word joiner": "a\u2060b",
    "a soft hyphen": "a\u00adb",
    "tags": "a\U000e0041\U000e0042\U000e007f",
    "annotation": "\ufff9a\ufffab\ufffb",
    "half a character": "a\udcffb\ud800",
    "a private character": "\ue000\U000f0000",
    "no character": "\ufdd0\uffff",
    "a filler that nobody sees": "a\u3164b\uffa0c\u115fd",
    "an empty pattern": "\u2800",
    "variation selectors": "a\ufe0f\U000e0100",
    "a pile of marks": "a" + "\u0301" * 40,
    "a no-break space": "R2_FQ\u00a0",
}


@pytest.mark.reported(
    "C",
    "escape sequences in fields and messages reach the terminal (kubernetes#101695, kubernetes#107617)",
)
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_a_terminal_obeys_or_hides_is_spelled_out(text: str) -> None:
    shown = printable.one_line(text)
    assert shown.isprintable()
    assert "\\" in shown
    assert not any(printable.is_plain(char) is False for char in shown)


@pytest.mark.parametrize(
    "text",
    [
        "[red]text[/red]",
        ":boom:",
        "[link=file:///etc/passwd]x[/link]",
        "Grüße, 患者, é, שלום",
        "a\\b",
    ],
)
def test_markup_emoji_codes_and_languages_stay_as_they_are(text: str) -> None:
    assert printable.one_line(text) == text
    assert printable.lines(text) == text


@pytest.mark.reported(
    "C",
    "a carriage return overwrites a line (kubernetes#112553); names that are no UTF-8 (plaso#3717)",
)
@given(st.text(alphabet=st.characters(), max_size=60))
@example("\x1b\x1b[m[31m")
def test_no_text_at_all_gets_through_and_plain_text_is_untouched(text: str) -> None:
    shown = printable.one_line(text)
    assert shown.isprintable()
    if all(printable.is_plain(char) for char in text) and "\u0300" not in text:
        assert len(shown) >= len(text)
    assert printable.one_line(shown) == shown


def test_four_marks_on_a_character_are_a_language_and_a_fifth_is_spelled_out() -> None:
    four = "a" + "\u0301" * 4 + "b" + "\u0301" * 4
    assert printable.one_line(four) == four
    assert printable.one_line(four + "\u0301") == four + "\\u0301"


def test_lines_keeps_line_ends_and_tabs_and_nothing_else() -> None:
    assert printable.lines("a\tb\r\nc\rd\x0be\u2028f") == "a\tb\nc\\rd\\x0be\\u2028f"


def _read(*pieces: bytes) -> str:
    log = LogText()
    return "".join([*(log.read(piece) for piece in pieces), log.rest()])


def test_a_log_loses_its_colours_and_links_and_shows_every_other_escape() -> None:
    raw = b"\x1b[1;32mok\x1b[0m \x1b]8;;http://x\x07here\x1b]8;;\x07\n\x1b]0;title\x07\x9b\xff\n"
    assert _read(raw) == "ok here\n\\x1b]0;title\\x07\ufffd\ufffd\n"


def test_a_sequence_that_is_whole_holds_nothing_back_and_half_a_one_does() -> None:
    assert LogText().read(b"\x1b[31mred") == "red"
    log = LogText()
    assert (log.read(b"a\x1b[3"), log.read(b"1mb"), log.rest()) == ("a", "b", "")
    assert (log.read(b"end\r"), log.read(b"\nnext"), log.read(b"\r"), log.rest()) == (
        "end",
        "\nnext",
        "",
        "\n",
    )
    long = b"\x1b]8;" + b"x" * 2099
    assert LogText().read(long) != ""


def test_a_progress_bar_becomes_lines() -> None:
    assert _read(b"10%\r20%\r", b"\n30%\r\n") == "10%\n20%\n30%\n"


def test_an_escape_that_is_built_from_the_rest_of_others_is_spelled_out() -> None:
    assert "\x1b" not in _read(b"\x1b\x1b[m[31mred")


def test_text_behind_an_unfinished_sequence_is_never_swallowed() -> None:
    raw = b"\x1b]0;" + b"everything that follows\n" * 300
    assert _read(raw).count("everything that follows") == 300
    assert _read(b"\x1b[") == "\\x1b["


def test_however_a_log_is_cut_into_pieces_it_reads_the_same() -> None:
    raw = "é患\x1b[1;31m者\r\n\x1b[Kx\x1b[0m\n".encode()
    pieces = [bytes([byte]) for byte in raw]
    assert _read(*pieces) == _read(raw) == "é患者\nx\n"


@pytest.mark.reported(
    "C", "control characters of a log reach the prompt (moby#30137, picoclaw#2377)"
)
@given(st.binary(max_size=200), st.integers(0, 200))
def test_no_log_reaches_a_terminal_with_anything_it_obeys(raw: bytes, cut: int) -> None:
    shown = _read(raw[:cut], raw[cut:])
    assert all(char in "\n\t" or printable.is_plain(char) for char in shown)
