"""Regular expressions over what a job wrote: linear in the text, whatever pattern and text.

All patterns that meet a log go through here: those of the failure table, of ``retry.patterns`` and of
pipelines (``progress_pattern``). RE2 matches them, which never goes back in the text; what cannot be matched
that way (looking ahead or behind, references to a group) and what is too large is refused when it is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

import re2

MAX_CHARS: Final = 1_000
"""Longest pattern."""
MAX_PROGRAM: Final = 4_000
"""Most instructions of a compiled pattern: in the worst case each is tried at each character."""
SYNTAX: Final = (
    "The syntax is that of RE2: no looking ahead or behind, no references to a group, no `\\Z`"
)
_NOT_POSSIBLE: Final = {
    "(?=": "it looks ahead",
    "(?!": "it looks ahead",
    "(?<": "it looks behind",
    "\\Z": "it ends with `\\Z` where `$` was expected",
}


class BadPattern(ValueError):
    """A regular expression that cannot be used; the text says why, as the end of a sentence."""


@dataclass(frozen=True, slots=True)
class Match:
    start: int
    groups: Mapping[str, str | None]
    """What the named groups matched."""


@dataclass(frozen=True, slots=True)
class Regex:
    names: frozenset[str]
    """The named groups."""
    _compiled: Any = field(repr=False)

    def search(self, text: str) -> Match | None:
        """Return the first match; what is no character of Unicode counts as ``?``."""
        match = self._compiled.search(text.encode("utf-8", "replace").decode())
        return Match(match.start(), match.groupdict()) if match else None


@lru_cache(maxsize=512)
def compiled(pattern: str, *, ignore_case: bool = False) -> Regex:
    """Raise BadPattern for one that does not compile, or that could take long on some text."""
    if len(pattern) > MAX_CHARS:
        raise BadPattern(f"it has {len(pattern):,} characters; {MAX_CHARS:,} are the most")
    options = re2.Options()
    options.log_errors = False
    options.case_sensitive = not ignore_case
    try:
        regex = re2.compile(pattern, options)
    except (re2.error, UnicodeEncodeError) as exc:
        raise BadPattern(_reason(exc)) from exc
    if regex.programsize > MAX_PROGRAM:
        raise BadPattern(
            "it is too large; repeat less often: `{n,m}` counts m times, nested ones multiply"
        )
    return Regex(frozenset(regex.groupindex), regex)


def search(pattern: str, text: str, *, ignore_case: bool = False) -> Match | None:
    """Compile, once for all calls, and search. Raises BadPattern."""
    return compiled(pattern, ignore_case=ignore_case).search(text)


def _reason(exc: Exception) -> str:
    if not isinstance(exc.args[0], bytes):
        return "it holds what is no character of Unicode"
    told = exc.args[0].decode(errors="replace")
    if not told.startswith("invalid"):
        return told
    sign = told.rsplit(": ", 1)[-1]
    known = (why for begins, why in _NOT_POSSIBLE.items() if sign.startswith(begins))
    why = "it refers back to a group" if sign.strip("\\").isdigit() else next(known, told)
    return f"{why}. {SYNTAX}"
