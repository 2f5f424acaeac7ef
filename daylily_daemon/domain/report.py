"""What a job reports, made harmless.

A report is written by whatever the pipeline runs. It is kept as it is where it is small and plain, and cut
where it is not: it must never be the reason why a workset cannot be stored, read or decided on.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

DEPTH: Final = 4
KEYS: Final = 200
"""Values of one report, on all levels together."""
NAME_CHARS: Final = 80
TEXT_CHARS: Final = 500
LARGEST: Final = 10**30
"""Numbers beyond it, or nearer to 0 than its inverse, are kept as text: DynamoDB has 38 digits."""
WARNINGS: Final = 5
_FOLDER: Final = re.compile(r"s3://[^/]+/[^/]")


def bounded(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return at most 200 values, four levels deep, of texts up to 500 characters. Raises nothing."""
    left = [KEYS]
    return _mapping(report, DEPTH, left)


@dataclass(frozen=True, slots=True)
class Results:
    """What a step says that it has exported."""

    uri: str
    files: int | None
    size_bytes: int | None


def results_of(report: Mapping[str, Any]) -> Results | None:
    """Return where a report says that the results are, and how many; None if it says nothing of that."""
    uri = report.get("results_s3_uri")
    if not isinstance(uri, str) or not _FOLDER.match(uri):
        return None
    return Results(uri[:TEXT_CHARS], _count(report.get("files")), _count(report.get("bytes")))


def _count(value: object) -> int | None:
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < LARGEST
    return value if is_count and isinstance(value, int) else None


def warnings_of(report: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the sentences under ``warnings``, five at most."""
    found = report.get("warnings")
    texts = found if isinstance(found, list | tuple) else ()
    return tuple(text for text in texts[:WARNINGS] if isinstance(text, str) and text)


def merged(known: Mapping[str, Any], report: Mapping[str, Any]) -> dict[str, Any]:
    """Return both, the newer one first, within the same bounds."""
    return bounded({**bounded(report), **{k: v for k, v in known.items() if k not in report}})


def _mapping(value: Mapping[Any, Any], depth: int, left: list[int]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, inner in value.items():
        if left[0] <= 0:
            break
        left[0] -= 1
        name = _text(str(key), NAME_CHARS)
        if name:
            kept[name] = _value(inner, depth - 1, left)
    return kept


def _value(value: Any, depth: int, left: list[int]) -> Any:
    match value:
        case None | bool():
            return value
        case int() | float():
            return _number(value)
        case str():
            return _text(value, TEXT_CHARS)
        case Mapping() if depth > 0:
            return _mapping(value, depth, left)
        case list() | tuple() if depth > 0:
            return [_value(inner, depth - 1, left) for inner in _some(value, left)]
        case _:
            return "(left out)"


def _some(values: list[Any] | tuple[Any, ...], left: list[int]) -> list[Any]:
    taken = list(values[: max(0, left[0])])
    left[0] -= len(taken)
    return taken


def _number(value: float) -> float | str:
    if isinstance(value, int):
        small = abs(value) < LARGEST
        return value if small else f"a whole number of {value.bit_length()} bits"
    if value == 0 or (math.isfinite(value) and 1 / LARGEST < abs(value) < LARGEST):
        return value
    return repr(value)


def _text(value: str, most: int) -> str:
    """Return text that every store takes: no lone surrogates, and no more than ``most`` characters."""
    return value[:most].encode("utf-8", "replace").decode("utf-8")
