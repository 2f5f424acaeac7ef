"""Play one simulated story again, with its log: ``python -m tests.sim --seed 7``."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

from tests.sim.mutants import BY_NAME
from tests.sim.stories import STORIES, play_with_deaths
from tests.sim.storms import STORM, play_seed
from tests.sim.wire import Death


def _strike(text: str, cut_s: float) -> Death:
    return Death(int(text[:-1]), text.endswith("a"), cut_s)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("story", nargs="?", default="plain", choices=sorted(STORIES))
    parser.add_argument("--seed", type=int, help="a storm instead of a story")
    parser.add_argument(
        "--strike", action="append", default=[], help="12b: before effect 12; 12a: after it"
    )
    parser.add_argument("--cut", type=float, default=0.0, help="cut off for so long, do not kill")
    parser.add_argument("--mutant", choices=sorted(BY_NAME), help="plant this bug")
    options = parser.parse_args()
    story = STORIES[options.story]
    if options.mutant:
        story = STORIES[options.story].with_bug(BY_NAME[options.mutant].plant)
    if options.seed is not None:
        outcome = play_seed(options.seed, replace(STORM, patches=story.patches))
    else:
        deaths = frozenset(_strike(text, options.cut) for text in options.strike)
        outcome = play_with_deaths(story, deaths)
    for drawn in outcome.drawn:
        sys.stdout.write(f"drawn: {drawn}\n")
    for line in outcome.history:
        sys.stdout.write(f"{line[2]} {line[0]:<12} {line[1]:<12} {line[3]}\n")
    sys.stdout.write("\n".join(outcome.broken) + "\n" if outcome.broken else "nothing broke\n")
    return bool(outcome.broken)


if __name__ == "__main__":
    sys.exit(main())
