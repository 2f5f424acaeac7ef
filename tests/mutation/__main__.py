"""Play mutants of the domain and the engine, and say what no test noticed: ``make mutate``.

``python -m tests.mutation`` plays and reports; ``... report`` only reports; ``... write`` puts the figures
into docs/reliability.md. MINUTES, PROCESSES, CHANGED=1 and FRESH=1 come from the environment.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from tests.arch.repository import ROOT
from tests.mutation import play, results
from tests.mutation.results import BARS, Module, layer

PAGE = ROOT / "docs" / "reliability.md"
BLOCK = re.compile(r"(<!-- measured: mutation -->\n).*?(<!-- end -->)", re.DOTALL)
HEAD = (
    "| module | refused by mypy | played | killed | timed out | lived | not played | noticed |\n"
    "|---|---:|---:|---:|---:|---:|---:|---:|"
)
ON = frozenset({"1", "yes", "true"})


def _is_on(name: str) -> bool:
    return os.environ.get(name, "") in ON


def table(modules: Sequence[Module]) -> str:
    layers = [layer(name, modules) for name in BARS]
    rows = [*(module.tally for module in modules), *(one for one in layers if one.played)]
    return "\n".join([HEAD, *map(str, rows)])


def complaints(modules: Sequence[Module]) -> list[str]:
    why = results.reasons()
    low = [
        f"{name}: {rate:.1f} % noticed, less than {bar:.0f} %"
        for name, bar in BARS.items()
        if (rate := layer(name, modules).rate) < bar
    ]
    bare = [f"lives without a reason: {name}" for name in results.unexplained(modules, why)]
    old = [f"its reason is stale: {name}" for name in results.stale(modules, why)]
    return low + bare + old


def _report(modules: Sequence[Module]) -> int:
    found = complaints(modules)
    sys.stdout.write("\n".join([table(modules), "", *found, ""]))
    if left := sum(module.tally.left for module in modules):
        sys.stdout.write(f"{left:,} mutants were not played; the next run goes on from here.\n")
    return 1 if found else 0


def _write(modules: Sequence[Module]) -> int:
    today = datetime.now(UTC).date()  # noqa: TID251 - the date of a measurement
    left = sum(module.tally.left for module in modules)
    rest = f"; {left:,} mutants are left, those of them that mypy refuses too" if left else ""
    measured = f"Played on {today}{rest}.\n\n{table(modules)}"
    text = PAGE.read_text(encoding="utf-8")
    text, found = BLOCK.subn(lambda m: f"{m[1]}{measured}\n{m[2]}", text)
    PAGE.write_text(text, encoding="utf-8")
    return 0 if found == 1 else 1


def main(arguments: Sequence[str]) -> int:
    only = play.changed_since(play.BASE) if _is_on("CHANGED") else None
    if not arguments:
        minutes = float(os.environ.get("MINUTES", "60"))
        budget = play.Budget(
            minutes=minutes, processes=int(os.environ.get("PROCESSES", "2")), only=only
        )
        play.play(budget, afresh=_is_on("FRESH"))
    os.chdir(play.PLACE)
    modules = results.read(only)
    return _write(modules) if list(arguments) == ["write"] else _report(modules)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
