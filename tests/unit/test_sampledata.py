from __future__ import annotations

from pathlib import Path

from daylily_daemon.adapters.fastq import count_reads
from daylily_daemon.cli.sampledata import SampleWorkset, write_sample_workset
from daylily_daemon.domain.model import WorksetId
from daylily_daemon.domain.recipe import Recipe, read_recipe
from daylily_daemon.domain.sheet import COLUMNS, RECIPE_FILE, SHEET_FILE, Sheet, read_sheet

SMALL = SampleWorkset(samples=2, reads=50)


def content(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def sheet_of(folder: Path) -> Sheet:
    read = read_sheet((folder / SHEET_FILE).read_bytes())
    assert isinstance(read, Sheet), read
    return read


def test_recipe_and_sheet_are_what_our_own_readers_accept(tmp_path: Path) -> None:
    write_sample_workset(tmp_path, SMALL)
    recipe = read_recipe((tmp_path / RECIPE_FILE).read_bytes(), WorksetId("ws1"))
    assert isinstance(recipe, Recipe), recipe
    assert (recipe.pipeline, recipe.run_args) == ("demo", ("-p", "help"))
    assert recipe.clone_args == ("-d", "ws1", "-t", "main")
    assert [row.sample_id for row in sheet_of(tmp_path).rows] == ["SAMPLE01", "SAMPLE02"]


def test_the_sheet_has_the_twenty_columns_of_the_real_format(tmp_path: Path) -> None:
    write_sample_workset(tmp_path, SMALL)
    lines = (tmp_path / SHEET_FILE).read_text().splitlines()
    assert [len(line.split("\t")) for line in lines] == [len(COLUMNS)] * 3 == [20] * 3


def test_every_named_file_is_there_and_valid_and_mates_belong_together(tmp_path: Path) -> None:
    write_sample_workset(tmp_path, SMALL)
    for row in sheet_of(tmp_path).rows:
        (one, names), (other, other_names) = (count_reads(tmp_path / f.path) for f in row.files)
        assert one.reads == other.reads == 50
        assert names == other_names
        assert 0.3 < one.gc_fraction < 0.5
        assert 25 < one.mean_quality < 37


def test_equal_wishes_give_equal_bytes_and_another_seed_gives_others(tmp_path: Path) -> None:
    for name, spec in (
        ("a", SMALL),
        ("b", SMALL),
        ("c", SampleWorkset(samples=2, reads=50, seed=2)),
    ):
        write_sample_workset(tmp_path / name, spec)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    fastq = "sample_data/RIH0_ANA0-SAMPLE01_DBC0_0.R1.fastq.gz"
    assert content(tmp_path / "a")[fastq] != content(tmp_path / "c")[fastq]


def test_with_an_address_the_sheet_holds_addresses_and_results_go_below_it(tmp_path: Path) -> None:
    write_sample_workset(tmp_path, SampleWorkset(samples=1, reads=5, uri="s3://lab/drops/ws1/"))
    paths = [file.path for row in sheet_of(tmp_path).rows for file in row.files]
    assert all(path.startswith("s3://lab/drops/ws1/sample_data/") for path in paths)
    recipe = read_recipe((tmp_path / RECIPE_FILE).read_bytes(), WorksetId("ws1"))
    assert isinstance(recipe, Recipe)
    assert recipe.export_uri == "s3://lab/drops/ws1/results/"


def test_one_fastq_can_be_left_out_though_the_sheet_names_it(tmp_path: Path) -> None:
    write_sample_workset(tmp_path, SampleWorkset(samples=2, reads=5, leave_out_a_fastq=True))
    named = [file.path for row in sheet_of(tmp_path).rows for file in row.files]
    missing = [path for path in named if not (tmp_path / path).exists()]
    assert missing == ["sample_data/RIH0_ANA0-SAMPLE02_DBC0_0.R2.fastq.gz"]


def test_the_trigger_comes_last_and_looks_like_a_real_one(tmp_path: Path) -> None:
    written = write_sample_workset(tmp_path, SMALL)
    assert written[-1] == tmp_path / "daylily.ready"
    assert written[-1].read_bytes() == b"20251016T111111"
    assert sorted(written) == sorted(path for path in tmp_path.rglob("*") if path.is_file())
