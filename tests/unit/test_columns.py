"""Which columns name input, and what of."""

from __future__ import annotations

import pytest

from daylily_daemon.domain.columns import Kind, input_column, named
from daylily_daemon.domain.sheet import (
    LocalPlace,
    S3Place,
    Sheet,
    places_of,
    read_sheet,
    relocated,
)


@pytest.mark.parametrize(
    ("name", "kind", "first"),
    [
        ("R1_FQ", Kind.READ_1, ""),
        ("R2_FQ", Kind.READ_2, "R1_FQ"),
        ("ILMN_R2_FQ", Kind.READ_2, "ILMN_R1_FQ"),
        ("CG_R1_FASTQ", Kind.READ_1, ""),
        ("UG_R2_FQ3", Kind.READ_2, "UG_R1_FQ3"),
        ("ONT_R1_FQ", Kind.READS, ""),
        ("ONT_R2_FQ", Kind.READS, "ONT_R1_FQ"),
        ("PACBIO_R1_FQ", Kind.READS, ""),
        ("ONT_FQ", Kind.READS, ""),
        ("ONT_FQ12", Kind.READS, ""),
        ("ROCHE_FASTQ1", Kind.READS, ""),
        ("ULTIMA_CRAM", Kind.FILE, ""),
        ("PB_BAM", Kind.FILE, ""),
        ("PACBIO_UBAM", Kind.FILE, ""),
        ("ONT_POD5", Kind.FILE, ""),
        ("ONT_FASTQ_PREFIX", Kind.PREFIX, ""),
        ("FASTQ_DIR", Kind.FOLDER, ""),
        ("ONT_POD5_FOLDER", Kind.FOLDER, ""),
    ],
)
def test_a_column_is_known_by_the_form_of_its_name(name: str, kind: Kind, first: str) -> None:
    column = input_column(name)
    assert column is not None
    assert (column.kind, column.first) == (kind, first)


@pytest.mark.parametrize(
    "name",
    [
        *("SAMPLE_ID", "LANE", "ONT_FLOWCELL_ID", "UG_CRAM_INDEX", "PB_BAM_ALIGNER", "FQ", "BAM"),
        *("XBAM", "R1", "PATH_TO_CONCORDANCE_DATA_DIR", "r1_fq", "R1 FQ", "ONT_SUBSAMPLE_PCT"),
    ],
)
def test_other_columns_name_no_input(name: str) -> None:
    assert input_column(name) is None


@pytest.mark.reported("D", "a fastq_pass folder in a sample sheet (nf-core/nanoseq#324)")
@pytest.mark.parametrize(
    ("name", "cell", "kind", "path"),
    [
        ("ONT_FASTQ_PREFIX", "s3://b/run/barcode03", Kind.PREFIX, "s3://b/run/barcode03/"),
        ("ONT_FASTQ_PREFIX", "s3://b/run/barcode03/", Kind.PREFIX, "s3://b/run/barcode03/"),
        ("ONT_FASTQ_PREFIX", "s3://b/run/a.fastq.gz", Kind.READS, "s3://b/run/a.fastq.gz"),
        ("ONT_FASTQ_PREFIX", "s3://b/run/a.fastq.gz/", Kind.PREFIX, "s3://b/run/a.fastq.gz/"),
        ("PB_BAM_DIR", "/fsx/a.bam", Kind.FILE, "/fsx/a.bam"),
        ("ONT_FASTQ_DIR", "/fsx/run", Kind.FOLDER, "/fsx/run/"),
        ("ONT_FQ", "fastq_pass/", Kind.FOLDER, "fastq_pass/"),
        ("ONT_FQ", "fastq_pass/a.fq.gz", Kind.READS, "fastq_pass/a.fq.gz"),
        ("ONT_POD5", "s3://b/pod5", Kind.FOLDER, "s3://b/pod5/"),
        ("ONT_POD5", "s3://b/a.pod5", Kind.FILE, "s3://b/a.pod5"),
        ("PB_BAM", "bams/", Kind.FOLDER, "bams/"),
    ],
)
def test_a_cell_names_a_file_or_a_folder_with_a_slash_at_its_end(
    name: str, cell: str, kind: Kind, path: str
) -> None:
    column = input_column(name)
    assert column is not None
    assert named(column, cell) == (kind, path)


def test_check_and_staging_are_told_the_same_places_and_kinds() -> None:
    data = (
        b"SAMPLE_ID\tILMN_R1_FQ\tILMN_R2_FQ\tONT_FASTQ_PREFIX\tONT_POD5\n"
        b"S1\ta_R1.fq.gz\ta_R2.fq.gz\ts3://reads/pass/barcode03\t/fsx/pod5\n"
    )
    sheet = read_sheet(data)
    assert isinstance(sheet, Sheet)
    assert places_of(sheet, "lab", "ws/") == {
        S3Place("lab", "ws/a_R1.fq.gz"): Kind.READ_1,
        S3Place("lab", "ws/a_R2.fq.gz"): Kind.READ_2,
        S3Place("reads", "pass/barcode03/"): Kind.PREFIX,
        LocalPlace("/fsx/pod5/"): Kind.FOLDER,
    }
    known = {file.path: f"/fsx/{i}" for row in sheet.rows for i, file in enumerate(row.files)}
    local = relocated(data, known.__getitem__).splitlines()[1]
    assert local.split("\t")[1:] == list(known.values())
