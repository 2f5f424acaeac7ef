"""Expressions of PromQL, held against the figures that the daemon has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from daylily_daemon.figures import DESCRIBED, HISTOGRAMS

OF_THE_SCRAPE: Final = frozenset({"job", "instance"})
"""Labels that Prometheus itself puts to each series."""


def unknown_names(expression: str) -> set[str]:
    """Return what looks like one of our metrics, or a label of one, and is none."""
    labels = {one.name: {*one.labels} for one in DESCRIBED}
    for name in HISTOGRAMS:
        parts = {f"{name}_{part}": {*labels[name]} for part in ("sum", "count")}
        labels |= {**parts, f"{name}_bucket": {*labels[name], "le"}}
    names = set(re.findall(r"\bdaylily_\w+", expression))
    known = {label for name in names & labels.keys() for label in labels[name]}
    used = set(used_labels(expression)) - OF_THE_SCRAPE
    return (names - labels.keys()) | (used - known if names else set())


def used_labels(expression: str) -> Iterator[str]:
    """Yield the labels that an expression asks for or groups by."""
    yield from re.findall(r"[{,]\s*(\w+)\s*[=!]", expression)
    for grouped in re.findall(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)", expression):
        yield from filter(None, re.split(r"\W+", grouped))
