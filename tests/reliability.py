"""Measure what docs/reliability.md claims, and write it there: ``make reliability``.

Everything between ``<!-- measured: NAME -->`` and ``<!-- end -->`` is replaced. What another run left under
``.cache/figures`` (the wire faults, the kill loop) is taken from there; a figure nobody measured is a dash.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from tests.arch.repository import ROOT
from tests.model import check
from tests.sim.hunt import DRIVERS, pairs_of, quietly
from tests.sim.mutants import BY_NAME, MUTANTS
from tests.sim.stories import STORIES, Outcome, crash_points, play_with_deaths
from tests.sim.storms import play_seed
from tests.sim.wire import Death

PAGE: Final = ROOT / "docs" / "reliability.md"
FIGURES: Final = ROOT / ".cache" / "figures"
SEEDS: Final = 2000
ALL: Final = 10**6
ENUMERATED: Final = ("plain", "failing", "canceled", "busy", "deserted", "dropped", "hasty")
PAIRED: Final = ("plain", "failing", "canceled")


@dataclass(frozen=True, slots=True)
class Row:
    """Many plays of one kind."""

    name: str
    plays: int = 0
    simulated_s: float = 0.0
    seconds: float = 0.0
    broken: int = 0

    def __add__(self, other: Row) -> Row:
        return Row(
            self.name,
            self.plays + other.plays,
            self.simulated_s + other.simulated_s,
            self.seconds + other.seconds,
            self.broken + other.broken,
        )

    def __str__(self) -> str:
        hours = self.simulated_s / 3600
        rate = f"{hours:,.1f} | {hours / self.seconds:,.1f}"
        return f"| {self.name} | {self.plays:,} | {rate} | {self.broken} |"


def _played(name: str, plays: Iterable[Callable[[], Outcome]]) -> Row:
    row = Row(name)
    with quietly():
        for play in plays:
            started = time.perf_counter()  # noqa: TID251 - reported, not judged
            outcome = play()
            seconds = time.perf_counter() - started  # noqa: TID251
            row += Row(name, 1, outcome.virtual_s, seconds, bool(outcome.broken))
    return row


def _points_of(name: str, cut_s: float = 0.0) -> list[Death]:
    with quietly():
        return crash_points(STORIES[name], cut_s)


def _struck(name: str, deaths: Iterable[frozenset[Death]]) -> Iterator[Callable[[], Outcome]]:
    return (partial(play_with_deaths, STORIES[name], struck) for struck in deaths)


def _points(name: str) -> Row:
    points = _points_of(name)
    return _played(f"killed at every effect: {name}", _struck(name, map(_alone, points)))


def _alone(death: Death) -> frozenset[Death]:
    return frozenset([death])


def _pairs(name: str) -> Row:
    pairs = pairs_of(_points_of(name), ALL)
    return _played(f"killed at every pair of effects: {name}", _struck(name, pairs))


def _cuts() -> Row:
    points = _points_of("shared", cut_s=200.0)
    return _played(
        "cut off for 200 s at every effect: shared", _struck("shared", map(_alone, points))
    )


def _storms(seeds: range) -> Row:
    return _played("storms, a seed each", (partial(play_seed, seed) for seed in seeds))


def _simulation(pool: ProcessPoolExecutor) -> str:
    jobs = [pool.submit(_points, name) for name in ENUMERATED]
    jobs += [pool.submit(_pairs, name) for name in PAIRED]
    jobs += [pool.submit(_cuts)]
    storms = [pool.submit(_storms, range(at, at + 100)) for at in range(0, SEEDS, 100)]
    rows = [job.result() for job in jobs]
    rows.append(sum((job.result() for job in storms[1:]), storms[0].result()))
    rows.append(sum(rows, Row("**all**")))
    head = "| played | plays | simulated hours | simulated hours per second | broke a promise |"
    return "\n".join([head, "|---|---:|---:|---:|---:|", *map(str, rows)])


def _evidence(name: str) -> list[str]:
    with quietly():
        return [driver(BY_NAME[name]) for driver in DRIVERS.values()]


def _mutants(pool: ProcessPoolExecutor) -> str:
    head = f"| mutant | the bug | {' | '.join(DRIVERS)} |"
    lines = [head, "|---|---|" + "---|" * len(DRIVERS)]
    names = [mutant.name for mutant in MUTANTS]
    living = []
    for mutant, found in zip(MUTANTS, pool.map(_evidence, names), strict=True):
        cells = " | ".join("caught" if evidence else "" for evidence in found)
        lines.append(f"| `{mutant.name}` | {mutant.bug} | {cells} |")
        living += [] if any(found) else [mutant.name]
    alive = f"{len(living)} live: {', '.join(living)}" if living else "none lives"
    return "\n".join([*lines, "", f"{len(MUTANTS)} mutants; {alive}."])


def _model(pool: ProcessPoolExecutor) -> str:
    lines = ["| search | states | transitions | seconds | result |", "|---|---:|---:|---:|---|"]
    for result in map(check.run, check.CASES):
        found = result.figures
        broken = found.violated.replace("|", "\\|")
        says = f"found: `{broken}` is violated" if broken else "holds"
        lines.append(
            f"| {result.case.name} | {found.states:,} | {found.transitions:,} | {found.seconds:.1f} | "
            f"{result.complaint or says} |"
        )
    return "\n".join(lines)


def _left(name: str) -> dict[str, Any]:
    file = FIGURES / f"{name}.json"
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else {}


def _machines(pool: ProcessPoolExecutor) -> str:
    kills, wire = _left("kills"), _left("wire")
    return "\n".join(
        [
            "| on real parts | figure |",
            "|---|---:|",
            f"| kill -9 of the daemon | {kills.get('kills', '-')} |",
            f"| worksets meanwhile | {kills.get('worksets', '-')} |",
            f"| jobs, each started exactly once by its shim's own evidence | {kills.get('jobs', '-')} |",
            f"| AWS calls the program makes, each behind a broken wire | {wire.get('calls', '-')} |",
            f"| ways in which the wire breaks | {wire.get('faults', '-')} |",
            f"| wire cases played | {wire.get('cases', '-')} |",
        ]
    )


BLOCKS: Final[dict[str, Callable[[ProcessPoolExecutor], str]]] = {
    "simulation": _simulation,
    "mutants": _mutants,
    "model": _model,
    "machines": _machines,
}


def main() -> int:
    text = PAGE.read_text(encoding="utf-8")
    with ProcessPoolExecutor() as pool:
        for name, measure in BLOCKS.items():
            block = re.compile(rf"(<!-- measured: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
            measured = measure(pool)
            text, found = block.subn(lambda m, new=measured: f"{m[1]}{new}\n{m[2]}", text)  # type: ignore[misc]
            if found != 1:
                sys.stderr.write(
                    f"{PAGE.name} has {found} blocks 'measured: {name}'; it needs one.\n"
                )
                return 1
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
