"""What of a local folder is uploaded when it is submitted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from daylily_daemon.adapters.localdrop import LocalDrop, files_to_submit
from daylily_daemon.domain.errors import Permanent
from daylily_daemon.domain.model import WorksetId

ME = WorksetId("HG002-run7")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "HG002-run7"
    (made / "sample_data").mkdir(parents=True)
    (made / "daylily_work.yaml").write_text("dy-r: -p help\n")
    (made / "daylily_info.yaml").write_text("who: me\n")
    return made


def sheet(folder: Path, *paths: str) -> None:
    rows = "".join(f"S{number}\t{path}\n" for number, path in enumerate(paths))
    (folder / "stage_samples.tsv").write_text(f"SAMPLE_ID\tR1_FQ\n{rows}")


def names(drop: LocalDrop) -> list[str]:
    return sorted(file.name for file in drop.files)


DOCUMENTS = ["daylily_info.yaml", "daylily_work.yaml"]


def test_documents_and_named_files_go_and_nothing_else(folder: Path) -> None:
    for name in ("a.fq", "sample_data/b.fq", "sample_data/unnamed.fq", ".env", "id_rsa"):
        (folder / name).write_text("x")
    for name in ("daylily.ready", "daylily.error", "notes.docx"):
        (folder / name).write_text("x")
    (folder / ".aws").mkdir()
    (folder / ".aws" / "credentials").write_text("secret")
    sheet(folder, "a.fq", "./sample_data/b.fq", "s3://reads/c.fq", "/fsx/d.fq")
    drop = files_to_submit(folder, ME)
    assert names(drop) == ["a.fq", *DOCUMENTS, "sample_data/b.fq", "stage_samples.tsv"]
    assert drop.absent == ()


def test_a_hidden_folder_that_the_sheet_names_goes(folder: Path) -> None:
    (folder / ".test_data").mkdir()
    (folder / ".test_data" / "a.fq").write_text("x")
    sheet(folder, ".test_data/a.fq")
    assert ".test_data/a.fq" in names(files_to_submit(folder, ME))


def test_linked_reads_are_followed_wherever_they_are(folder: Path) -> None:
    sequencer = folder.parent / "sequencer"
    (sequencer / "run").mkdir(parents=True)
    (sequencer / "run" / "a.fq").write_text("reads")
    (folder / "a.fq").symlink_to(sequencer / "run" / "a.fq")
    (folder / "pass").symlink_to(sequencer / "run")
    (folder / "sample_data" / "link.fq").symlink_to(sequencer / "run" / "a.fq")
    sheet(folder, "a.fq", "pass/", "sample_data/")
    drop = files_to_submit(folder, ME)
    assert names(drop)[0] == "a.fq"
    assert {"pass/a.fq", "sample_data/link.fq"} < set(names(drop))
    assert {file.path.read_text() for file in drop.files if file.name.endswith(".fq")} == {"reads"}


def test_what_is_named_and_is_not_there_is_told(folder: Path) -> None:
    sheet(folder, "a.fq", "pod5/")
    assert files_to_submit(folder, ME).absent == (
        "stage_samples.tsv, line 2, column R1_FQ: a.fq is not in the folder.",
        "stage_samples.tsv, line 3, column R1_FQ: pod5/ is not in the folder.",
    )


def test_every_named_file_that_cannot_go_is_told_with_its_line(folder: Path) -> None:
    (folder / "broken.fq").symlink_to("nothing")
    os.mkfifo(folder / "pipe.fq")
    (folder / "dir.fq").mkdir()
    home = folder.parent / ".ssh"
    home.mkdir()
    (home / "id_rsa").write_text("key")
    (folder / "key.fq").symlink_to(home / "id_rsa")
    sheet(folder, "broken.fq", "pipe.fq", "dir.fq", "key.fq")
    with pytest.raises(Permanent) as refused:
        files_to_submit(folder, ME)
    lines = str(refused.value).splitlines()
    assert len(lines) == 4
    for number, words in enumerate(
        ("does not exist", "no regular file", "no regular file", "keys")
    ):
        assert lines[number].startswith(f"stage_samples.tsv, line {number + 2}, column R1_FQ: ")
        assert words in lines[number]


def test_a_folder_without_recipe_or_with_a_broken_one_is_a_sentence(folder: Path) -> None:
    sheet(folder, "a.fq")
    (folder / "daylily_work.yaml").write_text("dy-r: a; b\n")
    with pytest.raises(Permanent, match="means something only to a shell"):
        files_to_submit(folder, ME)
    (folder / "daylily_work.yaml").unlink()
    with pytest.raises(Permanent, match=r"There is no daylily_work\.yaml in"):
        files_to_submit(folder, ME)


def test_samples_of_the_recipe_stand_in_for_a_sheet(folder: Path) -> None:
    (folder / "stage_samples.tsv").unlink(missing_ok=True)
    (folder / "a.fq").write_text("x")
    (folder / "daylily_work.yaml").write_text(
        "pipeline: demo\nsamples: [{sample_id: S, fastq_r1: a.fq}]\n"
    )
    assert names(files_to_submit(folder, ME)) == ["a.fq", *DOCUMENTS]
    (folder / "daylily_work.yaml").write_text("dy-r: help\n")
    with pytest.raises(Permanent, match="nor samples in"):
        files_to_submit(folder, ME)


def test_a_linked_document_is_followed_and_a_broken_link_is_a_sentence(folder: Path) -> None:
    sheet(folder, "s3://reads/a.fq")
    (folder / "daylily_info.yaml").unlink()
    (folder / "daylily_info.yaml").symlink_to("gone.yaml")
    with pytest.raises(Permanent, match=r"daylily_info\.yaml is a link to what does not exist"):
        files_to_submit(folder, ME)
    (folder / "gone.yaml").write_text("x: 1\n")
    assert names(files_to_submit(folder, ME)) == [*DOCUMENTS, "stage_samples.tsv"]
