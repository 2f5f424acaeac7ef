"""The wheel holds all that the program opens or imports, and nothing of the tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.arch.repository import ROOT, files
from tests.wheels import LINKED, build, export

PACKAGE = "daylily_daemon"


def _named(wheel: Path) -> set[str]:
    with ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def _expected() -> set[str]:
    """Return every module, and every file under ``config/`` where the package looks for it."""
    names = {path.relative_to(ROOT).as_posix() for path in files()}
    modules = {name for name in names if name.startswith(f"{PACKAGE}/") and name.endswith(".py")}
    return modules | {
        f"{LINKED}/{name.removeprefix('config/')}" for name in names if name.startswith("config/")
    }


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tmp_path_factory.mktemp("wheel") / "a checkout")


@pytest.mark.reported("G", "settings files that the wheel lacks (pyramids#163, rllm#712)")
@pytest.mark.reported(
    "G", "a wheel that brings a package called tests (pylint-protobuf#60, portalocker#56)"
)
def test_the_wheel_holds_every_module_and_every_file_of_config_and_no_more(
    source: Path, tmp_path: Path
) -> None:
    assert _named(build(source, tmp_path, os.environ)) == _expected()


def test_the_package_has_no_file_that_no_wheel_would_carry() -> None:
    inside = {path for path in files() if path.is_relative_to(ROOT / PACKAGE)}
    assert {path.name for path in inside if path.suffix != ".py"} == set()


def test_a_wheel_built_from_an_unpacked_source_distribution_is_the_same(
    source: Path, tmp_path: Path
) -> None:
    """A source distribution has no links: what was one is a folder there."""
    copy = tmp_path / "unpacked"
    shutil.copytree(source, copy, symlinks=False)
    assert _named(build(copy, tmp_path / "dist", os.environ)) == _expected()


@pytest.mark.reported(
    "G", "a source distribution without what its build needs (lumin#32, pywbem#2150)"
)
def test_a_wheel_built_from_a_real_source_distribution_is_the_same(
    source: Path, tmp_path: Path
) -> None:
    checkout = shutil.copytree(source, tmp_path / "checkout", symlinks=True)
    code = "import sys; from setuptools import build_meta as b; b.build_sdist(sys.argv[1])"
    argv = (sys.executable, "-c", code, str(tmp_path))
    subprocess.run(argv, cwd=checkout, capture_output=True, check=True)
    (archive,) = tmp_path.glob("*.tar.gz")
    (tmp_path / "unpacked").mkdir()
    subprocess.run(("tar", "-xzf", str(archive), "-C", str(tmp_path / "unpacked")), check=True)
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    assert _named(build(unpacked, tmp_path / "dist", os.environ)) == _expected()


@pytest.mark.reported(
    "G", "links that were checked out as text (cargo#14994, checker-framework#1271)"
)
def test_a_checkout_that_came_without_its_links_finds_its_settings_too(
    source: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "unlinked"
    shutil.copytree(source, copy, symlinks=True)
    (copy / LINKED).unlink()
    (copy / LINKED).write_text("../config")
    code = "from daylily_daemon.settings.sources import shipped; print(shipped('default.yaml').read_text())"
    argv, environ = (sys.executable, "-c", code), os.environ | {"PYTHONPATH": str(copy)}
    told = subprocess.run(argv, cwd=copy, env=environ, capture_output=True, text=True, check=True)
    assert "min_free_gb" in told.stdout
