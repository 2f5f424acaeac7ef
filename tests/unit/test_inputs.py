"""Inspection of a dropped workset against a working object store in memory."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daylily_daemon.adapters.inputs import AT_ONCE, S3Inputs
from daylily_daemon.adapters.objects import Objects
from daylily_daemon.domain.document import MAX_BYTES
from daylily_daemon.domain.errors import Permanent, Transient
from daylily_daemon.domain.model import (
    Accepted,
    Category,
    Inspection,
    Missing,
    Plan,
    Problem,
    Refused,
    Unwanted,
)
from daylily_daemon.domain.pipeline import Pipeline, StepTemplate
from daylily_daemon.domain.sheet import MAX_SHEET_BYTES
from daylily_daemon.ports import Inputs
from tests.fakes.objects import MemoryObjects
from tests.made import a_workset

BUCKET = "lab"
PREFIX = "active_worksets/ws-1/"
RECIPE = "daylily_work.yaml"
SHEET = "stage_samples.tsv"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
WORKSET = a_workset("ws-1", bucket=BUCKET, prefix=PREFIX)
STEPS = tuple(StepTemplate(step=step, argv=("true",)) for step in ("stage", "run"))
PIPELINES = {
    "default": Pipeline(name="default", steps=STEPS, reference_genomes=("hg38", "b37")),
    "germline": Pipeline(name="germline", steps=STEPS[1:]),
}


def sheet(*paths: str, column: str = "R1_FQ") -> str:
    rows = [f"s{i}\t{path}" for i, path in enumerate(paths)]
    return "\n".join([f"SAMPLE_ID\t{column}", *rows]) + "\n"


class Lab:
    """A lab that drops files, and the daemon's look at them."""

    def __init__(self, *local_roots: str) -> None:
        self.objects = MemoryObjects()
        store: Objects = self.objects
        roots = local_roots or ("/fsx",)
        self.inputs: Inputs = S3Inputs(store, lambda: "default", self.pipelines, local_roots=roots)
        self.known: Mapping[str, Pipeline] = PIPELINES

    def pipelines(self) -> Mapping[str, Pipeline]:
        return self.known

    async def drop(self, **files: str | bytes) -> None:
        names = {"recipe": RECIPE, "sheet": SHEET}
        for name, content in files.items():
            await self.put(names[name], content)

    async def put(
        self, name: str, content: str | bytes = "x", storage_class: str = "STANDARD"
    ) -> None:
        body = content.encode() if isinstance(content, str) else content
        await self.objects.put(BUCKET, PREFIX + name, body, storage_class=storage_class)

    async def inspect(self) -> Inspection:
        self.objects.calls.clear()
        return await self.inputs.inspect(WORKSET)

    async def accepted(self) -> Accepted:
        result = await self.inspect()
        assert isinstance(result, Accepted), result
        return result

    async def problems(self, kind: type[Missing | Refused]) -> tuple[Problem, ...]:
        result = await self.inspect()
        assert isinstance(result, Missing | Refused)
        assert type(result) is kind
        for problem in result.problems:
            assert problem.file
            assert problem.todo.endswith(("daylily.ready again.", "once.", "."))
        return result.problems

    async def missing(self) -> Problem:
        (problem,) = await self.problems(Missing)
        return problem

    async def refused(self) -> Problem:
        (problem,) = await self.problems(Refused)
        return problem

    def called(self, method: str) -> list[str]:
        return [key for name, key in self.objects.calls if name == method]


async def test_a_complete_drop_becomes_a_plan() -> None:
    lab = Lab()
    await lab.drop(
        recipe="dy-r: -p help\nclone: -t main\nbudget: b1\ncluster_name: c1\nmax_retries: 2\n"
        "priority: low\nreference_genome: hg38\n",
        sheet=sheet("sample_data/a.fq", f"s3://{BUCKET}/{PREFIX}b.fq", "s3://other/c.fq"),
    )
    await lab.put("sample_data/a.fq", "a" * 10)
    await lab.put("b.fq", "b" * 200)
    await lab.objects.put("other", "c.fq", b"c" * 3000)
    found = await lab.accepted()
    assert found.plan.pin
    assert found == Accepted(
        plan=Plan(
            pin=found.plan.pin,
            pipeline="default",
            steps=("stage", "run"),
            run_args=("-p", "help"),
            clone_args=("-t", "main", "--budget", "b1"),
            workdir_name="ws-1",
            export_uri=f"s3://{BUCKET}/{PREFIX}results/",
            cluster_name="c1",
            reference_genome="hg38",
            samples=3,
        ),
        max_retries=2,
        priority="low",
    )


async def test_a_folder_that_says_ignore_is_not_wanted_whatever_else_is_in_it() -> None:
    lab = Lab()
    await lab.put("daylily.ignore")
    assert await lab.inspect() == Unwanted("daylily.ignore")
    await lab.drop(recipe="broken: [")
    assert await lab.inspect() == Unwanted("daylily.ignore")


async def test_one_listing_and_one_head_a_file_elsewhere_are_all_it_costs() -> None:
    lab = Lab()
    own = [f"sample_data/{i}.fq" for i in range(50)]
    await lab.drop(recipe="dy: help", sheet=sheet(*own, "s3://other/x.fq", "s3://other/x.fq"))
    for name in own:
        await lab.put(name)
    await lab.objects.put("other", "x.fq", b"x")
    await lab.accepted()
    assert lab.called("list") == [PREFIX]
    assert lab.called("head") == ["x.fq"]
    assert len(lab.called("read")) == 2


async def test_a_named_pipeline_and_export_target_are_taken_over() -> None:
    lab = Lab()
    await lab.drop(recipe="pipeline: germline\nexport: s3://out/x", sheet=sheet("a.fq"))
    await lab.put("a.fq")
    plan = (await lab.accepted()).plan
    assert plan.pipeline == "germline"
    assert plan.steps == ("run",)
    assert plan.export_uri == "s3://out/x/"


async def test_samples_of_the_recipe_stand_in_for_a_missing_sheet() -> None:
    lab = Lab()
    await lab.drop(
        recipe="pipeline: germline\nsamples:\n  - sample_id: a\n    fastq_r1: a.fq\n    fastq_r2: b.fq\n"
    )
    await lab.put("a.fq")
    problem = await lab.missing()
    assert problem.file == RECIPE
    assert problem.where == "line 3, key samples[0].fastq_r2"
    await lab.put("b.fq")
    assert (await lab.accepted()).plan.samples == 1


async def test_a_sheet_that_is_there_is_read_although_the_recipe_lists_samples() -> None:
    lab = Lab()
    recipe = "pipeline: germline\nsamples: [{sample_id: a, fastq_r1: a.fq}]"
    await lab.drop(recipe=recipe, sheet=sheet("b.fq", "c.fq"))
    await lab.put("b.fq")
    await lab.put("c.fq")
    assert (await lab.accepted()).plan.samples == 2


async def test_a_drop_without_a_recipe_waits_for_it() -> None:
    problem = await Lab().missing()
    assert problem.file == RECIPE
    assert f"s3://{BUCKET}/{PREFIX}" in problem.what


async def test_a_recipe_without_samples_waits_for_the_sheet() -> None:
    lab = Lab()
    await lab.drop(recipe="dy: help")
    assert (await lab.missing()).file == SHEET


@pytest.mark.parametrize(("name", "limit"), [(RECIPE, MAX_BYTES), (SHEET, MAX_SHEET_BYTES)])
async def test_a_file_over_the_limit_is_refused_without_being_read(name: str, limit: int) -> None:
    lab = Lab()
    await lab.drop(recipe="dy: help", sheet=sheet("a.fq"))
    await lab.put(name, b"x" * (limit + 1))
    problem = await lab.refused()
    assert problem.file == name
    assert f"at most {limit:,}" in problem.what
    assert PREFIX + name not in lab.called("read")


async def test_a_recipe_that_grew_after_the_listing_is_never_read_in_part() -> None:
    class Growing(MemoryObjects):
        async def read(self, bucket: str, key: str, max_bytes: int) -> bytes | None:
            await self.put(bucket, key, b"dy: help\n" + b"#" * MAX_BYTES)
            return await MemoryObjects.read(self, bucket, key, max_bytes)

    objects = Growing()
    await objects.put(BUCKET, PREFIX + RECIPE, b"dy: help")
    result = await S3Inputs(objects, lambda: "default", lambda: PIPELINES, local_roots=[]).inspect(
        WORKSET
    )
    assert isinstance(result, Refused)
    assert f"at most {MAX_BYTES:,}" in result.problems[0].what


async def test_problems_of_recipe_sheet_and_pipeline_are_told_together() -> None:
    lab = Lab()
    await lab.drop(recipe="dy: help\npriority: high\n", sheet=sheet(""))
    assert [problem.file for problem in await lab.problems(Refused)] == [RECIPE, SHEET]
    await lab.drop(recipe="dy: help\npipeline: somatic\n")
    assert [problem.file for problem in await lab.problems(Refused)] == [RECIPE, SHEET]


async def test_a_bad_recipe_is_told_although_the_sheet_is_not_there_yet() -> None:
    lab = Lab()
    await lab.drop(recipe="dy: help; id")
    assert (await lab.refused()).where == "line 1, key dy"


async def test_an_unknown_pipeline_names_the_known_ones() -> None:
    lab = Lab()
    await lab.drop(recipe="pipeline: somatic", sheet=sheet("a.fq"))
    problem = await lab.refused()
    assert problem.file == RECIPE
    assert problem.where == "key pipeline"
    assert "known are default, germline" in problem.what
    assert problem.category is Category.CONFIGURATION


async def test_pipelines_are_asked_anew_each_time() -> None:
    lab = Lab()
    await lab.drop(recipe="dy: help", sheet=sheet("a.fq"))
    await lab.put("a.fq")
    lab.known = {}
    assert "known are none" in (await lab.refused()).what
    lab.known = PIPELINES
    await lab.accepted()


async def test_every_missing_file_is_named_by_line_column_and_address() -> None:
    lab = Lab("/")
    paths = ("a.fq", "s3://other/b.fq", "/no/such/c.fq")
    await lab.drop(recipe="dy: help", sheet=sheet(*paths))
    problems = await lab.problems(Missing)
    assert [problem.where for problem in problems] == [
        f"line {line}, column R1_FQ" for line in (2, 3, 4)
    ]
    found = [problem.what for problem in problems]
    assert found == [
        f"s3://{BUCKET}/{PREFIX}a.fq was not found in S3.",
        "s3://other/b.fq was not found in S3.",
        "/no/such/c.fq was not found on this host.",
    ]
    wanted = "Upload it or correct the path, then put daylily.ready again."
    assert problems[0].todo == problems[1].todo == wanted
    assert {problem.category for problem in problems} == {Category.DATA}


async def test_a_missing_file_on_many_rows_is_listed_fifty_times_and_counted() -> None:
    lab = Lab()
    await lab.drop(recipe="dy: help", sheet=sheet(*["a.fq"] * 80))
    problems = await lab.problems(Missing)
    assert len(problems) == 51
    assert "And 30 more" in problems[-1].what


async def test_at_most_32_questions_are_open_at_once_and_that_many_are() -> None:
    lab = Lab()
    paths = [f"s3://other/{i}.fq" for i in range(200)]
    await lab.drop(recipe="dy: help", sheet=sheet(*paths))
    assert len(await lab.problems(Missing)) == 51
    assert len(lab.called("head")) == 200
    assert lab.objects.most_at_once == AT_ONCE


@pytest.mark.parametrize("storage_class", ["GLACIER", "DEEP_ARCHIVE"])
@pytest.mark.parametrize(("bucket", "key"), [(BUCKET, PREFIX + "a.fq"), ("other", "a.fq")])
async def test_an_archived_file_is_refused_until_it_was_restored(
    bucket: str, key: str, storage_class: str
) -> None:
    lab = Lab()
    await lab.drop(recipe="dy: help", sheet=sheet(f"s3://{bucket}/{key}"))
    await lab.objects.put(bucket, key, b"x", storage_class=storage_class)
    problem = await lab.refused()
    assert problem.where == "line 2, column R1_FQ"
    assert storage_class in problem.what
    assert "Restore it first" in problem.todo
    await lab.objects.put(bucket, key, b"x", storage_class=storage_class, restored=True)
    await lab.accepted()


async def test_instant_retrieval_classes_are_read_like_any_other() -> None:
    lab = Lab()
    await lab.drop(recipe="dy: help", sheet=sheet("a.fq"))
    await lab.put("a.fq", storage_class="GLACIER_IR")
    await lab.accepted()


async def test_an_empty_input_file_is_refused() -> None:
    lab = Lab()
    await lab.drop(recipe="dy: help", sheet=sheet("a.fq"))
    await lab.put("a.fq", b"")
    problem = await lab.refused()
    assert "a.fq is empty (0 bytes)" in problem.what
    assert problem.where == "line 2, column R1_FQ"


async def test_what_can_never_be_used_outweighs_what_may_still_come() -> None:
    lab = Lab()
    await lab.drop(recipe="dy: help", sheet=sheet("coming.fq", "empty.fq"))
    await lab.put("empty.fq", b"")
    assert [problem.where for problem in await lab.problems(Refused)] == [
        "line 3, column R1_FQ",
        "line 2, column R1_FQ",
    ]


async def test_a_folder_is_there_when_something_lies_in_it() -> None:
    lab = Lab()
    await lab.drop(recipe="dy: help", sheet=sheet("pod5/", "s3://other/p/", column="ONT_POD5"))
    await lab.put("pod5.txt")
    assert len(await lab.problems(Missing)) == 2
    for i in range(3):
        await lab.put(f"pod5/{i}.pod5", "x" * 10)
        await lab.objects.put("other", f"p/{i}.pod5", b"x" * 100)
    await lab.accepted()


async def test_local_files_are_looked_up_on_this_host(tmp_path: Path) -> None:
    lab = Lab(str(tmp_path))
    (tmp_path / "a.fq").write_bytes(b"x" * 7)
    folder = tmp_path / "pod5"
    folder.mkdir()
    (folder / "1.pod5").write_bytes(b"x" * 30)
    await lab.drop(recipe="dy: help", sheet=sheet(f"{tmp_path}/a.fq", f"{folder}/"))
    await lab.accepted()
    assert lab.called("head") == []


async def test_local_files_outside_the_allowed_folders_are_refused(tmp_path: Path) -> None:
    allowed = tmp_path / "in"
    allowed.mkdir()
    secret = tmp_path / "secret"
    secret.write_text("x")
    (allowed / "link").symlink_to(secret)
    lab = Lab(f"{allowed}/")
    for path in (str(secret), f"{allowed}/link", f"{tmp_path}/in-side", "/etc/passwd"):
        await lab.drop(recipe="dy: help", sheet=sheet(path))
        problem = await lab.refused()
        assert problem.what.startswith(f"{path} is not below {allowed}")
        assert problem.where == "line 2, column R1_FQ"
        assert problem.category is Category.CONFIGURATION


async def test_a_local_path_must_be_a_file(tmp_path: Path) -> None:
    lab = Lab(str(tmp_path))
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    for name, words in (
        ("folder", "no regular file"),
        ("pipe", "no regular file"),
        ("loop", "cannot be looked at"),
        ("x" * 300, "cannot be looked at"),
    ):
        await lab.drop(recipe="dy: help", sheet=sheet(f"{tmp_path}/{name}"))
        assert words in (await lab.refused()).what
    await lab.drop(recipe="dy: help", sheet=sheet(f"{tmp_path}/pipe/x"))
    assert "not found on this host" in (await lab.missing()).what


NO = Permanent("Access Denied.")


@pytest.mark.parametrize("name", ["", RECIPE, SHEET])
async def test_denied_access_to_the_drop_is_a_configuration_problem(name: str) -> None:
    lab = Lab()
    await lab.drop(recipe="dy: help", sheet=sheet("a.fq"))
    await lab.put("a.fq")
    lab.objects.refuse(BUCKET, PREFIX + name, NO)
    problem = await lab.refused()
    assert problem.file == (name or f"s3://{BUCKET}/{PREFIX}")
    assert "Access Denied" in problem.what
    assert "role" in problem.todo
    assert problem.category is Category.CONFIGURATION


async def test_denied_access_to_an_input_file_names_its_row() -> None:
    lab = Lab()
    await lab.drop(recipe="dy: help", sheet=sheet("a.fq", "s3://other/b.fq", "s3://other/f/"))
    await lab.put("a.fq")
    lab.objects.refuse("other", "", NO)
    problems = await lab.problems(Refused)
    assert [problem.where for problem in problems] == [
        "line 3, column R1_FQ",
        "line 4, column R1_FQ",
    ]
    assert {problem.category for problem in problems} == {Category.CONFIGURATION}
    assert "s3://other/b.fq" in problems[0].what
    lab.objects.allow("other")
    await lab.objects.put("other", "b.fq", b"x")
    await lab.objects.put("other", "f/1", b"x")
    await lab.accepted()


@pytest.mark.parametrize(
    ("bucket", "prefix"),
    [(BUCKET, ""), (BUCKET, PREFIX + RECIPE), (BUCKET, PREFIX + SHEET), ("other", "")],
)
async def test_an_unknown_outcome_is_passed_on_and_never_taken_for_missing(
    bucket: str, prefix: str
) -> None:
    lab = Lab()
    await lab.drop(recipe="dy: help", sheet=sheet(*(f"s3://other/{i}" for i in range(100))))
    lab.objects.refuse(bucket, prefix, Transient("throttled"))
    with pytest.raises(Transient, match="throttled"):
        await lab.inspect()


async def test_a_recipe_deleted_between_listing_and_reading_is_missing() -> None:
    class Vanishing(MemoryObjects):
        async def read(self, bucket: str, key: str, max_bytes: int) -> bytes | None:
            await self.delete(bucket, key)
            return await MemoryObjects.read(self, bucket, key, max_bytes)

    objects = Vanishing()
    await objects.put(BUCKET, PREFIX + RECIPE, b"dy: help")
    result = await S3Inputs(objects, lambda: "default", lambda: PIPELINES, local_roots=[]).inspect(
        WORKSET
    )
    assert isinstance(result, Missing)
    assert result.problems[0].file == RECIPE


@settings(max_examples=60, deadline=None)
@given(recipe=st.binary(max_size=80) | st.just(b"dy: help"), listed=st.binary(max_size=120))
async def test_whatever_is_dropped_an_inspection_answers(recipe: bytes, listed: bytes) -> None:
    lab = Lab()
    await lab.drop(recipe=recipe, sheet=listed)
    result = await lab.inspect()
    assert isinstance(result, Accepted | Missing | Refused)
    if not isinstance(result, Accepted):
        assert result.problems
        assert all(re.match(r"(line|key) ", problem.where) for problem in result.problems)


async def test_the_store_in_memory_answers_as_s3_does() -> None:
    objects = MemoryObjects()
    await objects.put("b", "p/2", b"two")
    await objects.put("b", "p/1", b"one!")
    await objects.put("b", "q", b"")
    listed = await objects.list("b", "p/")
    assert [(info.key, info.size) for info in listed] == [("p/1", 4), ("p/2", 3)]
    assert listed[0].last_modified > listed[1].last_modified
    assert await objects.head("b", "p/1") == listed[0]
    assert await objects.read("b", "p/1", 2) == b"on"
    await objects.delete("b", "p/1")
    await objects.delete("b", "p/1")
    assert await objects.head("b", "p/1") is None
    assert await objects.read("b", "p/1", 2) is None
    assert await objects.list("nowhere", "") == []
