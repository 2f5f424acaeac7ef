"""What was asked for and what became of it: the exit code of ``--wait`` tells the two apart."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from daylily_daemon.cli.sampledata import SampleWorkset
from daylily_daemon.domain.model import Priority, State
from tests.e2e.harness import PREFIX, Lab, opened

GATED = 'while [ ! -e "$gate" ]; do sleep 0.1; done'


def _spec(pipeline: str) -> SampleWorkset:
    return SampleWorkset(samples=1, reads=10, read_length=20, pipeline=pipeline)


@pytest.fixture(scope="module")
def desk(moto_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A daemon with a workset that is complete, one that runs, and one slot, which is taken."""
    with opened(tmp_path_factory.mktemp("desk"), moto_url) as lab:
        lab.configure(daemon={"max_worksets": 1})
        lab.pipeline("gated", stage="", run=GATED)
        lab.provision()
        lab.start()
        lab.upload(lab.sample("finished"), "finished")
        done = lab.run_cli(
            "submit", f"s3://{lab.bucket}/{PREFIX}finished/", "--customer", "lab-7", "--wait"
        )
        assert (done.code, "finished is complete." in done.words) == (0, True)
        lab.drop_sample("running", _spec("gated"))
        lab.wait_started("running", "1 run")
        lab.drop_sample("waiting")
        lab.wait_until("waiting", lambda ws: ws.plan)
        yield lab


def _stored(lab: Lab, workset: str) -> dict[str, str]:
    """Return what lies in S3 of a workset, by name, as ETags."""
    listed = lab.aws("s3").list_objects_v2(Bucket=lab.bucket, Prefix=f"{PREFIX}{workset}/")
    return {entry["Key"].split("/", 3)[-1]: entry["ETag"] for entry in listed.get("Contents", [])}


@pytest.mark.parametrize(
    "command", ["cancel finished", "retry finished", "ignore finished", "ignore running"]
)
def test_what_has_no_effect_is_asked_for_with_0_and_waited_for_with_1(
    desk: Lab, command: str
) -> None:
    verb, workset = command.split()
    asked = desk.run_cli(verb, workset)
    assert (asked.code, f"{verb} of {workset} is asked for" in asked.words) == (0, True)
    waited = desk.run_cli(verb, workset, "--wait", "--json")
    assert (waited.code, waited.json["effect"]) == (1, "none")
    assert "had no effect" in waited.json["text"]
    told = desk.run_cli(verb, workset, "--wait")
    assert (told.code, told.stdout) == (1, "")
    assert "had no effect: it is" in told.stderr


def test_what_has_an_effect_is_waited_for_with_0(desk: Lab) -> None:
    urgent = desk.run_cli("priority", "waiting", "urgent", "--wait")
    assert (urgent.code, "priority urgent set by cli:" in urgent.words) == (0, True)
    assert desk.wait_until("waiting", lambda ws: ws.priority is Priority.URGENT)
    ignored = desk.run_cli("ignore", "waiting", "--wait", "--json")
    assert (ignored.code, ignored.json["effect"], ignored.json["state"]) == (
        0,
        "applied",
        "ignored",
    )
    again = desk.run_cli("retry", "waiting", "--wait")
    assert (again.code, "It is ready." in again.words) == (0, True)


def test_a_cancel_is_waited_for_until_nothing_runs(lab: Lab) -> None:
    lab.pipeline("noting", stage="", run=GATED)
    lab.start()
    lab.drop_sample("long")
    lab.wait_started("long", "1 run")
    answer = lab.run_cli("cancel", "long", "--wait", "--reason", "wrong flow cell")
    assert (answer.code, "It is canceled." in answer.words) == (0, True)
    assert lab.running_jobs() == []


def test_without_a_daemon_a_question_stays_in_the_queue(lab: Lab) -> None:
    daemon = lab.start()
    lab.wait_for(lab.drop_sample("finished"), State.COMPLETE)
    assert daemon.terminate() == 0
    answer = lab.run_cli("ignore", "finished", "--wait", "--timeout", "1")
    assert answer.code == 4
    assert "no daemon has answered it yet. It stays in the queue" in answer.words
    assert "not running; last seen" in answer.words
    assert lab.run_cli("ignore", "finished", "--timeout", "1").code == 2


# --- submit -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("finished", "had no effect: it is complete; to run its files again, drop them into"),
        ("finished --wait", "had no effect: it is complete"),
        ("running", "had no effect: it is in progress; cancel it first, or wait for its end"),
        ("finished --customer lab-8", "belongs to another customer; choose another name"),
    ],
)
def test_a_submission_without_effect_is_refused_before_a_byte_goes_up(
    desk: Lab, arguments: str, words: str
) -> None:
    workset, *options = arguments.split()
    before = _stored(desk, workset)
    folder = desk.folder / "drops" / workset
    with (folder / "daylily_work.yaml").open("a") as recipe:
        recipe.write("\n# another run\n")
    for source in (str(folder), f"s3://{desk.bucket}/{PREFIX}{workset}"):
        answer = desk.run_cli("submit", source, *options)
        assert (answer.code, words in answer.words) == (1, True), answer
    assert _stored(desk, workset) == before


def test_only_what_belongs_to_a_workset_is_uploaded_and_links_are_followed(desk: Lab) -> None:
    folder = desk.sample("local")
    reads = sorted(folder.rglob("*.fastq.gz"))
    elsewhere = desk.folder / "sequencer"
    elsewhere.mkdir()
    reads[0].rename(elsewhere / "r1.gz")
    reads[0].symlink_to(elsewhere / "r1.gz")
    for name in (".env", "id_rsa", "notes.docx", "daylily.error"):
        (folder / name).write_text("x")
    answer = desk.run_cli("submit", str(folder))
    assert (answer.code, "local is submitted" in answer.words) == (0, True)
    names = set(_stored(desk, "local"))
    assert {"daylily_work.yaml", "stage_samples.tsv"} <= names
    assert {str(path.relative_to(folder)) for path in reads} <= names
    assert not {".env", "id_rsa", "notes.docx", "daylily.error"} & names


@pytest.mark.parametrize("source", ["", "  "])
def test_an_empty_argument_is_no_folder(desk: Lab, source: str) -> None:
    answer = desk.run_cli("submit", source)
    assert (answer.code, "what was given is empty" in answer.words) == (2, True)


def test_a_folder_that_is_no_workset_is_refused_by_what_it_lacks(desk: Lab) -> None:
    folder = desk.folder / "holiday-pictures"
    folder.mkdir()
    (folder / "beach.jpg").write_text("x")
    answer = desk.run_cli("submit", str(folder))
    assert (answer.code, "There is no daylily_work.yaml" in answer.words) == (1, True)
    assert _stored(desk, "holiday-pictures") == {}
