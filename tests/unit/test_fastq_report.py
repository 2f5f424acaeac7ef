from __future__ import annotations

import gzip
import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from daylily_daemon.adapters.fastq import Counts, count_reads
from daylily_daemon.adapters.reports import report_on_samples
from daylily_daemon.cli.app import app
from daylily_daemon.cli.sampledata import SampleWorkset, write_sample_workset
from daylily_daemon.domain.errors import Permanent

GOOD = b"@r1 1:N:0\nACGT\n+\nIIII\n@r2 1:N:0\nGGNN\n+\n!!!!\n"


def written(folder: Path, data: bytes, name: str = "x.fastq") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def test_reads_bases_gc_and_quality_are_counted(tmp_path: Path) -> None:
    counts, _ = count_reads(written(tmp_path, GOOD))
    assert counts == Counts(reads=2, bases=8, gc_bases=4, quality_sum=160)
    assert (counts.gc_fraction, counts.mean_quality) == (0.5, 20.0)


def test_gzip_is_known_by_its_bytes_and_not_by_its_name(tmp_path: Path) -> None:
    plain = count_reads(written(tmp_path, GOOD, "plain.fastq.gz"))
    packed = count_reads(written(tmp_path, gzip.compress(GOOD), "packed.fastq"))
    several = count_reads(written(tmp_path, gzip.compress(GOOD[:32]) + gzip.compress(GOOD[32:])))
    assert plain == packed == several


def test_line_ends_of_windows_and_a_missing_last_one_change_nothing(tmp_path: Path) -> None:
    first = count_reads(written(tmp_path, GOOD))
    assert count_reads(written(tmp_path, GOOD.replace(b"\n", b"\r\n"))) == first
    assert count_reads(written(tmp_path, GOOD.rstrip(b"\n"))) == first


def test_mates_have_one_digest_of_names_and_strangers_another(tmp_path: Path) -> None:
    digests = {
        count_reads(written(tmp_path, data))[1]
        for data in (
            b"@a/1\nA\n+\nI\n@b/1\nA\n+\nI\n",
            b"@a/2\nT\n+\nI\n@b/2\nT\n+\nI\n",
            b"@a 2:N\nT\n+\nI\n@b 2:N\nT\n+\nI\n",
        )
    }
    assert len(digests) == 1
    swapped = count_reads(written(tmp_path, b"@b/2\nT\n+\nI\n@a/2\nT\n+\nI\n"))[1]
    assert swapped not in digests


@pytest.mark.parametrize(
    ("data", "line", "what"),
    [
        (b"", 1, "holds no read"),
        (b"r1\nACGT\n+\nIIII\n", 1, "expected '@'"),
        (b"@\nACGT\n+\nIIII\n", 1, "the name of a read"),
        (b"@r1\nAC?T\n+\nIIII\n", 2, r"'\?' is no base"),
        (b"@r1\nACGT\nIIII\n+\n", 3, r"expected '\+'"),
        (b"@r1\nACGT\n+other\nIIII\n", 3, "not that of the read"),
        (b"@r1\nACGT\n+\nIII\n", 4, "3 quality characters for 4 bases"),
        (b"@r1\nACGT\n+\nII I\n", 4, "no quality character"),
        (GOOD + b"@r3\nACGT\n", 9, "ends within a read"),
        (GOOD + b"\n", 9, "expected '@'"),
        (gzip.compress(GOOD * 99, mtime=0)[:-20], 1, "gzip data are damaged or truncated"),
        (gzip.compress(GOOD, mtime=0)[:-8] + b"damaged!", 9, "gzip data are damaged or truncated"),
    ],
)
def test_a_damaged_file_is_refused_with_file_and_line(
    tmp_path: Path, data: bytes, line: int, what: str
) -> None:
    path = written(tmp_path, data)
    with pytest.raises(
        Permanent, match=rf"Invalid FASTQ file {path}, line \d+: .*{what}"
    ) as refused:
        count_reads(path)
    if "gzip" not in what:
        assert f"line {line}:" in str(refused.value)


@given(st.binary(max_size=300))
def test_no_bytes_at_all_break_the_reader(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.fastq"
    path.write_bytes(data)
    with suppress(Permanent):
        assert count_reads(path)[0].reads > 0


def test_a_workset_is_reported_sample_by_sample_with_progress_as_snakemake_prints_it(
    tmp_path: Path,
) -> None:
    write_sample_workset(tmp_path / "stage", SampleWorkset(samples=3, reads=40, read_length=50))
    dest = tmp_path / "results"
    result = CliRunner().invoke(
        app, ["fastq-report", str(tmp_path / "stage" / "stage_samples.tsv"), str(dest)]
    )
    assert result.exit_code == 0, result.output
    assert "3 of 10 steps (30%) done" in result.output
    assert "10 of 10 steps (100%) done" in result.output
    rows = [line.split("\t") for line in (dest / "summary.tsv").read_text().splitlines()]
    assert rows[0] == ["sample", "files", "reads", "bases", "gc_fraction", "mean_quality"]
    assert [row[:4] for row in rows[1:]] == [
        [f"SAMPLE0{number}", "2", "80", "4000"] for number in (1, 2, 3)
    ]
    report = json.loads((dest / "SAMPLE02.report.json").read_text())
    assert (report["reads"], report["bases"]) == (80, 4000)


def test_a_damaged_file_ends_the_report_as_a_sentence_and_without_a_summary(tmp_path: Path) -> None:
    write_sample_workset(tmp_path, SampleWorkset(samples=1, reads=5))
    fastq = tmp_path / "sample_data" / "RIH0_ANA0-SAMPLE01_DBC0_0.R2.fastq.gz"
    fastq.write_bytes(b"@r1\nACGT\n+\nIII\n")
    result = CliRunner().invoke(
        app, ["fastq-report", str(tmp_path / "stage_samples.tsv"), str(tmp_path / "out")]
    )
    assert result.exit_code == 1
    assert f"Invalid FASTQ file {fastq}, line 4: there are 3 quality" in result.stderr
    assert "Traceback" not in result.output
    assert not (tmp_path / "out" / "summary.tsv").exists()


def test_mates_of_different_runs_are_refused(tmp_path: Path) -> None:
    write_sample_workset(tmp_path, SampleWorkset(samples=1, reads=5))
    other = tmp_path / "sample_data" / "RIH0_ANA0-SAMPLE01_DBC0_0.R2.fastq.gz"
    other.write_bytes(GOOD)
    result = CliRunner().invoke(
        app, ["fastq-report", str(tmp_path / "stage_samples.tsv"), str(tmp_path / "out")]
    )
    assert result.exit_code == 1
    assert "do not hold the same reads in the same order" in result.stderr


def test_metrics_add_up_files_bytes_and_the_summary(tmp_path: Path) -> None:
    write_sample_workset(tmp_path / "stage", SampleWorkset(samples=2, reads=10, read_length=50))
    results, output = tmp_path / "results", tmp_path / "metrics.json"
    sheet = tmp_path / "stage" / "stage_samples.tsv"
    CliRunner().invoke(app, ["fastq-report", str(sheet), str(results)])
    result = CliRunner().invoke(app, ["collect-metrics", str(results), "--output", str(output)])
    assert result.exit_code == 0, result.output
    assert json.loads(output.read_text()) == {
        "results_files": 3,
        "results_bytes": sum(path.stat().st_size for path in results.iterdir()),
        "samples": 2,
        "reads": 40,
        "bases": 2000,
    }


def test_metrics_of_results_of_another_pipeline_are_files_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "a.vcf").write_bytes(b"12345")
    (tmp_path / "results" / "summary.tsv").write_bytes(b"sample\tvariants\nx\t5\n")
    output = tmp_path / "metrics.json"
    command = ["collect-metrics", str(tmp_path / "results"), "--output", str(output)]
    assert CliRunner().invoke(app, command).exit_code == 0
    assert json.loads(output.read_text()) == {"results_files": 2, "results_bytes": 25}


def test_a_folder_that_is_not_there_is_a_sentence_and_exit_code_1(tmp_path: Path) -> None:
    command = ["collect-metrics", str(tmp_path / "no"), "--output", str(tmp_path / "m.json")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    assert "There is no folder" in result.stderr


def test_wrong_usage_is_exit_code_2() -> None:
    assert CliRunner().invoke(app, ["fastq-report"]).exit_code == 2
    assert CliRunner().invoke(app, ["stage", "s3://b/p/", "dest", "--jobs", "0"]).exit_code == 2


PAIR = (b"@a/1\nA\n+\nI\n@b/1\nA\n+\nI\n", b"@a/2\nT\n+\nI\n@b/2\nT\n+\nI\n")


def reported(folder: Path, sheet: str) -> dict[str, object]:
    (folder / "stage_samples.tsv").write_text(sheet)
    command = ["fastq-report", str(folder / "stage_samples.tsv"), str(folder / "out")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    report: dict[str, object] = json.loads((folder / "out" / "S1.report.json").read_text())
    return report


def test_long_reads_beside_a_pair_are_no_mates_of_it(tmp_path: Path) -> None:
    for name, data in zip(("a_R1.fq", "a_R2.fq", "ont.fq"), (*PAIR, GOOD), strict=True):
        written(tmp_path, data, name)
    header = "SAMPLE_ID\tILMN_R1_FQ\tILMN_R2_FQ\tONT_R1_FQ\n"
    report = reported(tmp_path, header + "S1\ta_R1.fq\ta_R2.fq\tont.fq\n")
    assert (report["files"], report["reads"]) == (3, 6)


def test_numbered_columns_hold_reads_of_their_own(tmp_path: Path) -> None:
    written(tmp_path, PAIR[0], "1.fq")
    written(tmp_path, GOOD, "2.fq")
    report = reported(tmp_path, "SAMPLE_ID\tONT_FQ1\tONT_FQ2\nS1\t1.fq\t2.fq\n")
    assert (report["files"], report["reads"]) == (2, 4)


@pytest.mark.parametrize("column", ["ONT_FQ", "ONT_FASTQ_PREFIX"])
def test_every_fastq_file_below_a_folder_is_read(tmp_path: Path, column: str) -> None:
    (tmp_path / "pass" / "deeper").mkdir(parents=True)
    written(tmp_path / "pass", GOOD, "1.fastq")
    written(tmp_path / "pass", b"no reads", "summary.txt")
    written(tmp_path / "pass" / "deeper", gzip.compress(PAIR[0]), "2.FASTQ.GZ")
    report = reported(tmp_path, f"SAMPLE_ID\t{column}\nS1\tpass/\n")
    assert (report["files"], report["reads"]) == (2, 4)


def test_a_folder_without_fastq_files_is_missing_input(tmp_path: Path) -> None:
    (tmp_path / "pass").mkdir()
    (tmp_path / "stage_samples.tsv").write_text("SAMPLE_ID\tONT_FQ\nS1\tpass/\n")
    command = ["fastq-report", str(tmp_path / "stage_samples.tsv"), str(tmp_path / "out")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    assert "there is no FASTQ file in" in result.stderr


def test_a_damaged_file_is_named_as_the_lab_wrote_it(tmp_path: Path) -> None:
    stage = tmp_path / "stage"
    local = stage / "inputs" / "reads" / "drops" / "ws1"
    (local / "pass").mkdir(parents=True)
    (local / "a.fq").write_bytes(GOOD)
    (local / "pass" / "bad.fq").write_bytes(b"@r1\nACGT\n")
    (stage / "stage_samples.submitted.tsv").write_text(
        "# by the lab\nSAMPLE_ID\tONT_FQ\nS1\tsample_data/a.fq\nS2\ts3://reads/pass/\n"
    )
    staged = stage / "stage_samples.tsv"
    staged.write_text(f"SAMPLE_ID\tONT_FQ\nS1\t{local}/a.fq\nS2\t{local}/pass/\n")
    with pytest.raises(Permanent) as damaged:
        report_on_samples(staged, tmp_path / "results", lambda *_: None)
    said = "s3://reads/pass/bad.fq (stage_samples.tsv, line 4, column ONT_FQ), line 1: "
    assert said in str(damaged.value)
    assert str(tmp_path) not in str(damaged.value)
    (stage / "stage_samples.submitted.tsv").unlink()
    with pytest.raises(Permanent, match=r"inputs/reads/drops/ws1/pass/bad\.fq, line 1"):
        report_on_samples(staged, tmp_path / "results", lambda *_: None)


def test_the_coverage_that_is_wanted_is_said_beside_what_was_found(tmp_path: Path) -> None:
    written(tmp_path, GOOD, "a.fq")
    header = "SAMPLE_ID\tR1_FQ\tCOVERAGE\n"
    assert reported(tmp_path, f"{header}S1\ta.fq\t30\n")["coverage_wanted"] == 30
    assert "coverage_wanted" not in reported(tmp_path, f"{header}S1\ta.fq\tna\n")
