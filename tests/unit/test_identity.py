"""What a copy has and what it has not: machines and folders that know themselves again."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from daylily_daemon.adapters.host import StateDir
from daylily_daemon.adapters.identity import FILE, Machine, identified, this_machine
from daylily_daemon.domain.errors import Transient, Unclear

INSTANCE = "i-0123456789abcdef0"
XEN = "ec2e1916-9099-7caf-fd21-012345abcdef"
HERE = Machine(id=INSTANCE, boot_id="boot one", proven=True, host_id="m")
RESTARTED = replace(HERE, boot_id="boot two")
CLONE = replace(HERE, id="i-0fedcba9876543210", boot_id="boot three")
UNPROVEN = Machine(id="boot-one", boot_id="one", proven=False, host_id="m")


# Machines


def root(tmp_path: Path, **files: str) -> Path:
    places = {
        "boot": "proc/sys/kernel/random/boot_id",
        "dmi": "sys/devices/virtual/dmi/id/board_asset_tag",
        "xen": "sys/hypervisor/uuid",
        "machine": "etc/machine-id",
    }
    for name, content in {"boot": "b-1", **files}.items():
        path = tmp_path / places[name]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return tmp_path


@pytest.mark.parametrize(("file", "id"), [("dmi", INSTANCE), ("xen", XEN)])
def test_the_cloud_says_which_machine_it_is(tmp_path: Path, file: str, id: str) -> None:
    found = this_machine(root=root(tmp_path, machine="copied", **{file: id}))
    assert found == Machine(id=id, boot_id="b-1", proven=True, host_id="copied")


@pytest.mark.parametrize(
    "said",
    [
        "",
        "Not Specified",
        "To be filled by O.E.M.",
        "i-",
        "i-xyz",
        "../../i-0123456789",
        "i-01 23456",
    ],
)
def test_what_other_firmware_says_is_no_identity(tmp_path: Path, said: str) -> None:
    found = this_machine(root=root(tmp_path, dmi=said, machine="copied"))
    assert (found.id, found.proven) == ("boot-b-1", False)


def test_a_name_in_the_settings_counts_only_where_no_cloud_gives_an_id(tmp_path: Path) -> None:
    assert this_machine("head-1", root(tmp_path)).id == "head-1"
    assert this_machine("head-1", root(tmp_path, dmi=INSTANCE)).id == INSTANCE


def test_only_a_proven_machine_with_another_boot_was_restarted() -> None:
    assert RESTARTED.was_restarted_since(HERE.id, HERE.boot_id)
    assert not HERE.was_restarted_since(HERE.id, HERE.boot_id)
    assert not CLONE.was_restarted_since(HERE.id, HERE.boot_id)
    assert not replace(UNPROVEN, boot_id="two").was_restarted_since(UNPROVEN.id, "one")


def test_a_machine_that_does_not_tell_its_boot_is_unknown(tmp_path: Path) -> None:
    with pytest.raises(Transient, match="boot id"):
        this_machine(root=tmp_path)


# Folders


def test_a_folder_is_known_again(tmp_path: Path) -> None:
    first = identified(str(tmp_path / "jobs"), HERE)
    assert identified(str(tmp_path / "jobs"), HERE) == first
    first.verify()


def test_a_folder_that_was_moved_keeps_its_id(tmp_path: Path) -> None:
    first = identified(str(tmp_path / "old" / "jobs"), HERE)
    (tmp_path / "old").rename(tmp_path / "new")
    assert identified(str(tmp_path / "new" / "jobs"), HERE).id == first.id


def test_a_folder_keeps_its_id_when_its_machine_was_restarted(tmp_path: Path) -> None:
    first = identified(str(tmp_path), HERE)
    again = identified(str(tmp_path), RESTARTED)
    assert again.id == first.id
    again.verify()
    assert identified(str(tmp_path), RESTARTED) == again


def test_a_folder_whose_disk_was_numbered_anew_at_a_restart_keeps_its_id(tmp_path: Path) -> None:
    first = identified(str(tmp_path), HERE)
    change(tmp_path, device=1)
    assert identified(str(tmp_path), RESTARTED).id == first.id


@pytest.mark.parametrize("machine", [HERE, UNPROVEN])
def test_a_copied_folder_gets_an_id_of_its_own(tmp_path: Path, machine: Machine) -> None:
    first = identified(str(tmp_path / "jobs"), machine)
    shutil.copytree(tmp_path / "jobs", tmp_path / "copy")
    second = identified(str(tmp_path / "copy"), machine)
    assert second.id != first.id
    assert identified(str(tmp_path / "copy"), machine) == second
    assert identified(str(tmp_path / "jobs"), machine) == first


def test_a_backup_restored_in_place_gets_a_new_id_even_on_the_same_inode(tmp_path: Path) -> None:
    first = identified(str(tmp_path), HERE)
    record = json.loads((tmp_path / FILE).read_text())
    assert record["born_ns"], "this file system does not note when a file was made"
    content = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).unlink()
    (tmp_path / FILE).write_bytes(content)
    change(tmp_path, inode=(tmp_path / FILE).stat().st_ino)
    assert identified(str(tmp_path), HERE).id != first.id


@pytest.mark.parametrize("elsewhere", [CLONE, replace(UNPROVEN, id="boot-two", boot_id="two")])
def test_a_volume_used_on_another_machine_gets_a_new_id(tmp_path: Path, elsewhere: Machine) -> None:
    first = identified(str(tmp_path), HERE)
    assert identified(str(tmp_path), elsewhere).id != first.id


def test_a_copy_of_the_whole_disk_gets_a_new_id(tmp_path: Path) -> None:
    first = identified(str(tmp_path), HERE)
    change(tmp_path, device=1)
    assert identified(str(tmp_path), HERE).id != first.id


@pytest.mark.parametrize("content", ["", "{", "[]", '{"id": "x"}', '{"id": "x", "inode": "y"}'])
def test_an_identity_that_cannot_be_read_proves_nothing(tmp_path: Path, content: str) -> None:
    first = identified(str(tmp_path), HERE)
    (tmp_path / FILE).write_text(content)
    assert identified(str(tmp_path), HERE).id != first.id


def change(folder: Path, **changes: int) -> None:
    """Rewrite the file in its place, as if it had been found with other numbers."""
    record = json.loads((folder / FILE).read_text())
    (folder / FILE).write_text(json.dumps({**record, **changes}))


@pytest.mark.parametrize("fate", ["moved", "replaced", "unmounted"])
def test_a_folder_that_went_away_under_the_daemon_is_not_an_empty_one(
    tmp_path: Path, fate: str
) -> None:
    folder = identified(str(tmp_path / "jobs"), HERE)
    (tmp_path / "jobs").rename(tmp_path / "elsewhere")
    if fate == "replaced":
        shutil.copytree(tmp_path / "elsewhere", tmp_path / "jobs")
    if fate == "unmounted":
        (tmp_path / "jobs").mkdir()
    with pytest.raises(Unclear, match="is not the folder any more"):
        folder.verify()


def test_a_folder_that_cannot_be_written_is_trouble_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Transient, match="cannot be used"):
        identified(str(tmp_path / "file" / "jobs"), HERE)


# Owners


def owner(path: Path, machine: Machine) -> str:
    with StateDir(path).locked("lab", machine) as found:
        return found


def test_a_daemon_has_one_owner_id_and_its_copies_have_others(tmp_path: Path) -> None:
    first = owner(tmp_path / "state", HERE)
    assert first.startswith(f"lab/{INSTANCE}/")
    assert owner(tmp_path / "state", RESTARTED) == first
    shutil.copytree(tmp_path / "state", tmp_path / "image")
    assert owner(tmp_path / "image", HERE) != first
    os.rename(tmp_path / "state", tmp_path / "moved")
    assert owner(tmp_path / "moved", RESTARTED) == first
    assert owner(tmp_path / "moved", CLONE) != first
