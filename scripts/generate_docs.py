"""Writes config/default.yaml and the generated parts of the documentation: what stands between these lines.

    <!-- generated: NAME -->
    <!-- end -->

Usage: generate_docs.py [--check] [FOLDER]. FOLDER holds README.md, docs/ and config/; by default this
repository. With --check nothing is written, and the exit code is 1 if a file is stale. Every block is made by
running the program's own functions: the messages of docs/input.md are what the checks really answer.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

sys.path.append(str(Path(__file__).resolve().parent.parent))  # for tests.fakes

import anyio
import failure_codes
import refused_examples
import reported_cases
import settings_pages
import simulated

from daylily_daemon.adapters.envelopes import Origin, submission
from daylily_daemon.adapters.inputs import S3Inputs
from daylily_daemon.adapters.objects import Denied
from daylily_daemon.cli.app import whole_program
from daylily_daemon.domain import columns, document, model, recipe, sheet, table
from daylily_daemon.domain.commands import apply
from daylily_daemon.domain.decision import NEXT
from daylily_daemon.domain.errors import DaemonError, Permanent
from daylily_daemon.domain.model import (
    Accepted,
    Archive,
    Ask,
    Cancel,
    Command,
    Delete,
    Ended,
    Ignore,
    Plan,
    Problem,
    Restore,
    Retry,
    State,
    Submit,
    WorksetId,
)
from daylily_daemon.domain.paths import S3Place
from daylily_daemon.domain.pipeline import Pipeline, StepTemplate
from daylily_daemon.domain.places import Territory
from daylily_daemon.domain.problems import MEANINGS
from daylily_daemon.domain.run import Run, StepEnd, StepRun
from daylily_daemon.domain.workset import Request, Workset
from daylily_daemon.figures import DESCRIBED
from daylily_daemon.in_force import pipelines_of
from daylily_daemon.settings.model import Settings
from tests.fakes.objects import MemoryObjects

ROOT: Final = Path(__file__).resolve().parent.parent
BLOCK: Final = re.compile(
    r"(?P<begin><!-- generated: (?P<name>[a-z-]+) -->\n).*?(?P<end><!-- end -->)", re.DOTALL
)
NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)
ID: Final = WorksetId("HG002-run7")
PREFIX: Final = Settings().control.prefix


class Stale(Exception):
    """A page names a block nobody makes, or a marker has no end."""


def main(arguments: Sequence[str]) -> int:
    check = "--check" in arguments
    folders = [Path(argument) for argument in arguments if argument != "--check"]
    stale: list[str] = []
    root = folders[0] if folders else ROOT
    for page in pages(root):
        text = page.read_text(encoding="utf-8")
        try:
            fresh = settings_pages.default_yaml() if page.suffix == ".yaml" else renewed(text)
        except Stale as error:
            stale.append(f"{page.relative_to(root)}: {error}")
            continue
        if fresh != text and check:
            stale.append(f"{page.relative_to(root)} is stale: run `make docs`.")
        elif fresh != text:
            page.write_text(fresh, encoding="utf-8")
    sys.stderr.write("".join(f"{line}\n" for line in stale))
    return 1 if stale else 0


def pages(root: Path) -> list[Path]:
    found = [
        root / "config/default.yaml",
        root / "README.md",
        *sorted((root / "docs").rglob("*.md")),
    ]
    return [page for page in found if page.exists()]


def renewed(text: str) -> str:
    """Return ``text`` with every block made anew. Raises Stale."""
    if text.count("<!-- generated:") != len(BLOCK.findall(text)):
        raise Stale("a generated block has no end, or an odd name")

    def block(found: re.Match[str]) -> str:
        make = BLOCKS.get(found["name"])
        if make is None:
            raise Stale(f"nobody generates a block called {found['name']}")
        return f"{found['begin']}{_made(make).rstrip()}\n{found['end']}"

    return BLOCK.sub(block, text)


@cache
def _made(make: Callable[[], str]) -> str:
    return make()


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    cells = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


# --- command line and metrics -------------------------------------------------------------------


def commands() -> str:
    rows = [
        (f"`{path} {_arguments(command)}`".replace(" `", "`"), _first_line(command))
        for path, command in _leaves("", whole_program())
    ]
    return _table(("command", "what it does"), rows)


def _leaves(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    for name, inner in getattr(command, "commands", {}).items():
        yield from _leaves(f"{path} {name}".strip(), inner)
    if not hasattr(command, "commands"):
        yield path, command


def _arguments(command: Any) -> str:
    names = [p.metavar or p.name.upper() for p in command.params if p.param_type_name == "argument"]
    return " ".join(names)


def _first_line(command: Any) -> str:
    return str(command.help).split("\n", 1)[0]


def problems() -> str:
    rows = [(f"`{kind}`", meaning) for kind, meaning in MEANINGS.items()]
    return _table(("kind, as `--json` names it", "what it means"), rows)


def metrics() -> str:
    rows = [
        (f"`{one.name}`", ", ".join(f"`{label}`" for label in one.labels), one.meaning)
        for one in DESCRIBED
    ]
    return _table(("metric", "labels", "meaning"), rows)


# --- states -------------------------------------------------------------------------------------

BY_ITSELF: Final[Mapping[tuple[State, State], str]] = {
    (State.READY, State.IN_PROGRESS): "claimed",
    (State.READY, State.ERROR): "input refused",
    (State.IN_PROGRESS, State.COMPLETE): "last step done",
    (State.IN_PROGRESS, State.ERROR): "step failed",
    (State.IN_PROGRESS, State.CANCELED): "cancel, once its job is stopped",
    (State.ERROR, State.RETRYING): "may pass, tries left",
    (State.ERROR, State.FAILED): "hopeless, or no tries left",
    (State.RETRYING, State.READY): "pause over",
}
"""What the daemon does without being asked, and a cancel that ends a run."""

ASKS: Final[Mapping[str, Ask]] = {
    "drop": Submit(bucket="lab", prefix=f"{PREFIX}{ID}/"),
    "cancel": Cancel(),
    "retry": Retry(),
    "ignore": Ignore(),
    "archive": Archive(),
    "restore": Restore(),
    "delete": Delete(),
}


def state_diagram() -> str:
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> ready: drop, submit"]
    for before, after in _edges():
        why = _causes(before, after)
        lines.append(f"    {before} --> {after}" + (f": {why}" if why else ""))
    lines += ["    deleted --> [*]", "```"]
    return "\n".join(lines)


def machines() -> str:
    """Draw what may follow what: worksets, steps, jobs and notices."""
    ends = [("running", str(end)) for end in StepEnd]
    over = [("started", str(end)) for end in Ended]
    told = [("owed", name) for name in ("told", "given_up")]
    drawn = {
        "workset": [(str(before), str(after)) for before, after in _edges()],
        "step": [("waiting", "running"), *ends, *((end, "waiting") for _, end in ends[-2:])],
        "job": [("free", "revoked"), ("free", "started"), *over],
        "notice": told,
    }
    lines = ["```mermaid", "stateDiagram-v2"]
    for machine, edges in drawn.items():
        lines.append(f"    state {machine} {{")
        names = dict.fromkeys(name for edge in edges for name in edge)
        lines += [f'        state "{name}" as {machine}_{name}' for name in names]
        lines += [f"        {machine}_{a} --> {machine}_{b}" for a, b in edges]
        lines.append("    }")
    return "\n".join([*lines, "```"])


def _edges() -> list[tuple[State, State]]:
    return [(before, after) for before in State for after in State if after in NEXT[before]]


def _causes(before: State, after: State) -> str:
    if before is State.ARCHIVED and after is not State.DELETED:
        return "restore"
    asked = [name for name, ask in ASKS.items() if _answer(before, ask).state is after != before]
    words = [BY_ITSELF.get((before, after), ""), *asked]
    return ", ".join(filter(None, words))


def command_effects() -> str:
    rows = [
        (f"`{state}`", *(_effect(state, ask) for ask in ASKS.values()))
        for state in State
        if state is not State.DELETED
    ]
    return _table(("state", *ASKS), rows)


def _effect(state: State, ask: Ask) -> str:
    if state is State.ARCHIVED and isinstance(ask, Restore):
        return "the state before `archived`"
    after = _answer(state, ask)
    if after.state is not state:
        return f"`{after.state}`"
    if after.run and after.run.stopping:
        return "its job is stopped, then `canceled`"
    before = _in_state(state)
    return "checked anew" if after.plan != before.plan else "none"


def _answer(state: State, ask: Ask) -> Workset:
    command = Command(id="1", workset_id=ID, by="cli:somebody", ask=ask)
    return apply(_in_state(state), command, NOW).workset


def _in_state(state: State) -> Workset:
    running = state is State.IN_PROGRESS
    return Workset(
        id=ID,
        request=Request(bucket="lab", prefix=f"{PREFIX}{ID}/"),
        created_at=NOW,
        updated_at=NOW,
        state=state,
        plan=Plan(pipeline="demo", steps=("run",)),
        attempt=1,
        run=Run(id="r1", attempt=1, key="", folder="", steps=(StepRun(name="run"),))
        if running
        else None,
    )


# --- input --------------------------------------------------------------------------------------


def limits() -> str:
    rows = [
        ("workset id", f"`{model.WORKSET_ID.pattern}`"),
        (f"`{sheet.RECIPE_FILE}`", f"{document.MAX_BYTES:,} bytes, UTF-8"),
        ("one value of it", f"{recipe.MAX_CHARS:,} characters"),
        ("aliases (`*name`) in it", f"{document.MAX_ALIASES}"),
        ("levels of nesting", f"{document.MAX_DEPTH}"),
        ("keys and values", f"{document.MAX_NODES:,}"),
        ("keys at the top, and of one sample", f"{recipe.MAX_KEYS}"),
        ("`max_retries`", f"0 to {recipe.MAX_RETRIES}"),
        (f"`{sheet.SHEET_FILE}`", f"{sheet.MAX_SHEET_BYTES:,} bytes, UTF-8"),
        ("rows", f"{sheet.MAX_ROWS:,}"),
        (
            "columns",
            f"{sheet.MAX_COLUMNS}, each with a name of at most {table.MAX_NAME} characters",
        ),
        ("input files named in it", f"{sheet.MAX_FILES:,}"),
        ("one input path", f"{sheet.MAX_PATH:,} characters"),
        ("ids of samples, runs, experiments and lanes", f"`{sheet.SAMPLE_ID.pattern}`"),
        ("problems told at once", f"{sheet.MAX_PROBLEMS}, then one line that counts the rest"),
    ]
    return _table(("what", "limit"), rows)


def recipe_keys() -> str:
    families = (
        ("arguments of the run; needed unless `pipeline` is given", recipe.RUN_KEYS),
        ("arguments of `day-clone`", recipe.CLONE_KEYS),
        ("where results go; without it `results/` in the workset's own folder", recipe.EXPORT_KEYS),
        ("cluster", recipe.CLUSTER_KEYS),
    )
    rows = [(what, ", ".join(f"`{key}`" for key in keys)) for what, keys in families]
    return _table(("what", "keys, the first that is not empty counts"), rows)


def sheet_columns() -> str:
    return ", ".join(f"`{name}`" for name in columns.COLUMNS)


def other_columns() -> str:
    return ", ".join(f"`{name}`" for name in columns.OTHER_COLUMNS)


def input_columns() -> str:
    """Show what columns of each form bring, as the table of the check says."""
    examples = (
        "R1_FQ",
        "R2_FQ",
        "ONT_FQ1",
        "PB_BAM",
        "ONT_POD5",
        "ONT_FASTQ_PREFIX",
        "ONT_POD5_DIR",
    )
    rows = []
    for name in examples:
        column = columns.input_column(name)
        kinds = [columns.named(column, cell)[0] for cell in ("x", "x/")] if column else []
        rows.append((f"`{name}`", *(str(kind) for kind in kinds)))
    return _table(("such as", "`x` is a", "`x/` is a"), rows)


def refused_recipes() -> str:
    """Show what reading a recipe answers, one example a refusal."""
    answers = [recipe.read_recipe(data, ID) for data in refused_examples.RECIPES]
    return _messages(problem for found in answers for problem in _problems(found)[:1])


def refused_sheets() -> str:
    header = b"RUN_ID\tSAMPLE_ID\tLANE\tR1_FQ\tR2_FQ\n"
    answers = [sheet.read_sheet(header + row) for row in refused_examples.ROWS]
    answers += [sheet.read_sheet(whole) for whole in refused_examples.SHEETS]
    return _messages(problem for found in answers for problem in _problems(found)[:1])


def _problems(found: object) -> tuple[Problem, ...]:
    if not isinstance(found, tuple):
        raise TypeError(f"an example of a refusal was accepted: {found}")
    return found


def _messages(problems: Iterator[Problem]) -> str:
    texts = (LONG_VALUE.sub(r"'\1…'", str(problem)) for problem in problems)
    return "\n".join(["```text", *dict.fromkeys(texts), "```"])


LONG_VALUE: Final = re.compile(r"'([^']{40})[^']{80,}'")
"""Shortened further than the program does."""


def refused_inputs() -> str:
    """Show what the check of a whole drop answers: files that are not there, not readable, not usable."""
    problems = [_problems(anyio.run(_inspected, drop))[0] for drop in DROPS]
    named = submission(Origin(bucket="lab", prefix=PREFIX), "run 7 (new)", "1", "s3").ask
    if isinstance(named, Submit) and named.problem:
        problems.append(named.problem)
    many = tuple(Problem(sheet.SHEET_FILE, "", "", "") for _ in range(sheet.MAX_PROBLEMS + 412))
    return _messages(iter([*problems, sheet.capped(many)[-1]]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    recipe: str | None = "dy-r: x\n"
    path: str = "s3://reads/a_R1.fastq.gz"
    """What the sheet names."""
    root: str = "/fsx"
    """Where local files may lie."""
    stored: bytes | None = None
    storage_class: str = "STANDARD"
    more: tuple[str, str] = ("", "")
    """One more column of the sheet, and its cell."""
    denied: str = ""
    """Bucket that the daemon has no access to."""
    error: DaemonError | None = None


async def _inspected(drop: Drop) -> tuple[Problem, ...]:
    objects, ws = MemoryObjects(), replace(_in_state(State.READY), plan=None)
    shipped = {**pipelines_of(Settings()), BARE.name: BARE}
    land = Territory(control=S3Place(ws.request.bucket, PREFIX), closed=("/fsx/data/worksets",))
    inputs = S3Inputs(
        objects, lambda: "demo", lambda: shipped, local_roots=[drop.root], territory=land
    )
    if drop.recipe is not None:
        await objects.put(
            ws.request.bucket, ws.request.prefix + sheet.RECIPE_FILE, drop.recipe.encode()
        )
    name, cell = drop.more
    rows = f"SAMPLE_ID\tR1_FQ\t{name}\nS1\t{drop.path}\t{cell}\n".encode()
    await objects.put(ws.request.bucket, ws.request.prefix + sheet.SHEET_FILE, rows)
    if drop.stored is not None:
        kind = drop.storage_class
        await objects.put("reads", "a_R1.fastq.gz", drop.stored, storage_class=kind)
    if drop.denied:
        objects.refuse(drop.denied, "", drop.error or Denied("AccessDenied."))
    found = await inputs.inspect(ws)
    return () if isinstance(found, Accepted) else found.problems


BARE: Final = Pipeline(name="own", steps=(StepTemplate(step="run", argv=("true",)),))
DROPS: Final = (
    Drop(recipe="pipeline: demo\nreference_genome: mm10\n"),
    Drop(recipe="pipeline: own\nreference_genome: hg38\n"),
    Drop(recipe="pipeline: demo\n", more=("SUBSAMPLE_PCT", "0.5")),
    Drop(recipe="pipeline: daylily-omics\ndy-r: x\n", more=("SUBSAMPLE_PCT", "50")),
    Drop(recipe=None),
    Drop(recipe="dy-r: x\n" + "# \n" * 90_000),
    Drop(recipe="pipeline: germline\n"),
    Drop(),
    Drop(path="/fsx/no_such_folder/a_R1.fastq.gz"),
    Drop(path="/home/lab/a_R1.fastq.gz"),
    Drop(path="/usr", root="/usr"),
    Drop(path="/fsx/data/worksets/HG003/r1/stage/a_R1.fastq.gz"),
    Drop(path=f"s3://lab/{PREFIX}HG003/a_R1.fastq.gz"),
    Drop(recipe=f"dy-r: x\nexport_uri: s3://lab/{PREFIX}HG003/results/\n"),
    Drop(recipe=f"dy-r: x\nexport_uri: s3://lab/{PREFIX}{ID}/\n"),
    Drop(recipe="dy-r: x --configfile ../HG003/config.yaml\n"),
    Drop(more=("PATH_TO_CONCORDANCE_DATA_DIR", "/fsx/data/worksets/HG003/")),
    Drop(denied="reads"),
    Drop(denied="lab", error=Permanent("The bucket is in another region.")),
    Drop(denied="reads", error=Permanent("The object is encrypted with a key of its owner.")),
    Drop(stored=b""),
    Drop(stored=b"@", storage_class="DEEP_ARCHIVE"),
)


def reported() -> str:
    try:
        return reported_cases.table(ROOT)
    except ValueError as error:
        raise Stale(str(error)) from error


BLOCKS: Final[Mapping[str, Callable[[], str]]] = {
    "settings": settings_pages.table,
    "commands": commands,
    "metrics": metrics,
    "problems": problems,
    "machines": machines,
    "state-diagram": state_diagram,
    "command-effects": command_effects,
    "failure-codes": lambda: _table(failure_codes.HEADING, failure_codes.rows(_in_state)),
    "limits": limits,
    "recipe-keys": recipe_keys,
    "sheet-columns": sheet_columns,
    "other-columns": other_columns,
    "input-columns": input_columns,
    "refused-recipes": refused_recipes,
    "refused-sheets": refused_sheets,
    "refused-inputs": refused_inputs,
    "reported-cases": reported,
    "simulated-troubles": lambda: simulated.troubles(ROOT),
    "simulated-knobs": lambda: simulated.knobs(ROOT),
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
