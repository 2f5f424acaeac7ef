"""What reading a lab's files answers: for each recipe and sheet the values, or every problem in full.

``tests/golden/readings.txt`` holds the answers. After a change that is meant, write it anew and read the
difference: ``python -m tests.unit.readings``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from daylily_daemon.domain.model import Problem, WorksetId
from daylily_daemon.domain.recipe import Recipe, read_recipe, shell_text
from daylily_daemon.domain.sheet import (
    Sheet,
    places_of,
    read_sheet,
    relocated,
    sheet_from_samples,
    text_from_samples,
)
from scripts.refused_examples import RECIPES, ROWS, SHEETS
from tests.unit.lives import shown

GOLDEN: Final = Path(__file__).resolve().parents[1] / "golden" / "readings.txt"
FIVE: Final = b"RUN_ID\tSAMPLE_ID\tLANE\tR1_FQ\tR2_FQ\n"
MORE_RECIPES: Final = (
    b'pipeline: demo\nsamples: [{sample_id: S1, fastq_r1: a, "fastq_r\\u0662": b}]\n',
    b"pipeline: demo\nsamples: [{sample_id: S1, fastq_r1: a_R1.fq.gz}]\n",
    b'dy-r: x\nworkdir_name: "w\\u00a0"\n',
    'dy-r: x\nworkdir_name: "  w \\t"\nclone: {größe: x, "a\\tb": y}\n'.encode(),
    f"dy-r: x\nclone: {{{'k' * 80}: x}}\nrun: {{{'k' * 81}: x}}\n".encode(),
    b"dy-r: produce_x -p\n",
    b"dy_r: produce_x\ndy-r: produce_y\n",
    b"run: {suffix: produce_x --config a=b}\nclone: [-t, main, 'a b']\nworkdir_name: w-1\n",
    b"dy-r:\n- -p\n- 'produce {workset}'\nday-clone: {args: [-d, '{workset}']}\n",
    b"pipeline: demo\nsamples:\n- {sample_id: S1, fastq_r1: a.fq.gz, fastq_r2: b.fq.gz, coverage: 30}\n"
    b"- {sample_id: S2, fastq_r1: c.fq.gz, fastq_r2: na, coverage: 0.5}\n",
    b"dy-r: x\nexport_uri: s3://results/a/b\nmax_retries: 10\npriority: low\nreference_genome: hg38\n",
    b"dy-r: x\nexport: s3://results/a/\npreferred_cluster: east.1\nbudget: 12\nnotes: [1, {a: b}]\n",
    b"dy-r: x\nmax_retries: 0\npriority: URGENT\n",
    b"dy-r: x\nmax_retries: -1\npriority: soon\nworkdir_name: ''\n",
    b"dy-r: x\nmax_retries: 1.0\n",
    b"dy-r: x\nbudget: lots\ncluster_name: [a]\n",
    b"dy-r: x\nexport_uri: https://results/a\n",
    b"dy-r: x\nexport_uri: s3://results/a//b\n",
    b"dy-r: x\nexport_uri: s3://results/../b\n",
    b'dy-r: \'a;b\' "c|d" e\\;f "g$HOME" h#i\n',
    b"dy-r: produce_x # comment\n",
    b"dy-r: 'produce_x `date`'\n",
    b'dy-r: "produce_x\\n-p"\n',
    b"dy-r: |\n  produce_x \\\n    -p\n",
    b"dy-r: ''\n",
    b"dy-r: x\nworkdir_name: " + b"w" * 80 + b"\n",
    b"dy-r: x\nworkdir_name: " + b"w" * 81 + b"\n",
    b"pipeline: a b\n",
    b"pipeline: demo\nsamples: []\n",
    b"pipeline: demo\nsamples: [S1, {sample_id: [S2], fastq_r1: b}, {sample_id: S3, fastq_r1: {}}]\n",
    b"pipeline: demo\nsamples:\n- {sample_id: S1, fastq_r1: a, coverage: 0}\n"
    b"- {sample_id: S2, fastq_r1: b, coverage: na}\n- {sample_id: S3, fastq_r1: na}\n",
    b"pipeline: demo\nsamples: [{sample_id: S1, fastq_r1: ../a, SAMPLE_ID: S2, Depth: 3}]\n",
    b"Samples: [{sample_id: S1, fastq_r1: a}]\nretries: 3\ncluster: east\ndy_R: x\nexport-URI: s3://b/\n",
)
MORE_ROWS: Final = (
    b'r1\tS1\t1\ta_R1.fq.gz\'\tna\nr1\tS2\t1\t"b"""\tna\n',
    b"r1\tS1\t1\ta_R1.fastq.gz\ta_R2.fastq.gz\n",
    b"r1\tS1\t1\ts3://lab/x/a_R1.fastq.gz\ts3://lab/x/a_R2.fastq.gz\nr1\tS1\t2\t/fsx/b.fq\tNA\n",
    b"# a comment\n\nr1\tS.1-a_b\t1\tsub dir/a_R1.fq\t\n\n",
    b'r1\tS1\t1\t"a ""b"" c.fq.gz"\tna\n',
    b"r1\t S1 \t1\t a_R1.fastq.gz \tNone\n",
    b"r1\tS1\t1\ts3://lab/<x\tna\n",
    b"r1\tS1\t1\ts3://lab/x>.fq\tna\n",
    b"r1\tS1\t1\ts3://lab\tna\nr1\tS2\t1\ts3://\tna\nr1\tS3\t1\ts3:///x\tna\n",
    b"r1\tS1\t1\t/\tna\nr1\tS2\t1\t/fsx/\tna\nr1\tS3\t1\ta//b.fq\tna\nr1\tS4\t1\t./b.fq\tna\n",
    b"r1\tS1\t1\ta?.fq\tna\nr1\tS2\t1\ta[1].fq\tna\nr1\tS3\t1\t${X}/a.fq\tna\nr1\tS4\t1\t%2e%2e/a.fq\tna\n",
    b"r1\t" + b"S" * 80 + b"\t1\ta.fq\tna\nr1\t" + b"T" * 81 + b"\t1\tb.fq\tna\n",
    b"r1\tS1\t1\t" + b"x" * 1024 + b"\tna\nr1\tS2\t1\t" + b"y" * 1025 + b"\tna\n",
    b"r1\tS1\t1\ta_R1.fq.gz\ta_R1.fq.gz\nr1\tS2\t1\tb_R2.fq.gz\tb_R1.fq.gz\nr1\tS3\t1\tc.r2.fq\tc.r1.fq\n",
    b"r1\tS1\t1\t\\\\host\\share\\a.fq\tna\nr1\tS2\t1\td:/a.fq\tna\nr1\tS3\t1\tgs://b/a.fq\tna\n",
)
MORE_SHEETS: Final = (
    b"SAMPLE_ID\tR1_FQ\tCOVERAGE\nS1\ta\tdeep\nS2\tb\t200\n",
    b"SAMPLE_ID\tONT_CRAM\tONT_FASTQ_PREFIX\nS1\ta.cram\tfolder/run\nS2\tna\tfolder/\n",
    b"SAMPLE_ID\tPB_BAM\tCOVERAGE\nS1\ta.bam\t30\nS2\tb.bam\tna\nS3\tc.bam\t0.5\n",
    b"SAMPLE_ID\tR1_FQ\tSUBSAMPLE_PCT\tNOTES\nS1\ta\t1\tx\nS2\tb\t50\ty\nS3\tc\t.25\t\nS4\td\t100.0\t\n",
    b"SAMPLE_ID\tR1_FQ\tSUBSAMPLE_PCT\nS1\ta\t-1\nS2\tb\t1e3\nS3\tc\t1000000\nS4\td\t1234567\n",
    b"\xef\xbb\xbfSAMPLE_ID,R1_FQ,R2_FQ\r\nS1,a_R1.fq,a_R2.fq\r\n",
    b"SAMPLE_ID;R1_FQ\nS1;a.fq\n",
    b"RUN_ID\tSAMPLE_ID\tR1_FQ\t\t\nr\tS1\ta.fq\t\t\n",
    b"SAMPLE_ID\tR1_FQ\tR2_FQ\nS1\ta.fq\tb.fq\textra\nS2\tc.fq\n",
    b"SAMPLE_ID\tILMN_R1_FQ\tR1\nS1\ta.fq\tb.fq\n",
    b"Sample_Id\tr1_fq\nS1\ta.fq\n",
    b"SAMPLE_ID\tSAMPLEID\tR1_FQ\nS1\tS1\ta.fq\n",
    b"SAMPLE_ID\tR1_FQ\nS1\ta\xff.fq\n",
    b"SAMPLE_ID\tR1_FQ\nS1\ta\0.fq\n",
    b"SAMPLE_ID\tR1_FQ\n",
    b"SAMPLE_ID\tR1_FQ\r\rS1\ta.fq\r",
    b"SAMPLE_ID\tR1_FQ\n" + b"".join(b"S%d\t\n" % n for n in range(60)),
)


def _problems(found: tuple[Problem, ...]) -> Iterator[str]:
    for problem in found:
        yield f"    {problem.category.value}: {problem}"


def read_as_recipe(data: bytes) -> Iterator[str]:
    found = read_recipe(data, WorksetId("HG002"))
    if not isinstance(found, Recipe):
        yield from _problems(found)
        return
    yield f"    {shown(found)}"
    if found.samples:
        yield from _sheet(sheet_from_samples(found.samples))
        yield f"    {text_from_samples(found.samples)!r}"


def read_as_sheet(data: bytes) -> Iterator[str]:
    found = read_sheet(data)
    if not isinstance(found, Sheet):
        yield from _problems(found)
        return
    yield from _sheet(found)
    yield f"    {relocated(data, lambda path: f'/here/{path}')!r}"


def _sheet(sheet: Sheet) -> Iterator[str]:
    yield from (f"    {shown(row)}" for row in sheet.rows)
    for place, kind in places_of(sheet, "lab", "p/HG002/").items():
        yield f"    {place}: {kind.value}"


def _named(data: bytes) -> str:
    return f"{data[:160]!r}" + (f" of {len(data)}" if len(data) > 160 else "")


ALL_RECIPES: Final = (*RECIPES, *MORE_RECIPES)
ALL_SHEETS: Final = (*(FIVE + rows for rows in (*ROWS, *MORE_ROWS)), *SHEETS, *MORE_SHEETS)
SHELL: Final = (
    *(
        "a b",
        "a\\\nb",
        "a\r\nb",
        "a 'b;c' d",
        'a "b $c"',
        "a;b",
        "a $(b)",
        "a # b",
        "a#b",
        "a \\$b",
    ),
)


def of_recipe(data: bytes) -> str:
    return "\n".join([f"recipe {_named(data)}", *read_as_recipe(data), ""])


def of_sheet(data: bytes) -> str:
    return "\n".join([f"sheet {_named(data)}", *read_as_sheet(data), ""])


def of_shell() -> str:
    return "".join(f"shell {text!r}: {shell_text(text)!r}\n" for text in SHELL)


def told() -> str:
    recipes, sheets = map(of_recipe, ALL_RECIPES), map(of_sheet, ALL_SHEETS)
    return "".join([*recipes, *sheets, of_shell()])


if __name__ == "__main__":
    GOLDEN.write_text(told(), encoding="utf-8")
