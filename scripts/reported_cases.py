"""The table of cases from public reports: read from the markers of the tests, which say what came of each.

    @pytest.mark.reported("A", "a moved state directory (nomad#632)")
    def test_a_job_whose_folder_is_gone_is_never_started_again() -> None: ...

The first argument is one of ``KINDS``, the second names the case and where it was reported. A test may have
several markers, and ``pytest.param(..., marks=pytest.mark.reported(...))`` counts for the test it is in.
Run as a program, this prints the table of the checkout that it is given.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

KINDS: Final[Mapping[str, str]] = {
    "A": "Something runs twice, or is lost",
    "B": "One thing stops everything",
    "C": "Who may do what with whose data",
    "D": "Accepted, then wrong",
    "E": "People are told something else than the truth",
    "F": "The tests themselves",
    "G": "What is shipped is not what is tested",
}


@dataclass(frozen=True, slots=True, order=True)
class Case:
    kind: str
    case: str
    result: str
    """What the name of the test says."""
    test: str
    """``file::test`` under ``tests/``."""


def cases(root: Path) -> list[Case]:
    """Return the cases of all tests under ``root``/tests. Raises ValueError where a marker cannot be read."""
    tests = root / "tests"
    return sorted(case for file in sorted(tests.rglob("test_*.py")) for case in _of(file, tests))


def _of(file: Path, tests: Path) -> Iterator[Case]:
    text = file.read_text(encoding="utf-8")
    if ".reported(" not in text:
        return
    name = file.relative_to(tests).as_posix()
    calls = {call.lineno for call in ast.walk(ast.parse(text)) if _is_marker(call)}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for decorator in node.decorator_list:
                for call in filter(_is_marker, ast.walk(decorator)):
                    calls.discard(call.lineno)
                    yield _case(call, node.name, f"{name}::{node.name}")
    if calls:
        raise ValueError(
            f"tests/{name}, line {min(calls)}: a reported case stands in the decorators of its test."
        )


def _is_marker(node: ast.AST) -> bool:
    is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    return is_call and node.func.attr == "reported"


def _case(call: ast.Call, function: str, test: str) -> Case:
    values = [argument.value for argument in call.args if isinstance(argument, ast.Constant)]
    if len(values) != 2 or len(call.args) != 2 or values[0] not in KINDS:
        kinds = ", ".join(KINDS)
        raise ValueError(
            f"tests/{test}: write reported(KIND, CASE) with two literal strings; KIND is one of {kinds}."
        )
    result = function.removeprefix("test_").replace("_", " ")
    return Case(str(values[0]), str(values[1]), result, test)


def table(root: Path) -> str:
    """Return one table a kind that has cases."""
    found = cases(root)
    parts = []
    for kind, heading in KINDS.items():
        rows = [case for case in found if case.kind == kind]
        if rows:
            lines = [f"| {_cell(c.case)} | {_cell(c.result)} | `{c.test}` |" for c in rows]
            head = ["| case | result | test |", "|---|---|---|"]
            parts.append("\n".join([f"### {kind}. {heading}", "", *head, *lines]))
    return "\n\n".join(parts)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    try:
        sys.stdout.write(table(Path(sys.argv[1])))
    except ValueError as error:
        sys.exit(str(error))
