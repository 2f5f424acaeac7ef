"""How many simulated hours a second of one core plays: ``python -m tests.bench.simulation``.

The same storms and crash points are played by this checkout and, with ``--against FOLDER``, by another one,
in turn and each time in a process of its own, which may run on one core only. What counts is the time of the
processor, not of the clock on the wall: other work on the machine disturbs it little, and meets both.

Beside the speed stands how much happened in a simulated hour, so that nobody takes a thinner story for a
faster one: effects, records, jobs started, crashes. With ``--counts`` nothing is timed, and the calls that
crossed a wire are counted by name.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from time import process_time  # noqa: TID251 - what is measured
from typing import Any, Final

from tests.sim.hunt import quietly
from tests.sim.stories import STORIES, crash_points, play_with_deaths
from tests.sim.storms import play_seed
from tests.sim.wire import Wire

HERE: Final = Path(__file__).resolve().parents[2]
POINTS_OF: Final = ("failing", "canceled", "deserted")
EVERY: Final = 6
"""Of the crash points of a story, one in so many is played."""
CUT_S: Final = 200.0


def _plays(seeds: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    for seed in range(seeds):
        yield "storms", partial(play_seed, seed)
    struck = [(name, death) for name in POINTS_OF for death in crash_points(STORIES[name])[::EVERY]]
    struck += [("shared", death) for death in crash_points(STORIES["shared"], CUT_S)[::EVERY]]
    for name, death in struck:
        yield "crash points", partial(play_with_deaths, STORIES[name], frozenset([death]))


def _played(seeds: int) -> dict[str, Counter[str]]:
    """Return, for each kind of play, the seconds of the processor and what happened in it."""
    found: dict[str, Counter[str]] = {}
    with quietly():
        for kind, play in _plays(seeds):
            began = process_time()
            outcome = play()
            row = found.setdefault(kind, Counter())
            row["plays"] += 1
            row["cpu_s"] += process_time() - began  # type: ignore[assignment]
            row["simulated_s"] += outcome.virtual_s
            row["effects"] += len(outcome.effects)
            row["records"] += len(outcome.history)
            row["starts"] += outcome.starts
            row["crashes"] += outcome.crashes
            row["troubles"] += len(outcome.drawn)
            row["broken"] += bool(outcome.broken)
    return found


def _counted(tally: Counter[str]) -> None:
    """Count the calls that cross a wire from now on."""
    call = Wire.call

    async def counted(self: Wire, role: str, name: str, do: Any) -> Any:
        tally[f"{role}.{name}"] += 1
        return await call(self, role, name, do)

    Wire.call = counted  # type: ignore[method-assign]


def _child(options: argparse.Namespace) -> int:
    tally: Counter[str] = Counter()
    if options.counts:
        _counted(tally)
    found = _played(options.seeds)
    json.dump({"played": found, "counts": tally}, sys.stdout)
    return 0


def _measured(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    asked = [sys.executable, str(Path(__file__).resolve()), "--child", f"--seeds={options.seeds}"]
    asked += ["--counts"] if options.counts else []
    answer = subprocess.run(
        asked,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        check=True,
        stdout=subprocess.PIPE,
        preexec_fn=_keep_to_one_core,
    )
    return dict(json.loads(answer.stdout))


def _keep_to_one_core() -> None:
    os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])


def _told(folder: Path, rounds: list[dict[str, Any]]) -> dict[str, float]:
    speeds = {}
    sys.stdout.write(f"{folder}\n")
    for kind, row in rounds[0]["played"].items():
        hours = row["simulated_s"] / 3600
        speeds[kind] = median(hours / each["played"][kind]["cpu_s"] for each in rounds)
        per_hour = {name: row[name] / hours for name in ("effects", "records", "starts", "crashes")}
        happened = ", ".join(f"{name} {value:.1f}" for name, value in per_hour.items())
        sys.stdout.write(
            f"  {kind}: {row['plays']} plays, {hours:.1f} simulated hours, {row['broken']} broken; "
            f"{speeds[kind]:.2f} simulated hours a second per core; an hour: {happened}\n"
        )
    counts = rounds[0]["counts"]
    hours = sum(row["simulated_s"] for row in rounds[0]["played"].values()) / 3600
    total = sum(counts.values())
    for name, count in Counter({"calls": total, **counts}).most_common() if total else ():
        sys.stdout.write(f"    {count / hours:10,.1f} {name} an hour\n")
    return speeds


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=60, help="storms to play")
    parser.add_argument("--rounds", type=int, default=3, help="measurements; the median is shown")
    parser.add_argument("--against", type=Path, help="another checkout, played in turn with this")
    parser.add_argument("--counts", action="store_true", help="count calls, time nothing")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return _child(options)
    folders = [HERE, *([options.against.resolve()] if options.against else [])]
    found: dict[Path, list[dict[str, Any]]] = {folder: [] for folder in folders}
    for _ in range(1 if options.counts else options.rounds):
        for folder in folders:
            found[folder].append(_measured(folder, options))
    speeds = [_told(folder, found[folder]) for folder in folders]
    for kind, speed in speeds[0].items() if len(speeds) > 1 else ():
        sys.stdout.write(f"{kind}: {speed / speeds[1][kind]:.2f} times as fast\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
