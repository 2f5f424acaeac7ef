"""Sentences with nothing in them but words that the program itself can say.

What a sentence names may be anybody's: a bucket, a path, an address with a key in it, a line of a sheet. A
list of what must not be shown misses what is new. So a word is kept if it stands in the program's own text,
or is a short number or a time; everything else is ``…``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

MASK: Final = "…"
SENTENCE_CHARS: Final = 2000
_NUMBER: Final = re.compile(r"[0-9]{1,6}(\.[0-9]{1,3}){0,2}%?")
"""Also a version; an address has four parts."""
_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{2}:[0-9]{2}(:[0-9]{2})?")
_AROUND: Final = "()[]<>{}\"'`.,;:!?"


def words_of(texts: Iterable[str]) -> frozenset[str]:
    """Return the words of texts that are the program's own, without what stands around them."""
    return frozenset(word.strip(_AROUND) for text in texts for word in text.split()) - {""}


def in_own_words(text: str, words: frozenset[str]) -> str:
    """Return ``text`` with every word masked that is not one of ``words``; at most 2,000 characters of it."""
    kept = (_kept(word, words) for word in text[:SENTENCE_CHARS].split())
    return " ".join(kept)


def _kept(word: str, words: frozenset[str]) -> str:
    core = word.strip(_AROUND)
    is_plain = not core or core in words or _NUMBER.fullmatch(core) or _TIME.fullmatch(core)
    return word if is_plain else MASK
