"""What became of the mutants, read from mutmut's state, and the reasons why some live on.

A mutant is named by where it is and what it changes, not by mutmut's number, which moves with every edit:
``domain.routing route: `if a < b:` => `if a <= b:```.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import ndiff
from pathlib import Path
from typing import Final

from mutmut.mutation.data import MutantLineSpans, SourceFileMutationData
from mutmut.mutation.diff_apply import generated_function_names
from mutmut.utils.file_utils import walk_mutatable_files
from mutmut.utils.format_utils import orig_function_and_class_names_from_key

REASONS: Final = Path(__file__).with_name("reasons.toml")
BARS: Final = {"domain": 90.0, "engine": 80.0}  # % noticed
_FAILED: Final = frozenset({1, 3})
_TIMED_OUT: Final = frozenset({-24, 24, 36, 152, 255})
_REFUSED: Final = frozenset({37})
_PASSED: Final = frozenset({0, 5, 33})
"""5 and 33: no test reaches it."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts of mutants of one module, or of many."""

    name: str
    refused: int = 0
    """By mypy, without which nothing is merged: no test is asked."""
    killed: int = 0
    timed_out: int = 0
    lived: int = 0
    left: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.name,
            self.refused + other.refused,
            self.killed + other.killed,
            self.timed_out + other.timed_out,
            self.lived + other.lived,
            self.left + other.left,
        )

    @property
    def played(self) -> int:
        """Return how many were judged by tests."""
        return self.killed + self.timed_out + self.lived

    @property
    def rate(self) -> float:
        """Return the share of these that tests noticed, in percent; what never ends is noticed."""
        return 100.0 * (self.killed + self.timed_out) / self.played if self.played else 100.0

    def __str__(self) -> str:
        left = f"{self.left:,}" if self.left else ""
        rate = f"{self.rate:.1f} %" if self.played else "-"
        counts = f"{self.killed:,} | {self.timed_out:,} | {self.lived:,} | {left}"
        return f"| {self.name} | {self.refused:,} | {self.played:,} | {counts} | {rate} |"


@dataclass(frozen=True, slots=True)
class Module:
    tally: Tally
    lived: tuple[str, ...]
    """The mutants nothing noticed, by the name described above."""


def read(only: frozenset[str] | None) -> list[Module]:
    """Read the state in the current folder, of these sources only; modules without a mutant are left out."""
    paths = [path for path in walk_mutatable_files() if only is None or str(path) in only]
    return [module for path in sorted(paths) if (module := _module(path)).tally != _empty(path)]


def _module(path: Path) -> Module:
    data = SourceFileMutationData(path=path)
    data.load()
    codes = data.exit_code_by_key
    lived = [name for name, code in codes.items() if code in _PASSED]
    killed = sum(code in _FAILED for code in codes.values())
    timed_out = sum(code in _TIMED_OUT for code in codes.values())
    refused = sum(code in _REFUSED for code in codes.values())
    left = len(codes) - refused - killed - timed_out - len(lived)
    tally = Tally(_name(path), refused, killed, timed_out, len(lived), left)
    return Module(tally, tuple(sorted({*_described(path, lived)})))


def _empty(path: Path) -> Tally:
    return Tally(_name(path))


def _name(path: Path) -> str:
    return ".".join(path.with_suffix("").parts[1:])


def _described(path: Path, mutants: Iterable[str]) -> Iterator[str]:
    spans = MutantLineSpans.load(path)
    if spans is None:
        return
    for mutant in mutants:
        original, mutated = generated_function_names(mutant)
        before, after = spans.read_function_sources([original, mutated])
        name, owner = orig_function_and_class_names_from_key(mutant)
        place = f"{owner}.{name}" if owner else name
        change = _change(before.replace(original, name), after.replace(mutated, name))
        yield f"{_name(path)} {place}: {change}"


def _change(before: str, after: str) -> str:
    lines = [line for line in ndiff(before.splitlines(), after.splitlines()) if line[0] in "-+"]
    old = " ".join(line[2:].strip() for line in lines if line[0] == "-")
    new = " ".join(line[2:].strip() for line in lines if line[0] == "+")
    return f"`{old}` => `{new}`" if new else f"without `{old}`"


def reasons() -> dict[str, str]:
    """Return why each mutant lives. A name that ends with ``*`` stands for all that begin with it."""
    listed = tomllib.loads(REASONS.read_text(encoding="utf-8"))["reason"]
    return {name: entry["why"] for entry in listed for name in entry["mutants"]}


def unexplained(modules: Iterable[Module], why: Mapping[str, str]) -> list[str]:
    return [name for module in modules for name in module.lived if not _covers(why, name)]


def _covers(names: Iterable[str], mutant: str) -> bool:
    return any(_covered(name, mutant) for name in names)


def _covered(name: str, mutant: str) -> bool:
    return mutant.startswith(name[:-1]) if name.endswith("*") else mutant == name


def stale(modules: Iterable[Module], why: Mapping[str, str]) -> list[str]:
    """Return the reasons for what is noticed by now, or is no more; of modules played to the end."""
    over = [module for module in modules if not module.tally.left]
    known = {module.tally.name for module in over}
    lived = [mutant for module in over for mutant in module.lived]
    of_these = [name for name in why if name.partition(" ")[0] in known]
    return [name for name in of_these if not any(_covered(name, mutant) for mutant in lived)]


def layer(name: str, modules: Iterable[Module]) -> Tally:
    of_it = (module.tally for module in modules if module.tally.name.startswith(f"{name}."))
    return sum(of_it, Tally(f"**{name}**"))
