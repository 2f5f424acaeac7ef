"""The parts of a support bundle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class BundlePart:
    """What one file of a bundle says."""

    name: str
    about: str
    """What it holds, as a sentence."""
    content: Any
    """What JSON has; a tuple is one line each."""


@dataclass(frozen=True, slots=True)
class Packed:
    """One file as it lies in a bundle."""

    name: str
    about: str
    data: bytes
