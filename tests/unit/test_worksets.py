"""Worksets as labs really drop them, each in a folder of tests/worksets with what must come of it.

``expected.txt`` says ``accepted`` or ``refused``, and below that what must be told: pieces of messages, or
inputs with their kind, or the genome of the plan.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from daylily_daemon.adapters.inputs import S3Inputs
from daylily_daemon.adapters.pipelines import load_pipelines
from daylily_daemon.domain.model import Accepted, Inspection, Refused, WorksetId
from daylily_daemon.domain.recipe import Recipe, read_recipe
from daylily_daemon.domain.sheet import (
    RECIPE_FILE,
    SHEET_FILE,
    S3Place,
    Sheet,
    places_of,
    read_sheet,
    sheet_from_samples,
)
from daylily_daemon.settings.sources import shipped
from tests.fakes.objects import MemoryObjects
from tests.made import a_workset

FOLDERS = Path(__file__).parent.parent / "worksets"
WORKSETS = sorted(path.parent.name for path in FOLDERS.glob("*/expected.txt"))
BUCKET = "lab"


def sheet_of(folder: Path) -> Sheet | None:
    """Return what names the input of a workset; None if it cannot be read."""
    file = folder / SHEET_FILE
    if file.exists():
        found = read_sheet(file.read_bytes())
        return found if isinstance(found, Sheet) else None
    recipe = read_recipe((folder / RECIPE_FILE).read_bytes(), WorksetId(folder.name))
    return sheet_from_samples(recipe.samples) if isinstance(recipe, Recipe) else None


async def inspected(folder: Path) -> Inspection:
    """Return what is answered when every input that the sheet names is there."""
    objects, prefix = MemoryObjects(), f"active/{folder.name}/"
    for name in (RECIPE_FILE, SHEET_FILE):
        if (folder / name).exists():
            await objects.put(BUCKET, prefix + name, (folder / name).read_bytes())
    sheet = sheet_of(folder)
    for place, kind in (places_of(sheet, BUCKET, prefix) if sheet else {}).items():
        assert isinstance(place, S3Place)
        await objects.put(place.bucket, place.key + ("one.fq.gz" if kind.is_folder else ""), b"@")
    workset = a_workset(folder.name, bucket=BUCKET, prefix=prefix)
    pipelines = load_pipelines(shipped("pipelines"))
    return await S3Inputs(
        objects, lambda: "daylily-omics", lambda: pipelines, local_roots=[]
    ).inspect(workset)


def facts(folder: Path, found: Accepted) -> Iterator[str]:
    yield f"genome: {found.plan.reference_genome}"
    sheet = sheet_of(folder)
    for row in sheet.rows if sheet else ():
        yield from (f"{file.path}: {file.kind}" for file in row.files)


@pytest.mark.parametrize("name", WORKSETS)
async def test_a_dropped_workset_is_accepted_or_told_what_is_wrong(name: str) -> None:
    folder = FOLDERS / name
    verdict, *pieces = (folder / "expected.txt").read_text(encoding="utf-8").splitlines()
    found = await inspected(folder)
    if verdict == "accepted":
        assert isinstance(found, Accepted), found
        assert set(pieces) <= set(facts(folder, found))
    else:
        assert isinstance(found, Refused), found
        told = "\n".join(str(problem) for problem in found.problems)
        assert [piece for piece in pieces if piece not in told] == []


def test_there_are_worksets_of_many_kinds() -> None:
    assert len(WORKSETS) > 20
