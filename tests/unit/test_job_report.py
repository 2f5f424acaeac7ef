"""A job's report is foreign data: small, flat, and JSON, or it is left out with a reason."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from daylily_daemon.adapters.runners.report import UnusableError, parsed, read_report


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 60_000, "not JSON"),
        (b"[1]", "not an object"),
        (b"null", "not an object"),
        (b'{"x": NaN}', "not JSON"),
        (b'{"x": 1e999}', "too large"),
        (b'{"x": ' + b"9" * 31 + b"}", "more than 30 digits"),
        (b'{"": 1}', "a key is empty"),
        (b'{"' + b"k" * 201 + b'": 1}', "a key is empty or longer"),
        (b'{"x": "' + b"t" * 4001 + b'"}', "a text is longer"),
        (b'{"x": [' + b"1," * 1000 + b"1]}", "more than 1000 values"),
        (b'{"x":' * 8 + b"1" + b"}" * 8, "deeper than 8 levels"),
        (b" " * (64 * 1024 + 1), "larger than 64 KiB"),
    ],
)
def test_what_is_too_much_is_left_out_and_says_why(data: bytes, why: str) -> None:
    with pytest.raises(UnusableError, match=why):
        parsed(data)


@pytest.mark.parametrize(
    "report",
    [
        {},
        {"x": 1, "y": [1.5, None, True, "text"], "z": {"a": {"b": []}}},
        {"k" * 200: "t" * 4000},
        {"x": list(range(998))},
        {"x": -(10**29)},
    ],
)
def test_what_is_small_is_taken_as_it_is(report: dict[str, object]) -> None:
    assert parsed(json.dumps(report).encode()) == report


def test_no_report_is_none_and_a_pipe_or_a_folder_is_no_report(tmp_path: Path) -> None:
    assert read_report(str(tmp_path / "missing")) == {}
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "."):
        with pytest.raises(UnusableError, match="it is no file"):
            read_report(str(tmp_path / name))
    (tmp_path / "report").write_text('{"n": 1}')
    assert read_report(str(tmp_path / "report")) == {"n": 1}
