"""Recipes of both contracts: what is accepted, and that every problem is told at once, with its place."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from daylily_daemon.domain.model import Category, Priority, Problem, WorksetId
from daylily_daemon.domain.recipe import (
    CLONE_KEYS,
    EXPORT_KEYS,
    MAX_CHARS,
    MAX_KEYS,
    RUN_KEYS,
    Recipe,
    read_recipe,
    shell_text,
)
from daylily_daemon.domain.sheet import Sample

WORKSET = WorksetId("run-7")

SNV = """# (optional) Keep or drop. If present, the monitor won't try to create/use a different one.
# cluster_name: "newcluex"

# Clone the Daylily pipeline on the headnode (optional but recommended)
day-clone: " -d {workdir_name} -t main  "

# Args only; your monitor YAML's run_prefix already includes the dy-r/day_run command.
dy-r: >
   produce_snv_concordances  -p -k -j 20 --config aligners=["sent","bwa2a"] dedupers=["dppl"]

# Export results after completion
export_uri: "s3://lab-results/daylily_monitoring/active_worksets/runme14/results/"

# (ignored by script; for you)
notes: "Daylily Snakemake; hg38; slurm profile; 192 jobs; rerun-incomplete."
"""

API = """
samples:
  - sample_id: HG002
    fastq_r1: s3://lab-reads/HG002_R1.fastq.gz
    fastq_r2: s3://lab-reads/HG002_R2.fastq.gz
    coverage: 30.0
  - sample_id: 0012
    fastq_r1: sample_data/0012.fastq.gz
reference_genome: GRCh38
pipeline: germline
priority: URGENT
max_retries: 0
preferred_cluster: cluster-1
"""


def accepted(text: str) -> Recipe:
    recipe = read_recipe(text.encode(), WORKSET)
    assert isinstance(recipe, Recipe), [str(problem) for problem in recipe]
    return recipe


def refused(text: str) -> tuple[Problem, ...]:
    problems = read_recipe(text.encode(), WORKSET)
    assert isinstance(problems, tuple)
    for problem in problems:
        assert problem.file == "daylily_work.yaml"
        assert re.fullmatch(r"(line \d+(, key \S+)?|key \S+)", problem.where)
        assert problem.todo.endswith((".", "`."))
    return problems


def only(text: str) -> Problem:
    (problem,) = refused(text)
    return problem


def run_args(text: str) -> tuple[str, ...]:
    """Return the arguments of a recipe whose value is exactly ``text``."""
    return accepted("dy-r: '" + text.replace("'", "''") + "'").run_args


def run_problem(text: str) -> Problem:
    return only("dy-r: '" + text.replace("'", "''") + "'")


def test_the_real_recipe_is_accepted() -> None:
    assert accepted(SNV) == Recipe(
        run_args=(
            *("produce_snv_concordances", "-p", "-k", "-j", "20", "--config"),
            *("aligners=[sent,bwa2a]", "dedupers=[dppl]"),
        ),
        clone_args=("-d", "run-7", "-t", "main"),
        workdir_name="run-7",
        export_uri="s3://lab-results/daylily_monitoring/active_worksets/runme14/results/",
    )


def test_the_second_contract_is_accepted() -> None:
    assert accepted(API) == Recipe(
        workdir_name="run-7",
        cluster_name="cluster-1",
        pipeline="germline",
        reference_genome="grch38",
        max_retries=0,
        priority=Priority.URGENT,
        samples=(
            Sample(
                sample_id="HG002",
                fastq_r1="s3://lab-reads/HG002_R1.fastq.gz",
                fastq_r2="s3://lab-reads/HG002_R2.fastq.gz",
                coverage=30.0,
                line=3,
            ),
            Sample(sample_id="0012", fastq_r1="sample_data/0012.fastq.gz", line=7),
        ),
    )


def test_both_contracts_may_be_mixed_in_one_file() -> None:
    recipe = accepted(API + "dy-r: -p help\n")
    assert recipe.run_args == ("-p", "help")
    assert len(recipe.samples) == 2


@pytest.mark.parametrize("key", RUN_KEYS)
def test_each_name_of_the_run_arguments_is_known(key: str) -> None:
    assert accepted(f"{key}: -p help").run_args == ("-p", "help")


@pytest.mark.parametrize("key", CLONE_KEYS)
def test_each_name_of_the_clone_arguments_is_known(key: str) -> None:
    assert accepted(f"dy: help\n{key}: -t main").clone_args == ("-t", "main")


@pytest.mark.parametrize("key", EXPORT_KEYS)
def test_each_name_of_the_export_target_is_known(key: str) -> None:
    assert accepted(f"dy: help\n{key}: s3://lab/out").export_uri == "s3://lab/out/"


@pytest.mark.parametrize("empty", ["", "''", "'  '", "[]", "{}", "{args: ''}", "~"])
def test_the_first_of_a_family_that_is_not_empty_wins(empty: str) -> None:
    assert accepted(f"dy: second\ndy_r: {empty}\nrun: third\n").run_args == ("second",)


@pytest.mark.parametrize("key", ["suffix", "args", "cmd", "command"])
def test_a_value_may_be_a_mapping_of_text_or_list(key: str) -> None:
    assert accepted(f"dy-r: {{{key}: -p help}}").run_args == ("-p", "help")
    assert accepted(f"dy-r: {{{key}: [-j, 20]}}").run_args == ("-j", "20")


def test_a_list_is_joined_as_it_was_written() -> None:
    assert accepted("dy-r: [-j, 20, '-x 1.50', 0.10, true, 007]").run_args == (
        *("-j", "20", "-x", "1.50", "0.10", "true", "007"),
    )


def test_line_breaks_and_continued_lines_are_spaces() -> None:
    assert accepted("dy-r: |\n  help \\\n    -p\n  -k\n").run_args == ("help", "-p", "-k")


def test_brackets_braces_and_quotes_stay_legal() -> None:
    assert run_args('a=["sent","bwa2a"] b={x,y} c=(1) "d e" \'f "g"\' h\\ i') == (
        *("a=[sent,bwa2a]", "b={x,y}", "c=(1)", "d e", 'f "g"', "h i"),
    )


def test_placeholders_are_filled_in_everywhere_they_may_stand() -> None:
    recipe = accepted(
        "workdir_name: w-{workset}\ndy-r: -d {workdir_name} {workset}\nclone: '{workdir_name}'\n"
        "budget: b-{workset}\nexport_uri: s3://lab/{workset}/{workdir_name}\n"
    )
    assert recipe.workdir_name == "w-run-7"
    assert recipe.run_args == ("-d", "w-run-7", "run-7")
    assert recipe.clone_args == ("w-run-7", "--budget", "b-run-7")
    assert recipe.export_uri == "s3://lab/run-7/w-run-7/"


@pytest.mark.parametrize("key", ["dy-r", "clone", "export_uri", "budget", "workdir_name"])
def test_an_unknown_placeholder_is_refused(key: str) -> None:
    problem = next(
        p for p in refused(f"dy: help\n{key}: s3://b0b/{{sample}}\n") if "{sample}" in p.what
    )
    assert problem.where == f"line 2, key {key}"
    assert "{workset} can be used here" in problem.todo
    assert problem.category is Category.CONFIGURATION


def test_a_budget_is_one_argument_of_the_clone_command() -> None:
    assert accepted("dy: help\nbudget: my budget").clone_args == ("--budget", "my budget")
    assert accepted("dy: help\nbudget: 1.50\nclone: -t main").clone_args == (
        *("-t", "main", "--budget", "1.50"),
    )


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("help; rm -rf /", ";"),
        ("help && id", "&&"),
        ("help &", "&"),
        ("help | tee x", "|"),
        ("help||id", "||"),
        ("help > out", ">"),
        ("help 2>&1", ">&"),
        ("help < in", "<"),
        ("help $(id)", "$("),
        ("help `id`", "`"),
        ('help "`id`"', "`"),
        ('help "$(id)"', "$("),
        ('help "x $HOME"', "$HOME"),
        ("help $HOME", "$HOME"),
        ("help ${HOME}", "${"),
        ('help "\\$HOME"', "$HOME"),
        ("help # nothing", "#"),
        ("'a'; b", ";"),
    ],
)
def test_what_only_a_shell_understands_is_refused(text: str, found: str) -> None:
    problem = run_problem(text)
    assert problem.where == "line 1, key dy-r"
    assert f"'{found}' means something only to a shell" in problem.what
    assert "single quotes" in problem.todo


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("help ';'", ";"),
        ('help "a;b|c>d&"', "a;b|c>d&"),
        ("help \\;", ";"),
        ("help '$(id) `id`'", "$(id) `id`"),
        ("help \\$HOME", "$HOME"),
        ("help a#b", "a#b"),
        ("help '#x'", "#x"),
        ("help 5$", "5$"),
        ('help "it\'s; fine"', "it's; fine"),
    ],
)
def test_the_same_within_quotes_is_plain_text(text: str, last: str) -> None:
    assert run_args(text)[-1] == last


@pytest.mark.parametrize("text", ["help 'open", 'help "open', "help a\\"])
def test_unbalanced_quotes_are_refused(text: str) -> None:
    assert "quote" in run_problem(text).what


@pytest.mark.parametrize("char", ["\\x07", "\\e", "\\x7f", "\\0", "\\_", "\\u200b", "\\u2028"])
def test_characters_nobody_sees_are_refused(char: str) -> None:
    problem = only(f'dy-r: "help{char}x"')
    assert "cannot be seen (U+" in problem.what
    assert problem.where == "line 1, key dy-r"


def test_arguments_of_a_size_no_command_line_takes_are_refused() -> None:
    assert len(accepted("dy-r: " + "x" * MAX_CHARS).run_args[0]) == MAX_CHARS
    assert f"{MAX_CHARS:,}" in only("dy-r: " + "x" * (MAX_CHARS + 1)).what
    aliased = "a: &a " + "x " * 5000 + "\ndy-r: [*a, *a, *a, *a]\nbudget: *a\n"
    assert "dy-r" in only(aliased).where


@pytest.mark.parametrize("text", ["{}", "notes: x", "samples: [{sample_id: a, fastq_r1: b}]"])
def test_a_recipe_that_says_nothing_to_run_is_refused(text: str) -> None:
    problem = only(text)
    assert "No arguments of the run" in problem.what
    assert "dy-r" in problem.todo
    assert "dy-r" in problem.where
    assert problem.category is Category.CONFIGURATION


def test_a_run_key_with_nothing_in_it_is_named_with_its_line() -> None:
    assert only("notes: x\ndy-r: ''\n").where == "line 2, key dy-r"


@pytest.mark.parametrize(
    "uri",
    [
        *(
            "lab/out",
            "s3://lab",
            "s3://lab/",
            "s3://lab//",
            "s3://Lab_X/out",
            "s3://a..b/out",
            "s3:///out",
        ),
        *("s3://lab//out", "s3://lab/../x", "s3://lab/a b", "https://lab/out", "s3://<BUCKET>/out"),
        "s3://lab/" + "x" * 2000,
    ],
)
def test_an_export_target_is_a_folder_in_a_bucket(uri: str) -> None:
    problem = only(f"dy: help\nexport_uri: '{uri}'\n")
    assert problem.where == "line 2, key export_uri"
    assert "s3://bucket/prefix/" in problem.what


def test_the_export_target_gets_one_closing_slash() -> None:
    assert accepted("dy: help\nexport: s3://lab/out/").export_uri == "s3://lab/out/"
    assert accepted("dy: help").export_uri == ""


@pytest.mark.parametrize("name", ["../x", "a/b", "-x", "a b", "x" * 81, "é", ".hidden"])
def test_a_working_folder_has_a_safe_name(name: str) -> None:
    assert only(f"dy: help\nworkdir_name: '{name}'\n").where == "line 2, key workdir_name"


@pytest.mark.parametrize("key", ["cluster_name", "preferred_cluster", "pipeline"])
def test_names_of_clusters_and_pipelines_are_plain(key: str) -> None:
    for name in ("a b", "../x", "-x", "{workset}", "x;y"):
        assert only(f"dy: help\n{key}: '{name}'\n").where == f"line 2, key {key}"
    assert accepted(f"dy: help\n{key}: Snv_1.2-b\n")


@pytest.mark.parametrize("name", ["hg38", "HG19", "GRCh38", "b37", "hg38_broad"])
def test_which_reference_genomes_there_are_is_left_to_the_pipeline(name: str) -> None:
    assert accepted(f"dy: help\nreference_genome: {name}").reference_genome == name.lower()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("reference_genome: hg 38", "letters, digits"),
        ("priority: high", "urgent, normal, low"),
        ("max_retries: 11", "0 to 10"),
        ("max_retries: -1", "0 to 10"),
        ("max_retries: 1.5", "0 to 10"),
        ("max_retries: many", "0 to 10"),
        ("cluster_name: [[a]]", "single value"),
        ("priority: {x: low}", "suffix, args, cmd, command"),
    ],
)
def test_what_is_expected_is_said(line: str, expected: str) -> None:
    problem = only(f"dy: help\n{line}\n")
    assert problem.where.startswith(f"line 2, key {line.partition(':')[0]}")
    assert expected in str(problem)
    assert problem.category is Category.CONFIGURATION


@pytest.mark.parametrize(
    ("samples", "key", "words"),
    [
        ("samples: S1", "samples", "list of samples"),
        ("samples: []", "samples", "list of samples"),
        ("samples: [S1]", "samples[0]", "not a mapping"),
        ("samples: [{fastq_r1: a}]", "samples[0].sample_id", "missing"),
        ("samples: [{sample_id: a}]", "samples[0].fastq_r1", "missing"),
        ("samples: [{sample_id: a, fastq_r1: [b]}]", "samples[0].fastq_r1", "single value"),
        ("samples: [{sample_id: ../a, fastq_r1: b}]", "samples[0].sample_id", "file name"),
        ("samples: [{sample_id: a, fastq_r1: b, fastq_r2: b}]", "samples[0].fastq_r2", "same file"),
        ("samples: [{sample_id: a, fastq_r1: s3://<X>/b}]", "samples[0].fastq_r1", "placeholder"),
        ("samples: [{sample_id: a, fastq_r1: b, coverage: 0}]", "samples[0].coverage", "above 0"),
        ("samples: [{sample_id: a, fastq_r1: b, coverage: x}]", "samples[0].coverage", "above 0"),
        (
            "samples: [{sample_id: a, fastq_r1: b}, {sample_id: a, fastq_r1: c}]",
            "samples",
            "there twice, on line 2 and line 2",
        ),
    ],
)
def test_problems_of_samples_name_the_sample_and_are_data_problems(
    samples: str, key: str, words: str
) -> None:
    problem = only(f"pipeline: germline\n{samples}\n")
    assert problem.where == f"line 2, key {key}"
    assert words in problem.what
    if "single" not in words:
        assert problem.category is Category.DATA


def test_everything_wrong_is_told_at_once_in_the_order_of_lines() -> None:
    problems = refused(
        "dy-r: help; id\nworkdir_name: a/b\nexport_uri: nowhere\npriority: high\n"
        "samples:\n  - sample_id: a\n  - fastq_r1: b\nmax_retries: 99\n"
    )
    assert [problem.where for problem in problems] == [
        "line 1, key dy-r",
        "line 2, key workdir_name",
        "line 3, key export_uri",
        "line 4, key priority",
        "line 6, key samples[0].fastq_r1",
        "line 7, key samples[1].sample_id",
        "line 8, key max_retries",
    ]


def test_more_problems_than_anybody_reads_are_counted() -> None:
    problems = read_recipe(b"dy: help\nsamples:\n" + b"- {}\n" * 100, WORKSET)
    assert isinstance(problems, tuple)
    assert len(problems) == 51
    assert "150 more" in problems[-1].what


def test_a_file_that_is_no_mapping_or_no_yaml_is_one_problem() -> None:
    assert "empty" in only("").what
    assert "not a mapping" in only("- a").what
    assert only("a: 1\na: 2").where == "line 2"
    assert only("dy-r: 'open").where == "line 1"


def test_unknown_keys_are_left_alone() -> None:
    assert accepted("dy: help\nnotes: [1, {a: b}]\nfuture: {x: y}\n").run_args == ("help",)


SCRAPS = st.lists(
    st.sampled_from(
        [
            *("dy-r", "samples", "sample_id", "fastq_r1", "export", "budget", "clone", "pipeline"),
            *(
                ": ",
                "\n",
                "\n  - ",
                "[",
                "]",
                "{",
                "}",
                ", ",
                "'",
                '"',
                "{workset}",
                "{x}",
                "s3://",
            ),
            *("a", "1", "\\", "$(", ";", "~", "&a ", "*a"),
        ]
    )
).map("".join)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=200), SCRAPS.map(str.encode)))
@example(b"samples: {}\npipeline: g")
@example(b"dy: '{workset'")
def test_any_bytes_are_a_recipe_or_a_list_of_problems(data: bytes) -> None:
    result = read_recipe(data, WORKSET)
    if isinstance(result, Recipe):
        assert result.run_args or result.pipeline
        return
    assert result
    for problem in result:
        assert problem.file == "daylily_work.yaml"
        assert problem.where.startswith(("line ", "key "))


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="ab;&|<>$`#(){}[]'\"\\ \n=*?~", max_size=30))
def test_no_operator_without_quotes_is_ever_overlooked(text: str) -> None:
    if shell_text(text) == "" and not set(text) & set("'\"\\"):
        assert not set(text) & set(";&|<>`")


@pytest.mark.parametrize("none", ["na", "NA", "none", "null", "~", "'.'", "'-'", "N/A", "''"])
def test_no_second_file_may_be_said_in_many_ways(none: str) -> None:
    text = f"pipeline: demo\nsamples: [{{sample_id: S1, fastq_r1: a.fq, fastq_r2: {none}}}]\n"
    assert accepted(text).samples == (Sample(sample_id="S1", fastq_r1="a.fq", line=2),)
    assert "missing" in only(text.replace("a.fq", none).replace(f"r2: {none}", "r2: b.fq")).what


@pytest.mark.parametrize(
    "key", ["dy-r", "clone", "budget", "export_uri", "pipeline", "workdir_name"]
)
@pytest.mark.parametrize("char", ["\u2018", "\u201f", "\u2010", "\u2015", "\u2212", "\u2026"])
def test_typographic_quotes_and_dashes_are_named_with_what_to_type(key: str, char: str) -> None:
    problems = refused(f"run: help\n{key}: a{char}b\n")
    told = next(problem for problem in problems if problem.where == f"line 2, key {key}")
    assert f"U+{ord(char):04X}" in told.what
    assert told.todo.startswith("Type ")


def test_keys_are_bounded() -> None:
    many = "".join(f"k{i}: x\n" for i in range(MAX_KEYS))
    assert f"at most {MAX_KEYS} are allowed" in only("dy-r: help\n" + many).what
    sample = ", ".join(f"k{i}: x" for i in range(MAX_KEYS + 1))
    assert only(f"pipeline: demo\nsamples: [{{{sample}}}]\n").where == "line 2, key samples[0]"
