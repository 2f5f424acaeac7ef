"""One name, one meaning: no two classes of the package are called the same."""

from __future__ import annotations

import ast
from collections import defaultdict

from tests.arch.repository import ROOT

PACKAGE = ROOT / "daylily_daemon"


def classes_in(text: str) -> list[str]:
    """Return the names of all classes; one that is private means something too."""
    tree = ast.parse(text)
    return [node.name.lstrip("_") for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]


def test_no_class_name_means_two_things() -> None:
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        for name in classes_in(path.read_text(encoding="utf-8")):
            found[name].append(str(path.relative_to(PACKAGE)))
    assert {name: places for name, places in found.items() if len(places) > 1} == {}


def test_a_private_class_counts_as_one_of_its_name() -> None:
    assert classes_in("class _Row: ...\nclass Row: ...\n") == ["Row", "Row"]
