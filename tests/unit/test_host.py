"""What a daemon finds out about its host."""

from __future__ import annotations

import shutil
from pathlib import Path

from daylily_daemon.adapters.host import shortage


def test_a_disk_with_too_little_room_is_named_with_what_to_do(tmp_path: Path) -> None:
    free_bytes = shutil.disk_usage(tmp_path).free
    assert shortage(tmp_path, free_bytes // 2) == ""
    said = shortage(tmp_path, free_bytes * 2)
    assert said.startswith(f"The disk of {tmp_path} has ")
    assert "daemon.min_free_gb" in said
    assert "Free some space" in said


def test_a_folder_that_is_not_there_yet_counts_as_the_disk_it_will_be_on(tmp_path: Path) -> None:
    assert shortage(tmp_path / "not" / "yet", 1) == ""
    assert "not/yet" in shortage(tmp_path / "not" / "yet", 10**18)


def test_a_limit_of_zero_asks_for_no_room_but_for_a_disk_that_answers(tmp_path: Path) -> None:
    assert shortage(tmp_path, 0) == ""
    assert "cannot be used" in shortage(Path("/proc/self/mem/x" * 400), 0)
