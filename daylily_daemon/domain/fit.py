"""Whether a pipeline does what a recipe and a sheet ask of it: what is accepted is obeyed.

A reference genome, a depth, a share of the reads: a pipeline that knows nothing of such a wish would run
without it, be complete, and the results would be those of another analysis. So a pipeline file names what it
obeys, and the rest is refused before anything runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final

from daylily_daemon.domain.document import shown
from daylily_daemon.domain.model import Category, Plan, Problem
from daylily_daemon.domain.pipeline import Pipeline, uses
from daylily_daemon.domain.recipe import Recipe
from daylily_daemon.domain.sheet import MAX_PROBLEMS, Sheet

SAME_GENOME: Final = {"grch38": "hg38"}
"""Names of one reference genome. GRCh37 is neither hg19 (another mitochondrion) nor b37 (other contigs)."""


def genome_of(pipeline: Pipeline, name: str) -> str | None:
    """Return the reference genome as the pipeline calls it; None if it does not run it."""
    if not pipeline.reference_genomes:
        return name if not name or uses(pipeline, "reference_genome") else None
    known = {_plain(one): one for one in reversed(pipeline.reference_genomes)}
    return known.get(_plain(name)) if name else ""


def unmet(pipeline: Pipeline, recipe: Recipe, sheet: Sheet) -> tuple[Problem, ...]:
    """Return every wish of recipe and sheet that the pipeline does not obey; at most 51."""
    return tuple(islice(_unmet(pipeline, recipe, sheet), MAX_PROBLEMS + 1))


def _unmet(pipeline: Pipeline, recipe: Recipe, sheet: Sheet) -> Iterator[Problem]:
    if genome_of(pipeline, recipe.reference_genome) is None:
        what = f"The pipeline {pipeline.name} does not run {shown(recipe.reference_genome)}"
        if pipeline.reference_genomes:
            todo = f"Use one of {', '.join(pipeline.reference_genomes)}, or another pipeline."
        else:
            what += ", as its file names no reference genomes"
            todo = "Leave the key out, or let an operator add `reference_genomes` to the pipeline's file."
        where = recipe.where.get("reference_genome", "key reference_genome")
        yield Problem(recipe.file, where, f"{what}.", todo, Category.CONFIGURATION)
    for row in sheet.rows:
        for wish in row.wishes:
            fault = _fault(pipeline, wish.name, wish.value)
            if fault:
                yield Problem(sheet.file, wish.where, *fault, Category.CONFIGURATION)


def _fault(pipeline: Pipeline, name: str, value: float) -> tuple[str, str] | None:
    limits = pipeline.obeys.get(name)
    if limits is None:
        what = (
            f"The pipeline {pipeline.name} does not obey {name}, so {value:g} would change nothing."
        )
        return what, "Leave it empty or write `na`, or choose a pipeline that does."
    least, most = limits
    if not least <= value <= most:
        what = (
            f"The pipeline {pipeline.name} takes {name} from {least:g} to {most:g}, not {value:g}."
        )
        return what, "Correct the number, or leave it out."
    return None


def _plain(name: str) -> str:
    return SAME_GENOME.get(name.lower(), name.lower())


def plan_of(recipe: Recipe, pipeline: Pipeline, results: str) -> Plan:
    """Return what is going to be run. ``results``: where they go if the recipe does not say."""
    return Plan(
        pipeline=pipeline.name,
        steps=tuple(template.step for template in pipeline.steps),
        optional=tuple(template.step for template in pipeline.steps if not template.fatal),
        own=tuple(template.step for template in pipeline.steps if template.is_own),
        results_required=pipeline.results_required,
        run_args=recipe.run_args,
        clone_args=recipe.clone_args,
        workdir_name=recipe.workdir_name,
        export_uri=recipe.export_uri or results,
        cluster_name=recipe.cluster_name,
        reference_genome=genome_of(pipeline, recipe.reference_genome) or "",
    )
