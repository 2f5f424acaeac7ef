"""Worksets as labs really drop them, good ones and others."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from daylily_daemon.domain.model import Category, State
from tests.e2e.conftest import MakeLab
from tests.e2e.harness import PREFIX, READY, Lab, opened
from tests.emulators import ROOT

OURS = ROOT / "tests" / "worksets"
THEIRS = ROOT.parent / "shared" / "samples"
STEPS = ("stage", "run", "export")
READS = gzip.compress(b"@r1\nACGTACGTAC\n+\nIIIIIIIIII\n@r2\nGGGGCCCCAT\n+\nIIIIIIIIII\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Two complete worksets of one lab: one that runs the pipeline, one that asks for its help."""

    folder: Path
    run: str
    help: str
    bucket: str
    """Where the sheets have their FASTQ files, and the recipes their results."""
    prefix: str
    stem: str
    quoted: str
    """An argument of the recipe as the pipeline gets it, quotes gone."""

    @property
    def reads(self) -> tuple[str, str]:
        """Return the keys of the pair of FASTQ files."""
        stem = f"{PREFIX}{self.prefix}/sample_data/{self.stem}"
        return f"{stem}.R1.fastq.gz", f"{stem}.R2.fastq.gz"

    @property
    def results(self) -> str:
        return f"{PREFIX}{self.prefix}/results/"


SAMPLES = {
    "ours": Samples(
        folder=OURS,
        run="clinic_snv",
        help="clinic_help",
        bucket="example-clinic-omics-us-west-2",
        prefix="intake-0412",
        stem="P17_NA12878_L3",
        quoted="aligners=[bwa2a,strobe]",
    ),
    "theirs": Samples(
        folder=THEIRS,
        run="test_snv",
        help="test_help",
        bucket="lsmc-dayoa-omics-analysis-us-west-2",
        prefix="runme14",
        stem="RIH0_ANA0-HG002_DBC0_0",
        quoted="aligners=[sent,bwa2a,strobe]",
    ),
}
"""Our own, in the format that labs use, and real ones where they lie beside the clone."""


@pytest.fixture(params=[name for name, found in SAMPLES.items() if found.folder.is_dir()])
def samples(request: pytest.FixtureRequest) -> Samples:
    return SAMPLES[request.param]


@pytest.fixture(scope="module")
def lab(moto_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One daemon for all tests that need no settings of their own."""
    with opened(tmp_path_factory.mktemp("lab"), moto_url) as found:
        found.provision()
        found.start()
        yield found


@pytest.fixture(scope="module")
def hasty_lab(moto_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A daemon that waits a second for files, and lists the prefix every second."""
    with opened(tmp_path_factory.mktemp("hasty"), moto_url) as found:
        found.configure(inputs={"wait_s": 1}, daemon={"reconcile_s": 1})
        found.provision()
        found.start()
        yield found


def _keep_fastq(lab: Lab, bucket: str, *keys: str) -> None:
    """Make the bucket that the sheets name hold exactly these FASTQ files."""
    s3 = lab.aws("s3")
    where = {"LocationConstraint": "us-west-2"}
    if bucket not in [found["Name"] for found in s3.list_buckets()["Buckets"]]:
        s3.create_bucket(Bucket=bucket, CreateBucketConfiguration=where)
    for entry in s3.list_objects_v2(Bucket=bucket).get("Contents", []):
        s3.delete_object(Bucket=bucket, Key=entry["Key"])
    for key in keys:
        lab.put(key, READS, bucket)


@pytest.mark.parametrize("emulator", ["moto", "ministack"])
def test_whole_worksets_are_accepted_as_they_are_and_complete(
    emulator: str, make_lab: MakeLab, samples: Samples
) -> None:
    lab = make_lab(emulator)
    _keep_fastq(lab, samples.bucket, *samples.reads)
    lab.configure(pipelines={"dir": "", "default": "demo"})
    lab.start()
    for name in (samples.run, samples.help):
        lab.drop(samples.folder / name)
    shared = f"s3://{samples.bucket}/{samples.results}"
    places = {}
    for name in (samples.run, samples.help):
        done = lab.wait_for(name, State.COMPLETE)
        assert done.run is not None
        assert done.run.reports["reads"] == 4
        places[name] = done.results_uri
    # Both recipes name one place: who is second gets a folder of its own name below it.
    first, second = sorted(places, key=lambda name: places[name])
    assert (places[first], places[second]) == (shared, f"{shared}{second}/")
    for place in places.values():
        key = place.removeprefix(f"s3://{samples.bucket}/") + "summary.tsv"
        answer = lab.aws("s3").get_object(Bucket=samples.bucket, Key=key)
        assert len(answer["Body"].read().splitlines()) == 2


def test_run_arguments_reach_the_pipeline_as_the_recipe_quotes_them(
    lab: Lab, samples: Samples
) -> None:
    _keep_fastq(lab, samples.bucket, *samples.reads)
    lab.drop(samples.folder / samples.run)
    plan = lab.wait_for(samples.run, State.COMPLETE).plan
    assert plan is not None
    assert samples.quoted in plan.run_args
    assert plan.clone_args == ("-d", samples.run, "-t", "main")


def test_a_missing_fastq_parks_a_workset_until_it_is_uploaded_and_dropped_again(
    hasty_lab: Lab, samples: Samples
) -> None:
    lab, (r1, r2), name = hasty_lab, samples.reads, f"copy-of-{samples.run}"
    _keep_fastq(lab, samples.bucket, r1)
    lab.drop(samples.folder / samples.run, name)
    parked = lab.wait_for(name, State.ERROR)
    assert parked.failure is not None
    assert parked.failure.category is Category.DATA
    assert parked.error_details == (
        f"stage_samples.tsv, line 2, column R2_FQ: s3://{samples.bucket}/{r2} was not found in S3. "
        "Upload it or correct the path, then put daylily.ready again."
    )
    assert parked.error_details in lab.run_cli("explain", name).words
    lab.put(r2, READS, samples.bucket)
    lab.put(f"{PREFIX}{name}/{READY}", b"")
    lab.wait_for(name, State.COMPLETE)
    assert lab.evidence(name) == {f"{name} 1 {step}": 1 for step in STEPS}


def test_a_sentinel_that_arrives_first_waits_for_the_files(lab: Lab) -> None:
    lab.put(f"{PREFIX}early/{READY}", b"20251016T111111")
    waiting = lab.wait_until("early", lambda ws: ws.waiting_for)
    assert waiting.state is State.READY
    assert "daylily_work.yaml" in waiting.waiting_for
    lab.upload(lab.sample("early"), "early")
    lab.wait_for("early", State.COMPLETE)


def test_files_that_never_come_park_the_workset_at_the_deadline(hasty_lab: Lab) -> None:
    lab = hasty_lab
    lab.put(f"{PREFIX}alone/{READY}", b"")
    parked = lab.wait_for("alone", State.ERROR)
    assert parked.error_details.startswith("daylily_work.yaml: It was not found in s3://")


def test_daylily_ignore_takes_a_waiting_workset_out(lab: Lab) -> None:
    lab.put(f"{PREFIX}unwanted/{READY}", b"")
    lab.wait_until("unwanted", lambda ws: ws.waiting_for)
    lab.put(f"{PREFIX}unwanted/daylily.ignore", b"")
    ignored = lab.wait_for("unwanted", State.IGNORED)
    assert "daylily.ignore" in ignored.history[-1].reason
    lab.upload(lab.sample("unwanted"), "unwanted")
    lab.wait_for(lab.drop_sample("later"), State.COMPLETE)
    assert not lab.evidence("unwanted")


def test_a_folder_that_came_with_daylily_ignore_is_never_run(lab: Lab) -> None:
    folder = lab.sample("never")
    (folder / "daylily.ignore").touch()
    lab.drop(folder)
    lab.wait_for(lab.drop_sample("after"), State.COMPLETE)
    lab.wait_for("never", State.IGNORED)
    assert not lab.evidence("never")


def test_a_folder_with_a_bad_name_is_parked_where_people_look(lab: Lab) -> None:
    lab.drop(lab.sample("good"), "HG002 run#7 (ä)")
    (ws,) = lab.wait_listed(State.ERROR)
    assert ws["error_category"] == "configuration"
    assert "HG002 run#7 (ä), folder name: is not a workset id" in ws["error_details"]
    assert "Copy the files into a folder with such a name" in ws["error_details"]


def test_our_own_sentinels_trigger_nothing(lab: Lab) -> None:
    lab.wait_for(lab.drop_sample("quiet"), State.COMPLETE)
    lab.wait_paid("quiet")
    assert lab.get(f"{PREFIX}quiet/daylily.complete")
    lab.wait_for(lab.drop_sample("next"), State.COMPLETE)
    assert [record.by for record in lab.trail("quiet") if record.by] == ["s3"]


def test_a_drop_whose_event_never_came_is_found_by_the_slow_listing(hasty_lab: Lab) -> None:
    lab = hasty_lab
    lab.aws("s3").put_bucket_notification_configuration(
        Bucket=lab.bucket, NotificationConfiguration={}
    )
    lab.drop_sample("unheard")
    lab.provision()
    lab.wait_for("unheard", State.COMPLETE)
    assert lab.trail("unheard")[0].by == "sweep"
    assert lab.evidence("unheard") == {f"unheard 1 {step}": 1 for step in STEPS}


def test_a_workset_dropped_again_after_its_end_is_not_run_again(lab: Lab) -> None:
    """A complete workset stays complete: its results are not overwritten by a repeated event."""
    lab.wait_for(lab.drop_sample("once"), State.COMPLETE)
    lab.put(f"{PREFIX}once/{READY}", b"20251016T111112")
    lab.wait_told("once", "had no effect: it is complete")
    assert max(lab.evidence("once").values()) == 1


def test_bad_files_are_refused_with_their_places_and_run_once_they_are_mended(lab: Lab) -> None:
    folder = lab.sample("bad")
    sheet = folder / "stage_samples.tsv"
    header, row = sheet.read_text(encoding="utf-8").splitlines()
    sheet.write_text("\r\n".join([header, row, row]), encoding="utf-8")
    (folder / "daylily_work.yaml").write_text("dy-r: '{sample}'\n", encoding="utf-8")
    lab.drop(folder)
    parked = lab.wait_for("bad", State.ERROR)
    assert "daylily_work.yaml, line 1, key dy-r: The placeholder '{sample}'" in parked.error_details
    assert "is on line 2 and line 3. Remove one of the two rows" in parked.error_details
    lab.drop_sample("bad")
    lab.wait_for("bad", State.COMPLETE)
