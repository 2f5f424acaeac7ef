"""Texts that look like others: names a letter away from those we know, and what word processors make of text.

A name that differs from a known one by case, spaces, punctuation, letters of another alphabet or one slip
of the finger would be ignored as unknown, and what it stands for left out of the run. It is told instead.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Final

_SAME: Final = str.maketrans(
    {
        **dict(zip("авекмнорстухіјѕԁԛԝӏ", "abekmhopctyxijsdqwl", strict=True)),
        **dict(zip("αβεζηικμνορτυχ", "abezhikmnoptyx", strict=True)),
        **{
            "\u0131": "i",
            "ł": "l",
            "ø": "o",
            "đ": "d",
            "ß": "b",
            "\u04af": "y",
            "\u0437": "3",
            "_": "",
            "|": "l",
        },
    }
)
"""Letters of other alphabets, in lower case, and what their capitals are taken for."""
_DIGITS: Final = str.maketrans("li0", "11o")
"""Letters and digits that many fonts draw alike: l, I and 1; O and 0. Applied after the table above."""

_TYPED: Final = {
    **dict.fromkeys("\u2018\u2019\u201a\u201b\u2039\u203a\u2032\u2035\u00b4\uff07", "'"),
    **dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb\u2033\u2036\uff02", '"'),
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d", "-"),
    **dict.fromkeys("\u2026", "..."),
}
"""What word processors put in the place of plain characters, and what to type."""
_TYPOGRAPHIC: Final = re.compile(f"[{''.join(_TYPED)}]")

_SPREADSHEET: Final = re.compile(
    r"#(?:[¡¿]?[^\W\d]{2,}(?:[ _/][^\W_]+)?[!?]|[^\W\d]/[^\W\d]|NV\b|GETTING_DATA)|#{3,}|\bErr:5\d\d\b",
    re.IGNORECASE,
)
"""What spreadsheets show where a formula has no value, or a column is too narrow."""


def fold(name: str) -> str:
    """Return what is left of a name when only its letters and digits count, whatever they look like."""
    plain = unicodedata.normalize("NFKD", name).casefold().translate(_SAME)
    letters = (str(unicodedata.decimal(char, char)) for char in plain if char.isalnum())
    return "".join(letters).translate(_DIGITS)


def plain(name: str) -> str:
    """Return a name in the capitals, digits and single underscores that it seems to be meant to have."""
    text = unicodedata.normalize("NFKD", name).casefold().translate(_SAME | {ord("_"): "_"})
    return re.sub(r"[^A-Z0-9]+", "_", text.upper()).strip("_")


def is_slip(name: str, other: str) -> bool:
    """Tell whether one letter more, less or another, or two exchanged, makes one folded name of the other."""
    if name == other:
        return True
    if abs(len(name) - len(other)) > 1 or max(len(name), len(other)) < 4:
        return False
    same = next((i for i, (a, b) in enumerate(zip(name, other, strict=False)) if a != b), None)
    if same is None:
        return True
    one, two = name[same:], other[same:]
    exchanged = one[:2] == two[1::-1] and one[2:] == two[2:]
    return exchanged or one[1:] == two[1:] or one[1:] == two or one == two[1:]


def meant(name: str, known: Mapping[str, str], there: Iterable[str]) -> str:
    """Return the known name that ``name`` seems to be meant for; empty if it is like none of them.

    ``known`` maps folded names to names. One slip counts only if the known name is not ``there`` itself.
    """
    folded = fold(name)
    if not folded:
        return ""
    if folded in known:
        return known[folded]
    present = set(there)
    slips = (full for key, full in known.items() if is_slip(folded, key) and full not in present)
    return next(slips, "")


def typographic(text: str) -> tuple[str, str] | None:
    """Return the first typographic quote or dash of ``text``, and what to type for it; None without."""
    found = _TYPOGRAPHIC.search(text)
    return (found[0], _TYPED[found[0]]) if found else None


def typographic_fault(text: str) -> tuple[str, str] | None:
    """Return what is wrong with text that holds a typographic quote or dash, and what to do."""
    found = typographic(text)
    if found is None:
        return None
    char, typed = found
    name = unicodedata.name(char, "a typographic sign").lower()
    what = f"{char} (U+{ord(char):04X}, {name}) is not what programs understand."
    return what, f"Type {typed} in its place; word processors and mail programs exchange it."


def spreadsheet_error(text: str) -> str:
    """Return the error value of a spreadsheet in ``text``, such as ``#N/A``; empty if none."""
    found = _SPREADSHEET.search(text)
    return found[0] if found else ""
