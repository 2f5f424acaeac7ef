"""What a folder holds for a copy to S3: every file is either in the list or named as left out."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daylily_daemon.adapters.transfer import Collected, collect
from daylily_daemon.adapters.transfer import collecting as module
from daylily_daemon.domain.errors import Permanent


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return the folder of a run: results and work beside each other."""
    for name in ("results", "scratch"):
        (tmp_path / "work" / name).mkdir(parents=True)
    return tmp_path / "work"


def names(found: Collected) -> list[str]:
    return [file.name for file in found.files]


def left_out(found: Collected) -> str:
    (line,) = found.left_out
    return line


def test_a_result_that_is_a_link_into_the_run_is_its_file(run: Path) -> None:
    (run / "scratch" / "HG002.cram").write_bytes(b"reads")
    (run / "results" / "HG002.cram").symlink_to("../scratch/HG002.cram")
    found = collect(run / "results", within=(run,))
    (file,) = found.files
    assert found.left_out == ()
    assert (file.name, file.path.read_bytes()) == ("HG002.cram", b"reads")
    assert not file.path.is_symlink()


def test_chains_of_links_and_links_to_folders_are_followed(run: Path) -> None:
    (run / "scratch" / "deep").mkdir()
    (run / "scratch" / "deep" / "a").write_bytes(b"a")
    (run / "scratch" / "hop").symlink_to("deep")
    (run / "results" / "dir").symlink_to(run / "scratch" / "hop")
    (run / "results" / "file").symlink_to("dir/a")
    found = collect(run / "results", within=(run,))
    assert names(found) == ["dir/a", "file"]
    assert found.left_out == ()


def test_results_that_are_themselves_behind_a_link_are_found(run: Path) -> None:
    (run / "results" / "a").write_bytes(b"a")
    (run / "link").symlink_to("results")
    assert names(collect(run / "link")) == ["a"]


def test_hard_links_are_files_like_others(run: Path) -> None:
    (run / "results" / "a").write_bytes(b"a")
    os.link(run / "results" / "a", run / "results" / "b")
    assert names(collect(run / "results")) == ["a", "b"]


def test_a_link_that_leads_out_of_the_run_is_named_with_its_target(run: Path) -> None:
    outside = run.parent / "reference.fa"
    outside.write_bytes(b"x")
    (run / "results" / "ref.fa").symlink_to(outside)
    found = collect(run / "results", within=(run,))
    assert names(found) == []
    assert (
        left_out(found)
        == f"ref.fa is a link that leads out of the folders of the run, to {outside}."
    )


def test_a_link_to_a_folder_whose_name_only_begins_like_an_allowed_one_leads_out(run: Path) -> None:
    (run.parent / "work-2").mkdir()
    (run / "results" / "x").symlink_to(run.parent / "work-2")
    assert "leads out" in left_out(collect(run / "results", within=(run,)))


def test_broken_and_circular_links_are_named(run: Path) -> None:
    (run / "results" / "broken").symlink_to("nothing")
    (run / "results" / "circle").symlink_to("circle")
    found = collect(run / "results", within=(run,))
    assert [line.split(" ", 1)[0] for line in found.left_out] == ["broken", "circle"]
    assert "does not exist" in found.left_out[0]
    assert "cannot be followed" in found.left_out[1]


def test_a_loop_within_the_results_costs_nothing_and_loses_nothing(run: Path) -> None:
    (run / "results" / "a").write_bytes(b"a")
    (run / "results" / "again").symlink_to(".")
    (run / "results" / "sub").mkdir()
    (run / "results" / "sub" / "up").symlink_to("..")
    found = collect(run / "results", within=(run,))
    assert names(found) == ["a"]
    assert found.left_out == ()


def test_a_link_to_a_folder_above_the_results_is_followed_without_going_in_circles(
    run: Path,
) -> None:
    (run / "results" / "a").write_bytes(b"a")
    (run / "results" / "up").symlink_to("..")
    (run / "scratch" / "b").write_bytes(b"b")
    found = collect(run / "results", within=(run,))
    assert names(found) == ["a", "up/scratch/b"]


@pytest.mark.parametrize("kind", ["fifo", "socket", "device"])
def test_special_files_are_named(run: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = run / "results" / "odd"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        monkeypatch.chdir(path.parent)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("odd")
    else:
        path.symlink_to("/dev/null")
    found = collect(run / "results", within=(run, Path("/dev")))
    assert left_out(found) == "odd is neither a file nor a folder."


@pytest.mark.reported("A", "control characters and U+FFFE in a key (botocore#3496, SimpleS3#5)")
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (b"caf\xe9.txt", "not UTF-8"),
        (b"a\nb", "control character"),
        (b"bell\x07", "control character"),
        (b"\xef\xbf\xbe", "control character"),
    ],
)
@pytest.mark.parametrize("folder", [False, True])
def test_names_that_s3_cannot_take_are_told_in_printable_form(
    run: Path, name: bytes, reason: str, folder: bool
) -> None:
    path = os.path.join(os.fsencode(run / "results"), name)
    if folder:
        os.mkdir(path)
        with open(os.path.join(path, b"inside"), "wb"):
            pass
    else:
        with open(path, "wb"):
            pass
    line = left_out(collect(run / "results"))
    assert reason in line
    assert line.isprintable()


def test_a_key_that_would_be_too_long_is_named_counting_the_prefix(run: Path) -> None:
    folder = run / "results"
    for _ in range(4):
        folder = folder / ("ä" * 120)
    folder.mkdir(parents=True)
    (folder / "x").write_bytes(b"x")
    assert collect(run / "results", key_bytes=59).left_out == ()
    line = left_out(collect(run / "results", key_bytes=60))
    assert "would have a key of 1,025 bytes; S3 takes at most 1,024." in line
    assert len(line) < 500


def test_a_folder_that_cannot_be_read_is_named_and_the_others_are_read(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run / "results" / "good").mkdir()
    (run / "results" / "good" / "a").write_bytes(b"a")
    (run / "results" / "shut").mkdir()
    scandir = os.scandir

    def guarded(path: Path) -> object:
        if Path(path).name == "shut":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    found = collect(run / "results")
    assert names(found) == ["good/a"]
    assert left_out(found) == "shut/ cannot be read: Permission denied."


def test_links_that_multiply_the_files_are_cut_off_with_a_sentence(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(8):
        (run / "results" / str(number)).mkdir()
        for other in range(8):
            (run / "results" / str(number) / f"to{other}").symlink_to(f"../{other}")
    monkeypatch.setattr(module, "MAX_ENTRIES", 1000)
    with pytest.raises(Permanent, match="There are more than 1,000 files and folders"):
        collect(run / "results")


def test_a_folder_that_is_not_there_is_a_sentence(run: Path) -> None:
    with pytest.raises(Permanent, match="There is no folder"):
        collect(run / "none")


def make(path: Path, kind: str, target: str) -> None:
    if kind == "file":
        path.write_bytes(b"x")
    elif kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(target)
    else:
        os.mkfifo(path)


PIECES = st.sampled_from(["a", "b", "c", "d"])


@settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(
    entries=st.lists(
        st.tuples(
            st.lists(PIECES, min_size=1, max_size=3).map("/".join),
            st.sampled_from(["file", "folder", "link", "pipe"]),
            st.sampled_from(["../a", ".", "..", "b", "/etc/hostname", "../../scratch", "c/d", "x"]),
        ),
        max_size=12,
    )
)
def test_every_name_in_the_folder_is_taken_or_told_or_lies_where_it_is_taken(
    tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[str, str, str]]
) -> None:
    run = tmp_path_factory.mktemp("run")
    (run / "scratch").mkdir()
    (run / "scratch" / "s").write_bytes(b"s")
    results = run / "results"
    results.mkdir()
    for name, kind, target in entries:
        path = results / name
        if os.path.lexists(path) or any(
            os.path.lexists(above) and (above.is_symlink() or not above.is_dir())
            for above in path.parents
        ):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        make(path, kind, target)
    found = collect(results, within=(run,))
    taken = {os.path.realpath(file.path) for file in found.files}
    told = {line.split(" ", 1)[0] for line in found.left_out}
    for folder, _, files in os.walk(results):
        for file in files:
            path = Path(folder) / file
            assert os.path.realpath(path) in taken or path.relative_to(results).as_posix() in told
    assert all(Path(path).is_file() for path in taken)
    assert all(Path(path).is_relative_to(run) for path in taken)
