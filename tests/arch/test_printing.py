"""One door to the terminal: what the package prints was made printable, because nothing else can print."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.arch.repository import ROOT, python_files

PACKAGE = ROOT / "daylily_daemon"
DOORS = {
    "cli/printing.py": "the door itself",
    "telemetry.py": "log lines, through the same rules",
    "adapters/runners/shim.py": "a program of its own beside the job, which imports nothing of ours",
    "adapters/runners/enter.py": "the same, whose words go to the log of the job",
}
FORBIDDEN = frozenset(
    {"print", "Console", "echo", "secho", "echo_via_pager", "progressbar", "prompt", "pprint"}
)
STREAMS = frozenset({"stdout", "stderr", "__stdout__", "__stderr__"})
TERMINAL_LIBRARIES = {"rich": frozenset({"cli/drawing.py", "cli/layout.py"})}


def _offences(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _name(node.func) in FORBIDDEN:
            yield f"line {node.lineno}: {_name(node.func)}(...)"
        if isinstance(node, ast.Attribute) and node.attr in STREAMS and _name(node.value) == "sys":
            yield f"line {node.lineno}: sys.{node.attr}"
        if isinstance(node, ast.ImportFrom) and node.module == "sys":
            yield from (f"line {node.lineno}: {a.name}" for a in node.names if a.name in STREAMS)
        if isinstance(node, ast.Call) and _name(node.func) == "write" and _descriptor(node):
            yield f"line {node.lineno}: os.write to a standard stream"


def _name(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _descriptor(call: ast.Call) -> bool:
    first = call.args[0] if call.args else None
    return isinstance(first, ast.Constant) and first.value in (1, 2)


def _modules() -> list[Path]:
    return [path for path in python_files() if path.is_relative_to(PACKAGE)]


def test_only_one_module_prints() -> None:
    found = {
        name: offences
        for path in _modules()
        if (name := str(path.relative_to(PACKAGE))) not in DOORS
        and (offences := list(_offences(ast.parse(path.read_text()))))
    }
    assert found == {}


def test_only_the_door_and_its_layout_know_the_library_that_draws() -> None:
    for library, allowed in TERMINAL_LIBRARIES.items():
        users = {
            str(path.relative_to(PACKAGE))
            for path in _modules()
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for module in [getattr(node, "module", None), *(a.name for a in node.names)]
            if module and module.split(".")[0] == library
        }
        assert users <= allowed


@pytest.mark.parametrize(
    "line",
    [
        "print('x')",
        "typer.echo('x')",
        "rich.console.Console().print('x')",
        "sys.stdout.write('x')",
        "from sys import stderr",
        "os.write(1, b'x')",
    ],
)
def test_each_way_around_the_door_is_noticed(line: str) -> None:
    assert list(_offences(ast.parse(line)))
