"""Check the model of lease and start token with SPIN, and that every seeded bug is found.

    python -m tests.model.check [--large] [--json] [--only NAME ...] [--jobs 2]

A *case* is one search of ``lease.pml`` under some ``-D``. The right model must hold: no error, a complete
search, and no line that was never reached (a step that can never be taken proves nothing). A mutant must
break, and break what it is meant to break: the expression of the violated assertion is compared.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

MODEL: Final = Path(__file__).with_name("lease.pml")
TOOLS: Final = ("spin", "gcc")
INSTALL: Final = "apt-get install --no-install-recommends spin gcc libc6-dev"
SETTLES: Final = "never_lost"
"""What is broken where the temporal formula of that name does not hold."""


class CannotCheck(Exception):
    """SPIN or gcc is missing, or refuses the model; the text is a sentence for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    name: str
    defines: tuple[str, ...] = ()
    breaks: str = ""
    """Part of the assertion that must be violated, or ``SETTLES``; empty where all must hold."""
    daemons: int = 2
    memory_mb: int = 2000
    compact: bool = False
    """Store 64-bit hashes instead of states: may miss a state with a probability near 1e-5."""
    depth: int = 100_000
    """Longest path the search may follow; one that is longer makes the search incomplete."""

    @property
    def temporal(self) -> bool:
        return "QUIET_PHASE" in self.defines

    @property
    def spin_options(self) -> list[str]:
        return [f"-D{name}" for name in (f"DAEMONS={self.daemons}", *self.defines)]

    @property
    def gcc_options(self) -> list[str]:
        """Mutants are found in no time, so compiling is what they cost: hence ``-O0``.

        They are searched breadth-first, so that the path found is a shortest one.
        """
        speed = "-O0" if self.breaks else "-O2"
        options = [speed, "-DNOREDUCE", f"-DMEMLIM={self.memory_mb}"]
        if not self.temporal:
            options.append("-DSAFETY")
        if self.breaks and not self.temporal:
            options.append("-DBFS")
        return [*options, "-DHC4"] if self.compact else options

    @property
    def pan_options(self) -> list[str]:
        return [f"-m{self.depth}", "-w22", *(["-a"] if self.temporal else [])]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What one search reported."""

    states: int
    transitions: int
    depth: int
    seconds: float
    memory_mb: float
    errors: int
    complete: bool
    violated: str = ""
    """The violated assertion, or ``SETTLES``; empty if none was."""
    unreached: tuple[str, ...] = ()
    """Statements of the model that no path came to."""


@dataclass(frozen=True, slots=True)
class Result:
    case: Case
    figures: Figures

    @property
    def complaint(self) -> str:
        """Return what is wrong, as a sentence; empty if all is as it must be."""
        found, name = self.figures, self.case.name
        if self.case.breaks:
            return _mutant_lives(name, self.case.breaks, found)
        if found.errors:
            return f"{name}: the model violates {found.violated}; see README.md for the path."
        if not found.complete:
            return f"{name}: the search was cut off, so nothing is proven; give it memory or depth."
        if found.unreached:
            return f"{name}: never reached, so nothing is proven of it: {found.unreached[0]}"
        return ""


def _mutant_lives(name: str, breaks: str, found: Figures) -> str:
    if not found.errors:
        return f"{name}: the seeded bug was not found; the model is too weak to see it."
    if breaks not in found.violated:
        return f"{name}: broke {found.violated!r}, but it was seeded to break {breaks!r}."
    return ""


RIGHT: Final = (
    Case(name="right"),
    Case(name="right, with pauses", defines=("PAUSE",)),
    Case(name="right, settles", defines=("QUIET_PHASE",)),
)
LARGE: Final = (
    Case(name="right, settles, with pauses", defines=("QUIET_PHASE", "PAUSE")),
    Case(name="right, with pauses, two launches", defines=("PAUSE", "LAUNCHES=2")),
    *(
        replace(
            case,
            name=f"{case.name}, 3 daemons",
            daemons=3,
            compact=True,
            depth=1_000_000,
            memory_mb=8000,
        )
        for case in RIGHT
    ),
)


def _mutant(name: str, breaks: str, *more: str) -> Case:
    return Case(name=name, defines=(name, *more), breaks=breaks)


MUTANTS: Final = (
    _mutant("NO_FENCE", "fok", "PAUSE", "HARM_ONLY"),
    _mutant("NO_VERSION", "asked", "HARM_ONLY"),
    _mutant("NO_TOKEN", "live==0", "DOUBLE_RUN_ONLY"),
    _mutant("NO_REVOKE", "live==0", "DOUBLE_RUN_ONLY"),
    _mutant("NO_NONCE", "live==0", "DOUBLE_RUN_ONLY"),
    _mutant("UNKNOWN_IS_FAILED", "job[att]", "HARM_ONLY"),
    _mutant("EVENT_WITHOUT_NAME", "job[att]", "HARM_ONLY"),
    _mutant("ACK_BEFORE_COMMIT", "queued[", "HARM_ONLY"),
    _mutant("ACT_BEFORE_PERSIST", "att==a", "HARM_ONLY"),
    _mutant("TRUST_UNBOUNDED", "trusted", "HARM_ONLY"),
    _mutant("TRUST_FROM_ANSWER", "trusted", "HARM_ONLY"),
    replace(_mutant("REVOKE_BEFORE_PERSIST", SETTLES, "QUIET_PHASE"), depth=150),
    _mutant("NO_TAKEOVER", SETTLES, "QUIET_PHASE"),
)
CASES: Final = (*RIGHT, *MUTANTS)


def complain_of_missing_tools(tools: Sequence[str] = TOOLS) -> None:
    """Raise CannotCheck if the model checker or its compiler is not installed."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        raise CannotCheck(
            f"The model check needs {' and '.join(missing)}, which this machine does not have; "
            f"install with (Debian or Ubuntu, as root): {INSTALL}"
        )


def run(case: Case, limit_s: float = 540.0) -> Result:
    """Search one case. Raises CannotCheck; a search over ``limit_s`` is cut off."""
    complain_of_missing_tools()
    with tempfile.TemporaryDirectory(prefix="lease-model-") as folder:
        _call(["spin", "-a", *case.spin_options, str(MODEL)], folder)
        _call(["gcc", *case.gcc_options, "-o", "pan", "pan.c"], folder)
        command = ["timeout", "-k", "1", str(limit_s), "./pan", *case.pan_options]
        started = time.perf_counter()  # noqa: TID251 - reported, not judged
        search = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - started  # noqa: TID251
    return Result(case, replace(parse(search.stdout), seconds=round(seconds, 2)))


def _call(command: list[str], folder: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stdout + done.stderr).strip()
        raise CannotCheck(f"{' '.join(command)} ended with {done.returncode}: {said[-2000:]}")


CUT_OFF: Final = ("Search not completed", "max search depth too small", "out of memory", "MEMLIM")


def parse(report: str) -> Figures:
    """Read what a SPIN verifier printed; a report that breaks off counts as incomplete."""
    violated = re.search(r"assertion violated (.*?) \(at depth", report)
    cycle = SETTLES if "acceptance cycle (at" in report else ""
    errors = _number(r"errors: (\d+)", report)
    ended = "errors: " in report and not any(sign in report for sign in CUT_OFF)
    return Figures(
        states=int(_number(r"([\d.e+]+) states, stored", report)),
        transitions=int(_number(r"([\d.e+]+) transitions", report)),
        depth=int(_number(r"depth reached (\d+)", report)),
        seconds=0.0,
        memory_mb=_number(r"([\d.]+)\s+total actual memory usage", report),
        errors=int(errors),
        complete=ended,
        violated=re.sub(r"\s", "", violated[1]) if violated else cycle,
        unreached=_unreached(report),
    )


def _number(pattern: str, report: str) -> float:
    found = re.search(pattern, report)
    return float(found[1]) if found else 0.0


def _unreached(report: str) -> tuple[str, ...]:
    """Loops that never end leave their ``-end-`` unreached: that is as it must be."""
    lines = re.findall(r"lease\.pml:(\d+), state \d+, \"(.*)\"", report)
    return tuple(f"line {line}: {text}" for line, text in lines if text != "-end-")


def _line(result: Result) -> str:
    found = result.figures
    says = f"breaks {found.violated}" if found.violated else "holds"
    return (
        f"{result.case.name:<34} {found.states:>10,} states {found.transitions:>12,} transitions "
        f"{found.seconds:>6.1f} s  {result.complaint or says}\n"
    )


def _json(results: Sequence[Result]) -> str:
    rows = [
        {
            "name": result.case.name,
            "daemons": result.case.daemons,
            "must_break": result.case.breaks,
            **asdict(result.figures),
            "complaint": result.complaint,
        }
        for result in results
    ]
    return json.dumps({"ok": not any(row["complaint"] for row in rows), "cases": rows}, indent=2)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.model.check", description=__doc__)
    parser.add_argument("--large", action="store_true", help="three daemons too: ten minutes, 3 GB")
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these cases only")
    parser.add_argument("--jobs", type=int, default=2, help="searches at a time")
    return parser.parse_args(argv)


def _wanted(options: argparse.Namespace) -> list[Case]:
    known = (*RIGHT, *MUTANTS, *LARGE)
    chosen = known if options.large or options.only else CASES
    if not options.only:
        return list(chosen)
    unknown = set(options.only) - {case.name for case in known}
    if unknown:
        names = ", ".join(repr(case.name) for case in known)
        raise CannotCheck(f"There is no case {sorted(unknown)[0]!r}; known are {names}.")
    return [case for case in known if case.name in options.only]


def main(argv: Sequence[str] | None = None) -> int:
    options = _arguments(argv)
    try:
        with ThreadPoolExecutor(options.jobs) as pool:
            results = list(pool.map(lambda case: run(case, 36_000.0), _wanted(options)))
    except CannotCheck as exc:
        sys.stderr.write(f"{exc}\n")
        return 2
    sys.stdout.write(_json(results) + "\n" if options.json else "".join(map(_line, results)))
    return int(any(result.complaint for result in results))


if __name__ == "__main__":
    sys.exit(main())
