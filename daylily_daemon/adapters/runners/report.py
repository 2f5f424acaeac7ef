"""The small JSON object that a job may leave for the metrics of its workset: foreign, and so bounded."""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Mapping
from typing import Any, Final

FILE_BYTES: Final = 64 * 1024
VALUES: Final = 1_000
DEPTH: Final = 8
KEY_CHARS: Final = 200
TEXT_CHARS: Final = 4_000
DIGITS: Final = 30
"""DynamoDB keeps 38 of a number."""


class UnusableError(ValueError):
    """The report cannot be taken; the text says why."""


def read_report(path: str) -> Mapping[str, Any]:
    """Return the report at ``path``, empty if there is none. Raises UnusableError; may hang, as disks do."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return {}
    except OSError as exc:
        raise UnusableError(f"it cannot be read: {exc.strerror}") from exc
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise UnusableError("it is no file")
        data = os.read(fd, FILE_BYTES + 1)
    except OSError as exc:
        raise UnusableError(f"it cannot be read: {exc.strerror}") from exc
    finally:
        os.close(fd)
    return parsed(data)


def parsed(data: bytes) -> dict[str, Any]:
    """Return the object in ``data``. Raises UnusableError for what is none, or too much."""
    if len(data) > FILE_BYTES:
        raise UnusableError(f"it is larger than {FILE_BYTES // 1024} KiB")
    try:
        report = json.loads(data, parse_constant=_refuse, parse_int=_whole)
    except UnusableError:
        raise
    except (ValueError, RecursionError) as exc:
        raise UnusableError("it is not JSON") from exc
    if not isinstance(report, dict):
        raise UnusableError("it is not an object")
    left = VALUES
    level: list[Any] = [report]
    for _ in range(DEPTH):
        left -= len(level)
        if left < 0:
            raise UnusableError(f"it has more than {VALUES} values")
        level = [inner for value in level for inner in _inside(value)]
        if not level:
            return report
    raise UnusableError(f"it is deeper than {DEPTH} levels")


def _inside(value: object) -> list[Any]:
    match value:
        case dict():
            if any(not key or len(key) > KEY_CHARS for key in value):
                raise UnusableError(f"a key is empty or longer than {KEY_CHARS} characters")
            return list(value.values())
        case list():
            return value
        case str() if len(value) > TEXT_CHARS:
            raise UnusableError(f"a text is longer than {TEXT_CHARS} characters")
        case float() if not math.isfinite(value):
            raise UnusableError("a number is too large")
    return []


def _whole(digits: str) -> int:
    if len(digits.lstrip("-")) > DIGITS:
        raise UnusableError(f"a number has more than {DIGITS} digits")
    return int(digits)


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")
