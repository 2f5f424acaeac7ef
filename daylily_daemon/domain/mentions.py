"""Paths and addresses that a recipe or sheet holds besides its inputs: in arguments, and in other columns.

Nothing here fetches them, but the pipeline may read them with the daemon's rights. So what they say is
judged as inputs are, as far as it can be told without running anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from daylily_daemon.domain.columns import input_column
from daylily_daemon.domain.document import BadDocument, shown
from daylily_daemon.domain.model import Category, Problem
from daylily_daemon.domain.paths import LocalPlace, Place
from daylily_daemon.domain.places import AGAIN, Territory, Use, judge, leads_upwards, mentioned
from daylily_daemon.domain.recipe import Recipe
from daylily_daemon.domain.sheet import RECIPE_FILE, SHEET_FILE
from daylily_daemon.domain.table import Enough, Problems, read_table

MAX_MENTIONS: Final = 20_000
"""Different cells of a sheet, besides inputs, that hold a path."""


@dataclass(frozen=True, slots=True)
class Mention:
    file: str
    where: str
    text: str

    def places(self) -> tuple[Place, ...]:
        return mentioned(self.text)


def mentions_in_recipe(recipe: Recipe) -> tuple[Mention, ...]:
    """Return the arguments that may hold a path."""
    run = ((argument, "arguments of the run") for argument in recipe.run_args)
    clone = ((argument, "arguments of the clone") for argument in recipe.clone_args)
    return tuple(
        Mention(RECIPE_FILE, where, text) for text, where in (*run, *clone) if _may_hold_one(text)
    )


def mentions_in_sheet(data: bytes) -> tuple[Mention, ...]:
    """Return the cells that may hold a path and name no input, each text once, up to one too many."""
    found: dict[str, Mention] = {}
    for mention in _cells(data):
        found.setdefault(mention.text, mention)
        if len(found) > MAX_MENTIONS:
            break
    return tuple(found.values())


def judge_mentions(mentions: Sequence[Mention], territory: Territory) -> list[Problem]:
    """Return what of these the workset may not name."""
    problems = [problem for one in mentions[:MAX_MENTIONS] if (problem := _judged(one, territory))]
    if len(mentions) > MAX_MENTIONS:
        what = f"More than {MAX_MENTIONS:,} cells besides the inputs hold a path."
        problems.append(Problem(SHEET_FILE, "", what, "Leave out the columns that nothing reads."))
    return problems


def mention_problem(mention: Mention, what: str, todo: str) -> Problem:
    return Problem(mention.file, mention.where, what, f"{todo}, {AGAIN}", Category.CONFIGURATION)


def local_paths(mentions: Sequence[Mention]) -> Iterator[tuple[Mention, str]]:
    for mention in mentions[:MAX_MENTIONS]:
        for place in mention.places():
            if isinstance(place, LocalPlace):
                yield mention, place.path


def _judged(mention: Mention, territory: Territory) -> Problem | None:
    if leads_upwards(mention.text):
        what = f"{shown(mention.text, 300)} leads upwards by `..`."
        return mention_problem(mention, what, "Write the whole path")
    for place in mention.places():
        if fault := judge(place, Use.MENTION, territory):
            return mention_problem(mention, *fault)
    return None


def _may_hold_one(text: str) -> bool:
    return "/" in text or ".." in text or "%" in text


def _cells(data: bytes) -> Iterator[Mention]:
    try:
        table = read_table(data, Problems(SHEET_FILE))
    except (BadDocument, Enough):
        return
    if table is None:
        return
    others = [(i, name) for i, name in enumerate(table.columns) if input_column(name) is None]
    for line, cells in table.rows:
        for i, name in others:
            if _may_hold_one(cells[i]):
                yield Mention(SHEET_FILE, f"line {line}, column {name}", cells[i])
