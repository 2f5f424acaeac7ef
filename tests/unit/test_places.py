"""Which places a workset may read and write, in every spelling of their names."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daylily_daemon.domain.model import Category, WorksetId
from daylily_daemon.domain.places import (
    Territory,
    Use,
    folder_problem,
    judge,
    leads_upwards,
    mentioned,
    submission_place_problem,
    territory,
)
from daylily_daemon.domain.sheet import LocalPlace, S3Place

CONTROL = S3Place("lab-control", "drops/")
OWN = S3Place("lab-control", "drops/HG002/")
ME = WorksetId("HG002")
LAND = Territory(
    control=CONTROL,
    own=OWN,
    local_roots=("/fsx",),
    closed=("/fsx/data/worksets", "/var/lib/daylily-daemon"),
)
READS = (Use.FILE, Use.PREFIX, Use.MENTION)


def s3(key: str, bucket: str = "lab-control") -> S3Place:
    return S3Place(bucket, key)


@pytest.mark.parametrize("use", READS)
@pytest.mark.parametrize(
    "key", ["drops/HG002/a_R1.fastq.gz", "drops/HG002/sample data/ä%20b.fq", "drops/HG002/pod5/"]
)
def test_a_workset_may_read_its_own_folder(key: str, use: Use) -> None:
    assert judge(s3(key), use, LAND) is None


@pytest.mark.parametrize("use", READS)
@pytest.mark.parametrize(
    "place",
    [
        s3("reads/run7/a_R1.fastq.gz"),
        s3("drops", "elsewhere"),
        s3("drops/victim/a_R1.fastq.gz", "elsewhere"),
        LocalPlace("/fsx/data/genomic_data/hg38/"),
        LocalPlace("/fsx/data/worksets-of-2024/x.fq"),
    ],
)
def test_what_is_no_worksets_place_may_be_read_as_long_as_no_list_says_otherwise(
    place: S3Place | LocalPlace, use: Use
) -> None:
    assert judge(place, use, LAND) is None


FOREIGN = (
    "drops/victim/good_R1.fastq.gz",
    "drops/HG0021/a.fq",
    "drops/HG002-run2/results/a.bam",
    "drops/hg002/a.fq",
    "drops/a.fq",
    "drops/HG002",
)


@pytest.mark.parametrize("use", Use)
@pytest.mark.parametrize("key", FOREIGN)
def test_the_folder_of_another_workset_is_closed_to_every_use(key: str, use: Use) -> None:
    fault = judge(s3(key), use, LAND)
    assert fault is not None
    assert "s3://lab-control/drops/" in fault[0]


def upwards(key: str) -> str:
    return "drops/HG002/../" + key.removeprefix("drops/")


def deep_upwards(key: str) -> str:
    return "public/x/../../" + key


def encoded(key: str) -> str:
    return "".join(f"%{ord(sign):02x}" for sign in key)


def slashes(key: str) -> str:
    return key.replace("/", "//")


def dots(key: str) -> str:
    return key.replace("/", "/./")


def capitals(key: str) -> str:
    return key.upper() if "HG002" not in key else key.replace("drops", "Drops")


def backslashes(key: str) -> str:
    return key.replace("/", "\\")


def leading(key: str) -> str:
    return "/" + key


DISGUISES = (*(upwards, deep_upwards, encoded, slashes, dots, capitals, backslashes, leading),)


@pytest.mark.reported("C", "`..` and other spellings in keys (rocketride-server#360, hfs#447)")
@given(
    key=st.sampled_from(FOREIGN[:3]),
    worn=st.lists(st.sampled_from(DISGUISES), max_size=3),
    use=st.sampled_from(Use),
)
def test_no_spelling_of_a_foreign_place_is_let_through(
    key: str, worn: list[object], use: Use
) -> None:
    for disguise in worn:
        key = disguise(key)  # type: ignore[operator]
    assert judge(s3(key), use, LAND) is not None


@pytest.mark.parametrize("bucket", ["lab-reads-abc123xyz-s3alias", "LAB-CONTROL"])
def test_another_name_of_the_control_bucket_opens_nothing(bucket: str) -> None:
    assert judge(s3("drops/victim/a.fq", bucket), Use.FILE, LAND) is not None
    assert judge(s3("reads/a.fq", bucket), Use.FILE, LAND) is None


@pytest.mark.parametrize("key", ["", "d", "dro", "drops", "drops/", "DROPS/"])
def test_a_name_that_reaches_so_far_that_it_includes_all_worksets_is_refused(key: str) -> None:
    assert judge(s3(key), Use.PREFIX, LAND) is not None
    assert judge(s3(key), Use.EXPORT, LAND) is not None


@pytest.mark.reported("C", "a prefix that another one begins with (camunda#56448)")
def test_a_prefix_may_begin_like_the_own_folder_only_within_it() -> None:
    assert judge(s3("drops/HG002"), Use.PREFIX, LAND) is not None
    assert judge(s3("drops/HG002/bar"), Use.PREFIX, LAND) is None


@pytest.mark.parametrize("key", ["drops/HG002/results/", "drops/HG002/results/v2/"])
def test_results_may_go_into_the_results_folder_of_the_workset(key: str) -> None:
    assert judge(s3(key), Use.EXPORT, LAND) is None


@pytest.mark.parametrize(
    "key",
    [
        *("drops/HG002/", "drops/HG002/sample_data/", "drops/HG002/results-2/"),
        *("drops/HG002/results/../", "drops/HG002/results/%2e%2e/", "drops/HG002/daylily.ready/"),
    ],
)
def test_results_never_go_where_recipe_sheet_and_sentinels_lie(key: str) -> None:
    fault = judge(s3(key), Use.EXPORT, LAND)
    assert fault is not None
    assert "s3://lab-control/drops/" in fault[0] + fault[1]


@dataclass(frozen=True)
class Drops:
    bucket: str = "lab-control"
    prefix: str = "drops/"


def test_a_territory_is_made_of_what_an_operator_writes() -> None:
    land = territory(Drops(), ["s3://reads", "s3://refs/hg38/"], ["s3://out/lab-a/x"], ["/fsx/x"])
    assert land == Territory(
        control=CONTROL,
        inputs=(S3Place("reads", ""), S3Place("refs", "hg38/")),
        exports=(S3Place("out", "lab-a/x"),),
        closed=("/fsx/x",),
    )


FEW = Territory(
    control=CONTROL, own=OWN, inputs=(S3Place("reads", ""),), exports=(S3Place("out", "a/"),)
)
LOCAL = LocalPlace("/fsx/data/worksets/x/")
OPEN = "Use one of those, or ask an operator to open the place (settings `places`)"
COPY = "Copy the file elsewhere, or upload it to S3 and give that address"
ITSELF = "Name the place itself, without `..`, `//` and encoded signs"
RESULTS = "Give s3://lab-control/drops/HG002/results/ or a folder below it, or leave the key out"
OUTSIDE = "Name a place in s3://lab-control/drops/HG002/ or outside of the worksets"
DROPS = "reaches below s3://lab-control/drops/ outside this workset's own folder."
INPUT = "is where this workset's own input lies, which results could replace."


@pytest.mark.parametrize(
    ("place", "use", "land", "what", "todo"),
    [
        (s3("x", "y"), Use.FILE, FEW, "is not open to worksets. Inputs may come from s3://reads/.", OPEN),
        (s3("x", "y"), Use.EXPORT, FEW, "is not open to worksets. Results may go to s3://out/a/.", OPEN),
        (s3("drops/HG002/"), Use.EXPORT, LAND, INPUT, RESULTS),
        (s3("drops/x/a.fq"), Use.FILE, LAND, DROPS, OUTSIDE),
        (
            s3("own/../a", "b"),
            Use.EXPORT,
            Territory(own=S3Place("b", "own/")),
            "holds or disguises this workset's own folder s3://b/own/.",
            ITSELF,
        ),
        (LOCAL, Use.FILE, LAND, "reaches into /fsx/data/worksets, which is not open to worksets.", COPY),
        (
            LocalPlace("/x"),
            Use.FILE,
            Territory(local_roots=("/a", "/b/")),
            "is not below /a or /b/, and local input is taken from there alone.",
            "Copy it there, or upload it to S3 and give that address",
        ),
    ],
)  # fmt: skip
def test_who_names_a_closed_place_is_told_what_it_reaches_and_what_to_do(
    place: S3Place | LocalPlace, use: Use, land: Territory, what: str, todo: str
) -> None:
    name = place.path if isinstance(place, LocalPlace) else str(place)
    assert judge(place, use, land) == (f"{name} {what}", todo)


@pytest.mark.parametrize(
    ("place", "use", "is_open"),
    [
        (s3("drop"), Use.FILE, True),
        (s3("drop"), Use.MENTION, True),
        (s3("drop"), Use.PREFIX, False),
        (s3("d/"), Use.FILE, True),
        (s3(""), Use.FILE, False),
        (s3("drops/"), Use.FILE, False),
        (LocalPlace("/fsx/data"), Use.FILE, True),
        (LocalPlace("/fsx/data/"), Use.FILE, False),
        (LocalPlace("/fsx/data"), Use.PREFIX, False),
        (LocalPlace("/fsx/data"), Use.EXPORT, False),
        (LocalPlace("/fsx/data/"), Use.MENTION, True),
        (LocalPlace("/dev/null"), Use.FILE, False),
        (LocalPlace("/fsx"), Use.FILE, True),
    ],
)
def test_what_includes_a_closed_place_is_closed_only_where_all_below_it_is_meant(
    place: S3Place | LocalPlace, use: Use, is_open: bool
) -> None:
    assert (judge(place, use, LAND) is None) is is_open


def test_a_folder_above_the_worksets_is_closed_as_an_input_and_one_file_there_is_not() -> None:
    land = Territory(control=S3Place("lab", "a/b/"), own=S3Place("lab", "a/b/me/"))
    assert judge(s3("a/", "lab"), Use.FILE, land) is not None
    assert judge(s3("a", "lab"), Use.FILE, land) is None
    assert judge(s3("c/", "lab"), Use.FILE, land) is None


def test_a_path_of_a_file_address_keeps_its_letters() -> None:
    assert mentioned("file:///X/a") == (LocalPlace("/X/a"), LocalPlace("/X/a"))
    assert mentioned("s3n://b/k s3a://c/ gs://d/e") == (S3Place("b", "k"), S3Place("c", ""))


def test_lists_open_the_places_they_name_and_the_own_folder_stays_open() -> None:
    land = Territory(
        control=CONTROL,
        own=OWN,
        inputs=(S3Place("reads", ""), S3Place("refs", "hg38")),
        exports=(S3Place("out", "lab-a/"),),
    )
    for place in (s3("x", "reads"), s3("hg38/x.fa", "refs"), s3("drops/HG002/a.fq")):
        assert judge(place, Use.FILE, land) is None
    for place in (s3("x", "other"), s3("hg38-private/x", "refs"), s3("hg38/../hg19/x", "refs")):
        fault = judge(place, Use.FILE, land)
        assert fault is not None
        assert "s3://reads/ or s3://refs/hg38" in fault[0]
    assert judge(s3("lab-a/run1/", "out"), Use.EXPORT, land) is None
    assert judge(s3("drops/HG002/results/"), Use.EXPORT, land) is None
    assert judge(s3("lab-b/run1/", "out"), Use.EXPORT, land) is not None
    assert judge(s3("x/", "reads"), Use.EXPORT, land) is not None


@pytest.mark.parametrize(
    "path",
    [
        "/fsx/data/worksets/victim/r1/stage/inputs/x.fq",
        "/fsx/./data//worksets/victim/x",
        "//fsx/data/worksets/x",
        "/fsx/other/../data/worksets/x",
        "/fsx/data/%77orksets/x",
        "/fsx/data/worksets",
        "/var/lib/daylily-daemon/jobs/x",
        *("/proc/1/environ", "/sys/x", "/dev/sda", "/etc/passwd", "/etc/ssl/../passwd"),
    ],
)
@pytest.mark.parametrize("use", READS)
def test_folders_of_the_daemon_and_of_the_system_are_closed_whatever_the_roots(
    path: str, use: Use
) -> None:
    land = Territory(control=CONTROL, own=OWN, local_roots=("/",), closed=LAND.closed)
    assert judge(LocalPlace(path), use, land) is not None


@pytest.mark.parametrize("path", ["/fsx/", "/fsx/data/", "/"])
def test_a_local_folder_that_includes_a_closed_one_is_refused(path: str) -> None:
    assert judge(LocalPlace(path), Use.FILE, LAND) is not None
    assert judge(LocalPlace("/fsx/data/work"), Use.PREFIX, LAND) is not None
    assert judge(LocalPlace("/fsx/data/work"), Use.FILE, LAND) is None


def test_local_input_comes_from_below_the_roots_alone() -> None:
    for path in ("/home/lab/a.fq", "/fsx2/a.fq", "/fsx/../home/a.fq"):
        fault = judge(LocalPlace(path), Use.FILE, LAND)
        assert fault is not None
        assert fault[0].startswith(f"{path} is not below /fsx")
    assert judge(LocalPlace("/usr/share/x"), Use.MENTION, LAND) is None


def test_paths_and_addresses_are_found_in_arguments_and_cells() -> None:
    text = (
        "x=['s3://b/k/a=1',\"/fsx/a\"] y:/etc/passwd https://example.org/a/b a/b file:///etc/hosts"
    )
    found = {
        S3Place("b", "k/a=1"),
        LocalPlace("/fsx/a"),
        LocalPlace("/etc/passwd"),
        LocalPlace("/etc/hosts"),
    }
    assert found <= set(mentioned(text))
    longer = {str(place) for place in set(mentioned(text)) - found}
    assert all(path.startswith(("/fsx/a", "/etc/passwd")) for path in longer), longer
    assert mentioned("-d/etc/x") == (LocalPlace("/etc/x"),)
    assert mentioned("--config=/a S3://b/c") == (S3Place("b", "c"), LocalPlace("/a"))
    for nothing in ("produce_snv -p -k", "1/2", "~/x", "a/b/c", "n/a", "/"):
        assert mentioned(nothing) == ()


@pytest.mark.reported("C", "a path is read up to its first space or quote alone (edictum#98)")
@pytest.mark.parametrize(
    "text",
    [
        "{}/victim/a.fq",
        "'{}/victim/a.fq'",
        "{}",
        "see {}, and /fsx/ok",
        "--config dir={}/victim",
        "FILE://{}/victim",
        "/fsx/ok {}/victim",
        "/fsx/a b c, d e f, g h i, j /fsx/ok {}/victim",
    ],
)
@pytest.mark.parametrize("closed", ["/fsx/my data/worksets", "/fsx/runs (old), [2]/it's", "/fsx/x"])
def test_a_closed_folder_is_closed_whatever_signs_are_in_its_name(closed: str, text: str) -> None:
    land = Territory(control=CONTROL, own=OWN, closed=(closed,))
    faults = [judge(place, Use.MENTION, land) for place in mentioned(text.format(closed))]
    assert any(fault and closed in fault[0] for fault in faults)
    assert mentioned("/fsx/ok b") == (LocalPlace("/fsx/ok"), LocalPlace("/fsx/ok b"))


def test_a_cell_that_is_one_path_is_read_as_one_however_many_signs_are_in_it() -> None:
    path = "/fsx/" + "a, b " * 20 + "/x.fq"
    for text in (path, f"'{path}'", f'"{path}" '):
        assert LocalPlace(path) in mentioned(text)


def test_the_arguments_of_real_recipes_mention_nothing_and_null_is_harmless() -> None:
    real = 'produce_snv_concordances -p -k -j 20 --config aligners=["sent","bwa2a"] a=1..22'
    assert mentioned(real) == ()
    assert not leads_upwards(real)
    assert judge(LocalPlace("/dev/null"), Use.MENTION, LAND) is None


@pytest.mark.parametrize("text", ["wait ..", "1..22", "see .. and /x", "a../b", "x/..y", "..."])
def test_two_dots_that_are_no_part_of_a_path_are_let_through(text: str) -> None:
    assert not leads_upwards(text)


@pytest.mark.parametrize(
    "text", ["../x", "a=../x", "x/../../y", "..", "%2e%2e/x", "{k: ../x}", "x/..", "-d=.."]
)
def test_a_path_that_leads_upwards_is_noticed(text: str) -> None:
    assert leads_upwards(text)


def test_a_submission_names_the_folder_of_its_workset_and_no_other() -> None:
    def problem(bucket: str, prefix: str) -> str:
        found = submission_place_problem(bucket, prefix, ME, CONTROL)
        assert found is None or found.category is Category.CONFIGURATION
        return str(found) if found else ""

    assert problem("lab-control", "drops/HG002/") == ""
    for bucket, prefix in (
        ("other", "drops/HG002/"),
        ("lab-control", "drops/victim/"),
        ("lab-control", "elsewhere/HG002/"),
        ("lab-control", "drops/HG002"),
        ("lab-control", "drops/victim/HG002/"),
        ("lab-control", "drops/../HG002/"),
        ("lab-control", "drops//HG002/"),
        ("lab-control", ""),
    ):
        assert "is not the folder of workset HG002" in problem(bucket, prefix), prefix
    assert "is not a workset id" in problem("lab-control", "drops/blood panel #3/")


def test_a_workset_is_what_lies_in_the_folder_of_its_name() -> None:
    assert folder_problem("drops/HG002/", ME) is None
    assert "is not a workset id" in str(folder_problem("drops/HG 002/", ME))
    assert "but that of 'victim'" in str(folder_problem("drops/victim/", ME))
    assert str(folder_problem("drops/victim/", ME)) == (
        "HG002, folder: 'drops/victim/' is not the folder of workset HG002, but that of 'victim'. "
        "Submit 'victim' itself, or copy the files into a folder of the name HG002."
    )
    assert str(submission_place_problem("b", "p/", ME, CONTROL)) == (
        "HG002, folder: 's3://b/p/' is not the folder of workset HG002. "
        "Put the files into s3://lab-control/drops/HG002/ and submit that."
    )
