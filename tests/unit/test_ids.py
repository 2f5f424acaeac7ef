"""Ids for a shell come from a file: young, of these settings alone, and never waited for long."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from daylily_daemon.cli import ids


@pytest.fixture(autouse=True)
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """A cache of its own; return the files that were asked for."""
    asked: list[Path] = []
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(ids, "_make", lambda file, environ: asked.append(file))
    return asked


def _context(**given: Any) -> SimpleNamespace:
    return SimpleNamespace(params=given)


def _kept(text: str, age_s: float = 0.0, **given: Any) -> None:
    """Write the file that a completion asked for, as it is made beside it."""
    ids.ids_for(_context(**given), "")
    environ = {**os.environ, **({"DAYLILY_CONFIG": given["config"]} if given else {})}
    file = ids._file(environ)
    file.write_text(text)
    at = file.stat().st_mtime - age_s
    os.utime(file, (at, at))


def test_what_lies_there_is_offered_and_only_what_begins_so_and_is_not_given() -> None:
    _kept("HG002\nHG003\nother\n")
    assert ids.ids_for(_context(), "HG") == ["HG002", "HG003"]
    assert ids.ids_for(_context(ids=["HG002"]), "HG") == ["HG003"]


def test_a_young_file_is_not_made_again_and_an_old_one_is_offered_all_the_same(
    made: list[Path],
) -> None:
    _kept("HG002\n")
    made.clear()
    ids.ids_for(_context(), "")
    assert made == []
    _kept("HG002\n", age_s=ids.YOUNG_S + 1)
    made.clear()
    assert ids.ids_for(_context(), "") == ["HG002"]
    assert len(made) == 1


def test_other_settings_have_another_file() -> None:
    _kept("HG002\n")
    assert ids.ids_for(_context(config="/etc/other.yaml"), "") == []
    _kept("far\n", config="/etc/other.yaml")
    assert ids.ids_for(_context(config="/etc/other.yaml"), "") == ["far"]
    assert ids.ids_for(_context(), "") == ["HG002"]


def test_what_is_no_id_is_never_handed_to_a_shell() -> None:
    _kept("HG002\n$(reboot)\n-rf\n../x\n")
    assert ids.ids_for(_context(), "") == ["HG002"]


def test_nothing_is_waited_for_when_the_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    runs = iter([0.1, 0.2, ids.LIMIT_S])
    monkeypatch.setattr(ids, "_runs_for_s", lambda: next(runs))
    monkeypatch.setattr("time.sleep", slept.append)
    assert ids.ids_for(_context(), "") == []
    assert len(slept) == 2


def test_a_cache_that_cannot_be_had_is_no_trouble(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert ids.ids_for(_context(), "") == []


def test_how_long_this_process_runs_is_known() -> None:
    first = ids._runs_for_s()
    assert 0 < first <= ids._runs_for_s() < 86_400
