"""The export of results: nothing counts as safe before it is, and no place is taken twice."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
import yaml
from typer.testing import CliRunner, Result

from daylily_daemon.adapters.aws import Aws, AwsOptions
from daylily_daemon.adapters.exporting import MARK, Target
from daylily_daemon.adapters.exporting import export as export_results
from daylily_daemon.adapters.pipelines import load_pipelines
from daylily_daemon.adapters.transfer import (
    CopyOptions,
    Uploaded,
    collect,
    upload,
    upload_files,
    uploads,
)
from daylily_daemon.cli.app import app
from daylily_daemon.domain.errors import Permanent
from daylily_daemon.domain.failures import classify
from daylily_daemon.domain.model import Ended, Outcome
from daylily_daemon.domain.pipeline import fill_argv
from daylily_daemon.domain.places import Shared
from daylily_daemon.settings.sources import shipped

BUCKETS = itertools.count(1)


class Lab:
    """A bucket, and the folders of a run as the daemon makes them."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.bucket = f"exports-{next(BUCKETS)}"
        self.out = f"s3://{self.bucket}/shared/results/"
        self.run_dir = folder / "HG002" / "r1"
        self.results = self.run_dir / "work" / "results"
        self.results.mkdir(parents=True)
        (self.run_dir / "stage").mkdir()
        where = {"LocationConstraint": "us-west-2"}
        self.call("create_bucket", CreateBucketConfiguration=where)

    def call(self, operation: str, **request: Any) -> Any:
        async def call() -> Any:
            async with Aws(AwsOptions(endpoint_url=self.url)) as aws:
                method = getattr(await aws.client("s3"), operation)
                answer = await method(Bucket=self.bucket, **request)
                return await answer["Body"].read() if "Body" in answer else answer

        return anyio.run(call)

    def export(self, *options: str | Path, workset: str = "HG002", uri: str = "") -> Result:
        """Export as a job of ``workset`` does."""
        arguments = ["export", self.results, uri or self.out, *options]
        environment = {
            "AWS_ENDPOINT_URL": self.url,
            "DAYLILY_RUN_DIR": str(self.run_dir),
            "DAYLILY_INPUT_URI": f"s3://control/drops/{workset}/",
        }
        return CliRunner().invoke(app, [str(one) for one in arguments], env=environment)

    def exported(self, uri: str = "") -> dict[str, bytes]:
        prefix = (uri or self.out).removeprefix(f"s3://{self.bucket}/")
        keys = [o["Key"] for o in self.call("list_objects_v2", Prefix=prefix).get("Contents", ())]
        return {key.removeprefix(prefix): self.call("get_object", Key=key) for key in keys}

    def status(self) -> dict[str, str]:
        text = (self.results.parent / "fsx_export.yaml").read_text()
        return dict(yaml.safe_load(text)["fsx_export"])

    def clean_up(self, pipeline: str) -> int:
        """Run the cleanup of a shipped pipeline; return its exit code."""
        template = load_pipelines(shipped("pipelines"))[pipeline].template("cleanup")
        assert template is not None
        values = {
            "work_dir": str(self.results.parent),
            "stage_dir": str(self.run_dir / "stage"),
        }
        argv = fill_argv(template.argv, values)
        return subprocess.run(argv, check=False, capture_output=True).returncode


@pytest.fixture
def lab(moto_url: str, tmp_path: Path) -> Lab:
    return Lab(moto_url, tmp_path)


@pytest.mark.reported("A", "a result that links into the work folder (nextflow#7509, predector#84)")
def test_a_result_that_links_into_the_run_is_exported_before_anything_is_removed(lab: Lab) -> None:
    (lab.run_dir / "work" / "scratch").mkdir()
    (lab.run_dir / "work" / "scratch" / "HG002.cram").write_bytes(b"cram")
    (lab.run_dir / "stage" / "a.fq").write_bytes(b"reads")
    (lab.results / "HG002.cram").symlink_to("../scratch/HG002.cram")
    (lab.results / "a.fq").symlink_to(lab.run_dir / "stage" / "a.fq")
    result = lab.export()
    assert result.exit_code == 0, result.output
    found = lab.exported()
    assert (found["HG002.cram"], found["a.fq"]) == (b"cram", b"reads")


def test_results_in_a_tree_of_its_own_may_link_within_that_tree(lab: Lab, tmp_path: Path) -> None:
    tree = tmp_path / "analysis_results" / "tree"
    (tree / "results").mkdir(parents=True)
    (tree / "work.bam").write_bytes(b"bam")
    (tree / "results" / "a.bam").symlink_to("../work.bam")
    lab.results.rmdir()
    lab.results.symlink_to(tree / "results")
    assert lab.export().exit_code == 0
    assert lab.exported()["a.bam"] == b"bam"


def odd_link(results: Path) -> None:
    (results / "odd").symlink_to("/etc/hostname")


def odd_name(results: Path) -> None:
    with open(os.path.join(os.fsencode(results), b"odd\xff"), "wb") as file:
        file.write(b"x")


def odd_pipe(results: Path) -> None:
    os.mkfifo(results / "odd")


def odd_broken(results: Path) -> None:
    (results / "odd").symlink_to("nothing")


@pytest.mark.reported("E", "exit code 0 although a file did not go up (coscli#75, megatools#229)")
@pytest.mark.reported(
    "A", "skipped files and exit code 2 taken for success (terraform-aws-efs-backup#11)"
)
@pytest.mark.parametrize("odd", [odd_link, odd_name, odd_pipe, odd_broken])
@pytest.mark.parametrize("pipeline", ["daylily-omics", "demo"])
def test_what_cannot_be_exported_fails_the_export_by_name_and_nothing_is_removed(
    lab: Lab, odd: Callable[[Path], None], pipeline: str
) -> None:
    (lab.results / "good.txt").write_bytes(b"good")
    odd(lab.results)
    (lab.results.parent / ".daylily-location").write_text(str(lab.results.parent))
    (lab.results.parent / "daylily.successful_run").touch()
    result = lab.export("--report", lab.results.parent / "export.json")
    assert result.exit_code == 1
    assert "Left out of the export: 1 file. odd" in result.stderr
    assert lab.exported()["good.txt"] == b"good"
    assert lab.status()["status"] == "error"
    assert "odd" in lab.status()["message"]
    report = json.loads((lab.results.parent / "export.json").read_text())
    assert report["left_out_files"] == 1
    assert lab.clean_up(pipeline) != 0
    assert (lab.run_dir / "stage").is_dir()
    assert (lab.results / "good.txt").exists()


def test_an_export_that_left_something_out_is_a_definite_failure_of_its_own_kind(lab: Lab) -> None:
    (lab.results / "bwa failed.txt").symlink_to("/etc/hostname")
    result = lab.export()
    failure = classify(Outcome(ended=Ended.EXITED, code=1, tail=result.output + result.stderr))
    assert (failure.code, failure.retry) == ("WS-EXP-001", False)
    assert "bwa failed.txt" in failure.message


def test_after_a_mended_export_the_cleanup_removes_what_is_safe(lab: Lab) -> None:
    (lab.results / "good.txt").write_bytes(b"good")
    (lab.results / "bad").symlink_to("nothing")
    assert lab.export().exit_code == 1
    (lab.results / "bad").unlink()
    assert lab.export().exit_code == 0
    assert lab.clean_up("demo") == 0
    assert not (lab.run_dir / "stage").exists()


def test_an_export_that_is_cut_leaves_no_status_of_an_earlier_one(lab: Lab) -> None:
    (lab.results / "good.txt").write_bytes(b"good")
    assert lab.export().exit_code == 0
    assert lab.export(uri="s3://no-such-bucket-here/out/").exit_code != 0
    assert lab.status()["status"] == "error"
    assert lab.clean_up("demo") != 0


def test_a_thousand_left_out_files_are_a_bounded_message(lab: Lab) -> None:
    for number in range(300):
        (lab.results / f"{number:03}-{'n' * 200}").symlink_to("nothing")
    result = lab.export("--report", lab.results.parent / "export.json")
    assert "Left out of the export: 300 files." in result.stderr
    assert "And 290 more." in result.stderr
    assert len(result.stderr) < 8000
    report = json.loads((lab.results.parent / "export.json").read_text())
    assert (report["left_out_files"], len(report["left_out"])) == (300, 20)


def test_the_report_says_how_much_went_where(lab: Lab) -> None:
    (lab.results / "a.txt").write_bytes(b"abc")
    assert lab.export("--report", lab.results.parent / "export.json").exit_code == 0
    assert json.loads((lab.results.parent / "export.json").read_text()) == {
        "files": 1,
        "bytes": 3,
        "unchanged": 0,
        "results_s3_uri": lab.out,
        "left_out": [],
        "left_out_files": 0,
        "warnings": [],
    }


def test_a_run_that_produced_nothing_is_no_quiet_success(lab: Lab) -> None:
    (lab.results / "empty").mkdir()
    result = lab.export("--report", lab.results.parent / "export.json")
    assert result.exit_code == 0
    (warning,) = json.loads((lab.results.parent / "export.json").read_text())["warnings"]
    assert warning.startswith("The run produced no results")
    assert warning in result.output


# --- places that several worksets name ------------------------------------------------------------


def test_a_second_workset_gets_a_folder_of_its_own_and_the_report_says_so(lab: Lab) -> None:
    (lab.results / "summary.tsv").write_bytes(b"first")
    assert lab.export(workset="first").exit_code == 0
    (lab.results / "summary.tsv").write_bytes(b"second")
    report = lab.results.parent / "export.json"
    assert lab.export("--report", report, workset="second").exit_code == 0
    assert lab.exported()["summary.tsv"] == b"first"
    assert lab.exported(f"{lab.out}second/")["summary.tsv"] == b"second"
    assert json.loads(report.read_text())["results_s3_uri"] == f"{lab.out}second/"
    assert lab.status()["s3_uri"] == f"{lab.out}second/"


def test_a_workset_that_exports_again_stays_where_it_was(lab: Lab) -> None:
    (lab.results / "summary.tsv").write_bytes(b"one")
    assert lab.export(workset="first").exit_code == 0
    (lab.results / "summary.tsv").write_bytes(b"two")
    assert lab.export(workset="first").exit_code == 0
    assert lab.exported()["summary.tsv"] == b"two"
    for _ in range(2):
        assert lab.export(workset="second").exit_code == 0
    assert set(lab.exported()) == {MARK, "summary.tsv", f"second/{MARK}", "second/summary.tsv"}


def test_a_setting_refuses_a_place_that_is_taken_and_nothing_is_written(lab: Lab) -> None:
    (lab.results / "summary.tsv").write_bytes(b"first")
    assert lab.export("--shared", "refuse", workset="first").exit_code == 0
    (lab.results / "summary.tsv").write_bytes(b"second")
    result = lab.export("--shared", "refuse", workset="second")
    assert result.exit_code == 1
    assert "holds the results of 's3://control/drops/first/'" in result.stderr
    failure = classify(Outcome(ended=Ended.EXITED, code=1, tail=result.stderr))
    assert (failure.code, failure.retry) == ("WS-EXP-002", False)
    assert set(lab.exported()) == {MARK, "summary.tsv"}
    assert lab.exported()["summary.tsv"] == b"first"


def test_files_of_the_same_names_without_a_mark_are_somebodys(lab: Lab) -> None:
    lab.call("put_object", Key="shared/results/summary.tsv", Body=b"old")
    lab.call("put_object", Key="shared/results/other.tsv", Body=b"old")
    (lab.results / "summary.tsv").write_bytes(b"new")
    assert lab.export().exit_code == 0
    assert lab.exported()["summary.tsv"] == b"old"
    assert lab.exported()["HG002/summary.tsv"] == b"new"


def test_files_of_other_names_do_not_take_a_place(lab: Lab) -> None:
    lab.call("put_object", Key="shared/results/README.txt", Body=b"old")
    (lab.results / "summary.tsv").write_bytes(b"new")
    assert lab.export().exit_code == 0
    assert lab.exported()["summary.tsv"] == b"new"


def test_two_worksets_of_one_name_in_two_control_buckets_are_two(lab: Lab) -> None:
    (lab.results / "summary.tsv").write_bytes(b"here")
    assert lab.export().exit_code == 0
    for name in ("", "HG002/"):
        mark = json.dumps({"workset_uri": "s3://elsewhere/drops/HG002/"}).encode()
        lab.call("put_object", Key=f"shared/results/{name}{MARK}", Body=mark)
    result = lab.export()
    assert result.exit_code == 1
    assert "holds the results of 's3://elsewhere/drops/HG002/'" in result.stderr


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff" * 9000, b'{"workset_uri": 1}'])
def test_a_mark_that_cannot_be_read_keeps_everybody_out(lab: Lab, body: bytes) -> None:
    lab.call("put_object", Key=f"shared/results/{MARK}", Body=body)
    (lab.results / "a").write_bytes(b"a")
    assert lab.export().exit_code == 0
    assert set(lab.exported()) == {MARK, f"HG002/{MARK}", "HG002/a"}


def test_the_own_folder_needs_no_mark(lab: Lab) -> None:
    (lab.results / "a").write_bytes(b"a")
    uri = f"s3://{lab.bucket}/drops/HG002/results/"
    result = CliRunner().invoke(
        app,
        ["export", str(lab.results), uri, "--workset", f"s3://{lab.bucket}/drops/HG002/"],
        env={"AWS_ENDPOINT_URL": lab.url},
    )
    assert result.exit_code == 0
    assert set(lab.exported(uri)) == {"a"}


def test_of_two_exports_at_the_same_time_one_gets_the_place_and_both_keep_their_results(
    lab: Lab, tmp_path: Path
) -> None:
    worksets = [f"ws{number}" for number in range(4)]
    for name in worksets:
        (tmp_path / name).mkdir()
        (tmp_path / name / "summary.tsv").write_text(name)
    places: list[str] = []

    async def export(name: str, client: Any) -> None:
        target = Target(uri=lab.out, workset_uri=f"s3://control/drops/{name}/")
        done = await export_results(client, tmp_path / name, target, options=CopyOptions())
        places.append(done.uri)

    async def all_at_once() -> None:
        async with Aws(AwsOptions(endpoint_url=lab.url)) as aws:
            client = await aws.client("s3")
            async with anyio.create_task_group() as tasks:
                for name in worksets:
                    tasks.start_soon(export, name, client)

    anyio.run(all_at_once)
    assert len(set(places)) == 4
    found = lab.exported()
    kept = {body.decode() for name, body in found.items() if name.endswith("summary.tsv")}
    assert kept == set(worksets)


def test_a_result_of_the_name_of_the_mark_does_not_replace_it(lab: Lab) -> None:
    (lab.results / MARK).write_bytes(b"forged")
    (lab.results / "a").write_bytes(b"a")
    result = lab.export()
    assert result.exit_code == 1
    assert MARK in result.stderr
    assert b"drops/HG002/" in lab.exported()[MARK]


# --- files that do not hold still -------------------------------------------------------------------


class Meddling:
    """An S3 client during whose puts something happens to the files."""

    def __init__(self, client: Any, meddle: Callable[[str], object]) -> None:
        self._client = client
        self._meddle = meddle

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def put_object(self, **request: Any) -> Any:
        self._meddle(request["Key"].rpartition("/")[2])
        return await self._client.put_object(**request)


def meddled(lab: Lab, meddle: Callable[[str], object]) -> Uploaded:
    async def run() -> Uploaded:
        async with Aws(AwsOptions(endpoint_url=lab.url)) as aws:
            client = Meddling(await aws.client("s3"), meddle)
            options = CopyOptions(jobs=1, longest_pause_s=0.01, tries=2)
            return await upload(client, lab.results, lab.out, options=options)

    return anyio.run(run)


def test_a_file_that_is_written_to_while_it_goes_up_arrives_as_it_is_in_the_end(lab: Lab) -> None:
    path = lab.results / "a"
    path.write_bytes(b"one")
    later = iter([b"two and more"])

    def meddle(_: str) -> None:
        if body := next(later, b""):
            path.write_bytes(body)

    done = meddled(lab, meddle)
    assert done.left_out == ()
    assert lab.exported()["a"] == b"two and more"


def test_a_named_file_that_is_written_to_while_it_goes_up_is_sent_again(lab: Lab) -> None:
    path = lab.results / "a"
    path.write_bytes(b"one")
    later = iter([b"two and more"])

    def meddle(_: str) -> None:
        if body := next(later, b""):
            path.write_bytes(body)

    async def run() -> Uploaded:
        async with Aws(AwsOptions(endpoint_url=lab.url)) as aws:
            client = Meddling(await aws.client("s3"), meddle)
            options = CopyOptions(jobs=1, longest_pause_s=0.01, tries=2)
            return await upload_files(client, collect(lab.results).files, lab.out, options=options)

    done = anyio.run(run)
    assert (done.files, done.size_bytes, done.left_out) == (1, 12, ())
    assert lab.exported()["a"] == b"two and more"


@pytest.mark.reported("A", "a file written to during its upload (HASS-S3#32)")
def test_a_file_that_is_written_to_all_the_time_is_left_out_and_named(lab: Lab) -> None:
    path = lab.results / "log.txt"
    path.write_bytes(b"0")
    sizes = itertools.count(2)
    done = meddled(lab, lambda _: path.write_bytes(b"x" * next(sizes)))
    assert done.left_out == ("log.txt is still being written.",)


def test_a_file_that_comes_while_others_go_up_goes_too(lab: Lab) -> None:
    (lab.results / "a").write_bytes(b"a")
    done = meddled(lab, lambda name: name == "a" and (lab.results / "late").write_bytes(b"late"))
    assert (done.left_out, done.files) == ((), 2)
    assert lab.exported()["late"] == b"late"


def test_a_file_that_somebody_removes_is_told_and_is_no_failure(lab: Lab) -> None:
    (lab.results / "a").write_bytes(b"a")
    (lab.results / "b.tmp").write_bytes(b"b")
    done = meddled(lab, lambda _: (lab.results / "b.tmp").unlink(missing_ok=True))
    assert (done.left_out, done.gone, done.files) == ((), ("b.tmp",), 1)


def test_a_file_that_becomes_a_link_to_elsewhere_is_not_followed(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (lab.results / "a").write_bytes(b"a")
    (lab.results / "b").write_bytes(b"b")

    def meddle(name: str) -> None:
        if name == "a":
            (lab.results / "b").unlink()
            (lab.results / "b").symlink_to(tmp_path / "secret")

    done = meddled(lab, meddle)
    assert [line.split(" ", 1)[0] for line in done.left_out] == ["b"]
    assert b"secret" not in lab.exported().values()


@pytest.mark.reported("A", "one unreadable file stops a whole copy (aws-cli#736)")
def test_an_unreadable_file_is_named_and_the_others_go_up(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        (lab.results / name).write_bytes(name.encode())
    opened = uploads._opened

    def guarded(item: Any) -> Any:
        if item.name == "b":
            raise PermissionError(13, "Permission denied")
        return opened(item)

    monkeypatch.setattr(uploads, "_opened", guarded)
    done = meddled(lab, lambda _: None)
    assert done.left_out == ("b cannot be read: Permission denied.",)
    assert set(lab.exported()) == {"a", "c"}


def test_an_export_without_a_network_keeps_trying_and_says_so(lab: Lab) -> None:
    (lab.results / "a").write_bytes(b"a")
    with subprocess.Popen(
        [sys.executable, "-m", "daylily_daemon", "export", lab.results, lab.out],
        env={**os.environ, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.kill()
    assert line.startswith("Waiting, and trying again: ")


def test_a_place_that_is_no_folder_in_s3_is_a_sentence(lab: Lab) -> None:
    async def run() -> None:
        async with Aws(AwsOptions(endpoint_url=lab.url)) as aws:
            target = Target(uri="s3://bucket", shared=Shared.REFUSE)
            await export_results(await aws.client("s3"), lab.results, target, options=CopyOptions())

    with pytest.raises(Permanent, match="write it as s3://bucket/prefix/"):
        anyio.run(run)
