"""Tables that must have a line for every member of a kind, looked at when they are made.

A ``match`` that ends in ``assert_never`` is watched by the type checker; a table is not, and without this a
member that nobody thought of would be a KeyError at night.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


def total(name: str, table: Mapping[K, V], members: Collection[K]) -> Mapping[K, V]:
    """Return ``table``. Raises TypeError, which stops the import, where its keys are not ``members``."""
    missing = [str(member) for member in members if member not in table]
    unknown = [str(key) for key in table if key not in members]
    if missing:
        raise TypeError(f"{name} has no line for {', '.join(missing)}. Add what is to happen then.")
    if unknown:
        raise TypeError(f"{name} has a line for {', '.join(unknown)}, which is unknown.")
    return table
