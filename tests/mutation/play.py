"""Play mutants with mutmut: within a budget of time, from where the last run stopped.

mutmut works in the current folder and keeps its state under ``mutants/`` there. That folder is
``.cache/mutation``, with a link to everything that lies in the checkout.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import resource
import shutil
import subprocess
import sys
import time
import zlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NoReturn

import structlog
from hypothesis import Phase, settings
from mutmut import __main__ as mutmut
from mutmut.configuration import config
from mutmut.mutation.data import MutantLineSpans, SourceFileMutationData
from mutmut.mutation.file_mutation import FailedTypeCheckMutant, MutatedMethodLocation
from mutmut.runners.harness import PytestRunner
from mutmut.state import state
from mutmut.type_checking import run_type_checker
from mutmut.utils.file_utils import change_cwd, walk_mutatable_files
from mutmut.utils.format_utils import get_mutant_name
from mutmut.workers.isolation import ForkRunner

from tests.arch.repository import ROOT, files
from tests.mutation import rules

PLACE: Final = ROOT / ".cache" / "mutation"
TESTS_S: Final = {"domain": 4.0, "engine": 12.0}
"""For one mutant, by how long they took on the unchanged program; those of the engine play whole daemons."""
LONGEST_S: Final = 4.0
SHORTER: Final = {"SEEDS": "2"}
TIMEOUT_FACTOR: Final = 4.0
MEMORY_BYTES: Final = 4 << 30
BASE: Final = "origin/main"
_FAIL_FAST: Final = (Phase.explicit, Phase.generate, Phase.target)
_KILLED: Final = frozenset({1, 3})
REFUSED: Final = 37
"""The code of a mutant that the type checker refuses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    minutes: float
    processes: int
    only: frozenset[str] | None = None
    """Paths of the sources whose mutants are played; None for all."""


class NearestTests(ForkRunner):
    """Judges a mutant by the tests that come nearest to it, and stops when the budget is used up."""

    def __init__(self, budget: Budget) -> None:
        super().__init__(max_workers=budget.processes, test_runner=PytestRunner())
        self._budget = budget
        self._measured = False

    @cached_property
    def _breadths(self) -> Counter[str]:
        """How many functions each test reaches: the fewer, the more it is about any one of them."""
        reached = state().tests_by_mangled_function_name.values()
        return Counter(test for tests in reached for test in tests)

    @cached_property
    def _ends_at(self) -> float:
        return _now_s() + self._budget.minutes * 60

    def collect_stats(self, tests: Iterable[str] | None) -> int:
        self._measured = not tests
        return super().collect_stats(tests)

    def run_clean_tests(self, tests: Iterable[str]) -> int:
        """Spare what is known of this program: its tests passed when mutmut measured what they reach."""
        file, now = (
            PLACE / "passed.sha256",
            _digest(*_sources(ROOT / "daylily_daemon")),
        )
        passed = self._measured or (file.exists() and file.read_text() == now)
        code = 0 if passed else super().run_clean_tests(tests)
        if code == 0:
            file.write_text(now)
        return code

    def submit(
        self, mutant_name: str, tests: list[str], cpu_time_limit: int, estimated_time: float
    ) -> None:
        if _now_s() > self._ends_at:
            raise KeyboardInterrupt  # which mutmut takes between two mutants, and keeps what it has
        nearest = list(self._nearest(tests, TESTS_S[mutant_name.split(".")[1]]))
        seconds = sum(map(self._seconds, nearest))
        limit_s = int((seconds + 2) * TIMEOUT_FACTOR)
        super().submit(mutant_name, nearest, limit_s, seconds)

    def _nearest(self, tests: Iterable[str], left_s: float) -> Iterator[str]:
        for test in sorted(tests, key=lambda name: (self._breadths[name], name)):
            if self._seconds(test) <= min(left_s, LONGEST_S):
                left_s -= self._seconds(test)
                yield test

    def _seconds(self, test: str) -> float:
        return state().duration_by_test[test] + 0.001


def _now_s() -> float:
    return time.monotonic()  # noqa: TID251 - no loop runs here


def changed_since(base: str) -> frozenset[str]:
    """Return what differs from the commit at which this branch left ``base``, in the working tree too.

    Where there is no ``base``, in a clone of something else, what differs from the last commit.
    """
    known = _git("for-each-ref", f"refs/remotes/{base}")
    fork = _git("merge-base", base, "HEAD").strip() if known else "HEAD"
    new = _git("ls-files", "--others", "--exclude-standard")
    return frozenset([*_git("diff", "--name-only", fork).split(), *new.split()])


def _git(*arguments: str) -> str:
    done = subprocess.run(("git", *arguments), cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout


def play(budget: Budget, *, afresh: bool) -> None:
    """Play what was not played yet. Raises SystemExit if the tests fail on the unchanged program."""
    made_by, now = PLACE / "rules.sha256", _digest(Path(rules.__file__))
    if afresh or not made_by.exists() or made_by.read_text() != now:
        shutil.rmtree(PLACE, ignore_errors=True)
    _lay_out()
    made_by.write_text(now)
    os.chdir(PLACE)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    os.environ.update(SHORTER, PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    settings.register_profile("mutation", settings.get_profile("ci"), phases=_FAIL_FAST)
    structlog.configure(processors=[_drop])
    rules.install()
    _forget_modules()
    with _tests_compared():
        vars(mutmut)["get_mutant_runner"] = lambda _: NearestTests(budget)
        vars(mutmut)["filter_mutants_with_type_checker"] = _refused_by_mypy
        vars(mutmut)["estimated_worst_case_time"] = _lot
        vars(mutmut)["collect_source_file_mutation_data"] = _within(budget)
        mutmut._run((), budget.processes)


def _drop(*event: object) -> NoReturn:
    """Drawing the traceback of a log event takes longer than a test."""
    raise structlog.DropEvent


def _forget_modules() -> None:
    """The tests that judge are those beside the mutants, and import these."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
        del sys.modules[name]


def _refused_by_mypy() -> dict[str, FailedTypeCheckMutant]:
    """Return what the type checker lets nobody merge; parsing all mutants to find it takes minutes."""
    with change_cwd("mutants"):
        errors = run_type_checker(config().type_check_command)
    refused: dict[str, FailedTypeCheckMutant] = {}
    spans: dict[Path, list[tuple[int, int, str]]] = {}
    for error in errors:
        path = error.file_path.relative_to(Path("mutants").absolute())
        lines = spans.setdefault(path, sorted(_lines_of(path)))
        start, end, name = lines[max(0, bisect_right(lines, (error.line_number, math.inf)) - 1)]
        if start <= error.line_number <= end and "__mutmut_orig" not in name:
            place = MutatedMethodLocation(path, name, start, end)
            mutant = get_mutant_name(path, name)
            refused[mutant] = FailedTypeCheckMutant(place, mutant, error)
    _forget_results(lambda mutant, code: (code == REFUSED) != (mutant in refused))
    return refused


def _lines_of(path: Path) -> Iterator[tuple[int, int, str]]:
    index = MutantLineSpans.load(path)
    for name, span in index.span_by_function_name.items() if index else ():
        yield span.start, span.end, name


def _lot(mutant: str) -> float:
    """Return a mutant's place in the order of playing, so that any first part of them is a fair sample."""
    return float(zlib.crc32(mutant.encode()))


def _within(budget: Budget) -> Any:
    collect = mutmut.collect_source_file_mutation_data

    def collected(*, mutant_names: tuple[str, ...]) -> tuple[list[Any], dict[str, Any]]:
        mutants, by_path = collect(mutant_names=mutant_names)
        wanted = [one for one in mutants if budget.only is None or str(one[0].path) in budget.only]
        return wanted, by_path

    return collected


def _lay_out() -> None:
    """Link what the checkout holds; copies of tests that are gone must not be played."""
    PLACE.mkdir(parents=True, exist_ok=True)
    for link in filter(Path.is_symlink, PLACE.iterdir()):
        link.unlink()
    for name in {path.relative_to(ROOT).parts[0] for path in files()}:
        (PLACE / name).symlink_to(ROOT / name)
    shutil.rmtree(PLACE / "mutants" / "tests", ignore_errors=True)
    _drop_what_is_torn()


def _drop_what_is_torn() -> None:
    """mutmut writes its files in place: one that a kill has torn is as good as none, with its mutants."""
    for file in (
        *PLACE.glob("*.json"),
        *PLACE.glob("mutants/*.json"),
        *PLACE.glob("mutants/**/*.py.meta"),
    ):
        try:
            json.loads(file.read_text())
        except ValueError:
            file.unlink()
            file.with_suffix("").unlink(missing_ok=True)


@contextmanager
def _tests_compared() -> Iterator[None]:
    """Play again what lived if the tests are others by now, and measure anew what the changed ones reach."""
    file = PLACE / "tests.json"
    before = json.loads(file.read_text()) if file.exists() else {}
    now = {str(path.relative_to(ROOT)): _digest(path) for path in _sources(ROOT / "tests")}
    changed = {name for name in before.keys() | now.keys() if before.get(name) != now.get(name)}
    if changed:
        _forget_what_they_reach(changed)
        _forget_what_lived()
    file.write_text(json.dumps(now))
    yield


def _sources(*folders: Path) -> set[Path]:
    sources = {path for folder in folders for path in folder.rglob("*.py")}
    return sources - set(Path(__file__).parent.iterdir())


def _digest(*paths: Path) -> str:
    found = hashlib.sha256()
    for path in sorted(paths):
        found.update(path.read_bytes())
    return found.hexdigest()


def _forget_what_they_reach(files: Set[str]) -> None:
    """Let mutmut measure the tests of these files as new ones; of all, if it is no file of tests alone."""
    stats = Path("mutants/mutmut-stats.json")
    if not stats.exists():
        return
    if not all(Path(name).name.startswith("test_") for name in files):
        stats.unlink()
        return
    known = json.loads(stats.read_text())
    reached = known["tests_by_mangled_function_name"]
    known["tests_by_mangled_function_name"] = {
        function: [test for test in tests if test.partition("::")[0] not in files]
        for function, tests in reached.items()
    }
    known["duration_by_test"] = {
        test: seconds
        for test, seconds in known["duration_by_test"].items()
        if test.partition("::")[0] not in files
    }
    stats.write_text(json.dumps(known))


def _forget_what_lived() -> None:
    _forget_results(lambda mutant, code: code not in _KILLED)


def _forget_results(is_stale: Callable[[str, int | None], bool]) -> None:
    for path in walk_mutatable_files():
        data = SourceFileMutationData(path=path)
        data.load()
        known = data.exit_code_by_key
        data.exit_code_by_key = {
            name: None if is_stale(name, code) else code for name, code in known.items()
        }
        if data.exit_code_by_key != known:
            data.save()
