"""Whose places a sheet may name, what is remembered while a workset waits, and whose fault a no is."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from daylily_daemon.adapters.inputs import S3Inputs
from daylily_daemon.adapters.looking import Found
from daylily_daemon.adapters.objects import Denied, NoBucket
from daylily_daemon.adapters.remembered import Memory, Remembered
from daylily_daemon.domain.errors import Impeded, Permanent, Transient
from daylily_daemon.domain.model import (
    Accepted,
    Category,
    Inspection,
    Missing,
    Problem,
    Refused,
    WorksetId,
)
from daylily_daemon.domain.paths import S3Place
from daylily_daemon.domain.pins import Pin, read_pin
from daylily_daemon.domain.pipeline import Pipeline, StepTemplate
from daylily_daemon.domain.places import Territory
from tests.fakes.objects import MemoryObjects
from tests.made import a_workset, asked

BUCKET = "lab-control"
PREFIX = "drops/HG002/"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
ME = a_workset("HG002", bucket=BUCKET, prefix=PREFIX)
PIPELINES = {
    "demo": Pipeline(name="demo", steps=(StepTemplate(step="run", argv=("x", "{run_args}")),))
}
LAND = Territory(control=S3Place(BUCKET, "drops/"))


class Lab:
    def __init__(self, land: Territory = LAND, roots: tuple[str, ...] = ("/fsx",)) -> None:
        self.objects = MemoryObjects()
        self.inputs = S3Inputs(
            self.objects, lambda: "demo", lambda: PIPELINES, local_roots=roots, territory=land
        )
        self.ws = ME

    async def put(self, name: str, body: str | bytes = "x", bucket: str = BUCKET) -> None:
        key = name if name.startswith("drops/") or bucket != BUCKET else PREFIX + name
        await self.objects.put(bucket, key, body.encode() if isinstance(body, str) else body)

    async def drop(self, *paths: str, recipe: str = "dy-r: help\n", more: str = "") -> None:
        await self.put("daylily_work.yaml", recipe)
        rows = "".join(f"S{i}\t{path}\t{more}\n" for i, path in enumerate(paths))
        column = "PATH_TO_CONCORDANCE_DATA_DIR" if more else "LANE"
        await self.put("stage_samples.tsv", f"SAMPLE_ID\tONT_FQ\t{column}\n{rows}")

    async def inspect(self) -> Inspection:
        self.objects.calls.clear()
        return await self.inputs.inspect(self.ws)

    async def refused(self) -> Problem:
        result = await self.inspect()
        assert isinstance(result, Refused), result
        assert len(result.problems) == 1, result
        return result.problems[0]

    async def missing(self) -> list[Problem]:
        result = await self.inspect()
        assert isinstance(result, Missing), result
        return list(result.problems)

    async def pin(self) -> str:
        result = await self.inspect()
        assert isinstance(result, Accepted), result
        return result.plan.pin

    def called(self, method: str) -> list[str]:
        return [key for name, key in self.objects.calls if name == method]


# --- whose places ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "s3://lab-control/drops/victim/good_R1.fastq.gz",
        "s3://lab-control/drops/HG002-2/a.fq",
        "s3://lab-control/drops/victim/",
        "s3://lab-control/drops/",
        "s3://lab-control/drops//victim/a.fq",
    ],
)
async def test_another_worksets_reads_are_refused_without_a_look_at_them(path: str) -> None:
    lab = Lab()
    await lab.drop(path)
    problem = await lab.refused()
    assert problem.category is Category.CONFIGURATION
    assert problem.where.startswith("line 2, column ONT_FQ")
    assert lab.called("head") == []
    assert lab.called("list") == [PREFIX]


@pytest.mark.parametrize(
    ("uri", "good"),
    [
        ("s3://lab-control/drops/victim/results/", False),
        ("s3://lab-control/drops/HG002/", False),
        ("s3://lab-control/drops/", False),
        ("s3://lab-control/drops/HG002/results/", True),
        ("s3://lab-control/drops/HG002/results/v2/", True),
        ("s3://lab-control/published/", True),
        ("s3://elsewhere/drops/victim/results/", True),
    ],
)
async def test_results_go_nowhere_where_another_worksets_files_are(uri: str, good: bool) -> None:
    lab = Lab()
    await lab.drop("a.fq", recipe=f"pipeline: demo\nexport_uri: {uri}\n")
    await lab.put("a.fq")
    if good:
        await lab.pin()
    else:
        assert (await lab.refused()).where == "key export_uri"


@pytest.mark.parametrize(
    "recipe",
    [
        "dy-r: x --configfile /etc/passwd\n",
        "dy-r: x --config a=s3://lab-control/drops/victim/a\n",
        "dy-r: x -d ../../victim\n",
        "dy-r: x\nclone: -d /fsx/data/worksets/victim\n",
    ],
)
async def test_arguments_that_name_a_closed_place_are_refused(recipe: str) -> None:
    lab = Lab(replace(LAND, closed=("/fsx/data/worksets",)))
    await lab.drop("a.fq", recipe=recipe)
    await lab.put("a.fq")
    assert (await lab.refused()).where.startswith("arguments of the ")


async def test_columns_that_are_no_input_may_not_name_a_closed_place_either() -> None:
    lab = Lab(replace(LAND, closed=("/fsx/data/worksets",)))
    await lab.put("a.fq")
    await lab.drop("a.fq", more="/fsx/data/worksets/victim/")
    assert (await lab.refused()).where == "line 2, column PATH_TO_CONCORDANCE_DATA_DIR"
    await lab.drop("a.fq", more="/fsx/data/genomic_data/hg38/controls/")
    await lab.pin()


async def test_local_links_into_a_closed_folder_are_refused(tmp_path: Path) -> None:
    closed = tmp_path / "data" / "worksets"
    (closed / "victim").mkdir(parents=True)
    (closed / "victim" / "a.fq").write_text("reads")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "link.fq").symlink_to(closed / "victim" / "a.fq")
    (tmp_path / "other").symlink_to(tmp_path / "data")
    lab = Lab(replace(LAND, closed=(str(closed),)), roots=(str(tmp_path),))
    for path in (
        f"{closed}/victim/a.fq",
        f"{tmp_path}/mine/link.fq",
        f"{tmp_path}/other/worksets/victim/a.fq",
        f"{tmp_path}/mine/",
        f"{tmp_path}/data/",
    ):
        await lab.drop(path)
        assert "is not open to worksets" in (await lab.refused()).what, path
    await lab.drop("a.fq", more=f"{tmp_path}/other/worksets/")
    await lab.put("a.fq")
    assert "leads to" in (await lab.refused()).what


async def test_a_link_is_followed_though_its_name_has_a_space(tmp_path: Path) -> None:
    closed = tmp_path / "my worksets"
    (closed / "victim").mkdir(parents=True)
    (tmp_path / "one more").symlink_to(closed / "victim")
    lab = Lab(replace(LAND, closed=(str(closed),)), roots=(str(tmp_path),))
    await lab.put("a.fq")
    for text in (f"{tmp_path}/one more/", f"first {tmp_path}/one more/ and then"):
        await lab.drop("a.fq", more=text)
        assert "leads to" in (await lab.refused()).what, text


async def test_the_closed_folder_may_itself_be_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "real" / "victim").mkdir(parents=True)
    (tmp_path / "real" / "victim" / "a.fq").write_text("reads")
    (tmp_path / "worksets").symlink_to(tmp_path / "real")
    lab = Lab(replace(LAND, closed=(f"{tmp_path}/worksets",)), roots=(str(tmp_path),))
    await lab.drop(f"{tmp_path}/real/victim/a.fq")
    assert "is not open to worksets" in (await lab.refused()).what
    (tmp_path / "alias").symlink_to(tmp_path / "real" / "victim")
    await lab.put("a.fq")
    await lab.drop("a.fq", more=f"{tmp_path}/alias/")
    assert "leads to" in (await lab.refused()).what


async def test_lists_of_open_places_hold_for_inputs_and_exports() -> None:
    lab = Lab(replace(LAND, inputs=(S3Place("reads", "lab-a"),), exports=(S3Place("out", ""),)))
    await lab.put("lab-a/a.fq", bucket="reads")
    await lab.drop("s3://reads/lab-a/a.fq", recipe="pipeline: demo\nexport_uri: s3://out/x/\n")
    await lab.pin()
    await lab.drop("s3://reads/lab-b/a.fq")
    assert "is not open to worksets" in (await lab.refused()).what
    await lab.drop("s3://reads/lab-a/a.fq", recipe="pipeline: demo\nexport_uri: s3://reads/x/\n")
    assert "Results may go to s3://out/" in (await lab.refused()).what


async def test_a_workset_in_a_folder_of_another_name_is_refused_at_every_check() -> None:
    lab = Lab()
    await lab.drop("a.fq")
    await lab.put("a.fq")
    lab.ws = replace(ME, id=WorksetId("other"))
    for _ in range(3):
        assert "is not the folder of workset other" in (await lab.refused()).what
    lab.ws = asked(ME, prefix="drops/HG 002/")
    assert "is not a workset id" in (await lab.refused()).what


# --- names that cannot become files -----------------------------------------------------------------


@pytest.mark.parametrize("key", ["p//a.fq", "n" * 256 + ".fq", "p/./a.fq"])
async def test_a_key_that_cannot_become_a_file_is_refused_at_once(key: str) -> None:
    lab = Lab()
    await lab.put(key, bucket="reads")
    await lab.drop(f"s3://reads/{key}")
    assert "cannot become a file" in (await lab.refused()).what
    await lab.put("f/" + key, bucket="reads")
    await lab.drop("s3://reads/f/")
    assert "cannot become a file" in (await lab.refused()).what


async def test_an_object_that_is_a_folder_too_is_refused() -> None:
    lab = Lab()
    await lab.put("x", bucket="reads")
    await lab.put("x/a.fq", bucket="reads")
    await lab.drop("s3://reads/x", "s3://reads/x/a.fq")
    assert "s3://reads/x is a file, and other files lie below" in (await lab.refused()).what


async def test_markers_of_folders_are_no_files() -> None:
    lab = Lab()
    await lab.put("f/", b"", bucket="reads")
    await lab.put("f/sub/", b"", bucket="reads")
    await lab.drop("s3://reads/f/")
    assert len(await lab.missing()) == 1
    await lab.put("f/sub/a.fq", bucket="reads")
    await lab.pin()


async def test_an_archived_file_in_a_folder_is_noticed_by_one_look_at_it() -> None:
    lab = Lab()
    await lab.put("f/a.fq", bucket="reads")
    await lab.objects.put("reads", "f/b.fq", b"x", storage_class="GLACIER")
    await lab.drop("s3://reads/f/")
    assert "archived (GLACIER)" in (await lab.refused()).what
    await lab.objects.put("reads", "f/b.fq", b"x", storage_class="GLACIER", restored=True)
    await lab.pin()


async def test_odd_files_in_a_local_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    lab = Lab(roots=(str(tmp_path),))
    await lab.drop(f"{tmp_path}/f/")
    assert len(await lab.missing()) == 1
    (tmp_path / "f" / "deep").mkdir()
    (tmp_path / "f" / "deep" / "a").write_text("x")
    await lab.pin()
    os.mkfifo(tmp_path / "f" / "pipe")
    assert "no regular file" in (await lab.refused()).what


# --- remembering -------------------------------------------------------------------------------------


async def test_while_one_file_is_missing_only_that_one_is_asked_for_again() -> None:
    lab = Lab()
    paths = [f"s3://reads/{number}.fq" for number in range(200)]
    await lab.drop(*paths)
    for number in range(1, 200):
        await lab.put(f"{number}.fq", bucket="reads")
    await lab.missing()
    assert len(lab.called("head")) == 200
    for _ in range(5):
        await lab.missing()
        assert lab.called("head") == ["0.fq"]
        assert lab.called("read") == []
    await lab.put("0.fq", bucket="reads")
    await lab.pin()
    assert len(lab.called("head")) == 201, "what is accepted was seen in one look"


async def test_a_file_that_was_replaced_while_others_were_missing_is_pinned_as_it_is_now() -> None:
    lab = Lab()
    await lab.drop("s3://reads/a.fq", "s3://reads/b.fq")
    await lab.put("a.fq", "old", bucket="reads")
    await lab.missing()
    await lab.put("a.fq", "new!", bucket="reads")
    await lab.put("b.fq", bucket="reads")
    fresh = Lab()
    fresh.objects = lab.objects
    fresh.inputs = S3Inputs(
        lab.objects, lambda: "demo", lambda: PIPELINES, local_roots=["/fsx"], territory=LAND
    )
    assert await lab.pin() == await fresh.pin()


async def test_a_file_that_vanished_while_others_were_missing_is_missing() -> None:
    lab = Lab()
    await lab.drop("s3://reads/a.fq", "s3://reads/b.fq")
    await lab.put("a.fq", bucket="reads")
    await lab.missing()
    await lab.objects.delete("reads", "a.fq")
    await lab.put("b.fq", bucket="reads")
    assert [problem.where for problem in await lab.missing()] == ["line 2, column ONT_FQ"]


async def test_a_sheet_that_was_mended_while_waiting_is_read_anew() -> None:
    lab = Lab()
    await lab.drop("s3://reads/a.fq")
    await lab.missing()
    await lab.drop("s3://reads/b.fq")
    await lab.put("b.fq", bucket="reads")
    await lab.pin()


async def test_a_new_submission_remembers_nothing_of_the_last() -> None:
    lab = Lab()
    await lab.drop("s3://reads/a.fq", "s3://reads/b.fq")
    await lab.put("a.fq", bucket="reads")
    await lab.missing()
    lab.ws = asked(ME, submitted_at=NOW + timedelta(hours=1))
    await lab.missing()
    assert sorted(lab.called("head")) == ["a.fq", "b.fq"]


async def test_what_was_found_before_an_answer_got_lost_is_not_asked_for_again() -> None:
    lab = Lab()
    await lab.drop(*(f"s3://reads/{number}.fq" for number in range(40)), "s3://flaky/x.fq")
    for number in range(40):
        await lab.put(f"{number}.fq", bucket="reads")
    lab.objects.refuse("flaky", "", Transient("throttled"))
    with pytest.raises(Transient):
        await lab.inspect()
    with pytest.raises(Transient):
        await lab.inspect()
    assert len(lab.called("head")) < 20


def test_no_more_is_remembered_than_there_is_room_for() -> None:
    def memory(files: int) -> Memory:
        pins = tuple(Pin(f"s3://b/{number}", 1, "e", 0) for number in range(files))
        return Memory(looks={S3Place("b", "f/"): Found(pins)})

    remembered = Remembered(limit=100)
    worksets = [replace(ME, id=WorksetId(f"w{number}")) for number in range(5)]
    for ws in worksets:
        remembered.keep(ws, memory(40))
    assert [remembered.of(ws).files for ws in worksets] == [0, 0, 0, 40, 40]
    remembered.keep(worksets[3], memory(41))
    remembered.keep(worksets[0], memory(1))
    assert [remembered.of(ws).files for ws in worksets] == [1, 0, 0, 41, 40]
    remembered.forget(worksets[3])
    assert remembered.of(worksets[3]).files == 0
    remembered.keep(worksets[2], memory(1000))
    assert [remembered.of(ws).files for ws in worksets] == [0, 0, 0, 0, 0]


# --- pins --------------------------------------------------------------------------------------------


async def test_the_pin_changes_with_every_byte_that_was_checked_and_with_nothing_else() -> None:
    lab = Lab()
    await lab.drop("s3://reads/a.fq", "own.fq")
    await lab.put("a.fq", bucket="reads")
    await lab.put("own.fq")
    await lab.put("unnamed.fq")
    first = await lab.pin()
    await lab.put("unnamed.fq", "other")
    assert await lab.pin() == first
    pins = {first}
    await lab.put("own.fq", "other")
    pins.add(await lab.pin())
    await lab.put("a.fq", "other", bucket="reads")
    pins.add(await lab.pin())
    await lab.put("daylily_work.yaml", "dy-r: help \n")
    pins.add(await lab.pin())
    await lab.put("stage_samples.tsv", "SAMPLE_ID\tONT_FQ\nS0\ts3://reads/a.fq\n")
    pins.add(await lab.pin())
    assert len(pins) == 5
    assert all(read_pin(pin) is not None and str(read_pin(pin)) == pin for pin in pins)
    assert max(len(pin) for pin in pins) < 200


# --- whose fault a no is -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "daylily_work.yaml", "stage_samples.tsv"])
@pytest.mark.parametrize("error", [Denied("no"), Impeded("no")])
async def test_a_folder_that_is_closed_to_us_is_trouble_of_ours(name: str, error: Impeded) -> None:
    lab = Lab()
    await lab.drop("a.fq")
    await lab.put("a.fq")
    lab.objects.refuse(BUCKET, PREFIX + name, error)
    with pytest.raises(Impeded):
        await lab.inspect()


async def test_a_control_bucket_that_is_gone_refuses_nobodys_workset() -> None:
    lab = Lab()
    lab.objects.refuse(BUCKET, "", NoBucket("no such bucket"))
    with pytest.raises(Impeded):
        await lab.inspect()


async def test_the_rest_of_the_control_bucket_is_ours_too() -> None:
    lab = Lab()
    await lab.drop(f"s3://{BUCKET}/public/a.fq")
    lab.objects.refuse(BUCKET, "public/", Denied("no"))
    with pytest.raises(Impeded):
        await lab.inspect()


@pytest.mark.parametrize("error", [Denied("AccessDenied"), NoBucket("NoSuchBucket")])
async def test_a_foreign_place_that_is_closed_may_be_opened_while_we_wait(
    error: Denied | NoBucket,
) -> None:
    lab = Lab()
    await lab.drop("s3://reads/a.fq", "s3://reads/f/")
    lab.objects.refuse("reads", "", error)
    problems = await lab.missing()
    assert {problem.category for problem in problems} == {Category.CONFIGURATION}
    assert "there is no such bucket, or the daemon may not read it" in problems[0].what
    lab.objects.allow("reads")
    await lab.put("a.fq", bucket="reads")
    await lab.put("f/1", bucket="reads")
    await lab.pin()


async def test_trouble_with_our_credentials_is_nobodys_missing_file() -> None:
    lab = Lab()
    await lab.drop("s3://reads/a.fq")
    lab.objects.refuse("reads", "", Impeded("expired"))
    with pytest.raises(Impeded):
        await lab.inspect()


async def test_a_definite_no_about_one_object_is_refused_with_its_reason() -> None:
    lab = Lab()
    await lab.drop("s3://reads/a.fq")
    lab.objects.refuse("reads", "", Permanent("It is encrypted (SSE-C)."))
    assert "It is encrypted (SSE-C)." in (await lab.refused()).what
