"""What docs/reliability.md lists of the simulation: kinds of trouble and knobs, read from tests/sim."""

from __future__ import annotations

import ast
from pathlib import Path


def troubles(root: Path) -> str:
    """Return a list of what may befall a simulated world: the docstrings of tests/sim/troubles.py."""
    found = [
        f"| `{node.name}` | {_first_line(node)} |\n"
        for node in _tree(root, "troubles").body
        if isinstance(node, ast.FunctionDef) and _is_trouble(node)
    ]
    return "".join(["| trouble | what happens |\n", "|---|---|\n", *found])


def _is_trouble(node: ast.FunctionDef) -> bool:
    names = [argument.arg for argument in node.args.args]
    return names == ["sim", "wire"] and not node.name.startswith("_")


def _first_line(node: ast.FunctionDef) -> str:
    return (ast.get_docstring(node) or "").split("\n", 1)[0]


def knobs(root: Path) -> str:
    """Return what a seed draws its knobs from: the table in tests/sim/knobs.py."""
    for node in _tree(root, "knobs").body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "CHOICES":
            choices = ast.literal_eval(node.value or ast.Constant({}))
            return "".join(["| knob | drawn from |\n", "|---|---|\n", *_rows(choices)])
    raise ValueError("tests/sim/knobs.py has no table CHOICES.")


def _rows(choices: dict[str, tuple[object, ...]]) -> list[str]:
    sets = {name: ", ".join(dict.fromkeys(map(str, values))) for name, values in choices.items()}
    return [f"| `{name}` | {values} |\n" for name, values in sets.items()]


def _tree(root: Path, module: str) -> ast.Module:
    file = root / "tests" / "sim" / f"{module}.py"
    return ast.parse(file.read_text(encoding="utf-8"))
