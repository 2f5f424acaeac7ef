"""What the program imports and says of itself agrees with what its package declares."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib.metadata import entry_points, packages_distributions, version
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from daylily_daemon import __main__ as program
from tests.arch.repository import ROOT, python_files

OURS = "daylily_daemon"
EXTRAS = {"daylily_daemon/cli/emulator.py": "demo"}
"""Modules that need more than what every installation has."""


@cache
def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return found


def modules() -> tuple[Path, ...]:
    return tuple(path for path in python_files() if path.is_relative_to(ROOT / OURS))


def imported(path: Path) -> set[str]:
    """Return the first names of all modules that ``path`` imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - {OURS}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=~!; ]", name)[0]).lower()


def declared(extra: str | None) -> set[str]:
    more = project()["optional-dependencies"][extra] if extra else []
    return {normal(requirement) for requirement in chain(project()["dependencies"], more)}


@pytest.mark.reported("G", "imports that only came with others' requirements (CodeBoarding#502)")
@pytest.mark.reported("G", "a dependency that only the developers had (fastmcp#2989, pip-run#49)")
def test_every_package_that_is_imported_is_declared() -> None:
    brought_by = packages_distributions()
    missing = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in modules()
        for name in imported(path)
        if not {normal(package) for package in brought_by.get(name, ())}
        & declared(EXTRAS.get(path.relative_to(ROOT).as_posix()))
    }
    assert missing == set()
    assert "botocore" in set().union(*map(imported, modules()))


@pytest.mark.reported("G", "assertions that python -O leaves out (flask-security#1261, taosmd#100)")
def test_no_check_of_the_program_is_an_assertion() -> None:
    found = [
        f"{path.relative_to(ROOT)}, line {node.lineno}"
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Assert) or (isinstance(node, ast.Name) and node.id == "__debug__")
    ]
    assert found == []


@pytest.mark.reported("G", "assertions that python -O leaves out (flask-security#1261, taosmd#100)")
@pytest.mark.parametrize("option", ["-O", "-OO"])
def test_an_optimised_program_says_and_refuses_the_same(option: str) -> None:
    def said(*options: str) -> tuple[int, str, str]:
        argv = (sys.executable, *options, "-m", OURS, "check-config", "--set", "control.bucket=x")
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    assert said(option) == said()
    assert said(option)[0] == 2


@pytest.mark.reported("G", "a release that says it is the one before (stcgal#90, Termstory#340)")
@pytest.mark.reported("G", "metadata and program name two versions (scTenifoldpy#26)")
def test_there_is_one_version_and_the_program_says_it() -> None:
    wanted = project()["version"]
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    argv = (sys.executable, "-m", OURS, "--version")
    told = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    assert [headings[0], told, version("daylily-daemon")] == [wanted] * 3
    texts = {path: path.read_text(encoding="utf-8") for path in modules()}
    assert [path.name for path, text in texts.items() if f'"{wanted}"' in text] == []


def test_the_command_that_is_installed_is_the_program() -> None:
    (command,) = entry_points(group="console_scripts", name="daylily-daemon")
    assert project()["scripts"] == {"daylily-daemon": command.value}
    assert command.load() is program.main
