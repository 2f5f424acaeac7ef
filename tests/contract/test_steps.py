"""The commands of a pipeline as processes see them: arguments, output, exit codes, files."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest
import yaml
from typer.testing import CliRunner, Result

from daylily_daemon.adapters.aws import Aws, AwsOptions
from daylily_daemon.adapters.fastq import count_reads
from daylily_daemon.adapters.transfer import upload
from daylily_daemon.cli.app import app
from daylily_daemon.cli.sampledata import SampleWorkset, write_sample_workset
from daylily_daemon.domain.sheet import Sheet, read_sheet

BUCKETS = itertools.count(1)
WS = "drops/ws1/"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@dataclass
class Lab:
    url: str
    bucket: str

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{WS}"

    def call(self, operation: str, **request: Any) -> Any:
        async def call() -> Any:
            async with Aws(AwsOptions(endpoint_url=self.url)) as aws:
                method = getattr(await aws.client("s3"), operation)
                answer = await method(Bucket=self.bucket, **request)
                return await answer["Body"].read() if "Body" in answer else answer

        return anyio.run(call)

    def drop(self, folder: Path) -> None:
        async def drop() -> None:
            async with Aws(AwsOptions(endpoint_url=self.url)) as aws:
                await upload(await aws.client("s3"), folder, self.uri)

        anyio.run(drop)


@pytest.fixture
def lab(moto_url: str, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_url)
    made = Lab(moto_url, f"steps-{next(BUCKETS)}")
    made.call("create_bucket", CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
    return made


def staged_sheet(folder: Path) -> Sheet:
    sheet = read_sheet((folder / "stage_samples.tsv").read_bytes())
    assert isinstance(sheet, Sheet), sheet
    return sheet


@pytest.mark.parametrize("relative", [True, False])
def test_a_workset_is_staged_and_its_sheet_names_local_files(
    lab: Lab, tmp_path: Path, relative: bool
) -> None:
    spec = SampleWorkset(samples=2, reads=20, uri="" if relative else lab.uri)
    write_sample_workset(tmp_path / "ws1", spec)
    lab.drop(tmp_path / "ws1")
    dest = tmp_path / "stage"
    result = run("stage", lab.uri, dest)
    assert result.exit_code == 0, result.output
    assert f"Remote FSx stage directory: {dest}\n" in result.output
    assert "Staged files (4):\n" in result.output
    assert result.output.rstrip().endswith("4 of 4 steps (100%) done")
    paths = [Path(file.path) for row in staged_sheet(dest).rows for file in row.files]
    assert [count_reads(path)[0].reads for path in paths] == [20] * 4
    for path in paths:
        assert path.is_relative_to(dest / "inputs" / lab.bucket)
        assert f"\n  {path}\n" in result.output
    for name in ("daylily_work.yaml", "daylily_info.yaml"):
        assert (dest / name).read_bytes() == (tmp_path / "ws1" / name).read_bytes()


def test_a_second_staging_copies_nothing(lab: Lab, tmp_path: Path) -> None:
    write_sample_workset(tmp_path / "ws1", SampleWorkset(samples=1, reads=5))
    lab.drop(tmp_path / "ws1")
    run("stage", lab.uri, tmp_path / "stage")
    result = run("stage", lab.uri, tmp_path / "stage", "--jobs", "2")
    assert result.exit_code == 0
    assert "2 were there already" in result.output


def test_local_files_stay_where_they_are_and_other_buckets_are_read(
    lab: Lab, tmp_path: Path
) -> None:
    write_sample_workset(tmp_path / "ws1", SampleWorkset(samples=1, reads=5))
    fastq = tmp_path / "ws1" / "sample_data"
    r1, r2 = sorted(fastq.iterdir())
    lab.call("put_object", Key="else where/ä.fastq.gz", Body=r2.read_bytes())
    sheet = tmp_path / "ws1" / "stage_samples.tsv"
    text = sheet.read_text().replace(f"sample_data/{r1.name}", str(r1))
    other = f"s3://{lab.bucket}/else where/ä.fastq.gz"
    sheet.write_text(text.replace(f"sample_data/{r2.name}", other))
    lab.drop(tmp_path / "ws1")
    dest = tmp_path / "stage"
    result = run("stage", lab.uri, dest)
    assert result.exit_code == 0, result.output
    (row,) = staged_sheet(dest).rows
    assert [file.path for file in row.files] == [
        str(r1),
        str(dest / "inputs" / lab.bucket / "else where" / "ä.fastq.gz"),
    ]


def test_samples_in_the_recipe_stand_in_for_a_sheet(lab: Lab, tmp_path: Path) -> None:
    write_sample_workset(tmp_path / "ws1", SampleWorkset(samples=1, reads=5))
    r1, r2 = (f"sample_data/{p.name}" for p in sorted((tmp_path / "ws1/sample_data").iterdir()))
    (tmp_path / "ws1" / "stage_samples.tsv").unlink()
    recipe = {"pipeline": "demo", "samples": [{"sample_id": "S1", "fastq_r1": r1, "fastq_r2": r2}]}
    (tmp_path / "ws1" / "daylily_work.yaml").write_text(yaml.safe_dump(recipe))
    lab.drop(tmp_path / "ws1")
    assert run("stage", lab.uri, tmp_path / "stage").exit_code == 0
    (row,) = staged_sheet(tmp_path / "stage").rows
    assert [count_reads(Path(file.path))[0].reads for file in row.files] == [5, 5]


def test_a_missing_fastq_is_a_sentence_and_leaves_no_sheet(lab: Lab, tmp_path: Path) -> None:
    write_sample_workset(
        tmp_path / "ws1", SampleWorkset(samples=2, reads=5, leave_out_a_fastq=True)
    )
    lab.drop(tmp_path / "ws1")
    result = run("stage", lab.uri, tmp_path / "stage")
    assert result.exit_code == 1
    assert "Missing input files: " in result.stderr
    assert "RIH0_ANA0-SAMPLE02_DBC0_0.R2.fastq.gz cannot be found in S3" in result.stderr
    assert "Traceback" not in result.output
    assert not (tmp_path / "stage" / "stage_samples.tsv").exists()


def test_a_workset_without_recipe_and_a_wrong_address_are_sentences(
    lab: Lab, tmp_path: Path
) -> None:
    result = run("stage", lab.uri, tmp_path / "stage")
    assert result.exit_code == 1
    assert f"There is no {lab.uri}daylily_work.yaml; upload it first." in result.stderr
    result = run("stage", "/some/folder", tmp_path / "stage")
    assert result.exit_code == 1
    assert "write it as s3://bucket/prefix/" in result.stderr


def test_a_key_that_could_leave_the_folder_is_refused(lab: Lab, tmp_path: Path) -> None:
    write_sample_workset(tmp_path / "ws1", SampleWorkset(samples=1, reads=5))
    sheet = tmp_path / "ws1" / "stage_samples.tsv"
    name = "sample_data/RIH0_ANA0-SAMPLE01_DBC0_0.R1.fastq.gz"
    sheet.write_text(sheet.read_text().replace(name, f"s3://{lab.bucket}/a//b.fastq.gz"))
    lab.drop(tmp_path / "ws1")
    result = run("stage", lab.uri, tmp_path / "stage")
    assert result.exit_code == 1
    assert "cannot be a file here" in result.stderr


def test_results_are_exported_and_the_status_file_says_so(lab: Lab, tmp_path: Path) -> None:
    results = tmp_path / "work" / "results"
    (results / "deep").mkdir(parents=True)
    (results / "a.txt").write_bytes(b"a")
    (results / "deep" / "ü b.txt").write_bytes(b"b")
    uri = f"s3://{lab.bucket}/out/ws1/"
    result = run("export", results, uri)
    assert result.exit_code == 0, result.output
    assert result.output.rstrip().endswith("2 of 2 steps (100%) done")
    assert lab.call("get_object", Key="out/ws1/deep/ü b.txt") == b"b"
    status = yaml.safe_load((tmp_path / "work" / "fsx_export.yaml").read_text())["fsx_export"]
    assert (status["status"], status["s3_uri"]) == ("success", uri)
    again = run("export", results, uri)
    assert "2 of them were there already" in again.output


def test_results_behind_a_link_are_exported(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "tree" / "results").mkdir(parents=True)
    (tmp_path / "tree" / "results" / "a").write_bytes(b"a")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "results").symlink_to(tmp_path / "tree" / "results")
    assert run("export", tmp_path / "work" / "results", f"s3://{lab.bucket}/out/").exit_code == 0
    assert lab.call("get_object", Key="out/a") == b"a"
    assert (tmp_path / "work" / "fsx_export.yaml").exists()


def test_an_export_that_fails_says_why_in_the_status_file_too(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "a").write_bytes(b"a")
    result = run("export", tmp_path / "results", "s3://no-such-bucket-here/out/")
    assert result.exit_code == 1
    assert "Create the bucket" in result.stderr
    status = yaml.safe_load((tmp_path / "fsx_export.yaml").read_text())["fsx_export"]
    assert status["status"] == "error"
    assert "Create the bucket" in status["message"]


def test_an_empty_folder_is_exported_and_a_missing_one_is_not(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    result = run("export", tmp_path / "results", f"s3://{lab.bucket}/out/")
    assert result.exit_code == 0
    assert "There was nothing to export" in result.output
    result = run("export", tmp_path / "none", f"s3://{lab.bucket}/out/")
    assert result.exit_code == 1
    assert "There is no folder" in result.stderr
