"""Rules of design.md sections 8 and 11 that a person would otherwise have to watch."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

from tests.arch.repository import ROOT, files, python_files

BANNED_NAMES = frozenset({"common", "helper", "helpers", "manager", "managers", "util", "utils"})
MOCK_LIBRARIES = frozenset({"mock", "pytest_mock", "unittest.mock"})
LINES_BELOW = 500
REGISTRY_HOST = re.compile(
    r"pypi\.org|pythonhosted\.org|npmjs\.(org|com)|yarnpkg\.com|crates\.io"
    r"|(deb|security|archive)\.(debian|ubuntu)\.(org|com)"
)
# At the start of a path only: s3://bucket/work/x is nobody's machine.
MACHINE_PATH = re.compile(r"(?<![\w.:/*}-])(/(work|farm|root)/|/tmp/[a-z_]+/|/opt/(pypi|wheels))")


def _lines_matching(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in files()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1)
        if pattern.search(line)
    ]


def _imported_modules(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(), filename=str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_imports_point_down(capsys: pytest.CaptureFixture[str]) -> None:
    status = lint_imports(
        config_filename=str(ROOT / "pyproject.toml"), cache_dir=None, no_cache=True, no_logo=True
    )
    assert status == EXIT_STATUS_SUCCESS, capsys.readouterr().out


def test_nothing_is_mocked() -> None:
    assert [
        str(path.relative_to(ROOT))
        for path in python_files()
        if not MOCK_LIBRARIES.isdisjoint(_imported_modules(path))
    ] == []


def test_no_module_has_a_name_that_says_nothing() -> None:
    named = (path.relative_to(ROOT) for path in python_files())
    assert [str(path) for path in named if BANNED_NAMES & {path.stem, *path.parent.parts}] == []


def test_every_python_file_is_short() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in python_files()}
    assert {str(p.relative_to(ROOT)): n for p, n in lengths.items() if n >= LINES_BELOW} == {}


def test_no_file_names_the_host_of_a_registry() -> None:
    assert _lines_matching(REGISTRY_HOST) == []


def test_no_file_names_a_path_of_one_machine() -> None:
    assert _lines_matching(MACHINE_PATH) == []
