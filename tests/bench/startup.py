"""How long a help and a completion take beside the import of the SDK: ``python -m tests.bench.startup``.

Each is a process of its own, one after another in rounds, so that whatever else this machine does slows all
of them down alike. Medians and their ratios to the import are printed; the medians are kept in
``.cache/figures/startup.json``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from time import perf_counter  # noqa: TID251 - what is measured
from typing import Final, NamedTuple

from tests import emulators

ROUNDS: Final = 20
PROGRAM: Final = (str(Path(sys.executable).with_name("daylily-daemon")),)
SDK: Final = "the SDK"


class Start(NamedTuple):
    argv: tuple[str, ...]
    environment: Mapping[str, str] = {}
    most: float | None = None
    """The ratio to the import of the SDK that is allowed."""


def _completion(shell: str, *words: str) -> Start:
    line = " ".join(("daylily-daemon", *words))
    told = {
        "_DAYLILY_DAEMON_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words)),
        "_TYPER_COMPLETE_ARGS": line,
    }
    return Start(PROGRAM, told, 0.3)


STARTS: Final[Mapping[str, Start]] = {
    "python": Start((sys.executable, "-c", "pass")),
    SDK: Start((sys.executable, "-c", "import aiobotocore.session")),
    "the parser": Start((sys.executable, "-c", "import typer")),
    "--help": Start((*PROGRAM, "--help"), most=0.6),
    "list --help": Start((*PROGRAM, "list", "--help"), most=0.6),
    "completion of a command": _completion("bash", "l"),
    "completion of an option": _completion("bash", "list", "--st"),
    "completion in zsh, which shows help": _completion("zsh", "l"),
}


def measure(rounds: int) -> dict[str, float]:
    """Return the median seconds of each start."""
    taken: dict[str, list[float]] = {name: [] for name in STARTS}
    for _ in range(rounds + 1):
        for name, start in STARTS.items():
            taken[name].append(_seconds(start))
    return {name: median(values[1:]) for name, values in taken.items()}  # the first one compiles


def _seconds(start: Start) -> float:
    began = perf_counter()
    subprocess.run(
        start.argv,
        env=os.environ | start.environment,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return perf_counter() - began


def main() -> None:
    figures = measure(ROUNDS)
    for name, seconds in figures.items():
        most = STARTS[name].most
        allowed = f"  (at most {most})" if most else ""
        ratio = seconds / figures[SDK]
        sys.stdout.write(f"{name:<36}{seconds:6.3f} s{ratio:6.2f} x{allowed}\n")
    kept = emulators.CACHE / "figures"
    kept.mkdir(parents=True, exist_ok=True)
    (kept / "startup.json").write_text(json.dumps(figures) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
