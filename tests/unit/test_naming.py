from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from daylily_daemon.domain.model import WORKSET_ID
from daylily_daemon.domain.naming import safe_id, trigger_id, workset_of_key

PREFIX = "daylily_monitoring/active_worksets/"
folders = st.text(st.characters(exclude_characters="/"), min_size=1, max_size=120)


def test_a_trigger_id_is_the_same_for_the_same_write_and_another_for_another() -> None:
    first = trigger_id("bucket", "a/daylily.ready", "v1")
    assert first == trigger_id("bucket", "a/daylily.ready", "v1")
    assert len(first) == 40
    assert int(first, 16) >= 0
    assert len({first, trigger_id("bucket", "a/daylily.ready", "v2")}) == 2


def test_names_that_others_have_stored_stay_what_they_are_for_ever() -> None:
    assert trigger_id("lab", "p/HG002/daylily.ready", "v1") == (
        "0d9d5cae0dbdc4109d69e79c6f7a3c895d853b33"
    )
    assert safe_id("blood panel #3") == "blood-panel-3-77547ba8"
    assert (
        safe_id("x" * 90)
        == "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx-efdfd9ee"
    )
    assert safe_id("half \udcff") == "half-bc360076"
    assert safe_id("-a_-") == "a-0f03cf49"


def test_a_trigger_id_cannot_be_forged_by_moving_a_border_between_its_parts() -> None:
    assert trigger_id("ab", "c", "d") != trigger_id("a", "bc", "d")
    assert trigger_id("a", "b", "cd") != trigger_id("a", "bc", "d")


def test_a_valid_folder_name_is_its_own_id() -> None:
    assert safe_id("runme14-20260118") == "runme14-20260118"


def test_an_invalid_folder_name_stays_readable_in_its_id() -> None:
    assert safe_id("blood panel #3").startswith("blood-panel-3-")
    assert safe_id("..").startswith("workset-")


@given(folders)
def test_every_folder_name_becomes_a_valid_id(folder: str) -> None:
    assert WORKSET_ID.fullmatch(safe_id(folder))


@given(folders, folders)
def test_different_folder_names_get_different_ids(one: str, other: str) -> None:
    assert (safe_id(one) == safe_id(other)) == (one == other)


def test_a_key_directly_in_a_workset_folder_is_split_into_folder_and_file() -> None:
    assert workset_of_key(PREFIX, PREFIX + "ws1/daylily.ready") == ("ws1", "daylily.ready")
    assert workset_of_key("", "ws1/daylily.ready") == ("ws1", "daylily.ready")


def test_keys_elsewhere_name_no_workset() -> None:
    for key in (
        "other/ws1/daylily.ready",
        PREFIX + "daylily.ready",
        PREFIX + "ws1/",
        PREFIX + "/daylily.ready",
        PREFIX + "ws1/sample_data/daylily.ready",
        PREFIX,
        "",
    ):
        assert workset_of_key(PREFIX, key) is None


@given(folders)
def test_splitting_undoes_joining(folder: str) -> None:
    assert workset_of_key(PREFIX, f"{PREFIX}{folder}/daylily.ready") == (folder, "daylily.ready")
