"""Reports of jobs that nobody expects: deep, huge, of any type, under names of ours."""

from __future__ import annotations

from typing import Any, Final

DEEP: Final[dict[str, Any]] = {}
_inner = DEEP
for _ in range(300):
    _inner["x"] = {}
    _inner = _inner["x"]
REPORTS: Final[tuple[Any, ...]] = (
    {"stage_s": "12 s", "run_s": None, "samples": float("nan")},
    {str(n): "x" * 1000 for n in range(2000)},
    {1: 2, None: b"bytes", "\udcff": "\udcff", "warnings": "not a list"},
    {"results_s3_uri": ["s3://elsewhere/"], "warnings": [1, "", "x" * 10_000] * 50},
    DEEP,
)
