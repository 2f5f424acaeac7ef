"""Text from outside, made fit for a person's terminal, journal or status line.

Keys, reasons, log lines and sentences of other programs may hold anything: escape sequences that recolour,
retitle or overwrite a terminal, marks that turn the direction of writing, characters that take no room,
separators that forge a line. Everything that is not plainly printed as itself is spelled out (``\\x1b``,
``\\u202e``): nothing is hidden, and nothing acts. Markup and emoji codes are plain text and stay as they are.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from typing import Final

MARKS_IN_A_ROW: Final = 4
"""Combining marks on one character that languages need; more of them climb into the lines around."""

_INVISIBLE: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""What Unicode counts as letters, marks or symbols, and nobody sees."""
_COLOUR: Final = re.compile(r"\x1b\[[0-?]{0,64}[ -/]{0,8}[@-~]")
"""A whole CSI sequence: colours, cursor movements. What is not whole is spelled out."""
_LINK: Final = re.compile(r"\x1b\]8;[^\x00-\x1f\x7f-\x9f]{0,2048}(?:\x07|\x1b\\)")
_UNFINISHED: Final = 2100
"""Characters of a sequence that may still become whole with the next piece of a log."""


def one_line(text: str) -> str:
    """Return ``text`` on one line, line ends and tabs spelled out too."""
    return text if text.isascii() and text.isprintable() else _spelled(text, "")


def lines(text: str) -> str:
    """Return ``text`` with its line ends and tabs, everything else as in ``one_line``."""
    return "\n".join(_spelled(line, "\t") for line in text.replace("\r\n", "\n").split("\n"))


def is_plain(char: str) -> bool:
    """Tell whether this character is printed as itself and nothing else."""
    return char.isprintable() and not _INVISIBLE.match(char)


def spelled(char: str) -> str:
    """Return the character as Python writes it in a literal: ``\\x1b``, ``\\u202e``."""
    return char.encode("unicode_escape").decode("ascii")


def _spelled(text: str, kept: str) -> str:
    found, marks = [], 0
    for char in text:
        marks = marks + 1 if not char.isascii() and unicodedata.category(char) == "Mn" else 0
        plain = char in kept or (is_plain(char) and marks <= MARKS_IN_A_ROW)
        found.append(char if plain else spelled(char))
    return "".join(found)


class LogText:
    """The log of a job, piece by piece as it is read.

    Colours, cursor movements and links are left out, all else is as in ``lines``. A lone carriage return, as
    progress bars write, ends a line. Bytes that are no UTF-8 are replaced.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""

    def read(self, piece: bytes) -> str:
        """Return what can be printed now; what may be half a sequence waits for the next piece."""
        text = self._held + self._decoder.decode(piece)
        start = text.rfind("\x1b")
        half = start >= 0 and len(text) - start < _UNFINISHED and not _whole(text[start:])
        if not half:
            start = len(text) - 1 if text.endswith("\r") else len(text)
        self._held = text[start:]
        return _log_lines(text[:start])

    def rest(self) -> str:
        """Return what was still held back, at the end of the log."""
        text = self._held + self._decoder.decode(b"", final=True)
        self._held = ""
        return _log_lines(text)


def _whole(text: str) -> bool:
    """Tell whether the sequence ``text`` begins with needs nothing more to be judged."""
    if _COLOUR.match(text) or _LINK.match(text):
        return True
    return not re.fullmatch(r"\x1b(\[[0-?]*[ -/]*|\](8(;[^\x00-\x1f\x7f-\x9f]*)?)?)?", text)


def _log_lines(text: str) -> str:
    bare = _LINK.sub("", _COLOUR.sub("", text))
    return lines(bare.replace("\r\n", "\n").replace("\r", "\n"))
