"""What was checked is what is staged: whatever is accepted can be fetched, and nothing else is."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daylily_daemon.adapters.aws import Aws, AwsOptions
from daylily_daemon.adapters.inputs import S3Inputs
from daylily_daemon.adapters.s3 import S3Objects
from daylily_daemon.adapters.staging import Staged, stage
from daylily_daemon.adapters.transfer import CopyOptions
from daylily_daemon.domain.errors import Permanent
from daylily_daemon.domain.failures import classify
from daylily_daemon.domain.model import Accepted, Ended, Inspection, Outcome
from daylily_daemon.domain.paths import S3Place
from daylily_daemon.domain.pipeline import Pipeline, StepTemplate
from daylily_daemon.domain.places import Territory
from daylily_daemon.domain.sheet import Sheet, read_sheet
from daylily_daemon.domain.workset import Workset
from tests.made import a_workset

BUCKETS = itertools.count(1)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
STEPS = (StepTemplate(step="run", argv=("x", "{run_args}")),)
PIPELINES = {"plain": Pipeline(name="plain", steps=STEPS)}
OPTIONS = CopyOptions(longest_pause_s=0.01, tries=3)


@dataclass
class Lab:
    client: Any
    folder: Path
    bucket: str = field(default_factory=lambda: f"staging-{next(BUCKETS)}")
    pin: str = ""

    @property
    def prefix(self) -> str:
        return "drops/ws1/"

    @property
    def workset(self) -> Workset:
        return a_workset("ws1", bucket=self.bucket, prefix=self.prefix)

    async def put(self, key: str, body: bytes = b"reads") -> None:
        await self.client.put_object(Bucket=self.bucket, Key=key, Body=body)

    async def drop(self, *cells: str, column: str = "ONT_FQ") -> None:
        rows = "".join(f"S{number}\t{cell}\n" for number, cell in enumerate(cells))
        await self.put(f"{self.prefix}daylily_work.yaml", b"pipeline: plain\n")
        sheet = f"SAMPLE_ID\t{column}\n{rows}"
        await self.put(f"{self.prefix}stage_samples.tsv", sheet.encode())

    async def inspect(self) -> Inspection:
        inputs = S3Inputs(
            S3Objects(self.client),
            lambda: "plain",
            lambda: PIPELINES,
            local_roots=[str(self.folder / "fsx")],
            territory=Territory(control=S3Place(self.bucket, "drops/")),
        )
        return await inputs.inspect(self.workset)

    async def check(self) -> None:
        result = await self.inspect()
        assert isinstance(result, Accepted), result
        self.pin = result.plan.pin

    async def stage(self, client: Any = None) -> Staged:
        return await stage(
            client or self.client,
            f"s3://{self.bucket}/{self.prefix}",
            self.folder / "stage",
            pin=self.pin,
            options=OPTIONS,
        )

    async def refused(self, client: Any = None) -> str:
        with pytest.raises(Permanent) as refused:
            await self.stage(client)
        assert not (self.folder / "stage" / "stage_samples.tsv").exists()
        return str(refused.value)

    def staged_paths(self) -> list[str]:
        sheet = read_sheet((self.folder / "stage" / "stage_samples.tsv").read_bytes())
        assert isinstance(sheet, Sheet), sheet
        return [file.path for row in sheet.rows for file in row.files]

    def content(self) -> bytes:
        return Path(self.staged_paths()[0]).read_bytes()

    def lies_there(self, path: str) -> bool:
        return Path(path).is_dir() if path.endswith("/") else Path(path).is_file()


@pytest.fixture
async def lab(moto_url: str, tmp_path: Path) -> AsyncIterator[Lab]:
    (tmp_path / "fsx").mkdir()
    async with Aws(AwsOptions(endpoint_url=moto_url, max_attempts=1)) as aws:
        made = Lab(await aws.client("s3"), tmp_path)
        await made.client.create_bucket(
            Bucket=made.bucket, CreateBucketConfiguration={"LocationConstraint": "us-west-2"}
        )
        yield made


# --- folders --------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["ONT_FASTQ_PREFIX", "ONT_FASTQ_DIR", "ONT_FQ"])
async def test_everything_below_a_folder_is_staged_and_the_sheet_names_the_folder(
    lab: Lab, column: str
) -> None:
    names = ("barcode03/a.fastq.gz", "barcode03/deep/b.fastq.gz")
    for name in names:
        await lab.put(f"run/fastq_pass/{name}", name.encode())
    await lab.put("run/fastq_pass/barcode03/", b"")
    await lab.put("run/fastq_pass/barcode031/not-mine.fastq.gz")
    await lab.drop(f"s3://{lab.bucket}/run/fastq_pass/barcode03/", column=column)
    await lab.check()
    done = await lab.stage()
    (path,) = lab.staged_paths()
    assert path == f"{lab.folder}/stage/inputs/{lab.bucket}/run/fastq_pass/barcode03/"
    found = {file.relative_to(path).as_posix() for file in done.files}
    assert found == {"a.fastq.gz", "deep/b.fastq.gz"}
    assert (Path(path) / "deep" / "b.fastq.gz").read_bytes() == names[1].encode()
    assert not list((lab.folder / "stage").rglob("not-mine*"))


async def test_a_relative_folder_and_a_file_in_it_are_fetched_once(lab: Lab) -> None:
    await lab.put(f"{lab.prefix}fastq_pass/a.fq", b"a")
    await lab.put(f"{lab.prefix}fastq_pass/b.fq", b"b")
    await lab.drop("fastq_pass/", "fastq_pass/a.fq")
    await lab.check()
    done = await lab.stage()
    assert done.downloaded.files == 2
    again = await lab.stage()
    assert again.downloaded.unchanged == 2


async def test_local_folders_stay_where_they_are(lab: Lab) -> None:
    folder = lab.folder / "fsx" / "pass"
    folder.mkdir()
    (folder / "a.fq").write_bytes(b"a")
    await lab.drop(f"{folder}/")
    await lab.check()
    done = await lab.stage()
    assert lab.staged_paths() == [f"{folder}/"]
    assert done.files == (folder / "a.fq",)


# --- pins -----------------------------------------------------------------------------------------


async def prepared(lab: Lab) -> None:
    (lab.folder / "fsx" / "local.fq").write_bytes(b"local")
    await lab.put("reads/a.fq")
    await lab.put("reads/f/b.fq")
    reads = f"s3://{lab.bucket}/reads"
    await lab.drop(f"{reads}/a.fq", f"{reads}/f/", f"{lab.folder}/fsx/local.fq")
    await lab.check()


async def test_what_nobody_touched_is_staged(lab: Lab) -> None:
    await prepared(lab)
    await lab.stage()
    assert len(lab.staged_paths()) == 3


async def test_a_sheet_that_was_overwritten_while_waiting_is_not_obeyed(lab: Lab) -> None:
    await prepared(lab)
    await lab.drop("/etc/passwd")
    said = await lab.refused()
    assert said.startswith("stage_samples.tsv was changed after it was checked.")
    failure = classify(Outcome(ended=Ended.EXITED, code=1, tail=said))
    assert (failure.code, failure.retry) == ("WS-DAT-004", False)
    await lab.put(f"{lab.prefix}daylily_work.yaml", b"pipeline: plain # other\n")
    assert (await lab.refused()).startswith("daylily_work.yaml was changed")


async def test_a_sheet_that_was_removed_or_added_while_waiting_is_a_change(lab: Lab) -> None:
    await prepared(lab)
    await lab.client.delete_object(Bucket=lab.bucket, Key=f"{lab.prefix}stage_samples.tsv")
    assert (await lab.refused()).startswith("stage_samples.tsv was changed")
    recipe = b"pipeline: plain\nsamples: [{sample_id: S1, fastq_r1: a.fq}]\n"
    await lab.put(f"{lab.prefix}daylily_work.yaml", recipe)
    await lab.put(f"{lab.prefix}a.fq")
    await lab.check()
    await lab.drop("a.fq")
    await lab.put(f"{lab.prefix}daylily_work.yaml", recipe)
    assert (await lab.refused()).startswith("stage_samples.tsv was changed")


async def test_an_input_that_was_replaced_is_refused_before_anything_is_copied(
    lab: Lab,
) -> None:
    await prepared(lab)
    await lab.put("reads/a.fq", b"other")
    assert "was changed after it was checked" in (await lab.refused())
    assert not list((lab.folder / "stage").rglob("*.fq"))


async def test_a_file_that_was_put_into_a_folder_while_waiting_is_a_change(lab: Lab) -> None:
    await prepared(lab)
    await lab.put("reads/f/c.fq")
    assert "was changed after it was checked" in (await lab.refused())


async def test_a_file_that_was_removed_while_waiting_is_a_change_or_missing(lab: Lab) -> None:
    await prepared(lab)
    await lab.put("reads/f/c.fq")
    await lab.check()
    await lab.client.delete_object(Bucket=lab.bucket, Key="reads/f/c.fq")
    assert "One of the 3 input files was changed after it was checked, or was added" in (
        await lab.refused()
    )
    await lab.client.delete_object(Bucket=lab.bucket, Key="reads/a.fq")
    assert "Missing input files" in (await lab.refused())


def rewritten(path: Path) -> None:
    path.write_bytes(b"other")


def made_longer(path: Path) -> None:
    path.write_bytes(b"local and more")


def moved_over(path: Path) -> None:
    path.with_suffix(".new").write_bytes(b"local")
    path.with_suffix(".new").replace(path)


def linked_away(path: Path) -> None:
    secret = path.parent.parent / "secret"
    secret.write_bytes(b"local")
    path.unlink()
    path.symlink_to(secret)


@pytest.mark.reported("C", "a link swapped between check and use (oryxos#285)")
@pytest.mark.parametrize("change", [rewritten, made_longer, moved_over, linked_away])
async def test_a_local_file_that_was_changed_while_waiting_is_refused(
    lab: Lab, change: Callable[[Path], None]
) -> None:
    await prepared(lab)
    change(lab.folder / "fsx" / "local.fq")
    assert "was changed after it was checked" in (await lab.refused())


class Replacing:
    """An S3 client: the object is overwritten once all HEADs are answered, before the first byte is read."""

    def __init__(self, lab: Lab, key: str) -> None:
        self._lab = lab
        self._key = key
        self._done = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lab.client, name)

    async def get_object(self, **request: Any) -> Any:
        if request["Key"] == self._key and not self._done:
            self._done = True
            await self._lab.put(self._key, b"other")
        return await self._lab.client.get_object(**request)


@pytest.mark.reported("C", "an object replaced between look and download (soa#196)")
async def test_an_input_that_is_replaced_between_the_look_and_the_first_byte_is_refused(
    lab: Lab,
) -> None:
    await prepared(lab)
    said = await lab.refused(Replacing(lab, "reads/a.fq"))
    assert said.startswith(f"s3://{lab.bucket}/reads/a.fq was changed after it was checked")


async def test_after_a_new_check_the_new_version_is_staged(lab: Lab) -> None:
    await prepared(lab)
    await lab.put("reads/a.fq", b"other")
    await lab.refused()
    await lab.check()
    await lab.stage()
    assert lab.content() == b"other"


async def test_a_plan_without_a_pin_is_staged_as_ever_and_a_pin_from_the_future_is_refused(
    lab: Lab,
) -> None:
    await prepared(lab)
    await lab.put("reads/a.fq", b"other")
    for pin in ("9.a.b.c.1.2", "1.a.b", "x", "1.a.b.c.d.e"):
        lab.pin = pin
        assert "cannot be read any more" in (await lab.refused())
    lab.pin = ""
    await lab.stage()


# --- whatever is accepted can be fetched ---------------------------------------------------------------

NAMES = st.sampled_from(
    ["a.fq", "b.fq", "ä b+c%20.fq", "x", "f", "a.cram", "c.pod5", "n" * 256, ".", "..", "", "é"]
)
KEYS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
COLUMNS = st.sampled_from(["ONT_FQ", "ONT_FASTQ_PREFIX", "UG_CRAM", "ONT_POD5"])


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    keys=st.lists(KEYS.filter(bool), min_size=1, max_size=6, unique=True),
    own=st.booleans(),
    cells=st.lists(
        st.tuples(st.integers(0, 5), st.integers(1, 4), st.sampled_from(["", "/"])),
        min_size=1,
        max_size=3,
    ),
    column=COLUMNS,
)
async def test_whatever_the_check_accepts_staging_can_fetch(
    lab: Lab, keys: list[str], own: bool, cells: list[tuple[int, int, str]], column: str
) -> None:
    world = Lab(lab.client, lab.folder / f"w{next(BUCKETS)}")
    (world.folder / "fsx").mkdir(parents=True)
    await world.client.create_bucket(
        Bucket=world.bucket, CreateBucketConfiguration={"LocationConstraint": "us-west-2"}
    )
    below = world.prefix if own else "reads/"
    for key in keys:
        await world.put(below + key, key.encode())
    start = "" if own else f"s3://{world.bucket}/reads/"
    named = (
        "/".join(keys[number % len(keys)].split("/")[:depth]) + slash
        for number, depth, slash in cells
    )
    await world.drop(*(f"{start}{key}" for key in named), column=column)
    result = await world.inspect()
    if not isinstance(result, Accepted):
        return
    world.pin = result.plan.pin
    done = await world.stage()
    assert done.files
    assert all(file.is_file() for file in done.files)
    assert all(world.lies_there(path) for path in world.staged_paths())
    again = await world.stage()
    assert again.downloaded.unchanged == again.downloaded.files
