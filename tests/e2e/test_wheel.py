"""What is shipped is what is tested: the built wheel, installed as the documentation says, runs a workset.

It is installed with the locked requirements into an environment of its own, and what it was built from is
removed before anything runs. Nothing of the tests' environment is on its path; moto, the only other process,
stays outside.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

from daylily_daemon.domain.model import State
from tests.arch.repository import ROOT
from tests.e2e.harness import Lab, opened
from tests.wheels import export

OPERATIONS: Final = ROOT / "docs" / "operations.md"
INSTALLING: Final = re.compile(
    r"install it with\s+the locked requirements:\n\n```sh\n(.*?)```", re.DOTALL
)
NOT_HERE: Final = re.compile(
    r"make |useradd |ln -s |systemctl |install -d -o daylily |install .*/etc/systemd/"
)
"""What takes root, and the environment with the locked setuptools: that of the tests is one."""
INSTALLED_WITHIN_S: Final = 600.0


def _as_documented(opt: Path, etc: Path) -> list[list[str]]:
    """Return the commands of the documentation, in folders of the test."""
    found = INSTALLING.search(OPERATIONS.read_text(encoding="utf-8"))
    assert found is not None
    python = shlex.quote(sys.executable)
    here = {
        "python3 -m venv": f"{python} -m venv",
        "\n.venv/bin/python": f"\n{python}",
        "/opt/daylily-daemon": shlex.quote(str(opt)),
        "/etc/daylily-daemon": shlex.quote(str(etc)),
    }
    text = found[1]
    for there, replaced in here.items():
        text = text.replace(there, replaced)
    return [shlex.split(line) for line in text.splitlines() if line and not NOT_HERE.match(line)]


@pytest.fixture(scope="module")
def installed(outside_environ: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an installation beside which there is no checkout any more."""
    folder = tmp_path_factory.mktemp("installed")
    source = export(folder / "source")
    for argv in _as_documented(folder / "opt", folder / "etc"):
        done = subprocess.run(
            argv,
            cwd=source,
            env=outside_environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=INSTALLED_WITHIN_S,
        )
        assert done.returncode == 0, f"{argv}\n{done.stdout}{done.stderr}"
    shutil.rmtree(source)
    (folder / "listing").write_text(_listing(folder / "opt"))
    return folder


def _listing(folder: Path) -> str:
    """Return all files of ``folder`` with their sizes and times."""
    found = ((path, path.lstat()) for path in sorted(folder.rglob("*")) if not path.is_dir())
    return "".join(f"{path} {stat.st_size} {stat.st_mtime_ns}\n" for path, stat in found)


LEAST: Final = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/nonexistent",
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
}
"""The environment that a service has: nothing of the tests' own."""


@pytest.fixture
def lab(installed: Path, moto_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with opened(tmp_path_factory.mktemp("lab"), moto_url) as found:
        found.outside = LEAST
        found.program = (str(installed / "opt" / "bin" / "daylily-daemon"),)
        found.configure(pipelines={"dir": "", "default": "demo"})
        yield found


@pytest.mark.timeout(INSTALLED_WITHIN_S)
def test_the_installed_wheel_runs_a_workset_from_drop_to_results(lab: Lab) -> None:
    assert lab.run_cli("--version").stdout.strip()
    checked = lab.run_cli("check-config", "--json")
    assert checked.json["control.bucket"]["value"] == lab.bucket
    assert lab.run_cli("init", "--create-bucket").code == 0
    assert lab.run_cli("init").words == "Everything is there already."
    lab.start()
    name = lab.drop_sample("HG002-run7")
    done = lab.wait_for(name, State.COMPLETE)
    lab.wait_paid(name)
    assert done.run is not None
    assert done.run.reports["reads"] == 20
    assert lab.run_cli("status").code == 0
    assert lab.run_cli("logs", name, "--step", "run").code == 0
    assert lab.daemons[-1].terminate() == 0


def test_nothing_of_the_tests_is_on_its_path(lab: Lab, installed: Path) -> None:
    python = installed / "opt" / "bin" / "python"
    code = "import sys, daylily_daemon as d; print(d.__file__, *sys.path[1:], sep='\\n')"
    environ, here = lab.environment(), lab.folder
    told = subprocess.run(
        (str(python), "-c", code), cwd=here, env=environ, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert Path(told[0]).is_relative_to(installed / "opt")
    assert [line for line in told if line.startswith(str(ROOT))] == []


def test_every_module_but_those_of_the_demo_can_be_imported(lab: Lab, installed: Path) -> None:
    """A module that needs what only the tests have would otherwise be noticed on a head node."""
    code = """
import importlib, pkgutil, daylily_daemon
names = [m.name for m in pkgutil.walk_packages(daylily_daemon.__path__, "daylily_daemon.")]
for name in names:
    if name not in ("daylily_daemon.__main__", "daylily_daemon.cli.emulator"):
        importlib.import_module(name)
print(len(names))
"""
    python = str(installed / "opt" / "bin" / "python")
    told = subprocess.run(
        (python, "-c", code),
        cwd=lab.folder,
        env=lab.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.stderr == ""
    assert int(told.stdout) > 50


def test_the_example_of_the_settings_is_the_one_to_be_edited(lab: Lab, installed: Path) -> None:
    """As installed it names secrets that are not there: those are problems, and nothing else is."""
    refused = lab.run_cli("check-config", "--config", str(installed / "etc" / "config.yaml"))
    assert refused.code == 2
    problems = [line for line in refused.stderr.splitlines() if line.startswith("- ")]
    assert problems
    assert [problem for problem in problems if "notifications." not in problem] == []


@pytest.mark.reported("G", "an installation that cannot be written to (pyre#69, pyfar#499)")
def test_nothing_that_ran_wrote_into_the_installation(lab: Lab, installed: Path) -> None:
    assert lab.run_cli("check-config").code == 0
    assert _listing(installed / "opt") == (installed / "listing").read_text()
