"""How a bug is planted: one piece of the program is replaced for as long as a play lasts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

Planted = Callable[[], AbstractContextManager[Any]]
Places = list[tuple[object, str, Any]]
"""Owner, attribute, and what is put there."""


@dataclass(frozen=True)
class Mutant:
    name: str
    bug: str
    plant: Planted
    shown_by: tuple[str, ...] = ()
    """Troubles that show it; the others are not even tried."""


@contextmanager
def put(*places: tuple[object, str, Any]) -> Iterator[None]:
    """Replace attributes for as long as the body runs."""
    with ExitStack() as stack:
        for owner, name, value in places:
            stack.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, value)
        yield


MUTANTS: list[Mutant] = []


def mutant(bug: str, *shown_by: str) -> Callable[[Callable[[], Places]], None]:
    def add(places: Callable[[], Places]) -> None:
        MUTANTS.append(Mutant(places.__name__, bug, lambda: put(*places()), shown_by))

    return add
